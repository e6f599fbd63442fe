//! The queue: what clients wait for and the worker has not begun. A request takes its places before anything is made of it, and gives
//! them back when the worker begins with it or when its client goes, whichever comes first. It knows nothing of what is computed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::error::ApiError;
use super::job::Job;

/// The places of a queue.
#[derive(Debug)]
struct Places {
    most: usize,
    taken: AtomicUsize,
}

impl Places {
    /// Takes `n` places if they are free. More than there are at all are only to be had when nobody else waits.
    fn take(&self, n: usize, held: usize) -> bool {
        let fits = |taken: usize| (taken + n <= self.most || taken == held).then_some(taken + n);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// Places that a request holds. Clones are the same places.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    places: Arc<Places>,
    n: AtomicUsize,
}

impl Held {
    fn free(&self) {
        let n = self.n.swap(0, Ordering::Relaxed);
        self.places.taken.fetch_sub(n, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free();
    }
}

impl Place {
    /// Gives the places back, whoever else holds this.
    pub(super) fn free(&self) {
        self.0.free();
    }

    /// Takes more, so that there is one for each of `n` texts.
    ///
    /// # Errors
    ///
    /// 429.
    pub(super) fn widen(&self, n: usize) -> Result<(), ApiError> {
        let held = self.0.n.load(Ordering::Relaxed);
        let more = n.saturating_sub(held);
        if !self.0.places.take(more, held) {
            return Err(ApiError::busy());
        }
        self.0.n.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

/// What waits.
#[derive(Debug)]
pub(super) struct Queue {
    places: Arc<Places>,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<(Job, Place)>,
    /// Whether the worker is to look up although there is no job.
    rung: bool,
    /// Whether nobody works any more.
    ended: bool,
}

impl Queue {
    /// One with `most` places.
    pub(super) fn new(most: usize) -> Queue {
        let places = Arc::new(Places { most, taken: AtomicUsize::new(0) });
        Queue { places, state: Mutex::default(), news: Condvar::new() }
    }

    /// A place for a request.
    ///
    /// # Errors
    ///
    /// 429.
    pub(super) fn enter(&self) -> Result<Place, ApiError> {
        if !self.places.take(1, usize::MAX) {
            return Err(ApiError::busy());
        }
        Ok(Place(Arc::new(Held { places: self.places.clone(), n: AtomicUsize::new(1) })))
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        self.places.taken.load(Ordering::Relaxed)
    }

    /// Hands a job to the worker.
    ///
    /// # Errors
    ///
    /// Nobody works any more.
    pub(super) fn push(&self, job: Job, place: Place) -> Result<(), ApiError> {
        let mut state = self.lock();
        if state.ended {
            return Err(ApiError::unavailable(ENDED));
        }
        // Those whose client has gone hold no place, and must not pile up while the worker is busy.
        state.jobs.retain(|(job, _)| !job.is_forsaken());
        state.jobs.push_back((job, place));
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// The first job that `fits`; its places are free then. Jobs whose client has gone are dropped.
    pub(super) fn pop(&self, fits: impl Fn(&Job) -> bool) -> Option<Job> {
        let mut state = self.lock();
        state.jobs.retain(|(job, _)| !job.is_forsaken());
        let at = state.jobs.iter().position(|(job, _)| fits(job))?;
        let (job, place) = state.jobs.remove(at)?;
        place.free();
        Some(job)
    }

    /// Waits until there is a job, or somebody rings.
    pub(super) fn wait(&self) {
        let state = self.lock();
        let idle = |state: &mut State| state.jobs.is_empty() && !state.rung;
        let state = self.news.wait_while(state, idle);
        state.unwrap_or_else(PoisonError::into_inner).rung = false;
    }

    /// Lets the worker look up.
    pub(super) fn ring(&self) {
        self.lock().rung = true;
        self.news.notify_one();
    }

    /// Nobody works any more: what waits is dropped.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
    }

    /// Whether nobody works any more.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said where nobody works any more.
pub(super) const ENDED: &str = "the thread that computes has failed, and the server ends";

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::sync::oneshot;

    use super::super::job::Embed;
    use super::*;

    type Answer = oneshot::Receiver<Result<Vec<Vec<f32>>, ApiError>>;

    fn job() -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        (
            Job::Embed(Embed {
                wanted: crate::engine::embed::Wanted::Vector,
                texts: VecDeque::new(),
                vectors: Vec::new(),
                reply,
            }),
            answer,
        )
    }

    #[test]
    fn places_are_those_of_the_living() {
        let queue = Queue::new(3);
        let places: Vec<Place> = (0..3).map(|_| queue.enter().unwrap()).collect();
        assert_eq!((queue.taken(), queue.enter().unwrap_err().status.as_u16()), (3, 429));
        let (kept, answer) = job();
        queue.push(kept, places[0].clone()).unwrap();
        let (left, gone) = job();
        queue.push(left, places[1].clone()).unwrap();
        // The client goes while the worker is busy: its place is free at once, and its job goes with the next look.
        drop(gone);
        places[1].free();
        places[1].free();
        assert_eq!(queue.taken(), 2);
        let another = queue.enter().unwrap();
        assert!(queue.pop(|_| true).is_some() && queue.pop(|_| true).is_none());
        assert_eq!(queue.taken(), 2);
        drop((places, another, answer));
        assert_eq!(queue.taken(), 0);
    }

    #[test]
    fn every_text_takes_a_place() {
        let queue = Queue::new(4);
        let first = queue.enter().unwrap();
        first.widen(3).unwrap();
        let second = queue.enter().unwrap();
        assert!(second.widen(2).is_err() && queue.taken() == 4);
        drop((first, second));
        // More than there are, but nobody else waits.
        let large = queue.enter().unwrap();
        large.widen(9).unwrap();
        assert!(queue.taken() == 9 && queue.enter().is_err());
        drop(large);
        assert!(queue.taken() == 0 && queue.enter().is_ok());
    }

    #[test]
    fn who_comes_after_the_end_is_told() {
        let queue = Queue::new(4);
        let (waiting, answer) = job();
        queue.push(waiting, queue.enter().unwrap()).unwrap();
        queue.end();
        assert!(answer.blocking_recv().is_err() && queue.taken() == 0);
        let (late, _answer) = job();
        assert_eq!(queue.push(late, queue.enter().unwrap()).unwrap_err().status.as_u16(), 503);
    }
}
