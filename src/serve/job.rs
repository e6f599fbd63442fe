//! What the worker is asked to compute, and whether anybody still wants it.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::error::ApiError;
use crate::engine::Token;
use crate::engine::batch::{Request, Room};
use crate::engine::embed::Wanted;

/// Something to compute.
#[derive(Debug)]
pub(super) enum Job {
    /// The texts of one request.
    Write(Vec<Request>),
    /// Vectors of texts.
    Embed(Embed),
    /// The worker is to fail, as if by a fault of ours.
    #[cfg(test)]
    Fail,
}

impl Job {
    /// Whether nobody waits for it any more.
    pub(super) fn is_forsaken(&self) -> bool {
        match self {
            Job::Write(requests) => requests.iter().all(|r| r.sink.room() == Room::Gone),
            Job::Embed(embed) => embed.reply.is_closed(),
            #[cfg(test)]
            Job::Fail => false,
        }
    }
}

/// Texts whose vectors are wanted.
#[derive(Debug)]
pub(super) struct Embed {
    /// What they are to become.
    pub(super) wanted: Wanted,
    /// Their tokens; what is left of them.
    pub(super) texts: VecDeque<Vec<Token>>,
    /// The vectors so far.
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) reply: oneshot::Sender<Result<Vec<Vec<f32>>, ApiError>>,
}
