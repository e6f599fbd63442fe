//! What must come next in a text, whatever the model would say: the rest of a word that was begun, and the end of a thought that is long
//! enough. It draws no samples.

use std::collections::VecDeque;

use crate::engine::Token;
use crate::talk::Vocab;

/// What a text is made to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// What it begins with, and what is not told of it: the end of a prompt that was cut within a word, where other tokens are
    /// likelier.
    pub begins: Vec<u8>,
    /// How long its thought may be.
    pub thought: Option<ThoughtLimit>,
}

/// How long a thought may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThoughtLimit {
    /// The most tokens.
    pub most: usize,
    /// What begins it.
    pub open: String,
    /// What ends it.
    pub close: String,
    /// The tokens that end it.
    pub end: Vec<Token>,
    /// Whether the prompt has begun it.
    pub begun: bool,
}

/// A text on its way.
#[derive(Debug)]
pub(super) struct Way {
    begins: Vec<u8>,
    thought: Option<Thought>,
    /// Tokens that come next.
    next: VecDeque<Token>,
}

#[derive(Debug)]
struct Thought {
    limit: ThoughtLimit,
    /// The text so far, but for what is too old to be a part of a mark.
    text: String,
    /// Tokens of the thought, once it has begun.
    n: Option<usize>,
}

impl Way {
    pub(super) fn new(course: Course) -> Way {
        let thought = course.thought.map(|limit| Thought {
            n: limit.begun.then_some(0),
            text: String::new(),
            limit,
        });
        Way { begins: course.begins, thought, next: VecDeque::new() }
    }

    /// The likeliest token that goes on with what the text must begin with; None where that is over. No grammar knows of it: it is
    /// the prompt's.
    pub(super) fn begin(&mut self, logits: &[f32], vocab: &Vocab) -> Option<Token> {
        if self.begins.is_empty() {
            return None;
        }
        let fits = |token: Token| {
            let bytes = vocab.piece(token);
            let n = bytes.len().min(self.begins.len());
            n > 0 && bytes[..n] == self.begins[..n]
        };
        let all = logits.iter().zip(0..).filter(|(logit, token)| !logit.is_nan() && fits(*token));
        let best = all.max_by(|a, b| a.0.total_cmp(b.0)).map(|(_, token)| token);
        if best.is_none() {
            // Each byte is a token in most vocabularies; where nothing fits, the text goes on as it can.
            self.begins.clear();
        }
        best
    }

    /// Logits of the only token that may come next; None where all may.
    pub(super) fn only(&mut self, n_vocab: usize) -> Option<Vec<f32>> {
        let only = usize::try_from(self.next.pop_front()?).ok()?;
        let logit = |id: usize| if id == only { 0.0 } else { f32::NEG_INFINITY };
        Some((0..n_vocab).map(logit).collect())
    }

    /// A token came, whose text is `bytes`; leaves what is told of it.
    pub(super) fn came(&mut self, bytes: &mut Vec<u8>) {
        let n = bytes.len().min(self.begins.len());
        self.begins.drain(..n);
        bytes.drain(..n);
        let Some(thought) = &mut self.thought else { return };
        if thought.ends(bytes) {
            self.thought = None;
        } else if thought.is_long() {
            self.next.extend(thought.limit.end.iter().copied());
            self.thought = None;
        }
    }
}

impl Thought {
    /// Whether there is no thought any more, or none at all.
    fn ends(&mut self, bytes: &[u8]) -> bool {
        let ThoughtLimit { open, close, .. } = &self.limit;
        self.text.push_str(&String::from_utf8_lossy(bytes));
        match &mut self.n {
            Some(n) => *n += 1,
            None => {
                let said = self.text.trim_start();
                if let Some(rest) = said.strip_prefix(open.as_str()) {
                    self.text = rest.to_owned();
                    self.n = Some(0);
                    return false;
                }
                return !open.starts_with(said);
            }
        }
        if self.text.contains(close.as_str()) {
            return true;
        }
        let mut kept = self.text.len().saturating_sub(close.len());
        while !self.text.is_char_boundary(kept) {
            kept -= 1;
        }
        self.text.drain(..kept);
        false
    }

    fn is_long(&self) -> bool {
        self.n.is_some_and(|n| n >= self.limit.most)
    }
}
