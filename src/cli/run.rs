//! `airrun run`: one prompt, one answer.

use crate::cli::args::RunArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::printer::Printer;
use crate::cli::talk::Talk;
use crate::cli::{chat, input, once, resolve};
use crate::engine::Token;

/// Answers the prompt of `args`, of stdin, or of both; on a terminal without one, it is a conversation.
pub(crate) fn run(args: &RunArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    // A model that is not there should be named before anybody is asked for a prompt.
    let chosen = resolve::model(&args.load.model)?;
    let typed = args.prompt.as_deref().or(args.prompt_flag.as_deref());
    let Some(prompt) = input::prompt(typed, printer)? else {
        if args.raw {
            let hint = "give it after the model, or pipe it into stdin";
            return Err(Failure::error("--raw needs a prompt", hint));
        }
        return chat::converse(
            &args.load,
            &args.sample,
            None,
            chosen,
            chat::Keep::default(),
            printer,
        );
    };
    input::require_text(&prompt)?;
    let mut talk = Talk::open(&args.load, &args.sample, chosen, *printer)?;
    if args.raw {
        let tokens = raw_tokens(&talk, &prompt)?;
        return once::finish(&mut talk, &tokens, None, None);
    }
    let template = talk.template()?;
    let prompt = once::tokens(&talk, &template, talk.system.clone(), prompt)?;
    once::finish(&mut talk, &prompt.tokens, template.stop(), Some(&prompt.asked))
}

fn raw_tokens(talk: &Talk, prompt: &str) -> anyhow::Result<Vec<Token>> {
    let (vocab, room) = (talk.engine.vocab()?, talk.n_ctx());
    let too_long = |takes: String| {
        let what = format!("the prompt takes {takes} tokens, and the context holds {room}");
        Err(Failure::error(what, "make the context larger with -c"))
    };
    let fewest = vocab.fewest_tokens(prompt);
    if fewest >= room {
        return too_long(format!("{fewest} or more"));
    }
    let tokens = crate::talk::first::raw_tokens(prompt, vocab)?;
    if tokens.len() >= room {
        return too_long(tokens.len().to_string());
    }
    Ok(tokens)
}
