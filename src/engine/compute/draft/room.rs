//! The contexts that heads and small models draft in.

use crate::engine::loaded::Loaded;
use crate::ggml::{ContextParams, Part};

impl Loaded {
    /// What such a context has: room for as much as the plan says, and a result for each text.
    pub(super) fn params_of_draft(&self, part: Part) -> ContextParams {
        ContextParams {
            n_ctx: self.plan.n_ctx,
            n_ubatch: self.plan.n_ubatch,
            n_seqs: self.sequences,
            n_outputs: self.sequences,
            threads: self.threads.clone(),
            n_threads: self.n_threads,
            offload: false,
            recall: self.recall,
            part,
        }
    }
}

/// The sequence of a text in such a context.
pub(super) fn sequence(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
