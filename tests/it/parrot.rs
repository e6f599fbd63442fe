//! Writes parrots: models of one block whose every token has one successor, so that they say the same whatever they are asked. With them,
//! what becomes of a model's words is tested through the whole program.

use std::collections::HashMap;
use std::path::Path;

use crate::gguf_writer::{self as gguf, Gguf, Payload, Tensor};

/// A model that says `says`.
pub(crate) struct Parrot<'a> {
    pub(crate) says: &'a str,
    pub(crate) template: &'a str,
    /// Control tokens; their texts in `says` are these tokens.
    pub(crate) control: &'a [&'a str],
    /// The token after which it begins to speak: a prompt must end with it.
    pub(crate) after: &'a str,
    pub(crate) eos: &'a str,
    /// More keys of the file.
    pub(crate) more: Vec<(&'a str, Payload)>,
}

pub(crate) const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

impl Default for Parrot<'_> {
    fn default() -> Self {
        Parrot {
            says: "",
            template: CHATML,
            control: &[],
            after: "\n",
            eos: "<|im_end|>",
            more: vec![],
        }
    }
}

/// GPT-2's letter for a byte.
fn letter(byte: u8) -> char {
    let plain = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if plain(byte) {
        return char::from(byte);
    }
    let n = (0..byte).filter(|&b| !plain(b)).count();
    char::from_u32(256 + u32::try_from(n).unwrap()).unwrap()
}

fn spelled(text: &str) -> String {
    text.bytes().map(letter).collect()
}

/// `text` cut into different pieces of some characters, so that each tells which comes next; control tokens are pieces. None is `after`.
pub(crate) fn pieces(text: &str, control: &[&str], after: &str) -> Vec<String> {
    let (mut out, mut rest) = (Vec::<String>::new(), text);
    'pieces: while !rest.is_empty() {
        if let Some(mark) = control.iter().find(|mark| rest.starts_with(**mark)) {
            out.push((*mark).to_owned());
            rest = &rest[mark.len()..];
            continue;
        }
        let next = control.iter().filter_map(|mark| rest.find(mark)).min().unwrap_or(rest.len());
        let ends = rest[..next].char_indices().map(|(at, c)| at + c.len_utf8()).skip(3);
        for end in ends.chain([next]) {
            if rest[..end] != *after && !out.iter().any(|piece| piece == &rest[..end]) {
                out.push(rest[..end].to_owned());
                rest = &rest[end..];
                continue 'pieces;
            }
        }
        // What is left was said before: it ends the piece before it.
        match out.last_mut() {
            Some(last) if !control.contains(&last.as_str()) => last.push_str(&rest[..next]),
            _ => panic!("'{rest}' is not different from what was said before"),
        }
        assert_eq!(out.iter().filter(|piece| *piece == &out[out.len() - 1]).count(), 1);
        rest = &rest[next..];
    }
    out
}

fn f16(ones: &[(usize, usize)], width: usize, rows: usize) -> Vec<u8> {
    let mut data = vec![0; 2 * width * rows];
    for (row, column) in ones {
        data[2 * (row * width + column) + 1] = 0x3c;
    }
    data
}

impl Parrot<'_> {
    /// Writes it into `dir`; returns its path.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> String {
        let mut control = vec!["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
        for mark in self.control.iter().chain([&self.eos]) {
            if !control.contains(mark) {
                control.push(mark);
            }
        }
        let mut tokens: Vec<String> = control.iter().map(|&t| t.to_owned()).collect();
        tokens.extend((0..=255).map(|byte| letter(byte).to_string()));
        let mut index: HashMap<String, usize> = tokens.iter().cloned().zip(0..).collect();
        let mut chain = Vec::new();
        for piece in pieces(self.says, self.control, self.after) {
            let word = if control.contains(&piece.as_str()) { piece } else { spelled(&piece) };
            let at = *index.entry(word.clone()).or_insert(tokens.len());
            if at == tokens.len() {
                tokens.push(word);
            }
            chain.push(at);
        }
        chain.push(index[self.eos]);
        let mut follows: HashMap<usize, usize> = chain.windows(2).map(|w| (w[0], w[1])).collect();
        let after = index.get(self.after).copied().unwrap_or_else(|| index[&spelled(self.after)]);
        assert!(follows.insert(after, chain[0]).is_none(), "it says what it begins after");
        let (n, width) = (tokens.len(), tokens.len().div_ceil(64) * 64);
        let identity: Vec<(usize, usize)> = (0..n).map(|i| (i, i)).collect();
        let end = index[self.eos];
        let next: Vec<(usize, usize)> =
            (0..n).map(|i| (follows.get(&i).copied().unwrap_or(end), i)).collect();
        let mut file = Gguf::new();
        file.keys.clear();
        self.keys(&mut file, &tokens, control.len(), width, u32::try_from(end).unwrap());
        let mut add = |name: &str, dims: &[usize], ones: Option<&[(usize, usize)]>| {
            let dims64: Vec<u64> = dims.iter().map(|&d| d as u64).collect();
            let mut tensor = Tensor::f32(name, &dims64);
            match dims {
                [width] => tensor.data = 1_f32.to_le_bytes().repeat(*width),
                dims => {
                    tensor.ty = 1;
                    tensor.data = f16(ones.unwrap_or_default(), dims[0], dims[1]);
                }
            }
            file.tensors.push(tensor);
        };
        add("token_embd.weight", &[width, n], Some(&identity));
        add("output_norm.weight", &[width], None);
        add("output.weight", &[width, n], Some(&next));
        add("blk.0.attn_norm.weight", &[width], None);
        for (name, dims) in [
            ("attn_q", [width, width]),
            ("attn_k", [width, 64]),
            ("attn_v", [width, 64]),
            ("attn_output", [width, width]),
        ] {
            add(&format!("blk.0.{name}.weight"), &dims, None);
        }
        add("blk.0.ffn_norm.weight", &[width], None);
        for (name, dims) in [("gate", [width, 64]), ("up", [width, 64]), ("down", [64, width])] {
            add(&format!("blk.0.ffn_{name}.weight"), &dims, None);
        }
        let path = dir.join(format!("{name}.gguf"));
        std::fs::write(&path, file.bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn keys(&self, file: &mut Gguf, tokens: &[String], n_control: usize, width: usize, eos: u32) {
        let width = u32::try_from(width).unwrap();
        let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let kinds: Vec<i32> =
            (0..tokens.len()).map(|i| if i < n_control { 3 } else { 1 }).collect();
        let merge = format!("{} {}", letter(0), letter(1));
        for (key, value) in [
            ("general.architecture", gguf::str("llama")),
            ("general.name", gguf::str("parrot")),
            ("llama.context_length", gguf::u32(2048)),
            ("llama.embedding_length", gguf::u32(width)),
            ("llama.block_count", gguf::u32(1)),
            ("llama.feed_forward_length", gguf::u32(64)),
            ("llama.attention.head_count", gguf::u32(width / 64)),
            ("llama.attention.head_count_kv", gguf::u32(1)),
            ("llama.attention.layer_norm_rms_epsilon", gguf::f32(1e-5)),
            ("llama.rope.dimension_count", gguf::u32(64)),
            ("tokenizer.ggml.model", gguf::str("gpt2")),
            ("tokenizer.ggml.pre", gguf::str("qwen2")),
            ("tokenizer.ggml.tokens", gguf::strings(&texts)),
            ("tokenizer.ggml.token_type", gguf::i32s(&kinds)),
            ("tokenizer.ggml.merges", gguf::strings(&[&merge])),
            ("tokenizer.ggml.bos_token_id", gguf::u32(0)),
            ("tokenizer.ggml.eos_token_id", gguf::u32(eos)),
            ("tokenizer.ggml.add_bos_token", Payload(7, vec![0])),
            ("tokenizer.chat_template", gguf::str(self.template)),
        ] {
            file.set(key, value);
        }
        for (key, value) in &self.more {
            file.set(key, Payload(value.0, value.1.clone()));
        }
    }
}
