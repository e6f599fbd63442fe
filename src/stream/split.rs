//! Cuts a graph into runs: consecutive nodes that need the same units' weights. Pure: it sees unit numbers, not tensors.

use std::ops::Range;

/// A unit of streaming: a block, or a part of one. Indexes the device's list of units.
pub type Unit = u32;

/// Consecutive nodes that are computed with the same weights at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The nodes.
    pub nodes: Range<usize>,
    /// The units whose weights they need, in order of first use; empty for nodes before the first weight, if any. More than one
    /// only where a single node needs several at once.
    pub units: Vec<Unit>,
}

/// Cuts `needs`, which lists for every node the units it reads. Nodes without weights stay in the run they fall in, so the
/// order of nodes is kept, and a run changes only where another unit is needed.
pub fn split(needs: &[Vec<Unit>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut begin = 0;
    let mut units: Vec<Unit> = Vec::new();
    for (i, need) in needs.iter().enumerate() {
        if need.iter().all(|u| units.contains(u)) {
            continue;
        }
        if !units.is_empty() {
            runs.push(Run { nodes: begin..i, units: std::mem::take(&mut units) });
            begin = i;
        }
        for &unit in need {
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
    }
    if begin < needs.len() {
        runs.push(Run { nodes: begin..needs.len(), units });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Runs cover all nodes once and in order, and every node's units are those of its run.
        #[test]
        fn runs_cover_the_graph(needs in prop::collection::vec(prop::collection::vec(0_u32..5, 0..3), 0..60)) {
            let runs = split(&needs);
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
        let runs = split(&needs);
        assert_eq!(
            runs,
            [Run { nodes: 0..5, units: vec![0] }, Run { nodes: 5..8, units: vec![1] }]
        );
    }
}
