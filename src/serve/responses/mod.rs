//! OpenAI's Responses. Requests are made into chats (`request`), answers are a row of items (`reply`). Clients send the whole
//! conversation each time, as those that run on their own machine do, unless the server remembers (`store`).

mod reply;
mod request;
mod store;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio_stream::{StreamExt, once};

use super::answers::{self, warned};
use super::asked::Asked;
use super::blocks::told;
use super::error::ApiError;
use super::fields::Fields;
use super::openai::{self, Opened};
use super::preset::Preset;
use super::server::Server;
use reply::Reply;
pub use store::Store;

/// `/v1/responses`.
pub(super) async fn create(asked: Asked) -> Result<Response, ApiError> {
    let Asked { server, body } = asked;
    let served = server.model()?;
    let stream = Fields::of(&body).flag("stream")?.unwrap_or(false);
    let store = server.config.responses.clone();
    let whole = request::whole(&body, &store)?;
    let chat = request::chat(&whole)?;
    let admitted = server.admit().await?;
    let Opened { order, mut reader, warnings } = openai::open(&server, served, &chat)?;
    let keeps = store.is_on() && Fields::of(&whole).flag("store")?.unwrap_or(true);
    let keep = move |reply: &Reply| {
        if keeps && reply.has_ended() {
            let response = reply.whole();
            let said = response["output"].as_array().cloned().unwrap_or_default();
            store.put(request::items(&whole).into_iter().chain(said).collect(), response);
        }
    };
    let unique = format!("{:016x}", RandomState::new().hash_one(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut reply = Reply::new(unique, &served.name, now, &body);
    let mut answers = order.submit(&server, served, admitted)?;
    if stream {
        let first = once(reply.begin());
        let events = answers.map(move |message| match told(&mut reply, &mut reader, message) {
            Ok(events) => {
                keep(&reply);
                events
            }
            Err(error) => reply.fail(&error),
        });
        let sign = ": still waiting\n\n".to_owned();
        let body = answers::kept_alive(first.chain(events), sign, server.config.ping);
        return Ok(warned(openai::sse(Body::from_stream(body)), &warnings));
    }
    while let Some(message) = answers.next().await {
        told(&mut reply, &mut reader, message)?;
    }
    if !reply.has_ended() {
        return Err(ApiError::internal("the answer was lost"));
    }
    keep(&reply);
    Ok(warned(Json(reply.whole()).into_response(), &warnings))
}

/// `GET /v1/responses/ID`: one that is remembered.
pub(super) async fn look_up(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = server.config.responses.response(&id);
    found.map(Json).ok_or_else(|| ApiError::no_response(&id))
}

/// `DELETE /v1/responses/ID`: it is not remembered any more.
pub(super) async fn forget(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    match server.config.responses.remove(&id) {
        true => Ok(Json(json!({"id": id, "object": "response", "deleted": true}))),
        false => Err(ApiError::no_response(&id)),
    }
}

/// `/v1/responses/input_tokens`.
pub(super) async fn input_tokens(asked: Asked) -> Result<Json<Value>, ApiError> {
    let (server, served, _) = asked.parts()?;
    let chat = request::chat(&request::whole(&asked.body, &server.config.responses)?)?;
    let n = openai::count(server, served, &chat).await?;
    Ok(Json(json!({"object": "response.input_tokens", "input_tokens": n})))
}

/// Reads a request as far as that goes without a model.
pub(super) fn read(body: &Map<String, Value>, preset: &Preset) -> Result<(), ApiError> {
    openai::read_chat(&request::chat(body)?, preset).map(drop)
}
