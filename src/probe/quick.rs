//! Rates for a list of many models: what was measured before, and the little that can be measured in a moment. A plan for one
//! model measures that model instead (`rates`), with more weights and more care.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::rates;
use crate::ggml::{Device, Threadpool};
use crate::memo;
use crate::plan::Kind;
use crate::source;
use crate::units::{Bytes, MIB, Rate};

/// Where rates are remembered.
pub(super) const QUICK: &str = "quick.json";
const DISKS: &str = "disks.json";
/// Weights that one token is computed with: more than most caches hold.
const BYTES: Bytes = Bytes(48 * MIB.0);

/// Measurements of one disk differ by up to this factor.
const ALIKE: f64 = 1.3;

/// A rate as it is remembered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) rate: f64,
    /// Seconds since 1970.
    measured: u64,
    /// When it was last measured whether there is a better one, likewise.
    #[serde(default)]
    tried: u64,
}

/// A rate that was measured while something else ran is too low, and stands for a week: so it is tried again after this, and the
/// best counts. (seconds)
pub(super) const TRY_AGAIN: u64 = 3600;

impl Sample {
    /// Whether a better one may be found.
    fn may_improve(&self) -> bool {
        memo::now().saturating_sub(self.tried) > TRY_AGAIN
    }
}

/// Samples by what they are of.
pub(super) type Samples = BTreeMap<String, Sample>;

/// The samples in the memo `name` that still hold.
pub(super) fn samples(name: &str) -> Samples {
    let known = memo::path(name).as_deref().and_then(memo::recall::<Samples>);
    let mut known = known.unwrap_or_default();
    known.retain(|_, s| memo::holds(s.measured) && s.rate.is_finite() && s.rate > 0.0);
    known
}

/// Puts a sample into the memo `name`.
pub(super) fn remember(name: &str, key: String, rate: Rate) {
    if let Some(file) = memo::path(name) {
        let mut known = samples(name);
        let now = memo::now();
        known.insert(key, Sample { rate: rate.0, measured: now, tried: now });
        memo::remember(&file, &known);
    }
}

/// Adds a sample to the memo `name`, or notes that none was better than that which is there. Returns the best.
fn remember_best(name: &str, key: String, rate: Rate) -> Rate {
    let Some(file) = memo::path(name) else { return rate };
    let mut known = samples(name);
    let now = memo::now();
    let new = Sample { rate: rate.0, measured: now, tried: now };
    let best = match known.get(&key) {
        Some(old) if old.rate > rate.0 => Sample { tried: now, ..*old },
        _ => new,
    };
    known.insert(key, best);
    memo::remember(&file, &known);
    Rate(best.rate)
}

/// How fast one token is computed with weights of each type. (weight bytes per second)
#[derive(Clone, Debug, Default)]
pub struct Speeds {
    by_type: BTreeMap<u32, Rate>,
}

impl Speeds {
    /// The rates of `kinds`: remembered ones, and for types that are new to this machine measured ones, as long as `time` lasts.
    pub fn of(kinds: &[Kind], time: Duration) -> Speeds {
        let begin = Instant::now();
        let n_threads = super::physical_cores();
        let quick = samples(QUICK);
        let mut known: BTreeMap<String, Rate> =
            quick.iter().map(|(key, s)| (key.clone(), Rate(s.rate))).collect();
        // What a plan measured is better.
        known.extend(rates::remembered());
        let mut by_type = BTreeMap::new();
        let (mut new, mut again) = (Vec::new(), Vec::new());
        for kind in kinds {
            match recall(&known, kind, n_threads) {
                Some(rate) => drop(by_type.insert(kind.ty, rate)),
                None => new.push(*kind),
            }
            let key = rates::key(kind, &rates::processor(n_threads), true);
            if quick.get(&key).is_some_and(Sample::may_improve) {
                again.push(*kind);
            }
        }
        new.extend(again);
        let threads = (!new.is_empty()).then(|| Threadpool::new(n_threads, 0).ok()).flatten();
        if let (Some(threads), Ok(cpu)) = (threads.map(Arc::new), Device::cpu()) {
            for kind in new.iter().take_while(|_| begin.elapsed() < time) {
                if let Some(rate) = rates::rate(kind, cpu, &threads, true, BYTES, 1) {
                    let key = rates::key(kind, &rates::processor(n_threads), true);
                    let best = remember_best(QUICK, key, rate);
                    // A plan may have measured a better one.
                    let known = by_type.get(&kind.ty).map_or(0.0, |r| r.0);
                    by_type.insert(kind.ty, Rate(best.0.max(known)));
                }
            }
        }
        Speeds { by_type }
    }

    /// The rate of a mixture of types, each with its bytes; types that nobody measured are taken to be as fast as the others.
    pub fn mixed(&self, types: impl Iterator<Item = (u32, Bytes)>) -> Option<Rate> {
        #[expect(clippy::cast_precision_loss, reason = "there are 43 types")]
        let usual = self.by_type.values().map(|r| r.0).sum::<f64>() / self.by_type.len() as f64;
        let (mut bytes, mut seconds) = (Bytes::ZERO, 0.0);
        for (ty, len) in types {
            bytes += len;
            seconds += self.by_type.get(&ty).copied().unwrap_or(Rate(usual)).seconds(len);
        }
        let rate = bytes.f64() / seconds;
        (rate.is_finite() && rate > 0.0).then_some(Rate(rate))
    }
}

/// What was measured with these matrices, else with others of the same type.
fn recall(known: &BTreeMap<String, Rate>, kind: &Kind, n_threads: u32) -> Option<Rate> {
    let key = rates::key(kind, &rates::processor(n_threads), true);
    if let Some(rate) = known.get(&key) {
        return Some(*rate);
    }
    let shape = format!("{}x{}", kind.row, kind.rows);
    let (head, tail) = key.split_once(&shape)?;
    let same = known.iter().filter(|(k, _)| k.starts_with(head) && k.ends_with(tail));
    same.map(|(_, rate)| *rate).next()
}

/// How fast the disk that holds `file` is read past the page cache: remembered for a week, by the number that the system gives
/// it, else measured with this file, which takes a fifth of a second. `None` for a file too short to tell.
pub fn disk_of(file: &Path) -> Option<Rate> {
    let device = disk_number(file)?;
    let known = samples(DISKS).get(&device).copied();
    if let Some(disk) = known.filter(|disk| !disk.may_improve()) {
        return Some(Rate(disk.rate));
    }
    measure_disk(file, device).or(known.map(|disk| Rate(disk.rate)))
}

/// Measures the disk `device` with a file on it, and remembers what it found.
fn measure_disk(file: &Path, device: String) -> Option<Rate> {
    let paths = [file.to_owned()];
    let source = source::open(&paths, source::Choice::default()).ok()?;
    let rate = rates::disk(source.as_ref(), &paths)?;
    Some(remember_best(DISKS, device, rate))
}

/// As [`disk_of`], if it was measured within the last week.
pub fn known_disk(file: &Path) -> Option<Rate> {
    samples(DISKS).get(&disk_number(file)?).map(|disk| Rate(disk.rate))
}

/// Remembers how fast the disk that holds `file` is, unless that is known well enough: plans are made by it, and are to change
/// when the disk does, not with every measurement.
/// A rate that is lower counts only if nobody else was busy.
pub fn remember_disk(file: &Path, rate: Rate, busy: bool) {
    if let Some(disk) = disk_number(file) {
        remember_reading(disk, rate, busy);
    }
}

fn remember_reading(key: String, rate: Rate, busy: bool) {
    let holds = |known: &Sample| is_alike(Rate(known.rate), rate) || (busy && known.rate > rate.0);
    if !samples(DISKS).get(&key).is_some_and(holds) {
        remember(DISKS, key, rate);
    }
}

/// How fast that disk answers bursts of short reads of about `each` bytes, if it was measured within the last week.
pub fn known_bursts(file: &Path, each: Bytes) -> Option<Rate> {
    samples(DISKS).get(&bursts(file, each)?).map(|disk| Rate(disk.rate))
}

/// Remembers that, as [`remember_disk`] does.
pub fn remember_bursts(file: &Path, each: Bytes, rate: Rate, busy: bool) {
    if let Some(key) = bursts(file, each) {
        remember_reading(key, rate, busy);
    }
}

/// Sizes that are nearly the same are the same.
fn bursts(file: &Path, each: Bytes) -> Option<String> {
    Some(format!(
        "{}, bursts of {} KiB",
        disk_number(file)?,
        each.0.div_ceil(1024).next_power_of_two()
    ))
}

/// What the system calls the disk that holds `file`.
fn disk_number(file: &Path) -> Option<String> {
    Some(crate::os::files::device(file).ok()?.to_string())
}

/// Whether two rates differ by no more than measurements of one disk do.
fn is_alike(a: Rate, b: Rate) -> bool {
    a.0.max(b.0) <= a.0.min(b.0) * ALIKE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(ty: u32, row: u64) -> Kind {
        Kind { ty, row, rows: 8, matrix: Bytes(1), bytes: Bytes(1), experts: None }
    }

    #[test]
    fn other_matrices_of_the_type_will_do() {
        let known = BTreeMap::from([
            (rates::key(&kind(12, 4096), &rates::processor(2), true), Rate(7.0)),
            (rates::key(&kind(12, 256), &rates::processor(4), true), Rate(8.0)),
            (rates::key(&kind(8, 4096), &rates::processor(2), false), Rate(9.0)),
        ]);
        let rate = |kind: Kind| recall(&known, &kind, 2).map(|r| r.0);
        assert_eq!(rate(kind(12, 4096)), Some(7.0));
        assert_eq!(rate(kind(12, 512)), Some(7.0));
        assert_eq!(rate(kind(8, 4096)), None);
        assert_eq!(rate(kind(1, 4096)), None);
    }

    #[test]
    fn a_disk_is_another_only_if_it_is_much_faster_or_slower() {
        let alike = |b| is_alike(Rate(2e9), Rate(b));
        assert_eq!([1.5e9, 1.6e9, 2.5e9, 2.7e9].map(alike), [false, true, true, false]);
    }

    #[test]
    fn mixtures_are_weighed_by_time() {
        let speeds = Speeds { by_type: [(1, Rate(1.0)), (2, Rate(3.0))].into() };
        let mixed = |list: &[(u32, u64)]| {
            speeds.mixed(list.iter().map(|&(ty, n)| (ty, Bytes(n)))).map(|r| r.0)
        };
        assert_eq!(mixed(&[(1, 3), (2, 9)]), Some(2.0));
        assert_eq!(mixed(&[(7, 4)]), Some(2.0));
        assert_eq!(mixed(&[]), None);
        assert_eq!(Speeds::default().mixed([(1, Bytes(1))].into_iter()), None);
    }
}
