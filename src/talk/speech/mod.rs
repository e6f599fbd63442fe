//! What models say beside text: thoughts, and calls of tools, each family in marks of its own. [`Dialect`] is what a model's marks are,
//! [`Reader`] tells what an answer says as it comes. It draws no samples and knows no client.

mod calls;
mod dialect;
mod forms;
mod given;
pub mod grammar;
mod head;
mod json;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use dialect::{Dialect, known_marks};
pub use reader::Reader;

use super::tools::Tools;

/// Something that a model said. Texts come in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Some of a thought.
    Thought(String),
    /// Some of the answer.
    Text(String),
    /// A call begins; the arguments that follow are its own.
    Call {
        /// Whom it calls.
        name: String,
        /// Its own name, if the model gave it one.
        id: Option<String>,
    },
    /// Some of a call's arguments: all of them together are the JSON of an object, unless the answer was cut.
    Arguments(String),
}

/// A call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// Its own name, if the model gave it one.
    pub id: Option<String>,
    /// The JSON of an object; a beginning of that where the answer was cut.
    pub arguments: String,
}

/// All that a model said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// What it thought.
    pub thought: String,
    /// The answer.
    pub text: String,
    /// Its calls, in order.
    pub calls: Vec<Call>,
}

impl Spoken {
    /// Adds to it.
    pub fn add(&mut self, said: Said) {
        match said {
            Said::Thought(text) => self.thought += &text,
            Said::Text(text) => self.text += &text,
            Said::Call { name, id } => self.calls.push(Call { name, id, ..Call::default() }),
            Said::Arguments(text) => {
                if let Some(call) = self.calls.last_mut() {
                    call.arguments += &text;
                }
            }
        }
    }
}

/// Who reads an answer to `prompt` by a model that speaks so. `live`: what is certain of a call is told before the call is whole, and
/// cannot be taken back.
pub fn reader(
    dialect: &Arc<Dialect>,
    prompt: &str,
    tools: Option<&Arc<Tools>>,
    live: bool,
) -> Reader {
    Reader::new(Arc::clone(dialect), prompt, tools.cloned(), live)
}
