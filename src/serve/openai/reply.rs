//! What the worker says, in OpenAI's words: one object at the end, or an event for each piece.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio_stream::{Stream, StreamExt, once};

use super::super::answers::{self, Answers, Message, News};
use super::super::error::{ApiError, Protocol};
use crate::engine::batch::{Alternative, Ended, Piece, Reading, Scored};
use crate::engine::{Finish, Pace};
use crate::talk::speech::{Call, Reader, Said, Spoken};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Text,
}

impl Kind {
    pub(super) fn id_prefix(self) -> &'static str {
        match self {
            Kind::Chat => "chatcmpl-",
            Kind::Text => "cmpl-",
        }
    }

    fn object(self, stream: bool) -> &'static str {
        match (self, stream) {
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Text, _) => "text_completion",
        }
    }
}

/// An answer that is coming.
#[derive(Debug)]
pub(super) struct Reply {
    kind: Kind,
    id: String,
    model: String,
    created: u64,
    /// Of as many prompts each choice's is one.
    n_prompts: usize,
    choices: Vec<Choice>,
    /// What prompts take, where that is told.
    pub(super) pace: Option<Pace>,
}

/// One of its texts.
#[derive(Debug, Default)]
pub(super) struct Choice {
    said: Spoken,
    scored: Vec<Scored>,
    reader: Option<Reader>,
    ended: Option<Ended>,
}

impl Reply {
    /// One of `choices`, to which the worker adds.
    pub(super) fn new(
        kind: Kind,
        id: String,
        model: String,
        n_prompts: usize,
        choices: Vec<Choice>,
    ) -> Reply {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let created = now.map_or(0, |d| d.as_secs());
        Reply { kind, id, model, created, n_prompts, choices, pace: None }
    }

    /// Takes what the worker says.
    pub(super) fn take(&mut self, message: Message) -> Result<(), ApiError> {
        let choice = &mut self.choices[message.choice];
        match message.news {
            News::Piece(piece) => {
                choice.hear(piece.text);
                choice.scored.extend(piece.scored);
            }
            News::Reading(_) => {}
            News::End(ended) => {
                choice.end(ended?);
            }
        }
        Ok(())
    }

    /// The whole answer.
    pub(super) fn whole(self) -> Result<Value, ApiError> {
        if self.choices.iter().any(|choice| choice.ended.is_none()) {
            return Err(ApiError::internal("the answer was lost"));
        }
        let usage = self.usage();
        let choices: Vec<Value> = self
            .choices
            .iter()
            .enumerate()
            .map(|(i, choice)| self.whole_choice(i, choice))
            .collect();
        let mut whole = self.head(false);
        whole["choices"] = choices.into();
        whole["usage"] = usage;
        Ok(whole)
    }

    fn whole_choice(&self, index: usize, choice: &Choice) -> Value {
        let finish = choice.finish_reason();
        match self.kind {
            Kind::Text => json!({
                "index": index, "text": choice.said.text, "finish_reason": finish,
                "logprobs": text_logprobs(&choice.scored),
            }),
            Kind::Chat => {
                let Spoken { thought, text, calls } = &choice.said;
                let mut message = json!({"role": "assistant", "content": text, "refusal": null});
                if !thought.is_empty() {
                    message["reasoning_content"] = thought.as_str().into();
                }
                if !calls.is_empty() {
                    if text.trim().is_empty() {
                        message["content"] = Value::Null;
                    }
                    let call = |(i, call)| self.call(index, i, call);
                    message["tool_calls"] = calls.iter().enumerate().map(call).collect();
                }
                json!({
                    "index": index, "message": message, "finish_reason": finish,
                    "logprobs": chat_logprobs(&choice.scored),
                })
            }
        }
    }

    /// The `i`th call of choice `index`.
    fn call(&self, index: usize, i: usize, call: &Call) -> Value {
        let id = call.id.clone().unwrap_or_else(|| self.call_id(index, i));
        json!({
            "id": id, "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        })
    }

    /// A name for a call whose model gave it none.
    fn call_id(&self, index: usize, i: usize) -> String {
        answers::call_id(&self.id[self.kind.id_prefix().len()..], index, i)
    }

    fn head(&self, stream: bool) -> Value {
        json!({
            "id": self.id, "object": self.kind.object(stream), "created": self.created, "model": self.model,
        })
    }

    fn usage(&self) -> Value {
        let ended = |i: usize| self.choices[i].ended.as_ref();
        let per_prompt = self.choices.len() / self.n_prompts.max(1);
        let firsts = (0..self.choices.len()).step_by(per_prompt.max(1));
        let prompt: usize = firsts.clone().filter_map(ended).map(|e| e.n_prompt).sum();
        let cached: usize = firsts.filter_map(ended).map(|e| e.n_reused).sum();
        let all = (0..self.choices.len()).filter_map(ended);
        let (mut written, mut tried, mut accepted) = (0, 0, 0);
        for ended in all {
            written += ended.n_generated;
            tried += ended.drafted.tried;
            accepted += ended.drafted.accepted;
        }
        json!({
            "prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {
                "accepted_prediction_tokens": accepted, "rejected_prediction_tokens": tried - accepted,
            },
        })
    }

    /// How long it took, in llama.cpp's words: of the first choice. The first token comes with the prompt.
    fn timings(&self) -> Value {
        let Some(ended) = self.choices.first().and_then(|choice| choice.ended.as_ref()) else {
            return Value::Null;
        };
        let [prompt, written] = ended.seconds;
        json!({
            "prompt_n": ended.n_prompt - ended.n_reused, "cache_n": ended.n_reused, "prompt_ms": prompt * 1e3,
            "predicted_n": ended.n_generated, "predicted_ms": written * 1e3,
        })
    }

    /// The answer as server-sent events.
    pub(super) fn events(
        mut self,
        answers: Answers,
        include_usage: bool,
    ) -> impl Stream<Item = String> + Send + 'static {
        let mut opening = String::new();
        if self.kind == Kind::Chat {
            for index in 0..self.choices.len() {
                let delta = json!({"role": "assistant", "content": ""});
                opening += &self.event(index, delta, Value::Null, Value::Null);
            }
        }
        for (index, choice) in
            self.choices.iter().enumerate().filter(|(_, c)| !c.said.text.is_empty())
        {
            opening += &self.piece(index, &choice.said.text, &[]);
        }
        let mut left = self.choices.len();
        let events = answers.map(move |message| {
            let is_end = matches!(message.news, News::End(_));
            let mut events = match self.told(message) {
                Ok(events) => events,
                Err(error) => format!("data: {}\n\n", error.json(Protocol::OpenAi)),
            };
            left -= usize::from(is_end);
            if left == 0 && self.choices.iter().all(|choice| choice.ended.is_some()) {
                if include_usage {
                    let mut usage = self.head(true);
                    usage["choices"] = json!([]);
                    usage["usage"] = self.usage();
                    usage["timings"] = self.timings();
                    events += &format!("data: {usage}\n\n");
                }
                events += "data: [DONE]\n\n";
            }
            events
        });
        once(opening).chain(events)
    }

    /// The events of a message.
    fn told(&mut self, message: Message) -> Result<String, ApiError> {
        let index = message.choice;
        let choice = &mut self.choices[index];
        let n_calls = choice.said.calls.len();
        match message.news {
            News::Piece(Piece { text, scored }) => {
                let said = choice.hear(text);
                let scored: Vec<Scored> = scored.into_iter().collect();
                Ok(self.deltas(index, said, n_calls, &scored))
            }
            News::Reading(reading) => Ok(self.reading(index, &reading)),
            News::End(ended) => {
                let said = choice.end(ended?);
                let mut events = self.deltas(index, said, n_calls, &[]);
                let finish = self.choices[index].finish_reason().into();
                events += &match self.kind {
                    Kind::Chat => self.event(index, json!({}), Value::Null, finish),
                    Kind::Text => self.event(index, json!(""), Value::Null, finish),
                };
                Ok(events)
            }
        }
    }

    /// The events of what was said after `n_calls` calls; the first tells how likely it was.
    fn deltas(&self, index: usize, said: Vec<Said>, n_calls: usize, scored: &[Scored]) -> String {
        let (mut events, mut n, mut scored) = (String::new(), n_calls, scored);
        for said in said {
            let scored = std::mem::take(&mut scored);
            let delta = match said {
                Said::Text(text) => {
                    events += &self.piece(index, &text, scored);
                    continue;
                }
                Said::Thought(text) => json!({"reasoning_content": text}),
                Said::Call { name, id } => {
                    n += 1;
                    let call = Call { name, id, ..Call::default() };
                    let mut call = self.call(index, n - 1, &call);
                    call["index"] = (n - 1).into();
                    json!({"tool_calls": [call]})
                }
                Said::Arguments(text) => json!({"tool_calls": [
                    {"index": n.saturating_sub(1), "function": {"arguments": text}}]}),
            };
            events += &self.event(index, delta, chat_logprobs(scored), Value::Null);
        }
        if !scored.is_empty() {
            events += &self.piece(index, "", scored);
        }
        events
    }

    fn piece(&self, index: usize, text: &str, scored: &[Scored]) -> String {
        match self.kind {
            Kind::Chat => {
                self.event(index, json!({"content": text}), chat_logprobs(scored), Value::Null)
            }
            Kind::Text => self.event(index, json!(text), text_logprobs(scored), Value::Null),
        }
    }

    /// How far a prompt is, as llama.cpp's server says it; `batch` tokens of it are about to be computed.
    fn reading(&self, index: usize, reading: &Reading) -> String {
        let mut event = self.head(true);
        event["choices"] = json!([{"index": index, "delta": {}, "finish_reason": null}]);
        event["prompt_progress"] = json!({
            "total": reading.n_prompt, "cache": reading.n_reused, "processed": reading.n_done,
            "batch": reading.n_batch, "time_ms": reading.seconds * 1e3,
        });
        if let Some(pace) = &self.pace {
            event["prompt_progress"]["passes"] = passes(pace, reading);
        }
        format!("data: {event}\n\n")
    }

    fn event(&self, index: usize, delta: Value, logprobs: Value, finish: Value) -> String {
        let mut event = self.head(true);
        let key = if self.kind == Kind::Chat { "delta" } else { "text" };
        event["choices"] =
            json!([{"index": index, key: delta, "logprobs": logprobs, "finish_reason": finish}]);
        format!("data: {event}\n\n")
    }
}

/// Which pass over the weights begins, of how many, and what is predicted of those before, of this one, and of those that follow.
fn passes(pace: &Pace, reading: &Reading) -> Value {
    let &Reading { n_prompt, n_reused, n_done, n_batch, .. } = reading;
    let (before, n_before) = pace.passes(n_done.saturating_sub(n_reused));
    let (after, n_after) = pace.passes(n_prompt.saturating_sub(n_done + n_batch));
    json!({
        "pass": n_before + 1, "of": n_before + 1 + n_after, "measured": pace.is_measured(),
        "before_ms": before * 1e3, "pass_ms": pace.passes(n_batch).0 * 1e3, "after_ms": after * 1e3,
    })
}

impl Choice {
    /// One that has a text already.
    pub(super) fn begun(text: String) -> Choice {
        Choice { said: Spoken { text, ..Spoken::default() }, ..Choice::default() }
    }

    /// One that `reader` reads.
    pub(super) fn heard(reader: Reader) -> Choice {
        Choice { reader: Some(reader), ..Choice::default() }
    }

    /// What is known of a piece.
    fn hear(&mut self, piece: String) -> Vec<Said> {
        let said = match &mut self.reader {
            Some(reader) => reader.push(&piece),
            None if piece.is_empty() => Vec::new(),
            None => vec![Said::Text(piece)],
        };
        said.iter().for_each(|said| self.said.add(said.clone()));
        said
    }

    /// What is known at the end.
    fn end(&mut self, ended: Ended) -> Vec<Said> {
        let cut = ended.finish != Finish::Stop;
        self.ended = Some(ended);
        let said = self.reader.as_mut().map(|reader| reader.finish(cut)).unwrap_or_default();
        said.iter().for_each(|said| self.said.add(said.clone()));
        said
    }

    fn finish_reason(&self) -> &'static str {
        match self.ended.as_ref().map(|ended| ended.finish) {
            Some(Finish::Stop) if !self.said.calls.is_empty() => "tool_calls",
            Some(Finish::Stop) => "stop",
            _ => "length",
        }
    }
}

fn token_text(alternative: &Alternative) -> String {
    String::from_utf8_lossy(&alternative.bytes).into_owned()
}

fn chat_logprobs(scored: &[Scored]) -> Value {
    if scored.is_empty() {
        return Value::Null;
    }
    let one = |a: &Alternative| json!({"token": token_text(a), "logprob": finite(a.logprob), "bytes": a.bytes});
    let entry = |scored: &Scored| {
        let mut entry = one(&scored.chosen);
        entry["top_logprobs"] = scored.top.iter().map(one).collect();
        entry
    };
    json!({"content": scored.iter().map(entry).collect::<Vec<_>>(), "refusal": null})
}

fn text_logprobs(scored: &[Scored]) -> Value {
    if scored.is_empty() {
        return Value::Null;
    }
    let top = |scored: &Scored| -> Value {
        scored.top.iter().map(|a| (token_text(a), json!(finite(a.logprob)))).collect()
    };
    let mut offset = 0;
    let offsets = scored.iter().map(|scored| {
        let at = offset;
        offset += token_text(&scored.chosen).chars().count();
        at
    });
    json!({
        "text_offset": offsets.collect::<Vec<_>>(),
        "tokens": scored.iter().map(|s| token_text(&s.chosen)).collect::<Vec<_>>(),
        "token_logprobs": scored.iter().map(|s| finite(s.chosen.logprob)).collect::<Vec<_>>(),
        "top_logprobs": scored.iter().map(top).collect::<Vec<_>>(),
    })
}

/// OpenAI's word for impossible; JSON has no infinity.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}
