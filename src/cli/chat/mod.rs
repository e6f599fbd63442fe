//! `airrun chat`: a conversation on a terminal; with stdin piped, one question and one answer.

mod command;
mod complete;
mod files;
mod history;
mod model;
mod obey;
mod pad;
mod repl;
mod resume;

pub(crate) use self::model::Keep;
use self::model::Opening;
use crate::cli::args::{ChatArgs, LoadArgs, SampleArgs};
use crate::cli::exit::ExitStatus;
use crate::cli::printer::Printer;
use crate::cli::resolve::Chosen;
use crate::cli::talk::Talk;
use crate::cli::{input, once, resolve};

/// Talks until the user leaves, or answers stdin.
pub(crate) fn run(args: &ChatArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let chosen = resolve::model(&args.load.model)?;
    let system = args.system.clone();
    // A prompt that cannot be used should not wait for the model.
    let Some(prompt) = input::prompt(None, printer)? else {
        let keep = Keep { most: args.keep.most(), resume: args.resume };
        return converse(&args.load, &args.sample, system, chosen, keep, printer);
    };
    input::require_text(&prompt)?;
    let mut talk = Talk::open(&args.load, &args.sample, chosen, *printer)?;
    let template = talk.template()?;
    let system = system.or_else(|| talk.system.clone());
    let prompt = once::tokens(&talk, &template, system, prompt)?;
    once::finish(&mut talk, &prompt.tokens, template.stop(), Some(&prompt.asked))
}

/// Talks with `chosen` on the terminal until the user leaves.
pub(crate) fn converse(
    load: &LoadArgs,
    sample: &SampleArgs,
    system: Option<String>,
    chosen: Chosen,
    keep: Keep,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let opening = Opening { load, sample, keep, printer: *printer };
    let (talk, template) = opening.first(chosen.clone())?;
    let system = system.or_else(|| talk.system.clone());
    let last = if keep.resume { Some(resume::last(&talk.engine)?) } else { None };
    let mut repl = repl::Repl::new(talk, template, system)?;
    if let Some(last) = last {
        repl.resume(last);
    }
    repl.run(&opening, chosen)
}
