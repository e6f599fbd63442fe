//! The line that is being written, in the editor of the user's choice: `$VISUAL`, `$EDITOR`, or vi.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::history::DefaultHistory;
use rustyline::{
    Cmd, ConditionalEventHandler, Editor, Event, EventContext, EventHandler, KeyEvent, RepeatCount,
};

use super::complete::Keys;
use crate::cli::printer::Printer;
use crate::files;

/// The longest text that is taken back. (bytes)
const MOST: u64 = 16 << 20;

/// Whether Ctrl-G was pressed: the line editor hands the line over, and this says that it is not meant to be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Hears the key in `editor`.
    pub(super) fn bind(editor: &mut Editor<Keys, DefaultHistory>) -> Wanted {
        let wanted = Wanted::default();
        let handler = EventHandler::Conditional(Box::new(wanted.clone()));
        editor.bind_sequence(KeyEvent::ctrl('G'), handler);
        wanted
    }

    /// Whether it was pressed since this was asked last.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl ConditionalEventHandler for Wanted {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(true, Ordering::Relaxed);
        Some(Cmd::AcceptLine)
    }
}

/// `text` as the user left it in the editor; as it was, with a word, where that fails.
pub(super) fn write(text: &str, printer: &Printer) -> String {
    edited(text).unwrap_or_else(|error| {
        let name = name();
        printer.error(
            &format!("the editor '{name}': {error}"),
            Some("EDITOR=nano airrun chat ... takes another"),
        );
        text.to_owned()
    })
}

fn name() -> String {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| env::var(name).ok());
    named.into_iter().find(|name| !name.trim().is_empty()).unwrap_or_else(|| "vi".to_owned())
}

fn edited(text: &str) -> io::Result<String> {
    let mut file = tempfile::Builder::new().prefix("airrun-").suffix(".md").tempfile()?;
    // Files of text end with a line.
    writeln!(file, "{text}")?;
    file.flush()?;
    // The shell reads it, as it does for git: a name may have flags, or be a path with spaces in quotes.
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{} \"$1\"", name())).arg("airrun").arg(file.path());
    if !io::stdout().is_terminal() {
        // What stdout goes to is for answers.
        command.stdout(Stdio::from(io::stderr()));
    }
    let status = command.status()?;
    match status.code() {
        Some(0) => {}
        Some(127) => return Err(io::Error::other("there is no such program")),
        _ => return Err(io::Error::other(format!("it failed ({status}); the line is as it was"))),
    }
    // By its name: many editors put a new file in the place of the old one.
    let text = files::read_text(file.path(), MOST)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
