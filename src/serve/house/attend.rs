//! The household as a whole: from the first connection to the last model that goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::front;
use super::keeper::{self, House};
use super::offer::Household;
use super::rooms::Rooms;
use crate::os::signals::Stops;
use crate::serve::server::Server;
use crate::serve::{Config, LAST_WORDS, News, exit_now, listen, routes};

/// Serves `household` at `listener` until the process is told to stop.
///
/// # Errors
///
/// Signals cannot be heard.
pub(in crate::serve) async fn attend(
    config: Config,
    address: SocketAddr,
    household: Household,
    listener: TcpListener,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> anyhow::Result<()> {
    let mut signals = Stops::new()?;
    let grace = config.grace;
    let front = Arc::new(Server::new(config, address));
    let Household { offers, budget, idle } = household;
    let house = Arc::new(House { front: front.clone(), offers, rooms: Rooms::new(budget, idle) });
    tell(News::Listening(address));
    tokio::spawn(front.memory.clone().give_back());
    let connections = tokio::spawn(listen::accept(
        listener,
        front.clone(),
        routes::forgiving(front::router(&house)),
    ));
    let reaper = tokio::spawn(keeper::reap(house.clone()));
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
        let _ = tokio::time::timeout(LAST_WORDS, connections).await;
    }
    house.rooms.close().await;
}
