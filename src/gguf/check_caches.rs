//! Caches of keys and values: libllama makes each block's rows by the header, and asserts in a graph that what is to be stored is as long.
//! Where graphs count the heads of the first block for all, or store something that is no head, the two may differ.

use super::check::Checked;
use super::error::printable;
use super::index::{Index, TensorInfo};
use super::place::{Place, Stack};
use super::value::Value;

/// Architectures that remember keys and values compressed, as one head, where `attention.key_length_mla` says so ...
#[rustfmt::skip]
pub(super) const COMPRESSED: [&str; 10] = [
    "bailingmoe3", "deepseek2", "deepseek32", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "kimi-k3", "kimi-linear",
    "mistral4",
];

/// ... those of them with blocks that remember a state, and have no such head ...
const WITH_STATES: [&str; 4] = ["bailingmoe3", "glm5-next", "kimi-k3", "kimi-linear"];

/// Architectures in which a fused weight makes something else than queries, keys and values of attention.
const FUSED_OTHERWISE: [&str; 5] = ["minimax-01", "qwen35", "qwen35moe", "qwen3next", "qwen4exp"];

/// Architectures whose last blocks use the cache of others, which are of the same kind: with a window, or without.
const SHARED_BY_KIND: [&str; 1] = ["gemma4"];

/// How many first blocks of gemma3n have caches of their own, and every which has no window where the file does not say.
const OWN_OF_GEMMA3N: usize = 20;
const GEMMA3N_PATTERN: u64 = 5;

impl Index {
    pub(super) fn check_caches(&self) -> Checked {
        self.check_fused()?;
        self.check_compressed()?;
        self.check_shared_kinds()?;
        self.check_equal_heads()?;
        self.check_counts_of_first()?;
        self.check_pooled()
    }

    /// Blocks whose queries, keys and values are made by weights of one shape have as many heads for keys.
    fn check_fused(&self) -> Checked {
        if FUSED_OTHERWISE.contains(&self.architecture()) || !self.purpose_has_cache() {
            return Ok(());
        }
        let key = "attention.head_count_kv";
        let n_blocks = self.n_blocks();
        let (Some(heads), Some(kv)) =
            (self.per_block("attention.head_count", n_blocks)?, self.per_block(key, n_blocks)?)
        else {
            return Ok(());
        };
        let fused = self.tensors.iter().filter_map(|tensor| match tensor.place {
            Place::Block(Stack::Main, block) if tensor.role() == "attn_qkv.weight" => {
                Some((block, tensor)).filter(|_| self.computes(block))
            }
            _ => None,
        });
        let of = |all: &[u64], block: u32| all.get(block as usize).copied();
        let rows = |tensor: &TensorInfo| tensor.shape.get(1).copied();
        let mut first: Option<(u32, &TensorInfo)> = None;
        for (block, tensor) in fused {
            let (one, like) = *first.get_or_insert((block, tensor));
            let alike = of(&heads, block) == of(&heads, one) && rows(tensor) == rows(like);
            if alike && of(&kv, block) != of(&kv, one) {
                let name = printable(tensor.name.as_bytes());
                let why = format!("differs by block, and '{name}' has as many rows as others");
                return Err(self.wrong(key, why));
            }
        }
        Ok(())
    }

    /// Graphs that count the heads of the first block, whatever others say.
    fn check_counts_of_first(&self) -> Checked {
        let key = "attention.head_count_kv";
        let n_blocks = self.n_blocks();
        let kv = self.per_block(key, n_blocks)?;
        let wanted = match self.architecture() {
            "rwkv6qwen2" => kv.as_ref().and_then(|all| all.first().copied()),
            // Keys and values are one head, and the graph says so.
            "deepseek4" => Some(1),
            // As many as for queries: all of them are made of what was compressed.
            "minicpm3" => self
                .per_block("attention.head_count", n_blocks)?
                .and_then(|all| all.first().copied()),
            _ => return Ok(()),
        };
        for (block, n) in (0_u32..).zip(kv.unwrap_or_default()) {
            if self.computes(block) && Some(n) != wanted {
                let why =
                    format!("is {n} for block {block}, and {} is needed", wanted.unwrap_or(0));
                return Err(self.wrong(key, why));
            }
        }
        Ok(())
    }

    /// Positions in a pool are added element by element, where other architectures look their rows up.
    fn check_pooled(&self) -> Checked {
        let is_added = |t: &&TensorInfo| t.role() == "indexer_compressor_ape.weight";
        let added = self.tensors.iter().filter(is_added).find(|t| t.ty.is_quantised());
        match added.filter(|_| self.architecture() == "glm5-next") {
            Some(tensor) => {
                let name = printable(tensor.name.as_bytes());
                Err(self.wrong(
                    "attention.indexer.kpool",
                    format!("adds '{name}', of a quantised type"),
                ))
            }
            None => Ok(()),
        }
    }

    /// Whether it remembers what it has read, token by token.
    fn purpose_has_cache(&self) -> bool {
        self.purpose().not_for_text().is_none()
    }

    /// What is remembered compressed is one head, and as long as its parts.
    fn check_compressed(&self) -> Checked {
        let arch = self.architecture();
        let uint = |key| self.arch_uint(key).unwrap_or(0);
        if !COMPRESSED.contains(&arch) || uint("attention.key_length_mla") == 0 {
            return Ok(());
        }
        let key = "attention.head_count_kv";
        let kv = self.per_block(key, self.n_blocks())?;
        let has_states = WITH_STATES.contains(&arch);
        for (block, n) in (0_u32..).zip(kv.unwrap_or_default()) {
            if self.computes(block) && n != 1 && !(n == 0 && has_states) {
                let why = format!("is {n} for block {block}, whose keys are remembered as one");
                return Err(self.wrong(key, why));
            }
        }
        let rotated = uint("rope.dimension_count");
        let keys = uint("attention.kv_lora_rank").saturating_add(rotated);
        self.within("attention.key_length", keys, keys)?;
        if arch == "dots3note" {
            let keys = uint("attention.kv_lora_rank_swa").saturating_add(rotated);
            self.within("attention.key_length_swa", keys, keys)?;
        }
        Ok(())
    }

    /// Which blocks have a window, where the file lists them.
    pub(super) fn windows(&self) -> Option<Vec<bool>> {
        let Some(Value::Array(list)) = self.arch("attention.sliding_window_pattern") else {
            return None;
        };
        Some(
            list.iter().map(|value| value == Value::Bool(true) || value.uint() > Some(0)).collect(),
        )
    }

    /// Blocks that use the cache of another are of its kind.
    fn check_shared_kinds(&self) -> Checked {
        if self.architecture() == "gemma3n" {
            return self.check_gemma3n();
        }
        let key = "attention.shared_kv_layers";
        let n_shared = self.arch_uint(key).unwrap_or(0);
        let Some(windows) =
            self.windows().filter(|_| SHARED_BY_KIND.contains(&self.architecture()))
        else {
            return Ok(());
        };
        let own = usize::try_from(self.n_blocks().saturating_sub(n_shared)).unwrap_or(0);
        for (block, &has_window) in windows.iter().enumerate().skip(own) {
            let from = own.checked_sub(if has_window { 2 } else { 1 });
            if from.and_then(|from| windows.get(from)) != Some(&has_window) {
                let why = format!("is {n_shared}, and block {block} finds no other of its kind");
                return Err(self.wrong(key, why));
            }
        }
        Ok(())
    }

    /// The blocks whose caches gemma3n's last ones use are of fixed numbers: one with a window, then one without.
    fn check_gemma3n(&self) -> Checked {
        let key = "attention.sliding_window_pattern";
        let n_blocks = usize::try_from(self.n_blocks()).unwrap_or(0);
        let every = self.arch_uint(key).unwrap_or(GEMMA3N_PATTERN);
        let by_number = |block: u64| every == 0 || block % every < every - 1;
        let windows =
            self.windows().unwrap_or_else(|| (0..self.n_blocks()).map(by_number).collect());
        for (block, &has_window) in windows.iter().enumerate().take(n_blocks).skip(OWN_OF_GEMMA3N) {
            let from = OWN_OF_GEMMA3N - if has_window { 2 } else { 1 };
            if windows[from] != has_window {
                let why = format!("leaves block {block} without the cache of another of its kind");
                return Err(self.wrong(key, why));
            }
        }
        Ok(())
    }

    /// Graphs whose blocks count their own heads in weights that were made by the first block's.
    fn check_equal_heads(&self) -> Checked {
        if self.architecture() != "graniteswitch" {
            return Ok(());
        }
        for key in ["attention.head_count", "attention.head_count_kv"] {
            let heads = self.per_block(key, self.n_blocks())?.unwrap_or_default();
            if heads.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(
                    self.wrong(key, "differs by block, and weights are made by the first's")
                );
            }
        }
        Ok(())
    }
}
