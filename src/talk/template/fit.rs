//! What a template wants otherwise than others: found out by trying, once.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, PROBE};

/// A value that a template cannot know.
const GIVEN: &str = "qzxw";

/// What a template wants otherwise.
#[derive(Debug, Default)]
pub(in crate::talk) struct Fit {
    /// Whether a call's arguments are to be the text of their JSON.
    pub(in crate::talk) text_arguments: bool,
    /// Whether a message that calls is to have no content.
    pub(in crate::talk) null_content: bool,
    /// What an earlier thought is called.
    pub(in crate::talk) thought_keys: Vec<&'static str>,
    /// Whether thinking can be turned off.
    pub(in crate::talk) switches: bool,
    /// Whether it can be more or less.
    pub(in crate::talk) efforts: bool,
}

impl Fit {
    /// What `template` wants.
    pub(super) fn of(template: &ChatTemplate) -> Fit {
        let (mut text_arguments, mut null_content) = (false, false);
        let ways = [(false, false), (true, false), (false, true), (true, true)];
        if let Some(way) = ways.into_iter().find(|&(text, null)| shows_call(template, text, null)) {
            (text_arguments, null_content) = way;
        }
        let source = template.source();
        let keys = ["reasoning_content", "thinking", "reasoning"];
        let names = |key: &&str| {
            let quoted = [format!("'{key}'"), format!("\"{key}\"")];
            source.contains(&format!("message.{key}"))
                || source.contains(&format!("msg.{key}"))
                || source.contains(&format!("m.{key}"))
                || quoted.iter().any(|name| source.contains(name.as_str()))
        };
        let with = |name: &str, value: Value| {
            let variables = Map::from_iter([(name.to_owned(), value)]);
            let user = [json!({"role": "user", "content": "?"})];
            template.render_with(&user, None, true, &variables).ok()
        };
        let differ = |name: &str, values: [Value; 2]| {
            let [a, b] = values.map(|value| with(name, value));
            source.contains(name) && a != b
        };
        let flag = || [Value::from(true), Value::from(false)];
        Fit {
            text_arguments,
            null_content,
            thought_keys: keys.into_iter().filter(names).collect(),
            switches: differ("enable_thinking", flag()) || differ("thinking", flag()),
            efforts: differ("reasoning_effort", ["low".into(), "high".into()]),
        }
    }
}

/// Whether a call is in the prompt, in a form that is no Python.
fn shows_call(template: &ChatTemplate, text: bool, null: bool) -> bool {
    let given = json!({PROBE: GIVEN});
    let given = if text { given.to_string().into() } else { given };
    let call = json!({"id": "callqzxv0", "type": "function", "function": {"name": PROBE, "arguments": given}});
    let content = if null { Value::Null } else { "".into() };
    let messages = [
        json!({"role": "user", "content": "?"}),
        json!({"role": "assistant", "content": content, "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "callqzxv0", "name": PROBE, "content": "!"}),
    ];
    let tools = json!([{"type": "function", "function": {
        "name": PROBE, "description": "", "parameters": {"type": "object", "properties": {}},
    }}]);
    let shown = template.render_with(&messages, Some(&tools), true, &Map::new());
    shown.is_ok_and(|shown| {
        let doubly = format!("\\\"{GIVEN}\\\"");
        shown.contains(GIVEN) && !shown.contains("{'") && !shown.contains(&doubly)
    })
}
