//! Calls between their marks, as they come: names, what the tools are given, and the words that the model wrote if it was no call.

use serde_json::Value;

use super::Said;
use super::forms::{Form, Given, Step as Part};
use super::given::{self, Far, Tagged, balanced};
use super::head::{Begin, Head, after, head};
use super::json::{Broken, Scan, as_arguments};
use crate::talk::tools::Tools;

/// What stands between calls and says nothing.
const BETWEEN: [&str; 4] = [",", ";", "[", "]"];
/// What may stand before the first.
const FENCE: &str = "```json";
/// The shortest number of a call that is one of a conversation, not of an answer.
const MIN_ID: usize = 6;

/// A form for what models say in channels: nothing but what the tool is given.
static CHANNEL: Form = Form { open: "", within: false, close: &[], calls: &[] };

/// What became of a section.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More text is needed.
    More,
    /// It is over.
    Left,
    /// It is over, and this was no call.
    Text(String),
}

/// Some calls.
#[derive(Debug)]
pub(super) struct Section {
    form: &'static Form,
    live: bool,
    /// What was read since the last call ended.
    raw: String,
    n: usize,
    going: Option<Going>,
    /// What is told.
    out: Vec<Said>,
    /// What is told once the call is whole.
    kept: Vec<Said>,
}

/// A call that was begun.
#[derive(Debug)]
struct Going {
    begin: Begin,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// An object, or what stands for one.
    Json(Scan, Option<bool>),
    Tagged(Tagged),
    /// What is read as a whole.
    Whole(Option<&'static str>),
    /// What follows in so many open objects.
    Rest(usize),
    /// The marks that end it.
    Marks,
}

impl Section {
    pub(super) fn new(form: &'static Form, raw: String, live: bool) -> Section {
        Section { form, live, raw, n: 0, going: None, out: Vec::new(), kept: Vec::new() }
    }

    /// A call of `name`, whose arguments are the message that `header` heads.
    pub(super) fn of_channel(name: String, header: String, live: bool) -> Section {
        let mut section = Section::new(&CHANNEL, header, live);
        let begin =
            Begin { steps: &[], given: Given::Json, name, id: None, at: 0, open: 0, ready: None };
        section.begin(begin);
        section
    }

    /// What is known since the last time.
    pub(super) fn take(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.out)
    }

    /// Reads from the beginning of `held`.
    pub(super) fn work(&mut self, held: &mut String, tools: &Tools, over: bool) -> Step {
        loop {
            if self.going.is_some() {
                match self.go_on(held, tools, over) {
                    Ok(true) => self.whole(),
                    Ok(false) => return Step::More,
                    Err(Broken) => return self.broken(),
                }
                continue;
            }
            if self.form.calls.is_empty() {
                return Step::Left;
            }
            match self.between(held, tools, over) {
                Some(step) => return step,
                None => continue,
            }
        }
    }

    /// Between two calls, or before the first.
    fn between(&mut self, held: &mut String, tools: &Tools, over: bool) -> Option<Step> {
        let blank = held.len() - held.trim_start().len();
        self.read(held, blank);
        if held.starts_with(FENCE) {
            self.read(held, FENCE.len());
            return None;
        }
        if !over && !held.is_empty() && FENCE.starts_with(held.as_str()) {
            return Some(Step::More);
        }
        if let Some(close) = self.form.close.iter().find(|close| held.starts_with(**close)) {
            self.read(held, close.len());
            if self.n > 0 {
                return Some(Step::Left);
            }
            return Some(Step::Text(std::mem::take(&mut self.raw)));
        }
        if self.n > 0 && !self.form.within && !self.form.open.is_empty() {
            if held.starts_with(self.form.open) {
                self.read(held, self.form.open.len());
                return None;
            }
            if !over && !held.is_empty() && self.form.open.starts_with(held.as_str()) {
                return Some(Step::More);
            }
        }
        match head(self.form, held, tools, over) {
            Head::Call(begin) => {
                self.read(held, begin.at);
                self.begin(begin);
                None
            }
            _ if held.is_empty() && !over => Some(Step::More),
            Head::Maybe => Some(Step::More),
            Head::None if !over && self.may_close(held) => Some(Step::More),
            Head::None if BETWEEN.iter().any(|mark| held.starts_with(*mark)) => {
                self.read(held, 1);
                None
            }
            Head::None if self.n > 0 => {
                // What was read since the last call are blanks and separators.
                Some(Step::Left)
            }
            Head::None => {
                if self.form.within {
                    let open = self.form.open.len().min(held.len());
                    self.read(held, open);
                }
                Some(Step::Text(std::mem::take(&mut self.raw)))
            }
        }
    }

    fn may_close(&self, held: &str) -> bool {
        !held.is_empty() && self.form.close.iter().any(|mark| mark.starts_with(held))
    }

    /// Moves `n` bytes of `held` to what was read.
    fn read(&mut self, held: &mut String, n: usize) {
        self.raw.extend(held.drain(..n));
    }

    fn begin(&mut self, begin: Begin) {
        self.say(Said::Call { name: begin.name.clone(), id: begin.id.clone() });
        let body = match begin.given {
            Given::Json => Body::Json(Scan::new(), None),
            Given::Whole if begin.ready.is_some() => Body::Marks,
            Given::Whole => Body::Json(Scan::new(), None),
            Given::Tagged(tags) => Body::Tagged(Tagged::new(tags, after(begin.steps, self.form))),
            Given::Braces(quote) => Body::Whole(Some(quote)),
            Given::Python => Body::Whole(None),
        };
        let mut going = Going { begin, body };
        if let Some(ready) = going.begin.ready.take() {
            match object(&ready) {
                Ok(arguments) => self.say(Said::Arguments(arguments)),
                Err(Broken) => going.body = Body::Json(broken(), None),
            }
        }
        self.going = Some(going);
    }

    fn say(&mut self, said: Said) {
        if matches!(&said, Said::Arguments(text) if text.is_empty()) {
            return;
        }
        if self.live { self.out.push(said) } else { self.kept.push(said) }
    }

    /// Whether the call is whole.
    fn go_on(&mut self, held: &mut String, tools: &Tools, over: bool) -> Result<bool, Broken> {
        let Some(mut going) = self.going.take() else { return Ok(true) };
        let whole = self.body(&mut going, held, tools, over);
        if whole != Ok(true) {
            self.going = Some(going);
        }
        whole
    }

    fn body(
        &mut self,
        going: &mut Going,
        held: &mut String,
        tools: &Tools,
        over: bool,
    ) -> Result<bool, Broken> {
        loop {
            match &mut going.body {
                Body::Json(scan, streams) => {
                    let (said, done) = json(scan, streams, held, &mut self.raw, over)?;
                    said.into_iter().for_each(|said| self.say(said));
                    if !done {
                        return Ok(false);
                    }
                    going.body = match going.begin.open {
                        0 => Body::Marks,
                        open => Body::Rest(open),
                    };
                }
                Body::Tagged(tagged) => {
                    let (before, mut text) = (held.clone(), String::new());
                    let far = tagged.read(held, &going.begin.name, tools, over, &mut text);
                    self.raw.push_str(&before[..before.len() - held.len()]);
                    let far = far?;
                    self.say(Said::Arguments(text));
                    if far == Far::More {
                        return Ok(false);
                    }
                    going.body = Body::Marks;
                }
                Body::Whole(quote) => {
                    let quote = *quote;
                    let Some(n) = balanced(held, quote)? else { return Ok(false) };
                    let arguments = match quote {
                        Some(quote) => given::braces(&held[..n], quote)?,
                        None => given::python(&held[..n])?,
                    };
                    self.read(held, n);
                    self.say(Said::Arguments(arguments));
                    going.body = Body::Marks;
                }
                Body::Rest(open) => {
                    if !rest(open, held, &mut self.raw, &mut going.begin.id, over)? {
                        return Ok(false);
                    }
                    going.body = Body::Marks;
                }
                Body::Marks => {
                    self.name_late(&going.begin.id);
                    return Ok(self.marks(going, held, over));
                }
            }
        }
    }

    /// A number that came after the arguments.
    fn name_late(&mut self, late: &Option<String>) {
        if let Some(Said::Call { id, .. }) = self.kept.first_mut() {
            id.clone_from(late);
        }
    }

    /// Reads the marks that end a call. A call without them is one, too.
    fn marks(&mut self, going: &mut Going, held: &mut String, over: bool) -> bool {
        while let Some(step) = going.begin.steps.first() {
            let (Part::Lit(mark) | Part::Maybe(mark)) = step else { return true };
            let blank = held.len() - held.trim_start().len();
            let rest = &held[blank..];
            if rest.starts_with(mark) {
                self.read(held, blank + mark.len());
            } else if !over && mark.starts_with(rest) {
                return false;
            } else if matches!(step, Part::Lit(_)) {
                return true;
            }
            going.begin.steps = &going.begin.steps[1..];
        }
        true
    }

    /// A call has ended.
    fn whole(&mut self) {
        self.n += 1;
        self.raw.clear();
        self.out.append(&mut self.kept);
    }

    /// What was begun is no call.
    fn broken(&mut self) -> Step {
        let begun = self.going.take().is_some();
        self.kept.clear();
        let raw = std::mem::take(&mut self.raw);
        // What was told cannot be taken back.
        if begun && self.live { Step::Left } else { Step::Text(raw) }
    }

    /// No more text comes, and `held` was not understood. What is told, and what is text.
    pub(super) fn end(
        mut self,
        held: String,
        cut: bool,
        tools: Option<&Tools>,
    ) -> (Vec<Said>, String) {
        let Some(mut going) = self.going.take() else {
            // A call that was cut before its arguments is nothing that anybody could use.
            let lost = cut && self.n == 0 && tools.is_some_and(|_| !held.trim().is_empty());
            let raw = if self.n > 0 { String::new() } else { std::mem::take(&mut self.raw) };
            let text = if lost || (cut && !raw.is_empty()) { String::new() } else { raw + &held };
            return (self.out, text);
        };
        if !cut && !self.live && !matches!(going.body, Body::Marks | Body::Rest(_)) {
            return (self.out, self.raw + &held);
        }
        if let Body::Tagged(tagged) = &mut going.body {
            let mut text = String::new();
            tagged.cut(&held, &mut text);
            self.say(Said::Arguments(text));
        }
        if let Body::Whole(quote) = &going.body {
            let quote = *quote;
            self.say(Said::Arguments(given::begun(&held, quote)));
        }
        self.out.append(&mut self.kept);
        (self.out, String::new())
    }
}

/// Reads a value. What is known of it, and whether it is whole.
fn json(
    scan: &mut Scan,
    streams: &mut Option<bool>,
    held: &mut String,
    raw: &mut String,
    over: bool,
) -> Result<(Option<Said>, bool), Broken> {
    let n = scan.read(held)?;
    raw.extend(held.drain(..n));
    if over {
        // A number, true, false or null may end with the text.
        scan.finish()?;
    }
    let text = scan.take();
    let done = scan.is_done();
    if streams.is_none() && !text.is_empty() {
        *streams = Some(text.starts_with('{'));
    }
    if *streams == Some(true) {
        return Ok((Some(Said::Arguments(text)), done));
    }
    if done {
        return Ok((Some(Said::Arguments(as_arguments(&text)?)), done));
    }
    scan.put_back(text);
    Ok((None, false))
}

/// A scan that reads nothing more.
fn broken() -> Scan {
    let mut scan = Scan::new();
    let _ = scan.read("]");
    scan
}

/// The arguments that a whole value is.
fn object(json: &str) -> Result<String, Broken> {
    match serde_json::from_str::<Value>(json) {
        Ok(Value::Object(_)) => Ok(json.to_owned()),
        _ => as_arguments(json),
    }
}

/// Reads the members that follow the arguments, up to the end of `open` objects. Whether it is there.
fn rest(
    open: &mut usize,
    held: &mut String,
    raw: &mut String,
    id: &mut Option<String>,
    over: bool,
) -> Result<bool, Broken> {
    while *open > 0 {
        let text = held.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        let at = held.len() - text.len();
        match text.chars().next() {
            None => return Ok(over),
            Some('}') => {
                *open -= 1;
                raw.extend(held.drain(..=at));
                continue;
            }
            Some('"') => {}
            // A brace was forgotten: the call is clear all the same.
            Some(_) => return Ok(true),
        }
        let mut key = Scan::new();
        let n = key.read(text)?;
        let text = text[n..].trim_start();
        let Some(text) = text.strip_prefix(':') else {
            return if key.is_done() && !text.is_empty() { Err(Broken) } else { Ok(over) };
        };
        let mut value = Scan::new();
        let n = value.read(text)?;
        if !value.is_done() {
            return Ok(over);
        }
        let (key, value) = (key.take(), value.take());
        if matches!(key.trim(), "\"id\"" | "\"tool_call_id\"" | "\"call_id\"") && id.is_none() {
            let text = serde_json::from_str::<String>(&value).ok();
            *id = text.filter(|text| text.len() >= MIN_ID);
        }
        let taken = held.len() - text.len() + n;
        raw.extend(held.drain(..taken));
    }
    Ok(true)
}
