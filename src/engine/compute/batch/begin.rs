//! Where texts begin: which of those that wait gets which slot, and what of its prompt the context has already. What comes after the
//! prompt is no concern of it.

use std::time::Instant;

use super::running::{Request, Running, Sink};
use super::{Batcher, sequence};
use crate::engine::Error;
use crate::ggml::{self, Token};

/// A prompt waits for another that is being read and begins like it, if that saves so many tokens, and if the next pass has no room
/// for it: a pass over weights that stream costs more than the tokens that some texts have in common.
const WORTH_WAITING: usize = 16;

/// Where a text may begin.
struct Choice {
    slot: usize,
    /// The slot that has most of its beginning.
    from: usize,
    /// How much of it. (tokens)
    common: usize,
    /// Whether another prompt that is being read will have much more of it soon.
    better_later: bool,
}

impl Batcher {
    /// Whether a text can be written at all.
    pub(super) fn check(&self, request: &Request) -> Result<(), Error> {
        let (tokens, vocab) = (&request.prompt, self.loaded.model.vocab());
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        // At least one token of the answer must fit, too.
        let room = self.n_ctx.saturating_sub(1);
        if tokens.len() > room {
            return Err(Error::ContextTooSmall { tokens: tokens.len(), room });
        }
        match tokens.iter().find(|&&t| !vocab.contains(t)) {
            Some(&token) => Err(Error::NoSuchToken { token, n_vocab: vocab.len() }),
            None => Ok(()),
        }
    }

    /// Gives waiting texts the slots that are free.
    pub(super) fn admit(&mut self) {
        let mut i = 0;
        while i < self.pending.len() && !self.vector_waits {
            if self.wanted() + self.pending[i].prompt.len() >= self.capacity {
                return;
            }
            let Some(free) = self.choose_slot(&self.pending[i].prompt) else { return };
            let Choice { slot, from, common, better_later } = free;
            if better_later {
                i += 1;
                continue;
            }
            let Some(request) = self.pending.remove(i) else { return };
            if let Err((sink, error)) = self.begin(slot, from, common, request) {
                self.tally.ended[2] += 1;
                sink.end(Err(error));
            }
        }
    }

    /// The free slot for a prompt, and whose tokens it should begin with.
    fn choose_slot(&self, prompt: &[Token]) -> Option<Choice> {
        // The last token is computed in any case: its logits are what the text begins with.
        let most = prompt.len() - 1;
        let common =
            |known: &[Token]| known.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count();
        let done: Vec<usize> = self.slots.iter().map(|s| common(&s.tokens[..s.n_done])).collect();
        let free = (0..self.slots.len()).filter(|&i| self.slots[i].is_free());
        let best = (0..self.slots.len()).max_by_key(|&i| (done[i], self.slots[i].is_free()))?;
        // A free slot that begins right is taken as it is; a copy goes where it was quiet for the longest time.
        let longest_idle = free.min_by_key(|&i| self.slots[i].used)?;
        let (slot, from) = match self.slots[best].is_free() && done[best] > 0 {
            true => (best, best),
            false => (longest_idle, best),
        };
        let reading = self.slots.iter().filter(|s| s.running.as_ref().is_some_and(Running::reads));
        let soon = reading.map(|s| common(&s.tokens)).max().unwrap_or(0);
        let better_later = self.copies()
            && soon >= done[best] + WORTH_WAITING
            && self.unread() + prompt.len() - done[best] > self.n_ubatch;
        Some(Choice { slot, from, common: done[best], better_later })
    }

    /// Tokens of texts that are yet to be computed.
    fn unread(&self) -> usize {
        let running = self.slots.iter().filter(|slot| slot.running.is_some());
        running.map(|slot| slot.tokens.len() - slot.n_done).sum()
    }

    /// Whether the beginning of a sequence can be copied: not where its memory is one state.
    fn copies(&self) -> bool {
        !self.loaded.model.has_state() && !self.loaded.model.has_encoder()
    }

    /// Begins to write a text in a free slot.
    fn begin(
        &mut self,
        slot: usize,
        from: usize,
        common: usize,
        request: Request,
    ) -> Result<(), (Box<dyn Sink>, Error)> {
        let prompt = request.prompt.clone();
        self.give_up(slot, &prompt);
        let parts_at = self.parts_at(&prompt);
        // Of a state there is all or nothing.
        let is_there = !self.has_state || self.slots[from].n_done == common;
        let kept = match self.unshelve(slot, &prompt, if is_there { common } else { 0 }) {
            Some(kept) => kept,
            None if self.loaded.model.has_encoder() => 0,
            None => self.keep(slot, from, common),
        };
        (self.slots[slot].tokens, self.slots[slot].n_done) = (prompt[..kept].to_vec(), kept);
        self.born += 1;
        let running = Running::new(request, kept, self.born, &self.loaded)?;
        let tokens = match self.encode(&prompt) {
            Ok(tokens) => tokens,
            Err(error) => return Err((running.into_sink(), error)),
        };
        self.tally.reused += kept;
        self.slots[slot].tokens = tokens;
        self.slots[slot].running = Some(running);
        self.slots[slot].stations = self.stations(prompt.len(), kept, parts_at);
        self.slots[slot].is_text = true;
        Ok(())
    }

    /// Brings a slot to the first `common` tokens of slot `from`. Returns how many it really has then.
    fn keep(&mut self, slot: usize, from: usize, common: usize) -> usize {
        let (to, source) = (sequence(slot), sequence(from));
        let whole = self.slots[from].n_done == common;
        if slot != from && common > 0 && (whole || self.copies()) {
            self.context.copy_sequence(source, to);
        } else if slot != from {
            self.context.truncate_sequence(to, 0);
            return 0;
        }
        if self.context.truncate_sequence(to, common) && self.context.can_go_on(to, common) {
            return common;
        }
        self.context.truncate_sequence(to, 0);
        0
    }

    /// What the context is to be fed with for a prompt: the prompt, or, where an encoder reads that, what the decoder begins with.
    fn encode(&mut self, prompt: &[Token]) -> Result<Vec<Token>, Error> {
        let model = &self.loaded.model;
        if !model.has_encoder() {
            return Ok(prompt.to_vec());
        }
        let start = model.decoder_start().or(model.vocab().bos()).unwrap_or(0);
        let begin = Instant::now();
        self.context.truncate(0);
        let mut computed = self.loaded.checked(self.context.encode(prompt));
        if matches!(computed, Err(ggml::Error::Aborted)) && !self.ends_when_stopped {
            // It was stopped for somebody else, who had gone.
            self.loaded.monitor.clear_stop();
            computed = self.loaded.checked(self.context.encode(prompt));
        }
        computed.map_err(|error| self.loaded.explain(error))?;
        self.loaded.monitor.passed(prompt.len(), begin);
        Ok(vec![start])
    }
}
