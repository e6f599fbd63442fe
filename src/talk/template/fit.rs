//! What a template wants otherwise than others: found out by trying, once.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, PROBE};
use crate::talk::ids::Shape;

/// A value that a template cannot know.
const GIVEN: &str = "qzxw";

/// Numbers of calls: one that all templates take, and one that is too long for some.
const SHORT: &str = "callqzxv0";
const LONG: &str = "toolu_qzxv0qzxv0qzxv0";

/// What a template wants otherwise.
#[derive(Debug, Default)]
pub(in crate::talk) struct Fit {
    /// Whether a call's arguments are to be the text of their JSON.
    pub(in crate::talk) text_arguments: bool,
    /// Whether a message that calls is to have no content.
    pub(in crate::talk) null_content: bool,
    /// What an earlier thought is called.
    pub(in crate::talk) thought_keys: Vec<&'static str>,
    /// What calls' numbers must look like.
    pub(in crate::talk) ids: Shape,
    /// Whether thinking can be turned off.
    pub(in crate::talk) switches: bool,
    /// Whether it can be more or less.
    pub(in crate::talk) efforts: bool,
}

impl Fit {
    /// What `template` wants.
    pub(super) fn of(template: &ChatTemplate) -> Fit {
        let (mut text_arguments, mut null_content) = (false, false);
        let counted = template.dialect().counts_calls();
        let mut ids = if counted { Shape::Counted } else { Shape::Any };
        let ways = [(false, false), (true, false), (false, true), (true, true)];
        if let Some(way) = ways.into_iter().find(|&way| shows_call(template, way, SHORT)) {
            (text_arguments, null_content) = way;
            if !shows_call(template, way, LONG) {
                ids = Shape::Nine;
            }
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
            ids,
            thought_keys: keys.into_iter().filter(names).collect(),
            switches: differ("enable_thinking", flag()) || differ("thinking", flag()),
            efforts: differ("reasoning_effort", ["low".into(), "high".into()]),
        }
    }
}

/// Whether a call is in the prompt, in a form that is no Python.
fn shows_call(template: &ChatTemplate, (text, null): (bool, bool), id: &str) -> bool {
    let given = json!({PROBE: GIVEN});
    let given = if text { given.to_string().into() } else { given };
    let call =
        json!({"id": id, "type": "function", "function": {"name": PROBE, "arguments": given}});
    let content = if null { Value::Null } else { "".into() };
    let messages = [
        json!({"role": "user", "content": "?"}),
        json!({"role": "assistant", "content": content, "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": id, "name": PROBE, "content": "!"}),
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
