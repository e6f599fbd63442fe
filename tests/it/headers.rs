//! Headers that say something else than their weights: for every architecture that libllama can build, keys of attention are changed one
//! by one. Each file is refused by the checks, or by libllama in words, or it runs; nothing ends the program otherwise, and nothing holds
//! it. So the lists of architectures in `gguf/check*.rs` stay those of the libllama that is linked.
//!
//! A share of the files is tried; `AIRRUN_TEST_HEADERS=1` tries all. Of two keys changed at once some are tried, chosen by
//! `AIRRUN_TEST_SEED`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use airrun::gguf::{Index, Value};
use airrun::source::sim::Dice;

use crate::embedding::with_keys;
use crate::gguf_writer::{self as gw, Payload};
use crate::tiny_models::{self, Spec};

/// Of how many files one is tried.
const EVERY: usize = 60;
/// How many pairs of changes are tried of a model where all single ones are.
const PAIRS: usize = 60;
/// One per core of the smallest machine that the tests are for.
const WORKERS: usize = 2;
/// Far more than any of these models takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keys of one number each.
const NUMBERS: [&str; 15] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.key_length_mla",
    "attention.value_length_mla",
    "attention.kv_lora_rank",
    "attention.shared_kv_layers",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "full_attention_interval",
];

/// One change of a model: which key, and what it says then.
type Change = (&'static str, Payload, String);

/// What a file can be made to say.
fn changes(index: &Index) -> Vec<Change> {
    let n_blocks = index.blocks.len().max(1);
    let uint = |key: &str| {
        let arch = index.metadata.get("general.architecture").and_then(Value::str)?;
        index.metadata.get(&format!("{arch}.{key}")).and_then(Value::uint)
    };
    let mut all = Vec::new();
    for key in NUMBERS {
        let is = uint(key).unwrap_or(0) as u32;
        let mut numbers = vec![0, 1, 2, 3, is / 2, is * 2, is + 2, is.saturating_sub(2), 16, 64];
        numbers.sort_unstable();
        numbers.dedup();
        for n in numbers.into_iter().filter(|&n| uint(key) != Some(n.into())) {
            all.push((key, gw::u32(n), n.to_string()));
        }
        if ["attention.head_count", "attention.head_count_kv"].contains(&key) {
            for (at, n) in [(0, 1), (n_blocks - 1, 1), (n_blocks - 1, 2 * is), (n_blocks - 1, 0)] {
                let mut each = vec![is; n_blocks];
                each[at] = n;
                all.push((key, gw::u32s(&each), format!("{each:?}")));
            }
        }
    }
    for n in [0, 1] {
        let each = vec![n; n_blocks];
        let key = "attention.sliding_window_pattern";
        all.push((key, gw::u32s(&each), format!("{each:?}")));
    }
    all
}

/// `file`, in which `key` is `value`: what it said before goes by another name.
fn changed(file: &[u8], key: &str, value: &Payload) -> Vec<u8> {
    let mut file = file.to_vec();
    let entry = gw::string(key.as_bytes(), key.len() as u64);
    if let Some(at) = file.windows(entry.len()).position(|w| w == entry) {
        file[at + 8] = b'_';
    }
    with_keys(&file, &[(key.to_owned(), Payload(value.0, value.1.clone()))])
}

/// What went wrong with a file, if anything did.
fn try_file(path: &Path) -> Option<String> {
    if Index::open(path).is_ok_and(|index| index.check_model().is_err()) {
        return None;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_airrun"));
    child.args(["logits", "--tokens", "1,2,3", "-t", "1", "--ram", "2G"]).arg(path);
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return Some("it does not come to an end".to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ended_well = matches!(output.status.code(), Some(0 | 1));
    let line = said.lines().find(|line| line.contains("cannot go on"));
    match (ended_well, line) {
        (true, None) => None,
        (_, line) => Some(format!("{}: {}", output.status, line.unwrap_or(&said))),
    }
}

/// Tries a share of one architecture's files.
#[expect(
    clippy::print_stderr,
    reason = "trying all takes long: what is known is not lost when it is given up"
)]
fn try_model(
    spec: &Spec,
    dir: &Path,
    is_chosen: impl Fn(usize) -> bool,
    n_pairs: usize,
    mut dice: Dice,
) -> String {
    let mut wrong = String::new();
    let path = dir.join(format!("{}.gguf", spec.name));
    tiny_models::write(spec, &path).unwrap();
    let file = fs::read(&path).unwrap();
    if let Err(why) = Index::open(&path).unwrap().check_model() {
        // libllama builds plm's tensors, and no graph of them.
        if spec.arch != "plm" {
            writeln!(wrong, "{}: is refused as it is: {why}", spec.name).unwrap();
        }
    }
    let all = changes(&Index::open(&path).unwrap());
    let mut chosen: Vec<Vec<&Change>> =
        all.iter().enumerate().filter(|(i, _)| is_chosen(*i)).map(|(_, one)| vec![one]).collect();
    for _ in 0..n_pairs {
        let pair = [&all[dice.below(all.len())], &all[dice.below(all.len())]];
        if pair[0].0 != pair[1].0 {
            chosen.push(pair.to_vec());
        }
    }
    for some in chosen {
        let mut file = file.clone();
        for (key, value, _) in &some {
            file = changed(&file, &format!("{}.{key}", spec.arch), value);
        }
        fs::write(&path, file).unwrap();
        if let Some(why) = try_file(&path) {
            let said: Vec<_> = some.iter().map(|(key, _, n)| format!("{key} = {n}")).collect();
            let line = format!("{}: {}: {why}", spec.name, said.join(", "));
            eprintln!("{line}");
            writeln!(wrong, "{line}").unwrap();
        }
    }
    fs::remove_file(&path).unwrap();
    wrong
}

#[test]
fn headers_that_contradict_their_weights_end_nothing() {
    let every = std::env::var("AIRRUN_TEST_HEADERS").ok().and_then(|n| n.parse().ok());
    let every: usize = every.unwrap_or(EVERY).max(1);
    let seed = std::env::var("AIRRUN_TEST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let n_pairs = (PAIRS / every).max(1);
    let dir = tempfile::tempdir().unwrap();
    // One model of each architecture, as its table has it first.
    let mut specs: Vec<&Spec> = Vec::new();
    for spec in tiny_models::all() {
        if specs.iter().all(|known| known.arch != spec.arch) {
            specs.push(spec);
        }
    }
    let wrong: Vec<String> = thread::scope(|scope| {
        let (specs, dir) = (&specs, dir.path());
        let try_all = |worker: usize| {
            let of_worker = specs.iter().enumerate().skip(worker).step_by(WORKERS);
            of_worker
                .map(|(n, spec)| {
                    let is_chosen = |i: usize| (7 * n + i).is_multiple_of(every);
                    try_model(spec, dir, is_chosen, n_pairs, Dice::new(seed + n as u64))
                })
                .collect()
        };
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| scope.spawn(move || try_all(worker))).collect();
        workers.into_iter().flat_map(|worker| -> Vec<String> { worker.join().unwrap() }).collect()
    });
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{} files:\n{wrong}", wrong.lines().count());
}

/// What a row makes of a key: of what it is in each block of the model.
type Made = fn(u32, usize) -> Payload;

fn as_it_is(n: u32, n_blocks: usize) -> Payload {
    gw::u32s(&vec![n; n_blocks])
}

fn other_at_the_end(n: u32, n_blocks: usize) -> Payload {
    let mut each = vec![n; n_blocks];
    each[n_blocks - 1] = n + 1;
    gw::u32s(&each)
}

fn none(_: u32, _: usize) -> Payload {
    gw::u32(0)
}

fn one(_: u32, _: usize) -> Payload {
    gw::u32(1)
}

fn more(n: u32, _: usize) -> Payload {
    gw::u32(n + 2)
}

fn nowhere(_: u32, n_blocks: usize) -> Payload {
    gw::u32s(&vec![0; n_blocks])
}

fn all_but_the_last(_: u32, n_blocks: usize) -> Payload {
    gw::u32s(&(0..n_blocks).map(|block| u32::from(block + 1 < n_blocks)).collect::<Vec<_>>())
}

/// As gemma3n is published: four with a window, and one without.
fn every_fifth_not(_: u32, n_blocks: usize) -> Payload {
    gw::u32s(&(0..n_blocks).map(|block| u32::from(block % 5 < 4)).collect::<Vec<_>>())
}

fn all_but_one(_: u32, n_blocks: usize) -> Payload {
    gw::u32(n_blocks as u32 - 1)
}

/// Checks of caches and of single graphs, by name: a key just outside of what the check allows, and just inside.
const LATE: [(&str, &str, &str, Made, Made); 14] = [
    ("FUSED_KV_HEADS_DIFFER", "falcon", "attention.head_count_kv", other_at_the_end, as_it_is),
    ("COMPRESSED_KV_HEADS", "deepseek2", "attention.head_count_kv", other_at_the_end, as_it_is),
    ("COMPRESSED_KEYS_LONGER", "deepseek2", "attention.key_length", more, |n, _| gw::u32(n)),
    ("DEEPSEEK4_KV_HEADS", "deepseek4", "attention.head_count_kv", other_at_the_end, as_it_is),
    ("MINICPM3_KV_HEADS", "minicpm3", "attention.head_count_kv", other_at_the_end, as_it_is),
    ("RWKV6QWEN2_KV_HEADS", "rwkv6qwen2", "attention.head_count_kv", other_at_the_end, as_it_is),
    ("RWKV6QWEN2_SHIFTS", "rwkv6qwen2", "token_shift_count", |_, _| gw::u32(2), one),
    (
        "GEMMA3N_CACHES_OF_OTHERS",
        "gemma3n",
        "attention.sliding_window_pattern",
        nowhere,
        every_fifth_not,
    ),
    ("GRANITESWITCH_HEADS", "graniteswitch", "attention.head_count", other_at_the_end, as_it_is),
    ("LLAMA4_WINDOW", "llama4", "attention.sliding_window", none, one),
    ("AFMOE_WINDOW", "afmoe", "attention.sliding_window", none, one),
    (
        "GRANITE_SWA_NOWHERE",
        "granite_swa",
        "attention.sliding_window_pattern",
        nowhere,
        all_but_the_last,
    ),
    ("SPARK2_5_NOWHERE", "spark2_5", "attention.sliding_window_pattern", nowhere, all_but_the_last),
    ("GEMMA4_SHARED_WITH_NONE", "gemma4", "attention.shared_kv_layers", all_but_one, none),
];

#[test]
fn checks_of_single_graphs_refuse_no_more_than_they_must() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = String::new();
    for (name, arch, key, outside, inside) in LATE {
        let spec = tiny_models::all().iter().find(|spec| spec.arch == arch).unwrap();
        let path = dir.path().join(format!("{name}.gguf"));
        tiny_models::write(spec, &path).unwrap();
        let (file, index) = (fs::read(&path).unwrap(), Index::open(&path).unwrap());
        let whole = format!("{arch}.{key}");
        let is = index.metadata.get(&whole).and_then(Value::uint);
        let is = is.or_else(|| index.metadata.get(&format!("{arch}.attention.head_count"))?.uint());
        let is = is.unwrap_or(0) as u32;
        for (made, is_inside) in [(outside, false), (inside, true)] {
            fs::write(&path, changed(&file, &whole, &made(is, index.blocks.len()))).unwrap();
            let checked = Index::open(&path).unwrap().check_model();
            let why = match (&checked, is_inside) {
                (Ok(()), true) => try_file(&path),
                (Err(error), false) if error.to_string().contains(key) => None,
                (checked, _) => Some(format!("{checked:?}")),
            };
            if let Some(why) = why {
                writeln!(wrong, "{name}, inside {is_inside}, of {is}: {why}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
