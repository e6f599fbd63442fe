//! What a model says, in the words of OpenAI's Responses: one object at the end, or events for each of its items.

use serde_json::{Map, Value, json};

use crate::engine::Finish;
use crate::engine::batch::Ended;
use crate::serve::blocks::{Block, Blocks, Kind, Step, Tell};
use crate::serve::error::ApiError;
use crate::talk::speech::Said;

/// A response that is coming.
#[derive(Debug)]
pub(super) struct Reply {
    /// What all its names end with.
    unique: String,
    /// What it says of the request.
    echo: Map<String, Value>,
    blocks: Blocks,
    n_events: u64,
    ended: Option<Ended>,
}

/// What a response repeats of its request, and what stands there if the request said nothing.
fn echo(body: &Map<String, Value>) -> Map<String, Value> {
    let mut echo = Map::new();
    for (name, default) in [
        ("background", json!(false)),
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("temperature", json!(0.8)),
        ("text", json!({"format": {"type": "text"}})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", json!(0.95)),
        ("truncation", json!("disabled")),
        ("user", Value::Null),
    ] {
        let said = body.get(name).filter(|value| !value.is_null());
        echo.insert(name.to_owned(), said.cloned().unwrap_or(default));
    }
    let before = body.get("previous_response_id").cloned();
    echo.insert("previous_response_id".to_owned(), before.unwrap_or_default());
    echo.insert("store".to_owned(), false.into());
    echo
}

impl Reply {
    /// The answer of `model` to `body`, which came at `now` (seconds since 1970).
    pub(super) fn new(unique: String, model: &str, now: u64, body: &Map<String, Value>) -> Reply {
        let mut echo = echo(body);
        echo.insert("model".to_owned(), model.into());
        echo.insert("created_at".to_owned(), now.into());
        Reply { unique, echo, blocks: Blocks::new(false), n_events: 0, ended: None }
    }

    /// The first events.
    pub(super) fn begin(&mut self) -> String {
        let response = self.response("in_progress");
        self.event("response.created", json!({ "response": response.clone() }))
            + &self.event("response.in_progress", json!({ "response": response }))
    }

    /// It cannot be ended well.
    pub(super) fn fail(&mut self, error: &ApiError) -> String {
        let mut response = self.response("failed");
        let code = error.code.unwrap_or("server_error");
        response["error"] = json!({"code": code, "message": error.message});
        self.event("response.failed", json!({ "response": response }))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The whole response, as far as it is.
    pub(super) fn whole(&self) -> Value {
        let cut = self.is_cut();
        let mut response = self.response(if cut { "incomplete" } else { "completed" });
        if cut {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        let items =
            (0..self.blocks.all.len()).map(|i| self.item(i, &self.blocks.all[i], self.status(i)));
        response["output"] = items.collect();
        if let Some(ended) = &self.ended {
            response["usage"] = json!({
                "input_tokens": ended.n_prompt,
                "input_tokens_details": {"cached_tokens": ended.n_reused},
                "output_tokens": ended.n_generated,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": ended.n_prompt + ended.n_generated,
            });
        }
        response
    }

    fn is_cut(&self) -> bool {
        self.ended.as_ref().is_none_or(|ended| ended.finish != Finish::Stop)
    }

    /// What became of block `i`, which has ended: the last one of an answer that was cut is not whole.
    fn status(&self, i: usize) -> &'static str {
        let is_last = i + 1 == self.blocks.all.len() && self.ended.is_some();
        if is_last && self.is_cut() { "incomplete" } else { "completed" }
    }

    fn response(&self, status: &str) -> Value {
        let mut response = json!({
            "id": format!("resp_{}", self.unique), "object": "response", "status": status,
            "error": null, "incomplete_details": null, "output": [], "usage": null,
        });
        for (name, value) in &self.echo {
            response[name] = value.clone();
        }
        response
    }

    fn item_id(&self, i: usize) -> String {
        let kind = match self.blocks.all[i].kind {
            Kind::Thought => "rs",
            Kind::Text => "msg",
            Kind::Call { .. } => "fc",
        };
        format!("{kind}_{}{i:02}", self.unique)
    }

    /// A block as an item.
    fn item(&self, i: usize, block: &Block, status: &str) -> Value {
        let id = self.item_id(i);
        let begun = !block.text.is_empty() || status != "in_progress";
        match &block.kind {
            Kind::Thought => {
                let content = if begun { json!([part(block)]) } else { json!([]) };
                json!({
                    "id": id, "type": "reasoning", "status": status, "summary": [],
                    "content": content, "encrypted_content": null,
                })
            }
            Kind::Text => {
                let content = if begun { json!([part(block)]) } else { json!([]) };
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Kind::Call { name, id: call } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call,
                "name": name, "arguments": block.text,
            }),
        }
    }

    fn step(&mut self, step: Step) -> String {
        match step {
            Step::Open(i) => self.open(i),
            Step::Grow(i, text) => {
                let kind = match self.blocks.all[i].kind {
                    Kind::Thought => "response.reasoning_text.delta",
                    Kind::Text => "response.output_text.delta",
                    Kind::Call { .. } => "response.function_call_arguments.delta",
                };
                let mut data = self.place(i);
                data["delta"] = text.into();
                if self.blocks.all[i].kind == Kind::Text {
                    data["logprobs"] = json!([]);
                }
                self.event(kind, data)
            }
            Step::Close(i) => self.close(i),
        }
    }

    fn open(&mut self, i: usize) -> String {
        let empty = Block { text: String::new(), ..self.blocks.all[i].clone() };
        let item = self.item(i, &empty, "in_progress");
        let mut events =
            self.event("response.output_item.added", json!({"output_index": i, "item": item}));
        if !matches!(empty.kind, Kind::Call { .. }) {
            let mut data = self.place(i);
            data["part"] = part(&empty);
            events += &self.event("response.content_part.added", data);
        }
        events
    }

    fn close(&mut self, i: usize) -> String {
        let block = self.blocks.all[i].clone();
        let mut data = self.place(i);
        let mut events = match &block.kind {
            Kind::Call { name, .. } => {
                (data["arguments"], data["name"]) = (json!(block.text), json!(name));
                self.event("response.function_call_arguments.done", data)
            }
            kind => {
                data["text"] = block.text.as_str().into();
                let what = match kind {
                    Kind::Thought => "response.reasoning_text.done",
                    _ => {
                        data["logprobs"] = json!([]);
                        "response.output_text.done"
                    }
                };
                let done = self.event(what, data);
                let mut data = self.place(i);
                data["part"] = part(&block);
                done + &self.event("response.content_part.done", data)
            }
        };
        let item = self.item(i, &block, self.status(i));
        events +=
            &self.event("response.output_item.done", json!({"output_index": i, "item": item}));
        events
    }

    /// Where something of block `i` is.
    fn place(&self, i: usize) -> Value {
        let mut place = json!({"item_id": self.item_id(i), "output_index": i});
        if !matches!(self.blocks.all[i].kind, Kind::Call { .. }) {
            place["content_index"] = 0.into();
        }
        place
    }

    fn event(&mut self, kind: &str, mut data: Value) -> String {
        data["type"] = kind.into();
        data["sequence_number"] = self.n_events.into();
        self.n_events += 1;
        format!("event: {kind}\ndata: {data}\n\n")
    }
}

impl Tell for Reply {
    fn add(&mut self, said: Said) -> String {
        let unique = self.unique.clone();
        let steps = self.blocks.add(said, |i| format!("call_{unique}{i:02}"));
        steps.into_iter().map(|step| self.step(step)).collect()
    }

    fn end(&mut self, ended: Ended) -> String {
        self.ended = Some(ended);
        let steps = self.blocks.finish();
        let mut events: String = steps.into_iter().map(|step| self.step(step)).collect();
        let response = self.whole();
        let kind = match response["status"].as_str() {
            Some("incomplete") => "response.incomplete",
            _ => "response.completed",
        };
        events += &self.event(kind, json!({ "response": response }));
        events
    }
}

/// The one part of a thought's or a text's content.
fn part(block: &Block) -> Value {
    match block.kind {
        Kind::Thought => json!({"type": "reasoning_text", "text": block.text}),
        _ => json!({"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_and_are_a_response_in_the_end() {
        let mut reply = Reply::new("1".into(), "m", 0, &Map::new());
        let mut events = reply.begin();
        for said in [
            Said::Thought("Hm.".into()),
            Said::Text("I look.".into()),
            Said::Call { name: "weather".into(), id: Some("c1".into()) },
            Said::Arguments("{}".into()),
        ] {
            events += &reply.add(said);
        }
        let ended =
            Ended { finish: Finish::Stop, n_reused: 4, n_generated: 3, ..Ended::unbegun(10) };
        events += &reply.end(ended);
        let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
        let data: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
        for (i, event) in data.iter().enumerate() {
            assert_eq!(event["sequence_number"], i);
        }
        assert_eq!(data[0]["type"], "response.created");
        let last = &data[data.len() - 1];
        assert_eq!(last["type"], "response.completed");
        let output = last["response"]["output"].as_array().unwrap();
        let kinds: Vec<&str> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["reasoning", "message", "function_call"]);
        assert_eq!(output[2]["call_id"], "c1");
        let added = data.iter().filter(|e| e["type"] == "response.output_item.added").count();
        let done = data.iter().filter(|e| e["type"] == "response.output_item.done").count();
        assert_eq!((added, done), (3, 3));
    }
}
