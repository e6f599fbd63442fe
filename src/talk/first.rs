//! The first token: there once, whoever wrote it.

use super::{Error, Vocab};
use crate::ggml::Token;

/// Tokens of a text that a template made.
///
/// # Errors
/// As [`Vocab::tokenize`].
pub fn prompt_tokens(text: &str, vocab: &Vocab) -> Result<Vec<Token>, Error> {
    Ok(with_first(vocab.tokenize(text, false, true)?, vocab))
}

/// Tokens of a text that nobody made for this model: what it wants before a text is there once, also where the text begins with it.
///
/// # Errors
/// As [`Vocab::tokenize`].
pub fn raw_tokens(text: &str, vocab: &Vocab) -> Result<Vec<Token>, Error> {
    let mut tokens = vocab.tokenize(text, true, true)?;
    if let [first, second, ..] = tokens[..]
        && first == second
        && vocab.bos() == Some(first)
        && vocab.adds_bos()
    {
        tokens.remove(0);
    }
    Ok(tokens)
}

/// `tokens` with the first one that the vocabulary wants.
pub(super) fn with_first(mut tokens: Vec<Token>, vocab: &Vocab) -> Vec<Token> {
    // Most templates write the first token themselves; it must be there once.
    if let Some(bos) = vocab.bos().filter(|_| vocab.adds_bos())
        && tokens.first() != Some(&bos)
    {
        tokens.insert(0, bos);
    }
    tokens
}
