//! The worker: the thread that owns the model's context. It takes jobs from the queue while there is room, and computes all that
//! run, together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::server::{Place, Served, Server};
use crate::engine::batch::{Batcher, Request, Vector};
use crate::engine::embed::{Embedder, normalised};
use crate::engine::{Engine, Error, Token};

/// How long to wait where all texts wait for their listeners.
const PAUSE: Duration = Duration::from_millis(2);

/// Something to compute.
#[derive(Debug)]
pub(super) enum Job {
    /// The texts of one request.
    Write(Vec<Request>),
    /// Vectors of texts.
    Embed(Embed),
    /// Nothing: the server was cut, which is to be looked at.
    Stop,
}

/// Texts whose vectors are wanted.
#[derive(Debug)]
pub(super) struct Embed {
    /// Their tokens; what is left of them.
    pub(super) texts: VecDeque<Vec<Token>>,
    /// The vectors so far.
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) reply: oneshot::Sender<Result<Vec<Vec<f32>>, ApiError>>,
}

/// A worker that was started.
pub(super) struct Started {
    /// The model, once it is loaded.
    pub(super) loaded: oneshot::Receiver<anyhow::Result<Engine>>,
    /// Comes when nothing is computed any more.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Starts the worker: it loads the model, tells that it did, and works until the server ends.
pub(super) fn start(
    server: Arc<Server>,
    jobs: mpsc::Receiver<(Job, Place)>,
    open: impl FnOnce() -> anyhow::Result<Engine> + Send + 'static,
) -> anyhow::Result<Started> {
    let (tell, loaded) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let work = move || {
        let (engine, served, batcher) = match load(&server, open) {
            Ok(loaded) => loaded,
            // Whoever started the server may have gone: then nobody needs to know.
            Err(error) => return drop(tell.send(Err(error))),
        };
        server.serve(served);
        let embedder = Embedder::new(&engine);
        let (waiting, embeds) = (VecDeque::new(), VecDeque::new());
        let worker = Worker { server, jobs, waiting, batcher, embedder, embeds };
        let _ = tell.send(Ok(engine));
        worker.work();
        // Whoever waited may have run out of patience.
        let _ = end.send(());
    };
    thread::Builder::new()
        .name("worker".to_owned())
        .spawn(work)
        .context("cannot start the worker")?;
    Ok(Started { loaded, ended })
}

type Loaded = (Engine, Served, Option<Batcher>);

/// Loads the model and makes its context; one for vectors only has none.
fn load(server: &Server, open: impl FnOnce() -> anyhow::Result<Engine>) -> anyhow::Result<Loaded> {
    let engine = open()?;
    let mut batcher = if engine.writes_text() { Some(engine.batcher()?) } else { None };
    batcher.iter_mut().for_each(|batcher| batcher.give_up_after(server.config.patience));
    let served = Served::new(engine.clone(), &server.config)?;
    Ok((engine, served, batcher))
}

struct Worker {
    server: Arc<Server>,
    jobs: mpsc::Receiver<(Job, Place)>,
    /// Texts for which there is no room yet; their places bound their number.
    waiting: VecDeque<(Vec<Request>, Place)>,
    batcher: Option<Batcher>,
    embedder: Embedder,
    /// Requests for vectors take turns.
    embeds: VecDeque<(Embed, Place)>,
}

impl Worker {
    fn work(mut self) {
        loop {
            if self.server.is_cut() {
                return self.cut();
            }
            if !self.take_jobs() {
                return;
            }
            let wrote = self.write();
            let embedded = self.embed();
            self.tell();
            if !wrote && !embedded && self.is_busy() {
                thread::sleep(PAUSE);
            }
        }
    }

    fn is_busy(&self) -> bool {
        let writing = self.batcher.as_ref().is_some_and(|b| b.n_running() + b.n_pending() > 0);
        writing || !self.embeds.is_empty() || !self.waiting.is_empty()
    }

    /// Takes jobs from the queue; waits for one if there is nothing else to do. False if none will come any more.
    fn take_jobs(&mut self) -> bool {
        if !self.is_busy() {
            self.tell();
            match self.jobs.blocking_recv() {
                Some((job, place)) => self.take(job, place),
                None => return false,
            }
        }
        while let Ok((job, place)) = self.jobs.try_recv() {
            self.take(job, place);
        }
        while let Some(batcher) = self.batcher.as_mut().filter(|b| b.has_room())
            && let Some((requests, _)) = self.waiting.pop_front()
        {
            requests.into_iter().for_each(|request| batcher.add(request));
        }
        true
    }

    fn take(&mut self, job: Job, place: Place) {
        match job {
            // Who asks a model for vectors to write is told by the handler that it does not.
            Job::Write(requests) if self.batcher.is_some() => {
                self.waiting.push_back((requests, place))
            }
            Job::Write(_) | Job::Stop => {}
            Job::Embed(embed) => self.embeds.push_back((embed, place)),
        }
    }

    /// One batch of tokens.
    fn write(&mut self) -> bool {
        let Some(batcher) = &mut self.batcher else { return false };
        let begin = Instant::now();
        let stepped = batcher.step();
        let tally = batcher.take_tally();
        self.server.metrics.count(&tally);
        if stepped {
            self.server.metrics.stepped(tally.texts, begin.elapsed());
        }
        stepped
    }

    /// Some of a vector, or all of it where a model makes it at once.
    fn embed(&mut self) -> bool {
        let Some((mut embed, place)) = self.embeds.pop_front() else { return false };
        if embed.reply.is_closed() {
            self.batcher.iter_mut().for_each(Batcher::drop_vector);
            return true;
        }
        let Some(text) = embed.texts.pop_front() else {
            let _ = embed.reply.send(Ok(embed.vectors));
            return true;
        };
        let vector = match &mut self.batcher {
            Some(batcher) => batcher.embed(&text),
            None => self.embedder.embed(&text).map(Vector::Done),
        };
        match vector {
            Ok(Vector::Done(vector)) => {
                embed.vectors.push(normalised(vector));
                self.embeds.push_back((embed, place));
            }
            Ok(vector) => {
                embed.texts.push_front(text);
                self.embeds.push_front((embed, place));
                return vector != Vector::Waits;
            }
            // The pass was stopped for another client that had gone.
            Err(Error::Interrupted) if !self.server.is_cut() => {
                embed.texts.push_front(text);
                self.embeds.push_back((embed, place));
            }
            Err(error) => {
                let _ = embed.reply.send(Err(ApiError::engine(&error)));
            }
        }
        true
    }

    /// Ends everything.
    fn cut(mut self) {
        if let Some(batcher) = &mut self.batcher {
            batcher.cut();
        }
        self.embeds.clear();
        while let Ok((job, place)) = self.jobs.try_recv() {
            self.take(job, place);
        }
        for (requests, _) in self.waiting.drain(..) {
            requests.into_iter().for_each(|r| r.sink.end(Err(Error::Interrupted)));
        }
    }

    fn tell(&self) {
        let running = self.batcher.as_ref().map_or(0, Batcher::n_running) + self.embeds.len();
        self.server.metrics.running.set(running);
        self.server.metrics.pending.set(self.batcher.as_ref().map_or(0, Batcher::n_pending));
    }
}
