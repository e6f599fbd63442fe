//! OpenAI's Responses. Requests are made into chats (`request`), answers are a row of items (`reply`). Nothing is remembered: clients
//! send the whole conversation each time, as those that run on their own machine do.

mod reply;
mod request;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio_stream::{StreamExt, once};

use super::answers::{self, Message, News, warned};
use super::error::ApiError;
use super::fields::{self, Fields};
use super::openai::{self, Opened};
use super::preset::Preset;
use super::server::Server;
use crate::engine::Finish;
use crate::talk::speech::Reader;
use reply::Reply;

/// `/v1/responses`.
pub(super) async fn create(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = server.model()?;
    let body = fields::read(&server, request).await?;
    let stream = Fields::of(&body).flag("stream")?.unwrap_or(false);
    let chat = request::chat(&body)?;
    let admitted = server.admit().await?;
    let Opened { order, mut reader, warnings } = openai::open(&server, served, &chat)?;
    let unique = format!("{:016x}", RandomState::new().hash_one(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut reply = Reply::new(unique, &served.name, now, &body);
    let mut answers = order.submit(&server, served, admitted)?;
    if stream {
        let first = once(reply.begin());
        let events = answers.map(move |message| match told(&mut reply, &mut reader, message) {
            Ok(events) => events,
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
    Ok(warned(Json(reply.whole()).into_response(), &warnings))
}

/// Takes what the worker says; its events.
fn told(reply: &mut Reply, reader: &mut Reader, message: Message) -> Result<String, ApiError> {
    match message.news {
        News::Reading(_) => Ok(String::new()),
        News::Piece(piece) => {
            let said = reader.push(&piece.text);
            Ok(said.into_iter().map(|said| reply.add(said)).collect())
        }
        News::End(ended) => {
            let ended = ended?;
            let said = reader.finish(ended.finish != Finish::Stop);
            let events: String = said.into_iter().map(|said| reply.add(said)).collect();
            Ok(events + &reply.end(ended))
        }
    }
}

/// `/v1/responses/input_tokens`.
pub(super) async fn input_tokens(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let served = server.model()?;
    let body = fields::read(&server, request).await?;
    let chat = request::chat(&body)?;
    // Its turn; nothing of the queue.
    let _admitted = server.admit().await?;
    let Opened { order, .. } = openai::open(&server, served, &chat)?;
    let n: usize = order.prompts.iter().map(Vec::len).sum();
    Ok(Json(json!({"object": "response.input_tokens", "input_tokens": n})))
}

/// Reads a request as far as that goes without a model.
pub(super) fn read(body: &Map<String, Value>, preset: &Preset) -> Result<(), ApiError> {
    openai::read_chat(&request::chat(body)?, preset).map(drop)
}
