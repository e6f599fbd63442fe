//! Why a model could not be downloaded: one sentence, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::units::Bytes;

/// Why a model could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the name of a repository or a file.
    #[error("model '{name}': {why}")]
    Name {
        /// What was typed.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `HF_TOKEN` holds what no header may.
    #[error("the hub's token has characters that no token has")]
    Token,
    /// No home directory, and nobody says where the cache is.
    #[error("there is no place for the hub's cache")]
    NoCache,
    /// 401: it does not exist, or not for this user.
    #[error("repository '{repo}': it does not exist, or it is not public")]
    Unknown {
        /// Which.
        repo: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// 403: its terms were not accepted.
    #[error("repository '{repo}': the hub allows it only to those who accepted its terms")]
    Gated {
        /// Which.
        repo: String,
        /// Where the terms are.
        page: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// 404.
    #[error("repository '{repo}': {what} does not exist")]
    NotFound {
        /// Which.
        repo: String,
        /// The revision or the file.
        what: String,
    },
    /// Nothing to run in there.
    #[error("repository '{repo}': it has no GGUF model{}", other.as_ref().map_or(String::new(), |o| format!(" ({o})")))]
    NoGguf {
        /// Which.
        repo: String,
        /// What it has instead.
        other: Option<String>,
    },
    /// No file for what was asked.
    #[error("repository '{repo}': it has no '{tag}'; there is {}", some(there))]
    NoSuchQuant {
        /// Which.
        repo: String,
        /// What was asked for.
        tag: String,
        /// What there is.
        there: Vec<String>,
    },
    /// The hub answered what makes no sense.
    #[error("the hub's answer makes no sense: {0}")]
    Nonsense(String),
    /// The hub, or something before it, said no.
    #[error("{url}: the server said {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The number.
        status: u16,
    },
    /// The network said no, several times.
    #[error("{url}: {why}")]
    Network {
        /// What was asked for.
        url: String,
        /// Why.
        why: String,
    },
    /// What came is not what was promised.
    #[error("'{file}': what came is damaged: its SHA-256 is {found}, not {want}")]
    Damaged {
        /// Which file.
        file: String,
        /// As promised.
        want: String,
        /// As it came.
        found: String,
    },
    /// The disk is too full to begin.
    #[error("'{}': {missing} are missing, and the disk has {free} left, some of which is to stay free", dir.display())]
    Space {
        /// Where.
        dir: PathBuf,
        /// What would be written.
        missing: Bytes,
        /// What is free.
        free: Bytes,
    },
    /// The disk said no.
    #[error("'{}': {error}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else is downloading the same.
    #[error("'{}': another program is downloading it", path.display())]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
}

/// Names that a message repeats.
const MAX_NAMED: usize = 20;

/// The first names of a list that may be long.
fn some(names: &[String]) -> String {
    let named = names.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}

impl Error {
    /// An error of the disk at `path`.
    pub(super) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        |error| Error::Disk { path, error }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Error::Name { .. } => {
                "write ORG/REPO, ORG/REPO:Q4_K_M, or the address of a .gguf file on the hub"
                    .to_owned()
            }
            Error::Token => {
                "set HF_TOKEN to a token from the hub's settings, without blanks or line ends"
                    .to_owned()
            }
            Error::NoCache => "set HF_HOME to a directory".to_owned(),
            Error::Unknown { token: false, .. } => {
                "check the name; for a private or gated one, set HF_TOKEN to a token of yours"
                    .to_owned()
            }
            Error::Unknown { .. } => {
                "check the name, and whether the token in HF_TOKEN may read it".to_owned()
            }
            Error::Gated { page, token: false, .. } => {
                format!("accept its terms at {page}, then set HF_TOKEN to a token of yours")
            }
            Error::Gated { page, .. } => {
                format!("accept its terms at {page} with the account of HF_TOKEN")
            }
            Error::NotFound { .. } => "check the name on the hub".to_owned(),
            Error::NoGguf { .. } => {
                "look for a repository with the same model as GGUF: their names often end in -GGUF"
                    .to_owned()
            }
            Error::NoSuchQuant { repo, there, .. } => match there.first() {
                Some(tag) => format!("for example: airrun pull {repo}:{tag}"),
                None => "check the name on the hub".to_owned(),
            },
            Error::Nonsense(_) => {
                "check HF_ENDPOINT, and whether a proxy stands between".to_owned()
            }
            Error::Status { status: 429 | 500.., .. } | Error::Network { .. } => {
                "try again: what came so far is kept, and the download goes on from there"
                    .to_owned()
            }
            Error::Status { .. } => {
                "check HF_ENDPOINT, and whether a proxy stands between".to_owned()
            }
            Error::Damaged { .. } => {
                "it was dropped; try again, or through another network".to_owned()
            }
            Error::Space { .. } => {
                "free some room, choose a smaller quantisation, or set HF_HOME to another disk"
                    .to_owned()
            }
            Error::Disk { .. } => {
                "free some room, or set HF_HOME to another disk; what came so far is kept"
                    .to_owned()
            }
            Error::Busy { .. } => "wait until it is done".to_owned(),
        }
    }
}
