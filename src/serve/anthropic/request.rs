//! Anthropic's requests in the words of OpenAI's chats, which are then read as any other.

use serde_json::{Map, Value, json};

use crate::serve::error::ApiError;
use crate::serve::fields::Fields;

/// A line that Claude Code puts before its instructions, different in each request: with it, no prompt would begin like another.
const BILLING: &str = "x-anthropic-billing-header:";

/// What a chat request says for `body`.
///
/// # Errors
///
/// Fields of the wrong kind; images, which no model here sees.
pub(super) fn chat(body: &Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let fields = Fields::of(body);
    let mut chat = Map::new();
    for (name, theirs) in [
        ("model", "model"),
        ("max_tokens", "max_tokens"),
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
        ("stop_sequences", "stop"),
        ("stream", "stream"),
    ] {
        if let Some(value) = fields.any(name) {
            chat.insert(theirs.to_owned(), value.clone());
        }
    }
    let messages = messages(fields)?;
    // An answer that was begun goes on.
    let begun = |last: &Value| last["role"] == "assistant" && last.get("tool_calls").is_none();
    if messages.last().is_some_and(begun) {
        chat.insert("continue_final_message".to_owned(), true.into());
    }
    chat.insert("messages".to_owned(), messages.into());
    tools(fields, &mut chat)?;
    thinking(fields, &mut chat)?;
    format(fields, &mut chat)?;
    Ok(chat)
}

/// Whether thoughts are to be told.
pub(super) fn thinks(body: &Map<String, Value>) -> bool {
    matches!(body.get("thinking").and_then(|t| t["type"].as_str()), Some("enabled" | "adaptive"))
}

fn messages(fields: Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let mut all = Vec::new();
    let system = match fields.any("system") {
        None => String::new(),
        Some(Value::String(text)) => without_billing(text),
        Some(Value::Array(blocks)) => {
            let text = |block: &Value| block["text"].as_str().map(without_billing);
            let texts: Option<Vec<String>> = blocks.iter().map(text).collect();
            let mut texts =
                texts.ok_or_else(|| fields.wrong("system", "a text, or a list of texts"))?;
            texts.retain(|text| !text.is_empty());
            texts.join("\n")
        }
        Some(_) => return Err(fields.wrong("system", "a text, or a list of texts")),
    };
    if !system.is_empty() {
        all.push(json!({"role": "system", "content": system}));
    }
    let list = fields.list("messages")?.ok_or_else(|| fields.wrong("messages", "there"))?;
    for (i, message) in list.iter().enumerate() {
        let param = format!("messages.{i}");
        let wrong = |what: &str| ApiError::field(param.clone(), format!("{param}: {what}"));
        let role = message["role"].as_str().ok_or_else(|| wrong("there is no role"))?;
        match (&message["content"], role) {
            (Value::String(text), "user" | "assistant" | "system") => {
                all.push(json!({"role": role, "content": text}));
            }
            (Value::Array(blocks), "user" | "system") => {
                all.extend(user(blocks, role).map_err(wrong)?)
            }
            (Value::Array(blocks), "assistant") => all.push(assistant(blocks).map_err(wrong)?),
            (Value::String(_) | Value::Array(_), _) => {
                return Err(wrong("the role must be user or assistant"));
            }
            _ => return Err(wrong("the content must be a text or a list of blocks")),
        }
    }
    Ok(all)
}

/// A text without the line that tells who pays.
fn without_billing(text: &str) -> String {
    match text.strip_prefix(BILLING) {
        None => text.to_owned(),
        Some(rest) => rest.split_once('\n').map_or("", |(_, rest)| rest).trim_start().to_owned(),
    }
}

/// What a user says: results of tools first, each a message of its own, then the rest.
fn user(blocks: &[Value], role: &str) -> Result<Vec<Value>, &'static str> {
    let (mut results, mut texts) = (Vec::new(), Vec::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => texts.push(block["text"].as_str().ok_or("a block has no text")?),
            Some("tool_result") => {
                let id = block["tool_use_id"].as_str().ok_or("a result has no tool_use_id")?;
                let content = result(&block["content"])?;
                results.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
            Some("image" | "document") => {
                return Err("it has an image or a document, and this model reads text only");
            }
            Some("tool_reference" | "search_result") => {}
            _ => return Err("it has a block of an unknown type"),
        }
    }
    if !texts.is_empty() || results.is_empty() {
        results.push(json!({"role": role, "content": texts.join("\n")}));
    }
    Ok(results)
}

/// What a tool said.
fn result(content: &Value) -> Result<String, &'static str> {
    let text = |block: &Value| match block["type"].as_str() {
        Some("text") => block["text"].as_str().map(str::to_owned).ok_or("a block has no text"),
        // The conversation goes on: this is no request of the user's.
        Some("image") => Ok("(an image, which this model cannot see)".to_owned()),
        _ => Ok(block.to_string()),
    };
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            Ok(blocks.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        _ => Err("a result must be a text or a list of blocks"),
    }
}

fn assistant(blocks: &[Value]) -> Result<Value, &'static str> {
    let (mut texts, mut thoughts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => texts.push(block["text"].as_str().ok_or("a block has no text")?),
            Some("thinking") => thoughts.extend(block["thinking"].as_str()),
            Some("tool_use") => {
                let name = block["name"].as_str().ok_or("a tool_use has no name")?;
                let function = json!({"name": name, "arguments": block["input"].to_string()});
                calls.push(json!({"id": block["id"], "type": "function", "function": function}));
            }
            // What Anthropic's own servers did, and thoughts that only they can read.
            _ => {}
        }
    }
    let mut message = json!({"role": "assistant", "content": texts.join("\n")});
    if !thoughts.is_empty() {
        message["reasoning_content"] = thoughts.join("\n").into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Ok(message)
}

fn tools(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<(), ApiError> {
    let mut list = Vec::new();
    for tool in fields.list("tools")?.unwrap_or_default() {
        // Tools that Anthropic's servers run have no schema, and are not here.
        let Some(schema) = tool.get("input_schema") else { continue };
        let name = tool["name"]
            .as_str()
            .ok_or_else(|| fields.wrong("tools", "a list of tools with names"))?;
        let description = tool["description"].as_str().unwrap_or_default();
        list.push(json!({"type": "function", "function": {
            "name": name, "description": description, "parameters": schema,
        }}));
    }
    if list.is_empty() {
        return Ok(());
    }
    chat.insert("tools".to_owned(), list.into());
    let Some(choice) = fields.any("tool_choice") else { return Ok(()) };
    let theirs = match choice["type"].as_str() {
        Some("auto") => json!("auto"),
        Some("any") => json!("required"),
        Some("none") => json!("none"),
        Some("tool") => json!({"type": "function", "function": {"name": choice["name"]}}),
        _ => return Err(fields.wrong("tool_choice", "of the type auto, any, tool or none")),
    };
    chat.insert("tool_choice".to_owned(), theirs);
    if choice["disable_parallel_tool_use"] == true {
        chat.insert("parallel_tool_calls".to_owned(), false.into());
    }
    Ok(())
}

/// Without the word, nothing is thought: clients take the first block for the answer.
fn thinking(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<(), ApiError> {
    let wrong = || fields.wrong("thinking", "of the type enabled, adaptive or disabled");
    let on = match fields.any("thinking").map(|thinking| thinking["type"].as_str()) {
        None | Some(Some("disabled")) => false,
        Some(Some("enabled" | "adaptive")) => true,
        Some(_) => return Err(wrong()),
    };
    chat.insert("chat_template_kwargs".to_owned(), json!({ "enable_thinking": on }));
    let budget = fields.any("thinking").map(|thinking| &thinking["budget_tokens"]);
    if let Some(budget) = budget.filter(|budget| on && budget.is_u64()) {
        chat.insert("reasoning_budget".to_owned(), budget.clone());
    }
    Ok(())
}

/// `output_config.format`, or `output_format`: a schema that the answer fits.
fn format(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<(), ApiError> {
    let config = fields.any("output_config").and_then(|config| config.get("format"));
    let Some(format) = config.or(fields.any("output_format")).filter(|f| !f.is_null()) else {
        return Ok(());
    };
    if format["type"] != "json_schema" || !format["schema"].is_object() {
        return Err(fields.wrong("output_format", "of the type json_schema, with a schema"));
    }
    let schema = json!({"name": "answer", "schema": format["schema"]});
    chat.insert(
        "response_format".to_owned(),
        json!({"type": "json_schema", "json_schema": schema}),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Map<String, Value>, ApiError> {
        chat(body.as_object().unwrap())
    }

    #[test]
    fn conversations_are_those_of_chats() {
        let body = json!({
            "model": "m", "max_tokens": 9, "stop_sequences": ["x"],
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=ab12"},
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            ],
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": ""},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Rain"}]},
                    {"type": "text", "text": "And?"},
                ]},
            ],
            "tools": [
                {"name": "weather", "input_schema": {"type": "object"}},
                {"type": "web_search_20250305", "name": "web_search"},
            ],
            "tool_choice": {"type": "any"},
        });
        let chat = read(body).unwrap();
        assert_eq!(chat["stop"], json!(["x"]));
        assert_eq!(chat["tool_choice"], "required");
        assert_eq!(chat["tools"].as_array().unwrap().len(), 1);
        let messages = chat["messages"].as_array().unwrap();
        assert_eq!(messages[0], json!({"role": "system", "content": "Be brief."}));
        assert_eq!(messages[2]["reasoning_content"], "Hm.");
        assert_eq!(messages[2]["tool_calls"][0]["function"]["arguments"], r#"{"city":"Oslo"}"#);
        assert_eq!(messages[3], json!({"role": "tool", "tool_call_id": "t1", "content": "Rain"}));
        assert_eq!(messages[4], json!({"role": "user", "content": "And?"}));
    }

    #[test]
    fn the_line_that_tells_who_pays_costs_no_prefix() {
        let of = |tag: &str| {
            let system = format!("x-anthropic-billing-header: cch={tag}\nBe brief.");
            read(json!({"system": system, "messages": [{"role": "user", "content": "Hi"}]}))
                .unwrap()
        };
        assert_eq!(of("a"), of("b"));
        assert_eq!(of("a")["messages"][0]["content"], "Be brief.");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        for wrong in [
            json!({}),
            json!({"messages": "x"}),
            json!({"messages": [1]}),
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            user(json!(1)),
            user(json!([{"type": "image", "source": {}}])),
            user(json!([{"type": "text"}])),
            user(json!([1])),
            json!({"system": 1, "messages": []}),
            json!({"messages": [], "tools": [{"input_schema": {}}]}),
            json!({"messages": [], "thinking": {"type": "deep"}}),
            json!({"messages": [], "output_format": {"type": "xml"}}),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert_eq!(error.status, 400, "{wrong}");
        }
    }
}
