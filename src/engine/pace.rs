//! How long work takes: what the plan predicts, corrected by what is seen while it goes on. It watches nothing by itself and prints
//! nothing: progress is handed in.

use std::sync::Arc;
use std::time::Duration;

use super::loaded::{Engine, Loaded};
use crate::plan::{self, Course, Speed, Touched};
use crate::stream::Progress;

/// How much a prediction counts against what was seen, at the beginning of the work: as if it were this share of it. (0 to 1)
const TRUST: f64 = 0.1;

/// How fast that trust goes: an exponent of what is left.
const DOUBT: i32 = 6;

/// A prompt that is being read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// How much of it is done, of all passes. (0 to 1)
    pub share: f64,
    /// What is left of the time; none where nothing tells.
    pub left: Option<Duration>,
    /// The pass that is being computed, from 1 ...
    pub pass: usize,
    /// ... of so many.
    pub n_passes: usize,
}

/// How fast a loaded model works.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Loaded>);

impl Engine {
    /// How fast it works.
    pub fn pace(&self) -> Pace {
        Pace(self.loaded())
    }
}

impl Pace {
    /// What one token after another is predicted to take.
    pub fn generation(&self) -> Speed {
        plan::estimate(&self.0.plan, &self.0.rates, self.touched(), 1).generation
    }

    /// Whether that rests on measurements of this machine, and not on what is usual.
    pub fn is_measured(&self) -> bool {
        self.0.rates_measured
    }

    /// How far a prompt of `now.tokens_total` tokens is, of which this is seen `elapsed` after its beginning.
    pub fn reading(&self, now: &Progress, elapsed: Duration) -> Reading {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (done, total) = (size(now.tokens_done.min(now.tokens_total)), size(now.tokens_total));
        let each = self.0.plan.n_ubatch.max(1);
        let rest = total % each;
        let full = self.course(each.min(total.max(1)));
        let last = if rest > 0 { Some(self.course(rest)) } else { None };
        let current = match &last {
            Some(last) if total - done < each => last,
            _ => &full,
        };
        let before = f64::from(done / each) * full.seconds;
        let all = f64::from(total / each) * full.seconds + last.as_ref().map_or(0.0, |c| c.seconds);
        let share = (before + current.share(now.at) * current.seconds) / all.max(1e-9);
        let share = if done == total { 1.0 } else { share.clamp(0.0, 1.0) };
        Reading {
            share,
            left: self.left(share, all, elapsed),
            pass: (done / each + 1).min(total.div_ceil(each).max(1)) as usize,
            n_passes: total.div_ceil(each).max(1) as usize,
        }
    }

    /// What is left of work of which `share` took `elapsed`, and that was predicted to take `predicted` seconds in all.
    fn left(&self, share: f64, predicted: f64, elapsed: Duration) -> Option<Duration> {
        if share <= 0.0 && !self.is_measured() {
            return None;
        }
        Duration::try_from_secs_f64(left(share, predicted, elapsed.as_secs_f64())).ok()
    }

    /// The block that is computed, from 1, and how many there are; none where nothing streams.
    pub fn block(&self, now: &Progress) -> Option<(usize, usize)> {
        let plan = &self.0.plan;
        let last = plan.streamed.len().checked_sub(1)?;
        let unit = &plan.streamed[(now.at.saturating_sub(1) / 2).min(last)];
        Some((unit.block + 1, plan.blocks.len()))
    }

    fn course(&self, tokens: u32) -> Course {
        plan::course(&self.0.plan, &self.0.rates, self.touched(), tokens)
    }

    fn touched(&self) -> Touched {
        Touched::of(&self.0.index)
    }
}

/// Seconds that are left of work of which `share` took `elapsed` seconds, and that was predicted to take `predicted` in all.
fn left(share: f64, predicted: f64, elapsed: f64) -> f64 {
    let trust = TRUST * (1.0 - share).powi(DOUBT);
    let all = (elapsed + trust * predicted) / (share + trust).max(1e-9);
    (all - elapsed).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::left;

    #[test]
    fn what_is_seen_counts_more_and_more() {
        // Predicted 100 s, and it takes 300.
        assert!((left(0.0, 100.0, 0.0) - 100.0).abs() < 1e-6);
        for share in [0.34, 0.5, 0.9] {
            let truth = 300.0 * (1.0 - share);
            let said = left(share, 100.0, 300.0 * share);
            assert!((said / truth - 1.0).abs() < 0.1, "{share}: {said} of {truth}");
        }
        assert!(left(1.0, 100.0, 300.0).abs() < 1e-6);
    }
}
