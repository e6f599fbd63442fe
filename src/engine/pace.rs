//! How long work takes: what the plan predicts, corrected by what is seen while it goes on. It watches nothing by itself and prints
//! nothing: progress is handed in.

use std::sync::Arc;
use std::time::Duration;

use super::loaded::{Engine, Loaded};
use crate::plan::{self, Speed, Touched};
use crate::stream::Progress;

/// How much a prediction counts against what was seen, at the beginning of the work: as if it were this share of it. (0 to 1)
const TRUST: f64 = 0.1;

/// How fast that trust goes: an exponent of what is left.
const DOUBT: i32 = 12;

/// A prompt that is being read. Shares are those of the time that all of it takes. (0 to 1)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// What is done of it for sure ...
    pub done: f64,
    /// ... and what is at most: where the next thing that can be seen is.
    pub next: f64,
    /// What all of it is predicted to take. (seconds)
    pub predicted: f64,
    /// The pass that is being computed, from 1 ...
    pub pass: usize,
    /// ... of so many.
    pub n_passes: usize,
}

/// What is known of how a prompt's reading goes, from what was seen of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// What was done when something could be seen last, and the seconds until then.
    seen: (f64, f64),
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

    /// What so many tokens of a prompt are predicted to take, in passes as long as they can be: seconds, and how many passes.
    pub fn passes(&self, n_tokens: usize) -> (f64, usize) {
        let each = self.each();
        let (n, rest) = (n_tokens / each, n_tokens % each);
        let full = if n > 0 { self.course(each).seconds } else { 0.0 };
        let last = if rest > 0 { self.course(rest).seconds } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "few passes")]
        let seconds = n as f64 * full + last;
        (seconds, n + usize::from(rest > 0))
    }

    /// How much of the pass under way is done for sure, and how much at most. (0 to 1)
    pub fn pass(&self, now: &Progress) -> (f64, f64) {
        let left = now.tokens_total.saturating_sub(now.tokens_done);
        let course = self.course(left.clamp(1, self.each()));
        let done = course.share(now.at);
        let is_last = now.at >= 2 * course.units.len();
        (done, if is_last { 1.0 } else { course.share(now.at + 1).max(done) })
    }

    /// How far a prompt is.
    pub fn reading(&self, now: &Progress) -> Reading {
        let (done, total) = (now.tokens_done.min(now.tokens_total), now.tokens_total);
        let each = self.each();
        let (before, n_before) = self.passes(done);
        let present = self.passes(each.min(total - done)).0;
        let (all, n_passes) = self.passes(total);
        let (from, to) = self.pass(now);
        let share = |part: f64| ((before + part * present) / all.max(1e-9)).clamp(0.0, 1.0);
        let is_over = done == total;
        Reading {
            done: if is_over { 1.0 } else { share(from) },
            next: if is_over { 1.0 } else { share(to) },
            predicted: if self.is_measured() { all } else { 0.0 },
            pass: (n_before + 1).min(n_passes.max(1)),
            n_passes: n_passes.max(1),
        }
    }

    fn each(&self) -> usize {
        self.0.plan.n_ubatch.max(1) as usize
    }

    /// The block that is computed, from 1, and how many there are; none where nothing streams.
    pub fn block(&self, now: &Progress) -> Option<(usize, usize)> {
        let plan = &self.0.plan;
        let last = plan.streamed.len().checked_sub(1)?;
        let unit = &plan.streamed[(now.at.saturating_sub(1) / 2).min(last)];
        Some((unit.block + 1, plan.blocks.len()))
    }

    fn course(&self, tokens: usize) -> plan::Course {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        plan::course(&self.0.plan, &self.0.rates, self.touched(), tokens)
    }

    fn touched(&self) -> Touched {
        Touched::of(&self.0.index)
    }
}

impl Course {
    /// How much is done `elapsed` after the beginning, and what is left; none where nothing tells.
    pub fn look(&mut self, reading: &Reading, elapsed: Duration) -> (f64, Option<Duration>) {
        let Reading { done, next, predicted, .. } = *reading;
        let elapsed = elapsed.as_secs_f64();
        if done < self.seen.0 {
            *self = Course::default();
        }
        if done > self.seen.0 {
            self.seen = (done, elapsed);
        }
        // Between two things that can be seen it goes on as it did, but not further than to the next one.
        let guess = elapsed / whole(self.seen.0, predicted, self.seen.1).max(1e-9);
        let share = if self.seen.0 > 0.0 || predicted > 0.0 { guess } else { 0.0 };
        let share = share.clamp(done, next.max(done));
        let known = share > 0.0 || predicted > 0.0;
        let left = (whole(share, predicted, elapsed) - elapsed).max(0.0);
        (share, known.then(|| Duration::try_from_secs_f64(left).ok()).flatten())
    }
}

/// Seconds of work of which `share` took `elapsed` seconds, and that was predicted to take `predicted` in all, or 0 if nothing was.
fn whole(share: f64, predicted: f64, elapsed: f64) -> f64 {
    let trust = if predicted > 0.0 { TRUST * (1.0 - share).powi(DOUBT) } else { 0.0 };
    (elapsed + trust * predicted) / (share + trust).max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said to be left; no number where nothing is said.
    fn left(course: &mut Course, (done, next): (f64, f64), predicted: f64, elapsed: f64) -> f64 {
        let reading = Reading { done, next, predicted, pass: 1, n_passes: 1 };
        let (_, left) = course.look(&reading, Duration::from_secs_f64(elapsed));
        left.map_or(f64::NAN, |left| left.as_secs_f64())
    }

    #[test]
    fn what_is_seen_counts_more_and_more() {
        // Predicted 100 s, and it takes 300.
        let mut course = Course::default();
        assert!((left(&mut course, (0.0, 0.1), 100.0, 0.0) - 100.0).abs() < 1e-6);
        for share in [0.34, 0.5, 0.9] {
            let truth = 300.0 * (1.0 - share);
            let said = left(&mut course, (share, share + 0.05), 100.0, 300.0 * share);
            assert!((said / truth - 1.0).abs() < 0.1, "{share}: {said} of {truth}");
        }
        assert!(left(&mut course, (1.0, 1.0), 100.0, 300.0).abs() < 1e-6);
    }

    /// Of a model of few units, whose places are rarely seen, time goes on evenly; what takes longer than it should is waited for.
    #[test]
    fn between_two_places_time_goes_on() {
        for predicted in [0.0, 100.0, 400.0] {
            let mut course = Course::default();
            for tenth in 0..100 {
                let now = f64::from(tenth);
                let done = (now / 25.0).floor() / 4.0;
                let said = left(&mut course, (done, done + 0.25), predicted, now + 1e-3);
                let truth = 100.0 - now;
                assert!(tenth < 34 || (said / truth - 1.0).abs() < 0.1, "{now}: {said}");
            }
        }
        let mut course = Course::default();
        left(&mut course, (0.5, 0.75), 0.0, 50.0);
        assert!((left(&mut course, (0.5, 0.75), 0.0, 150.0) - 50.0).abs() < 1e-6);
    }
}
