//! Heads that guess tokens ahead (MTP): blocks behind those of the model, which an ordinary pass computes nothing with. Which they are,
//! and whether they can be used: what libllama asserts of them is looked at here.

use super::index::{Block, Index};
use super::place::Stack;
use super::value::Value;
use crate::units::Bytes;

/// Architectures of whose heads libllama loads nothing unless it is asked to.
const PARTED: [&str; 18] = [
    "bailingmoe2",
    "bailingmoe3",
    "cohere2moe",
    "deepseek2",
    "deepseek32",
    "deepseek4",
    "dots3note",
    "exaone-moe",
    "exaone4",
    "glm-dsa",
    "glm4",
    "glm4moe",
    "hy_v3",
    "mimo2",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "qwen4exp",
];

/// Architectures whose heads are used, whether there may be several, and the tensors that asserts of their graph want beside [`ALL`].
const USED: [(&str, bool, &[&str]); 6] = [
    ("cohere2moe", false, &["ffn_gate_inp.weight"]),
    ("glm4moe", false, &["ffn_gate_inp.weight"]),
    ("hy_v3", true, &[]),
    ("qwen35", false, &[]),
    ("qwen35moe", false, &["ffn_gate_inp.weight"]),
    ("qwen3next", false, &["ffn_gate_inp.weight"]),
];

/// What every head joins the last token and what the model has behind the one before it with.
const ALL: [&str; 3] = ["nextn.eh_proj.weight", "nextn.enorm.weight", "nextn.hnorm.weight"];

impl Index {
    /// Takes the heads out of the blocks.
    pub(super) fn part_heads(&mut self) {
        let n_heads = self.arch_uint("nextn_predict_layers").unwrap_or(0);
        let n_blocks = self.arch_uint("block_count").unwrap_or(0);
        if n_heads == 0 || n_heads >= n_blocks || !PARTED.contains(&self.architecture()) {
            return;
        }
        let is_head = |block: &Block| {
            block.stack == Stack::Main && u64::from(block.number) >= n_blocks - n_heads
        };
        let (heads, blocks) = std::mem::take(&mut self.blocks).into_iter().partition(is_head);
        (self.heads, self.blocks) = (heads, blocks);
    }

    /// The bytes of its heads.
    pub fn head_bytes(&self) -> Bytes {
        self.heads.iter().map(|head| head.len).sum()
    }

    /// Whether a head of its own can guess its tokens; else why not.
    ///
    /// # Errors
    ///
    /// There is none, libllama has no code for it, or it is not what that code takes for granted.
    pub fn check_heads_usable(&self) -> Result<(), String> {
        let count = self.arch_uint("nextn_predict_layers").unwrap_or(0);
        if count == 0 {
            return Err("it has no head that guesses tokens ahead".to_owned());
        }
        let arch = self.architecture();
        let Some((_, several, wanted)) = USED.iter().find(|used| used.0 == arch) else {
            return Err(format!("heads of architecture '{arch}' are not used"));
        };
        let Some(first) = self.heads.first().filter(|_| self.heads.len() as u64 == count) else {
            let n = self.heads.len();
            return Err(format!("it is said to have {count} heads, and the file has {n}"));
        };
        if count > 1 && !several {
            return Err(format!("it has {count} heads, and libllama knows one"));
        }
        let first_number = self.arch_uint("block_count").unwrap_or(0).saturating_sub(count);
        if u64::from(first.number) != first_number {
            return Err(format!("its first head is no block {first_number}"));
        }
        for head in &self.heads {
            let has = |name: &str| head.tensors.iter().any(|&t| self.tensors[t].role() == name);
            if let Some(lacks) = ALL.iter().chain(*wanted).find(|name| !has(name)) {
                return Err(format!("its head lacks '{lacks}'"));
            }
        }
        self.check_counts_of_heads(first_number)?;
        // What goes from the model to the head is as wide as the model.
        let width = self.arch_uint("embedding_length");
        match self.arch_uint("embedding_length_out") {
            out @ Some(_) if out != width => {
                Err("what it gives a head is of another width".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether what is said by block is of the heads what it is of the blocks: weights and graphs are made by either. `first` is the first
    /// head's number.
    fn check_counts_of_heads(&self, first: u64) -> Result<(), String> {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        for key in ["attention.head_count", "attention.head_count_kv", "expert_used_count"] {
            let Some(Value::Array(all)) = self.arch(key) else { continue };
            let all: Vec<u64> = all.iter().map(|v| v.uint().unwrap_or(0)).collect();
            let (blocks, heads) = all.split_at(first.min(all.len()));
            let usual = blocks.iter().copied().find(|&n| n > 0).unwrap_or(0);
            let alike = usual > 0 && blocks.iter().all(|n| *n == 0 || *n == usual);
            if heads.len() < self.heads.len() || heads.iter().any(|n| *n != usual) || !alike {
                return Err(format!("'{key}' is of its head another than of its blocks"));
            }
        }
        let key = "attention.recurrent_layers";
        let of_head = |v: Value| !matches!(v, Value::Bool(false)) && v.uint() != Some(0);
        match self.arch(key) {
            Some(Value::Array(all)) if all.iter().skip(first).any(of_head) => {
                Err(format!("'{key}' has its head among them"))
            }
            _ => Ok(()),
        }
    }
}
