//! `airrun man`: the manual, made from the same definitions as `--help`, and what no flag explains: the configuration file
//! and the environment.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{self, Stdio};

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::args::{self, ManArgs};
use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;

/// Columns of the page on a terminal.
const WIDTH: usize = 80;

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
            "AIRRUN_MODELS: folders with models, beside those of other programs, with colons between them.",
            "AIRRUN_API_KEY: the key that `serve` asks clients for.",
            "HF_ENDPOINT: the address of the Hugging Face hub, or of a mirror of it.",
            "HF_TOKEN: what `pull` shows the hub, for models that are not for everyone.",
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
        None if printer.answer_on_terminal() => show(&text(&mut command), printer)?,
        None => printer.data(&String::from_utf8(page(&command, true)?)?)?,
        Some(dir) => {
            let n_pages = write_all(&command, dir)?;
            printer.dim(format_args!("{n_pages} pages in '{}'", dir.display()));
        }
    }
    Ok(ExitStatus::Ok)
}

/// The page of the program for a terminal: what roff would say, without needing `man`.
fn text(command: &mut Command) -> String {
    let mut text = format!(
        "NAME\n    airrun - {}\n\n",
        command.get_about().map(ToString::to_string).unwrap_or_default()
    );
    for line in command.render_long_help().to_string().lines() {
        // Headings of help are headings here.
        match line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            Some(heading) => text += &heading.to_uppercase(),
            None => text += line,
        }
        text.push('\n');
    }
    for (heading, paragraphs) in SECTIONS {
        text += &format!("\n{heading}\n");
        for paragraph in paragraphs {
            text += &wrapped(paragraph);
        }
        if heading == "CONFIGURATION" {
            let sample =
                SAMPLE.iter().map(|line| format!("        {line}").trim_end().to_owned() + "\n");
            text += &format!("\n{}", sample.collect::<String>());
        }
    }
    text + "\nEach command has help of its own: airrun COMMAND --help\n"
}

/// A paragraph in lines of at most [`WIDTH`] columns, after an empty line.
fn wrapped(paragraph: &str) -> String {
    let (mut text, mut column) = (String::from("\n   "), 3);
    for word in paragraph.split_whitespace() {
        if column + 1 + word.len() > WIDTH {
            text += "\n   ";
            column = 3;
        }
        text += &format!(" {word}");
        column += 1 + word.len();
    }
    text + "\n"
}

/// Shows `text` in a pager where there is one, as `man` does.
fn show(text: &str, printer: &Printer) -> io::Result<()> {
    let pager = env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    let pager = pager.unwrap_or_else(|| "less".to_owned());
    let mut words = pager.split_whitespace();
    let mut command = process::Command::new(words.next().unwrap_or("less"));
    // What fits the screen is left on it.
    command.args(words).env("LESS", env::var_os("LESS").unwrap_or("FRX".into()));
    let Ok(mut child) = command.stdin(Stdio::piped()).spawn() else { return printer.data(text) };
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever has read enough closes it.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait().map(|_| ())
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
