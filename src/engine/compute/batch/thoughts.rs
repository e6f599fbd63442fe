//! Texts whose next token takes long to choose: they sit out passes until it is there. It chooses nothing: the pool does.

use std::time::{Duration, Instant};

use super::Batcher;
use super::running::Running;
use crate::engine::error::ggml_error;

/// How long a step waits for tokens that take long to choose, at least and at most; in between, a quarter of what it took.
const WAIT: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];
/// How long where there is nothing else to do.
const PAUSE: Duration = Duration::from_millis(10);

impl Batcher {
    /// Most tokens are there soon, and their texts are in the next batch then: waits for those whose last ones were quick, beside a
    /// step that took `took`.
    pub(super) fn wait_for_thoughts(&mut self, took: Duration) {
        let wait = (took / 4).clamp(WAIT[0], WAIT[1]);
        let until = Instant::now() + wait;
        while self.thinks().any(|last| last < wait) && self.take_thought(until) {}
    }

    /// Takes the tokens that were chosen elsewhere.
    pub(super) fn take_thoughts(&mut self, until: Instant) {
        while self.thinks().next().is_some() && self.take_thought(until) {}
    }

    /// Where there is nothing to compute: waits a moment for a token that is being chosen. False if none is.
    pub(super) fn think(&mut self) -> bool {
        let any = self.thinks().next().is_some();
        if any {
            self.take_thought(Instant::now() + PAUSE);
        }
        any
    }

    /// What the last tokens took of texts whose next ones are being chosen.
    fn thinks(&self) -> impl Iterator<Item = Duration> {
        self.slots.iter().filter_map(|slot| slot.running.as_ref()?.thinks())
    }

    /// Goes on with a text whose token was chosen, if there is one before `until`.
    fn take_thought(&mut self, until: Instant) -> bool {
        let Some(thought) = self.pool.thought(until) else { return false };
        let born = |running: &Running| running.born == thought.born;
        let asks = |slot: &super::Slot| slot.running.as_ref().is_some_and(born);
        // A text that has ended meanwhile wants nothing.
        let Some(slot) = self.slots.iter().position(asks) else { return true };
        let Some(running) = &mut self.slots[slot].running else { return true };
        match running.thought(thought, &self.loaded.vocab) {
            Ok((token, going)) => {
                self.tally.generated += usize::from(token.is_some());
                self.slots[slot].tokens.extend(token);
                self.finish(slot, going);
            }
            Err(error) => {
                let error = ggml_error(&self.loaded.index)(error);
                self.fail(slot, error);
            }
        }
        true
    }
}
