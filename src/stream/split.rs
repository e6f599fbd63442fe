//! Cuts a graph into runs: consecutive nodes that need the same units' weights. Pure: it sees unit numbers, not tensors.

use std::ops::Range;

/// A unit of streaming: a block, or a part of one. Indexes the device's list of units.
pub type Unit = u32;

/// Consecutive nodes that are computed with the same weights at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The nodes.
    pub nodes: Range<usize>,
    /// The units whose weights they need, in order of first use; empty for nodes that need none and are worth a run of their own.
    /// More than one only where a single node needs several at once.
    pub units: Vec<Unit>,
}

/// Cuts a graph whose node `i` reads the units `needs[i]`. Nodes without weights stay in the run they fall in, so the order of nodes is
/// kept, and a run changes only where another unit is needed. But where much is computed after the last use of a run's units
/// (`heavy[i]`: a resident block, for example), a run without units begins: it need not keep the slots from being filled.
pub fn split(needs: &[Vec<Unit>], heavy: &[bool]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut begin = 0;
    let mut units: Vec<Unit> = Vec::new();
    let mut last_use = 0;
    let mut end = |begin: usize, last_use: usize, end: usize, units: Vec<Unit>| {
        let rest = last_use + 1..end;
        if !units.is_empty() && heavy[rest.clone()].contains(&true) {
            runs.push(Run { nodes: begin..rest.start, units });
            runs.push(Run { nodes: rest, units: Vec::new() });
        } else if begin < end {
            runs.push(Run { nodes: begin..end, units });
        }
    };
    for (i, need) in needs.iter().enumerate() {
        if need.is_empty() {
            continue;
        }
        if !need.iter().all(|u| units.contains(u)) {
            if !units.is_empty() {
                end(begin, last_use, i, std::mem::take(&mut units));
                begin = i;
            }
            for &unit in need {
                if !units.contains(&unit) {
                    units.push(unit);
                }
            }
        }
        last_use = i;
    }
    end(begin, last_use, needs.len(), units);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Runs cover all nodes once and in order, and every node's units are those of its run.
        #[test]
        fn runs_cover_the_graph(nodes in prop::collection::vec((prop::collection::vec(0_u32..5, 0..3), any::<bool>()), 0..60)) {
            let (needs, heavy): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
            let runs = split(&needs, &heavy);
            let mut next = 0;
            for run in &runs {
                prop_assert_eq!(run.nodes.start, next);
                prop_assert!(run.nodes.end > run.nodes.start);
                next = run.nodes.end;
                for i in run.nodes.clone() {
                    prop_assert!(needs[i].iter().all(|u| run.units.contains(u)));
                }
                let widest = run.nodes.clone().map(|i| {
                    let mut n = needs[i].clone();
                    n.sort_unstable();
                    n.dedup();
                    n.len()
                }).max().unwrap();
                prop_assert!(run.units.len() <= widest.max(1));
            }
            prop_assert_eq!(next, needs.len());
        }
    }

    #[test]
    fn weightless_nodes_stay_where_they_fall() {
        let needs = [vec![], vec![0], vec![], vec![0], vec![], vec![1], vec![], vec![]];
        let runs = split(&needs, &[false; 8]);
        assert_eq!(
            runs,
            [Run { nodes: 0..5, units: vec![0] }, Run { nodes: 5..8, units: vec![1] }]
        );
    }

    #[test]
    fn a_resident_block_frees_the_slot() {
        let needs = [vec![0], vec![], vec![0], vec![], vec![], vec![1]];
        let heavy = [true, true, true, false, true, true];
        let run = |nodes, units| Run { nodes, units };
        let want = [run(0..3, vec![0]), run(3..5, vec![]), run(5..6, vec![1])];
        assert_eq!(split(&needs, &heavy), want);
    }
}
