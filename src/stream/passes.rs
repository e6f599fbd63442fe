//! What the last passes took: computing, and reading while the disk was at work. Passes of one token and those of many are kept apart,
//! for they differ in both. Pure: it is told of times, and looks at no clock.

use std::time::{Duration, Instant};

use crate::units::{Bytes, Rate};

/// As many passes of one token are looked at.
const N_PASSES: usize = 64;

/// Passes of so many tokens are of a prompt. Between one and this, they are drafts, or several texts.
const MANY: usize = 64;

/// What counts of the bytes and seconds of reading before a pass, when the pass is over: of the last fifty or so.
const FADES: f64 = 0.98;

/// One of so many passes took so long for reasons of its own.
const HICCUPS: usize = 16;

/// Passes of one token of which fewer say nothing.
const ENOUGH: usize = N_PASSES / 4;

/// What passes took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Took {
    /// Tokens of such a pass.
    pub tokens: usize,
    /// Without waiting for weights, when nothing else computed.
    pub computing: Duration,
    /// All of it, with what it waited, as it is in the mean.
    pub whole: Duration,
    /// At which weights came from the disk while any were on their way, if any were.
    pub disk: Option<Rate>,
}

/// What is known of the passes so far.
#[derive(Debug)]
pub(super) struct Passes {
    one: [Duration; N_PASSES],
    /// The same passes with what they waited.
    whole: [Duration; N_PASSES],
    n: usize,
    /// Tokens of the largest pass, what it computed, and all of it.
    many: Option<(usize, Duration, Duration)>,
    /// Reading in passes of one token, and of many.
    reading: [Reading; 2],
    /// Reading in the pass under way.
    now: Reading,
    /// When everything had arrived that was on its way.
    until: Option<Instant>,
    /// Time that had been waited for weights before the pass under way.
    stalled: Duration,
}

/// Bytes, and the seconds in which any were on their way.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    bytes: f64,
    seconds: f64,
}

impl Default for Passes {
    fn default() -> Passes {
        let (one, stalled) = ([Duration::ZERO; N_PASSES], Duration::ZERO);
        let (reading, now) = ([Reading::default(); 2], Reading::default());
        Passes { one, whole: one, n: 0, many: None, reading, now, until: None, stalled }
    }
}

impl Passes {
    /// Weights have arrived that were on their way since `begin`.
    pub(super) fn read(&mut self, bytes: Bytes, (begin, end): (Instant, Instant)) {
        let since = self.until.map_or(begin, |until| until.max(begin));
        self.now.bytes += bytes.f64();
        self.now.seconds += end.saturating_duration_since(since).as_secs_f64();
        self.until = Some(self.until.map_or(end, |until| until.max(end)));
    }

    /// A pass of `n_tokens` tokens is over, which took so long; `stalled` is what has been waited for weights in all passes.
    pub(super) fn passed(&mut self, n_tokens: usize, took: Duration, stalled: Duration) {
        let computing = took.saturating_sub(stalled.saturating_sub(self.stalled));
        self.stalled = stalled;
        let read = std::mem::take(&mut self.now);
        let which = match n_tokens {
            1 => {
                self.one[self.n % N_PASSES] = computing;
                self.whole[self.n % N_PASSES] = took;
                self.n += 1;
                0
            }
            MANY.. => {
                let better = |(n, best, _)| n < n_tokens || (n == n_tokens && computing < best);
                if self.many.is_none_or(better) {
                    self.many = Some((n_tokens, computing, took));
                }
                1
            }
            _ => return,
        };
        let sum = &mut self.reading[which];
        sum.bytes = sum.bytes * FADES + read.bytes;
        sum.seconds = sum.seconds * FADES + read.seconds;
    }

    /// What a pass of one token takes: a quarter of the last ones computed no longer, and the whole is the mean of them, but for the
    /// slowest. `None` before there were some.
    pub(super) fn one(&self) -> Option<Took> {
        let n = self.n.min(N_PASSES);
        let (mut computing, mut whole) = (self.one, self.whole);
        let (computing, whole) = (&mut computing[..n], &mut whole[..n]);
        computing.sort_unstable();
        whole.sort_unstable();
        let computing = *computing.get(n / 4).filter(|_| n >= ENOUGH)?;
        let usual = &whole[..n - n / HICCUPS];
        let whole = usual.iter().sum::<Duration>() / u32::try_from(usual.len()).ok()?;
        Some(Took { tokens: 1, computing, whole, disk: self.reading[0].rate() })
    }

    /// What the largest pass of many tokens took, the fastest of them.
    pub(super) fn many(&self) -> Option<Took> {
        let (tokens, computing, whole) = self.many?;
        Some(Took { tokens, computing, whole, disk: self.reading[1].rate() })
    }
}

impl Reading {
    fn rate(&self) -> Option<Rate> {
        (self.seconds > 0.0 && self.bytes > 0.0).then(|| Rate(self.bytes / self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn waiting_is_not_computing() {
        let mut passes = Passes::default();
        let mut stalled = Duration::ZERO;
        for i in 0..20 {
            assert_eq!(passes.one().is_some(), i >= ENOUGH);
            stalled += ms(30);
            // Others computed during every second pass.
            passes.passed(1, ms(if i % 2 == 0 { 40 } else { 90 }), stalled);
        }
        let took = passes.one().unwrap();
        assert_eq!((took.tokens, took.computing, took.disk), (1, ms(10), None));
        // Half of them 40 and half 90, without the slowest.
        let whole = (ms(40) * 10 + ms(90) * 9) / 19;
        assert_eq!(took.whole, whole);
        assert_eq!(passes.many(), None);
    }

    #[test]
    fn the_largest_pass_counts_and_of_those_the_fastest() {
        let mut passes = Passes::default();
        for (tokens, took) in [(63, 1), (100, 10), (512, 70), (512, 60), (512, 80), (300, 5)] {
            passes.passed(tokens, ms(took), Duration::ZERO);
        }
        let took = passes.many().unwrap();
        assert_eq!((took.tokens, took.computing), (512, ms(60)));
    }

    #[test]
    fn time_counts_once_however_much_was_on_its_way() {
        let (mut passes, begin) = (Passes::default(), Instant::now());
        let at = |n| begin + ms(n);
        // Two at once, a pause, another: 30 ms in all.
        passes.read(Bytes(10_000), (at(0), at(20)));
        passes.read(Bytes(10_000), (at(5), at(15)));
        passes.read(Bytes(10_000), (at(100), at(110)));
        passes.passed(512, ms(200), Duration::ZERO);
        let rate = passes.many().unwrap().disk.unwrap();
        assert!((rate.0 - 1e6).abs() < 1.0, "{rate}");
        // What drafts and several texts read is neither's.
        passes.read(Bytes(1), (at(300), at(400)));
        passes.passed(7, ms(100), Duration::ZERO);
        assert_eq!(passes.many().unwrap().disk, Some(rate));
    }
}
