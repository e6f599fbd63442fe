//! OpenAI's protocol: models, chat completions, completions. Requests become [`Order`]s, answers become JSON or server-sent events.

mod reply;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::answers::{self, warned};
use super::ask;
use super::asked::Asked;
use super::error::{ApiError, Protocol};
use super::fields::Fields;
use super::fit;
use super::order::{self, MAX_LOGPROBS, MAX_TEXTS, Order};
use super::preset::Preset;
use super::prompt;
use super::server::{Admitted, Served, Server};
use super::settings;
use crate::engine::batch::Course;
use crate::engine::{Grammar, SamplerSettings};
use crate::talk::ask::Ask;
use crate::talk::speech::Reader;
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
    /// What was not done as it was asked.
    warnings: Vec<String>,
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
    json!({
        "id": served.name, "object": "model", "created": server.started, "owned_by": "airrun",
        "max_model_len": served.n_ctx,
        "meta": {
            "n_ctx_train": served.engine.index().context_length(),
            "n_params": served.engine.index().parameters(), "size": served.engine.index().bytes(),
        },
    })
}

/// `/v1/chat/completions`.
pub(super) async fn chat(asked: Asked) -> Result<Response, ApiError> {
    let Asked { server, body } = asked;
    let served = server.model()?;
    // With one model, any name means it, as with llama-server.
    Fields::of(&body).text("model")?;
    order::permit_grammar(&server, Fields::of(&body))?;
    let admitted = server.admit().await?;
    let (order, manner, asked) = read_chat(&body, &server.config.preset)?;
    let (mut prompt, tokens, course, dropped) = match fit::wanted(Fields::of(&body))? {
        true => fit::fit(&server, served, asked, order.max_tokens)?,
        false => {
            let opened = prompt::open(&server, served, asked, Protocol::OpenAi)?;
            let (prompt, tokens, course) = opened;
            (prompt, tokens, course, 0)
        }
    };
    let mut order = Order { prompts: vec![tokens], shown: served.shown.clone(), course, ..order };
    let (template, _) = served.writer()?;
    order.stops.extend(template.stop().map(str::to_owned));
    order.grammar = prompt::grammar(&mut prompt, order.grammar)?;
    let choices = (0..order.n).map(|_| Choice::heard(prompt.reader(manner.stream))).collect();
    let manner = Manner { warnings: prompt.warnings, ..manner };
    drop(body);
    let mut answer =
        answer(&server, served, admitted, order, (Kind::Chat, choices), &manner).await?;
    if dropped > 0 {
        answer.headers_mut().insert(fit::DROPPED, dropped.into());
    }
    Ok(answer)
}

/// A chat request that is on its way: its order, who reads its answer, and what was not done as it was asked.
pub(super) struct Opened {
    pub(super) order: Order,
    pub(super) reader: Reader,
    pub(super) warnings: Vec<String>,
}

/// Opens a chat request: for protocols whose requests are made into chats.
pub(super) fn open(
    server: &Server,
    served: &Served,
    body: &Map<String, Value>,
) -> Result<Opened, ApiError> {
    let (order, manner, asked) = read_chat(body, &server.config.preset)?;
    let (mut prompt, tokens, course) = prompt::open(server, served, asked, Protocol::OpenAi)?;
    let shown = served.shown.clone();
    let mut order = Order { prompts: vec![tokens], shown, course, n: 1, ..order };
    let (template, _) = served.writer()?;
    order.stops.extend(template.stop().map(str::to_owned));
    order.grammar = prompt::grammar(&mut prompt, order.grammar)?;
    let reader = prompt.reader(manner.stream);
    Ok(Opened { order, reader, warnings: prompt.warnings })
}

/// What a chat request asks for, but for its prompt. Knows no model, so that any request can be tried with it.
pub(super) fn read_chat(
    body: &Map<String, Value>,
    preset: &Preset,
) -> Result<(Order, Manner, Ask), ApiError> {
    let fields = Fields::of(body);
    let logprobs = match fields.flag("logprobs")? {
        Some(true) => Some(fields.whole("top_logprobs", 0, MAX_LOGPROBS)?.unwrap_or(0)),
        _ => None,
    };
    let max = most(fields, &["max_completion_tokens", "max_tokens", "n_predict"])?;
    let max = max.or(preset.max_tokens.map(i64::from));
    // llama.cpp's name for it.
    let stream = fields.flag("stream")?.unwrap_or(false);
    let progress = stream && fields.flag("return_progress")?.unwrap_or(false);
    let order =
        Order { grammar: format(fields)?, progress, ..common(fields, logprobs, max, preset)? };
    let asked = ask::ask(fields, Protocol::OpenAi)?;
    Ok((order, manner(fields)?, asked))
}

/// The most tokens of an answer, by the first of `names` that says it; -1 is no limit.
fn most(fields: Fields<'_>, names: &[&str]) -> Result<Option<i64>, ApiError> {
    let said = names.iter().find(|name| fields.any(name).is_some());
    said.map_or(Ok(None), |name| fields.whole(name, -1, i64::from(u32::MAX)))
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
        settings: settings::settings(fields, &preset.over(SamplerSettings::default()))?,
        // -1 is no limit.
        max_tokens: max.and_then(|max| usize::try_from(max).ok()),
        stops: order::stops(fields, preset)?,
        logprobs: logprobs.map(count),
        grammar: None,
        shown: Arc::default(),
        progress: false,
        course: Course::default(),
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
        warnings: Vec::new(),
    })
}

/// `response_format`: what the answer must fit.
fn format(fields: Fields<'_>) -> Result<Option<Grammar>, ApiError> {
    let name = "response_format";
    let Some(format) = fields.object(name, "response_format.")? else {
        return order::own_grammar(fields);
    };
    match format.text("type")? {
        None | Some("text") => order::own_grammar(fields),
        Some("json_object") => match beside(format)? {
            Some(schema) => order::schema_grammar(name, schema, false).map(Some),
            None => order::schema_grammar(name, &json!({"type": "object"}), true).map(Some),
        },
        Some("json_schema") => {
            let outer = format.object("json_schema", "response_format.json_schema.")?;
            let schema = outer.and_then(|outer| outer.any("schema")).filter(|s| s.is_object());
            let schema = schema.map_or_else(|| beside(format), |schema| Ok(Some(schema)))?;
            let schema =
                schema.ok_or_else(|| format.wrong("json_schema", "an object with a schema"))?;
            let strict = outer.map_or(Ok(None), |outer| outer.flag("strict"))?.unwrap_or(false);
            order::schema_grammar(name, schema, strict).map(Some)
        }
        Some(_) => Err(format.wrong("type", "text, json_object or json_schema")),
    }
}

/// A schema that stands beside the kind of a format: llama.cpp's clients call it `schema`, those of Hugging Face's TGI `value`.
fn beside(format: Fields<'_>) -> Result<Option<&Value>, ApiError> {
    let found = ["schema", "value"].into_iter().find_map(|name| Some((name, format.any(name)?)));
    match found {
        Some((name, schema)) if !schema.is_object() => Err(format.wrong(name, "a JSON schema")),
        found => Ok(found.map(|(_, schema)| schema)),
    }
}

/// How many tokens the prompt of a chat has.
pub(super) async fn count(
    server: &Arc<Server>,
    served: &Served,
    chat: &Map<String, Value>,
) -> Result<usize, ApiError> {
    // Its turn; nothing of the queue.
    let _admitted = server.admit().await?;
    let Opened { order, .. } = open(server, served, chat)?;
    Ok(order.prompts.iter().map(Vec::len).sum())
}

/// `/v1/completions`.
pub(super) async fn completions(asked: Asked) -> Result<Response, ApiError> {
    let Asked { server, body } = asked;
    let served = server.model()?;
    let fields = Fields::of(&body);
    fields.text("model")?;
    served.writer()?;
    order::permit_grammar(&server, fields)?;
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
    let manner = Manner { warnings: order.loose(), ..manner };
    drop(body);
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
    let max = Some(most(fields, &["max_tokens", "n_predict"])?.unwrap_or(DEFAULT_COMPLETION));
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
    let progress = order.progress;
    let mut answers = order.submit(server, served, admitted)?;
    let id = format!("{}{:016x}", kind.id_prefix(), RandomState::new().hash_one(0));
    let mut reply = Reply::new(kind, id, served.name.clone(), n_prompts, choices);
    reply.pace = progress.then(|| served.engine.pace());
    if manner.stream {
        let events = reply.events(answers, manner.include_usage);
        let body = answers::kept_alive(events, COMMENT.to_owned(), server.config.ping);
        return Ok(warned(sse(Body::from_stream(body)), &manner.warnings));
    }
    while let Some(message) = answers.next().await {
        reply.take(message)?;
    }
    Ok(warned(Json(reply.whole()?).into_response(), &manner.warnings))
}

/// What clients of server-sent events pass over.
const COMMENT: &str = ": still waiting\n\n";

pub(super) fn sse(body: Body) -> Response {
    use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
    // Proxies such as nginx hold streams back otherwise.
    let unheld = (HeaderName::from_static("x-accel-buffering"), "no");
    ([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache"), unheld], body)
        .into_response()
}
