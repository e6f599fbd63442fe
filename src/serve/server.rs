//! What all requests share: the configuration, the model once it is loaded, the way to the worker, and whether the end has come.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};

use super::Config;
use super::error::ApiError;
use super::metrics::Metrics;
use super::worker::Job;
use crate::engine::{Engine, Tier};

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
    pub(super) jobs: mpsc::Sender<Job>,
    model: OnceLock<Served>,
    phase: watch::Sender<Phase>,
}

/// The model that is served.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) engine: Engine,
    /// What clients call it.
    pub(super) name: String,
    /// Requests that are computed together.
    pub(super) parallel: u32,
    /// Tokens of context that each of them has.
    pub(super) n_ctx: u32,
}

impl Server {
    /// A server at `address`, and where its worker finds jobs.
    pub(super) fn new(config: Config, address: SocketAddr) -> (Server, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(config.queue.max(1));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let server = Server {
            config,
            address,
            metrics: Metrics::default(),
            started: now.map_or(0, |d| d.as_secs()),
            jobs,
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
        self.model.get().ok_or_else(|| ApiError::unavailable("the model is being loaded"))
    }

    /// No new requests from now on.
    pub(super) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Running answers end now.
    pub(super) fn cut(&self) {
        self.phase.send_replace(Phase::Cut);
        if let Some(served) = self.model.get() {
            served.engine.monitor().stop();
        }
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
    /// The name of `engine`'s model: what the user says, or its file's.
    pub(super) fn new(engine: Engine, config: &Config) -> Served {
        let file = engine.index().files.first().and_then(|file| file.path.file_stem());
        let stem =
            file.map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned());
        let parallel = engine.sequences();
        let n_ctx = engine.plan().n_ctx / parallel;
        Served { name: config.name.clone().unwrap_or(stem), engine, parallel, n_ctx }
    }

    /// How many blocks stream, of how many.
    pub(super) fn streamed_blocks(&self) -> (usize, usize) {
        let plan = self.engine.plan();
        (plan.count(Tier::Streamed), plan.blocks.len())
    }
}
