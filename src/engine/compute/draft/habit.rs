//! How drafts of a model turned out so far, remembered for plans: counts, and the file that they are kept in.

use std::collections::BTreeMap;

use crate::memo;
use crate::plan::Habit;

/// What people call a head in the model's own file, and what is remembered of it is found by.
pub(in crate::engine) const HEAD: &str = "the model's own head";

/// Who drafts: the texts themselves, and perhaps a head or a model of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum By {
    Ngrams,
    Head(String),
    Model(String),
}

impl By {
    pub(in crate::engine) fn name(&self) -> Option<&str> {
        match self {
            By::Ngrams => None,
            By::Head(name) | By::Model(name) => Some(name),
        }
    }
}

/// Where it is kept.
const FILE: &str = "drafts.json";

/// What is taken for granted before anything was seen: of texts that are new, of a head that guesses more than the one token that it was
/// made for, and of a small model made like the large one.
const NGRAMS: Habit = Habit { found: 0.25, right: 0.5 };
const OF_HEAD: Habit = Habit { found: 1.0, right: 0.6 };
const MODEL: Habit = Habit { found: 1.0, right: 0.75 };

/// What that counts, in passes and in tokens.
const PRIOR: f64 = 20.0;

/// When so many passes were seen, the older half of them is forgotten.
const MEMORY: f64 = 2000.0;

/// What was seen of drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// Passes that might have had drafts ...
    passes: f64,
    /// ... and those that had some.
    found: f64,
    /// Places at which a token had been drafted when one was chosen ...
    checked: f64,
    /// ... and those of them where it was that one.
    came: f64,
    /// Seconds since 1970.
    #[serde(default)]
    when: u64,
}

impl Seen {
    /// A text's pass had drafts, or had not; of them, `came` tokens came, and then `wrong` says whether another one did.
    pub(super) fn pass(&mut self, found: bool, came: usize, wrong: bool) {
        #[expect(clippy::cast_precision_loss, reason = "few tokens")]
        let came = came as f64;
        self.passes += 1.0;
        self.found += f64::from(u8::from(found));
        self.came += came;
        self.checked += came + f64::from(u8::from(wrong));
    }

    /// What is to be expected, where `prior` was before.
    fn habit(&self, prior: Habit) -> Habit {
        Habit {
            found: (self.found + PRIOR * prior.found) / (self.passes + PRIOR),
            right: (self.came + PRIOR * prior.right) / (self.checked + PRIOR),
        }
    }

    fn plus(&self, new: &Seen) -> Seen {
        let all = Seen {
            passes: self.passes + new.passes,
            found: self.found + new.found,
            checked: self.checked + new.checked,
            came: self.came + new.came,
            when: memo::now(),
        };
        let keep = if all.passes > MEMORY { 0.5 } else { 1.0 };
        Seen {
            passes: all.passes * keep,
            found: all.found * keep,
            checked: all.checked * keep,
            came: all.came * keep,
            ..all
        }
    }

    fn is_sane(&self) -> bool {
        let sane = |part: f64, all: f64| part >= 0.0 && part <= all && all.is_finite();
        sane(self.found, self.passes) && sane(self.came, self.checked)
    }
}

/// What drafts `by` somebody bring for the model called `model`.
pub(in crate::engine) fn known(model: &str, by: &By) -> Habit {
    let prior = match by {
        By::Ngrams => NGRAMS,
        By::Head(_) => OF_HEAD,
        By::Model(_) => MODEL,
    };
    recall().get(&key(model, by)).copied().unwrap_or_default().habit(prior)
}

/// Adds what was `seen` to what is remembered.
pub(super) fn remember(model: &str, by: &By, seen: &Seen) {
    let Some(file) = memo::path(FILE).filter(|_| seen.passes > 0.0) else { return };
    let mut known = recall();
    let entry = known.entry(key(model, by)).or_default();
    *entry = entry.plus(seen);
    memo::remember(&file, &known);
}

fn recall() -> BTreeMap<String, Seen> {
    let known = memo::path(FILE).and_then(|file| memo::recall::<BTreeMap<String, Seen>>(&file));
    let known = known.unwrap_or_default().into_iter();
    known.filter(|(_, seen)| seen.is_sane() && memo::holds(seen.when)).collect()
}

fn key(model: &str, by: &By) -> String {
    format!("{model}, {}", by.name().unwrap_or("n-grams"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_counts_more_and_more() {
        let mut seen = Seen::default();
        assert_eq!(seen.habit(MODEL), MODEL);
        for _ in 0..1000 {
            seen.pass(true, 9, true);
        }
        let habit = seen.habit(MODEL);
        assert!(habit.found > 0.99 && (habit.right - 0.9).abs() < 0.01, "{habit:?}");
        // Nothing was drafted: that says nothing of how right drafts are.
        let mut seen = Seen::default();
        (0..1000).for_each(|_| seen.pass(false, 0, false));
        let habit = seen.habit(NGRAMS);
        assert!(habit.found < 0.01 && habit.right == NGRAMS.right, "{habit:?}");
        let twice = (0..5).fold(Seen::default(), |sum, _| sum.plus(&seen));
        assert!(twice.passes <= MEMORY && twice.is_sane(), "{twice:?}");
        assert!(!Seen { came: 2.0, checked: 1.0, ..Seen::default() }.is_sane());
    }
}
