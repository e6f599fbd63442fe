//! What a run is doing right now, for other threads to look at; and the flag by which they stop it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::experts::{BlockSpec, Watch};
use super::passes::{Passes, Took};
use super::trace::{Trace, What};
use super::{Unit, UnitSpec};
use crate::units::Bytes;

/// Counters that the computing thread writes and anyone reads. All of them only inform; nothing is decided by them but `stop`.
#[derive(Debug, Default)]
pub struct Monitor {
    stop: Arc<AtomicBool>,
    active: AtomicBool,
    loaded: AtomicU64,
    to_load: AtomicU64,
    tokens_done: AtomicU64,
    tokens_total: AtomicU64,
    run: AtomicU64,
    n_runs: AtomicU64,
    passes: AtomicU64,
    streamed: AtomicU64,
    stalled_nanos: AtomicU64,
    took: Mutex<Passes>,
    /// The names of the units, once a stream device has them.
    units: OnceLock<Vec<String>>,
    /// How far the pass is: 0 before its first unit is computed, 2n + 1 while unit n is, 2n + 2 after that.
    at: AtomicU64,
    /// What each unit is doing, as a [`UnitState`].
    states: OnceLock<Box<[AtomicU8]>>,
    trace: OnceLock<Trace>,
    /// What streams by expert, once a stream device has it.
    experts: OnceLock<Watch>,
}

/// What a streamed unit is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UnitState {
    /// On disk, or in a slot that nobody waits for.
    Idle,
    /// On its way into a slot.
    Reading,
    /// In a slot, before it is computed with.
    Ready,
    /// Being computed with.
    Computing,
}

/// A copy of a [`Monitor`]'s counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes of weights that were loaded for good ...
    pub loaded: Bytes,
    /// ... of this many; 0 before that is known.
    pub to_load: Bytes,
    /// Whether tokens are being computed.
    pub active: bool,
    /// Tokens of the current request that are done, of those that are computed for it ...
    pub tokens_done: usize,
    /// ... of this many.
    pub tokens_total: usize,
    /// Blocks of the current pass that are done ...
    pub block: usize,
    /// ... of this many; 0 when nothing streams.
    pub n_blocks: usize,
    /// How far the current pass is by the units that stream: 0 before the first is computed, 2n + 1 while unit n is, 2n + 2 after.
    pub at: usize,
    /// Passes over the weights since the model was loaded: one for each batch of tokens.
    pub passes: u64,
    /// Bytes brought to slots for them.
    pub streamed: Bytes,
    /// Seconds that computation waited for bytes; on a device with queues of its own, that the host did, while computation may
    /// have gone on.
    pub stall_seconds: f64,
}

impl Monitor {
    /// Reads all counters.
    pub fn snapshot(&self) -> Progress {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let size = |a: &AtomicU64| usize::try_from(get(a)).unwrap_or(usize::MAX);
        Progress {
            loaded: Bytes(get(&self.loaded)),
            to_load: Bytes(get(&self.to_load)),
            active: self.active.load(Ordering::Relaxed),
            tokens_done: size(&self.tokens_done),
            tokens_total: size(&self.tokens_total),
            block: size(&self.run),
            n_blocks: size(&self.n_runs),
            at: size(&self.at),
            passes: get(&self.passes),
            streamed: Bytes(get(&self.streamed)),
            stall_seconds: Duration::from_nanos(get(&self.stalled_nanos)).as_secs_f64(),
        }
    }

    /// Asks the computation under way to end soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Takes a request to stop back, before something new begins.
    pub fn clear_stop(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The flag itself, for C.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// So much will be loaded for good.
    pub fn to_load(&self, total: Bytes) {
        self.to_load.store(total.0, Ordering::Relaxed);
    }

    /// So much more of it is there.
    pub fn loaded(&self, more: Bytes) {
        self.loaded.fetch_add(more.0, Ordering::Relaxed);
    }

    /// A request of `total` tokens has come as far as `done`; it is over when they are equal.
    pub fn tokens(&self, done: usize, total: usize) {
        self.tokens_done.store(done as u64, Ordering::Relaxed);
        self.tokens_total.store(total as u64, Ordering::Relaxed);
        self.active.store(done < total, Ordering::Relaxed);
    }

    /// Passes that are over.
    pub(super) fn n_passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Run `run` of `n_runs` of a pass begins; `run` = `n_runs` at its end.
    pub(super) fn run(&self, run: usize, n_runs: usize) {
        self.run.store(run as u64, Ordering::Relaxed);
        self.n_runs.store(n_runs as u64, Ordering::Relaxed);
    }

    /// A pass with `n_tokens` tokens is over; it began at `begin`.
    pub fn passed(&self, n_tokens: usize, begin: Instant) {
        self.at.store(0, Ordering::Relaxed);
        self.passes.fetch_add(1, Ordering::Relaxed);
        let stalled = Duration::from_nanos(self.stalled_nanos.load(Ordering::Relaxed));
        self.passes_took().passed(n_tokens, begin.elapsed(), stalled);
        if let Some(trace) = self.trace.get() {
            trace.record(What::Pass { n_tokens }, begin, Instant::now());
        }
    }

    /// What passes of one token took, and what those of many did; none before there were some.
    pub fn took(&self) -> [Option<Took>; 2] {
        let passes = self.passes_took();
        [passes.one(), passes.many()]
    }

    fn passes_took(&self) -> MutexGuard<'_, Passes> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records from now on; once begun, a trace goes on.
    pub fn begin_trace(&self) -> &Trace {
        self.trace.get_or_init(Trace::begin)
    }

    /// What has been recorded, if anything was asked for.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.get()
    }

    /// What people call the streamed units, in order; none where nothing streams.
    pub fn units(&self) -> &[String] {
        self.units.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn name_units(&self, units: &[UnitSpec]) {
        // A monitor belongs to one device, whose units never change.
        let _ = self.units.set(units.iter().map(|unit| unit.name.clone()).collect());
        let _ = self.states.set(units.iter().map(|_| AtomicU8::new(0)).collect());
    }

    /// What every streamed unit is doing, in their order.
    pub fn states(&self) -> Vec<UnitState> {
        let states = self.states.get().map_or(&[][..], |states| states);
        let state = |state: &AtomicU8| match state.load(Ordering::Relaxed) {
            1 => UnitState::Reading,
            2 => UnitState::Ready,
            3 => UnitState::Computing,
            _ => UnitState::Idle,
        };
        states.iter().map(state).collect()
    }

    /// `unit` does something else now.
    pub(super) fn unit_is(&self, unit: Unit, now: UnitState) {
        let n = u64::from(unit);
        match now {
            UnitState::Computing => self.at.store(2 * n + 1, Ordering::Relaxed),
            UnitState::Idle => self.at.store(2 * n + 2, Ordering::Relaxed),
            UnitState::Reading | UnitState::Ready => {}
        }
        self.note(unit, now);
    }

    fn note(&self, unit: Unit, now: UnitState) {
        if let Some(state) = self.states.get().and_then(|states| states.get(unit as usize)) {
            state.store(now as u8, Ordering::Relaxed);
        }
    }

    /// The slot that held `unit` is given to something else.
    pub(super) fn left(&self, unit: Unit) {
        self.note(unit, UnitState::Idle);
    }

    /// A run with the weights of `unit` is over.
    pub(super) fn computed(&self, unit: Option<Unit>, begin: Instant) {
        if let Some(trace) = self.trace.get() {
            trace.record(What::Compute { unit }, begin, Instant::now());
        }
    }

    /// A read of `unit` has arrived.
    pub(super) fn read(&self, unit: Unit, bytes: Bytes, (begin, end): (Instant, Instant)) {
        self.streamed.fetch_add(bytes.0, Ordering::Relaxed);
        self.passes_took().read(bytes, (begin, end));
        self.unit_is(unit, UnitState::Ready);
        if let Some(trace) = self.trace.get() {
            trace.record(What::Read { unit, bytes }, begin, end);
        }
    }

    /// A unit that is at home in the host's memory was copied to the device.
    pub(super) fn uploaded(&self, bytes: Bytes) {
        self.streamed.fetch_add(bytes.0, Ordering::Relaxed);
    }

    /// The computation waited for `unit` since `begin`.
    pub(super) fn waited(&self, unit: Unit, begin: Instant) {
        let end = Instant::now();
        let nanos = u64::try_from((end - begin).as_nanos()).unwrap_or(u64::MAX);
        self.stalled_nanos.fetch_add(nanos, Ordering::Relaxed);
        if let Some(trace) = self.trace.get() {
            trace.record(What::Wait { unit }, begin, end);
        }
    }

    /// What streams by expert, if anything does.
    pub fn experts(&self) -> Option<&Watch> {
        self.experts.get()
    }

    pub(super) fn name_experts(&self, blocks: &[BlockSpec]) {
        // As with units.
        let _ = self.experts.set(Watch::new(blocks));
    }

    /// A slice of a block's expert has arrived.
    pub(super) fn read_expert(&self, block: usize, bytes: Bytes, (begin, end): (Instant, Instant)) {
        self.streamed.fetch_add(bytes.0, Ordering::Relaxed);
        self.passes_took().read(bytes, (begin, end));
        if let Some(trace) = self.trace.get() {
            trace.record(What::ReadExpert { block, bytes }, begin, end);
        }
    }

    /// The computation waited for a block's experts since `begin`.
    pub(super) fn waited_for_experts(&self, block: usize, begin: Instant) {
        let end = Instant::now();
        let nanos = u64::try_from((end - begin).as_nanos()).unwrap_or(u64::MAX);
        self.stalled_nanos.fetch_add(nanos, Ordering::Relaxed);
        if let Some(trace) = self.trace.get() {
            trace.record(What::WaitExperts { block }, begin, end);
        }
    }
}
