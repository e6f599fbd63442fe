//! OpenAI's protocol: models, chat completions, completions. Requests become [`Order`]s, answers become JSON or server-sent events.

mod reply;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::answers;
use super::error::ApiError;
use super::fields::{self, Fields};
use super::fit;
use super::order::{self, MAX_LOGPROBS, MAX_TEXTS, Order};
use super::preset::Preset;
use super::prompt;
use super::server::{Admitted, Served, Server};
use super::tools::{Scanner, Tools};
use crate::engine::{Grammar, SamplerSettings};
use reply::{Choice, Kind, Reply};

/// The most texts that one request may ask for, over all its prompts.
const MAX_CHOICES: usize = 64;

/// How to answer a request that is on its way.
#[derive(Debug)]
pub(super) struct Manner {
    stream: bool,
    include_usage: bool,
    /// Whether the prompt stands before the answer.
    echo: bool,
    tools: Option<Tools>,
}

/// `/v1/models`.
pub(super) async fn models(State(server): State<Arc<Server>>) -> Result<Json<Value>, ApiError> {
    let model = describe(&server, server.model()?);
    Ok(Json(json!({"object": "list", "data": [model]})))
}

/// `/v1/models/NAME`.
pub(super) async fn model(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let served = server.model()?;
    server.named(served, Some(&name))?;
    Ok(Json(describe(&server, served)))
}

fn describe(server: &Server, served: &Served) -> Value {
    json!({"id": served.name, "object": "model", "created": server.started, "owned_by": "airrun"})
}

/// `/v1/chat/completions`.
pub(super) async fn chat(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = server.model()?;
    let body = fields::read(&server, request).await?;
    server.named(served, Fields::of(&body).text("model")?)?;
    let admitted = server.admit().await?;
    let (order, manner) = read_chat(&body, &server.config.preset)?;
    let tools = manner.tools.as_ref();
    let messages = prompt::messages(Fields::of(&body))?;
    let (tokens, dropped) = match fit::wanted(Fields::of(&body))? {
        true => fit::fit(&server, served, &messages, tools, order.max_tokens)?,
        false => (prompt::chat_tokens(&server, served, messages, tools)?, 0),
    };
    let form = served.tools;
    let mut order = Order { prompts: vec![tokens], control: tools.is_some(), ..order };
    let (template, _) = served.writer()?;
    order.stops.extend(template.stop().map(str::to_owned));
    if let (Some(form), Some(tools)) = (form, tools.filter(|t| t.required)) {
        order.grammar = Some(form.grammar(&tools.list)?);
    }
    let scanner = || Some(Scanner::new(form?, manner.tools.clone()?));
    let choices = (0..order.n).map(|_| Choice::scanned(scanner())).collect();
    let mut answer =
        answer(&server, served, admitted, order, (Kind::Chat, choices), &manner).await?;
    if dropped > 0 {
        answer.headers_mut().insert(fit::DROPPED, dropped.into());
    }
    Ok(answer)
}

/// What a chat request asks for, but for its prompt. Knows no model, so that any request can be tried with it.
pub(super) fn read_chat(
    body: &Map<String, Value>,
    preset: &Preset,
) -> Result<(Order, Manner), ApiError> {
    let fields = Fields::of(body);
    let logprobs = match fields.flag("logprobs")? {
        Some(true) => Some(fields.whole("top_logprobs", 0, MAX_LOGPROBS)?.unwrap_or(0)),
        _ => None,
    };
    let max = match fields.whole("max_completion_tokens", 0, i64::from(u32::MAX))? {
        Some(max) => Some(max),
        None => fields.whole("max_tokens", 0, i64::from(u32::MAX))?,
    };
    let max = max.or(preset.max_tokens.map(i64::from));
    // llama.cpp's name for it.
    let stream = fields.flag("stream")?.unwrap_or(false);
    let progress = stream && fields.flag("return_progress")?.unwrap_or(false);
    let order =
        Order { grammar: format(fields)?, progress, ..common(fields, logprobs, max, preset)? };
    let manner = Manner { tools: prompt::tools(fields)?, ..manner(fields)? };
    Ok((order, manner))
}

/// What chats and completions have in common.
fn common(
    fields: Fields<'_>,
    logprobs: Option<i64>,
    max: Option<i64>,
    preset: &Preset,
) -> Result<Order, ApiError> {
    let count = |n: i64| usize::try_from(n).unwrap_or(0);
    Ok(Order {
        prompts: Vec::new(),
        settings: order::settings(fields, &preset.over(SamplerSettings::default()))?,
        max_tokens: max.map(count),
        stops: order::stops(fields, preset)?,
        logprobs: logprobs.map(count),
        grammar: None,
        control: false,
        progress: false,
        n: fields.whole("n", 1, MAX_TEXTS)?.map_or(1, count),
    })
}

fn manner(fields: Fields<'_>) -> Result<Manner, ApiError> {
    let options = fields.object("stream_options", "stream_options.")?;
    let usage = options.map(|options| options.flag("include_usage")).transpose()?.flatten();
    Ok(Manner {
        stream: fields.flag("stream")?.unwrap_or(false),
        include_usage: usage.unwrap_or(false),
        echo: false,
        tools: None,
    })
}

/// `response_format`: what the answer must fit.
fn format(fields: Fields<'_>) -> Result<Option<Grammar>, ApiError> {
    let name = "response_format";
    let Some(format) = fields.object(name, "response_format.")? else { return Ok(None) };
    match format.text("type")? {
        None | Some("text") => Ok(None),
        Some("json_object") => order::schema_grammar(name, &json!({"type": "object"})).map(Some),
        Some("json_schema") => {
            let outer = format.object("json_schema", "response_format.json_schema.")?;
            let schema = outer.and_then(|outer| outer.any("schema")).filter(|s| s.is_object());
            let schema =
                schema.ok_or_else(|| format.wrong("json_schema", "an object with a schema"))?;
            order::schema_grammar(name, schema).map(Some)
        }
        Some(_) => Err(format.wrong("type", "text, json_object or json_schema")),
    }
}

/// `/v1/completions`.
pub(super) async fn completions(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = server.model()?;
    let body = fields::read(&server, request).await?;
    let fields = Fields::of(&body);
    server.named(served, fields.text("model")?)?;
    served.writer()?;
    let admitted = server.admit().await?;
    let (order, manner) = read_completion(&body, &server.config.preset)?;
    let most = MAX_CHOICES / order.n;
    let prompts = match fields.text("suffix")?.filter(|suffix| !suffix.is_empty()) {
        None => prompt::inputs(served, fields, "prompt", most)?,
        Some(suffix) => {
            let texts = fields.texts("prompt", most)?;
            if texts.is_empty() {
                return Err(fields.wrong("prompt", "there"));
            }
            let prompt = |text| prompt::between(served, fields, text, suffix);
            texts.into_iter().map(prompt).collect::<Result<_, _>>()?
        }
    };
    let begun = match manner.echo {
        false => vec![String::new(); prompts.len()],
        true => prompt::texts(served, fields, "prompt", &prompts)?,
    };
    let choices = (0..prompts.len() * order.n).map(|i| Choice::begun(begun[i / order.n].clone()));
    let choices = choices.collect();
    let order = Order { prompts, ..order };
    answer(&server, served, admitted, order, (Kind::Text, choices), &manner).await
}

/// What a completion request asks for, but for its prompt.
pub(super) fn read_completion(
    body: &Map<String, Value>,
    preset: &Preset,
) -> Result<(Order, Manner), ApiError> {
    let fields = Fields::of(body);
    let echo = fields.flag("echo")?.unwrap_or(false);
    if echo && fields.any("logprobs").is_some() {
        // They would take as many logits as the prompt has tokens, for which no plan has room.
        let want = "left out where the prompt is echoed: only what is written has probabilities";
        return Err(fields.wrong("logprobs", want));
    }
    let logprobs = fields.whole("logprobs", 0, MAX_LOGPROBS)?;
    let max = fields.whole("max_tokens", 0, i64::from(u32::MAX))?.or(Some(DEFAULT_COMPLETION));
    let order = Order { grammar: format(fields)?, ..common(fields, logprobs, max, preset)? };
    Ok((order, Manner { echo, ..manner(fields)? }))
}

/// Tokens of a completion when nobody says how many, as with OpenAI: most models never end a text by themselves.
const DEFAULT_COMPLETION: i64 = 16;

async fn answer(
    server: &Arc<Server>,
    served: &Served,
    admitted: Admitted,
    order: Order,
    (kind, choices): (Kind, Vec<Choice>),
    manner: &Manner,
) -> Result<Response, ApiError> {
    let n_prompts = order.prompts.len();
    let mut answers = order.submit(server, served, admitted)?;
    let id = format!("{}{:016x}", kind.id_prefix(), RandomState::new().hash_one(0));
    let mut reply = Reply::new(kind, id, served.name.clone(), n_prompts, choices);
    if manner.stream {
        let events = reply.events(answers, manner.include_usage);
        let body = answers::kept_alive(events, COMMENT.to_owned(), server.config.ping);
        return Ok(sse(Body::from_stream(body)));
    }
    while let Some(message) = answers.next().await {
        reply.take(message)?;
    }
    Ok(Json(reply.whole()?).into_response())
}

/// What clients of server-sent events pass over.
const COMMENT: &str = ": still waiting\n\n";

fn sse(body: Body) -> Response {
    use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
    ([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")], body).into_response()
}
