//! How the program ends: the exit statuses, errors with a hint, and the last line on stderr.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::process::ExitCode;

use crate::cli::printer::Printer;
use crate::models::FindError;
use crate::talk::chat::ChatError;
use crate::{engine, gguf, hub};

/// Room for an answer in the context that a hint proposes, in tokens.
const SPARE: usize = 256;

/// What the exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// All went well.
    Ok,
    /// Something failed, and the last line on stderr says what.
    Failed,
    /// The command line was wrong.
    Usage,
    /// Ctrl-C.
    Interrupted,
}

impl ExitStatus {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            ExitStatus::Ok => 0,
            ExitStatus::Failed => 1,
            ExitStatus::Usage => 2,
            ExitStatus::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status.code())
    }
}

/// A failure of the command itself, with what the user can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    what: String,
    hint: Cow<'static, str>,
}

impl Failure {
    /// An error to return.
    pub(crate) fn error(
        what: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> anyhow::Error {
        Failure { what: what.into(), hint: hint.into() }.into()
    }
}

/// Says what went wrong. A reader that has gone away is not worth a word.
pub(crate) fn report(error: &anyhow::Error, printer: &Printer) -> ExitStatus {
    if is_broken_pipe(error) {
        return ExitStatus::Ok;
    }
    printer.error(&describe(error), hint(error).as_deref());
    ExitStatus::Failed
}

/// The error and its causes on one line, each said once: some errors repeat their cause in their
/// own text.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What to do about it.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause: &(dyn Error + 'static)| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.hint.clone().into_owned());
        }
        if let Some(error) = cause.downcast_ref::<gguf::Error>() {
            return Some(error.hint().to_owned());
        }
        if let Some(error) = cause.downcast_ref::<hub::Error>() {
            return Some(error.hint());
        }
        if let Some(error) = cause.downcast_ref::<FindError>() {
            return Some(error.hint());
        }
        match cause.downcast_ref::<ChatError>() {
            Some(ChatError::Tokens(error)) => error.hint().map(str::to_owned),
            Some(ChatError::Template(error)) => Some(error.hint().to_owned()),
            Some(ChatError::TooLong { n_tokens, .. }) => {
                Some(format!("make the context larger, such as -c {}", n_tokens + SPARE))
            }
            _ => cause.downcast_ref::<engine::Error>()?.hint(),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        let json = cause.downcast_ref::<serde_json::Error>();
        io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            || json.is_some_and(|e| e.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    })
}
