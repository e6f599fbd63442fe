//! A tokenizer of the user's own (`tokenizer.json`), for files whose tokenizer is missing or wrong.
//! libllama's is the reference for GGUF files, and is used wherever nobody names another.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::Error;
use super::hush::hushed;
use crate::ggml::Token;
use crate::gguf::{ElementType, Index};

/// The largest file that is read: the largest in use has 34 MB. (bytes)
const MAX_FILE: u64 = 96 << 20;

/// Texts of tokens that end an answer, whatever the model: the file does not say which do.
const ENDS: [&str; 14] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "</s>",
    "<|end_of_sentence|>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// How a token's text stands for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each character for a byte, as GPT-2 does.
    Bytes,
    /// Characters, `▁` for a blank, `<0x0A>` for a byte.
    Blanks,
    /// As the decoder of the file says.
    Decoder,
}

/// A tokenizer of the user's own.
#[derive(Debug)]
pub struct OwnTokenizer {
    /// Reads control tokens' texts as those tokens.
    special: Tokenizer,
    /// Reads them as any text.
    plain: Tokenizer,
    spelling: Spelling,
    bos: Option<Token>,
    ends: Vec<Token>,
    /// Number of merges, where the file has such.
    n_merges: Option<usize>,
    path: PathBuf,
}

impl OwnTokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is not a tokenizer.
    pub fn open(path: &Path) -> Result<OwnTokenizer, Error> {
        let wrong = |why: String| Error::Own { path: path.to_owned(), why };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
        let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
        let len = read.map_err(|e| wrong(e.to_string()))?;
        if len as u64 > MAX_FILE {
            return Err(wrong("it is larger than any tokenizer".to_owned()));
        }
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|e| wrong(format!("not a tokenizer.json: {e}")))?;
        // The library checks what it reads, but not all of it.
        let parsed = hushed(|| Tokenizer::from_bytes(&bytes).map_err(|e| e.to_string()));
        let parsed = parsed.unwrap_or_else(|_| Err("it makes no sense".to_owned()));
        let mut special = parsed.map_err(|e| wrong(format!("not a tokenizer.json: {e}")))?;
        special.with_padding(None);
        special.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        special.set_encode_special_tokens(false);
        let mut plain = special.clone();
        plain.set_encode_special_tokens(true);
        let merges = json.pointer("/model/merges").and_then(Value::as_array);
        let mut own = OwnTokenizer {
            spelling: spelling(json.get("decoder").unwrap_or(&Value::Null)),
            n_merges: merges.map(Vec::len),
            path: path.to_owned(),
            bos: None,
            ends: Vec::new(),
            special,
            plain,
        };
        own.ends = ENDS.iter().filter_map(|text| own.find(text)).collect();
        own.bos = own.tokenize("", true, true)?.first().copied().filter(|t| !own.ends.contains(t));
        Ok(own)
    }

    /// One more than the largest number of a token.
    pub fn len(&self) -> usize {
        let added =
            self.special.get_added_tokens_decoder().keys().max().map_or(0, |n| *n as usize + 1);
        self.special.get_vocab_size(true).max(added)
    }

    /// Number of merges, where the file has such.
    pub fn n_merges(&self) -> Option<usize> {
        self.n_merges
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Text to tokens, as [`Vocab::tokenize`](super::Vocab::tokenize) says.
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, Error> {
        let tokenizer = if parse_special { &self.special } else { &self.plain };
        let wrong = |why: String| Error::Own { path: self.path.clone(), why };
        let encode = || tokenizer.encode_fast(text, add_special).map_err(|e| e.to_string());
        let encoded = hushed(encode);
        let encoded =
            encoded.unwrap_or_else(|_| Err("it fails on this text".to_owned())).map_err(wrong)?;
        encoded
            .get_ids()
            .iter()
            .map(|&id| Token::try_from(id).map_err(|_| wrong(format!("token {id} is too large"))))
            .collect()
    }

    /// The bytes of a token; those of control tokens only if `special`.
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        let Ok(id) = u32::try_from(token) else { return Vec::new() };
        if let Some(added) = self.special.get_added_vocabulary().get_added_tokens_decoder().get(&id)
        {
            let shown = special || !added.special;
            return if shown { added.content.clone().into_bytes() } else { Vec::new() };
        }
        let Some(text) = self.special.id_to_token(id) else { return Vec::new() };
        match self.spelling {
            Spelling::Bytes => from_gpt2(&text),
            Spelling::Blanks => from_blanks(&text),
            Spelling::Decoder => self.special.decode(&[id], false).unwrap_or_default().into_bytes(),
        }
    }

    /// The token with exactly this text.
    pub fn find(&self, text: &str) -> Option<Token> {
        self.special.token_to_id(text).and_then(|id| Token::try_from(id).ok())
    }

    /// Whether a token ends an answer.
    pub fn is_eog(&self, token: Token) -> bool {
        self.ends.contains(&token)
    }

    /// The token that it puts before a text.
    pub fn bos(&self) -> Option<Token> {
        self.bos
    }

    /// The first of the tokens that end an answer.
    pub fn eos(&self) -> Option<Token> {
        self.ends.first().copied()
    }

    /// Refuses a tokenizer that has tokens the model cannot know.
    pub fn check(&self, n_vocab: usize) -> Result<(), Error> {
        let n = self.len();
        if n > n_vocab {
            let why = format!("it has {n} tokens, and the model knows {n_vocab}");
            return Err(Error::Own { path: self.path.clone(), why });
        }
        Ok(())
    }

    /// How many tokens are others than those of the file at the same number, of how many; `None` where they cannot be compared.
    pub fn differing(&self, index: &Index) -> Option<(usize, usize)> {
        // WordPiece is stored in another spelling.
        let model = index.meta_str("tokenizer.ggml.model")?;
        let list = index
            .meta_array("tokenizer.ggml.tokens")
            .filter(|a| a.element() == ElementType::Str)?;
        if !matches!(model, "gpt2" | "llama" | "gemma4") {
            return None;
        }
        let mut differ = self.len().saturating_sub(list.len());
        for (id, text) in (0..self.len()).zip(list.iter_bytes()) {
            let own = u32::try_from(id).ok().and_then(|id| self.special.id_to_token(id));
            differ += usize::from(own.is_some_and(|own| own.as_bytes() != text));
        }
        Some((differ, self.len()))
    }
}

/// What a `decoder` says about the texts of tokens.
fn spelling(decoder: &Value) -> Spelling {
    let text = decoder.to_string();
    if text.contains("\"ByteLevel\"") {
        Spelling::Bytes
    } else if text.contains("\"Metaspace\"")
        || text.contains("\"ByteFallback\"")
        || text.contains('\u{2581}')
    {
        Spelling::Blanks
    } else {
        Spelling::Decoder
    }
}

/// GPT-2 writes printable Latin-1 bytes as themselves, and the others as the characters from U+0100 on.
fn from_gpt2(text: &str) -> Vec<u8> {
    let itself = |c: u32| {
        (0x21..=0x7e).contains(&c) || (0xa1..=0xac).contains(&c) || (0xae..=0xff).contains(&c)
    };
    let others: Vec<u8> = (0..=255_u8).filter(|&b| !itself(b.into())).collect();
    let mut bytes = Vec::new();
    for c in text.chars() {
        let number = u32::from(c);
        let other = number.checked_sub(256).and_then(|n| others.get(n as usize));
        match (u8::try_from(number), other) {
            (Ok(byte), _) if itself(number) => bytes.push(byte),
            (_, Some(&byte)) => bytes.push(byte),
            // Not of this spelling: as it stands.
            _ => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

fn from_blanks(text: &str) -> Vec<u8> {
    let byte = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => text.replace('\u{2581}', " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bytes() {
        assert_eq!(from_gpt2("\u{120}Gr\u{c3}\u{b6}\u{10a}"), " Gr\u{f6}\n".as_bytes());
        assert_eq!(from_blanks("\u{2581}a"), b" a");
        assert_eq!(from_blanks("<0xF0>"), [0xf0]);
        assert_eq!(from_blanks("<0xZZ>"), b"<0xZZ>");
    }

    #[test]
    fn the_tiny_tokenizer_says_what_it_reads() {
        let path: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "models", "tiny-chat-tokenizer.json"].iter().collect();
        let own = OwnTokenizer::open(&path).unwrap();
        assert_eq!((own.len(), own.n_merges, own.bos), (2048, Some(1789), None));
        for text in ["Größe, 3.14\n\tx  y", "e\u{301} 你好 🦀", "<|im_start|>user\nHi<|im_end|>"]
        {
            let tokens = own.tokenize(text, false, true).unwrap();
            let bytes: Vec<u8> = tokens.iter().flat_map(|&t| own.piece(t, true)).collect();
            assert_eq!(String::from_utf8_lossy(&bytes), text);
        }
        let end = own.find("<|im_end|>").unwrap();
        assert!(own.is_eog(end) && own.piece(end, false).is_empty());
        assert_eq!(own.tokenize("<|im_end|>", false, true).unwrap(), [end]);
        assert!(own.tokenize("<|im_end|>", false, false).unwrap().len() > 1);
        assert!(own.check(2048).is_ok() && own.check(2047).is_err());
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.json");
        for text in [
            "",
            "{}",
            "[1]",
            "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[[\"a\",\"b\"]]}}",
            &"[".repeat(100_000),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(OwnTokenizer::open(&path).is_err(), "{text:.40}");
        }
        assert!(OwnTokenizer::open(&dir.path().join("none")).is_err());
    }
}
