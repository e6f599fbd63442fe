//! `airrun completions`: a script that teaches a shell this program's commands and flags, and, where a few lines do it, the names of
//! the models on this machine, which the shell asks of `airrun list` when it needs them.

use clap::Command;
use clap_complete::Shell;

use crate::cli::args::{self, CompletionsArgs};
use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;

/// What completes names of models, by shell.
const BASH: &str = include_str!("completions/models.bash");
const ZSH: &str = include_str!("completions/models.zsh");
const FISH: &str = include_str!("completions/models.fish");

/// What stands in them for the commands that take a MODEL.
const COMMANDS: &str = "COMMANDS";

/// The end of zsh's script: by then, all functions must be there.
const ZSH_END: &str = "\nif [ \"$funcstack[1]\"";

/// Prints the script for `args.shell`.
pub(crate) fn run(args: &CompletionsArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "airrun", &mut script);
    printer.data(&with_models(args.shell, String::from_utf8(script)?, &args::command()))?;
    Ok(ExitStatus::Ok)
}

/// `script` with what completes names of models.
fn with_models(shell: Shell, script: String, command: &Command) -> String {
    let takers = command.get_subcommands().filter(|sub| takes_model(sub) && !sub.is_hide_set());
    let names: Vec<&str> = takers.map(Command::get_name).collect();
    match shell {
        Shell::Bash => script + &BASH.replace(COMMANDS, &names.join("|")),
        Shell::Fish => script + &FISH.replace(COMMANDS, &names.join(" ")),
        Shell::Zsh => {
            let line = |line: &str| match line.strip_prefix("':model -- ") {
                Some(_) => line.replace(":_files'", ":_airrun_models'") + "\n",
                None => format!("{line}\n"),
            };
            let script: String = script.lines().map(line).collect();
            script.replacen(ZSH_END, &format!("{ZSH}{ZSH_END}"), 1)
        }
        _ => script,
    }
}

/// Whether a command takes a MODEL.
fn takes_model(command: &Command) -> bool {
    command.get_positionals().any(|arg| arg.get_id() == "model")
}
