//! `airrun plan`: where a model's blocks will live, what that takes, and how fast it will be. It loads no weights.

use std::env;
use std::io::IsTerminal;
use std::sync::Arc;

use crate::cli::args::PlanArgs;
use crate::cli::draft;
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched};
use crate::cli::{resolve, start};
use crate::engine::{LoadOptions, planning};
use crate::gguf::printable;
use crate::plan::report::{ASCII, Look, Report, UNICODE};
use crate::probe::rates::Doubt;

/// Plans as the other commands would, and shows it.
pub(crate) fn run(args: &PlanArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    // Nothing here ends better by being asked to: Ctrl-C ends the program.
    let _interrupt = Interrupt::new()?;
    let chosen = resolve::model(&args.load.model)?;
    let options = chosen.complete(resolve::load_options(&args.load));
    let draft = draft::choose(&args.load, &chosen.index, &options)?;
    let options = LoadOptions { draft, ..options };
    let index = Arc::new(chosen.index);
    let status = Status::start(printer, Watched::Step("measuring this machine".to_owned()));
    let planned = planning::measured_plan(&index, &options)?;
    let forecast = planning::forecast(&index, &options, &planned, args.prompt)?;
    drop(status);
    let report = Report {
        name: &printable(index.name().as_bytes()),
        device: &planned.device(),
        further: &planned.further_devices(),
        weights: index.bytes(),
        plan: &planned.plan,
        rates: &forecast.rates,
        estimate: &forecast.estimate,
        drafts: forecast.drafts.as_ref(),
        advice: forecast.advice,
        smaller: forecast.smaller,
        kv: options.recall.kv.name(),
        longer: forecast.longer,
        smaller_kv: forecast.smaller_kv,
    };
    let text = if args.json {
        serde_json::to_string_pretty(&report.json())? + "\n"
    } else {
        report.text(look())
    };
    printer.data(&text)?;
    let writes_text = index.purpose().not_for_text().is_none();
    let long = start::too_long(&planned.context(&index, &options), "").filter(|_| writes_text);
    long.iter().for_each(|line| printer.warn(line));
    match forecast.doubt {
        Some(Doubt::Busy) => printer.warn(
            "something else computed while this machine was measured: it may be faster than this says; \
             plan again when it is quiet",
        ),
        Some(Doubt::Old(hours)) => printer.warn(format_args!("this machine was measured {hours} hours ago")),
        None => {}
    }
    Ok(ExitStatus::Ok)
}

/// What stdout can show.
fn look() -> Look {
    let var = |name| env::var(name).ok().filter(|value| !value.is_empty());
    // The first that is set decides, as in the C library.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(var).unwrap_or_default();
    let utf8 = locale.to_ascii_lowercase().replace('-', "").contains("utf8");
    let dumb = var("TERM").is_none_or(|term| term == "dumb");
    let color = std::io::stdout().is_terminal() && !dumb && var("NO_COLOR").is_none();
    Look {
        blocks: if utf8 { UNICODE } else { ASCII },
        paint: if color {
            ["\x1b[32m", "\x1b[34m", "\x1b[36m", "\x1b[33m", "\x1b[33m", "\x1b[0m"]
        } else {
            [""; 6]
        },
    }
}
