//! `airrun serve`: the engine behind HTTP, in the words of OpenAI's clients and of Ollama's. HTTP threads read and check
//! requests; one worker thread owns the model's context and computes all of them together (`engine::batch`), so that they share every pass over
//! the weights. It prints nothing: what there is to say goes to the caller.
//!
//! `listen` accepts connections, `guard` lets requests in, `openai` and `ollama` translate, `ask` and `prompt` make prompts of
//! conversations, `worker` computes, `resume` keeps
//! answers for clients that come back, `live` and `metrics` tell what goes on, `page` is what a browser sees.

mod answers;
mod anthropic;
mod ask;
mod asked;
mod blocks;
mod embeddings;
mod error;
mod fields;
mod fit;
mod guard;
mod house;
mod job;
mod kept;
mod listen;
mod live;
mod log;
mod memory;
mod metrics;
mod native;
mod ollama;
mod openai;
mod order;
mod page;
mod preset;
mod prompt;
mod queue;
mod rerank;
mod responses;
mod resume;
mod routes;
mod server;
mod settings;
mod stay;
#[cfg(test)]
mod tests;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::os::process;
use crate::os::signals::Stops;
use crate::units::Bytes;
use error::Protocol;
pub use house::{Household, Offer};
pub use log::{Line, Log};
pub use ollama::{Download, Puller};
pub use preset::Preset;
pub use responses::Store as ResponseStore;
use server::Server;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where a line goes for each request, if anywhere.
    pub log: Option<Log>,
    /// The address to listen on.
    pub host: IpAddr,
    /// The port; 0 picks a free one.
    pub port: u16,
    /// Requests that may wait.
    pub queue: usize,
    /// What clients must show.
    pub api_key: Option<String>,
    /// Names of this machine by which it may be called.
    pub host_names: Vec<String>,
    /// The origin (or `*`) whose pages may call.
    pub cors: Option<String>,
    /// The model's names, and what holds where a request says nothing.
    pub preset: Preset,
    /// Whether requests may bring grammars of their own.
    pub grammars: bool,
    /// How much of long prompts is kept on disk, at most.
    pub prompt_cache: Bytes,
    /// Downloads models, if clients may have that done.
    pub pull: Option<Puller>,
    /// Where responses are remembered that others go on from.
    pub responses: ResponseStore,
    /// The largest request.
    pub max_body: Bytes,
    /// What all requests together may take while they are read.
    pub memory: Bytes,
    /// How long running answers may go on when the server is told to stop.
    pub grace: Duration,
    /// How long an answer goes on without its client, if that has asked for it.
    pub linger: Duration,
    /// How long a client may send nothing of a request, or take nothing of an answer.
    pub patience: Duration,
    /// How often a client is told that its answer is still to come, while nothing of it does.
    pub ping: Duration,
}

/// What there is to say while serving.
#[derive(Debug)]
pub enum News<'a> {
    /// Connections are accepted at this address; the model is being loaded.
    Listening(SocketAddr),
    /// The model is loaded: requests are answered.
    Ready(&'a Engine),
    /// Told to stop: running answers get some time.
    Stopping,
}

/// Serves until the process is told to stop (SIGINT, SIGTERM). `open` loads the model, on a thread of its own, while `/health` says
/// that it is being loaded.
///
/// # Errors
///
/// The address cannot be listened on, or the model cannot be loaded.
pub fn run(
    config: Config,
    open: impl FnOnce() -> anyhow::Result<Engine> + Send + 'static,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(serve(config, open, tell));
    // Connections that nobody reads from are not worth waiting for.
    runtime.shutdown_background();
    result
}

/// As [`run`], for many models, each of which is loaded when somebody asks for it.
///
/// # Errors
///
/// The address cannot be listened on.
pub fn run_many(
    config: Config,
    household: Household,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let (listener, address) = listen(&config).await?;
        house::attend(config, address, household, listener, tell).await
    });
    runtime.shutdown_background();
    result
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(HTTP_THREADS).thread_name("http").enable_all();
    builder.build().context("cannot start the threads that serve")
}

async fn listen(config: &Config) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let address = SocketAddr::new(config.host, config.port);
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on '{address}'"))?;
    let address = listener.local_addr().context("cannot tell the port")?;
    Ok((listener, address))
}

/// Reads `body` as a request to each path that takes one, without a model: nothing but whether that ends well can be seen.
pub fn try_body(body: &[u8]) {
    let Ok(map) = fields::parse(body) else { return };
    let fields = fields::Fields::of(&map);
    let preset = &Preset::default();
    // Whether it is refused does not matter here.
    let _ = (openai::read_chat(&map, preset), openai::read_completion(&map, preset));
    let _ = (ollama::read(&map, preset), native::read(&map, preset));
    let _ = (anthropic::read(&map, preset), responses::read(&map, preset));
    let _ = [Protocol::OpenAi, Protocol::Ollama].map(|protocol| ask::ask(fields, protocol));
}

/// Threads that speak HTTP: they only parse and copy.
const HTTP_THREADS: usize = 2;

async fn serve(
    config: Config,
    open: impl FnOnce() -> anyhow::Result<Engine> + Send + 'static,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> anyhow::Result<()> {
    let (listener, address) = listen(&config).await?;
    attend(Arc::new(Server::new(config, address)), listener, open, tell).await
}

/// Runs the worker of `server` and answers at `listener`, until the process is told to stop or the worker fails.
async fn attend(
    server: Arc<Server>,
    listener: TcpListener,
    open: impl FnOnce() -> anyhow::Result<Engine> + Send + 'static,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> anyhow::Result<()> {
    let mut signals = Stops::new().context("cannot listen for signals")?;
    tell(News::Listening(server.address));
    let mut worker = worker::start(server.clone(), open)?;
    tokio::spawn(server.memory.clone().give_back());
    let connections = tokio::spawn(listen::accept(
        listener,
        server.clone(),
        routes::forgiving(routes::router(server.clone())),
    ));
    tokio::select! {
        // Nothing runs that could end well.
        () = signals.wait() => exit_now(),
        loaded = worker.loaded => match loaded {
            Ok(Ok(engine)) => tell(News::Ready(&engine)),
            Ok(Err(error)) => return Err(error),
            Err(_) => anyhow::bail!("the worker ended before the model was loaded"),
        },
    }
    let failed = tokio::select! {
        () = signals.wait() => false,
        _ = &mut worker.ended => true,
    };
    if !failed {
        tell(News::Stopping);
    }
    server.drain();
    // Where nothing is computed any more, there is nothing to wait for but what is being said.
    let grace = if failed { Duration::ZERO } else { server.config.grace };
    tokio::select! {
        () = signals.wait() => exit_now(),
        () = finish(&server, grace, connections, (!failed).then_some(worker.ended)) => {}
    }
    // Whoever watches over this process is to start another.
    anyhow::ensure!(!failed, queue::ENDED);
    Ok(())
}

/// Ends the process without destructors: other threads are computing.
fn exit_now() {
    process::exit_now(INTERRUPTED);
}

/// The exit code of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// Waits until all connections have ended; after `grace`, cuts the running answers short so that they do. Then the worker ends, too.
async fn finish(
    server: &Server,
    grace: Duration,
    mut connections: JoinHandle<()>,
    worker: Option<oneshot::Receiver<()>>,
) {
    let in_time = tokio::time::timeout(grace, &mut connections).await.is_ok();
    server.cut();
    if !in_time {
        let _ = tokio::time::timeout(LAST_WORDS, connections).await;
    }
    if let Some(worker) = worker {
        let _ = tokio::time::timeout(LAST_WORDS, worker).await;
    }
}

/// How long streams that were cut short get to say so: a step may be waiting for a busy disk.
const LAST_WORDS: Duration = Duration::from_secs(15);
