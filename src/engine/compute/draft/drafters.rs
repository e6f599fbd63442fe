//! Who drafts for a loaded model: what its texts repeat, and a head of its own or the small model that was opened for it.

use super::{DraftHead, DraftModel, Drafter, Drafts, Ngrams, Pace};
use crate::engine::Error;
use crate::engine::loaded::{Drafting, Loaded};

impl Loaded {
    /// Those that draft for a context, if somebody is to.
    pub(in crate::engine) fn drafts(&self) -> Result<Option<Drafts>, Error> {
        let Some(Drafting { model, head }) = &self.draft else { return Ok(None) };
        let mut drafters: Vec<Box<dyn Drafter>> = vec![Box::new(Ngrams)];
        if *head {
            drafters.push(Box::new(DraftHead::new(self)?));
        }
        if let Some(model) = model {
            drafters.push(Box::new(DraftModel::new(model, self)?));
        }
        Ok(Some(Drafts::new(drafters, Pace::new(self.passes.clone()))))
    }
}
