//! A conversation: its messages, its file, its tokens, and how it is made to fit the context. It
//! draws no samples and prints nothing.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{self, Ask};
use super::marks::Marks;
use super::template::{ChatTemplate, TemplateError};
use super::{Error, Message, Role, Vocab};
use crate::files;
use crate::ggml::Token;

/// The largest saved conversation that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// The least room for an answer with which a prompt still counts as fitting, in tokens.
const MIN_ROOM: usize = 8;

/// Why a conversation could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template gave no text.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The text has no tokens.
    #[error(transparent)]
    Tokens(#[from] Error),
    /// Even alone, the last message leaves no room for an answer.
    #[error("the message alone takes {n_tokens} tokens, and the context holds {n_ctx}")]
    TooLong {
        /// Tokens of the prompt, with the system message and the markup.
        n_tokens: usize,
        /// Tokens that the context holds.
        n_ctx: usize,
    },
}

/// Why a saved conversation could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not JSON, or not of this form.
    #[error("not a saved conversation: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of this form that is no conversation.
    #[error("not a saved conversation: {0}")]
    Form(&'static str),
}

/// A conversation. User and assistant take turns, the user first, unless somebody else began it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// Instructions for the whole of it.
    #[serde(default)]
    pub system: Option<String>,
    /// What was said, without the system message.
    pub messages: Vec<Message>,
    /// Messages from this one on are what the model is told; the older ones have no room any more.
    #[serde(skip)]
    first: usize,
}

/// A prompt that leaves room for an answer.
#[derive(Debug)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// How many more turns (a question and its answer) the model is not told any longer, for want of room.
    pub n_dropped: usize,
    /// What the template made of it.
    pub asked: ask::Prompt,
}

impl Conversation {
    /// An empty one.
    pub fn new(system: Option<String>) -> Conversation {
        Conversation { system, ..Conversation::default() }
    }

    /// Forgets the messages from number `n` on.
    pub fn truncate(&mut self, n: usize) {
        self.messages.truncate(n);
        self.first = self.first.min(n);
    }

    /// Tells the model everything again: another one may have room for it.
    pub fn from_the_beginning(&mut self) {
        self.first = 0;
    }

    /// Adds a message.
    pub fn push(&mut self, role: Role, content: impl Into<String>) {
        self.messages.push(Message::new(role, content));
    }

    /// Forgets the last message if it is the user's: its answer failed, and templates want turns to
    /// alternate.
    pub fn take_back(&mut self) {
        self.messages.pop_if(|m| m.role == Role::User);
    }

    /// The prompt for the next answer. The oldest turns are left out, of this one and those that follow, until `room` tokens
    /// are left of `n_ctx`; the last message stays, and gets less room if it must. The conversation itself keeps them.
    ///
    /// # Errors
    /// The last message alone does not fit, or the template or the tokenizer fails; then nothing more is
    /// left out.
    pub fn prompt(
        &mut self,
        template: &ChatTemplate,
        vocab: &Vocab,
        n_ctx: usize,
        room: usize,
    ) -> Result<Prompt, ChatError> {
        let (mut first, mut n_dropped) = (self.first, 0);
        let marks = template.quotable(vocab);
        loop {
            let asked = self.asked_from(first, template, &marks)?;
            let text = asked.text();
            let next = self.next_turn(first);
            // What cannot fit is not cut into tokens, which takes longer.
            let fewest = vocab.fewest_tokens(&text);
            if fewest > n_ctx {
                let Some(next) = next else {
                    return Err(ChatError::TooLong { n_tokens: fewest, n_ctx });
                };
                (first, n_dropped) = (next, n_dropped + 1);
                continue;
            }
            let (tokens, _) = asked.tokens(&marks, vocab)?;
            let room = if next.is_some() { room } else { room.min(MIN_ROOM) };
            match next {
                _ if tokens.len() + room <= n_ctx => {
                    self.first = first;
                    return Ok(Prompt { tokens, n_dropped, asked });
                }
                Some(next) => (first, n_dropped) = (next, n_dropped + 1),
                None => return Err(ChatError::TooLong { n_tokens: tokens.len(), n_ctx }),
            }
        }
    }

    /// Writes it to `path` as JSON: all of it or nothing.
    ///
    /// # Errors
    /// What the system says; a file that was there stays as it was.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        files::write(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// The file cannot be read, or is not a conversation.
    pub fn load(path: &Path) -> Result<Conversation, LoadError> {
        let text = files::read(path, MAX_FILE)?;
        // Editors of some systems begin with a mark of byte order.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let loaded: Conversation = serde_json::from_slice(text)?;
        // Whose turn it was is the template's matter: a model's keeper may begin a conversation as it likes.
        if loaded.messages.iter().any(|message| message.role == Role::System) {
            return Err(LoadError::Form("the system message is among the others"));
        }
        if loaded.messages.last().is_some_and(|m| m.role == Role::User) {
            return Err(LoadError::Form("the last question has no answer"));
        }
        Ok(loaded)
    }

    /// The prompt of the conversation from message `first` on, with the opening of the answer.
    fn asked_from(
        &self,
        first: usize,
        template: &ChatTemplate,
        marks: &Marks,
    ) -> Result<ask::Prompt, ChatError> {
        let system = self.system.iter().map(|text| Message::new(Role::System, text.as_str()));
        let messages = system.chain(self.messages[first..].iter().cloned());
        let message = |m: Message| json!({"role": m.role.as_str(), "content": m.content});
        let ask = Ask { messages: messages.map(message).collect(), ..Ask::default() };
        Ok(template.prompt(&ask, marks)?)
    }

    /// Where the turn after the one at `first` begins, if there is one.
    fn next_turn(&self, first: usize) -> Option<usize> {
        let later = self.messages.iter().enumerate().skip(first + 1);
        later.filter(|(_, m)| m.role == Role::User).map(|(i, _)| i).next()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn talk() -> Conversation {
        let mut talk = Conversation::new(Some("Be brief.".to_owned()));
        talk.push(Role::User, "Größe?\n\"\"\"");
        talk.push(Role::Assistant, "Groß \u{1f980}");
        talk
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talk.json");
        for talk in [Conversation::default(), talk()] {
            talk.save(&path).unwrap();
            assert_eq!(Conversation::load(&path).unwrap(), talk);
        }
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(talk().save(dir.path()).is_err());
        assert!(talk().save(&dir.path().join("no/such/dir")).is_err());
        assert!(talk().save(Path::new("..")).is_err());
    }

    #[test]
    fn what_is_no_conversation_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talk.json");
        let user = r#"{"role":"user","content":"a"}"#;
        let assistant = r#"{"role":"assistant","content":"b"}"#;
        for text in [
            "",
            "[]",
            "{}",
            "not JSON",
            r#"{"messages":[{"role":"wizard","content":""}]}"#,
            r#"{"messages":[],"more":1}"#,
            &format!(r#"{{"messages":[{user}]}}"#),
            &format!(r#"{{"messages":[{user},{user}]}}"#),
            r#"{"messages":[{"role":"system","content":"a"},{"role":"assistant","content":"b"}]}"#,
            r#"{"messages":[],"first":1}"#,
            &"[".repeat(100_000),
        ] {
            fs::write(&path, text).unwrap();
            assert!(Conversation::load(&path).is_err(), "{text}");
        }
        for (text, n) in [
            (format!(r#"{{"messages":[{user},{assistant}]}}"#), 2),
            // As a model's keeper begins it.
            (format!(r#"{{"messages":[{assistant},{user},{user},{assistant}]}}"#), 4),
            (format!("\u{feff}{{\"messages\":[{user},{assistant}]}}"), 2),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(Conversation::load(&path).unwrap().messages.len(), n);
        }
        assert!(Conversation::load(dir.path()).is_err());
    }

    #[test]
    fn only_a_question_is_taken_back() {
        let mut talk = talk();
        talk.take_back();
        assert_eq!(talk.messages.len(), 2);
        talk.push(Role::User, "?");
        talk.take_back();
        assert_eq!(talk.messages.len(), 2);
    }
}
