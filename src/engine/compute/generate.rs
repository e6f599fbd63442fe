//! One text alone: a batch of one, whose listener waits. From a prompt to an answer, until something says stop.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::batch::{Batcher, Course, Ended, Piece, Request, Room, Sink};
use super::draft::Drafted;
use super::grammar::Grammar;
use crate::engine::{Error, Finish};
use crate::ggml::{SamplerSettings, Token};
use crate::talk::StopWords;
use crate::units::Bytes;

/// An answer and what it cost.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens, the one that ended it excluded.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt ...
    pub n_prompt: usize,
    /// ... of which so many were there from before.
    pub n_reused: usize,
    /// Tokens of it that came with the prompt's last pass.
    pub n_first: usize,
    /// Tokens that passes brought, the one that ended it included, and how many passes those were: the prompt's last, and all after it.
    pub per_pass: [usize; 2],
    /// What was drafted of it, and what of that came.
    pub drafted: Drafted,
    /// Seconds from the start to the first logits.
    pub prompt_seconds: f64,
    /// Seconds from then to the end.
    pub generate_seconds: f64,
    /// Bytes of weights read.
    pub streamed: Bytes,
    /// Passes over the streamed weights.
    pub passes: u64,
    /// Seconds that computation waited for bytes.
    pub stall_seconds: f64,
}

/// What a text became so far, for the thread that waits for it.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    end: Option<Result<Ended, Error>>,
}

#[derive(Clone, Debug, Default)]
struct Ear(Arc<Mutex<Heard>>);

impl Ear {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Ear {
    fn room(&self) -> Room {
        Room::Free
    }

    fn piece(&mut self, piece: Piece) {
        self.heard().text += &piece.text;
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        self.heard().end = Some(end);
    }
}

/// What is asked of a model.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// What the text begins with.
    pub prompt: Vec<Token>,
    /// How tokens are chosen.
    pub settings: SamplerSettings,
    /// The most tokens that are added.
    pub max_tokens: Option<usize>,
    /// Texts that end it.
    pub stops: StopWords,
    /// What it must fit.
    pub grammar: Option<Grammar>,
    /// Control tokens whose texts are a part of it.
    pub shown: HashSet<Token>,
}

/// Goes on with a text until a stop, which may have come before. `on_text` gets whole characters as they come and may end the answer.
///
/// # Errors
///
/// A prompt that is empty, too long or of unknown tokens; computations that fail half-way: the context then holds what was computed.
pub fn generate(
    batcher: &mut Batcher,
    ask: Ask,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Answer, Error> {
    let monitor = batcher.monitor();
    batcher.end_when_stopped();
    let before = monitor.snapshot();
    let ear = Ear::default();
    let n_prompt = ask.prompt.len();
    batcher.add(Request {
        prompt: ask.prompt,
        settings: ask.settings,
        grammar: ask.grammar,
        max_tokens: ask.max_tokens,
        stops: ask.stops,
        logprobs: None,
        shown: Arc::new(ask.shown),
        course: Course::default(),
        sink: Box::new(ear.clone()),
    });
    let mut text = String::new();
    let ended = loop {
        if monitor.is_stopped() {
            batcher.cut();
        }
        let went_on = batcher.step();
        let mut heard = ear.heard();
        let (piece, end) = (std::mem::take(&mut heard.text), heard.end.take());
        drop(heard);
        text += &piece;
        let enough = !piece.is_empty() && on_text(&piece).is_break();
        match end {
            Some(end) => break end,
            None if enough || !went_on => batcher.cut(),
            None => {}
        }
    };
    // It was for this text.
    monitor.clear_stop();
    let ended = match ended {
        // Stopped before it had begun: an answer of nothing, as later.
        Err(Error::Interrupted) => Ended::unbegun(n_prompt),
        ended => ended?,
    };
    let after = monitor.snapshot();
    Ok(Answer {
        text,
        tokens: ended.written,
        finish: ended.finish,
        n_prompt: ended.n_prompt,
        n_reused: ended.n_reused,
        n_first: ended.n_first,
        per_pass: ended.per_pass,
        drafted: ended.drafted,
        prompt_seconds: ended.seconds[0],
        generate_seconds: ended.seconds[1],
        streamed: after.streamed.saturating_sub(before.streamed),
        passes: after.passes - before.passes,
        stall_seconds: after.stall_seconds - before.stall_seconds,
    })
}
