//! Many texts at once are each what they would be alone: for attention, windows, recurrent states, experts and encoders; from
//! shared beginnings, on weights that stream, and after a failure.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use airrun::engine::batch::{Batcher, Course, Ended, Piece, Request, Room, Scored, Sink, Vector};
use airrun::engine::{
    Ask, Engine, Error, Finish, LoadOptions, SamplerSettings, StreamMode, Token, generate,
};
use airrun::gguf::Index;
use airrun::source::fault::{Behaviour, Fault, FaultySource};
use airrun::source::{Retrying, WeightSource};
use airrun::talk::StopWords;

use crate::tiny_models::{self, Outcome};

/// A margin between the two best logarithms of probability below which the shape of a batch may decide.
const SURE: f32 = 0.01;

/// Tokens that are written.
const N: usize = 8;

/// Models with every kind of memory.
const MODELS: [&str; 14] = [
    "llama",
    "llama-tied",
    "qwen3moe",
    "gemma2",
    "gemma3",
    "gemma3n",
    "mamba",
    "mamba2",
    "jamba",
    "rwkv7",
    "deepseek2",
    "gpt-oss",
    "t5",
    "granitehybrid",
];

/// What a text became.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) scored: Vec<Scored>,
    end: Option<Result<Ended, String>>,
    gone: bool,
}

/// Listens, and lets others see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ear(pub(crate) Arc<Mutex<Heard>>);

impl Sink for Ear {
    fn room(&self) -> Room {
        if self.0.lock().unwrap().gone { Room::Gone } else { Room::Free }
    }

    fn piece(&mut self, piece: Piece) {
        let mut heard = self.0.lock().unwrap();
        heard.text += &piece.text;
        heard.scored.extend(piece.scored);
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        self.0.lock().unwrap().end = Some(end.map_err(|error| error.to_string()));
    }
}

impl Ear {
    /// How the text ended, or why it did not.
    pub(crate) fn ended(&self) -> Result<Ended, String> {
        let heard = self.0.lock().unwrap();
        heard.end.clone().expect("the text has ended")
    }
}

fn greedy() -> SamplerSettings {
    SamplerSettings { temp: 0.0, ignore_eos: true, ..SamplerSettings::default() }
}

fn request(prompt: &[Token], ear: &Ear) -> Request {
    Request {
        prompt: prompt.to_vec(),
        settings: greedy(),
        grammar: None,
        max_tokens: Some(N),
        stops: StopWords::default(),
        logprobs: Some(2),
        shown: std::sync::Arc::default(),
        course: Course::default(),
        sink: Box::new(ear.clone()),
    }
}

fn options(sequences: u32, stream: StreamMode) -> LoadOptions {
    LoadOptions {
        stream,
        ctx: Some(256),
        sequences,
        threads: Some(1),
        ubatch: Some(24),
        repack: false,
        ..LoadOptions::default()
    }
}

fn open(path: &Path, sequences: u32, stream: StreamMode) -> Engine {
    Engine::open(Arc::new(Index::open(path).unwrap()), &options(sequences, stream)).unwrap()
}

fn tokens(n: usize, seed: usize, n_vocab: usize) -> Vec<Token> {
    (0..n).map(|i| Token::try_from((i * 37 + seed * 101) % (n_vocab - 10) + 5).unwrap()).collect()
}

/// Writes all of them, together.
pub(crate) fn write(batcher: &mut Batcher, prompts: &[Vec<Token>]) -> Vec<Ear> {
    let ears: Vec<Ear> = prompts.iter().map(|_| Ear::default()).collect();
    for (prompt, ear) in prompts.iter().zip(&ears) {
        batcher.add(request(prompt, ear));
    }
    while batcher.step() {}
    ears
}

/// Asserts that `ear` heard what the model says alone, up to where it was unsure.
fn check(name: &str, engine: &Engine, prompt: &[Token], ear: &Ear) {
    let mut batcher = engine.batcher().unwrap();
    let go_on = &mut |_: &str| ControlFlow::Continue(());
    let ask =
        Ask { prompt: prompt.to_vec(), settings: greedy(), max_tokens: Some(N), ..Ask::default() };
    let alone = generate(&mut batcher, ask, go_on).unwrap();
    let ended = ear.ended().unwrap();
    assert_eq!(ended.n_prompt, prompt.len(), "{name}");
    let heard = ear.0.lock().unwrap();
    // The last token of a text that was cut was not computed.
    let missing = usize::from(ended.finish == Finish::Length);
    let written = &ended.tokens[ended.tokens.len() + missing - ended.n_generated..];
    for (i, (a, b)) in alone.tokens.iter().zip(written).enumerate() {
        let [best, second] = heard.scored[i].top.as_slice() else {
            panic!("{name}: two were asked for")
        };
        assert!(
            a == b || best.logprob - second.logprob < SURE,
            "{name}: token {i} is {b}, alone {a}"
        );
        if a != b {
            return;
        }
    }
}

fn try_model(name: &str, path: &Path) {
    let alone = open(path, 1, StreamMode::Never);
    for stream in [StreamMode::Never, StreamMode::Always] {
        let engine = open(path, 3, stream);
        let n_vocab = engine.n_vocab();
        let mut batcher = engine.batcher().unwrap();
        let prompts: Vec<_> = [5, 60, 17, 33].iter().map(|&n| tokens(n, n, n_vocab)).collect();
        for (prompt, ear) in prompts.iter().zip(write(&mut batcher, &prompts)) {
            check(name, &alone, prompt, &ear);
        }
        // What was said and more; and twice the same at once, of which one can copy from the other.
        let longer = [prompts[1].clone(), tokens(9, 3, n_vocab)].concat();
        let prompts = [longer.clone(), tokens(40, 8, n_vocab), tokens(40, 8, n_vocab), longer];
        for (prompt, ear) in prompts.iter().zip(write(&mut batcher, &prompts)) {
            check(name, &alone, prompt, &ear);
        }
    }
}

#[test]
fn texts_are_what_they_would_be_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    for spec in tiny_models::all().iter().filter(|spec| MODELS.contains(&spec.name)) {
        assert!(spec.outcome == Outcome::Logits);
        let path = dir.path().join(format!("{}.gguf", spec.name));
        tiny_models::write(spec, &path).unwrap();
        try_model(spec.name, &path);
        n += 1;
    }
    assert!(n >= 10, "only {n} models were tried");
}

fn tiny_chat() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q8_0.gguf")
}

/// A stop that comes before a text has begun ends it as one that comes later does.
#[test]
fn a_text_that_is_stopped_before_it_begins_is_interrupted() {
    let engine = open(&tiny_chat(), 1, StreamMode::Never);
    let mut batcher = engine.batcher().unwrap();
    let ask =
        || Ask { prompt: vec![1, 2, 3], settings: greedy(), max_tokens: Some(3), ..Ask::default() };
    let mut go_on = |_: &str| ControlFlow::Continue(());
    batcher.monitor().stop();
    let answer = generate(&mut batcher, ask(), &mut go_on).unwrap();
    assert_eq!((answer.finish, answer.n_prompt, answer.tokens.len()), (Finish::Interrupted, 3, 0));
    // It was for that one.
    let answer = generate(&mut batcher, ask(), &mut go_on).unwrap();
    assert_ne!(answer.finish, Finish::Interrupted);
}

#[test]
fn beginnings_are_shared() {
    let engine = open(&tiny_chat(), 3, StreamMode::Never);
    let mut batcher = engine.batcher().unwrap();
    let prompt = tokens(100, 1, 2000);
    // The second and third wait until most of the first is read, and copy that.
    for (i, ear) in write(&mut batcher, &vec![prompt.clone(); 3]).iter().enumerate() {
        let reused = ear.ended().unwrap().n_reused;
        assert!(if i == 0 { reused == 0 } else { (80..100).contains(&reused) }, "{i}: {reused}");
    }
    let tally = batcher.take_tally();
    assert_eq!(tally.prompt + tally.reused, 300);
    assert_eq!(tally.generated, 3 * N);
    // A new beginning takes the slot that was quiet for the longest time; the old one is still there.
    write(&mut batcher, &[tokens(50, 2, 2000)]);
    let ears = write(&mut batcher, &[prompt[..60].to_vec()]);
    assert_eq!(ears[0].ended().unwrap().n_reused, 59);
}

#[test]
fn a_full_context_makes_the_youngest_wait() {
    // Eight texts of which four fit: all are written, and none differs.
    let engine = open(&tiny_chat(), 8, StreamMode::Never);
    let mut batcher = engine.batcher().unwrap();
    let prompts: Vec<_> = (0..8).map(|i| tokens(60, i, 2000)).collect();
    let ears: Vec<Ear> = prompts.iter().map(|_| Ear::default()).collect();
    for (prompt, ear) in prompts.iter().zip(&ears) {
        batcher.add(Request { max_tokens: Some(190), ..request(prompt, ear) });
    }
    while batcher.step() {}
    let alone = open(&tiny_chat(), 1, StreamMode::Never);
    let mut read = 0;
    for (prompt, ear) in prompts.iter().zip(&ears) {
        assert_eq!(ear.ended().unwrap().n_generated, 190);
        check("tiny-chat", &alone, prompt, ear);
        read += prompt.len();
    }
    assert!(batcher.take_tally().prompt <= read);
    assert!(engine.monitor().snapshot().passes > 190);
}

#[test]
fn texts_end_where_they_must() {
    let engine = open(&tiny_chat(), 2, StreamMode::Never);
    let mut batcher = engine.batcher().unwrap();
    let end = |batcher: &mut Batcher, change: &dyn Fn(&mut Request), prompt: &[Token]| {
        let ear = Ear::default();
        let mut request = request(prompt, &ear);
        change(&mut request);
        batcher.add(request);
        while batcher.step() {}
        ear.0.lock().unwrap().end.take().expect("an end")
    };
    let prompt = engine.vocab().unwrap().tokenize("The capital of Peru is", true, true).unwrap();
    let by_itself = |request: &mut Request| request.settings.ignore_eos = false;
    let ended = end(&mut batcher, &by_itself, &prompt).unwrap();
    assert_eq!(ended.finish, Finish::Stop);
    let no_end = |request: &mut Request| {
        request.settings = SamplerSettings { temp: 100.0, ignore_eos: true, ..greedy() };
        request.max_tokens = None;
    };
    let ended = end(&mut batcher, &no_end, &prompt).unwrap();
    assert_eq!(ended.finish, Finish::ContextFull);
    assert_eq!(ended.n_prompt + ended.n_generated, 256 + 1);
    let ended = end(&mut batcher, &|r| r.max_tokens = Some(0), &prompt).unwrap();
    assert_eq!((ended.finish, ended.n_generated), (Finish::Length, 0));
    assert!(end(&mut batcher, &|_| {}, &[]).is_err());
    assert!(end(&mut batcher, &|_| {}, &[1_000_000]).is_err());
    assert!(
        end(&mut batcher, &|_| {}, &tokens(256, 0, 2000)).unwrap_err().contains("room for 255")
    );
    let nonsense = |request: &mut Request| {
        let rules = "root ::= nothing".to_owned();
        request.grammar = Some(airrun::engine::Grammar::of(rules));
    };
    assert!(end(&mut batcher, &nonsense, &prompt).unwrap_err().contains("grammar"));
    assert_eq!(end(&mut batcher, &by_itself, &prompt).unwrap().finish, Finish::Stop);
}

#[test]
fn who_goes_is_let_go_and_the_others_go_on() {
    let engine = open(&tiny_chat(), 2, StreamMode::Always);
    let mut batcher = engine.batcher().unwrap();
    let ears = [Ear::default(), Ear::default(), Ear::default()];
    for (i, ear) in ears.iter().enumerate() {
        batcher.add(request(&tokens(30, i, 2000), ear));
    }
    batcher.step();
    ears[0].0.lock().unwrap().gone = true;
    // The pass is stopped half-way: what others want of it is computed again.
    engine.monitor().stop();
    while batcher.step() {}
    assert!(ears[0].0.lock().unwrap().end.is_none());
    let alone = open(&tiny_chat(), 1, StreamMode::Never);
    for i in [1, 2] {
        check("tiny-chat", &alone, &tokens(30, i, 2000), &ears[i]);
    }
    assert_eq!(batcher.take_tally().ended, [2, 1, 0]);
}

#[test]
fn a_failure_ends_its_texts_and_no_more() {
    let index = Arc::new(Index::open(&tiny_chat()).unwrap());
    let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
        let behaviour = Behaviour { fault: Fault::ErrorFrom(0), ..Behaviour::default() };
        Arc::new(Retrying::new(Arc::new(FaultySource::new(inner, behaviour).unwrap())))
    };
    let engine = Engine::open_with(index, &options(2, StreamMode::Always), wrap).unwrap();
    let mut batcher = engine.batcher().unwrap();
    for round in 0..3 {
        let prompts = [tokens(10, 1, 2000), tokens(10, 2, 2000), tokens(10, 3, 2000)];
        for ear in write(&mut batcher, &prompts) {
            let end = ear.0.lock().unwrap().end.take().unwrap();
            assert!(end.unwrap_err().contains("block"), "round {round}");
        }
    }
    assert_eq!(batcher.n_running() + batcher.n_pending(), 0);
}

#[test]
fn texts_that_come_together_begin_together() {
    let options = LoadOptions { ubatch: Some(512), ..options(16, StreamMode::Always) };
    let engine = Engine::open(Arc::new(Index::open(&tiny_chat()).unwrap()), &options).unwrap();
    let mut batcher = engine.batcher().unwrap();
    // All begin alike, as those of one chat template do: none waits for another where a pass has room for all.
    let vocab = engine.vocab().unwrap();
    let prompt = |name: &str| {
        let text = format!(
            "<|im_start|>system\nAnswer in one word.<|im_end|>\n<|im_start|>user\n\
             What is the capital of {name}?<|im_end|>\n<|im_start|>assistant\n"
        );
        vocab.tokenize(&text, true, true).unwrap()
    };
    const NAMES: &str = "Peru France Spain Italy Japan China Norway Sweden Poland Egypt Kenya Chile \
                         Cuba Greece Turkey Brazil";
    let prompts: Vec<_> = NAMES.split_whitespace().map(prompt).collect();
    let ears: Vec<Ear> = prompts.iter().map(|_| Ear::default()).collect();
    let mut n = 0;
    for (prompt, ear) in prompts.iter().zip(&ears) {
        n += usize::from(batcher.has_room());
        batcher.add(request(prompt, ear));
    }
    assert_eq!((n, batcher.has_room()), (16, false));
    assert!(batcher.step());
    assert_eq!((batcher.n_running(), batcher.n_pending()), (16, 0));
    assert!(ears.iter().all(|ear| ear.0.lock().unwrap().scored.len() == 1));
    while batcher.step() {}
    let alone = open(&tiny_chat(), 1, StreamMode::Never);
    for (prompt, ear) in prompts.iter().zip(&ears) {
        check("tiny-chat", &alone, prompt, ear);
    }
    assert_eq!(engine.monitor().snapshot().passes, u64::try_from(N).unwrap());
}

/// Who has gone before a place was free is let go of with the next step, and costs no pass.
#[test]
fn who_goes_while_waiting_is_let_go() {
    let engine = open(&tiny_chat(), 1, StreamMode::Always);
    let mut batcher = engine.batcher().unwrap();
    // More than there are places.
    let ears: Vec<Ear> = (0..2 * batcher.n_places()).map(|_| Ear::default()).collect();
    for (i, ear) in ears.iter().enumerate() {
        batcher.add(request(&tokens(20, i, 2000), ear));
    }
    batcher.step();
    let waiting = batcher.n_pending();
    assert!(waiting > 0 && batcher.n_running() > 0);
    ears.iter().rev().take(waiting).for_each(|ear| ear.0.lock().unwrap().gone = true);
    batcher.step();
    assert_eq!(batcher.n_pending(), 0);
    while batcher.step() {}
    let ended = ears.iter().filter(|ear| ear.0.lock().unwrap().end.is_some()).count();
    assert_eq!(ended, ears.len() - waiting);
}

/// Goes on with a vector until it is there; `between` is told how often it was asked for.
fn embed(batcher: &mut Batcher, text: &[Token], mut between: impl FnMut(usize)) -> Vec<f32> {
    for n in 0..1000 {
        between(n);
        match batcher.embed(text).unwrap() {
            Vector::Done(vector) => return vector,
            Vector::Grows | Vector::Waits => {}
        }
    }
    panic!("a vector that never comes")
}

/// How alike two vectors are. Where the context puts tokens decides in which order they are summed up.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn vectors_take_few_passes_and_outlive_those_that_are_stopped() {
    let index = Arc::new(Index::open(&tiny_chat()).unwrap());
    let options = LoadOptions {
        embedding: true,
        ubatch: Some(512),
        ctx: Some(1024),
        ..options(2, StreamMode::Always)
    };
    let engine = Engine::open(index, &options).unwrap();
    let mut batcher = engine.batcher().unwrap();
    let text = tokens(900, 1, 2000);
    let whole = embed(&mut batcher, &text, |_| {});
    assert_eq!(engine.monitor().snapshot().passes, 2);
    // Somebody else's pass is stopped each time but the last ones: what was read stays.
    let monitor = engine.monitor();
    let before = monitor.snapshot().passes;
    let stopped = embed(&mut batcher, &text, |n| {
        if n % 2 == 0 {
            monitor.stop();
        }
    });
    assert_eq!(monitor.snapshot().passes - before, 2);
    assert!(cosine(&whole, &stopped) > 0.9999);
    // Another text takes the place of one that is not done.
    let other = tokens(30, 2, 2000);
    let alone = embed(&mut batcher, &other, |_| {});
    assert_eq!(batcher.embed(&text).unwrap(), Vector::Grows);
    assert!(cosine(&embed(&mut batcher, &other, |_| {}), &alone) > 0.9999);
    assert!(cosine(&embed(&mut batcher, &text, |_| {}), &whole) > 0.9999);
    assert!(cosine(&whole, &alone) < 0.9999);
}
