//! Prompts that outlive the process: what a context had of long texts, on disk, found again by their tokens. A directory of pairs of
//! files (`files`); what does not pay is not kept (`worth`); another model, build or device finds nothing (`key`). It owns no
//! context: who has one writes and reads.

mod files;
mod key;
mod worth;

use std::path::{Path, PathBuf};

use crate::engine::loaded::{Engine, Loaded};
use crate::ggml::Token;
use crate::units::Bytes;
use files::{Files, Label};
use worth::Work;

/// Texts, and what is gained of one, that are shorter are computed faster than anybody would notice. (tokens)
pub(super) const LEAST: usize = 64;

/// The prompts of one model that are on disk.
#[derive(Debug)]
pub struct Shelf {
    files: Files,
    key: String,
    /// What is known to be there, of this model.
    labels: Vec<Label>,
    work: Work,
    /// Whether a text can be cut short: not where the model's memory is one state.
    cuts: bool,
}

/// A prompt that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    id: String,
    /// All its tokens.
    pub(super) n_tokens: usize,
    /// How many of them the wanted prompt begins with.
    pub(super) common: usize,
}

impl Engine {
    /// The prompts of this model that are kept on disk, in at most `most` bytes with those of all others. `None` where there is no
    /// place for files, or the model's memory cannot be kept.
    pub fn shelf(&self, most: Bytes) -> Option<Shelf> {
        self.shelf_in(crate::memo::path("prompts")?, most)
    }

    /// The same, in a directory of one's own.
    pub fn shelf_in(&self, dir: PathBuf, most: Bytes) -> Option<Shelf> {
        Shelf::open(&self.loaded(), dir, most)
    }
}

impl Shelf {
    fn open(loaded: &Loaded, dir: PathBuf, most: Bytes) -> Option<Shelf> {
        if loaded.model.has_encoder() || loaded.model.is_diffusion() || most == Bytes::ZERO {
            return None;
        }
        let key = key::of(loaded)?;
        let files = Files::open(dir, most)?;
        let labels = files.labels(&key);
        let cuts = !loaded.model.has_state();
        Some(Shelf { files, key, labels, work: Work::of(loaded), cuts })
    }

    /// Keeps what is long enough, whether reading it back is faster than computing it or not: for who looks at what is read.
    #[must_use]
    pub fn at_any_price(self) -> Shelf {
        Shelf { work: Work::endless(), ..self }
    }

    /// The kept text that has most of the beginning of `prompt`, whose last token is computed in any case, if that is worth more
    /// than the `have` tokens that are there already.
    pub(super) fn find(&self, prompt: &[Token], have: usize) -> Option<Found> {
        let wanted = &prompt[..prompt.len().saturating_sub(1)];
        let found = |label: &Label| {
            let common = label.tokens.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            let whole = common == label.tokens.len();
            let gained = common.saturating_sub(have);
            let pays = gained >= LEAST && self.work.pays(label.bytes, gained);
            let found = Found { id: label.id.clone(), n_tokens: label.tokens.len(), common };
            (pays && (whole || self.cuts)).then_some(found)
        };
        self.labels.iter().filter_map(found).max_by_key(|found| found.common)
    }

    /// The file of a text that was found, once it was seen to be as it was written; one that is not is removed.
    pub(super) fn checked(&mut self, found: &Found) -> Option<PathBuf> {
        let label = self.labels.iter().find(|label| label.id == found.id)?;
        match self.files.checked(label) {
            Some(file) => Some(file),
            None => {
                self.remove(found);
                None
            }
        }
    }

    /// Removes what turned out to be of no use.
    pub(super) fn remove(&mut self, found: &Found) {
        self.files.remove(&found.id);
        self.labels.retain(|label| label.id != found.id);
    }

    /// Whether `tokens`, of which the context has `bytes`, should be kept: not if they are, or do not pay.
    pub(super) fn wants(&self, tokens: &[Token], bytes: u64) -> bool {
        let kept = |label: &Label| match self.cuts {
            true => label.tokens.starts_with(tokens),
            false => label.tokens == tokens,
        };
        tokens.len() >= LEAST
            && self.work.pays(bytes, tokens.len())
            && self.files.has_room(bytes)
            && !self.labels.iter().any(kept)
    }

    /// Whether so many tokens may be worth keeping, whatever their state takes.
    pub(super) fn would_keep(&self, n_tokens: usize) -> bool {
        n_tokens >= LEAST && self.work.pays(0, n_tokens)
    }

    /// How many tokens `prompt` and a kept text begin with alike, at most.
    pub(super) fn longest_common(&self, prompt: &[Token]) -> usize {
        let common =
            |label: &Label| label.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        self.labels.iter().map(common).max().unwrap_or(0)
    }

    /// Keeps `tokens`, whose state `write` writes to the file that it is given. What cannot be kept is not: nobody needs to know.
    pub(super) fn put(&mut self, tokens: &[Token], write: impl FnOnce(&Path) -> bool) {
        let Some(label) = self.files.put(&self.key, tokens, write) else { return };
        if self.cuts {
            // What is the beginning of the new one is in it.
            let (shorter, rest) = std::mem::take(&mut self.labels)
                .into_iter()
                .partition(|old| tokens.starts_with(&old.tokens) && old.id != label.id);
            self.labels = rest;
            let shorter: Vec<Label> = shorter;
            shorter.iter().for_each(|old| self.files.remove(&old.id));
        }
        self.labels.retain(|old| old.id != label.id);
        self.labels.push(label);
        let gone = self.files.evict();
        self.labels.retain(|label| !gone.contains(&label.id));
    }
}
