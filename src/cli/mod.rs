//! The commands. Each is a file and begins at `run`; what they share is below them: arguments as
//! typed and as meant, the printer, interrupts, progress, and the way one answer is given.

mod args;
mod bench;
mod chat;
mod check_tokenizer;
mod exit;
mod input;
mod inspect;
mod interrupt;
mod list;
mod logits;
mod plan;
mod printer;
mod progress;
mod pull;
mod quantize;
mod resolve;
mod run;
mod talk;
mod trace;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use exit::ExitStatus;
use printer::Printer;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are data, on stdout; a reader that has gone away is no failure.
            let _ = error.print();
            let status = if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Ok };
            return status.into();
        }
    };
    let printer = Printer::new(args.quiet, args.verbose);
    let status = dispatch(args.command, &printer);
    status.unwrap_or_else(|error| exit::report(&error, &printer)).into()
}

fn dispatch(command: Command, printer: &Printer) -> anyhow::Result<ExitStatus> {
    match command {
        Command::Chat(args) => chat::run(&args, printer),
        Command::Run(args) => run::run(&args, printer),
        Command::Logits(args) => logits::run(&args, printer),
        Command::Plan(args) => plan::run(&args, printer),
        Command::Bench(args) => bench::run(&args, printer),
        Command::Quantize(args) => quantize::run(&args, printer),
        Command::QuantizeWorker(args) => quantize::work(&args, printer),
        Command::Pull(args) => pull::run(&args, printer),
        Command::List(args) => list::run(&args, printer),
        Command::Inspect(args) => {
            let index = resolve::model(&args.model)?.index;
            match &args.check_tokenizer {
                Some(file) => check_tokenizer::run(index, file, args.json, printer),
                None => {
                    inspect::run(&index, &args, &mut io::stdout().lock())?;
                    Ok(ExitStatus::Ok)
                }
            }
        }
    }
}
