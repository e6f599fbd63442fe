//! What a message says, in the words of each protocol, whole and in pieces.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::serve::{Answer, Server};

/// What is understood of an answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(super) struct Meant {
    thought: String,
    text: String,
    /// Names, and what is given: an object, or a beginning of it.
    calls: Vec<(String, Value)>,
}

impl Meant {
    /// How many blanks there are between words does not count, nor those of JSON.
    pub(super) fn of(thought: &str, text: &str, calls: Vec<(String, String)>) -> Meant {
        let value = |given: &str| {
            serde_json::from_str(given).unwrap_or_else(|_| given.replace("\": ", "\":").into())
        };
        Meant {
            thought: words(thought),
            text: words(text),
            calls: calls.into_iter().map(|(name, given)| (name, value(&given))).collect(),
        }
    }

    pub(super) fn in_words(self) -> Meant {
        Meant { thought: words(&self.thought), text: words(&self.text), ..self }
    }

    /// The same where what a tool is given can only be told whole: of a call that was cut, nothing.
    fn in_objects(&self) -> Meant {
        let mut all = self.clone();
        for (_, given) in all.calls.iter_mut().filter(|(_, given)| given.is_string()) {
            *given = json!({});
        }
        all
    }
}

/// An answer, as a client hears it.
#[derive(Debug, Default)]
pub(super) struct Heard {
    thought: String,
    text: String,
    /// Numbers, names, and the texts of what is given.
    calls: Vec<(String, String, String)>,
    /// Why it ended.
    end: String,
}

impl Heard {
    fn call(&mut self, id: &Value, name: &Value, given: String) {
        self.calls.push((text(id), text(name), given));
    }

    pub(super) fn meant(&self) -> Meant {
        let calls = self.calls.iter().map(|(_, name, given)| (name.clone(), given.clone()));
        Meant::of(&self.thought, &self.text, calls.collect())
    }

    /// The same with numbers that some other model's calls had.
    pub(super) fn renumbered(&self) -> Heard {
        let calls = self.calls.iter().enumerate().map(|(i, (_, name, given))| {
            (format!("toolu_0123456789abcdef{i}"), name.clone(), given.clone())
        });
        Heard { calls: calls.collect(), ..Heard::default() }
    }

    pub(super) fn ids(&self) -> Vec<&str> {
        self.calls.iter().map(|(id, ..)| id.as_str()).collect()
    }
}

/// A protocol, as a client speaks it.
#[derive(Debug)]
pub(super) struct Protocol {
    pub(super) name: &'static str,
    path: &'static str,
    /// What it says of answers that were cut, that call, and that are texts.
    ends: [&'static str; 3],
    /// Whether what a tool is given is told as an object, in whole answers and in pieces.
    objects: [bool; 2],
    whole: fn(&Value) -> Heard,
    pieces: fn(&Answer) -> Heard,
}

pub(super) const PROTOCOLS: [Protocol; 4] = [
    Protocol {
        name: "OpenAI chat",
        path: "/v1/chat/completions",
        ends: ["length", "tool_calls", "stop"],
        objects: [false, false],
        whole: chat,
        pieces: chat_pieces,
    },
    Protocol {
        name: "OpenAI responses",
        path: "/v1/responses",
        ends: ["incomplete", "completed", "completed"],
        objects: [false, false],
        whole: response,
        pieces: response_pieces,
    },
    Protocol {
        name: "Anthropic",
        path: "/v1/messages",
        ends: ["max_tokens", "tool_use", "end_turn"],
        objects: [true, false],
        whole: message,
        pieces: message_pieces,
    },
    Protocol {
        name: "Ollama",
        path: "/api/chat",
        ends: ["length", "stop", "stop"],
        objects: [true, true],
        whole: ollama,
        pieces: ollama_pieces,
    },
];

impl Protocol {
    /// A request with OpenAI's `tools`, for at most `most` tokens.
    fn body(&self, tools: &Value, most: Option<usize>, stream: bool) -> Value {
        let go = json!([{"role": "user", "content": "Go"}]);
        let inner = || tools.as_array().into_iter().flatten().map(|tool| tool["function"].clone());
        match self.name {
            "OpenAI responses" => {
                let flat = |mut tool: Value| {
                    tool["type"] = "function".into();
                    tool
                };
                let tools: Vec<Value> = inner().map(flat).collect();
                json!({"input": go, "temperature": 0, "tools": tools, "max_output_tokens": most, "stream": stream})
            }
            "Anthropic" => {
                let named = |mut tool: Value| {
                    tool["input_schema"] = tool["parameters"].take();
                    tool
                };
                let tools: Vec<Value> = inner().map(named).collect();
                json!({"messages": go, "temperature": 0, "tools": tools, "max_tokens": most.unwrap_or(1000), "stream": stream,
                    "thinking": {"type": "adaptive"}})
            }
            "Ollama" => {
                json!({"messages": go, "options": {"temperature": 0, "num_predict": most}, "tools": tools, "stream": stream})
            }
            _ => {
                json!({"messages": go, "temperature": 0, "tools": tools, "max_tokens": most, "stream": stream})
            }
        }
    }

    /// The answer, whole and in pieces.
    pub(super) fn ask(&self, server: &Server, tools: &Value, most: Option<usize>) -> [Heard; 2] {
        let whole = server.ask(self.path, &self.body(tools, most, false));
        let pieces = server.post(self.path, &self.body(tools, most, true));
        assert_eq!(pieces.status, 200, "{}: {pieces:?}", self.name);
        [(self.whole)(&whole), (self.pieces)(&pieces)]
    }

    /// What the model is asked next: the same, with `heard` and what each tool said to it, the last one `said`.
    fn next(&self, heard: &Heard, tools: &Value, said: &str, numbers: bool) -> Value {
        let mut body = self.body(tools, None, false);
        let n = heard.calls.len();
        let said = |i: usize| if i + 1 == n { said } else { "Yes." };
        let object = |given: &str| serde_json::from_str::<Value>(given).unwrap();
        let calls = || heard.calls.iter().enumerate();
        let mut more = Vec::new();
        match self.name {
            "OpenAI responses" => {
                let items = || heard.calls.iter();
                more.extend(items().map(|(id, name, given)| {
                    json!({"type": "function_call", "call_id": id, "name": name, "arguments": given})
                }));
                more.extend(calls().map(|(i, (id, ..))| {
                    json!({"type": "function_call_output", "call_id": id, "output": said(i)})
                }));
            }
            "Anthropic" => {
                let block = |(_, (id, name, given)): (usize, &(String, String, String))| json!({"type": "tool_use", "id": id, "name": name, "input": object(given)});
                let blocks: Vec<Value> = calls().map(block).collect();
                more.push(json!({"role": "assistant", "content": blocks}));
                let result = |(i, (id, ..)): (usize, &(String, String, String))| json!({"type": "tool_result", "tool_use_id": id, "content": said(i)});
                let results: Vec<Value> = calls().map(result).collect();
                more.push(json!({"role": "user", "content": results}));
            }
            own => {
                let call = |(_, (id, name, given)): (usize, &(String, String, String))| {
                    let given = if own == "Ollama" { object(given) } else { given.as_str().into() };
                    let mut call =
                        json!({"type": "function", "function": {"name": name, "arguments": given}});
                    if numbers {
                        call["id"] = id.as_str().into();
                    }
                    call
                };
                let list: Vec<Value> = calls().map(call).collect();
                more.push(json!({"role": "assistant", "content": "", "tool_calls": list}));
                more.extend(calls().map(|(i, (id, name, _))| match numbers {
                    true => json!({"role": "tool", "tool_call_id": id, "content": said(i)}),
                    false => json!({"role": "tool", "tool_name": name, "content": said(i)}),
                }));
            }
        }
        let list = if self.name == "OpenAI responses" { "input" } else { "messages" };
        body[list].as_array_mut().unwrap().extend(more);
        body
    }

    /// Why the model's template refuses to go on after `heard`, to which the tools said `said`. `numbers`: the client keeps calls' numbers.
    pub(super) fn refusal(
        &self,
        server: &Server,
        heard: &Heard,
        tools: &Value,
        said: &str,
        numbers: bool,
    ) -> String {
        let answer = server.post(self.path, &self.next(heard, tools, said, numbers));
        assert_eq!(answer.status, 400, "{}: {answer:?}", self.name);
        let error = &answer.json()["error"];
        error.as_str().or(error["message"].as_str()).unwrap().to_owned()
    }

    /// How what was heard differs from what is meant.
    pub(super) fn differs(&self, heard: &[Heard; 2], meant: &Meant, cut: bool) -> Option<String> {
        let end = if cut {
            0
        } else if meant.calls.is_empty() {
            2
        } else {
            1
        };
        for (heard, objects) in heard.iter().zip(self.objects) {
            let meant = if objects { meant.in_objects() } else { meant.clone() }.in_words();
            let said = heard.meant();
            if said != meant {
                return Some(format!("{}: {said:?} where {meant:?} was meant", self.name));
            }
            if heard.end != self.ends[end] {
                let (is, be) = (&heard.end, self.ends[end]);
                return Some(format!("{}: it ended by '{is}', not by '{be}'", self.name));
            }
            if heard.ids().iter().any(|id| id.is_empty()) {
                return Some(format!("{}: a call without a number: {heard:?}", self.name));
            }
        }
        None
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn chat(answer: &Value) -> Heard {
    let choice = &answer["choices"][0];
    let message = &choice["message"];
    let mut heard = Heard {
        thought: text(&message["reasoning_content"]),
        text: text(&message["content"]),
        end: text(&choice["finish_reason"]),
        ..Heard::default()
    };
    for call in list(&message["tool_calls"]) {
        let function = &call["function"];
        heard.call(&call["id"], &function["name"], text(&function["arguments"]));
    }
    heard
}

fn chat_pieces(answer: &Answer) -> Heard {
    let mut heard = Heard::default();
    for event in answer.events() {
        let choice = &event["choices"][0];
        let delta = &choice["delta"];
        heard.thought += &text(&delta["reasoning_content"]);
        heard.text += &text(&delta["content"]);
        heard.end += &text(&choice["finish_reason"]);
        for call in list(&delta["tool_calls"]) {
            if call["function"]["name"].is_string() {
                heard.call(&call["id"], &call["function"]["name"], String::new());
            }
            let at = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            heard.calls[at].2 += &text(&call["function"]["arguments"]);
        }
    }
    heard
}

fn response(response: &Value) -> Heard {
    let mut heard = Heard { end: text(&response["status"]), ..Heard::default() };
    for item in list(&response["output"]) {
        let said: String = list(&item["content"]).map(|part| text(&part["text"])).collect();
        match item["type"].as_str() {
            Some("reasoning") => heard.thought += &said,
            Some("function_call") => {
                let cut = if heard.end == "incomplete" { "incomplete" } else { "completed" };
                assert_eq!(item["status"], cut, "{response}");
                heard.call(&item["call_id"], &item["name"], text(&item["arguments"]));
            }
            _ => heard.text += &said,
        }
    }
    heard
}

/// Of the deltas; the last event must tell the same.
fn response_pieces(answer: &Answer) -> Heard {
    let (mut heard, mut last) = (Heard::default(), Value::Null);
    for event in data(answer) {
        let delta = text(&event["delta"]);
        match event["type"].as_str().unwrap_or_default() {
            "response.reasoning_text.delta" => heard.thought += &delta,
            "response.output_text.delta" => heard.text += &delta,
            "response.function_call_arguments.delta" => {
                heard.calls.last_mut().unwrap().2 += &delta;
            }
            "response.output_item.added" if event["item"]["type"] == "function_call" => {
                heard.call(&event["item"]["call_id"], &event["item"]["name"], String::new());
            }
            _ => {}
        }
        last = event;
    }
    let whole = response(&last["response"]);
    assert_eq!(whole.meant(), heard.meant(), "{last}");
    assert_eq!(whole.ids(), heard.ids(), "{last}");
    Heard { end: whole.end, ..heard }
}

fn message(message: &Value) -> Heard {
    let mut heard = Heard { end: text(&message["stop_reason"]), ..Heard::default() };
    for block in list(&message["content"]) {
        match block["type"].as_str() {
            Some("thinking") => heard.thought += &text(&block["thinking"]),
            Some("tool_use") => {
                heard.call(&block["id"], &block["name"], block["input"].to_string());
            }
            _ => heard.text += &text(&block["text"]),
        }
    }
    heard
}

fn message_pieces(answer: &Answer) -> Heard {
    let mut heard = Heard::default();
    for event in data(answer) {
        let (delta, block) = (&event["delta"], &event["content_block"]);
        heard.thought += &text(&delta["thinking"]);
        heard.text += &text(&delta["text"]);
        heard.end += &text(&delta["stop_reason"]);
        if block["type"] == "tool_use" {
            heard.call(&block["id"], &block["name"], String::new());
        }
        if let Some(given) = delta["partial_json"].as_str() {
            heard.calls.last_mut().unwrap().2 += given;
        }
    }
    heard
}

fn ollama_message(heard: &mut Heard, line: &Value) {
    let message = &line["message"];
    heard.thought += &text(&message["thinking"]);
    heard.text += &text(&message["content"]);
    heard.end += &text(&line["done_reason"]);
    for call in list(&message["tool_calls"]) {
        let function = &call["function"];
        heard.call(&call["id"], &function["name"], function["arguments"].to_string());
    }
}

fn ollama(answer: &Value) -> Heard {
    let mut heard = Heard::default();
    ollama_message(&mut heard, answer);
    heard
}

fn ollama_pieces(answer: &Answer) -> Heard {
    let mut heard = Heard::default();
    for line in answer.text.lines() {
        ollama_message(&mut heard, &serde_json::from_str(line).unwrap());
    }
    heard
}

/// The data of events without an end of their own.
fn data(answer: &Answer) -> Vec<Value> {
    let data = answer.text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}
