//! llama-server's own paths: texts to tokens and back, what a template makes of a conversation, completions and what is missing
//! between two texts, and what it tells of itself. Requests become [`Order`]s; answers are `reply`'s.

mod reply;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::answers;
use super::ask;
use super::asked::Asked;
use super::error::{ApiError, Protocol};
use super::fields::Fields;
use super::order::{self, MAX_LOGPROBS, Order};
use super::preset::Preset;
use super::prompt;
use super::server::{Admitted, Served, Server};
use super::settings;
use crate::engine::batch::Course;
use crate::engine::{SamplerSettings, Token};
use reply::Reply;

/// The most texts that stand before what is to be filled in.
const MAX_EXTRA: usize = 1024;

/// `/tokenize`.
pub(super) async fn tokenize(asked: Asked) -> Result<Json<Value>, ApiError> {
    let (_, served, fields) = asked.parts()?;
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    let text = fields.text("content")?.unwrap_or_default();
    let special = fields.flag("add_special")?.unwrap_or(false);
    let parse = fields.flag("parse_special")?.unwrap_or(true);
    let tokens = tokio::task::block_in_place(|| vocab.tokenize(text, special, parse));
    let tokens = tokens.map_err(|error| ApiError::bad(error.to_string()))?;
    if !fields.flag("with_pieces")?.unwrap_or(false) {
        return Ok(Json(json!({ "tokens": tokens })));
    }
    let piece = |&token: &Token| {
        let piece: Value = match String::from_utf8(vocab.bytes(token)) {
            Ok(text) => text.into(),
            Err(error) => json!(error.into_bytes()),
        };
        json!({"id": token, "piece": piece})
    };
    Ok(Json(json!({ "tokens": tokens.iter().map(piece).collect::<Vec<_>>() })))
}

/// `/detokenize`.
pub(super) async fn detokenize(asked: Asked) -> Result<Json<Value>, ApiError> {
    let (_, served, fields) = asked.parts()?;
    let vocab = served.engine.vocab().map_err(|error| ApiError::engine(&error))?;
    let tokens = tokens(served, fields, "tokens")?;
    let bytes: Vec<u8> = tokens.iter().flat_map(|&token| vocab.bytes(token)).collect();
    Ok(Json(json!({ "content": String::from_utf8_lossy(&bytes) })))
}

/// A list of tokens.
fn tokens(served: &Served, fields: Fields<'_>, name: &str) -> Result<Vec<Token>, ApiError> {
    if fields.list(name)?.is_none_or(<[Value]>::is_empty) {
        return Ok(Vec::new());
    }
    let is_list = |tokens: &[Value]| tokens.iter().all(Value::is_i64);
    if !fields.list(name)?.is_some_and(is_list) {
        return Err(fields.wrong(name, "a list of tokens"));
    }
    Ok(prompt::inputs(served, fields, name, 1)?.pop().unwrap_or_default())
}

/// `/apply-template`.
pub(super) async fn apply_template(asked: Asked) -> Result<Json<Value>, ApiError> {
    let (server, served, fields) = asked.parts()?;
    let asked = ask::ask(fields, Protocol::OpenAi)?;
    let (prompt, _, _) = prompt::open(server, served, asked, Protocol::OpenAi)?;
    Ok(Json(json!({ "prompt": prompt.text() })))
}

/// `/completion`.
pub(super) async fn completion(asked: Asked) -> Result<Response, ApiError> {
    let (server, served, fields) = asked.parts()?;
    served.writer()?;
    order::permit_grammar(server, fields)?;
    let admitted = server.admit().await?;
    let (order, stream) = read(&asked.body, &server.config.preset)?;
    let prompts = prompt::inputs(served, fields, "prompt", 1)?;
    answer(server, served, admitted, Order { prompts, ..order }, stream).await
}

/// `/infill`.
pub(super) async fn infill(asked: Asked) -> Result<Response, ApiError> {
    let (server, served, fields) = asked.parts()?;
    let (_, vocab) = served.writer()?;
    order::permit_grammar(server, fields)?;
    let admitted = server.admit().await?;
    let (order, stream) = read(&asked.body, &server.config.preset)?;
    let before = fields.text("input_prefix")?.unwrap_or_default();
    let after = fields.text("input_suffix")?.unwrap_or_default();
    let extra = extra(fields)?;
    let mut tokens = prompt::between(served, fields, &(extra + before), after)?;
    let begun = fields.text("prompt")?.unwrap_or_default();
    let begun = vocab.tokenize(begun, false, false);
    tokens.extend(begun.map_err(|error| ApiError::bad(error.to_string()))?);
    answer(server, served, admitted, Order { prompts: vec![tokens], ..order }, stream).await
}

/// `input_extra`: other files, one after the other.
fn extra(fields: Fields<'_>) -> Result<String, ApiError> {
    let wrong = || fields.wrong("input_extra", "a list of objects with filename and text");
    let files = fields.list("input_extra")?.unwrap_or_default();
    if files.len() > MAX_EXTRA {
        return Err(wrong());
    }
    let mut all = String::new();
    for file in files {
        all += file["text"].as_str().ok_or_else(wrong)?;
        all += "\n";
    }
    Ok(all)
}

/// What a request asks for, but for its prompt, and whether it wants events. Knows no model.
pub(super) fn read(body: &Map<String, Value>, preset: &Preset) -> Result<(Order, bool), ApiError> {
    let fields = Fields::of(body);
    // Negative numbers mean no limit.
    let max = fields.whole("n_predict", -2, i64::from(u32::MAX))?;
    let probs = fields.whole("n_probs", 0, MAX_LOGPROBS)?.filter(|&n| n > 0);
    let order = Order {
        prompts: Vec::new(),
        settings: settings::settings(fields, &preset.over(SamplerSettings::default()))?,
        max_tokens: match max {
            Some(max) => usize::try_from(max).ok(),
            None => preset.max_tokens.map(|max| max as usize),
        },
        stops: order::stops(fields, preset)?,
        logprobs: probs.and_then(|n| usize::try_from(n).ok()),
        grammar: order::own_grammar(fields)?,
        shown: Arc::default(),
        course: Course::default(),
        progress: false,
        n: 1,
    };
    Ok((order, fields.flag("stream")?.unwrap_or(false)))
}

async fn answer(
    server: &Arc<Server>,
    served: &Served,
    admitted: Admitted,
    order: Order,
    stream: bool,
) -> Result<Response, ApiError> {
    let loose = order.loose();
    let mut reply = Reply::new(served.name.clone());
    let mut answers = order.submit(server, served, admitted)?;
    if stream {
        use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
        let body = answers::kept_alive(
            reply.events(answers),
            ": still waiting\n\n".to_owned(),
            server.config.ping,
        );
        let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
        return Ok(answers::warned((head, Body::from_stream(body)).into_response(), &loose));
    }
    while let Some(message) = answers.next().await {
        reply.take(message)?;
    }
    Ok(answers::warned(Json(reply.whole()?).into_response(), &loose))
}

/// `/props`.
pub(super) async fn props(State(server): State<Arc<Server>>) -> Result<Json<Value>, ApiError> {
    let served = server.model()?;
    let index = served.engine.index();
    let path = index.files.first().map(|file| file.path.display().to_string());
    let vocab = served.engine.vocab().ok();
    let text = |token: Option<Token>| vocab.zip(token).map(|(vocab, t)| vocab.text(t));
    Ok(Json(json!({
        "default_generation_settings": {
            "id": 0, "id_task": -1, "n_ctx": served.n_ctx, "speculative": false,
            "is_processing": false, "params": params(&server.config.preset),
        },
        "total_slots": served.parallel,
        "model_alias": served.name,
        "model_path": path,
        "chat_template": index.chat_template().unwrap_or_default(),
        "chat_template_caps": {"supports_tools": served.takes_tools()},
        "bos_token": text(vocab.and_then(|v| v.bos())),
        "eos_token": text(vocab.and_then(|v| v.eos())),
        "warnings": served.warnings,
        "modalities": {"vision": false, "audio": false},
        "build_info": concat!("airrun ", env!("AIRRUN_VERSION")),
        "is_sleeping": false,
    })))
}

/// The settings that hold where a request says nothing, by their names.
fn params(preset: &Preset) -> Value {
    let default = preset.over(SamplerSettings::default());
    let dry = &default.dry;
    let mirostat = default.mirostat.unwrap_or_default();
    let max = preset.max_tokens.map_or(-1, i64::from);
    json!({
        "n_predict": max, "max_tokens": max, "seed": default.seed.unwrap_or(u32::MAX), "temperature": default.temp,
        "dynatemp_range": default.dynatemp_range, "dynatemp_exponent": default.dynatemp_exponent,
        "top_k": default.top_k, "top_p": default.top_p, "min_p": default.min_p,
        "top_n_sigma": default.top_n_sigma, "typical_p": default.typical_p,
        "xtc_probability": default.xtc_probability, "xtc_threshold": default.xtc_threshold,
        "repeat_last_n": default.repeat_last_n, "repeat_penalty": default.repeat_penalty,
        "presence_penalty": default.presence_penalty,
        "frequency_penalty": default.frequency_penalty,
        "dry_multiplier": dry.multiplier, "dry_base": dry.base,
        "dry_allowed_length": dry.allowed_length, "dry_penalty_last_n": dry.penalty_last_n,
        "dry_sequence_breakers": dry.breakers,
        "mirostat": default.mirostat.map_or(0, |mirostat| mirostat.version),
        "mirostat_tau": mirostat.tau, "mirostat_eta": mirostat.eta,
        "stop": preset.stops, "ignore_eos": false, "stream": false, "n_probs": 0, "grammar": "",
        "samplers": [
            "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature",
        ],
    })
}

/// `/slots`: as many entries as texts are written together.
pub(super) async fn slots(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let served = server.model()?;
    let running = server.metrics.running.get();
    let slot = |id: u32| {
        json!({
            "id": id, "n_ctx": served.n_ctx, "speculative": false,
            "is_processing": u64::from(id) < running,
        })
    };
    Ok(Json((0..served.parallel).map(slot).collect::<Vec<_>>()).into_response())
}
