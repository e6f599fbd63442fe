//! What is asked of a model, made into tokens; and texts to be continued as they are.

use serde_json::Value;
use tokio::task::block_in_place;

use super::error::{ApiError, Protocol};
use super::fields::Fields;
use super::server::{Served, Server};
use crate::engine::batch::{Course, ThoughtLimit};
use crate::engine::{Grammar, Token};
use crate::talk::Vocab;
use crate::talk::ask::{Ask, Prompt};
use crate::talk::first::raw_tokens;

/// The prompt of a conversation, with the opening of the answer, and its tokens.
pub(super) fn open(
    server: &Server,
    served: &Served,
    mut ask: Ask,
    protocol: Protocol,
) -> Result<(Prompt, Vec<Token>, Course), ApiError> {
    let (template, vocab) = served.writer()?;
    server.config.preset.begin(&mut ask.messages);
    let name = &served.name;
    if protocol == Protocol::Ollama {
        if ask.tools.is_some() && !template.takes_tools() {
            return Err(ApiError::bad(format!("\"{name}\" does not support tools")));
        }
        if ask.thinking.wanted == Some(true) && !served.thinks() {
            return Err(ApiError::bad(format!("\"{name}\" does not support thinking")));
        }
    }
    ask.thinking = server.config.preset.thinking(ask.thinking);
    served.check_length(ask.messages.iter().map(length).sum())?;
    // Long texts take their time, and other clients' should not.
    block_in_place(|| {
        let prompt = template.prompt(&ask, &served.marks);
        let mut prompt =
            prompt.map_err(|e| ApiError::field("messages", format!("the chat template: {e}")))?;
        prompt.warnings.splice(0..0, ask.warnings);
        let wrong = |error: crate::talk::Error| ApiError::engine(&error.into());
        let (tokens, begins) = prompt.tokens(&served.marks, vocab).map_err(wrong)?;
        let thought = match ask.thinking.budget.filter(|&most| most > 0) {
            Some(most) => thought_limit(&prompt, most, vocab).map_err(wrong)?,
            None => None,
        };
        Ok((prompt, tokens, Course { begins, thought }))
    })
}

/// Bytes of a message's text, or of its parts' texts.
fn length(message: &Value) -> usize {
    match &message["content"] {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(|p| p["text"].as_str().map_or(0, str::len)).sum(),
        _ => 0,
    }
}

/// What keeps the thought of an answer to `prompt` within `most` tokens; nothing for a model that does not think.
fn thought_limit(
    prompt: &Prompt,
    most: usize,
    vocab: &Vocab,
) -> Result<Option<ThoughtLimit>, crate::talk::Error> {
    let Some((open, close, then)) = prompt.thought_marks() else { return Ok(None) };
    Ok(Some(ThoughtLimit {
        most,
        end: vocab.tokenize(&then, false, true)?,
        begun: prompt.thought_end().is_some(),
        open,
        close,
    }))
}

/// The grammar of an answer to `prompt`, of which `format` may have been asked; what it cannot hold the answer to becomes a warning.
pub(super) fn grammar(
    prompt: &mut Prompt,
    format: Option<Grammar>,
) -> Result<Option<Grammar>, ApiError> {
    let (format, loose) = match format {
        Some(Grammar { rules, root, loose }) => (Some((rules, root)), loose),
        None => (None, Vec::new()),
    };
    let held = block_in_place(|| prompt.grammar(format));
    let Some(held) = held.map_err(|error| ApiError::field("tools", error))? else {
        return Ok(None);
    };
    let loose = held.loose.unwrap_or(loose);
    prompt.warnings.extend(loose.iter().cloned());
    Ok(Some(Grammar { rules: held.rules, root: held.root, loose }))
}

/// The tokens of a text as it is.
pub(super) fn text_tokens(served: &Served, text: &str) -> Result<Vec<Token>, ApiError> {
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    served.check_length(text.len())?;
    block_in_place(|| raw_tokens(text, vocab)).map_err(|error| ApiError::engine(&error.into()))
}

/// The tokens that ask for what is missing between `before` and `after`.
pub(super) fn between(
    served: &Served,
    fields: Fields<'_>,
    before: &str,
    after: &str,
) -> Result<Vec<Token>, ApiError> {
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    served.check_length(before.len() + after.len())?;
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
    read_inputs(fields, name, most, served, &|text| text_tokens(served, text))
}

/// As [`inputs`]; of texts that are longer than the context, the beginning.
pub(super) fn beginnings(
    served: &Served,
    fields: Fields<'_>,
    name: &str,
    most: usize,
) -> Result<Vec<Vec<Token>>, ApiError> {
    let read = |text: &str| text_tokens(served, &text[..text.floor_char_boundary(served.longest)]);
    let mut inputs = read_inputs(fields, name, most, served, &read)?;
    inputs.iter_mut().for_each(|text| text.truncate(served.n_ctx as usize));
    Ok(inputs)
}

fn read_inputs(
    fields: Fields<'_>,
    name: &str,
    most: usize,
    served: &Served,
    read: &dyn Fn(&str) -> Result<Vec<Token>, ApiError>,
) -> Result<Vec<Vec<Token>>, ApiError> {
    let wrong = || fields.wrong(name, "a text, tokens, or a list of these that is not too long");
    let n_vocab = served.engine.n_vocab();
    let token = |v: &Value| {
        let token = v.as_i64().and_then(|t| Token::try_from(t).ok());
        token.filter(|&t| usize::try_from(t).is_ok_and(|t| t < n_vocab)).ok_or_else(wrong)
    };
    let tokens = |items: &[Value]| items.iter().map(token).collect::<Result<Vec<_>, _>>();
    let one = |v: &Value| match v {
        Value::String(text) => read(text),
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
