//! Vectors of texts: a context of its own, made when the first vector is wanted. A model made for vectors gives its own; of one
//! that writes, it is the mean of what its last block makes of each token. Vectors have length 1.

use std::sync::Arc;
use std::time::Instant;

use super::load::{Loaded, ggml_error, model_name};
use super::{Engine, Error, Token};
use crate::ggml::{self, Context, ContextParams, Pooling};
use crate::units::Bytes;

/// Tokens per pass where each gives logits, too, which take room and which nobody wants.
const CHUNK: u32 = 32;

/// Makes vectors of texts.
#[derive(Debug)]
pub struct Embedder {
    context: Option<Context>,
    loaded: Arc<Loaded>,
}

impl Embedder {
    /// One for `engine`'s model. Costs nothing yet.
    pub fn new(engine: &Engine) -> Embedder {
        Embedder { context: None, loaded: engine.loaded() }
    }

    /// The vector of a text.
    ///
    /// # Errors
    ///
    /// The text is empty or too long; the model cannot; too little memory; a computation that failed or was stopped.
    pub fn embed(&mut self, tokens: &[Token]) -> Result<Vec<f32>, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let room = room(&self.loaded);
        if tokens.len() > room as usize {
            return Err(Error::ContextTooSmall { tokens: tokens.len(), room: room as usize });
        }
        let mut context = match self.context.take() {
            Some(context) => context,
            None => make(&self.loaded)?,
        };
        context.truncate(0);
        let result = compute(&mut context, tokens, &self.loaded);
        self.context = Some(context);
        let error = match result {
            Ok(vector) => return Ok(normalised(vector)),
            Err(error) => error,
        };
        self.loaded.monitor.clear_stop();
        let stream_error = self.loaded.stream.as_ref().and_then(|s| s.take_error());
        Err(match (error, stream_error) {
            (ggml::Error::Aborted, _) => Error::Interrupted,
            (_, Some(error)) => Error::Stream { model: model_name(&self.loaded.index), error },
            (error, None) => ggml_error(&self.loaded.index)(error),
        })
    }
}

/// The longest text. (tokens)
fn room(loaded: &Loaded) -> u32 {
    let n_ctx = loaded.n_ctx_each();
    // Positions that are looked up in a table end with it.
    match loaded.model.n_ctx_train() {
        trained if trained > 0 && !in_pieces(loaded) => n_ctx.min(trained),
        _ => n_ctx,
    }
}

/// Whether the model reads its text in pieces; otherwise all of it at once.
fn in_pieces(loaded: &Loaded) -> bool {
    loaded.index.purpose().not_for_text().is_none() && loaded.model.batches()
}

fn make(loaded: &Loaded) -> Result<Context, Error> {
    if loaded.model.has_encoder() && loaded.model.has_decoder() || loaded.model.is_diffusion() {
        return Err(Error::Request("this model makes no vectors".to_owned()));
    }
    let n_ctx = room(loaded);
    let pieces = in_pieces(loaded);
    if pieces {
        check_memory(loaded)?;
    }
    let params = ContextParams {
        n_ctx,
        n_ubatch: if pieces { CHUNK.min(n_ctx) } else { n_ctx },
        n_seqs: 1,
        threads: loaded.threads.clone(),
        n_threads: loaded.n_threads,
        offload: false,
    };
    let pooling = if pieces { Pooling::None } else { Pooling::OfModel };
    let stop = loaded.monitor.stop_flag();
    Context::for_vectors(loaded.model.clone(), &params, pooling, stop)
        .map_err(ggml_error(&loaded.index))
}

/// This context is not in the plan: where the memory was promised, it must fit beside it.
fn check_memory(loaded: &Loaded) -> Result<(), Error> {
    let memory = &loaded.plan.memory;
    let logits = Bytes::from(loaded.model.vocab().len() * 4) * u64::from(CHUNK);
    let part = u64::from(loaded.plan.n_ctx / loaded.n_ctx_each().max(1)).max(1);
    let context = Bytes(memory.context.0 / part) + logits;
    if loaded.plan.promised && memory.peak() + context > memory.budget {
        let why = format!("vectors need {context} more RAM than --ram allows; a smaller -c may do");
        return Err(Error::Request(why));
    }
    Ok(())
}

fn compute(
    context: &mut Context,
    tokens: &[Token],
    loaded: &Loaded,
) -> Result<Vec<f32>, ggml::Error> {
    if !in_pieces(loaded) {
        let begin = Instant::now();
        context.decode(tokens)?;
        loaded.monitor.passed(tokens.len(), begin);
        return Ok(context.vector()?.to_vec());
    }
    let mut sum = Vec::new();
    for chunk in tokens.chunks(CHUNK as usize) {
        let begin = Instant::now();
        context.decode(chunk)?;
        loaded.monitor.passed(chunk.len(), begin);
        for i in 0..chunk.len() {
            let vector = context.vector_of(i)?;
            sum.resize(vector.len(), 0.0);
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
    }
    Ok(sum)
}

/// The same direction, with length 1. A mean and a sum have the same direction.
fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if length.is_normal() {
        #[expect(clippy::cast_possible_truncation, reason = "back to what it was")]
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    } else {
        // JSON has no way to write what is not a number.
        vector.fill(0.0);
    }
    vector
}
