//! Text to tokens and back, by the model's own tokenizer or by one that speaks instead of it.

use std::sync::Arc;

use super::Error;
use super::tokenizer::OwnTokenizer;
use crate::ggml::{Model, Special, Token};

/// A model's vocabulary: text to tokens and back.
#[derive(Clone, Debug)]
pub struct Vocab {
    model: Arc<Model>,
    /// Speaks instead of the model's own.
    own: Option<Arc<OwnTokenizer>>,
}

impl Vocab {
    /// The vocabulary of a model, for which `own` speaks where there is one.
    pub fn of(model: Arc<Model>, own: Option<Arc<OwnTokenizer>>) -> Vocab {
        Vocab { model, own }
    }

    /// The tokenizer that speaks instead of the model's.
    pub fn own(&self) -> Option<&OwnTokenizer> {
        self.own.as_deref()
    }

    /// Whether it can turn text into tokens: a file without a tokenizer cannot.
    pub fn reads_text(&self) -> bool {
        self.own.is_some() || !self.model.vocab().is_none()
    }

    /// Text to tokens. `add_special` adds what the model wants around a text; `parse_special` reads control tokens' texts.
    ///
    /// # Errors
    ///
    /// Texts of more than 2 GiB.
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, Error> {
        if let Some(own) = &self.own {
            return own.tokenize(text, add_special, parse_special);
        }
        Ok(self.model.vocab().tokenize(text, add_special, parse_special)?)
    }

    /// At least so many tokens does `text` come to; 0 if that cannot be known. Far cheaper than its tokens.
    pub fn fewest_tokens(&self, text: &str) -> usize {
        match &self.own {
            Some(_) => 0,
            None => self.model.vocab().fewest_tokens(text),
        }
    }

    /// The bytes of a token as they appear in an answer: none for control tokens, not always whole characters.
    pub fn piece(&self, token: Token) -> Vec<u8> {
        match &self.own {
            Some(own) => own.piece(token, false),
            None => self.model.vocab().piece(token, false),
        }
    }

    /// The bytes of a token, control tokens too.
    pub fn bytes(&self, token: Token) -> Vec<u8> {
        match &self.own {
            Some(own) => own.piece(token, true),
            None => self.model.vocab().piece(token, true),
        }
    }

    /// The text of a token, control tokens too.
    pub fn text(&self, token: Token) -> String {
        String::from_utf8_lossy(&self.bytes(token)).into_owned()
    }

    /// The token whose text is exactly `text`, a control token for example.
    pub fn find(&self, text: &str) -> Option<Token> {
        if let Some(own) = &self.own {
            return own.find(text);
        }
        match self.model.vocab().tokenize(text, false, true).as_deref() {
            Ok(&[token]) => Some(token),
            _ => None,
        }
    }

    /// The tokens whose texts are found in texts as a whole. None with a tokenizer of the user's own, which keeps them to itself.
    pub fn specials(&self) -> Vec<(Token, String, Special)> {
        let vocab = self.model.vocab();
        let all = (0..vocab.len()).filter(|_| self.own.is_none());
        let tokens = all.filter_map(|id| Token::try_from(id).ok());
        let special = |token| Some((token, self.text(token), vocab.special(token)?));
        tokens.filter_map(special).collect()
    }

    /// Whether a token ends the answer.
    pub fn is_eog(&self, token: Token) -> bool {
        match &self.own {
            Some(own) => own.is_eog(token),
            None => self.model.vocab().is_eog(token),
        }
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<Token> {
        match &self.own {
            Some(own) => own.bos(),
            None => self.model.vocab().bos(),
        }
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<Token> {
        match &self.own {
            Some(own) => own.eos(),
            None => self.model.vocab().eos(),
        }
    }

    /// Whether texts begin with BOS.
    pub fn adds_bos(&self) -> bool {
        match &self.own {
            Some(own) => own.bos().is_some(),
            None => self.model.vocab().adds_bos(),
        }
    }

    /// What stands between two texts that are one prompt, where each of them ends with EOS besides.
    pub(super) fn between_texts(&self) -> Option<Token> {
        match &self.own {
            Some(_) => None,
            None => self.model.vocab().between_texts(),
        }
    }

    /// The prompt for what is missing between two texts; `None` for a model that was not made to fill in.
    ///
    /// # Errors
    ///
    /// As [`Vocab::tokenize`].
    pub fn between(&self, before: &str, after: &str) -> Result<Option<Vec<Token>>, Error> {
        let Some([first, then, here]) = self.model.vocab().fill_in() else { return Ok(None) };
        // The texts are somebody's, and no control tokens are in them.
        let (before, after) =
            (self.tokenize(before, false, false)?, self.tokenize(after, false, false)?);
        let bos = self.bos().filter(|_| self.adds_bos());
        let opening = bos.into_iter().chain([first]);
        Ok(Some(opening.chain(before).chain([then]).chain(after).chain([here]).collect()))
    }

    /// Number of tokens.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a vocabulary is not a collection to be emptied"
    )]
    pub fn len(&self) -> usize {
        self.model.vocab().len()
    }
}
