//! Anthropic's protocol: messages, and the counting of their tokens. Requests are made into chats (`request`), answers are a row of
//! blocks (`reply`).

mod reply;
mod request;

use std::hash::{BuildHasher, RandomState};

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio_stream::{StreamExt, once};

use super::answers::{self, warned};
use super::asked::Asked;
use super::blocks::told;
use super::error::{ApiError, Protocol};
use super::openai::{self, Opened};
use super::preset::Preset;
use reply::{Reply, event};

/// A sign of life that clients know.
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// `/v1/messages`.
pub(super) async fn messages(asked: Asked) -> Result<Response, ApiError> {
    let (server, served, fields) = asked.parts()?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let chat = request::chat(&asked.body)?;
    let admitted = server.admit().await?;
    let Opened { order, mut reader, warnings } = openai::open(server, served, &chat)?;
    let n_prompt = order.prompts.iter().map(Vec::len).sum();
    let id = format!("msg_{:016x}", RandomState::new().hash_one(0));
    let mut reply = Reply::new(id, served.name.clone(), n_prompt, !request::thinks(&asked.body));
    let mut answers = order.submit(server, served, admitted)?;
    if stream {
        let first = once(reply.begin());
        let events = answers.map(move |message| match told(&mut reply, &mut reader, message) {
            Ok(events) => events,
            Err(error) => event("error", error.json(Protocol::Anthropic)),
        });
        let body = answers::kept_alive(first.chain(events), PING.to_owned(), server.config.ping);
        return Ok(warned(openai::sse(Body::from_stream(body)), &warnings));
    }
    while let Some(message) = answers.next().await {
        told(&mut reply, &mut reader, message)?;
    }
    let whole = reply.whole().ok_or_else(|| ApiError::internal("the answer was lost"))?;
    Ok(warned(Json(whole).into_response(), &warnings))
}

/// `/v1/messages/count_tokens`.
pub(super) async fn count_tokens(asked: Asked) -> Result<Json<Value>, ApiError> {
    let (server, served, _) = asked.parts()?;
    let chat = request::chat(&asked.body)?;
    let n = openai::count(server, served, &chat).await?;
    Ok(Json(json!({ "input_tokens": n })))
}

/// Reads a request as far as that goes without a model.
pub(super) fn read(body: &Map<String, Value>, preset: &Preset) -> Result<(), ApiError> {
    openai::read_chat(&request::chat(body)?, preset).map(drop)
}
