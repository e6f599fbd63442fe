//! The worker: the thread that owns the model's context. It takes jobs from the queue while there is room, and computes all that
//! run, together. When it ends, for whatever reason, everybody who waits for it is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::error::ApiError;
use super::job::{Embed, Job};
use super::server::{Served, Server};
use crate::engine::batch::{Batcher, Vector};
use crate::engine::embed::{Embedder, Wanted, normalised};
use crate::engine::{Engine, Error};

/// How long to wait where all texts wait for their listeners.
const PAUSE: Duration = Duration::from_millis(2);

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
    open: impl FnOnce() -> anyhow::Result<Engine> + Send + 'static,
) -> anyhow::Result<Started> {
    let (tell, loaded) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let work = move || {
        // Dropped last, also where a panic ends this thread.
        let _end = End { server: server.clone(), _tell: end };
        let (engine, served, batcher) = match load(&server, open) {
            Ok(loaded) => loaded,
            // Whoever started the server may have gone: then nobody needs to know.
            Err(error) => return drop(tell.send(Err(error))),
        };
        server.serve(served);
        let embedder = Embedder::new(&engine);
        let worker = Worker { server, batcher, embedder, embeds: VecDeque::new(), learned: None };
        let _ = tell.send(Ok(engine));
        worker.work();
    };
    thread::Builder::new()
        .name("worker".to_owned())
        .spawn(work)
        .context("cannot start the worker")?;
    Ok(Started { loaded, ended })
}

/// The end of the worker, which is told by being dropped.
struct End {
    server: Arc<Server>,
    _tell: oneshot::Sender<()>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.server.queue.end();
    }
}

type Loaded = (Engine, Served, Option<Batcher>);

/// Loads the model and makes its context; one for vectors only has none.
fn load(server: &Server, open: impl FnOnce() -> anyhow::Result<Engine>) -> anyhow::Result<Loaded> {
    let engine = open()?;
    let mut batcher = if engine.writes_text() { Some(engine.batcher()?) } else { None };
    if let Some(batcher) = &mut batcher {
        batcher.give_up_after(server.config.patience);
        batcher.keep_on(engine.shelf(server.config.prompt_cache));
    }
    let served = Served::new(engine.clone(), &server.config)?;
    Ok((engine, served, batcher))
}

/// How often to look at what passes took, at most.
const LESSON: Duration = Duration::from_secs(60);

/// Requests for vectors that are under way at a time.
const MAX_EMBEDS: usize = 16;

struct Worker {
    server: Arc<Server>,
    batcher: Option<Batcher>,
    embedder: Embedder,
    /// Requests for vectors take turns.
    embeds: VecDeque<Embed>,
    /// When the passes were last looked at.
    learned: Option<Instant>,
}

impl Worker {
    fn work(mut self) {
        loop {
            if !self.is_busy() && !self.server.is_cut() {
                self.tell();
                self.learn();
                self.server.queue.wait();
            }
            if self.server.is_cut() {
                return self.cut();
            }
            self.take_jobs();
            // A first prompt may take minutes: whoever looks meanwhile shall see that something runs.
            self.tell_before();
            let wrote = self.write();
            let embedded = self.embed();
            self.tell();
            if !wrote && !embedded && self.is_busy() {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Passes tell how fast the machine is; now and then, that is kept.
    fn learn(&mut self) {
        if self.learned.is_none_or(|at| at.elapsed() > LESSON) {
            self.learned = Some(Instant::now());
            self.server.model().iter().for_each(|served| served.engine.learn());
            self.batcher.iter_mut().for_each(Batcher::remember_drafts);
        }
    }

    fn is_busy(&self) -> bool {
        let writing = self.batcher.as_ref().is_some_and(|b| b.n_running() + b.n_pending() > 0);
        writing || !self.embeds.is_empty()
    }

    /// Takes jobs from the queue, as many as there is room for.
    fn take_jobs(&mut self) {
        loop {
            let may_write = self.batcher.as_ref().is_none_or(Batcher::has_room);
            let may_embed = self.embeds.len() < MAX_EMBEDS;
            let fits = |job: &Job| match job {
                Job::Write(_) => may_write,
                Job::Embed(_) => may_embed,
                #[cfg(test)]
                Job::Fail => true,
            };
            match self.server.queue.pop(fits) {
                None => return,
                Some(Job::Embed(embed)) => self.embeds.push_back(embed),
                // Who asks a model for vectors to write is told by the handler that it does not.
                Some(Job::Write(requests)) => {
                    if let Some(batcher) = &mut self.batcher {
                        requests.into_iter().for_each(|request| batcher.add(request));
                    }
                }
                #[cfg(test)]
                Some(Job::Fail) => panic!("as if by a fault of ours"),
            }
        }
    }

    /// One batch of tokens.
    fn write(&mut self) -> bool {
        let Some(batcher) = &mut self.batcher else { return false };
        let begin = Instant::now();
        self.server.metrics.pass.begin(begin);
        let stepped = batcher.step();
        self.server.metrics.pass.end();
        let tally = batcher.take_tally();
        self.server.metrics.count(&tally);
        // Texts whose tokens take long to choose go on without a pass, too.
        if tally.texts > 0 {
            self.server.metrics.stepped(&tally, begin.elapsed());
        }
        stepped
    }

    /// Some of a vector, or all of it where a model makes it at once.
    fn embed(&mut self) -> bool {
        // Those whose client has gone cost nobody a turn.
        while self.embeds.pop_front_if(|embed| embed.reply.is_closed()).is_some() {
            self.batcher.iter_mut().for_each(Batcher::drop_vector);
        }
        let Some(mut embed) = self.embeds.pop_front() else { return false };
        let Some(text) = embed.texts.pop_front() else {
            let _ = embed.reply.send(Ok(embed.vectors));
            return true;
        };
        let vector = match &mut self.batcher {
            Some(batcher) => batcher.embed(&text),
            None => self.embedder.embed(&text, embed.wanted).map(Vector::Done),
        };
        match vector {
            Ok(Vector::Done(vector)) => {
                let is_vector = embed.wanted == Wanted::Vector;
                embed.vectors.push(if is_vector { normalised(vector) } else { vector });
                self.embeds.push_back(embed);
            }
            Ok(vector) => {
                embed.texts.push_front(text);
                self.embeds.push_front(embed);
                return vector != Vector::Waits;
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
    fn cut(mut self) {
        if let Some(batcher) = &mut self.batcher {
            batcher.cut();
        }
        let interrupted = || Err(ApiError::engine(&Error::Interrupted));
        for embed in self.embeds.drain(..) {
            let _ = embed.reply.send(interrupted());
        }
        while let Some(job) = self.server.queue.pop(|_| true) {
            match job {
                Job::Write(requests) => {
                    requests.into_iter().for_each(|r| r.sink.end(Err(Error::Interrupted)));
                }
                Job::Embed(embed) => drop(embed.reply.send(interrupted())),
                #[cfg(test)]
                Job::Fail => {}
            }
        }
    }

    /// Texts that are about to get a place count as running.
    fn tell_before(&self) {
        let Some(batcher) = &self.batcher else { return };
        let all = batcher.n_running() + batcher.n_pending();
        let running = all.min(batcher.n_places());
        self.server.metrics.running.set(running + self.embeds.len());
        self.server.metrics.pending.set(all - running);
    }

    fn tell(&self) {
        let running = self.batcher.as_ref().map_or(0, Batcher::n_running) + self.embeds.len();
        self.server.metrics.running.set(running);
        self.server.metrics.pending.set(self.batcher.as_ref().map_or(0, Batcher::n_pending));
    }
}
