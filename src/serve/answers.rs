//! From the worker to a client: the pieces of all texts of one request, through a bounded channel. A client that does not read
//! makes its texts wait; one that goes ends them; one that waits long hears that it is not forgotten.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::response::Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::{Stream, StreamExt};

use super::error::ApiError;
use super::queue::{ENDED, Place};
use super::server::{Listener, Server};
use crate::engine::Error;
use crate::engine::batch::{Ended, Piece, Reading, Room, Sink};

/// Messages of each text that may wait for the client.
const BUFFER: usize = 64;

/// Messages that one step of a text may bring: how far its prompt is, its last piece, what was held back, and the end.
const PER_STEP: usize = 4;

/// Something about one of a request's texts.
#[derive(Debug)]
pub(super) struct Message {
    /// Which text.
    pub(super) choice: usize,
    pub(super) news: News,
}

/// What happened to a text.
#[derive(Debug)]
pub(super) enum News {
    Piece(Piece),
    /// How far its prompt is; only for those who asked.
    Reading(Reading),
    End(Result<Ended, ApiError>),
}

/// What comes of a request. Dropping it tells the worker that nobody listens.
#[derive(Debug)]
pub(super) struct Answers {
    receiver: mpsc::Receiver<Message>,
    listener: Listener,
    place: Place,
    /// Texts that have not ended, by their numbers.
    left: Vec<usize>,
}

impl Answers {
    /// The answers of `n` texts, which wait in `place`, and who sends them; if `progress`, with how far their prompts are.
    pub(super) fn new(
        server: &Arc<Server>,
        place: Place,
        n: usize,
        progress: bool,
    ) -> (Answers, Vec<Box<dyn Sink>>) {
        let (sender, receiver) = mpsc::channel(BUFFER * n);
        let gone = Arc::new(AtomicBool::new(false));
        let sink = |choice| -> Box<dyn Sink> {
            Box::new(Sender {
                choice,
                progress,
                spare: PER_STEP * n,
                sender: sender.clone(),
                gone: gone.clone(),
            })
        };
        let sinks = (0..n).map(sink).collect();
        (Answers { receiver, listener: server.listen(), place, left: (0..n).collect() }, sinks)
    }

    /// The next message; none after the last text's end.
    pub(super) async fn next(&mut self) -> Option<Message> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let Some(&first) = self.left.first() else { return Poll::Ready(None) };
        // Who sends has gone without an end of each text: the worker failed, and no answer may look complete.
        let lost = || Message { choice: first, news: News::End(Err(ApiError::unavailable(ENDED))) };
        let message = std::task::ready!(self.receiver.poll_recv(context)).unwrap_or_else(lost);
        if matches!(message.news, News::End(_)) {
            self.left.retain(|&choice| choice != message.choice);
        }
        Poll::Ready(Some(message))
    }
}

impl Stream for Answers {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll(context)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.receiver.close();
        self.place.free();
        self.listener.is_done = self.left.is_empty();
    }
}

/// A name for the `i`th call of a text, of the `index`th of an answer that is called `unique`: nine letters and digits, as some
/// templates want them.
pub(super) fn call_id(unique: &str, index: usize, i: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut hash = DefaultHasher::new();
    (unique, index, i).hash(&mut hash);
    let mut left = hash.finish();
    let letter = |_| {
        let letter = LETTERS[usize::try_from(left % 36).unwrap_or(0)];
        left /= 36;
        char::from(letter)
    };
    (0..9).map(letter).collect()
}

/// The header of what was not done as it was asked.
pub(super) const WARNING: &str = "x-airrun-warning";

/// `response`, with what was not done as it was asked: protocols have no place for it but a header.
pub(super) fn warned(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        // What is no ASCII does not go into a header.
        let text: String =
            warning.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// A body of `pieces`, with `sign` after each `period` in which there was none: what stands between client and server cuts
/// connections that are silent for long, and a slow model is, while it reads a prompt.
pub(super) fn kept_alive(
    pieces: impl Stream<Item = String> + Send + 'static,
    sign: String,
    period: Duration,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let mut ticks = interval_at(Instant::now() + period, period);
    // One sign is enough, however long nobody took any.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pieces = pieces.filter(|text| !text.is_empty()).timeout_repeating(ticks);
    pieces.map(move |piece| Ok(Bytes::from(piece.unwrap_or_else(|_| sign.clone()))))
}

/// The worker's end of the channel, for one text.
#[derive(Debug)]
struct Sender {
    choice: usize,
    /// Whether it tells how far the prompt is.
    progress: bool,
    /// Places that must be free before a step.
    spare: usize,
    sender: mpsc::Sender<Message>,
    /// Set when a message could not be sent: then some of the text is missing, and it must not go on.
    gone: Arc<AtomicBool>,
}

impl Sender {
    fn send(&self, news: News) {
        if self.sender.try_send(Message { choice: self.choice, news }).is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
    }
}

impl Sink for Sender {
    fn room(&self) -> Room {
        if self.sender.is_closed() || self.gone.load(Ordering::Relaxed) {
            Room::Gone
        } else if self.sender.capacity() >= self.spare {
            Room::Free
        } else {
            Room::Full
        }
    }

    fn piece(&mut self, piece: Piece) {
        self.send(News::Piece(piece));
    }

    fn reading(&mut self, reading: Reading) {
        if self.progress {
            self.send(News::Reading(reading));
        }
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        self.send(News::End(end.map_err(|error| ApiError::engine(&error))));
    }
}
