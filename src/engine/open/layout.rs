//! How the tensors of a unit lie in a slot: on the host, so that the disk can write them there; on a device, packed, with what its
//! kernels read beyond the end of a tensor. Pure but for what ggml says a tensor takes.

use std::ops::Range;

use crate::ggml::Device;
use crate::gguf::{Index, TensorInfo};
use crate::source::layout::layout;
use crate::source::{Extent, Piece, Slice};
use crate::stream::experts::region_size;
use crate::units::Bytes;

/// The layout of a unit in a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotLayout {
    /// What to read, and where it goes.
    pub(super) extents: Vec<Extent>,
    /// For each tensor, in the order given: its offset in the slot.
    pub(super) offsets: Vec<u64>,
    /// Stretches of the slot that must be zero.
    pub(super) zeros: Vec<Range<u64>>,
    /// Bytes of slot that the unit takes.
    pub(super) size: Bytes,
}

/// Lays `tensors` out in a slot of `device`.
pub(super) fn lay_out(index: &Index, tensors: &[usize], device: Device) -> SlotLayout {
    let kind = device.buffer_type();
    if kind.is_host() {
        let piece = |&t: &usize| {
            let TensorInfo { file, offset, len, .. } = index.tensors[t];
            Piece { file, offset, len: len.0 }
        };
        let pieces: Vec<Piece> = tensors.iter().map(piece).collect();
        let laid = layout(&pieces, kind.alignment());
        let (extents, offsets, size) = (laid.extents, laid.offsets, laid.size);
        return SlotLayout { extents, offsets, zeros: Vec::new(), size };
    }
    let room =
        |t: &TensorInfo| kind.room_for(t.ty.0, &t.shape).map_or(t.len, |room| room.max(t.len));
    let tensors: Vec<_> = tensors.iter().map(|&t| &index.tensors[t]).collect();
    pack(&tensors, kind.alignment(), room)
}

/// How the experts of a stack lie in their slots of host memory.
pub(super) fn slice(index: &Index, stack: usize, each: u64, device: Device) -> Slice {
    Slice::of(index.tensors[stack].offset, each, device.buffer_type().alignment())
}

/// Memory for `n` experts with these stacks, where the device computes in the host's; elsewhere they do not stream one by one.
pub(super) fn lay_out_experts(
    index: &Index,
    stacks: &[usize],
    n: u64,
    device: Device,
) -> Option<Bytes> {
    if !device.buffer_type().is_host() {
        return None;
    }
    let room = |&t: &usize| {
        let each = index.experts(&index.tensors[t]).map_or(index.tensors[t].len, |e| e.each);
        slice(index, t, each.0, device).room
    };
    Some(Bytes(region_size(stacks.iter().map(room), Bytes(n).usize())))
}

/// One tensor behind the other, each at a multiple of `align` and with as much room as `room` says.
fn pack(tensors: &[&TensorInfo], align: u64, room: impl Fn(&TensorInfo) -> Bytes) -> SlotLayout {
    let mut laid = SlotLayout::default();
    let mut end = 0_u64;
    for tensor in tensors {
        let TensorInfo { file, offset, len: Bytes(len), .. } = **tensor;
        let dst = end.next_multiple_of(align.max(1));
        laid.extents.push(Extent { file, offset, len, dst, need: len });
        laid.offsets.push(dst);
        end = dst + room(tensor).0;
        if end > dst + len {
            laid.zeros.push(dst + len..end);
        }
    }
    laid.size = Bytes(end.next_multiple_of(align.max(1)));
    laid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgmlType, Place};

    #[test]
    fn packed_tensors_are_aligned_and_padded() {
        let tensor = |offset, len| TensorInfo {
            name: "blk.0.x".to_owned(),
            ty: GgmlType(0),
            shape: vec![len],
            file: 0,
            offset,
            len: Bytes(len),
            place: Place::Output,
        };
        let (a, b) = (tensor(32, 100), tensor(160, 256));
        let laid = pack(&[&a, &b], 128, |t| t.len + Bytes(if t.len.0 == 100 { 60 } else { 0 }));
        assert_eq!(laid.offsets, [0, 256]);
        assert!(laid.zeros.len() == 1 && laid.zeros[0] == (100..160), "{:?}", laid.zeros);
        assert_eq!(laid.size, Bytes(512));
        let e = &laid.extents[1];
        assert_eq!((e.offset, e.len, e.dst, e.need), (160, 256, 256, 256));
    }
}
