//! An answer as it comes: what of it is thought, what is text, and what calls a tool. What a model says wrongly is text: nothing vanishes.

use std::sync::Arc;

use super::Said;
use super::calls::{Section, Step as Going};
use super::dialect::{Dialect, Mark};
use super::forms::{BARE, BARE_PYTHON, CHANNEL, ENDS, FORMS, HEAD_END, START, THOUGHTS};
use super::head::{Head, head};
use crate::talk::tools::Tools;

/// The longest head of a message in a channel. (bytes)
const MAX_HEADER: usize = 1024;

/// Where the reader is.
#[derive(Debug)]
enum State {
    Text,
    /// In a thought that one of these ends.
    Thought(&'static [&'static str]),
    Calls(Box<Section>),
    /// In the head of a message in a channel.
    Header,
}

/// Reads one answer.
#[derive(Debug)]
pub struct Reader {
    dialect: Arc<Dialect>,
    tools: Option<Arc<Tools>>,
    live: bool,
    state: State,
    /// What is not understood yet.
    held: String,
    /// Bytes at its beginning that are the prompt's.
    borrowed: usize,
    /// Blanks that nothing came after.
    blank: String,
    /// Whether text, or a thought, or anything else than blanks was said.
    said_text: bool,
    thinks: bool,
    /// Whether some of the thought was passed on.
    thought_begun: bool,
    calls: usize,
    /// Whether what is no call without marks was seen.
    no_bare: bool,
    out: Vec<Said>,
}

impl Reader {
    /// For an answer to `prompt`. `live`: what is certain of a call is told before the call is whole.
    pub(super) fn new(
        dialect: Arc<Dialect>,
        prompt: &str,
        tools: Option<Arc<Tools>>,
        live: bool,
    ) -> Reader {
        let (mut state, mut held) = (State::Text, String::new());
        let end = prompt.trim_end();
        if let Some(closes) = dialect.opened(prompt) {
            state = State::Thought(closes);
        } else if dialect.channels && end.ends_with("<|start|>assistant") {
            state = State::Header;
        } else if end.ends_with(">>>") && dialect.knows(">>>") {
            held = ">>>".to_owned();
        }
        Reader {
            thinks: matches!(state, State::Thought(_)),
            borrowed: held.len(),
            dialect,
            tools,
            live,
            state,
            held,
            blank: String::new(),
            said_text: false,
            thought_begun: false,
            calls: 0,
            no_bare: false,
            out: Vec::new(),
        }
    }

    /// One that takes everything for text.
    pub fn plain() -> Reader {
        Reader::new(Arc::new(Dialect::default()), "", None, false)
    }

    /// Takes a piece of the answer.
    pub fn push(&mut self, piece: &str) -> Vec<Said> {
        self.held.push_str(piece);
        self.work(false);
        std::mem::take(&mut self.out)
    }

    /// The answer is over. `cut`: the model did not end it.
    pub fn finish(&mut self, cut: bool) -> Vec<Said> {
        if !cut {
            self.work(true);
        }
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.text(&held),
            State::Thought(_) => self.thought(&held),
            State::Header if held.contains("<|") => {}
            State::Header => self.text(&held),
            State::Calls(section) => {
                let (said, rest) = section.end(held, cut, self.tools.as_deref());
                self.took(said);
                if !rest.trim().is_empty() {
                    self.text(&rest);
                }
            }
        }
        if self.calls == 0 && !self.thinks {
            let blank = std::mem::take(&mut self.blank);
            self.say(blank, Said::Text);
        }
        std::mem::take(&mut self.out)
    }

    /// How many tools were called.
    pub fn n_calls(&self) -> usize {
        self.calls
    }

    fn work(&mut self, over: bool) {
        loop {
            let moved = match &self.state {
                State::Text => self.in_text(over),
                State::Thought(closes) => self.in_thought(closes, over),
                State::Header => self.in_header(over),
                State::Calls(_) => self.in_calls(over),
            };
            if !moved {
                return;
            }
        }
    }

    /// Whether there is more to be done.
    fn in_text(&mut self, over: bool) -> bool {
        if let Some(moved) = self.bare(over) {
            return moved;
        }
        let dialect = Arc::clone(&self.dialect);
        let fresh = !self.said_text && self.blank_so_far();
        let active = |mark: &&(&'static str, Mark)| match mark.1 {
            Mark::Thought(_) | Mark::Close => fresh,
            Mark::Form(_) => self.tools.is_some(),
            Mark::Dropped | Mark::Header => true,
        };
        let marks = dialect.marks.iter().filter(active);
        let found = marks.clone().filter_map(|(mark, kind)| {
            let at = self.held.find(mark)?;
            // A thought begins an answer, and nothing else.
            let blank = self.held[..at].trim().is_empty();
            (blank || !matches!(kind, Mark::Thought(_) | Mark::Close)).then_some((
                at,
                mark.len(),
                *kind,
            ))
        });
        let first = found.min_by_key(|&(at, len, _)| (at, usize::MAX - len));
        let held_back = marks.map(|(mark, _)| tail(&self.held, mark)).max().unwrap_or(0);
        let Some((at, len, kind)) = first else {
            let keep = if over { 0 } else { held_back };
            let text: String = self.held.drain(..self.held.len() - keep).collect();
            self.text(&text);
            return false;
        };
        // A longer mark may be coming.
        if !over && held_back > self.held.len() - at - len && at + held_back >= self.held.len() {
            let text: String = self.held.drain(..at).collect();
            self.text(&text);
            return false;
        }
        let text: String = self.held.drain(..at).collect();
        self.text(&text);
        self.mark(kind, len);
        true
    }

    fn mark(&mut self, kind: Mark, len: usize) {
        match kind {
            Mark::Dropped => self.drop_held(len),
            Mark::Close => {
                self.drop_held(len);
                self.thinks = true;
            }
            Mark::Header => self.state = State::Header,
            Mark::Thought(i) => {
                self.drop_held(len);
                self.state = State::Thought(&THOUGHTS[i][1..]);
                self.thinks = true;
                self.blank.clear();
            }
            Mark::Form(i) => {
                let form = &FORMS[i];
                let mut raw = String::new();
                if !form.within {
                    raw = self.held.drain(..len).collect();
                    self.borrowed = 0;
                }
                let section = Section::new(form, raw, self.live && !self.dialect.late_ids);
                self.state = State::Calls(Box::new(section));
            }
        }
    }

    fn drop_held(&mut self, n: usize) {
        self.held.drain(..n);
        self.borrowed = self.borrowed.saturating_sub(n);
    }

    fn blank_so_far(&self) -> bool {
        self.blank.trim().is_empty()
    }

    /// Calls without marks can only be all of an answer. None: there are none.
    fn bare(&mut self, over: bool) -> Option<bool> {
        let form = if self.dialect.bare { &BARE } else { &BARE_PYTHON };
        let wanted = self.dialect.bare || self.dialect.bare_python;
        if !wanted || self.no_bare || self.said_text || self.tools.is_none() {
            return None;
        }
        let rest = self.held.trim_start();
        if rest.is_empty() {
            return if over { None } else { Some(false) };
        }
        self.no_bare = true;
        let begins = if self.dialect.bare { '{' } else { '[' };
        if !rest.starts_with(begins) {
            return None;
        }
        self.state = State::Calls(Box::new(Section::new(form, String::new(), self.live)));
        Some(true)
    }

    fn in_thought(&mut self, closes: &'static [&'static str], over: bool) -> bool {
        let close = closes.iter().filter_map(|mark| Some((self.held.find(mark)?, *mark)));
        let close = close.min_by_key(|(at, _)| *at);
        if self.call_in_thought(close.map(|(at, _)| at), over) {
            return !matches!(self.state, State::Thought(_));
        }
        if let Some((at, mark)) = close {
            let text: String = self.held.drain(..at).collect();
            self.thought(&text);
            self.blank.clear();
            if mark == START || mark == CHANNEL {
                self.state = State::Header;
            } else {
                self.held.drain(..mark.len());
                self.state = State::Text;
            }
            return true;
        }
        let keep = closes.iter().map(|mark| tail(&self.held, mark)).max().unwrap_or(0);
        let keep = if over { 0 } else { keep.max(self.form_tail()) };
        let text: String = self.held.drain(..self.held.len() - keep).collect();
        self.thought(&text);
        false
    }

    /// Some models call a tool without ending their thought. Whether that is so, or may be.
    fn call_in_thought(&mut self, close: Option<usize>, over: bool) -> bool {
        let Some(tools) = self.tools.clone() else { return false };
        let dialect = Arc::clone(&self.dialect);
        let mut from = 0;
        while let Some((at, i)) = dialect.first_form(&self.held, from) {
            if close.is_some_and(|close| close < at) {
                return false;
            }
            let form = &FORMS[i];
            let inner = if form.within { at } else { at + form.open.len() };
            match head(form, self.held[inner..].trim_start(), &tools, over) {
                Head::Call(begin) if tools.knows(&begin.name) => {
                    let text: String = self.held.drain(..at).collect();
                    self.thought(&text);
                    self.blank.clear();
                    self.mark(Mark::Form(i), form.open.len());
                    return true;
                }
                Head::Maybe if close.is_none() => {
                    let text: String = self.held.drain(..at).collect();
                    self.thought(&text);
                    return true;
                }
                _ => from = inner.max(at + 1),
            }
        }
        false
    }

    fn form_tail(&self) -> usize {
        if self.tools.is_none() {
            return 0;
        }
        let forms = self.dialect.marks.iter().filter(|(_, kind)| matches!(kind, Mark::Form(_)));
        forms.map(|(mark, _)| tail(&self.held, mark)).max().unwrap_or(0)
    }

    fn in_header(&mut self, over: bool) -> bool {
        let text = self.held.trim_start();
        let begins = [CHANNEL, START, HEAD_END, "to="];
        if !begins.iter().any(|mark| text.starts_with(mark) || mark.starts_with(text)) {
            self.state = State::Text;
            return true;
        }
        let Some(end) = self.held.find(HEAD_END) else {
            if over || self.held.len() < MAX_HEADER {
                return false;
            }
            let text: String = std::mem::take(&mut self.held);
            self.text(&text);
            self.state = State::Text;
            return true;
        };
        let header: String = self.held.drain(..end + HEAD_END.len()).collect();
        let to = header.split("to=").nth(1).map(|rest| {
            rest.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default()
        });
        let channel = header.split(CHANNEL).nth(1).unwrap_or_default();
        let is_analysis = channel.trim_start().starts_with("analysis");
        self.state = match to {
            Some(to) if to.starts_with("functions.") && self.tools.is_some() => {
                let name = to.trim_start_matches("functions.").to_owned();
                State::Calls(Box::new(Section::of_channel(name, header, self.live)))
            }
            // What follows says in its own marks what it is.
            Some(to) if self.tools.as_ref().is_some_and(|t| t.knows(to)) && channel.is_empty() => {
                State::Text
            }
            Some("assistant" | "user") => State::Text,
            None if !is_analysis => State::Text,
            _ => {
                self.thinks = true;
                State::Thought(ENDS)
            }
        };
        true
    }

    fn in_calls(&mut self, over: bool) -> bool {
        let (State::Calls(section), Some(tools)) = (&mut self.state, &self.tools) else {
            self.state = State::Text;
            return true;
        };
        let step = section.work(&mut self.held, tools, over);
        let said = section.take();
        self.took(said);
        match step {
            Going::More => false,
            Going::Left => {
                self.state = State::Text;
                true
            }
            Going::Text(text) => {
                self.state = State::Text;
                self.text(&text);
                true
            }
        }
    }

    fn took(&mut self, said: Vec<Said>) {
        let n = said.iter().filter(|said| matches!(said, Said::Call { .. })).count();
        self.calls += n;
        if n > 0 && !self.said_text {
            self.blank.clear();
        }
        self.out.extend(said);
    }

    /// Passes text on, but for blanks that may stand before or after something else.
    fn text(&mut self, text: &str) {
        let text = &text[self.borrowed.min(text.len())..];
        self.borrowed = 0;
        let mut all = std::mem::take(&mut self.blank) + text;
        if !self.said_text && (self.thinks || self.calls > 0 || self.dialect.channels) {
            all.drain(..all.len() - all.trim_start().len());
        }
        let kept = if self.tools.is_some() { all.trim_end().len() } else { all.len() };
        self.blank = all.split_off(kept);
        self.said_text |= !all.trim().is_empty();
        self.say(all, Said::Text);
    }

    fn thought(&mut self, text: &str) {
        let mut all = std::mem::take(&mut self.blank) + text;
        if !self.thought_begun {
            all.drain(..all.len() - all.trim_start().len());
        }
        self.blank = all.split_off(all.trim_end().len());
        self.thought_begun |= !all.is_empty();
        self.say(all, Said::Thought);
    }

    fn say(&mut self, text: String, kind: fn(String) -> Said) {
        if !text.is_empty() {
            self.out.push(kind(text));
        }
    }
}

/// How many bytes at the end of `text` may be the beginning of `mark`.
fn tail(text: &str, mark: &str) -> usize {
    let longest = mark.len().min(text.len() + 1) - 1;
    let begins = |&n: &usize| mark.is_char_boundary(n) && text.ends_with(&mark[..n]);
    (1..=longest).rev().find(begins).unwrap_or(0)
}
