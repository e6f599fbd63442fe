//! `airrun man`: the manual, made from the same definitions as `--help`, and what no flag explains: the configuration file
//! and the environment.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::args::{self, ManArgs};
use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;

/// Headings and paragraphs of the first page that no definition holds.
const SECTIONS: [(&str, &[&str]); 3] = [
    (
        "CONFIGURATION",
        &[
            "Flags get their defaults from the file given by --config, or by the variable AIRRUN_CONFIG, or else from \
             ~/.config/airrun/config.toml ($XDG_CONFIG_HOME/airrun/config.toml). Keys are the long names of flags. What stands at \
             the top is for every command that has the flag; a table named after a command is for that command; a table such as \
             [models.\"llama3\"] is for the model that is called so on the command line, or whose file is. A flag on the command \
             line counts more than the file, and the more special table more than the top.",
            "A switch that the file turns on is turned off by --no- before its name, or by its name without that: --no-quiet, \
             --repack.",
            "An empty AIRRUN_CONFIG goes without a file. A key that no flag has, or a value that its flag would refuse, is an error.",
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            "AIRRUN_CONFIG: the configuration file.",
            "AIRRUN_READER: how streamed blocks are read: uring, pread or buffered. By itself airrun measures and remembers.",
            "NO_COLOR: if not empty, nothing is coloured.",
        ],
    ),
    (
        "EXIT STATUS",
        &[
            "0: all went well. 1: something failed, and the last lines on stderr say what and what to do. 2: the command line was \
             wrong. 130: interrupted.",
        ],
    ),
];

/// What a configuration may look like, line by line.
const SAMPLE: [&str; 8] = [
    "ram = \"8G\"",
    "temp = 0.7",
    "",
    "[chat]",
    "system = \"Answer briefly.\"",
    "",
    "[models.\"llama3\"]",
    "ctx = 16384",
];

/// Prints the page of the program, or writes all pages into a folder.
pub(crate) fn run(args: &ManArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    // Pages are the same on every terminal.
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    match &args.dir {
        None => printer.data(&String::from_utf8(page(&command, true)?)?)?,
        Some(dir) => {
            let n_pages = write_all(&command, dir)?;
            printer.dim(format_args!("{n_pages} pages in '{}'", dir.display()));
        }
    }
    Ok(ExitStatus::Ok)
}

/// Writes the pages of the program and of its commands; returns their number.
fn write_all(command: &Command, dir: &Path) -> anyhow::Result<usize> {
    let context = || format!("folder '{}'", dir.display());
    fs::create_dir_all(dir).with_context(context)?;
    let commands: Vec<&Command> = command.get_subcommands().collect();
    for (command, is_program) in commands.iter().map(|c| (*c, false)).chain([(command, true)]) {
        let path = dir.join(Man::new(command.clone()).get_filename());
        fs::write(&path, page(command, is_program)?)
            .with_context(|| format!("page '{}'", path.display()))?;
    }
    Ok(commands.len() + 1)
}

/// The page of one command as roff.
fn page(command: &Command, is_program: bool) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).manual("airrun manual");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if is_program {
        man.render_subcommands_section(&mut out)?;
        sections().to_writer(&mut out)?;
    }
    examples(command).to_writer(&mut out)?;
    if is_program {
        man.render_version_section(&mut out)?;
    }
    Ok(out)
}

/// What help ends with, with its lines as they are.
fn examples(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let Some(text) = command.get_after_help().map(ToString::to_string) else { return roff };
    let body = text.strip_prefix("Examples:\n").unwrap_or(&text);
    roff.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in body.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff
}

fn sections() -> Roff {
    let mut roff = Roff::new();
    for (heading, paragraphs) in SECTIONS {
        roff.control("SH", [heading]);
        for paragraph in paragraphs {
            roff.control("PP", []);
            match paragraph.split_once(": ").filter(|(name, _)| !name.contains(' ')) {
                Some((name, meaning)) => {
                    roff.text([bold(name), roman(": "), roman(meaning)]);
                }
                None => {
                    roff.text([roman(*paragraph)]);
                }
            }
        }
        if heading == "CONFIGURATION" {
            roff.control("PP", []).control("nf", []).control("RS", ["4"]);
            for line in SAMPLE {
                roff.text([roman(line)]);
            }
            roff.control("RE", []).control("fi", []);
        }
    }
    roff
}
