//! What the worker says, in Ollama's words: one object at the end, or a line for each piece.

use std::time::Instant;

use serde_json::{Value, json};
use tokio_stream::{Stream, StreamExt};

use super::super::answers::{Answers, Message, News};
use super::super::error::{ApiError, Protocol};
use super::super::tools::{Call, Scanner};
use super::shelf::now;
use crate::engine::Finish;
use crate::engine::batch::Ended;

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
    text: String,
    calls: Vec<Call>,
    scanner: Option<Scanner>,
    ended: Option<Ended>,
}

impl Reply {
    pub(super) fn new(kind: Kind, model: String, scanner: Option<Scanner>) -> Reply {
        let begun = Instant::now();
        Reply { kind, model, begun, text: String::new(), calls: Vec::new(), scanner, ended: None }
    }

    /// The answer to a request that asks for nothing but the model.
    pub(super) fn loaded(&self) -> Value {
        let mut line = self.line("", &[]);
        line["done"] = true.into();
        line["done_reason"] = "load".into();
        line
    }

    /// Takes what the worker says; returns what is text for sure.
    pub(super) fn take(&mut self, message: Message) -> Result<String, ApiError> {
        let text = match message.news {
            News::Piece(piece) => match &mut self.scanner {
                Some(scanner) => scanner.push(&piece.text),
                None => piece.text,
            },
            News::Reading(_) => String::new(),
            News::End(ended) => {
                let (text, calls) = self.scanner.take().map(Scanner::finish).unwrap_or_default();
                self.calls = calls;
                self.ended = Some(ended?);
                text
            }
        };
        self.text += &text;
        Ok(text)
    }

    /// The whole answer.
    pub(super) fn whole(self) -> Result<Value, ApiError> {
        self.last(&self.text).ok_or_else(|| ApiError::internal("the answer was lost"))
    }

    /// A line that says nothing: Ollama's clients read every line as JSON, and some an empty one, too.
    pub(super) fn sign_of_life(&self) -> String {
        format!("{}\n", self.line("", &[]))
    }

    /// The answer as lines.
    pub(super) fn lines(mut self, answers: Answers) -> impl Stream<Item = String> + Send + 'static {
        answers.map(move |message| match self.take(message) {
            Err(error) => format!("{}\n", error.json(Protocol::Ollama)),
            Ok(text) => {
                let mut lines = String::new();
                if !text.is_empty() {
                    lines = format!("{}\n", self.line(&text, &[]));
                }
                if let Some(last) = self.last("") {
                    lines += &format!("{last}\n");
                }
                lines
            }
        })
    }

    fn line(&self, text: &str, calls: &[Call]) -> Value {
        let mut line = json!({"model": self.model, "created_at": now()});
        match self.kind {
            Kind::Generate => line["response"] = text.into(),
            Kind::Chat => {
                line["message"] = json!({"role": "assistant", "content": text});
                if !calls.is_empty() {
                    let call =
                        |c: &Call| json!({"function": {"name": c.name, "arguments": c.arguments}});
                    line["message"]["tool_calls"] = calls.iter().map(call).collect();
                }
            }
        }
        line["done"] = false.into();
        line
    }

    /// The last line, with `text`, once the answer has ended.
    fn last(&self, text: &str) -> Option<Value> {
        let ended = self.ended.as_ref()?;
        let nanos = |seconds: f64| std::time::Duration::from_secs_f64(seconds.max(0.0)).as_nanos();
        let nanos = |seconds: f64| u64::try_from(nanos(seconds)).unwrap_or(u64::MAX);
        let mut line = self.line(text, &self.calls);
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
