//! Regular expressions of schemas, in the few forms that libllama's converter reads as they are meant: classes of characters, brackets and
//! repetitions, with what JSON escapes escaped. What has no such form (what looks ahead, what may begin anywhere) is any text, as libllama has it. An
//! expression that can be read in many ways at once is refused: libllama follows all of them.

use std::collections::{HashMap, HashSet, VecDeque};

use regex_syntax::ast::ErrorKind;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look};
use regex_syntax::{Parser, ParserBuilder};

use super::invalid;
use crate::ggml::result::Error;

/// How deep brackets may be nested.
const MAX_DEPTH: u32 = 40;
/// The most characters that a text may have as far as the expression counts them: each is a rule of its own.
const MAX_PLACES: usize = 4000;
/// The most places in the expression where a text may be at once.
const MAX_READINGS: usize = 16;
/// How much is looked at to find that out.
const MAX_STEPS: usize = 500_000;

/// What ECMAScript's `\s` means.
const BLANKS: &str =
    r"\t-\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";

/// The pattern as libllama's converter shall read it; `None` if any text must do.
///
/// # Errors
///
/// A pattern that can be read in too many ways, that counts too far, or that nothing fits.
pub(super) fn rewritten(pattern: &str) -> Result<Option<String>, Error> {
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
    let Some(body) = parsed.as_ref().and_then(body) else {
        return if brackets_are_even(pattern) { Ok(None) } else { Err(wrong("is none")) };
    };
    if n_places(&body) > MAX_PLACES {
        return Err(wrong("repeats too much"));
    }
    Places::of(&body).check()?;
    let mut out = String::from("^");
    write(&body, &mut out)?;
    out.push('$');
    Ok(Some(out))
}

fn parser() -> Parser {
    ParserBuilder::new().nest_limit(MAX_DEPTH).build()
}

fn wrong(why: &str) -> Error {
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

/// What stands between the anchors, if there are two and no others.
fn body(hir: &Hir) -> Option<Hir> {
    match hir.kind() {
        HirKind::Capture(group) => body(&group.sub),
        HirKind::Alternation(all) => {
            Some(Hir::alternation(all.iter().map(body).collect::<Option<_>>()?))
        }
        HirKind::Concat(parts) => {
            let [first, middle @ .., last] = parts.as_slice() else { return None };
            let is = |hir: &Hir, look| *hir.kind() == HirKind::Look(look);
            let anchored = is(first, Look::Start) && is(last, Look::End);
            let plain = middle.iter().all(|part| part.properties().look_set().is_empty());
            (anchored && plain).then(|| Hir::concat(middle.to_vec()))
        }
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
struct Places {
    /// What characters may stand at each.
    classes: Vec<ClassUnicode>,
    /// What may come after each.
    after: Vec<Vec<usize>>,
    /// Where a text may begin.
    first: Vec<usize>,
    /// Whether there was too much to note.
    full: bool,
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
    fn of(hir: &Hir) -> Places {
        let mut places = Places::default();
        places.first = places.part(hir).first;
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
                // What may be nothing, without end, has no first reading.
                self.full |= part.empty;
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
        self.full |= from.len().saturating_mul(to.len()) > MAX_STEPS;
        if !self.full {
            from.iter().for_each(|&from| self.after[from].extend(to));
        }
    }

    /// Follows all texts, a character at a time, and refuses those that may be at too many places at once.
    fn check(&self) -> Result<(), Error> {
        let too_much = || wrong("can be read in too many ways");
        let mut steps = self.after.iter().map(Vec::len).sum::<usize>();
        if self.full || steps > MAX_STEPS {
            return Err(too_much());
        }
        let mut seen: HashSet<Vec<usize>> = HashSet::new();
        let mut next = VecDeque::from([self.first.clone()]);
        while let Some(open) = next.pop_front() {
            for at in self.met(&open, &mut steps) {
                if at.len() > MAX_READINGS || steps > MAX_STEPS {
                    return Err(too_much());
                }
                if seen.insert(at.clone()) {
                    next.push_back(
                        at.iter().flat_map(|&p| self.after[p].iter().copied()).collect(),
                    );
                }
            }
        }
        Ok(())
    }

    /// Of the places `open`, those where one and the same character may stand, for each kind of character.
    fn met(&self, open: &[usize], steps: &mut usize) -> HashSet<Vec<usize>> {
        let mut open = open.to_vec();
        open.sort_unstable();
        open.dedup();
        // Where a range begins, and where one has ended: the places change nowhere else.
        let mut edges: Vec<(u32, bool, usize)> = Vec::new();
        for (i, &place) in open.iter().enumerate() {
            let same = i > 0 && self.classes[place] == self.classes[open[i - 1]];
            *steps += if same { 1 } else { 1 + self.classes[place].ranges().len() };
            for range in self.classes[place].ranges() {
                edges.push((u32::from(range.start()), true, place));
                edges.push((u32::from(range.end()) + 1, false, place));
            }
        }
        edges.sort_unstable();
        let mut met = HashSet::new();
        let mut here: HashMap<usize, ()> = HashMap::new();
        for (i, &(at, begins, place)) in edges.iter().enumerate() {
            if begins {
                here.insert(place, ());
            } else {
                here.remove(&place);
            }
            if edges.get(i + 1).is_none_or(|next| next.0 > at) && !here.is_empty() {
                let mut places: Vec<usize> = here.keys().copied().collect();
                *steps += places.len();
                if *steps > MAX_STEPS {
                    return HashSet::from([places]);
                }
                places.sort_unstable();
                met.insert(places);
            }
        }
        met
    }
}

/// Writes an expression in the words of libllama's converter.
fn write(hir: &Hir, out: &mut String) -> Result<(), Error> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(text) => {
            for c in String::from_utf8_lossy(&text.0).chars() {
                write_class(&ClassUnicode::new([ClassUnicodeRange::new(c, c)]), out)?;
            }
        }
        HirKind::Class(Class::Unicode(class)) => write_class(class, out)?,
        HirKind::Class(Class::Bytes(_)) => return Err(wrong("nothing fits")),
        HirKind::Capture(group) => write_group(&group.sub, out)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, out))?,
        HirKind::Alternation(parts) => {
            out.push('(');
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    out.push('|');
                }
                write(part, out)?;
            }
            out.push(')');
        }
        HirKind::Repetition(again) => {
            let times = match (again.min, again.max) {
                (_, Some(0)) => return Ok(()),
                (0, None) => "*".to_owned(),
                (1, None) => "+".to_owned(),
                (0, Some(1)) => "?".to_owned(),
                (min, None) => {
                    write_group(&again.sub, out)?;
                    *out += &format!("{{{min}}}");
                    "*".to_owned()
                }
                (min, Some(max)) if min == max => format!("{{{min}}}"),
                (min, Some(max)) => format!("{{{min},{max}}}"),
            };
            write_group(&again.sub, out)?;
            *out += &times;
        }
    }
    if out.len() > super::MAX_LEN { Err(wrong("is too long")) } else { Ok(()) }
}

fn write_group(hir: &Hir, out: &mut String) -> Result<(), Error> {
    out.push('(');
    write(hir, out)?;
    out.push(')');
    Ok(())
}

/// Writes what stands in JSON for one of some characters.
fn write_class(class: &ClassUnicode, out: &mut String) -> Result<(), Error> {
    const ESCAPED: [(char, &str); 7] = [
        ('"', r#"\\""#),
        ('\\', r"\\\\"),
        ('\n', r"\\n"),
        ('\r', r"\\r"),
        ('\t', r"\\t"),
        ('\u{8}', r"\\b"),
        ('\u{c}', r"\\f"),
    ];
    let has =
        |c: char| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&c));
    let mut forms: Vec<String> =
        ESCAPED.iter().filter(|(c, _)| has(*c)).map(|(_, form)| (*form).to_owned()).collect();
    let mut plain = class.clone();
    let range = ClassUnicodeRange::new;
    plain.difference(&ClassUnicode::new([
        range('\0', '\u{1f}'),
        range('"', '"'),
        range('\\', '\\'),
        range('\u{7f}', '\u{7f}'),
    ]));
    if !plain.ranges().is_empty() {
        let mut form = String::from("[");
        for range in plain.ranges() {
            form += &letter(range.start());
            if range.start() != range.end() {
                form.push('-');
                form += &letter(range.end());
            }
        }
        form.push(']');
        forms.insert(0, form);
    }
    match forms.as_slice() {
        [] => return Err(wrong("nothing fits")),
        [one] if one.starts_with('[') => out.push_str(one),
        all => *out += &format!("({})", all.join("|")),
    }
    Ok(())
}

/// A character of a class.
fn letter(c: char) -> String {
    match u32::from(c) {
        _ if c.is_ascii_alphanumeric() => c.into(),
        n if n < 0x80 => format!(r"\x{n:02X}"),
        n if n < 0x1_0000 => format!(r"\u{n:04X}"),
        n => format!(r"\U{n:08X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_with_few_readings_are_kept() {
        for pattern in [
            r"^[a-z0-9]+(?:-[a-z0-9]+)*$",
            r"^-?\d+(\.\d+)?$",
            r"^[a-z]{2}(-[A-Z]{2})?$",
            r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$",
            r"^(\+\d{1,3} )?\d{3,12}$",
            r"^\p{L}+$",
            r"^\p{L}[\p{L}\p{M}' -]*$",
            r"^#[0-9a-f]{6}$",
            r"^[a-z]{1,2000}$",
            r"^([a-zA-Z0-9_.+-]+)@([a-zA-Z0-9-]+\.)+[a-zA-Z]{2,}$",
            r"^[a-zA-Z0-9.!#$%&'*+\/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
            r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$",
            r"^((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.?\b){4}$",
            r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?$",
            r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
            r"^https?:\/\/[^\s/$.?#].[^\s]*$",
            r"^(a|b){1000}$",
            r"^yes$|^no$",
            r"^(?<year>\d{4})$",
            "",
            "a",
        ] {
            rewritten(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        }
    }

    #[test]
    fn what_has_no_form_is_any_text() {
        for pattern in [r"^(?!x)[a-z]+$", "[a-z]+", r"^(a)\1$", r"^a\b$", "^[^]$", "^a"] {
            assert_eq!(rewritten(pattern).unwrap(), None, "{pattern}");
        }
    }

    #[test]
    fn patterns_with_many_readings_are_refused() {
        for pattern in [
            "^(a?){0,2000}$".to_owned(),
            "^(a|a|a|a|a|a|a|a|a|a|a|a|a|a|a|a|a|a){1,9}$".replace('|', "b?|"),
            format!("^({})$", "[a-z]{0,300}".repeat(40)),
            format!("^{}$", "a?".repeat(1000)),
            "^a{9999}$".to_owned(),
            "^((((a{99}){99}){99}){99}){99}$".to_owned(),
            "^((".to_owned(),
            "^a)$".to_owned(),
            "^a{5,2}$".to_owned(),
            "^[z-a]$".to_owned(),
            "^(a*)*$".to_owned(),
        ] {
            assert!(rewritten(&pattern).is_err(), "{pattern:.60}");
        }
    }

    #[test]
    fn what_json_escapes_is_escaped() {
        assert_eq!(rewritten(r#"^"\\$"#).unwrap().unwrap(), r#"^(\\")(\\\\)$"#);
        assert_eq!(rewritten("^[a\n]$").unwrap().unwrap(), r"^([a]|\\n)$");
        assert_eq!(rewritten(r"^\d{2,}é$").unwrap().unwrap(), r"^([0-9]){2}([0-9])*[\u00E9]$");
        assert!(rewritten(r"^\x01$").is_err());
    }
}
