//! Answers that outlive their client. A client that names its stream (`X-Airrun-Stream: NAME`) may go, and take the stream up again
//! from any event on, while its answer goes on for a time; the answers of all others end with their client, as ever. What a stream has
//! said is kept in `kept`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

use super::answers::kept_alive;
use super::error::ApiError;
use super::kept::{Kept, Reader};
use super::server::Server;

/// The header that names a stream.
pub(super) const HEADER: &str = "x-airrun-stream";

/// Lengths of a name: long enough that nobody guesses it.
const NAME_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;

/// What clients of server-sent events pass over.
const COMMENT: &str = ": still waiting\n\n";

/// The events from number `at` on, as they come.
fn body(reader: Reader, at: usize, ping: Duration) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(pass_on(reader, at, sender));
    Body::from_stream(kept_alive(ReceiverStream::new(receiver), COMMENT.to_owned(), ping))
}

async fn pass_on(reader: Reader, mut at: usize, sender: mpsc::Sender<String>) {
    let kept = &reader.0;
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = kept.until(|log| log.end() > at || log.ended) => {}
        }
        let Some(event) = kept.log().get(at) else { return };
        if sender.send(String::from_utf8_lossy(&event).into_owned()).await.is_err() {
            return;
        }
        at += 1;
        kept.taken(at);
    }
}

/// Lets a request pass; if it names its stream, what it is answered is kept.
pub(super) async fn keep(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    match request.headers().get(HEADER).cloned() {
        None => next.run(request).await,
        Some(name) => {
            kept(&server, &name, request, next).await.unwrap_or_else(IntoResponse::into_response)
        }
    }
}

async fn kept(
    server: &Arc<Server>,
    name: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name = name.to_str().ok().filter(|name| NAME_LENGTHS.contains(&name.len()));
    let name = name.filter(|name| name.chars().all(plain));
    let name = name.ok_or_else(|| {
        ApiError::bad(format!("'{HEADER}' must have 16 to 64 letters, digits, '-' or '_'"))
    })?;
    server.streams.reserve(name)?;
    let (head, said) = next.run(request).await.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(EVENTS.as_bytes()) {
        return Ok(Response::from_parts(head, said));
    }
    let kept = Arc::new(Kept::new());
    server.streams.insert(name, kept.clone())?;
    let reader = Reader::new(kept.clone());
    let (name, recording) = (name.to_owned(), server.clone());
    tokio::spawn(async move {
        let linger = recording.config.linger;
        kept.record(said.into_data_stream(), linger).await;
        if !kept.log().stopped {
            sleep(linger).await;
        }
        recording.streams.forget(&name, &kept);
    });
    Ok(Response::from_parts(head, body(reader, 0, server.config.ping)))
}

const EVENTS: &str = "text/event-stream";

/// Where a client goes on.
#[derive(Debug, serde::Deserialize)]
pub(super) struct From {
    /// The id of the last event that it has.
    after: Option<usize>,
}

/// GET `/api/airrun/streams/NAME`: the events after `?after=ID` or `Last-Event-ID`, or all.
pub(super) async fn take_up(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let kept = server.streams.find(&name)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let at = from.after.or(last).unwrap_or(0);
    {
        let log = kept.log();
        if at < log.first || at > log.end() {
            return Err(ApiError::no_stream());
        }
    }
    let head = [(header::CONTENT_TYPE, EVENTS), (header::CACHE_CONTROL, "no-cache")];
    Ok((head, body(Reader::new(kept), at, server.config.ping)).into_response())
}

/// DELETE `/api/airrun/streams/NAME`: nobody wants more of it, if there is any.
pub(super) async fn stop(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> StatusCode {
    if let Ok(kept) = server.streams.find(&name) {
        kept.stop();
        server.streams.forget(&name, &kept);
    }
    StatusCode::NO_CONTENT
}
