//! One line of a batch: a text in short (`prompt` or `messages` beside its settings) or as OpenAI's batches have it (`custom_id`,
//! `method`, `url`, `body`). What is wrong with one is said about that line, and harms no other.

use serde_json::{Map, Value, json};

use crate::engine::{Grammar, SamplerSettings, Token};
use crate::talk::first::prompt_tokens;
use crate::talk::template::ChatTemplate;
use crate::talk::{StopWords, Vocab};

/// What lines are read with.
pub(super) struct Reader<'a> {
    pub(super) template: &'a ChatTemplate,
    pub(super) vocab: &'a Vocab,
    pub(super) settings: &'a SamplerSettings,
    pub(super) max_tokens: Option<usize>,
    pub(super) system: Option<&'a str>,
    pub(super) stops: &'a [String],
    /// Whether a short `prompt` is continued as it is.
    pub(super) raw: bool,
}

/// Whose line it is, and how it is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Name {
    /// Its number in the file, from 1.
    pub(super) line: u64,
    /// What the user calls it.
    pub(super) custom_id: Option<String>,
    /// Whether it came as OpenAI's batches have it.
    pub(super) openai: bool,
    /// Whether it is a conversation.
    pub(super) chat: bool,
}

/// A text to be written.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) prompt: Vec<Token>,
    pub(super) settings: SamplerSettings,
    pub(super) max_tokens: Option<usize>,
    pub(super) stops: StopWords,
    pub(super) grammar: Option<Grammar>,
}

/// The name of line `line`, as far as it can be read, and its content or what is wrong with it.
pub(super) fn read(line: u64, text: &str, reader: &Reader<'_>) -> (Name, Result<Text, String>) {
    let mut name = Name { line, ..Name::default() };
    // A mark of byte order is no part of the first line.
    let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return (name, Err(format!("not JSON: {error}"))),
    };
    let Some(map) = value.as_object() else {
        return (name, Err("not a JSON object".to_owned()));
    };
    name.custom_id = match map.get("custom_id") {
        Some(Value::String(id)) => Some(id.clone()),
        _ => None,
    };
    name.openai = map.contains_key("body") || map.contains_key("url");
    let content = content(map, &mut name, reader);
    (name, content)
}

fn content(map: &Map<String, Value>, name: &mut Name, reader: &Reader<'_>) -> Result<Text, String> {
    if !name.openai {
        name.chat = map.contains_key("messages");
        return text(map, reader, reader.raw);
    }
    if name.custom_id.is_none() {
        return Err("'custom_id' must be a text".to_owned());
    }
    if map.get("method").is_some_and(|method| method != "POST") {
        return Err("'method' must be POST".to_owned());
    }
    let body = map.get("body").and_then(Value::as_object).ok_or("'body' must be an object")?;
    let wanted = match map.get("url").and_then(Value::as_str) {
        Some("/v1/chat/completions") => "messages",
        Some("/v1/completions") => "prompt",
        _ => return Err("'url' must be /v1/chat/completions or /v1/completions".to_owned()),
    };
    name.chat = wanted == "messages";
    let other = if name.chat { "prompt" } else { "messages" };
    if !body.contains_key(wanted) || body.contains_key(other) {
        return Err(format!("'body' must have '{wanted}', and not '{other}'"));
    }
    text(body, reader, true)
}

/// A text from its fields.
fn text(map: &Map<String, Value>, reader: &Reader<'_>, raw: bool) -> Result<Text, String> {
    for field in ["tools", "functions", "logprobs", "logit_bias", "best_of", "suffix"] {
        let is_off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if map.get(field).is_some_and(|value| !is_off(value)) {
            return Err(format!("'{field}' is not known to batches"));
        }
    }
    if map.get("n").is_some_and(|n| !n.is_null() && n != 1) {
        return Err("'n' must be 1".to_owned());
    }
    let prompt = match (map.get("prompt"), map.get("messages")) {
        (Some(Value::String(prompt)), None) if raw => {
            reader.vocab.tokenize(prompt, true, true).map_err(|error| error.to_string())?
        }
        (Some(Value::String(prompt)), None) => {
            chat(&[json!({"role": "user", "content": prompt})], reader)?
        }
        (None, Some(Value::Array(messages))) if !messages.is_empty() => chat(messages, reader)?,
        (Some(_), Some(_)) => return Err("has both 'prompt' and 'messages'".to_owned()),
        (Some(_), None) => return Err("'prompt' must be a text".to_owned()),
        (None, Some(_)) => return Err("'messages' must be a list of messages".to_owned()),
        (None, None) => return Err("has neither 'prompt' nor 'messages'".to_owned()),
    };
    let limit = ["max_completion_tokens", "max_tokens"].into_iter().find_map(|field| {
        map.get(field).filter(|value| !value.is_null()).map(|value| (field, value))
    });
    let max_tokens = match limit {
        None => reader.max_tokens,
        Some((field, value)) => {
            let n = value.as_u64().filter(|&n| n >= 1).and_then(|n| usize::try_from(n).ok());
            Some(n.ok_or_else(|| format!("'{field}' must be a whole number from 1"))?)
        }
    };
    let words = stops(map)?.into_iter().chain(reader.stops.iter().cloned());
    let words = words.chain(reader.template.stop().filter(|_| !raw).map(str::to_owned));
    Ok(Text {
        prompt,
        settings: settings(map, reader.settings)?,
        max_tokens,
        stops: StopWords::new(words),
        grammar: grammar(map)?,
    })
}

/// The tokens of a conversation, with the opening of the answer.
fn chat(messages: &[Value], reader: &Reader<'_>) -> Result<Vec<Token>, String> {
    let mut all = Vec::with_capacity(messages.len() + 1);
    for (i, message) in messages.iter().enumerate() {
        let role = match message["role"].as_str() {
            Some("developer" | "system") => "system",
            Some(role @ ("user" | "assistant")) => role,
            _ => return Err(format!("'messages[{i}]' must have a role: system, user, assistant")),
        };
        let content = match &message["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts: Option<String> =
                    parts.iter().map(|part| part["text"].as_str()).collect();
                texts.ok_or_else(|| format!("'messages[{i}]' has a part that is no text"))?
            }
            _ => return Err(format!("'messages[{i}]' must have a text as content")),
        };
        all.push(json!({"role": role, "content": content}));
    }
    if let Some(system) = reader.system.filter(|_| all[0]["role"] != "system") {
        all.insert(0, json!({"role": "system", "content": system}));
    }
    let text = reader.template.render_json(&all, None);
    let text = text.map_err(|error| format!("the chat template: {error}"))?;
    prompt_tokens(&text, reader.vocab).map_err(|error| error.to_string())
}

fn stops(map: &Map<String, Value>) -> Result<Vec<String>, String> {
    let wrong = || "'stop' must be a text or a list of texts".to_owned();
    match map.get("stop") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(word)) if !word.is_empty() => Ok(vec![word.clone()]),
        Some(Value::Array(words)) => {
            let word = |word: &Value| word.as_str().filter(|w| !w.is_empty()).map(str::to_owned);
            words.iter().map(word).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

fn settings(
    map: &Map<String, Value>,
    default: &SamplerSettings,
) -> Result<SamplerSettings, String> {
    let number = |field: &str, range: std::ops::RangeInclusive<f64>, or: f32| {
        let Some(value) = map.get(field).filter(|value| !value.is_null()) else { return Ok(or) };
        let number = value.as_f64().filter(|x| range.contains(x));
        #[expect(clippy::cast_possible_truncation, reason = "settings need few digits")]
        number.map(|x| x as f32).ok_or_else(|| {
            format!("'{field}' must be a number from {} to {}", range.start(), range.end())
        })
    };
    let whole = |field: &str, most: i64| match map.get(field).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => match value.as_i64().filter(|n| (0..=most).contains(n)) {
            Some(n) => Ok(Some(n)),
            None => Err(format!("'{field}' must be a whole number from 0 to {most}")),
        },
    };
    let top_k = whole("top_k", i32::MAX.into())?.and_then(|n| i32::try_from(n).ok());
    let seed = whole("seed", i64::MAX)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any bits will do")]
    let seed = seed.map(|n| (n ^ (n >> 32)) as u32);
    Ok(SamplerSettings {
        temp: number("temperature", 0.0..=100.0, default.temp)?,
        top_p: number("top_p", 0.0001..=1.0, default.top_p)?,
        min_p: number("min_p", 0.0..=1.0, default.min_p)?,
        repeat_penalty: number("repeat_penalty", 0.01..=100.0, default.repeat_penalty)?,
        frequency_penalty: number("frequency_penalty", -2.0..=2.0, default.frequency_penalty)?,
        presence_penalty: number("presence_penalty", -2.0..=2.0, default.presence_penalty)?,
        top_k: top_k.unwrap_or(default.top_k),
        seed: seed.or(default.seed),
        ..default.clone()
    })
}

/// What `response_format` wants.
fn grammar(map: &Map<String, Value>) -> Result<Option<Grammar>, String> {
    let Some(format) = map.get("response_format").filter(|f| !f.is_null()) else { return Ok(None) };
    let schema = match format["type"].as_str() {
        Some("text") => return Ok(None),
        Some("json_object") => json!({"type": "object"}),
        Some("json_schema") => format["json_schema"]["schema"].clone(),
        _ => return Err("'response_format' must be text, json_object or json_schema".to_owned()),
    };
    let strict = format["json_schema"]["strict"] == true;
    let made = Grammar::of_schema(&schema, strict);
    made.map(Some).map_err(|error| format!("'response_format': {error}"))
}
