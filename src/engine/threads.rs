//! How many threads compute, and how they wait.

use std::sync::Arc;

use super::Error;
use super::error::ggml_error;
use crate::ggml::Threadpool;
use crate::gguf::Index;
use crate::probe;

/// How long idle compute threads spin before they sleep, on ggml's scale of 0 to 100: a few milliseconds. Longer than the gaps
/// between runs, shorter than waiting for a disk, which needs a core now and then, too.
const POLL: u32 = 1;

/// As many threads as are `wanted`, or one for each core.
pub(super) fn count(wanted: Option<u32>) -> u32 {
    wanted.unwrap_or_else(probe::physical_cores).max(1)
}

/// A pool of `n` threads for the model in `index`.
pub(super) fn pool(n: u32, index: &Index) -> Result<Arc<Threadpool>, Error> {
    Ok(Arc::new(Threadpool::new(n, POLL).map_err(ggml_error(index))?))
}
