//! Tensor names: which block a tensor belongs to, and its role there. The only place that reads
//! them.
//!
//! It knows libllama's naming scheme, not single architectures: a number after a known prefix is a
//! block; of the rest, what is read before the first block is told apart from what is read after
//! the last.

use super::place::{Place, Stack};

/// Prefixes that a block number follows.
const STACKS: [(&str, Stack); 7] = [
    ("blk.", Stack::Main),
    ("enc.blk.", Stack::Encoder),
    ("dec.blk.", Stack::Decoder),
    ("posnet.", Stack::PosNet),
    ("convnext.", Stack::ConvNext),
    ("v.blk.", Stack::Vision),
    ("a.blk.", Stack::Audio),
];

/// First parts of the names of tensors that are read before block 0. `token_embd_norm` is among
/// them by its prefix.
const EMBEDDING: [&str; 8] = [
    "token_embd",
    "position_embd",
    "token_types",
    "per_layer_token_embd",
    "per_layer_model_proj",
    "per_layer_proj_norm",
    "conv1d",
    "altup_proj",
];

/// Splits `blk.17.ffn_gate_exps.weight` into its place, block 17, and its role there,
/// `ffn_gate_exps.weight`. The role of a tensor outside the blocks is its whole name.
pub fn split(name: &str) -> (Place, &str) {
    for (prefix, stack) in STACKS {
        if let Some((number, role)) = name.strip_prefix(prefix).and_then(|r| r.split_once('.'))
            && let Some(number) = block_number(number)
        {
            return (Place::Block(stack, number), role);
        }
    }
    let embedding = EMBEDDING.iter().any(|&p| name.starts_with(p));
    (if embedding { Place::Embedding } else { Place::Output }, name)
}

/// A number as libllama prints it: digits without a leading zero.
fn block_number(digits: &str) -> Option<u32> {
    let plain =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

/// Whether a tensor belongs to a tower that reads images or sound, or to what joins one to the text.
pub fn is_of_tower(name: &str) -> bool {
    ["v.", "a.", "mm."].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a role is that of a tensor with one slice per expert, its last dimension.
pub fn is_experts(role: &str) -> bool {
    role.split('.').next().is_some_and(|word| word.ends_with("_exps"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_place() {
        let block = |n| Place::Block(Stack::Main, n);
        for (name, place, role) in [
            ("blk.0.attn_q.weight", block(0), "attn_q.weight"),
            ("blk.511.nextn.eh_proj.weight", block(511), "nextn.eh_proj.weight"),
            ("enc.blk.3.attn_q.weight", Place::Block(Stack::Encoder, 3), "attn_q.weight"),
            ("dec.blk.3.attn_q.weight", Place::Block(Stack::Decoder, 3), "attn_q.weight"),
            ("posnet.1.conv1.bias", Place::Block(Stack::PosNet, 1), "conv1.bias"),
            ("token_embd.weight", Place::Embedding, "token_embd.weight"),
            ("token_embd_norm.bias", Place::Embedding, "token_embd_norm.bias"),
            ("output.weight", Place::Output, "output.weight"),
            ("enc.output_norm.weight", Place::Output, "enc.output_norm.weight"),
            ("rope_freqs.weight", Place::Output, "rope_freqs.weight"),
            ("blk.01.x", Place::Output, "blk.01.x"),
            ("blk.-1.x", Place::Output, "blk.-1.x"),
            ("blk.4294967296.x", Place::Output, "blk.4294967296.x"),
            ("blk..x", Place::Output, "blk..x"),
            ("blk.7", Place::Output, "blk.7"),
        ] {
            assert_eq!(split(name), (place, role), "{name}");
        }
    }

    #[test]
    fn towers_are_told_by_their_prefix() {
        assert!(is_of_tower("v.blk.0.attn_q.weight") && is_of_tower("mm.0.weight"));
        assert!(!is_of_tower("blk.0.attn_v.weight") && !is_of_tower("output.weight"));
    }

    #[test]
    fn roles_tell_experts() {
        assert!(is_experts("ffn_gate_exps.weight") && is_experts("ffn_gate_up_exps.bias"));
        assert!(!is_experts("ffn_gate_shexp.weight") && !is_experts("ffn_gate_inp.weight"));
    }
}
