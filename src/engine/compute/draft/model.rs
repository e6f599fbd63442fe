//! Drafts by a small model with the same vocabulary, which is resident. It follows each text in a sequence of its own; what it guessed
//! wrong it forgets with the next draft.

use super::growing::Growing;
use super::room::sequence;
use super::{Drafter, Sketch, Tree};
use crate::engine::Error;
use crate::engine::error::{ggml_error, model_name};
use crate::engine::loaded::{Engine, Loaded};
use crate::ggml::{self, BatchToken, Context, Part, Token, Vocab};

use std::sync::Arc;

/// Vocabularies may differ by so many tokens at their ends: some are filled up to a round number.
const FILLED: usize = 128;

/// Drafts by a model.
#[derive(Debug)]
pub struct DraftModel {
    name: String,
    context: Context,
    loaded: Arc<Loaded>,
    /// What the context has seen of each text.
    seen: Vec<Vec<Token>>,
    n_ctx: usize,
    n_batch: usize,
    /// Tokens of the model that is drafted for.
    n_vocab: usize,
}

impl DraftModel {
    /// One that was loaded, for `engine`.
    ///
    /// # Errors
    ///
    /// Another vocabulary; a model whose memory cannot forget; too little memory.
    pub(in crate::engine) fn new(model: &Engine, for_: &Loaded) -> Result<DraftModel, Error> {
        let loaded = model.loaded();
        let name = model_name(&loaded.index);
        check(&loaded, for_)?;
        let (plan, params) = (&loaded.plan, loaded.params_of_draft(Part::Model));
        let context = Context::new(loaded.model.clone(), &params, loaded.monitor.stop_flag());
        let context = context.map_err(ggml_error(&loaded.index))?;
        let n_vocab = for_.model.vocab().len().min(loaded.model.vocab().len());
        Ok(DraftModel {
            name,
            context,
            seen: vec![Vec::new(); loaded.sequences as usize],
            n_ctx: plan.n_ctx as usize,
            n_batch: plan.n_ubatch as usize,
            n_vocab,
            loaded,
        })
    }

    /// Brings a sequence to all of a text but its last token.
    fn follow(&mut self, slot: usize, text: &[Token]) -> Result<(), ggml::Error> {
        let (sequence, all) = (sequence(slot), text.len() - 1);
        let seen = &mut self.seen[slot];
        let common = seen.iter().zip(&text[..all]).take_while(|(a, b)| a == b).count();
        if common < seen.len() {
            let kept = if self.context.truncate_sequence(sequence, common) { common } else { 0 };
            if kept == 0 {
                self.context.truncate_sequence(sequence, 0);
            }
            seen.truncate(kept);
        }
        while self.seen[slot].len() < all {
            let from = self.seen[slot].len();
            let to = all.min(from + self.n_batch);
            let batch: Vec<BatchToken> =
                (from..to).map(|i| BatchToken::new(text[i], i, sequence, false)).collect();
            self.context.decode_batch(&batch)?;
            self.seen[slot].extend_from_slice(&text[from..to]);
        }
        Ok(())
    }

    /// Forgets the texts of all sequences but those that are followed now, where room is short.
    fn make_room(&mut self, texts: &[Sketch<'_>]) {
        let wanted: usize = texts.iter().map(|text| text.text.len() + text.nodes).sum();
        for slot in 0..self.seen.len() {
            let others: usize = self.seen.iter().map(Vec::len).sum();
            let is_followed = texts.iter().any(|text| text.slot == slot);
            if others + wanted > self.n_ctx && !is_followed {
                self.forget(slot);
            }
        }
    }

    fn forget(&mut self, slot: usize) {
        self.context.truncate_sequence(sequence(slot), 0);
        self.seen[slot].clear();
    }

    /// One token more for each of the texts that grow.
    fn grow(
        &mut self,
        texts: &[Sketch<'_>],
        growing: &mut Vec<Growing>,
        trees: &mut [Tree],
    ) -> Result<(), ggml::Error> {
        let batch: Vec<BatchToken> = growing
            .iter()
            .map(|g| {
                let slot = texts[g.text].slot;
                BatchToken::new(g.next, self.seen[slot].len(), sequence(slot), true)
            })
            .collect();
        self.context.decode_batch(&batch)?;
        for (i, g) in growing.iter_mut().enumerate() {
            let text = &texts[g.text];
            self.seen[text.slot].push(g.next);
            g.grow(&self.context.logits_of(i)?[..self.n_vocab], text, &mut trees[g.text]);
        }
        let vocab = self.loaded.model.vocab();
        growing.retain(|g| {
            let text = &texts[g.text];
            let full = self.seen[text.slot].len() + 1 >= self.n_ctx;
            !full && g.goes_on(text, &trees[g.text], vocab)
        });
        Ok(())
    }

    fn try_draft(&mut self, texts: &[Sketch<'_>], trees: &mut [Tree]) -> Result<(), ggml::Error> {
        self.make_room(texts);
        let fits = |text: &Sketch<'_>| {
            text.nodes > 0 && text.text.len() < self.n_ctx && text.slot < self.seen.len()
        };
        let mut growing: Vec<Growing> = Vec::new();
        for (i, text) in texts.iter().enumerate().filter(|(_, text)| fits(text)) {
            let Some(&next) = text.text.last() else { continue };
            let known = text.text.iter().all(|&t| self.loaded.model.vocab().contains(t));
            if known {
                growing.push(Growing::new(i, next));
            }
        }
        for g in &growing {
            self.follow(texts[g.text].slot, texts[g.text].text)?;
        }
        while !growing.is_empty() {
            self.grow(texts, &mut growing, trees)?;
        }
        Ok(())
    }
}

impl Drafter for DraftModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn draft(&mut self, texts: &[Sketch<'_>]) -> Vec<Tree> {
        let mut trees = vec![Tree::default(); texts.len()];
        if self.try_draft(texts, &mut trees).is_err() {
            // Without drafts, nothing is lost but time. What its memory holds now nobody knows.
            self.loaded.monitor.clear_stop();
            (0..self.seen.len()).for_each(|slot| self.forget(slot));
        }
        trees
    }
}

/// Whether the draft's tokens are the model's, and its memory can forget.
fn check(draft: &Loaded, for_: &Loaded) -> Result<(), Error> {
    let name = model_name(&draft.index);
    let refused = |why: String| Err(Error::Draft { model: name.clone(), why });
    if draft.model.has_state() || draft.model.has_encoder() || draft.model.is_diffusion() {
        return refused("it cannot take back what it guessed wrong".to_owned());
    }
    let (own, other) = (draft.model.vocab(), for_.model.vocab());
    if own.is_none() || other.is_none() {
        return refused("without a vocabulary, tokens mean nothing".to_owned());
    }
    let (n, m) = (own.len(), other.len());
    if n.abs_diff(m) > FILLED {
        return refused(format!("it has {n} tokens, and '{}' {m}", model_name(&for_.index)));
    }
    if let Some(token) = differing(own, other) {
        return refused(format!(
            "its token {token} is another than that of '{}'",
            model_name(&for_.index)
        ));
    }
    Ok(())
}

/// The first token that two vocabularies have different texts for.
pub(super) fn differing(a: Vocab<'_>, b: Vocab<'_>) -> Option<Token> {
    let n = Token::try_from(a.len().min(b.len())).unwrap_or(Token::MAX);
    (0..n).find(|&token| a.piece(token, true) != b.piece(token, true))
}
