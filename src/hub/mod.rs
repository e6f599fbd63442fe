//! Downloads models from the Hugging Face hub into its cache, where every tool finds them. The only room that knows the network.
//! It runs no model and prints nothing.
//!
//! Reading order: `name` says what was asked for, `api` asks the hub what there is, `choose` picks the files, `store` is the
//! cache, `download` brings one file there: resumed, checked, and complete or not at all.

mod api;
mod choose;
mod download;
mod error;
mod name;
mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

pub use error::Error;
pub use name::Wanted;

use api::Hub;
use store::Store;

use crate::models::places;
use crate::units::Bytes;

/// Where the hub is, if nobody says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// A token is no longer than this. (bytes)
const MAX_TOKEN: u64 = 4096;
/// Room on the disk that a download leaves.
const SPARE: Bytes = Bytes(64 << 20);

/// What a download is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The hub's address.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<String>,
    /// The cache that files go to.
    pub cache: PathBuf,
}

/// How far a download is. Shared with whoever draws it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that are there, of this file.
    done: AtomicU64,
    /// Bytes of this file.
    total: AtomicU64,
    /// Bytes that came over the network.
    fetched: AtomicU64,
    /// What is being done.
    step: Mutex<String>,
}

/// A model that was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// What it is called from now on: `org/repo:Q4_K_M`.
    pub name: String,
    /// Its file; the first of a split model.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub size: Bytes,
    /// Bytes that came over the network this time.
    pub fetched: Bytes,
    /// Whether its content was compared with what the hub says of it.
    pub checked: bool,
    /// What the user should know.
    pub remarks: Vec<String>,
}

impl Options {
    /// As the hub's own tools are told: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and their like.
    ///
    /// # Errors
    ///
    /// No place for the cache, or a token that cannot be sent.
    pub fn from_env() -> Result<Options, Error> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let token = var("HF_TOKEN").or_else(|| var("HUGGING_FACE_HUB_TOKEN")).or_else(token_file);
        let token = token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::Token);
        }
        let cache = places::hub_cache().ok_or(Error::NoCache)?;
        Ok(Options { endpoint: endpoint.trim().trim_end_matches('/').to_owned(), token, cache })
    }
}

fn token_file() -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = fs::File::open(places::hub_token_file()?).ok()?;
    file.take(MAX_TOKEN).read_to_string(&mut text).ok()?;
    Some(text)
}

impl Progress {
    /// Bytes that are there, and all, of the file under way.
    pub fn bytes(&self) -> (Bytes, Bytes) {
        (Bytes(self.done.load(Ordering::Relaxed)), Bytes(self.total.load(Ordering::Relaxed)))
    }

    /// Bytes that came over the network so far.
    pub fn fetched(&self) -> Bytes {
        Bytes(self.fetched.load(Ordering::Relaxed))
    }

    /// What is being done.
    pub fn step(&self) -> String {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_step(&self, what: impl Into<String>) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    fn begin(&self, total: Bytes) {
        self.total.store(total.0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn set_done(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    fn add_fetched(&self, n: u64) {
        self.fetched.fetch_add(n, Ordering::Relaxed);
    }
}

/// Downloads what `wanted` names, unless it is there. `free` says how much room the disk of a directory has, if the system tells.
///
/// # Errors
///
/// What the hub, the network or the disk says no to. What was downloaded is kept, and the next call goes on with it.
pub fn pull(
    wanted: &Wanted,
    options: &Options,
    free: &dyn Fn(&Path) -> Option<Bytes>,
    progress: &Progress,
) -> Result<Pulled, Error> {
    let hub = Hub::new(options);
    progress.set_step(format!("asking {} for {}", options.endpoint, wanted.repo));
    let commit = hub.commit(wanted)?;
    let files = hub.files(&wanted.repo, &commit)?;
    let choice = choose::choose(wanted, files)?;
    let store = Store::new(&options.cache, &wanted.repo);
    let missing: Bytes = choice.files.iter().map(|f| store.missing(f)).sum();
    if let Some(free) = free(&options.cache)
        && missing > Bytes::ZERO
        && missing + SPARE > free
    {
        return Err(Error::Space { dir: options.cache.clone(), missing, free });
    }
    let mut remarks = choice.remarks;
    for (file, number) in choice.files.iter().zip(1..) {
        let part = match choice.files.len() {
            1 => String::new(),
            n => format!(" ({number} of {n})"),
        };
        progress.set_step(format!("{}{part}", file.name()));
        progress.begin(file.size);
        download::fetch(&hub, wanted, &commit, file, &store, progress)?;
        if file.sha256.is_none() {
            remarks.push(format!(
                "the hub knows no checksum of {}: only its length was checked",
                file.name()
            ));
        }
    }
    // The links come last: a model that has a name is complete.
    let paths: Result<Vec<_>, _> = choice.files.iter().map(|f| store.link(&commit, f)).collect();
    let paths = paths?;
    store.name_commit(&wanted.revision, &commit)?;
    let size = choice.files.iter().map(|f| f.size).sum();
    let path =
        paths.into_iter().next().ok_or(Error::NoGguf { repo: wanted.repo.clone(), other: None })?;
    let checked = choice.files.iter().all(|f| f.sha256.is_some());
    Ok(Pulled { checked, name: choice.name, path, size, fetched: progress.fetched(), remarks })
}
