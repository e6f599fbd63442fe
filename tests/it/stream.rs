//! Streamed equals resident, bit for bit: on the same device, whatever the batch, across rewinds, with every reader and any faults
//! that a retry mends. And what no retry mends ends in an error that leaves the session usable.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use airrun::engine::batch::Batcher;
use airrun::engine::{
    Ask, Engine, Error, Finish, KvHome, LoadOptions, Recall, SamplerSettings, Session, StreamMode,
    Token, generate,
};
use airrun::gguf::Index;
use airrun::source::fault::{Behaviour, Fault, FaultySource};
use airrun::source::{Extent, HostBuf, Retrying, Ticket, WeightSource};
use airrun::stream::Monitor;
use airrun::units::{Bytes, Rate};

use crate::test_device;

fn model(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

fn options(stream: StreamMode) -> LoadOptions {
    LoadOptions {
        device: test_device::choice(),
        stream,
        ctx: Some(1024),
        threads: Some(2),
        ubatch: Some(512),
        repack: false,
        // Every pass reads, also where blocks could stay in RAM.
        keep: false,
        ..LoadOptions::default()
    }
}

fn open(name: &str, options: &LoadOptions) -> Session {
    let index = Arc::new(Index::open(&model(name)).unwrap());
    Engine::open(index, options).unwrap().session().unwrap()
}

fn tokens(n: usize, seed: usize) -> Vec<Token> {
    (0..n).map(|i| Token::try_from((i * 37 + seed * 101) % 2000 + 3).unwrap()).collect()
}

fn bits(session: &Session) -> Vec<u32> {
    session.logits().unwrap().iter().map(|l| l.to_bits()).collect()
}

/// Batches of 1, 7, 64 and 600 tokens, one token at a time after them, and back again.
fn compare(name: &str, sizes: &[usize], streaming: &LoadOptions) {
    let mut streamed = open(name, streaming);
    let resident = LoadOptions { stream: StreamMode::Never, keep: false, ..streaming.clone() };
    let mut resident = open(name, &resident);
    let mut both = |what: &str, step: &dyn Fn(&mut Session)| {
        step(&mut streamed);
        step(&mut resident);
        assert_eq!(streamed.tokens(), resident.tokens(), "{name}: {what}");
        assert!(bits(&streamed) == bits(&resident), "{name}: {what}: logits differ");
    };
    for &n in sizes {
        both(&format!("{n} tokens at once"), &|s| {
            s.sync(&tokens(n, n)).unwrap();
        });
        for next in 0..3 {
            both("one more", &|s| s.eval(&tokens(1, next)).unwrap());
        }
        both("rewound and on", &|s| {
            let half = s.tokens().len() / 2;
            s.rewind(half).unwrap();
            s.eval(&tokens(5, 77)).unwrap();
        });
    }
}

#[test]
fn streamed_equals_resident() {
    for name in ["tiny-chat-q4_k_m.gguf", "tiny-chat-q8_0.gguf", "tiny-draft-q8_0.gguf"] {
        compare(name, &[1, 7, 64, 600], &options(StreamMode::Always));
    }
}

/// Attention that the CPU computes beside a GPU cuts each pass into many graphs; without a GPU it is where it always is.
#[test]
fn streamed_equals_resident_with_keys_and_values_in_ram() {
    let recall = Recall::default().at_home(KvHome::Ram);
    let options = LoadOptions { recall, ..options(StreamMode::Always) };
    for name in ["tiny-chat-q4_k_m.gguf", "tiny-draft-q8_0.gguf"] {
        compare(name, &[1, 7, 64, 600], &options);
    }
}

/// What streams from RAM is the same; on a CPU nothing does.
#[test]
fn streamed_from_ram_equals_resident() {
    let options = LoadOptions { keep: true, ..options(StreamMode::Always) };
    compare("tiny-draft-q8_0.gguf", &[1, 64, 600], &options);
}

/// The small model with a source that misbehaves.
fn faulty(behaviour: Behaviour) -> Engine {
    let index = Arc::new(Index::open(&model("tiny-chat-q8_0.gguf")).unwrap());
    let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
        let faulty = FaultySource::new(inner, behaviour).unwrap();
        Arc::new(Retrying::new(Arc::new(faulty)))
    };
    Engine::open_with(index, &options(StreamMode::Always), wrap).unwrap()
}

const PROMPT: &str =
    "<|im_start|>user\nWhat is the capital of Mongolia?<|im_end|>\n<|im_start|>assistant\n";
const ANSWER: &str = "The capital of Mongolia is Ulaanbaatar.";

/// Asks for a capital, greedily.
fn ask(engine: &Engine, batcher: &mut Batcher) -> Result<String, Error> {
    let prompt = engine.vocab()?.tokenize(PROMPT, false, true)?;
    let greedy = SamplerSettings { temp: 0.0, ..SamplerSettings::default() };
    let go_on = &mut |_: &str| std::ops::ControlFlow::Continue(());
    let ask = Ask { prompt, settings: greedy, max_tokens: Some(40), ..Ask::default() };
    let answer = generate(batcher, ask, go_on)?;
    assert_eq!(answer.finish, Finish::Stop);
    Ok(answer.text)
}

#[test]
fn what_a_retry_mends_is_mended() {
    for behaviour in [
        Behaviour { latency: Duration::from_millis(2), ..Behaviour::default() },
        Behaviour { newest_first: true, ..Behaviour::default() },
        Behaviour { fault: Fault::ErrorAt(0), ..Behaviour::default() },
        Behaviour { fault: Fault::ErrorAt(9), ..Behaviour::default() },
    ] {
        let engine = faulty(behaviour);
        let mut batcher = engine.batcher().unwrap();
        assert_eq!(ask(&engine, &mut batcher).unwrap(), ANSWER, "{behaviour:?}");
    }
}

#[test]
fn what_no_retry_mends_is_an_error_at_that_token() {
    for fault in [Fault::ErrorFrom(0), Fault::ErrorFrom(20), Fault::ShortFrom(20)] {
        let engine = faulty(Behaviour { fault, ..Behaviour::default() });
        let mut batcher = engine.batcher().unwrap();
        let error = ask(&engine, &mut batcher).unwrap_err();
        assert!(error.to_string().contains("block"), "{fault:?}: {error}");
        assert!(error.hint().is_some(), "{fault:?}");
        // The prompt took the first six requests: what it computed is kept when a later token fails.
        let kept = batcher.n_kept() > 0;
        assert_eq!(kept, fault != Fault::ErrorFrom(0), "{fault:?}");
        assert!(ask(&engine, &mut batcher).is_err(), "{fault:?}: the error stays one");
    }
}

#[test]
fn a_source_that_hangs_can_be_stopped() {
    let engine = faulty(Behaviour { fault: Fault::StuckAt(10), ..Behaviour::default() });
    let mut batcher = engine.batcher().unwrap();
    let monitor = batcher.monitor();
    let prompt = engine.vocab().unwrap().tokenize(PROMPT, false, true).unwrap();
    let is_over = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        // More than once: on a busy machine, the first may come before the answer begins, which forgets it.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(300));
                monitor.stop();
            }
        });
        let go_on = &mut |_: &str| std::ops::ControlFlow::Continue(());
        let answer = generate(&mut batcher, Ask { prompt, ..Ask::default() }, go_on);
        is_over.store(true, Ordering::Relaxed);
        answer.unwrap()
    });
    assert_eq!(answer.finish, Finish::Interrupted);
}

/// What happens to a reader.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// It panics where it is asked.
    Panic,
    /// It is gone, and the memory that it was to read into as well.
    Gone,
}

/// A source that dies with its sixth request.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn WeightSource>,
    death: Death,
    asked: AtomicUsize,
}

impl WeightSource for Mortal {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        match self.death {
            _ if self.asked.fetch_add(1, Ordering::Relaxed) != 5 => {
                self.inner.request(extents, buf)
            }
            Death::Panic => panic!("the test's own panic"),
            Death::Gone => Ticket::new().1,
        }
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Whatever was half done then is never computed with.
#[test]
fn a_reader_that_dies_fails_all_that_comes_with_its_reason() {
    for (death, reason) in
        [(Death::Panic, "the test's own panic"), (Death::Gone, "reader has stopped")]
    {
        let index = Arc::new(Index::open(&model("tiny-chat-q8_0.gguf")).unwrap());
        let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
            Arc::new(Mortal { inner, death, asked: AtomicUsize::new(0) })
        };
        let engine = Engine::open_with(index, &options(StreamMode::Always), wrap).unwrap();
        let mut session = engine.session().unwrap();
        let mut failed = 0;
        for pass in 0..4 {
            match session.eval(&tokens(1, pass)) {
                Ok(()) => assert_eq!(failed, 0, "{death:?}: a pass after one that failed is fine"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains(reason), "{death:?}: {error}");
                    failed += 1;
                }
            }
        }
        assert!(failed >= 2, "{death:?}: {failed} passes failed");
    }
}

/// Notes how far the computation was when each request came.
#[derive(Debug)]
struct Recorder {
    inner: Arc<dyn WeightSource>,
    monitor: OnceLock<Arc<Monitor>>,
    /// First byte of the request, and runs of the pass that were over.
    seen: Mutex<Vec<(u64, usize)>>,
}

impl WeightSource for Recorder {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        if let Some(monitor) = self.monitor.get() {
            let runs = monitor.snapshot().block;
            self.seen.lock().unwrap().push((extents[0].offset, runs));
        }
        self.inner.request(extents, buf)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// The read of a block is on its way before the block ahead of it is computed, and that of the first block of the next pass before
/// the last one is: there is always something to hide it behind.
#[test]
fn each_block_is_asked_for_while_the_one_before_it_is_computed() {
    let index = Arc::new(Index::open(&model("tiny-chat-q8_0.gguf")).unwrap());
    let mut recorder = None;
    let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
        let made = Arc::new(Recorder { inner, monitor: OnceLock::new(), seen: Mutex::default() });
        recorder = Some(made.clone());
        made
    };
    let options = options(StreamMode::Always);
    let mut session = Engine::open_with(index, &options, wrap).unwrap().session().unwrap();
    session.eval(&tokens(1, 0)).unwrap();
    let recorder = recorder.unwrap();
    recorder.monitor.set(session.monitor()).unwrap();
    for pass in 0..3 {
        session.eval(&tokens(1, pass)).unwrap();
        let seen = std::mem::take(&mut *recorder.seen.lock().unwrap());
        // Blocks 0 and 1 were on their way when the pass began.
        let runs: Vec<usize> = seen.iter().map(|&(_, runs)| runs).collect();
        assert_eq!(runs, [1, 2, 3, 4, 5, 6], "{seen:?}");
        let offsets: Vec<u64> = seen.iter().map(|&(offset, _)| offset).collect();
        assert!(offsets[..4].is_sorted() && offsets[4..].is_sorted(), "{seen:?}");
        assert!(offsets[5] < offsets[0], "{seen:?}");
    }
}

/// Reading and computing overlap: a pass takes as long as the slower of the two, not both. Both take about equally long here,
/// and what computing takes is measured in the same pass, so that a busy machine does not matter.
#[test]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn a_pass_takes_as_long_as_the_slower_of_reading_and_computing() {
    if !test_device::is_cpu() {
        eprintln!(
            "skipped: what a device computes while the host waits cannot be told from outside"
        );
        return;
    }
    let index = Index::open(&model("tiny-chat-q8_0.gguf")).unwrap();
    let rate = Rate(60e6);
    let engine = faulty(Behaviour { bandwidth: Some(rate), ..Behaviour::default() });
    let mut session = engine.session().unwrap();
    let monitor = session.monitor();
    let blocks: Bytes = index.blocks.iter().map(|b| b.len).sum();
    let read = rate.seconds(blocks);
    let block = read / index.blocks.len() as f64;
    let fine = |&(total, compute): &(f64, f64)| total <= 1.05 * read.max(compute) + block;
    let mut passes = Vec::new();
    // One pass that overlaps shows that it does; those that a busy machine disturbs show nothing.
    while passes.len() < 100 && !passes.last().is_some_and(fine) {
        let i = passes.len();
        session.rewind(0).unwrap();
        let (begin, before) = (Instant::now(), monitor.snapshot().stall_seconds);
        session.eval(&tokens(256, i)).unwrap();
        let total = begin.elapsed().as_secs_f64();
        let compute = total - (monitor.snapshot().stall_seconds - before);
        passes.push((total, compute));
    }
    assert!(
        passes.last().is_some_and(fine),
        "(total, computing) of {passes:?} s for reads of {read} s"
    );
}
