//! Conversations as clients send them, made into what templates want, and into tokens.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::error::ApiError;
use super::fields::Fields;
use super::server::{Served, Server};
use super::tools::Tools;
use crate::engine::Token;
use crate::talk::chat::prompt_tokens;

/// The most messages of a conversation, and the most tools.
const MAX_MESSAGES: usize = 10_000;
const MAX_TOOLS: usize = 128;

/// Reads `messages`: objects with a role and a text, in which whatever else a template may know is kept.
pub(super) fn messages(fields: Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let list = fields.list("messages")?.ok_or_else(|| fields.wrong("messages", "there"))?;
    if list.is_empty() || list.len() > MAX_MESSAGES {
        return Err(fields.wrong("messages", "a list of 1 to 10000 messages"));
    }
    list.iter().enumerate().map(|(i, message)| self::message(i, message)).collect()
}

fn message(i: usize, message: &Value) -> Result<Value, ApiError> {
    let param = format!("messages[{i}]");
    let wrong = |what: &str| ApiError::field(param.clone(), format!("'{param}' {what}"));
    let map = message.as_object().ok_or_else(|| wrong("must be an object"))?;
    let role = match map.get("role").and_then(Value::as_str) {
        Some("developer" | "system") => "system",
        Some(role @ ("user" | "assistant" | "tool")) => role,
        Some("function") => "tool",
        _ => return Err(wrong("must have a role: system, user, assistant or tool")),
    };
    if map.get("images").and_then(Value::as_array).is_some_and(|images| !images.is_empty()) {
        return Err(wrong("has images, and this model reads text only"));
    }
    let content = match map.get("content") {
        None | Some(Value::Null) if role == "assistant" && map.contains_key("tool_calls") => {
            String::new()
        }
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().map(part).collect::<Result<_, _>>().map_err(wrong)?
        }
        _ => return Err(wrong("must have a content: a text, or a list of parts")),
    };
    let mut out = json!({"role": role, "content": content});
    if let Some(calls) = map.get("tool_calls").filter(|calls| !calls.is_null()) {
        let calls = calls.as_array().ok_or_else(|| wrong("must have a list as tool_calls"))?;
        let calls: Option<Vec<Value>> = calls.iter().map(past_call).collect();
        out["tool_calls"] =
            calls.ok_or_else(|| wrong("has a tool call without function or name"))?.into();
    }
    for key in ["name", "tool_call_id", "tool_name"] {
        if let Some(text) = map.get(key).and_then(Value::as_str) {
            out[key] = text.into();
        }
    }
    Ok(out)
}

/// The text of a part.
fn part(part: &Value) -> Result<&str, &'static str> {
    match part["type"].as_str() {
        Some("text") => part["text"].as_str().ok_or("has a part without a text"),
        Some("image_url" | "input_image" | "input_audio" | "file") => {
            Err("has a part that is no text, and this model reads text only")
        }
        _ => Err("has a part of an unknown type"),
    }
}

/// A call that was made before. Templates want the arguments as an object; OpenAI's clients send them as JSON in a text.
fn past_call(call: &Value) -> Option<Value> {
    let function = call.get("function")?;
    let name = function["name"].as_str()?;
    let arguments = match &function["arguments"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Value::Null => json!({}),
        other => other.clone(),
    };
    let mut out = json!({"type": "function", "function": {"name": name, "arguments": arguments}});
    if let Some(id) = call["id"].as_str() {
        out["id"] = id.into();
    }
    Some(out)
}

/// Reads `tools` and `tool_choice`. None where the request has none, or wants none called.
pub(super) fn tools(fields: Fields<'_>) -> Result<Option<Tools>, ApiError> {
    let Some(list) = fields.list("tools")?.filter(|list| !list.is_empty()) else { return Ok(None) };
    let named =
        |tool: &Value| tool["function"]["name"].as_str().is_some_and(|name| !name.is_empty());
    if list.len() > MAX_TOOLS || !list.iter().all(named) {
        return Err(fields.wrong("tools", "a list of at most 128 functions with names"));
    }
    let mut tools = Tools { list: list.to_vec(), required: false };
    match fields.any("tool_choice") {
        None => {}
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => {}
            "none" => return Ok(None),
            "required" => tools.required = true,
            _ => return Err(fields.wrong("tool_choice", "none, auto, required or a function")),
        },
        Some(choice) => {
            let name = choice["function"]["name"].as_str();
            tools.list.retain(|tool| tool["function"]["name"].as_str() == name);
            if tools.list.is_empty() {
                return Err(fields.wrong("tool_choice", "one of the tools"));
            }
            tools.required = true;
        }
    }
    Ok(Some(tools))
}

/// The tokens of a conversation, with the opening of the answer.
pub(super) fn chat_tokens(
    server: &Server,
    served: &Served,
    mut messages: Vec<Value>,
    tools: Option<&Tools>,
) -> Result<Vec<Token>, ApiError> {
    let (template, vocab) = served.writer()?;
    server.config.preset.begin(&mut messages);
    if tools.is_some() && served.tools.is_none() {
        return Err(ApiError::field(
            "tools",
            format!("model '{}' does not know tools", served.name),
        ));
    }
    let tools = tools.map(|tools| Value::Array(tools.list.clone()));
    // Long texts take their time, and other clients' should not.
    block_in_place(|| {
        let text = template.render_json(&messages, tools.as_ref());
        let text =
            text.map_err(|e| ApiError::field("messages", format!("the chat template: {e}")))?;
        prompt_tokens(&text, vocab).map_err(|error| ApiError::engine(&error.into()))
    })
}

/// The tokens of a text as it is.
pub(super) fn text_tokens(served: &Served, text: &str) -> Result<Vec<Token>, ApiError> {
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    block_in_place(|| vocab.tokenize(text, true, true))
        .map_err(|error| ApiError::engine(&error.into()))
}

/// The tokens that ask for what is missing between `before` and `after`.
pub(super) fn between(
    served: &Served,
    fields: Fields<'_>,
    before: &str,
    after: &str,
) -> Result<Vec<Token>, ApiError> {
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    let tokens = block_in_place(|| vocab.between(before, after));
    let tokens = tokens.map_err(|error| ApiError::engine(&error.into()))?;
    let name = &served.name;
    tokens.ok_or_else(|| {
        fields.wrong("suffix", &format!("left out: model '{name}' was not made to fill in"))
    })
}

/// The texts of `prompts`, which were read from the field `name`.
pub(super) fn texts(
    served: &Served,
    fields: Fields<'_>,
    name: &str,
    prompts: &[Vec<Token>],
) -> Result<Vec<String>, ApiError> {
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    let given: Vec<&Value> = match fields.any(name) {
        Some(Value::Array(items)) => items.iter().collect(),
        other => other.into_iter().collect(),
    };
    let text = |(i, tokens): (usize, &Vec<Token>)| match given.get(i) {
        Some(Value::String(text)) => text.clone(),
        _ => {
            let bytes: Vec<u8> = tokens.iter().flat_map(|&token| vocab.bytes(token)).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    Ok(prompts.iter().enumerate().map(text).collect())
}

/// A text, a list of texts, a list of tokens, or a list of those: what to continue, or to make vectors of.
pub(super) fn inputs(
    served: &Served,
    fields: Fields<'_>,
    name: &str,
    most: usize,
) -> Result<Vec<Vec<Token>>, ApiError> {
    let wrong = || fields.wrong(name, "a text, tokens, or a list of these that is not too long");
    let n_vocab = served.engine.n_vocab();
    let token = |v: &Value| {
        let token = v.as_i64().and_then(|t| Token::try_from(t).ok());
        token.filter(|&t| usize::try_from(t).is_ok_and(|t| t < n_vocab)).ok_or_else(wrong)
    };
    let tokens = |items: &[Value]| items.iter().map(token).collect::<Result<Vec<_>, _>>();
    let one = |v: &Value| match v {
        Value::String(text) => text_tokens(served, text),
        Value::Array(items) => tokens(items),
        _ => Err(wrong()),
    };
    match fields.any(name).ok_or_else(|| fields.wrong(name, "there"))? {
        text @ Value::String(_) => Ok(vec![one(text)?]),
        Value::Array(items) if items.is_empty() => Err(wrong()),
        Value::Array(items) if items[0].is_i64() => Ok(vec![tokens(items)?]),
        Value::Array(items) if items.len() <= most => items.iter().map(one).collect(),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_templates_want() {
        let list = json!({"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
            {"role": "tool", "content": "2", "tool_call_id": "1"},
        ]});
        let messages = messages(Fields::of(list.as_object().unwrap())).unwrap();
        assert_eq!(messages[0], json!({"role": "system", "content": "Be brief."}));
        assert_eq!(messages[1]["content"], "ab");
        assert_eq!(messages[2]["tool_calls"][0]["function"]["arguments"]["x"], 1);
        assert_eq!(messages[3]["tool_call_id"], "1");
    }

    #[test]
    fn wrong_messages_are_refused() {
        for wrong in [
            json!({}),
            json!({"messages": []}),
            json!({"messages": "hi"}),
            json!({"messages": [1]}),
            json!({"messages": [{"role": "user"}]}),
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            json!({"messages": [{"role": "user", "content": 1}]}),
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
            json!({"messages": [{"role": "user", "content": [1]}]}),
            json!({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}),
            json!({"messages": [{"role": "assistant", "tool_calls": [{}]}]}),
        ] {
            let error = messages(Fields::of(wrong.as_object().unwrap())).unwrap_err();
            assert!(error.status == 400 && error.param.is_some(), "{wrong}");
        }
    }

    #[test]
    fn tools_can_be_chosen() {
        let list =
            json!([{"type": "function", "function": {"name": "f"}}, {"function": {"name": "g"}}]);
        let read = |choice: Value| {
            let request = json!({"tools": list, "tool_choice": choice});
            tools(Fields::of(request.as_object().unwrap()))
        };
        assert_eq!(read(Value::Null).unwrap().unwrap().list.len(), 2);
        assert_eq!(read("none".into()), Ok(None));
        assert!(read("required".into()).unwrap().unwrap().required);
        let one = read(json!({"type": "function", "function": {"name": "g"}})).unwrap().unwrap();
        assert_eq!(one.names().collect::<Vec<_>>(), ["g"]);
        assert!(read(json!({"function": {"name": "h"}})).is_err());
        assert!(read("sometimes".into()).is_err());
        assert!(read(1.into()).is_err());
    }
}
