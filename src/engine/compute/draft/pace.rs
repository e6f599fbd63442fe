//! How much to draft: arithmetic with what passes took and what of the drafts came. The number of tokens is the one that brings the
//! most accepted tokens per second; where none does, drafts sleep, and are tried again after a while.

use super::credit::Credit;
use super::{Node, Tree};

/// What drafters say of their tokens is believed by tenths.
const BINS: usize = 10;

/// What a tenth's own middle counts, in tokens that were tried.
const PRIOR: f64 = 6.0;

/// When so many were tried, the older half of them is forgotten.
const MEMORY: f64 = 200.0;

/// The share of the newest pass in what passes of its size are believed to take.
const NEWEST: f64 = 0.3;

/// Passes that drafts sleep for when they lose, at first and at most.
const NAPS: [u32; 2] = [2, 64];

/// Tokens that are drafted where it is only a trial.
const TRIAL: usize = 4;

/// Drafts must bring so much more than they cost by the arithmetic, whose numbers are none too exact.
const MARGIN: f64 = 1.03;

/// Tokens of drafts of one kind and probability.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    came: f64,
    tried: f64,
}

/// What was seen of passes and drafts.
#[derive(Debug)]
pub struct Pace {
    /// Seconds that a pass of 1, 2, 4, ... tokens is taken to need, before any was seen.
    prior: Vec<f64>,
    /// What passes of about so many tokens took, against that.
    ratios: Vec<Option<f64>>,
    /// By drafter.
    bins: Vec<[Bin; BINS]>,
    /// What drafters may lose.
    credit: Credit,
    /// What drafting for a pass took, when it was last done.
    draft_seconds: f64,
    /// Passes until drafts are tried again.
    asleep: u32,
    nap: u32,
    /// Whether the prior is all there is to know.
    fixed: bool,
}

impl Pace {
    /// `prior`: seconds of passes of 1, 2, 4, ... tokens.
    pub fn new(prior: Vec<f64>) -> Pace {
        let ratios = vec![None; prior.len()];
        let (bins, credit) = (Vec::new(), Credit::default());
        let (draft_seconds, asleep, nap, fixed) = (0.0, 0, NAPS[0], false);
        Pace { prior, ratios, bins, credit, draft_seconds, asleep, nap, fixed }
    }

    /// Passes take what `prior` says and drafting takes nothing, whatever a clock says: how much is drafted then follows from the texts
    /// alone.
    pub fn fixed(prior: Vec<f64>) -> Pace {
        Pace { fixed: true, ..Pace::new(prior) }
    }

    /// Whether drafts are to be made for the next pass.
    pub fn is_awake(&mut self) -> bool {
        self.asleep = self.asleep.saturating_sub(1);
        if self.asleep > 0 {
            self.credit.idle();
        }
        self.asleep == 0
    }

    /// A pass of `n` tokens took so long.
    pub fn passed(&mut self, n: usize, seconds: f64) {
        let (at, expected) = (bucket(n), self.prior(n));
        if self.fixed {
            return;
        }
        if let Some(ratio) = self.ratios.get_mut(at)
            && expected > 0.0
        {
            let seen = seconds / expected;
            *ratio = Some(ratio.map_or(seen, |old| old + (seen - old) * NEWEST));
        }
    }

    /// Drafting took so long.
    pub(super) fn drafted(&mut self, seconds: f64) {
        self.draft_seconds = if self.fixed { 0.0 } else { seconds };
    }

    /// A drafted token was checked: whether it came.
    pub fn checked(&mut self, node: &Node, came: bool) {
        if self.bins.len() <= node.by {
            self.bins.resize(node.by + 1, [Bin::default(); BINS]);
        }
        let bin = &mut self.bins[node.by][tenth(node.likely)];
        if bin.tried >= MEMORY {
            *bin = Bin { came: bin.came / 2.0, tried: bin.tried / 2.0 };
        }
        bin.tried += 1.0;
        bin.came += f64::from(u8::from(came));
        if came {
            self.credit.gain(node.by);
        }
    }

    /// How likely a token comes after its parent, by what its drafter said and how that was right so far.
    pub fn likely(&self, node: &Node) -> f64 {
        let said = f64::from(node.likely);
        let Some(bins) = self.bins.get(node.by) else { return said };
        let Bin { came, tried } = bins[tenth(node.likely)];
        (came + PRIOR * said) / (tried + PRIOR)
    }

    /// How likely each node of a tree is reached.
    pub(super) fn reached(&self, tree: &Tree) -> Vec<f64> {
        tree.reached(|node| self.likely(node))
    }

    /// What is reached with less probability is not worth the time to draft it.
    pub fn least(&self) -> f32 {
        // A token more costs a computing step; it must bring more than the pass does for the same time.
        let more = (self.seconds(16) - self.seconds(8)) / 8.0;
        #[expect(clippy::cast_possible_truncation, reason = "a share")]
        let least = (more / self.seconds(1).max(1e-9)) as f32;
        least.clamp(0.02, 0.5)
    }

    /// Seconds of a pass of `n` tokens.
    pub fn seconds(&self, n: usize) -> f64 {
        // The nearest size that was seen says how far off the prior is.
        let at = bucket(n);
        let distance = |&i: &usize| i.abs_diff(at);
        let seen = (0..self.ratios.len()).filter(|&i| self.ratios[i].is_some());
        let ratio = seen.min_by_key(distance).and_then(|i| self.ratios[i]).unwrap_or(1.0);
        self.prior(n) * ratio
    }

    fn prior(&self, n: usize) -> f64 {
        let last = self.prior.len().saturating_sub(1);
        let low = (n.max(1).ilog2() as usize).min(last);
        let high = (low + 1).min(last);
        let (Some(&a), Some(&b)) = (self.prior.get(low), self.prior.get(high)) else { return 1.0 };
        #[expect(clippy::cast_precision_loss, reason = "few tokens")]
        let share = n as f64 / (1_u64 << low.min(40)) as f64 - 1.0;
        // Beyond the last, as it went between the last two.
        let slope = if high > low { b - a } else { a - self.prior[low.saturating_sub(1)] };
        a + slope.max(0.0) * share.max(0.0)
    }

    /// Of `trees`, the nodes that bring the most tokens per second in a pass that computes `base` tokens anyway, and has room for
    /// `room` more. None where drafts lose; then they sleep for a while.
    pub(super) fn cut(&mut self, trees: &[Tree], base: usize, room: usize) -> Vec<Tree> {
        #[expect(clippy::cast_precision_loss, reason = "few texts")]
        let texts = trees.len() as f64;
        self.credit.pass(texts);
        if trees.iter().all(Tree::is_empty) {
            return trees.to_vec();
        }
        let all = self.affordable(trees, base, room);
        // The drafts are here, and what they took is spent, whatever becomes of them.
        let rate = |sum: f64, n: usize| sum / (self.seconds(base + n) + self.draft_seconds);
        let (mut best, mut best_rate, mut sum) = (0, rate(texts, 0) * MARGIN, texts);
        for (i, entry) in all.iter().enumerate() {
            sum += entry.reach;
            if rate(sum, i + 1) > best_rate {
                (best, best_rate) = (i + 1, rate(sum, i + 1));
            }
        }
        let was_trial = self.nap > NAPS[0];
        if best > 0 && best_rate > texts / self.seconds(base) * MARGIN {
            self.nap = NAPS[0];
        } else {
            // A trial, now that they are made; then a longer sleep.
            best = if was_trial { best.max(TRIAL.min(all.len())) } else { best };
            self.asleep = self.nap + 1;
            self.nap = (self.nap * 2).min(NAPS[1]);
        }
        let mut kept: Vec<Vec<bool>> = trees.iter().map(|tree| vec![false; tree.len()]).collect();
        for entry in &all[..best] {
            kept[entry.tree][entry.node] = true;
            self.credit.spend(entry.by, entry.cost);
        }
        trees.iter().zip(&kept).map(|(tree, kept)| tree.retain(|i, _| kept[i])).collect()
    }

    /// The nodes of `trees` that may be tried, the likeliest first: no more than `room`, and as many of each drafter as it may lose.
    fn affordable(&self, trees: &[Tree], base: usize, room: usize) -> Vec<Entry> {
        let reached: Vec<Vec<f64>> = trees.iter().map(|tree| self.reached(tree)).collect();
        let all = reached.iter().enumerate().flat_map(|(tree, reached)| {
            reached.iter().enumerate().map(move |(node, &reach)| (tree, node, reach))
        });
        let mut all: Vec<(usize, usize, f64)> = all.collect();
        // Stable, so that of two alike the one that comes before stays before.
        all.sort_by(|a, b| b.2.total_cmp(&a.2));
        #[expect(clippy::cast_precision_loss, reason = "few texts")]
        let per_second = trees.len() as f64 / self.seconds(base).max(1e-9);
        let mut taken: Vec<Vec<bool>> = trees.iter().map(|tree| vec![false; tree.len()]).collect();
        let mut at_risk: Vec<f64> = Vec::new();
        let mut entries = Vec::new();
        for (tree, node, reach) in all {
            let Node { by, parent, .. } = trees[tree].nodes()[node];
            if entries.len() == room {
                break;
            }
            let n = base + entries.len();
            let cost = (self.seconds(n + 1) - self.seconds(n)).max(0.0) * per_second;
            if at_risk.len() <= by {
                at_risk.resize(by + 1, 0.0);
            }
            let risk = at_risk[by] + cost * (1.0 - reach);
            if parent.is_some_and(|parent| !taken[tree][parent]) || risk > self.credit.of(by) {
                continue;
            }
            at_risk[by] = risk;
            taken[tree][node] = true;
            entries.push(Entry { tree, node, reach, by, cost });
        }
        entries
    }
}

/// A node that may be tried.
struct Entry {
    tree: usize,
    node: usize,
    /// How likely it is reached.
    reach: f64,
    by: usize,
    /// The tokens that would come without drafts in the time that it takes.
    cost: f64,
}

/// The size of a pass that counts as alike.
fn bucket(n: usize) -> usize {
    n.max(1).ilog2() as usize
}

fn tenth(likely: f32) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below ten")]
    let tenth = (likely.clamp(0.0, 0.999) * 10.0) as usize;
    tenth.min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chain(likely: f32, n: usize) -> Tree {
        let mut tree = Tree::default();
        for i in 0..n {
            let node = Node { token: 1, parent: i.checked_sub(1), likely, by: 0 };
            tree.add(node);
        }
        tree
    }

    /// Passes that stream: up to 32 tokens cost nothing.
    fn streamed() -> Pace {
        Pace::new(vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0])
    }

    /// Passes whose time goes by tokens.
    fn computed() -> Pace {
        Pace::new((0..8).map(|i| f64::from(1 << i)).collect())
    }

    #[test]
    fn where_tokens_are_free_many_are_checked_and_where_they_cost_none() {
        let mut pace = streamed();
        assert_eq!(pace.cut(&[chain(0.9, 60)], 1, 100)[0].len(), 31);
        assert_eq!(pace.cut(&[chain(0.9, 60)], 1, 10)[0].len(), 10);
        let mut pace = computed();
        assert!(pace.cut(&[chain(0.9, 60)], 1, 100)[0].is_empty());
        assert!(!pace.is_awake());
    }

    #[test]
    fn drafts_that_lose_sleep_and_are_tried_again() {
        let mut pace = computed();
        let (mut tries, mut drafted) = (0, 0);
        for _ in 0..1000 {
            if pace.is_awake() {
                tries += 1;
                drafted += pace.cut(&[chain(0.5, 20)], 1, 100)[0].len();
            }
        }
        assert!((10..40).contains(&tries), "{tries}");
        assert!(drafted <= tries * TRIAL && drafted > 0, "{drafted}");
    }

    #[test]
    fn what_is_seen_counts_more_than_what_was_said() {
        let mut pace = streamed();
        let node = Node { token: 1, parent: None, likely: 0.95, by: 1 };
        assert!(pace.likely(&node) > 0.9);
        for _ in 0..100 {
            pace.checked(&node, false);
        }
        assert!(pace.likely(&node) < 0.1);
        (0..10).for_each(|_| pace.passed(16, 3.0));
        assert!((pace.seconds(16) - 3.0).abs() < 0.1);
        assert!(pace.seconds(12) > 2.0);
    }

    /// Passes over streamed weights, as they are: each token takes 6 % more.
    fn usual() -> Pace {
        Pace::fixed((0..9).map(|i| 1.0 + 0.06 * f64::from((1 << i) - 1)).collect())
    }

    /// The time of a text of `n` tokens of which drafts that are said to be `likely` come with probability `come`, and the time that it
    /// takes without drafts.
    fn text(pace: &mut Pace, by: usize, likely: &[f32], come: f64, n: usize) -> (f64, f64) {
        let (mut seconds, mut tokens, mut chance) = (0.0, 0, 0.0);
        for pass in 0.. {
            if tokens >= n {
                break;
            }
            let mut tree = Tree::default();
            if pace.is_awake() {
                let mut chain = Tree::default();
                for i in 0..30 {
                    let likely = likely[(pass + i) % likely.len()];
                    chain.add(Node { token: 1, parent: i.checked_sub(1), likely, by });
                }
                tree = pace.cut(&[chain], 1, 64).remove(0);
            }
            seconds += pace.seconds(1 + tree.len());
            tokens += 1;
            for node in tree.nodes() {
                chance += come;
                let came = chance >= 1.0;
                pace.checked(node, came);
                if !came {
                    break;
                }
                chance -= 1.0;
                tokens += 1;
            }
        }
        (seconds, pace.seconds(1) * f64::from(u32::try_from(tokens).unwrap()))
    }

    #[test]
    fn drafts_that_never_come_cost_next_to_nothing() {
        for likely in [&[0.15, 0.4, 0.6, 0.7][..], &[0.9], &[0.3], &[0.6, 0.1, 0.99]] {
            for n in [32, 100, 1000] {
                let (with, without) = text(&mut usual(), 0, likely, 0.0, n);
                assert!(with <= without / 0.965, "{likely:?}, {n}: {with} {without}");
            }
        }
    }

    #[test]
    fn drafts_that_come_are_made() {
        for (by, likely) in [(0, 0.6), (0, 0.9), (1, 0.9)] {
            let (with, without) = text(&mut usual(), by, &[likely], 0.95, 200);
            assert!(with * 2.5 < without, "{by}, {likely}: {with} {without}");
        }
        // Also after a time in which they did not.
        let mut pace = usual();
        text(&mut pace, 0, &[0.6], 0.0, 300);
        let (with, without) = text(&mut pace, 0, &[0.6], 0.95, 1000);
        assert!(with * 2.0 < without, "{with} {without}");
    }

    proptest! {
        #[test]
        fn no_more_than_there_is_room_for(
            likely in 0.0..1.0_f32, n in 0..80_usize, texts in 1..5_usize, room in 0..40_usize,
        ) {
            for mut pace in [streamed(), computed()] {
                let trees = vec![chain(likely, n); texts];
                let cut = pace.cut(&trees, texts, room);
                prop_assert_eq!(cut.len(), texts);
                prop_assert!(cut.iter().map(Tree::len).sum::<usize>() <= room);
            }
        }
    }
}
