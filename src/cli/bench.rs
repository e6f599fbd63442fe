//! `airrun bench`: how fast a model is, beside how fast the hardware would let it be, measured in the same minutes.

mod routes;

use std::io;
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::cli::args::BenchArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::input;
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Watched, Work};
use crate::cli::trace::Tracing;
use crate::cli::{resolve, talk};
use crate::engine::bench::{self, Limits, Measure, NoSample, Sample};
use crate::engine::experts::Counts;
use crate::engine::planning::{self, Forecast, Planned};
use crate::engine::{Engine, Error, LoadOptions, Session, Token};
use crate::gguf::Index;
use crate::plan::{self, Estimate, Tier, Touched};
use crate::probe;
use crate::units::{Bytes, Rate};

/// Tokens of the prompt that is computed before the first one that counts.
const WARM_UP: usize = 32;

/// A line of `--json`. Rates are in tokens per second unless they say otherwise.
#[derive(Debug, Serialize)]
struct Row {
    test: String,
    tokens: usize,
    seconds: f64,
    tokens_per_second: f64,
    /// The slowest and the fastest repetition.
    range: [f64; 2],
    passes: u64,
    streamed_bytes: Bytes,
    disk_bytes: Bytes,
    stall_seconds: f64,
    /// Where experts were brought one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    experts: Option<Experts>,
    limit_tokens_per_second: Option<f64>,
    of_limit: Option<f64>,
    limited_by: Option<&'static str>,
    limits: Limits,
    /// What `airrun plan` says of this placement.
    predicted_tokens_per_second: Option<f64>,
    #[serde(flatten)]
    run: Run,
}

/// What all tests of a run have in common.
#[derive(Clone, Debug, Serialize)]
struct Run {
    peak_rss_bytes: Bytes,
    peak_device_bytes: Bytes,
    device: String,
    threads: u32,
    engine: String,
    plan: Placement,
    disk_bytes_per_second: Option<Rate>,
    disk_range: Option<[Rate; 2]>,
    memory_bytes_per_second: Option<Rate>,
    /// Why the disk's rate is not known.
    #[serde(skip)]
    disk_unknown: Option<String>,
    #[serde(skip)]
    predicted: Option<Prediction>,
}

/// What experts that were brought one by one did.
#[derive(Clone, Copy, Debug, Serialize)]
struct Experts {
    #[serde(flatten)]
    counts: Counts,
    hit_rate: f64,
}

/// What `airrun plan` says of a placement.
#[derive(Clone, Copy, Debug)]
struct Prediction {
    /// With the disk that there is.
    real: Estimate,
    /// With one that takes no time: what computing allows.
    computing: Estimate,
}

/// Blocks and bytes by where they live.
#[derive(Clone, Copy, Debug, Serialize)]
struct Placement {
    resident: Share,
    streamed: Share,
    outside_of_blocks: Bytes,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Share {
    blocks: usize,
    bytes: Bytes,
}

/// One of the tests that were asked for, and what its repetitions took.
struct Test {
    kind: Kind,
    n_tokens: usize,
    measures: Vec<Measure>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prompt,
    Generation,
}

/// Runs the tests of `args` and prints them.
pub(crate) fn run(args: &BenchArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    if let Some(path) = &args.routes {
        return routes::simulate(path, args.json, printer);
    }
    let interrupt = Interrupt::new()?;
    let mut tests = tests(args)?;
    let index = Arc::new(resolve::model(&args.load.model)?.index);
    let options = options(args)?;
    let mut tracing = Tracing::prepare(args.load.trace.as_deref())?;
    // Before the tests and after them, because disks change from one minute to the next where they are shared. The probe's memory is
    // given back before plans are made, which leave room for what the program has had.
    let disk_before = sample_disk(&index, printer)?;
    probe::forget_peak();
    let planned = planning::plan(&index, &options, false)?;
    let engine = talk::load(Index::clone(&index), &options, printer)?;
    printer.detail(engine.describe());
    let mut session = engine.session()?;
    tracing.begin(&session.monitor());
    interrupt.stops(session.monitor());
    let text = text(args, &engine)?;
    if let Some(watch) = session.monitor().experts() {
        watch.begin_record();
    }
    let measured = measure(&mut tests, &mut session, &engine, (args.repeat, &text), printer);
    routes::finish(&session, args.record_routes.as_deref(), printer)?;
    let interrupted = interrupt.stopping() || matches!(measured, Err(Error::Interrupted));
    if !interrupted {
        measured?;
    }
    let peak = probe::peak_memory();
    tracing.finish(&session.monitor(), &engine, printer)?;
    let touched = bench::touched_by_token(engine.index());
    let mut run = Run::new(&engine, &options, peak);
    let planned = planned.with(engine.plan().clone());
    drop((session, engine));
    run.add_disk(disk_before, || sample_disk(&index, printer).ok().filter(|_| !interrupted));
    if !interrupted {
        let _status = Status::start(printer, Watched::Step("measuring memory".to_owned()));
        let rate = bench::memory_rate(run.threads as usize, probe::available_memory());
        run.memory_bytes_per_second = rate;
        run.predicted = predict(&index, &options, &planned, args.prompt_tokens);
    }
    let rows: Vec<Row> = tests.iter().filter_map(|test| test.row(&run, touched)).collect();
    print(&rows, &run, args.json, printer)?;
    Ok(if interrupted { ExitStatus::Interrupted } else { ExitStatus::Ok })
}

fn tests(args: &BenchArgs) -> anyhow::Result<Vec<Test>> {
    let test = |kind, n: u32| Test { kind, n_tokens: n as usize, measures: Vec::new() };
    let mut tests =
        vec![test(Kind::Prompt, args.prompt_tokens), test(Kind::Generation, args.gen_tokens)];
    tests.retain(|test| test.n_tokens > 0);
    if tests.is_empty() {
        return Err(Failure::error("there is nothing to measure", "give -p or -n more than 0"));
    }
    Ok(tests)
}

/// The tokens of the text that is to be computed; none if that is of no matter.
fn text(args: &BenchArgs, engine: &Engine) -> anyhow::Result<Vec<Token>> {
    let Some(path) = &args.text else { return Ok(Vec::new()) };
    let text = input::text_of(path, input::MAX_PROMPT)
        .map_err(|e| Failure::error(format!("cannot read '{}': {e}", path.display()), ""))?;
    // As `run --raw` reads it: marks of turns are what they are.
    Ok(engine.vocab()?.tokenize(&text, true, true)?)
}

/// A context that holds the tests, unless the user gave one: then it must.
fn options(args: &BenchArgs) -> anyhow::Result<LoadOptions> {
    let needed = args.prompt_tokens.max(args.gen_tokens + 1);
    let options = resolve::load_options(&args.load);
    match options.ctx {
        Some(ctx) if (1..needed).contains(&ctx) => Err(Failure::error(
            format!("the tests need a context of {needed} tokens, and -c gives {ctx}"),
            "make the context larger, or the tests shorter with -p and -n",
        )),
        _ => Ok(LoadOptions { ctx: options.ctx.or(Some(needed)), ..options }),
    }
}

fn sample_disk(index: &Index, printer: &Printer) -> Result<Result<Sample, NoSample>, Error> {
    let _status = Status::start(printer, Watched::Step("measuring the disk".to_owned()));
    bench::disk_rate(index)
}

/// What the plan promised; nothing where it cannot be asked again.
fn predict(
    index: &Arc<Index>,
    options: &LoadOptions,
    planned: &Planned,
    n_prompt: u32,
) -> Option<Prediction> {
    let Forecast { rates, estimate, .. } =
        planning::forecast(index, options, planned, n_prompt).ok()?;
    let computing =
        plan::estimate(&planned.plan, &rates.without_disk(), Touched::of(index), n_prompt);
    Some(Prediction { real: estimate, computing })
}

/// Warms up, then runs every test as often as asked for.
fn measure(
    tests: &mut [Test],
    session: &mut Session,
    engine: &Engine,
    (repeat, text): (u32, &[Token]),
    printer: &Printer,
) -> Result<(), Error> {
    let watched = |name| Work::of(engine, Some(name));
    for test in tests {
        let warm_up = match test.kind {
            Kind::Prompt => test.n_tokens.min(WARM_UP),
            Kind::Generation => 1,
        };
        let status = Status::start(printer, watched(format!("{}, warming up", test.name())));
        test.kind.run(session, warm_up, text)?;
        drop(status);
        for k in 1..=repeat {
            let status = Status::start(printer, watched(format!("{} {k}/{repeat}", test.name())));
            let measure = test.kind.run(session, test.n_tokens, text)?;
            drop(status);
            let speed = talk::speed(measure.tokens, measure.seconds);
            printer.dim(format_args!("{} {k}/{repeat}: {speed}", test.name()));
            test.measures.push(measure);
        }
    }
    Ok(())
}

impl Kind {
    fn run(self, session: &mut Session, n: usize, text: &[Token]) -> Result<Measure, Error> {
        match self {
            Kind::Prompt => bench::prompt(session, n, text),
            Kind::Generation => bench::generation(session, n, text),
        }
    }
}

impl Test {
    /// `pp512`, `tg64`: as llama.cpp calls them.
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Prompt => "pp",
            Kind::Generation => "tg",
        };
        format!("{kind}{}", self.n_tokens)
    }

    /// The repetition in the middle, beside its limits; none if an interrupt came before the first.
    fn row(&self, run: &Run, touched: Bytes) -> Option<Row> {
        let mut measures = self.measures.clone();
        measures.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let (fastest, slowest) = (measures.first()?, measures.last()?);
        let median = measures[measures.len() / 2];
        let memory = match self.kind {
            Kind::Generation => run.memory_bytes_per_second.map(|rate| (rate, touched)),
            // Arithmetic holds a prompt up, long before memory does.
            Kind::Prompt => None,
        };
        let of = |estimate: Estimate| match self.kind {
            Kind::Prompt => estimate.prompt.tokens_per_second,
            Kind::Generation => estimate.generation.tokens_per_second,
        };
        let predicted = run.predicted.map(|prediction| of(prediction.real));
        let computing = run.predicted.map(|prediction| of(prediction.computing));
        let limits = Limits::of(&median, run.disk_bytes_per_second, memory, computing);
        let tightest = limits.tightest();
        let speed = tokens_per_second(&median);
        Some(Row {
            test: self.name(),
            tokens: median.tokens,
            seconds: median.seconds,
            tokens_per_second: speed,
            range: [tokens_per_second(slowest), tokens_per_second(fastest)],
            passes: median.passes,
            streamed_bytes: median.streamed,
            disk_bytes: median.from_disk,
            stall_seconds: median.stall_seconds,
            experts: median
                .experts
                .and_then(|counts| counts.hit_rate().map(|hit_rate| Experts { counts, hit_rate })),
            limit_tokens_per_second: tightest.map(|(limit, _)| limit),
            of_limit: tightest.map(|(limit, _)| speed / limit),
            limited_by: tightest.map(|(_, by)| by),
            limits,
            predicted_tokens_per_second: predicted,
            run: run.clone(),
        })
    }
}

fn tokens_per_second(measure: &Measure) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a token count is far below 2^53")]
    let tokens = measure.tokens as f64;
    tokens / measure.seconds.max(1e-9)
}

impl Run {
    fn new(engine: &Engine, options: &LoadOptions, peak_rss: Bytes) -> Run {
        Run {
            peak_rss_bytes: peak_rss,
            // The CPU's memory is RAM, which is in the peak above. A GPU's is taken once, and given back at the end.
            peak_device_bytes: engine.device_memory().unwrap_or_default(),
            device: engine.device().to_owned(),
            threads: options.threads.unwrap_or_else(probe::physical_cores).max(1),
            engine: engine.describe(),
            plan: Placement::of(engine),
            disk_bytes_per_second: None,
            disk_range: None,
            memory_bytes_per_second: None,
            disk_unknown: None,
            predicted: None,
        }
    }

    /// The disk's rate before the tests and, if there was one, `after` them.
    fn add_disk(
        &mut self,
        before: Result<Sample, NoSample>,
        after: impl FnOnce() -> Option<Result<Sample, NoSample>>,
    ) {
        let sample = match before {
            Ok(sample) => sample,
            Err(why) => {
                self.disk_unknown = Some(why.to_string());
                return;
            }
        };
        let sample = match after() {
            Some(Ok(after)) => sample.followed_by(&after),
            _ => sample,
        };
        self.disk_bytes_per_second = Some(sample.rate());
        self.disk_range = Some(sample.range());
    }
}

impl Placement {
    fn of(engine: &Engine) -> Placement {
        let (index, plan) = (engine.index(), engine.plan());
        let share = |tier: Tier| Share { blocks: plan.count(tier), bytes: plan.bytes(tier) };
        let in_blocks: Bytes = index.blocks.iter().map(|block| block.len).sum();
        Placement {
            resident: share(Tier::Resident),
            streamed: share(Tier::Streamed),
            outside_of_blocks: index.bytes().saturating_sub(in_blocks),
        }
    }
}

fn print(rows: &[Row], run: &Run, json: bool, printer: &Printer) -> io::Result<()> {
    if json {
        for row in rows {
            printer.data(&(serde_json::to_string(row)? + "\n"))?;
        }
        return Ok(());
    }
    if rows.is_empty() {
        return Ok(());
    }
    // Without the blanks that pad the first and the last column.
    let table = table(rows);
    let lines =
        table.lines().map(|l| format!("{}\n", l.strip_prefix(' ').unwrap_or(&l).trim_end()));
    printer.data(&lines.collect::<String>())?;
    if rows.iter().any(|row| row.of_limit > Some(1.0)) {
        printer
            .dim("possible: measured too low, as on a busy machine; what was reached was possible");
    }
    for line in notes(run) {
        printer.dim(line);
    }
    Ok(())
}

/// A line for each test.
fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "test",
        "tokens/s",
        "possible",
        "reached",
        "limited by",
        "predicted",
        "read/pass",
        "waiting",
        "experts there",
    ]);
    for row in rows {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let per_pass = Bytes(row.streamed_bytes.0.checked_div(row.passes).unwrap_or(0));
        let streams = per_pass > Bytes::ZERO;
        table.add_row([
            row.test.clone(),
            digits(row.tokens_per_second),
            // What was reached was possible, whatever was measured beside it.
            or_dash(row.limit_tokens_per_second.map(|l| digits(l.max(row.tokens_per_second)))),
            or_dash(row.of_limit.map(|share| percent(share.min(1.0)))),
            or_dash(row.limited_by.map(str::to_owned)),
            or_dash(row.predicted_tokens_per_second.map(digits)),
            or_dash(streams.then(|| per_pass.to_string())),
            or_dash(streams.then(|| percent(row.stall_seconds / row.seconds.max(1e-9)))),
            or_dash(row.experts.map(found)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `85 %`, and where a device has experts in memory of its own, `85 % (62 % on the GPU)`.
fn found(experts: Experts) -> String {
    let above = experts.counts.device_rate();
    let above = above.map_or_else(String::new, |rate| format!(" ({} on the GPU)", percent(rate)));
    percent(experts.hit_rate) + &above
}

/// What holds for all tests, a line each.
fn notes(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(rate), Some([low, high])) = (run.disk_bytes_per_second, run.disk_range) {
        lines.push(format!("disk: {rate} ({low} to {high})"));
    }
    if let Some(why) = &run.disk_unknown {
        lines.push(format!("disk: not measured: {why}"));
    }
    if let Some(rate) = run.memory_bytes_per_second {
        lines.push(format!("memory: {rate}"));
    }
    lines.push(format!("most memory in use: {}", run.peak_rss_bytes));
    lines.push(run.engine.clone());
    lines
}

/// Three significant digits, as far as they are behind the point.
fn digits(number: f64) -> String {
    let digits = if number < 10.0 {
        2
    } else if number < 100.0 {
        1
    } else {
        0
    };
    format!("{number:.digits$}")
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Args, Command};
    use clap::Parser;

    fn bench_args(args: &[&str]) -> BenchArgs {
        let all = ["airrun", "bench", "m.gguf"].iter().chain(args);
        match Args::try_parse_from(all).unwrap().command {
            Command::Bench(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_context_holds_the_tests() {
        let ctx = |args: &[&str]| options(&bench_args(args)).map(|options| options.ctx.unwrap());
        assert_eq!(ctx(&[]).unwrap(), 512);
        assert_eq!(ctx(&["-n", "600"]).unwrap(), 601);
        assert_eq!(ctx(&["-c", "2048"]).unwrap(), 2048);
        assert_eq!(ctx(&["-c", "0"]).unwrap(), 0);
        assert!(ctx(&["-c", "100"]).is_err());
        assert!(tests(&bench_args(&["-p", "0", "-n", "0"])).is_err());
        assert_eq!(tests(&bench_args(&["-p", "0"])).unwrap().len(), 1);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (number, want) in [(0.672, "0.67"), (9.99, "9.99"), (34.16, "34.2"), (512.4, "512")] {
            assert_eq!(digits(number), want);
        }
        assert_eq!(percent(0.934), "93 %");
    }
}
