//! What the worker says, in llama-server's words: one object at the end, or an event for each piece.

use serde_json::{Value, json};
use tokio_stream::{Stream, StreamExt};

use crate::engine::Finish;
use crate::engine::batch::{Alternative, Ended, Scored};
use crate::serve::answers::{Answers, Message, News};
use crate::serve::error::{ApiError, Protocol};

/// An answer that is coming.
#[derive(Debug)]
pub(super) struct Reply {
    model: String,
    text: String,
    scored: Vec<Scored>,
    ended: Option<Ended>,
}

impl Reply {
    pub(super) fn new(model: String) -> Reply {
        Reply { model, text: String::new(), scored: Vec::new(), ended: None }
    }

    /// Takes what the worker says; returns what is new of it.
    pub(super) fn take(&mut self, message: Message) -> Result<(String, Vec<Scored>), ApiError> {
        match message.news {
            News::Piece(piece) => {
                self.text += &piece.text;
                let scored: Vec<Scored> = piece.scored.into_iter().collect();
                self.scored.extend(scored.iter().cloned());
                Ok((piece.text, scored))
            }
            News::Reading(_) => Ok((String::new(), Vec::new())),
            News::End(ended) => {
                self.ended = Some(ended?);
                Ok((String::new(), Vec::new()))
            }
        }
    }

    /// The whole answer.
    pub(super) fn whole(self) -> Result<Value, ApiError> {
        let last = self.last(&self.text, &self.scored);
        last.ok_or_else(|| ApiError::internal("the answer was lost"))
    }

    /// The answer as server-sent events.
    pub(super) fn events(
        mut self,
        answers: Answers,
    ) -> impl Stream<Item = String> + Send + 'static {
        answers.map(move |message| {
            let event = match self.take(message) {
                Err(error) => error.json(Protocol::OpenAi),
                Ok((text, scored)) => match self.last("", &[]) {
                    Some(last) => last,
                    None if text.is_empty() && scored.is_empty() => return String::new(),
                    None => self.piece(&text, &scored),
                },
            };
            format!("data: {event}\n\n")
        })
    }

    fn piece(&self, text: &str, scored: &[Scored]) -> Value {
        let mut piece = json!({"index": 0, "content": text, "stop": false});
        if !scored.is_empty() {
            piece["completion_probabilities"] = scored.iter().map(probability).collect();
        }
        piece
    }

    /// The last object, with `text`, once the answer has ended.
    fn last(&self, text: &str, scored: &[Scored]) -> Option<Value> {
        let ended = self.ended.as_ref()?;
        let kind = match (ended.finish, &ended.stop) {
            (Finish::Stop, Some(_)) => "word",
            (Finish::Stop, None) => "eos",
            _ => "limit",
        };
        let computed = ended.n_prompt - ended.n_reused.min(ended.n_prompt);
        let [before, after] = ended.seconds;
        let mut last = self.piece(text, scored);
        last["stop"] = true.into();
        last["model"] = self.model.as_str().into();
        last["tokens_predicted"] = ended.n_generated.into();
        last["tokens_evaluated"] = ended.n_prompt.into();
        last["tokens_cached"] = ended.tokens.len().into();
        last["truncated"] = (ended.finish == Finish::ContextFull).into();
        last["stop_type"] = kind.into();
        last["stopping_word"] = ended.stop.clone().unwrap_or_default().into();
        last["timings"] = json!({
            "cache_n": ended.n_reused,
            "prompt_n": computed, "prompt_ms": before * 1e3,
            "prompt_per_second": rate(computed, before),
            "predicted_n": ended.n_generated, "predicted_ms": after * 1e3,
            "predicted_per_second": rate(ended.n_generated.saturating_sub(ended.n_first), after),
        });
        Some(last)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(n: usize, seconds: f64) -> f64 {
    n as f64 / seconds.max(1e-9)
}

fn probability(scored: &Scored) -> Value {
    let one = |a: &Alternative| {
        json!({
            "token": String::from_utf8_lossy(&a.bytes), "bytes": a.bytes,
            "logprob": a.logprob.max(-9999.0),
        })
    };
    let mut entry = one(&scored.chosen);
    entry["top_logprobs"] = scored.top.iter().map(one).collect();
    entry
}
