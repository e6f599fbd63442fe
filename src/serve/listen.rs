//! Connections: accepted, bounded in number and patience, and ended well when the server stops. It knows nothing of requests, but
//! whether a connection has one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use super::server::Server;

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// Bytes that a connection keeps of what was read and not understood yet: a head is not longer.
const BUFFER: usize = 64 << 10;

/// How often to look for room where there are as many as there may be.
const CROWD_PAUSE: Duration = Duration::from_millis(20);

/// A pause after a failed accept: there are too many open files, which pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the server drains, then waits for those that there are.
pub(super) async fn accept(listener: TcpListener, server: Arc<Server>, router: Router) {
    let mut connections = JoinSet::new();
    let mut seats: Vec<Weak<Seat>> = Vec::new();
    loop {
        while connections.try_join_next().is_some() {}
        seats.retain(|seat| seat.strong_count() > 0);
        let accepted = if connections.len() < MAX_CONNECTIONS {
            tokio::select! {
                accepted = listener.accept() => accepted,
                () = server.draining() => break,
            }
        } else {
            // Who says nothing makes room for others; where all have requests, one of them will end.
            make_room(&seats);
            tokio::select! {
                _ = connections.join_next() => continue,
                () = tokio::time::sleep(CROWD_PAUSE) => continue,
                () = server.draining() => break,
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, server, seat) = (router.clone(), server.clone(), Seat::new());
                seats.push(Arc::downgrade(&seat));
                connections.spawn(async move { converse(stream, router, &server, seat).await });
            }
            Err(_) => {
                make_room(&seats);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Whether a connection has a request that is being answered, or since when it has none.
struct Seat {
    requests: AtomicUsize,
    idle_since: Mutex<Instant>,
    leave: Notify,
}

impl Seat {
    fn new() -> Arc<Seat> {
        let (requests, idle_since) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
        Arc::new(Seat { requests, idle_since, leave: Notify::new() })
    }

    fn idle_since(&self) -> Option<Instant> {
        let idle = self.requests.load(Ordering::Relaxed) == 0;
        idle.then(|| *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lets the connection go that has said nothing for the longest time.
fn make_room(seats: &[Weak<Seat>]) {
    let idle = seats.iter().filter_map(|seat| {
        let seat = seat.upgrade()?;
        Some((seat.idle_since()?, seat))
    });
    if let Some((_, seat)) = idle.min_by_key(|(since, _)| *since) {
        seat.leave.notify_one();
    }
}

/// A request that is being answered on a connection.
struct Busy(Arc<Seat>);

impl Busy {
    fn new(seat: &Arc<Seat>) -> Busy {
        seat.requests.fetch_add(1, Ordering::Relaxed);
        Busy(seat.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The routes, for one connection.
struct Seated {
    routes: TowerToHyperService<Router>,
    seat: Arc<Seat>,
}

impl Service<hyper::Request<Incoming>> for Seated {
    type Response = hyper::Response<SeatedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (busy, answer) = (Busy::new(&self.seat), self.routes.call(request));
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| SeatedBody { body, _busy: busy }))
        })
    }
}

/// A body whose connection is busy until it has gone out.
struct SeatedBody {
    body: axum::body::Body,
    _busy: Busy,
}

impl hyper::body::Body for SeatedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves one connection. What goes wrong with it is the client's matter: it has gone, or speaks no HTTP.
async fn converse(stream: TcpStream, router: Router, server: &Server, seat: Arc<Seat>) {
    // Tokens are small and should not wait for each other.
    let _ = stream.set_nodelay(true);
    let patience = server.config.patience;
    // A client that takes nothing would keep its connection, and what was said to it, for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let routes = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), Seated { routes, seat: seat.clone() });
    tokio::pin!(connection);
    let leave = async {
        loop {
            seat.leave.notified().await;
            // A request may have come meanwhile.
            if seat.idle_since().is_some() {
                return;
            }
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = leave => return,
        () = server.draining() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
