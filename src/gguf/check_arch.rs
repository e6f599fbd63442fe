//! What single architectures assert about their own keys, beyond what `check` asks of all.
//!
//! Each rule was found by loading tiny models with one key changed and seeing libllama abort. An
//! architecture that is not named here has no rule, and a new one needs none to be accepted.

use super::check::{Checked, MAX_BLOCKS, MAX_WIDTH};
use super::check_caches::COMPRESSED;
use super::error::printable;
use super::index::Index;
use super::value::Value;

/// Architectures with recurrent blocks whose sizes derive from `ssm.inner_size`.
const RECURRENT: [&str; 12] = [
    "falcon-h1",
    "granitehybrid",
    "jamba",
    "mamba",
    "mamba2",
    "nemotron_h",
    "nemotron_h_moe",
    "plamo2",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "qwen4exp",
];

/// Those of them whose blocks have as many heads as `ssm.time_step_rank` says, in groups.
const BY_HEADS: [&str; 5] =
    ["falcon-h1", "granitehybrid", "mamba2", "nemotron_h", "nemotron_h_moe"];

/// Those of them with linear attention: groups of heads share their keys.
const LINEAR: [&str; 4] = ["qwen35", "qwen35moe", "qwen3next", "qwen4exp"];

/// Architectures that have no way of their own to weigh experts where the file names none.
const GATED: [&str; 13] = [
    "bailingmoe2",
    "bailingmoe3",
    "deepseek32",
    "dots1",
    "dots3note",
    "exaone-moe",
    "hy_v4",
    "kimi-k3",
    "kimi-linear",
    "lfm2moe",
    "minimax-m2",
    "minimax-m3",
    "smallthinker",
];

/// Architectures that read from the file how experts are weighed.
#[rustfmt::skip]
const READS_GATING: [&str; 25] = [
    "afmoe", "bailingmoe2", "bailingmoe3", "cohere2moe", "deepseek2", "deepseek2-ocr", "deepseek32", "deepseek4",
    "dflash", "dots1", "dots3note", "exaone-moe", "glm-dsa", "glm4moe", "glm5-next", "hy_v3", "hy_v4", "kimi-k3",
    "kimi-linear", "laguna", "lfm2moe", "minimax-m2", "minimax-m3", "smallthinker", "step35",
];

/// Architectures whose last blocks use the keys and values of others.
const SHARING: [&str; 2] = ["gemma4", "gemma4-assistant"];

/// Architectures with a block of full attention now and then.
const INTERVALS: [&str; 5] = ["minimax-01", "qwen35", "qwen35moe", "qwen3next", "qwen4exp"];

/// The last of libllama's ways to weigh experts (`llama_expert_gating_func_type`).
const MAX_GATING: u64 = 4;

impl Index {
    /// Divisors of recurrent blocks. They are zero where a model has no such blocks.
    pub(super) fn check_recurrent(&self) -> Checked {
        let arch = self.architecture();
        if RECURRENT.contains(&arch) {
            for key in ["ssm.inner_size", "ssm.conv_kernel", "ssm.state_size", "ssm.time_step_rank"]
            {
                self.within(key, 1, MAX_WIDTH)?;
            }
        }
        let uint = |key| self.arch_uint(key).unwrap_or(0);
        let (inner, width) = (uint("ssm.inner_size"), uint("embedding_length"));
        let (ranks, groups) = (uint("ssm.time_step_rank"), uint("ssm.group_count"));
        let divides = |key: &str, n: u64, of: u64| match n > 0 && of.is_multiple_of(n) {
            true => Ok(()),
            false => Err(self.wrong(key, format!("is {n}, which does not divide {of}"))),
        };
        if BY_HEADS.contains(&arch) {
            divides("ssm.time_step_rank", ranks, inner)?;
            divides("ssm.group_count", groups, inner)?;
        }
        if LINEAR.contains(&arch)
            && let Some(out) = self.tensors.iter().find(|t| t.role() == "ssm_out.weight")
            && out.shape.first() != Some(&inner)
        {
            let name = printable(out.name.as_bytes());
            return Err(
                self.wrong("ssm.inner_size", format!("is {inner}, and '{name}' has others"))
            );
        }
        if LINEAR.contains(&arch) {
            divides("ssm.time_step_rank", ranks, inner)?;
            divides("ssm.group_count", groups, ranks)?;
        }
        if arch == "jamba" && inner != 2 * width {
            let why = format!("is {inner}, not twice the embedding length {width}");
            return Err(self.wrong("ssm.inner_size", why));
        }
        if arch == "plamo2" {
            self.within("ssm.group_count", 0, 0)?;
        }
        if arch.contains("rwkv") {
            divides("wkv.head_size", uint("wkv.head_size"), width)?;
        }
        Ok(())
    }

    /// The embedding is as long as its key says; sizes derived from a lie meet asserts.
    pub(super) fn check_embedding(&self) -> Checked {
        // This one reads the length of its input from another key.
        if self.architecture() == "wavtokenizer-dec" {
            return Ok(());
        }
        let width = self.arch_uint("embedding_length");
        let embedding = self.tensors.iter().find(|t| t.name == "token_embd.weight");
        match embedding.and_then(|t| t.shape.first()) {
            Some(&n) if Some(n) != width => {
                let why = format!("is not {n}, the length of 'token_embd.weight'");
                Err(self.wrong("embedding_length", why))
            }
            _ => Ok(()),
        }
    }

    /// Keys that one architecture, or one family, has for itself.
    pub(super) fn check_own_keys(&self) -> Checked {
        let uint = |key| self.arch_uint(key).unwrap_or(0);
        let nope_least = uint("rope.dimension_count").saturating_add(1);
        if COMPRESSED.contains(&self.architecture()) && uint("attention.key_length_mla") > 0 {
            self.within("attention.key_length_mla", nope_least, MAX_WIDTH)?;
        }
        if SHARING.contains(&self.architecture()) && uint("attention.shared_kv_layers") > 0 {
            // The first blocks with keys of their own, one of each kind of window, serve the
            // others.
            let most = uint("block_count").saturating_sub(2);
            self.within("attention.shared_kv_layers", 0, most)?;
        }
        if uint("expert_count") > 0 && READS_GATING.contains(&self.architecture()) {
            let least = u64::from(GATED.contains(&self.architecture()));
            let given = self.within("expert_gating_func", least, MAX_GATING)?;
            // They take the way to weigh experts from the file alone.
            if self.architecture() == "dots1" && given.is_none() {
                return Err(self.wrong("expert_gating_func", "is missing"));
            }
        }
        self.check_architecture()?;
        // libllama takes block numbers modulo this one.
        if INTERVALS.contains(&self.architecture()) {
            self.within("full_attention_interval", 1, u32::MAX.into())?;
        }
        Ok(())
    }

    /// Keys that one architecture has for itself, or reads in its own way.
    fn check_architecture(&self) -> Checked {
        let uint = |key| self.arch_uint(key).unwrap_or(0);
        match self.architecture() {
            // All blocks have heads as long as what is rotated.
            "gpt-oss" => {
                let heads = self.per_block("attention.head_count", self.n_blocks())?;
                let first = heads.and_then(|all| all.first().copied()).unwrap_or(1).max(1);
                let each = uint("embedding_length") / first;
                let length = self.arch_uint("rope.dimension_count");
                let length = length.or(self.arch_uint("attention.key_length")).unwrap_or(each);
                for key in ["key_length", "value_length", "key_length_swa", "value_length_swa"] {
                    if length > 0 {
                        self.within(&format!("attention.{key}"), length, length)?;
                    }
                }
            }
            "deepseek4" => {
                self.within("attention.output_group_count", 1, MAX_WIDTH)?;
                self.within("hyper_connection.sinkhorn_iterations", 1, 1000)?;
                let keys = uint("attention.key_length");
                self.within("attention.value_length", keys, keys)?;
            }
            "glm5-next" => {
                self.within("hyper_connection.count", 4, 4)?;
                self.within("hyper_connection.sinkhorn_iterations", 1, 1000)?;
                let pool = self.within("attention.indexer.kpool", 2, MAX_WIDTH)?.unwrap_or(2);
                if !uint("attention.indexer.top_k").is_multiple_of(pool) {
                    let why = format!("is not a multiple of {pool}");
                    return Err(self.wrong("attention.indexer.top_k", why));
                }
            }
            "minimax-m3" => {
                self.within("attention.indexer.block_size", 1, MAX_WIDTH)?;
            }
            "hy_v4" => {
                self.within("attention.key_length_mla", 1, MAX_WIDTH)?;
                self.within("attention.value_length_mla", 1, MAX_WIDTH)?;
            }
            // Without windows, llama4's last block would scale by what is said only with them.
            "afmoe" | "llama4" => {
                self.within("attention.sliding_window", 1, u32::MAX.into())?;
            }
            "gemma4" => {
                self.within("rope.dimension_count_swa", 2, MAX_WIDTH)?;
            }
            "ernie4_5-moe" => {
                self.within("interleave_moe_layer_step", 1, u32::MAX.into())?;
            }
            "grovemoe" => {
                let each = self.within("experts_per_group", 1, MAX_WIDTH)?.unwrap_or(1);
                // Groups are chosen, by the number of experts that are used.
                self.within("expert_used_count", 0, uint("expert_count") / each)?;
            }
            _ => return self.check_times(),
        }
        Ok(())
    }

    /// How often blocks, tokens and cycles come, and how large a state may be, in single architectures.
    fn check_times(&self) -> Checked {
        let uint = |key| self.arch_uint(key).unwrap_or(0);
        match self.architecture() {
            "arwkv7" | "rwkv6qwen2" => {
                self.within("token_shift_count", 1, 1)?;
            }
            "rwkv6" | "rwkv7" => {
                self.within("token_shift_count", 2, 2)?;
                if self.architecture() == "rwkv7" {
                    return Ok(());
                }
                let heads = uint("embedding_length") / uint("wkv.head_size").max(1);
                let kv = self.per_block("attention.head_count_kv", self.n_blocks())?;
                if let Some(n) = kv.unwrap_or_default().into_iter().find(|&n| n > 0 && n != heads) {
                    return Err(self.wrong(
                        "attention.head_count_kv",
                        format!("is {n}, and there are {heads} heads"),
                    ));
                }
            }
            // The cache has a place for each time that a block is computed.
            "nanbeige" => {
                let most = MAX_BLOCKS / uint("block_count").max(1);
                self.within("num_loops", 1, most)?;
            }
            "hrm_text" => {
                let times = uint("hrm.l_cycles").saturating_add(1);
                let per_cycle = times.saturating_mul(uint("hrm.h_cycles"));
                let blocks = uint("block_count").saturating_sub(uint("nextn_predict_layers"));
                for key in ["hrm.h_cycles", "hrm.l_cycles", "hrm.layers_per_stack"] {
                    self.within(key, 1, MAX_BLOCKS)?;
                }
                let all = per_cycle.saturating_mul(uint("hrm.layers_per_stack"));
                if all != blocks {
                    let why = format!("makes {all} blocks, and there are {blocks}");
                    return Err(self.wrong("hrm.layers_per_stack", why));
                }
            }
            // Its graph takes values of many tokens for those of one.
            "plm" => {
                return Err(
                    self.wrong("block_count", "is of an architecture that libllama cannot compute")
                );
            }
            "granitehybrid" | "jamba" => {
                let inner = 2 * uint("embedding_length");
                self.within("ssm.inner_size", inner, inner)?;
            }
            // A bound from below, and below zero.
            "bailingmoe3" => {
                let key = "kda.gate_lower_bound";
                if let Some(x) = self.arch(key).and_then(Value::float)
                    && !(x.is_finite() && x < 0.0)
                {
                    return Err(self.wrong(key, format!("is {x}, not below zero")));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
