//! Who is let in: a model is loaded when somebody asks for it, and others go where there is no room beside it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::offer::Offer;
use super::rooms::{Guest, Room, Rooms, empty, lock};
use crate::engine::Engine;
use crate::serve::error::ApiError;
use crate::serve::server::Server;
use crate::serve::stay::Stay;
use crate::serve::{Config, worker};
use crate::units::Bytes;

/// How often it is looked for models that nobody needs.
const ROUND: Duration = Duration::from_millis(500);

/// A model must get at least so much of the budget, or there is no use in trying.
const LEAST: Bytes = Bytes(64 << 20);

/// The models behind the address.
#[derive(Debug)]
pub(super) struct House {
    /// What has no model: the way in, the page, and whether the end has come.
    pub(super) front: Arc<Server>,
    pub(super) offers: Vec<Offer>,
    pub(super) rooms: Rooms,
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
    /// The model that `name` means.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        (0..self.offers.len()).find(|&i| {
            let offer = &self.offers[i];
            offer.preset.is_called(&offer.name(), name)
        })
    }

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
