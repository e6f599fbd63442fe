//! Which path is answered by whom.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use axum::{Json, Router};
use serde_json::json;

use super::error::ApiError;
use super::server::Server;
use super::{
    anthropic, embeddings, fit, guard, live, log, metrics, native, ollama, openai, page, rerank,
    responses, resume,
};

/// What is answered, and what is said of all else.
pub(super) fn paths() -> Router<Arc<Server>> {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*name}", get(openai::model))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/input_tokens", post(responses::input_tokens))
        .route("/v1/responses/{id}", get(responses::look_up).delete(responses::forget))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/embeddings", post(embeddings::openai))
        .route("/v1/rerank", post(rerank::rerank))
        .route("/v1/reranking", post(rerank::rerank))
        .route("/rerank", post(rerank::rerank))
        .route("/reranking", post(rerank::rerank))
        .route("/tokenize", post(native::tokenize))
        .route("/detokenize", post(native::detokenize))
        .route("/apply-template", post(native::apply_template))
        .route("/completion", post(native::completion))
        .route("/infill", post(native::infill))
        .route("/props", get(native::props))
        .route("/slots", get(native::slots))
        .route("/v1/health", get(health))
        .route("/models", get(openai::models))
        .route("/chat/completions", post(openai::chat))
        .route("/completions", post(openai::completions))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(embeddings::ollama))
        .route("/api/embeddings", post(embeddings::ollama_old))
        .route("/api/tags", get(ollama::tags))
        .route("/api/show", post(ollama::show))
        .route("/api/ps", get(ollama::ps))
        .route("/api/version", get(ollama::version))
        .route("/api/pull", post(ollama::pull))
        .route("/api/push", post(ollama::not_here))
        .route("/api/create", post(ollama::not_here))
        .route("/api/copy", post(ollama::not_here))
        .route("/api/delete", delete(ollama::not_here))
        .route("/api/blobs/{digest}", any(ollama::not_here))
        .route("/api/airrun/status", get(live::status))
        .route("/api/airrun/events", get(live::events))
        .route("/api/airrun/experts", get(live::experts))
        .route("/api/airrun/count", post(fit::count))
        .route("/api/airrun/streams/{name}", get(resume::take_up).delete(resume::stop))
        .fallback(file)
        .method_not_allowed_fallback(no_method)
}

/// All paths.
pub(super) fn router(server: Arc<Server>) -> Router {
    paths()
        .layer(middleware::from_fn_with_state(server.clone(), resume::keep))
        .layer(middleware::from_fn_with_state(server.clone(), guard::guard))
        .layer(middleware::from_fn_with_state(server.clone(), log::log))
        .with_state(server)
}

/// `inner`, which finds its paths also where clients put a slash too many: at the end, or where they joined an address to a path.
pub(super) fn forgiving(inner: Router) -> Router {
    Router::new().fallback_service(inner).layer(middleware::map_request(without_needless_slashes))
}

async fn without_needless_slashes(mut request: Request) -> Request {
    let path = request.uri().path();
    if path.len() < 2 || !(path.ends_with('/') || path.contains("//")) {
        return request;
    }
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(uri) = format!("/{}{query}", names.join("/")).parse() {
        *request.uri_mut() = uri;
    }
    request
}

async fn health(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    server.model()?;
    Ok(Json(json!({"status": "ok"})).into_response())
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let monitor = server.model().map(|m| m.engine.monitor()).ok();
    let weights = monitor.as_ref().map(|m| m.snapshot()).unwrap_or_default();
    let mut text = server.metrics.text(&weights, server.waiting());
    if let Some(watch) = monitor.as_ref().and_then(|m| m.experts()) {
        text += &metrics::of_experts(&watch.counts());
    }
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// A file of the page, or nothing.
async fn file(request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let accepts = request.headers().get(header::ACCEPT).map_or(&b""[..], HeaderValue::as_bytes);
    if path == "/" && !accepts.windows(9).any(|part| part == b"text/html") {
        // Programs that look for Ollama ask for this; browsers say that they want a page.
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "Ollama is running")
            .into_response());
    }
    let asset = page::find(path).ok_or_else(|| ApiError::no_path(path))?;
    if !matches!(request.method().as_str(), "GET" | "HEAD") {
        return Err(ApiError::no_method(request.method().as_str(), path));
    }
    let mut response = (StatusCode::OK, asset.bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

async fn no_method(request: Request) -> ApiError {
    ApiError::no_method(request.method().as_str(), request.uri().path())
}
