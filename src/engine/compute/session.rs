//! One timeline of a model: the tokens it has seen, kept in step with libllama's memory of them.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::Error;
use crate::engine::error::{ggml_error, model_name};
use crate::engine::loaded::{Engine, Loaded};
use crate::ggml::{self, Context, ContextParams, Part, Token};
use crate::stream::Monitor;
use crate::talk::Vocab;

/// One timeline. One thread owns it.
#[derive(Debug)]
pub struct Session {
    context: Context,
    tokens: Vec<Token>,
    /// Whether the logits of the last token are at hand.
    has_logits: bool,
    loaded: Arc<Loaded>,
}

impl Engine {
    /// A new timeline.
    ///
    /// # Errors
    ///
    /// Too little memory for the context.
    pub fn session(&self) -> Result<Session, Error> {
        Session::new(self.loaded())
    }
}

impl Session {
    fn new(loaded: Arc<Loaded>) -> Result<Session, Error> {
        let plan = &loaded.plan;
        // Encoders and diffusion models read their whole text in one pass.
        let at_once = loaded.model.has_encoder() || loaded.model.is_diffusion();
        let n_ubatch = if at_once { plan.n_ctx } else { plan.n_ubatch };
        let params = ContextParams {
            n_ctx: plan.n_ctx,
            n_ubatch,
            n_seqs: 1,
            n_outputs: 1,
            threads: loaded.threads.clone(),
            n_threads: loaded.n_threads,
            offload: plan.gpu.is_some() && !plan.by_cpu.is_empty(),
            recall: loaded.recall,
            part: Part::Model,
        };
        let stop = loaded.monitor.stop_flag();
        let context = Context::new(loaded.model.clone(), &params, stop);
        let context = context.map_err(ggml_error(&loaded.index))?;
        Ok(Session { context, tokens: Vec::new(), has_logits: false, loaded })
    }

    /// Tokens there is room for.
    pub fn n_ctx(&self) -> u32 {
        self.context.n_ctx()
    }

    /// The tokens it has seen.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// What other threads may look at, and stop it by.
    pub fn monitor(&self) -> Arc<Monitor> {
        self.loaded.monitor.clone()
    }

    /// Brings the session to exactly `tokens`: keeps what they have in common with what it has seen, forgets the rest, and
    /// computes what is missing. Returns how many were kept.
    ///
    /// # Errors
    ///
    /// Unknown tokens, too many of them, a failed or interrupted computation: then it holds a beginning of `tokens`.
    pub fn sync(&mut self, tokens: &[Token]) -> Result<usize, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let room = self.n_ctx() as usize;
        if tokens.len() > room {
            return Err(Error::ContextTooSmall { tokens: tokens.len(), room });
        }
        self.check(tokens)?;
        if self.loaded.model.has_encoder() {
            return self.encode(tokens).map(|()| 0);
        }
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if common == tokens.len() && common == self.tokens.len() && self.has_logits {
            return Ok(common);
        }
        // The last token is computed in any case: its logits are what the caller came for.
        let kept = self.rewind(common.min(tokens.len() - 1))?;
        self.eval(&tokens[kept..])?;
        Ok(kept)
    }

    /// Appends `tokens` and computes them.
    ///
    /// # Errors
    ///
    /// As [`Session::sync`].
    pub fn eval(&mut self, tokens: &[Token]) -> Result<(), Error> {
        let room = (self.n_ctx() as usize).saturating_sub(self.tokens.len());
        if tokens.len() > room {
            return Err(Error::ContextTooSmall { tokens: tokens.len(), room });
        }
        self.check(tokens)?;
        if self.loaded.model.is_diffusion() {
            return self.eval_at_once(tokens);
        }
        let monitor = self.monitor();
        for batch in tokens.chunks(self.loaded.plan.n_ubatch as usize) {
            let done = batch.as_ptr().addr() - tokens.as_ptr().addr();
            monitor.tokens(done / size_of::<Token>(), tokens.len());
            self.has_logits = false;
            let begin = Instant::now();
            if let Err(error) = self.loaded.checked(self.context.decode(batch)) {
                monitor.tokens(0, 0);
                return Err(self.failed(error));
            }
            monitor.passed(batch.len(), begin);
            self.tokens.extend_from_slice(batch);
            self.has_logits = true;
        }
        monitor.tokens(tokens.len(), tokens.len());
        Ok(())
    }

    /// Forgets everything from token `n` on. Returns how many tokens are left: fewer than `n` where the model's memory cannot
    /// forget a part (recurrent states), which leaves none.
    ///
    /// # Errors
    ///
    /// None today; the result leaves room for memories that are somewhere else.
    pub fn rewind(&mut self, n: usize) -> Result<usize, Error> {
        if n < self.tokens.len() {
            self.has_logits = false;
            let n = if self.context.truncate(n) { n } else { 0 };
            if n == 0 {
                self.context.truncate(0);
            }
            self.tokens.truncate(n);
        }
        Ok(self.tokens.len())
    }

    /// The logits after the last token, one per token of the vocabulary.
    ///
    /// # Errors
    ///
    /// Nothing was computed, or the model has none (embedding models).
    pub fn logits(&self) -> Result<&[f32], Error> {
        self.context.logits().map_err(ggml_error(&self.loaded.index))
    }

    /// Whether it can continue a text token by token.
    pub(in crate::engine) fn continues_text(&self) -> bool {
        !self.loaded.model.is_diffusion()
    }

    pub(in crate::engine) fn name(&self) -> String {
        model_name(&self.loaded.index)
    }

    pub(in crate::engine) fn vocab(&self) -> &Vocab {
        &self.loaded.vocab
    }

    fn check(&self, tokens: &[Token]) -> Result<(), Error> {
        let vocab = self.loaded.model.vocab();
        match tokens.iter().find(|&&t| !vocab.contains(t)) {
            Some(&token) => Err(Error::NoSuchToken { token, n_vocab: vocab.len() }),
            None => Ok(()),
        }
    }

    /// A model without memory computes everything anew.
    fn eval_at_once(&mut self, tokens: &[Token]) -> Result<(), Error> {
        let all = [&self.tokens, tokens].concat();
        self.has_logits = false;
        let begin = Instant::now();
        let computed = self.loaded.checked(self.context.decode(&all));
        computed.map_err(|error| self.failed(error))?;
        self.monitor().passed(all.len(), begin);
        self.tokens = all;
        self.has_logits = true;
        Ok(())
    }

    /// The encoder reads the prompt; the decoder begins with its start token.
    fn encode(&mut self, tokens: &[Token]) -> Result<(), Error> {
        self.rewind(0)?;
        let start =
            self.loaded.model.decoder_start().or(self.loaded.model.vocab().bos()).unwrap_or(0);
        let begin = Instant::now();
        let computed = self.loaded.checked(self.context.encode(tokens));
        computed.map_err(|error| self.failed(error))?;
        self.monitor().passed(tokens.len(), begin);
        let begin = Instant::now();
        let computed = self.loaded.checked(self.context.decode(&[start]));
        computed.map_err(|error| self.failed(error))?;
        self.monitor().passed(1, begin);
        self.tokens = tokens.to_vec();
        self.has_logits = true;
        Ok(())
    }

    /// A computation failed: libllama's memory is brought back in step with the tokens, and the cause is found.
    fn failed(&mut self, error: ggml::Error) -> Error {
        if !self.context.truncate(self.tokens.len()) {
            self.context.truncate(0);
            self.tokens.clear();
        }
        self.loaded.explain(error)
    }
}
