//! Many texts at once: one context with a sequence for each, so that every pass over the weights serves all of them.
//!
//! Each step is one batch: the last token of every text that is being written, and as much of the prompts as fits beside them,
//! shared fairly. A text that has ended leaves its tokens in its sequence, and the next prompt that begins like it goes on
//! from there; a prompt that begins like another sequence's copies that beginning, which costs nothing in a shared cache.
//!
//! All sequences share one context, of which each may use its share and more: there are more sequences than shares. When the
//! context is full, what ended texts left goes first, then the youngest text gives its place up and is read again later.
//!
//! It owns no thread, no queue of its clients and no sockets: `serve` does.

mod room;
mod running;
mod shares;
mod vectors;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use running::{Alternative, Ended, Grammar, Piece, Request, Room, Scored, Sink};
use running::{Going, Running};
use shares::shares;
use vectors::Reading;
pub(super) use vectors::VECTOR_TOKENS;
pub use vectors::Vector;

use super::load::{Loaded, ggml_error, model_name};
use super::{Engine, Error, Finish};
use crate::ggml::{self, BatchToken, Context, ContextParams, Token};

/// A listener that takes nothing for so long is given up, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A prompt waits for another that is being read and begins like it, if that saves so many tokens.
const WORTH_WAITING: usize = 16;

/// The texts that are being written, and those that wait for a place.
#[derive(Debug)]
pub struct Batcher {
    context: Context,
    loaded: Arc<Loaded>,
    slots: Vec<Slot>,
    pending: VecDeque<Request>,
    /// Tokens that a text may have.
    n_ctx: usize,
    /// Tokens that the context holds.
    capacity: usize,
    n_ubatch: usize,
    /// The slot that is served first in the next batch: all take turns.
    turn: usize,
    /// A listener that takes nothing for so long is given up.
    patience: Duration,
    /// Steps so far; tells which slot was used longest ago.
    clock: u64,
    /// Texts that were begun so far; tells which is the oldest.
    born: u64,
    batch: Vec<BatchToken>,
    /// The text whose vector is being made.
    reading: Option<Reading>,
    /// Whether one waits for room: then no other text begins.
    vector_waits: bool,
    tally: Tally,
}

/// One sequence of the context.
#[derive(Debug, Default)]
struct Slot {
    /// The text, as far as it is known.
    tokens: Vec<Token>,
    /// Tokens of it that the context has seen.
    n_done: usize,
    /// When it was last in a batch.
    used: u64,
    running: Option<Running>,
    /// Whether a vector is being made of it.
    is_read: bool,
}

impl Slot {
    /// Whether another text may begin here.
    fn is_free(&self) -> bool {
        self.running.is_none() && !self.is_read
    }
}

/// What was done, for those who count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tokens of prompts that were computed.
    pub prompt: usize,
    /// Tokens of prompts that were there from before.
    pub reused: usize,
    /// Tokens that were written.
    pub generated: usize,
    /// Texts in the step.
    pub texts: usize,
    /// Texts that ended well, whose listener went, that failed.
    pub ended: [usize; 3],
}

impl Engine {
    /// A context for as many texts as the engine was opened for.
    ///
    /// # Errors
    ///
    /// Too little memory; a model that does not write token by token.
    pub fn batcher(&self) -> Result<Batcher, Error> {
        Batcher::new(self.loaded())
    }
}

impl Batcher {
    fn new(loaded: Arc<Loaded>) -> Result<Batcher, Error> {
        if loaded.model.is_diffusion() {
            let what = "a diffusion model, which does not write token by token";
            return Err(Error::NotForText { model: model_name(&loaded.index), what });
        }
        let plan = &loaded.plan;
        // An encoder reads its whole text in one pass.
        let n_ubatch = if loaded.model.has_encoder() { plan.n_ctx } else { plan.n_ubatch };
        let params = ContextParams {
            n_ctx: plan.n_ctx,
            n_ubatch,
            n_seqs: loaded.sequences,
            n_outputs: loaded.n_outputs,
            threads: loaded.threads.clone(),
            n_threads: loaded.n_threads,
            offload: plan.gpu.is_some() && !plan.by_cpu.is_empty(),
        };
        let context = Context::new(loaded.model.clone(), &params, loaded.monitor.stop_flag());
        let context = context.map_err(ggml_error(&loaded.index))?;
        let slots = (0..loaded.sequences).map(|_| Slot::default()).collect();
        Ok(Batcher {
            context,
            slots,
            pending: VecDeque::new(),
            n_ctx: loaded.n_ctx_each() as usize,
            capacity: plan.n_ctx as usize,
            n_ubatch: n_ubatch as usize,
            turn: 0,
            patience: PATIENCE,
            clock: 0,
            born: 0,
            batch: Vec::with_capacity(n_ubatch as usize),
            reading: None,
            vector_waits: false,
            tally: Tally::default(),
            loaded,
        })
    }

    /// Gives up listeners that take nothing for longer than `patience`.
    pub fn give_up_after(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Tokens that a text may have, prompt and answer together.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Whether a text that is added now may begin at once.
    pub fn has_room(&self) -> bool {
        self.pending.is_empty() && self.slots.iter().any(Slot::is_free)
    }

    /// Texts that are being written.
    pub fn n_running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.running.is_some()).count()
    }

    /// Texts that wait for a place.
    pub fn n_pending(&self) -> usize {
        self.pending.len()
    }

    /// Adds a text. One that cannot be written ends at once, with the reason.
    pub fn add(&mut self, request: Request) {
        match self.check(&request) {
            Ok(()) => self.pending.push_back(request),
            Err(error) => {
                self.tally.ended[2] += 1;
                request.sink.end(Err(error));
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let (tokens, vocab) = (&request.prompt, self.loaded.model.vocab());
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        // At least one token of the answer must fit, too.
        let room = self.n_ctx.saturating_sub(1);
        if tokens.len() > room {
            return Err(Error::ContextTooSmall { tokens: tokens.len(), room });
        }
        match tokens.iter().find(|&&t| !vocab.contains(t)) {
            Some(&token) => Err(Error::NoSuchToken { token, n_vocab: vocab.len() }),
            None => Ok(()),
        }
    }

    /// Ends all texts as they are.
    pub fn cut(&mut self) {
        for slot in 0..self.slots.len() {
            self.finish(slot, Going::End(Finish::Interrupted, None));
        }
        for request in self.pending.drain(..) {
            self.tally.ended[1] += 1;
            request.sink.end(Err(Error::Interrupted));
        }
    }

    /// What was done since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Computes one batch and hands out what came of it. False if there was nothing to compute: all that run wait for their
    /// listeners, or nothing runs. Failures end the texts that they concern; the batcher goes on.
    pub fn step(&mut self) -> bool {
        self.reap();
        self.admit();
        self.compose();
        if self.batch.is_empty() {
            return false;
        }
        self.clock += 1;
        self.tally.texts = self.n_running();
        let begin = Instant::now();
        let batch = std::mem::take(&mut self.batch);
        let result = self.context.decode_batch(&batch);
        match result {
            Ok(()) => {
                self.loaded.monitor.passed(batch.len(), begin);
                self.advance(&batch);
            }
            Err(error) => self.failed(&batch, error),
        }
        self.batch = batch;
        true
    }

    /// Lets go of texts that nobody listens to any more.
    fn reap(&mut self) {
        let gone = |request: &Request| request.sink.room() == Room::Gone;
        let waiting = self.pending.len();
        self.pending.retain(|request| !gone(request));
        self.tally.ended[1] += waiting - self.pending.len();
        for slot in 0..self.slots.len() {
            let Some(running) = &mut self.slots[slot].running else { continue };
            if running.is_abandoned(self.patience) {
                self.tally.ended[1] += 1;
                self.close(slot);
            }
        }
    }

    /// Gives waiting texts the slots that are free.
    fn admit(&mut self) {
        let mut i = 0;
        while i < self.pending.len() && !self.vector_waits {
            if self.wanted() + self.pending[i].prompt.len() >= self.capacity {
                return;
            }
            let Some(free) = self.choose_slot(&self.pending[i].prompt) else { return };
            let Choice { slot, from, common, better_later } = free;
            if better_later {
                i += 1;
                continue;
            }
            let Some(request) = self.pending.remove(i) else { return };
            if let Err((sink, error)) = self.begin(slot, from, common, request) {
                self.tally.ended[2] += 1;
                sink.end(Err(error));
            }
        }
    }

    /// The free slot for a prompt, and whose tokens it should begin with.
    fn choose_slot(&self, prompt: &[Token]) -> Option<Choice> {
        // The last token is computed in any case: its logits are what the text begins with.
        let most = prompt.len() - 1;
        let common =
            |known: &[Token]| known.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count();
        let done: Vec<usize> = self.slots.iter().map(|s| common(&s.tokens[..s.n_done])).collect();
        let free = (0..self.slots.len()).filter(|&i| self.slots[i].is_free());
        let best = (0..self.slots.len()).max_by_key(|&i| (done[i], self.slots[i].is_free()))?;
        // A free slot that begins right is taken as it is; a copy goes where it was quiet for the longest time.
        let longest_idle = free.min_by_key(|&i| self.slots[i].used)?;
        let (slot, from) = match self.slots[best].is_free() && done[best] > 0 {
            true => (best, best),
            false => (longest_idle, best),
        };
        let reading = self.slots.iter().filter(|s| s.running.as_ref().is_some_and(Running::reads));
        let soon = reading.map(|s| common(&s.tokens)).max().unwrap_or(0);
        let better_later = self.copies() && soon >= done[best] + WORTH_WAITING;
        Some(Choice { slot, from, common: done[best], better_later })
    }

    /// Whether the beginning of a sequence can be copied: not where its memory is one state.
    fn copies(&self) -> bool {
        !self.loaded.model.has_state() && !self.loaded.model.has_encoder()
    }

    /// Begins to write a text in a free slot.
    fn begin(
        &mut self,
        slot: usize,
        from: usize,
        common: usize,
        request: Request,
    ) -> Result<(), (Box<dyn Sink>, Error)> {
        let kept = if self.loaded.model.has_encoder() { 0 } else { self.keep(slot, from, common) };
        let prompt = request.prompt.clone();
        (self.slots[slot].tokens, self.slots[slot].n_done) = (prompt[..kept].to_vec(), kept);
        self.born += 1;
        let running = Running::new(request, kept, self.born, &self.loaded)?;
        let tokens = match self.encode(&prompt) {
            Ok(tokens) => tokens,
            Err(error) => return Err((running.into_sink(), error)),
        };
        self.tally.reused += kept;
        self.slots[slot].tokens = tokens;
        self.slots[slot].running = Some(running);
        Ok(())
    }

    /// Brings a slot to the first `common` tokens of slot `from`. Returns how many it really has then.
    fn keep(&mut self, slot: usize, from: usize, common: usize) -> usize {
        let (to, source) = (sequence(slot), sequence(from));
        let whole = self.slots[from].n_done == common;
        if slot != from && common > 0 && (whole || self.copies()) {
            self.context.copy_sequence(source, to);
        } else if slot != from {
            self.context.truncate_sequence(to, 0);
            return 0;
        }
        if self.context.truncate_sequence(to, common) && self.context.can_go_on(to, common) {
            return common;
        }
        self.context.truncate_sequence(to, 0);
        0
    }

    /// What the context is to be fed with for a prompt: the prompt, or, where an encoder reads that, what the decoder begins with.
    fn encode(&mut self, prompt: &[Token]) -> Result<Vec<Token>, Error> {
        let model = &self.loaded.model;
        if !model.has_encoder() {
            return Ok(prompt.to_vec());
        }
        let start = model.decoder_start().or(model.vocab().bos()).unwrap_or(0);
        let begin = Instant::now();
        self.context.truncate(0);
        self.context.encode(prompt).map_err(|error| self.explain(error))?;
        self.loaded.monitor.passed(prompt.len(), begin);
        Ok(vec![start])
    }

    /// Puts the next batch together.
    fn compose(&mut self) {
        self.batch.clear();
        self.unpark();
        self.turn = (self.turn + 1) % self.slots.len();
        loop {
            let wants = self.wants();
            let shares = shares(&wants, self.n_ubatch);
            if self.make_room(shares.iter().map(|share| share.1).sum()) {
                return self.fill(&shares);
            }
            self.park_youngest();
        }
    }

    /// Slots whose texts can go on, the one whose turn it is first, and how many tokens of each are not computed.
    fn wants(&mut self) -> Vec<(usize, usize)> {
        let n = self.slots.len();
        let mut wants = Vec::with_capacity(n);
        for slot in (0..n).map(|i| (i + self.turn) % n) {
            let Slot { tokens, n_done, running, .. } = &mut self.slots[slot];
            if running.as_mut().is_some_and(Running::may_go_on) {
                wants.push((slot, tokens.len() - *n_done));
            }
        }
        wants
    }

    fn fill(&mut self, shares: &[(usize, usize)]) {
        for &(slot, n) in shares {
            let Slot { tokens, n_done, used, .. } = &mut self.slots[slot];
            *used = self.clock + 1;
            let last = tokens.len() - 1;
            let entry = |position: usize| BatchToken {
                token: tokens[position],
                position,
                sequence: sequence(slot),
                output: position == last,
            };
            self.batch.extend((*n_done..*n_done + n).map(entry));
        }
    }

    /// A batch was computed: texts whose last token was in it get their next.
    fn advance(&mut self, batch: &[BatchToken]) {
        for (i, entry) in batch.iter().enumerate() {
            let slot = entry.sequence as usize;
            self.slots[slot].n_done = entry.position + 1;
            let Some(running) = &mut self.slots[slot].running else { continue };
            if running.reads() {
                self.tally.prompt += 1;
            }
            if !entry.output {
                continue;
            }
            let going = match self.context.logits_of(i) {
                Ok(logits) => running.next(logits, &self.loaded.vocab),
                Err(error) => Err(error),
            };
            match going {
                Ok((token, going)) => {
                    self.tally.generated += usize::from(token.is_some());
                    self.slots[slot].tokens.extend(token);
                    self.finish(slot, going);
                }
                Err(error) => {
                    let error = ggml_error(&self.loaded.index)(error);
                    self.fail(slot, error);
                }
            }
        }
    }

    /// Ends a text if it is at its end, or has no room to go on.
    fn finish(&mut self, slot: usize, going: Going) {
        let Slot { tokens, n_done, running, .. } = &mut self.slots[slot];
        let full = *n_done >= self.n_ctx && tokens.len() > *n_done;
        let (finish, stop) = match going {
            Going::End(finish, stop) => (finish, stop),
            Going::On if full => (Finish::ContextFull, None),
            Going::On => return,
        };
        if let Some(running) = running.take() {
            self.tally.ended[0] += 1;
            running.end(finish, stop, tokens[..*n_done].to_vec());
        }
        self.close(slot);
    }

    fn fail(&mut self, slot: usize, error: Error) {
        if let Some(running) = self.slots[slot].running.take() {
            self.tally.ended[2] += 1;
            running.into_sink().end(Err(error));
        }
        self.close(slot);
    }

    /// Frees a slot; what the context has of its text stays, for prompts that begin like it.
    fn close(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.running = None;
        slot.tokens.truncate(slot.n_done);
    }

    /// A batch could not be computed. If it was stopped, its texts are tried again; otherwise they end with the reason.
    fn failed(&mut self, batch: &[BatchToken], error: ggml::Error) {
        let error = self.explain(error);
        let mut slots: Vec<usize> = batch.iter().map(|t| t.sequence as usize).collect();
        slots.dedup();
        let stopped = matches!(error, Error::Interrupted);
        self.loaded.monitor.clear_stop();
        let reason = error.to_string();
        let mut error = Some(error);
        for slot in slots {
            let kept = self.slots[slot].n_done;
            // The context has dropped some of the batch, or none of it: what was there before is brought back, or all is forgotten.
            if !stopped || !self.context.truncate_sequence(sequence(slot), kept) {
                self.forget(slot);
            }
            if !stopped {
                // The first gets the error itself, with its hint; the others its words.
                let error = error.take().unwrap_or_else(|| Error::Failed(reason.clone()));
                self.fail(slot, error);
            }
        }
    }

    /// The cause of a failed computation: the stream's, if it had one.
    fn explain(&self, error: ggml::Error) -> Error {
        let stream_error = self.loaded.stream.as_ref().and_then(|s| s.take_error());
        match (error, stream_error) {
            (ggml::Error::Aborted, _) => Error::Interrupted,
            (_, Some(error)) => Error::Stream { model: model_name(&self.loaded.index), error },
            (error, None) => ggml_error(&self.loaded.index)(error),
        }
    }
}

/// Where a text may begin.
struct Choice {
    slot: usize,
    /// The slot that has most of its beginning.
    from: usize,
    /// How much of it. (tokens)
    common: usize,
    /// Whether another prompt that is being read will have much more of it soon.
    better_later: bool,
}

/// The context's name of a slot's sequence.
fn sequence(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
