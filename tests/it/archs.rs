//! Streamed equals resident, to the last bit, for every architecture that libllama can build and every type of weight.
//!
//! The program itself runs each tiny model with every block streamed and with none, on prompts of several lengths; the
//! two must print the same. A model without logits must be refused with a sentence. What was tried goes to stdout and to
//! `target/architectures.md`, as a table.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use serde::Deserialize;

use crate::tiny_models::{self, Outcome, Spec};

/// Prompt lengths: one token, an odd few, several tiles of a matrix product.
const LENGTHS: [usize; 3] = [1, 7, 64];
/// A prompt of more than one batch, for the models of [`LONG_FOR`].
const LONG: usize = 600;
const LONG_FOR: [&str; 10] = [
    "llama",
    "llama-q4_K",
    "qwen3moe",
    "gemma3",
    "gemma3n",
    "mamba2",
    "jamba",
    "rwkv7",
    "deepseek2",
    "gpt-oss",
];
/// One per core of the smallest machine that the tests are for.
const WORKERS: usize = 2;

/// What `airrun logits --json` prints.
#[derive(Deserialize)]
struct Logits {
    n_vocab: usize,
    /// Not finite ones are `null`, which is an error here.
    logits: Vec<f32>,
}

/// What one model did: nothing to say, or what went wrong.
type Tried = Result<(), String>;

#[test]
fn streamed_logits_equal_resident_logits() {
    let dir = tempfile::tempdir().expect("a directory for the models");
    let specs = tiny_models::all();
    let mut tried: Vec<(&Spec, Tried)> = thread::scope(|scope| {
        let of_worker = |worker| specs.iter().skip(worker).step_by(WORKERS);
        let dir = dir.path();
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn(move || {
                    of_worker(worker).map(|spec| (spec, try_model(spec, dir))).collect()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| -> Vec<_> { worker.join().expect("no panic") })
            .collect()
    });
    tried.sort_by_key(|(spec, _)| spec.name);
    let table = table(&tried);
    println!("{table}");
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/target/architectures.md"), &table)
        .expect("target/ is writable");
    let failed = tried.iter().filter(|(_, result)| result.is_err()).count();
    assert!(failed == 0, "{failed} of {} models failed; see the table above", tried.len());
}

/// Makes the model in `dir`, tries it and removes it.
fn try_model(spec: &Spec, dir: &Path) -> Tried {
    let path = dir.join(format!("{}.gguf", spec.name));
    tiny_models::write(spec, &path)?;
    let long = LONG_FOR.contains(&spec.name).then_some(LONG);
    let result = LENGTHS.into_iter().chain(long).try_for_each(|n_tokens| match spec.outcome {
        Outcome::Logits => same_logits(&path, n_tokens),
        Outcome::Refused => refused(&path, n_tokens),
    });
    fs::remove_file(&path).map_err(|e| format!("cannot remove the model: {e}"))?;
    result
}

/// Streamed and resident, the same finite logits, which depend on the token.
fn same_logits(path: &Path, n_tokens: usize) -> Tried {
    let [streamed, resident] = ["always", "never"].map(|mode| match logits(path, n_tokens, mode) {
        Run { code: Some(0), stdout, .. } => Ok(stdout),
        run => Err(format!("{n_tokens} tokens, --stream {mode}: {}", run.ending())),
    });
    let (streamed, resident) = (streamed?, resident?);
    let read: Logits =
        serde_json::from_str(&resident).map_err(|e| format!("{n_tokens} tokens: {e}"))?;
    if read.logits.len() != read.n_vocab || read.logits.iter().all(|l| *l == read.logits[0]) {
        return Err(format!("{n_tokens} tokens: no logits to compare"));
    }
    // Every digit that tells two floats apart is printed, so equal text is equal bits.
    if streamed == resident { Ok(()) } else { Err(format!("{n_tokens} tokens: the logits differ")) }
}

/// Streamed and resident, a sentence on stderr and exit code 1.
fn refused(path: &Path, n_tokens: usize) -> Tried {
    for mode in ["always", "never"] {
        let run = logits(path, n_tokens, mode);
        if run.code != Some(1) || !run.stdout.is_empty() || !run.stderr.starts_with("airrun: ") {
            return Err(format!(
                "{n_tokens} tokens, --stream {mode}: not refused: {}",
                run.ending()
            ));
        }
    }
    Ok(())
}

/// How a run of the program ended.
struct Run {
    /// None: killed by a signal.
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    /// The exit code and the first line of stderr.
    fn ending(&self) -> String {
        let code =
            self.code.map_or_else(|| "killed by a signal".to_owned(), |c| format!("exit code {c}"));
        format!("{code}: {}", self.stderr.lines().next().unwrap_or_default())
    }
}

/// `airrun logits` with a prompt of `n_tokens` tokens, no two neighbours alike.
fn logits(path: &Path, n_tokens: usize, mode: &str) -> Run {
    let tokens: Vec<_> = (0..n_tokens)
        .map(|i| ((i * 37 + 11) % tiny_models::N_VOCAB as usize).to_string())
        .collect();
    let output = Command::new(env!("CARGO_BIN_EXE_airrun"))
        .arg("logits")
        .arg(path)
        .args(["--tokens", &tokens.join(","), "--json", "--stream", mode, "-t", "2", "-c", "1024"])
        .env("GGML_NO_BACKTRACE", "1")
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A Markdown table: model, architecture, blocks, result.
fn table(tried: &[(&Spec, Tried)]) -> String {
    let mut text = String::from("| model | architecture | blocks | result |\n|---|---|---:|---|\n");
    for (spec, result) in tried {
        let result = match (result, spec.outcome) {
            (Ok(()), Outcome::Logits) => "streamed = resident",
            (Ok(()), Outcome::Refused) => "refused: no logits",
            (Err(why), _) => why,
        };
        let blocks = tiny_models::n_blocks(spec);
        writeln!(text, "| {} | {} | {blocks} | {result} |", spec.name, spec.arch)
            .expect("a string takes all");
    }
    text
}
