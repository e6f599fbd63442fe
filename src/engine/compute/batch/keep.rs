//! What of texts outlives their slots: written to disk when a slot is given up, read back when a prompt begins like it.

use super::{Batcher, Slot, sequence};
use crate::engine::compute::shelf::Shelf;
use crate::ggml::Token;

/// So many tokens that are lost are no reason to write: a conversation that goes on differs a little at its end.
const LOSS: usize = 64;

impl Batcher {
    /// Keeps long texts on `shelf`, if there is one, and finds them there.
    pub fn keep_on(&mut self, shelf: Option<Shelf>) {
        self.shelf = shelf;
    }

    /// A slot is about to be given to `prompt`: what else it has is kept.
    pub(super) fn give_up(&mut self, slot: usize, prompt: &[Token]) {
        let Slot { tokens, n_done, .. } = &self.slots[slot];
        let same = tokens[..*n_done].iter().zip(prompt).take_while(|(a, b)| a == b).count();
        if *n_done >= same + LOSS {
            self.shelve(slot);
        }
    }

    /// Keeps what the context has of a slot's text, if that is worth it.
    pub(super) fn shelve(&mut self, slot: usize) {
        let Some(shelf) = &mut self.shelf else { return };
        let tokens = &self.slots[slot].tokens[..self.slots[slot].n_done];
        let (context, sequence) = (&mut self.context, sequence(slot));
        if !self.slots[slot].is_text || !shelf.wants(tokens, context.sequence_bytes(sequence)) {
            return;
        }
        shelf.put(tokens, |file| context.save_sequence(sequence, file, tokens).is_ok());
    }

    /// Brings a free slot to the beginning of `prompt` that is kept on disk, if that is better than the `have` tokens that the
    /// context has of it. Returns how many tokens the slot has then; `None` if nothing was done.
    pub(super) fn unshelve(&mut self, slot: usize, prompt: &[Token], have: usize) -> Option<usize> {
        let shelf = self.shelf.as_mut()?;
        let found = shelf.find(prompt, have)?;
        let file = shelf.checked(&found)?;
        self.forget(slot);
        self.slots[slot].tokens.clear();
        if !self.make_room(found.n_tokens) {
            return Some(0);
        }
        let to = sequence(slot);
        let read = self.context.load_sequence(to, &file, found.n_tokens);
        let same = |tokens: &[Token]| {
            tokens.len() == found.n_tokens && tokens[..found.common] == prompt[..found.common]
        };
        let is_whole = found.n_tokens == found.common;
        if read.is_ok_and(|tokens| same(&tokens))
            && (is_whole || self.context.truncate_sequence(to, found.common))
            && self.context.can_go_on(to, found.common)
        {
            return Some(found.common);
        }
        self.context.truncate_sequence(to, 0);
        if let Some(shelf) = &mut self.shelf {
            shelf.remove(&found);
        }
        Some(0)
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // The one that was used last stays longest.
        let mut slots: Vec<usize> = (0..self.slots.len()).collect();
        slots.sort_by_key(|&slot| self.slots[slot].used);
        slots.into_iter().for_each(|slot| self.shelve(slot));
    }
}
