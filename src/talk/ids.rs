//! Numbers of calls, as a template wants them: clients that keep none, or write them otherwise than the model's family, are put right. A
//! number that the model said itself, and that comes back, stays.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use serde_json::Value;

/// What a family's numbers look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any text.
    #[default]
    Any,
    /// Nine letters and digits, and nothing else.
    Nine,
    /// `functions.NAME:0`, counted through the conversation.
    Counted,
}

/// A call that was made before.
struct Made {
    name: String,
    /// Its number as the client has it, and as the template gets it.
    sent: Option<String>,
    id: String,
    answered: bool,
}

/// Gives every call in `messages` a number of this `shape`, and every answer of a tool the number and the name of its call.
pub(super) fn settle(messages: &mut [Value], shape: Shape) {
    let mut made: Vec<Made> = Vec::new();
    for message in messages {
        if message["role"] == "tool" {
            answer(message, &mut made);
            continue;
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            let name = call["function"]["name"].as_str().unwrap_or_default().to_owned();
            let sent = call["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
            let id = fitting(sent.as_deref(), shape, &name, made.len());
            call["id"] = id.as_str().into();
            made.push(Made { name, sent, id, answered: false });
        }
    }
}

/// The number of the `n`th call, of `name`, for which the client sent a number or none.
fn fitting(sent: Option<&str>, shape: Shape, name: &str, n: usize) -> String {
    let nine = |id: &str| id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    match (sent, shape) {
        (Some(id), Shape::Nine) if !nine(id) => hashed(id),
        (Some(id), _) => id.to_owned(),
        (None, Shape::Counted) => format!("functions.{name}:{n}"),
        (None, _) => format!("call{n:05}"),
    }
}

/// Nine letters and digits that follow from `id`.
fn hashed(id: &str) -> String {
    let mut hash = DefaultHasher::new();
    id.hash(&mut hash);
    format!("{:09x}", hash.finish() & 0xf_ffff_ffff)
}

/// Gives a tool's answer what its call has. Without a number it answers the first call of its name that was not answered.
fn answer(message: &mut Value, made: &mut [Made]) {
    let text = |key: &str| message[key].as_str().filter(|text| !text.is_empty());
    let (id, name) = (text("tool_call_id"), text("name"));
    let found = match id {
        Some(id) => made.iter().rposition(|call| call.sent.as_deref() == Some(id)),
        None => {
            made.iter().position(|call| !call.answered && name.is_none_or(|name| name == call.name))
        }
    };
    let Some(call) = found.map(|at| &mut made[at]) else { return };
    call.answered = true;
    if name.is_none() {
        message["name"] = call.name.as_str().into();
    }
    message["tool_call_id"] = call.id.as_str().into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn talk(ids: [Value; 2], answers: [Value; 2]) -> Vec<Value> {
        let [a, b] = ids;
        let call = |id: Value, name: &str| match id {
            Value::Null => json!({"function": {"name": name, "arguments": {}}}),
            id => json!({"id": id, "function": {"name": name, "arguments": {}}}),
        };
        let mut all = vec![
            json!({"role": "user", "content": "?"}),
            json!({"role": "assistant", "content": "", "tool_calls": [call(a, "f"), call(b, "g")]}),
        ];
        all.extend(answers);
        all
    }

    fn numbers(messages: &[Value]) -> Vec<&str> {
        let calls = messages[1]["tool_calls"].as_array().unwrap().iter().map(|call| &call["id"]);
        let answers = messages[2..].iter().map(|message| &message["tool_call_id"]);
        calls.chain(answers).map(|id| id.as_str().unwrap_or("")).collect()
    }

    #[test]
    fn numbers_that_were_said_stay() {
        let by = |id: &str| json!({"role": "tool", "content": "1", "tool_call_id": id});
        for (a, b, shape) in [
            ("abcdefghi", "jklmnopqr", Shape::Nine),
            ("functions.f:0", "functions.g:1", Shape::Counted),
            ("toolu_01", "x", Shape::Any),
        ] {
            // Answers in another order than the calls.
            let mut all = talk([json!(a), json!(b)], [by(b), by(a)]);
            settle(&mut all, shape);
            assert_eq!(numbers(&all), [a, b, b, a]);
            assert_eq!((&all[2]["name"], &all[3]["name"]), (&json!("g"), &json!("f")));
        }
    }

    #[test]
    fn who_keeps_no_numbers_gets_some() {
        let by = |name: &str| json!({"role": "tool", "content": "1", "name": name});
        let plain = || json!({"role": "tool", "content": "1"});
        let mut all = talk([Value::Null, Value::Null], [by("g"), by("f")]);
        settle(&mut all, Shape::Counted);
        let [f, g] = ["functions.f:0", "functions.g:1"];
        assert_eq!(numbers(&all), [f, g, g, f]);
        let mut all = talk([Value::Null, Value::Null], [plain(), plain()]);
        settle(&mut all, Shape::Nine);
        assert_eq!(numbers(&all), ["call00000", "call00001", "call00000", "call00001"]);
        // More answers than calls.
        let mut all = talk([Value::Null, Value::Null], [by("f"), by("f")]);
        settle(&mut all, Shape::Any);
        assert_eq!(numbers(&all), ["call00000", "call00001", "call00000", ""]);
    }

    #[test]
    fn numbers_of_another_shape_are_changed_alike() {
        let by = |id: &str| json!({"role": "tool", "content": "1", "tool_call_id": id});
        let mut all =
            talk([json!("toolu_0123456789"), json!("call-1")], [by("call-1"), by("nobody")]);
        settle(&mut all, Shape::Nine);
        let found = numbers(&all);
        assert!(found[..2].iter().all(|id| id.len() == 9), "{found:?}");
        assert_ne!(found[0], found[1]);
        assert_eq!((found[1], found[3]), (found[2], "nobody"));
    }
}
