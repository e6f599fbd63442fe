//! The cuts of graphs that libllama comes back to. Where a scheduler splits a pass, for what is computed elsewhere, it is many graphs:
//! what is kept is bounded by the weights that they use, not by their number.

use std::sync::Arc;

use super::cut::Cut;

/// Passes whose cuts are kept: libllama comes back to one or two graphs of each kind of batch.
const PASSES: usize = 8;

/// Cuts by the numbers of their graphs, the one used last at the end.
#[derive(Debug)]
pub(super) struct Cuts<T = Cut> {
    kept: Vec<Kept<T>>,
    /// Uses of weights in all of them.
    uses: usize,
}

#[derive(Debug)]
struct Kept<T> {
    graph: u64,
    uses: usize,
    cut: Arc<T>,
}

impl<T> Default for Cuts<T> {
    fn default() -> Cuts<T> {
        Cuts { kept: Vec::new(), uses: 0 }
    }
}

impl<T> Cuts<T> {
    /// The cut of a graph.
    pub(super) fn get(&mut self, graph: u64) -> Option<Arc<T>> {
        let at = self.kept.iter().rposition(|kept| kept.graph == graph)?;
        self.kept[at..].rotate_left(1);
        self.kept.last().map(|kept| kept.cut.clone())
    }

    /// Keeps the cut of a graph that uses weights `uses` times, where a pass does it about `pass` times; those that were not used for
    /// longest make room.
    pub(super) fn put(&mut self, graph: u64, cut: Arc<T>, uses: usize, pass: usize) {
        // One without weights takes room, too.
        let uses = uses.max(1);
        self.kept.push(Kept { graph, uses, cut });
        self.uses += uses;
        let mut spare = self.uses.saturating_sub(PASSES * pass.max(uses));
        let gone = self.kept.iter().take_while(|kept| {
            let goes = spare > 0;
            spare = spare.saturating_sub(kept.uses);
            goes
        });
        let gone = gone.count();
        self.uses -= self.kept.drain(..gone).map(|kept| kept.uses).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `graphs`, each with its uses, have to be cut when they come for the fourth time.
    fn cut_again(graphs: &[(u64, usize)], pass: usize) -> usize {
        let mut cuts = Cuts::<u64>::default();
        let mut made = 0;
        for _ in 0..4 {
            made = 0;
            for &(graph, uses) in graphs {
                match cuts.get(graph) {
                    Some(cut) => assert_eq!(*cut, graph),
                    None => {
                        cuts.put(graph, Arc::new(graph), uses, pass);
                        made += 1;
                    }
                }
                assert!(cuts.uses <= PASSES * pass.max(uses));
                assert_eq!(cuts.uses, cuts.kept.iter().map(|kept| kept.uses).sum::<usize>());
            }
        }
        made
    }

    #[test]
    fn a_pass_of_many_graphs_is_cut_once() {
        let split: Vec<(u64, usize)> = (1..=60).map(|graph| (graph, 10)).collect();
        assert_eq!(cut_again(&split, 600), 0);
        // Two kinds of batch, and graphs without weights between.
        let both: Vec<(u64, usize)> =
            (1..=120).map(|g| (g, if g % 3 == 0 { 0 } else { 15 })).collect();
        assert_eq!(cut_again(&both, 600), 0);
        assert_eq!(cut_again(&[(1, 600), (2, 600)], 600), 0);
    }

    #[test]
    fn graphs_that_do_not_come_back_make_room() {
        let many: Vec<(u64, usize)> = (1..=20).map(|graph| (graph, 600)).collect();
        assert_eq!(cut_again(&many, 600), 20);
        let mut cuts = Cuts::<u64>::default();
        for graph in 1..=100 {
            cuts.put(graph, Arc::new(graph), 600, 600);
            // What is used stays.
            assert!(cuts.get(1).is_some());
        }
        assert_eq!(cuts.kept.len(), PASSES);
    }
}
