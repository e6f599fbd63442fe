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
mod options;
mod progress;
mod store;

use std::path::{Path, PathBuf};

pub use error::Error;
pub use name::Wanted;
pub use options::Options;
pub use progress::Progress;

use api::Hub;
use store::Store;

use crate::units::Bytes;

/// Room on the disk that a download leaves.
const SPARE: Bytes = Bytes(64 << 20);

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

/// Reads what a hub may say, without asking one: for fuzzing.
pub fn try_list(bytes: &[u8]) {
    api::try_list(bytes);
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
