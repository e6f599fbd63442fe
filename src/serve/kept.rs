//! Streams that are kept: what each has said, who reads it, and when nobody wants it any more. It knows neither requests nor protocols,
//! only that a stream consists of server-sent events.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;

use super::error::ApiError;

/// Bytes of events that are kept of one stream; and streams.
const MAX_BYTES: usize = 16 << 20;
const MAX_STREAMS: usize = 64;

/// The named streams.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<String, Arc<Kept>>>);

/// One of them. Whoever waits for something of it subscribes to its log.
#[derive(Debug)]
pub(super) struct Kept(watch::Sender<Log>);

/// What a stream has said.
#[derive(Debug)]
pub(super) struct Log {
    /// The last events; the first of them is number `first`, counted from 0.
    events: VecDeque<Bytes>,
    pub(super) first: usize,
    bytes: usize,
    /// Events that somebody has taken, counted from the beginning.
    taken: usize,
    readers: usize,
    /// Nothing more will be said.
    pub(super) ended: bool,
    /// Nobody wants more.
    pub(super) stopped: bool,
    /// When it ended.
    since: Instant,
}

impl Log {
    pub(super) fn end(&self) -> usize {
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
    pub(super) fn get(&self, at: usize) -> Option<Bytes> {
        self.events.get(at.checked_sub(self.first)?).cloned()
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, name: &str) -> Result<Arc<Kept>, ApiError> {
        self.lock().get(name).cloned().ok_or_else(ApiError::no_stream)
    }

    /// Makes room for a stream called `name`, of those that have ended longest ago.
    pub(super) fn reserve(&self, name: &str) -> Result<(), ApiError> {
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
    pub(super) fn insert(&self, name: &str, kept: Arc<Kept>) -> Result<(), ApiError> {
        self.reserve(name)?;
        self.lock().insert(name.to_owned(), kept);
        Ok(())
    }

    /// Forgets `kept`, if that is what the name still means.
    pub(super) fn forget(&self, name: &str, kept: &Arc<Kept>) {
        let mut streams = self.lock();
        if streams.get(name).is_some_and(|found| Arc::ptr_eq(found, kept)) {
            streams.remove(name);
        }
    }
}

impl Kept {
    pub(super) fn new() -> Kept {
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

    /// What it has said.
    pub(super) fn log(&self) -> watch::Ref<'_, Log> {
        self.0.borrow()
    }

    /// Nobody wants more of it.
    pub(super) fn stop(&self) {
        self.0.send_modify(|log| log.stopped = true);
    }

    /// Somebody has taken the events before number `at`.
    pub(super) fn taken(&self, at: usize) {
        self.0.send_if_modified(|log| {
            let was_full = !log.has_room();
            log.taken = log.taken.max(at);
            was_full
        });
    }

    /// Waits until `so`.
    pub(super) async fn until(&self, so: impl FnMut(&Log) -> bool) {
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
    pub(super) async fn record(&self, mut body: BodyDataStream, linger: Duration) {
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
#[derive(Debug)]
pub(super) struct Reader(pub(super) Arc<Kept>);

impl Reader {
    pub(super) fn new(kept: Arc<Kept>) -> Reader {
        kept.0.send_modify(|log| log.readers += 1);
        Reader(kept)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.send_modify(|log| log.readers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

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
