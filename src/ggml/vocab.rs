//! Vocabularies: tokens as bytes, and those that mean something to the machine.

use std::ptr::NonNull;

use ggml_sys as sys;

use super::model::{Model, Token};

/// A model's vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Vocab<'a>(NonNull<sys::llama_vocab>, pub(super) &'a Model);

/// Why a token's text is found in texts as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// It controls: a role, an end.
    Control,
    /// Somebody added it.
    Added,
}

impl Model {
    /// Its vocabulary.
    pub fn vocab(&self) -> Vocab<'_> {
        // SAFETY: a valid model always has a vocabulary object, which lives as long as it.
        let vocab = unsafe { sys::llama_model_get_vocab(self.0.as_ptr()) };
        Vocab(NonNull::new(vocab.cast_mut()).expect("a model has a vocabulary"), self)
    }
}

impl Vocab<'_> {
    /// Number of tokens.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a vocabulary is not a collection to be emptied"
    )]
    pub fn len(self) -> usize {
        // SAFETY: a valid vocabulary.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(super) fn as_ptr(self) -> *const sys::llama_vocab {
        self.0.as_ptr()
    }

    /// Whether it can turn text into tokens at all.
    pub fn is_none(self) -> bool {
        // SAFETY: a valid vocabulary.
        unsafe { sys::llama_vocab_type(self.0.as_ptr()) == sys::LLAMA_VOCAB_TYPE_NONE }
    }

    /// The bytes a token stands for: not always whole UTF-8. Control tokens give nothing unless `special`.
    pub fn piece(self, token: Token, special: bool) -> Vec<u8> {
        if !self.contains(token) || self.is_none() {
            return Vec::new();
        }
        let mut bytes = vec![0_u8; 32];
        loop {
            let room = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: a token of this vocabulary, and room for as many bytes as said.
            let n = unsafe {
                sys::llama_token_to_piece(
                    self.0.as_ptr(),
                    token,
                    bytes.as_mut_ptr().cast(),
                    room,
                    0,
                    special,
                )
            };
            if n >= 0 {
                bytes.truncate(n as usize);
                return bytes;
            }
            bytes.resize(n.unsigned_abs() as usize, 0);
        }
    }

    /// Why a token's text is found in texts as a whole, if it is.
    pub fn special(self, token: Token) -> Option<Special> {
        if !self.contains(token) {
            return None;
        }
        // SAFETY: a valid vocabulary and a token that is in it.
        let attributes = unsafe { sys::llama_vocab_get_attr(self.0.as_ptr(), token) };
        let has = |attribute: sys::llama_token_attr| attributes & attribute != 0;
        if has(sys::LLAMA_TOKEN_ATTR_CONTROL) {
            Some(Special::Control)
        } else {
            has(sys::LLAMA_TOKEN_ATTR_USER_DEFINED).then_some(Special::Added)
        }
    }

    /// Whether `token` is one of this vocabulary.
    pub fn contains(self, token: Token) -> bool {
        usize::try_from(token).is_ok_and(|t| t < self.len())
    }

    /// Whether `token` ends a generation (end of text, of turn, of message: every one the model knows).
    pub fn is_eog(self, token: Token) -> bool {
        // SAFETY: a valid vocabulary and a token that is in it.
        self.contains(token) && unsafe { sys::llama_vocab_is_eog(self.0.as_ptr(), token) }
    }

    /// Beginning of sequence.
    pub fn bos(self) -> Option<Token> {
        // SAFETY: a valid vocabulary.
        Some(unsafe { sys::llama_vocab_bos(self.0.as_ptr()) }).filter(|&t| self.contains(t))
    }

    /// End of sequence.
    pub fn eos(self) -> Option<Token> {
        // SAFETY: a valid vocabulary.
        Some(unsafe { sys::llama_vocab_eos(self.0.as_ptr()) }).filter(|&t| self.contains(t))
    }

    /// What stands before a beginning, before an end, and where the middle between them is to be written, in models made for that.
    pub fn fill_in(self) -> Option<[Token; 3]> {
        // SAFETY: a valid vocabulary.
        let tokens = unsafe {
            [
                sys::llama_vocab_fim_pre(self.0.as_ptr()),
                sys::llama_vocab_fim_suf(self.0.as_ptr()),
                sys::llama_vocab_fim_mid(self.0.as_ptr()),
            ]
        };
        tokens.iter().all(|&t| self.contains(t)).then_some(tokens)
    }

    /// What stands between two texts, where each of them ends with EOS besides.
    pub fn between_texts(self) -> Option<Token> {
        // SAFETY: a valid vocabulary.
        let (both, sep) = unsafe {
            let both = sys::llama_vocab_get_add_eos(self.0.as_ptr())
                && sys::llama_vocab_get_add_sep(self.0.as_ptr());
            (both, sys::llama_vocab_sep(self.0.as_ptr()))
        };
        (both && sep >= 0).then_some(sep)
    }

    /// Whether texts begin with BOS.
    pub fn adds_bos(self) -> bool {
        // SAFETY: a valid vocabulary.
        unsafe { sys::llama_vocab_get_add_bos(self.0.as_ptr()) }
    }
}
