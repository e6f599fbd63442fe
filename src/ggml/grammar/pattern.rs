//! Regular expressions of schemas, as what whole texts must fit. What stands without anchors may begin and end anywhere; what looks ahead at the
//! beginning is an expression of its own. It writes nothing: `automaton` does.

use regex_syntax::ast::ErrorKind;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look};
use regex_syntax::{Parser, ParserBuilder};

use super::automaton::Automaton;
use super::invalid;
use crate::ggml::result::Error;

/// How deep brackets may be nested.
const MAX_DEPTH: u32 = 40;
/// The most characters that a text may have as far as the expression counts them.
const MAX_PLACES: usize = 4000;
/// The most neighbours of places.
const MAX_STEPS: usize = 500_000;

/// What ECMAScript's `\s` means.
const BLANKS: &str =
    r"\t-\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";

/// An expression that a whole text must fit, or must not.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) hir: Hir,
    pub(super) fits: bool,
}

/// What texts must fit that a pattern is found in; `None` if that cannot be said in these words.
///
/// # Errors
///
/// A pattern that makes no sense, or that counts too far.
pub(super) fn parsed(pattern: &str) -> Result<Option<Vec<Whole>>, Error> {
    let (ahead, rest) = looks_ahead(pattern);
    let mut all = Vec::new();
    let own = ahead.iter().map(|(text, fits)| (format!("^(?:{text})"), *fits));
    for (text, fits) in own.chain([(rest, true)]) {
        let Some(hir) = one(&text)? else {
            return if brackets_are_even(pattern) { Ok(None) } else { Err(wrong("is none")) };
        };
        all.push(Whole { hir, fits });
    }
    Ok(Some(all))
}

/// What texts must not be any of `names`.
pub(super) fn none_of<'a>(names: impl Iterator<Item = &'a str>) -> Whole {
    let literal = |name: &str| Hir::literal(name.as_bytes());
    Whole { hir: Hir::alternation(names.map(literal).collect()), fits: false }
}

/// What a pattern looks ahead for at its beginning, and whether that must be there, and the pattern without it.
fn looks_ahead(pattern: &str) -> (Vec<(&str, bool)>, String) {
    let mut all = Vec::new();
    let Some(mut rest) = pattern.strip_prefix('^') else { return (all, pattern.to_owned()) };
    while let Some(fits) = match rest.get(..3) {
        Some("(?=") => Some(true),
        Some("(?!") => Some(false),
        _ => None,
    } {
        let Some(end) = bracket_end(rest) else { break };
        // What is repeated or may be left out is looked at no further.
        if rest[end + 1..].starts_with(['*', '+', '?', '{']) {
            break;
        }
        all.push((&rest[3..end], fits));
        rest = &rest[end + 1..];
    }
    // Alternatives of the whole would have to look ahead each by itself.
    if !all.is_empty() && has_alternatives(rest) {
        return (Vec::new(), pattern.to_owned());
    }
    (all, format!("^{rest}"))
}

/// The brackets and bars of an expression, neither escaped nor in a class, and where they are.
fn marks(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut in_class, mut escaped) = (false, false);
    text.char_indices().filter(move |&(_, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' | ')' | '|' => return !in_class,
            _ => {}
        }
        false
    })
}

/// Where the bracket ends with which `text` begins.
fn bracket_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let end = marks(text).find(|(_, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        *c == ')' && depth == 0
    });
    end.map(|(at, _)| at)
}

/// Whether there are alternatives outside of all brackets.
fn has_alternatives(text: &str) -> bool {
    bracket_end(&format!("({text})")).is_none_or(|end| end != text.len() + 1) || {
        let mut depth = 0_usize;
        marks(text).any(|(_, c)| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == '|' && depth == 0
        })
    }
}

/// One expression; `None` if it has no form.
fn one(pattern: &str) -> Result<Option<Hir>, Error> {
    let asserted = assertions(pattern);
    if asserted.is_empty() {
        return plain(pattern);
    }
    // What is asserted in the middle only takes texts away. Where taking it for true and taking it for false comes to the same texts, it
    // says nothing; elsewhere it has no form.
    let with = |word: &str| {
        let (mut out, mut from) = (String::new(), 0);
        for &(begin, end) in &asserted {
            out.extend([&pattern[from..begin], word]);
            from = end;
        }
        plain(&(out + &pattern[from..]))
    };
    let (Some(most), Some(least)) = (with("(?:)")?, with(NOTHING)?) else { return Ok(None) };
    let more = [Whole { hir: most.clone(), fits: true }, Whole { hir: least, fits: false }];
    Ok(matches!(Automaton::of(&more, 0, None), Ok(None)).then_some(most))
}

/// A character that is none: what cannot be found.
const NOTHING: &str = r"[^\s\S]";

/// Where an expression asserts what is around a place and takes no character: looks ahead and behind, and edges of words.
fn assertions(pattern: &str) -> Vec<(usize, usize)> {
    let (mut all, mut at, mut in_class) = (Vec::new(), 0, false);
    while let Some(c) = pattern[at..].chars().next() {
        let rest = &pattern[at..];
        let looks = ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| rest.starts_with(look));
        let end = match c {
            _ if in_class => None,
            '(' if looks => bracket_end(rest).map(|end| at + end + 1),
            '\\' if rest[1..].starts_with(['b', 'B']) => Some(at + 2),
            _ => None,
        };
        if let Some(end) = end {
            all.push((at, end));
            at = end;
            continue;
        }
        match c {
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        let escaped = if c == '\\' { rest.chars().nth(1).map_or(0, char::len_utf8) } else { 0 };
        at += c.len_utf8() + escaped;
    }
    all
}

/// An expression that asserts nothing but beginnings and ends.
fn plain(pattern: &str) -> Result<Option<Hir>, Error> {
    // What makes no sense in any language; the rest may in ECMAScript.
    let senseless = |error: &regex_syntax::Error| match error {
        regex_syntax::Error::Parse(e) => match e.kind() {
            ErrorKind::RepetitionCountInvalid => Some(wrong("counts down")),
            ErrorKind::ClassRangeInvalid => Some(wrong("has a range that ends before it begins")),
            _ => None,
        },
        _ => None,
    };
    let parsed = match ecmascript(pattern) {
        Some(text) => match parser().parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(error) => match senseless(&error) {
                Some(refusal) => return Err(refusal),
                None => None,
            },
        },
        None => None,
    };
    let Some(body) = parsed.as_ref().and_then(whole) else { return Ok(None) };
    if n_places(&body) > MAX_PLACES {
        return Err(wrong("repeats too much"));
    }
    Ok(Some(body))
}

fn parser() -> Parser {
    ParserBuilder::new().nest_limit(MAX_DEPTH).build()
}

pub(super) fn wrong(why: &str) -> Error {
    invalid(&format!("has a pattern that {why}"))
}

/// Whether each bracket has its counterpart: otherwise, a pattern makes no sense in any language.
fn brackets_are_even(pattern: &str) -> bool {
    let (mut open, mut in_class) = (0_usize, false);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return false,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => open += 1,
            ')' if !in_class && open == 0 => return false,
            ')' if !in_class => open -= 1,
            _ => {}
        }
    }
    open == 0 && !in_class
}

/// Any characters, as many as there are.
fn anything() -> Hir {
    let any = ClassUnicode::new([ClassUnicodeRange::new('\0', char::MAX)]);
    let sub = Box::new(Hir::class(Class::Unicode(any)));
    Hir::repetition(regex_syntax::hir::Repetition { min: 0, max: None, greedy: true, sub })
}

/// What stands beside a part of an expression.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    /// Anything, until an anchor says otherwise.
    Anything,
    /// Nothing: an anchor was there.
    Nothing,
    /// Other parts.
    Parts,
}

/// What whole texts are in which `hir` is found; `None` if an anchor stands between others.
fn whole(hir: &Hir) -> Option<Hir> {
    within(hir, Beside::Anything, Beside::Anything)
}

fn within(hir: &Hir, left: Beside, right: Beside) -> Option<Hir> {
    let around = |middle: Hir, left: Beside, right: Beside| {
        let before = (left == Beside::Anything).then(anything);
        let after = (right == Beside::Anything).then(anything);
        Hir::concat(before.into_iter().chain([middle]).chain(after).collect())
    };
    if hir.properties().look_set().is_empty() {
        return Some(around(hir.clone(), left, right));
    }
    match hir.kind() {
        HirKind::Capture(group) => within(&group.sub, left, right),
        HirKind::Alternation(all) => {
            let all = all.iter().map(|one| within(one, left, right));
            Some(Hir::alternation(all.collect::<Option<_>>()?))
        }
        HirKind::Look(Look::Start) if left != Beside::Parts => {
            Some(around(Hir::empty(), Beside::Nothing, right))
        }
        HirKind::Look(Look::End) if right != Beside::Parts => {
            Some(around(Hir::empty(), left, Beside::Nothing))
        }
        HirKind::Concat(parts) => match parts.as_slice() {
            [] => Some(around(Hir::empty(), left, right)),
            [only] => within(only, left, right),
            [first, rest @ ..] if *first.kind() == HirKind::Look(Look::Start) => {
                let left = (left != Beside::Parts).then_some(Beside::Nothing)?;
                within(&Hir::concat(rest.to_vec()), left, right)
            }
            [rest @ .., last] if *last.kind() == HirKind::Look(Look::End) => {
                let right = (right != Beside::Parts).then_some(Beside::Nothing)?;
                within(&Hir::concat(rest.to_vec()), left, right)
            }
            [first, middle @ .., last] => {
                if !middle.iter().all(|part| part.properties().look_set().is_empty()) {
                    return None;
                }
                let mut all = vec![within(first, left, Beside::Parts)?];
                all.extend(middle.iter().cloned());
                all.push(within(last, Beside::Parts, right)?);
                Some(Hir::concat(all))
            }
        },
        _ => None,
    }
}

/// An expression of ECMAScript in the words of `regex_syntax`.
fn ecmascript(pattern: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match (c, in_class) {
            ('\\', _) => {
                let c = chars.next()?;
                let simple = matches!(c, 'p' | 'P' | 'u' | 'x' | 'n' | 'r' | 't' | 'f' | 'v');
                match (c, in_class) {
                    ('d', _) => out.push_str("[0-9]"),
                    ('D', _) => out.push_str("[^0-9]"),
                    ('w', _) => out.push_str("[A-Za-z0-9_]"),
                    ('W', _) => out.push_str("[^A-Za-z0-9_]"),
                    ('s', _) => out += &format!("[{BLANKS}]"),
                    ('S', _) => out += &format!("[^{BLANKS}]"),
                    ('0', _) => out.push_str(r"\x00"),
                    ('b', true) => out.push_str(r"\x08"),
                    _ if simple => out.extend(['\\', c]),
                    _ if c.is_alphanumeric() => return None,
                    _ => out += &format!(r"\x{{{:x}}}", u32::from(c)),
                }
            }
            ('[', false) => {
                in_class = true;
                out.push('[');
                out.extend(chars.next_if_eq(&'^'));
                if chars.peek() == Some(&']') {
                    return None;
                }
            }
            (']', true) => {
                in_class = false;
                out.push(']');
            }
            ('-', true) if chars.peek() == Some(&'-') => return None,
            ('[' | '&' | '~', true) => out.extend(['\\', c]),
            ('(', false) if chars.peek() == Some(&'?') => {
                chars.next();
                // Groups with names would need their names to differ: they are groups.
                match chars.next()? {
                    ':' => out.push_str("(?:"),
                    '<' => {
                        let name: String =
                            std::iter::from_fn(|| chars.next_if(|&c| c != '>')).collect();
                        if name.starts_with(['=', '!']) || chars.next().is_none() {
                            return None;
                        }
                        out.push_str("(?:");
                    }
                    _ => return None,
                }
            }
            ('.', false) => out.push_str(r"[^\n\r\u{2028}\u{2029}]"),
            _ => out.push(c),
        }
    }
    Some(out)
}

/// How many characters an expression counts, each repetition by itself.
fn n_places(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Literal(text) => text.0.len(),
        HirKind::Class(_) => 1,
        HirKind::Capture(group) => n_places(&group.sub),
        HirKind::Repetition(again) => {
            let times = again.max.unwrap_or(again.min.saturating_add(1)).max(1);
            n_places(&again.sub).saturating_mul(times as usize).max(times as usize)
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(0, |sum, part| sum.saturating_add(n_places(part)))
        }
        HirKind::Empty | HirKind::Look(_) => 0,
    }
}

/// The places of an expression where a text can be: each stands for a character of it.
#[derive(Default)]
pub(super) struct Places {
    /// What characters may stand at each.
    pub(super) classes: Vec<ClassUnicode>,
    /// What may come after each.
    pub(super) after: Vec<Vec<usize>>,
    /// Where a text may begin, and where it may end.
    pub(super) first: Vec<usize>,
    pub(super) last: Vec<usize>,
    /// Whether a text may have no character.
    pub(super) empty: bool,
    n_links: usize,
    /// Whether there was too much to note.
    pub(super) full: bool,
}

/// A part of an expression.
#[derive(Clone, Default)]
struct Part {
    /// Whether it may be left out.
    empty: bool,
    first: Vec<usize>,
    last: Vec<usize>,
}

impl Places {
    pub(super) fn of(hir: &Hir) -> Places {
        let mut places = Places::default();
        let whole = places.part(hir);
        (places.first, places.last, places.empty) = (whole.first, whole.last, whole.empty);
        places
    }

    fn place(&mut self, class: ClassUnicode) -> Part {
        let n = self.classes.len();
        self.classes.push(class);
        self.after.push(Vec::new());
        Part { empty: false, first: vec![n], last: vec![n] }
    }

    fn part(&mut self, hir: &Hir) -> Part {
        let nothing = Part { empty: true, ..Part::default() };
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => nothing,
            HirKind::Capture(group) => self.part(&group.sub),
            HirKind::Class(Class::Unicode(class)) => self.place(class.clone()),
            HirKind::Class(Class::Bytes(_)) => self.place(ClassUnicode::empty()),
            HirKind::Literal(text) => {
                let text = String::from_utf8_lossy(&text.0).into_owned();
                let one = |c| ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
                text.chars().fold(nothing, |before, c| {
                    let place = self.place(one(c));
                    self.then(before, place)
                })
            }
            HirKind::Concat(parts) => parts.iter().fold(nothing, |before, part| {
                let part = self.part(part);
                self.then(before, part)
            }),
            HirKind::Alternation(parts) => parts.iter().fold(Part::default(), |mut all, part| {
                let part = self.part(part);
                all.empty |= part.empty;
                all.first.extend(part.first);
                all.last.extend(part.last);
                all
            }),
            HirKind::Repetition(again) => self.repeated(&again.sub, again.min, again.max),
        }
    }

    /// One after the other, each but the first `min` of which may be the last.
    fn repeated(&mut self, sub: &Hir, min: u32, max: Option<u32>) -> Part {
        let mut all = Part { empty: min == 0, ..Part::default() };
        // What may stand before the next, and whether that may be nothing.
        let (mut before, mut is_first) = (Vec::new(), true);
        for i in 0..max.unwrap_or(min.max(1)) {
            let part = self.part(sub);
            self.link(&before, &part.first);
            if is_first {
                all.first.extend(&part.first);
            }
            if i + 1 >= min {
                all.last.extend(&part.last);
            }
            if max.is_none() && i + 1 == min.max(1) {
                self.link(&part.last, &part.first);
            }
            if !part.empty {
                before.clear();
                is_first = false;
            }
            before.extend(&part.last);
            all.empty |= part.empty && i + 1 >= min && is_first;
            if self.full {
                break;
            }
        }
        all
    }

    fn then(&mut self, before: Part, after: Part) -> Part {
        self.link(&before.last, &after.first);
        let mut all =
            Part { empty: before.empty && after.empty, first: before.first, last: after.last };
        if before.empty {
            all.first.extend(after.first);
        }
        if after.empty {
            all.last.extend(before.last);
        }
        self.full |= all.first.len().max(all.last.len()) > MAX_PLACES;
        all
    }

    fn link(&mut self, from: &[usize], to: &[usize]) {
        self.n_links = self.n_links.saturating_add(from.len().saturating_mul(to.len()));
        self.full |= self.n_links > MAX_STEPS;
        if !self.full {
            from.iter().for_each(|&from| self.after[from].extend(to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_said_is_told() {
        for pattern in [
            r"^(a)\1$",
            r"^a\b$",
            "^[^]$",
            r"^a(?!b)$",
            r"^(?:(?!x)a)+$",
            r"a^b",
            "^(?<=x)a$",
            r"^\b",
        ] {
            assert!(parsed(pattern).unwrap().is_none(), "{pattern}");
        }
    }

    /// As pydantic writes decimals of so many digits: after what it looks ahead for comes what may be anything without it.
    #[test]
    fn what_is_asserted_for_nothing_says_nothing() {
        let decimal = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)";
        let wholes = parsed(decimal).unwrap().unwrap();
        let automaton = Automaton::of(&wholes, 0, None).unwrap().unwrap();
        for (text, fits) in
            [("1.25", true), ("-007", true), ("", false), ("-.", false), ("1x", true)]
        {
            assert_eq!(automaton.fits(text), fits, "{text}");
        }
        for (pattern, text) in
            [(r"^(?:x|(?=y)y|\w)$", "y"), (r"^[\b]$", "\u{8}"), (r"^\\b(?:|(?!a)b|b)$", r"\bb")]
        {
            let wholes = parsed(pattern).unwrap().unwrap_or_else(|| panic!("{pattern}"));
            let automaton = Automaton::of(&wholes, 0, None).unwrap().unwrap();
            assert!(automaton.fits(text) && !automaton.fits("zz"), "{pattern}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for pattern in
            ["^((", "^a)$", "^a{5,2}$", "^[z-a]$", "^a{9999}$", "^((((a{99}){99}){99}){99}){99}$"]
        {
            assert!(parsed(pattern).is_err(), "{pattern}");
        }
    }
}
