//! What a download is told: where the hub is, who asks, and where files go.

use std::path::PathBuf;

use super::error::Error;
use crate::files;
use crate::models::places;

/// Where the hub is, if nobody says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// A token is no longer than this. (bytes)
const MAX_TOKEN: u64 = 4096;

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
    files::read_text(&places::hub_token_file()?, MAX_TOKEN).ok()
}
