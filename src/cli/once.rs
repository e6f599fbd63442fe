//! One question and its answer, without a conversation: what `run` does, and `chat` with a prompt on stdin.

use crate::cli::exit::ExitStatus;
use crate::cli::talk::{Talk, summary};
use crate::engine::{Finish, Token};
use crate::talk::Role;
use crate::talk::ask;
use crate::talk::chat::Prompt;
use crate::talk::template::ChatTemplate;

/// Tokens of one question with the chat template.
pub(crate) fn tokens(
    talk: &Talk,
    template: &ChatTemplate,
    system: Option<String>,
    prompt: String,
) -> anyhow::Result<Prompt> {
    let mut conversation = talk.conversation(system);
    conversation.push(Role::User, prompt);
    let vocab = talk.engine.vocab()?;
    Ok(conversation.prompt(template, vocab, talk.n_ctx(), talk.room())?)
}

/// Answers, and says how it ended.
pub(crate) fn finish(
    talk: &mut Talk,
    tokens: &[Token],
    stop: Option<&'static str>,
    asked: Option<&ask::Prompt>,
) -> anyhow::Result<ExitStatus> {
    let reply = talk.answer(tokens, stop, asked)?;
    if reply.answer.finish == Finish::ContextFull {
        talk.printer.warn("the context is full, so the answer ends here; -c makes it larger");
    }
    if reply.answer.finish == Finish::Length {
        talk.printer.note("(stopped at max-tokens)");
    }
    talk.printer.detail(summary(&reply.answer));
    talk.end_trace()?;
    let interrupted = reply.answer.finish == Finish::Interrupted;
    Ok(if interrupted { ExitStatus::Interrupted } else { ExitStatus::Ok })
}
