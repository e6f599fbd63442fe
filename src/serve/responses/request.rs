//! Requests for Responses in the words of OpenAI's chats, which are then read as any other.

use serde_json::{Map, Value, json};

use super::store::Store;
use crate::serve::error::ApiError;
use crate::serve::fields::Fields;

/// `body` with all that led to it: what its `previous_response_id` stands for comes before its own input.
///
/// # Errors
///
/// A name that nothing is remembered by; nothing is, if that is off.
pub(super) fn whole(
    body: &Map<String, Value>,
    store: &Store,
) -> Result<Map<String, Value>, ApiError> {
    let Some(id) = Fields::of(body).text("previous_response_id")? else { return Ok(body.clone()) };
    if !store.is_on() {
        return Ok(body.clone());
    }
    let mut before = store.items(id).ok_or_else(|| ApiError::no_response(id))?;
    before.extend(items(body));
    let mut whole = body.clone();
    whole.remove("previous_response_id");
    whole.insert("input".to_owned(), before.into());
    Ok(whole)
}

/// The input of a request as items.
pub(super) fn items(body: &Map<String, Value>) -> Vec<Value> {
    match body.get("input") {
        Some(Value::Array(items)) => items.clone(),
        Some(Value::String(text)) => vec![json!({"role": "user", "content": text})],
        other => other.into_iter().cloned().collect(),
    }
}

/// What a chat request says for `body`.
///
/// # Errors
///
/// Fields of the wrong kind; images; what would have to be remembered here.
pub(super) fn chat(body: &Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let fields = Fields::of(body);
    if fields.any("previous_response_id").is_some() || fields.any("conversation").is_some() {
        let what = "left out: nothing is remembered here (airrun's --store does), so send the whole conversation as input";
        return Err(fields.wrong("previous_response_id", what));
    }
    let mut chat = Map::new();
    for (name, theirs) in [
        ("model", "model"),
        ("max_output_tokens", "max_completion_tokens"),
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("stream", "stream"),
        ("parallel_tool_calls", "parallel_tool_calls"),
        ("chat_template_kwargs", "chat_template_kwargs"),
        ("seed", "seed"),
        ("stop", "stop"),
    ] {
        if let Some(value) = fields.any(name) {
            chat.insert(theirs.to_owned(), value.clone());
        }
    }
    chat.insert("messages".to_owned(), messages(fields)?.into());
    tools(fields, &mut chat)?;
    if let Some(effort) = fields.object("reasoning", "reasoning.")?.and_then(|r| r.any("effort")) {
        chat.insert("reasoning_effort".to_owned(), effort.clone());
    }
    if let Some(format) = fields.object("text", "text.")?.and_then(|text| text.any("format")) {
        let ours = match format["type"].as_str() {
            Some("json_schema") => json!({"type": "json_schema", "json_schema": format}),
            _ => format.clone(),
        };
        chat.insert("response_format".to_owned(), ours);
    }
    Ok(chat)
}

fn messages(fields: Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let mut all = Vec::new();
    if let Some(text) = fields.text("instructions")?.filter(|text| !text.is_empty()) {
        all.push(json!({"role": "system", "content": text}));
    }
    match fields.any("input") {
        Some(Value::String(text)) => all.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                let wrong = |what: &str| {
                    ApiError::field(format!("input[{i}]"), format!("'input[{i}]' {what}"))
                };
                add(&mut all, item).map_err(wrong)?;
            }
        }
        _ => return Err(fields.wrong("input", "a text or a list of items")),
    }
    Ok(all)
}

/// Adds an item. What an assistant thought, said and called, one item after the other, is one message.
fn add(all: &mut Vec<Value>, item: &Value) -> Result<(), &'static str> {
    match item["type"].as_str() {
        None | Some("message") => {
            let content = content(&item["content"])?;
            match item["role"].as_str() {
                Some("assistant") => {
                    let message = said(all);
                    let before = message["content"].as_str().unwrap_or_default();
                    let text =
                        if before.is_empty() { content } else { format!("{before}\n{content}") };
                    message["content"] = text.into();
                }
                Some(role @ ("user" | "system" | "developer")) => {
                    all.push(json!({"role": role, "content": content}));
                }
                _ => return Err("must have a role: user, assistant, system or developer"),
            }
        }
        Some("function_call" | "custom_tool_call") => {
            let name = item["name"].as_str().ok_or("has no name")?;
            let arguments = match (item["arguments"].as_str(), item["input"].as_str()) {
                (Some(arguments), _) => arguments.to_owned(),
                (None, Some(input)) => json!({ "input": input }).to_string(),
                (None, None) => "{}".to_owned(),
            };
            let call = json!({
                "id": item["call_id"], "type": "function",
                "function": {"name": name, "arguments": arguments},
            });
            let message = said(all);
            match message["tool_calls"].as_array_mut() {
                Some(calls) => calls.push(call),
                None => message["tool_calls"] = json!([call]),
            }
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            let id = item["call_id"].as_str().ok_or("has no call_id")?;
            let content = content(&item["output"])?;
            all.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
        }
        Some("reasoning") => {
            let parts = ["content", "summary"].iter().filter_map(|key| item[*key].as_array());
            let texts = parts.flatten().filter_map(|part| part["text"].as_str());
            let thought = texts.collect::<Vec<_>>().join("\n");
            if !thought.is_empty() {
                all.push(json!({"role": "assistant", "content": "", "reasoning_content": thought}));
            }
        }
        Some("item_reference") => return Err("refers to an item, and nothing is remembered here"),
        // What OpenAI's own servers did.
        Some(kind) if kind.ends_with("_call") || kind.ends_with("_output") => {}
        Some(_) => return Err("is of an unknown type"),
    }
    Ok(())
}

/// The message that an assistant is in the middle of, or a new one.
fn said(all: &mut Vec<Value>) -> &mut Value {
    if all.last().is_none_or(|last| last["role"] != "assistant") {
        all.push(json!({"role": "assistant", "content": ""}));
    }
    let last = all.len() - 1;
    &mut all[last]
}

/// The text of a content.
fn content(content: &Value) -> Result<String, &'static str> {
    let text = |part: &Value| match part["type"].as_str() {
        Some("input_text" | "output_text" | "text" | "summary_text" | "reasoning_text") => {
            part["text"].as_str().map(str::to_owned).ok_or("has a part without a text")
        }
        Some("refusal") => Ok(part["refusal"].as_str().unwrap_or_default().to_owned()),
        Some("input_image" | "input_file" | "input_audio") => {
            Err("has a part that is no text, and this model reads text only")
        }
        _ => Err("has a part of an unknown type"),
    };
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            Ok(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        _ => Err("must have a content: a text, or a list of parts"),
    }
}

fn tools(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<(), ApiError> {
    let mut list = Vec::new();
    // Tools that OpenAI's servers run, and those that are no functions, are not here.
    for tool in fields.list("tools")?.unwrap_or_default() {
        if tool["type"] == "function" {
            list.push(
                function(tool)
                    .ok_or_else(|| fields.wrong("tools", "a list of tools with names"))?,
            );
        }
    }
    if list.is_empty() {
        return Ok(());
    }
    chat.insert("tools".to_owned(), list.into());
    match fields.any("tool_choice") {
        None => {}
        Some(Value::String(choice)) => {
            chat.insert("tool_choice".to_owned(), choice.as_str().into());
        }
        Some(choice) => {
            let theirs = match choice["type"].as_str() {
                Some("function") => {
                    json!({"type": "function", "function": {"name": choice["name"]}})
                }
                Some("allowed_tools") => allowed(choice, chat),
                _ => return Err(fields.wrong("tool_choice", "none, auto, required or a function")),
            };
            chat.insert("tool_choice".to_owned(), theirs);
        }
    }
    Ok(())
}

/// Leaves only the tools that are allowed; how they may be chosen.
fn allowed(choice: &Value, chat: &mut Map<String, Value>) -> Value {
    let names: Vec<&str> = choice["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|t| t["name"].as_str())
        .collect();
    if let Some(Value::Array(list)) = chat.get_mut("tools") {
        list.retain(|tool| tool["function"]["name"].as_str().is_some_and(|n| names.contains(&n)));
    }
    if choice["mode"] == "required" { json!("required") } else { json!("auto") }
}

/// A flat tool as chats have it.
fn function(tool: &Value) -> Option<Value> {
    let name = tool["name"].as_str().filter(|name| !name.is_empty())?;
    let mut function = json!({"name": name});
    for key in ["description", "parameters", "strict"] {
        if let Some(value) = tool.get(key).filter(|value| !value.is_null()) {
            function[key] = value.clone();
        }
    }
    Some(json!({"type": "function", "function": function}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Map<String, Value>, ApiError> {
        chat(body.as_object().unwrap())
    }

    #[test]
    fn conversations_are_those_of_chats() {
        let chat = read(json!({
            "model": "m", "instructions": "Be brief.", "max_output_tokens": 9, "reasoning": {"effort": "low"},
            "input": [
                {"role": "developer", "content": [{"type": "input_text", "text": "Ahoy."}]},
                {"type": "message", "role": "user", "content": "Weather?"},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "Rain"},
                {"type": "web_search_call", "id": "ws"},
            ],
            "tools": [
                {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": false},
                {"type": "web_search"}, {"type": "custom", "name": "patch"},
            ],
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        }))
        .unwrap();
        let messages = chat["messages"].as_array().unwrap();
        assert_eq!(messages[0], json!({"role": "system", "content": "Be brief."}));
        assert_eq!(messages[3]["reasoning_content"], "Hm.");
        assert_eq!(messages[3]["content"], "I look.");
        assert_eq!(messages[3]["tool_calls"].as_array().unwrap().len(), 2);
        assert_eq!(messages[4]["role"], "tool");
        assert_eq!(messages.len(), 5);
        assert_eq!(chat["tools"].as_array().unwrap().len(), 1);
        assert_eq!(chat["reasoning_effort"], "low");
        assert_eq!(chat["response_format"]["json_schema"]["schema"]["type"], "object");
        assert_eq!(read(json!({"input": "Hi"})).unwrap()["messages"][0]["content"], "Hi");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            json!({}),
            json!({"input": 1}),
            json!({"input": [1]}),
            json!({"input": [{"role": "wizard", "content": "x"}]}),
            json!({"input": [{"type": "function_call"}]}),
            json!({"input": [{"type": "function_call_output", "output": "x"}]}),
            json!({"input": [{"type": "item_reference", "id": "x"}]}),
            json!({"input": [{"type": "wonder"}]}),
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            json!({"input": "x", "previous_response_id": "resp_1"}),
            json!({"input": "x", "tools": [{"type": "function"}]}),
            json!({"input": "x", "tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "x"}}),
            json!({"input": "x", "instructions": 1}),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert!(error.status == 400 && error.param.is_some(), "{wrong}");
        }
    }
}
