//! What libllama assumes of a vocabulary: no token twice, lists of one length, first and last tokens that are there, and bytes where they
//! are needed. What it answers with an exception is not refused here: such a vocabulary may do for the texts that it can read.

use std::collections::HashSet;

use super::check::{Checked, MAX_VOCABULARY, Wrong};
use super::error::printable;
use super::index::Index;
use super::value::{Array, ElementType, Value};

/// The ways of cutting texts into words that the pinned libllama knows, by name (`llama-vocab.cpp`).
#[rustfmt::skip]
const CUTS: [&str; 92] = [
    "a.x-4.0", "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe", "codeshell",
    "cohere2moe", "command-r", "dbrx", "deepseek-coder", "deepseek-llm", "deepseek-r1-qwen", "deepseek-v3", "default",
    "exaone", "exaone-moe", "exaone4", "f2llmv2", "falcon", "falcon-h1", "falcon3", "gemma4",
    "gigachat", "glm4", "glm5", "gpt-2", "gpt-4o", "gpt3-finnish", "granite-docling", "granite-embed-multi-311m",
    "granite-embed-multi-97m", "grok-2", "hunyuan", "hunyuan-dense", "hy_v4", "jais", "jais-2", "jina-de",
    "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es", "jina-v5-nano", "joyai-llm", "kanana2",
    "kimi-k2", "kormo", "laguna", "lfm2", "llada-moe", "llama-bpe", "llama-v3", "llama3",
    "llama4", "megrez", "mellum", "mellum2", "midm-2.0", "minerva-7b", "minicpm5", "minimax-m2",
    "mmbert", "modern-bert", "mpt", "olmo", "phi-2", "pixtral", "poro-chat", "qwen2",
    "qwen35", "refact", "roberta-bpe", "sarvam-moe", "seed-coder", "smaug-bpe", "smollm", "solar-open",
    "spark2_5", "stablelm2", "starcoder", "superbpe", "talkie", "tekken", "tiny_aya", "trillion",
    "ufakzeka", "viking", "whitespace", "youtu",
];

impl Index {
    /// The name of a way of cutting texts into words that libllama does not know: it would refuse the file.
    pub fn unknown_cut(&self) -> Option<&str> {
        let by_pairs = self.meta_str("tokenizer.ggml.model") == Some("gpt2");
        let cut = self.meta_str("tokenizer.ggml.pre").filter(|cut| !cut.is_empty() && by_pairs);
        cut.filter(|cut| !CUTS.contains(cut))
    }

    /// The token list: no two alike, as libllama asserts, and the lists beside it as long.
    pub(super) fn check_vocabulary(&self) -> Checked {
        let wrong = |key: &str, why: String| Err(Wrong { key: key.to_owned(), why });
        let key = "tokenizer.ggml.tokens";
        let Some(tokens) = self.tokens() else { return Ok(()) };
        if tokens.is_empty() || tokens.len() as u64 > MAX_VOCABULARY {
            return wrong(key, format!("has {} tokens", tokens.len()));
        }
        for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
            if let Some(list) = self.meta_array(key)
                && list.len() < tokens.len()
            {
                return wrong(
                    key,
                    format!("has {} values for {} tokens", list.len(), tokens.len()),
                );
            }
        }
        let mut seen = HashSet::with_capacity(tokens.len());
        for (i, token) in tokens.iter_bytes().enumerate() {
            let text = text_of(token, i);
            let shown = printable(&text);
            if !seen.insert(text) {
                let why = format!("has the token '{shown}' twice, the second time as number {i}");
                return wrong(key, why);
            }
        }
        Ok(())
    }

    /// Beginning and end of text are tokens of the vocabulary.
    pub(super) fn check_special_tokens(&self) -> Checked {
        let Some(tokens) = self.tokens() else { return Ok(()) };
        for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
            match self.meta_uint(key) {
                // All ones: "none", as converters write it.
                Some(id) if id != u64::from(u32::MAX) && id >= tokens.len() as u64 => {
                    let why = format!("is {id}, and there are {} tokens", tokens.len());
                    return Err(Wrong { key: key.to_owned(), why });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The token list, unless the file says that it has no vocabulary.
    pub(super) fn tokens(&self) -> Option<&Array> {
        let none =
            matches!(self.meta_str("tokenizer.ggml.model"), None | Some("no_vocab" | "none"));
        let list = self.meta_array("tokenizer.ggml.tokens");
        list.filter(|a| !none && a.element() == ElementType::Str)
    }

    /// Bytes, in vocabularies that cannot do without some of them, or with tokens for them.
    pub(super) fn check_bytes(&self) -> Checked {
        let Some(tokens) = self.tokens() else { return Ok(()) };
        let wrong = |key: &str, why: String| Err(Wrong { key: key.to_owned(), why });
        match self.meta_str("tokenizer.ggml.model") {
            Some("rwkv") => match lone_byte(tokens) {
                Some(byte) => wrong(
                    "tokenizer.ggml.tokens",
                    format!("has tokens that begin with byte 0x{byte:02X}, and none for that byte"),
                ),
                None => Ok(()),
            },
            Some("bert") => {
                let types = self.meta_array("tokenizer.ggml.token_type");
                let is_byte = |kind: Value| kind.uint() == Some(TYPE_BYTE);
                match types.and_then(|types| types.iter().take(tokens.len()).position(is_byte)) {
                    Some(token) => wrong(
                        "tokenizer.ggml.token_type",
                        format!(
                            "says that token {token} is a byte, which this kind of vocabulary has not"
                        ),
                    ),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// `LLAMA_TOKEN_TYPE_BYTE`.
const TYPE_BYTE: u64 = 6;

/// A token's text as libllama has it: it reads C strings, and gives empty ones a name with their number.
fn text_of(token: &[u8], number: usize) -> Vec<u8> {
    match token.split(|&b| b == 0).next() {
        Some([]) | None => format!("[EMPTY_{number}]").into_bytes(),
        Some(text) => text.to_vec(),
    }
}

/// A byte with which tokens begin, none of which is that byte alone: libllama would look for the longest of them, find none, and
/// begin again at the beginning of the text, without end.
fn lone_byte(tokens: &Array) -> Option<u8> {
    let (mut begins, mut alone) = ([false; 256], [false; 256]);
    for (i, token) in tokens.iter_bytes().enumerate() {
        match unescaped(&text_of(token, i)).as_slice() {
            [] => {}
            [byte] => (begins[usize::from(*byte)], alone[usize::from(*byte)]) = (true, true),
            [byte, ..] => begins[usize::from(*byte)] = true,
        }
    }
    (0..=u8::MAX).find(|&byte| begins[usize::from(byte)] && !alone[usize::from(byte)])
}

/// The bytes of a token of RWKV's vocabularies, which are written with backslashes.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b't') => bytes.push(b'\t'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'x') => {
                let mut digit =
                    || rest.next().and_then(|d| char::from(d).to_digit(16)).unwrap_or(0);
                // Two digits, at most 255.
                bytes.push((digit() * 16 + digit()) as u8);
            }
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_with_backslashes() {
        assert_eq!(unescaped(br"a\t\\\xe2\x0A\'"), b"a\t\\\xe2\x0a'");
    }

    /// The names are those in the source of the libllama that is built here.
    #[test]
    fn ways_of_cutting_are_those_of_the_pinned_libllama() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let cargo = || std::process::Command::new(&cargo);
        let about = String::from_utf8(cargo().arg("-vV").output().unwrap().stdout).unwrap();
        let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1", "--offline", "--locked"]);
        // What other systems need may never have been fetched.
        command.args(["--filter-platform", host]);
        let found = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
        let packages = found["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == "llama-cpp-sys-2").unwrap();
        let manifest = std::path::Path::new(package["manifest_path"].as_str().unwrap());
        let source = manifest.with_file_name("llama.cpp").join("src/llama-vocab.cpp");
        let source = std::fs::read_to_string(source).unwrap();
        let names = source.split("tokenizer_pre == \"").skip(1);
        let mut names: Vec<&str> = names.filter_map(|rest| rest.split('"').next()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(CUTS.as_slice(), names);
    }
}
