//! Headers that say something else than their weights: for every architecture that libllama can build, keys of attention are changed one
//! by one. Each file is refused by the checks, or by libllama in words, or it runs; nothing ends the program otherwise, and nothing holds
//! it. So the lists of architectures in `gguf/check*.rs` stay those of the libllama that is linked.
//!
//! A share of the files is tried; `AIRRUN_TEST_HEADERS=1` tries all.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use airrun::gguf::{Index, Value};

use crate::embedding::with_keys;
use crate::gguf_writer::{self as gw, Payload};
use crate::tiny_models::{self, Spec};

/// Of how many files one is tried.
const EVERY: usize = 60;
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
fn try_model(spec: &Spec, dir: &Path, is_chosen: impl Fn(usize) -> bool) -> String {
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
    for (i, (key, value, text)) in changes(&Index::open(&path).unwrap()).into_iter().enumerate() {
        if !is_chosen(i) {
            continue;
        }
        fs::write(&path, changed(&file, &format!("{}.{key}", spec.arch), &value)).unwrap();
        if let Some(why) = try_file(&path) {
            let line = format!("{}: {key} = {text}: {why}", spec.name);
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
                .map(|(n, spec)| try_model(spec, dir, |i| (7 * n + i).is_multiple_of(every)))
                .collect()
        };
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| scope.spawn(move || try_all(worker))).collect();
        workers.into_iter().flat_map(|worker| -> Vec<String> { worker.join().unwrap() }).collect()
    });
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{} files:\n{wrong}", wrong.lines().count());
}
