//! What may come next, as a tree of tokens: pure data. A chain is a tree without forks. It knows neither who drafted it nor who
//! checks it.

use std::ops::Range;

use crate::ggml::Token;

/// A token that may come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// The token.
    pub token: Token,
    /// The node that it comes after; none comes after the text itself.
    pub parent: Option<usize>,
    /// How likely it comes if its parent has. (0 to 1)
    pub likely: f32,
    /// Who drafted it: a number among the drafters.
    pub by: usize,
}

/// Tokens that may come, parents before children.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// Its nodes, parents before children.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing may come.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a token after `parent`, or makes one that is there already likelier. Returns its node.
    pub fn add(&mut self, node: Node) -> usize {
        debug_assert!(node.parent.is_none_or(|parent| parent < self.nodes.len()));
        if let Some(there) = self.child(node.parent, node.token) {
            let old = &mut self.nodes[there];
            if node.likely > old.likely {
                (old.likely, old.by) = (node.likely, node.by);
            }
            return there;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Adds all nodes of `other`.
    pub fn merge(&mut self, other: &Tree) {
        let mut places: Vec<usize> = Vec::with_capacity(other.len());
        for node in &other.nodes {
            let parent = node.parent.map(|parent| places[parent]);
            places.push(self.add(Node { parent, ..*node }));
        }
    }

    /// The node after `parent` with this token.
    pub fn child(&self, parent: Option<usize>, token: Token) -> Option<usize> {
        let from = parent.map_or(0, |parent| parent + 1);
        let is_it = |node: &Node| node.parent == parent && node.token == token;
        self.nodes.iter().skip(from).position(is_it).map(|at| at + from)
    }

    /// How many nodes are on the way to a node, itself included.
    pub fn depth(&self, node: usize) -> usize {
        std::iter::successors(Some(node), |&at| self.nodes[at].parent).count()
    }

    /// How likely each node is reached, if `likely` says that of each after its parent.
    pub fn reached(&self, likely: impl Fn(&Node) -> f64) -> Vec<f64> {
        let mut reached: Vec<f64> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let before = node.parent.map_or(1.0, |parent| reached[parent]);
            reached.push(before * likely(node).clamp(0.0, 1.0));
        }
        reached
    }

    /// The tree without the nodes that `keep` says no to, and what comes after them.
    pub fn retain(&self, mut keep: impl FnMut(usize, &Node) -> bool) -> Tree {
        let mut places: Vec<Option<usize>> = Vec::with_capacity(self.nodes.len());
        let mut kept = Tree::default();
        for (i, node) in self.nodes.iter().enumerate() {
            let parent = match node.parent {
                None => Some(None),
                Some(parent) => places[parent].map(Some),
            };
            places.push(match parent {
                Some(parent) if keep(i, node) => {
                    kept.nodes.push(Node { parent, ..*node });
                    Some(kept.nodes.len() - 1)
                }
                _ => None,
            });
        }
        kept
    }

    /// The tree with at most `most` ways from its root to a leaf: a later fork gives way to an earlier one.
    pub fn with_leaves(&self, most: usize) -> Tree {
        let mut has_child = vec![false; self.nodes.len() + 1];
        let mut leaves = 0;
        let mut gone = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            let parent = node.parent.map_or(self.nodes.len(), |parent| parent);
            if node.parent.is_some_and(|parent| gone[parent]) {
                gone[i] = true;
                continue;
            }
            // The first child goes on with its parent's way, but the text's own begins one.
            let is_new = has_child[parent] || node.parent.is_none();
            if is_new && leaves == most {
                gone[i] = true;
                continue;
            }
            leaves += usize::from(is_new);
            has_child[parent] = true;
        }
        self.retain(|i, _| !gone[i])
    }

    /// For each node, the leaves that are reached through it, as a range of their numbers; and how many leaves there are. The first
    /// way has number 0.
    pub fn leaves(&self) -> (Vec<Range<u32>>, u32) {
        let mut counts = vec![0_u32; self.nodes.len()];
        let mut all = 0;
        for i in (0..self.nodes.len()).rev() {
            counts[i] = counts[i].max(1);
            match self.nodes[i].parent {
                Some(parent) => counts[parent] += counts[i],
                None => all += counts[i],
            }
        }
        // Where the next child of each begins; that of the text itself is the last entry.
        let root = self.nodes.len();
        let mut next = vec![0_u32; root + 1];
        let mut ranges = Vec::with_capacity(root);
        for (i, node) in self.nodes.iter().enumerate() {
            let parent = node.parent.map_or(root, |parent| parent);
            let from = next[parent];
            next[parent] += counts[i];
            next[i] = from;
            ranges.push(from..from + counts[i]);
        }
        (ranges, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn a_tree() -> impl Strategy<Value = Tree> {
        prop::collection::vec((0..6_i32, any_parent(), 0.0..1.0_f32), 0..40).prop_map(|nodes| {
            let mut tree = Tree::default();
            for (token, parent, likely) in nodes {
                let n = tree.len() + 1;
                let parent = Some(parent % n).filter(|&p| p > 0).map(|p| p - 1);
                tree.add(Node { token, parent, likely, by: 0 });
            }
            tree
        })
    }

    fn any_parent() -> impl Strategy<Value = usize> {
        0..1000_usize
    }

    fn ways(tree: &Tree) -> Vec<Vec<Token>> {
        let way = |i: usize| {
            let mut tokens: Vec<Token> =
                std::iter::successors(Some(i), |&at| tree.nodes()[at].parent)
                    .map(|at| tree.nodes()[at].token)
                    .collect();
            tokens.reverse();
            tokens
        };
        (0..tree.len()).map(way).collect()
    }

    proptest! {
        #[test]
        fn leaves_are_numbered_by_ranges(tree in a_tree()) {
            let (ranges, n) = tree.leaves();
            let is_leaf = |i: usize| tree.nodes().iter().all(|node| node.parent != Some(i));
            let leaves = (0..tree.len()).filter(|&i| is_leaf(i)).count();
            prop_assert_eq!(n as usize, leaves);
            for (i, node) in tree.nodes().iter().enumerate() {
                prop_assert!(!ranges[i].is_empty() && ranges[i].end <= n);
                prop_assert_eq!(is_leaf(i), ranges[i].len() == 1 && is_leaf(i));
                if let Some(parent) = node.parent {
                    prop_assert!(ranges[parent].start <= ranges[i].start);
                    prop_assert!(ranges[i].end <= ranges[parent].end);
                }
            }
            // Two nodes of which none comes after the other share no leaf.
            for i in 0..tree.len() {
                for j in 0..i {
                    let is_above = std::iter::successors(Some(i), |&at| tree.nodes()[at].parent).any(|at| at == j);
                    let shared = ranges[i].start.max(ranges[j].start) < ranges[i].end.min(ranges[j].end);
                    prop_assert_eq!(is_above, shared);
                }
            }
        }

        #[test]
        fn merged_trees_hold_the_ways_of_both_once(a in a_tree(), b in a_tree()) {
            let mut both = a.clone();
            both.merge(&b);
            let mut want: Vec<_> = ways(&a).into_iter().chain(ways(&b)).collect();
            let mut got = ways(&both);
            want.sort();
            want.dedup();
            got.sort();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn what_is_kept_hangs_together(tree in a_tree(), most in 1..5_usize, bits in any::<u64>()) {
            let few = tree.with_leaves(most);
            prop_assert!(few.leaves().1 as usize <= most);
            prop_assert!(tree.is_empty() || !few.is_empty());
            let kept = tree.retain(|i, _| bits >> (i % 64) & 1 == 0);
            let all = ways(&tree);
            for way in ways(&kept).into_iter().chain(ways(&few)) {
                prop_assert!(all.contains(&way));
            }
            // What is reached is never likelier than what it comes after.
            let reached = tree.reached(|node| f64::from(node.likely));
            for (i, node) in tree.nodes().iter().enumerate() {
                prop_assert!(node.parent.is_none_or(|parent| reached[i] <= reached[parent]));
                prop_assert_eq!(tree.child(node.parent, node.token), Some(i));
            }
        }
    }
}
