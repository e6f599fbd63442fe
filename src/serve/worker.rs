//! The worker: the thread that owns the model's context. It takes jobs from the queue and computes all that run, together.

use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::server::{Served, Server};
use crate::engine::Engine;

/// Something to compute.
#[derive(Debug)]
pub(super) enum Job {}

/// A worker that was started.
pub(super) struct Worker {
    /// The model, once it is loaded.
    pub(super) loaded: oneshot::Receiver<anyhow::Result<Engine>>,
}

/// Starts the worker: it loads the model, then works until the server ends.
pub(super) fn start(
    server: Arc<Server>,
    mut jobs: mpsc::Receiver<Job>,
    open: impl FnOnce() -> anyhow::Result<Engine> + Send + 'static,
) -> anyhow::Result<Worker> {
    let (tell, loaded) = oneshot::channel();
    let work = move || {
        let engine = match open() {
            Ok(engine) => engine,
            // Whoever started the server may have gone: then nobody needs to know.
            Err(error) => return drop(tell.send(Err(error))),
        };
        server.serve(Served::new(engine.clone(), &server.config));
        let _ = tell.send(Ok(engine));
        while let Some(job) = jobs.blocking_recv() {
            match job {}
        }
    };
    thread::Builder::new()
        .name("worker".to_owned())
        .spawn(work)
        .context("cannot start the worker")?;
    Ok(Worker { loaded })
}
