//! Promises of every plan, on random models and on a usual one.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::gguf::{Block, GgmlType, Metadata, Place, Stack, TensorInfo};
use crate::plan::{ContextCost, Cost, Placed, Rates, StreamMode, Tier, Touched, estimate};
use crate::units::{GIB, KIB, MIB, Rate};

/// A model of blocks whose tensors have these roles and sizes.
pub(in crate::plan) fn model(blocks: &[Vec<(&str, Bytes)>]) -> Index {
    let mut index = Index {
        files: Vec::new(),
        metadata: Metadata::default(),
        tensors: Vec::new(),
        blocks: Vec::new(),
        heads: Vec::new(),
        left_out: 0,
    };
    let mut offset = 0;
    let mut add = |index: &mut Index, name: String, len: Bytes, place: Place| {
        let ty = GgmlType(0);
        let shape = if name.contains("norm") { vec![1] } else { vec![1, 1] };
        index.tensors.push(TensorInfo { name, ty, shape, file: 0, offset, len, place });
        offset += len.0;
        index.tensors.len() - 1
    };
    add(&mut index, "token_embd.weight".into(), MIB * 100, Place::Embedding);
    add(&mut index, "output.weight".into(), MIB * 100, Place::Output);
    for (tensors, number) in blocks.iter().zip(0..) {
        let place = Place::Block(Stack::Main, number);
        let name = |role| format!("blk.{number}.{role}");
        let len = tensors.iter().map(|t| t.1).sum();
        let tensors =
            tensors.iter().map(|&(role, len)| add(&mut index, name(role), len, place)).collect();
        index.blocks.push(Block { stack: Stack::Main, number, tensors, len });
    }
    index
}

/// Blocks of 100 MiB and a little.
fn usual(n: usize) -> Index {
    model(&vec![
        vec![
            ("attn_norm.weight", Bytes(4096)),
            ("attn_q.weight", MIB * 10),
            ("attn_output.weight", MIB * 20),
            ("ffn_gate.weight", MIB * 20),
            ("ffn_up.weight", MIB * 20),
            ("ffn_down.weight", MIB * 30),
        ];
        n
    ])
}

fn needs() -> Needs {
    let bytes = [[MIB * 10, MIB * 100], [MIB * 80, MIB * 400]];
    Needs {
        process: MIB * 50,
        context: ContextCost { ctx: [256, 4096], ubatch: [32, 2048], bytes },
        read_ahead: MIB * 16,
        gpu: None,
    }
}

fn wish(ram: Bytes) -> Wish {
    Wish {
        stream: StreamMode::Auto,
        ram: Some(ram),
        vram: None,
        ctx: 4096,
        ctx_least: 4096,
        ubatch: None,
        repack: true,
    }
}

fn usual_machine() -> Machine {
    Machine { ram: GIB * 8, reserve: GIB, rates: Rates::usual(2), gpu: None }
}

fn solve_it(index: &Index, wish: &Wish) -> Result<Plan, Refusal> {
    solve_on(index, &usual_machine(), wish)
}

fn solve_on(index: &Index, machine: &Machine, wish: &Wish) -> Result<Plan, Refusal> {
    solve_with(index, machine, &needs(), wish)
}

fn solve_with(
    index: &Index,
    machine: &Machine,
    needs: &Needs,
    wish: &Wish,
) -> Result<Plan, Refusal> {
    let slot_size = |tensors: &[usize]| {
        let len: Bytes = tensors.iter().map(|&t| index.tensors[t].len).sum();
        len.align_up(4096) + Bytes(4096)
    };
    let abilities =
        Abilities { slot_size: &slot_size, expert_region: &|_, _| None, left: &HashSet::new() };
    solve(index, machine, needs, wish, abilities)
}

/// Slow and fast disks, slow and fast processors.
fn machines() -> impl Strategy<Value = Machine> {
    (0.1e9..12e9, 2e9..200e9).prop_map(|(disk, cpu)| {
        let cost = |one| Cost { one: Rate(one), many: Rate(one * 5.0) };
        let (disk, resident, streamed) = (Rate(disk), cost(cpu), cost(cpu * 0.9));
        Machine { rates: Rates { disk, resident, streamed, ..Rates::usual(2) }, ..usual_machine() }
    })
}

/// Seconds of a question and an answer.
fn seconds(index: &Index, machine: &Machine, plan: &Plan) -> f64 {
    conversation(plan, &machine.rates, Touched::of(index))
}

/// Every block once, every streamed tensor in exactly one unit, units in order and no larger than a slot.
fn check(index: &Index, plan: &Plan) {
    assert_eq!(plan.blocks.len(), index.blocks.len());
    assert!(plan.blocks.iter().zip(&index.blocks).all(|(p, b)| p.place == b.place()));
    let mut seen = HashSet::new();
    for unit in &plan.streamed {
        assert_eq!(plan.blocks[unit.block].tier, Tier::Streamed);
        assert!(unit.len <= plan.slot);
        for t in &unit.tensors {
            assert!(seen.insert(*t), "tensor {t} is in two units");
            assert!(index.blocks[unit.block].tensors.contains(t));
        }
    }
    assert!(plan.streamed.windows(2).all(|w| w[0].block <= w[1].block));
    let kept: Bytes = index
        .blocks
        .iter()
        .zip(&plan.blocks)
        .flat_map(|(b, p)| b.tensors.iter().map(move |t| (t, p.tier)))
        .filter(|(t, tier)| *tier == Tier::Resident || !seen.contains(t))
        .map(|(&t, _)| index.tensors[t].len)
        .sum();
    assert_eq!(kept, plan.memory.blocks);
    assert!(plan.memory.peak() <= plan.memory.budget);
}

pub(in crate::plan) fn any_model() -> impl Strategy<Value = Index> {
    const ROLES: [&str; 8] = [
        "attn_norm.weight",
        "attn_q.weight",
        "attn_output.weight",
        "ffn_norm.weight",
        "ffn_up_exps.weight",
        "ffn_gate.weight",
        "ffn_down.weight",
        "ssm_in.weight",
    ];
    let tensor = (0..ROLES.len(), prop_oneof![1_u64..4096, 1_u64 << 20..60 << 20]);
    let block = prop::collection::vec(tensor, 1..8).prop_map(|list| {
        let mut roles = HashSet::new();
        let list = list.into_iter().filter(|&(role, _)| roles.insert(role));
        list.map(|(role, len)| (ROLES[role], Bytes(len))).collect::<Vec<_>>()
    });
    prop::collection::vec(block, 1..30).prop_map(|blocks| model(&blocks))
}

/// What more memory may cost at most: which parts stream is not the best of all choices, and plans that are as fast as others are as
/// good.
const NOISE: f64 = 1.05;

proptest! {
    /// Never over budget, every unit placed exactly once.
    #[test]
    fn a_plan_keeps_its_promises(index in any_model(), ram in 100_u64..4000, always in any::<bool>()) {
        let stream = if always { StreamMode::Always } else { StreamMode::Auto };
        match solve_it(&index, &Wish { stream, ..wish(MIB * ram) }) {
            Ok(plan) => {
                check(&index, &plan);
                let stays = |b: &Placed| b.tier == Tier::Resident || b.partly;
                let streams = |b: &Placed| b.len > KIB * 256;
                prop_assert!(!always || !plan.blocks.iter().any(|b| stays(b) && streams(b)));
            }
            Err(refusal) => prop_assert!(refusal.least > MIB * ram),
        }
    }

    /// More memory is never slower, nor refused; and what a refusal names is enough.
    #[test]
    fn more_memory_is_never_worse(
        index in any_model(), machine in machines(), ram in 100_u64..3000, more in 1_u64..500
    ) {
        let fixed = |ram| Wish { ubatch: Some(256), ..wish(ram) };
        let (less, more) = (MIB * ram, MIB * (ram + more));
        let solve_it = |index: &Index, wish: &Wish| solve_on(index, &machine, wish);
        match (solve_it(&index, &fixed(less)), solve_it(&index, &fixed(more))) {
            (Ok(small), Ok(large)) => {
                let [small, large] = [small, large].map(|plan| seconds(&index, &machine, &plan));
                prop_assert!(large <= small * NOISE, "{large} s, with less {small} s");
            }
            (Ok(_), Err(e)) => prop_assert!(false, "{e}"),
            (Err(refusal), _) => {
                prop_assert!(solve_it(&index, &fixed(refusal.least)).is_ok());
                if refusal.fits > 0 {
                    let fits = refusal.fits;
                    let shorter = Wish { ctx: fits, ctx_least: fits, ..fixed(less) };
                    prop_assert!(solve_it(&index, &shorter).is_ok());
                }
            }
        }
    }
}

/// Every other block of forty streams; there is nothing to cut.
pub(in crate::plan) fn whole_plan() -> (Index, Plan) {
    let index = model(&vec![vec![("ffn_up.weight", MIB * 100)]; 40]);
    let plan = solve_it(&index, &Wish { ubatch: Some(512), ..wish(MIB * 2610) }).unwrap();
    (index, plan)
}

/// Parts of blocks stream.
pub(in crate::plan) fn partly_plan() -> (Index, Plan) {
    let index = usual(40);
    let plan = solve_it(&index, &Wish { ubatch: Some(512), ..wish(MIB * 2610) }).unwrap();
    (index, plan)
}

/// All ten blocks stream, in parts.
pub(in crate::plan) fn cut_plan() -> (Index, Plan) {
    let index = usual(10);
    let plan = solve_it(&index, &Wish { ubatch: Some(32), ..wish(MIB * 435) }).unwrap();
    (index, plan)
}

#[test]
fn what_fits_is_resident() {
    let index = usual(10);
    let plan = solve_it(&index, &wish(GIB * 2)).unwrap();
    check(&index, &plan);
    assert_eq!((plan.count(Tier::Resident), plan.n_slots, plan.n_ubatch), (10, 0, 512));
}

#[test]
fn streamed_blocks_are_spread() {
    let (index, plan) = whole_plan();
    check(&index, &plan);
    let tiers: String =
        plan.blocks.iter().map(|b| if b.tier == Tier::Streamed { 's' } else { 'r' }).collect();
    assert_eq!(tiers, "rs".repeat(20));
}

#[test]
fn parts_of_blocks_stream_and_others_stay() {
    let (index, plan) = partly_plan();
    check(&index, &plan);
    assert!(plan.count_partly() > 20, "{:?}", plan.blocks);
    // Smaller slots than whole blocks need, so that less must stream.
    assert!(plan.streamed_bytes() < whole_plan().1.streamed_bytes() - MIB * 100);
    let [resident, streamed] = [Tier::Resident, Tier::Streamed].map(|tier| plan.bytes(tier));
    assert_eq!((resident, streamed), (plan.memory.blocks, plan.streamed_bytes()));
}

/// Where computing takes as long as reading, two large slots would leave the disk idle while what is resident is computed.
#[test]
fn reading_hides_behind_computing() {
    let index = usual(40);
    for disk in [0.5e9, 1e9, 2e9, 4e9, 8e9] {
        let rates = Rates { disk: Rate(disk), ..Rates::usual(2) };
        let machine = Machine { rates, ..usual_machine() };
        for ram in [800, 1600, 2600, 3600, 4200] {
            let plan = solve_on(&index, &machine, &wish(MIB * ram)).unwrap();
            let pass = estimate(&plan, &rates, Touched::of(&index), 1).generation.seconds;
            let read = rates.disk.seconds(plan.streamed_bytes());
            let touched = index.blocks.iter().map(|b| b.len).sum::<Bytes>() + MIB * 100;
            let limit = read.max(rates.resident.one.seconds(touched));
            assert!(pass < limit * 1.1, "{ram} MiB, disk {disk}: {pass} s of {limit} s");
        }
    }
}

#[test]
fn blocks_are_cut_when_two_do_not_fit() {
    let (index, plan) = cut_plan();
    check(&index, &plan);
    let names: Vec<_> = plan.streamed[..5].iter().map(|u| u.name.as_str()).collect();
    let roles = ["attn_q", "attn_output", "ffn_up", "ffn_gate", "ffn_down"];
    assert_eq!(names, roles.map(|r| format!("block 0 ({r}.weight)")));
}

#[test]
fn a_refusal_says_what_would_fit() {
    let index = usual(10);
    let long = Wish { ubatch: Some(512), ..wish(MIB * 460) };
    let refusal = solve_it(&index, &long).unwrap_err();
    assert!(refusal.to_string().contains("--ram allows 460 MiB"), "{refusal}");
    // With what the hint says there is a plan, also if the program itself takes some more that time.
    let hint = refusal.hint();
    assert!(hint.contains("--ram 471M, or -c "), "{hint}");
    let more = MIB * 4;
    let solve = |wish: &Wish| {
        let needs = Needs { process: needs().process + more, ..needs() };
        solve_with(&index, &usual_machine(), &needs, wish).map(drop)
    };
    solve(&Wish { ram: Some(MIB * 471), ..long }).unwrap();
    let ctx = hint.rsplit_once("-c ").unwrap().1.split(',').next().unwrap().parse().unwrap();
    solve(&Wish { ctx, ..long }).unwrap();
    let never = Wish { stream: StreamMode::Never, ..wish(GIB) };
    assert!(solve_it(&index, &never).unwrap_err().hint().contains("--stream auto"));
}

#[test]
fn batches_are_weighed_against_the_blocks_that_they_take_the_room_of() {
    let index = usual(10);
    let batch = |ram| solve_it(&index, &wish(ram)).unwrap().n_ubatch;
    assert_eq!(batch(MIB * 430), 256);
    // Computing takes longer than reading, so that the rest of the room does more as blocks.
    assert_eq!(batch(MIB * 1200), 256);
    let slow = Cost { one: Rate(5e9), many: Rate(5e15) };
    let rates = Rates { disk: Rate(0.2e9), resident: slow, streamed: slow, ..Rates::usual(2) };
    let reads = Machine { rates, ..usual_machine() };
    let many = Cost { one: Rate(50e9), many: Rate(50e12) };
    let rates = Rates { resident: many, streamed: many, ..Rates::usual(2) };
    let fast = Machine { rates, ..usual_machine() };
    let batch = |index, ram| solve_on(index, &fast, &wish(ram)).unwrap().n_ubatch;
    let deep = model(&vec![vec![("ffn_up.weight", MIB * 100)]; 100]);
    assert_eq!(batch(&deep, GIB * 4), 1024, "a pass for all of a question");
    let plan = solve_on(&deep, &reads, &wish(GIB)).unwrap();
    assert!(plan.n_ubatch >= 512, "each pass of a prompt reads all, and does little else");
    // Layers so wide that a pass of 512 tokens takes half of the memory.
    let wide = |n_ubatch| ContextCost {
        ctx: [64, 4096],
        ubatch: [32, 512],
        bytes: [[MIB * 40, MIB * n_ubatch]; 2],
    };
    let of_wide = |ram, bytes| {
        let needs = Needs { context: wide(bytes), ..needs() };
        solve_with(&index, &usual_machine(), &needs, &wish(ram)).unwrap().n_ubatch
    };
    assert_eq!(of_wide(MIB * 1000, 500), 64);
    assert!(of_wide(MIB * 1000, 60) >= 512);
}

#[test]
fn a_context_that_nobody_asked_for_gives_way() {
    let index = usual(10);
    let ctx = |ram| solve_it(&index, &Wish { ctx_least: 512, ..wish(ram) }).unwrap().n_ctx;
    assert_eq!((ctx(GIB * 2), ctx(MIB * 480)), (4096, 2048));
    // Where the buffers of a pass take nearly all of it, halving would save next to nothing.
    let flat = ContextCost {
        ctx: [512, 4096],
        ubatch: [512, 512],
        bytes: [[MIB * 150; 2], [MIB * 160; 2]],
    };
    let wanted = |ram| {
        crate::plan::limits::choose_context(&flat, &Wish { ctx_least: 512, ..wish(ram) }, ram)
    };
    assert_eq!((wanted(MIB * 480), wanted(MIB * 100)), (4096, 2048));
}
