//! Texts of the user's: prompts, typed as an argument or on stdin, and files that flags name.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::Context;

use crate::cli::exit::Failure;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};

/// The longest prompt that is read from stdin, in bytes.
pub(crate) const MAX_PROMPT: u64 = 64 << 20;

/// The prompt: `typed`, what stdin holds, or both, the typed one first and an empty line between them. From a terminal nothing is
/// read: then it is `typed`, or none.
pub(crate) fn prompt(typed: Option<&str>, printer: &Printer) -> anyhow::Result<Option<String>> {
    if io::stdin().is_terminal() {
        return Ok(typed.map(str::to_owned));
    }
    // Whoever started the program may have left it a stdin that never ends: then that is what is seen.
    let status = Status::start(printer, Watched::Step("reading stdin".to_owned()));
    let read = stdin_text()?;
    drop(status);
    Ok(Some(match typed {
        None => read,
        Some(typed) if read.trim().is_empty() => typed.to_owned(),
        Some(typed) => format!("{typed}\n\n{read}"),
    }))
}

/// All of stdin as text, without its last line end.
fn stdin_text() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_PROMPT + 1).read_to_end(&mut bytes).context("stdin")?;
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(Failure::error("stdin: longer than 64 MiB", "give a shorter prompt"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::error(
            format!("stdin: not UTF-8 at byte {at}"),
            "convert the text to UTF-8 first, for example with iconv",
        )
    })?;
    unmark(&mut text);
    let end = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).map_or(text.len(), str::len);
    text.truncate(end);
    Ok(text)
}

/// What some editors and shells put before a text is no part of it.
fn unmark(text: &mut String) {
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
}

/// The text of a file, which may be a pipe, of at most `most` bytes.
pub(crate) fn text_of(file: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(most.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long"));
    }
    unmark(&mut text);
    Ok(text)
}

/// Refuses a prompt without text.
pub(crate) fn require_text(prompt: &str) -> anyhow::Result<()> {
    if prompt.trim().is_empty() {
        return Err(Failure::error(
            "the prompt is empty",
            "give some text after the model or on stdin",
        ));
    }
    Ok(())
}
