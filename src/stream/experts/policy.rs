//! Which experts stay: the slots of one block's pool, and who is taken out of them. Pure: it holds no memory and starts no reads;
//! `pool` does what it says.
//!
//! An expert's worth is how often it was used, each use counting half after so many passes ([`Decay`]). Kept as a logarithm, it needs
//! no update while time passes: of two experts, the one of less worth stays so until it is used.

/// Passes after which a use counts half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decay(pub f64);

impl Decay {
    /// Nothing but the last use counts.
    pub const LRU: Decay = Decay(1.0 / 64.0);
}

impl Default for Decay {
    fn default() -> Decay {
        Decay(48.0)
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing of use.
    Empty,
    /// An expert that is being read.
    Filling(u32),
    /// All bytes of an expert.
    Ready(u32),
}

/// The slots of one pool, for experts of one block.
#[derive(Clone, Debug)]
pub struct Shelf {
    slots: Vec<Held>,
    /// For each expert, the slot that holds it or is being filled with it.
    places: Vec<Option<u32>>,
    /// For each expert, the logarithm of its worth, as if it were worth that at the beginning of time.
    worth: Vec<f64>,
    /// For each expert, the last pass that wanted it.
    wanted: Vec<u64>,
    pass: u64,
    decay: Decay,
}

impl Shelf {
    /// `n_slots` empty slots for `count` experts.
    pub fn new(n_slots: usize, count: usize, decay: Decay) -> Shelf {
        Shelf {
            slots: vec![Held::Empty; n_slots],
            places: vec![None; count],
            worth: vec![f64::NEG_INFINITY; count],
            wanted: vec![0; count],
            pass: 0,
            decay,
        }
    }

    /// Begins as if each expert had always been used in this share of the passes. Those that are never used are as before.
    pub fn expect(&mut self, shares: &[f64]) {
        // A share of 1 sums up to this: a half-life of passes, over the logarithm of 2.
        let most = (self.decay.0 / std::f64::consts::LN_2).max(1.0).log2();
        for (worth, &share) in self.worth.iter_mut().zip(shares) {
            if share > 0.0 && *worth == f64::NEG_INFINITY {
                *worth = share.min(1.0).log2() + most;
            }
        }
    }

    /// Number of slots.
    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// What a slot holds.
    pub fn slot(&self, slot: usize) -> Held {
        self.slots[slot]
    }

    /// The slot that holds an expert or is being filled with it.
    pub fn place(&self, expert: u32) -> Option<usize> {
        self.places[expert as usize].map(|slot| slot as usize)
    }

    /// A pass begins that uses `experts`: none of them is taken out before the next one begins.
    pub fn begin(&mut self, experts: &[u32]) {
        self.pass += 1;
        #[expect(clippy::cast_precision_loss, reason = "passes are few")]
        let now = self.pass as f64 / self.decay.0.max(1e-6);
        for &e in experts {
            let e = e as usize;
            if self.wanted[e] != self.pass {
                self.wanted[e] = self.pass;
                self.worth[e] = now + (1.0 + (self.worth[e] - now).exp2()).log2();
            }
        }
    }

    /// Gives a slot to an expert that has none: an empty one, or that of the least worth among those that neither this pass uses nor
    /// anybody fills. `None` if there is no such slot.
    pub fn admit(&mut self, expert: u32) -> Option<usize> {
        assert!(self.place(expert).is_none(), "expert {expert} has a slot");
        let least = |(slot, held): (usize, &Held)| match *held {
            Held::Empty => Some((f64::NEG_INFINITY, slot)),
            Held::Ready(e) if self.wanted[e as usize] != self.pass => {
                Some((self.worth[e as usize], slot))
            }
            Held::Ready(_) | Held::Filling(_) => None,
        };
        let candidates = self.slots.iter().enumerate().filter_map(least);
        let (_, slot) = candidates.min_by(|a, b| a.0.total_cmp(&b.0))?;
        if let Held::Ready(out) = self.slots[slot] {
            self.places[out as usize] = None;
        }
        self.slots[slot] = Held::Filling(expert);
        self.places[expert as usize] = u32::try_from(slot).ok();
        Some(slot)
    }

    /// A fill has ended; `complete` if all bytes are there.
    pub fn end_fill(&mut self, slot: usize, complete: bool) {
        let Held::Filling(expert) = self.slots[slot] else {
            panic!("slot {slot} ends a fill while it holds {:?}", self.slots[slot])
        };
        if complete {
            self.slots[slot] = Held::Ready(expert);
        } else {
            self.slots[slot] = Held::Empty;
            self.places[expert as usize] = None;
        }
    }

    /// What the slots hold is gone: their memory was needed for something else. What is known of the experts stays.
    pub fn clear(&mut self) {
        let filling = |held: &Held| matches!(held, Held::Filling(_));
        assert!(!self.slots.iter().any(filling), "a pool is cleared while it is being filled");
        self.slots.fill(Held::Empty);
        self.places.fill(None);
    }

    /// The experts that were used or are expected to be, those of most worth first; for filling a pool before anybody asks.
    pub fn hottest(&self) -> Vec<u32> {
        let mut all: Vec<u32> = (0..).take(self.worth.len()).collect();
        all.retain(|&e| self.worth[e as usize] > f64::NEG_INFINITY);
        all.sort_by(|&a, &b| self.worth[b as usize].total_cmp(&self.worth[a as usize]));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays passes the way the device does: all misses asked for, then all filled. Returns hits.
    fn play(shelf: &mut Shelf, passes: &[Vec<u32>]) -> usize {
        let mut hits = 0;
        for experts in passes {
            let mut experts = experts.clone();
            experts.sort_unstable();
            experts.dedup();
            shelf.begin(&experts);
            let mut filling = Vec::new();
            for &e in &experts {
                match shelf.place(e) {
                    Some(_) => hits += 1,
                    None => filling.push(shelf.admit(e).expect("a slot for all of a pass")),
                }
            }
            for slot in filling {
                shelf.end_fill(slot, true);
            }
            for &e in &experts {
                let slot = shelf.place(e).expect("what a pass uses stays during the pass");
                assert_eq!(shelf.slot(slot), Held::Ready(e));
            }
        }
        hits
    }

    fn routes() -> impl Strategy<Value = Vec<Vec<u32>>> {
        // Some experts are likelier than others.
        let expert = prop_oneof![3 => 0_u32..6, 1 => 0_u32..24];
        prop::collection::vec(prop::collection::vec(expert, 1..5), 1..120)
    }

    proptest! {
        /// What a pass uses is there until it ends, no expert has two slots, no slot two experts.
        #[test]
        fn what_is_used_stays(n in 4_usize..24, passes in routes(), half in 0.1_f64..100.0) {
            let mut shelf = Shelf::new(n, 24, Decay(half));
            play(&mut shelf, &passes);
            for e in 0..24 {
                let slots = (0..n).filter(|&s| shelf.slot(s) == Held::Ready(e)).count();
                prop_assert_eq!(slots, usize::from(shelf.place(e).is_some()));
            }
        }

        /// More memory never hits less by more than noise; with room for all, nothing is read twice.
        #[test]
        fn more_room_never_hits_less(n in 4_usize..20, passes in routes()) {
            let decay = Decay::default();
            let small = play(&mut Shelf::new(n, 24, decay), &passes);
            let large = play(&mut Shelf::new(n + 4, 24, decay), &passes);
            prop_assert!(large + 2 >= small, "{large} with more, {small} with less");
            let all = play(&mut Shelf::new(24, 24, decay), &passes);
            let mut distinct: Vec<u32> = passes.concat();
            distinct.sort_unstable();
            distinct.dedup();
            let used: usize = passes.iter().map(|p| {
                let mut p = p.clone();
                p.sort_unstable();
                p.dedup();
                p.len()
            }).sum();
            prop_assert_eq!(all, used - distinct.len());
        }

        /// A driver that fails, delays and forgets: what is being filled is never taken out, and states never contradict.
        #[test]
        fn what_is_filled_is_never_taken(n in 1_usize..8, steps in prop::collection::vec((0_u8..4, 0_u32..16), 0..300)) {
            let mut shelf = Shelf::new(n, 16, Decay::default());
            for (what, e) in steps {
                let filling: Vec<(usize, Held)> = (0..n).map(|s| (s, shelf.slot(s)))
                    .filter(|(_, h)| matches!(h, Held::Filling(_))).collect();
                match what {
                    0 => shelf.begin(&[e, (e + 1) % 16]),
                    1 if shelf.place(e).is_none() => {
                        let got = shelf.admit(e);
                        prop_assert!(filling.iter().all(|f| Some(f.0) != got));
                    }
                    2 | 3 => if let Some(&(slot, _)) = filling.first() {
                        shelf.end_fill(slot, what == 2);
                    },
                    _ => {}
                }
                for s in 0..n {
                    if let Held::Filling(e) | Held::Ready(e) = shelf.slot(s) {
                        prop_assert_eq!(shelf.place(e), Some(s));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_expected_stays_until_others_are_used_more() {
        let mut shelf = Shelf::new(2, 4, Decay(8.0));
        shelf.expect(&[0.9, 0.0, 0.5, 1e-6]);
        assert_eq!(shelf.hottest(), [0, 2, 3]);
        play(&mut shelf, &[vec![0], vec![2], vec![1]]);
        let left = |shelf: &Shelf| (0..4).filter(|&e| shelf.place(e).is_none()).collect::<Vec<_>>();
        assert_eq!(left(&shelf), [2, 3], "once used is worth less than used in nearly every pass");
        let others: Vec<Vec<u32>> = (0..40).map(|i| vec![1 + 2 * (i % 2)]).collect();
        play(&mut shelf, &others);
        assert_eq!(left(&shelf), [0, 2]);
    }

    #[test]
    fn often_used_outlives_lately_used() {
        let mut often = vec![vec![0]; 8];
        often.extend([vec![1], vec![2], vec![3], vec![0]]);
        let hits = |decay| play(&mut Shelf::new(2, 4, decay), &often);
        assert_eq!((hits(Decay(48.0)), hits(Decay::LRU)), (8, 7));
    }
}
