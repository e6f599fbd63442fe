//! The status line on stderr: what a slow machine is doing. A thread draws it; the answer's text
//! and it never mix, because both are written under one lock.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cli::printer::Printer;
use crate::engine::{Monitor, Progress};
use crate::units::{Bytes, Rate};

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(100);
/// How long nothing must have been shown before a line is drawn: what is quicker needs no progress.
const FIRST: Duration = Duration::from_millis(300);
/// The same between two pieces of an answer.
const BETWEEN: Duration = Duration::from_secs(1);

/// Slower reading than this is not worth a number, in bytes per second.
const LEAST_RATE: f64 = 1e7;

/// What is watched.
pub(crate) enum Watched {
    /// Something without numbers.
    Step(String),
    /// Something that says itself how far it is.
    Line(Box<dyn Fn() -> String + Send>),
    /// A session at work.
    Session(Arc<Monitor>),
}

/// A status line that is drawn until dropped.
pub(crate) struct Status {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    screen: Mutex<Screen>,
    wake: Condvar,
}

/// What the drawing thread and the answer agree on.
struct Screen {
    /// Whether the line is on the screen.
    drawn: bool,
    /// Whether it goes below the cursor's line, which holds the answer.
    below: bool,
    /// When text was last shown.
    quiet_since: Instant,
    /// How long after that the line appears.
    delay: Duration,
    done: bool,
}

impl Status {
    /// Begins to draw, if `printer` may.
    pub(crate) fn start(printer: &Printer, watched: Watched) -> Status {
        let screen = Screen {
            drawn: false,
            below: false,
            quiet_since: Instant::now(),
            delay: FIRST,
            done: false,
        };
        let shared = Arc::new(Shared { screen: Mutex::new(screen), wake: Condvar::new() });
        let drawer = Arc::clone(&shared);
        let draw = move || drawer.draw_until_done(&watched);
        // Without a thread there is no progress, and nothing else is lost.
        let thread = printer
            .progress()
            .then(|| thread::Builder::new().name("progress".to_owned()).spawn(draw).ok())
            .flatten();
        Status { shared, thread }
    }

    /// Shows a piece of the answer: takes the line away and calls `print`.
    pub(crate) fn show<T>(&self, printer: &Printer, print: impl FnOnce() -> T) -> T {
        let mut screen = self.shared.lock();
        screen.erase();
        let result = print();
        screen.quiet_since = Instant::now();
        screen.delay = BETWEEN;
        screen.below = printer.answer_on_terminal();
        result
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.shared.lock().done = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.lock().erase();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_until_done(&self, watched: &Watched) {
        let start = Instant::now();
        let before = match watched {
            Watched::Session(monitor) => monitor.snapshot().streamed,
            Watched::Step(_) | Watched::Line(_) => Bytes::ZERO,
        };
        let mut screen = self.lock();
        while !screen.done {
            if screen.quiet_since.elapsed() >= screen.delay {
                let line = match watched {
                    Watched::Step(what) => format!("{what} ... {} s", start.elapsed().as_secs()),
                    Watched::Line(line) => line(),
                    Watched::Session(monitor) => {
                        let now = monitor.snapshot();
                        let streamed = now.streamed.saturating_sub(before);
                        session_line(&now, streamed, start.elapsed(), screen.delay == FIRST)
                    }
                };
                screen.draw(&line);
            }
            let woken = self.wake.wait_timeout(screen, TICK);
            screen = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Screen {
    /// Draws `line` with wrapping off, so that it is one line at any width. Below: first make sure
    /// that there is a line below (index, then up again, both of which keep the column), then go
    /// there and come back.
    fn draw(&mut self, line: &str) {
        let text = if self.below {
            format!("\x1bD\x1b[A\x1b7\x1b[B\r\x1b[2K\x1b[?7l\x1b[2m{line}\x1b[0m\x1b[?7h\x1b8")
        } else {
            format!("\r\x1b[2K\x1b[?7l\x1b[2m{line}\x1b[0m\x1b[?7h")
        };
        emit(&text);
        self.drawn = true;
    }

    fn erase(&mut self) {
        if self.drawn {
            emit(if self.below { "\x1b7\x1b[B\r\x1b[2K\x1b8" } else { "\r\x1b[2K" });
            self.drawn = false;
        }
    }
}

/// In one write, so that it reaches the terminal in one piece.
fn emit(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// `prompt 128/600 tokens, block 12/32 (38 %), 2.91 GB/s`.
fn session_line(now: &Progress, streamed: Bytes, time: Duration, prompt: bool) -> String {
    let mut line = if prompt && now.tokens_total > 0 {
        let done = now.tokens_done.min(now.tokens_total);
        format!("prompt {done}/{} tokens", now.tokens_total)
    } else if prompt {
        "prompt".to_owned()
    } else {
        "next token".to_owned()
    };
    if let Some(percent) = percent(now.block, now.n_blocks) {
        line += &format!(", block {}/{} ({percent} %)", now.block, now.n_blocks);
    } else if let Some(percent) = percent(now.tokens_done, now.tokens_total).filter(|_| prompt) {
        line += &format!(" ({percent} %)");
    }
    let rate = streamed.f64() / time.as_secs_f64().max(1e-3);
    if rate >= LEAST_RATE {
        line += &format!(", {}", Rate(rate));
    }
    line
}

/// How much of `total` is done; none where there is nothing to do.
fn percent(done: usize, total: usize) -> Option<usize> {
    (done.min(total) * 100).checked_div(total)
}
