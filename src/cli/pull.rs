//! `airrun pull`: a model from the Hugging Face hub, into the cache that all tools share. Its path goes to stdout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::args::PullArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};
use crate::gguf::{Index, printable};
use crate::hub::{self, Options, Progress, Wanted};
use crate::probe::space;
use crate::units::Bytes;

/// Over how long a rate is taken at least: the first packets say nothing.
const SETTLED: Duration = Duration::from_secs(2);

/// Downloads, checks, and says what it is called.
pub(crate) fn run(args: &PullArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let wanted = Wanted::parse(&args.name)?;
    let options = Options::from_env()?;
    // What came so far is on the disk: Ctrl-C may end the program at any time.
    let (interrupt, last) = (Interrupt::new()?, *printer);
    interrupt.cleans_up(move || {
        last.clear_line();
        last.dim("what came so far is kept: the same command goes on from there");
    });
    let progress = Arc::new(Progress::default());
    let watched = Arc::clone(&progress);
    let begin = Instant::now();
    let line = move || line(&watched, begin.elapsed());
    let status = Status::start(printer, Watched::Line(Box::new(line)));
    let pulled = hub::pull(&wanted, &options, &space::free, &progress);
    drop(status);
    let pulled = pulled?;
    for remark in &pulled.remarks {
        printer.dim(printable(remark.as_bytes()));
    }
    let rate = speed(pulled.fetched, begin.elapsed());
    match pulled.fetched {
        Bytes::ZERO => printer.dim("it was here already"),
        fetched if pulled.checked => {
            printer.dim(format!("{fetched} downloaded, {rate}; the checksum is right"));
        }
        fetched => printer.dim(format!("{fetched} downloaded, {rate}")),
    }
    // A file can be whole and yet no model that this program reads.
    if let Err(error) = Index::open(&pulled.path) {
        printer.warn(format!("it was downloaded, but cannot be run: {error}"));
    }
    printer.dim(format!("airrun chat {}", pulled.name));
    printer.data(&format!("{}\n", pulled.path.display()))?;
    Ok(ExitStatus::Ok)
}

/// `model-Q4_K_M.gguf: 1.20 GiB of 4.58 GiB (26 %), 0.09 GB/s, 38 s left`.
fn line(progress: &Progress, time: Duration) -> String {
    let (done, total) = progress.bytes();
    let mut text = progress.step();
    if total == Bytes::ZERO {
        return text + " ...";
    }
    let percent = (done.0.min(total.0) as u128 * 100).checked_div(total.0.into()).unwrap_or(100);
    text += &format!(": {done} of {total} ({percent} %)");
    let fetched = progress.fetched();
    if fetched > Bytes::ZERO {
        text += &format!(", {}", speed(fetched, time));
    }
    if fetched > Bytes::ZERO && time >= SETTLED {
        let left = total.saturating_sub(done).f64() / fetched.f64() * time.as_secs_f64();
        text += &format!(", {} left", duration(left));
    }
    text
}

/// `11.3 MB/s`: networks are slower than disks.
fn speed(bytes: Bytes, time: Duration) -> String {
    let rate = bytes.f64() / time.as_secs_f64().max(1e-3) / 1e6;
    let digits = if rate < 9.995 { 2 } else { 1 };
    format!("{rate:.digits$} MB/s")
}

/// `38 s`, `12 min`, `3 h 20 min`.
fn duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 0, and saturating"
    )]
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(speed(Bytes(1_950_000), Duration::from_secs(1)), "1.95 MB/s");
        for (seconds, want) in [
            (0.2, "1 s"),
            (99.0, "99 s"),
            (100.0, "2 min"),
            (7000.0, "117 min"),
            (7290.0, "2 h 1 min"),
        ] {
            assert_eq!(duration(seconds), want);
        }
        assert!(duration(f64::INFINITY).ends_with("min"));
    }
}
