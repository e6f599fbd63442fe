//! What the REPL's commands do, but for those that ask the model.

use std::path::Path;

use super::command::{Command, HELP};
use super::files::{self, Attachment};
use super::repl::Repl;
use crate::cli::sampling;
use crate::cli::talk::{speed, summary, tokens};
use crate::gguf::printable;
use crate::talk::Role;
use crate::talk::chat::Conversation;
use crate::talk::template::Origin;
use crate::units::Bytes;

/// Characters of a message that are shown when a conversation is loaded.
const EXCERPT: usize = 200;

/// How alike a setting must be to be proposed; 1 is equal.
const ALIKE: f64 = 0.75;

impl Repl {
    pub(super) fn obey(&mut self, command: Command) {
        let printer = self.talk.printer;
        match command {
            Command::Help => printer.say(HELP),
            Command::System => match &self.conversation.system {
                Some(text) => printer.say(text),
                None => printer.say("no system message"),
            },
            Command::NewSystem(text) => {
                let now = if text.is_some() {
                    "the system message is set"
                } else {
                    "no system message now"
                };
                self.conversation.system = text;
                printer.dim(format_args!("{now}; it counts from the next question on"));
            }
            Command::Set(name, value) => self.set(&name, &value),
            Command::Show => printer.say(self.settings()),
            Command::Clear => self.clear(),
            Command::Save(file) => self.save(&files::path(&file)),
            Command::Load(file) => self.load(&files::path(&file)),
            Command::Read(None) => printer.say(self.attached()),
            Command::Read(Some(file)) => self.attach(&files::path(&file)),
            Command::Undo => self.undo(),
            Command::Think(how) => self.think(&how),
            Command::Stats => printer.say(self.stats()),
            Command::Copy => self.copy(),
            Command::Model(None) => printer.say(self.model_name()),
            Command::Retry | Command::Edit | Command::Quit | Command::Model(Some(_)) => {}
        }
    }

    /// Hands the last answer to the terminal, which puts it into the clipboard if it may.
    fn copy(&self) {
        let printer = self.talk.printer;
        let mut answers = self.conversation.messages.iter().rev();
        let Some(last) = answers.find(|message| message.role == Role::Assistant) else {
            return printer.say("there is no answer yet");
        };
        if !printer.clipboard(&last.content) {
            return printer.say("only a terminal has a clipboard");
        }
        let n = last.content.chars().count();
        printer.dim(format_args!(
            "{n} characters handed to the terminal, for its clipboard if it has one"
        ));
    }

    /// How the model is to think from now on; without a word, how it does.
    fn think(&mut self, how: &str) {
        let printer = self.talk.printer;
        let mut thinking = self.template.thinking().clone();
        if !how.is_empty()
            && let Err(want) = thinking.set(how)
        {
            return printer.say(format_args!("/think takes {want}"));
        }
        self.template.think(thinking);
        let thinks = self.template.dialect().thinks();
        printer.say(match (self.template.thinking().wanted, thinks) {
            (_, false) => "this model does not think aloud",
            (None, _) => "it thinks as its template says",
            (Some(true), _) => "it thinks before it answers",
            (Some(false), _) => "it answers without thinking, if its template can ask for that",
        });
    }

    fn set(&mut self, name: &str, value: &str) {
        let printer = self.talk.printer;
        if matches!(name, "ctx" | "num-ctx" | "context" | "ctx-size") {
            let n_ctx = tokens(self.talk.n_ctx());
            printer
                .say(format_args!("the context is made at the start: {n_ctx}; -c N makes another"));
            return;
        }
        let (settings, max) = (&mut self.talk.settings, &mut self.talk.max_tokens);
        match sampling::set(settings, max, name, value) {
            Ok(()) => {
                printer.dim(format_args!("{name} is {value}"));
                self.set.push((name.to_owned(), value.to_owned()));
            }
            Err(why) => {
                let like = |other: &str| strsim::jaro_winkler(name, other);
                let best =
                    sampling::SETTINGS.into_iter().max_by(|a, b| like(a).total_cmp(&like(b)));
                let is_known = sampling::SETTINGS.contains(&name);
                match best.filter(|best| !is_known && like(best) >= ALIKE) {
                    Some(best) => {
                        printer.say(format_args!("'{name}' is not a setting; did you mean {best}?"))
                    }
                    None => printer.say(format_args!("'{name}' {why}")),
                }
            }
        }
    }

    fn clear(&mut self) {
        let before = self.conversation.clone();
        self.conversation.truncate(0);
        self.files.clear();
        self.unanswered = None;
        self.keep("/clear", before);
        let stays = match self.conversation.system {
            Some(_) => "; the system message stays, and /system \"\" takes it away",
            None => "",
        };
        self.talk.printer.dim(format_args!("the conversation is forgotten{stays}"));
    }

    fn undo(&mut self) {
        let printer = self.talk.printer;
        if !self.files.is_empty() {
            self.files.clear();
            printer.dim("taken back: the files for the next question");
            return;
        }
        match self.before.pop() {
            Some((what, before)) => {
                self.conversation = before;
                self.unanswered = None;
                let n = self.conversation.messages.len();
                printer.dim(format_args!("taken back: {what}; {} now", messages(n)));
            }
            None => printer.say("there is nothing to take back"),
        }
    }

    fn save(&self, file: &Path) {
        let printer = self.talk.printer;
        let n = messages(self.conversation.messages.len());
        let refused = |why: &str| printer.error(&format!("save '{}': {why}", file.display()), None);
        // What is no file, a device for example, has nothing to lose; what was saved before is replaced by what goes on from it.
        let is_there = file.metadata().is_ok_and(|there| there.is_file() && there.len() > 0);
        if is_there && Conversation::load(file).is_err() {
            return refused("what is there is no saved conversation; it stays as it is");
        }
        if is_there && self.conversation.messages.is_empty() {
            return refused("nothing was said yet; the conversation that is there stays as it is");
        }
        let replaced = if file.exists() { ", in the place of what was there" } else { "" };
        match self.conversation.save(file) {
            Ok(()) => printer.dim(format_args!("{n} saved to '{}'{replaced}", file.display())),
            Err(error) => refused(&error.to_string()),
        }
    }

    fn load(&mut self, file: &Path) {
        let printer = self.talk.printer;
        match Conversation::load(file) {
            Ok(conversation) => {
                let before = std::mem::replace(&mut self.conversation, conversation);
                let n_before = before.messages.len();
                self.unanswered = None;
                self.keep("/load", before);
                let n = messages(self.conversation.messages.len());
                printer.dim(format_args!("{n} loaded from '{}'", file.display()));
                if n_before > 0 {
                    printer.dim(format_args!(
                        "{} before that are gone; /undo brings them back",
                        messages(n_before)
                    ));
                }
                self.show_end();
            }
            Err(error) => printer.error(&format!("load '{}': {error}", file.display()), None),
        }
    }

    /// The last question and its answer, as far as they fit.
    fn show_end(&self) {
        let all = &self.conversation.messages;
        for (message, begin) in all[all.len().saturating_sub(2)..].iter().zip([">>> ", ""]) {
            let text = message.content.lines().next().unwrap_or_default();
            let short: String = text.chars().take(EXCERPT).collect();
            let more = if short.len() < message.content.len() { " ..." } else { "" };
            self.talk.printer.dim(format_args!("{begin}{}{more}", printable(short.as_bytes())));
        }
    }

    /// Puts a file before the next question, if it fits.
    fn attach(&mut self, file: &Path) {
        let printer = self.talk.printer;
        let failed = |why: &str, hint: Option<&str>| {
            printer.error(&format!("read '{}': {why}", file.display()), hint);
        };
        let text = match files::text(file) {
            Ok(text) => text,
            Err(why) => return failed(&why, None),
        };
        let n_tokens =
            match self.talk.engine.vocab().map(|vocab| vocab.tokenize(&text, false, false)) {
                Ok(Ok(tokens)) => tokens.len(),
                Ok(Err(error)) => return failed(&error.to_string(), None),
                Err(error) => return failed(&error.to_string(), None),
            };
        let before: usize = self.files.iter().map(|file| file.n_tokens).sum();
        let needed = before + n_tokens + self.talk.room();
        if needed > self.talk.n_ctx() {
            let why = format!(
                "it has {}, and with an answer that is more than the context of {}",
                tokens(n_tokens),
                self.talk.n_ctx()
            );
            let hint = format!("begin again with a larger context, such as -c {}", needed + 256);
            return failed(&why, Some(&hint));
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = printable(name.as_bytes());
        let size = Bytes::from(text.len());
        printer.dim(format_args!(
            "{name}: {size}, {}; it goes with the next question",
            tokens(n_tokens)
        ));
        self.files.push(Attachment { name, text, n_tokens });
    }

    /// What goes with the next question.
    fn attached(&self) -> String {
        if self.files.is_empty() {
            return "no files go with the next question; /read FILE adds one".to_owned();
        }
        let line = |file: &Attachment| format!("{}: {}", file.name, tokens(file.n_tokens));
        self.files.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn settings(&self) -> String {
        let settings = &self.talk.settings;
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let template = match self.template.origin() {
            Origin::File => "the file's own",
            Origin::ChatMl => "ChatML",
            Origin::Plain => "plain",
        };
        let used = self.talk.batcher.n_kept();
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
        let all = match total.n_answers {
            1 => "in all".to_owned(),
            n => format!("all {n} answers"),
        };
        // Of an answer that was stopped early, nothing was computed that has a speed.
        let speed = match total.n_computed {
            0 => String::new(),
            n => format!(", {}", speed(n, total.seconds)),
        };
        format!(
            "last answer: {}\n             {} passes, {:.2} s waiting for weights\n\
             {all}: {}{speed}; {} streamed",
            summary(last),
            last.passes,
            last.stall_seconds,
            tokens(total.n_tokens),
            total.streamed,
        )
    }

    pub(super) fn model_name(&self) -> String {
        let index = self.talk.engine.index();
        let path = index.files.first().map(|file| file.path.as_path());
        let name = path.and_then(Path::file_name);
        name.map_or_else(|| "model".to_owned(), |name| name.display().to_string())
    }
}

/// `1 message`, `2 messages`.
fn messages(n: usize) -> String {
    if n == 1 { "1 message".to_owned() } else { format!("{n} messages") }
}
