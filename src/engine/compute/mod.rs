//! What computes with a loaded model: one timeline of tokens, many requests at once, and embeddings.

pub mod batch;
pub mod draft;
pub mod embed;
pub(super) mod generate;
pub(super) mod grammar;
pub(super) mod session;
pub(super) mod shelf;
