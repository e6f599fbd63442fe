//! What one token computes with: of a mixture, less than all.

use super::parts::is_ffn;
use crate::gguf::Index;
use crate::units::Bytes;

/// What one token computes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Touched {
    /// The share of a block's bytes: 1 for models without experts.
    pub of_block: f64,
    /// The share of its feed-forward network's bytes.
    pub of_ffn: f64,
    /// Bytes of the output matrix.
    pub output: Bytes,
    /// Queries that each key of the text so far is multiplied with: heads of attention for one of keys and values.
    pub queries: u32,
}

impl Touched {
    /// What a token of this model computes with.
    pub fn of(index: &Index) -> Touched {
        let used = index.arch_uint("expert_used_count").unwrap_or(0);
        // All bytes and those that a token touches, of feed-forward networks and of the rest.
        let mut sums = [(Bytes::ZERO, Bytes::ZERO); 2];
        for tensor in index.blocks.iter().flat_map(|b| &b.tensors).map(|&t| &index.tensors[t]) {
            let (all, touched) = &mut sums[usize::from(is_ffn(tensor.role()))];
            *all += tensor.len;
            *touched += match index.experts(tensor) {
                Some(experts) => experts.each * used.min(experts.count),
                None => tensor.len,
            };
        }
        let share = |all: Bytes, touched: Bytes| {
            if all > Bytes::ZERO { touched.f64() / all.f64() } else { 1.0 }
        };
        let [rest, ffn] = sums;
        let of_block = share(rest.0 + ffn.0, rest.1 + ffn.1);
        let of_ffn = share(ffn.0, ffn.1);
        let named = |name: &str| index.tensors.iter().find(|t| t.name == name).map(|t| t.len);
        let output = named("output.weight").or_else(|| named("token_embd.weight"));
        let (output, queries) = (output.unwrap_or_default(), queries(index));
        Touched { of_block, of_ffn, output, queries }
    }
}

/// Heads for one of keys and values, where both are the same in all blocks; otherwise one, or none is said.
fn queries(index: &Index) -> u32 {
    let heads = |key| index.arch_uint(key).filter(|&n| n > 0);
    let groups = heads("attention.head_count").zip(heads("attention.head_count_kv"));
    groups.and_then(|(n, kv)| u32::try_from(n / kv).ok()).map_or(1, |n| n.clamp(1, 128))
}

/// A share of `len`.
pub fn share(len: Bytes, share: f64) -> Bytes {
    // Every token of a batch chooses its own experts; computing goes by tokens, so the share stays.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of it")]
    Bytes((len.f64() * share) as u64)
}
