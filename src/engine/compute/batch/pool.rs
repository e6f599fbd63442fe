//! Choosing tokens that takes long: a grammar may take seconds to say what it allows, and other texts must not wait for that. A few
//! threads do it in slices of time, those first that had the least. They know nothing of batches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::loaded::Loaded;
use crate::ggml::{self, Sampler, Token};
use crate::os::process;

/// Threads that choose, at most.
const THREADS: usize = 2;
/// How long one text has a thread, while others wait for it.
const SLICE: Duration = Duration::from_millis(5);
/// By how much other threads go before them.
const NICE: i32 = 5;

/// A token that is to be chosen.
#[derive(Debug)]
pub(super) struct Task {
    /// The text's number.
    pub(super) born: u64,
    pub(super) sampler: Sampler,
    pub(super) logits: Vec<f32>,
    /// Whether a token was drawn already that the grammar does not allow.
    pub(super) guessed: bool,
    /// Gone where nobody wants the token any more.
    pub(super) wanted: Weak<()>,
    /// What the sampler looks into: dropped after it.
    pub(super) loaded: Arc<Loaded>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Thought {
    /// The text's number.
    pub(super) born: u64,
    /// With the sampler, which has accepted the token.
    pub(super) token: Result<(Token, Sampler), ggml::Error>,
}

/// The threads, what waits for them, and what they have done.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    n_threads: usize,
    done: Receiver<Thought>,
    tell: Sender<Thought>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the time that it had.
    tasks: Vec<(Duration, Task)>,
    /// Whether nobody wants anything any more.
    over: bool,
}

impl Pool {
    pub(super) fn new() -> Pool {
        let (tell, done) = channel();
        Pool { shared: Arc::default(), n_threads: 0, done, tell }
    }

    /// Has a token chosen.
    pub(super) fn think(&mut self, task: Task) {
        self.shared.lock().tasks.push((Duration::ZERO, task));
        if self.n_threads < THREADS {
            let (shared, tell) = (self.shared.clone(), self.tell.clone());
            let thread = thread::Builder::new().name("choose".to_owned());
            // Without one thread more, those that there are do it.
            self.n_threads += usize::from(thread.spawn(move || shared.work(&tell)).is_ok());
        }
        if self.n_threads == 0 {
            while self.shared.slice(&self.tell) {}
        }
        self.shared.news.notify_one();
    }

    /// What was chosen, if there is something before `until`.
    pub(super) fn thought(&self, until: Instant) -> Option<Thought> {
        self.done.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.news.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's work, until it is over.
    fn work(&self, tell: &Sender<Thought>) {
        // Where it is not allowed, they are as important as the others.
        process::step_back(NICE);
        loop {
            let idle = |state: &mut State| state.tasks.is_empty() && !state.over;
            let state = self.news.wait_while(self.lock(), idle);
            if state.unwrap_or_else(PoisonError::into_inner).over {
                return;
            }
            self.slice(tell);
        }
    }

    /// Gives one task a slice of time. False if there is none.
    fn slice(&self, tell: &Sender<Thought>) -> bool {
        let Some((spent, mut task)) = self.lock().take() else { return false };
        if task.wanted.strong_count() == 0 {
            return true;
        }
        let begun = Instant::now();
        let panicked = |_| Err(ggml::Error::Failed { what: "choosing a token" });
        let token = catch_unwind(AssertUnwindSafe(|| task.go_on())).unwrap_or_else(panicked);
        match token.transpose() {
            None => {
                self.lock().tasks.push((spent + begun.elapsed(), task));
                self.news.notify_one();
            }
            Some(token) => {
                let Task { born, sampler, loaded, .. } = task;
                // Whoever asked may have gone: then nobody needs to know.
                let _ = tell.send(Thought { born, token: token.map(|token| (token, sampler)) });
                drop(loaded);
            }
        }
        true
    }
}

impl State {
    /// The task that had the least time.
    fn take(&mut self) -> Option<(Duration, Task)> {
        let least = (0..self.tasks.len()).min_by_key(|&i| self.tasks[i].0)?;
        Some(self.tasks.remove(least))
    }
}

impl Task {
    /// Goes on for a slice; the token once there is one, accepted.
    fn go_on(&mut self) -> Result<Option<Token>, ggml::Error> {
        let token = match std::mem::replace(&mut self.guessed, true) {
            false => self.sampler.guess(&self.logits)?,
            true => self.sampler.search(&self.logits, SLICE)?,
        };
        if let Some(token) = token {
            self.sampler.accept(token)?;
        }
        Ok(token)
    }
}
