//! Vectors of texts, of models that were made for them: in a context of its own, which is the only one that such a model has, so
//! that the plan's is meant for it. Models that write make vectors with the context that they write with (`batch`).

use std::sync::Arc;
use std::time::Instant;

use crate::engine::Error;
use crate::engine::error::ggml_error;
use crate::engine::loaded::{Engine, Loaded};
use crate::ggml::{Context, ContextParams, KvType, Part, Token};

/// Makes vectors of texts.
#[derive(Debug)]
pub struct Embedder {
    context: Option<(Wanted, Context)>,
    loaded: Arc<Loaded>,
}

/// What a text is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A vector.
    Vector,
    /// One number: how well the text in it answers the question in it, as the model's head says.
    Score,
}

impl Embedder {
    /// One for `engine`'s model. Costs nothing yet.
    pub fn new(engine: &Engine) -> Embedder {
        Embedder { context: None, loaded: engine.loaded() }
    }

    /// The vector of a text, as the model makes it, or the one number of its score.
    ///
    /// # Errors
    ///
    /// The text is empty or too long; the model cannot; too little memory; a computation that failed or was stopped.
    pub fn embed(&mut self, tokens: &[Token], wanted: Wanted) -> Result<Vec<f32>, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let room = room(&self.loaded);
        if tokens.len() > room as usize {
            return Err(Error::ContextTooSmall { tokens: tokens.len(), room: room as usize });
        }
        // There is room for one of them.
        let mut context = match self.context.take().filter(|(kind, _)| *kind == wanted) {
            Some((_, context)) => context,
            None => make(&self.loaded, wanted)?,
        };
        context.truncate(0);
        let begin = Instant::now();
        let computed = self.loaded.checked(context.decode(tokens));
        let result = computed.and_then(|()| match wanted {
            Wanted::Vector => Ok(context.vector()?.to_vec()),
            Wanted::Score => Ok(vec![context.score()?]),
        });
        self.context = Some((wanted, context));
        let error = match result {
            Ok(vector) => {
                self.loaded.monitor.passed(tokens.len(), begin);
                return Ok(vector);
            }
            Err(error) => error,
        };
        self.loaded.monitor.clear_stop();
        Err(self.loaded.explain(error))
    }
}

/// The longest text. (tokens)
fn room(loaded: &Loaded) -> u32 {
    let n_ctx = loaded.n_ctx_each();
    // Positions that are looked up in a table end with it.
    match loaded.model.n_ctx_train() {
        0 => n_ctx,
        trained => n_ctx.min(trained),
    }
}

fn make(loaded: &Loaded, wanted: Wanted) -> Result<Context, Error> {
    if loaded.model.has_encoder() && loaded.model.has_decoder() || loaded.model.is_diffusion() {
        return Err(Error::Request("this model makes no vectors".to_owned()));
    }
    let n_ctx = room(loaded);
    let params = ContextParams {
        n_ctx,
        // A text is read at once: its tokens look at those behind them, too.
        n_ubatch: n_ctx,
        n_seqs: 1,
        n_outputs: n_ctx,
        threads: loaded.threads.clone(),
        n_threads: loaded.n_threads,
        offload: false,
        recall: loaded.recall.with_kv(KvType::F16),
        part: Part::Model,
    };
    let stop = loaded.monitor.stop_flag();
    let context = match wanted {
        Wanted::Vector => Context::for_vectors(loaded.model.clone(), &params, stop),
        Wanted::Score => Context::for_scores(loaded.model.clone(), &params, stop),
    };
    context.map_err(ggml_error(&loaded.index))
}

/// The same direction, with length 1.
pub fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
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
