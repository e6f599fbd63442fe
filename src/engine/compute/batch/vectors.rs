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

/// A text whose vector is being made.
#[derive(Debug)]
pub(super) struct Reading {
    slot: usize,
    sum: Vec<f32>,
}

impl Batcher {
    /// Goes on with the vector of a text: the same one until it is done or failed, or [`Batcher::drop_vector`] was called.
    ///
    /// # Errors
    ///
    /// The text is empty or too long; a computation that failed or was stopped.
    pub fn embed(&mut self, text: &[Token]) -> Result<Vector, Error> {
        let Reading { slot, sum } = match self.reading.take() {
            Some(reading) => reading,
            None => match self.begin_reading(text)? {
                Some(reading) => reading,
                None => return Ok(Vector::Waits),
            },
        };
        let from = self.slots[slot].n_done;
        let n = (text.len() - from).min(self.loaded.n_outputs as usize).min(self.n_ubatch);
        // Whoever is being written comes to an end; nobody new begins meanwhile.
        self.vector_waits = !self.make_room(n);
        if self.vector_waits {
            self.reading = Some(Reading { slot, sum });
            return Ok(Vector::Waits);
        }
        let entry = |position: usize| BatchToken {
            token: text[position],
            position,
            sequence: sequence(slot),
            output: true,
        };
        let batch: Vec<BatchToken> = (from..from + n).map(entry).collect();
        let read = self.read(&batch, sum);
        let sum = match self.loaded.checked(read) {
            Ok(sum) => sum,
            Err(error) => {
                let error = self.loaded.explain(error);
                self.loaded.monitor.clear_stop();
                self.forget(slot);
                self.release(slot);
                return Err(error);
            }
        };
        self.clock += 1;
        (self.slots[slot].n_done, self.slots[slot].used) = (from + n, self.clock);
        if from + n < text.len() {
            self.reading = Some(Reading { slot, sum });
            return Ok(Vector::Grows);
        }
        self.release(slot);
        Ok(Vector::Done(sum))
    }

    /// Nobody wants the vector any more.
    pub fn drop_vector(&mut self) {
        self.vector_waits = false;
        if let Some(reading) = self.reading.take() {
            self.release(reading.slot);
        }
    }

    /// Takes a slot for a text, if there is one.
    fn begin_reading(&mut self, text: &[Token]) -> Result<Option<Reading>, Error> {
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
        self.slots[slot].is_read = true;
        Ok(Some(Reading { slot, sum: Vec::new() }))
    }

    /// Lets go of a slot; what was read stays, for prompts that begin like it.
    fn release(&mut self, slot: usize) {
        self.slots[slot].is_read = false;
        self.close(slot);
    }

    /// Reads the next tokens of a text, and adds what becomes of them to `sum`.
    fn read(&mut self, batch: &[BatchToken], mut sum: Vec<f32>) -> Result<Vec<f32>, ggml::Error> {
        let begin = Instant::now();
        self.context.make_vectors(true);
        let result = self.context.decode_batch(batch);
        self.context.make_vectors(false);
        result?;
        self.loaded.monitor.passed(batch.len(), begin);
        for i in 0..batch.len() {
            let vector = self.context.vector_of(i)?;
            sum.resize(vector.len(), 0.0);
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
        Ok(sum)
    }
}
