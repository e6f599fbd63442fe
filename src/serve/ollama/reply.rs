//! What the worker says, in Ollama's words: one object at the end, or a line for each piece.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio_stream::{Stream, StreamExt};

use super::super::answers::{self, Answers, Message, News};
use super::super::error::{ApiError, Protocol};
use super::super::stay::{self, Stay};
use super::shelf::now;
use crate::engine::Finish;
use crate::engine::batch::{Alternative, Ended, Scored};
use crate::talk::speech::{Call, Reader, Said, Spoken};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Generate,
}

/// An answer that is coming.
#[derive(Debug)]
pub(super) struct Reply {
    kind: Kind,
    model: String,
    begun: Instant,
    said: Spoken,
    reader: Option<Reader>,
    /// Of tokens that were not told yet.
    scored: Vec<Scored>,
    /// Names its calls.
    unique: String,
    ended: Option<Ended>,
}

impl Reply {
    pub(super) fn new(kind: Kind, model: String, reader: Option<Reader>) -> Reply {
        let begun = Instant::now();
        let unique = format!("{:016x}", RandomState::new().hash_one(0));
        let (said, scored) = (Spoken::default(), Vec::new());
        Reply { kind, model, begun, said, reader, scored, unique, ended: None }
    }

    /// The answer to a request that asks for nothing but the model: to have it ready, or to let it go.
    pub(super) fn loaded(&self, body: &Map<String, Value>) -> Value {
        let mut line = self.line(&Spoken::default(), 0);
        line["done"] = true.into();
        line["done_reason"] =
            if stay::of(body) == Stay::For(Duration::ZERO) { "unload" } else { "load" }.into();
        line
    }

    /// Takes what the worker says; returns what is known of it.
    pub(super) fn take(&mut self, message: Message) -> Result<Spoken, ApiError> {
        let said = match message.news {
            News::Piece(piece) => {
                self.scored.extend(piece.scored);
                match &mut self.reader {
                    Some(reader) => reader.push(&piece.text),
                    None => vec![Said::Text(piece.text)],
                }
            }
            News::Reading(_) => Vec::new(),
            News::End(ended) => {
                let ended = ended?;
                let cut = ended.finish != Finish::Stop;
                self.ended = Some(ended);
                self.reader.as_mut().map(|reader| reader.finish(cut)).unwrap_or_default()
            }
        };
        let mut new = Spoken::default();
        for said in said {
            new.add(said.clone());
            self.said.add(said);
        }
        Ok(new)
    }

    /// The whole answer.
    pub(super) fn whole(self) -> Result<Value, ApiError> {
        self.last(&self.said).ok_or_else(|| ApiError::internal("the answer was lost"))
    }

    /// A line that says nothing: Ollama's clients read every line as JSON, and some an empty one, too.
    pub(super) fn sign_of_life(&self) -> String {
        format!("{}\n", self.line(&Spoken::default(), 0))
    }

    /// The answer as lines.
    pub(super) fn lines(mut self, answers: Answers) -> impl Stream<Item = String> + Send + 'static {
        answers.map(move |message| match self.take(message) {
            Err(error) => format!("{}\n", error.json(Protocol::Ollama)),
            Ok(new) => {
                let mut lines = String::new();
                if new != Spoken::default() || !self.scored.is_empty() {
                    let before = self.said.calls.len() - new.calls.len();
                    lines = format!("{}\n", self.line(&new, before));
                    self.scored.clear();
                }
                if let Some(last) = self.last(&Spoken::default()) {
                    lines += &format!("{last}\n");
                }
                lines
            }
        })
    }

    /// A line with what is new; `before` calls were there already.
    fn line(&self, new: &Spoken, before: usize) -> Value {
        let mut line = json!({"model": self.model, "created_at": now()});
        let Spoken { thought, text, calls } = new;
        match self.kind {
            Kind::Generate => {
                line["response"] = text.as_str().into();
                if !thought.is_empty() {
                    line["thinking"] = thought.as_str().into();
                }
            }
            Kind::Chat => {
                line["message"] = json!({"role": "assistant", "content": text});
                if !thought.is_empty() {
                    line["message"]["thinking"] = thought.as_str().into();
                }
                if !calls.is_empty() {
                    let call = |(i, call)| self.call(before + i, call);
                    line["message"]["tool_calls"] = calls.iter().enumerate().map(call).collect();
                }
            }
        }
        line["done"] = false.into();
        if !self.scored.is_empty() {
            line["logprobs"] = self.scored.iter().map(probability).collect();
        }
        line
    }

    /// A call as Ollama tells it: with an object.
    fn call(&self, i: usize, call: &Call) -> Value {
        let given: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        let id = call.id.clone().unwrap_or_else(|| answers::call_id(&self.unique, 0, i));
        json!({"id": id, "function": {"index": i, "name": call.name, "arguments": given}})
    }

    /// The last line, with what is `new`, once the answer has ended.
    fn last(&self, new: &Spoken) -> Option<Value> {
        let ended = self.ended.as_ref()?;
        let nanos = |seconds: f64| std::time::Duration::from_secs_f64(seconds.max(0.0)).as_nanos();
        let nanos = |seconds: f64| u64::try_from(nanos(seconds)).unwrap_or(u64::MAX);
        let mut line = self.line(new, 0);
        line["done"] = true.into();
        line["done_reason"] = if ended.finish == Finish::Stop { "stop" } else { "length" }.into();
        if self.kind == Kind::Generate {
            line["context"] = json!(ended.tokens);
        }
        line["total_duration"] = nanos(self.begun.elapsed().as_secs_f64()).into();
        line["load_duration"] = 0.into();
        line["prompt_eval_count"] = ended.n_prompt.into();
        line["prompt_eval_duration"] = nanos(ended.seconds[0]).into();
        line["eval_count"] = ended.n_generated.into();
        line["eval_duration"] = nanos(ended.seconds[1]).into();
        Some(line)
    }
}

fn probability(scored: &Scored) -> Value {
    let one = |a: &Alternative| {
        json!({
            "token": String::from_utf8_lossy(&a.bytes), "logprob": a.logprob.max(-9999.0),
            "bytes": a.bytes,
        })
    };
    let mut entry = one(&scored.chosen);
    if !scored.top.is_empty() {
        entry["top_logprobs"] = scored.top.iter().map(one).collect();
    }
    entry
}
