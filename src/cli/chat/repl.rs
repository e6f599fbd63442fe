//! The conversation on a terminal: reads lines, does commands, shows answers. The line editor owns
//! the keyboard only while a line is being written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Behavior, Config, Editor};

use super::command::{Command, HELP};
use crate::cli::exit::{self, ExitStatus};
use crate::cli::printer::Printer;
use crate::cli::resolve;
use crate::cli::talk::{Reply, Talk, speed, summary, tokens};
use crate::engine::{Answer, Finish};
use crate::talk::Role;
use crate::talk::chat::{ChatError, Conversation, LoadError};
use crate::talk::template::{ChatTemplate, Origin, TemplateError};
use crate::units::Bytes;

/// Lines that are kept between runs.
const N_HISTORY: usize = 1000;
/// Begins and ends a text of several lines.
const FENCE: &str = "\"\"\"";

/// A conversation with a person.
pub(super) struct Repl {
    talk: Talk,
    template: ChatTemplate,
    conversation: Conversation,
    editor: Editor<(), DefaultHistory>,
    /// None where the system has no place for it.
    history: Option<PathBuf>,
    last: Option<Answer>,
    total: Total,
    /// Ctrl-C presses at the prompt since the last line.
    n_interrupts: usize,
}

/// Sums over all answers.
#[derive(Default)]
struct Total {
    n_answers: usize,
    n_tokens: usize,
    seconds: f64,
    streamed: Bytes,
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
        let config = Config::builder().max_history_size(N_HISTORY)?.behavior(behavior).build();
        let mut editor = Editor::with_config(config)?;
        let history = history_file();
        if let Some(path) = history.as_deref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            talk.printer.warn(format_args!("history '{}': {error}", path.display()));
        }
        Ok(Repl {
            conversation: talk.conversation(system),
            talk,
            template,
            editor,
            history,
            last: None,
            total: Total::default(),
            n_interrupts: 0,
        })
    }

    /// Talks until the user leaves, and leaves the trace behind that was asked for.
    pub(super) fn run(mut self) -> anyhow::Result<ExitStatus> {
        let status = self.talk_on()?;
        self.talk.end_trace()?;
        Ok(status)
    }

    fn talk_on(&mut self) -> anyhow::Result<ExitStatus> {
        let printer = self.talk.printer;
        printer.dim(format_args!("{}; /help lists commands, Ctrl-D leaves", self.model_name()));
        loop {
            self.talk.interrupt.ignore();
            match self.read()? {
                Input::Leave => return Ok(ExitStatus::Ok),
                Input::Nothing => {}
                Input::Line(line) if line.starts_with('/') => match Command::parse(&line) {
                    Ok(Command::Quit) => return Ok(ExitStatus::Ok),
                    Ok(command) => self.obey(command),
                    Err(sentence) => printer.say(sentence),
                },
                Input::Line(text) => {
                    let text = text.strip_prefix(FENCE).unwrap_or(&text);
                    self.ask(text)?;
                }
            }
        }
    }

    /// Asks the model. Only a stdout that takes no more text, or a template that runs away, ends
    /// the conversation.
    fn ask(&mut self, text: &str) -> anyhow::Result<()> {
        self.conversation.push(Role::User, text);
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
                if reply.text.is_empty() {
                    self.conversation.take_back();
                } else {
                    printer.dim(summary(&reply.answer));
                    self.conversation.push(Role::Assistant, reply.text);
                }
                self.total.add(&reply.answer);
                self.last = Some(reply.answer);
                Ok(())
            }
            Err(error) if is_final(&error) => Err(error),
            Err(error) => {
                self.conversation.take_back();
                let hint = exit::hint(&error);
                self.talk.printer.error(&exit::describe(&error), hint.as_deref());
                Ok(())
            }
        }
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        let (n_ctx, room) = (self.talk.n_ctx(), self.talk.room());
        let vocab = self.talk.engine.vocab()?;
        let prompt = self.conversation.prompt(&self.template, vocab, n_ctx, room)?;
        if prompt.n_dropped > 0 {
            let turns = if prompt.n_dropped == 1 { "turn" } else { "turns" };
            self.talk.printer.warn(format_args!(
                "the context is full: the oldest {} {turns} of the conversation were dropped",
                prompt.n_dropped
            ));
        }
        self.talk.answer(&prompt.tokens, self.template.stop())
    }

    fn obey(&mut self, command: Command) {
        let printer = self.talk.printer;
        match command {
            Command::Help => printer.say(HELP),
            Command::System(None) => match &self.conversation.system {
                Some(text) => printer.say(text),
                None => printer.say("no system message"),
            },
            Command::System(text) => self.conversation.system = text,
            Command::Set(name, value) => {
                let (settings, max) = (&mut self.talk.settings, &mut self.talk.max_tokens);
                if let Err(why) = resolve::set(settings, max, &name, &value) {
                    printer.say(format_args!("'{name}' {why}"));
                }
            }
            Command::Show => printer.say(self.settings()),
            Command::Clear => {
                self.conversation.messages.clear();
                printer.dim("the conversation is forgotten");
            }
            Command::Save(file) => self.save(Path::new(&file), &printer),
            Command::Load(file) => self.load(Path::new(&file), &printer),
            Command::Stats => printer.say(self.stats()),
            Command::Quit => {}
        }
    }

    fn save(&self, file: &Path, printer: &Printer) {
        let n = self.conversation.messages.len();
        match self.conversation.save(file) {
            Ok(()) => printer.dim(format_args!("{n} messages saved to '{}'", file.display())),
            Err(error) => printer.error(&format!("save '{}': {error}", file.display()), None),
        }
    }

    fn load(&mut self, file: &Path, printer: &Printer) {
        let loaded: Result<Conversation, LoadError> = Conversation::load(file);
        match loaded {
            Ok(conversation) => {
                self.conversation = conversation;
                let n = self.conversation.messages.len();
                printer.dim(format_args!("{n} messages loaded from '{}'", file.display()));
            }
            Err(error) => printer.error(&format!("load '{}': {error}", file.display()), None),
        }
    }

    fn settings(&self) -> String {
        let settings = &self.talk.settings;
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let template = match self.template.origin() {
            Origin::File => "the file's own",
            Origin::ChatMl => "ChatML",
            Origin::Plain => "plain",
        };
        let used = self.talk.session.tokens().len();
        [
            ("model", self.model_name()),
            ("runs", self.talk.engine.describe()),
            ("template", template.to_owned()),
            ("context", format!("{used} of {}", tokens(self.talk.n_ctx()))),
            ("messages", self.conversation.messages.len().to_string()),
            ("temp", settings.temp.to_string()),
            ("top-k", settings.top_k.to_string()),
            ("top-p", settings.top_p.to_string()),
            ("min-p", settings.min_p.to_string()),
            ("repeat-penalty", settings.repeat_penalty.to_string()),
            ("seed", or_none(settings.seed.map(|n| n.to_string()))),
            ("max-tokens", or_none(self.talk.max_tokens.map(|n| n.to_string()))),
        ]
        .map(|(name, value)| format!("{name:<15} {value}"))
        .join("\n")
    }

    fn stats(&self) -> String {
        let Some(last) = &self.last else { return "no answer yet".to_owned() };
        let total = &self.total;
        format!(
            "last answer: {}\n             {} passes, {:.2} s waiting for weights\n\
             all {} answers: {}, {}; {} streamed",
            summary(last),
            last.passes,
            last.stall_seconds,
            total.n_answers,
            tokens(total.n_tokens),
            speed(total.n_tokens, total.seconds),
            total.streamed,
        )
    }

    fn model_name(&self) -> String {
        let index = self.talk.engine.index();
        let path = index.files.first().map(|file| file.path.as_path());
        let name = path.and_then(Path::file_name);
        name.map_or_else(|| "model".to_owned(), |name| name.display().to_string())
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
        match self.editor.readline(prompt) {
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
        self.seconds += answer.generate_seconds;
        self.streamed += answer.streamed;
    }
}

/// Whether the conversation cannot go on after `error`.
fn is_final(error: &anyhow::Error) -> bool {
    let runaway =
        matches!(error.downcast_ref(), Some(ChatError::Template(TemplateError::Runaway(_))));
    runaway || error.is::<io::Error>()
}

/// Where the history is kept, its directory made.
fn history_file() -> Option<PathBuf> {
    let places = etcetera::choose_base_strategy().ok()?;
    let dir = places.state_dir().unwrap_or_else(|| places.data_dir()).join("airrun");
    fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}
