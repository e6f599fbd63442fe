//! A table of plans: machines, models and budgets, what lives where, and what that takes by the estimate. Whoever changes how plans are
//! made reads in the difference what became faster, and what slower. It asks no machine anything.

mod cards;

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::problem::Problem;
use super::solve::solve_counting;
use super::{
    Abilities, Beside, ContextCost, Cost, ExpertRoom, Further, Gpu, GpuNeeds, HeldBy, MOST_FURTHER,
    Machine, Needs, Plan, Rates, Refusal, StreamMode, Tier, Touched, Wish, conversation, estimate,
    pass_seconds,
};
use crate::gguf::{Block, GgmlType, Index, Metadata, Place, Stack, TensorInfo, Value};
use crate::units::{Bytes, GIB, KIB, MIB, Rate};

/// Tokens of the prompt that the table tells of.
const PROMPT: u32 = 1024;

/// Models that the table has more rows of.
const USUAL: [&str; 3] = ["dense-8b", "mixture-128x24", "hybrid-mixture"];

/// Tokens of a pass with drafts that it tells of.
const DRAFTED: u32 = 16;

/// A model to plan for.
struct Model {
    name: &'static str,
    index: Index,
    /// What contexts take, as a multiple of what they take of a small model.
    wide: u64,
}

/// Names and sizes of a block's tensors. (bytes)
type Tensors = Vec<(&'static str, Bytes)>;

fn build(
    name: &'static str,
    blocks: &[Tensors],
    [embedding, output]: [u64; 2],
    experts: Option<[u64; 2]>,
    wide: u64,
) -> Model {
    let entries = vec![("general.architecture".to_owned(), Value::Str("any".to_owned()))];
    let mut index = Index {
        files: Vec::new(),
        metadata: Metadata { entries },
        tensors: Vec::new(),
        blocks: Vec::new(),
        heads: Vec::new(),
        left_out: 0,
    };
    if let Some([count, used]) = experts {
        let number = |key: &str, n| (format!("any.{key}"), Value::Uint(n));
        index.metadata.entries.push(number("expert_count", count));
        index.metadata.entries.push(number("expert_used_count", used));
    }
    let count = experts.map_or(0, |e| e[0]);
    let mut add = |name: String, len: Bytes, place: Place| {
        let shape = match (name.contains("norm"), name.contains("_exps.")) {
            (true, _) => vec![4096],
            (_, true) => vec![1024, 1024, count],
            _ => vec![4096, 4096],
        };
        index.tensors.push(TensorInfo {
            name,
            ty: GgmlType(2),
            shape,
            file: 0,
            offset: 0,
            len,
            place,
        });
        index.tensors.len() - 1
    };
    add("token_embd.weight".to_owned(), MIB * embedding, Place::Embedding);
    if output > 0 {
        add("output.weight".to_owned(), MIB * output, Place::Output);
    }
    add("output_norm.weight".to_owned(), KIB * 32, Place::Output);
    let mut of_blocks = Vec::new();
    for (tensors, number) in blocks.iter().zip(0..) {
        let place = Place::Block(Stack::Main, number);
        let len = tensors.iter().map(|t| t.1).sum();
        let tensors = tensors.iter();
        let tensors = tensors.map(|(role, len)| add(format!("blk.{number}.{role}"), *len, place));
        let tensors = tensors.collect();
        of_blocks.push(Block { stack: Stack::Main, number, tensors, len });
    }
    index.blocks = of_blocks;
    Model { name, index, wide }
}

/// A block that attends, of `attention` MiB, with the tensors of its feed-forward network.
fn attends(attention: u64, ffn: &[(&'static str, Bytes)]) -> Tensors {
    let mut tensors = vec![
        ("attn_norm.weight", KIB * 16),
        ("attn_q.weight", Bytes(MIB.0 * attention * 3 / 8)),
        ("attn_k.weight", Bytes(MIB.0 * attention / 8)),
        ("attn_v.weight", Bytes(MIB.0 * attention / 8)),
        ("attn_output.weight", Bytes(MIB.0 * attention * 3 / 8)),
        ("ffn_norm.weight", KIB * 16),
    ];
    tensors.extend_from_slice(ffn);
    tensors
}

fn dense(attention: u64, matrix: u64) -> Tensors {
    let up = [("ffn_gate.weight", MIB * matrix), ("ffn_up.weight", MIB * matrix)];
    // Mixed quantisation gives this one more bits.
    let down = [("ffn_down.weight", Bytes(MIB.0 * matrix * 5 / 4))];
    attends(attention, &[&up[..], &down].concat())
}

/// A block of experts, each of three matrices of so many KiB, and perhaps one that all tokens use.
fn mixed(attention: u64, experts: u64, each: u64, shared: u64) -> Tensors {
    let stack = KIB * (each * experts);
    let mut ffn = vec![
        ("ffn_gate_inp.weight", KIB * experts),
        ("ffn_gate_exps.weight", stack),
        ("ffn_up_exps.weight", stack),
        ("ffn_down_exps.weight", stack),
    ];
    if shared > 0 {
        ffn.push(("ffn_up_shexp.weight", MIB * shared));
        ffn.push(("ffn_down_shexp.weight", MIB * shared));
    }
    attends(attention, &ffn)
}

/// A block that keeps a state.
fn recurrent(matrix: u64) -> Tensors {
    vec![
        ("attn_norm.weight", KIB * 16),
        ("ssm_in.weight", MIB * 48),
        ("ssm_conv1d.weight", KIB * 96),
        ("ssm_out.weight", MIB * 24),
        ("ffn_norm.weight", KIB * 16),
        ("ffn_gate.weight", MIB * matrix),
        ("ffn_up.weight", MIB * matrix),
        ("ffn_down.weight", MIB * matrix),
    ]
}

/// 80 blocks of 512 experts.
fn huge() -> Model {
    build("mixture-512x80", &vec![mixed(64, 512, 768, 0); 80], [500, 500], Some([512, 10]), 8)
}

fn models() -> Vec<Model> {
    let hybrid = |i: usize| if i % 8 == 7 { dense(80, 40) } else { recurrent(40) };
    let deep = |i: usize| if i < 3 { dense(90, 130) } else { mixed(90, 256, 1200, 12) };
    let hybrids = |i: usize| if i % 4 == 3 { mixed(60, 64, 900, 8) } else { recurrent(36) };
    vec![
        build("dense-1b", &vec![dense(8, 12); 16], [140, 0], None, 1),
        build("dense-8b", &vec![dense(24, 32); 32], [280, 400], None, 2),
        build("dense-70b", &vec![dense(88, 125); 80], [560, 800], None, 6),
        build("hybrid-9b", &(0..48).map(hybrid).collect::<Vec<_>>(), [300, 300], None, 2),
        build("mixture-128x24", &vec![mixed(12, 128, 360, 0); 24], [160, 160], Some([128, 8]), 1),
        build(
            "mixture-256x58",
            &(0..61).map(deep).collect::<Vec<_>>(),
            [500, 500],
            Some([256, 8]),
            6,
        ),
        build(
            "hybrid-mixture",
            &(0..40).map(hybrids).collect::<Vec<_>>(),
            [200, 200],
            Some([64, 4]),
            2,
        ),
        huge(),
    ]
}

/// Billions of bytes per second of a disk, and of a CPU with one token and with many.
fn cpu_rates(disk: f64, one: f64, many: f64) -> Rates {
    let cost = |share: f64| Cost { one: Rate(one * share * 1e9), many: Rate(many * share * 1e9) };
    Rates { disk: Rate(disk * 1e9), resident: cost(1.0), streamed: cost(0.9), ..Rates::usual(2) }
}

/// The same with a GPU, behind a link.
fn gpu(cpu: Rates, link: f64, one: f64, many: f64) -> Gpu {
    let cost = Cost { one: Rate(one * 1e9), many: Rate(many * 1e9) };
    let beside = Beside { link: Rate(link * 1e9), cpu: cpu.streamed, further: Further::default() };
    let rates = Rates { resident: cost, streamed: cost, gpu: Some(beside), ..cpu };
    Gpu {
        free: GIB * 1024,
        reserve: Bytes::ZERO,
        shares_ram: false,
        rates,
        further: Further::default(),
    }
}

/// Machines by name, those with GPUs last. The first is that of `bench/runs/2026-11-20-xeon-2c`.
fn machines() -> Vec<(&'static str, Machine)> {
    let machine = |rates, gpu| Machine { ram: GIB * 1024, reserve: Bytes::ZERO, rates, gpu };
    let xeon = cpu_rates(2.3, 14.0, 150.0);
    let old = cpu_rates(0.5, 20.0, 100.0);
    let fast = cpu_rates(7.0, 60.0, 900.0);
    vec![
        ("xeon-2c", machine(xeon, None)),
        ("old-disk", machine(old, None)),
        ("desktop", machine(fast, None)),
        ("laptop+card", machine(old, Some(gpu(old, 5.0, 150.0, 5000.0)))),
        ("desktop+card", machine(fast, Some(gpu(fast, 25.0, 900.0, 60_000.0)))),
    ]
}

fn context(model: &Model) -> ContextCost {
    let bytes = [[MIB * 10, MIB * 100], [MIB * 80, MIB * 300]];
    let bytes = bytes.map(|row| row.map(|bytes| bytes * model.wide));
    ContextCost { ctx: [256, 4096], ubatch: [32, 2048], bytes }
}

/// What is kept of texts of that.
fn kept(model: &Model) -> ContextCost {
    let bytes = [[MIB * 5; 2], [MIB * 70; 2]].map(|row| row.map(|bytes| bytes * model.wide));
    ContextCost { ctx: [256, 4096], ubatch: [32, 2048], bytes }
}

fn needs(model: &Model, machine: &Machine) -> Needs {
    let flat = |bytes| ContextCost { ctx: [4096; 2], ubatch: [512; 2], bytes: [[bytes; 2]; 2] };
    let with_gpu = GpuNeeds {
        context: context(model),
        driver: flat(MIB * 60),
        kept_in_ram: ContextCost::default(),
        staging: MIB * 64,
        shared: [MIB * 8; 2],
        kept: kept(model),
        more: [Bytes::ZERO; MOST_FURTHER],
    };
    Needs {
        process: MIB * 50,
        context: if machine.gpu.is_some() { flat(MIB * 20) } else { context(model) },
        read_ahead: MIB * 16,
        gpu: machine.gpu.map(|_| with_gpu),
    }
}

/// The plan of a model where experts can stream one by one, and how many were judged for it.
fn plan_for(
    model: &Model,
    machine: &Machine,
    wish: &Wish,
    left: &HashSet<usize>,
) -> (Result<Plan, Refusal>, usize) {
    let index = &model.index;
    let size = |tensors: &[usize]| {
        let len: Bytes = tensors.iter().map(|&t| index.tensors[t].len).sum();
        len.align_up(4096) + Bytes(4096)
    };
    let region = |stacks: &[usize], n: u64| {
        let each = |&t: &usize| Bytes(index.tensors[t].len.0 / index.tensors[t].shape[2]);
        let all: Bytes = stacks.iter().map(each).map(|each| each.align_up(4096) * n).sum();
        let device = if machine.gpu.is_some() { all } else { Bytes::ZERO };
        Some(ExpertRoom { ram: all, device })
    };
    let abilities = Abilities { slot_size: &size, expert_region: &region, left };
    let needs = needs(model, machine);
    let problem = Problem::new(index, machine, &needs, wish, abilities);
    let judged = Cell::new(0);
    (solve_counting(&problem, &judged), judged.get())
}

/// A wish for so much RAM and memory of a GPU.
fn wish(ram: Bytes, vram: Bytes) -> Wish {
    Wish {
        stream: StreamMode::Auto,
        ram: Some(ram),
        vram: Some(vram),
        ctx: 4096,
        ctx_least: 4096,
        ubatch: None,
        repack: true,
    }
}

/// What lives where, and what that takes.
fn describe(plan: &Plan, rates: &Rates, touched: Touched) -> String {
    let mut out = String::new();
    let tiers = [
        (Tier::Resident, "here"),
        (Tier::Cpu, "by CPU"),
        (Tier::Host, "from RAM"),
        (Tier::Streamed, "from disk"),
    ];
    for (tier, name) in tiers {
        let (count, bytes) = match tier {
            Tier::Resident => (plan.count_here(), plan.bytes_here()),
            tier => (plan.count(tier), plan.bytes(tier)),
        };
        if count > 0 {
            let _ = write!(out, "{count} {name} {bytes}, ");
        }
    }
    if plan.count_partly() > 0 {
        let _ = write!(out, "{} in part, ", plan.count_partly());
    }
    if plan.output_by_cpu {
        out += "output by CPU, ";
    }
    if !plan.streamed.is_empty() {
        let _ = write!(out, "{} slots of {}, ", plan.n_slots, plan.slot);
    }
    if let Some(experts) = &plan.experts {
        let above = experts.on_device.map_or(0, |above| above.n_slots);
        let _ = write!(out, "pool of {} in {}", experts.n_slots, experts.pool);
        let _ = write!(
            out,
            "{}, ",
            if above > 0 { format!(" and {above} above") } else { String::new() }
        );
        if experts.on_device.is_some_and(|above| above.lends) {
            out.truncate(out.len() - 2);
            out += " that prompts borrow, ";
        }
    }
    let cost = estimate(plan, rates, touched, PROMPT);
    let drafted = pass_seconds(plan, rates, touched, DRAFTED);
    let prompt = cost.prompt.seconds / f64::from(PROMPT);
    let _ = write!(
        out,
        "batches of {}: {:.4} s a token by {}, {prompt:.5} of a prompt by {}, {drafted:.4} with drafts; {:.2} s",
        plan.n_ubatch,
        cost.generation.seconds,
        cost.generation.bottleneck,
        cost.prompt.bottleneck,
        conversation(plan, rates, touched),
    );
    out
}

/// Plans for a machine and a model with budgets that are shares of the model, and what else is wished for.
fn rows(name: &str, machine: &Machine, model: &Model) -> String {
    let size = model.index.blocks.iter().map(|b| b.len).sum::<Bytes>();
    let share = |percent: u64| Bytes(size.0 / 100 * percent);
    // What every plan needs.
    let least = MIB * (150 + 250 * model.wide);
    let outside: Bytes = model.index.tensors[..2].iter().map(|t| t.len).sum();
    let [rams, vrams]: [&[u64]; 2] = match machine.gpu {
        None => [&[10, 30, 60, 90], &[0]],
        Some(_) => [&[5, 40], &[3, 15, 85]],
    };
    let touched = Touched::of(&model.index);
    let rates = machine.gpu.map_or(machine.rates, |gpu| gpu.rates);
    let mut out = String::new();
    let mut row = |of: String, wish: Wish, left: &HashSet<usize>| {
        let text = match plan_for(model, machine, &wish, left).0 {
            Ok(plan) => describe(&plan, &rates, touched),
            Err(refusal) => refusal.to_string(),
        };
        let _ = writeln!(out, "{name} {} {of}: {text}", model.name);
    };
    let none = HashSet::new();
    for &vram in vrams {
        for &ram in rams {
            let on_gpu = if vram > 0 { format!(" vram {vram} %") } else { String::new() };
            let in_ram = if vram > 0 { MIB * 200 } else { least };
            let wish = wish(share(ram) + in_ram + outside, share(vram) + least);
            row(format!("ram {ram} %{on_gpu}"), wish, &none);
            let usual = matches!((ram, vram), (30, 0) | (40, 15));
            if usual && USUAL.contains(&model.name) {
                let with = |of: &str, wish| (format!("ram {ram} %{on_gpu} {of}"), wish);
                let (stream, ubatch) = (StreamMode::Always, Some(64));
                let short = Wish { ctx_least: 512, ctx: 65536, ..wish };
                let least = Wish { stream, ram: None, vram: None, ..wish };
                let special = [
                    with("always", Wish { stream, ..wish }),
                    with("always, least", least),
                    with("never", Wish { stream: StreamMode::Never, ..wish }),
                    with("batch 64", Wish { ubatch, ..wish }),
                    with("long", short),
                ];
                special.into_iter().for_each(|(of, wish)| row(of, wish, &none));
                if vram > 0 {
                    let left = model.index.blocks.iter().map(|b| b.tensors[1]).collect();
                    row(format!("ram {ram} %{on_gpu} left"), wish, &left);
                }
            }
        }
    }
    out
}

#[test]
fn the_table_of_plans() {
    let models = models();
    let mut table = String::new();
    for (name, machine) in machines() {
        for model in &models {
            table += &rows(name, &machine, model);
        }
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("plans", table);
    });
}

/// However large a model is, few plans of it are judged: planning takes milliseconds.
#[test]
fn a_huge_mixture_is_planned_for_at_once() {
    let model = huge();
    let size = model.index.blocks.iter().map(|b| b.len).sum::<Bytes>();
    let share = |percent| Bytes(size.0 / 100 * percent) + GIB * 4;
    let mut slowest = Duration::ZERO;
    for (name, machine) in machines() {
        for (ram, vram) in [(20, 3), (40, 15), (60, 50), (130, 30)] {
            let (wish, begin) = (wish(share(ram), share(vram)), Instant::now());
            let (plan, judged) = plan_for(&model, &machine, &wish, &HashSet::new());
            slowest = slowest.max(begin.elapsed());
            assert!(plan.is_ok() && judged < 600, "{name}, {ram} %, {vram} %: {judged}");
        }
    }
    // For those who measure: a clock says nothing on a busy machine.
    let _ = writeln!(std::io::stderr(), "the slowest plan took {slowest:?}");
}
