//! How a unit is read in pieces that pass through a staging buffer, and where each piece's bytes go. Pure.
//!
//! The file is read in stretches aligned for O_DIRECT; a tensor lies wherever it lies in them, and is copied from there to its place
//! in the slot, which has the device's alignment. So reads need not know the device, nor slots the file.

use std::ops::Range;

use crate::source::{DIRECT_ALIGN, Extent};

/// Gaps up to this many bytes are read along rather than split off: a new request costs more.
const MAX_GAP: u64 = 64 << 10;

/// One read, and what of it goes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// What to read, to the beginning of a buffer.
    pub(super) extent: Extent,
    /// What of it the slot needs.
    pub(super) copies: Vec<Copy>,
}

/// Bytes to be copied into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Where they are in what was read.
    pub(super) from: u64,
    /// Where they go in the slot.
    pub(super) to: u64,
    /// How many.
    pub(super) len: u64,
}

/// What of `extents` goes to `range`, and where in it. `None` if a byte of it comes from none of them.
pub(super) fn part(extents: &[Extent], range: Range<u64>) -> Option<Vec<Extent>> {
    let overlap = |e: &Extent| {
        let (begin, end) = (e.dst.max(range.start), (e.dst + e.need).min(range.end));
        let len = end.checked_sub(begin).filter(|&len| len > 0)?;
        let offset = e.offset + (begin - e.dst);
        Some(Extent { file: e.file, offset, len, dst: begin - range.start, need: len })
    };
    let parts: Vec<Extent> = extents.iter().filter_map(overlap).collect();
    let all: u64 = parts.iter().map(|e| e.len).sum();
    (all == range.end - range.start).then_some(parts)
}

/// Cuts what `extents` need into reads of at most `size` bytes, a multiple of the alignment for O_DIRECT, in the order of the file.
pub(super) fn chunks(extents: &[Extent], size: u64) -> Vec<Chunk> {
    let mut order: Vec<&Extent> = extents.iter().collect();
    order.sort_by_key(|e| (e.file, e.offset));
    let mut out: Vec<Chunk> = Vec::new();
    for e in order {
        let mut done = 0;
        while done < e.need {
            let at = e.offset + done;
            let fits = out.last().is_some_and(|last| takes(&last.extent, e.file, at, size));
            if !fits {
                let offset = at - at % DIRECT_ALIGN;
                let extent = Extent { file: e.file, offset, len: 0, dst: 0, need: 0 };
                out.push(Chunk { extent, copies: Vec::new() });
            }
            let chunk = out.last_mut().expect("there is one by now");
            let from = at - chunk.extent.offset;
            let len = (e.need - done).min(size - from);
            chunk.copies.push(Copy { from, to: e.dst + done, len });
            chunk.extent.need = chunk.extent.need.max(from + len);
            chunk.extent.len = chunk.extent.need.next_multiple_of(DIRECT_ALIGN);
            done += len;
        }
    }
    out
}

/// Whether a chunk can go on with the byte at `at`.
fn takes(chunk: &Extent, file: usize, at: u64, size: u64) -> bool {
    chunk.file == file
        && at >= chunk.offset
        && at < chunk.offset + size
        && at <= chunk.offset + chunk.need + MAX_GAP
}

/// The copies of all chunks when these lie one after the other, as few as possible.
pub(super) fn joined(chunks: &[Chunk]) -> Vec<Copy> {
    let mut out: Vec<Copy> = Vec::new();
    let mut begin = 0;
    for chunk in chunks {
        for copy in &chunk.copies {
            let copy = Copy { from: begin + copy.from, ..*copy };
            match out.last_mut() {
                Some(last)
                    if last.from + last.len == copy.from && last.to + last.len == copy.to =>
                {
                    last.len += copy.len;
                }
                _ => out.push(copy),
            }
        }
        begin += chunk.extent.len;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        let one = (0_usize..2, 0_u64..200_000, 1_u64..100_000);
        prop::collection::vec(one, 1..12).prop_map(|list| {
            let (mut at, mut dst) = ([0_u64; 2], 0_u64);
            list.into_iter()
                .map(|(file, gap, len)| {
                    let offset = at[file] + gap;
                    at[file] = offset + len;
                    let extent = Extent { file, offset, len, dst, need: len };
                    dst = (dst + len).next_multiple_of(128);
                    extent
                })
                .collect()
        })
    }

    fn byte(file: usize, offset: u64) -> u8 {
        (offset.wrapping_mul(2_654_435_761).wrapping_add(file as u64 * 77) >> 7) as u8
    }

    proptest! {
        /// Every byte arrives, by chunks that are aligned and not too long, piece by piece and joined alike.
        #[test]
        fn every_byte_arrives(extents in extents(), pages in 1_u64..20) {
            let size = pages * DIRECT_ALIGN;
            let chunks = chunks(&extents, size);
            let room = extents.iter().map(|e| e.dst + e.len).max().unwrap() as usize;
            let (mut slot, mut again) = (vec![0_u8; room], vec![0_u8; room]);
            let mut all = Vec::new();
            for Chunk { extent: e, copies } in &chunks {
                prop_assert!(e.is_aligned() && e.len <= size && e.need <= e.len);
                let read: Vec<u8> = (0..e.len).map(|i| byte(e.file, e.offset + i)).collect();
                for c in copies {
                    prop_assert!(c.from + c.len <= e.need);
                    slot[c.to as usize..][..c.len as usize]
                        .copy_from_slice(&read[c.from as usize..][..c.len as usize]);
                }
                all.extend(read);
            }
            let joined = joined(&chunks);
            for c in &joined {
                again[c.to as usize..][..c.len as usize]
                    .copy_from_slice(&all[c.from as usize..][..c.len as usize]);
            }
            prop_assert_eq!(&slot, &again);
            prop_assert!(joined.len() <= chunks.iter().map(|c| c.copies.len()).sum());
            for e in &extents {
                for i in (0..e.need).step_by(97).chain([e.need - 1]) {
                    prop_assert_eq!(slot[(e.dst + i) as usize], byte(e.file, e.offset + i));
                }
            }
        }
    }

    #[test]
    fn what_is_in_one_piece_is_copied_in_one_piece() {
        let extent = |offset, len, dst| Extent { file: 0, offset, len, dst, need: len };
        let chunks = chunks(&[extent(100, 20_000, 0), extent(20_100, 50, 20_096)], 8192);
        assert_eq!(chunks.len(), 3);
        assert_eq!(joined(&chunks).len(), 2);
    }

    proptest! {
        /// Any part of any tensor is what a slot would hold there.
        #[test]
        fn a_part_is_what_a_slot_holds(extents in extents(), pick in 0_usize..12, a in 0_u64..100_000, b in 0_u64..100_000) {
            let e = extents[pick % extents.len()];
            let (a, b) = (a.min(b) % e.len, a.max(b) % e.len);
            let range = e.dst + a.min(b)..e.dst + a.max(b) + 1;
            let parts = part(&extents, range.clone()).unwrap();
            let mut out = vec![0; (range.end - range.start) as usize];
            for chunk in chunks(&parts, 64 << 10) {
                for c in chunk.copies {
                    for i in 0..c.len {
                        out[(c.to + i) as usize] = byte(chunk.extent.file, chunk.extent.offset + c.from + i);
                    }
                }
            }
            let want: Vec<u8> = range.map(|at| byte(e.file, e.offset + (at - e.dst))).collect();
            prop_assert_eq!(out, want);
            prop_assert!(part(&extents, e.dst..e.dst + e.len.next_multiple_of(128) + 1).is_none() || extents.len() > 1);
        }
    }
}
