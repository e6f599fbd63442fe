//! `airrun batch`: many texts from a file, and their answers into another, as they end. As many texts as memory allows share each pass
//! over the weights.

mod line;
mod out;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::Context;

use crate::cli::args::BatchArgs;
use crate::cli::args::batch::Parallel;
use crate::cli::draft;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};
use crate::cli::resolve::{self, Chosen};
use crate::cli::{sampling, talk};
use crate::engine::batch::{Batcher, Course, Ended, Piece, Request, Room, Sink};
use crate::engine::{Engine, Error, LoadOptions};
use line::{Name, Reader};
use out::{Out, Outcome};

/// Texts that share a pass with `--parallel auto`, where memory allows.
const MOST: u32 = 64;

/// The longest line, and the longest that is passed over because it is longer. (bytes)
const MAX_LINE: u64 = 64 << 20;
const MAX_PASSED: u64 = 256 << 20;

/// Lines that are read ahead.
const AHEAD: usize = 64;

/// A line that was read, or why none was.
type Line = io::Result<(u64, Vec<u8>)>;

/// Texts that have ended, with their names.
type Finished = Arc<Mutex<Vec<(Name, Outcome)>>>;

/// Listens to one text.
#[derive(Debug)]
struct Listener {
    name: Name,
    text: String,
    finished: Finished,
}

impl Sink for Listener {
    fn room(&self) -> Room {
        Room::Free
    }

    fn piece(&mut self, piece: Piece) {
        self.text += &piece.text;
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        let Listener { name, text, finished } = *self;
        let outcome = end.map(|ended| (text, ended)).map_err(|error| error.to_string());
        finished.lock().unwrap_or_else(PoisonError::into_inner).push((name, outcome));
    }
}

/// What the progress line says.
#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    /// 0 where nobody knows.
    all: AtomicU64,
    tokens: AtomicU64,
}

/// Answers all lines that have no answer yet.
pub(crate) fn run(args: &BatchArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let interrupt = Interrupt::new()?;
    let shown = args.output.display();
    let chosen = resolve::model(&args.load.model)?;
    let stdin = args.input == Path::new("-");
    let n_lines = if stdin || is_read_once(&args.input) { None } else { Some(count(&args.input)?) };
    let canonical = |path: &Path| std::fs::canonicalize(path).ok();
    if !stdin && canonical(&args.input).is_some_and(|path| canonical(&args.output) == Some(path)) {
        return Err(Failure::error(
            format!("output '{shown}': it is the input"),
            "name another file with -o",
        ));
    }
    let (out, done) = Out::open(&args.output, args.format, chosen.index.title())
        .map_err(|error| anyhow::anyhow!("output '{shown}': {error}"))?;
    if !done.is_empty() {
        printer.dim(format_args!("'{shown}' has {} answers already; going on", done.len()));
    }
    let engine = open(args, &chosen, n_lines, printer)?;
    let counts = Arc::new(Counts::default());
    counts.all.store(n_lines.unwrap_or(0), Ordering::Relaxed);
    counts.done.store(done.len() as u64, Ordering::Relaxed);
    let mut batcher = engine.batcher()?;
    interrupt.stops(batcher.monitor());
    let lines = lines(&args.input)?;
    let status = Status::start(printer, Watched::Line(Box::new(progress(counts.clone()))));
    let begin = Instant::now();
    let mut work = Work {
        lines,
        ended: false,
        out,
        done,
        counts: counts.clone(),
        finished: Finished::default(),
        loose: Vec::new(),
    };
    let template = engine.chat_template()?;
    let settings = sampling::settings(&args.sample, &chosen.settings);
    let reader = Reader {
        template: &template,
        vocab: engine.vocab()?,
        settings: &settings,
        max_tokens: args.sample.usual.max_tokens.or(chosen.settings.max_tokens).map(|n| n as usize),
        system: chosen.settings.system.as_deref(),
        stops: &chosen.settings.stop,
        raw: args.raw,
    };
    work.go(&mut batcher, &reader, &interrupt)?;
    drop(status);
    for warning in &work.loose {
        printer.warn(warning);
    }
    batcher.remember_drafts();
    let tokens = usize::try_from(counts.tokens.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    let passes = batcher.monitor().snapshot().passes;
    printer.detail(format_args!(
        "{} answers, {}, {} passes",
        counts.done.load(Ordering::Relaxed),
        talk::speed(tokens, begin.elapsed().as_secs_f64()),
        passes
    ));
    Ok(if interrupt.stopping() { ExitStatus::Interrupted } else { ExitStatus::Ok })
}

/// Loads the model for as many texts at once as were asked for, or as fit.
fn open(
    args: &BatchArgs,
    chosen: &Chosen,
    n_lines: Option<u64>,
    printer: &Printer,
) -> anyhow::Result<Engine> {
    let options = resolve::load_options(&args.load);
    let draft = draft::choose(&args.load, &chosen.index, &options)?;
    let options = LoadOptions { draft, ..options };
    let mut n = match args.parallel {
        Parallel::Texts(n) => n,
        Parallel::Auto => {
            let lines = n_lines.map_or(MOST, |n| u32::try_from(n).unwrap_or(MOST));
            lines.clamp(1, MOST)
        }
    };
    loop {
        let options = LoadOptions { sequences: n, ..options.clone() };
        match talk::load_chosen(chosen, options, printer) {
            Err(Error::Plan { .. }) if n > 1 && args.parallel == Parallel::Auto => n /= 2,
            loaded => {
                let engine = loaded?;
                printer.detail(engine.describe());
                return Ok(engine);
            }
        }
    }
}

/// The most different warnings that a batch ends with.
const MAX_WARNINGS: usize = 20;

struct Work {
    lines: mpsc::Receiver<Line>,
    /// Whether no line comes any more.
    ended: bool,
    out: Out,
    done: HashSet<u64>,
    counts: Arc<Counts>,
    finished: Finished,
    /// What schemas ask and answers are not held to.
    loose: Vec<String>,
}

impl Work {
    fn go(
        &mut self,
        batcher: &mut Batcher,
        reader: &Reader<'_>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        while !interrupt.stopping() {
            self.take(batcher, reader)?;
            let went_on = batcher.step();
            self.hand_out()?;
            if self.ended && !went_on && batcher.n_running() + batcher.n_pending() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Takes lines while there is room; waits for one if there is nothing else to do.
    fn take(&mut self, batcher: &mut Batcher, reader: &Reader<'_>) -> anyhow::Result<()> {
        while !self.ended && batcher.has_room() {
            let idle = batcher.n_running() + batcher.n_pending() == 0;
            let line = match idle {
                true => self.lines.recv().map_err(|_| mpsc::TryRecvError::Disconnected),
                false => self.lines.try_recv(),
            };
            let (number, bytes) = match line {
                Ok(line) => line.context("input")?,
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.ended = true;
                    return Ok(());
                }
            };
            if self.done.contains(&number) || bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.add(number, &bytes, batcher, reader)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        number: u64,
        bytes: &[u8],
        batcher: &mut Batcher,
        reader: &Reader<'_>,
    ) -> anyhow::Result<()> {
        let wrong = |why: String| (Name { line: number, ..Name::default() }, Err(why));
        let (name, text) = match std::str::from_utf8(bytes) {
            _ if bytes.len() as u64 > MAX_LINE => wrong("longer than 64 MiB".to_owned()),
            Ok(text) => line::read(number, text, reader),
            Err(error) => wrong(format!("not UTF-8 at byte {}", error.valid_up_to())),
        };
        let text = match text {
            Ok(text) => text,
            Err(why) => return self.write(&name, &Err(why)),
        };
        for warning in text.grammar.iter().flat_map(|grammar| &grammar.loose) {
            if self.loose.len() < MAX_WARNINGS && !self.loose.contains(warning) {
                self.loose.push(warning.clone());
            }
        }
        let listener = Listener { name, text: String::new(), finished: self.finished.clone() };
        batcher.add(Request {
            prompt: text.prompt,
            settings: text.settings,
            grammar: text.grammar,
            max_tokens: text.max_tokens,
            stops: text.stops,
            logprobs: None,
            shown: Arc::default(),
            course: Course::default(),
            sink: Box::new(listener),
        });
        Ok(())
    }

    /// Writes the answers that have ended, and counts.
    fn hand_out(&mut self) -> anyhow::Result<()> {
        let finished =
            std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, outcome) in finished {
            if let Ok((_, ended)) = &outcome {
                self.counts.tokens.fetch_add(ended.n_generated as u64, Ordering::Relaxed);
            }
            self.write(&name, &outcome)?;
        }
        Ok(())
    }

    fn write(&mut self, name: &Name, outcome: &Outcome) -> anyhow::Result<()> {
        self.out.write(name, outcome)?;
        self.counts.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// `12 of 64 answers, 3.1 tokens/s, 2 min left`.
fn progress(counts: Arc<Counts>) -> impl Fn() -> String + Send {
    let begin = Instant::now();
    let before = counts.done.load(Ordering::Relaxed);
    move || {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (done, all) = (get(&counts.done), get(&counts.all));
        let seconds = begin.elapsed().as_secs_f64();
        let tokens = usize::try_from(get(&counts.tokens)).unwrap_or(usize::MAX);
        let mut line = match all {
            0 => format!("{done} answers"),
            all => format!("{done} of {all} answers"),
        };
        line += &format!(", {}", talk::speed(tokens, seconds));
        #[expect(clippy::cast_precision_loss, reason = "a guess")]
        if all > done && done > before {
            let left = seconds / (done - before) as f64 * (all - done) as f64;
            line += &match left {
                left if left < 90.0 => format!(", {left:.0} s left"),
                left => format!(", {:.0} min left", left / 60.0),
            };
        }
        line
    }
}

/// Whether what is read of it is gone: it is a pipe or a device.
fn is_read_once(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// How many lines of a file are not empty.
fn count(path: &Path) -> anyhow::Result<u64> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("input '{shown}'"))?;
    let mut n = 0;
    let mut reader = BufReader::new(file);
    while let Some(line) = next(&mut reader).with_context(|| format!("input '{shown}'"))? {
        n += u64::from(!line.iter().all(u8::is_ascii_whitespace));
    }
    Ok(n)
}

/// The lines of a file or of stdin, read ahead by a thread, so that nobody waits for one who types.
fn lines(path: &Path) -> anyhow::Result<mpsc::Receiver<Line>> {
    let mut from: Box<dyn BufRead + Send> = match path == Path::new("-") {
        true => Box::new(BufReader::new(io::stdin())),
        false => {
            let file = File::open(path).with_context(|| format!("input '{}'", path.display()))?;
            Box::new(BufReader::new(file))
        }
    };
    let (sender, receiver) = mpsc::sync_channel(AHEAD);
    let read = move || {
        for number in 1.. {
            let line = match next(&mut from) {
                Ok(None) => return,
                Ok(Some(line)) => Ok((number, line)),
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.send(line).is_err() || failed {
                return;
            }
        }
    };
    thread::Builder::new().name("lines".to_owned()).spawn(read).context("cannot read lines")?;
    Ok(receiver)
}

/// The next line; of one that is too long, no more than shows that.
///
/// # Errors
///
/// Those of reading, and a line without end: `/dev/zero` has one.
fn next(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut line, mut passed) = (Vec::new(), 0_u64);
    loop {
        let chunk = from.fill_buf()?;
        if chunk.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        if line.len() as u64 <= MAX_LINE {
            line.extend_from_slice(part);
        }
        passed += part.len() as u64;
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
        if passed > MAX_PASSED {
            let why = "a line of it is longer than 256 MiB: this is no batch";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    }
}
