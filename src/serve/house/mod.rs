//! Many models behind one address: each is loaded when somebody asks for it, and let go when nobody has for a while or another needs
//! its memory. Every loaded model is a [`Server`] of its own with a worker and paths, as if it were the only one; this finds the one that a
//! request means, and answers what concerns all of them (`list`). `rooms` says who is loaded and who must go.

mod front;
mod list;
mod rooms;
mod stay;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::server::Server;
use super::{Config, News, Preset, exit_now, listen};
use crate::engine::{Engine, Index};
use crate::units::Bytes;
use rooms::Rooms;

/// A model that can be asked for.
#[derive(Clone)]
pub struct Offer {
    /// Its names, and what holds where a request says nothing.
    pub preset: Preset,
    /// What is in its file.
    pub index: Arc<Index>,
    /// What it takes where it may take so much. `None` if it cannot be loaded at all, or that is not known.
    pub need: Arc<dyn Fn(Bytes) -> Option<Bytes> + Send + Sync>,
    /// Loads it with so much memory.
    pub open: Arc<dyn Fn(Bytes) -> anyhow::Result<Engine> + Send + Sync>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").field("preset", &self.preset).finish_non_exhaustive()
    }
}

impl Offer {
    /// What clients are told that it is called.
    fn name(&self) -> String {
        let file = self.index.files.first().and_then(|file| file.path.file_stem());
        let stem = file.map(|stem| stem.to_string_lossy().into_owned());
        self.preset.name.clone().or(stem).unwrap_or_else(|| "model".to_owned())
    }
}

/// Which models, and how long they stay.
#[derive(Debug)]
pub struct Household {
    /// The models, of which at least one must be there.
    pub offers: Vec<Offer>,
    /// What all of them may take together.
    pub budget: Bytes,
    /// How long one stays that nobody asks for.
    pub idle: Duration,
}

/// The models behind the address.
#[derive(Debug)]
struct House {
    /// What has no model: the way in, the page, and whether the end has come.
    front: Arc<Server>,
    offers: Vec<Offer>,
    rooms: Rooms,
}

/// Serves `household` at `listener` until the process is told to stop.
///
/// # Errors
///
/// Signals cannot be heard.
pub(super) async fn attend(
    config: Config,
    address: SocketAddr,
    household: Household,
    listener: TcpListener,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> anyhow::Result<()> {
    let mut signals = listen::Signals::new()?;
    let grace = config.grace;
    let front = Arc::new(Server::new(config, address));
    let Household { offers, budget, idle } = household;
    let house = Arc::new(House { front: front.clone(), offers, rooms: Rooms::new(budget, idle) });
    tell(News::Listening(address));
    tokio::spawn(front.memory.clone().give_back());
    let connections = tokio::spawn(listen::accept(listener, front.clone(), front::router(&house)));
    let reaper = tokio::spawn(rooms::reap(house.clone()));
    signals.wait().await;
    tell(News::Stopping);
    reaper.abort();
    front.drain();
    house.rooms.servers().iter().for_each(|server| server.drain());
    tokio::select! {
        () = signals.wait() => exit_now(),
        () = finish(&house, grace, connections) => {}
    }
    Ok(())
}

/// Waits until all connections have ended; after `grace`, cuts the running answers short. Then all models go.
async fn finish(house: &House, grace: Duration, mut connections: tokio::task::JoinHandle<()>) {
    let in_time = tokio::time::timeout(grace, &mut connections).await.is_ok();
    house.rooms.servers().iter().for_each(|server| server.cut());
    if !in_time {
        let _ = tokio::time::timeout(super::LAST_WORDS, connections).await;
    }
    house.rooms.close().await;
}

impl House {
    /// The model that `name` means.
    fn named(&self, name: &str) -> Option<usize> {
        (0..self.offers.len()).find(|&i| {
            let offer = &self.offers[i];
            offer.preset.is_called(&offer.name(), name)
        })
    }
}
