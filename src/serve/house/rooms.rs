//! Who is loaded. One model is loaded at a time; those that nobody asks anything of make room, the one that was asked longest ago
//! first. What is loaded never takes more than the budget, by its plans.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::House;
use super::stay::Stay;
use crate::engine::Engine;
use crate::serve::Config;
use crate::serve::error::ApiError;
use crate::serve::server::Server;
use crate::serve::{LAST_WORDS, worker};
use crate::units::Bytes;

/// How often it is looked for models that nobody needs.
const ROUND: Duration = Duration::from_millis(500);

/// A model must get at least so much of the budget, or there is no use in trying.
const LEAST: Bytes = Bytes(64 << 20);

/// All loaded models.
#[derive(Debug)]
pub(super) struct Rooms {
    budget: Bytes,
    idle: Duration,
    taken: Mutex<Vec<Room>>,
    /// Held by whoever loads, or lets go.
    loading: tokio::sync::Mutex<()>,
    /// Told when a guest leaves.
    left: Arc<Notify>,
}

/// A loaded model.
#[derive(Debug)]
struct Room {
    which: usize,
    server: Arc<Server>,
    /// What its plan takes.
    bytes: Bytes,
    /// Whether a GPU computes.
    gpu: bool,
    /// Requests that are being answered.
    guests: Arc<AtomicUsize>,
    /// When somebody last came or went.
    used: Arc<Mutex<Instant>>,
    /// When it goes, if nobody asks: `None` is never.
    stay: Option<Duration>,
    ended: oneshot::Receiver<()>,
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

    fn lock(&self) -> MutexGuard<'_, Vec<Room>> {
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
    fn take_idle(&self, may_go: impl Fn(&Room) -> bool) -> Option<Room> {
        let mut taken = self.lock();
        let idle = |room: &Room| room.guests.load(Ordering::Acquire) == 0 && may_go(room);
        let at =
            (0..taken.len()).filter(|&i| idle(&taken[i])).min_by_key(|&i| *lock(&taken[i].used))?;
        Some(taken.remove(at))
    }

    /// What is not taken.
    fn free(&self) -> Bytes {
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

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a model's worker, which gives its memory back.
async fn empty(room: Room) {
    room.server.drain();
    room.server.cut();
    let _ = tokio::time::timeout(LAST_WORDS, room.ended).await;
}

/// Lets models go that nobody has asked for as long as they stay.
pub(super) async fn reap(house: Arc<House>) {
    let mut rounds = tokio::time::interval(ROUND);
    loop {
        rounds.tick().await;
        let Ok(_turn) = house.rooms.loading.try_lock() else { continue };
        let old = |room: &Room| room.stay.is_some_and(|stay| lock(&room.used).elapsed() >= stay);
        while let Some(room) = house.rooms.take_idle(old) {
            empty(room).await;
        }
    }
}

impl House {
    /// Enters the room of a model, which is loaded first if it must be.
    ///
    /// # Errors
    ///
    /// It cannot be loaded, or there is no room for it beside those that must stay.
    pub(super) async fn enter(&self, which: usize, stay: Stay) -> Result<Guest, ApiError> {
        let rooms = &self.rooms;
        if let Some(guest) = rooms.guest(which, stay) {
            return Ok(guest);
        }
        let _turn = rooms.loading.lock().await;
        // It may have been loaded for somebody else meanwhile.
        if let Some(guest) = rooms.guest(which, stay) {
            return Ok(guest);
        }
        if let Some(failed) = rooms.take_idle(|room| room.which == which) {
            empty(failed).await;
        }
        let offer = self.offers[which].clone();
        let (need, budget) = (offer.need, rooms.budget);
        let need = tokio::task::spawn_blocking(move || need(budget)).await.ok().flatten();
        self.make_way(need.unwrap_or(budget).min(budget)).await?;
        self.load(which, rooms.free()).await?;
        rooms.guest(which, stay).ok_or_else(|| ApiError::unavailable("the model has ended"))
    }

    /// Lets others go until `need` is free. Those that are asked something are waited for.
    async fn make_way(&self, need: Bytes) -> Result<(), ApiError> {
        let rooms = &self.rooms;
        loop {
            // Heard from before it is looked, so that nobody leaves unseen.
            let left = rooms.left.notified();
            let others_on_gpu = rooms.lock().iter().any(|room| room.gpu);
            if rooms.free() >= need && !others_on_gpu {
                return Ok(());
            }
            if let Some(room) = rooms.take_idle(|room| room.stay.is_some()) {
                empty(room).await;
            } else if rooms.lock().iter().all(|room| room.stay.is_none()) {
                // Only those that always stay: what they leave must do.
                let free = rooms.free();
                let what = "there is no memory beside the models that stay";
                return if free >= LEAST { Ok(()) } else { Err(ApiError::unavailable(what)) };
            } else {
                let _ = tokio::time::timeout(ROUND, left).await;
            }
        }
    }

    async fn load(&self, which: usize, ram: Bytes) -> Result<(), ApiError> {
        let offer = self.offers[which].clone();
        let config = Config { preset: offer.preset.clone(), ..self.front.config.clone() };
        let server = Arc::new(Server::new(config, self.front.address));
        let name = offer.name();
        let failed =
            |why: String| ApiError::internal(format!("model '{name}' cannot be loaded: {why}"));
        let open = offer.open;
        let started = worker::start(server.clone(), move || open(ram));
        let started = started.map_err(|error| failed(format!("{error:#}")))?;
        let engine: Engine = match started.loaded.await {
            Ok(Ok(engine)) => engine,
            Ok(Err(error)) => return Err(failed(format!("{error:#}"))),
            Err(_) => return Err(failed("its worker ended".to_owned())),
        };
        let plan = engine.plan();
        self.rooms.lock().push(Room {
            which,
            server,
            bytes: plan.memory.peak(),
            gpu: plan.gpu.is_some(),
            guests: Arc::default(),
            used: Arc::new(Mutex::new(Instant::now())),
            stay: Some(self.rooms.idle),
            ended: started.ended,
        });
        Ok(())
    }
}
