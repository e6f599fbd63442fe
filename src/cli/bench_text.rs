//! `airrun bench --draft WHO --text FILE`: how fast a text with meaning is gone on with, with drafts and without, by turns. What drafts bring depends on
//! the text, so that fixed tokens say nothing about them.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use crate::cli::args::BenchArgs;
use crate::cli::draft;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::input;
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Work};
use crate::cli::{resolve, talk};
use crate::engine::batch::Batcher;
use crate::engine::draft::Drafted;
use crate::engine::{Answer, Ask, Engine, Finish, LoadOptions, SamplerSettings, Token};

/// Tokens of the text that are read before it is gone on with, at most.
const PROMPT: usize = 256;

/// What all answers took together.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    tokens: usize,
    per_pass: [usize; 2],
    seconds: f64,
    drafted: Drafted,
}

impl Sum {
    fn add(&mut self, answer: &Answer) {
        self.tokens += answer.tokens.len();
        self.per_pass[0] += answer.per_pass[0];
        self.per_pass[1] += answer.per_pass[1];
        self.seconds += answer.prompt_seconds + answer.generate_seconds;
        self.drafted.tried += answer.drafted.tried;
        self.drafted.accepted += answer.drafted.accepted;
    }

    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
    fn per_pass(&self) -> f64 {
        self.per_pass[0] as f64 / self.per_pass[1].max(1) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
    fn per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

/// Measures both, and prints them.
pub(crate) fn run(args: &BenchArgs, file: &Path, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let interrupt = Interrupt::new()?;
    let text = input::text_of(file, input::MAX_PROMPT)
        .with_context(|| format!("text '{}'", file.display()))?;
    let chosen = resolve::model(&args.load.model)?;
    let n = args.gen_tokens.max(1) as usize;
    let options = resolve::load_options(&args.load);
    let who = draft::choose(&args.load, &chosen.index, &options)?;
    let room = u32::try_from(PROMPT + n + 1).unwrap_or(u32::MAX);
    let options = LoadOptions { ctx: options.ctx.or(Some(room)), draft: who, ..options };
    let engine = talk::load(chosen.index, &options, printer)?;
    printer.detail(engine.describe());
    let mut with = engine.batcher()?;
    let name = with.drafters();
    let prompts =
        prompts(&engine, &text, args.repeat as usize, with.n_ctx().saturating_sub(n + 1))?;
    let mut sums = [Sum::default(); 2];
    for prompt in &prompts {
        for (i, sum) in sums.iter_mut().enumerate() {
            with.pause_drafts(i == 0);
            with.forget_all();
            interrupt.stops(with.monitor());
            let status = Status::start(printer, Work::of(&engine, None));
            let answer = answer(&mut with, prompt, n)?;
            drop(status);
            if answer.finish == Finish::Interrupted {
                return Ok(ExitStatus::Interrupted);
            }
            sum.add(&answer);
        }
    }
    show(args, name.as_deref(), &sums, printer)?;
    Ok(ExitStatus::Ok)
}

fn answer(batcher: &mut Batcher, prompt: &[Token], n: usize) -> anyhow::Result<Answer> {
    let settings = SamplerSettings { temp: 0.0, ignore_eos: true, ..SamplerSettings::default() };
    let (prompt, max_tokens) = (prompt.to_vec(), Some(n));
    let ask = Ask { prompt, settings, max_tokens, ..Ask::default() };
    Ok(crate::engine::generate(batcher, ask, &mut |_| ControlFlow::Continue(()))?)
}

/// Beginnings of `text`, from as many places of it.
fn prompts(
    engine: &Engine,
    text: &str,
    places: usize,
    most: usize,
) -> anyhow::Result<Vec<Vec<Token>>> {
    let tokens = engine.vocab()?.tokenize(text, true, false)?;
    let len = PROMPT.min(most).min(tokens.len());
    if len == 0 {
        return Err(Failure::error("the text is empty", "give a file with some text"));
    }
    let last = tokens.len() - len;
    let from = |i: usize| if places > 1 { last * i / (places - 1) } else { 0 };
    Ok((0..places).map(|i| tokens[from(i)..from(i) + len].to_vec()).collect())
}

fn show(
    args: &BenchArgs,
    who: Option<&str>,
    [without, with]: &[Sum; 2],
    printer: &Printer,
) -> anyhow::Result<()> {
    if args.json {
        let line = |test: &str, sum: &Sum| {
            json!({
                "test": test, "draft": who.filter(|_| test == "text+draft"),
                "tokens": sum.tokens, "seconds": sum.seconds, "passes": sum.per_pass[1],
                "tokens_per_second": sum.per_second(), "tokens_per_pass": sum.per_pass(),
                "drafted": sum.drafted.tried, "accepted": sum.drafted.accepted,
            })
        };
        let lines = format!("{}\n{}\n", line("text", without), line("text+draft", with));
        return Ok(printer.data(&lines)?);
    }
    let Drafted { tried, accepted } = with.drafted;
    let text = format!(
        "without drafts   {:>8.2} tokens/s  {:>5.2} tokens/pass\n\
         with drafts      {:>8.2} tokens/s  {:>5.2} tokens/pass  {accepted} of {tried} accepted ({})\n\
         gain             {:>8.2} times\n",
        without.per_second(),
        without.per_pass(),
        with.per_second(),
        with.per_pass(),
        who.unwrap_or("nobody drafts"),
        with.per_second() / without.per_second().max(1e-9),
    );
    Ok(printer.data(&text)?)
}
