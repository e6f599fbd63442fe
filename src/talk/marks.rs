//! Marks that somebody quotes stay text: what a user, a tool or a document says never becomes a role, a call or an end of turn.
//!
//! Where a text to be rendered has the text of a control token, a sign that no text has is put into it, before the template sees it. The
//! prompt is then cut at the control tokens that are whole, which the template wrote; what lies between is tokenized as text.

use std::collections::HashMap;

use serde_json::Value;

use super::{Error, Vocab};
use crate::ggml::{Special, Token};

/// Bytes of a mark by which it is looked up; shorter ones are no marks.
const KEY: usize = 3;

/// The signs: in a control token's text, and in that of another token that means something. Private characters, tried in order.
const SIGNS: [[char; 2]; 4] = [
    ['\u{f8f0}', '\u{f8f1}'],
    ['\u{f0f0}', '\u{f0f1}'],
    ['\u{e0f0}', '\u{e0f1}'],
    ['\u{10f0f0}', '\u{10f0f1}'],
];

/// The tokens of a vocabulary that control.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    tokens: Vec<(String, Token, Special)>,
    by_key: HashMap<[u8; KEY], Vec<usize>>,
}

/// Texts with signs in their marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs([char; 2]);

impl Marks {
    /// Those of `vocab`: its control tokens, and of the others those for which `means` holds.
    pub(super) fn of(vocab: &Vocab, means: &dyn Fn(&str) -> bool) -> Marks {
        let mut marks = Marks::default();
        for (token, text, special) in vocab.specials() {
            if text.len() < KEY || (special == Special::Added && !means(&text)) {
                continue;
            }
            let mut key = [0; KEY];
            key.copy_from_slice(&text.as_bytes()[..KEY]);
            marks.by_key.entry(key).or_default().push(marks.tokens.len());
            marks.tokens.push((text, token, special));
        }
        // The longest wins.
        for list in marks.by_key.values_mut() {
            list.sort_by_key(|&i| usize::MAX - marks.tokens[i].0.len());
        }
        marks
    }

    fn at(&self, text: &str) -> Option<&(String, Token, Special)> {
        let key = text.as_bytes().get(..KEY)?;
        let list = self.by_key.get(<&[u8; KEY]>::try_from(key).ok()?)?;
        list.iter().map(|&i| &self.tokens[i]).find(|(mark, _, _)| text.starts_with(mark.as_str()))
    }

    /// Whether `text` has the text of one for which `counts` holds.
    pub(super) fn are_in(&self, text: &str, counts: &dyn Fn(&str) -> bool) -> bool {
        let begins = text.char_indices().filter_map(|(at, _)| self.at(&text[at..]));
        begins.into_iter().any(|(mark, _, _)| counts(mark))
    }

    /// `text` with a sign after the first character of each that counts.
    pub(super) fn signed(&self, text: &str, signs: Signs, counts: &dyn Fn(&str) -> bool) -> String {
        let mut out = String::with_capacity(text.len() + 8);
        for (at, c) in text.char_indices() {
            out.push(c);
            if let Some((mark, _, special)) = self.at(&text[at..])
                && counts(mark)
            {
                out.push(signs.0[usize::from(*special == Special::Added)]);
            }
        }
        out
    }

    /// The tokens of a prompt with signs.
    pub(super) fn tokens(
        &self,
        prompt: &str,
        signs: Signs,
        vocab: &Vocab,
    ) -> Result<Vec<Token>, Error> {
        let mut tokens = Vec::new();
        let (mut begin, mut at) = (0, 0);
        while at < prompt.len() {
            match self.at(&prompt[at..]) {
                Some((mark, token, Special::Control)) => {
                    text_tokens(&prompt[begin..at], signs, vocab, &mut tokens)?;
                    tokens.push(*token);
                    at += mark.len();
                    begin = at;
                }
                _ => at += prompt[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        text_tokens(&prompt[begin..], signs, vocab, &mut tokens)?;
        Ok(tokens)
    }
}

fn text_tokens(text: &str, signs: Signs, vocab: &Vocab, out: &mut Vec<Token>) -> Result<(), Error> {
    let [control, added] = signs.0;
    // A token that was added is found wherever its text is whole.
    for part in text.split(added).filter(|part| !part.is_empty()) {
        out.extend(vocab.tokenize(&part.replace(control, ""), false, false)?);
    }
    Ok(())
}

impl Signs {
    /// Signs that none of `texts` has.
    pub(super) fn free_of(texts: &[&Value]) -> Option<Signs> {
        let has = |c: char| texts.iter().any(|text| strings_have(text, c));
        SIGNS.iter().find(|signs| !signs.iter().any(|&c| has(c))).map(|signs| Signs(*signs))
    }

    /// `text` without them.
    pub(super) fn removed(self, text: &str) -> String {
        text.replace(self.0, "")
    }
}

fn strings_have(value: &Value, c: char) -> bool {
    match value {
        Value::String(text) => text.contains(c),
        Value::Array(items) => items.iter().any(|item| strings_have(item, c)),
        Value::Object(map) => map.iter().any(|(key, v)| key.contains(c) || strings_have(v, c)),
        _ => false,
    }
}

/// Changes all texts in `value`.
pub(super) fn map_strings(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| map_strings(item, change)),
        Value::Object(map) => map.values_mut().for_each(|value| map_strings(value, change)),
        _ => {}
    }
}

/// Whether one of the texts in `value` is so.
pub(super) fn any_string(value: &Value, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is(text),
        Value::Array(items) => items.iter().any(|item| any_string(item, is)),
        Value::Object(map) => map.values().any(|value| any_string(value, is)),
        _ => false,
    }
}
