//! Drafts by a head: the first of those in the model's own file (MTP), or one in a file of its own (EAGLE3). A head reads a token and what is
//! behind the one before it, and guesses the token after; for the next guess, it reads what it has itself. What is behind a token the
//! model has, or such a head makes of what went into three of the model's blocks. It follows each text in a sequence of its own, a pass
//! behind the model, and has the model's room.

use super::growing::Growing;
use super::habit::HEAD;
use super::model::differing;
use super::room::sequence;
use super::{Drafter, Passed, Sketch, Tree};
use crate::engine::Error;
use crate::engine::error::{ggml_error, model_name};
use crate::engine::loaded::Loaded;
use crate::engine::open::heads::{self, HeadFile};
use crate::engine::open::options::HEAD_UBATCH;
use crate::ggml::{self, BatchToken, Context, ContextParams, Model, Part, Token};

use std::sync::Arc;

/// Drafts by a head.
#[derive(Debug)]
pub struct DraftHead {
    name: String,
    context: Context,
    model: Arc<Model>,
    /// Whether it is in a file of its own: it is made of what goes into the model's blocks then, and reads the first token of a text with
    /// nothing, which is to say not at all, so that its positions are one behind the model's.
    is_beside: bool,
    texts: Vec<Followed>,
    n_ctx: usize,
    n_batch: usize,
}

/// What the head has seen of a text.
#[derive(Debug, Default)]
struct Followed {
    /// The tokens that it has read, each with what is behind the one before it.
    seen: Vec<Token>,
    /// Where it began to read: what a text began with may have been there from before.
    begin: usize,
    /// What is behind the last of them; nothing where that is not known.
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
    pub(in crate::engine) fn own(loaded: &Loaded) -> Result<DraftHead, Error> {
        let n_ubatch = loaded.plan.n_ubatch.min(HEAD_UBATCH);
        let params = ContextParams { n_ubatch, ..loaded.params_of_draft(Part::Head) };
        let context = Context::new(loaded.model.clone(), &params, loaded.monitor.stop_flag());
        let context = context.map_err(ggml_error(&loaded.index))?;
        Ok(DraftHead::of(HEAD.to_owned(), context, &params, loaded.model.clone(), false))
    }

    /// One in a file of its own, for the texts of `target`, which is a context of `loaded`.
    ///
    /// # Errors
    ///
    /// Another vocabulary; too little memory.
    pub(in crate::engine) fn beside(
        head: &HeadFile,
        loaded: &Loaded,
        target: &Context,
    ) -> Result<DraftHead, Error> {
        let (context, params) = beside(head, loaded, target)?;
        let name = model_name(&head.index);
        Ok(DraftHead::of(name, context, &params, loaded.model.clone(), true))
    }

    fn of(
        name: String,
        context: Context,
        params: &ContextParams,
        model: Arc<Model>,
        is_beside: bool,
    ) -> DraftHead {
        let texts = (0..params.n_seqs).map(|_| Followed::default()).collect();
        let (n_ctx, n_batch) = (params.n_ctx as usize, params.n_ubatch as usize);
        DraftHead { name, context, model, is_beside, texts, n_ctx, n_batch }
    }

    /// What is behind the tokens that the model computed in these rows of its last batch, a row for each.
    fn behind(&mut self, rows: &[usize], model: &Context) -> Result<Vec<f32>, ggml::Error> {
        let mut all = Vec::with_capacity(rows.len() * self.context.n_hidden());
        for &row in rows {
            match self.is_beside {
                true => model.layers_of(row, &mut all)?,
                false => all.extend_from_slice(model.hidden(row)?),
            }
        }
        if self.is_beside { self.context.encode_rows(&all) } else { Ok(all) }
    }

    /// The position of the token at a place of its text.
    fn position(&self, place: usize) -> usize {
        place.saturating_sub(usize::from(self.is_beside))
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
        if rows.is_empty() {
            return Ok(());
        }
        let (start, mut behind) = self.begin(passed, model)?;
        let sequence = sequence(*slot);
        self.make_room(*slot, text.len() - start);
        let places: Vec<usize> = (start..text.len()).collect();
        for chunk in places.chunks(self.n_batch) {
            let first = text.len() - rows.len();
            let rows: Vec<usize> = chunk.iter().map(|&place| rows[place - first]).collect();
            let batch = chunk
                .iter()
                .map(|&place| BatchToken::new(text[place], self.position(place), sequence, false));
            let batch: Vec<BatchToken> = batch.collect();
            behind.extend(self.behind(&rows, model)?);
            let next = behind.split_off(chunk.len() * self.context.n_hidden());
            self.context.decode_head(&batch, &behind)?;
            self.texts[*slot].seen.extend(chunk.iter().map(|&place| text[place]));
            behind = next;
        }
        self.texts[*slot].behind = behind;
        Ok(())
    }

    /// Where it is to read on in a text that a pass computed, and what is behind the token before; what it knows of the text afterwards is
    /// all up to there.
    fn begin(
        &mut self,
        passed: &Passed,
        model: &Context,
    ) -> Result<(usize, Vec<f32>), ggml::Error> {
        let Passed { slot, text, rows } = passed;
        let (slot, first) = (*slot, text.len() - rows.len());
        let known = &self.texts[slot];
        let same = known.seen.iter().zip(text).take_while(|(a, b)| a == b).count();
        // What is between the text that it knows and what was computed it has no way to read.
        let mut knows = same >= first && known.begin <= first;
        let mut start = if knows { same } else { first };
        let behind = if start > first {
            self.behind(&rows[start - first - 1..start - first], model)?
        } else if knows && known.seen.len() == first && !known.behind.is_empty() {
            known.behind.clone()
        } else if self.is_beside {
            // What is behind the token before is not known: it begins one later.
            (knows, start) = (false, first + 1);
            self.behind(&rows[..1], model)?
        } else {
            vec![0.0; self.context.n_hidden()]
        };
        let keep = self.position(start);
        if knows && self.context.truncate_sequence(sequence(slot), keep) {
            self.texts[slot].seen.truncate(start);
        } else {
            self.forget(slot);
            let seen = text[..start].to_vec();
            self.texts[slot] = Followed { seen, begin: start, behind: Vec::new() };
        }
        Ok((start, behind))
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
            batch.push(BatchToken::new(growing.next, self.position(*place), sequence, true));
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
            let n = self.position(self.texts[slot].seen.len());
            if !self.context.truncate_sequence(sequence(slot), n) {
                self.forget(slot);
            }
        }
        Ok(())
    }
}

/// A context of a head in a file of its own, for the texts of `target`, which is a context of `loaded`.
pub(super) fn beside(
    head: &HeadFile,
    loaded: &Loaded,
    target: &Context,
) -> Result<(Context, ContextParams), Error> {
    let (own, other) = (head.model.vocab(), loaded.model.vocab());
    // Without a vocabulary, there are no texts to be compared.
    let differs = if own.is_none() || other.is_none() { None } else { differing(own, other) };
    if own.len() != other.len() || differs.is_some() {
        let token = differs.unwrap_or_default();
        let of = model_name(&loaded.index);
        let why = format!("its token {token} is another than that of '{of}'");
        return Err(Error::Draft { model: model_name(&head.index), why });
    }
    let params = heads::of_file(&loaded.params_of_draft(Part::Beside), head.blanks);
    let stop = loaded.monitor.stop_flag();
    let context = Context::of_head(head.model.clone(), &params, target, stop);
    Ok((context.map_err(ggml_error(&head.index))?, params))
}

impl Drafter for DraftHead {
    fn name(&self) -> &str {
        &self.name
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
