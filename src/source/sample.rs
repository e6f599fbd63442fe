//! How fast a source reads these files: measured by using it as streaming does, over the whole of them, for as long as the answer
//! still changes. The one place where a disk is measured. What the rate is used for is the caller's matter.
//!
//! What makes a sample lie, and what is done about it: the same bytes twice (some cache on the way has them: stretches are taken
//! all over the files, none twice before all were read once), holes (they cost nothing to read: they are left out), a short burst
//! (it goes on until both halves of it agree), the first read and the last ones (the queue is not full: they do not count), little
//! memory to read into (it stays in the processor's caches, where bytes arrive faster than in the slots of a large model).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::choice::OpenError;
use crate::os::reads::drop_cached;
use crate::source::files::{Files, PageCache};
use crate::source::{DIRECT_ALIGN, Extent, HostBuf, ReadError, Ticket, WeightSource};
use crate::units::{Bytes, MIB, Rate};

/// One request at most, which readers cut into reads of 1 MiB ...
const STEP: u64 = 4 * MIB.0;
/// ... and so many at a time keep a queue of 16 full.
const IN_FLIGHT: usize = 5;
/// They go into so many buffers in turn: together several times what a cache keeps of what a disk writes.
const BUFFERS: usize = 16;
/// What is read in one piece before the next place, so that disks with heads show what they stream, not how they seek.
const STRETCH: u64 = 32 * MIB.0;
/// Small files are cut into at least so many stretches.
const LEAST_STRETCHES: u64 = 16;
/// Stretches of data that are looked for at most in files with many holes.
const MAX_RANGES: usize = 1 << 16;
/// The halves of a sample agree if their rates differ by less than this share.
const AGREED: f64 = 0.05;
/// Where this many arrivals are not there in time, it may take so many times as long: slow disks have a rate, too.
const LEAST_ARRIVALS: usize = 4;
const PATIENCE: u32 = 8;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// So long in any case ...
    pub least: Duration,
    /// ... and so long at most if the rate keeps changing; disks that give nothing in this time get some more.
    pub most: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When requests ended, in seconds since the first end, and bytes until then without the first's.
    arrivals: Vec<(f64, f64)>,
}

/// Why there is no rate.
#[derive(Debug, thiserror::Error)]
pub enum NoSample {
    /// The files are shorter than a page.
    #[error("there is nothing to read")]
    Empty,
    /// The files have a length, but no bytes on the disk.
    #[error("the file is all hole: nothing of it is on the disk")]
    Hole,
    /// A read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Memory for the reads could not be had.
    #[error("no memory to read into: {0}")]
    Memory(std::io::Error),
    /// Hardly anything arrived.
    #[error("the disk did not answer in {0:?}")]
    TooSlow(Duration),
}

/// Where files have bytes on the disk, and in which order samples read them. Samples go on where the last one ended.
#[derive(Debug)]
pub struct Ground {
    files: Files,
    stretches: Vec<Stretch>,
    step: u64,
    /// Which stretch is read, where in it, and how far the next one is in `stretches`.
    at: usize,
    within: u64,
    stride: usize,
    /// So many requests at a time keep the queue full ...
    in_flight: usize,
    /// ... or are asked for at once, and waited for before the next.
    bursts: bool,
    all_hole: bool,
    drop_cached: bool,
    /// What nothing is being read into.
    idle: VecDeque<HostBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    file: usize,
    offset: u64,
    len: u64,
}

impl Ground {
    /// Looks where `paths` have data.
    ///
    /// # Errors
    ///
    /// A file cannot be opened.
    pub fn survey(paths: &[PathBuf]) -> Result<Ground, OpenError> {
        Ground::new(paths, STRETCH, STEP)
    }

    /// The same for short reads in bursts of `n`, each of about `each` bytes at a place of its own: as a mixture's experts are read.
    ///
    /// # Errors
    ///
    /// A file cannot be opened.
    pub fn for_bursts(paths: &[PathBuf], n: usize, each: Bytes) -> Result<Ground, OpenError> {
        let each = each.0.clamp(DIRECT_ALIGN, STEP).next_multiple_of(DIRECT_ALIGN);
        let ground = Ground::new(paths, each, each)?;
        Ok(Ground { in_flight: n.clamp(1, BUFFERS), bursts: true, ..ground })
    }

    /// In pieces of at most `stretch` bytes at each place, and requests of at most `step`.
    fn new(paths: &[PathBuf], stretch: u64, step: u64) -> Result<Ground, OpenError> {
        let files = Files::open_buffered(paths, PageCache::Use)?;
        let mut ranges = Vec::new();
        for file in 0..files.len() {
            let room = MAX_RANGES - ranges.len().min(MAX_RANGES);
            ranges.extend(files.data(file, room).into_iter().map(|range| (file, range)));
        }
        let readable = (0..files.len()).any(|i| files.file_len(i).0 >= DIRECT_ALIGN);
        let (stretches, step) = cut(&ranges, stretch, step);
        let n = stretches.len();
        // Another beginning each time, so that a second run does not read what the first one left in some cache.
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        Ok(Ground {
            files,
            at: seed as usize % n.max(1),
            stride: stride(n),
            all_hole: readable && n == 0,
            stretches,
            step,
            within: 0,
            in_flight: IN_FLIGHT,
            bursts: false,
            drop_cached: false,
            idle: VecDeque::new(),
        })
    }

    /// Bytes that can be sampled.
    pub fn bytes(&self) -> Bytes {
        self.stretches.iter().map(|s| Bytes(s.len)).sum()
    }

    /// Whether pages of the page cache are dropped before a range of them is read: through it, they would look like a fast disk.
    pub(super) fn drop_cached(&mut self, yes: bool) {
        self.drop_cached = yes;
    }

    /// What to read next. Only where there is a stretch.
    fn next(&mut self) -> Extent {
        let Stretch { file, offset, len } = self.stretches[self.at];
        let offset = offset + self.within;
        let len = self.step.min(len - self.within);
        self.within += len;
        if self.within == self.stretches[self.at].len {
            (self.at, self.within) = ((self.at + self.stride) % self.stretches.len(), 0);
        }
        if self.drop_cached {
            drop_cached(self.files.handle(file, false), offset, len);
        }
        Extent { file, offset, len, dst: 0, need: len }
    }
}

/// Cuts ranges (file, first byte, end) into stretches of whole pages, of at most `most` bytes. Returns the length of a request, too, at
/// most `step`. (bytes)
fn cut(ranges: &[(usize, (u64, u64))], most: u64, step: u64) -> (Vec<Stretch>, u64) {
    let page = |n: u64| n - n % DIRECT_ALIGN;
    let whole: Vec<Stretch> = ranges
        .iter()
        .map(|&(file, (from, end))| {
            let offset = from.next_multiple_of(DIRECT_ALIGN);
            Stretch { file, offset, len: page(end).saturating_sub(offset) }
        })
        .filter(|s| s.len > 0)
        .collect();
    let all: u64 = whole.iter().map(|s| s.len).sum();
    let stretch = page(all / LEAST_STRETCHES).clamp(DIRECT_ALIGN, most);
    let step = stretch.min(step);
    let pieces = whole.iter().flat_map(|s| {
        let last = s.offset + s.len;
        (s.offset..last).step_by(Bytes(stretch).usize()).map(move |offset| {
            let len = stretch.min(last - offset);
            Stretch { file: s.file, offset, len }
        })
    });
    let (large, small): (Vec<_>, Vec<_>) = pieces.partition(|s| s.len >= step / 4);
    // Crumbs between holes cost a request each, and no model is made of them.
    (if large.is_empty() { small } else { large }, step)
}

/// Steps through `n` places that come to each of them before any again, far from each other: by the golden section.
fn stride(n: usize) -> usize {
    let coprime = |stride: &usize| {
        let (mut a, mut b) = (*stride, n);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    (n * 5 / 8..n).find(coprime).unwrap_or(1).max(1)
}

/// Reads on through `ground` until the rate is known.
///
/// # Errors
///
/// There is nothing to read, a read fails, or hardly anything arrives.
pub fn sample(
    source: &dyn WeightSource,
    ground: &mut Ground,
    effort: Effort,
) -> Result<Sample, NoSample> {
    if ground.stretches.is_empty() {
        return Err(if ground.all_hole { NoSample::Hole } else { NoSample::Empty });
    }
    while ground.idle.len() < BUFFERS {
        // Short reads go to memory that has huge pages, as an expert's do.
        let len = if ground.bursts { STEP } else { ground.step };
        let mut buf = HostBuf::new(Bytes(len)).map_err(NoSample::Memory)?;
        buf.as_mut_slice().fill(1); // the first touch of its pages is not part of reading
        ground.idle.push_back(buf);
    }
    let begin = Instant::now();
    let mut tickets: VecDeque<(u64, Ticket)> =
        (0..ground.in_flight).filter_map(|_| request(source, ground)).collect();
    let gathered = gather(source, ground, &mut tickets, begin, effort);
    source.cancel(); // so that dropping the tickets waits for the reads in flight only
    gathered
}

/// Asks for what is next, into the buffer that was used longest ago. None where there is no buffer.
fn request(source: &dyn WeightSource, ground: &mut Ground) -> Option<(u64, Ticket)> {
    let buf = ground.idle.pop_front()?;
    let extent = ground.next();
    Some((extent.len, source.request(Arc::new([extent]), buf)))
}

/// Takes what arrives, and asks for more, until the sample says enough.
fn gather(
    source: &dyn WeightSource,
    ground: &mut Ground,
    tickets: &mut VecDeque<(u64, Ticket)>,
    begin: Instant,
    effort: Effort,
) -> Result<Sample, NoSample> {
    let mut sample = Sample::default();
    let mut first = None;
    let mut bytes = 0;
    while let Some((len, mut ticket)) = tickets.pop_front() {
        // Where this thread or the reader's was not given the processor, what came meanwhile seems to come at once.
        let tells = sample.arrivals.len() >= LEAST_ARRIVALS && sample.is_long(effort);
        let patience = effort.most * if tells { 1 } else { PATIENCE };
        if !ticket.wait_timeout(patience.saturating_sub(begin.elapsed())) {
            tickets.push_front((len, ticket));
            break;
        }
        let done = ticket.wait().ok_or(ReadError::Stopped)?;
        let end = done.outcome?.span.1;
        let since = end.saturating_duration_since(*first.get_or_insert(end));
        bytes += if sample.arrivals.is_empty() { 0 } else { len };
        sample.arrivals.push((since.as_secs_f64(), Bytes(bytes).f64()));
        if since >= effort.most || since >= effort.least && sample.is_steady() {
            break;
        }
        ground.idle.push_back(done.buf);
        let more = match ground.bursts {
            true if tickets.is_empty() => ground.in_flight,
            true => 0,
            false => 1,
        };
        tickets.extend((0..more).filter_map(|_| request(source, ground)));
    }
    if sample.is_long(effort) { Ok(sample) } else { Err(NoSample::TooSlow(begin.elapsed())) }
}

impl Sample {
    /// The rate over all of it.
    pub fn rate(&self) -> Rate {
        Rate(self.bytes() / self.seconds().max(1e-9))
    }

    /// Its slowest and its fastest tenth.
    pub fn range(&self) -> [Rate; 2] {
        let tenth = self.seconds() / 10.0;
        let rates =
            (0..10_u32).map(|i| self.between(tenth * f64::from(i), tenth * f64::from(i + 1)));
        let [low, high] =
            rates.fold([f64::MAX, 0.0_f64], |[low, high], rate| [low.min(rate), high.max(rate)]);
        [Rate(low.min(high)), Rate(high)]
    }

    /// This sample and a later one, as if measured without a pause.
    pub fn followed_by(mut self, later: &Sample) -> Sample {
        let (seconds, bytes) = (self.seconds(), self.bytes());
        let shifted = later.arrivals.iter().skip(1).map(|&(s, b)| (s + seconds, b + bytes));
        self.arrivals.extend(shifted);
        self
    }

    fn seconds(&self) -> f64 {
        self.arrivals.last().map_or(0.0, |&(seconds, _)| seconds)
    }

    fn bytes(&self) -> f64 {
        self.arrivals.last().map_or(0.0, |&(_, bytes)| bytes)
    }

    /// Bytes that had arrived at a time, as if they came evenly between two arrivals.
    fn until(&self, time: f64) -> f64 {
        let at = self.arrivals.partition_point(|&(seconds, _)| seconds < time);
        match (at.checked_sub(1).and_then(|i| self.arrivals.get(i)), self.arrivals.get(at)) {
            (Some(&(from, some)), Some(&(to, more))) => {
                some + (more - some) * (time - from) / (to - from).max(1e-9)
            }
            (None, _) => 0.0,
            (Some(&(_, all)), None) => all,
        }
    }

    /// The rate between two times. [seconds since the first arrival -> bytes per second]
    fn between(&self, from: f64, to: f64) -> f64 {
        (self.until(to) - self.until(from)) / (to - from).max(1e-9)
    }

    /// Whether it took the time that was to be measured at least; a rate over less is one of chance.
    fn is_long(&self, effort: Effort) -> bool {
        self.seconds() > 0.0 && self.seconds() >= effort.least.as_secs_f64()
    }

    /// Whether the second half was as fast as the first.
    fn is_steady(&self) -> bool {
        let (half, end) = (self.seconds() / 2.0, self.seconds());
        let (early, late) = (self.between(0.0, half), self.between(half, end));
        self.arrivals.len() > LEAST_ARRIVALS && (early - late).abs() <= AGREED * early.max(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fault::{Behaviour, Fault, FaultySource, MemorySource};
    use proptest::prelude::*;
    use std::io::{Seek, SeekFrom, Write};

    /// How often a rate is taken until one is right: a busy machine makes others slower.
    const TRIES: usize = 100;
    const EFFORT: Effort =
        Effort { least: Duration::from_millis(60), most: Duration::from_millis(400) };

    /// A file with data where `ranges` say, and holes elsewhere. (bytes)
    fn sparse(len: u64, ranges: &[(u64, u64)]) -> (tempfile::NamedTempFile, PathBuf) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        for &(from, end) in ranges {
            file.seek(SeekFrom::Start(from)).unwrap();
            file.write_all(&vec![7; (end - from) as usize]).unwrap();
        }
        let path = file.path().to_owned();
        (file, path)
    }

    fn memory(len: u64) -> Arc<dyn WeightSource> {
        Arc::new(MemorySource::new(vec![vec![1; len as usize].into()]))
    }

    proptest! {
        /// Every stretch is read once before any is read again, and lies inside of what there is.
        #[test]
        fn the_order_covers_everything(ranges in prop::collection::vec((0_u64..1 << 24, 0_u64..1 << 27), 0..20)) {
            let mut end = 0;
            let ranges: Vec<_> = ranges.into_iter().map(|(gap, len)| {
                let from = end + gap;
                end = from + len;
                (0, (from, end))
            }).collect();
            let (stretches, step) = cut(&ranges, STRETCH, STEP);
            prop_assert!((DIRECT_ALIGN..=STEP).contains(&step));
            for s in &stretches {
                prop_assert!(s.len > 0 && s.len <= STRETCH && (s.len | s.offset) % DIRECT_ALIGN == 0);
                prop_assert!(ranges.iter().any(|r| r.1.0 <= s.offset && s.offset + s.len <= r.1.1));
            }
            let n = stretches.len();
            let mut seen = vec![false; n];
            let mut at = 0;
            for _ in 0..n {
                prop_assert!(!std::mem::replace(&mut seen[at], true));
                at = (at + stride(n)) % n;
            }
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a test that skips says so")]
    fn holes_are_not_sampled() {
        let (mib, page) = (1 << 20, DIRECT_ALIGN);
        let data = [(3 * mib, 5 * mib), (9 * mib + page, 10 * mib)];
        let (_file, path) = sparse(64 * mib, &data);
        let mut ground = Ground::survey(&[path]).unwrap();
        if ground.bytes() == Bytes(64 * mib) {
            eprintln!("skipped: this file system does not tell holes from data");
            return;
        }
        assert!(ground.bytes() <= Bytes(3 * mib), "{}", ground.bytes());
        for _ in 0..1000 {
            let Extent { offset, len, .. } = ground.next();
            assert!(data.iter().any(|&(from, end)| from <= offset && offset + len <= end));
        }
        let (_file, path) = sparse(64 * mib, &[]);
        let mut ground = Ground::survey(&[path]).unwrap();
        let source = memory(64 * mib);
        assert!(matches!(sample(source.as_ref(), &mut ground, EFFORT), Err(NoSample::Hole)));
    }

    #[test]
    fn the_rate_is_the_sources() {
        let (_file, path) = sparse(32 << 20, &[(0, 32 << 20)]);
        let rate = Rate(400e6);
        let source = FaultySource::throttled(memory(32 << 20), rate).unwrap();
        let mut ground = Ground::survey(&[path]).unwrap();
        // The throttle is exact over time; a busy machine may be late with single arrivals, but not in every try.
        let near = |_| {
            let found = sample(&source, &mut ground, EFFORT).unwrap();
            let [low, high] = found.range();
            assert!(low.0 <= found.rate().0 && found.rate().0 <= high.0);
            (found.rate().0 / rate.0 - 1.0).abs() < 0.05
        };
        assert!((0..TRIES).any(near));
    }

    #[test]
    fn bursts_are_short_reads_at_places_of_their_own() {
        let (_file, path) = sparse(32 << 20, &[(0, 32 << 20)]);
        let mut ground = Ground::for_bursts(&[path], 6, Bytes(100_000)).unwrap();
        let places: Vec<Extent> = (0..40).map(|_| ground.next()).collect();
        for (e, next) in places.iter().zip(&places[1..]) {
            // The last place of the file is what is left of it.
            let is_whole = e.len == 102_400 || e.offset + e.len == 32 << 20;
            assert!(is_whole && e.offset + e.len != next.offset, "{e:?} {next:?}");
        }
        // What is asked for at once arrives at the source's rate, here without a pause between bursts.
        let rate = Rate(400e6);
        let source = FaultySource::throttled(memory(32 << 20), rate).unwrap();
        let near = |_| {
            let found = sample(&source, &mut ground, EFFORT).unwrap().rate();
            found.0 <= rate.0 * 1.1 && found.0 >= rate.0 * 0.7
        };
        assert!((0..TRIES).any(near));
    }

    #[test]
    fn what_gives_no_rate_is_named() {
        let (_file, path) = sparse(8 << 20, &[(0, 8 << 20)]);
        let faulty = |fault| {
            let behaviour = Behaviour { fault, ..Behaviour::default() };
            FaultySource::new(memory(8 << 20), behaviour).unwrap()
        };
        let effort = Effort { least: Duration::ZERO, most: Duration::from_millis(5) };
        let mut ground = Ground::survey(std::slice::from_ref(&path)).unwrap();
        let mut outcome = |fault| sample(&faulty(fault), &mut ground, effort).unwrap_err();
        assert!(matches!(outcome(Fault::ErrorFrom(0)), NoSample::Read(_)));
        assert!(matches!(outcome(Fault::StuckAt(0)), NoSample::TooSlow(_)));
        let (_file, path) = sparse(100, &[(0, 100)]);
        let mut ground = Ground::survey(&[path]).unwrap();
        let empty = sample(memory(100).as_ref(), &mut ground, effort);
        assert!(matches!(empty, Err(NoSample::Empty)));
    }

    #[test]
    fn a_sample_goes_on_until_its_halves_agree() {
        let even = |n: u32, rate: f64| {
            let arrivals = (0..n).map(|i| (f64::from(i) / rate, f64::from(i))).collect();
            Sample { arrivals }
        };
        assert!(even(20, 3.0).is_steady() && !even(2, 3.0).is_steady());
        // What comes when a thread is given the processor at last says nothing of the disk.
        assert!(even(20, 3.0).is_long(EFFORT) && !even(20, 1e6).is_long(EFFORT));
        let burst = even(20, 3.0).followed_by(&even(20, 1.0));
        assert!(!burst.is_steady());
        assert!((burst.rate().0 - 38.0 / (19.0 / 3.0 + 19.0)).abs() < 1e-9);
        let [low, high] = burst.range();
        assert!((low.0 - 1.0).abs() < 0.2 && (high.0 - 3.0).abs() < 0.2, "{low} {high}");
    }
}
