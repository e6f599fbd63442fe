//! What a tool is given, in the forms that are no JSON: marks around each parameter, Python's calls, Gemma's braces. It becomes the JSON
//! of an object, as soon as that is certain.

use serde_json::{Map, Value};

use super::forms::Tags;
use super::json::{Broken, escaped};
use crate::talk::tools::{Kinds, Tools};

/// The longest name of a parameter. (bytes)
const MAX_KEY: usize = 1024;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;

/// XML's marks for raw text.
const RAW: &str = "<![CDATA[";
const RAW_END: &str = "]]>";

/// Reads parameters between marks.
#[derive(Clone, Debug)]
pub(super) struct Tagged {
    tags: &'static Tags,
    /// What may follow a parameter.
    then: Vec<&'static str>,
    /// How many there were.
    n: usize,
    value: Option<Param>,
}

/// A parameter whose value comes.
#[derive(Clone, Debug)]
struct Param {
    close: String,
    kinds: Kinds,
    /// Whether its first characters were passed on as a text.
    streams: bool,
    begun: bool,
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Far {
    /// More text is needed.
    More,
    /// What follows in `held` is none of it.
    Done,
}

impl Tagged {
    pub(super) fn new(tags: &'static Tags, then: Vec<&'static str>) -> Tagged {
        Tagged { tags, then, n: 0, value: None }
    }

    /// Reads from the beginning of `held`, of which it takes what it has understood. `over`: no more text comes.
    pub(super) fn read(
        &mut self,
        held: &mut String,
        name: &str,
        tools: &Tools,
        over: bool,
        out: &mut String,
    ) -> Result<Far, Broken> {
        loop {
            if self.value.is_some() {
                if !self.in_value(held, over, out)? {
                    return Ok(Far::More);
                }
                continue;
            }
            let blank = held.len() - held.trim_start().len();
            let rest = &held[blank..];
            if !rest.starts_with(self.tags.open) {
                if !over && self.tags.open.starts_with(rest) {
                    return Ok(Far::More);
                }
                out.push_str(if self.n == 0 { "{}" } else { "}" });
                return Ok(Far::Done);
            }
            let key = &rest[self.tags.open.len()..];
            let Some(end) = key.find(self.tags.key_end) else {
                return if key.len() > MAX_KEY { Err(Broken) } else { Ok(Far::More) };
            };
            let (key, rest) = (&key[..end], &key[end + self.tags.key_end.len()..]);
            if key.starts_with('/') {
                // `<` of what ends the call, where parameters are marks themselves.
                out.push_str(if self.n == 0 { "{}" } else { "}" });
                return Ok(Far::Done);
            }
            let Some(at) = rest.find(self.tags.value) else {
                return if rest.len() > MAX_KEY { Err(Broken) } else { Ok(Far::More) };
            };
            let kinds = match &rest[..at] {
                said if said.contains("string=\"true\"") || said.contains("type=\"string\"") => {
                    Kinds { text: true, other: false }
                }
                said if said.contains("string=\"false\"") || said.contains("type=\"") => {
                    Kinds { text: false, other: true }
                }
                _ => tools.kinds(name, key),
            };
            let close = self.tags.close.replace("{}", key);
            out.push_str(if self.n == 0 { "{\"" } else { ", \"" });
            out.push_str(&escaped(key));
            out.push_str("\": ");
            self.n += 1;
            let streams = kinds.text && !kinds.other;
            self.value = Some(Param { close, kinds, streams, begun: false });
            let taken = held.len() - rest.len() + at + self.tags.value.len();
            held.drain(..taken);
        }
    }

    /// Whether the value has ended.
    fn in_value(
        &mut self,
        held: &mut String,
        over: bool,
        out: &mut String,
    ) -> Result<bool, Broken> {
        let Some(param) = &mut self.value else { return Ok(true) };
        if !param.unwrap(held) && !over {
            return Ok(false);
        }
        let mut from = 0;
        loop {
            let Some(at) = held[from..].find(&param.close).map(|at| from + at) else {
                if param.streams {
                    param.pass_on(held, out);
                }
                return Ok(false);
            };
            let after = held[at + param.close.len()..].trim_start();
            let follows = |mark: &str| after.starts_with(mark);
            let may_follow = |mark: &str| mark.starts_with(after) && !over;
            let mut marks = self.then.iter().chain([&self.tags.open]);
            if (after.is_empty() && over) || marks.clone().any(|m| follows(m)) {
                param.end(&held[..at], out);
                let taken = at + param.close.len();
                held.drain(..taken);
                self.value = None;
                return Ok(true);
            }
            if marks.any(|m| may_follow(m)) {
                return Ok(false);
            }
            // The mark is a part of the value.
            from = at + param.close.len();
        }
    }

    /// The end of the text has come within a value.
    pub(super) fn cut(&mut self, held: &str, out: &mut String) {
        if let Some(param) = &mut self.value
            && param.streams
        {
            if !param.begun {
                out.push('"');
            }
            out.push_str(&escaped(held));
        }
    }
}

impl Param {
    /// Takes XML's marks for raw text away. False while these may be coming.
    fn unwrap(&mut self, held: &mut String) -> bool {
        if self.begun || self.close.starts_with(RAW_END) {
            return true;
        }
        if held.starts_with(RAW) {
            held.drain(..RAW.len());
            self.close.insert_str(0, RAW_END);
        }
        held.is_empty() || !RAW.starts_with(held.as_str())
    }

    /// Passes on what is a part of the text for sure.
    fn pass_on(&mut self, held: &mut String, out: &mut String) {
        if !self.begun {
            if held.is_empty() {
                return;
            }
            if held.starts_with('\n') {
                held.drain(..1);
            }
            out.push('"');
            self.begun = true;
        }
        let longest = (self.close.len() - 1).min(held.len());
        let tail = (1..=longest)
            .rev()
            .find(|&n| self.close.is_char_boundary(n) && held.ends_with(&self.close[..n]));
        let mut sure = held.len() - tail.unwrap_or(0);
        // The line break before the mark is the form's.
        if held[..sure].ends_with('\n') {
            sure -= 1;
        }
        out.push_str(&escaped(&held[..sure]));
        held.drain(..sure);
    }

    /// The rest of the value.
    fn end(&self, value: &str, out: &mut String) {
        let value = value.strip_suffix('\n').unwrap_or(value);
        if self.begun {
            out.push_str(&escaped(value));
            out.push('"');
            return;
        }
        let value = value.strip_prefix('\n').unwrap_or(value);
        if !self.streams
            && let Some(json) = json_of(value.trim())
            && !(self.kinds.text && json.is_string())
        {
            out.push_str(&json.to_string());
            return;
        }
        out.push_str(&Value::from(value).to_string());
    }
}

/// A value as JSON or as Python writes it.
fn json_of(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| {
        let mut python = Literals { rest: text, quote: None };
        let value = python.value(0)?;
        (python.rest.trim().is_empty() && !value.is_null() || text == "None").then_some(value)
    })
}

/// Where what begins at the beginning of `text` with a bracket ends: nothing while it has not. `quote` opens and closes texts; without
/// one, Python's quotes do.
pub(super) fn balanced(text: &str, quote: Option<&str>) -> Result<Option<usize>, Broken> {
    let mut open = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if let Some(quote) = quote.filter(|quote| rest.starts_with(quote)) {
            let Some(end) = rest[quote.len()..].find(quote) else { return Ok(None) };
            at += end + 2 * quote.len();
            continue;
        }
        let c = rest.chars().next().unwrap_or_default();
        match c {
            '\'' | '"' if quote.is_none() => match quoted(rest) {
                Some(len) => at += len,
                None => return Ok(None),
            },
            '(' | '[' | '{' => {
                open.push(c);
                at += 1;
            }
            ')' | ']' | '}' => {
                let pair = matches!(
                    (open.pop(), c),
                    (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')
                );
                if !pair {
                    return Err(Broken);
                }
                at += 1;
                if open.is_empty() {
                    return Ok(Some(at));
                }
            }
            c => at += c.len_utf8(),
        }
        if open.len() > MAX_DEPTH {
            return Err(Broken);
        }
    }
    Ok(None)
}

/// The beginning of the JSON that `text`, which was cut, would have become: what is certain of it, and the text in whose midst it ends.
pub(super) fn begun(text: &str, quote: Option<&'static str>) -> String {
    let Some(place) = place(text, quote) else { return String::new() };
    // All of it, with what is missing at the end, which takes one letter each in JSON.
    let whole = |text: &str, end: &str, open: &[char]| {
        let close = open.iter().rev().map(|open| match open {
            '(' => ')',
            '[' => ']',
            _ => '}',
        });
        let whole = format!("{text}{end}{}", close.collect::<String>());
        let json = match quote {
            Some(quote) => braces(&whole, quote),
            None => python(&whole),
        };
        let closed = open.len() + usize::from(!end.is_empty());
        json.ok().map(|json| json[..json.len().saturating_sub(closed)].to_owned())
    };
    let within = place.within.and_then(|mark| whole(&text[..place.end], mark, &place.open));
    // A word or a number may have gone on: only the members before it are certain.
    let before = || whole(&text[..place.comma?], "", place.open.get(..1)?);
    within.or_else(before).unwrap_or_default()
}

/// Where a text was cut.
struct Place {
    /// The brackets that are open.
    open: Vec<char>,
    /// What would end the text in whose midst it is.
    within: Option<&'static str>,
    /// Where that text is sure to go to.
    end: usize,
    /// The last comma between the outermost members.
    comma: Option<usize>,
}

fn place(text: &str, quote: Option<&'static str>) -> Option<Place> {
    let (mut open, mut comma, mut at) = (Vec::new(), None, 0);
    while at < text.len() {
        let rest = &text[at..];
        let c = rest.chars().next()?;
        let begins = match quote {
            Some(quote) => rest.starts_with(quote).then_some(quote),
            None if c == '"' => Some("\""),
            None => (c == '\'').then_some("'"),
        };
        if let Some(mark) = begins {
            let len = match quote {
                Some(_) => rest[mark.len()..].find(mark).map(|n| n + 2 * mark.len()),
                None => quoted(rest),
            };
            let Some(len) = len else {
                let end = at + mark.len() + sure(&rest[mark.len()..], mark, quote.is_none());
                return Some(Place { open, within: Some(mark), end, comma });
            };
            at += len;
            continue;
        }
        match c {
            '(' | '[' | '{' if open.len() < MAX_DEPTH => open.push(c),
            '(' | '[' | '{' => return None,
            ')' | ']' | '}' => drop(open.pop()?),
            ',' if open.len() == 1 => comma = Some(at),
            _ => {}
        }
        at += c.len_utf8();
    }
    Some(Place { open, within: None, end: text.len(), comma })
}

/// How much of a text that was cut is a part of it for sure: not the beginning of its mark, nor of an escape.
fn sure(text: &str, mark: &str, escapes: bool) -> usize {
    if !escapes {
        let tail = (1..mark.len()).rev().find(|&n| text.ends_with(&mark[..n]));
        return text.len() - tail.unwrap_or(0);
    }
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let more = match (c, (c == '\\').then(|| chars.next())) {
            ('\\', Some(None)) => return at,
            ('\\', Some(Some((_, 'u')))) => 4,
            _ => 0,
        };
        if (0..more).any(|_| chars.next().is_none()) {
            return at;
        }
    }
    text.len()
}

/// The length of a quoted text.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut escape = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escape => escape = false,
            '\\' => escape = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The arguments of `(key=value, ...)`.
pub(super) fn python(text: &str) -> Result<String, Broken> {
    let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or(Broken)?;
    let mut read = Literals { rest: inner, quote: None };
    let mut map = Map::new();
    while !read.rest.trim().is_empty() {
        let (key, rest) = read.rest.split_once('=').ok_or(Broken)?;
        read.rest = rest;
        let value = read.value(0).ok_or(Broken)?;
        map.insert(key.trim().to_owned(), value);
        read.rest = read.rest.trim_start();
        match read.rest.strip_prefix(',') {
            Some(rest) => read.rest = rest,
            None if read.rest.is_empty() => {}
            None => return Err(Broken),
        }
    }
    Ok(Value::Object(map).to_string())
}

/// The arguments of `{key:value, ...}`, in which `quote` stands around texts.
pub(super) fn braces(text: &str, quote: &'static str) -> Result<String, Broken> {
    let mut read = Literals { rest: text, quote: Some(quote) };
    let value = read.value(0).filter(Value::is_object).ok_or(Broken)?;
    if read.rest.trim().is_empty() { Ok(value.to_string()) } else { Err(Broken) }
}

/// Values as Python writes them, or as Gemma does.
struct Literals<'a> {
    rest: &'a str,
    quote: Option<&'static str>,
}

impl Literals<'_> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.rest = self.rest.trim_start();
        if let Some(text) = self.text() {
            return Some(text.into());
        }
        match self.rest.chars().next()? {
            '[' | '(' => {
                let mut items = Vec::new();
                self.members(|read| {
                    items.push(read.value(depth + 1)?);
                    Some(())
                })?;
                Some(items.into())
            }
            '{' => {
                let mut map = Map::new();
                self.members(|read| {
                    read.rest = read.rest.trim_start();
                    let key = match read.text() {
                        Some(key) => key,
                        None => {
                            let (key, _) = read.rest.split_once(':')?;
                            let key = key.trim().to_owned();
                            read.rest = &read.rest[read.rest.find(':')?..];
                            key
                        }
                    };
                    read.rest = read.rest.trim_start().strip_prefix(':')?;
                    map.insert(key, read.value(depth + 1)?);
                    Some(())
                })?;
                Some(map.into())
            }
            _ => {
                let end = self.rest.find([',', '}', ']', ')']).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                match word.trim() {
                    "True" => Some(true.into()),
                    "False" => Some(false.into()),
                    "None" => Some(Value::Null),
                    word => match serde_json::from_str(word) {
                        Ok(value) => Some(value),
                        // Gemma leaves marks out around words.
                        Err(_) => self.quote.map(|_| word.into()),
                    },
                }
            }
        }
    }

    /// What stands between brackets, separated by commas.
    fn members(&mut self, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let close = match self.rest.chars().next()? {
            '[' => ']',
            '(' => ')',
            _ => '}',
        };
        self.rest = self.rest[1..].trim_start();
        loop {
            if let Some(rest) = self.rest.strip_prefix(close) {
                self.rest = rest;
                return Some(());
            }
            one(self)?;
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest.trim_start();
            } else if !self.rest.starts_with(close) {
                return None;
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        if let Some(quote) = self.quote {
            let inner = self.rest.strip_prefix(quote)?;
            let (text, rest) = inner.split_once(quote)?;
            self.rest = rest;
            return Some(text.to_owned());
        }
        if !self.rest.starts_with(['\'', '"']) {
            return None;
        }
        let len = quoted(self.rest)?;
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(unescaped(&text[1..len - 1]))
    }
}

/// Python's escapes.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('u') => {
                let hex: String = chars.by_ref().take(4).collect();
                let c = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                out.push(c.unwrap_or('\u{fffd}'));
            }
            Some(c) => out.push(c),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn python_and_braces_are_read() {
        assert_eq!(
            python("(city='Oslo', n=2, ok=True, l=[1, 'a'], m={'k': None}, t=\"it's\\n\")")
                .unwrap(),
            r#"{"city":"Oslo","n":2,"ok":true,"l":[1,"a"],"m":{"k":null},"t":"it's\n"}"#
        );
        assert_eq!(python("()").unwrap(), "{}");
        assert_eq!(
            braces("{city:<|\"|>a,}b<|\"|>,n:2,l:[1,<|\"|>x<|\"|>],o:{k:true}}", "<|\"|>").unwrap(),
            r#"{"city":"a,}b","n":2,"l":[1,"x"],"o":{"k":true}}"#
        );
        for text in ["(a)", "(a=)", "(a=b)", "(a=1 b=2)", "a=1"] {
            assert!(python(text).is_err(), "{text}");
        }
        assert!(braces(&"{a:".repeat(1000), "<|\"|>").is_err());
    }

    #[test]
    fn brackets_are_paired() {
        assert_eq!(balanced("(a=')', b=[1])x", None), Ok(Some(14)));
        assert_eq!(balanced("(a='", None), Ok(None));
        assert_eq!(balanced("(a]", None), Err(Broken));
        assert_eq!(balanced(&"(".repeat(1000), None), Err(Broken));
    }

    proptest! {
        #[test]
        fn nothing_is_too_odd_to_be_read(text in "[a(){}'\"\\\\=:,\\[\\] <|]{0,40}") {
            let _ = python(&text);
            let _ = braces(&text, "<|\"|>");
            let _ = balanced(&text, None);
            let _ = json_of(&text);
        }
    }
}
