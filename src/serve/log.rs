//! A line for each request, when its answer has ended: who asked for what path, how it went, how long it took. Nothing that was said
//! is in it. Where the lines go is the caller's matter.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::Body as _;
use tokio_stream::StreamExt;

use super::answers::WARNING;
use super::server::Server;

/// Paths that are asked for all the time, by programs that watch.
const WATCHED: [&str; 4] = ["/health", "/metrics", "/api/airrun/status", "/api/airrun/experts"];

/// A request whose answer has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// GET, POST ...
    pub method: String,
    /// Without what follows a question mark.
    pub path: String,
    /// The status that it was answered with.
    pub status: u16,
    /// Bytes of the answer.
    pub bytes: u64,
    /// From the request to the end of the answer.
    pub seconds: f64,
    /// What was not done as it was asked.
    pub warnings: Vec<String>,
}

/// Where lines go.
#[derive(Clone)]
pub struct Log(Arc<dyn Fn(&Line) + Send + Sync>);

impl Log {
    /// Calls `write` with each, from several threads.
    pub fn new(write: impl Fn(&Line) + Send + Sync + 'static) -> Log {
        Log(Arc::new(write))
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

/// An answer under way; its line is written when it is gone, whoever ended it.
struct Answer {
    log: Log,
    line: Line,
    begin: Instant,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.line.seconds = self.begin.elapsed().as_secs_f64();
        (self.log.0)(&self.line);
    }
}

/// Writes a line for a request, if lines are wanted.
pub(super) async fn log(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let wanted = server.config.log.clone().filter(|_| !WATCHED.contains(&path.as_str()));
    let Some(log) = wanted else { return next.run(request).await };
    let method = request.method().to_string();
    let line = Line { method, path, status: 0, bytes: 0, seconds: 0.0, warnings: Vec::new() };
    let mut answer = Answer { log, line, begin: Instant::now() };
    let response = next.run(request).await;
    answer.line.status = response.status().as_u16();
    let warnings = response.headers().get_all(WARNING).iter();
    answer.line.warnings = warnings.filter_map(|w| Some(w.to_str().ok()?.to_owned())).collect();
    if let Some(bytes) = response.body().size_hint().exact() {
        answer.line.bytes = bytes;
        return response;
    }
    let (head, body) = response.into_parts();
    let pieces = body.into_data_stream().map(move |piece| {
        // All of it is to live as long as the stream, not only the number.
        let answer = &mut answer;
        answer.line.bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        piece
    });
    Response::from_parts(head, Body::from_stream(pieces))
}
