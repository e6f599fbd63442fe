//! Texts: patterns, formats and lengths at once, a rule for each state of what they come to.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Writer, quoted};
use crate::ggml::grammar::automaton::{Automaton, TooLarge};
use crate::ggml::grammar::formats::{self, Format};
use crate::ggml::grammar::loose::Loose;
use crate::ggml::grammar::pattern::{self, Whole};
use crate::ggml::result::Error;

/// What texts must fit.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    pub(super) wholes: Vec<Whole>,
    /// How many of these, the first ones, are a schema's own patterns; the others are formats.
    pub(super) own: usize,
    pub(super) least: usize,
    pub(super) most: Option<usize>,
}

/// Whether a schema has a format that is one of texts.
pub(super) fn has_pattern(map: &Map<String, Value>) -> bool {
    each(map, "format").any(|name| !matches!(formats::of(name), Format::Unknown))
}

/// The text that a key has, or the texts, where several schemas were joined.
fn each<'a>(map: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let value = map.get(key);
    let all = value.map_or(&[][..], |value| match value {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    });
    all.iter().filter_map(Value::as_str)
}

impl Writer<'_> {
    /// Tells of a format that is not the standard's: it may be for numbers.
    pub(super) fn look_at_format(&mut self, map: &Map<String, Value>) {
        for name in each(map, "format") {
            match formats::of(name) {
                Format::Pattern(_) => {}
                Format::Unsayable => self.leave(map, "format"),
                Format::Unknown => self.loose.push(Loose::new(map, "format", false)),
            }
        }
    }

    pub(super) fn string(&mut self, map: &Map<String, Value>) -> Result<Option<String>, Error> {
        let mut texts = self.said(map)?;
        if texts.wholes.is_empty() {
            if texts.least == 0 && texts.most.is_none() {
                return Ok(Some("string".to_owned()));
            }
            let all = self.times("char", texts.least, texts.most);
            return Ok(Some(self.rule(&format!("\"\\\"\" {all} \"\\\"\""))));
        }
        if let Ok(rule) = self.texts(&texts) {
            return Ok(rule);
        }
        // A pattern beside a format of the standard says the same once more, as clients write it.
        if texts.own > 0 && texts.own < texts.wholes.len() {
            texts.wholes.drain(..std::mem::take(&mut texts.own));
            self.loose.push(Loose::new(map, "pattern", false));
            if let Ok(rule) = self.texts(&texts) {
                return Ok(rule);
            }
        }
        // The expression alone may be small enough.
        for (key, is_there) in [("minLength", texts.least > 0), ("maxLength", texts.most.is_some())]
        {
            if is_there {
                self.leave(map, key);
            }
        }
        (texts.least, texts.most) = (0, None);
        self.texts(&texts).map_err(|TooLarge| pattern::wrong("can be read in too many ways"))
    }

    /// What a schema says of texts.
    fn said(&mut self, map: &Map<String, Value>) -> Result<Texts, Error> {
        let count = |key: &str| map.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let (least, most) = (count("minLength").unwrap_or(0), count("maxLength"));
        let mut texts = Texts { wholes: Vec::new(), own: 0, least, most };
        let is_kept = |name: &str| matches!(formats::of(name), Format::Pattern(_));
        let has_format = each(map, "format").any(is_kept);
        for text in each(map, "pattern") {
            match pattern::parsed(text)? {
                Some(all) => texts.wholes.extend(all),
                None => self.loose.push(Loose::new(map, "pattern", !has_format)),
            }
        }
        texts.own = texts.wholes.len();
        for name in each(map, "format") {
            if let Format::Pattern(text) = formats::of(name) {
                texts.wholes.extend(pattern::parsed(&text)?.into_iter().flatten());
            }
        }
        Ok(texts)
    }

    /// What a schema of names says, if it says nothing else.
    pub(super) fn texts_of(&mut self, names: &Value, depth: usize) -> Result<Option<Texts>, Error> {
        const KNOWN: [&str; 5] = ["type", "pattern", "format", "minLength", "maxLength"];
        let Value::Object(map) = names else {
            return Ok((*names == Value::Bool(true)).then(Texts::default));
        };
        if let Some(to) = map.get("$ref").and_then(Value::as_str) {
            let target = to.strip_prefix("#/$defs/").and_then(|name| self.definitions.get(name));
            return match target.filter(|_| depth < 16) {
                Some(target) => self.texts_of(target, depth + 1),
                None => Ok(None),
            };
        }
        if let Some(values) = super::named(map) {
            let fitting = values
                .into_iter()
                .filter(|value| crate::ggml::grammar::fits::fits(value, names, self.definitions));
            let whole = pattern::none_of(fitting.filter_map(Value::as_str));
            return Ok(Some(Texts {
                wholes: vec![Whole { fits: true, ..whole }],
                ..Texts::default()
            }));
        }
        let other = |key: &String| {
            !KNOWN.contains(&key.as_str()) && !crate::ggml::grammar::join::is_note(key)
        };
        if map.keys().any(other) || map.get("type").is_some_and(|kind| kind != "string") {
            return Ok(None);
        }
        self.said(map).map(Some)
    }

    /// The rule of texts; `None` if none fits.
    pub(super) fn texts(&mut self, texts: &Texts) -> Result<Option<String>, TooLarge> {
        if texts.wholes.is_empty() && texts.least == 0 && texts.most.is_none() {
            return Ok(Some("string".to_owned()));
        }
        let key = format!("{texts:?}");
        if let Some(known) = self.texts.get(&key) {
            return Ok(known.clone());
        }
        let automaton = Automaton::of(&texts.wholes, texts.least, texts.most)?;
        let rule = automaton.map(|automaton| self.automaton(&automaton));
        self.texts.insert(key, rule.clone());
        Ok(rule)
    }

    fn automaton(&mut self, automaton: &Automaton) -> String {
        let n = self.texts.len();
        for (i, state) in automaton.states.iter().enumerate() {
            let mut ways: Vec<String> = Vec::new();
            for (ranges, to) in &state.next {
                let class = self.class(ranges);
                ways.push(format!("{class} w{n}-{to}"));
            }
            let all = ways.join(" | ");
            let body = match (ways.is_empty(), state.end) {
                // libllama's parser takes the next line for the rest of one that says nothing.
                (true, _) => "\"\"".to_owned(),
                (false, true) => format!("({all})?"),
                (false, false) => all,
            };
            let _ = writeln!(self.text, "w{n}-{i} ::= {body}");
        }
        format!("\"\\\"\" w{n}-0 \"\\\"\"")
    }

    /// What stands in JSON for one of some characters.
    fn class(&mut self, ranges: &[(u32, u32)]) -> String {
        const ESCAPED: [(u32, char); 7] =
            [(0x22, '"'), (0x5c, '\\'), (8, 'b'), (12, 'f'), (10, 'n'), (13, 'r'), (9, 't')];
        let has = |c: u32| ranges.iter().any(|&(a, b)| (a..=b).contains(&c));
        let escaped: String = ESCAPED
            .iter()
            .filter(|(c, _)| has(*c))
            .map(|(_, letter)| if *letter == '\\' { "\\\\".to_owned() } else { letter.to_string() })
            .collect();
        let mut plain = String::new();
        for &(from, to) in ranges {
            // Around the two that are only written with a backslash.
            for (from, to) in [
                (from.max(0x20), to.min(0x21)),
                (from.max(0x23), to.min(0x5b)),
                (from.max(0x5d), to),
            ] {
                if from <= to {
                    plain += &letter(from);
                    if from < to {
                        plain.push('-');
                        plain += &letter(to);
                    }
                }
            }
        }
        let mut forms = Vec::new();
        forms.extend((!plain.is_empty()).then(|| format!("[{plain}]")));
        forms.extend((!escaped.is_empty()).then(|| format!("{} [{escaped}]", quoted("\\"))));
        match forms.as_slice() {
            [one] if one.len() < 24 => one.clone(),
            _ => self.rule(&forms.join(" | ")),
        }
    }
}

/// A character of a class.
fn letter(c: u32) -> String {
    match char::from_u32(c) {
        Some(c) if c.is_ascii_alphanumeric() => c.into(),
        _ if c < 0x80 => format!(r"\x{c:02X}"),
        _ if c < 0x1_0000 => format!(r"\u{c:04X}"),
        _ => format!(r"\U{c:08X}"),
    }
}
