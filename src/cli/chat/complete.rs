//! What Tab completes in a conversation: commands, files, names of settings.

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::command::NAMES;
use crate::cli::interrupt::Interrupt;
use crate::cli::sampling;

/// The line editor's helper.
pub(super) struct Keys {
    files: FilenameCompleter,
    interrupt: Interrupt,
}

impl Keys {
    pub(super) fn new(interrupt: Interrupt) -> Keys {
        Keys { files: FilenameCompleter::default(), interrupt }
    }
}

impl Completer for Keys {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        ctx: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..pos];
        let Some((command, rest)) = before.split_once(' ') else {
            let names = NAMES
                .iter()
                .filter(|(name, _)| before.starts_with('/') && name.starts_with(before));
            let pair = |&(name, more): &(&str, bool)| Pair {
                display: name.to_owned(),
                replacement: if more { format!("{name} ") } else { name.to_owned() },
            };
            return Ok((0, names.map(pair).collect()));
        };
        match command {
            "/save" | "/load" | "/read" => self.files.complete(line, pos, ctx),
            "/set" if !rest.contains(' ') => {
                let names = sampling::SETTINGS.iter().filter(|name| name.starts_with(rest));
                let pair = |name: &&str| Pair {
                    display: (*name).to_owned(),
                    replacement: format!("{name} "),
                };
                Ok((pos - rest.len(), names.map(pair).collect()))
            }
            _ => Ok((pos, Vec::new())),
        }
    }
}

impl Hinter for Keys {
    type Hint = String;

    /// None; but it is asked for whenever the editor shows its line, so it has the keyboard.
    fn hint(&self, _: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.interrupt.waits();
        None
    }
}

impl Highlighter for Keys {}
impl Validator for Keys {}
impl Helper for Keys {}
