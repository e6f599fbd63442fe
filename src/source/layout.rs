//! How the tensors of one unit lie in a slot so that the disk can write them there without a copy. Pure.
//!
//! Tensors that are neighbours in the file become one *extent*: a file range and its place in the slot, both aligned for
//! O_DIRECT. A tensor keeps its file offset's remainder modulo the alignment, so it lands where it belongs as part of the range.

use crate::source::DIRECT_ALIGN;
use crate::units::Bytes;

/// Where one tensor's bytes are in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which file.
    pub file: usize,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// A file range to be read to one place of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which file.
    pub file: usize,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes to read. The last ones may lie beyond the end of the file when the range was rounded up.
    pub len: u64,
    /// Where in the buffer the first byte goes.
    pub dst: u64,
    /// Bytes from `offset` on that must arrive; the rest of `len` is rounding.
    pub need: u64,
}

impl Extent {
    /// Whether offset, length and place are all aligned for O_DIRECT.
    pub fn is_aligned(&self) -> bool {
        (self.offset | self.len | self.dst).is_multiple_of(DIRECT_ALIGN)
    }
}

/// The layout of one unit in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What to read, in file order.
    pub extents: Vec<Extent>,
    /// For each piece, in the order given: its offset in the slot.
    pub offsets: Vec<u64>,
    /// Bytes of slot that the unit takes.
    pub size: Bytes,
    /// Bytes that are read from the files for one fill, rounding included.
    pub read: Bytes,
}

/// Gaps between tensors up to this many bytes are read along rather than split off: a new request costs more.
const MAX_GAP: u64 = 64 << 10;

/// Lays `pieces` out. `tensor_align` is what the device asks of a tensor's address, a power of two of at most 4096.
pub fn layout(pieces: &[Piece], tensor_align: u64) -> Layout {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|&i| (pieces[i].file, pieces[i].offset));
    let mut out = Layout {
        extents: Vec::new(),
        offsets: vec![0; pieces.len()],
        size: Bytes::ZERO,
        read: Bytes::ZERO,
    };
    let mut end = 0_u64; // of the slot as laid out so far
    for i in order {
        let p = pieces[i];
        if !p.offset.is_multiple_of(tensor_align) {
            // The file aligns less than the device wants: this tensor is read on its own, to an aligned place.
            end = end.next_multiple_of(tensor_align.max(DIRECT_ALIGN));
            out.extents.push(Extent {
                file: p.file,
                offset: p.offset,
                len: p.len,
                dst: end,
                need: p.len,
            });
            out.offsets[i] = end;
            end += p.len;
            continue;
        }
        match out.extents.last_mut() {
            Some(last) if joins(last, &p) => {
                let skip = p.offset - last.offset;
                last.need = last.need.max(skip + p.len);
                last.len = last.need.next_multiple_of(DIRECT_ALIGN);
                out.offsets[i] = last.dst + skip;
                end = last.dst + last.len;
            }
            _ => {
                let offset = p.offset - p.offset % DIRECT_ALIGN;
                let need = p.offset - offset + p.len;
                let dst = end.next_multiple_of(DIRECT_ALIGN);
                let len = need.next_multiple_of(DIRECT_ALIGN);
                out.extents.push(Extent { file: p.file, offset, len, dst, need });
                out.offsets[i] = dst + (p.offset - offset);
                end = dst + len;
            }
        }
    }
    out.size = Bytes(end.next_multiple_of(DIRECT_ALIGN));
    out.read = Bytes(out.extents.iter().map(|e| e.len).sum());
    out
}

/// Whether `piece` continues `last` closely enough to be read with it.
fn joins(last: &Extent, piece: &Piece) -> bool {
    last.is_aligned()
        && last.file == piece.file
        && piece.offset >= last.offset
        && piece.offset <= last.offset + last.need + MAX_GAP
}

/// One of the equal slices of a tensor, as it is read to memory of its own: an expert's part of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where its bytes are to be, from the beginning of that memory.
    pub at: u64,
    /// Bytes of memory that reading it takes.
    pub room: u64,
    /// Whether it is read past the page cache, with what is around it.
    direct: bool,
}

/// Slices below this many bytes are read by themselves: what is around them would be as much again.
const MIN_DIRECT: u64 = 64 << 10;

impl Slice {
    /// How slices of `each` bytes are read, the first of which is at `offset` in its file.
    pub fn of(offset: u64, each: u64, tensor_align: u64) -> Slice {
        if each < MIN_DIRECT {
            let room = each.next_multiple_of(tensor_align.max(64));
            return Slice { at: 0, room, direct: false };
        }
        if each.is_multiple_of(DIRECT_ALIGN) && offset.is_multiple_of(tensor_align) {
            // All of them lie alike, and can be where they land.
            let at = offset % DIRECT_ALIGN;
            return Slice { at, room: (at + each).next_multiple_of(DIRECT_ALIGN), direct: true };
        }
        // Wherever it begins in a page.
        let room = (each + DIRECT_ALIGN - 1).next_multiple_of(DIRECT_ALIGN);
        Slice { at: 0, room, direct: true }
    }

    /// What to read for the slice of `each` bytes at `offset`, and where in its memory it lands: at [`Slice::at`], or it is to be moved
    /// there.
    pub fn extent(&self, file: usize, offset: u64, each: u64) -> (Extent, u64) {
        let before = if self.direct { offset % DIRECT_ALIGN } else { 0 };
        let need = before + each;
        let len = if self.direct { need.next_multiple_of(DIRECT_ALIGN) } else { need };
        (Extent { file, offset: offset - before, len, dst: 0, need }, before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let one = (
            0_usize..3,
            0_u64..200,
            1_u64..300_000,
            prop_oneof![Just(32_u64), Just(8), Just(4096)],
        );
        prop::collection::vec(one, 1..20).prop_map(|list| {
            let mut at = [0_u64; 3];
            list.into_iter()
                .map(|(file, gap, len, align)| {
                    let offset = (at[file] + gap * 1000).next_multiple_of(align);
                    at[file] = offset + len;
                    Piece { file, offset, len }
                })
                .collect()
        })
    }

    proptest! {
        /// Every tensor lies aligned, inside one extent that reads exactly its bytes to its place; no two extents overlap.
        #[test]
        fn every_piece_lands_where_it_belongs(pieces in pieces()) {
            let l = layout(&pieces, 32);
            for (p, &at) in pieces.iter().zip(&l.offsets) {
                prop_assert_eq!(at % 32, 0);
                let hit = l.extents.iter().find(|e| e.file == p.file
                    && e.dst <= at && at + p.len <= e.dst + e.need
                    && at - e.dst == p.offset.wrapping_sub(e.offset));
                prop_assert!(hit.is_some(), "{:?} at {}", p, at);
            }
            let mut spans: Vec<_> = l.extents.iter().map(|e| (e.dst, e.dst + e.len)).collect();
            spans.sort_unstable();
            prop_assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0));
            prop_assert!(spans.last().unwrap().1 <= l.size.0);
            prop_assert!(l.extents.iter().all(|e| e.need <= e.len));
        }
    }

    #[test]
    fn neighbours_are_read_as_one() {
        let pieces = [
            Piece { file: 0, offset: 5_000, len: 10_000 },
            Piece { file: 0, offset: 15_008, len: 4_000 },
            Piece { file: 0, offset: 1 << 20, len: 64 },
        ];
        let l = layout(&pieces, 8);
        assert_eq!(l.extents.len(), 2);
        assert_eq!(
            l.extents[0],
            Extent { file: 0, offset: 4096, len: 16384, dst: 0, need: 14_912 }
        );
        assert_eq!(l.offsets, [904, 10_912, 16384]);
    }

    proptest! {
        /// A slice fits its room wherever it lies, lands inside of it, and is where it should be if all of them are.
        #[test]
        fn slices_fit_their_room(first in 0_u64..100_000, each in 1_u64..300_000, i in 0_u64..100, align in 0_u32..7) {
            let align = 1_u64 << align;
            let slice = Slice::of(first, each, align);
            let (extent, lands) = slice.extent(0, first + i * each, each);
            prop_assert_eq!(extent.offset + lands, first + i * each);
            prop_assert!(extent.len <= slice.room && extent.need <= extent.len);
            prop_assert_eq!(extent.need, lands + each);
            prop_assert!(slice.at + each <= slice.room);
            prop_assert!(slice.room.is_multiple_of(align.min(64)));
            if each.is_multiple_of(DIRECT_ALIGN) && first.is_multiple_of(align) && each >= MIN_DIRECT {
                prop_assert_eq!(lands, slice.at);
            }
            prop_assert!(slice.at.is_multiple_of(align) || !each.is_multiple_of(DIRECT_ALIGN));
        }
    }
}
