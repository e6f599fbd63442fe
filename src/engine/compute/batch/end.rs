//! How texts end: at their end, without a listener, by a failure, or all at once. A slot keeps what the context has of its text. It
//! writes nothing.

use super::running::{Going, Request, Room};
use super::{Batcher, Part, Slot, sequence};
use crate::engine::{Error, Finish};
use crate::ggml;

impl Batcher {
    /// Ends all texts as they are.
    pub fn cut(&mut self) {
        for slot in 0..self.slots.len() {
            self.finish(slot, Going::End(Finish::Interrupted, None));
        }
        for request in self.pending.drain(..) {
            self.tally.ended[1] += 1;
            request.sink.end(Err(Error::Interrupted));
        }
    }

    /// Lets go of texts that nobody listens to any more.
    pub(super) fn reap(&mut self) {
        let gone = |request: &Request| request.sink.room() == Room::Gone;
        let waiting = self.pending.len();
        self.pending.retain(|request| !gone(request));
        self.tally.ended[1] += waiting - self.pending.len();
        let now = self.clock.now();
        for slot in 0..self.slots.len() {
            let Some(running) = &mut self.slots[slot].running else { continue };
            if running.is_abandoned(self.patience, now) {
                self.tally.ended[1] += 1;
                self.close(slot);
            }
        }
    }

    /// Ends a text if it is at its end, or has no room to go on.
    pub(super) fn finish(&mut self, slot: usize, going: Going) {
        let Slot { tokens, n_done, running, .. } = &mut self.slots[slot];
        let full = *n_done >= self.n_ctx && tokens.len() > *n_done;
        let (finish, stop) = match going {
            Going::End(finish, stop) => (finish, stop),
            Going::On if full => (Finish::ContextFull, None),
            Going::On | Going::Thinks => return,
        };
        if let Some(running) = running.take() {
            self.tally.ended[0] += 1;
            running.end(finish, stop, tokens[..*n_done].to_vec());
        }
        self.close(slot);
    }

    /// Ends a text that cannot be gone on with.
    pub(super) fn fail(&mut self, slot: usize, error: Error) {
        if let Some(running) = self.slots[slot].running.take() {
            self.tally.ended[2] += 1;
            running.into_sink().end(Err(error));
        }
        self.close(slot);
    }

    /// Frees a slot; what the context has of its text stays, for prompts that begin like it.
    pub(super) fn close(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.running = None;
        slot.stations.clear();
        slot.tokens.truncate(slot.n_done);
    }

    /// A batch could not be computed. If it was stopped, its texts are tried again, or end; otherwise they end with the reason.
    pub(super) fn failed(&mut self, parts: &[Part], error: ggml::Error) {
        let error = self.loaded.explain(error);
        let stopped = matches!(error, Error::Interrupted);
        let was_asked = self.loaded.monitor.is_stopped();
        if !self.ends_when_stopped {
            self.loaded.monitor.clear_stop();
        }
        let reason = error.to_string();
        let mut error = Some(error);
        for part in parts {
            let (slot, own) = (part.slot, sequence(part.slot));
            let kept = self.slots[slot].n_done;
            self.drop_ways(part);
            // The context has dropped some of the batch, or none of it: what was there before is brought back, or all is forgotten.
            let brought_back = match &part.state {
                Some(state) => self.context.restore_state(own, state, kept),
                None => self.context.truncate_sequence(own, kept),
            };
            if !brought_back {
                self.forget(slot);
            }
            if !stopped {
                // The first gets the error itself, with its hint; the others its words.
                let error = error.take().unwrap_or_else(|| Error::Failed(reason.clone()));
                self.fail(slot, error);
            } else if self.ends_when_stopped && was_asked {
                self.finish(slot, Going::End(Finish::Interrupted, None));
            }
        }
    }
}
