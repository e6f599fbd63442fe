//! The status line on stderr: what a slow machine is doing. A thread draws it; the answer's text
//! and it never mix, because both are written under one lock.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cli::printer::Printer;
use crate::engine::{Course, Engine, Monitor, Pace, Progress, Reading};

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(100);
/// How long nothing must have been shown before a line is drawn: what is quicker needs no progress.
const FIRST: Duration = Duration::from_millis(300);
/// The same between two pieces of an answer.
const BETWEEN: Duration = Duration::from_secs(1);

/// Who waits for weights for this share of the time is held up by the disk. (0 to 1)
const WAITS: f64 = 0.5;

/// What is watched.
pub(crate) enum Watched {
    /// Something without numbers.
    Step(String),
    /// Something that says itself how far it is.
    Line(Box<dyn Fn() -> String + Send>),
    /// A session at work.
    Session(Work),
}

/// What a session works on.
pub(crate) struct Work {
    /// How far it is.
    pub(crate) monitor: Arc<Monitor>,
    /// How fast it goes.
    pub(crate) pace: Pace,
    /// What it is, where that is no prompt and no answer.
    pub(crate) name: Option<String>,
}

impl Work {
    /// What `engine` does; a `name` where that is no prompt and no answer.
    pub(crate) fn of(engine: &Engine, name: Option<String>) -> Watched {
        Watched::Session(Work { monitor: engine.monitor(), pace: engine.pace(), name })
    }
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
        let mut seen = Seen::default();
        let mut screen = self.lock();
        while !screen.done {
            let reading = screen.delay == FIRST;
            if let Watched::Session(work) = watched {
                seen.look(&work.monitor.snapshot(), reading);
            }
            if screen.quiet_since.elapsed() >= screen.delay {
                let line = match watched {
                    Watched::Step(what) => format!("{what} ... {} s", start.elapsed().as_secs()),
                    Watched::Line(line) => line(),
                    Watched::Session(work) => seen.line(work, reading),
                };
                screen.draw(&line);
            }
            let woken = self.wake.wait_timeout(screen, TICK);
            screen = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What has been seen of a session at work.
#[derive(Default)]
struct Seen {
    now: Progress,
    /// When the prompt began, and then when the answer did, with what was counted by then.
    since: Option<(Instant, Progress)>,
    reading: bool,
    /// How the prompt goes.
    course: Course,
}

impl Seen {
    fn look(&mut self, now: &Progress, reading: bool) {
        if self.since.is_none() || self.reading != reading {
            self.since = Some((Instant::now(), *now));
            self.reading = reading;
        }
        self.now = *now;
    }

    /// `reading the prompt: 47 %, 1 min 20 s left (pass 1 of 2, block 53 of 60)`, or
    /// `next token: block 12 of 60, 2.9 s each`; what holds it up at the end, where something streams.
    fn line(&mut self, work: &Work, reading: bool) -> String {
        let Some((since, before)) = self.since else { return String::new() };
        let (now, elapsed) = (&self.now, since.elapsed());
        let block = work.pace.block(now).map(|(block, of)| format!("block {block} of {of}"));
        let mut line = match (&work.name, reading) {
            (Some(name), _) => match block {
                Some(block) => format!("{name}: {block}"),
                None => format!("{name} ... {} s", elapsed.as_secs()),
            },
            (None, true) => {
                let reading = work.pace.reading(now);
                let far = self.course.look(&reading, elapsed);
                prompt_line(now, &reading, far, block, elapsed)
            }
            (None, false) => {
                let each = self.each(&before, elapsed, &work.pace);
                let each = each.map(|each| format!("{each:.1} s each"));
                let parts: Vec<String> = block.into_iter().chain(each).collect();
                format!("next token: {}", parts.join(", "))
            }
        };
        if work.pace.block(now).is_some() {
            let waited =
                (now.stall_seconds - before.stall_seconds) / elapsed.as_secs_f64().max(1e-3);
            line += if waited > WAITS { ", waiting for the disk" } else { ", computing" };
        }
        line
    }

    /// Seconds of a token: those of the answer so far, or what is predicted.
    fn each(&self, before: &Progress, elapsed: Duration, pace: &Pace) -> Option<f64> {
        let passes = self.now.passes.saturating_sub(before.passes);
        #[expect(clippy::cast_precision_loss, reason = "few passes")]
        match passes {
            0 => pace.is_measured().then(|| pace.generation().seconds),
            n => Some(elapsed.as_secs_f64() / n as f64),
        }
    }
}

/// How far a prompt is.
fn prompt_line(
    now: &Progress,
    &Reading { pass, n_passes, .. }: &Reading,
    (share, left): (f64, Option<Duration>),
    block: Option<String>,
    elapsed: Duration,
) -> String {
    // Without blocks that stream, nothing tells how far a pass is.
    if now.tokens_total == 0 || (block.is_none() && n_passes == 1) {
        return format!("reading the prompt ... {} s", elapsed.as_secs());
    }
    let mut line = format!("reading the prompt: {:.0} %", (share * 100.0).floor());
    if let Some(left) = left {
        line += &format!(", {} left", time(left.max(Duration::from_secs(1))));
    }
    let passes = (n_passes > 1).then(|| format!("pass {pass} of {n_passes}"));
    let place: Vec<String> = passes.into_iter().chain(block).collect();
    line + &format!(" ({})", place.join(", "))
}

/// `8 s`, `1 min 20 s`, `2 h 5 min`.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64().round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration")]
    let seconds = seconds as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_two_numbers() {
        for (seconds, want) in [
            (0.2, "0 s"),
            (59.6, "1 min"),
            (80.0, "1 min 20 s"),
            (3600.0, "1 h"),
            (7500.0, "2 h 5 min"),
        ] {
            assert_eq!(time(Duration::from_secs_f64(seconds)), want);
        }
    }

    #[test]
    fn a_prompt_says_how_long() {
        let now = Progress { tokens_total: 369, ..Progress::default() };
        let left = Some(Duration::from_secs(80));
        let reading = Reading { done: 0.47, next: 0.5, predicted: 0.0, pass: 1, n_passes: 2 };
        let block = Some("block 53 of 60".to_owned());
        assert_eq!(
            prompt_line(&now, &reading, (0.479, left), block, Duration::ZERO),
            "reading the prompt: 47 %, 1 min 20 s left (pass 1 of 2, block 53 of 60)"
        );
        let reading = Reading { n_passes: 1, ..reading };
        assert_eq!(
            prompt_line(&now, &reading, (0.479, None), None, Duration::from_secs(3)),
            "reading the prompt ... 3 s"
        );
    }
}
