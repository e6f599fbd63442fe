//! What a pool would have hit on routes that were recorded: with its policy, with the least recently used, and at best. Pure.

use super::policy::{Decay, Shelf};

/// The routes of one block: for each pass, the experts that it used.
pub type Routes = Vec<Vec<u32>>;

/// Which expert leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// The one of least worth.
    Worth(Decay),
    /// The one whose next use is farthest away (Belady): nobody can do better.
    Best,
}

/// Uses and hits of a pool of `n_slots` slots that begins empty.
pub fn hits(routes: &Routes, n_slots: usize, policy: Policy) -> (u64, u64) {
    match policy {
        Policy::Worth(decay) => by_worth(routes, n_slots, decay),
        Policy::Best => at_best(routes, n_slots),
    }
}

/// Experts there are, at least.
fn count(routes: &Routes) -> usize {
    routes.iter().flatten().max().map_or(0, |&e| e as usize + 1)
}

fn by_worth(routes: &Routes, n_slots: usize, decay: Decay) -> (u64, u64) {
    let mut shelf = Shelf::new(n_slots, count(routes), decay);
    let (mut uses, mut hits) = (0, 0);
    for experts in routes {
        shelf.begin(experts);
        for &e in experts {
            uses += 1;
            match shelf.place(e) {
                Some(_) => hits += 1,
                None => {
                    if let Some(slot) = shelf.admit(e) {
                        shelf.end_fill(slot, true);
                    }
                }
            }
        }
    }
    (uses, hits)
}

fn at_best(routes: &Routes, n_slots: usize) -> (u64, u64) {
    const NEVER: usize = usize::MAX;
    // For each pass and expert of it, the next pass that uses it.
    let mut next = vec![NEVER; count(routes)];
    let mut later: Vec<Vec<usize>> = Vec::with_capacity(routes.len());
    for (at, experts) in routes.iter().enumerate().rev() {
        later.push(experts.iter().map(|&e| next[e as usize]).collect());
        for &e in experts {
            next[e as usize] = at;
        }
    }
    later.reverse();
    // What is held, with its next use.
    let mut held: Vec<(u32, usize)> = Vec::with_capacity(n_slots);
    let (mut uses, mut hits) = (0, 0);
    for (at, (experts, later)) in routes.iter().zip(&later).enumerate() {
        for &e in experts {
            uses += 1;
            hits += u64::from(held.iter().any(|h| h.0 == e));
        }
        for (&e, &then) in experts.iter().zip(later) {
            if let Some(h) = held.iter_mut().find(|h| h.0 == e) {
                h.1 = then;
            } else if held.len() < n_slots {
                held.push((e, then));
            } else {
                // What this pass still needs counts as needed now.
                let due = |h: &&mut (u32, usize)| if h.1 == at { 0 } else { h.1 };
                if let Some(h) = held.iter_mut().max_by_key(due) {
                    *h = (e, then);
                }
            }
        }
    }
    (uses, hits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Nobody beats the best, and the best needs no more than one read for each expert where all fit.
        #[test]
        fn nothing_beats_the_best(
            n in 4_usize..16,
            routes in prop::collection::vec(prop::collection::btree_set(0_u32..16, 1..5), 1..80),
        ) {
            let routes: Routes = routes.into_iter().map(|p| p.into_iter().collect()).collect();
            let best = hits(&routes, n, Policy::Best);
            for decay in [Decay::LRU, Decay::default()] {
                let ours = hits(&routes, n, Policy::Worth(decay));
                prop_assert_eq!(ours.0, best.0);
                prop_assert!(ours.1 <= best.1, "{ours:?} beats {best:?}");
            }
            let all = hits(&routes, 16, Policy::Best);
            let mut distinct = routes.concat();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(all.1, all.0 - distinct.len() as u64);
        }
    }

    #[test]
    fn the_best_keeps_what_comes_back_first() {
        let routes: Routes = [0, 1, 2, 0, 1].iter().map(|&e| vec![e]).collect();
        assert_eq!(hits(&routes, 2, Policy::Best), (5, 1));
        assert_eq!(hits(&routes, 2, Policy::Worth(Decay::LRU)), (5, 0));
        assert_eq!(hits(&routes, 3, Policy::Best), (5, 2));
    }
}
