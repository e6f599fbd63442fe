//! What the texts of a vocabulary's tokens tell of any text: where it can be cut, and how much of it a token can stand for.

use std::sync::OnceLock;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

/// What the texts of a vocabulary's tokens tell; each is found out when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Specials tokens: those that are read in any text, and all.
    pub(super) special: [OnceLock<Option<Specials>>; 2],
    pub(super) spelling: OnceLock<Spelling>,
}

/// Texts that are tokens wherever they stand.
#[derive(Debug)]
pub(super) struct Specials {
    /// Any of them, the longest of those that begin at one place.
    pub(super) any: Regex,
    /// Of the longest. (bytes)
    pub(super) longest: usize,
}

/// How much of a text a token can stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling {
    /// Bytes at most; `None` where it has no limit.
    pub(super) most: Option<usize>,
    /// Whether blanks may be left out.
    pub(super) drops_blanks: bool,
}

impl Specials {
    /// Whether all special tokens that have something of `text[start..end]`, which is one, have nothing else.
    pub(super) fn stands_alone(&self, text: &str, start: usize, end: usize) -> bool {
        let first = start.saturating_sub(self.longest - 1);
        (first..end).filter(|&at| text.is_char_boundary(at)).all(|at| {
            let here = Input::new(text).range(at..).anchored(Anchored::Yes);
            let found = self.any.search(&here).map(|found| found.end());
            found.is_none_or(|to| to <= start || at >= start && to <= end)
        })
    }
}
