//! How a device's memory is divided where slots of units and experts may be in the same: a prompt, which brings whole stacks, borrows
//! room from experts that are kept between tokens. Arithmetic only.

use crate::units::Bytes;

/// Pieces of a device's memory, and where in them each block's experts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Areas {
    /// The size of each.
    pub sizes: Vec<Bytes>,
    /// For each block's experts, which piece, and from which byte on.
    pub places: Vec<(usize, Bytes)>,
    /// So many of the pieces, the first, are slots of units as well.
    pub lent: usize,
}

impl Areas {
    /// Room for experts that take so much of each block; in `slots`, so many of this size, as far as these have room, and apart where
    /// there are none. A slot that is smaller than what a block takes becomes as large as that; none grows for a second block, because
    /// drivers give little more than a slot at once.
    pub(super) fn of(regions: &[Bytes], slots: Option<(usize, Bytes)>) -> Areas {
        let (lent, slot) = slots.unwrap_or_default();
        let mut sizes = vec![slot; lent];
        let mut places = Vec::with_capacity(regions.len());
        let (mut area, mut used) = (0, Bytes::ZERO);
        for &region in regions {
            if area < lent && used > Bytes::ZERO && used + region > sizes[area] {
                (area, used) = (area + 1, Bytes::ZERO);
            }
            if area < lent {
                places.push((area, used));
                used += region;
                sizes[area] = sizes[area].max(used);
            } else {
                places.push((sizes.len(), Bytes::ZERO));
                sizes.push(region);
            }
        }
        Areas { sizes, places, lent }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> Bytes {
        self.sizes.iter().copied().sum()
    }

    /// What of the experts, which take so much of each block, is lost when units come into the slots.
    pub(super) fn borrowed(&self, regions: &[Bytes]) -> Bytes {
        let places = self.places.iter().zip(regions);
        places.filter(|((area, _), _)| *area < self.lent).map(|(_, region)| *region).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No two overlap, each is inside its piece, slots have their size, and all of it is less than both apart, by half of the slots
        /// at least where there are experts enough.
        #[test]
        fn regions_are_in_their_areas(
            regions in prop::collection::vec(1_u64..1000, 1..60), n in 1_usize..9, slot in 1_u64..3000
        ) {
            let regions: Vec<Bytes> = regions.into_iter().map(Bytes).collect();
            let all: Bytes = regions.iter().copied().sum();
            let apart = Areas::of(&regions, None);
            prop_assert_eq!((apart.bytes(), apart.lent, apart.borrowed(&regions)), (all, 0, Bytes::ZERO));
            let slots = Bytes(slot);
            let areas = Areas::of(&regions, Some((n, slots)));
            prop_assert!(areas.lent == n && areas.sizes[..n].iter().all(|size| *size >= slots));
            let mut ends = vec![Bytes::ZERO; areas.sizes.len()];
            for (&(area, at), &region) in areas.places.iter().zip(&regions) {
                prop_assert!(at >= ends[area] && at + region <= areas.sizes[area]);
                ends[area] = at + region;
            }
            prop_assert!(areas.bytes() <= all + slots * n as u64);
            prop_assert_eq!(areas.bytes(), areas.sizes[..n].iter().copied().sum::<Bytes>() + all.saturating_sub(areas.borrowed(&regions)));
            // Where blocks take alike, at least half of each slot is somebody's.
            let alike = vec![regions[0]; 9 * 3000 / regions[0].0 as usize + 9];
            let areas = Areas::of(&alike, Some((n, slots)));
            prop_assert!(areas.borrowed(&alike) * 2 >= slots * n as u64);
            // More experts never take less.
            let more: Vec<Bytes> = alike.iter().map(|region| *region + Bytes(1)).collect();
            prop_assert!(Areas::of(&more, Some((n, slots))).bytes() >= areas.bytes());
        }
    }
}
