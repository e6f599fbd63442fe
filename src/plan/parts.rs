//! Cuts blocks into units of streaming. Only tensors' roles and sizes are looked at; a wrong guess of the order of computation
//! costs time, never a wrong result, because the stream device brings whatever a step needs.

use std::collections::{BTreeMap, HashSet};

use super::Unit;
use crate::gguf::{Index, TensorInfo};
use crate::units::{Bytes, KIB};

/// How finely blocks are cut; each level needs smaller slots than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Not at all.
    Blocks,
    /// What mixes tokens, and the feed-forward network.
    Halves,
    /// The feed-forward network in two: up and gate, down.
    Thirds,
    /// Every large tensor by itself.
    Tensors,
    /// Nothing but stacks of experts: those of a block together.
    Experts,
    /// Nothing but stacks of experts, each by itself.
    Stacks,
}

/// For mixtures of experts, what is first to stream: it is most of the model, and least of it is used.
pub(super) const OF_MIXTURES: [Level; 2] = [Level::Experts, Level::Stacks];

/// From coarse to fine.
pub(super) const LEVELS: [Level; 4] = [Level::Blocks, Level::Halves, Level::Thirds, Level::Tensors];

/// Tensors below this stay resident when their block is cut: norms, biases, routers, which steps of several parts may need.
const SMALL: Bytes = Bytes(256 * KIB.0);

/// A block as it streams.
#[derive(Clone, Debug)]
pub(super) struct CutBlock {
    /// Its units, in order of computation.
    pub(super) units: Vec<Unit>,
    /// The largest of its tensors that are resident even so, and of what the GPU cannot compute with.
    pub(super) largest_kept: Bytes,
    /// Its largest tensor.
    pub(super) largest: Bytes,
    /// The matrices of its feed-forward network, but for routers.
    pub(super) ffn: Vec<usize>,
    /// Their bytes.
    pub(super) ffn_len: Bytes,
    /// The bytes of what the GPU cannot compute with; they are in none of these.
    pub(super) left: Bytes,
    /// Its bytes.
    pub(super) len: Bytes,
}

/// Cuts block number `i` of the index. With `keep_small`, norms, biases and routers are resident even if the block is not cut. What
/// is `left` to the CPU is in no unit.
pub(super) fn cut(
    index: &Index,
    i: usize,
    level: Level,
    keep_small: bool,
    left: &HashSet<usize>,
) -> CutBlock {
    let block = &index.blocks[i];
    let is_left = |t: &&usize| left.contains(t);
    let lens_left = || block.tensors.iter().filter(is_left).map(|&t| index.tensors[t].len);
    let left = lens_left().sum();
    let tensors = || block.tensors.iter().copied().filter(|t| !is_left(&t));
    let name = block.title();
    let largest = block.tensors.iter().map(|&t| index.tensors[t].len).max().unwrap_or_default();
    let in_ffn = |t: &usize| is_ffn(index.tensors[*t].role());
    let matrix = |t: &usize| !is_vector(&index.tensors[*t]);
    let ffn: Vec<usize> = tensors().filter(|t| matrix(t) && in_ffn(t)).collect();
    let ffn_len = ffn.iter().map(|&t| index.tensors[t].len).sum();
    if level == Level::Blocks && !keep_small {
        let (largest_kept, len) = (Bytes::ZERO, block.len);
        let unit = Unit { name, block: i, tensors: tensors().collect(), len, before: Bytes::ZERO };
        return CutBlock { units: vec![unit], largest_kept, largest, ffn, ffn_len, left, len };
    }
    let mut parts: BTreeMap<(u8, u8, &str), Vec<usize>> = BTreeMap::new();
    let mut largest_kept = lens_left().max().unwrap_or_default();
    for t in tensors() {
        let tensor = &index.tensors[t];
        let small = match level {
            Level::Blocks => is_vector(tensor),
            Level::Experts | Level::Stacks => !is_stack(index, tensor),
            _ => tensor.len < SMALL,
        };
        if small {
            largest_kept = largest_kept.max(tensor.len);
        } else {
            parts.entry(key(tensor.role(), level, is_stack(index, tensor))).or_default().push(t);
        }
    }
    let units = parts.into_iter().map(|((stage, _, role), tensors)| {
        let part = if role.is_empty() { STAGES[usize::from(stage)] } else { role };
        let len = tensors.iter().map(|&t| index.tensors[t].len).sum();
        let name = if level == Level::Blocks { name.clone() } else { format!("{name} ({part})") };
        Unit { name, block: i, tensors, len, before: Bytes::ZERO }
    });
    let (units, len) = (units.collect(), block.len);
    CutBlock { units, largest_kept, largest, ffn, ffn_len, left, len }
}

/// Whether a tensor is one of the small ones by its kind: norms and biases, which have one dimension, and routers.
fn is_vector(tensor: &TensorInfo) -> bool {
    tensor.shape.len() < 2 || tensor.role().starts_with("ffn_gate_inp")
}

/// Whether a tensor is a stack: one matrix for each expert.
pub(super) fn is_stack(index: &Index, tensor: &TensorInfo) -> bool {
    tensor.shape.len() == 3 && index.experts(tensor).is_some()
}

/// Whether a tensor of this role belongs to the feed-forward network.
pub(super) fn is_ffn(role: &str) -> bool {
    role.starts_with("ffn_") || role.starts_with("channel_mix")
}

/// What people call the stages of [`key`].
const STAGES: [&str; 7] =
    ["attention", "ffn", "ffn up", "ffn down", "experts", "experts up", "experts down"];

/// What a part is sorted and grouped by: its stage, its order there, and its role where every tensor is a part.
fn key(role: &str, level: Level, is_stack: bool) -> (u8, u8, &str) {
    // libllama computes them in this order; what is not listed mixes tokens, in one way or another.
    const ORDER: [&str; 10] = [
        "attn_qkv",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_gate",
        "attn_output",
        "ffn_gate_inp",
        "ffn_up",
        "ffn_gate",
        "ffn_down",
    ];
    let is_ffn = is_ffn(role);
    let is_down = u8::from(role.starts_with("ffn_down"));
    let stage = match level {
        Level::Blocks => 0,
        Level::Halves | Level::Experts if is_stack => 4,
        Level::Halves | Level::Experts => u8::from(is_ffn),
        Level::Thirds | Level::Tensors | Level::Stacks if is_stack => 5 + is_down,
        Level::Thirds | Level::Tensors | Level::Stacks if is_ffn => 2 + is_down,
        Level::Thirds | Level::Tensors | Level::Stacks => 0,
    };
    if !matches!(level, Level::Tensors | Level::Stacks) {
        return (stage, 0, "");
    }
    let order = ORDER.iter().rposition(|prefix| role.starts_with(prefix)).unwrap_or(0);
    (stage, u8::try_from(order).unwrap_or(0), role)
}

/// All blocks of the index, cut.
pub(super) fn cut_all(
    index: &Index,
    level: Level,
    keep_small: bool,
    left: &HashSet<usize>,
) -> Vec<CutBlock> {
    (0..index.blocks.len()).map(|i| cut(index, i, level, keep_small, left)).collect()
}
