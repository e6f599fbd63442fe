//! `airrun run`: one prompt, one answer.

use crate::cli::args::RunArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::input;
use crate::cli::printer::Printer;
use crate::cli::talk::{Talk, summary};
use crate::engine::{Finish, Token};
use crate::talk::Role;
use crate::talk::template::ChatTemplate;

/// Answers the prompt of `args` or of stdin.
pub(crate) fn run(args: &RunArgs, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let prompt = match args.prompt.as_ref().or(args.prompt_flag.as_ref()) {
        Some(prompt) => prompt.clone(),
        None => input::stdin_prompt()?,
    };
    input::require_text(&prompt)?;
    let mut talk = Talk::open(&args.load, &args.sample, *printer)?;
    let (tokens, stop) = if args.raw {
        (raw_tokens(&talk, &prompt)?, None)
    } else {
        let template = talk.engine.chat_template()?;
        if let Some(warning) = template.warning() {
            printer.warn(warning);
        }
        (chat_tokens(&talk, &template, talk.system.clone(), prompt)?, template.stop())
    };
    finish(&mut talk, &tokens, stop)
}

/// Tokens of one question with the chat template.
pub(crate) fn chat_tokens(
    talk: &Talk,
    template: &ChatTemplate,
    system: Option<String>,
    prompt: String,
) -> anyhow::Result<Vec<Token>> {
    let mut conversation = talk.conversation(system);
    conversation.push(Role::User, prompt);
    let vocab = talk.engine.vocab()?;
    Ok(conversation.prompt(template, vocab, talk.n_ctx(), talk.room())?.tokens)
}

/// Answers, and says how it ended.
pub(crate) fn finish(
    talk: &mut Talk,
    tokens: &[Token],
    stop: Option<&'static str>,
) -> anyhow::Result<ExitStatus> {
    let reply = talk.answer(tokens, stop)?;
    if reply.answer.finish == Finish::ContextFull {
        talk.printer.warn("the context is full, so the answer ends here; -c makes it larger");
    }
    talk.printer.detail(summary(&reply.answer));
    talk.end_trace()?;
    let interrupted = reply.answer.finish == Finish::Interrupted;
    Ok(if interrupted { ExitStatus::Interrupted } else { ExitStatus::Ok })
}

fn raw_tokens(talk: &Talk, prompt: &str) -> anyhow::Result<Vec<Token>> {
    let tokens = talk.engine.vocab()?.tokenize(prompt, true, true)?;
    if tokens.len() >= talk.n_ctx() {
        return Err(Failure::error(
            format!(
                "the prompt takes {} tokens, and the context holds {}",
                tokens.len(),
                talk.n_ctx()
            ),
            "make the context larger with -c",
        ));
    }
    Ok(tokens)
}
