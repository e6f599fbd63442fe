//! How fast this machine reads the model's disk, and computes with the model's kinds of weights. Reading takes a fifth of a
//! second each time; computing takes about a second the first time, and is then remembered for a week.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ggml::{Matmul, Threadpool};
use crate::memo;
use crate::plan::{Cost, Kind};
use crate::source::{Extent, HostBuf, WeightSource};
use crate::units::{Bytes, MIB, Rate};

/// How long a sample of the disk takes at least, and what is asked for at a time, in turns.
const DISK_TIME: Duration = Duration::from_millis(200);
const DISK_STEP: Bytes = Bytes(16 * MIB.0);
/// Requests in flight, as when blocks stream.
const DISK_QUEUE: usize = 2;

/// Weights that one token is computed with: more than caches hold.
const ONE_BYTES: Bytes = Bytes(320 * MIB.0);
/// The share of the free memory that may be taken for them.
const MEMORY_SHARE: u64 = 8;
/// Tokens of a batch that is measured.
const MANY: u32 = 128;
/// Weights that a batch is computed with.
const MANY_BYTES: Bytes = Bytes(16 * MIB.0);
const COMPUTE_TIME: Duration = Duration::from_millis(60);

/// Reads the first file of a model as streaming does, for a moment. `None` if it cannot be read, or is too short to tell.
pub fn disk(source: &dyn WeightSource, len: Bytes) -> Option<Rate> {
    let step = DISK_STEP.0.min(len.0 / 8 / 4096 * 4096);
    if step == 0 {
        return None;
    }
    let n_steps = len.0 / step;
    // Not from the beginning on: what was read for the header may be cached somewhere on the way.
    let request = |i: u64, buf| {
        let offset = (i + n_steps / 3) % n_steps * step;
        source.request(Arc::new([Extent { file: 0, offset, len: step, dst: 0, need: step }]), buf)
    };
    let mut tickets = VecDeque::new();
    let mut asked = 0;
    for _ in 0..DISK_QUEUE {
        let mut buf = HostBuf::new(Bytes(step)).ok()?;
        buf.as_mut_slice().fill(1); // the first touch of its pages is not part of reading
        tickets.push_back(request(asked, buf));
        asked += 1;
    }
    let (mut first, mut last, mut bytes) = (None, None, 0);
    let begin = Instant::now();
    while let Some(ticket) = tickets.pop_front() {
        let done = ticket.wait()?;
        let end = done.outcome.ok()?.span.1;
        if first.replace(first.unwrap_or(end)).is_some() {
            bytes += step;
        }
        last = Some(end);
        if begin.elapsed() < DISK_TIME && asked < n_steps {
            tickets.push_back(request(asked, done.buf));
            asked += 1;
        }
    }
    let seconds = last?.duration_since(first?).as_secs_f64();
    (bytes > 0 && seconds > 0.0).then(|| Rate(Bytes(bytes).f64() / seconds))
}

/// Computes with matrices of these kinds, mixed by their bytes: as in the file, or repacked for this CPU. `None` if ggml can
/// do it with none of them.
pub fn compute(kinds: &[Kind], threads: &Arc<Threadpool>, repack: bool) -> Option<Cost> {
    let memory = memo::path("rates.json");
    let now = memo::now();
    let mut known = memory.as_deref().and_then(recall).unwrap_or_default();
    known.retain(|_, m| memo::holds(m.measured));
    let n_known = known.len();
    let mut costs = Vec::new();
    for kind in kinds {
        let key = key(kind, threads.n_threads(), repack);
        let Some(cost) =
            known.get(&key).map(|m| m.cost()).or_else(|| measure(kind, threads, repack))
        else {
            continue;
        };
        known.entry(key).or_insert(Measured { one: cost.one.0, many: cost.many.0, measured: now });
        costs.push((cost, kind.bytes));
    }
    if let Some(memory) = memory.filter(|_| known.len() > n_known) {
        memo::remember(&memory, &known);
    }
    Cost::mixed(&costs)
}

/// What a measurement is remembered as: the type, the shape, and all that is the same for every kind.
pub(super) fn key(kind: &Kind, n_threads: u32, repack: bool) -> String {
    let layout = if repack { "repacked" } else { "plain" };
    let Kind { ty, row, rows, .. } = *kind;
    let version = env!("CARGO_PKG_VERSION");
    format!("{ty} {row}x{rows} {layout}, {n_threads} threads, {}, {version}", cpu())
}

/// One token's rates that are remembered, by [`key`].
pub(super) fn remembered() -> BTreeMap<String, Rate> {
    let known = memo::path("rates.json").as_deref().and_then(recall).unwrap_or_default();
    let holding = known.into_iter().filter(|(_, m)| memo::holds(m.measured));
    holding.map(|(key, m)| (key, m.cost().one)).collect()
}

fn measure(kind: &Kind, threads: &Arc<Threadpool>, repack: bool) -> Option<Cost> {
    let one = rate(kind, threads, repack, ONE_BYTES, 1)?;
    let many = rate(kind, threads, repack, MANY_BYTES, MANY)?;
    Some(Cost { one, many: Rate(many.0 * f64::from(MANY)) })
}

/// Weight bytes per second of passes of `tokens` tokens, through about `bytes` of matrices of one kind.
pub(super) fn rate(
    kind: &Kind,
    threads: &Arc<Threadpool>,
    repack: bool,
    bytes: Bytes,
    tokens: u32,
) -> Option<Rate> {
    let bytes = bytes.min(Bytes(super::available_memory().0 / MEMORY_SHARE));
    // Of a matrix that is too large, some rows.
    let share = kind.matrix.0.div_ceil(bytes.0.max(1)).max(1);
    let rows = (kind.rows / share / 64 * 64).max(64).min(kind.rows);
    let each = (kind.matrix.0 / kind.rows).saturating_mul(rows).max(1);
    let matrices = usize::try_from(bytes.0 / each).unwrap_or(1).clamp(1, 1024);
    let (ty, row, tokens) = (kind.ty, kind.row, u64::from(tokens));
    let work = Matmul { ty, row, rows, matrices, tokens, repack };
    let (time, bytes) = work.time(threads.clone(), COMPUTE_TIME).ok()?;
    Some(Rate(bytes.f64() / time.as_secs_f64().max(1e-9)))
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Measured {
    one: f64,
    many: f64,
    /// Seconds since 1970.
    measured: u64,
}

impl Measured {
    fn cost(&self) -> Cost {
        Cost { one: Rate(self.one), many: Rate(self.many) }
    }
}

/// The processor's name: a home directory may be shared by machines.
fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("model name"));
    line.map_or("", |l| l.trim_start_matches([' ', '\t', ':'])).to_owned()
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
        let one = |rate| Measured { one: rate, many: 2.0, measured: 3 };
        let known = BTreeMap::from([("a".to_owned(), one(1.0)), ("b".to_owned(), one(0.0))]);
        memo::remember(&memory, &known);
        assert_eq!(recall(&memory), Some([("a".to_owned(), one(1.0))].into()));
        fs::write(&memory, "{").unwrap();
        assert_eq!(recall(&memory), None);
    }

    #[test]
    fn a_machine_can_compute() {
        let threads = Arc::new(Threadpool::new(1, 0).unwrap());
        let work = Matmul { ty: 8, row: 256, rows: 64, matrices: 2, tokens: 3, repack: true };
        let (time, bytes) = work.time(threads.clone(), Duration::ZERO).unwrap();
        assert!(time > Duration::ZERO && bytes == Bytes(2 * 64 * 8 * 34), "{time:?} {bytes}");
        let odd = Matmul { row: 250, ..work };
        assert!(odd.time(threads, Duration::ZERO).is_err());
    }
}
