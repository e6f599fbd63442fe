//! Text to tokens, by libllama, in a time that grows with the text and no faster; and how few tokens a text can come to, which is known before.
#![allow(unsafe_code)]

use std::ffi::CStr;

use ggml_sys as sys;
use regex_automata::Input;
use regex_automata::meta::Regex;

use super::model::Token;
use super::result::Error;
use super::texts::{Specials, Spelling};
use super::vocab::Vocab;

/// libllama counts its way to each special token from the beginning of the text: texts are handed over in pieces of about this size, which
/// end behind a special token. (bytes)
const PIECE: usize = 8 << 10;

impl Vocab<'_> {
    /// Text to tokens. `add_special` adds what the model wants around a text (BOS, EOS); `parse_special` reads the texts of
    /// control tokens as those tokens.
    ///
    /// # Errors
    ///
    /// There is no tokenizer, it lacks tokens that it needs for this text, or the text has more than 2 GiB.
    pub fn tokenize(
        self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, Error> {
        if self.is_none() {
            return Err(Error::Invalid("the file has no tokenizer".into()));
        }
        if i32::try_from(text.len()).is_err() {
            return Err(Error::Invalid("the text is too long".into()));
        }
        if add_special && !self.has_what_it_adds() {
            let why = "the vocabulary adds tokens around each text that it does not have";
            return Err(Error::Invalid(why.into()));
        }
        let mut cuts = self.cuts(text, parse_special).into_iter().peekable();
        if cuts.peek().is_none() {
            return self.piece_of(text, add_special, parse_special);
        }
        let around = if add_special { self.piece_of("", true, false)? } else { Vec::new() };
        let (first, last) = around.split_at(around.len().min(usize::from(self.adds_first())));
        let (mut tokens, mut from) = (first.to_vec(), 0);
        for to in cuts.chain([text.len()]) {
            tokens.extend(self.piece_of(&text[from..to], false, parse_special)?);
            from = to;
        }
        tokens.extend(last);
        Ok(tokens)
    }

    /// At least so many tokens does `text` come to, special ones around it left aside. Costs a look at each byte at most.
    pub fn fewest_tokens(self, text: &str) -> usize {
        let spelling = self.1.1.spelling.get_or_init(|| self.spelling());
        let Some(most) = spelling.most else { return 0 };
        let blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0B;
        let dropped = if spelling.drops_blanks { text.bytes().filter(blank).count() } else { 0 };
        (text.len() - dropped).div_ceil(most.max(1))
    }

    /// Tokens of a text, or of a part of one.
    fn piece_of(
        self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, Error> {
        let len = i32::try_from(text.len()).unwrap_or(i32::MAX);
        // No tokenizer makes more tokens than bytes plus what it adds around them; -n asks for n places otherwise.
        let mut tokens = vec![0; text.len() + 8];
        for _ in 0..2 {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: text and tokens are valid for the lengths given; what C++ throws is caught.
            let n = unsafe {
                sys::llama_tokenize(
                    self.as_ptr(),
                    text.as_ptr().cast(),
                    len,
                    tokens.as_mut_ptr(),
                    room,
                    add_special,
                    parse_special,
                )
            };
            if n >= 0 {
                tokens.truncate(n as usize);
                return Ok(tokens);
            }
            if n == i32::MIN {
                let why = "the vocabulary lacks tokens for bytes of this text, or memory ran out";
                return Err(Error::Invalid(why.into()));
            }
            tokens.resize(n.unsigned_abs() as usize, 0);
        }
        Err(Error::Failed { what: "tokenizing the text" })
    }

    /// Whether a token is added before a text.
    fn adds_first(self) -> bool {
        // SAFETY: a valid vocabulary.
        let kind = unsafe { sys::llama_vocab_type(self.as_ptr()) };
        kind == sys::LLAMA_VOCAB_TYPE_WPM || self.adds_bos()
    }

    /// Whether the tokens that are added around a text are there: libllama aborts where they are not.
    fn has_what_it_adds(self) -> bool {
        let vocab = self.as_ptr();
        // SAFETY: a valid vocabulary.
        let (of_bert, adds_last, sep) = unsafe {
            let of_bert = sys::llama_vocab_type(vocab) == sys::LLAMA_VOCAB_TYPE_WPM;
            (of_bert, sys::llama_vocab_get_add_eos(vocab), sys::llama_vocab_sep(vocab))
        };
        (!self.adds_first() || self.bos().is_some())
            && (of_bert || !adds_last || self.eos().is_some())
            && (!of_bert || self.contains(sep))
    }

    /// Where a long text can be cut so that its parts have the tokens of the whole: behind a special token that no other one overlaps.
    fn cuts(self, text: &str, parse_special: bool) -> Vec<usize> {
        let mut cuts = Vec::new();
        if text.len() <= PIECE {
            return cuts;
        }
        let special = self.1.1.special[usize::from(parse_special)]
            .get_or_init(|| self.specials(parse_special));
        let Some(special) = special else { return cuts };
        let mut from = PIECE;
        while from < text.len() {
            from = text.ceil_char_boundary(from);
            let Some(found) = special.any.search(&Input::new(text).range(from..)) else { break };
            from = found.end();
            if from < text.len() && special.stands_alone(text, found.start(), found.end()) {
                cuts.push(from);
                from += PIECE;
            }
        }
        cuts
    }

    /// The text of a token as the vocabulary has it.
    fn text_of(self, token: Token) -> &'static [u8] {
        // SAFETY: a token of this vocabulary; the text lives as long as it, and is not kept.
        unsafe { CStr::from_ptr(sys::llama_vocab_get_text(self.as_ptr(), token)) }.to_bytes()
    }

    fn attributes_of(self, token: Token) -> sys::llama_token_attr {
        // SAFETY: a token of this vocabulary.
        unsafe { sys::llama_vocab_get_attr(self.as_ptr(), token) }
    }

    fn tokens(self) -> std::ops::Range<Token> {
        0..Token::try_from(self.len()).unwrap_or(Token::MAX)
    }

    /// The special tokens; `None` if there are none, or if one takes away blanks behind it, which a cut would keep.
    fn specials(self, parse_special: bool) -> Option<Specials> {
        let (own, control) = (
            sys::LLAMA_TOKEN_ATTR_USER_DEFINED,
            sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN,
        );
        let mut texts = Vec::new();
        for token in self.tokens() {
            let attributes = self.attributes_of(token);
            if attributes & sys::LLAMA_TOKEN_ATTR_RSTRIP != 0 {
                return None;
            }
            let read = if parse_special {
                attributes & (own | control) != 0
            } else {
                attributes & own != 0 && attributes & control == 0
            };
            if read {
                texts.extend(
                    std::str::from_utf8(self.text_of(token)).ok().filter(|t| !t.is_empty()),
                );
            }
        }
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let longest = texts.first()?.len();
        let patterns: Vec<String> = texts.iter().map(|text| regex_syntax::escape(text)).collect();
        Some(Specials { any: Regex::new_many(&patterns).ok()?, longest })
    }

    /// How much of a text a token can stand for. Kinds of vocabularies that leave letters out, or have one token for a whole word that
    /// they do not know, have no limit.
    fn spelling(self) -> Spelling {
        // SAFETY: a valid vocabulary.
        let kind = unsafe { sys::llama_vocab_type(self.as_ptr()) };
        let limited =
            [sys::LLAMA_VOCAB_TYPE_BPE, sys::LLAMA_VOCAB_TYPE_SPM, sys::LLAMA_VOCAB_TYPE_RWKV];
        let strips = sys::LLAMA_TOKEN_ATTR_LSTRIP | sys::LLAMA_TOKEN_ATTR_RSTRIP;
        let (mut longest, mut letters, mut bytes) = (0, 0, 0);
        let mut drops_blanks = false;
        for token in self.tokens() {
            let text = self.text_of(token);
            longest = longest.max(text.len());
            letters += usize::from(is_letter_of_a_byte(text));
            bytes += usize::from(text.len() == 6 && text.starts_with(b"<0x"));
            drops_blanks |= self.attributes_of(token) & strips != 0;
        }
        // A byte without a token is left out by some.
        let whole = kind != sys::LLAMA_VOCAB_TYPE_BPE || letters >= 256 || bytes >= 256;
        Spelling { most: (limited.contains(&kind) && whole).then_some(longest), drops_blanks }
    }
}

/// Whether a token's text is one of the letters that stand for bytes in GPT-2's vocabularies.
fn is_letter_of_a_byte(text: &[u8]) -> bool {
    let mut letters = std::str::from_utf8(text).unwrap_or_default().chars();
    let (Some(letter), None) = (letters.next(), letters.next()) else { return false };
    matches!(letter, '!'..='~' | '¡'..='¬' | '®'..='ÿ' | '\u{100}'..='\u{143}')
}
