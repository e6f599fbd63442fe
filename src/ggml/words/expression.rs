//! The regular expressions of libllama's vocabularies, which are ECMAScript's, for an engine that never goes back. It knows nothing of what
//! follows a match; of what libllama's expressions ask there, all has a form of its own here.

use std::fmt::Write;
use std::iter::Peekable;
use std::ops::Range;
use std::vec::IntoIter;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

/// What `\s` means to `std::regex`: libllama has made one of these of all other blanks.
const BLANKS: &str = r"\t-\r\x20";

/// Groups of three digits, counted from the end of a number.
const THOUSANDS: &str = r"(?=(\d{3})+(?!\d))";

/// What ends an alternative that no letter may follow.
const BEFORE_BLANK: &str = r"(?!\S)";

/// An expression.
pub(super) enum Expression {
    /// Before each group of three digits, counted from the end.
    Thousands,
    /// One of several, the first that fits.
    Alternatives {
        /// All of them, each a pattern with its own number.
        all: Regex,
        /// For each: what may stand in its place if it does not end before a blank, and how short it may become to do so. `None` if
        /// it may end anywhere.
        blank: Vec<Option<(Regex, usize)>>,
    },
}

impl Expression {
    /// Reads an expression. `None` if something in it is not known: libllama's have none of that.
    pub(super) fn new(regex: &[u32]) -> Option<Expression> {
        let regex: String = regex.iter().map(|&c| char::from_u32(c)).collect::<Option<_>>()?;
        if regex == THOUSANDS {
            return Some(Expression::Thousands);
        }
        let mut patterns = Vec::new();
        let mut shortest = Vec::new();
        for alternative in alternatives(&regex) {
            let blanks = alternative.strip_suffix(BEFORE_BLANK);
            shortest.push(match blanks {
                Some(blanks) => Some(n_blanks(blanks)?),
                None => None,
            });
            patterns.push(translated(blanks.unwrap_or(alternative))?);
        }
        let later = |i: usize| Regex::new_many(&patterns[i + 1..]).ok();
        let blank = shortest.iter().enumerate().map(|(i, shortest)| match shortest {
            Some(shortest) => Some(Some((later(i)?, *shortest))),
            None => Some(None),
        });
        let blank = blank.collect::<Option<_>>()?;
        Some(Expression::Alternatives { all: Regex::new_many(&patterns).ok()?, blank })
    }

    /// The first match in `text` from byte `at` on. (bytes)
    pub(super) fn find(&self, text: &str, mut at: usize) -> Option<Range<usize>> {
        let (all, blank) = match self {
            Expression::Thousands => return thousands(text, at),
            Expression::Alternatives { all, blank } => (all, blank),
        };
        loop {
            let found = all.search(&Input::new(text).range(at..))?;
            let Some((later, shortest)) = &blank[found.pattern()] else {
                return Some(found.range());
            };
            let is_blank = |c: char| matches!(c, '\t'..='\r' | ' ');
            if text[found.end()..].chars().next().is_none_or(is_blank) {
                return Some(found.range());
            }
            // Blanks before a letter: all but the last of them.
            if found.len() > *shortest {
                return Some(found.start()..found.end() - 1);
            }
            let here = Input::new(text).range(found.start()..).anchored(Anchored::Yes);
            if let Some(other) = later_match(later, &here, blank, found.pattern().as_usize() + 1) {
                return Some(other);
            }
            at = found.start() + 1;
        }
    }
}

/// What of the alternatives from number `first` on begins at `here`.
fn later_match(
    later: &Regex,
    here: &Input<'_>,
    blank: &[Option<(Regex, usize)>],
    first: usize,
) -> Option<Range<usize>> {
    let (mut later, mut first) = (later, first);
    loop {
        let found = later.search(here)?;
        let number = first + found.pattern().as_usize();
        let Some((next, shortest)) = &blank[number] else { return Some(found.range()) };
        let after = here.haystack().get(found.end());
        if after.is_none_or(|c| matches!(c, b'\t'..=b'\r' | b' ')) {
            return Some(found.range());
        }
        if found.len() > *shortest {
            return Some(found.start()..found.end() - 1);
        }
        (later, first) = (next, number + 1);
    }
}

/// The next place at or behind `at` before a group of three digits, counted from the end of a number.
fn thousands(text: &str, at: usize) -> Option<Range<usize>> {
    let digit = |i: &usize| text.as_bytes()[*i].is_ascii_digit();
    let mut from = (at..text.len()).find(digit)?;
    loop {
        let to = (from..text.len()).find(|i| !digit(i)).unwrap_or(text.len());
        let first = from + (to - from) % 3;
        if first < to {
            return Some(first..first);
        }
        from = (to..text.len()).find(digit)?;
    }
}

/// How many blanks `\s+`, `\s{8}` and `\s{1,2}` take at least.
fn n_blanks(pattern: &str) -> Option<usize> {
    match pattern.strip_prefix(r"\s")? {
        "+" => Some(1),
        count => count.strip_prefix('{')?.strip_suffix('}')?.split(',').next()?.parse().ok(),
    }
}

/// The parts of an expression between the bars that are in no bracket.
fn alternatives(regex: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut depth, mut in_class) = (0, 0_usize, false);
    let mut chars = regex.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth = depth.saturating_sub(1),
            '|' if !in_class && depth == 0 => {
                parts.push(&regex[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&regex[from..]);
    parts
}

/// An alternative in the engine's language.
fn translated(regex: &str) -> Option<String> {
    let mut out = String::new();
    // `((?=[L])([^a-z]))`: what is in both classes.
    let mut rest = regex;
    while let Some((before, after)) = rest.split_once("((?=[") {
        let (first, after) = after.split_once("])([")?;
        let (second, after) = after.split_once("]))")?;
        plain(before, &mut out)?;
        out.push('[');
        plain(&format!("[{first}]"), &mut out)?;
        out.push_str("&&");
        plain(&format!("[{second}]"), &mut out)?;
        out.push(']');
        rest = after;
    }
    plain(rest, &mut out)?;
    Some(out)
}

/// An expression that asks for nothing behind a match, in the engine's language.
fn plain(regex: &str, out: &mut String) -> Option<()> {
    let mut chars = regex.chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escaped(chars.next()?, false, out)?,
            '[' => class(&mut chars, out)?,
            // Groups only group here: nothing asks what they matched.
            '(' if chars.peek() != Some(&'?') => out.push_str("(?:"),
            '(' => {
                chars.next();
                chars.next_if_eq(&':')?;
                out.push_str("(?:");
            }
            '{' => {
                out.push('{');
                loop {
                    let c = chars.next()?;
                    out.push(c);
                    match c {
                        '0'..='9' | ',' => {}
                        '}' => break,
                        _ => return None,
                    }
                }
            }
            ')' | '|' | '*' | '+' | '?' => out.push(c),
            '$' => out.push_str(r"\z"),
            '^' | '.' => return None,
            _ => literal(c, out),
        }
    }
    Some(())
}

/// A class, behind its bracket.
fn class(chars: &mut Peekable<IntoIter<char>>, out: &mut String) -> Option<()> {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        match chars.next()? {
            ']' => break,
            '\\' => escaped(chars.next()?, true, out)?,
            // A range's, unless it is the first or last of its class.
            '-' if !first && chars.peek() != Some(&']') => out.push('-'),
            c => literal(c, out),
        }
        first = false;
    }
    out.push(']');
    Some(())
}

/// What a backslash and `c` mean.
fn escaped(c: char, in_class: bool, out: &mut String) -> Option<()> {
    match (c, in_class) {
        ('s', true) => out.push_str(BLANKS),
        ('s', false) => *out += &format!("[{BLANKS}]"),
        ('S', false) => *out += &format!("[^{BLANKS}]"),
        ('d', true) => out.push_str("0-9"),
        ('d', false) => out.push_str("[0-9]"),
        ('r', _) => literal('\r', out),
        ('n', _) => literal('\n', out),
        ('t', _) => literal('\t', out),
        ('a'..='z' | 'A'..='Z' | '0'..='9', _) => return None,
        _ => literal(c, out),
    }
    Some(())
}

fn literal(c: char, out: &mut String) {
    // Writing to a text cannot fail.
    let _ = write!(out, r"\x{{{:x}}}", u32::from(c));
}
