//! What passes of a model really took on this machine, remembered beside other measurements: what was measured with single matrices and
//! long reads predicts a model that nobody has run yet, and from then on predictions are corrected by what was seen of it. They change no
//! answer, and nothing of a plan but who drafts.

use serde::{Deserialize, Serialize};

use super::habits;
use crate::gguf::Index;
use crate::memo;
use crate::plan::{self, Cost, Plan, Rates, Touched};
use crate::stream::passes::Took;
use crate::units::{Bytes, MIB, Rate};

/// What is remembered of a model.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Remembered {
    /// When, in seconds since 1970.
    at: u64,
    /// Threads that computed.
    threads: u32,
    /// Passes of one token.
    one: Option<Seen>,
    /// Passes of a prompt.
    many: Option<Seen>,
}

/// Passes of so many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    tokens: u32,
    /// Computing.
    seconds: f64,
    /// Reading, as it explains what the whole pass took. (bytes per second)
    disk: Option<f64>,
}

/// Nobody waits for a smaller model. (bytes)
const WORTH_IT: Bytes = Bytes(256 * MIB.0);

/// Corrections beyond this are none: something else is wrong.
const ABSURD: f64 = 20.0;

/// What of the rate at which weights came while any were on their way may be what a whole pass reaches, and how closely that is found.
const SHARES: [f64; 2] = [0.4, 1.2];
const HALVINGS: u32 = 20;

/// Remembers what passes took, if that says something about others.
pub(super) fn remember(index: &Index, plan: &Plan, n_threads: u32, took: [Option<Took>; 2]) {
    let bytes: Bytes = plan.blocks.iter().map(|b| b.len).sum();
    if plan.gpu.is_some() || bytes < WORTH_IT {
        return;
    }
    let Some(file) = habits::file(index, "passes") else { return };
    let [one, many] = took.map(|took| took.and_then(Seen::of));
    if one.is_none() && many.is_none() {
        return;
    }
    let touched = Touched::of(index);
    let usual = Rates::usual(n_threads);
    let whole = took[0].map(|took| took.whole.as_secs_f64());
    let one = one.map(|one| one.explaining(whole.unwrap_or_default(), plan, usual, touched));
    let old = recall(index, n_threads).unwrap_or_default();
    let at = memo::now();
    let (one, many) = (one.or(old.one), many.or(old.many));
    memo::remember(&file, &Remembered { at, threads: n_threads, one, many });
}

/// Rates as passes of this very model showed them; `rates` where nobody has seen any.
pub(super) fn taught(
    index: &Index,
    plan: &Plan,
    rates: Rates,
    n_threads: u32,
    touched: Touched,
) -> Rates {
    if plan.gpu.is_some() {
        return rates;
    }
    recall(index, n_threads).map_or(rates, |known| known.correct(plan, rates, touched))
}

fn recall(index: &Index, n_threads: u32) -> Option<Remembered> {
    let known: Remembered = memo::recall(&habits::file(index, "passes")?)?;
    let is_sane = |seen: &Seen| {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        seen.tokens > 0 && positive(seen.seconds) && seen.disk.is_none_or(positive)
    };
    let holds = memo::holds(known.at) && known.threads == n_threads;
    let Remembered { one, many, .. } = known;
    holds.then(|| Remembered { one: one.filter(is_sane), many: many.filter(is_sane), ..known })
}

impl Remembered {
    fn correct(&self, plan: &Plan, rates: Rates, touched: Touched) -> Rates {
        let mut out = rates;
        if let Some(one) = self.one {
            let factor = one.factor(plan, &rates, touched);
            let faster = |cost: Cost| Cost { one: Rate(cost.one.0 * factor), ..cost };
            (out.resident, out.streamed) = (faster(out.resident), faster(out.streamed));
            out.disk_one = one.disk.map(Rate).or(out.disk_one);
        }
        if let Some(many) = self.many {
            let factor = many.factor(plan, &out, touched);
            let faster = |cost: Cost| Cost { many: Rate(cost.many.0 * factor), ..cost };
            (out.resident, out.streamed) = (faster(out.resident), faster(out.streamed));
            out.disk_many = many.disk.map(Rate).or(out.disk_many);
        }
        out
    }
}

impl Seen {
    fn of(took: Took) -> Option<Seen> {
        let seconds = took.computing.as_secs_f64();
        let tokens = u32::try_from(took.tokens).ok()?;
        (seconds > 0.0).then(|| Seen { tokens, seconds, disk: took.disk.map(|rate| rate.0) })
    }

    /// The same, read at the rate with which `plan` takes `seconds` for it. What comes in while anything is on its way comes faster: between
    /// two reads, and where threads wait for each other, nothing is. Where no rate explains it, it is something else.
    fn explaining(self, seconds: f64, plan: &Plan, usual: Rates, touched: Touched) -> Seen {
        let Some(disk) = self.disk else { return self };
        let known = Remembered { one: Some(self), ..Remembered::default() };
        let rates = known.correct(plan, usual, touched);
        let predicted = |share: f64| {
            let rates = Rates { disk_one: Some(Rate(disk * share)), ..rates };
            plan::pass_seconds(plan, &rates, touched, 1)
        };
        let [mut low, mut high] = SHARES;
        if !(predicted(high)..=predicted(low)).contains(&seconds) {
            return self;
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if predicted(middle) > seconds { low = middle } else { high = middle }
        }
        Seen { disk: Some(disk * high), ..self }
    }

    /// How many times as fast it computed as is predicted at `rates`.
    fn factor(&self, plan: &Plan, rates: &Rates, touched: Touched) -> f64 {
        let predicted = plan::computing_seconds(plan, rates, touched, self.tokens);
        let factor = predicted / self.seconds;
        if (1.0 / ABSURD..ABSURD).contains(&factor) { factor } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::engine::{LoadOptions, planning};

    #[test]
    fn what_was_seen_is_predicted_from_then_on() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q4_k_m.gguf");
        let index = Arc::new(Index::open(&model).unwrap());
        let options = LoadOptions { threads: Some(2), ctx: Some(64), ..LoadOptions::default() };
        let plan = planning::plan(&index, &options, false).unwrap().plan;
        let (touched, usual) = (Touched::of(&index), Rates::usual(2));
        let seconds = |rates: &Rates, n| plan::computing_seconds(&plan, rates, touched, n);
        // Half as fast as predicted for a token, and three times for a prompt.
        let [one, many] = [seconds(&usual, 1) * 2.0, seconds(&usual, 500) / 3.0];
        let seen = |tokens, seconds, disk| Some(Seen { tokens, seconds, disk });
        let known = Remembered {
            one: seen(1, one, Some(7e8)),
            many: seen(500, many, None),
            ..Remembered::default()
        };
        let rates = known.correct(&plan, usual, touched);
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.05;
        assert!(near(seconds(&rates, 1), one) && near(seconds(&rates, 500), many), "{rates:?}");
        assert_eq!((rates.disk_in(1), rates.disk_in(500)), (Rate(7e8), usual.disk));
        // What cannot be is not believed.
        let absurd = Remembered { one: seen(1, one * 1e6, None), ..Remembered::default() };
        assert_eq!(absurd.correct(&plan, usual, touched), usual);
    }

    #[test]
    fn what_a_whole_pass_took_is_predicted_of_one_that_streams() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q4_k_m.gguf");
        let index = Arc::new(Index::open(&model).unwrap());
        let options = LoadOptions {
            threads: Some(2),
            ctx: Some(64),
            stream: plan::StreamMode::Always,
            ..LoadOptions::default()
        };
        let plan = planning::plan(&index, &options, false).unwrap().plan;
        let (touched, usual) = (Touched::of(&index), Rates::usual(2));
        // A disk so slow that it alone counts.
        let seen = Seen { tokens: 1, seconds: 1e-4, disk: Some(1e7) };
        let seconds = |seen| {
            let known = Remembered { one: Some(seen), ..Remembered::default() };
            plan::pass_seconds(&plan, &known.correct(&plan, usual, touched), touched, 1)
        };
        for slower in [0.9, 1.0, 1.3, 2.0] {
            let whole = seconds(seen) * slower;
            let explained = seen.explaining(whole, &plan, usual, touched);
            let said = seconds(explained);
            assert!((said / whole - 1.0).abs() < 1e-3, "{slower}: {said} and {whole}");
        }
        // Other reasons than the disk's: it stays what was seen.
        let stopped = seen.explaining(seconds(seen) * 10.0, &plan, usual, touched);
        assert_eq!(stopped, seen);
    }
}
