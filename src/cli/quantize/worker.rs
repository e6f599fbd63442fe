//! The process that quantises, and this program's hold on it. They speak in lines on its stdout: `tensor I N`, `size BYTES`,
//! `error TEXT`, `done`. It ends when its stdin does, so that it never outlives the one who started it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context;

use crate::cli::args::{TypeArg, WorkerArgs};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::engine::quantize::{self, QuantType, QuantizeStep, Request};
use crate::gguf::Index;
use crate::os::process;
use crate::probe::space;
use crate::units::{Bytes, MIB};

/// The hidden command that makes this program a worker.
pub(super) const COMMAND: &str = "quantize-worker";

/// A line from the worker is no longer than this. (bytes)
const MAX_LINE: u64 = 64 << 10;

/// What a worker is to do.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) model: PathBuf,
    pub(super) output: PathBuf,
    pub(super) ty: &'static QuantType,
    pub(super) threads: u32,
    pub(super) requantize: bool,
    /// Only counts the bytes.
    pub(super) dry_run: bool,
}

/// Which tensor of how many.
#[derive(Default)]
pub(super) struct Step {
    tensor: AtomicU32,
    of: AtomicU32,
}

impl Step {
    pub(super) fn get(&self) -> (u32, u32) {
        (self.tensor.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }
}

/// A worker at work.
pub(super) struct Worker {
    child: Arc<Mutex<Child>>,
    lines: BufReader<ChildStdout>,
    step: Arc<Step>,
    model: PathBuf,
    output: PathBuf,
}

impl Worker {
    /// Starts it. From now on Ctrl-C ends it, removes what it has written, and ends this program.
    pub(super) fn start(
        job: &Job,
        interrupt: &Interrupt,
        printer: &Printer,
    ) -> anyhow::Result<Worker> {
        let program = std::env::current_exe().context("this program's own file")?;
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(&job.model).arg(&job.output);
        command.args(["--type", job.ty.name, "--threads", &job.threads.to_string()]);
        command.args(job.requantize.then_some("--requantize"));
        command.args(job.dry_run.then_some("--dry-run"));
        // A group of its own: the terminal's Ctrl-C is for this side, which then knows what to remove.
        process::set_apart(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the process that quantises")?;
        let lines = child.stdout.take().context("the process that quantises has no stdout")?;
        let child = Arc::new(Mutex::new(child));
        let (held, part) = (Arc::clone(&child), (!job.dry_run).then(|| job.output.clone()));
        let last = *printer;
        interrupt.cleans_up(move || {
            last.clear_line();
            let mut child = held.lock().unwrap_or_else(PoisonError::into_inner);
            drop(child.kill().and_then(|()| child.wait()));
            part.map(fs::remove_file);
        });
        let (lines, step) = (BufReader::new(lines), Arc::default());
        let (model, output) = (job.model.clone(), job.output.clone());
        Ok(Worker { child, lines, step, model, output })
    }

    /// How far it is, while it works.
    pub(super) fn step(&self) -> Arc<Step> {
        Arc::clone(&self.step)
    }

    /// Waits for its end; the bytes of the weights, if it told them.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<Bytes>> {
        let (mut size, mut done, mut said) = (None, false, None);
        while let Some(line) = self.line() {
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("tensor", numbers) => {
                    let mut numbers = numbers.split(' ').filter_map(|n| n.parse().ok());
                    if let (Some(i), Some(n)) = (numbers.next(), numbers.next()) {
                        self.step.tensor.store(i, Ordering::Relaxed);
                        self.step.of.store(n, Ordering::Relaxed);
                    }
                }
                ("size", bytes) => size = bytes.parse().ok().map(Bytes),
                ("error", text) => said = Some(text.to_owned()),
                ("done", _) => done = true,
                _ => {}
            }
        }
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.wait().context("the process that quantises")?;
        if done && status.success() {
            return Ok(size);
        }
        let why = match (said, process::ended_by(status)) {
            (Some(_), _) if is_full(&self.output) => "the disk is full".to_owned(),
            (Some(text), _) => text,
            (None, Some(9)) => "the system ended it: there may be too little memory".to_owned(),
            (None, Some(25)) => "the file would be larger than this user's files may be".to_owned(),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended before it was done".to_owned(),
        };
        Err(Failure::error(
            format!("model '{}': quantising failed: {why}", self.model.display()),
            "`airrun inspect` shows what the file holds",
        ))
    }

    /// The next line, if there is one.
    fn line(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        self.lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes).ok().filter(|&n| n > 0)?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }
}

/// Whether the disk of `file` has no room left: libllama's own words do not tell.
fn is_full(file: &Path) -> bool {
    space::free(file).is_some_and(|free| free < MIB)
}

/// Is the worker.
pub(crate) fn run(args: &WorkerArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    // What is there already was made by somebody else.
    if !args.dry_run && args.output.exists() {
        return Err(Failure::error("the output is there", "this command is for airrun itself"));
    }
    let output = (!args.dry_run).then(|| args.output.clone());
    thread::Builder::new().name("leash".to_owned()).spawn(move || end_with_stdin(output))?;
    let TypeArg::Named(ty) = args.ty else {
        return Err(Failure::error("no type", "this command is for airrun itself"));
    };
    let index = Index::open(&args.model)?;
    let request = Request {
        index: &index,
        output: &args.output,
        ty,
        threads: args.threads,
        requantize: args.requantize,
        dry_run: args.dry_run,
    };
    let talk = *printer;
    let on_step = move |step| {
        // Without a reader there is nobody to tell that there is none.
        let _ = match step {
            QuantizeStep::Tensor(i, n) => talk.data(&format!("tensor {i} {n}\n")),
            QuantizeStep::Size(bytes) => talk.data(&format!("size {bytes}\n")),
        };
    };
    match quantize::run(&request, on_step) {
        Ok(()) => {
            printer.data("done\n")?;
            Ok(ExitStatus::Ok)
        }
        Err(error) => {
            let text = error.to_string().replace('\n', " ");
            printer.data(&format!("error {text}\n"))?;
            Ok(ExitStatus::Failed)
        }
    }
}

/// Ends the process when the one who started it is gone, and leaves nothing behind.
fn end_with_stdin(output: Option<PathBuf>) {
    let mut buf = [0; 64];
    let mut stdin = io::stdin().lock();
    while stdin.read(&mut buf).is_ok_and(|n| n > 0) {}
    output.map(fs::remove_file);
    process::exit_now(ExitStatus::Interrupted.code().into());
}
