//! Streamed equals resident, to the last bit, for every architecture that libllama can build and every type of weight.
//!
//! The engine runs each tiny model with every block streamed and with none, on prompts of several lengths; the two must compute the
//! same, and so must texts that share passes. A model without logits must be refused with a sentence. One model of each kind is run by the program itself, too, which
//! must print the same and end well. What was tried goes to stdout and to `target/architectures.md`, as a table.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{fs, thread};

use airrun::engine::{Engine, LoadOptions, StreamMode, Token};
use airrun::gguf::Index;
use serde::Deserialize;

use crate::tiny_models::{self, Outcome, Spec};
use crate::{batch, seen, test_device};

/// What every model is asked: one token, an odd few, several tiles of a matrix product. On one thread: more would wait
/// for each other, because as many models are tried at once as there are cores.
const PROMPTS: [Prompt; 3] = [prompt(1, 1), prompt(7, 1), prompt(64, 1)];
/// What a model of each kind is asked besides: threads that share the work, and more than one batch.
const MORE_PROMPTS: [Prompt; 2] = [prompt(64, 2), prompt(600, 2)];
/// A model of each kind: dense, of experts, recurrent, hybrid, with latent attention, with a cache that blocks share, with scaled
/// embeddings, with tied ones. Every sample has them.
pub(crate) const KINDS: [&str; 13] = [
    "llama",
    "llama-tied",
    "chameleon",
    "llama-q4_K",
    "qwen3moe",
    "gemma3",
    "gemma3n",
    "mamba2",
    "jamba",
    "rwkv7",
    "deepseek2",
    "gpt-oss",
    "nanbeige-loops",
];
/// Architectures whose models do not write one token after another.
pub(crate) const DIFFUSION: [&str; 4] = ["dream", "llada", "llada-moe", "rnd1"];
/// In no sample: Mesa's software device compiles one shader of this type for minutes (more than three, with LLVM 15).
const SLOW_SHADERS: &str = "llama-nvfp4";
/// One per core of the smallest machine that the tests are for.
const WORKERS: usize = 2;

/// What every model is asked on a device that may be made of software, and what those models are besides.
const DEVICE_PROMPTS: [Prompt; 1] = [prompt(7, 1)];
const MORE_DEVICE_PROMPTS: [Prompt; 1] = [prompt(64, 1)];

/// A prompt's length and the threads that compute it.
#[derive(Clone, Copy)]
struct Prompt {
    n_tokens: usize,
    threads: u32,
}

const fn prompt(n_tokens: usize, threads: u32) -> Prompt {
    Prompt { n_tokens, threads }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prompt of {}, -t {}", self.n_tokens, self.threads)
    }
}

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
#[expect(clippy::print_stdout, reason = "the table is for whoever runs the test")]
fn streamed_logits_equal_resident_logits() {
    let dir = tempfile::tempdir().expect("a directory for the models");
    let specs = sample(every());
    let mut tried: Vec<(&Spec, Tried)> = thread::scope(|scope| {
        let of_worker = |worker| specs.iter().skip(worker).step_by(WORKERS);
        let dir = dir.path();
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn(move || {
                    let tried = |&spec: &&'static Spec| {
                        let result = try_model(spec, dir);
                        if !test_device::is_cpu() {
                            seen::note(spec.name, &word(spec, &result));
                        }
                        (spec, result)
                    };
                    of_worker(worker).map(tried).collect()
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
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/../architectures.md"), &table)
        .expect("the target directory is writable");
    if !test_device::is_cpu() {
        let words = tried.iter().map(|(spec, result)| (spec.name.to_owned(), word(spec, result)));
        seen::compare(&words.collect()).unwrap();
    }
    let failed = tried.iter().filter(|(_, result)| result.is_err()).count();
    assert!(failed == 0, "{failed} of {} models failed; see the table above", tried.len());
}

#[test]
fn every_sample_has_all_kinds() {
    assert_eq!(sample(1).len(), tiny_models::all().len());
    for every in [2, 8, 1000] {
        let names: Vec<_> = sample(every).iter().map(|spec| spec.name).collect();
        assert!(KINDS.iter().all(|kind| names.contains(kind)), "{every}: {names:?}");
    }
}

/// Every so many of all models, and one of each kind; all of them if that many is 1.
fn sample(every: usize) -> Vec<&'static Spec> {
    let is_chosen = |&(i, spec): &(usize, &Spec)| match spec.name {
        SLOW_SHADERS => every == 1,
        name => i.is_multiple_of(every) || KINDS.contains(&name),
    };
    tiny_models::all().iter().enumerate().filter(is_chosen).map(|(_, spec)| spec).collect()
}

/// Of how many models one is tried: all, unless `AIRRUN_TEST_EVERY` says otherwise, where each takes seconds.
fn every() -> usize {
    let every = std::env::var("AIRRUN_TEST_EVERY").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    std::cmp::max(every, 1)
}

/// Makes the model in `dir`, tries it and removes it.
fn try_model(spec: &Spec, dir: &Path) -> Tried {
    let path = dir.join(format!("{}.gguf", spec.name));
    tiny_models::write(spec, &path)?;
    let (prompts, more) = match test_device::is_cpu() {
        true => (&PROMPTS[..], &MORE_PROMPTS[..]),
        false => (&DEVICE_PROMPTS[..], &MORE_DEVICE_PROMPTS[..]),
    };
    let is_sample = KINDS.contains(&spec.name);
    let more = if is_sample { more } else { &[] };
    let result = prompts.iter().chain(more).try_for_each(|prompt| {
        let tried = match spec.outcome {
            Outcome::Logits => same_inside(&path, *prompt),
            // By the program: where ggml itself refuses, its process ends.
            Outcome::Refused => refused(&path, *prompt),
        };
        tried.map_err(|why| format!("{prompt}: {why}"))
    });
    // Of many-expert mixtures, software devices do not survive several tokens in a pass.
    let together = match spec.outcome {
        Outcome::Logits if DIFFUSION.contains(&spec.arch) => refused_together(&path),
        Outcome::Logits if test_device::is_cpu() => same_together(&path),
        Outcome::Logits | Outcome::Refused => Ok(()),
    };
    let result =
        result.and_then(|()| together.map_err(|why| format!("texts that share passes: {why}")));
    let by_program = |prompt: &Prompt| match spec.outcome {
        Outcome::Logits if is_sample => same_logits(&path, *prompt),
        Outcome::Logits | Outcome::Refused => Ok(()),
    };
    let result = result.and_then(|()| by_program(&prompts[0]));
    fs::remove_file(&path).map_err(|e| format!("cannot remove the model: {e}"))?;
    result
}

/// Streamed and resident in this process, the same finite logits, and not all alike.
fn same_inside(path: &Path, prompt: Prompt) -> Tried {
    let [streamed, resident] = [StreamMode::Always, StreamMode::Never]
        .map(|mode| computed(path, prompt, mode).map_err(|why| format!("{mode:?}: {why}")));
    let (streamed, resident) = (streamed?, resident?);
    let alike = resident.iter().all(|l| l.to_bits() == resident[0].to_bits());
    if resident.is_empty() || alike || !resident.iter().all(|l| l.is_finite()) {
        return Err("no logits to compare".to_owned());
    }
    let bits = |logits: &[f32]| logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    if bits(&streamed) == bits(&resident) { Ok(()) } else { Err("the logits differ".to_owned()) }
}

/// As `airrun logits` opens models.
fn options(threads: u32, stream: StreamMode) -> LoadOptions {
    LoadOptions {
        device: test_device::choice(),
        stream,
        ctx: Some(1024),
        threads: Some(threads),
        ubatch: Some(512),
        repack: false,
        ..LoadOptions::default()
    }
}

fn open(path: &Path, options: &LoadOptions) -> Result<Engine, String> {
    let index = Index::open(path).map_err(|error| error.to_string())?;
    Engine::open(Arc::new(index), options).map_err(|error| error.to_string())
}

/// The logits after a prompt.
fn computed(path: &Path, prompt: Prompt, stream: StreamMode) -> Result<Vec<f32>, String> {
    let engine = open(path, &options(prompt.threads, stream))?;
    let mut session = engine.session().map_err(|error| error.to_string())?;
    session.sync(&tokens(prompt)).map_err(|error| error.to_string())?;
    session.logits().map(<[f32]>::to_vec).map_err(|error| error.to_string())
}

/// Texts that share passes, streamed and resident: the same words, as likely to the last bit.
fn same_together(path: &Path) -> Tried {
    let prompts = [5, 40, 9].map(|n| tokens(prompt(n, 1)));
    let said = |stream| -> Result<Vec<_>, String> {
        let options = LoadOptions { sequences: 3, ..options(1, stream) };
        let mut batcher = open(path, &options)?.batcher().map_err(|error| error.to_string())?;
        batch::write(&mut batcher, &prompts).iter().map(heard).collect()
    };
    match said(StreamMode::Always)? == said(StreamMode::Never)? {
        true => Ok(()),
        false => Err("what is said differs".to_owned()),
    }
}

/// No texts, but a sentence.
fn refused_together(path: &Path) -> Tried {
    for stream in [StreamMode::Always, StreamMode::Never] {
        match open(path, &options(1, stream))?.batcher() {
            Err(error) if error.to_string().contains("it is a diffusion model") => {}
            other => return Err(format!("not refused: {:?}", other.err())),
        }
    }
    Ok(())
}

/// What somebody heard, and how likely each token was, in bits.
fn heard(ear: &batch::Ear) -> Result<(String, Vec<u32>), String> {
    let ended = ear.ended()?;
    let heard = ear.0.lock().unwrap();
    let likely =
        heard.scored.iter().flat_map(|scored| &scored.top).map(|one| one.logprob.to_bits());
    let likely: Vec<u32> = likely.collect();
    match likely.len() >= ended.n_generated && ended.n_generated > 0 {
        true => Ok((heard.text.clone(), likely)),
        false => Err("nothing was said".to_owned()),
    }
}

/// A prompt of which no two neighbours are alike.
fn tokens(prompt: Prompt) -> Vec<Token> {
    let n_vocab = tiny_models::N_VOCAB as usize;
    (0..prompt.n_tokens).map(|i| Token::try_from((i * 37 + 11) % n_vocab).unwrap()).collect()
}

/// Streamed and resident, the same finite logits, and not all alike.
fn same_logits(path: &Path, prompt: Prompt) -> Tried {
    let [streamed, resident] = ["always", "never"].map(|mode| match logits(path, prompt, mode) {
        Run { code: Some(0), stdout, .. } => Ok(stdout),
        run => Err(format!("--stream {mode}: {}", run.ending())),
    });
    let (streamed, resident) = (streamed?, resident?);
    let Logits { n_vocab, logits } = serde_json::from_str(&resident).map_err(|e| e.to_string())?;
    if logits.len() != n_vocab || logits.iter().all(|l| *l == logits[0]) {
        return Err("no logits to compare".to_owned());
    }
    // Every digit that tells two floats apart is printed, so equal text is equal bits.
    if streamed == resident { Ok(()) } else { Err("the logits differ".to_owned()) }
}

/// Streamed and resident, a sentence on stderr and exit code 1.
fn refused(path: &Path, prompt: Prompt) -> Tried {
    for mode in ["always", "never"] {
        let run = logits(path, prompt, mode);
        if run.code != Some(1) || !run.stdout.is_empty() || !run.stderr.starts_with("airrun: ") {
            return Err(format!("--stream {mode}: not refused: {}", run.ending()));
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

/// `airrun logits` with a prompt.
fn logits(path: &Path, prompt: Prompt, mode: &str) -> Run {
    let tokens: Vec<_> = tokens(prompt).iter().map(ToString::to_string).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_airrun"))
        .arg("logits")
        .arg(path)
        .args(["--tokens", &tokens.join(","), "--json", "--stream", mode, "-c", "1024"])
        .args(["-t", &prompt.threads.to_string(), "--device", &test_device::name()])
        .env("GGML_NO_BACKTRACE", "1") // a debugger per crash would take seconds
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What came of a model, in the words of `COMPAT.md`.
fn word(spec: &Spec, result: &Tried) -> String {
    let word = match (result, spec.outcome) {
        (Ok(()), Outcome::Logits) => "works",
        (Ok(()), Outcome::Refused) => "refused in words",
        (Err(_), _) => "fails",
    };
    word.to_owned()
}

/// A Markdown table: model, architecture, blocks, result.
fn table(tried: &[(&Spec, Tried)]) -> String {
    let mut text = String::from("| model | architecture | blocks | result |\n|---|---|---:|---|\n");
    for (spec, result) in tried {
        let result = match (result, spec.outcome) {
            (Ok(()), Outcome::Logits) => "streamed = resident",
            (Ok(()), Outcome::Refused) => "refused",
            (Err(why), _) => why,
        };
        let blocks = tiny_models::n_blocks(spec);
        writeln!(text, "| {} | {} | {blocks} | {result} |", spec.name, spec.arch)
            .expect("a string takes all");
    }
    text
}
