//! The commands. Each is a file and begins at `run`; what they share is below them: arguments as
//! typed and as meant, the printer, interrupts, progress, and the way one answer is given.

mod args;
mod batch;
mod bench;
mod bench_text;
mod chat;
mod check_tokenizer;
mod completions;
mod config;
mod devices;
mod doctor;
mod draft;
mod echo;
mod exit;
mod habits;
mod here;
mod household;
mod input;
mod inspect;
mod interrupt;
mod list;
mod logits;
mod man;
mod offer;
mod once;
mod plan;
mod printer;
mod progress;
mod pull;
mod pulling;
mod quantize;
mod resolve;
mod run;
mod sampling;
mod serve;
mod start;
mod talk;
mod trace;
mod wrap;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use args::{Command, DraftArg};
use exit::ExitStatus;
use printer::Printer;

use crate::engine::{Verbosity, set_verbosity};
use crate::heap;
use crate::os::processor;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    heap::keep_small();
    if let Some(feature) = processor::missing() {
        let hint =
            "build it on this machine (make), or for all machines of the kind (make portable)";
        let what =
            format!("this program was built for a processor with {feature}, which this one lacks");
        return exit::report(&exit::Failure::error(what, hint), &Printer::new(false, false)).into();
    }
    let args = match config::arguments() {
        Ok(args) => args,
        Err(config::Stop::File(error)) => {
            return exit::report(&error, &Printer::new(false, false)).into();
        }
        Err(config::Stop::Typed(error)) => {
            if let Some((flag, hint)) = habits::foreign(std::env::args_os().skip(1)) {
                let what = format!("there is no flag '{flag}'");
                Printer::new(false, false).error(&what, Some(hint));
                return ExitStatus::Usage.into();
            }
            let printed = error.print().and_then(|()| io::stdout().flush());
            // Help and version are data, on stdout.
            if let (Err(error), false) = (printed, error.use_stderr()) {
                return exit::report(&error.into(), &Printer::new(false, false)).into();
            }
            if let Some(hint) = habits::hint(&error, std::env::args_os().skip(1)) {
                Printer::new(false, false).hint(&hint);
            }
            let status = if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Ok };
            return status.into();
        }
    };
    let printer = Printer::new(args.quiet, args.verbose);
    set_verbosity(match (args.quiet, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Everything,
        (false, false) => Verbosity::Usual,
    });
    let status = dispatch(args.command, args.config.as_deref(), &printer);
    let status = status.and_then(|status| {
        io::stdout().flush()?;
        Ok(status)
    });
    status.unwrap_or_else(|error| exit::report(&error, &printer)).into()
}

/// Reads a configuration for some commands, without running them: for fuzzing.
pub fn try_config(text: &str) {
    for typed in [&["chat", "m"][..], &["serve", "m", "--port", "0"], &["list"]] {
        drop(config::parse(text, typed));
    }
}

fn dispatch(
    command: Command,
    config: Option<&Path>,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    match command {
        Command::Chat(args) => chat::run(&args, printer),
        Command::Run(args) => run::run(&args, printer),
        Command::Logits(args) => logits::run(&args, printer),
        Command::Doctor(args) => doctor::run(&args, config, printer),
        Command::Completions(args) => completions::run(&args, printer),
        Command::Man(args) => man::run(&args, printer),
        Command::Devices(args) => devices::run(&args, printer),
        Command::Plan(args) => plan::run(&args, printer),
        Command::Bench(args) => match (&args.text, &args.load.draft) {
            (Some(file), DraftArg::Ngram | DraftArg::Mtp | DraftArg::Model(_)) => {
                bench_text::run(&args, file, printer)
            }
            _ => bench::run(&args, printer),
        },
        Command::Batch(args) => batch::run(&args, printer),
        Command::Serve(args) => serve::run(&args, printer),
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
