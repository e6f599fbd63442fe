//! How the tokens of a batch are shared among texts: pure arithmetic.

/// Shares `room` tokens among slots that want some: first one for each, in the order given; then prompts share what is left, none
/// more than the others need less.
pub(super) fn shares(wants: &[(usize, usize)], room: usize) -> Vec<(usize, usize)> {
    let mut shares: Vec<(usize, usize)> = wants.iter().map(|&(slot, _)| (slot, 0)).collect();
    let mut left = room;
    loop {
        let hungry = shares.iter().zip(wants).filter(|(share, want)| share.1 < want.1).count();
        if hungry == 0 || left == 0 {
            shares.retain(|share| share.1 > 0);
            return shares;
        }
        // In the first round, everyone gets one: a text that is being written needs no more.
        let first = left == room;
        let each = if first { 1 } else { (left / hungry).max(1) };
        for (share, want) in shares.iter_mut().zip(wants) {
            let n = each.min(want.1 - share.1).min(left);
            share.1 += n;
            left -= n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_come_before_prompts_and_prompts_share() {
        assert_eq!(
            shares(&[(0, 1), (1, 100), (2, 1), (3, 4)], 16),
            [(0, 1), (1, 10), (2, 1), (3, 4)]
        );
        assert_eq!(shares(&[(0, 50), (1, 50)], 16), [(0, 8), (1, 8)]);
        assert_eq!(shares(&[(3, 1), (0, 1), (1, 9)], 2), [(3, 1), (0, 1)]);
        assert_eq!(shares(&[], 16), []);
    }

    proptest! {
        #[test]
        fn shares_are_fair_and_fit(
            wants in prop::collection::vec(1..200_usize, 0..20), room in 1..100_usize,
        ) {
            let wants: Vec<_> = wants.into_iter().enumerate().collect();
            let shares = shares(&wants, room);
            let total: usize = shares.iter().map(|s| s.1).sum();
            let wanted: usize = wants.iter().map(|w| w.1).sum();
            prop_assert_eq!(total, wanted.min(room));
            prop_assert!(shares.iter().all(|s| s.1 > 0 && s.1 <= wants[s.0].1));
            // Nobody gets two more than somebody who wants more.
            for a in &shares {
                for b in &shares {
                    let hungry = b.1 < wants[b.0].1;
                    prop_assert!(!hungry || a.1 <= b.1 + 1);
                }
            }
        }
    }
}
