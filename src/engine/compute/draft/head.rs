//! Drafts by the first of the heads in the model's own file (MTP). A head reads a token and what the model has behind the one before
//! it, and guesses the token after; for the next guess, it reads what it has itself. It follows each text in a sequence of its own, a
//! pass behind the model, and has the model's room.

use super::growing::Growing;
use super::habit::HEAD;
use super::{Drafter, Passed, Sketch, Tree};
use crate::engine::Error;
use crate::engine::error::ggml_error;
use crate::engine::loaded::Loaded;
use crate::engine::open::options::HEAD_UBATCH;
use crate::ggml::{self, BatchToken, Context, ContextParams, Model, Part, Token};

use std::sync::Arc;

/// Drafts by a head.
#[derive(Debug)]
pub struct DraftHead {
    context: Context,
    model: Arc<Model>,
    texts: Vec<Followed>,
    n_ctx: usize,
    n_batch: usize,
}

/// What the head has seen of a text.
#[derive(Debug, Default)]
struct Followed {
    /// The tokens that it has read, each with what the model had behind the one before it.
    seen: Vec<Token>,
    /// Where it began to read: what a text began with may have been there from before.
    begin: usize,
    /// What the model has behind the last of them; nothing where that is not known.
    behind: Vec<f32>,
}

/// A text that is being drafted for.
struct Reading {
    growing: Growing,
    /// Where its last token is to be read, and with what.
    place: usize,
    behind: Vec<f32>,
}

impl DraftHead {
    /// That of a model, which was loaded with it.
    ///
    /// # Errors
    ///
    /// Too little memory.
    pub(in crate::engine) fn new(loaded: &Loaded) -> Result<DraftHead, Error> {
        let plan = &loaded.plan;
        let params = ContextParams {
            n_ctx: plan.n_ctx,
            n_ubatch: plan.n_ubatch.min(HEAD_UBATCH),
            n_seqs: loaded.sequences,
            n_outputs: loaded.sequences,
            threads: loaded.threads.clone(),
            n_threads: loaded.n_threads,
            offload: false,
            recall: loaded.recall,
            part: Part::Head,
        };
        let context = Context::new(loaded.model.clone(), &params, loaded.monitor.stop_flag());
        let context = context.map_err(ggml_error(&loaded.index))?;
        let texts = (0..loaded.sequences).map(|_| Followed::default()).collect();
        let (model, n_ctx) = (loaded.model.clone(), plan.n_ctx as usize);
        Ok(DraftHead { context, model, texts, n_ctx, n_batch: params.n_ubatch as usize })
    }

    fn forget(&mut self, slot: usize) {
        self.context.truncate_sequence(sequence(slot), 0);
        self.texts[slot] = Followed::default();
    }

    /// Forgets the texts of all sequences but `slot`'s where room is short for `n` tokens more.
    fn make_room(&mut self, slot: usize, n: usize) {
        let room = |text: &Followed| text.seen.len() - text.begin;
        if self.texts.iter().map(room).sum::<usize>() + n <= self.n_ctx {
            return;
        }
        (0..self.texts.len()).filter(|&other| other != slot).for_each(|other| self.forget(other));
    }

    /// Reads what a pass computed of a text.
    fn read(&mut self, passed: &Passed, model: &Context) -> Result<(), ggml::Error> {
        let Passed { slot, text, rows } = passed;
        let (sequence, first, width) = (sequence(*slot), text.len() - rows.len(), model.n_hidden());
        let known = &self.texts[*slot];
        let same = known.seen.iter().zip(text).take_while(|(a, b)| a == b).count();
        // What is between the text that it knows and what was computed it has no way to read.
        let knows = same >= first && known.begin <= first;
        let start = if knows { same } else { first };
        let mut behind = match start.checked_sub(first + 1) {
            Some(row) => model.hidden(rows[row])?.to_vec(),
            None if knows && known.seen.len() == first && !known.behind.is_empty() => {
                known.behind.clone()
            }
            None => vec![0.0; width],
        };
        if knows && self.context.truncate_sequence(sequence, start) {
            self.texts[*slot].seen.truncate(start);
        } else {
            self.forget(*slot);
            self.texts[*slot] =
                Followed { seen: text[..start].to_vec(), begin: start, behind: Vec::new() };
        }
        self.make_room(*slot, text.len() - start);
        let places: Vec<usize> = (start..text.len()).collect();
        for chunk in places.chunks(self.n_batch) {
            let mut hidden = Vec::with_capacity(chunk.len() * width);
            let mut batch = Vec::with_capacity(chunk.len());
            for &place in chunk {
                hidden.extend_from_slice(&behind);
                batch.push(BatchToken::new(text[place], place, sequence, false));
                behind.copy_from_slice(model.hidden(rows[place - first])?);
            }
            self.context.decode_head(&batch, &hidden)?;
            self.texts[*slot].seen.extend(chunk.iter().map(|&place| text[place]));
        }
        self.texts[*slot].behind = behind;
        Ok(())
    }

    /// One token more for each of the texts that grow.
    fn grow(
        &mut self,
        texts: &[Sketch<'_>],
        readings: &mut Vec<Reading>,
        trees: &mut [Tree],
    ) -> Result<(), ggml::Error> {
        let mut hidden = Vec::with_capacity(readings.len() * self.context.n_hidden());
        let mut batch = Vec::with_capacity(readings.len());
        for Reading { growing, place, behind } in readings.iter() {
            hidden.extend_from_slice(behind);
            let sequence = sequence(texts[growing.text].slot);
            batch.push(BatchToken::new(growing.next, *place, sequence, true));
        }
        self.context.decode_head(&batch, &hidden)?;
        for (i, Reading { growing, place, behind }) in readings.iter_mut().enumerate() {
            let (text, tree) = (&texts[growing.text], &mut trees[growing.text]);
            growing.grow(self.context.logits_of(i)?, text, tree);
            *place += 1;
            behind.copy_from_slice(self.context.hidden(i)?);
        }
        let (vocab, n_ctx) = (self.model.vocab(), self.n_ctx);
        readings.retain(|Reading { growing, place, .. }| {
            let (text, tree) = (&texts[growing.text], &trees[growing.text]);
            place + 1 < n_ctx && growing.goes_on(text, tree, vocab)
        });
        Ok(())
    }

    fn try_draft(&mut self, texts: &[Sketch<'_>], trees: &mut [Tree]) -> Result<(), ggml::Error> {
        let mut readings: Vec<Reading> = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let Some(known) = self.texts.get(text.slot) else { continue };
            let Some((&next, before)) = text.text.split_last() else { continue };
            // A text whose last token but one the model has not computed yet has to do without.
            let is_there = known.behind.len() == self.context.n_hidden() && known.seen == before;
            if text.nodes > 0 && is_there && text.text.len() < self.n_ctx {
                let (place, behind) = (before.len(), known.behind.clone());
                readings.push(Reading { growing: Growing::new(i, next), place, behind });
            }
        }
        let texts_of = || readings.iter().map(|reading| &texts[reading.growing.text]);
        let slots: Vec<usize> = texts_of().map(|text| text.slot).collect();
        let taken: usize = self.texts.iter().map(|text| text.seen.len() - text.begin).sum();
        let wanted: usize = texts_of().map(|text| text.nodes + 1).sum();
        if taken + wanted > self.n_ctx {
            let idle = (0..self.texts.len()).filter(|slot| !slots.contains(slot));
            idle.collect::<Vec<_>>().into_iter().for_each(|slot| self.forget(slot));
        }
        while !readings.is_empty() {
            self.grow(texts, &mut readings, trees)?;
        }
        // What it guessed is not what the model will have.
        for slot in slots {
            let n = self.texts[slot].seen.len();
            if !self.context.truncate_sequence(sequence(slot), n) {
                self.forget(slot);
            }
        }
        Ok(())
    }
}

impl Drafter for DraftHead {
    fn name(&self) -> &str {
        HEAD
    }

    fn draft(&mut self, texts: &[Sketch<'_>]) -> Vec<Tree> {
        let mut trees = vec![Tree::default(); texts.len()];
        if self.try_draft(texts, &mut trees).is_err() {
            // Without drafts, nothing is lost but time. What its memory holds now nobody knows. If somebody asked to stop, the model's next
            // pass will hear of it.
            (0..self.texts.len()).for_each(|slot| self.forget(slot));
        }
        trees
    }

    fn follows(&self) -> bool {
        true
    }

    fn saw(&mut self, passed: &[Passed], context: &Context) {
        for text in passed {
            let fits = text.slot < self.texts.len() && text.rows.len() <= text.text.len();
            if fits && self.read(text, context).is_err() {
                self.forget(text.slot);
            }
        }
    }
}

fn sequence(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
