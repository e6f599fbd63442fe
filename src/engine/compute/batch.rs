//! Many texts at once: one context with a sequence for each, so that every pass over the weights serves all of them.
//!
//! Each step is one batch: the last token of every text that is being written, and as much of the prompts as fits beside them,
//! shared fairly. A text that has ended leaves its tokens in its sequence, and the next prompt that begins like it goes on
//! from there; a prompt that begins like another sequence's copies that beginning, which costs nothing in a shared cache.
//!
//! All sequences share one context, of which each may use its share and more: there are more sequences than shares. When the
//! context is full, what ended texts left goes first, then the youngest text gives its place up and is read again later.
//!
//! It owns no thread, no queue of its clients and no sockets: `serve` does. Here is what goes round: the step, and its batch; where
//! texts begin, how they end and who makes room are files of their own.

mod begin;
mod course;
mod end;
mod keep;
mod pool;
mod room;
mod running;
mod shares;
mod stations;
mod thoughts;
mod vectors;
mod verify;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shelf::Shelf;
pub use course::{Course, ThoughtLimit};
use pool::Pool;
pub use running::{Alternative, Ended, Finish, Piece, Reading, Request, Room, Scored, Sink};
use running::{Going, Running};
use shares::shares;
pub use vectors::Vector;
use vectors::Vectoring;

use crate::engine::compute::draft::{Drafts, Passed, Tree};
use crate::engine::error::{ggml_error, model_name};
use crate::engine::loaded::{Engine, Loaded};
use crate::engine::{Clock, Error};
use crate::ggml::{BatchToken, Context, ContextParams, Token};
use crate::stream::Monitor;

/// A listener that takes nothing for so long is given up, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// What time it is to those who wait for listeners.
    clock: Clock,
    /// Steps so far; tells which slot was used longest ago.
    n_steps: u64,
    /// Texts that were begun so far; tells which is the oldest.
    born: u64,
    batch: Vec<BatchToken>,
    /// Which of it is whose.
    parts: Vec<Part>,
    /// What guesses how texts go on, if anything does.
    drafts: Option<Drafts>,
    drafts_pause: bool,
    /// What the pass computed that is over, for who drafts.
    passed: Vec<Passed>,
    /// The first of the sequences for further ways of drafts, and how many there are.
    first_way: u32,
    n_ways: usize,
    /// Whether the model's memory is one state, which is taken back by a copy only.
    has_state: bool,
    /// Whether a pass that is stopped ends its texts, or is computed again.
    ends_when_stopped: bool,
    /// The text whose vector is being made.
    reading: Option<Vectoring>,
    /// Whether one waits for room: then no other text begins.
    vector_waits: bool,
    /// Where texts outlive their slots.
    shelf: Option<Shelf>,
    /// Where tokens are chosen that take long.
    pool: Pool,
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
    /// Where the reading of its prompt stops, so that its state can be kept.
    stations: Vec<usize>,
    /// Whether a vector is being made of it.
    is_read: bool,
    /// Whether its text is one that was written, not one of which a vector was made.
    is_text: bool,
}

impl Slot {
    /// Whether another text may begin here.
    fn is_free(&self) -> bool {
        self.running.is_none() && !self.is_read
    }
}

/// One text's tokens of a batch.
#[derive(Debug, Default)]
struct Part {
    slot: usize,
    /// Where they begin, and how many there are without the drafted ones.
    first: usize,
    n: usize,
    /// What was drafted behind them.
    tree: Tree,
    /// The sequences of its further ways: the first, and how many.
    ways: (u32, u32),
    /// The model's state before the pass, where only that brings it back.
    state: Option<Vec<u8>>,
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
    /// Tokens that were drafted and checked ...
    pub drafted: usize,
    /// ... and those of them that came.
    pub accepted: usize,
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
        let has_state = loaded.model.has_state();
        let n_ways = if has_state { 0 } else { loaded.n_ways };
        let params = ContextParams {
            n_ctx: plan.n_ctx,
            n_ubatch,
            n_seqs: loaded.sequences + n_ways,
            n_outputs: loaded.n_outputs,
            threads: loaded.threads.clone(),
            n_threads: loaded.n_threads,
            offload: plan.gpu.is_some() && !plan.by_cpu.is_empty(),
            recall: loaded.recall,
            part: loaded.part(),
        };
        let context = Context::new(loaded.model.clone(), &params, loaded.monitor.stop_flag());
        let context = context.map_err(ggml_error(&loaded.index))?;
        let drafts = loaded.drafts(&context)?;
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
            clock: Clock::System,
            n_steps: 0,
            born: 0,
            batch: Vec::with_capacity(n_ubatch as usize),
            parts: Vec::new(),
            drafts,
            drafts_pause: false,
            passed: Vec::new(),
            first_way: loaded.sequences,
            n_ways: n_ways as usize,
            has_state,
            ends_when_stopped: false,
            reading: None,
            vector_waits: false,
            shelf: None,
            pool: Pool::new(),
            tally: Tally::default(),
            loaded,
        })
    }

    /// Gives up listeners that take nothing for longer than `patience`.
    pub fn give_up_after(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Reads the time from `clock` when it waits for listeners.
    pub fn tell_time(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// A pass that is stopped ends its texts, instead of being computed again for those who still listen.
    pub fn end_when_stopped(&mut self) {
        self.ends_when_stopped = true;
    }

    /// Lets others draft than those that the engine was opened with.
    pub fn draft_with(&mut self, drafts: Drafts) {
        self.drafts = Some(drafts);
    }

    /// Lets nobody draft for a while, or again.
    pub fn pause_drafts(&mut self, pause: bool) {
        self.drafts_pause = pause;
    }

    /// Forgets all that texts that have ended left.
    pub fn forget_all(&mut self) {
        for slot in (0..self.slots.len()).filter(|&i| self.slots[i].is_free()).collect::<Vec<_>>() {
            self.forget(slot);
            self.slots[slot].tokens.clear();
        }
    }

    /// What others may look at, and stop it by.
    pub fn monitor(&self) -> Arc<Monitor> {
        self.loaded.monitor.clone()
    }

    /// Who drafts, for people; nobody where that is off.
    pub fn drafters(&self) -> Option<String> {
        self.drafts.as_ref().map(Drafts::names)
    }

    /// Tokens that the context has of all texts.
    pub fn n_kept(&self) -> usize {
        self.slots.iter().map(|slot| slot.n_done).sum()
    }

    /// Tokens that a text may have, prompt and answer together.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Whether a text that is added now may begin at once: there are more free slots than texts that wait for one.
    pub fn has_room(&self) -> bool {
        self.slots.iter().filter(|slot| slot.is_free()).count() > self.pending.len()
    }

    /// Texts that can be written at a time.
    pub fn n_places(&self) -> usize {
        self.slots.len()
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

    /// What was done since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Computes one batch and hands out what came of it. False if there was nothing to compute: all that run wait for their
    /// listeners, or nothing runs. Failures end the texts that they concern; the batcher goes on.
    pub fn step(&mut self) -> bool {
        self.reap();
        self.take_thoughts(Instant::now());
        self.admit();
        self.compose();
        if self.batch.is_empty() {
            return self.think();
        }
        self.n_steps += 1;
        self.tally.texts = self.n_running();
        let (batch, parts) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.parts));
        self.tell(&parts, false);
        let begin = Instant::now();
        let result = self.loaded.checked(self.context.decode_batch(&batch));
        match result {
            Ok(()) => {
                self.loaded.monitor.passed(batch.len(), begin);
                if let Some(drafts) = &mut self.drafts {
                    drafts.pace.passed(batch.len(), begin.elapsed().as_secs_f64());
                }
                self.tell(&parts, true);
                parts.iter().for_each(|part| self.advance(part));
                self.show_drafters();
                self.wait_for_thoughts(begin.elapsed());
            }
            Err(error) => self.failed(&parts, error),
        }
        (self.batch, self.parts) = (batch, parts);
        true
    }

    /// Tells how far the prompts are that are being read, or that a pass for the next tokens begins or is over.
    fn tell(&self, parts: &[Part], is_over: bool) {
        let reads =
            |part: &&Part| self.slots[part.slot].running.as_ref().is_some_and(Running::reads);
        let read = parts.iter().filter(reads).map(|part| {
            let Slot { tokens, n_done, running, .. } = &self.slots[part.slot];
            // What was there from before is no work.
            let n_reused = running.as_ref().map_or(0, Running::n_reused);
            let done = n_done + if is_over { part.n } else { 0 };
            (done.saturating_sub(n_reused), tokens.len().saturating_sub(n_reused))
        });
        let (done, all) = read.fold((0, 0), |sum, (done, all)| (sum.0 + done, sum.1 + all));
        let (done, all) = if all == 0 { (usize::from(is_over), 1) } else { (done, all) };
        self.loaded.monitor.tokens(done, all);
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
        let now = self.clock.now();
        let mut wants = Vec::with_capacity(n);
        for slot in (0..n).map(|i| (i + self.turn) % n) {
            let Slot { tokens, n_done, running, stations, .. } = &mut self.slots[slot];
            if running.as_mut().is_some_and(|running| running.may_go_on(now)) {
                let next = stations.iter().find(|&place| place > n_done).copied();
                wants.push((slot, next.unwrap_or(tokens.len()) - *n_done));
            }
        }
        wants
    }

    fn fill(&mut self, shares: &[(usize, usize)]) {
        self.parts.clear();
        let mut trees = if shares.is_empty() { Vec::new() } else { self.draft(shares) };
        let mut ways = 0;
        for &(slot, n) in shares {
            let Slot { tokens, n_done, used, running, .. } = &mut self.slots[slot];
            if let Some(running) = running.as_mut().filter(|running| running.reads()) {
                running.tell_reading(*n_done, n);
            }
            *used = self.n_steps + 1;
            let last = tokens.len() - 1;
            let entry = |position: usize| {
                BatchToken::new(tokens[position], position, sequence(slot), position == last)
            };
            let mut part = Part { slot, first: self.batch.len(), n, ..Part::default() };
            self.batch.extend((*n_done..*n_done + n).map(entry));
            if let Some(at) = trees.iter().position(|tree| tree.0 == slot) {
                let (_, tree) = trees.swap_remove(at);
                self.plant(&mut part, tree, &mut ways);
            }
            self.parts.push(part);
        }
    }

    /// A batch was computed: a text whose last token was in it gets its next, and as many as were drafted right.
    fn advance(&mut self, part: &Part) {
        let &Part { slot, first, n, .. } = part;
        self.slots[slot].n_done += n;
        self.arrive(slot);
        let Slot { tokens, n_done, running, .. } = &mut self.slots[slot];
        let Some(running) = running else { return };
        if running.reads() {
            self.tally.prompt += n;
        }
        if *n_done < tokens.len() {
            return self.note(part, None);
        }
        let (mut at, mut row, mut chosen_here) = (None, first + n - 1, 0);
        let going = loop {
            let chosen = match self.context.logits_of(row) {
                Ok(logits) => running.next(logits, &self.loaded, &mut self.pool),
                Err(error) => Err(error),
            };
            let (token, going) = match chosen {
                Ok(chosen) => chosen,
                Err(error) => break Err(error),
            };
            chosen_here += 1;
            self.tally.generated += usize::from(token.is_some());
            tokens.extend(token);
            let next = token.and_then(|token| part.tree.child(at, token));
            let goes_on =
                going == Going::On && next.is_some() && running.may_go_on(self.clock.now());
            let Some(node) = next.filter(|_| goes_on) else { break Ok(going) };
            (at, row) = (Some(node), first + n + node);
            *n_done += 1;
        };
        self.note(part, at);
        let ended = going.as_ref().is_ok_and(|going| *going != Going::On);
        let drafted = self.learn(&part.tree, at, ended);
        self.tally.drafted += drafted.tried;
        self.tally.accepted += drafted.accepted;
        if let Some(running) = &mut self.slots[slot].running {
            running.count(chosen_here, drafted);
        }
        match going {
            Ok(going) => {
                // The end comes first: what the context has of the text is what was computed of it.
                self.finish(slot, going);
                self.settle(part, at);
            }
            Err(error) => {
                let error = ggml_error(&self.loaded.index)(error);
                self.fail(slot, error);
                self.settle(part, at);
            }
        }
    }
}

/// The context's name of a slot's sequence.
fn sequence(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
