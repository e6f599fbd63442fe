//! What a model has behind each token before its output, and the heads in its file that read it to guess tokens ahead: contexts of
//! two kinds over one model.
#![allow(unsafe_code)]

use ggml_sys as sys;

use super::batch::BatchToken;
use super::llama::{Context, Part};
use super::result::Error;

impl Context {
    /// Makes it keep what heads read, if it is to.
    pub(super) fn keep_hidden(&mut self) -> Result<(), Error> {
        let masked = match self.part {
            Part::Model => return Ok(()),
            Part::Hidden => false,
            Part::Head => true,
        };
        let _call = super::log::call();
        // SAFETY: a valid context, with which nobody computes.
        match unsafe { sys::ggml_sys_keep_hidden(self.ptr.as_ptr(), masked) } {
            true => Ok(()),
            false => Err(Error::NoMemory { what: "what heads read" }),
        }
    }

    /// Numbers in a row of what heads read.
    pub fn n_hidden(&self) -> usize {
        self.model().n_vector()
    }

    /// What is behind token `i` of the last batch: of a head, behind the token with the `i`th result.
    pub fn hidden(&self, i: usize) -> Result<&[f32], Error> {
        let n = self.n_hidden();
        // SAFETY: a valid context.
        let (most, rows) = unsafe {
            let rows = sys::ggml_sys_hidden(self.ptr.as_ptr());
            (sys::llama_n_batch(self.ptr.as_ptr()) as usize, rows)
        };
        let most = if self.part == Part::Head { self.n_seqs() as usize } else { most };
        if self.part == Part::Model || rows.is_null() || i >= most || n == 0 {
            return Err(Error::Invalid("there is nothing that heads read".into()));
        }
        // SAFETY: libllama has room for a row for each token of a batch, or for a result of each sequence, and keeps it until the next batch.
        Ok(unsafe { std::slice::from_raw_parts(rows.add(i * n), n) })
    }

    /// Computes a batch of a head: each token with its row of `hidden`, which is what the model has behind the token before it.
    pub fn decode_head(&mut self, batch: &[BatchToken], hidden: &[f32]) -> Result<(), Error> {
        if self.part != Part::Head || hidden.len() != batch.len() * self.n_hidden() {
            return Err(Error::Invalid("no head, or not what it reads".into()));
        }
        self.decode_with(batch, Some(hidden))
    }
}
