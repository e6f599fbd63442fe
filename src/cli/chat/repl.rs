//! The conversation on a terminal: reads lines, asks the model, shows answers. The line editor owns
//! the keyboard only while a line is being written.

use std::io;
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Behavior, CompletionType, Config, Editor};

use super::command::Command;
use super::complete::Keys;
use super::files::{self, Attachment};
use super::history;
use super::model::Opening;
use super::pad::{self, Wanted};
use super::resume;
use crate::cli::exit::{self, ExitStatus};
use crate::cli::resolve::{self, Chosen};
use crate::cli::sampling;
use crate::cli::talk::{Reply, Talk, computed, summary};
use crate::engine::{Answer, Finish};
use crate::talk::Role;
use crate::talk::chat::{ChatError, Conversation};
use crate::talk::template::{ChatTemplate, TemplateError};
use crate::units::Bytes;

/// Lines that are kept between runs.
const N_HISTORY: usize = 1000;
/// Steps that `/undo` can go back.
const MAX_UNDO: usize = 20;
/// Begins and ends a text of several lines.
const FENCE: &str = "\"\"\"";

/// A conversation with a person.
pub(super) struct Repl {
    pub(super) talk: Talk,
    pub(super) template: ChatTemplate,
    pub(super) conversation: Conversation,
    /// Earlier conversations, to which `/undo` leads back, with what happened since; the latest is the last.
    pub(super) before: Vec<(String, Conversation)>,
    /// What goes with the next question.
    pub(super) files: Vec<Attachment>,
    /// The last question, if it has no answer.
    pub(super) unanswered: Option<String>,
    editor: Editor<Keys, DefaultHistory>,
    /// Whether the line is to be changed in the user's own editor.
    wanted: Wanted,
    /// None where the system has no place for it.
    history: Option<PathBuf>,
    pub(super) last: Option<Answer>,
    pub(super) total: Total,
    /// Ctrl-C presses at the prompt since the last line.
    n_interrupts: usize,
    /// What was set in this conversation, in order.
    pub(super) set: Vec<(String, String)>,
    /// The conversation as it was kept last, or as it began: what nobody said is not kept in the place of what somebody did.
    kept: Conversation,
}

/// Sums over all answers.
#[derive(Default)]
pub(super) struct Total {
    pub(super) n_answers: usize,
    pub(super) n_tokens: usize,
    /// Those of them, and of those that ended answers, that took `seconds`.
    pub(super) n_computed: usize,
    pub(super) seconds: f64,
    pub(super) streamed: Bytes,
}

/// What came from the keyboard.
enum Input {
    Line(String),
    /// Nothing to do: an empty line, or one that was given up.
    Nothing,
    Leave,
}

impl Repl {
    pub(super) fn new(
        talk: Talk,
        template: ChatTemplate,
        system: Option<String>,
    ) -> anyhow::Result<Repl> {
        // With stdout redirected, the prompt must not land in it.
        let behavior =
            if talk.printer.answer_on_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
        let config = Config::builder()
            .max_history_size(N_HISTORY)?
            .behavior(behavior)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Keys::new(talk.interrupt.clone())));
        let wanted = Wanted::bind(&mut editor);
        let history = history::file();
        if let Some(path) = history.as_deref().filter(|path| path.exists()) {
            history::repair(path);
            if let Err(error) = editor.load_history(path) {
                talk.printer.warn(format_args!("history '{}': {error}", path.display()));
            }
        }
        let conversation = talk.conversation(system);
        Ok(Repl {
            kept: conversation.clone(),
            conversation,
            talk,
            template,
            before: Vec::new(),
            files: Vec::new(),
            unanswered: None,
            editor,
            wanted,
            history,
            last: None,
            total: Total::default(),
            n_interrupts: 0,
            set: Vec::new(),
        })
    }

    /// Goes on with a conversation of before, if there was one.
    pub(super) fn resume(&mut self, last: Option<Conversation>) {
        let printer = &self.talk.printer;
        match last {
            Some(conversation) => {
                printer
                    .dim(format_args!("going on after {} messages", conversation.messages.len()));
                self.kept = conversation.clone();
                self.conversation = conversation;
            }
            None => printer.dim("there was no conversation with this model yet"),
        }
    }

    /// Talks until the user leaves, and leaves the trace behind that was asked for.
    pub(super) fn run(
        mut self,
        opening: &Opening<'_>,
        mut present: Chosen,
    ) -> anyhow::Result<ExitStatus> {
        loop {
            let next = self.talk_on();
            self.keep_for_later();
            let next = next?;
            self.talk.end_trace()?;
            let Some(other) = next else { return Ok(ExitStatus::Ok) };
            (self, present) = self.go_on_with(other, present, opening)?;
        }
    }

    /// Goes on with the model `other`; where it cannot be loaded, with the `present` one.
    fn go_on_with(
        self,
        other: Chosen,
        present: Chosen,
        opening: &Opening<'_>,
    ) -> anyhow::Result<(Repl, Chosen)> {
        let interrupt = self.talk.interrupt.clone();
        let thinking = self.template.thinking().clone();
        // One after the other: there may be no room for two.
        drop(self.talk);
        let (opened, chosen) = match opening.another(&interrupt, other.clone()) {
            Ok(opened) => (opened, other),
            Err(error) => {
                opening.printer.error(&exit::describe(&error), exit::hint(&error).as_deref());
                (opening.another(&interrupt, present.clone())?, present)
            }
        };
        let (mut talk, mut template) = opened;
        template.think(thinking);
        for (name, value) in &self.set {
            // It was taken before.
            let _ = sampling::set(&mut talk.settings, &mut talk.max_tokens, name, value);
        }
        let (last, total) = (None, Total::default());
        let mut conversation = self.conversation;
        conversation.from_the_beginning();
        // It is to be found with this model, too.
        let kept = Conversation::default();
        Ok((Repl { talk, template, conversation, kept, last, total, ..self }, chosen))
    }

    /// Keeps the conversation for `--resume`, if anything was said. Not only at the end: terminals are closed, and programs killed.
    fn keep_for_later(&mut self) {
        if self.conversation != self.kept {
            resume::keep(&self.talk.engine, &self.conversation);
            self.kept = self.conversation.clone();
        }
    }

    /// Until the user leaves, or wants another model.
    fn talk_on(&mut self) -> anyhow::Result<Option<Chosen>> {
        let printer = self.talk.printer;
        printer.dim(format_args!("{}; /help lists commands, Ctrl-D leaves", self.model_name()));
        loop {
            self.keep_for_later();
            self.talk.interrupt.waits();
            match self.read()? {
                Input::Leave => return Ok(None),
                Input::Nothing => {}
                Input::Line(line) if Command::is_one(&line) => match Command::parse(&line) {
                    Ok(Command::Quit) => return Ok(None),
                    Ok(Command::Model(Some(name))) => match resolve::model(&files::path(&name)) {
                        Ok(other) => return Ok(Some(other)),
                        Err(error) => {
                            printer.error(&exit::describe(&error), exit::hint(&error).as_deref());
                        }
                    },
                    Ok(Command::Retry) => self.retry()?,
                    Ok(Command::Edit) => self.edit()?,
                    Ok(command) => self.obey(command),
                    Err(sentence) => printer.say(sentence),
                },
                Input::Line(text) => {
                    let text = text.strip_prefix(FENCE).unwrap_or(&text);
                    let question = files::with_files(&self.files, text);
                    let before = self.conversation.clone();
                    if self.ask(&question)? {
                        self.files.clear();
                        self.keep("the last question and its answer", before);
                    } else {
                        self.conversation = before;
                    }
                }
            }
        }
    }

    /// Asks the model; whether there is an answer. Only a stdout that takes no more text, or a template that runs away, ends
    /// the conversation.
    fn ask(&mut self, text: &str) -> anyhow::Result<bool> {
        self.conversation.push(Role::User, text);
        self.unanswered = Some(text.to_owned());
        match self.reply() {
            Ok(reply) => {
                let printer = self.talk.printer;
                match reply.answer.finish {
                    Finish::Interrupted => printer.dim("(stopped)"),
                    Finish::ContextFull => {
                        printer.warn("the context is full; the answer ends here")
                    }
                    Finish::Length => printer.dim("(stopped at max-tokens)"),
                    Finish::Stop => {}
                }
                let answered = !reply.text.is_empty();
                if answered {
                    printer.dim(summary(&reply.answer));
                    self.conversation.push(Role::Assistant, reply.text);
                    self.unanswered = None;
                } else {
                    self.conversation.take_back();
                }
                self.total.add(&reply.answer);
                self.last = Some(reply.answer);
                Ok(answered)
            }
            Err(error) if is_final(&error) => {
                // What is kept can be gone on with.
                self.conversation.take_back();
                Err(error)
            }
            Err(error) => {
                self.conversation.take_back();
                let hint = exit::hint(&error);
                self.talk.printer.error(&exit::describe(&error), hint.as_deref());
                Ok(false)
            }
        }
    }

    /// Answers the last question again.
    fn retry(&mut self) -> anyhow::Result<()> {
        let Some(question) = self.last_question() else {
            self.talk.printer.say("there is no question yet");
            return Ok(());
        };
        let settings = &self.talk.settings;
        if settings.temp == 0.0 || settings.seed.is_some() {
            let what = if settings.temp == 0.0 { "temp 0" } else { "a fixed seed" };
            self.talk
                .printer
                .dim(format_args!("with {what} the answer will be the same; /set changes it"));
        }
        self.ask_instead(&question, "the answer before /retry")
    }

    /// Lets the last question be changed, and asks it then.
    fn edit(&mut self) -> anyhow::Result<()> {
        let Some(question) = self.last_question() else {
            self.talk.printer.say("there is no question yet");
            return Ok(());
        };
        let Some(Input::Line(text)) = self.line_with(">>> ", &question)? else { return Ok(()) };
        if text.trim().is_empty() {
            self.talk.printer.dim("the question stays as it was");
            return Ok(());
        }
        self.remember(&text);
        self.ask_instead(text.trim(), "the question before /edit, and its answer")
    }

    /// Asks `question` in the place of the last one; where that has no answer, all stays as it was.
    fn ask_instead(&mut self, question: &str, what: &str) -> anyhow::Result<()> {
        let before = self.conversation.clone();
        if self.unanswered.is_none() {
            let n = self.conversation.messages.len();
            self.conversation.truncate(n.saturating_sub(2));
        }
        if self.ask(question)? {
            self.files.clear();
            self.keep(what, before);
        } else {
            self.conversation = before;
        }
        Ok(())
    }

    /// The question that was asked last, answered or not.
    fn last_question(&self) -> Option<String> {
        let answered = self.conversation.messages.iter().rfind(|m| m.role == Role::User);
        self.unanswered.clone().or_else(|| answered.map(|m| m.content.clone()))
    }

    /// Keeps an earlier conversation for `/undo`, with what happened since.
    pub(super) fn keep(&mut self, what: &str, before: Conversation) {
        if self.before.len() == MAX_UNDO {
            self.before.remove(0);
        }
        self.before.push((what.to_owned(), before));
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        let (n_ctx, room) = (self.talk.n_ctx(), self.talk.room());
        let vocab = self.talk.engine.vocab()?;
        let prompt = self.conversation.prompt(&self.template, vocab, n_ctx, room)?;
        if prompt.n_dropped > 0 {
            let turns = if prompt.n_dropped == 1 { "turn" } else { "turns" };
            self.talk.printer.warn(format_args!(
                "the context is full: the model does not see the oldest {} {turns} any more",
                prompt.n_dropped
            ));
        }
        self.talk.answer(&prompt.tokens, self.template.stop(), Some(&prompt.asked))
    }

    /// One line, or several between fences; these keep the first fence, so that a slash in them is
    /// no command.
    fn read(&mut self) -> anyhow::Result<Input> {
        let Some(first) = self.line(">>> ")? else { return Ok(Input::Nothing) };
        let Input::Line(mut text) = first else { return Ok(first) };
        if let Some(opened) = text.trim_start().strip_prefix(FENCE) {
            text = opened.to_owned();
            while !text.trim_end().ends_with(FENCE) {
                match self.line("... ")? {
                    Some(Input::Line(line)) => {
                        text.push('\n');
                        text.push_str(&line);
                    }
                    Some(other) => return Ok(other),
                    None => return Ok(Input::Nothing),
                }
            }
            let body = text.trim_end();
            text = format!("{FENCE}{}", body[..body.len() - FENCE.len()].trim_matches('\n'));
        }
        let empty = text.strip_prefix(FENCE).unwrap_or(&text).trim().is_empty();
        if empty {
            return Ok(Input::Nothing);
        }
        self.n_interrupts = 0;
        self.remember(&text);
        Ok(Input::Line(if text.starts_with(FENCE) { text } else { text.trim().to_owned() }))
    }

    /// One line of the editor; none when Ctrl-C gave it up.
    fn line(&mut self, prompt: &str) -> anyhow::Result<Option<Input>> {
        self.line_with(prompt, "")
    }

    /// The same, beginning with `text`.
    fn line_with(&mut self, prompt: &str, text: &str) -> anyhow::Result<Option<Input>> {
        let mut line = self.editor.readline_with_initial(prompt, (text, ""));
        while let (true, Ok(text)) = (self.wanted.take(), &line) {
            let text = pad::write(text, &self.talk.printer);
            line = self.editor.readline_with_initial(prompt, (&text, ""));
        }
        match line {
            Ok(line) => Ok(Some(Input::Line(line))),
            Err(ReadlineError::Eof) => Ok(Some(Input::Leave)),
            Err(ReadlineError::Interrupted) => {
                self.n_interrupts += 1;
                if self.n_interrupts >= 2 {
                    self.talk.printer.dim("Ctrl-D or /quit leaves");
                }
                Ok(None)
            }
            Err(ReadlineError::Signal(_)) => Ok(None),
            // Of a terminal with another encoding, or something binary that was pasted.
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.talk.printer.warn("that was no UTF-8; the line was dropped");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn remember(&mut self, text: &str) {
        let entry = match text.strip_prefix(FENCE) {
            Some(body) => format!("{FENCE}{body}{FENCE}"),
            None => text.to_owned(),
        };
        let new = self.editor.add_history_entry(entry).unwrap_or(false);
        // A history that cannot be written is missed at the next start, not here.
        if let (true, Some(path)) = (new, &self.history) {
            let _ = self.editor.append_history(path);
        }
    }
}

impl Total {
    fn add(&mut self, answer: &Answer) {
        self.n_answers += 1;
        self.n_tokens += answer.tokens.len();
        let (n, seconds) = computed(answer).unwrap_or_default();
        self.n_computed += n;
        self.seconds += seconds;
        self.streamed += answer.streamed;
    }
}

/// Whether the conversation cannot go on after `error`.
fn is_final(error: &anyhow::Error) -> bool {
    let runaway =
        matches!(error.downcast_ref(), Some(ChatError::Template(TemplateError::Runaway(_))));
    runaway || error.is::<io::Error>()
}
