//! ggml's tensor types: names and block layout by number, as GGUF files store them. No arithmetic
//! on weights.
//!
//! The table repeats `ggml.h` and `ggml-common.h` of the pinned version so that this room needs no
//! ggml; a test in `tests/it` compares it with ggml's own answers, number by number.

use std::fmt;

use crate::units::Bytes;

/// A ggml tensor type: its number, and its name and block layout if this build knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GgmlType(pub u32);

/// Name, elements per block and bytes per block.
type Layout = (&'static str, u64, u64);

/// By type number. `None`: numbers that ggml has withdrawn (4, 5, 31 to 33, 36 to 38).
const TYPES: [Option<Layout>; 43] = [
    Some(("F32", 1, 4)),
    Some(("F16", 1, 2)),
    Some(("Q4_0", 32, 18)),
    Some(("Q4_1", 32, 20)),
    None,
    None,
    Some(("Q5_0", 32, 22)),
    Some(("Q5_1", 32, 24)),
    Some(("Q8_0", 32, 34)),
    Some(("Q8_1", 32, 36)),
    Some(("Q2_K", 256, 84)),
    Some(("Q3_K", 256, 110)),
    Some(("Q4_K", 256, 144)),
    Some(("Q5_K", 256, 176)),
    Some(("Q6_K", 256, 210)),
    Some(("Q8_K", 256, 292)),
    Some(("IQ2_XXS", 256, 66)),
    Some(("IQ2_XS", 256, 74)),
    Some(("IQ3_XXS", 256, 98)),
    Some(("IQ1_S", 256, 50)),
    Some(("IQ4_NL", 32, 18)),
    Some(("IQ3_S", 256, 110)),
    Some(("IQ2_S", 256, 82)),
    Some(("IQ4_XS", 256, 136)),
    Some(("I8", 1, 1)),
    Some(("I16", 1, 2)),
    Some(("I32", 1, 4)),
    Some(("I64", 1, 8)),
    Some(("F64", 1, 8)),
    Some(("IQ1_M", 256, 56)),
    Some(("BF16", 1, 2)),
    None,
    None,
    None,
    Some(("TQ1_0", 256, 54)),
    Some(("TQ2_0", 256, 66)),
    None,
    None,
    None,
    Some(("MXFP4", 32, 17)),
    Some(("NVFP4", 64, 36)),
    Some(("Q1_0", 128, 18)),
    Some(("Q2_0", 64, 18)),
];

impl GgmlType {
    /// How many type numbers this build knows of, the withdrawn ones included.
    #[expect(clippy::cast_possible_truncation, reason = "the table has 43 entries")]
    pub const COUNT: u32 = TYPES.len() as u32;

    fn layout(self) -> Option<Layout> {
        usize::try_from(self.0).ok().and_then(|i| TYPES.get(i).copied().flatten())
    }

    /// Whether tensors of this type can be read.
    pub fn is_known(self) -> bool {
        self.layout().is_some()
    }

    /// Its name, such as `Q4_K`; `None` for an unknown or withdrawn number.
    pub fn name(self) -> Option<&'static str> {
        self.layout().map(|(name, _, _)| name)
    }

    /// Elements per block: a row's length is a multiple of it. 0 for an unknown type.
    pub fn block_elements(self) -> u64 {
        self.layout().map_or(0, |(_, elements, _)| elements)
    }

    /// Whether elements are stored in blocks.
    pub fn is_quantised(self) -> bool {
        self.block_elements() > 1
    }

    /// Bytes per block. 0 for an unknown type.
    pub fn block_bytes(self) -> Bytes {
        Bytes(self.layout().map_or(0, |(_, _, bytes)| bytes))
    }

    /// Bytes that `elements` elements take, whole blocks assumed; `None` if the type is unknown or
    /// the number overflows.
    pub fn bytes(self, elements: u64) -> Option<Bytes> {
        let (_, per_block, bytes) = self.layout()?;
        (elements / per_block).checked_mul(bytes).map(Bytes)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&format!("type {}", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_blocks() {
        assert_eq!(GgmlType(12).bytes(512), Some(Bytes(288)));
        assert_eq!(GgmlType(30).bytes(256), Some(Bytes(512)));
        assert_eq!(GgmlType(0).bytes(u64::MAX), None);
        assert_eq!(GgmlType(4).bytes(32), None);
        assert!(!GgmlType(43).is_known() && !GgmlType(u32::MAX).is_known());
        assert_eq!(GgmlType(99).to_string(), "type 99");
    }
}
