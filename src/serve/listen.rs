//! Connections: accepted, bounded in number and patience, and ended well when the server stops. It knows nothing of requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use super::routes;
use super::server::Server;

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// A pause after a failed accept: there are too many open files, which pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    int: Signal,
    term: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
        })
    }

    /// Waits until the process is told to stop, or told again.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// Accepts connections until the server drains, then waits for those that there are.
pub(super) async fn accept(listener: TcpListener, server: Arc<Server>) {
    let router = routes::router(server.clone());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.draining() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, server) = (router.clone(), server.clone());
                connections.spawn(async move {
                    converse(stream, router, &server).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection. What goes wrong with it is the client's matter: it has gone, or speaks no HTTP.
async fn converse(stream: TcpStream, router: Router, server: &Server) {
    // Tokens are small and should not wait for each other.
    let _ = stream.set_nodelay(true);
    let patience = server.config.patience;
    // A client that takes nothing would keep its connection, and what was said to it, for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = server.draining() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
