//! A mixture's habits: how often each expert was used in the answers so far, and how many of them were there when they were wanted. They
//! are remembered beside other measurements, a few kilobytes for a model, so that the next start begins with the experts that are used
//! most, and predicts with what was seen of this very model. They hold no text, and change no answer.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::gguf::Index;
use crate::memo;
use crate::plan::{Plan, Seen};
use crate::stream::experts::{Habit, Watch};

/// Passes from which on habits are worth being remembered.
const ENOUGH: u64 = 64;

/// How much what was remembered counts beside what was seen since.
const OLD: f64 = 0.3;

/// A character stands for each expert: from `!`, used in every pass, in steps of a sixth of a halving. The last one is for never.
const FIRST: u8 = b'!';
const NEVER: u8 = b'~';
const STEPS: f64 = 6.0;

/// What is remembered of a model.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    /// When, in seconds since 1970.
    at: u64,
    /// The share of the experts that was kept ...
    share: f64,
    /// ... and the share of uses that found its expert there.
    hits: f64,
    /// For each block with experts, a character for each of them.
    blocks: Vec<String>,
}

/// Remembers what a model was seen to do, if that is worth it.
pub(super) fn remember(index: &Index, plan: &Plan, watch: &Watch) {
    let Some(experts) = &plan.experts else { return };
    let Some(file) = file(index, "experts").filter(|_| experts.share() > 0.0) else { return };
    let Some(hits) = watch.settled().hit_rate() else { return };
    let (passes, mut habits) = watch.habits();
    if passes < ENOUGH {
        return;
    }
    if let Some(old) = memo::recall::<Remembered>(&file).and_then(|old| old.habits(plan)) {
        for (now, old) in habits.iter_mut().flatten().zip(old.iter().flatten()) {
            *now = *now * (1.0 - OLD) + old * OLD;
        }
    }
    let blocks = habits.iter().map(|block| block.iter().map(|&p| mark(p)).collect()).collect();
    memo::remember(&file, &Remembered { at: memo::now(), share: experts.share(), hits, blocks });
}

/// Tells `plan` what hits are to be expected, if that was seen.
pub(super) fn inform(index: &Index, plan: &mut Plan) {
    if plan.experts.is_none() {
        return;
    }
    let known = file(index, "experts").and_then(|file| memo::recall::<Remembered>(&file));
    let Some(known) = known.filter(|known| known.habits(plan).is_some()) else { return };
    if let Some(experts) = &mut plan.experts {
        experts.seen = Seen::new(known.share, known.hits);
    }
}

/// How often each expert is used, for those blocks of `plan` that have some.
pub(super) fn of(index: &Index, plan: &Plan) -> Option<Vec<Habit>> {
    plan.experts.as_ref()?;
    memo::recall::<Remembered>(&file(index, "experts")?)?.habits(plan)
}

impl Remembered {
    /// The shares of passes that use each expert; none if this is of another model.
    fn habits(&self, plan: &Plan) -> Option<Vec<Habit>> {
        let experts = plan.experts.as_ref()?;
        let fits = self.blocks.len() == experts.blocks.len()
            && self.blocks.iter().zip(&experts.blocks).all(|(a, b)| a.len() as u64 == b.count);
        let block = |marks: &String| marks.bytes().map(share).collect();
        fits.then(|| self.blocks.iter().map(block).collect())
    }
}

/// The file in `folder` for what is remembered of a model: by what its own files are called, and by their state.
pub(super) fn file(index: &Index, folder: &str) -> Option<std::path::PathBuf> {
    let mut hash = Sha256::new();
    for file in &index.files {
        let found = std::fs::metadata(&file.path).ok()?;
        hash.update(file.path.file_name()?.as_encoded_bytes());
        hash.update(file.len.0.to_le_bytes());
        let written = found.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        hash.update(written.as_nanos().to_le_bytes());
    }
    let key: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    memo::path(&format!("{folder}/{key}.json"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 92 steps")]
fn mark(share: f64) -> char {
    let steps = (-share.min(1.0).log2() * STEPS).round();
    let last = f64::from(NEVER - FIRST - 1);
    char::from(if share > 0.0 && steps <= last { FIRST + steps.max(0.0) as u8 } else { NEVER })
}

fn share(mark: u8) -> f64 {
    match mark {
        FIRST..NEVER => (-f64::from(mark - FIRST) / STEPS).exp2(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back_nearly_as_they_were() {
        for p in [1.0, 0.5, 0.37, 0.01, 0.0004] {
            let back = share(u8::try_from(mark(p)).unwrap());
            assert!((back / p - 1.0).abs() < 0.07, "{p} became {back}");
        }
        assert_eq!((mark(0.0), mark(1e-9), mark(f64::NAN)), ('~', '~', '~'));
        assert_eq!((share(b'~'), share(b'\n'), share(200)), (0.0, 0.0, 0.0));
    }
}
