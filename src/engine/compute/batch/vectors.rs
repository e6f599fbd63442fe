//! Vectors of texts, made by the context that writes, between its batches: one of its own would take memory that no plan knows of.
//! The vector of a text is the sum of what the last block makes of each of its tokens, which has the direction of their mean.

use std::time::Instant;

use super::{Batcher, sequence};
use crate::engine::Error;
use crate::ggml::{self, BatchToken, Token};

/// How far a text's vector is.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// There is no room for the text yet.
    Waits,
    /// Some of the text was read.
    Grows,
    /// All of it was.
    Done(Vec<f32>),
}

/// A text whose vector is being made: the slot's own.
#[derive(Debug)]
pub(super) struct Vectoring {
    slot: usize,
    sum: Vec<f32>,
}

impl Batcher {
    /// Goes on with the vector of a text, until it is done or failed or [`Batcher::drop_vector`] was called. Another text takes the
    /// place of the one before. A pass that was stopped, for whoever has gone, is computed again with the next call.
    ///
    /// # Errors
    ///
    /// The text is empty or too long; a computation that failed.
    pub fn embed(&mut self, text: &[Token]) -> Result<Vector, Error> {
        if self.reading.as_ref().is_some_and(|r| self.slots[r.slot].tokens != text) {
            self.drop_vector();
        }
        let Vectoring { slot, sum } = match self.reading.take() {
            Some(reading) => reading,
            None => match self.begin_reading(text)? {
                Some(reading) => reading,
                None => return Ok(Vector::Waits),
            },
        };
        let (from, len) = (self.slots[slot].n_done, self.slots[slot].tokens.len());
        let n = (len - from).min(self.loaded.n_outputs as usize).min(self.n_ubatch);
        // Whoever is being written comes to an end; nobody new begins meanwhile.
        self.vector_waits = !self.make_room(n);
        if self.vector_waits {
            self.reading = Some(Vectoring { slot, sum });
            return Ok(Vector::Waits);
        }
        let tokens = &self.slots[slot].tokens;
        let batch: Vec<BatchToken> = (from..from + n)
            .map(|position| BatchToken::new(tokens[position], position, sequence(slot), true))
            .collect();
        let read = self.read(&batch);
        let more = match self.loaded.checked(read) {
            Ok(more) => more,
            Err(error) => return self.not_read(Vectoring { slot, sum }, error),
        };
        let sum = if sum.is_empty() { more } else { added(sum, &more) };
        self.n_steps += 1;
        (self.slots[slot].n_done, self.slots[slot].used) = (from + n, self.n_steps);
        if from + n < len {
            self.reading = Some(Vectoring { slot, sum });
            return Ok(Vector::Grows);
        }
        self.release(slot);
        Ok(Vector::Done(sum))
    }

    /// A pass could not be computed. If it was stopped, what was read before it stays, where the context can forget a part.
    fn not_read(&mut self, reading: Vectoring, error: ggml::Error) -> Result<Vector, Error> {
        let error = self.loaded.explain(error);
        self.loaded.monitor.clear_stop();
        let Vectoring { slot, mut sum } = reading;
        let stopped = matches!(error, Error::Interrupted);
        let kept = self.slots[slot].n_done;
        if !stopped || !self.context.truncate_sequence(sequence(slot), kept) {
            self.forget(slot);
            sum.clear();
        }
        if stopped {
            self.reading = Some(Vectoring { slot, sum });
            return Ok(Vector::Grows);
        }
        self.release(slot);
        Err(error)
    }

    /// Nobody wants the vector any more.
    pub fn drop_vector(&mut self) {
        self.vector_waits = false;
        if let Some(reading) = self.reading.take() {
            self.release(reading.slot);
        }
    }

    /// Takes a slot for a text, if there is one.
    fn begin_reading(&mut self, text: &[Token]) -> Result<Option<Vectoring>, Error> {
        let (room, vocab) = (self.n_ctx, self.loaded.model.vocab());
        if text.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if text.len() > room {
            return Err(Error::ContextTooSmall { tokens: text.len(), room });
        }
        if let Some(&token) = text.iter().find(|&&t| !vocab.contains(t)) {
            return Err(Error::NoSuchToken { token, n_vocab: vocab.len() });
        }
        if self.loaded.model.has_encoder() {
            return Err(Error::Request("this model makes no vectors".to_owned()));
        }
        let free = (0..self.slots.len()).filter(|&i| self.slots[i].is_free());
        let Some(slot) = free.min_by_key(|&i| self.slots[i].used) else {
            self.vector_waits = true;
            return Ok(None);
        };
        self.forget(slot);
        self.slots[slot].tokens = text.to_vec();
        (self.slots[slot].is_read, self.slots[slot].is_text) = (true, false);
        Ok(Some(Vectoring { slot, sum: Vec::new() }))
    }

    /// Lets go of a slot; what was read stays, for prompts that begin like it.
    fn release(&mut self, slot: usize) {
        self.slots[slot].is_read = false;
        self.close(slot);
    }

    /// Reads the next tokens of a text; the sum of what becomes of them.
    fn read(&mut self, batch: &[BatchToken]) -> Result<Vec<f32>, ggml::Error> {
        let begin = Instant::now();
        self.context.make_vectors(true);
        let result = self.context.decode_batch(batch);
        self.context.make_vectors(false);
        result?;
        self.loaded.monitor.passed(batch.len(), begin);
        let mut sum = Vec::new();
        for i in 0..batch.len() {
            let vector = self.context.vector_of(i)?;
            sum.resize(vector.len(), 0.0);
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
        Ok(sum)
    }
}

fn added(mut sum: Vec<f32>, more: &[f32]) -> Vec<f32> {
    sum.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
    sum
}
