//! Who is loaded. One model is loaded at a time; those that nobody asks anything of make room, the one that was asked longest ago
//! first. What is loaded never takes more than the budget, by its plans.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::serve::LAST_WORDS;
use crate::serve::server::Server;
use crate::serve::stay::Stay;
use crate::units::Bytes;

/// All loaded models.
#[derive(Debug)]
pub(super) struct Rooms {
    pub(super) budget: Bytes,
    pub(super) idle: Duration,
    taken: Mutex<Vec<Room>>,
    /// Held by whoever loads, or lets go.
    pub(super) loading: tokio::sync::Mutex<()>,
    /// Told when a guest leaves.
    pub(super) left: Arc<Notify>,
}

/// A loaded model.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) which: usize,
    pub(super) server: Arc<Server>,
    /// What its plan takes.
    pub(super) bytes: Bytes,
    /// Whether a GPU computes.
    pub(super) gpu: bool,
    /// Requests that are being answered.
    pub(super) guests: Arc<AtomicUsize>,
    /// When somebody last came or went.
    pub(super) used: Arc<Mutex<Instant>>,
    /// When it goes, if nobody asks: `None` is never.
    pub(super) stay: Option<Duration>,
    pub(super) ended: oneshot::Receiver<()>,
}

/// A request that is being answered by a model, which stays as long as this does.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) server: Arc<Server>,
    guests: Arc<AtomicUsize>,
    used: Arc<Mutex<Instant>>,
    left: Arc<Notify>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        *lock(&self.used) = Instant::now();
        self.guests.fetch_sub(1, Ordering::AcqRel);
        self.left.notify_waiters();
    }
}

/// What is told of a loaded model.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) which: usize,
    pub(super) server: Arc<Server>,
    pub(super) bytes: Bytes,
    /// Seconds until it goes, if nobody asks.
    pub(super) left: Option<Duration>,
}

impl Rooms {
    pub(super) fn new(budget: Bytes, idle: Duration) -> Rooms {
        let (taken, loading, left) =
            (Mutex::default(), tokio::sync::Mutex::new(()), Arc::default());
        Rooms { budget, idle, taken, loading, left }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Room>> {
        lock(&self.taken)
    }

    /// The servers of all loaded models.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.lock().iter().map(|room| room.server.clone()).collect()
    }

    /// All loaded models.
    pub(super) fn loaded(&self) -> Vec<Loaded> {
        let told = |room: &Room| Loaded {
            which: room.which,
            server: room.server.clone(),
            bytes: room.bytes,
            left: room.stay.map(|stay| stay.saturating_sub(lock(&room.used).elapsed())),
        };
        self.lock().iter().map(told).collect()
    }

    /// The model that was asked last, if it is loaded.
    pub(super) fn latest(&self) -> Option<usize> {
        self.lock().iter().max_by_key(|room| *lock(&room.used)).map(|room| room.which)
    }

    /// Enters the room of `which`, if it is loaded.
    pub(super) fn guest(&self, which: usize, stay: Stay) -> Option<Guest> {
        let mut taken = self.lock();
        // A worker that failed leaves a room that is of no use.
        let room = taken.iter_mut().find(|r| r.which == which && !r.server.queue.has_ended())?;
        *lock(&room.used) = Instant::now();
        match stay {
            Stay::AsBefore => {}
            Stay::AsUsual => room.stay = room.stay.and(Some(self.idle)),
            Stay::For(time) => room.stay = Some(time),
            Stay::Always => room.stay = None,
        }
        room.guests.fetch_add(1, Ordering::AcqRel);
        let (server, guests) = (room.server.clone(), room.guests.clone());
        Some(Guest { server, guests, used: room.used.clone(), left: self.left.clone() })
    }

    /// Takes a room that nobody is in out of the list, the one that was used longest ago first.
    pub(super) fn take_idle(&self, may_go: impl Fn(&Room) -> bool) -> Option<Room> {
        let mut taken = self.lock();
        let idle = |room: &Room| room.guests.load(Ordering::Acquire) == 0 && may_go(room);
        let at =
            (0..taken.len()).filter(|&i| idle(&taken[i])).min_by_key(|&i| *lock(&taken[i].used))?;
        Some(taken.remove(at))
    }

    /// What is not taken.
    pub(super) fn free(&self) -> Bytes {
        let taken = self.lock().iter().fold(Bytes::ZERO, |sum, room| sum + room.bytes);
        self.budget.saturating_sub(taken)
    }

    /// Lets all models go.
    pub(super) async fn close(&self) {
        let rooms = std::mem::take(&mut *self.lock());
        for room in rooms {
            empty(room).await;
        }
    }
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a model's worker, which gives its memory back.
pub(super) async fn empty(room: Room) {
    room.server.drain();
    room.server.cut();
    let _ = tokio::time::timeout(LAST_WORDS, room.ended).await;
    // What it had of the heap is the system's again, and not the next one's beside its own.
    let _ = tokio::task::spawn_blocking(crate::heap::give_back).await;
}
