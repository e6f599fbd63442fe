//! Who drafts for a loaded model: what its texts repeat, and a head or the small model that was opened for it.

use super::{DraftBlock, DraftHead, DraftModel, Drafter, Drafts, Ngrams, Pace};
use crate::engine::Error;
use crate::engine::loaded::{Drafting, Loaded};
use crate::ggml::Context;

impl Loaded {
    /// Those that draft for `context`, if somebody is to.
    pub(in crate::engine) fn drafts(&self, context: &Context) -> Result<Option<Drafts>, Error> {
        let Some(draft) = &self.draft else { return Ok(None) };
        let mut drafters: Vec<Box<dyn Drafter>> = vec![Box::new(Ngrams)];
        match draft {
            Drafting::Ngrams => {}
            Drafting::Head => drafters.push(Box::new(DraftHead::own(self)?)),
            Drafting::HeadFile(head) => drafters.push(match head.blanks {
                Some(blanks) => Box::new(DraftBlock::new(head, blanks, self, context)?),
                None => Box::new(DraftHead::beside(head, self, context)?),
            }),
            Drafting::Model(model) => drafters.push(Box::new(DraftModel::new(model, self)?)),
        }
        Ok(Some(Drafts::new(drafters, Pace::new(self.passes.clone()))))
    }
}
