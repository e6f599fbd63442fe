//! What all requests share: the configuration, the model once it is loaded, the way to the worker, and whether the end has come.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Config;
use super::error::ApiError;
use super::kept::Streams;
use super::memory::Memory;
use super::metrics::Metrics;
use super::queue::{self, Place, Queue};
use crate::engine::{Engine, Error, Token};
use crate::talk::Vocab;
use crate::talk::marks::Marks;
use crate::talk::template::ChatTemplate;

/// How far the server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    /// The model is being loaded, or requests are answered.
    Open,
    /// No new requests; those that run may end.
    Draining,
    /// Those that run are cut short.
    Cut,
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: Config,
    pub(super) address: SocketAddr,
    pub(super) metrics: Metrics,
    pub(super) streams: Streams,
    /// Unix seconds of the start.
    pub(super) started: u64,
    /// Requests that were not begun.
    pub(super) queue: Queue,
    /// Requests whose answers somebody waits for.
    listeners: AtomicUsize,
    /// What requests may take.
    pub(super) memory: Memory,
    /// Requests of which tokens, templates and grammars are made at a time.
    bench: Arc<Semaphore>,
    model: OnceLock<Served>,
    phase: watch::Sender<Phase>,
}

/// Requests that are made into tokens at a time: more would only take time and memory from each other.
const BENCH: usize = 2;

/// A request that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its places in the queue.
    pub(super) place: Place,
    _turn: OwnedSemaphorePermit,
}

/// Somebody who waits for an answer; dropped when it is there, or when nobody wants it any more.
#[derive(Debug)]
pub(super) struct Listener {
    server: Arc<Server>,
    /// Whether the answer was all there.
    pub(super) is_done: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let others = self.server.listeners.fetch_sub(1, Ordering::Relaxed) - 1;
        if !self.is_done && others == 0 {
            // Nobody at all listens: the pass under way, which may take minutes, is for nobody.
            self.server.stop_pass();
        }
    }
}

/// The model that is served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) engine: Engine,
    /// What clients call it.
    pub(super) name: String,
    /// None without a tokenizer.
    pub(super) template: Option<ChatTemplate>,
    /// Control tokens that are marks of thoughts and calls, whose texts are seen by who reads an answer.
    pub(super) shown: Arc<HashSet<Token>>,
    /// Control tokens that nobody may quote.
    pub(super) marks: Marks,
    /// What its users should know.
    pub(super) warnings: Vec<String>,
    /// Requests that are computed together.
    pub(super) parallel: u32,
    /// Tokens of context that each of them has.
    pub(super) n_ctx: u32,
    /// A longer text has more tokens than that, whatever it says. (bytes)
    pub(super) longest: usize,
}

impl Server {
    /// A server at `address`.
    pub(super) fn new(config: Config, address: SocketAddr) -> Server {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Server {
            queue: Queue::new(config.queue),
            memory: Memory::new(config.memory),
            config,
            address,
            metrics: Metrics::default(),
            streams: Streams::default(),
            started: now.map_or(0, |d| d.as_secs()),
            listeners: AtomicUsize::new(0),
            bench: Arc::new(Semaphore::new(BENCH)),
            model: OnceLock::new(),
            phase: watch::Sender::new(Phase::Open),
        }
    }

    /// The model was loaded.
    pub(super) fn serve(&self, served: Served) {
        // There is one worker, and it loads once.
        let _ = self.model.set(served);
    }

    /// The model, or that it is not there yet.
    pub(super) fn model(&self) -> Result<&Served, ApiError> {
        if self.queue.has_ended() {
            return Err(ApiError::unavailable(queue::ENDED));
        }
        self.model.get().ok_or_else(|| ApiError::unavailable("the model is being loaded"))
    }

    /// Lets a request in, before anything is made of it: gives it a place in the queue, and its turn to be made into tokens.
    ///
    /// # Errors
    ///
    /// The queue is full.
    pub(super) async fn admit(&self) -> Result<Admitted, ApiError> {
        let place = self.queue.enter()?;
        let turn = self.bench.clone().acquire_owned().await;
        Ok(Admitted { place, _turn: turn.map_err(|_| ApiError::unavailable(queue::ENDED))? })
    }

    /// Sees to it that a request's name for the model, if it has one, is one of the model's.
    ///
    /// # Errors
    ///
    /// 404.
    pub(super) fn named(&self, served: &Served, name: Option<&str>) -> Result<(), ApiError> {
        let name = name.unwrap_or_default();
        match self.config.preset.is_called(&served.name, name) {
            true => Ok(()),
            false => Err(ApiError::no_model(name, &served.name)),
        }
    }

    /// Counts somebody who waits for an answer.
    pub(super) fn listen(self: &Arc<Server>) -> Listener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Listener { server: self.clone(), is_done: false }
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        let pending = usize::try_from(self.metrics.pending.get()).unwrap_or(0);
        self.queue.taken() + pending
    }

    /// Ends the pass under way: what is still wanted of it will be computed anew.
    pub(super) fn stop_pass(&self) {
        if let Some(served) = self.model.get() {
            served.engine.monitor().stop();
        }
    }

    /// No new requests from now on.
    pub(super) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Running answers end now.
    pub(super) fn cut(&self) {
        self.phase.send_replace(Phase::Cut);
        self.stop_pass();
        // A worker that waits for jobs is woken; one that works sees it by itself.
        self.queue.ring();
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    pub(super) fn is_cut(&self) -> bool {
        *self.phase.borrow() == Phase::Cut
    }

    /// Waits until the server drains.
    pub(super) async fn draining(&self) {
        let mut phase = self.phase.subscribe();
        // The sender is ours: it cannot be gone.
        let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    }
}

impl Served {
    /// `engine`'s model, by the name that the user gave it or by that of its file.
    ///
    /// # Errors
    ///
    /// A hostile chat template.
    pub(super) fn new(engine: Engine, config: &Config) -> anyhow::Result<Served> {
        let file = engine.index().files.first().and_then(|file| file.path.file_stem());
        let stem =
            file.map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned());
        let template = match engine.vocab() {
            Ok(_) => Some(engine.chat_template()?),
            Err(_) => None,
        };
        let (shown, marks) = match (&template, engine.vocab()) {
            (Some(template), Ok(vocab)) => (template.shown(vocab), template.quotable(vocab)),
            _ => Default::default(),
        };
        let parallel = engine.sequences();
        Ok(Served {
            name: config.preset.name.clone().unwrap_or(stem),
            parallel,
            warnings: engine.notes(),
            n_ctx: engine.n_ctx_each(),
            shown: Arc::new(shown),
            marks,
            longest: longest(&engine),
            template,
            engine,
        })
    }

    /// Whether its template knows tools.
    pub(super) fn takes_tools(&self) -> bool {
        self.template.as_ref().is_some_and(ChatTemplate::takes_tools)
    }

    /// Whether it thinks before it answers.
    pub(super) fn thinks(&self) -> bool {
        self.template.as_ref().is_some_and(|template| template.dialect().thinks())
    }

    /// Sees to it that texts of so many bytes may fit the context, before they are made into tokens.
    ///
    /// # Errors
    ///
    /// 400.
    pub(super) fn check_length(&self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.longest {
            return Ok(());
        }
        let per_token = (self.longest / (self.n_ctx as usize).max(1)).max(1);
        let error = Error::ContextTooSmall {
            tokens: bytes / per_token,
            room: (self.n_ctx as usize).saturating_sub(1),
        };
        Err(ApiError::engine(&error))
    }

    /// The chat template and the vocabulary.
    ///
    /// # Errors
    ///
    /// The model writes no text, or has no tokenizer.
    pub(super) fn writer(&self) -> Result<(&ChatTemplate, &Vocab), ApiError> {
        if !self.engine.writes_text() {
            return Err(ApiError::bad(format!("model '{}' makes vectors, and no text", self.name)));
        }
        let vocab = self.engine.vocab().map_err(|error| ApiError::engine(&error))?;
        let template =
            self.template.as_ref().ok_or_else(|| ApiError::bad("there is no chat template"))?;
        Ok((template, vocab))
    }
}

/// The longest text that could fit the context of one request: all of it of the longest token. (bytes)
fn longest(engine: &Engine) -> usize {
    let Ok(vocab) = engine.vocab() else { return usize::MAX };
    let tokens = 0..Token::try_from(vocab.len()).unwrap_or(Token::MAX);
    let longest = tokens.map(|token| vocab.bytes(token).len()).max().unwrap_or(0);
    // These put down all of a text in tokens; others leave blanks out, of which there may be some.
    let kind = engine.index().meta_str("tokenizer.ggml.model").unwrap_or_default();
    let keeps_all = vocab.own().is_none() && ["gpt2", "llama"].contains(&kind);
    let spare = if keeps_all { 1 } else { 16 };
    (engine.n_ctx_each() as usize).saturating_mul(longest.max(1) * spare)
}
