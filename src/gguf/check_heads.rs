//! Heads of attention: how many, how long, which part of them is rotated, and the weights that make them.
//!
//! libllama takes most lengths on the word of the header, makes its tensors by them, and asserts in a graph, if at all, that they fit
//! each other. Which architectures assert what is read in its source; an architecture that is not named here has no rule.

use super::check::{Checked, MAX_HEADS};
use super::error::printable;
use super::index::{Index, TensorInfo};
use super::place::{Place, Stack};
use super::value::Value;

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

/// Architectures whose heads are rotated as a whole.
#[rustfmt::skip]
const ALL_ROTATED: [&str; 61] = [
    "apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cogvlm", "cohere2moe", "dbrx",
    "deci", "deepseek", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "exaone", "exaone-moe", "exaone4",
    "falcon", "granite", "granite_swa", "graniteswitch", "grok", "grovemoe", "hunyuan-dense",
    "hunyuan-moe", "hunyuan_vl", "hy_v3", "internlm2", "jais2", "llada", "llada-moe", "llama",
    "llama-embed", "llama4", "maincoder", "mellum", "mistral3", "olmo", "olmo2", "olmoe", "orion",
    "paddleocr", "pangu-embedded", "plamo", "pockettts", "qwen2", "qwen2moe", "qwen2vl", "qwen3",
    "qwen3moe", "qwen3tts", "qwen3vl", "qwen3vlmoe", "rnd1", "seed_oss", "smallthinker", "smollm3",
    "starcoder2", "talkie", "xverse",
];

/// Those that rotate a part of each head: nothing is no part, and ggml would not come to an end.
#[rustfmt::skip]
const ROTATED: [&str; 39] = [
    "afmoe", "bailingmoe2", "bitnet", "chatglm", "cohere2", "command-r", "dflash", "eagle3", "gemma", "gemma2", "gemma3",
    "gemma3n", "gemma4", "glm4", "glm4moe", "gptneox", "hrm_text", "laguna", "lfm2", "lfm2moe", "maple",
    "mimo2", "minimax-01", "minimax-m2", "minimax-m3", "muse-glimmer", "nemotron", "openelm", "phi2",
    "phimoe", "plamo2", "plamo3", "qwen", "qwen35", "qwen35moe", "qwen3next", "qwen4exp", "spark2_5",
    "stablelm",
];

/// Those that rotate nothing, or read elsewhere how much.
#[rustfmt::skip]
const NOT_ROTATED: [&str; 16] = [
    "arwkv7", "bloom", "deepseek2-ocr", "gpt2", "jais", "jamba", "mamba", "mamba2", "mpt", "nemotron_h",
    "nemotron_h_moe", "rwkv6", "rwkv6qwen2", "rwkv7", "starcoder", "t5",
];

/// Architectures whose values are as long as their keys.
#[rustfmt::skip]
const OF_ONE_LENGTH: [&str; 107] = [
    "afmoe", "apertus", "arcee", "arctic", "baichuan", "bailingmoe", "bailingmoe2", "bert", "bitnet",
    "bloom", "chameleon", "chatglm", "codeshell", "cogvlm", "cohere2", "cohere2moe", "command-r",
    "dbrx", "deci", "deepseek", "deepseek2-ocr", "deepseek4", "dflash", "dots1", "dream", "eagle3", "ernie4_5",
    "ernie4_5-moe", "eurobert", "exaone", "exaone-moe", "exaone4", "falcon", "glm4", "glm4moe", "gpt2",
    "gptneox", "granite", "granite_swa", "granitehybrid", "graniteswitch", "grok", "grovemoe",
    "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "internlm2", "jais", "jais2", "laguna",
    "llada", "llada-moe", "llama", "llama-embed", "llama4", "maincoder", "maple", "mellum",
    "minimax-01", "minimax-m2", "minimax-m3", "mistral3", "modern-bert", "mpt", "muse-glimmer",
    "nanbeige", "nemotron", "nemotron_h", "nemotron_h_moe", "neo-bert", "olmo", "olmo2", "olmoe",
    "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "plamo", "pockettts", "qwen",
    "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3tts",
    "qwen3vl", "qwen3vlmoe", "qwen4exp", "refact", "rnd1", "seed_oss", "smallthinker", "smollm3",
    "spark2_5", "stablelm", "starcoder", "starcoder2", "t5", "talkie", "xverse",
];

/// Architectures with blocks that see a window, and rotate a part of each head in these that may have a length of its own.
#[rustfmt::skip]
const WINDOWS_ROTATED: [&str; 15] = [
    "afmoe", "cohere2", "cohere2moe", "gemma2", "gemma3", "gemma3n", "gemma4", "laguna", "maple",
    "mellum", "mimo2", "muse-glimmer", "olmo2", "plamo3", "spark2_5",
];

/// Those whose values are as long as their keys in blocks with a window, too.
const WINDOWS_OF_ONE_LENGTH: [&str; 5] =
    ["deepseek4", "exaone-moe", "laguna", "maple", "smallthinker"];

/// Those whose heads are as long in all blocks.
const WINDOWS_AS_THE_OTHERS: [&str; 4] = ["cohere2", "laguna", "olmo2", "smallthinker"];

/// Architectures that rotate by several positions: time, height and width each have a section of the head.
#[rustfmt::skip]
const IN_SECTIONS: [&str; 8] = [
    "paddleocr", "qwen2vl", "qwen35", "qwen35moe", "qwen3tts", "qwen3vl", "qwen3vlmoe", "qwen4exp",
];

/// Architectures whose blocks of linear attention have weights of the same names, and heads of their own.
const ROWS_OF_THEIR_OWN: [&str; 4] = ["bailingmoe3", "glm5-next", "kimi-k3", "kimi-linear"];

/// Architectures that count the heads of each block, and make the weights of all by the first.
const HEADS_BY_BLOCK: [&str; 5] =
    ["granite", "granite_swa", "granitemoe", "graniteswitch", "minicpm"];

/// Architectures with a window in some blocks, of which they assert that there are any.
#[rustfmt::skip]
const SOME_WINDOWS: [&str; 15] = [
    "afmoe", "cohere2", "cohere2moe", "exaone-moe", "gemma2", "gemma3", "gemma3n", "gpt-oss", "laguna", "llama4",
    "mellum", "muse-glimmer", "olmo2", "plamo3", "smallthinker",
];

/// Those that assert it, too, and always have the list.
const LISTED_WINDOWS: [&str; 4] = ["granite_swa", "maple", "mimo2", "spark2_5"];

/// How long a head is: its keys, its values, and the part of it that is rotated, in all blocks, or in those that see a window.
struct Lengths {
    keys: u64,
    values: u64,
    rotated: u64,
}

impl Index {
    /// Attention heads: each block's key heads divide its query heads. Blocks without attention
    /// have none of either.
    pub(super) fn check_heads(&self) -> Checked {
        let n_blocks = self.n_blocks();
        let Some(heads) = self.per_block("attention.head_count", n_blocks)? else { return Ok(()) };
        if let Some(&n) = heads.iter().find(|&&n| n > MAX_HEADS) {
            return Err(self.wrong("attention.head_count", format!("is {n}")));
        }
        let kv = self.per_block("attention.head_count_kv", n_blocks)?;
        for (&h, &k) in heads.iter().zip(kv.as_deref().unwrap_or(&heads)) {
            if k > 0 && !h.is_multiple_of(k) {
                let why = format!("is {k}, which does not divide {h} heads");
                return Err(self.wrong("attention.head_count_kv", why));
            }
        }
        let Some(&first) = heads.first().filter(|&&n| n > 0) else { return Ok(()) };
        let width = self.arch_uint("embedding_length").unwrap_or(0);
        if self.within("attention.key_length", 1, MAX_HEADS)?.is_none() && width < first {
            let why = format!("is {first}, more than the embedding is long");
            return Err(self.wrong("attention.head_count", why));
        }
        self.within("attention.value_length", 0, MAX_HEADS)?;
        Ok(())
    }

    /// The lengths that libllama takes, in all blocks and in those with a window; none without heads in the first block.
    fn lengths(&self) -> Result<Option<[Lengths; 2]>, super::check::Wrong> {
        let heads = self.per_block("attention.head_count", self.n_blocks())?.unwrap_or_default();
        let Some(&first) = heads.first().filter(|&&n| n > 0) else { return Ok(None) };
        let uint = |key: &str| self.arch_uint(key);
        let each = uint("embedding_length").unwrap_or(0) / first;
        let keys = uint("attention.key_length").unwrap_or(each);
        let values = uint("attention.value_length").unwrap_or(each);
        let rotated = uint("rope.dimension_count").unwrap_or(keys);
        let window = Lengths {
            keys: uint("attention.key_length_swa").unwrap_or(keys),
            values: uint("attention.value_length_swa").unwrap_or(values),
            rotated: uint("rope.dimension_count_swa").unwrap_or(rotated),
        };
        Ok(Some([Lengths { keys, values, rotated }, window]))
    }

    /// Lengths that the architecture asserts to be equal.
    pub(super) fn check_lengths(&self) -> Checked {
        let Some([all, window]) = self.lengths()? else { return Ok(()) };
        let is = |list: &[&str]| list.contains(&self.architecture());
        let equal = |key: &str, n: u64, other: u64| match n == other {
            true => Ok(()),
            false => Err(self.wrong(key, format!("is {n}, and {other} is needed"))),
        };
        if is(&OF_ONE_LENGTH) {
            equal("attention.value_length", all.values, all.keys)?;
        }
        if is(&ALL_ROTATED) {
            equal("rope.dimension_count", all.rotated, all.keys)?;
        }
        if is(&WINDOWS_AS_THE_OTHERS) {
            equal("attention.key_length_swa", window.keys, all.keys)?;
        }
        if is(&WINDOWS_OF_ONE_LENGTH) {
            equal("attention.value_length_swa", window.values, window.keys)?;
        }
        let has_windows =
            self.architecture() != "olmo2" || self.arch("attention.sliding_window").is_some();
        if is(&ALL_ROTATED) && is(&WINDOWS_ROTATED) && has_windows {
            equal("rope.dimension_count_swa", window.rotated, window.keys)?;
        }
        Ok(())
    }

    /// Rotated dimensions are pairs within a head, and the kind of scaling has a name that libllama knows.
    pub(super) fn check_rope(&self) -> Checked {
        let scaling = self.arch("rope.scaling.type").and_then(Value::str);
        if let Some(kind) = scaling
            && !["none", "linear", "yarn", "longrope"].contains(&kind)
        {
            let why = format!("is '{}', an unknown kind", printable(kind.as_bytes()));
            return Err(self.wrong("rope.scaling.type", why));
        }
        let Some([all, window]) = self.lengths()? else { return Ok(()) };
        let is = |list: &[&str]| list.contains(&self.architecture());
        let rotates = is(&ALL_ROTATED) || is(&ROTATED);
        let pairs = |key: &str, n: u64, least: u64, most: u64| match n {
            n if !n.is_multiple_of(2) => Err(self.wrong(key, format!("is {n}, an odd number"))),
            n if n < least || n > most => {
                Err(self.wrong(key, format!("is {n}, not from {least} to {most}")))
            }
            _ => Ok(()),
        };
        if !is(&NOT_ROTATED) && (rotates || self.arch("rope.dimension_count").is_some()) {
            pairs("rope.dimension_count", all.rotated, if rotates { 2 } else { 0 }, all.keys)?;
        }
        let windows = self.architecture() == "deepseek4" || is(&WINDOWS_ROTATED);
        if windows && (is(&WINDOWS_ROTATED) || self.arch("rope.dimension_count_swa").is_some()) {
            let least = if is(&WINDOWS_ROTATED) { 2 } else { 0 };
            let most = match self.architecture() {
                "gemma4" => window.keys,
                _ => window.keys.max(all.keys),
            };
            pairs("rope.dimension_count_swa", window.rotated, least, most)?;
        }
        self.check_sections(all.keys)
    }

    /// Sections of a head that are rotated by positions of their own.
    fn check_sections(&self, head: u64) -> Checked {
        let key = "rope.dimension_sections";
        let Some(Value::Array(sections)) = self.arch(key) else { return Ok(()) };
        if !IN_SECTIONS.contains(&self.architecture()) {
            return Ok(());
        }
        // libllama reads them as numbers with a sign.
        let all: Vec<u64> = sections.iter().map(|v| v.uint().unwrap_or(u64::MAX)).collect();
        let sum = all.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        if sum > head || all.iter().take(3).all(|&n| n == 0) {
            return Err(self.wrong(key, format!("have {sum} numbers of a head of {head}")));
        }
        Ok(())
    }

    /// Whether a block is computed: the last ones may only guess tokens, which nobody asks for.
    pub(super) fn computes(&self, block: u32) -> bool {
        let guess = self.arch_uint("nextn_predict_layers").unwrap_or(0);
        u64::from(block) < self.n_blocks().saturating_sub(guess)
    }

    /// Weights of keys and values make whole heads, as many as their block has: caches have rows for those.
    pub(super) fn check_rows(&self) -> Checked {
        let Some([all, window]) = self.lengths()? else { return Ok(()) };
        if ROWS_OF_THEIR_OWN.contains(&self.architecture()) {
            return Ok(());
        }
        let n_blocks = self.n_blocks();
        let key = "attention.head_count_kv";
        let heads = self.per_block("attention.head_count", n_blocks)?.unwrap_or_default();
        let kv = self.per_block(key, n_blocks)?.unwrap_or_else(|| heads.clone());
        let own = |key: &str| self.arch_uint(key).unwrap_or(0);
        let keys = [all.keys, window.keys, own("attention.key_length_mla")];
        let values = [all.values, window.values, own("attention.value_length_mla")];
        let by_block = HEADS_BY_BLOCK.contains(&self.architecture());
        let rows = |tensor: &TensorInfo| tensor.shape.get(1).copied().unwrap_or(1);
        for tensor in &self.tensors {
            let Place::Block(Stack::Main, block) = tensor.place else { continue };
            let (key, counts, lengths) = match tensor.role() {
                "attn_q.weight" if by_block => ("attention.head_count", &heads, keys),
                "attn_k.weight" => (key, &kv, keys),
                "attn_v.weight" => (key, &kv, values),
                _ => continue,
            };
            let Some(&n) = counts.get(block as usize).filter(|_| self.computes(block)) else {
                continue;
            };
            if !lengths.iter().any(|&each| n.saturating_mul(each) == rows(tensor)) {
                let name = printable(tensor.name.as_bytes());
                let why =
                    format!("is {n} for block {block}, and '{name}' has {} rows", rows(tensor));
                return Err(self.wrong(key, why));
            }
        }
        Ok(())
    }

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
        // Graphs take the number of the first block for all that have keys.
        let keys = kv.unwrap_or(heads);
        if keys.iter().any(|&k| k > 0) && first.saturating_mul(each) != width {
            let why = format!("is {first}, of {each} numbers each, which do not make {width}");
            return Err(self.wrong("attention.head_count", why));
        }
        Ok(())
    }

    /// Blocks with query weights have query heads.
    pub(super) fn check_attention_tensors(&self) -> Checked {
        if QUERIES_WITHOUT_HEADS.contains(&self.architecture()) {
            return Ok(());
        }
        let n_blocks = self.block_count().unwrap_or(0);
        let heads = self.per_block("attention.head_count", n_blocks)?.unwrap_or_default();
        // With some in the first block, most graphs take that number for all.
        if heads.first().is_some_and(|&n| n > 0) {
            return Ok(());
        }
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

    /// A window in every first block of one would be none.
    pub(super) fn check_windows(&self) -> Checked {
        let key = "attention.sliding_window_pattern";
        let may_have_none = ["exaone-moe", "olmo2", "smallthinker"].contains(&self.architecture());
        let window = self.arch_uint("attention.sliding_window");
        let has = window.map_or(!may_have_none, |n| n > 0);
        if has && SOME_WINDOWS.contains(&self.architecture()) && self.arch_uint(key) == Some(1) {
            return Err(self.wrong(key, "is 1, which leaves no block with a window"));
        }
        let lists = LISTED_WINDOWS.contains(&self.architecture());
        let asserts = lists || has && SOME_WINDOWS.contains(&self.architecture());
        if asserts && self.windows().is_some_and(|windows| !windows.contains(&true)) {
            return Err(self.wrong(key, "leaves no block with a window"));
        }
        Ok(())
    }
}
