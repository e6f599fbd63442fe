//! The models that can be asked for, and what they may take.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Engine, Index};
use crate::serve::Preset;
use crate::units::Bytes;

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
    pub(super) fn name(&self) -> String {
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
