//! The beginning of a call: which tool is meant, and where what it is given begins. It takes nothing from the text.

use super::forms::{Call, Form, Given, Step};
use super::json::Scan;
use crate::talk::tools::Tools;

/// The longest name or number of a call. (bytes)
const MAX_NAME: usize = 256;
/// The longest beginning of an object before its arguments, other members included. (bytes)
const MAX_HEAD: usize = 1 << 20;
/// The shortest number of a call that is one of a conversation, not of an answer.
const MIN_ID: usize = 6;

/// What a text begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// No call.
    None,
    /// Perhaps one: more text will tell.
    Maybe,
    Call(Begin),
}

/// A call that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) steps: &'static [Step],
    pub(super) given: Given,
    pub(super) name: String,
    pub(super) id: Option<String>,
    /// Where what it is given begins. (bytes)
    pub(super) at: usize,
    /// How many objects are open there.
    pub(super) open: usize,
    /// What it is given, where all of it came before the name, or nothing did.
    pub(super) ready: Option<String>,
}

/// What of `text`'s beginning is a call in one of `form`'s ways. `over`: no more text comes.
pub(super) fn head(form: &Form, text: &str, tools: &Tools, over: bool) -> Head {
    let mut maybe = false;
    for call in form.calls {
        match one(call, form, text, tools, over) {
            Head::None => {}
            Head::Maybe => maybe = true,
            found => return found,
        }
    }
    if maybe && !over && text.len() < MAX_HEAD { Head::Maybe } else { Head::None }
}

fn one(call: &'static Call, form: &Form, text: &str, tools: &Tools, over: bool) -> Head {
    let (mut at, mut name, mut id) = (0, String::new(), None);
    for (i, step) in call.steps.iter().enumerate() {
        let rest = &text[at..];
        let blank = match step {
            Step::Lit(lit) if lit.starts_with(char::is_whitespace) => 0,
            _ => rest.len() - rest.trim_start().len(),
        };
        let rest = &rest[blank..];
        at += blank;
        match step {
            Step::Lit(lit) | Step::Maybe(lit) if rest.starts_with(lit) => at += lit.len(),
            Step::Lit(lit) | Step::Maybe(lit) if !over && lit.starts_with(rest) => {
                return Head::Maybe;
            }
            Step::Maybe(_) => {}
            Step::Lit(_) => return Head::None,
            Step::Past(lit) => match rest.find(lit) {
                Some(end) => at += end + lit.len(),
                None if over || rest.len() > MAX_NAME => return Head::None,
                None => return Head::Maybe,
            },
            Step::Name | Step::Id | Step::NameAndId => {
                let end = rest.find(|c| !is_name(c));
                let word = &rest[..end.unwrap_or(rest.len())];
                if end.is_none() && !over && word.len() <= MAX_NAME {
                    return Head::Maybe;
                }
                if word.is_empty() || word.len() > MAX_NAME {
                    return Head::None;
                }
                at += word.len();
                match step {
                    Step::Name => name = word.to_owned(),
                    Step::Id => id = Some(word.to_owned()),
                    _ => {
                        name = bare_name(word).to_owned();
                        id = Some(word.to_owned());
                    }
                }
            }
            Step::Given(Given::Whole) => return whole(call.steps, text, at, tools, form),
            Step::Given(given) => {
                let then = after(&call.steps[i + 1..], form);
                let begin = Begin {
                    steps: &call.steps[i + 1..],
                    given: *given,
                    name,
                    id: id.filter(|id| id.len() >= MIN_ID),
                    at,
                    open: 0,
                    ready: None,
                };
                return begins(*given, rest, &then, over, begin, tools, form);
            }
        }
    }
    Head::None
}

/// Whether what a tool is given can begin so.
fn begins(
    given: Given,
    rest: &str,
    then: &[&'static str],
    over: bool,
    begin: Begin,
    tools: &Tools,
    form: &Form,
) -> Head {
    if form.open.is_empty() && !tools.knows(&begin.name) {
        return Head::None;
    }
    let may = |mark: &str| {
        if rest.starts_with(mark) {
            Some(true)
        } else if !over && mark.starts_with(rest) {
            Some(false)
        } else {
            None
        }
    };
    let found = match given {
        Given::Json => ["{", "\"", "null"].iter().filter_map(|mark| may(mark)).max(),
        Given::Braces(_) => may("{"),
        Given::Python => may("("),
        Given::Tagged(tags) => {
            let marks = then.iter().chain([&tags.open]);
            marks.filter_map(|mark| may(mark)).max()
        }
        Given::Whole => None,
    };
    match found {
        Some(true) => Head::Call(begin),
        Some(false) => Head::Maybe,
        None => Head::None,
    }
}

/// What may follow what a tool is given, after which `steps` come.
pub(super) fn after(steps: &[Step], form: &Form) -> Vec<&'static str> {
    let mut marks = Vec::new();
    for step in steps {
        match step {
            Step::Lit(lit) => {
                marks.push(*lit);
                return marks;
            }
            Step::Maybe(lit) => marks.push(*lit),
            _ => return marks,
        }
    }
    marks.extend(form.close);
    marks
}

/// `functions.NAME:0` without what is around the name.
fn bare_name(word: &str) -> &str {
    let word = word.strip_prefix("functions.").unwrap_or(word);
    match word.rsplit_once(':') {
        Some((name, n)) if !name.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => word,
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '@' | '$')
}

/// One value at the beginning of `text`, and its length; None while it has not ended.
fn value(text: &str) -> Result<Option<(String, usize)>, ()> {
    let mut scan = Scan::new();
    let n = scan.read(text).map_err(|_| ())?;
    Ok(scan.is_done().then(|| (scan.take(), n)))
}

fn text_of(json: &str) -> Option<String> {
    serde_json::from_str::<serde_json::Value>(json).ok().and_then(|value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(n) => Some(n.to_string()),
        _ => None,
    })
}

/// The key at the beginning of `text`, and what follows its colon; None while they have not come.
fn key(text: &str) -> Result<Option<(String, &str)>, ()> {
    let Some((key, n)) = value(text)? else { return Ok(None) };
    let rest = text[n..].trim_start();
    let rest = match rest.strip_prefix(':') {
        Some(rest) => rest.trim_start(),
        None if rest.is_empty() => return Ok(None),
        None => return Err(()),
    };
    Ok((!rest.is_empty()).then(|| (text_of(&key).unwrap_or_default(), rest)))
}

/// An object with name and arguments, which begins at `begin`.
fn whole(steps: &'static [Step], text: &str, begin: usize, tools: &Tools, form: &Form) -> Head {
    let Some(inner) = text[begin..].strip_prefix('{') else {
        return if text[begin..].is_empty() { Head::Maybe } else { Head::None };
    };
    let (mut at, mut open) = (text.len() - inner.len(), 1);
    let (mut name, mut id, mut ready) = (None::<String>, None::<String>, None);
    let call = |name: Option<String>, id: Option<String>, at, open, ready| match name {
        Some(name) if form.open.is_empty() && !tools.knows(&name) => Head::None,
        Some(name) => Head::Call(Begin {
            steps: &steps[steps.len()..],
            given: Given::Whole,
            name,
            id: id.filter(|id| id.len() >= MIN_ID),
            at,
            open,
            ready,
        }),
        None => Head::None,
    };
    loop {
        let rest = text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        at = text.len() - rest.len();
        match rest.chars().next() {
            None => return Head::Maybe,
            Some('}') => {
                open -= 1;
                at += 1;
                if open == 0 {
                    return call(name, id, at, 0, Some(ready.unwrap_or_else(|| "{}".to_owned())));
                }
                continue;
            }
            Some('"') => {}
            Some(_) => return Head::None,
        }
        let (key, rest) = match key(rest) {
            Ok(Some(found)) => found,
            Ok(None) => return Head::Maybe,
            Err(()) => return Head::None,
        };
        at = text.len() - rest.len();
        let is_object = rest.starts_with('{');
        match key.as_str() {
            "function" | "tool_call" if is_object => {
                at += 1;
                open += 1;
                continue;
            }
            "arguments" | "parameters" | "args" if name.is_some() => {
                return call(name, id, at, open, None);
            }
            // Apertus: the name is the key.
            key if name.is_none() && is_object && open == 1 && tools.knows(key) => {
                return call(Some(key.to_owned()), id, at, open, None);
            }
            _ => {}
        }
        let Ok(found) = value(rest) else { return Head::None };
        let Some((json, n)) = found else { return Head::Maybe };
        at += n;
        match key.as_str() {
            "name" | "tool_name" | "function" | "tool" if name.is_none() => name = text_of(&json),
            "id" | "tool_call_id" | "call_id" => id = text_of(&json),
            "arguments" | "parameters" | "args" => ready = Some(json),
            _ => {}
        }
    }
}
