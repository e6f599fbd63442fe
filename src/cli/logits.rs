//! `airrun logits`: what the model computes for given tokens, to the last bit. It needs no
//! tokenizer.

use serde::Serialize;

use crate::cli::args::LogitsArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::progress::{Status, Work};
use crate::cli::trace::Tracing;
use crate::cli::{resolve, talk};
use crate::engine::LoadOptions;
use crate::talk::Vocab;

/// The output of `--json`. Floats have the digits that read back to the same 32 bits.
#[derive(Serialize)]
struct Logits<'a> {
    n_vocab: usize,
    logits: &'a [f32],
}

/// Tokens per pass when nobody says otherwise.
const UBATCH: u32 = 512;

/// How many logits are shown to people.
const N_SHOWN: usize = 10;

/// Computes the tokens of `args` in one session and prints the last logits.
pub(crate) fn run(args: &LogitsArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    // Nothing here ends better by being asked to: Ctrl-C ends the program.
    let _interrupt = Interrupt::new()?;
    let index = resolve::model(&args.load.model)?.index;
    // Repacked weights compute the same in another order, so only weights as stored can be
    // compared.
    let n_ctx = u32::try_from(args.tokens.len()).unwrap_or(u32::MAX);
    let typed = resolve::load_options(&args.load);
    let options = LoadOptions {
        repack: false,
        ctx: typed.ctx.or(Some(n_ctx)),
        // The same batches whatever streams: another batch is computed in another order, too.
        ubatch: typed.ubatch.or(Some(UBATCH)),
        ..typed
    };
    let mut tracing = Tracing::prepare(args.load.trace.as_deref())?;
    let engine = talk::load(index, &options, printer)?;
    printer.detail(engine.describe());
    let mut session = engine.session()?;
    tracing.begin(&session.monitor());
    let status = Status::start(printer, Work::of(&engine, None));
    session.sync(&args.tokens)?;
    drop(status);
    tracing.finish(&session.monitor(), &engine, printer)?;
    let logits = session.logits()?;
    let text = if args.json {
        serde_json::to_string(&Logits { n_vocab: logits.len(), logits })? + "\n"
    } else {
        largest(logits, engine.vocab().ok())
    };
    printer.data(&text)?;
    Ok(ExitStatus::Ok)
}

/// A line for each of the largest logits: token, logit, text.
fn largest(logits: &[f32], vocab: Option<&Vocab>) -> String {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(N_SHOWN);
    let mut text = format!("{:>8}  {:>12}\n", "token", "logit");
    for token in order {
        text += &format!("{token:>8}  {:>12}", logits[token]);
        if let (Some(vocab), Ok(token)) = (vocab, i32::try_from(token)) {
            text += &format!("  {:?}", String::from_utf8_lossy(&vocab.piece(token)));
        }
        text.push('\n');
    }
    text
}
