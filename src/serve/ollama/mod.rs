//! Ollama's protocol: chat, generate, and what its clients ask about models. Answers are lines of JSON.

mod fit;
mod pull;
mod reply;
mod shelf;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::answers::{self, warned};
use super::ask;
use super::asked::Asked;
use super::error::{ApiError, Protocol};
use super::fields::Fields;
use super::order::{self, MAX_LOGPROBS, Order};
use super::preset::Preset;
use super::prompt;
use super::server::{Admitted, Served, Server};
use super::settings;
use crate::engine::Grammar;
use crate::engine::batch::Course;
use crate::engine::{SamplerSettings, Token};
use crate::talk::ask::{Ask, Prompt};
use crate::talk::first::prompt_tokens;
pub use pull::{Download, Puller};
pub(super) use pull::{not_here, pull, pulled};
use reply::{Kind, Reply};
pub(super) use shelf::{described, ps, show, shown, tags, version};

/// `/api/chat`.
pub(super) async fn chat(asked: Asked) -> Result<Response, ApiError> {
    let Asked { server, body } = asked;
    let served = server.model()?;
    let fields = Fields::of(&body);
    server.named(served, fields.text("model")?)?;
    if fields.list("messages")?.is_none_or(<[Value]>::is_empty) {
        return Ok(
            Json(Reply::new(Kind::Chat, served.name.clone(), None).loaded(&body)).into_response()
        );
    }
    let admitted = server.admit().await?;
    let (order, stream) = read(&body, &server.config.preset)?;
    let (mut prompt, tokens, course) = fit::open(&server, served, fields)?;
    let (template, _) = served.writer()?;
    let mut order = Order { prompts: vec![tokens], shown: served.shown.clone(), course, ..order };
    order.stops.extend(template.stop().map(str::to_owned));
    order.grammar = prompt::grammar(&mut prompt, order.grammar)?;
    let reply = Reply::new(Kind::Chat, served.name.clone(), Some(prompt.reader(false)));
    drop(body);
    let answer = answer(&server, served, admitted, order, reply, stream).await?;
    Ok(warned(answer, &prompt.warnings))
}

/// `/api/generate`.
pub(super) async fn generate(asked: Asked) -> Result<Response, ApiError> {
    let Asked { server, body } = asked;
    let served = server.model()?;
    let fields = Fields::of(&body);
    server.named(served, fields.text("model")?)?;
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let plain = Reply::new(Kind::Generate, served.name.clone(), None);
    if prompt.is_empty() {
        return Ok(Json(plain.loaded(&body)).into_response());
    }
    let admitted = server.admit().await?;
    let (order, stream) = read(&body, &server.config.preset)?;
    let (tokens, asked, course) = generate_tokens(&server, served, fields, prompt)?;
    let mut order = Order { prompts: vec![tokens], ..order };
    let Some(mut asked) = asked else {
        let loose = order.loose();
        let answer = answer(&server, served, admitted, order, plain, stream).await?;
        return Ok(warned(answer, &loose));
    };
    order.shown = served.shown.clone();
    order.course = course;
    order.grammar = prompt::grammar(&mut asked, order.grammar)?;
    let reply = Reply::new(Kind::Generate, served.name.clone(), Some(asked.reader(false)));
    drop(body);
    let answer = answer(&server, served, admitted, order, reply, stream).await?;
    Ok(warned(answer, &asked.warnings))
}

/// The prompt of `/api/generate`: one question with the template, or the text itself where that is wanted.
fn generate_tokens(
    server: &Server,
    served: &Served,
    fields: Fields<'_>,
    prompt: &str,
) -> Result<(Vec<Token>, Option<Prompt>, Course), ApiError> {
    if fields.list("images")?.is_some_and(|images| !images.is_empty()) {
        return Err(fields.wrong("images", "left out: this model reads text only"));
    }
    let (_, vocab) = served.writer()?;
    if let Some(suffix) = fields.text("suffix")?.filter(|suffix| !suffix.is_empty()) {
        return Ok((prompt::between(served, fields, prompt, suffix)?, None, Course::default()));
    }
    let system = fields.text("system")?.filter(|text| !text.is_empty());
    let before = context(served, fields)?;
    let raw = fields.flag("raw")?.unwrap_or(false);
    if raw && system.is_some() {
        return Err(fields.wrong("system", "left out with 'raw', which knows no roles"));
    }
    let (tokens, asked, course) = if raw {
        (prompt::text_tokens(served, prompt)?, None, Course::default())
    } else {
        let system = system.map(|text| json!({"role": "system", "content": text}));
        let user = json!({"role": "user", "content": prompt});
        let thinking = ask::thinking(fields)?;
        let messages = system.into_iter().chain([user]).collect();
        let ask = Ask { messages, thinking, ..Ask::default() };
        let (asked, tokens, course) = prompt::open(server, served, ask, Protocol::Ollama)?;
        (tokens, Some(asked), course)
    };
    if before.is_empty() {
        return Ok((tokens, asked, course));
    }
    // What was said before has its first token already.
    let bos = prompt_tokens("", vocab).map_err(|error| ApiError::engine(&error.into()))?;
    let rest = tokens.strip_prefix(bos.as_slice()).unwrap_or(&tokens);
    Ok(([before.as_slice(), rest].concat(), asked, course))
}

/// `context`: the tokens of an earlier answer.
fn context(served: &Served, fields: Fields<'_>) -> Result<Vec<Token>, ApiError> {
    if fields.list("context")?.is_none_or(<[Value]>::is_empty) {
        return Ok(Vec::new());
    }
    let mut contexts = prompt::inputs(served, fields, "context", 1)?;
    Ok(contexts.pop().unwrap_or_default())
}

/// What a request asks for, but for its prompt; whether it wants lines as they come. Knows no model.
pub(super) fn read(body: &Map<String, Value>, preset: &Preset) -> Result<(Order, bool), ApiError> {
    let fields = Fields::of(body);
    let stream = fields.flag("stream")?.unwrap_or(true);
    let empty = Map::new();
    let options = fields.object("options", "options.")?.unwrap_or(Fields::of(&empty));
    // Negative numbers mean no limit.
    let max = options.whole("num_predict", -2, i64::from(u32::MAX))?;
    // Ollama's defaults, where they differ.
    let default = SamplerSettings {
        repeat_penalty: 1.1,
        top_p: 0.9,
        min_p: 0.0,
        ..SamplerSettings::default()
    };
    let order = Order {
        prompts: Vec::new(),
        settings: settings::settings(options, &preset.over(default))?,
        max_tokens: match max {
            Some(max) => usize::try_from(max).ok(),
            None => preset.max_tokens.map(|max| max as usize),
        },
        stops: order::stops(options, preset)?,
        logprobs: logprobs(fields)?,
        grammar: format(fields)?,
        shown: Arc::default(),
        progress: false,
        course: Course::default(),
        n: 1,
    };
    Ok((order, stream))
}

/// `logprobs`, and `top_logprobs` beside it.
fn logprobs(fields: Fields<'_>) -> Result<Option<usize>, ApiError> {
    let top = fields.whole("top_logprobs", 0, MAX_LOGPROBS)?.unwrap_or(0);
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    Ok(wanted.then(|| usize::try_from(top).unwrap_or(0)))
}

/// `format`: `json`, or a schema.
fn format(fields: Fields<'_>) -> Result<Option<Grammar>, ApiError> {
    match fields.any("format") {
        None => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(Value::String(name)) if name == "json" => {
            order::schema_grammar("format", &json!({"type": "object"}), true).map(Some)
        }
        Some(schema @ Value::Object(_)) => order::schema_grammar("format", schema, true).map(Some),
        Some(_) => Err(fields.wrong("format", "'json' or a JSON schema")),
    }
}

async fn answer(
    server: &Arc<Server>,
    served: &Served,
    admitted: Admitted,
    order: Order,
    mut reply: Reply,
    stream: bool,
) -> Result<Response, ApiError> {
    let mut answers = order.submit(server, served, admitted)?;
    if stream {
        let head = [(header::CONTENT_TYPE, "application/x-ndjson")];
        let sign = reply.sign_of_life();
        let body = answers::kept_alive(reply.lines(answers), sign, server.config.ping);
        return Ok((head, Body::from_stream(body)).into_response());
    }
    while let Some(message) = answers.next().await {
        reply.take(message)?;
    }
    Ok(Json(reply.whole()?).into_response())
}
