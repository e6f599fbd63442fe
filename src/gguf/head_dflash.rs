//! Heads of DFlash, which fill in several tokens at a time: what libllama takes for granted of such a file, and which of them are used.

use super::head_file::Blanks;
use super::index::Index;
use super::value::Value;

/// Tokens of a block: the most that a pass could check, and what libllama's driver takes where the file does not say.
const MOST_SIZE: u64 = 64;
const SIZE: u64 = 16;

/// What heads of later kinds have, by the keys that say so, or the tensors: they draft in other ways.
const KEYS: [(&str, &str); 4] = [
    ("attention.sliding_window", "blocks that see a window"),
    ("hyper_connection_count", "blocks as of DeepSeek V4"),
    ("selector_rank", "a selector"),
    ("selector_top_k", "a selector"),
];
const TENSORS: [(&str, &str); 2] =
    [("selector_hidden.weight", "a selector"), ("markov_w1.weight", "a Markov head")];

impl Index {
    /// How a head of DFlash fills in tokens.
    pub(super) fn check_dflash(&self) -> Result<Blanks, String> {
        let n_blocks = self.arch_uint("block_count").unwrap_or(0);
        if n_blocks == 0 || self.blocks.len() as u64 != n_blocks || !self.heads.is_empty() {
            let n = self.blocks.len();
            return Err(format!("it is said to have {n_blocks} blocks, and the file has {n}"));
        }
        self.check_plain()?;
        self.check_attention()?;
        let size = match self.arch("block_size") {
            None => SIZE,
            Some(size) => size.uint().unwrap_or(0),
        };
        if !(2..=MOST_SIZE).contains(&size) {
            return Err(format!("'block_size' is none of 2 to {MOST_SIZE}"));
        }
        let n_tokens = self.n_tokens();
        let token = self.meta_uint("tokenizer.ggml.mask_token_id").filter(|&n| n < n_tokens);
        let token = token.and_then(|n| i32::try_from(n).ok());
        let none = || "it does not say which token is a blank ('mask_token_id')".to_owned();
        let size = u32::try_from(size).map_err(|_| none())?;
        Ok(Blanks { size, token: token.ok_or_else(none)? })
    }

    /// Whether it drafts as the first heads of DFlash do.
    fn check_plain(&self) -> Result<(), String> {
        let key = KEYS.iter().find(|(key, _)| self.arch(key).is_some_and(|n| n.uint() != Some(0)));
        let tensor = TENSORS.iter().find(|(name, _)| self.tensors.iter().any(|t| t.name == *name));
        if let Some((_, what)) = key.or(tensor) {
            return Err(format!("heads of DFlash with {what} are not used"));
        }
        if self.arch("rope.dimension_sections").is_some() {
            return Err("heads of DFlash that rotate in sections are not used".into());
        }
        if matches!(self.arch("attention.causal"), Some(Value::Bool(true))) {
            return Err("heads of DFlash that look back only are not used".into());
        }
        // libllama takes the numbers of the first block for all.
        for key in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
            if matches!(self.arch(key), Some(Value::Array(_))) {
                return Err(format!("'{key}' is a list"));
            }
        }
        Ok(())
    }
}
