//! Where the reading of a prompt stops for a moment, so that what the model knows there can be kept on disk: a memory that is one state
//! cannot be cut short afterwards, so that what another prompt could go on from must be kept on the way.

use super::Batcher;
use crate::engine::compute::shelf::LEAST;
use crate::ggml::Token;

impl Batcher {
    /// How many tokens of `prompt` a text from before begins with, at most: of those that the context or the disk has.
    pub(super) fn parts_at(&self, prompt: &[Token]) -> usize {
        let Some(shelf) = self.shelf.as_ref().filter(|_| self.has_state) else { return 0 };
        let known = self.slots.iter().map(|slot| common(&slot.tokens[..slot.n_done], prompt));
        known.chain([shelf.longest_common(prompt)]).max().unwrap_or(0)
    }

    /// The places in a prompt of `n` tokens, of which `kept` are there, up to which the state should be kept, rising. One is near its
    /// end, for who asks the same again or goes on from there. Another is where this prompt and one from before part: what both
    /// begin with, as instructions and tools, others will begin with, too.
    pub(super) fn stations(&self, n: usize, kept: usize, parts_at: usize) -> Vec<usize> {
        let Some(shelf) = self.shelf.as_ref().filter(|_| self.has_state) else { return Vec::new() };
        // The last token is computed in any case.
        let most = n.saturating_sub(1);
        let passes = most.saturating_sub(kept) / self.n_ubatch.max(1);
        let end = match self.loaded.plan.streamed.is_empty() {
            true => most,
            // One more pass would cost as much as it spares: the last one begins here anyway.
            false => kept + passes * self.n_ubatch,
        };
        let mut places = [parts_at.min(most), end];
        places.sort_unstable();
        let mut last = kept;
        let mut is_one = |place: &usize| {
            let is_one = *place >= last + LEAST && shelf.would_keep(*place);
            last = if is_one { *place } else { last };
            is_one
        };
        places.into_iter().filter(|place| is_one(place)).collect()
    }

    /// A batch was computed: what a slot has is kept if it has come to one of its places.
    pub(super) fn arrive(&mut self, slot: usize) {
        if self.slots[slot].stations.first() == Some(&self.slots[slot].n_done) {
            self.slots[slot].stations.remove(0);
            self.shelve(slot);
        }
    }
}

/// How many tokens two texts begin with alike.
pub(super) fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
