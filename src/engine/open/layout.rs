//! How the tensors of a unit lie in a slot: on the host, so that the disk can write them there; on a device, packed, with what its
//! kernels read beyond the end of a tensor. Pure but for what ggml says a tensor takes.

use std::ops::Range;

use crate::ggml::Device;
use crate::gguf::{Index, TensorInfo};
use crate::plan::ExpertRoom;
use crate::source::layout::layout;
use crate::source::{Extent, Piece, Slice};
use crate::stream::experts::{area_size, region_size};
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

/// How the experts of a stack lie in their slots of host memory. What a device copies from there may lie anywhere.
pub(super) fn slice(index: &Index, stack: usize, each: u64, device: Device) -> Slice {
    let kind = device.buffer_type();
    let align = if kind.is_host() { kind.alignment() } else { 1 };
    Slice::of(index.tensors[stack].offset, each, align)
}

/// How far beyond the last of a stack's slices the kernels of a device with memory of its own read. (bytes)
pub(super) fn beyond(tensor: &TensorInfo, each: u64, device: Device) -> u64 {
    let kind = device.buffer_type();
    let [rows, columns] = [0, 1].map(|d| tensor.shape.get(d).copied().unwrap_or(1));
    let room = kind.room_for(tensor.ty.0, &[rows, columns, 1]);
    if kind.is_host() { 0 } else { room.map_or(0, |room| room.0.saturating_sub(each)) }
}

/// Memory for `n` experts with these stacks, of the host and of the device.
pub(super) fn lay_out_experts(
    index: &Index,
    stacks: &[usize],
    n: u64,
    device: Device,
) -> Option<ExpertRoom> {
    let kind = device.buffer_type();
    let tensors = || stacks.iter().map(|&t| (t, &index.tensors[t]));
    let each = |tensor| index.experts(tensor).map_or(tensor.len.0, |e| e.each.0);
    let n = Bytes(n).usize();
    let rooms = tensors().map(|(t, tensor)| slice(index, t, each(tensor), device).room);
    let ram = Bytes(region_size(rooms, n));
    if kind.is_host() {
        return Some(ExpertRoom { ram, device: Bytes::ZERO });
    }
    let slices = tensors().map(|(_, t)| (each(t), beyond(t, each(t), device)));
    Some(ExpertRoom { ram, device: Bytes(area_size(slices, n, kind.alignment())) })
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
