//! One text of a batch: what was asked for, how far it is, and to whom it goes. It computes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::course::{Course, Way};
use super::pool::{Pool, Task, Thought};
use crate::engine::compute::draft::Drafted;
use crate::engine::compute::grammar::Grammar;
use crate::engine::error::ggml_error;
use crate::engine::loaded::Loaded;
use crate::engine::{Error, SamplerSettings, Token};
use crate::ggml::{self, Sampler};
use crate::talk::{StopWords, Utf8Stream, Vocab};

/// A text to be continued.
#[derive(Debug)]
pub struct Request {
    /// What it begins with.
    pub prompt: Vec<Token>,
    /// How tokens are chosen.
    pub settings: SamplerSettings,
    /// What the continuation must fit.
    pub grammar: Option<Grammar>,
    /// The most tokens that are added.
    pub max_tokens: Option<usize>,
    /// Texts that end it.
    pub stops: StopWords,
    /// With how likely each token was, and as many alternatives.
    pub logprobs: Option<usize>,
    /// Control tokens whose texts are a part of the answer.
    pub shown: Arc<HashSet<Token>>,
    /// What it is made to say.
    pub course: Course,
    /// To whom it goes.
    pub sink: Box<dyn Sink>,
}

/// Whether a listener can take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It can take a piece and the end.
    Free,
    /// Not now.
    Full,
    /// It will never again.
    Gone,
}

/// Who listens to a text. None of its methods may wait.
pub trait Sink: Send + std::fmt::Debug {
    /// Whether it can take more.
    fn room(&self) -> Room;
    /// A piece of the text; only after [`Room::Free`].
    fn piece(&mut self, piece: Piece);
    /// A batch with tokens of its prompt is about to be computed.
    fn reading(&mut self, _reading: Reading) {}
    /// The end.
    fn end(self: Box<Self>, end: Result<Ended, Error>);
}

/// How far the reading of a prompt is, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Of the whole prompt.
    pub n_prompt: usize,
    /// Those that were there from before.
    pub n_reused: usize,
    /// Those that the context has, with those from before.
    pub n_done: usize,
    /// Those in the batch that is about to be computed.
    pub n_batch: usize,
    /// Seconds since the text began.
    pub seconds: f64,
}

/// A piece of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Whole characters; none while a stop word may be coming.
    pub text: String,
    /// The token it came with, if probabilities were asked for.
    pub scored: Option<Scored>,
}

/// A token and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The token that was chosen.
    pub chosen: Alternative,
    /// The likeliest ones, best first.
    pub top: Vec<Alternative>,
}

/// A token that could have come.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Its bytes, which may be a part of a character.
    pub bytes: Vec<u8>,
    /// The logarithm of its probability, before any sampling rule.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// It reached the most tokens that were asked for.
    Length,
    /// The context is full.
    ContextFull,
    /// Somebody stopped it.
    Interrupted,
}

/// How a text ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Why.
    pub finish: Finish,
    /// The stop word that ended it.
    pub stop: Option<String>,
    /// Tokens of the prompt ...
    pub n_prompt: usize,
    /// ... of which so many were there from before.
    pub n_reused: usize,
    /// Tokens that were added.
    pub n_generated: usize,
    /// How many of them came with the prompt's last pass: one, or more with drafts.
    pub n_first: usize,
    /// Tokens that passes brought, the one that ended the text included, and how many passes those were: the prompt's last, and all after it.
    pub per_pass: [usize; 2],
    /// They themselves.
    pub written: Vec<Token>,
    /// What was drafted of them.
    pub drafted: Drafted,
    /// All tokens, as far as the context has seen them.
    pub tokens: Vec<Token>,
    /// Time from the beginning to the first token, and from there to the end.
    pub seconds: [f64; 2],
}

impl Ended {
    /// A text of `n_prompt` tokens that was stopped before anything of it was computed.
    pub fn unbegun(n_prompt: usize) -> Ended {
        Ended {
            finish: Finish::Interrupted,
            stop: None,
            n_prompt,
            n_reused: 0,
            n_generated: 0,
            n_first: 0,
            per_pass: [0; 2],
            written: Vec::new(),
            drafted: Drafted::default(),
            tokens: Vec::new(),
            seconds: [0.0; 2],
        }
    }
}

/// Whether a text goes on.
#[derive(Debug, PartialEq)]
pub(super) enum Going {
    On,
    /// Its next token is being chosen.
    Thinks,
    End(Finish, Option<String>),
}

/// A text that is being written.
#[derive(Debug)]
pub(super) struct Running {
    /// Away while a token is being chosen elsewhere.
    sampler: Option<Sampler>,
    thinking: Option<Thinking>,
    utf8: Utf8Stream,
    stops: StopWords,
    max_tokens: Option<usize>,
    logprobs: Option<usize>,
    shown: Arc<HashSet<Token>>,
    way: Way,
    n_prompt: usize,
    n_reused: usize,
    written: Vec<Token>,
    /// How many of them came with the prompt's last pass, once it is over.
    n_first: Option<usize>,
    per_pass: [usize; 2],
    drafted: Drafted,
    /// Its number among all texts.
    pub(super) born: u64,
    /// Whether it had to make room for others, and waits for some.
    pub(super) parked: bool,
    begun: Instant,
    /// When the first token came.
    first: Option<Instant>,
    /// Since when the listener takes nothing.
    blocked: Option<Instant>,
    sink: Box<dyn Sink>,
}

/// A token that is being chosen elsewhere.
#[derive(Debug)]
struct Thinking {
    /// Whoever chooses looks whether it is there.
    wanted: Arc<()>,
    /// What the last one took.
    last: Duration,
    /// Where the probabilities are wanted.
    logits: Vec<f32>,
}

impl Running {
    /// Begins a text, the `born`th, of which the context has `n_reused` tokens.
    pub(super) fn new(
        request: Request,
        n_reused: usize,
        born: u64,
        loaded: &Loaded,
    ) -> Result<Running, (Box<dyn Sink>, Error)> {
        let vocab = loaded.model.vocab();
        let sampler = Sampler::new(&request.settings, vocab).and_then(|mut sampler| {
            sampler.recall(&request.prompt, vocab);
            if let Some(grammar) = &request.grammar {
                sampler.obey(&grammar.rules, &grammar.root, vocab)?;
            }
            Ok(sampler)
        });
        let sampler = match sampler {
            Ok(sampler) => sampler,
            Err(ggml::Error::Invalid(why)) => return Err((request.sink, Error::Request(why))),
            Err(error) => return Err((request.sink, ggml_error(&loaded.index)(error))),
        };
        Ok(Running {
            sampler: Some(sampler),
            thinking: None,
            utf8: Utf8Stream::default(),
            stops: request.stops,
            max_tokens: request.max_tokens,
            logprobs: request.logprobs,
            shown: request.shown,
            way: Way::new(request.course),
            n_prompt: request.prompt.len(),
            n_reused,
            written: Vec::new(),
            drafted: Drafted::default(),
            born,
            parked: false,
            begun: Instant::now(),
            n_first: None,
            per_pass: [0, 0],
            first: None,
            blocked: None,
            sink: request.sink,
        })
    }

    /// Whether its prompt is still being read.
    pub(super) fn reads(&self) -> bool {
        self.first.is_none()
    }

    /// Tokens of its prompt that were there from before.
    pub(super) fn n_reused(&self) -> usize {
        self.n_reused
    }

    /// Tells its listener that the next `n_batch` tokens of its prompt are computed.
    pub(super) fn tell_reading(&mut self, n_done: usize, n_batch: usize) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let (n_prompt, n_reused) = (self.n_prompt, self.n_reused);
        self.sink.reading(Reading { n_prompt, n_reused, n_done, n_batch, seconds });
    }

    /// How many tokens it may still get.
    pub(super) fn left(&self) -> usize {
        self.max_tokens.map_or(usize::MAX, |max| max.saturating_sub(self.written.len()))
    }

    /// Whether it must fit something.
    pub(super) fn has_grammar(&self) -> bool {
        self.sampler.as_ref().is_none_or(Sampler::has_grammar)
    }

    /// Whether checking what may come takes no time to speak of.
    pub(super) fn is_quick(&self) -> bool {
        self.sampler.as_ref().is_some_and(Sampler::is_quick)
    }

    /// Whether `tokens` would fit, one after the other.
    pub(super) fn would_allow(&self, tokens: &[Token]) -> bool {
        self.sampler.as_ref().is_some_and(|s| s.would_allow(tokens) == tokens.len())
    }

    /// A pass that brought it `chosen` tokens is over, and so much was drafted for it.
    pub(super) fn count(&mut self, chosen: usize, drafted: Drafted) {
        self.per_pass[0] += chosen;
        self.per_pass[1] += 1;
        self.n_first.get_or_insert(self.written.len());
        self.drafted.tried += drafted.tried;
        self.drafted.accepted += drafted.accepted;
    }

    /// Whether it can use another token at `now`.
    pub(super) fn may_go_on(&mut self, now: Instant) -> bool {
        let free = self.sink.room() == Room::Free;
        self.blocked = if free { None } else { self.blocked.or(Some(now)) };
        free && !self.parked && self.thinking.is_none()
    }

    /// Whether its listener has gone, or has taken nothing for longer than `patience` at `now`.
    pub(super) fn is_abandoned(&self, patience: Duration, now: Instant) -> bool {
        match self.sink.room() {
            Room::Gone => true,
            // It has taken something since it was last asked, however long that is ago: a pass may take longer than anyone's patience.
            Room::Free => false,
            Room::Full => self.blocked.is_some_and(|since| now.duration_since(since) > patience),
        }
    }

    pub(super) fn into_sink(self) -> Box<dyn Sink> {
        self.sink
    }

    /// Chooses the next token from `logits` and hands its text out. Returns the token, unless it ends the text or takes long to choose,
    /// and whether the text goes on.
    pub(super) fn next(
        &mut self,
        logits: &[f32],
        loaded: &Arc<Loaded>,
        pool: &mut Pool,
    ) -> Result<(Option<Token>, Going), ggml::Error> {
        self.first.get_or_insert_with(Instant::now);
        if self.has_all() {
            return Ok((None, Going::End(Finish::Length, None)));
        }
        if let Some(token) = self.way.begin(logits, &loaded.vocab) {
            return Ok(self.say(token, logits, &loaded.vocab));
        }
        let only = self.way.only(logits.len());
        let from = only.as_deref().unwrap_or(logits);
        let Some(mut sampler) = self.sampler.take() else { return Ok((None, Going::Thinks)) };
        let guessed = sampler.is_quick();
        if guessed && let Some(token) = sampler.guess(from)? {
            sampler.accept(token)?;
            self.sampler = Some(sampler);
            return Ok(self.say(token, logits, &loaded.vocab));
        }
        let wanted = Arc::default();
        let (born, loaded) = (self.born, loaded.clone());
        let seen = if self.logprobs.is_some() { logits.to_vec() } else { Vec::new() };
        let (last, alive) = (sampler.last_took(), Arc::downgrade(&wanted));
        self.thinking = Some(Thinking { wanted, last, logits: seen });
        let logits = from.to_vec();
        pool.think(Task { born, sampler, logits, guessed, wanted: alive, loaded });
        Ok((None, Going::Thinks))
    }

    /// Whether it has as many tokens as it may have.
    fn has_all(&self) -> bool {
        self.max_tokens.is_some_and(|max| self.written.len() >= max)
    }

    /// What its last token took, if the next one is being chosen elsewhere.
    pub(super) fn thinks(&self) -> Option<Duration> {
        self.thinking.as_ref().map(|thinking| thinking.last)
    }

    /// The token that was being chosen elsewhere, as [`Running::next`] tells it.
    pub(super) fn thought(
        &mut self,
        thought: Thought,
        vocab: &Vocab,
    ) -> Result<(Option<Token>, Going), ggml::Error> {
        let Some(Thinking { wanted, logits, .. }) = self.thinking.take() else {
            return Ok((None, Going::On));
        };
        drop(wanted);
        let (token, sampler) = thought.token?;
        self.sampler = Some(sampler);
        Ok(self.say(token, &logits, vocab))
    }

    /// Hands out the text of the next token.
    fn say(&mut self, token: Token, logits: &[f32], vocab: &Vocab) -> (Option<Token>, Going) {
        if vocab.is_eog(token) {
            return (None, Going::End(Finish::Stop, None));
        }
        self.written.push(token);
        let shown = self.shown.contains(&token);
        let mut bytes = if shown { vocab.bytes(token) } else { vocab.piece(token) };
        self.way.came(&mut bytes);
        let (text, stop) = self.stops.push(&self.utf8.push(&bytes));
        let scored = self.logprobs.map(|n| score(logits, token, n, vocab));
        if !text.is_empty() || scored.is_some() {
            self.sink.piece(Piece { text, scored });
        }
        let going = match stop {
            Some(word) => Going::End(Finish::Stop, Some(word)),
            None if self.has_all() => Going::End(Finish::Length, None),
            None => Going::On,
        };
        (Some(token), going)
    }

    /// Hands out what was held back, and the end.
    pub(super) fn end(mut self, finish: Finish, stop: Option<String>, tokens: Vec<Token>) {
        if stop.is_none() {
            let (mut text, late) = self.stops.push(&self.utf8.finish());
            if late.is_none() {
                text += &self.stops.finish();
            }
            if !text.is_empty() {
                self.sink.piece(Piece { text, scored: None });
            }
        }
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        self.sink.end(Ok(Ended {
            finish,
            stop,
            n_prompt: self.n_prompt,
            n_reused: self.n_reused,
            n_generated: self.written.len(),
            n_first: self.n_first.unwrap_or_default(),
            per_pass: self.per_pass,
            written: self.written,
            drafted: self.drafted,
            tokens,
            seconds: [(first - self.begun).as_secs_f64(), (now - first).as_secs_f64()],
        }));
    }
}

/// How likely `token` was, and the `n` likeliest ones.
fn score(logits: &[f32], token: Token, n: usize, vocab: &Vocab) -> Scored {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm of at most 18 bits")]
    let rest = most + sum.ln() as f32;
    let alternative = |id: usize| Alternative {
        bytes: vocab.bytes(Token::try_from(id).unwrap_or(0)),
        logprob: logits[id] - rest,
    };
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    let by_logit = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    let n = n.min(ids.len());
    if n > 0 && n < ids.len() {
        ids.select_nth_unstable_by(n - 1, by_logit);
    }
    ids.truncate(n);
    ids.sort_unstable_by(by_logit);
    let chosen = alternative(usize::try_from(token).unwrap_or(0).min(logits.len() - 1));
    Scored { chosen, top: ids.into_iter().map(alternative).collect() }
}
