//! Answers that outlive their client. A client that names its stream (`X-Airrun-Stream: NAME`) may go, and take the stream up again
//! from any event on, while its answer goes on for a time; the answers of all others end with their client, as ever. It knows of
//! protocols only that they send events.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::answers::kept_alive;
use super::error::ApiError;
use super::server::Server;

/// The header that names a stream.
pub(super) const HEADER: &str = "x-airrun-stream";

/// Bytes of events that are kept of one stream; and streams.
const MAX_BYTES: usize = 16 << 20;
const MAX_STREAMS: usize = 64;

/// Lengths of a name: long enough that nobody guesses it.
const NAME_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;

/// What clients of server-sent events pass over.
const COMMENT: &str = ": still waiting\n\n";

/// The named streams.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<String, Arc<Kept>>>);

/// One of them. Whoever waits for something of it subscribes to its log.
#[derive(Debug)]
struct Kept(watch::Sender<Log>);

/// What a stream has said.
#[derive(Debug)]
struct Log {
    /// The last events; the first of them is number `first`, counted from 0.
    events: VecDeque<Bytes>,
    first: usize,
    bytes: usize,
    /// Events that somebody has taken, counted from the beginning.
    taken: usize,
    readers: usize,
    /// Nothing more will be said.
    ended: bool,
    /// Nobody wants more.
    stopped: bool,
    /// When it ended.
    since: Instant,
}

impl Log {
    fn end(&self) -> usize {
        self.first + self.events.len()
    }

    /// Whether another event may be added. What nobody has taken is not given up.
    fn has_room(&self) -> bool {
        self.bytes <= MAX_BYTES || self.first < self.taken
    }

    fn push(&mut self, event: &str) {
        let numbered = format!("id: {}\n{event}\n\n", self.end() + 1);
        self.bytes += numbered.len();
        self.events.push_back(numbered.into());
        while self.bytes > MAX_BYTES && self.first < self.taken {
            self.bytes -= self.events.pop_front().map_or(0, |event| event.len());
            self.first += 1;
        }
    }

    /// Event number `at`; none before it is there, or if it was given up.
    fn get(&self, at: usize) -> Option<Bytes> {
        self.events.get(at.checked_sub(self.first)?).cloned()
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<Arc<Kept>, ApiError> {
        self.lock().get(name).cloned().ok_or_else(ApiError::no_stream)
    }

    /// Makes room for a stream called `name`, of those that have ended longest ago.
    fn reserve(&self, name: &str) -> Result<(), ApiError> {
        let mut streams = self.lock();
        if streams.contains_key(name) {
            return Err(ApiError::taken(name));
        }
        if streams.len() >= MAX_STREAMS {
            let ended = streams.iter().filter(|(_, kept)| kept.0.borrow().ended);
            let oldest = ended.min_by_key(|(_, kept)| kept.0.borrow().since);
            let oldest = oldest.map(|(name, _)| name.clone()).ok_or_else(ApiError::busy)?;
            streams.remove(&oldest);
        }
        Ok(())
    }

    /// Keeps a stream, unless its name was taken meanwhile.
    fn insert(&self, name: &str, kept: Arc<Kept>) -> Result<(), ApiError> {
        self.reserve(name)?;
        self.lock().insert(name.to_owned(), kept);
        Ok(())
    }

    /// Forgets `kept`, if that is what the name still means.
    fn forget(&self, name: &str, kept: &Arc<Kept>) {
        let mut streams = self.lock();
        if streams.get(name).is_some_and(|found| Arc::ptr_eq(found, kept)) {
            streams.remove(name);
        }
    }
}

impl Kept {
    fn new() -> Kept {
        Kept(watch::Sender::new(Log {
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            taken: 0,
            readers: 0,
            ended: false,
            stopped: false,
            since: Instant::now(),
        }))
    }

    /// Waits until `so`.
    async fn until(&self, so: impl FnMut(&Log) -> bool) {
        // The sender is ours: it cannot be gone.
        let _ = self.0.subscribe().wait_for(so).await;
    }

    /// Waits until nobody has read for as long as `linger`, or until somebody stops it.
    async fn forsaken(&self, linger: Duration) {
        loop {
            self.until(|log| log.readers == 0 || log.stopped).await;
            let back = self.until(|log| log.readers > 0 && !log.stopped);
            let linger = if self.0.borrow().stopped { Duration::ZERO } else { linger };
            let stopped = self.until(|log| log.stopped);
            tokio::select! {
                () = stopped => return,
                back = timeout(linger, back) => if back.is_err() { return },
            }
        }
    }

    /// Writes down what `body` says until it ends, or until nobody wants it; then the answer behind it ends, too.
    async fn record(&self, mut body: BodyDataStream, linger: Duration) {
        let forsaken = self.forsaken(linger);
        tokio::pin!(forsaken);
        let mut rest = Vec::new();
        loop {
            let next = async {
                self.until(Log::has_room).await;
                body.next().await
            };
            let chunk = tokio::select! {
                chunk = next => chunk,
                () = &mut forsaken => break,
            };
            let Some(Ok(chunk)) = chunk else { break };
            rest.extend_from_slice(&chunk);
            let events = take_events(&mut rest);
            if !events.is_empty() {
                self.0.send_modify(|log| events.iter().for_each(|event| log.push(event)));
            }
        }
        drop(body);
        self.0.send_modify(|log| (log.ended, log.since) = (true, Instant::now()));
    }
}

/// Takes the whole events from the front of `text`. Comments are none.
fn take_events(text: &mut Vec<u8>) -> Vec<String> {
    let Some(end) = text.windows(2).rposition(|two| two == b"\n\n") else { return Vec::new() };
    let rest = text.split_off(end + 2);
    let whole = String::from_utf8_lossy(text).into_owned();
    *text = rest;
    let says = |event: &&str| event.lines().any(|line| !line.is_empty() && !line.starts_with(':'));
    whole.split("\n\n").filter(says).map(str::to_owned).collect()
}

/// Somebody who reads a stream.
struct Reader(Arc<Kept>);

impl Reader {
    fn new(kept: Arc<Kept>) -> Reader {
        kept.0.send_modify(|log| log.readers += 1);
        Reader(kept)
    }

    /// The events from number `at` on, as they come.
    fn body(self, at: usize, ping: Duration) -> Body {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(self.pass_on(at, sender));
        Body::from_stream(kept_alive(ReceiverStream::new(receiver), COMMENT.to_owned(), ping))
    }

    async fn pass_on(self, mut at: usize, sender: mpsc::Sender<String>) {
        let Reader(kept) = &self;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = kept.until(|log| log.end() > at || log.ended) => {}
            }
            let Some(event) = kept.0.borrow().get(at) else { return };
            if sender.send(String::from_utf8_lossy(&event).into_owned()).await.is_err() {
                return;
            }
            at += 1;
            let take = |log: &mut Log| {
                let was_full = !log.has_room();
                log.taken = log.taken.max(at);
                was_full
            };
            kept.0.send_if_modified(take);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.send_modify(|log| log.readers -= 1);
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
    let (head, body) = next.run(request).await.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(EVENTS.as_bytes()) {
        return Ok(Response::from_parts(head, body));
    }
    let kept = Arc::new(Kept::new());
    server.streams.insert(name, kept.clone())?;
    let reader = Reader::new(kept.clone());
    let (name, recording) = (name.to_owned(), server.clone());
    tokio::spawn(async move {
        let linger = recording.config.linger;
        kept.record(body.into_data_stream(), linger).await;
        if !kept.0.borrow().stopped {
            sleep(linger).await;
        }
        recording.streams.forget(&name, &kept);
    });
    Ok(Response::from_parts(head, reader.body(0, server.config.ping)))
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
        let log = kept.0.borrow();
        if at < log.first || at > log.end() {
            return Err(ApiError::no_stream());
        }
    }
    let head = [(header::CONTENT_TYPE, EVENTS), (header::CACHE_CONTROL, "no-cache")];
    Ok((head, Reader::new(kept).body(at, server.config.ping)).into_response())
}

/// DELETE `/api/airrun/streams/NAME`: nobody wants more of it, if there is any.
pub(super) async fn stop(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> StatusCode {
    if let Ok(kept) = server.streams.find(&name) {
        kept.0.send_modify(|log| log.stopped = true);
        server.streams.forget(&name, &kept);
    }
    StatusCode::NO_CONTENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole_and_once() {
        let text = ": hello\n\ndata: 1\n\nevent: x\ndata: 2\n\n: still waiting\n\ndata: \u{e9}\n\n";
        for step in 1..text.len() {
            let (mut rest, mut events) = (Vec::new(), Vec::new());
            for chunk in text.as_bytes().chunks(step) {
                rest.extend_from_slice(chunk);
                events.extend(take_events(&mut rest));
            }
            assert_eq!(events, ["data: 1", "event: x\ndata: 2", "data: \u{e9}"], "{step}");
            assert!(rest.is_empty());
        }
    }

    #[tokio::test]
    async fn what_nobody_has_taken_is_kept_and_the_rest_is_bounded() {
        let kept = Arc::new(Kept::new());
        let big = format!("data: {}", "x".repeat(1 << 20));
        kept.0.send_modify(|log| (0..20).for_each(|_| log.push(&big)));
        assert!(!kept.0.borrow().has_room());
        assert_eq!(kept.0.borrow().first, 0);
        kept.0.send_modify(|log| log.taken = 10);
        kept.0.send_modify(|log| log.push(&big));
        let log = kept.0.borrow();
        assert!(log.bytes <= MAX_BYTES && log.first > 0 && log.first <= 10);
        assert!(log.get(0).is_none() && log.get(20).is_some() && log.get(21).is_none());
    }

    #[tokio::test]
    async fn a_stream_ends_when_nobody_comes_back() {
        let kept = Arc::new(Kept::new());
        let reader = Reader::new(kept.clone());
        let watcher = kept.clone();
        let end = tokio::spawn(async move { watcher.forsaken(Duration::from_millis(20)).await });
        sleep(Duration::from_millis(200)).await;
        assert!(!end.is_finished());
        drop(reader);
        end.await.unwrap();
        // One that was there in time lets it go on.
        let kept = Arc::new(Kept::new());
        let watcher = kept.clone();
        let end = tokio::spawn(async move { watcher.forsaken(Duration::from_secs(3600)).await });
        drop(Reader::new(kept.clone()));
        let reader = Reader::new(kept.clone());
        sleep(Duration::from_millis(50)).await;
        assert!(!end.is_finished());
        // Stopped while somebody reads.
        kept.0.send_modify(|log| log.stopped = true);
        end.await.unwrap();
        drop(reader);
    }
}
