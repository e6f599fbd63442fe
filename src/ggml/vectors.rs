//! Contexts that make vectors of texts, and the vectors.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ggml_sys as sys;

use super::context::{Context, ContextParams};
use super::model::Model;
use super::pooling::Pooling;
use super::result::{Error, not_null};

impl Context {
    /// A context that makes vectors of texts.
    pub fn for_vectors(
        model: Arc<Model>,
        params: &ContextParams,
        stop: Arc<AtomicBool>,
    ) -> Result<Context, Error> {
        let pooling = Some(Pooling::OfModel);
        let context = Context::create(model.clone(), params, pooling, None, stop.clone())?;
        // SAFETY: a valid context.
        let kind = unsafe { sys::llama_pooling_type(context.ptr.as_ptr()) };
        // What ranks texts makes a number of two of them, and no vector.
        let no_vector =
            [sys::LLAMA_POOLING_TYPE_NONE, sys::LLAMA_POOLING_TYPE_RANK].contains(&kind);
        if no_vector {
            drop(context);
            return Context::create(model, params, Some(Pooling::Mean), None, stop);
        }
        Ok(context)
    }

    /// A context whose model's head says how well a text answers a question.
    pub fn for_scores(
        model: Arc<Model>,
        params: &ContextParams,
        stop: Arc<AtomicBool>,
    ) -> Result<Context, Error> {
        Context::create(model, params, Some(Pooling::Score), None, stop)
    }

    /// What the head says of the last text: the first of its numbers, which is about it.
    pub fn score(&self) -> Result<f32, Error> {
        // SAFETY: a valid context; NULL if there is none. A head has one number at least.
        let scores = unsafe { sys::llama_get_embeddings_seq(self.ptr.as_ptr(), 0) };
        let scores = not_null("reading the score", scores)?;
        // SAFETY: it points at that number, until the next batch.
        Ok(unsafe { scores.read() })
    }

    /// The vector of the last text, in a context whose pooling makes one.
    pub fn vector(&self) -> Result<&[f32], Error> {
        // SAFETY: a valid context; NULL if there is none.
        let vector = unsafe { sys::llama_get_embeddings_seq(self.ptr.as_ptr(), 0) };
        self.row(vector)
    }

    /// Whether the next batches make a vector of each token, in a context that writes: all of their tokens are outputs then.
    pub fn make_vectors(&mut self, on: bool) {
        // SAFETY: a valid context.
        unsafe { sys::llama_set_embeddings(self.ptr.as_ptr(), on) };
    }

    /// The vector of token `i` of the last batch, for which they were wanted.
    pub fn vector_of(&self, i: usize) -> Result<&[f32], Error> {
        let i = i32::try_from(i).unwrap_or(i32::MAX);
        // SAFETY: a valid context; NULL if there is none.
        let vector = unsafe { sys::llama_get_embeddings_ith(self.ptr.as_ptr(), i) };
        self.row(vector)
    }

    fn row(&self, vector: *mut f32) -> Result<&[f32], Error> {
        let vector = not_null("reading the vector", vector)?;
        let n = self.model().n_vector();
        // SAFETY: libllama says that a vector has so many numbers, until the next batch.
        Ok(unsafe { std::slice::from_raw_parts(vector.as_ptr(), n) })
    }
}
