//! Where words go: stdout is data, stderr is talk. Colour and progress are decided here, once.

use std::borrow::Cow;
use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use base64::Engine as _;

use crate::cli::wrap::{self, Wrap};

/// Writes everything that the commands write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    color: bool,
    progress: bool,
    answer_on_terminal: bool,
    quiet: bool,
    verbose: bool,
}

impl Printer {
    /// Looks at the terminal and the environment.
    pub(crate) fn new(quiet: bool, verbose: bool) -> Printer {
        let terminal = io::stderr().is_terminal() && !is_dumb();
        Printer {
            color: terminal && may_color(),
            progress: terminal && !quiet,
            answer_on_terminal: io::stdout().is_terminal(),
            quiet,
            verbose,
        }
    }

    /// Whether progress may be drawn on stderr.
    pub(crate) fn progress(&self) -> bool {
        self.progress
    }

    /// Asks the terminal to put `text` into its clipboard (OSC 52), which works from afar, too; whether there is a terminal.
    pub(crate) fn clipboard(&self, text: &str) -> bool {
        let terminal = io::stderr().is_terminal() && !is_dumb();
        if terminal {
            // Only letters and digits: nothing in a text can end the sequence.
            let letters = base64::engine::general_purpose::STANDARD.encode(text);
            let mut out = io::stderr();
            let _ = write!(out, "\x1b]52;c;{letters}\x07").and_then(|()| out.flush());
        }
        terminal
    }

    /// Whether data on stdout may be coloured.
    pub(crate) fn color_data(&self) -> bool {
        self.answer_on_terminal && may_color()
    }

    /// Whether stdout is a terminal, so that what is drawn on stderr shares the screen with the
    /// answer.
    pub(crate) fn answer_on_terminal(&self) -> bool {
        self.answer_on_terminal
    }

    /// Data for stdout, at once.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Columns of the terminal that stdout is; none if it is no terminal.
    pub(crate) fn columns(&self) -> Option<usize> {
        let size = terminal_size::terminal_size_of(io::stdout());
        size.filter(|_| self.answer_on_terminal).map(|(columns, _)| columns.0.into())
    }

    /// The lines of an answer, if it goes to a terminal.
    pub(crate) fn wrap(&self) -> Option<Wrap> {
        self.columns().filter(|_| !is_dumb()).map(Wrap::new)
    }

    /// A piece of an answer, at once. On a terminal control characters become visible: a model must
    /// not move the cursor.
    pub(crate) fn answer(&self, text: &str, wrap: Option<&mut Wrap>) -> io::Result<()> {
        let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        let mut text = Cow::Borrowed(text);
        if self.answer_on_terminal && text.contains(harmful) {
            text = text.replace(harmful, "\u{fffd}").into();
        }
        match wrap {
            Some(wrap) => self.data(&wrap.push(&text)),
            None => self.data(&text),
        }
    }

    /// Takes away a line that is being drawn, when nobody is left to do so.
    pub(crate) fn clear_line(&self) {
        if self.progress {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }

    /// A line that answers the user, whether quiet or not.
    pub(crate) fn say(&self, text: impl Display) {
        talk(text);
    }

    /// A line of side information.
    pub(crate) fn dim(&self, text: impl Display) {
        if !self.quiet {
            talk(self.styled(Style::new().dimmed(), whole_words(text, 0)));
        }
    }

    /// A line of side information for whoever looks on.
    pub(crate) fn note(&self, text: impl Display) {
        if self.progress {
            self.dim(text);
        }
    }

    /// A line for those who asked for more.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.verbose {
            self.dim(text);
        }
    }

    /// Something the user should know, although all goes on.
    pub(crate) fn warn(&self, text: impl Display) {
        if !self.quiet {
            let head = self.styled(AnsiColor::Yellow.on_default(), "warning:");
            talk(format_args!("{head} {}", whole_words(text, "warning: ".len())));
        }
    }

    /// What went wrong, and what to do.
    pub(crate) fn error(&self, text: &str, hint: Option<&str>) {
        let head = self.styled(AnsiColor::Red.on_default().bold(), "airrun:");
        talk(format_args!("{head} {}", whole_words(text, "airrun: ".len())));
        if let Some(hint) = hint {
            self.hint(hint);
        }
    }

    /// What to do about what was just said.
    pub(crate) fn hint(&self, text: &str) {
        let head = self.styled(Style::new().bold(), "hint:");
        talk(format_args!("\n{head} {}", whole_words(text, "hint: ".len())));
    }

    fn styled(&self, style: Style, text: impl Display) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// Whether the terminal knows only text.
fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// Whether the environment allows colours.
fn may_color() -> bool {
    !is_dumb() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A text without what would command a terminal: names of files may hold anything.
fn clean(text: impl Display) -> String {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.to_string().replace(harmful, "\u{fffd}")
}

/// The same, with its words kept whole at the edge of a terminal on which `begun` columns are used.
fn whole_words(text: impl Display, begun: usize) -> String {
    let size = terminal_size::terminal_size_of(io::stderr()).filter(|_| !is_dumb());
    let text = clean(text);
    match size {
        Some((columns, _)) => wrap::lines(&text, columns.0.into(), begun),
        None => text,
    }
}

/// One line on stderr. If nobody can read it, nobody can be told that either.
fn talk(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
