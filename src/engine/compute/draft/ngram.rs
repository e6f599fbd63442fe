//! Drafts from the text itself: what came after its last words when they occurred before. It costs nothing, and is right where a text
//! repeats itself: lists that are edited, code that is copied, quotations.

use super::{Drafter, Node, Sketch, Tree};
use crate::ggml::Token;

/// As many last tokens are compared at most; more of them would not say more.
const LONGEST: usize = 16;

/// How likely the next token is the one that came before, by how many tokens agree; taken from edited lists and code.
const LIKELY: [f32; 8] = [0.0, 0.15, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9];

/// Drafts by repetition.
#[derive(Debug, Default)]
pub struct Ngrams;

impl Drafter for Ngrams {
    fn name(&self) -> &str {
        "n-grams"
    }

    fn draft(&mut self, texts: &[Sketch<'_>]) -> Vec<Tree> {
        texts.iter().map(|sketch| chain(sketch.text, sketch.nodes, sketch.least)).collect()
    }
}

/// The place after the longest repetition of the end of `text`, the latest of them, and how many tokens agree there.
fn repetition(text: &[Token]) -> Option<(usize, usize)> {
    let last = *text.last()?;
    let mut best = None;
    let mut longest = 0;
    for at in (1..text.len()).rev() {
        if text[at - 1] != last {
            continue;
        }
        let same = text[..at].iter().rev().zip(text.iter().rev());
        let n = same.take(LONGEST).take_while(|(a, b)| a == b).count();
        if n > longest {
            (best, longest) = (Some(at), n);
            if n == LONGEST {
                break;
            }
        }
    }
    best.map(|at| (at, longest))
}

fn chain(text: &[Token], nodes: usize, least: f32) -> Tree {
    let mut tree = Tree::default();
    let Some((at, agree)) = repetition(text) else { return tree };
    let (mut parent, mut reached) = (None, 1.0);
    // A repetition may run into what it repeats: then it goes round.
    let period = text.len() - at;
    for i in 0..nodes {
        let likely = LIKELY[(agree + i).min(LIKELY.len() - 1)];
        reached *= likely;
        if reached < least {
            break;
        }
        let token = text[at + i % period];
        parent = Some(tree.add(Node { token, parent, likely, by: 0 }));
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(text: &[Token], nodes: usize) -> Vec<Token> {
        chain(text, nodes, 0.0).nodes().iter().map(|node| node.token).collect()
    }

    #[test]
    fn what_came_before_comes_again() {
        assert_eq!(drafted(&[1, 2, 3, 4, 5, 9, 2, 3], 3), [4, 5, 9]);
        // The longest repetition counts, and of two alike the latest.
        assert_eq!(drafted(&[1, 2, 7, 3, 2, 8, 1, 2], 1), [7]);
        assert_eq!(drafted(&[1, 2, 7, 1, 2, 8, 1, 2], 1), [8]);
        // What goes round goes on going round.
        assert_eq!(drafted(&[5, 6, 5, 6, 5, 6], 5), [5, 6, 5, 6, 5]);
        assert_eq!(drafted(&[4, 4], 3), [4, 4, 4]);
        assert!(drafted(&[1, 2, 3], 5).is_empty());
        assert!(drafted(&[1], 5).is_empty());
        assert!(drafted(&[], 5).is_empty());
    }

    #[test]
    fn what_is_unlikely_is_not_drafted() {
        assert!(chain(&[1, 9, 1], 8, 0.5).is_empty());
        let text: Vec<Token> = (0..20).chain(0..10).collect();
        let tree = chain(&text, 64, 0.5);
        assert!((4..12).contains(&tree.len()), "{}", tree.len());
    }
}
