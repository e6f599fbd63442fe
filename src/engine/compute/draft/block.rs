//! Drafts by a head that fills in several tokens at a time (DFlash). What the model has of each token is put into the head's memory, a pass
//! behind the model; then one decode of a text's last token, and of blanks behind it, says what may be in all of them.

use super::growing::Growing;
use super::head::beside;
use super::room::sequence;
use super::{Drafter, Passed, Sketch, Tree};
use crate::engine::Error;
use crate::engine::error::model_name;
use crate::engine::loaded::Loaded;
use crate::engine::open::heads::HeadFile;
use crate::ggml::{self, BatchToken, Context, Model, Token};
use crate::gguf::Blanks;

use std::sync::Arc;

/// Drafts by a head that fills in.
#[derive(Debug)]
pub struct DraftBlock {
    name: String,
    context: Context,
    model: Arc<Model>,
    texts: Vec<Followed>,
    /// Tokens of a block, and which of them is a blank.
    size: usize,
    blank: Token,
    n_ctx: usize,
    n_batch: usize,
}

/// What the head's memory has of a text.
#[derive(Debug, Default)]
struct Followed {
    /// Its tokens.
    seen: Vec<Token>,
    /// Where it began: what a text began with may have been there from before.
    begin: usize,
}

impl DraftBlock {
    /// For the texts of `target`, which is a context of `loaded`.
    ///
    /// # Errors
    ///
    /// Another vocabulary; too little memory.
    pub(in crate::engine) fn new(
        head: &HeadFile,
        blanks: Blanks,
        loaded: &Loaded,
        target: &Context,
    ) -> Result<DraftBlock, Error> {
        let (context, params) = beside(head, loaded, target)?;
        Ok(DraftBlock {
            name: model_name(&head.index),
            context,
            model: loaded.model.clone(),
            texts: (0..params.n_seqs).map(|_| Followed::default()).collect(),
            size: blanks.size as usize,
            blank: blanks.token,
            n_ctx: params.n_ctx as usize,
            n_batch: params.n_ubatch as usize,
        })
    }

    fn forget(&mut self, slot: usize) {
        self.context.truncate_sequence(sequence(slot), 0);
        self.texts[slot] = Followed::default();
    }

    /// Forgets the texts of other sequences than `slots` where room is short for `n` tokens more.
    fn make_room(&mut self, slots: &[usize], n: usize) {
        let taken: usize = self.texts.iter().map(|text| text.seen.len() - text.begin).sum();
        if taken + n > self.n_ctx {
            let idle = (0..self.texts.len()).filter(|slot| !slots.contains(slot));
            idle.for_each(|slot| self.forget(slot));
        }
    }

    /// Puts what a pass computed of a text into the memory.
    fn read(&mut self, passed: &Passed, model: &Context) -> Result<(), ggml::Error> {
        let Passed { slot, text, rows } = passed;
        let (slot, first) = (*slot, text.len() - rows.len());
        let known = &self.texts[slot];
        let same = known.seen.iter().zip(text).take_while(|(a, b)| a == b).count();
        // What is between the text that it knows and what was computed it has no way to read.
        let knows = same >= first && known.begin <= first;
        let start = if knows { same } else { first };
        if knows && self.context.truncate_sequence(sequence(slot), start) {
            self.texts[slot].seen.truncate(start);
        } else {
            self.forget(slot);
            self.texts[slot] = Followed { seen: text[..start].to_vec(), begin: start };
        }
        self.make_room(&[slot], text.len() - start);
        let places: Vec<usize> = (start..text.len()).collect();
        for chunk in places.chunks(self.n_batch) {
            let mut all = Vec::new();
            let mut batch = Vec::with_capacity(chunk.len());
            for &place in chunk {
                model.layers_of(rows[place - first], &mut all)?;
                batch.push(BatchToken::new(text[place], place, sequence(slot), false));
            }
            self.context.put_rows(&batch, &all)?;
            self.texts[slot].seen.extend(chunk.iter().map(|&place| text[place]));
        }
        Ok(())
    }

    /// Whether a text can be drafted for: all of it but its last token is in the memory, and there is room for a block.
    fn is_ready(&self, text: &Sketch<'_>) -> bool {
        let Some(known) = self.texts.get(text.slot) else { return false };
        let Some((_, before)) = text.text.split_last() else { return false };
        text.nodes > 0 && known.seen == before && before.len() + self.size <= self.n_ctx
    }

    /// Fills in a block for each of a group of texts, which a batch has room for.
    fn fill_in(
        &mut self,
        group: &[usize],
        texts: &[Sketch<'_>],
        trees: &mut [Tree],
    ) -> Result<(), ggml::Error> {
        let mut batch = Vec::with_capacity(group.len() * self.size);
        for text in group.iter().map(|&i| &texts[i]) {
            let (last, n) = (text.text.len() - 1, sequence(text.slot));
            batch.extend((0..self.size).map(|at| {
                let token = if at == 0 { text.text[last] } else { self.blank };
                BatchToken::new(token, last + at, n, true)
            }));
        }
        self.context.decode_blocks(&batch)?;
        for (nth, &i) in group.iter().enumerate() {
            let (text, tree) = (&texts[i], &mut trees[i]);
            let mut growing = Growing::new(i, text.text[text.text.len() - 1]);
            for at in 1..self.size {
                growing.grow(self.context.logits_of(nth * self.size + at)?, text, tree);
                if !growing.goes_on(text, tree, self.model.vocab()) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn try_draft(&mut self, texts: &[Sketch<'_>], trees: &mut [Tree]) -> Result<(), ggml::Error> {
        let ready: Vec<usize> = (0..texts.len()).filter(|&i| self.is_ready(&texts[i])).collect();
        for group in ready.chunks((self.n_batch / self.size).max(1)) {
            let slots: Vec<usize> = ready.iter().map(|&i| texts[i].slot).collect();
            self.make_room(&slots, group.len() * self.size);
            self.fill_in(group, texts, trees)?;
            // What it filled in is not what will be there.
            for slot in group.iter().map(|&i| texts[i].slot) {
                let n = self.texts[slot].seen.len();
                if !self.context.truncate_sequence(sequence(slot), n) {
                    self.forget(slot);
                }
            }
        }
        Ok(())
    }
}

impl Drafter for DraftBlock {
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
