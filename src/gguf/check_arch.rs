//! What single architectures assert about their own keys, beyond what `check` asks of all.
//!
//! Each rule was found by loading tiny models with one key changed and seeing libllama abort. An
//! architecture that is not named here has no rule, and a new one needs none to be accepted.

use super::check::{Checked, MAX_WIDTH};
use super::index::Index;
use super::place::Place;

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

/// The last of libllama's ways to weigh experts (`llama_expert_gating_func_type`).
const MAX_GATING: u64 = 4;

/// Architectures whose blocks of linear attention have query weights, and no heads of the other kind.
const QUERIES_WITHOUT_HEADS: [&str; 3] = ["bailingmoe3", "kimi-k3", "kimi-linear"];

/// Architectures whose queries are as long as the embedding, whatever their heads: libllama cuts them into heads, and asserts that
/// nothing is left.
const QUERIES_AS_EMBEDDING: [&str; 36] = [
    "arctic",
    "baichuan",
    "bert",
    "chameleon",
    "codeshell",
    "cohere2",
    "command-r",
    "deepseek",
    "deepseek2-ocr",
    "dream",
    "eurobert",
    "grok",
    "internlm2",
    "jamba",
    "jina-bert-v2",
    "jina-bert-v3",
    "lfm2",
    "lfm2moe",
    "llada-moe",
    "nemotron",
    "nomic-bert",
    "nomic-bert-moe",
    "olmo",
    "olmo2",
    "olmoe",
    "orion",
    "phi2",
    "phi3",
    "phimoe",
    "plamo",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "stablelm",
    "starcoder2",
    "xverse",
];

impl Index {
    /// Queries that are as long as the embedding are cut into whole heads, in blocks that have some.
    pub(super) fn check_queries(&self) -> Checked {
        if !QUERIES_AS_EMBEDDING.contains(&self.architecture()) {
            return Ok(());
        }
        let n_blocks = self.block_count().unwrap_or(0);
        let heads = self.per_block("attention.head_count", n_blocks)?.unwrap_or_default();
        let kv = self.per_block("attention.head_count_kv", n_blocks)?;
        let width = self.arch_uint("embedding_length").unwrap_or(0);
        // Without heads in the first block libllama does not read their length.
        let Some(&first) = heads.first().filter(|&&n| n > 0) else { return Ok(()) };
        let each = self.arch_uint("attention.key_length").unwrap_or(width / first);
        let with_keys = heads.iter().zip(kv.as_deref().unwrap_or(&heads)).filter(|(_, k)| **k > 0);
        match with_keys.map(|(&n, _)| n).find(|&n| n > 0 && n.saturating_mul(each) != width) {
            Some(n) => {
                let why = format!("is {n}, of {each} numbers each, which do not make {width}");
                Err(self.wrong("attention.head_count", why))
            }
            None => Ok(()),
        }
    }

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

    /// Blocks with query weights have query heads.
    pub(super) fn check_attention_tensors(&self) -> Checked {
        if QUERIES_WITHOUT_HEADS.contains(&self.architecture()) {
            return Ok(());
        }
        let n_blocks = self.block_count().unwrap_or(0);
        let heads = self.per_block("attention.head_count", n_blocks)?.unwrap_or_default();
        for tensor in &self.tensors {
            let Place::Block(_, number) = tensor.place else { continue };
            let none = heads.get(number as usize).is_none_or(|&h| h == 0);
            if none && matches!(tensor.role(), "attn_q.weight" | "attn_qkv.weight") {
                let why = format!("has no heads for block {number}, which has '{}'", tensor.name);
                return Err(self.wrong("attention.head_count", why));
            }
        }
        Ok(())
    }

    /// Keys that one architecture, or one family, has for itself.
    pub(super) fn check_own_keys(&self) -> Checked {
        let uint = |key| self.arch_uint(key).unwrap_or(0);
        let nope_least = uint("rope.dimension_count") + 1;
        if uint("attention.key_length_mla") > 0 {
            self.within("attention.key_length_mla", nope_least, MAX_WIDTH)?;
        }
        if uint("attention.shared_kv_layers") > 0 {
            // The first blocks with keys of their own, one of each kind of window, serve the
            // others.
            let most = uint("block_count").saturating_sub(2);
            self.within("attention.shared_kv_layers", 0, most)?;
        }
        if uint("expert_count") > 0 {
            let least = u64::from(GATED.contains(&self.architecture()));
            self.within("expert_gating_func", least, MAX_GATING)?;
        }
        self.check_architecture()?;
        // libllama takes block numbers modulo this one, wherever it is read.
        self.within("full_attention_interval", 1, u32::MAX.into())?;
        Ok(())
    }

    /// Keys that one architecture has for itself, or reads in its own way.
    fn check_architecture(&self) -> Checked {
        let uint = |key| self.arch_uint(key).unwrap_or(0);
        match self.architecture() {
            // All blocks have heads as long as what is rotated.
            "gpt-oss" => {
                let keys = uint("attention.key_length");
                let length = match uint("rope.dimension_count") {
                    0 => keys,
                    n => n,
                };
                for key in ["key_length", "value_length", "key_length_swa", "value_length_swa"] {
                    if length > 0 {
                        self.within(&format!("attention.{key}"), length, length)?;
                    }
                }
            }
            // Keys and values are remembered compressed, and only so.
            "deepseek2" if uint("attention.key_length_mla") > 0 => {
                let values = uint("attention.kv_lora_rank");
                let keys = values + uint("rope.dimension_count");
                self.within("attention.key_length", keys, keys)?;
                self.within("attention.value_length", values, values)?;
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
            "arwkv7" | "rwkv6qwen2" => {
                self.within("token_shift_count", 1, 1)?;
            }
            "afmoe" => {
                self.within("attention.sliding_window", 1, u32::MAX.into())?;
            }
            "gemma4" => {
                self.within("rope.dimension_count_swa", 2, MAX_WIDTH)?;
            }
            "ernie4_5-moe" => {
                self.within("interleave_moe_layer_step", 1, u32::MAX.into())?;
            }
            "grovemoe" => {
                self.within("experts_per_group", 1, MAX_WIDTH)?;
            }
            _ => {}
        }
        Ok(())
    }
}
