//! Promises of every plan with a GPU, on random models and on usual ones.

use std::collections::HashSet;

use proptest::prelude::*;

use super::tests::{any_model, model};
use super::*;
use crate::gguf::Value;
use crate::plan::problem::Outside;
use crate::plan::{
    Beside, ContextCost, Cost, ExpertRoom, Further, Gpu, GpuNeeds, MOST_FURTHER, Rates, StreamMode,
    Tier, Touched, estimate,
};
use crate::units::{GIB, KIB, MIB, Rate};

fn flat(bytes: Bytes) -> ContextCost {
    ContextCost { ctx: [4096; 2], ubatch: [512; 2], bytes: [[bytes; 2]; 2] }
}

fn needs() -> Needs {
    let (context, driver, shared) = (flat(MIB * 300), flat(MIB * 60), [Bytes::ZERO; 2]);
    let (kept_in_ram, staging) = (ContextCost::default(), MIB * 64);
    let (kept, more) = (flat(MIB * 200), [Bytes::ZERO; MOST_FURTHER]);
    let gpu = GpuNeeds { context, driver, kept_in_ram, staging, shared, kept, more };
    Needs { process: MIB * 50, context: flat(MIB * 20), read_ahead: MIB * 16, gpu: Some(gpu) }
}

/// Bytes per second: of the disk, the link, the CPU and the GPU.
fn machine(disk: f64, link: f64, cpu: f64, gpu: f64) -> Machine {
    let cost = |one| Cost { one: Rate(one), many: Rate(one * 20.0) };
    let further = Further::default();
    let beside = Beside { link: Rate(link), cpu: cost(cpu), further };
    let rates = Rates {
        disk: Rate(disk),
        disk_one: None,
        disk_many: None,
        resident: cost(gpu),
        streamed: cost(gpu),
        memory: None,
        gpu: Some(beside),
        open_seconds: 0.0,
    };
    let further = Further::default();
    let gpu = Gpu { free: GIB * 24, reserve: GIB, shares_ram: false, rates, further };
    Machine { ram: GIB * 64, reserve: GIB, rates: Rates::usual(2), gpu: Some(gpu) }
}

fn wish(vram: Bytes, ram: Bytes) -> Wish {
    Wish {
        stream: StreamMode::Auto,
        ram: Some(ram),
        vram: Some(vram),
        ctx: 4096,
        ctx_least: 4096,
        ubatch: Some(512),
        repack: false,
    }
}

fn slot_size(index: &Index) -> impl Fn(&[usize]) -> Bytes {
    |tensors| {
        let len: Bytes = tensors.iter().map(|&t| index.tensors[t].len).sum();
        len.align_up(4096) + Bytes(4096)
    }
}

fn solve_it(index: &Index, machine: &Machine, wish: &Wish) -> Result<Plan, Refusal> {
    solve_left(index, machine, wish, &HashSet::new())
}

/// For a GPU that cannot compute with some of the tensors.
fn solve_left(
    index: &Index,
    machine: &Machine,
    wish: &Wish,
    left: &HashSet<usize>,
) -> Result<Plan, Refusal> {
    let abilities = Abilities { slot_size: &slot_size(index), expert_region: &|_, _| None, left };
    solve(index, machine, &needs(), wish, abilities)
}

/// Seconds of a single-token pass.
fn pass(index: &Index, machine: &Machine, plan: &Plan) -> f64 {
    let rates = machine.gpu.unwrap().rates;
    estimate(plan, &rates, Touched::of(index), 512).generation.seconds
}

/// Seconds of a question and its answer.
fn answer(index: &Index, machine: &Machine, plan: &Plan) -> f64 {
    conversation(plan, &machine.gpu.unwrap().rates, Touched::of(index))
}

/// Neither budget is exceeded, and the tiers say what the lists say.
fn check(index: &Index, plan: &Plan, left: &HashSet<usize>) {
    let gpu = plan.gpu.unwrap();
    assert!(gpu.peak() <= gpu.budget, "{gpu:?}");
    assert!(plan.memory.peak() <= plan.memory.budget, "{:?}", plan.memory);
    assert_eq!(plan.blocks.len(), index.blocks.len());
    let mut owners = vec![0; index.tensors.len()];
    for unit in &plan.streamed {
        assert!(matches!(plan.blocks[unit.block].tier, Tier::Host | Tier::Streamed));
        assert!(unit.len <= plan.slot);
        unit.tensors.iter().for_each(|&t| owners[t] += 1);
    }
    assert!(left.iter().all(|&t| owners[t] == 0), "what the GPU cannot compute with streams to it");
    for &t in &plan.by_cpu {
        owners[t] += 1;
    }
    assert!(owners.iter().all(|&n| n <= 1), "a tensor has two places");
    assert!(plan.streamed.windows(2).all(|w| w[0].block <= w[1].block));
    for (block, placed) in index.blocks.iter().zip(&plan.blocks) {
        let elsewhere = block.tensors.iter().filter(|t| owners[**t] > 0);
        let elsewhere: Bytes = elsewhere.map(|&t| index.tensors[t].len).sum();
        match placed.tier {
            Tier::Resident => assert_eq!(elsewhere, Bytes::ZERO),
            Tier::Cpu => assert_eq!(elsewhere, placed.by_cpu),
            Tier::Host | Tier::Streamed if placed.partly => {
                assert!(placed.streamed > Bytes::ZERO && placed.streamed < placed.len);
            }
            // What is not an expert stays where only experts stream.
            Tier::Streamed if plan.experts.is_some() => {}
            // Only small tensors and norms stay behind.
            Tier::Host | Tier::Streamed => {
                let large = |t: &&usize| index.tensors[**t].len >= KIB * 256;
                let is_norm = |t: &usize| index.tensors[*t].name.contains("norm");
                let behind = block.tensors.iter().filter(|t| owners[**t] == 0 && !is_norm(t));
                let behind = behind.filter(|t| !left.contains(t));
                assert_eq!(behind.filter(large).count(), 0);
            }
        }
    }
}

/// llama.cpp's `-ngl` with the same memory: as many of the last blocks as fit on the GPU, the others and nothing else on the CPU.
/// Seconds of a question and its answer, if RAM has room for the others.
fn ngl(index: &Index, machine: &Machine, wish: &Wish) -> Option<f64> {
    let (needs, rates) = (needs(), machine.gpu.unwrap().rates);
    let beside = rates.gpu.unwrap();
    let gpu_needs = needs.gpu.unwrap();
    let (outside, touched) = (Outside::of(index), Touched::of(index));
    let fixed = gpu_needs.context.at(4096, 512)
        + gpu_needs.driver.at(4096, 512)
        + outside.others
        + outside.output_len;
    // Prompts bring tensors over the link there, too.
    let largest = |n: usize| {
        let tensors = index.blocks[..n].iter().flat_map(|b| &b.tensors);
        tensors.map(|&t| index.tensors[t].len).max().unwrap_or_default()
    };
    let len = |blocks: &[crate::gguf::Block]| blocks.iter().map(|b| b.len).sum::<Bytes>();
    let n = index.blocks.len();
    let n_cpu = (0..=n)
        .find(|&i| fixed + len(&index.blocks[i..]) + largest(i) <= wish.vram.unwrap_or_default())?;
    let on_cpu = len(&index.blocks[..n_cpu]);
    let all_largest = largest(n).max(outside.largest);
    let ram = needs.process
        + outside.embedding
        + on_cpu
        + (all_largest + needs.read_ahead).max(needs.context.at(4096, 512));
    if ram > wish.ram.unwrap_or_default() {
        return None;
    }
    let used = |bytes: Bytes| Bytes((bytes.f64() * touched.of_block) as u64);
    let pass = |tokens: u32| -> f64 {
        let block = |(i, block): (usize, &crate::gguf::Block)| {
            let here = rates.resident.seconds(used(block.len), tokens);
            match (i < n_cpu, tokens) {
                (false, _) => here,
                // What handing over costs the plan's own splits.
                (true, 1) => beside.cpu.one.seconds(used(block.len)) + 4.0 * 40e-6,
                (true, _) => here + beside.link.seconds(block.len),
            }
        };
        let blocks: f64 = index.blocks.iter().enumerate().map(block).sum();
        blocks + rates.resident.one.seconds(touched.output)
    };
    Some(pass(512) * 2.0 + pass(1) * 512.0)
}

/// A GPU is never slower than the CPU here: one that is gets what fits all the same, because somebody chose it.
fn rates() -> impl Strategy<Value = Machine> {
    (0.2e9..8e9, 1e9..60e9, 1e9..100e9, 100e9..4000e9)
        .prop_map(|(disk, link, cpu, gpu)| machine(disk, link, cpu, gpu))
}

proptest! {
    /// Never over either budget, everything placed exactly once.
    #[test]
    fn a_plan_keeps_its_promises(
        index in any_model(), machine in rates(), vram in 300_u64..3000, ram in 200_u64..4000, mode in 0..3,
        every in prop::option::of(1_usize..20)
    ) {
        let of_blocks = || index.blocks.iter().flat_map(|b| &b.tensors).copied();
        let left: HashSet<usize> =
            every.map(|n| of_blocks().step_by(n).collect()).unwrap_or_default();
        let stream =
            [StreamMode::Auto, StreamMode::Always, StreamMode::Never][usize::try_from(mode).unwrap()];
        let wish = Wish { stream, ..wish(MIB * vram, MIB * ram) };
        match solve_left(&index, &machine, &wish, &left) {
            Ok(plan) => {
                check(&index, &plan, &left);
                let count = |tier| plan.count(tier);
                match stream {
                    StreamMode::Always => {
                        prop_assert_eq!(count(Tier::Cpu), 0);
                        let stays = |t: &usize| {
                            let tensor = &index.tensors[*t];
                            tensor.len < KIB * 256 || tensor.name.contains("norm") || left.contains(t)
                        };
                        let mut blocks = index.blocks.iter().zip(&plan.blocks);
                        let all = blocks.all(|(b, p)| {
                            p.tier != Tier::Resident || b.tensors.iter().all(stays)
                        });
                        prop_assert!(all);
                    }
                    StreamMode::Never => prop_assert_eq!(count(Tier::Host) + count(Tier::Streamed), 0),
                    StreamMode::Auto => {}
                }
            }
            Err(refusal) => {
                let budget = if refusal.pool == Pool::Vram { vram } else { ram };
                prop_assert!(refusal.least > MIB * budget, "{refusal}");
            }
        }
    }

    /// No plan is slower than one that streams everything, nor than llama.cpp's split, by the same arithmetic.
    #[test]
    fn nothing_simpler_is_faster(
        index in any_model(), machine in rates(), vram in 400_u64..2500, ram in 300_u64..4000
    ) {
        let wish = wish(MIB * vram, MIB * ram);
        let all = solve_it(&index, &machine, &Wish { stream: StreamMode::Always, ..wish });
        let split = ngl(&index, &machine, &wish);
        match solve_it(&index, &machine, &wish) {
            Ok(plan) => {
                let seconds = answer(&index, &machine, &plan);
                if let Ok(all) = all {
                    let all = answer(&index, &machine, &all);
                    prop_assert!(seconds <= all * AS_FAST + 1e-9, "{seconds} s, streamed {all} s");
                }
                if let Some(split) = split {
                    prop_assert!(seconds <= split * AS_FAST + 1e-9, "{seconds} s, split {split} s");
                }
            }
            Err(refusal) => prop_assert!(all.is_err() && split.is_none(), "{refusal}"),
        }
    }

    /// More memory of either kind is never slower, up to what unequal blocks make of it, and never refused.
    #[test]
    fn more_memory_is_never_worse(
        index in any_model(), machine in rates(), vram in 400_u64..2500, ram in 300_u64..4000,
        more in 0_u64..500, of_vram in any::<bool>()
    ) {
        let small = wish(MIB * vram, MIB * ram);
        let large = match of_vram {
            true => wish(MIB * (vram + more), MIB * ram),
            false => wish(MIB * vram, MIB * (ram + more)),
        };
        if let Ok(plan) = solve_it(&index, &machine, &small) {
            let small = answer(&index, &machine, &plan);
            let large = solve_it(&index, &machine, &large).map(|p| answer(&index, &machine, &p));
            prop_assert!(large.as_ref().is_ok_and(|large| *large <= small * 1.25 + 1e-6), "{small} {large:?}");
        }
    }
}

/// A dense model of eighty blocks of 500 MiB: 70 billion weights of 4.5 bits.
fn large() -> Index {
    let block = vec![
        ("attn_norm.weight", KIB * 32),
        ("attn_q.weight", MIB * 40),
        ("attn_output.weight", MIB * 40),
        ("ffn_norm.weight", KIB * 32),
        ("ffn_gate.weight", MIB * 140),
        ("ffn_up.weight", MIB * 140),
        ("ffn_down.weight", MIB * 140),
    ];
    model(&vec![block; 80])
}

#[test]
fn what_fits_is_resident() {
    let index = model(&vec![vec![("ffn_up.weight", MIB * 100)]; 10]);
    let machine = machine(2e9, 25e9, 50e9, 1000e9);
    let plan = solve_it(&index, &machine, &wish(GIB * 4, GIB)).unwrap();
    check(&index, &plan, &HashSet::new());
    assert_eq!((plan.count(Tier::Resident), plan.n_slots, plan.by_cpu.len()), (10, 0, 0));
}

#[test]
fn a_slow_cpu_computes_nothing() {
    let machine = machine(2e9, 25e9, 2e9, 1000e9);
    let plan = solve_it(&large(), &machine, &wish(MIB * 3200, GIB * 60)).unwrap();
    check(&large(), &plan, &HashSet::new());
    assert_eq!(plan.count(Tier::Cpu), 0);
    assert_eq!(plan.count(Tier::Streamed), 0, "RAM has room for all of it");
    let bytes: Bytes = plan.streamed.iter().map(|u| u.len).sum();
    // The link is busy all the time.
    let limit = bytes.f64() / 25e9;
    assert!(pass(&large(), &machine, &plan) < limit * 1.05 + 0.1);
}

#[test]
fn the_cpu_helps_the_link() {
    let machine = machine(2e9, 25e9, 50e9, 1000e9);
    let plan = solve_it(&large(), &machine, &wish(MIB * 3200, GIB * 60)).unwrap();
    check(&large(), &plan, &HashSet::new());
    let (cpu, host) = (plan.count(Tier::Cpu), plan.count(Tier::Host));
    assert!(cpu > 30 && host > 10, "{cpu} on the CPU, {host} over the link");
}

/// Blocks of all tiers.
pub(in crate::plan) fn mixed_plan() -> (Index, Machine, Plan) {
    let machine = machine(8e9, 10e9, 9e9, 1000e9);
    let plan = solve_it(&large(), &machine, &wish(GIB * 8, GIB * 20)).unwrap();
    (large(), machine, plan)
}

#[test]
fn what_ram_has_no_room_for_is_on_disk() {
    let machine = machine(2e9, 25e9, 5e9, 1000e9);
    let plan = solve_it(&large(), &machine, &wish(GIB * 8, GIB * 10)).unwrap();
    check(&large(), &plan, &HashSet::new());
    let counts = [Tier::Host, Tier::Cpu, Tier::Streamed].map(|tier| plan.count(tier));
    let [host, cpu, streamed] = counts;
    assert!(host + cpu > 12 && streamed > 40, "{counts:?}");
    // Both memories are full but for less than a block.
    let (ram, gpu) = (plan.memory, plan.gpu.unwrap());
    assert!(
        ram.peak() + MIB * 500 > ram.budget && gpu.peak() + MIB * 150 > gpu.budget,
        "{ram:?}, {gpu:?}"
    );
    assert!(plan.bytes(Tier::Resident) > GIB * 4);
}

/// A mixture of forty blocks with 128 experts each, of which a token uses 8: 600 MiB of experts a block.
fn mixture() -> Index {
    let block = vec![
        ("attn_q.weight", MIB * 20),
        ("ffn_up_exps.weight", MIB * 300),
        ("ffn_down_exps.weight", MIB * 300),
    ];
    let mut index = model(&vec![block; 40]);
    let number = |key: &str, n| (format!("moe.{key}"), Value::Uint(n));
    index.metadata.entries = vec![
        ("general.architecture".to_owned(), Value::Str("moe".to_owned())),
        number("expert_count", 128),
        number("expert_used_count", 8),
    ];
    for tensor in index.tensors.iter_mut().filter(|t| t.name.contains("_exps.")) {
        tensor.shape = vec![1024, 1024, 128];
    }
    index
}

/// Where experts stream one by one.
fn solve_by_expert(index: &Index, machine: &Machine, wish: &Wish) -> Plan {
    let region = |stacks: &[usize], n: u64| {
        let each = |&t: &usize| Bytes(index.tensors[t].len.0 / 128);
        let device: Bytes = stacks.iter().map(each).map(|each| each * n).sum();
        let ram: Bytes = stacks.iter().map(each).map(|each| each.align_up(4096) * n).sum();
        Some(ExpertRoom { ram, device })
    };
    let (size, left) = (slot_size(index), HashSet::new());
    let abilities = Abilities { slot_size: &size, expert_region: &region, left: &left };
    let plan = solve(index, machine, &needs(), wish, abilities).unwrap();
    check(index, &plan, &left);
    plan
}

#[test]
fn experts_go_to_the_cpu_and_attention_stays() {
    let index = mixture();
    let machine = machine(2e9, 10e9, 50e9, 1000e9);
    let plan = solve_it(&index, &machine, &wish(GIB * 3, GIB * 60)).unwrap();
    check(&index, &plan, &HashSet::new());
    // Eight of 128 experts are computed faster where they are than all of them are brought.
    assert_eq!((plan.count(Tier::Host), plan.n_slots), (0, 0));
    let on_cpu = || plan.blocks.iter().filter(|b| b.tier == Tier::Cpu);
    assert!(on_cpu().count() > 30 && on_cpu().all(|b| b.by_cpu == MIB * 600));
    // Nor is anything else said where they could come one by one.
    assert_eq!(solve_by_expert(&index, &machine, &wish(GIB * 3, GIB * 60)).experts, None);
}

/// What neither memory has room for comes by expert, through pools in both.
#[test]
fn experts_that_ram_has_no_room_for_come_one_by_one() {
    let index = mixture();
    let machine = machine(2e9, 10e9, 50e9, 1000e9);
    let seconds = |plan: &Plan| pass(&index, &machine, plan);
    let mut last = f64::INFINITY;
    for (vram, ram) in [(5, 4), (5, 6), (8, 6), (8, 12)] {
        let wish = wish(GIB * vram, GIB * ram);
        let plan = solve_by_expert(&index, &machine, &wish);
        let experts = plan.experts.as_ref().expect("experts come one by one");
        let above = experts.on_device.expect("and stay on the device");
        assert!(experts.n_slots >= 8 && above.n_slots >= 8, "{} and {above:?}", experts.n_slots);
        let [ram_left, vram_left] = [
            plan.memory.budget.saturating_sub(plan.memory.peak()),
            plan.gpu.unwrap().budget.saturating_sub(plan.gpu.unwrap().peak()),
        ];
        // No room for another expert of each block is left over.
        assert!(ram_left < MIB * 200 && vram_left < MIB * 200, "{ram_left}, {vram_left}");
        let whole = solve_it(&index, &machine, &wish).unwrap();
        assert!(seconds(&plan) * 5.0 < seconds(&whole), "{} {}", seconds(&plan), seconds(&whole));
        assert!(seconds(&plan) <= last, "more memory is slower");
        last = seconds(&plan);
    }
}

/// Room for less than a block is room for a part of one.
#[test]
fn no_memory_is_left_over() {
    let machine = machine(2e9, 25e9, 2e9, 1000e9);
    for vram in (3200..3700).step_by(50) {
        let plan = solve_it(&large(), &machine, &wish(MIB * vram, GIB * 60)).unwrap();
        check(&large(), &plan, &HashSet::new());
        let gpu = plan.gpu.unwrap();
        assert!(gpu.peak() + MIB * 60 > gpu.budget, "{vram}: {gpu:?}");
    }
}

#[test]
fn what_the_gpu_cannot_compute_with_is_in_ram() {
    let index = large();
    let left: HashSet<usize> = index.blocks.iter().map(|b| b.tensors[1]).collect();
    let machine = machine(2e9, 25e9, 10e9, 1000e9);
    for vram in [GIB * 4, GIB * 50] {
        let plan = solve_left(&index, &machine, &wish(vram, GIB * 60), &left).unwrap();
        check(&index, &plan, &left);
        assert!(plan.memory.blocks >= MIB * 40 * 80, "{:?}", plan.memory);
        // Ten gigabytes a second: a third of a second for all of it.
        assert!(pass(&index, &machine, &plan) > 0.33);
    }
}

/// A conversation on a GPU that is slower than the CPU takes longer, and is seen to.
/// A long context in RAM leaves its room to blocks, and the CPU's attention is paid for.
#[test]
fn keys_and_values_in_ram_are_weighed() {
    let index = large();
    let machine = machine(2e9, 10e9, 2e9, 400e9);
    let abilities = Abilities {
        slot_size: &slot_size(&index),
        expert_region: &|_, _| None,
        left: &HashSet::new(),
    };
    let seconds = |in_ram: bool, kept: Bytes, queries: u32| {
        let (mut needs, gpu) = (needs(), needs().gpu.unwrap());
        let on_gpu = if in_ram { Bytes::ZERO } else { kept };
        let kept_in_ram = if in_ram { flat(kept) } else { ContextCost::default() };
        needs.context = flat(MIB * 20 + kept.saturating_sub(on_gpu));
        needs.gpu = Some(GpuNeeds { context: flat(MIB * 300 + on_gpu), kept_in_ram, ..gpu });
        let plan = solve(&index, &machine, &needs, &wish(GIB * 6, GIB * 64), abilities).unwrap();
        check(&index, &plan, &HashSet::new());
        assert_eq!(plan.kept_in_ram, kept.saturating_sub(on_gpu));
        let touched = Touched { queries, ..Touched::of(&index) };
        conversation(&plan, &machine.gpu.unwrap().rates, touched)
    };
    let gain = |kept, queries| seconds(false, kept, queries) / seconds(true, kept, queries);
    assert!(gain(GIB * 4, 1) > 1.05, "{}", gain(GIB * 4, 1));
    assert!((0.98..1.02).contains(&gain(MIB * 128, 1)), "{}", gain(MIB * 128, 1));
    // Where many queries share a key, attention is more than a CPU can do beside.
    assert!(gain(GIB * 4, 256) < 0.9, "{}", gain(GIB * 4, 256));
}

#[test]
fn a_weak_gpu_is_found_out() {
    let (index, machine) = (large(), machine(2e9, 1e9, 40e9, 60e9));
    let seconds = |machine: &Machine, wish: &Wish, rates: &Rates| {
        let plan = solve_it(&index, machine, wish).unwrap();
        conversation(&plan, rates, Touched::of(&index))
    };
    let wish = wish(GIB * 2, GIB * 60);
    let with = seconds(&machine, &wish, &machine.gpu.unwrap().rates);
    let cost = Cost { one: Rate(45e9), many: Rate(900e9) };
    let rates = Rates { resident: cost, streamed: cost, ..Rates::usual(8) };
    let without = seconds(&Machine { gpu: None, rates, ..machine }, &wish, &rates);
    assert!(without < with, "{without} s without it, {with} s with it");
}

#[test]
fn a_refusal_names_the_memory() {
    let machine = machine(2e9, 25e9, 50e9, 1000e9);
    let refusal = solve_it(&large(), &machine, &wish(MIB * 380, GIB * 60)).unwrap_err();
    assert_eq!(refusal.pool, Pool::Vram);
    assert!(refusal.to_string().contains("--vram allows 380 MiB"), "{refusal}");
    assert!(refusal.hint().contains("--vram ") && refusal.hint().contains("--device cpu"));
    let refusal = solve_it(&large(), &machine, &wish(GIB * 3, MIB * 100)).unwrap_err();
    assert_eq!(refusal.pool, Pool::Ram);
}

/// What was measured may be nonsense; there is a plan all the same.
#[test]
fn rates_of_nothing_make_a_plan_all_the_same() {
    let index = model(&vec![vec![("attn_q.weight", MIB * 20), ("ffn_up.weight", MIB * 80)]; 12]);
    for rate in [0.0, f64::INFINITY, f64::NAN] {
        let with = machine(rate, rate, rate, rate);
        let without = Machine { gpu: None, rates: with.gpu.unwrap().rates, ..with };
        let wish = wish(MIB * 900, MIB * 900);
        let plan = solve_it(&index, &with, &wish).unwrap();
        check(&index, &plan, &HashSet::new());
        let plan = solve_it(&index, &without, &wish).unwrap();
        assert!(plan.memory.peak() <= plan.memory.budget, "{:?}", plan.memory);
    }
}

/// A machine with further GPUs that have so much memory, each so much faster than the first.
fn with_further(further: &[(Bytes, f64)]) -> Machine {
    let mut machine = machine(2e9, 10e9, 20e9, 400e9);
    let gpu = machine.gpu.as_mut().unwrap();
    let beside = gpu.rates.gpu.as_mut().unwrap();
    for (i, &(budget, speed)) in further.iter().enumerate() {
        gpu.further[i] = Some(budget);
        let one = gpu.rates.resident.one.0 * speed;
        beside.further[i] = Some(Cost { one: Rate(one), many: Rate(one * 20.0) });
    }
    machine
}

proptest! {
    /// No budget is exceeded, further GPUs hold the last blocks whole and in a row, and a plan is never slower than without them.
    #[test]
    fn further_gpus_hold_whole_blocks_and_help(
        index in any_model(), vram in 400_u64..6000, ram in 100_u64..6000,
        further in prop::collection::vec((100_u64..6000, 0.1..3.0_f64), 1..4)
    ) {
        let wish = wish(MIB * vram, MIB * ram);
        let sizes: Vec<(Bytes, f64)> = further.iter().map(|(mib, speed)| (MIB * *mib, *speed)).collect();
        let machine = with_further(&sizes);
        let one = solve_it(&index, &with_further(&[]), &wish);
        let Ok(plan) = solve_it(&index, &machine, &wish) else {
            prop_assert!(one.is_err());
            return Ok(());
        };
        check(&index, &plan, &HashSet::new());
        let mut end = plan.blocks.len();
        for held in &plan.further {
            prop_assert!(held.memory.peak() <= sizes[held.number].0, "{held:?}");
            prop_assert_eq!(held.blocks.end, end);
            prop_assert!(!held.blocks.is_empty());
            end = held.blocks.start;
            let of_held = &index.blocks[held.blocks.clone()];
            prop_assert_eq!(held.memory.blocks, of_held.iter().map(|b| b.len).sum::<Bytes>());
            for i in held.blocks.clone() {
                prop_assert_eq!(plan.blocks[i].tier, Tier::Resident);
                prop_assert!(plan.streamed.iter().all(|unit| unit.block != i));
            }
        }
        if let Ok(one) = one {
            let [with, without] = [&plan, &one].map(|plan| answer(&index, &machine, plan));
            prop_assert!(with <= without * 1.01, "{with} and {without} without: {plan:?}");
        }
    }
}

/// What fits one GPU stays there, unless the other is faster.
#[test]
fn a_second_gpu_is_left_alone_where_it_brings_nothing() {
    let block = vec![("attn_norm.weight", KIB * 4), ("ffn_up.weight", MIB * 100)];
    let index = model(&vec![block; 40]);
    let wish = wish(GIB * 12, GIB * 4);
    let on = |speed| solve_it(&index, &with_further(&[(GIB * 12, speed)]), &wish).unwrap().further;
    assert_eq!(on(1.0), []);
    assert_eq!(on(0.5), []);
    assert_eq!(on(2.0).len(), 1);
}
