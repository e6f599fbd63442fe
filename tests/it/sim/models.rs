//! The models of simulated worlds: their files, and the right answers to some prompts, computed alone and resident.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use airrun::engine::batch::{Course, Ended, Piece, Request, Room, Scored, Sink};
use airrun::engine::{Engine, Error, LoadOptions, StreamMode, Token};
use airrun::gguf::Index;
use airrun::talk::StopWords;

use super::client::greedy;
use crate::tiny_models;

/// One of every kind: dense, experts, windows, states.
pub(super) const MODELS: [&str; 6] =
    ["llama", "llama-tied", "llama-moe", "qwen3moe-many", "gemma3", "jamba"];

/// A margin between the two best logarithms of probability below which the shape of a batch may decide.
pub(super) const SURE: f32 = 0.02;

/// Tokens that are asked for at most.
pub(super) const MOST: usize = 20;

/// Tokens of a pass that the answers are computed with, alone and together: where these differ, nothing is sure. (A router's choice may
/// hang on the last bit, and the last bit on the shape of a batch.)
const UBATCHES: [u32; 6] = [24, 16, 11, 8, 5, 1];

/// A prompt, and what comes after it as long as that is sure.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) prompt: Vec<Token>,
    pub(super) tokens: Vec<Token>,
    pub(super) scored: Vec<Scored>,
}

/// A model.
#[derive(Debug)]
pub(super) struct Tiny {
    pub(super) path: PathBuf,
    pub(super) bytes: Arc<[u8]>,
    pub(super) index: Arc<Index>,
    pub(super) answers: Vec<Arc<Answer>>,
}

/// The model of that name; made when it is first asked for.
pub(super) fn get(name: &'static str) -> &'static Tiny {
    type Made = HashMap<&'static str, &'static OnceLock<Tiny>>;
    static MADE: LazyLock<Mutex<Made>> = LazyLock::new(Mutex::default);
    let place = {
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        *made.entry(name).or_insert_with(|| Box::leak(Box::default()))
    };
    place.get_or_init(|| Tiny::new(name))
}

impl Tiny {
    fn new(name: &str) -> Tiny {
        let path = file(name);
        let bytes = std::fs::read(&path).unwrap().into();
        let index = Arc::new(Index::open(&path).unwrap());
        let mut answers: Vec<Option<Answer>> = prompts().iter().map(|_| None).collect();
        for ubatch in UBATCHES {
            hear(&open(&index, ubatch), &mut answers);
        }
        let answers = answers.into_iter().flatten().filter(|answer| !answer.tokens.is_empty());
        let answers: Vec<_> = answers.map(Arc::new).collect();
        assert!(answers.len() > 8, "{name}: too few prompts have a sure answer");
        Tiny { path, bytes, index, answers }
    }
}

fn open(index: &Arc<Index>, ubatch: u32) -> Engine {
    let options = LoadOptions {
        stream: StreamMode::Never,
        ctx: Some(256),
        sequences: 4,
        threads: Some(1),
        ubatch: Some(ubatch),
        repack: false,
        alone: false,
        ..LoadOptions::default()
    };
    Engine::open(index.clone(), &options).unwrap()
}

/// Hears what is written after all prompts, each alone and beside some of the others.
fn hear(engine: &Engine, answers: &mut [Option<Answer>]) {
    let prompts = prompts();
    for company in [1, 2, 3, prompts.len()] {
        for first in 0..company {
            let some: Vec<usize> = (first..prompts.len()).step_by(company).collect();
            let texts: Vec<&Vec<Token>> = some.iter().map(|&i| &prompts[i]).collect();
            for (i, told) in some.into_iter().zip(written(engine, &texts)) {
                match &mut answers[i] {
                    Some(answer) => answer.doubt(&told),
                    none => *none = Some(Answer::new(&prompts[i], told)),
                }
            }
        }
    }
}

/// What a text became: how likely each token was, and the tokens.
type Told = (Vec<Scored>, Vec<Token>);

impl Answer {
    fn new(prompt: &[Token], (scored, tokens): Told) -> Answer {
        let sure = |s: &&Scored| s.top[0].logprob - s.top[1].logprob > SURE;
        let n = scored.iter().take_while(sure).count();
        Answer {
            prompt: prompt.to_vec(),
            tokens: tokens[..n].to_vec(),
            scored: scored[..n].to_vec(),
        }
    }

    /// Ends where another time said something else.
    fn doubt(&mut self, (scored, tokens): &Told) {
        let same = |i: &usize| {
            let apart = scored[*i].chosen.logprob - self.scored[*i].chosen.logprob;
            tokens[*i] == self.tokens[*i] && apart.abs() < SURE / 4.0
        };
        let n = (0..self.tokens.len()).take_while(same).count();
        self.tokens.truncate(n);
        self.scored.truncate(n);
    }
}

/// What is written after prompts, together.
fn written(engine: &Engine, prompts: &[&Vec<Token>]) -> Vec<Told> {
    let mut batcher = engine.batcher().unwrap();
    let heard: Vec<Arc<Mutex<Told>>> = prompts.iter().map(|_| Arc::default()).collect();
    for (prompt, heard) in prompts.iter().zip(&heard) {
        batcher.add(Request {
            prompt: (*prompt).clone(),
            settings: greedy(),
            grammar: None,
            max_tokens: Some(MOST),
            stops: StopWords::default(),
            logprobs: Some(2),
            shown: Arc::default(),
            course: Course::default(),
            sink: Box::new(Ear(heard.clone())),
        });
    }
    while batcher.step() {}
    drop(batcher);
    let told = heard.iter().map(|heard| std::mem::take(&mut *heard.lock().unwrap()));
    told.collect()
}

/// Prompts of many lengths, of which some begin alike.
fn prompts() -> Vec<Vec<Token>> {
    let text = |n: usize, seed: usize| -> Vec<Token> {
        (0..n).map(|i| Token::try_from((i * 37 + seed * 101) % 118 + 5).unwrap()).collect()
    };
    let mut prompts: Vec<_> = (0..8).map(|i| text(1 + i * 5, i)).collect();
    for (base, more) in [(20, 3), (20, 9), (33, 2), (7, 20), (20, 1), (33, 11), (40, 5), (7, 1)] {
        prompts.push([text(base, 77), text(more, base + more)].concat());
    }
    prompts
}

/// Keeps all that it hears.
#[derive(Debug)]
struct Ear(Arc<Mutex<Told>>);

impl Sink for Ear {
    fn room(&self) -> Room {
        Room::Free
    }

    fn piece(&mut self, piece: Piece) {
        self.0.lock().unwrap().0.extend(piece.scored);
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        self.0.lock().unwrap().1 = end.unwrap().written;
    }
}

/// Writes the model of that name, where nobody else is writing it.
fn file(name: &str) -> PathBuf {
    let spec = tiny_models::all().iter().find(|spec| spec.name == name).unwrap();
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("sim-{name}.gguf"));
    let new = tempfile::NamedTempFile::new_in(&dir).unwrap();
    tiny_models::write(spec, new.path()).unwrap();
    // Another process may be playing with the file that is there: it is replaced only if it is another model.
    if std::fs::read(&path).ok() != Some(std::fs::read(new.path()).unwrap()) {
        new.persist(&path).unwrap();
    }
    path
}
