//! Experts one by one: the same bits as when all are resident, whatever stays in memory; and reads that fail are errors.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use airrun::engine::experts::{Counts, Watch};
use airrun::engine::{Engine, Error, LoadOptions, Session, StreamMode, Token, planning};
use airrun::gguf::Index;
use airrun::heap::Account;
use airrun::source::WeightSource;
use airrun::source::fault::{Behaviour, Fault, FaultySource};
use airrun::units::{Bytes, MIB};

use crate::batch;
use crate::test_device;
use crate::tiny_models;

/// How much memory may be used: the RAM, and that of a device that has its own.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    ram: Option<Bytes>,
    vram: Option<Bytes>,
}

fn options(stream: StreamMode, budget: Budget) -> LoadOptions {
    let Budget { ram, vram } = budget;
    // Beside a device, the CPU would compute what does not fit, if that were faster.
    let stream = match stream {
        StreamMode::Auto if !test_device::is_cpu() => StreamMode::Always,
        stream => stream,
    };
    LoadOptions {
        device: test_device::choice(),
        stream,
        ram,
        vram,
        ctx: Some(1024),
        // One: more would wait for each other while other tests run.
        threads: Some(1),
        ubatch: Some(512),
        repack: false,
        keep: false,
        ..LoadOptions::default()
    }
}

/// Makes the model of this name in `dir`.
fn model(name: &str, dir: &Path) -> PathBuf {
    let spec = tiny_models::all().iter().find(|spec| spec.name == name).unwrap();
    let path = dir.join(format!("{name}.gguf"));
    tiny_models::write(spec, &path).unwrap();
    path
}

const MIXTURES: [&str; 3] = ["qwen3moe-many", "gpt-oss-many", "deepseek2-many"];

fn index(path: &Path) -> Arc<Index> {
    Arc::new(Index::open(path).unwrap())
}

/// A budget between the least with which something streams and the least with which nothing does: this share of the way. Where a device
/// has memory of its own, of both memories the least with which something streams, and this share of the file besides; or the
/// least RAM there is, where the share is small.
fn budget(index: &Arc<Index>, stream: StreamMode, share: f64) -> Budget {
    let least = |fits: &dyn Fn(Bytes) -> bool| {
        let (mut low, mut high) = (0, 8192_u64);
        while low < high {
            let middle = low + (high - low) / 2;
            if fits(MIB * middle) { high = middle } else { low = middle + 1 }
        }
        low as f64
    };
    let fits = |budget, stream| planning::plan(index, &options(stream, budget), true).is_ok();
    let between = |some: f64, all: f64| Some(MIB * (some + (all - some) * share) as u64);
    let is_cpu = test_device::is_cpu();
    let of = |n| match is_cpu {
        true => Budget { ram: Some(n), vram: None },
        false => Budget { ram: None, vram: Some(n) },
    };
    // What the program takes itself differs by a little from run to run.
    let some = least(&|n| fits(of(n), stream)) + 2.0;
    if is_cpu {
        let all = least(&|n| fits(of(n), StreamMode::Never)) - 2.0;
        return Budget { ram: between(some, all), vram: None };
    }
    let file: Bytes = index.files.iter().map(|file| file.len).sum();
    let vram = between(some, some + file.f64() / MIB.f64());
    // Drivers take memory as they go: where the RAM is to hold some, it holds many.
    let ram = least(&|n| fits(Budget { ram: Some(n), vram }, stream)) + 160.0;
    Budget { ram: Some(MIB * ram as u64).filter(|_| share > 0.2), vram }
}

/// Opens a model with such a budget.
fn open_within(
    index: &Arc<Index>,
    stream: StreamMode,
    share: f64,
    open: &dyn Fn(&LoadOptions) -> Result<Engine, Error>,
) -> Session {
    open(&options(stream, budget(index, stream, share))).unwrap().session().unwrap()
}

/// Whether this process runs no other test. If it does, `test` is run in a process of its own: what the others take and give back
/// would be part of every budget.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "AIRRUN_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    // What others have remembered of this machine and of models is not theirs to see.
    let cache = tempfile::tempdir().unwrap();
    command.args([test, "--exact", "--nocapture"]).env("XDG_CACHE_HOME", cache.path());
    let output = command.env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{told}");
    false
}

fn tokens(n: usize, seed: usize) -> Vec<Token> {
    (0..n).map(|i| Token::try_from((i * 37 + seed * 101) % 125 + 2).unwrap()).collect()
}

fn bits(session: &Session) -> Vec<u32> {
    session.logits().unwrap().iter().map(|l| l.to_bits()).collect()
}

/// Whether a mixture's passes may have several tokens: those corrupt the heap of Mesa's software device, also where all weights are
/// resident. `archs` has the few that it survives.
fn has_batches() -> bool {
    test_device::is_cpu()
}

/// Batches of several sizes, tokens after them, back again, and the first tokens once more.
fn compare(path: &Path, mut streamed: Session, sizes: &[usize]) -> Session {
    let open =
        |options: &LoadOptions| Engine::open(index(path), options).unwrap().session().unwrap();
    let mut resident = open(&options(StreamMode::Never, Budget::default()));
    let mut both = |what: &str, step: &dyn Fn(&mut Session)| {
        step(&mut streamed);
        step(&mut resident);
        assert_eq!(streamed.tokens(), resident.tokens(), "{what}");
        assert!(bits(&streamed) == bits(&resident), "{}: {what}: logits differ", path.display());
    };
    if !has_batches() {
        for round in 0..2 {
            for next in 0..24 {
                both("one more", &|s| s.eval(&tokens(1, next + round)).unwrap());
            }
            both("rewound and on", &|s| {
                s.rewind(s.tokens().len() / 2).unwrap();
                s.eval(&tokens(1, 77)).unwrap();
            });
        }
        return streamed;
    }
    for &n in sizes {
        both(&format!("{n} tokens at once"), &|s| {
            s.sync(&tokens(n, n)).unwrap();
        });
        for next in 0..8 {
            both("one more", &|s| s.eval(&tokens(1, next)).unwrap());
        }
        both("two more", &|s| s.eval(&tokens(2, n)).unwrap());
        both("rewound and on", &|s| {
            let half = s.tokens().len() / 2;
            s.rewind(half).unwrap();
            s.eval(&tokens(5, 77)).unwrap();
        });
    }
    streamed
}

#[test]
fn logits_are_those_of_resident_experts_whatever_is_kept() {
    if !is_alone("experts::logits_are_those_of_resident_experts_whatever_is_kept") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Counts::default();
    for name in MIXTURES {
        let path = model(name, dir.path());
        let index = index(&path);
        for (stream, share, sizes) in [
            (StreamMode::Auto, 0.1, &[1, 7][..]),
            (StreamMode::Auto, 0.4, &[1, 2, 7, 64, 600, 3]),
            // Attention streams, too, beside experts that stay.
            (StreamMode::Always, 0.5, &[1, 64]),
        ] {
            let open = |options: &LoadOptions| Engine::open(index.clone(), options);
            let session = open_within(&index, stream, share, &open);
            let session = compare(&path, session, sizes);
            if let Some(watch) = session.monitor().experts() {
                seen.uses += watch.counts().uses;
                seen.misses += watch.counts().misses;
            }
        }
        let least = Engine::open(index, &options(StreamMode::Always, Budget::default())).unwrap();
        let least = compare(&path, least.session().unwrap(), &[1, 7, 64]);
        assert!(least.monitor().experts().is_some(), "{name}: experts come one by one");
    }
    assert!(seen.misses > 0 && seen.misses * 2 < seen.uses, "{seen:?}");
}

/// Where no block streams whole, each token's pass is counted from its beginning nevertheless.
#[test]
fn how_far_a_pass_is_begins_anew_with_each() {
    if !is_alone("experts::how_far_a_pass_is_begins_anew_with_each") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = model("qwen3moe-many", dir.path());
    let index = index(&path);
    let open = |options: &LoadOptions| Engine::open(index.clone(), options);
    let mut session = open_within(&index, StreamMode::Auto, 0.4, &open);
    session.sync(&tokens(if has_batches() { 64 } else { 1 }, 1)).unwrap();
    let runs: Vec<(usize, usize)> = (0..6)
        .map(|next| {
            session.eval(&tokens(1, next)).unwrap();
            let now = session.monitor().snapshot();
            (now.block, now.n_blocks)
        })
        .collect();
    assert!(runs[1].0 > 0 && runs[1].0 == runs[1].1, "{runs:?}");
    assert!(runs[1..].iter().all(|&now| now == runs[1]), "{runs:?}");
}

/// Of our memory, a token takes a piece or two, and a few small ones for each slice of an expert that has to be read.
#[test]
fn tokens_take_memory_only_for_what_is_read() {
    if !test_device::is_cpu() || !is_alone("experts::tokens_take_memory_only_for_what_is_read") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let index = index(&model("qwen3moe-many", dir.path()));
    let open = |options: &LoadOptions| Engine::open(index.clone(), options);
    let mut session = open_within(&index, StreamMode::Auto, 0.4, &open);
    let account = Account::new(usize::MAX);
    let misses = |session: &Session| session.monitor().experts().unwrap().counts().misses;
    // The first ones make room for what all of them need.
    session.eval(&tokens(1, 3)).unwrap();
    let (mut without, mut with) = (0, [0; 2]);
    for next in 1..200 {
        let before = (account.times(), misses(&session));
        // The same again finds its experts there; another does not, mostly.
        let token = tokens(1, if next % 6 == 0 { next } else { 3 });
        account.pay(|| session.eval(&token)).unwrap();
        let times = account.times() - before.0;
        match misses(&session) - before.1 {
            0 if times <= 2 => without += 1,
            0 => panic!("token {next} took memory {times} times"),
            read => with = [with[0] + times, with[1] + read as usize],
        }
    }
    // Three or four for each of an expert's three slices.
    assert!(with[1] > 8 && with[0] <= 16 * with[1], "{with:?}");
    assert!(without > 20, "{without} tokens found all their experts");
}

/// An engine of a mixture of which some experts are kept, whose reads go wrong as told.
fn faulty(path: &Path, behaviour: Behaviour) -> Session {
    let index = index(path);
    let open = |options: &LoadOptions| {
        let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
            Arc::new(FaultySource::new(inner, behaviour).unwrap())
        };
        Engine::open_with(index.clone(), options, wrap)
    };
    open_within(&index, StreamMode::Auto, 0.4, &open)
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_a_wrong_answer() {
    if !is_alone("experts::what_cannot_be_read_is_an_error_and_never_a_wrong_answer") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = model("qwen3moe-many", dir.path());
    let open =
        |options: &LoadOptions| Engine::open(index(&path), options).unwrap().session().unwrap();
    let mut resident = open(&options(StreamMode::Never, Budget::default()));
    let mut failures = 0;
    for at in [0, 8, 20, 47] {
        for fault in [Fault::ErrorAt(at), Fault::ShortFrom(at)] {
            let mut session = faulty(&path, Behaviour { fault, ..Behaviour::default() });
            for next in 0..10 {
                let done = session.eval(&tokens(1, next));
                if let Err(error) = done {
                    failures += 1;
                    assert!(matches!(error, Error::Stream { .. }), "{fault:?}: {error}");
                    if matches!(fault, Fault::ShortFrom(_)) {
                        break;
                    }
                    // The disk is well again.
                    let again = session.tokens().len();
                    session
                        .sync(&(0..=next).flat_map(|k| tokens(1, k)).collect::<Vec<_>>())
                        .unwrap();
                    assert!(session.tokens().len() > again);
                }
                resident.rewind(0).unwrap();
                for token in session.tokens().to_vec() {
                    resident.eval(&[token]).unwrap();
                }
                assert!(bits(&session) == bits(&resident), "{fault:?}: token {next}");
            }
        }
    }
    assert!(failures > 3, "{failures} faults were noticed");
}

#[test]
fn slow_and_reordered_reads_change_nothing() {
    if !is_alone("experts::slow_and_reordered_reads_change_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = model("gpt-oss-many", dir.path());
    let slow = Behaviour {
        latency: std::time::Duration::from_millis(2),
        newest_first: true,
        ..Behaviour::default()
    };
    let mut slow = faulty(&path, slow);
    let open =
        |options: &LoadOptions| Engine::open(index(&path), options).unwrap().session().unwrap();
    let mut resident = open(&options(StreamMode::Never, Budget::default()));
    for next in 0..20 {
        let n = if has_batches() { 1 + next % 2 } else { 1 };
        slow.eval(&tokens(n, next)).unwrap();
        resident.eval(&tokens(n, next)).unwrap();
        assert!(bits(&slow) == bits(&resident), "step {next}");
    }
}

#[test]
fn habits_are_remembered_and_change_no_answer() {
    if !is_alone("experts::habits_are_remembered_and_change_no_answer") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = model("qwen3moe-many", dir.path());
    let index = index(&path);
    let options = options(StreamMode::Auto, budget(&index, StreamMode::Auto, 0.4));
    let answer = || {
        let engine = Engine::open(index.clone(), &options).unwrap();
        let mut session = engine.session().unwrap();
        // Time to read ahead, for whoever has something to.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut all = Vec::new();
        for next in 0..100 {
            session.eval(&tokens(1, next)).unwrap();
            all.extend(bits(&session));
        }
        engine.learn();
        all
    };
    let first = answer();
    let remembered = PathBuf::from(std::env::var_os("XDG_CACHE_HOME").unwrap());
    let habits: Vec<PathBuf> = std::fs::read_dir(remembered.join("airrun/experts"))
        .expect("something was remembered")
        .map(|entry| entry.unwrap().path())
        .collect();
    let [file] = &habits[..] else { panic!("{habits:?}") };
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("hits") && text.len() < 20_000, "{text}");
    assert!(answer() == first, "warmed");
    // Whatever lies there: rubbish, or what was seen of another model.
    let shorter = text.replacen("\",\n", "\"\n", 1);
    let wilder = text.replace("0.", "7.").replace(['~', '/', '0'], "\u{7f}");
    for other in ["{", "[]", "null", &shorter, &wilder] {
        std::fs::write(file, other).unwrap();
        assert!(answer() == first, "{other}");
    }
}

#[test]
fn a_pass_that_is_stopped_while_experts_come_harms_none_after_it() {
    if !is_alone("experts::a_pass_that_is_stopped_while_experts_come_harms_none_after_it") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = model("qwen3moe-many", dir.path());
    let latency = std::time::Duration::from_millis(5);
    let mut slow = faulty(&path, Behaviour { latency, ..Behaviour::default() });
    let mut resident = Engine::open(index(&path), &options(StreamMode::Never, Budget::default()))
        .unwrap()
        .session()
        .unwrap();
    let monitor = slow.monitor();
    let mut stopped = 0;
    for next in 0..30 {
        let all: Vec<Token> = (0..=next).flat_map(|k| tokens(1, k)).collect();
        let stopper = std::thread::spawn({
            let monitor = monitor.clone();
            move || {
                std::thread::sleep(latency * (next as u32 % 5) / 2);
                monitor.stop();
            }
        });
        let done = slow.sync(&all);
        stopper.join().unwrap();
        monitor.clear_stop();
        if let Err(error) = done {
            stopped += 1;
            assert!(matches!(error, Error::Interrupted), "{error}");
            slow.sync(&all).unwrap();
        }
        resident.sync(&all).unwrap();
        assert_eq!(slow.tokens(), resident.tokens());
        assert!(bits(&slow) == bits(&resident), "token {next}");
    }
    assert!(stopped > 3, "{stopped} were stopped");
}

/// What several texts of one pass want is fetched once, and each is what it is beside the same others on resident weights.
#[test]
fn texts_of_one_pass_share_what_is_fetched() {
    if !has_batches() {
        #[expect(clippy::print_stderr, reason = "a test that skips says so")]
        {
            eprintln!("skipped: batches, which this device does not survive");
        }
        return;
    }
    if !is_alone("experts::texts_of_one_pass_share_what_is_fetched") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut hits = 0;
    for name in MIXTURES {
        let path = model(name, dir.path());
        let index = index(&path);
        let together = |stream, budget| {
            let options = LoadOptions { sequences: 3, ..options(stream, budget) };
            let engine = Engine::open(index.clone(), &options).unwrap();
            let mut batcher = engine.batcher().unwrap();
            let ears = batch::write(&mut batcher, &[tokens(5, 1), tokens(40, 2), tokens(9, 3)]);
            let counts = engine.monitor().experts().map(Watch::counts);
            (ears, counts)
        };
        let (resident, _) = together(StreamMode::Never, Budget::default());
        let budget = budget(&index, StreamMode::Auto, 0.4);
        let (streamed, counts) = together(StreamMode::Auto, budget);
        let counts = counts.expect("experts come one by one");
        assert!(counts.misses > 0, "{name}: {counts:?}");
        hits += counts.uses - counts.misses;
        for (a, b) in resident.iter().zip(&streamed) {
            let (a, b) = (a.0.lock().unwrap(), b.0.lock().unwrap());
            let bits = |heard: &batch::Heard| {
                let scored = heard.scored.iter().flat_map(|s| s.top.iter());
                scored.map(|a| (a.bytes.clone(), a.logprob.to_bits())).collect::<Vec<_>>()
            };
            assert!(!a.scored.is_empty() && a.text == b.text && bits(&a) == bits(&b), "{name}");
        }
    }
    // Some pools have no room for what three texts want at once.
    assert!(hits > 0);
}

#[test]
fn the_parts_of_a_split_model_are_read_by_expert() {
    if !is_alone("experts::the_parts_of_a_split_model_are_read_by_expert") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let whole = model("qwen3moe-many", dir.path());
    let parts = tiny_models::split(&whole, dir.path());
    let index = index(&parts);
    let open = |options: &LoadOptions| Engine::open(index.clone(), options);
    let session = compare(&whole, open_within(&index, StreamMode::Auto, 0.4, &open), &[1, 7, 64]);
    let counts = session.monitor().experts().expect("experts are kept").counts();
    assert!(counts.misses > 0, "{counts:?}");
}

#[test]
fn a_file_that_shrinks_is_an_error_and_never_a_wrong_answer() {
    if !is_alone("experts::a_file_that_shrinks_is_an_error_and_never_a_wrong_answer") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = model("qwen3moe-many", dir.path());
    let index = index(&path);
    let open = |options: &LoadOptions| Engine::open(index.clone(), options);
    let mut session = open_within(&index, StreamMode::Auto, 0.3, &open);
    session.eval(&tokens(1, 0)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 8).unwrap();
    let failed = (1..60).find_map(|next| session.eval(&tokens(1, next)).err());
    let error = failed.expect("not all experts are kept");
    assert!(matches!(error, Error::Stream { .. }), "{error}");
}
