//! What a model says, in Anthropic's words: one message at the end, or events for each of its blocks.

use serde_json::{Value, json};

use crate::engine::Finish;
use crate::engine::batch::Ended;
use crate::serve::blocks::{Block, Blocks, Kind, Step, Tell};
use crate::talk::speech::Said;

/// A message that is coming.
#[derive(Debug)]
pub(super) struct Reply {
    id: String,
    model: String,
    n_prompt: usize,
    blocks: Blocks,
    ended: Option<Ended>,
}

impl Reply {
    /// One called `id`; thoughts are left out if `silent`.
    pub(super) fn new(id: String, model: String, n_prompt: usize, silent: bool) -> Reply {
        Reply { id, model, n_prompt, blocks: Blocks::new(silent), ended: None }
    }

    /// The first event.
    pub(super) fn begin(&self) -> String {
        let mut message = self.head();
        message["content"] = json!([]);
        message["stop_reason"] = Value::Null;
        message["stop_sequence"] = Value::Null;
        message["usage"] = json!({
            "input_tokens": self.n_prompt, "output_tokens": 0,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        });
        event("message_start", json!({ "message": message })) + &event("ping", json!({}))
    }

    /// The whole message, once it has ended.
    pub(super) fn whole(&self) -> Option<Value> {
        let ended = self.ended.as_ref()?;
        let (reason, word) = self.reason(ended);
        let mut message = self.head();
        message["content"] = self.blocks.all.iter().map(whole).collect();
        message["stop_reason"] = reason.into();
        message["stop_sequence"] = word.into();
        message["usage"] = usage(ended);
        Some(message)
    }

    fn head(&self) -> Value {
        json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model})
    }

    fn reason(&self, ended: &Ended) -> (&'static str, Option<String>) {
        match (ended.finish, &ended.stop) {
            // A call that was cut must not be made.
            (Finish::Stop, _) if self.blocks.calls() => ("tool_use", None),
            (Finish::Stop, Some(word)) => ("stop_sequence", Some(word.clone())),
            (Finish::Stop, None) => ("end_turn", None),
            (Finish::ContextFull, _) => ("model_context_window_exceeded", None),
            _ => ("max_tokens", None),
        }
    }

    fn told(&self, steps: Vec<Step>) -> String {
        steps.into_iter().map(|step| self.step(step)).collect()
    }

    fn step(&self, step: Step) -> String {
        match step {
            Step::Open(i) => {
                let empty = Block { text: String::new(), ..self.blocks.all[i].clone() };
                event("content_block_start", json!({"index": i, "content_block": whole(&empty)}))
            }
            Step::Grow(i, text) => {
                let delta = match self.blocks.all[i].kind {
                    Kind::Thought => json!({"type": "thinking_delta", "thinking": text}),
                    Kind::Text => json!({"type": "text_delta", "text": text}),
                    Kind::Call { .. } => json!({"type": "input_json_delta", "partial_json": text}),
                };
                event("content_block_delta", json!({"index": i, "delta": delta}))
            }
            Step::Close(i) => {
                let mut events = String::new();
                if self.blocks.all[i].kind == Kind::Thought {
                    // Clients want one, and send it back; nobody looks at it.
                    let delta = json!({"type": "signature_delta", "signature": ""});
                    events = event("content_block_delta", json!({"index": i, "delta": delta}));
                }
                events + &event("content_block_stop", json!({ "index": i }))
            }
        }
    }
}

impl Tell for Reply {
    fn add(&mut self, said: Said) -> String {
        let id = self.id.trim_start_matches("msg_").to_owned();
        let steps = self.blocks.add(said, |i| format!("toolu_{id}{i:02}"));
        self.told(steps)
    }

    fn end(&mut self, ended: Ended) -> String {
        let steps = self.blocks.finish();
        let mut events = self.told(steps);
        let (reason, word) = self.reason(&ended);
        events += &event(
            "message_delta",
            json!({
                "delta": {"stop_reason": reason, "stop_sequence": word},
                "usage": usage(&ended),
            }),
        );
        events += &event("message_stop", json!({}));
        self.ended = Some(ended);
        events
    }
}

/// A block as a message has it.
fn whole(block: &Block) -> Value {
    match &block.kind {
        Kind::Thought => json!({"type": "thinking", "thinking": block.text, "signature": ""}),
        Kind::Text => json!({"type": "text", "text": block.text}),
        Kind::Call { name, id } => {
            // One that was cut has no input that could be read.
            let input = serde_json::from_str(&block.text).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
    }
}

fn usage(ended: &Ended) -> Value {
    json!({
        "input_tokens": ended.n_prompt - ended.n_reused.min(ended.n_prompt),
        "output_tokens": ended.n_generated,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": ended.n_reused,
    })
}

/// A server-sent event; its data say once more what it is.
pub(super) fn event(kind: &str, mut data: Value) -> String {
    data["type"] = kind.into();
    format!("event: {kind}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Ended {
        Ended { finish: Finish::Stop, n_reused: 4, n_generated: 3, ..Ended::unbegun(10) }
    }

    #[test]
    fn blocks_are_told_and_are_a_message_in_the_end() {
        let mut reply = Reply::new("msg_1".into(), "m".into(), 10, false);
        let mut events = reply.begin();
        for said in [
            Said::Thought("Hm.".into()),
            Said::Text("I look.".into()),
            Said::Call { name: "weather".into(), id: None },
            Said::Arguments(r#"{"city":"#.into()),
            Said::Arguments(r#""Oslo"}"#.into()),
        ] {
            events += &reply.add(said);
        }
        events += &reply.end(ended());
        let kinds: Vec<&str> = events.lines().filter_map(|l| l.strip_prefix("event: ")).collect();
        assert_eq!(kinds[..3], ["message_start", "ping", "content_block_start"]);
        assert_eq!(kinds[kinds.len() - 2..], ["message_delta", "message_stop"]);
        let message = reply.whole().unwrap();
        assert_eq!(message["content"][0]["thinking"], "Hm.");
        assert_eq!(message["content"][2]["input"], json!({"city": "Oslo"}));
        assert_eq!(message["stop_reason"], "tool_use");
        assert_eq!(message["usage"]["input_tokens"], 6);
        let cut = reply.end(Ended { finish: Finish::Length, ..ended() });
        assert!(cut.contains(r#""stop_reason":"max_tokens""#), "{cut}");
    }
}
