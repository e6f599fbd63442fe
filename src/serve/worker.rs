//! The worker: the thread that owns the model's context. It takes jobs from the queue while there is room, and computes all that
//! run, together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::server::{Served, Server};
use crate::engine::batch::{Batcher, Request};
use crate::engine::embed::Embedder;
use crate::engine::{Engine, Error, Token};

/// How long to wait where all texts wait for their listeners.
const PAUSE: Duration = Duration::from_millis(2);

/// Requests for vectors that take turns.
const MAX_EMBEDS: usize = 16;

/// Something to compute.
#[derive(Debug)]
pub(super) enum Job {
    /// The texts of one request.
    Write(Vec<Request>),
    /// Vectors of texts.
    Embed(Embed),
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

/// Starts the worker: it loads the model, tells that it did, and works until the server ends.
pub(super) fn start(
    server: Arc<Server>,
    jobs: mpsc::Receiver<Job>,
    open: impl FnOnce() -> anyhow::Result<Engine> + Send + 'static,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<Engine>>> {
    let (tell, loaded) = oneshot::channel();
    let work = move || {
        let (engine, served, batcher) = match load(&server, open) {
            Ok(loaded) => loaded,
            // Whoever started the server may have gone: then nobody needs to know.
            Err(error) => return drop(tell.send(Err(error))),
        };
        server.serve(served);
        let embedder = Embedder::new(&engine);
        let worker = Worker { server, jobs, batcher, embedder, embeds: VecDeque::new() };
        let _ = tell.send(Ok(engine));
        worker.work();
    };
    thread::Builder::new()
        .name("worker".to_owned())
        .spawn(work)
        .context("cannot start the worker")?;
    Ok(loaded)
}

type Loaded = (Engine, Served, Option<Batcher>);

/// Loads the model and makes its context; one for vectors only has none.
fn load(server: &Server, open: impl FnOnce() -> anyhow::Result<Engine>) -> anyhow::Result<Loaded> {
    let engine = open()?;
    let batcher = if engine.writes_text() { Some(engine.batcher()?) } else { None };
    let served = Served::new(engine.clone(), &server.config)?;
    Ok((engine, served, batcher))
}

struct Worker {
    server: Arc<Server>,
    jobs: mpsc::Receiver<Job>,
    batcher: Option<Batcher>,
    embedder: Embedder,
    embeds: VecDeque<Embed>,
}

impl Worker {
    fn work(mut self) {
        loop {
            if self.server.is_cut() {
                self.cut();
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
        writing || !self.embeds.is_empty()
    }

    fn has_room(&self) -> bool {
        self.batcher.as_ref().is_none_or(Batcher::has_room) && self.embeds.len() < MAX_EMBEDS
    }

    /// Takes jobs from the queue while there is room for them; waits for one if there is nothing else to do. False if none will
    /// come any more.
    fn take_jobs(&mut self) -> bool {
        if !self.is_busy() {
            self.tell();
            match self.jobs.blocking_recv() {
                Some(job) => self.take(job),
                None => return false,
            }
        }
        while self.has_room() {
            match self.jobs.try_recv() {
                Ok(job) => self.take(job),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return self.is_busy(),
            }
        }
        true
    }

    fn take(&mut self, job: Job) {
        match (job, &mut self.batcher) {
            (Job::Write(requests), Some(batcher)) => {
                requests.into_iter().for_each(|r| batcher.add(r))
            }
            // Who asks is told by the handler that this model writes no text.
            (Job::Write(_), None) => {}
            (Job::Embed(embed), _) => self.embeds.push_back(embed),
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

    /// One text's vector.
    fn embed(&mut self) -> bool {
        let Some(mut embed) = self.embeds.pop_front() else { return false };
        if embed.reply.is_closed() {
            return true;
        }
        let Some(text) = embed.texts.pop_front() else {
            let _ = embed.reply.send(Ok(embed.vectors));
            return true;
        };
        match self.embedder.embed(&text) {
            Ok(vector) => {
                embed.vectors.push(vector);
                self.embeds.push_back(embed);
            }
            // The pass was stopped for another client that had gone.
            Err(Error::Interrupted) if !self.server.is_cut() => {
                embed.texts.push_front(text);
                self.embeds.push_back(embed);
            }
            Err(error) => {
                let _ = embed.reply.send(Err(ApiError::engine(&error)));
            }
        }
        true
    }

    /// Ends everything.
    fn cut(&mut self) {
        if let Some(batcher) = &mut self.batcher {
            batcher.cut();
        }
        self.embeds.clear();
        while let Ok(job) = self.jobs.try_recv() {
            if let Job::Write(requests) = job {
                requests.into_iter().for_each(|r| r.sink.end(Err(Error::Interrupted)));
            }
        }
    }

    fn tell(&self) {
        let running = self.batcher.as_ref().map_or(0, Batcher::n_running) + self.embeds.len();
        self.server.metrics.running.set(running);
        self.server.metrics.pending.set(self.batcher.as_ref().map_or(0, Batcher::n_pending));
    }
}
