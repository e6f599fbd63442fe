//! What all requests share: the configuration, the model once it is loaded, the way to the worker, and whether the end has come.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};

use super::Config;
use super::error::ApiError;
use super::metrics::Metrics;
use super::tools::Form;
use super::worker::Job;
use crate::engine::Engine;
use crate::talk::Vocab;
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
    /// Unix seconds of the start.
    pub(super) started: u64,
    /// Requests whose answers somebody waits for.
    pub(super) listeners: AtomicUsize,
    jobs: mpsc::Sender<(Job, Place)>,
    /// Jobs that were not begun.
    queued: Arc<AtomicUsize>,
    model: OnceLock<Served>,
    phase: watch::Sender<Phase>,
}

/// A place in the queue; dropped when the job begins.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(queued: &Arc<AtomicUsize>, most: usize) -> Option<Place> {
        let before = queued.fetch_add(1, Ordering::Relaxed);
        let place = Place(queued.clone());
        (before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    /// How it calls tools, if its template knows them.
    pub(super) tools: Option<Form>,
    /// Requests that are computed together.
    pub(super) parallel: u32,
    /// Tokens of context that each of them has.
    pub(super) n_ctx: u32,
}

impl Server {
    /// A server at `address`, and where its worker finds jobs.
    pub(super) fn new(
        config: Config,
        address: SocketAddr,
    ) -> (Server, mpsc::Receiver<(Job, Place)>) {
        // One more than there are places, for the order to look at the phase.
        let (jobs, receiver) = mpsc::channel(config.queue.max(1) + 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let server = Server {
            config,
            address,
            metrics: Metrics::default(),
            started: now.map_or(0, |d| d.as_secs()),
            listeners: AtomicUsize::new(0),
            jobs,
            queued: Arc::default(),
            model: OnceLock::new(),
            phase: watch::Sender::new(Phase::Open),
        };
        (server, receiver)
    }

    /// The model was loaded.
    pub(super) fn serve(&self, served: Served) {
        // There is one worker, and it loads once.
        let _ = self.model.set(served);
    }

    /// The model, or that it is not there yet.
    pub(super) fn model(&self) -> Result<&Served, ApiError> {
        if self.jobs.is_closed() {
            return Err(ApiError::unavailable("the worker has ended"));
        }
        self.model.get().ok_or_else(|| ApiError::unavailable("the model is being loaded"))
    }

    /// Puts a job into the queue.
    ///
    /// # Errors
    ///
    /// The queue is full, or nobody works any more.
    pub(super) fn submit(&self, job: Job) -> Result<(), ApiError> {
        let ended = || ApiError::unavailable("the worker has ended");
        let place = Place::take(&self.queued, self.config.queue).ok_or_else(ApiError::busy)?;
        self.jobs.try_send((job, place)).map_err(|_| ended())
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        let pending = usize::try_from(self.metrics.pending.get()).unwrap_or(0);
        self.queued.load(Ordering::Relaxed) + pending
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
        // A worker that waits for jobs sees that there are none; one that works sees it by itself.
        let place = Place::take(&self.queued, usize::MAX);
        let _ = place.map(|place| self.jobs.try_send((Job::Stop, place)));
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
        let tools = template.as_ref().is_some_and(ChatTemplate::takes_tools);
        let source = engine.index().chat_template().unwrap_or_default();
        let parallel = engine.sequences();
        Ok(Served {
            name: config.name.clone().unwrap_or(stem),
            parallel,
            n_ctx: engine.n_ctx_each(),
            tools: tools.then(|| Form::of(source)),
            template,
            engine,
        })
    }

    /// Its name, if that is what the request calls it or the request calls it nothing.
    ///
    /// # Errors
    ///
    /// 404.
    pub(super) fn named(&self, name: Option<&str>) -> Result<(), ApiError> {
        let name = name.unwrap_or_default();
        // Ollama's clients add a tag.
        let is_known = name.is_empty() || name.strip_suffix(":latest").unwrap_or(name) == self.name;
        if is_known { Ok(()) } else { Err(ApiError::no_model(name, &self.name)) }
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
