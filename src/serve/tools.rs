//! How models call tools: the forms that chat templates teach them, found in an answer, and required of one by a grammar.

use serde_json::{Value, json};

use super::error::ApiError;
use super::order;
use crate::engine::Grammar;

/// What a call looks like in the model's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, as Hermes and Qwen write.
    Tagged,
    /// `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`, as Mistral writes; newer ones `[TOOL_CALLS]name[ARGS]{...}`.
    Listed,
    /// `{"name": ..., "parameters": {...}}` and nothing else, as Llama 3 writes.
    Bare,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const LIST: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const PYTHON: &str = "<|python_tag|>";

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// What a request says of tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tools {
    /// As the template gets them: `{"type": "function", "function": {...}}`.
    pub(super) list: Vec<Value>,
    /// Whether one of them must be called.
    pub(super) required: bool,
}

impl Tools {
    /// The tools' names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter_map(|tool| tool["function"]["name"].as_str())
    }
}

impl Form {
    /// The form that a template with this source teaches.
    pub(super) fn of(source: &str) -> Form {
        if source.contains(LIST) {
            Form::Listed
        } else if source.contains(OPEN) {
            Form::Tagged
        } else {
            Form::Bare
        }
    }

    /// The grammar of an answer that calls one of `tools`.
    pub(super) fn grammar(self, tools: &[Value]) -> Result<Grammar, ApiError> {
        let key = if self == Form::Bare { "parameters" } else { "arguments" };
        let one = |tool: &Value| {
            let function = &tool["function"];
            let parameters = Some(&function["parameters"]).filter(|p| p.is_object());
            let mut parameters = parameters.cloned().unwrap_or_else(|| json!({"type": "object"}));
            // A document of its own: its references are not to this schema around it.
            parameters["$id"] = "tool".into();
            json!({
                "type": "object",
                "properties": {"name": {"const": function["name"]}, key: parameters},
                "required": ["name", key],
            })
        };
        let schema = match tools {
            [tool] => one(tool),
            tools => json!({"anyOf": tools.iter().map(one).collect::<Vec<_>>()}),
        };
        let mut grammar = order::schema_grammar("tools", &schema)?;
        let (before, after) = match self {
            Form::Tagged => (r#""<tool_call>\n""#, r#""\n</tool_call>""#),
            Form::Listed => (r#""[TOOL_CALLS][""#, r#""]""#),
            Form::Bare => (r#""""#, r#""""#),
        };
        // No schema makes a rule of this name: it replaces what is no letter by a dash, and appends to it.
        grammar.root = "airrun-tool-call".to_owned();
        grammar.rules += &format!("\n{} ::= {before} root {after}\n", grammar.root);
        Ok(grammar)
    }

    /// Where calls begin in `text`, and whether more text could tell that they begin earlier than that.
    fn begin(self, text: &str) -> Option<usize> {
        match self {
            Form::Tagged => text.find(OPEN),
            Form::Listed => text.find(LIST),
            Form::Bare => {
                let start = text.len() - text.trim_start().len();
                let rest = &text[start..];
                (rest.starts_with('{') || rest.starts_with(PYTHON)).then_some(start)
            }
        }
    }

    /// How many bytes at the end of `text`, which has no call, may be the beginning of one.
    fn maybe(self, text: &str) -> usize {
        let tail = |mark: &str| {
            let longest = mark.len().min(text.len());
            (1..=longest).rev().find(|&n| text.ends_with(&mark[..n])).unwrap_or(0)
        };
        match self {
            Form::Tagged => tail(OPEN),
            Form::Listed => tail(LIST),
            Form::Bare => {
                let rest = text.trim_start();
                if PYTHON.starts_with(rest) { text.len() } else { 0 }
            }
        }
    }

    /// The calls in `text`, which begins with one.
    fn parse(self, text: &str, tools: &Tools) -> Vec<Call> {
        match self {
            Form::Tagged => {
                let bodies = text.split(OPEN).skip(1).map(|part| part.split(CLOSE).next());
                bodies.flatten().flat_map(values).filter_map(|v| call(&v)).collect()
            }
            Form::Listed => text
                .split(LIST)
                .skip(1)
                .flat_map(|part| match part.split_once(ARGS) {
                    Some((name, arguments)) => {
                        let named = |arguments| Call { name: name.trim().to_owned(), arguments };
                        values(arguments).into_iter().take(1).map(named).collect()
                    }
                    None => values(part).iter().flat_map(calls).collect::<Vec<_>>(),
                })
                .collect(),
            Form::Bare => {
                let body = text.trim_start().trim_start_matches(PYTHON);
                let parts = values(body).into_iter();
                let known = |call: &Call| tools.names().any(|name| name == call.name);
                parts.filter_map(|v| call(&v)).filter(known).collect()
            }
        }
    }
}

/// The JSON values at the beginning of `text`, which may be separated by `;`.
fn values(text: &str) -> Vec<Value> {
    let mut values = Vec::new();
    let mut rest = text;
    while let Some(Ok(value)) = {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let next = stream.next();
        rest = &rest[stream.byte_offset()..];
        next
    } {
        values.push(value);
        rest = rest.trim_start().trim_start_matches(';');
    }
    values
}

fn calls(value: &Value) -> Vec<Call> {
    match value {
        Value::Array(items) => items.iter().filter_map(call).collect(),
        other => call(other).into_iter().collect(),
    }
}

fn call(value: &Value) -> Option<Call> {
    let name = value["name"].as_str()?.to_owned();
    let arguments = ["arguments", "parameters"].iter().find_map(|key| value.get(key));
    Some(Call { name, arguments: arguments.cloned().unwrap_or_else(|| json!({})) })
}

/// Finds calls in an answer that comes in pieces.
#[derive(Debug)]
pub(super) struct Scanner {
    form: Form,
    tools: Tools,
    held: String,
    calling: bool,
    /// Whether some text was shown, after which a bare call can no longer come.
    shown: bool,
}

impl Scanner {
    pub(super) fn new(form: Form, tools: Tools) -> Scanner {
        Scanner { form, tools, held: String::new(), calling: false, shown: false }
    }

    /// Takes a piece of the answer; returns what is text for sure.
    pub(super) fn push(&mut self, piece: &str) -> String {
        self.held += piece;
        if self.calling {
            return String::new();
        }
        if self.form == Form::Bare && self.shown {
            return std::mem::take(&mut self.held);
        }
        let cut = match self.form.begin(&self.held) {
            Some(at) => {
                self.calling = true;
                at
            }
            None => self.held.len() - self.form.maybe(&self.held),
        };
        let rest = self.held.split_off(cut);
        let text = std::mem::replace(&mut self.held, rest);
        self.shown |= !text.trim().is_empty();
        text
    }

    /// The calls, and what turned out to be text.
    pub(super) fn finish(self) -> (String, Vec<Call>) {
        let calls = match self.calling {
            true => self.form.parse(&self.held, &self.tools),
            false => Vec::new(),
        };
        if calls.is_empty() { (self.held, calls) } else { (String::new(), calls) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        let tool = |name: &str| {
            json!({"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}})
        };
        Tools { list: vec![tool("weather"), tool("time")], required: false }
    }

    /// The text and the calls of an answer, given as pieces of every size.
    fn scan(form: Form, answer: &str) -> (String, Vec<(String, String)>) {
        let mut results = Vec::new();
        for size in 1..=answer.len().max(1) {
            let mut scanner = Scanner::new(form, tools());
            let mut text = String::new();
            let chars: Vec<char> = answer.chars().collect();
            for piece in chars.chunks(size) {
                text += &scanner.push(&piece.iter().collect::<String>());
            }
            let (rest, calls) = scanner.finish();
            let calls = calls.into_iter().map(|c| (c.name, c.arguments.to_string())).collect();
            results.push((text + &rest, calls));
        }
        results.dedup();
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0)
    }

    #[test]
    fn calls_are_found_in_all_forms() {
        let oslo = ("weather".to_owned(), r#"{"city":"Oslo"}"#.to_owned());
        let time = ("time".to_owned(), "{}".to_owned());
        let tagged = "Let me see.<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\n\
            <tool_call>{\"name\":\"time\"}</tool_call>";
        let both = vec![oslo.clone(), time.clone()];
        assert_eq!(scan(Form::Tagged, tagged), ("Let me see.".to_owned(), both.clone()));
        let listed =
            r#"[TOOL_CALLS][{"name":"weather","arguments":{"city":"Oslo"}},{"name":"time"}]"#;
        assert_eq!(scan(Form::Listed, listed), (String::new(), both.clone()));
        let newer = r#"Yes.[TOOL_CALLS]weather[ARGS]{"city":"Oslo"}[TOOL_CALLS]time[ARGS]{}"#;
        assert_eq!(scan(Form::Listed, newer), ("Yes.".to_owned(), both.clone()));
        let bare =
            r#"<|python_tag|>{"name":"weather","parameters":{"city":"Oslo"}}; {"name":"time"}"#;
        assert_eq!(scan(Form::Bare, bare), (String::new(), both));
    }

    #[test]
    fn text_stays_text() {
        for (form, answer) in [
            (Form::Tagged, "a < b and <tool> is no call"),
            (Form::Tagged, "<tool_call>not JSON</tool_call>"),
            (Form::Tagged, "<tool_cal"),
            (Form::Listed, "[TOOL] and [1, 2]"),
            (Form::Bare, "{\"name\": \"unknown\", \"parameters\": {}}"),
            (Form::Bare, "{\"a\": 1}"),
            (Form::Bare, "Use {\"name\": \"weather\"}."),
            (Form::Bare, "<|pyth"),
            (Form::Bare, ""),
            (Form::Bare, " \n"),
        ] {
            assert_eq!(scan(form, answer), (answer.to_owned(), vec![]), "{form:?}");
        }
    }

    #[test]
    fn forms_are_known_by_their_templates() {
        assert_eq!(Form::of("{{ '<tool_call>' }}"), Form::Tagged);
        assert_eq!(Form::of("[TOOL_CALLS]"), Form::Listed);
        assert_eq!(Form::of("{{ tools }}"), Form::Bare);
    }

    #[test]
    fn calls_can_be_required() {
        for form in [Form::Tagged, Form::Listed, Form::Bare] {
            let grammar = form.grammar(&tools().list).unwrap();
            assert!(
                grammar.rules.contains(&format!("\n{} ::= ", grammar.root)),
                "{}",
                grammar.rules
            );
        }
    }
}
