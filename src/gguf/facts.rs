//! Answers about a model as a whole: what it is called, how large it is, how it is quantised, which
//! tokenizer it brings. They are for people and for plans; whether the values make sense is the
//! matter of `check`.

use std::collections::HashMap;

use super::index::{Block, Index, TensorInfo};
use super::names;
use super::place::Place;
use super::types::GgmlType;
use super::value::{Array, Value};
use crate::units::Bytes;

/// A tensor of experts: as many slices of equal size, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// How many.
    pub count: u64,
    /// Bytes of one; expert `i` begins `i` times as many bytes after the tensor's first.
    pub each: Bytes,
}

/// The tokenizer that a file brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenizer<'a> {
    /// `tokenizer.ggml.model`: `llama`, `gpt2`, `bert`, ...; `none` or `no_vocab` if there is none.
    pub model: &'a str,
    /// `tokenizer.ggml.pre`: how text is cut before merging.
    pub pre: Option<&'a str>,
    /// Number of tokens.
    pub n_tokens: usize,
}

impl Index {
    /// The value of a metadata key.
    pub fn meta(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The value of a metadata key if it is a whole number of at least 0.
    pub fn meta_uint(&self, key: &str) -> Option<u64> {
        self.metadata.uint(key)
    }

    /// The value of a metadata key if it is a number.
    pub fn meta_float(&self, key: &str) -> Option<f64> {
        self.metadata.float(key)
    }

    /// The value of a metadata key if it is a string.
    pub fn meta_str(&self, key: &str) -> Option<&str> {
        self.metadata.str(key)
    }

    /// The value of a metadata key if it is a boolean.
    pub fn meta_bool(&self, key: &str) -> Option<bool> {
        self.metadata.bool(key)
    }

    /// The value of a metadata key if it is an array.
    pub fn meta_array(&self, key: &str) -> Option<&Array> {
        self.metadata.array(key)
    }

    /// The value of `ARCHITECTURE.key`, whatever it is.
    pub fn arch(&self, key: &str) -> Option<&Value> {
        self.meta(&format!("{}.{key}", self.architecture()))
    }

    /// The value of `ARCHITECTURE.key` if it is a whole number of at least 0.
    pub fn arch_uint(&self, key: &str) -> Option<u64> {
        self.arch(key).and_then(Value::uint)
    }

    /// `general.architecture`, such as `qwen3moe`: every index has one.
    pub fn architecture(&self) -> &str {
        self.meta_str("general.architecture").unwrap_or_default()
    }

    /// The name that the model gives itself; else that of its file, without `.gguf`.
    pub fn name(&self) -> String {
        if let Some(name) = self.meta_str("general.name").map(str::trim).filter(|n| !n.is_empty()) {
            return name.to_owned();
        }
        let stem = self.files.first().and_then(|f| f.path.file_stem());
        stem.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What to call it in a line about it: the file's name, unless that is a hash.
    pub fn title(&self) -> String {
        let file = self.files.first().and_then(|f| f.path.file_name());
        let file = file.map(|name| name.to_string_lossy().into_owned());
        file.filter(|name| !name.starts_with("sha256")).unwrap_or_else(|| self.name())
    }

    /// Gives a name to a model that has none of its own.
    pub fn offer_name(&mut self, name: &str) {
        let own = self.meta_str("general.name").is_some_and(|n| !n.trim().is_empty());
        if !own {
            self.metadata.set("general.name", Value::Str(name.to_owned()));
        }
    }

    /// Gives a chat template to a model whose file has none.
    pub fn offer_chat_template(&mut self, template: &str) {
        if self.chat_template().is_none() {
            self.metadata.set("tokenizer.chat_template", Value::Str(template.to_owned()));
        }
    }

    /// The context it was trained for, in tokens.
    pub fn context_length(&self) -> Option<u64> {
        self.arch_uint("context_length")
    }

    /// The number of blocks that its metadata claim; [`Index::blocks`] are those that the file has.
    pub fn block_count(&self) -> Option<u64> {
        self.arch_uint("block_count")
    }

    /// The number of its parameters: all elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::elements).fold(0, u64::saturating_add)
    }

    /// The bytes of all its tensors.
    pub fn bytes(&self) -> Bytes {
        self.tensors.iter().map(|t| t.len).sum()
    }

    /// The bytes of the tensors of one place.
    pub fn bytes_of(&self, place: Place) -> Bytes {
        self.tensors.iter().filter(|t| t.place == place).map(|t| t.len).sum()
    }

    /// The block at `place`.
    pub fn block(&self, place: Place) -> Option<&Block> {
        self.blocks.iter().find(|b| b.place() == place)
    }

    /// The largest of the blocks, the embedding and the output, with its bytes; `None` without
    /// tensors.
    pub fn largest_unit(&self) -> Option<(Place, Bytes)> {
        let blocks = self.blocks.iter().map(|b| (b.place(), b.len));
        let others = [Place::Embedding, Place::Output].map(|p| (p, self.bytes_of(p)));
        // Of equals the first, so a model of equal blocks names block 0.
        blocks
            .chain(others)
            .filter(|u| u.1 > Bytes::ZERO)
            .reduce(|a, b| if b.1 > a.1 { b } else { a })
    }

    /// The largest block.
    pub fn largest_block(&self) -> Option<&Block> {
        self.blocks.iter().reduce(|a, b| if b.len > a.len { b } else { a })
    }

    /// How the model is quantised, as people say it: `Q4_K - Medium`; without `general.file_type`,
    /// the type that holds most of its bytes.
    pub fn file_type_name(&self) -> String {
        let stated = self.meta_uint("general.file_type").and_then(file_type);
        stated.map_or_else(|| self.main_type().to_string(), str::to_owned)
    }

    /// The type that holds most of the bytes.
    fn main_type(&self) -> GgmlType {
        let mut bytes: HashMap<GgmlType, Bytes> = HashMap::new();
        for t in &self.tensors {
            *bytes.entry(t.ty).or_default() += t.len;
        }
        // Of equals the lower number: a map has no order of its own.
        bytes
            .into_iter()
            .max_by_key(|&(ty, b)| (b, u32::MAX - ty.0))
            .map_or(GgmlType(0), |(ty, _)| ty)
    }

    /// The chat template that the file brings.
    pub fn chat_template(&self) -> Option<&str> {
        self.meta_str("tokenizer.chat_template").filter(|t| !t.is_empty())
    }

    /// The tokenizer that the file brings, if it names one.
    pub fn tokenizer(&self) -> Option<Tokenizer<'_>> {
        Some(Tokenizer {
            model: self.meta_str("tokenizer.ggml.model")?,
            pre: self.meta_str("tokenizer.ggml.pre"),
            n_tokens: self.meta_array("tokenizer.ggml.tokens").map_or(0, Array::len),
        })
    }

    /// The slices of a tensor of experts (`*_exps`); `None` for all other tensors. The last
    /// dimension counts the experts.
    pub fn experts(&self, tensor: &TensorInfo) -> Option<Experts> {
        let count = *tensor.shape.last()?;
        // Trailing dimensions of 1 are not stored, so the last one may be another: it must be what
        // the model says.
        let is_experts = names::is_experts(tensor.role()) && count > 1;
        let slices = is_experts && self.arch_uint("expert_count") == Some(count);
        let even = slices && tensor.len.0.is_multiple_of(count);
        even.then(|| Experts { count, each: Bytes(tensor.len.0 / count) })
    }
}

/// What the numbers of `general.file_type` stand for (`llama_ftype`).
fn file_type(number: u64) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K - Medium",
        11 => "Q3_K - Small",
        12 => "Q3_K - Medium",
        13 => "Q3_K - Large",
        14 => "Q4_K - Small",
        15 => "Q4_K - Medium",
        16 => "Q5_K - Small",
        17 => "Q5_K - Medium",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K - Small",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_S mix",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4 MoE",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}
