//! What requests of both protocols ask of a model: messages, tools, and how it is to think, in whatever form clients send them. It makes
//! no prompt.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::error::{ApiError, Protocol};
use super::fields::Fields;
use crate::talk::ask::Ask;
use crate::talk::thinking::Thinking;
use crate::talk::tools::Tools;

/// The most messages of a conversation, and the most tools.
const MAX_MESSAGES: usize = 10_000;
const MAX_TOOLS: usize = 4096;
/// The most tokens of a thought that can be asked for.
const MAX_BUDGET: i64 = 1 << 24;

/// Reads all that is asked of a model: `messages`, `tools`, and how it is to think.
pub(super) fn ask(fields: Fields<'_>, protocol: Protocol) -> Result<Ask, ApiError> {
    let mut ask = Ask {
        messages: messages(fields, protocol)?,
        thinking: thinking(fields)?,
        variables: variables(fields)?,
        ..Ask::default()
    };
    let (tools, warnings) = tools(fields)?;
    ask.tools = tools.map(Arc::new);
    ask.warnings = warnings;
    let last = ask.messages.last().is_some_and(|m| m["role"] == "assistant" && !calls(m));
    ask.continues = last
        && match protocol {
            Protocol::Ollama | Protocol::Anthropic => true,
            Protocol::OpenAi => match fields.any("continue_final_message") {
                Some(Value::Bool(wanted)) => *wanted,
                Some(Value::String(_)) => true,
                None => fields.flag("add_generation_prompt")? == Some(false),
                _ => return Err(fields.wrong("continue_final_message", "true or false")),
            },
        };
    Ok(ask)
}

fn calls(message: &Value) -> bool {
    message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty())
}

/// `chat_template_kwargs`: variables for the template.
fn variables(fields: Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let name = "chat_template_kwargs";
    match fields.any(name) {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(_) => Err(fields.wrong(name, "an object")),
    }
}

/// Whether and how much the model is to think: the names of both protocols, which mean the same.
pub(super) fn thinking(fields: Fields<'_>) -> Result<Thinking, ApiError> {
    let mut thinking = Thinking { wanted: fields.flag("enable_thinking")?, ..Thinking::default() };
    match fields.any("think") {
        None => {}
        Some(Value::Bool(wanted)) => thinking.wanted = Some(*wanted),
        Some(Value::String(effort)) => {
            thinking.try_effort(effort).map_err(|want| fields.wrong("think", want))?
        }
        Some(_) => return Err(fields.wrong("think", "true, false, low, medium or high")),
    }
    if let Some(effort) = fields.text("reasoning_effort")? {
        thinking.try_effort(effort).map_err(|want| fields.wrong("reasoning_effort", want))?;
    }
    if let Some(reasoning) = fields.object("reasoning", "reasoning.")?
        && let Some(effort) = reasoning.text("effort")?
    {
        thinking.try_effort(effort).map_err(|want| reasoning.wrong("effort", want))?;
    }
    for name in ["reasoning_budget", "thinking_budget_tokens"] {
        // Negative numbers mean no limit.
        if let Some(budget) = fields.whole(name, -1, MAX_BUDGET)? {
            thinking.budget = usize::try_from(budget).ok();
        }
    }
    if thinking.budget == Some(0) {
        thinking.wanted = Some(false);
    }
    let kwargs = fields.any("chat_template_kwargs");
    if let Some(wanted) = kwargs.and_then(|map| map.get("enable_thinking")).and_then(Value::as_bool)
    {
        thinking.wanted = Some(wanted);
    }
    Ok(thinking)
}

/// Reads `messages`: objects with a role and a text, in which whatever else a template may know is kept.
pub(super) fn messages(fields: Fields<'_>, protocol: Protocol) -> Result<Vec<Value>, ApiError> {
    let list = fields.list("messages")?.ok_or_else(|| fields.wrong("messages", "there"))?;
    if list.is_empty() || list.len() > MAX_MESSAGES {
        return Err(fields.wrong("messages", "a list of 1 to 10000 messages"));
    }
    list.iter().enumerate().map(|(i, message)| self::message(i, message, protocol)).collect()
}

fn message(i: usize, message: &Value, protocol: Protocol) -> Result<Value, ApiError> {
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
    let said = map.get("refusal").and_then(Value::as_str).filter(|_| role == "assistant");
    let mut thought = ["reasoning_content", "reasoning", "thinking"]
        .iter()
        .find_map(|key| map.get(*key).and_then(Value::as_str))
        .map(str::to_owned);
    let content = match map.get("content") {
        // OpenAI's clients send what they got: nothing, where there was nothing.
        None | Some(Value::Null) if role == "assistant" => said.unwrap_or_default().to_owned(),
        None | Some(Value::Null) if protocol == Protocol::Ollama => String::new(),
        Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => text_of(parts, &mut thought).map_err(wrong)?,
        _ => return Err(wrong("must have a content: a text, or a list of parts")),
    };
    let mut out = json!({"role": role, "content": content});
    if let Some(thought) = thought.filter(|t| role == "assistant" && !t.is_empty()) {
        out["reasoning_content"] = thought.into();
    }
    if let Some(calls) = map.get("tool_calls").filter(|calls| !calls.is_null()) {
        let calls = calls.as_array().ok_or_else(|| wrong("must have a list as tool_calls"))?;
        let calls: Option<Vec<Value>> = calls.iter().map(past_call).collect();
        let calls = calls.ok_or_else(|| wrong("has a tool call without function or name"))?;
        if !calls.is_empty() {
            out["tool_calls"] = calls.into();
        }
    } else if let Some(function) = map.get("function_call").filter(|call| call.is_object()) {
        // OpenAI's older spelling.
        let call = past_call(&json!({"function": function}));
        out["tool_calls"] = json!([call.ok_or_else(|| wrong("has a function call without name"))?]);
    }
    for key in ["name", "tool_call_id", "tool_name"] {
        if let Some(text) = map.get(key).and_then(Value::as_str) {
            out[key] = text.into();
        }
    }
    if role == "tool" && out.get("name").is_none() && out.get("tool_name").is_some() {
        out["name"] = out["tool_name"].clone();
    }
    Ok(out)
}

/// The texts of parts, a line each; thoughts are none of them.
fn text_of(parts: &[Value], thought: &mut Option<String>) -> Result<String, &'static str> {
    let mut texts = Vec::new();
    for part in parts {
        let text = |key: &str| part[key].as_str().ok_or("has a part without a text");
        match part["type"].as_str() {
            Some("text" | "input_text" | "output_text") => texts.push(text("text")?),
            Some("refusal") => texts.push(text("refusal")?),
            Some(kind @ ("thinking" | "reasoning")) => {
                let said = part[kind].as_str().or(part["text"].as_str());
                if let (None, Some(said)) = (&thought, said) {
                    *thought = Some(said.to_owned());
                }
            }
            Some("redacted_thinking") => {}
            Some("image_url" | "input_image" | "input_audio" | "file" | "image") => {
                return Err("has a part that is no text, and this model reads text only");
            }
            _ => return Err("has a part of an unknown type"),
        }
    }
    Ok(texts.join("\n"))
}

/// A call that was made before, its arguments as an object where they are JSON.
fn past_call(call: &Value) -> Option<Value> {
    let function = call.get("function")?;
    let name = function["name"].as_str()?;
    let arguments = match &function["arguments"] {
        Value::String(text) if text.trim().is_empty() => json!({}),
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

/// Reads `tools` and `tool_choice`: none where the request has none, or wants none called; and what was passed over.
pub(super) fn tools(fields: Fields<'_>) -> Result<(Option<Tools>, Vec<String>), ApiError> {
    let mut warnings = Vec::new();
    let Some(given) = fields.list("tools")?.filter(|list| !list.is_empty()) else {
        return Ok((None, warnings));
    };
    if given.len() > MAX_TOOLS {
        return Err(fields.wrong("tools", "a list of at most 4096 functions"));
    }
    let mut list = Vec::new();
    for tool in given {
        match function(tool) {
            Some(tool) => list.push(tool),
            None => match tool["type"].as_str().filter(|kind| *kind != "function") {
                Some(kind) => warnings.push(format!("tools of type '{kind}' are not served")),
                None => return Err(fields.wrong("tools", "a list of functions with names")),
            },
        }
    }
    let several = fields.flag("parallel_tool_calls")?.unwrap_or(true);
    let mut tools = Tools { list, required: false, several };
    let mut choice = fields.any("tool_choice");
    if let Some(map) = choice.filter(|choice| choice["type"] == "allowed_tools") {
        // OpenAI's newest spelling has the list inside, or beside the mode.
        let inner = map.get("allowed_tools").filter(|inner| inner.is_object()).unwrap_or(map);
        let allowed = inner["tools"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = allowed.iter().filter_map(chosen).collect();
        tools
            .list
            .retain(|tool| tool["function"]["name"].as_str().is_some_and(|n| names.contains(&n)));
        choice = inner.get("mode");
    }
    match choice {
        None => {}
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => {}
            "none" => return Ok((None, warnings)),
            "required" | "any" => tools.required = true,
            _ => return Err(fields.wrong("tool_choice", "none, auto, required or a function")),
        },
        Some(choice) => match (choice["type"].as_str(), chosen(choice)) {
            (_, Some(name)) => {
                tools.list.retain(|tool| tool["function"]["name"] == name);
                tools.required = true;
            }
            (Some("auto"), None) => {}
            (Some("none"), None) => return Ok((None, warnings)),
            (Some("required" | "any"), None) => tools.required = true,
            _ => return Err(fields.wrong("tool_choice", "one of the tools")),
        },
    }
    if tools.list.is_empty() && (tools.required || warnings.is_empty()) {
        return Err(fields.wrong("tool_choice", "one of the tools"));
    }
    Ok(((!tools.list.is_empty()).then_some(tools), warnings))
}

/// The name in `{"function": {"name": ...}}` or `{"name": ...}`.
fn chosen(value: &Value) -> Option<&str> {
    value["function"]["name"].as_str().or(value["name"].as_str())
}

/// A tool as templates want it.
fn function(tool: &Value) -> Option<Value> {
    let kind = tool.get("type").and_then(Value::as_str).unwrap_or("function");
    let function = tool.get("function").filter(|function| function.is_object());
    let name = function?["name"].as_str().filter(|name| !name.is_empty() && kind == "function")?;
    let mut out = tool.clone();
    out["type"] = "function".into();
    out["function"]["name"] = name.into();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: &Value) -> Result<Vec<Value>, ApiError> {
        messages(Fields::of(request.as_object().unwrap()), Protocol::OpenAi)
    }

    #[test]
    fn messages_are_what_templates_want() {
        let messages = read(&json!({"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
            {"role": "tool", "content": "2", "tool_call_id": "1"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, {"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "function_call": {"name": "g", "arguments": ""}},
            {"role": "assistant", "content": null, "refusal": "I cannot."},
        ]}))
        .unwrap();
        assert_eq!(messages[0], json!({"role": "system", "content": "Be brief."}));
        assert_eq!(messages[1]["content"], "a\nb");
        assert_eq!(messages[2]["tool_calls"][0]["function"]["arguments"]["x"], 1);
        assert_eq!(messages[3]["tool_call_id"], "1");
        assert_eq!(
            messages[4],
            json!({"role": "assistant", "content": "no", "reasoning_content": "t"})
        );
        assert_eq!(messages[5]["tool_calls"][0]["function"], json!({"name": "g", "arguments": {}}));
        assert_eq!(messages[6]["content"], "I cannot.");
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
            let error = read(&wrong).unwrap_err();
            assert!(error.status == 400 && error.param.is_some(), "{wrong}");
        }
    }

    #[test]
    fn tools_can_be_chosen() {
        let list = json!([{"type": "function", "function": {"name": "f"}}, {"function": {"name": "g"}}, {"type": "web_search"}]);
        let read = |choice: Value| {
            let request = json!({"tools": list, "tool_choice": choice});
            tools(Fields::of(request.as_object().unwrap()))
        };
        let (all, warnings) = read(Value::Null).unwrap();
        assert_eq!((all.unwrap().list.len(), warnings.len()), (2, 1));
        assert_eq!(read("none".into()).unwrap().0, None);
        assert!(read("required".into()).unwrap().0.unwrap().required);
        for choice in [
            json!({"type": "function", "function": {"name": "g"}}),
            json!({"type": "function", "name": "g"}),
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}}),
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}),
        ] {
            let one = read(choice).unwrap().0.unwrap();
            assert_eq!(one.names().collect::<Vec<_>>(), ["g"]);
        }
        assert!(read(json!({"function": {"name": "h"}})).is_err());
        assert!(read("sometimes".into()).is_err());
        assert!(read(1.into()).is_err());
    }

    #[test]
    fn thinking_has_many_names() {
        for (request, wanted, effort) in [
            (json!({}), None, None),
            (json!({"chat_template_kwargs": {"enable_thinking": false}}), Some(false), None),
            (json!({"reasoning_effort": "none"}), Some(false), None),
            (json!({"reasoning_effort": "high"}), Some(true), Some("high")),
            (json!({"reasoning": {"effort": "low"}}), Some(true), Some("low")),
            (json!({"think": false}), Some(false), None),
            (json!({"think": "medium"}), Some(true), Some("medium")),
            (json!({"reasoning_budget": 0}), Some(false), None),
        ] {
            let read = thinking(Fields::of(request.as_object().unwrap())).unwrap();
            assert_eq!((read.wanted, read.effort.as_deref()), (wanted, effort), "{request}");
        }
        assert!(thinking(Fields::of(json!({"think": 1}).as_object().unwrap())).is_err());
    }
}
