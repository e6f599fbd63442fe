//! How a text's tree grows by what a model or a head says of the next token: the likeliest one goes on, others are forks.

use super::{Node, Sketch, Tree};
use crate::ggml::{Token, Vocab};

/// Other tokens than the likeliest that are drafted at each place, if forks are of use and they are at least so likely.
const OTHERS: usize = 3;
const LEAST_OTHER: f32 = 0.04;

/// A text that is being drafted for.
pub(super) struct Growing {
    /// Its number among the texts.
    pub(super) text: usize,
    tip: Option<usize>,
    reached: f32,
    /// The last token, which is to be computed next.
    pub(super) next: Token,
}

impl Growing {
    /// The text of this number, of which nothing is drafted yet; `next` is its last token.
    pub(super) fn new(text: usize, next: Token) -> Growing {
        Growing { text, tip: None, reached: 1.0, next }
    }

    /// Adds what comes after `next` by these logits.
    pub(super) fn grow(&mut self, logits: &[f32], text: &Sketch<'_>, tree: &mut Tree) {
        let likeliest = likeliest(logits, if text.forks { 1 + OTHERS } else { 1 });
        let before = self.tip;
        for (rank, &(token, likely)) in likeliest.iter().enumerate() {
            if rank > 0 && (likely < LEAST_OTHER || self.reached * likely < text.least) {
                break;
            }
            let node = tree.add(Node { token, parent: before, likely, by: 0 });
            if rank == 0 {
                (self.tip, self.next) = (Some(node), token);
            }
        }
        self.reached *= likeliest.first().map_or(0.0, |&(_, likely)| likely);
    }

    /// Whether another token is worth it.
    pub(super) fn goes_on(&self, text: &Sketch<'_>, tree: &Tree, vocab: Vocab<'_>) -> bool {
        let enough = tree.len() >= text.nodes || self.reached < text.least;
        !enough && !vocab.is_eog(self.next)
    }
}

/// The `n` likeliest tokens and how likely they are, the likeliest first.
fn likeliest(logits: &[f32], n: usize) -> Vec<(Token, f32)> {
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(n + 1);
    let mut most = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return Vec::new();
        }
        most = most.max(logit);
        if best.len() == n && best.last().is_some_and(|last| logit <= last.1) {
            continue;
        }
        let at = best.iter().position(|other| logit > other.1).unwrap_or(best.len());
        best.insert(at, (id, logit));
        best.truncate(n);
    }
    if !most.is_finite() {
        return Vec::new();
    }
    let sum: f32 = logits.iter().map(|&logit| (logit - most).exp()).sum();
    let likely =
        |(id, logit): (usize, f32)| (Token::try_from(id).unwrap_or(0), (logit - most).exp() / sum);
    best.into_iter().map(likely).collect()
}

#[cfg(test)]
mod tests {
    use super::likeliest;

    #[test]
    fn the_likeliest_come_first_and_sum_to_one() {
        let logits = [0.5, 3.0, -1.0, 3.0, 2.0];
        let all = likeliest(&logits, 5);
        assert_eq!(all.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 4, 0, 2]);
        assert!((all.iter().map(|t| t.1).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(likeliest(&logits, 2), all[..2]);
        for none in [[f32::NAN, 1.0], [f32::NEG_INFINITY; 2], [f32::INFINITY, 1.0]] {
            assert!(likeliest(&none, 1).is_empty());
        }
    }
}
