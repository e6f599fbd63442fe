//! How fast this machine reads the model's disk, and computes with the model's kinds of weights. Reading takes a fifth to
//! half a second each time; computing takes about a second the first time, and is then remembered for a week.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::load::Watch;
use super::quick;
use crate::ggml::{Device, DeviceKind, Matmul, Threadpool};
use crate::memo;
use crate::os::processor;
use crate::plan::{Cost, Kind};
use crate::source::sample::{Effort, Ground, sample};
use crate::source::{self, WeightSource};
use crate::units::{Bytes, MIB, Rate};

/// Measurements of the same differ by up to this factor.
const NOISE: f64 = 1.05;
/// Measurements are old from here on. (hours)
const OLD: u64 = 24;

/// How long the disk is measured for a plan.
const DISK: Effort = Effort { least: Duration::from_millis(200), most: Duration::from_millis(500) };

/// Weights that one token is computed with: more than caches hold.
const ONE_BYTES: Bytes = Bytes(320 * MIB.0);
/// The share of the free memory that may be taken for them.
const MEMORY_SHARE: u64 = 8;
/// Tokens of a batch that is measured.
const MANY: u32 = 128;
/// Tokens of a prompt's pass, of which each expert gets its share. (tokens)
const PASS: u64 = 512;
/// Weights that a batch is computed with.
const MANY_BYTES: Bytes = Bytes(16 * MIB.0);
const COMPUTE_TIME: Duration = Duration::from_millis(60);

/// Reads the files of a model as streaming does, for a moment. `None` if they cannot be read, or are too short to tell.
pub fn disk(source: &dyn WeightSource, paths: &[PathBuf]) -> Option<Rate> {
    let mut ground = Ground::survey(paths).ok()?;
    sample(source, &mut ground, DISK).ok().map(|sample| sample.rate())
}

/// Reads them in bursts of `n` short reads of `each` bytes, for a moment. `None` as of [`disk()`].
pub fn bursts(source: &dyn WeightSource, paths: &[PathBuf], n: usize, each: Bytes) -> Option<Rate> {
    let mut ground = Ground::for_bursts(paths, n, each).ok()?;
    sample(source, &mut ground, DISK).ok().map(|sample| sample.rate())
}

/// How a file would be read when it streams, and how fast. `None` if it cannot be read, or is too short.
pub fn file(path: &Path) -> Option<(String, Rate)> {
    let paths = [path.to_owned()];
    let source = source::open(&paths, source::Choice::default()).ok()?;
    let rate = disk(&*source, &paths)?;
    Some((source.describe(), rate))
}

/// Computes on `device` with matrices of these kinds, mixed by their bytes: as in the file, or repacked where the device does
/// that. What is remembered is only measured `again` where a better rate may be found. `None` if ggml can do it with none of them.
pub fn compute(
    kinds: &[Kind],
    device: Device,
    threads: &Arc<Threadpool>,
    repack: bool,
    again: bool,
) -> Option<Cost> {
    let memory = memo::path("rates.json");
    let now = memo::now();
    let mut known = memory.as_deref().and_then(recall).unwrap_or_default();
    known.retain(|_, m| memo::holds(m.measured));
    let mut is_new = false;
    let mut costs = Vec::new();
    for kind in kinds {
        let key = key(kind, &worker(device, threads.n_threads()), repack);
        let old = known.get(&key).copied();
        let measured = match old.filter(|m| !again || !m.may_improve(now)) {
            Some(known) => Some(known),
            None => measure(kind, device, threads, repack).map(|new| {
                is_new = true;
                old.map_or(new, |old| old.or_better(new))
            }),
        };
        let Some(measured) = measured.or(old) else { continue };
        known.insert(key, measured);
        costs.push((measured.cost(), kind.bytes));
    }
    if let Some(memory) = memory.filter(|_| is_new) {
        memo::remember(&memory, &known);
    }
    Cost::mixed(&costs)
}

/// Why measurements may be doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Something else computed meanwhile.
    Busy,
    /// It was so many hours ago.
    Old(u64),
}

/// What is doubtful of what is remembered of these matrices.
pub fn doubt(kinds: &[Kind], device: Device, n_threads: u32, repack: bool) -> Option<Doubt> {
    let known = memo::path("rates.json").as_deref().and_then(recall)?;
    let key = |kind: &Kind| key(kind, &worker(device, n_threads), repack);
    let used: Vec<&Measured> = kinds.iter().filter_map(|kind| known.get(&key(kind))).collect();
    if used.iter().any(|m| m.busy) {
        return Some(Doubt::Busy);
    }
    let hours = |m: &&Measured| memo::now().saturating_sub(m.measured.max(m.tried)) / 3600;
    used.iter().map(hours).max().filter(|&hours| hours >= OLD).map(Doubt::Old)
}

/// Corrects what is remembered of these matrices on the CPU by what passes of one token, or of `many`, really took: `factor` times as fast.
/// Nothing is faster than it can be, so what was measured had been slowed down.
pub fn correct(kinds: &[Kind], n_threads: u32, repack: bool, (factor, many): (f64, bool)) {
    let Some(memory) = memo::path("rates.json") else { return };
    let Some(mut known) = recall(&memory) else { return };
    let mut is_new = false;
    for kind in kinds {
        if let Some(measured) = known.get_mut(&key(kind, &processor(n_threads), repack)) {
            *if many { &mut measured.many } else { &mut measured.one } *= factor;
            measured.measured = memo::now();
            is_new = true;
        }
    }
    if is_new {
        memo::remember(&memory, &known);
    }
}

/// What [`compute`] measured on the CPU with so many threads within the last week, of those of `kinds` that it did.
pub fn known(kinds: &[Kind], n_threads: u32, repack: bool) -> Option<Cost> {
    let known = memo::path("rates.json").as_deref().and_then(recall)?;
    let worker = processor(n_threads);
    let cost = |kind: &Kind| {
        let measured = known.get(&key(kind, &worker, repack)).filter(|m| memo::holds(m.measured));
        measured.map(|m| (m.cost(), kind.bytes))
    };
    Cost::mixed(&kinds.iter().filter_map(cost).collect::<Vec<_>>())
}

/// What a measurement is remembered as: the type, the shape, and who computed.
pub(super) fn key(kind: &Kind, worker: &str, repack: bool) -> String {
    let layout = if repack { "repacked" } else { "plain" };
    let Kind { ty, row, rows, .. } = *kind;
    let each = kind.experts.map(|_| format!(" by {}", tokens_each(kind))).unwrap_or_default();
    format!("{ty} {row}x{rows}{each} {layout}, {worker}, {}", env!("CARGO_PKG_VERSION"))
}

/// Tokens that a matrix is multiplied with in a pass of many: of a mixture, an expert gets few of them.
#[expect(clippy::cast_possible_truncation, reason = "at most MANY")]
fn tokens_each(kind: &Kind) -> u32 {
    let share = |(count, used): (u64, u64)| (PASS * used / count.max(1)).clamp(1, MANY.into());
    kind.experts.map_or(MANY, |experts| share(experts) as u32)
}

/// Who computed: the threads of a processor, or a GPU.
fn worker(device: Device, n_threads: u32) -> String {
    match device.kind() {
        DeviceKind::Cpu => processor(n_threads),
        _ => format!("{}, {}", device.backend_name(), device.description()),
    }
}

/// This machine's processor with so many threads, for [`key`].
pub(super) fn processor(n_threads: u32) -> String {
    format!("{n_threads} threads, {}", cpu())
}

/// One token's rates that are remembered, by [`key`].
pub(super) fn remembered() -> BTreeMap<String, Rate> {
    let known = memo::path("rates.json").as_deref().and_then(recall).unwrap_or_default();
    let holding = known.into_iter().filter(|(_, m)| memo::holds(m.measured));
    holding.map(|(key, m)| (key, m.cost().one)).collect()
}

fn measure(
    kind: &Kind,
    device: Device,
    threads: &Arc<Threadpool>,
    repack: bool,
) -> Option<Measured> {
    let watch = Watch::begin();
    let one = rate(kind, device, threads, repack, ONE_BYTES, 1)?.0;
    let tokens = tokens_each(kind);
    let many = rate(kind, device, threads, repack, MANY_BYTES, tokens)?.0 * f64::from(tokens);
    let now = memo::now();
    Some(Measured { one, many, measured: now, tried: now, busy: watch.was_busy() })
}

/// Weight bytes per second of passes of `tokens` tokens, through about `bytes` of matrices of one kind.
pub(super) fn rate(
    kind: &Kind,
    device: Device,
    threads: &Arc<Threadpool>,
    repack: bool,
    bytes: Bytes,
    tokens: u32,
) -> Option<Rate> {
    let free = match device.kind() {
        DeviceKind::Cpu => super::available_memory(),
        _ => device.memory().free.min(super::available_memory()),
    };
    let bytes = bytes.min(Bytes(free.0 / MEMORY_SHARE));
    // Of a matrix that is too large, some rows.
    let share = kind.matrix.0.div_ceil(bytes.0.max(1)).max(1);
    let rows = (kind.rows / share / 64 * 64).max(64).min(kind.rows);
    let each = (kind.matrix.0 / kind.rows).saturating_mul(rows).max(1);
    let matrices = usize::try_from(bytes.0 / each).unwrap_or(1).clamp(1, 1024);
    let (ty, row, tokens) = (kind.ty, kind.row, u64::from(tokens));
    // A token alone uses few of them, which are as good as any.
    let experts = kind.experts.is_some() && tokens > 1;
    let work = Matmul { ty, row, rows, matrices, tokens, experts, repack, device };
    let (time, bytes) = work.time(threads.clone(), COMPUTE_TIME).ok()?;
    Some(Rate(bytes.f64() / time.as_secs_f64().max(1e-9)))
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Measured {
    one: f64,
    many: f64,
    /// Seconds since 1970.
    measured: u64,
    /// When it was last measured whether there is a better one, likewise.
    #[serde(default)]
    tried: u64,
    /// Whether something else computed meanwhile.
    #[serde(default)]
    busy: bool,
}

impl Measured {
    /// Whether it is to be measured again: what was measured beside other work is too low.
    fn may_improve(&self, now: u64) -> bool {
        self.busy || now.saturating_sub(self.tried.max(self.measured)) > quick::TRY_AGAIN
    }

    /// The better of both, tried when the other was measured.
    fn or_better(self, new: Measured) -> Measured {
        // What was measured without others is the truth, also if it is less.
        if self.busy && !new.busy {
            return new;
        }
        // Plans are made by it, and are to change when the machine does, not with every measurement.
        let better = |old: f64, new: f64| if new > old * NOISE { new } else { old };
        Measured {
            one: better(self.one, new.one),
            many: better(self.many, new.many),
            busy: self.busy && new.busy,
            measured: self.measured,
            tried: new.tried,
        }
    }

    fn cost(&self) -> Cost {
        Cost { one: Rate(self.one), many: Rate(self.many) }
    }
}

/// The processor's name: a home directory may be shared by machines.
fn cpu() -> String {
    processor::name().unwrap_or_default()
}

fn recall(memory: &Path) -> Option<BTreeMap<String, Measured>> {
    let known: BTreeMap<String, Measured> = memo::recall(memory)?;
    let sane = |x: f64| x.is_finite() && x > 0.0;
    Some(known.into_iter().filter(|(_, m)| sane(m.one) && sane(m.many)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_remembered_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("deep").join("rates.json");
        let one = |rate| Measured { one: rate, many: 2.0, measured: 3, tried: 3, busy: false };
        let known = BTreeMap::from([("a".to_owned(), one(1.0)), ("b".to_owned(), one(0.0))]);
        memo::remember(&memory, &known);
        assert_eq!(recall(&memory), Some([("a".to_owned(), one(1.0))].into()));
        std::fs::write(&memory, "{").unwrap();
        assert_eq!(recall(&memory), None);
    }

    #[test]
    fn what_was_measured_beside_others_is_measured_again() {
        let at = |one, tried, busy| Measured { one, many: 1.0, measured: 1000, tried, busy };
        assert!(at(1.0, 1000, true).may_improve(1001));
        assert!(!at(1.0, 1000, false).may_improve(1000 + quick::TRY_AGAIN));
        assert!(at(1.0, 1000, false).may_improve(1001 + quick::TRY_AGAIN));
        let better = |old: Measured, new: Measured| {
            let Measured { one, busy, tried, .. } = old.or_better(new);
            (one, busy, tried)
        };
        assert_eq!(better(at(2.0, 1000, true), at(3.0, 2000, true)), (3.0, true, 2000));
        assert_eq!(better(at(2.0, 1000, true), at(1.0, 2000, true)), (2.0, true, 2000));
        assert_eq!(better(at(2.0, 1000, true), at(1.5, 2000, false)), (1.5, false, 2000));
        assert_eq!(better(at(2.0, 1000, false), at(1.0, 2000, true)), (2.0, false, 2000));
    }

    #[test]
    fn a_machine_can_compute() {
        let threads = Arc::new(Threadpool::new(1, 0).unwrap());
        let device = Device::cpu().unwrap();
        let work = Matmul {
            ty: 8,
            row: 256,
            rows: 64,
            matrices: 2,
            tokens: 3,
            experts: false,
            repack: true,
            device,
        };
        let (time, bytes) = work.time(threads.clone(), Duration::ZERO).unwrap();
        assert!(time > Duration::ZERO && bytes == Bytes(2 * 64 * 8 * 34), "{time:?} {bytes}");
        let odd = Matmul { row: 250, ..work };
        assert!(odd.time(threads, Duration::ZERO).is_err());
    }
}
