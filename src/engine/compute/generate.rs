//! From a prompt to an answer: sync, sample, print, until something says stop.

use std::ops::ControlFlow;
use std::time::Instant;

use super::session::Session;
use crate::engine::Error;
use crate::ggml::{Sampler, SamplerSettings, Token};
use crate::talk::Utf8Stream;
use crate::units::Bytes;

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

/// Syncs the session to `prompt`, then samples until a stop. `on_text` gets whole characters as they come and may end the answer.
///
/// # Errors
///
/// Those of [`Session::sync`], and computations that fail half-way; the session then holds what was computed.
pub fn generate(
    session: &mut Session,
    prompt: &[Token],
    settings: &SamplerSettings,
    max_tokens: Option<usize>,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Answer, Error> {
    if !session.continues_text() {
        let what = "a diffusion model, which does not write token by token";
        return Err(Error::NotForText { model: session.name(), what });
    }
    let monitor = session.monitor();
    monitor.clear_stop();
    let before = monitor.snapshot();
    let begin = Instant::now();
    let room = (session.n_ctx() as usize).saturating_sub(1);
    if prompt.len() > room {
        return Err(Error::ContextTooSmall { tokens: prompt.len(), room });
    }
    let mut sampler = session.sampler(settings)?;
    let n_reused = match session.sync(prompt) {
        Err(Error::Interrupted) => None,
        other => Some(other?),
    };
    let mut answer = Answer {
        text: String::new(),
        tokens: Vec::new(),
        finish: Finish::Interrupted,
        n_prompt: prompt.len(),
        n_reused: n_reused.unwrap_or(0),
        prompt_seconds: begin.elapsed().as_secs_f64(),
        generate_seconds: 0.0,
        streamed: Bytes::ZERO,
        passes: 0,
        stall_seconds: 0.0,
    };
    let begin = Instant::now();
    if n_reused.is_some() {
        answer.finish = extend(session, &mut sampler, max_tokens, &mut answer, on_text)?;
    }
    let after = monitor.snapshot();
    answer.generate_seconds = begin.elapsed().as_secs_f64();
    answer.streamed = after.streamed.saturating_sub(before.streamed);
    answer.passes = after.passes - before.passes;
    answer.stall_seconds = after.stall_seconds - before.stall_seconds;
    Ok(answer)
}

/// Samples and computes token after token.
fn extend(
    session: &mut Session,
    sampler: &mut Sampler,
    max_tokens: Option<usize>,
    answer: &mut Answer,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Finish, Error> {
    let monitor = session.monitor();
    let mut utf8 = Utf8Stream::default();
    let finish = loop {
        if max_tokens.is_some_and(|max| answer.tokens.len() >= max) {
            break Finish::Length;
        }
        if monitor.is_stopped() {
            break Finish::Interrupted;
        }
        let token = sampler.sample(session.context()).map_err(|e| session.wrap(e))?;
        if session.vocab().is_eog(token) {
            break Finish::Stop;
        }
        answer.tokens.push(token);
        let text = utf8.push(&session.vocab().piece(token));
        answer.text += &text;
        if !text.is_empty() && on_text(&text).is_break() {
            break Finish::Interrupted;
        }
        if session.tokens().len() >= session.n_ctx() as usize {
            break Finish::ContextFull;
        }
        if max_tokens.is_some_and(|max| answer.tokens.len() >= max) {
            // Nobody will look at the next logits: the last token is not worth a pass.
            break Finish::Length;
        }
        match session.eval(&[token]) {
            Ok(()) => {}
            Err(Error::Interrupted) => break Finish::Interrupted,
            Err(error) => return Err(error),
        }
    };
    let rest = utf8.finish();
    answer.text += &rest;
    if !rest.is_empty() {
        // The answer is over, whatever the listener says.
        let _ = on_text(&rest);
    }
    Ok(finish)
}
