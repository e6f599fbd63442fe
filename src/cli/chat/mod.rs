//! `airrun chat`: a conversation on a terminal; with stdin piped, one question and one answer.

mod command;
mod repl;

use std::io::{self, IsTerminal};

use crate::cli::args::ChatArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;
use crate::cli::talk::Talk;
use crate::cli::{input, run};

/// Talks until the user leaves, or answers stdin.
pub(crate) fn run(args: &ChatArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let on_terminal = io::stdin().is_terminal();
    // A prompt that cannot be used should not wait for the model.
    let prompt = if on_terminal { None } else { Some(input::stdin_prompt()?) };
    if let Some(prompt) = &prompt {
        input::require_text(prompt)?;
    }
    let mut talk = Talk::open(&args.load, &args.sample, *printer)?;
    let template = talk.engine.chat_template()?;
    if let Some(warning) = template.warning() {
        printer.warn(warning);
    }
    let system = args.system.clone().or_else(|| talk.system.clone());
    match prompt {
        Some(prompt) => {
            let tokens = run::chat_tokens(&talk, &template, system, prompt)?;
            run::finish(&mut talk, &tokens, template.stop())
        }
        None => repl::Repl::new(talk, template, system)?.run(),
    }
}
