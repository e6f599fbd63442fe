//! `airrun completions`: a script that teaches a shell this program's commands and flags.

use crate::cli::args::{self, CompletionsArgs};
use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;

/// Prints the script for `args.shell`.
pub(crate) fn run(args: &CompletionsArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "airrun", &mut script);
    printer.data(&String::from_utf8(script)?)?;
    Ok(ExitStatus::Ok)
}
