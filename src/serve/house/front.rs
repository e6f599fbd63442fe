//! The way in where there are many models: which one a request means, and what its client hears while that is being loaded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any as any_method, get, post};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::keeper::House;
use super::list;
use super::rooms::Guest;
use crate::serve::error::{ApiError, Protocol};
use crate::serve::fields::{self, Fields};
use crate::serve::stay::{self, Stay};
use crate::serve::{guard, ollama, routes};

/// Pieces of an answer that may wait for a client.
const BUFFER: usize = 16;

/// All paths: those that concern all models, and those that one of them answers.
pub(super) fn router(house: &Arc<House>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/v1/models", get(list::openai))
        .route("/v1/models/{*name}", get(list::one))
        .route("/models", get(list::openai))
        .route("/api/tags", get(list::tags))
        .route("/api/ps", get(list::ps))
        .route("/api/show", post(list::show))
        .route("/api/pull", post(pull))
        .route("/api/push", post(ollama::not_here))
        .route("/api/create", post(ollama::not_here))
        .route("/api/copy", post(ollama::not_here))
        .route("/api/blobs/{digest}", any_method(ollama::not_here))
        .fallback(any)
        .layer(middleware::from_fn_with_state(house.front.clone(), guard::guard))
        .with_state(house.clone())
}

async fn pull(State(house): State<Arc<House>>, request: Request) -> Result<Response, ApiError> {
    ollama::pulled(&house.front, request, |name| house.named(name).is_some()).await
}

async fn health() -> Response {
    axum::Json(serde_json::json!({"status": "ok"})).into_response()
}

/// What one of the models answers.
async fn any(State(house): State<Arc<House>>, request: Request) -> Result<Response, ApiError> {
    if request.method() != Method::POST {
        return quiet(&house, request).await;
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if let Some(refusal) = refusal(&house, &path).await {
        return Ok(refusal);
    }
    // Read once more by whoever answers: what is no JSON, it says so.
    let map = fields::read(&house.front, Request::from_parts(parts.clone(), body)).await?;
    let which = meant(&house, &map)?;
    let stay = stay::of(&map);
    let body = Body::from(serde_json::to_vec(&*map).unwrap_or_default());
    let request = Request::from_parts(parts, body);
    let streams = Fields::of(&map).flag("stream").ok().flatten();
    let streams = streams.unwrap_or(matches!(path.as_str(), "/api/chat" | "/api/generate"));
    // Whoever answers takes memory for it once more.
    drop(map);
    let ping = house.front.config.ping;
    let entering = {
        let house = house.clone();
        tokio::spawn(async move { house.enter(which, stay).await })
    };
    let mut entering = Entering(entering);
    match tokio::time::timeout(ping, entering.guest()).await {
        Ok(guest) => Ok(through(guest?, request).await),
        Err(_) if streams => Ok(later(entering, request, ping)),
        Err(_) => Ok(through(entering.guest().await?, request).await),
    }
}

/// What is said to whoever posts to a path that nobody answers, whatever the model.
async fn refusal(house: &House, path: &str) -> Option<Response> {
    // One without a body: who would answer it finds that wrong, and does nothing.
    let request = Request::post(path).body(Body::empty()).ok()?;
    let response = answer(routes::paths().with_state(house.front.clone()), request).await;
    let refused = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
    refused.contains(&response.status()).then_some(response)
}

/// A model that is being loaded for somebody: to its end, also where nobody waits for it any more.
struct Entering(tokio::task::JoinHandle<Result<Guest, ApiError>>);

impl Entering {
    async fn guest(&mut self) -> Result<Guest, ApiError> {
        let entered = (&mut self.0).await;
        entered.unwrap_or_else(|_| Err(ApiError::internal("loading the model went wrong")))
    }
}

/// The model that a request names; if it names none, the one that was asked last, or the only one.
fn meant(house: &House, body: &Map<String, Value>) -> Result<usize, ApiError> {
    let fields = Fields::of(body);
    let name = fields.text("model")?.or(fields.text("name")?).unwrap_or_default();
    if !name.is_empty() {
        return house.named(name).ok_or_else(|| list::unknown(house, name));
    }
    let only = (house.offers.len() == 1).then_some(0);
    let latest = house.rooms.latest().or(only);
    latest.ok_or_else(|| fields.wrong("model", &format!("there: one of {}", list::names(house))))
}

/// What asks, and changes nothing: by the model that `?model=` names, or that was asked last; the page if there is none.
async fn quiet(house: &Arc<House>, request: Request) -> Result<Response, ApiError> {
    let query = request.uri().query().unwrap_or_default();
    let named = query.split('&').find_map(|part| part.strip_prefix("model="));
    let path = request.uri().path();
    let which = match named {
        Some(name) => {
            let name = name.replace("%2F", "/").replace("%3A", ":");
            Some(house.named(&name).ok_or_else(|| list::unknown(house, &name))?)
        }
        None => house.rooms.latest(),
    };
    // What a model tells of itself when it is named must come from it: it is loaded for that.
    let loads = named.is_some() && matches!(path, "/props" | "/slots");
    let guest = match which {
        Some(which) if loads => Some(house.enter(which, Stay::AsBefore).await?),
        which => which.and_then(|which| house.rooms.guest(which, Stay::AsBefore)),
    };
    match guest {
        Some(guest) => Ok(through(guest, request).await),
        None => Ok(answer(routes::router(house.front.clone()), request).await),
    }
}

/// The model's own answer; it stays until all of that has been said.
async fn through(guest: Guest, request: Request) -> Response {
    let response = answer(routes::router(guest.server.clone()), request).await;
    let (parts, body) = response.into_parts();
    let pieces = body.into_data_stream().map(move |piece| {
        let _stays = &guest;
        piece
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

async fn answer(router: Router, request: Request) -> Response {
    match TowerToHyperService::new(router).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// An answer that begins with signs of life, until the model is loaded; then it is the model's own.
fn later(mut entering: Entering, request: Request, ping: Duration) -> Response {
    let lines = request.uri().path().starts_with("/api/");
    let protocol = Protocol::of(request.uri().path());
    let (sender, receiver) = mpsc::channel::<Bytes>(BUFFER);
    tokio::spawn(async move {
        let told = |error: &ApiError| {
            let error = error.json(protocol);
            Bytes::from(if lines { format!("{error}\n") } else { format!("data: {error}\n\n") })
        };
        let sign = if lines { "\n" } else { ": loading the model\n\n" };
        let guest = loop {
            if sender.send(Bytes::from_static(sign.as_bytes())).await.is_err() {
                return;
            }
            if let Ok(guest) = tokio::time::timeout(ping, entering.guest()).await {
                break guest;
            }
        };
        let response = match guest {
            Ok(guest) => through(guest, request).await,
            Err(error) => return drop(sender.send(told(&error)).await),
        };
        let bad = response.status() != StatusCode::OK;
        let mut body = response.into_body().into_data_stream();
        while let Some(Ok(piece)) = body.next().await {
            let piece = match std::str::from_utf8(&piece) {
                Ok(text) if bad && !lines => Bytes::from(format!("data: {text}\n\n")),
                Ok(text) if bad => Bytes::from(format!("{text}\n")),
                _ => piece,
            };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    let kind = if lines { "application/x-ndjson" } else { "text/event-stream" };
    let head = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
    let pieces = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    (head, Body::from_stream(pieces)).into_response()
}
