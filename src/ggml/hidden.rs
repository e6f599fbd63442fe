//! What heads that guess tokens ahead read of a model, and their contexts: those in its own file read what it has behind each token before
//! its output, those in files of their own (EAGLE3, DFlash) what goes into some of its blocks.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ggml_sys as sys;

use super::batch::BatchToken;
use super::context::{Context, ContextParams, Part};
use super::model::Model;
use super::result::Error;

impl Context {
    /// A context of `model`, a head in a file of its own, for that of the model that it guesses for, from which it borrows the embedding or
    /// the output if it has none.
    pub fn of_head(
        model: Arc<Model>,
        params: &ContextParams,
        other: &Context,
        stop: Arc<AtomicBool>,
    ) -> Result<Context, Error> {
        // SAFETY: a valid model.
        let lends = unsafe { sys::ggml_sys_lends(other.model().as_ptr()) };
        if !matches!(params.part, Part::Beside | Part::Block) || !model.has_encoder() || !lends {
            return Err(Error::Invalid("no head, or nobody to borrow from".into()));
        }
        Context::create(model, params, None, Some(other), stop)
    }

    /// Makes it keep what heads read, if it is to.
    pub(super) fn keep_hidden(&mut self) -> Result<(), Error> {
        let _call = super::log::call();
        let context = self.ptr.as_ptr();
        // SAFETY: a valid context, with which nobody computes; as many blocks as are said, which the model has.
        let kept = unsafe {
            match self.part {
                Part::Model | Part::Block => return Ok(()),
                Part::Hidden => sys::ggml_sys_keep_hidden(context, false),
                Part::Head | Part::Beside => sys::ggml_sys_keep_hidden(context, true),
                Part::Layers(layers) => {
                    let (layers, most) = (layers.as_slice(), self.model().n_blocks());
                    if layers.iter().any(|&layer| layer >= most) {
                        return Err(Error::Invalid(format!("it has {most} blocks")));
                    }
                    sys::ggml_sys_keep_layers(context, layers.as_ptr(), layers.len())
                }
            }
        };
        if kept { Ok(()) } else { Err(Error::NoMemory { what: "what heads read" }) }
    }

    /// Adds what went into the blocks that it keeps, at token `i` of the last batch, to `rows`.
    pub fn layers_of(&self, i: usize, rows: &mut Vec<f32>) -> Result<(), Error> {
        let Part::Layers(layers) = self.part else {
            return Err(Error::Invalid("no blocks are kept".into()));
        };
        let n = self.model().n_embd();
        for &layer in layers.as_slice() {
            // SAFETY: a valid context; the block is kept, if a batch was computed.
            let (most, row) = unsafe {
                let most = sys::llama_n_batch(self.ptr.as_ptr()) as usize;
                if !self.is_computed || i >= most {
                    return Err(Error::Invalid("there is nothing that heads read".into()));
                }
                (most, sys::ggml_sys_layer(self.ptr.as_ptr(), layer))
            };
            debug_assert!(i < most && !row.is_null(), "libllama asserts that");
            // SAFETY: libllama has room for a row for each token of a batch, and keeps it until the next one.
            rows.extend_from_slice(unsafe { std::slice::from_raw_parts(row.add(i * n), n) });
        }
        Ok(())
    }

    /// Numbers in a row of what a head in a file of its own makes of what it reads.
    fn n_encoded(&self) -> usize {
        // SAFETY: a valid model.
        unsafe { sys::ggml_sys_encoder_width(self.model().as_ptr()) as usize }
    }

    /// What a head in a file of its own makes of rows of [`Context::layers_of`], no more of them than fit a batch: what it reads with the
    /// tokens behind them.
    pub fn encode_rows(&mut self, rows: &[f32]) -> Result<Vec<f32>, Error> {
        let width = self.n_encoded();
        let n = rows.len() / width.max(1);
        // SAFETY: a valid context.
        let most = unsafe { sys::llama_n_ubatch(self.ptr.as_ptr()) } as usize;
        if self.part != Part::Beside || n == 0 || n > most || rows.len() != n * width {
            return Err(Error::Invalid("no head, or not what it reads".into()));
        }
        let mut outputs = vec![1_i8; n];
        let batch = sys::llama_batch {
            n_tokens: i32::try_from(n).unwrap_or(i32::MAX),
            token: std::ptr::null_mut(),
            // libllama only reads it, although its type says otherwise.
            embd: rows.as_ptr().cast_mut(),
            pos: std::ptr::null_mut(),
            n_seq_id: std::ptr::null_mut(),
            seq_id: std::ptr::null_mut(),
            logits: outputs.as_mut_ptr(),
        };
        let _call = super::log::call();
        let leased = self.threads.lease();
        // SAFETY: a valid context; the columns have as many entries as the batch, and live during the call.
        let code = unsafe { sys::llama_encode(self.ptr.as_ptr(), batch) };
        drop(leased);
        self.outcome("reading what a head reads", code)?;
        let len = n * self.n_hidden();
        // SAFETY: a valid context, which has a row for each token that it encoded, until the next batch.
        unsafe {
            let made = sys::ggml_sys_hidden(self.ptr.as_ptr());
            let none = || Error::Invalid("a head made nothing of what it read".into());
            let made = NonNull::new(made.cast_mut()).ok_or_else(none)?;
            Ok(std::slice::from_raw_parts(made.as_ptr(), len).to_vec())
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
        let most = match self.part {
            Part::Hidden => most,
            Part::Head | Part::Beside => self.n_seqs() as usize,
            Part::Model | Part::Layers(_) | Part::Block => 0,
        };
        if rows.is_null() || i >= most || n == 0 {
            return Err(Error::Invalid("there is nothing that heads read".into()));
        }
        // SAFETY: libllama has room for a row for each token of a batch, or for a result of each sequence, and keeps it until the next batch.
        Ok(unsafe { std::slice::from_raw_parts(rows.add(i * n), n) })
    }

    /// Computes a batch of a head: each token with its row of `hidden`, which is what the model has behind the token before it, or what the
    /// head made of that. In a file of its own, a head has results of all tokens of a batch, or of none.
    pub fn decode_head(&mut self, batch: &[BatchToken], hidden: &[f32]) -> Result<(), Error> {
        let is_head = matches!(self.part, Part::Head | Part::Beside);
        let alike = batch.windows(2).all(|pair| pair[0].output == pair[1].output);
        let unlike = self.part == Part::Beside && !alike;
        if !is_head || unlike || hidden.len() != batch.len() * self.n_hidden() {
            return Err(Error::Invalid("no head, or not what it reads".into()));
        }
        self.decode_with(batch, Some(hidden))
    }

    /// Puts what the model has of tokens, a row of [`Context::layers_of`] for each, into the memory of a head that fills in. It takes
    /// nothing else of the tokens than their places.
    pub fn put_rows(&mut self, batch: &[BatchToken], rows: &[f32]) -> Result<(), Error> {
        let wants = batch.iter().any(|token| token.output);
        if self.part != Part::Block || wants || rows.len() != batch.len() * self.n_encoded() {
            return Err(Error::Invalid("no head that fills in, or not what it reads".into()));
        }
        self.decode_with(batch, Some(rows))
    }

    /// Fills in blocks of tokens: each has a result.
    pub fn decode_blocks(&mut self, batch: &[BatchToken]) -> Result<(), Error> {
        if self.part != Part::Block || !batch.iter().all(|token| token.output) {
            return Err(Error::Invalid("no head that fills in".into()));
        }
        self.decode_with(batch, None)
    }
}
