//! An answer as a row of blocks, one after the other: thoughts, texts and calls. Protocols that number them (Anthropic's, and
//! OpenAI's Responses) tell when each begins, grows and ends.

use super::answers::{Message, News};
use super::error::ApiError;
use crate::engine::Finish;
use crate::engine::batch::Ended;
use crate::talk::speech::{Reader, Said};

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Thought,
    Text,
    Call { name: String, id: String },
}

/// A block. Of a call, the text is its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// What happened to the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Block `.0` begins.
    Open(usize),
    /// It grows.
    Grow(usize, String),
    /// It is whole.
    Close(usize),
}

/// The blocks of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) all: Vec<Block>,
    /// Whether the last of them goes on.
    open: bool,
    /// Whether thoughts are left out.
    silent: bool,
}

impl Blocks {
    /// None yet; thoughts will be left out if `silent`.
    pub(super) fn new(silent: bool) -> Blocks {
        Blocks { silent, ..Blocks::default() }
    }

    /// Adds what was said. A call that has no name of its own gets the next of `id`.
    pub(super) fn add(&mut self, said: Said, id: impl FnOnce(usize) -> String) -> Vec<Step> {
        let mut steps = Vec::new();
        match said {
            Said::Thought(text) if !self.silent => self.grow(&mut steps, Kind::Thought, text),
            Said::Thought(_) => {}
            Said::Text(text) => self.grow(&mut steps, Kind::Text, text),
            Said::Call { name, id: own } => {
                let id = own.unwrap_or_else(|| id(self.all.len()));
                self.begin(&mut steps, Kind::Call { name, id });
            }
            Said::Arguments(text) => {
                if let Some(Block { kind: Kind::Call { .. }, text: all }) = self.all.last_mut() {
                    *all += &text;
                    steps.push(Step::Grow(self.all.len() - 1, text));
                }
            }
        }
        steps
    }

    /// Nothing more will be said. An answer without any block has an empty text.
    pub(super) fn finish(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.all.is_empty() {
            self.begin(&mut steps, Kind::Text);
        }
        self.end(&mut steps);
        steps
    }

    fn grow(&mut self, steps: &mut Vec<Step>, kind: Kind, text: String) {
        let goes_on = self.open && self.all.last().is_some_and(|block| block.kind == kind);
        if !goes_on {
            // Blank lines between a thought and a call are no answer.
            if text.trim().is_empty() {
                return;
            }
            self.begin(steps, kind);
        }
        if let Some(last) = self.all.last_mut() {
            last.text += &text;
            steps.push(Step::Grow(self.all.len() - 1, text));
        }
    }

    fn begin(&mut self, steps: &mut Vec<Step>, kind: Kind) {
        self.end(steps);
        self.open = true;
        self.all.push(Block { kind, text: String::new() });
        steps.push(Step::Open(self.all.len() - 1));
    }

    fn end(&mut self, steps: &mut Vec<Step>) {
        if std::mem::take(&mut self.open) {
            steps.push(Step::Close(self.all.len() - 1));
        }
    }

    /// Whether something is called.
    pub(super) fn calls(&self) -> bool {
        self.all.iter().any(|block| matches!(block.kind, Kind::Call { .. }))
    }
}

/// Who tells a client of blocks, each in the words of its protocol.
pub(super) trait Tell {
    /// Takes what was said; its events.
    fn add(&mut self, said: Said) -> String;
    /// The answer has ended; the last events.
    fn end(&mut self, ended: Ended) -> String;
}

/// Takes what the worker says; its events.
///
/// # Errors
///
/// The answer cannot be ended well.
pub(super) fn told(
    reply: &mut impl Tell,
    reader: &mut Reader,
    message: Message,
) -> Result<String, ApiError> {
    match message.news {
        News::Reading(_) => Ok(String::new()),
        News::Piece(piece) => {
            let said = reader.push(&piece.text);
            Ok(said.into_iter().map(|said| reply.add(said)).collect())
        }
        News::End(ended) => {
            let ended = ended?;
            let said = reader.finish(ended.finish != Finish::Stop);
            let events: String = said.into_iter().map(|said| reply.add(said)).collect();
            Ok(events + &reply.end(ended))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_grow_and_end_in_order() {
        let mut blocks = Blocks::new(false);
        let mut steps = Vec::new();
        for said in [
            Said::Thought("Hm".into()),
            Said::Thought(".".into()),
            Said::Text("\n".into()),
            Said::Text("Yes".into()),
            Said::Call { name: "f".into(), id: None },
            Said::Arguments("{}".into()),
        ] {
            steps.extend(blocks.add(said, |i| format!("id{i}")));
        }
        steps.extend(blocks.finish());
        let call = Kind::Call { name: "f".into(), id: "id2".into() };
        let kinds: Vec<&Kind> = blocks.all.iter().map(|block| &block.kind).collect();
        assert_eq!(kinds, [&Kind::Thought, &Kind::Text, &call]);
        assert_eq!(blocks.all[0].text, "Hm.");
        let opened = steps.iter().filter(|s| matches!(s, Step::Open(_))).count();
        let closed = steps.iter().filter(|s| matches!(s, Step::Close(_))).count();
        assert_eq!((opened, closed), (3, 3));
        assert_eq!(steps[0], Step::Open(0));
        assert_eq!(steps[3], Step::Close(0));
        assert!(blocks.calls());
    }

    #[test]
    fn thoughts_may_be_left_out_and_nothing_is_an_empty_text() {
        let mut blocks = Blocks::new(true);
        assert_eq!(blocks.add(Said::Thought("Hm".into()), |_| String::new()), []);
        assert_eq!(blocks.finish(), [Step::Open(0), Step::Close(0)]);
        assert_eq!(blocks.all[0].kind, Kind::Text);
    }
}
