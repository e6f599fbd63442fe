//! Prompts from stdin.

use std::io::{self, IsTerminal, Read};

use anyhow::Context;

use crate::cli::exit::Failure;

/// The longest prompt that is read from stdin, in bytes.
const MAX_PROMPT: u64 = 64 << 20;

/// All of stdin as text, without its last line end.
pub(crate) fn stdin_prompt() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        return Err(Failure::error("no prompt", "give it after the model, or pipe it into stdin"));
    }
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
    let end = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).map_or(text.len(), str::len);
    text.truncate(end);
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
