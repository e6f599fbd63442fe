//! Operators that Python has and minijinja lacks: `%` on strings (`'%d items' % n`), and `+` on strings that are marked as safe, which
//! escapes the other side. Where a side may be such a string, the operator becomes a call of a function, which looks at what it gets.
//! It reads just enough of a template to know what the operator's two sides are; everything else is left to the letter.

use std::borrow::Cow;
use std::ops::Range;

/// What is called instead, with both sides.
pub(super) const NAME: &str = "percent__";
/// The same for `+`.
pub(super) const PLUS: &str = "plus__";

/// Operators that are replaced in one template; each is found by reading its expression anew.
const MAX_REPLACED: usize = 64;

/// The longest expression, in tokens; the longest in use have some hundred. minijinja takes seconds for some that are ten times
/// as long.
const MAX_TOKENS: usize = 8192;

/// `source` with its operators replaced; `None` if one of its expressions is too long.
pub(super) fn replaced(source: &str) -> Option<String> {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut left) = (source, MAX_REPLACED);
    let marks = marks_safe(source);
    while let Some(at) = rest.find('{') {
        let (text, tag) = rest.split_at(at);
        out.push_str(text);
        let len = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'%') if is_raw(&tag[2..]) => raw_len(tag),
            Some(b'{') => expression(tag, "}}", marks, &mut left, &mut out)?,
            Some(b'%') => expression(tag, "%}", marks, &mut left, &mut out)?,
            _ => 1,
        };
        if !tag.starts_with("{{") && (!tag.starts_with("{%") || is_raw(&tag[2..])) {
            out.push_str(&tag[..len]);
        }
        rest = &tag[len..];
    }
    out.push_str(rest);
    Some(out)
}

/// Whether a template may mark strings as safe.
fn marks_safe(source: &str) -> bool {
    let filter = |after: &str| {
        let name = after.trim_start();
        name.strip_prefix('e').is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    };
    source.contains("safe") || source.contains("escape") || source.split('|').skip(1).any(filter)
}

fn is_raw(after: &str) -> bool {
    let word = after.trim_start_matches(['-', '+']).trim_start();
    word.strip_prefix("raw")
        .is_some_and(|rest| rest.trim_start().trim_start_matches('-').starts_with("%}"))
}

/// The bytes from `{% raw %}` to the tag that ends it.
fn raw_len(tag: &str) -> usize {
    let mut from = 2;
    while let Some(at) = tag[from..].find("{%") {
        let body = tag[from + at + 2..].trim_start_matches(['-', '+']).trim_start();
        if body.starts_with("endraw") {
            return from + at;
        }
        from += at + 2;
    }
    tag.len()
}

/// Writes the tag at the beginning of `tag`, which `end` ends, with its operators replaced. Returns its length, unless there is
/// too much in it.
fn expression(
    tag: &str,
    end: &str,
    marks: bool,
    left: &mut usize,
    out: &mut String,
) -> Option<usize> {
    // After the sign that trims what is before, not the sign of a number.
    let head = if tag[2..].starts_with(['-', '+']) { 3 } else { 2 };
    let (mut tokens, len) = lex(&tag[head..], end);
    if tokens.len() > MAX_TOKENS {
        return None;
    }
    let mut text = Cow::Borrowed(&tag[..head + len]);
    for (sign, name, find) in [('%', NAME, find as Find), ('+', PLUS, find_plus)] {
        while *left > 0 && text[head..].contains(sign) && (sign == '%' || marks) {
            let inner = &text[head..];
            let Some([a, b]) = find(inner, &tokens) else { break };
            let call = format!("{name}({}, {})", &inner[a.clone()], &inner[b.clone()]);
            text.to_mut().replace_range(head + a.start..head + b.end, &call);
            tokens = lex(&text[head..], end).0;
            *left -= 1;
        }
    }
    out.push_str(&text);
    Some(head + len)
}

/// Finds both sides of an operator.
type Find = fn(&str, &[Token]) -> Option<[Range<usize>; 2]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// A name, a keyword or a number.
    Word,
    Open,
    Close,
    Operator,
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    at: Range<usize>,
}

/// The tokens of an expression, and how long it is, without what ends it.
fn lex(text: &str, end: &str) -> (Vec<Token>, usize) {
    let bytes = text.as_bytes();
    let (mut tokens, mut depth, mut i) = (Vec::new(), 0_usize, 0);
    while i < text.len() {
        if depth == 0 && text[i..].starts_with(end) {
            return (tokens, i);
        }
        let c = text[i..].chars().next().unwrap_or_default();
        let (kind, len) = match c {
            c if c.is_whitespace() => {
                i += c.len_utf8();
                continue;
            }
            '\'' | '"' => (Kind::Text, quoted_len(&bytes[i..])),
            '(' | '[' | '{' => {
                depth += 1;
                (Kind::Open, 1)
            }
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                (Kind::Close, 1)
            }
            c if c.is_alphanumeric() || c == '_' => {
                let is_end = |c: char| !c.is_alphanumeric() && c != '_';
                (Kind::Word, text[i..].find(is_end).unwrap_or(text.len() - i))
            }
            c => {
                let double =
                    ["**", "//", "==", "!=", "<=", ">="].iter().any(|op| text[i..].starts_with(op));
                (Kind::Operator, if double { 2 } else { c.len_utf8() })
            }
        };
        tokens.push(Token { kind, at: i..i + len });
        i += len;
    }
    (tokens, text.len())
}

/// The length of a string literal, quotes and escapes included.
fn quoted_len(bytes: &[u8]) -> usize {
    let mut i = 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            c if c == bytes[0] => return i + 1,
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// Both sides of the first operator that may have a string on its left.
fn find(text: &str, tokens: &[Token]) -> Option<[Range<usize>; 2]> {
    let word = |t: &Token| &text[t.at.clone()];
    let percents = tokens.iter().enumerate();
    let mut percents = percents.filter(|(_, t)| t.kind == Kind::Operator && word(t) == "%");
    percents.find_map(|(i, _)| {
        let left = &tokens[operand_before(text, tokens, i)?..i];
        let right = &tokens[i + 1..operand_after(text, tokens, i + 1)?];
        // Counters are what templates compute with most; they are numbers.
        if is_number(text, left) || word(left.first()?) == "loop" {
            return None;
        }
        Some([left, right].map(|side| side[0].at.start..side[side.len() - 1].at.end))
    })
}

/// Both sides of the first `+` between two operands that are not both numbers.
fn find_plus(text: &str, tokens: &[Token]) -> Option<[Range<usize>; 2]> {
    let is_plus = |t: &Token| t.kind == Kind::Operator && &text[t.at.clone()] == "+";
    let mut all = (0..tokens.len()).filter(|&i| is_plus(&tokens[i]));
    all.find_map(|i| {
        let left = &tokens[sum_before(text, tokens, i)?..i];
        let right = &tokens[i + 1..product_after(text, tokens, i + 1)?];
        if is_number(text, left) || is_number(text, right) {
            return None;
        }
        Some([left, right].map(|side| side[0].at.start..side[side.len() - 1].at.end))
    })
}

/// The first token of the sum that ends before token `end`.
fn sum_before(text: &str, tokens: &[Token], end: usize) -> Option<usize> {
    let word = |i: usize| &text[tokens[i].at.clone()];
    let mut first = end;
    loop {
        let last = first.checked_sub(1)?;
        if !ends_operand(text, &tokens[last]) {
            return None;
        }
        first = operand_begin(text, tokens, last)?;
        // Signs of the operand, and then what computes with it.
        loop {
            let Some(before) = first.checked_sub(1) else { return Some(first) };
            let follows = before.checked_sub(1).is_some_and(|j| ends_operand(text, &tokens[j]));
            match word(before) {
                "-" | "+" if !follows => first = before,
                "-" | "+" | "*" | "/" | "//" | "%" | "**" => {
                    first = before;
                    break;
                }
                _ => return Some(first),
            }
        }
    }
}

/// The end of the product that begins at token `i`.
fn product_after(text: &str, tokens: &[Token], i: usize) -> Option<usize> {
    let word = |i: usize| tokens.get(i).map(|t| &text[t.at.clone()]);
    let mut i = operand_after(text, tokens, i)?;
    while matches!(word(i), Some("*" | "/" | "//" | "%")) {
        i = operand_after(text, tokens, i + 1)?;
    }
    Some(i)
}

fn is_number(text: &str, tokens: &[Token]) -> bool {
    tokens.iter().all(|t| {
        let part = &text[t.at.clone()];
        part == "." || part.bytes().all(|b| b.is_ascii_digit() || b == b'_')
    })
}

/// The bracket that closes the one at `open`.
fn close_of(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().enumerate().skip(open).find_map(|(i, t)| {
        match t.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.checked_sub(1)?,
            _ => {}
        }
        (depth == 0).then_some(i)
    })
}

/// The first token of the operand that ends before token `end`. None if it is a number's: after a sign, or after an operator that is
/// computed first.
fn operand_before(text: &str, tokens: &[Token], end: usize) -> Option<usize> {
    let first = operand_begin(text, tokens, end.checked_sub(1)?)?;
    let Some(before) = first.checked_sub(1) else { return Some(first) };
    match &text[tokens[before].at.clone()] {
        "*" | "/" | "//" | "%" | "**" => None,
        "-" | "+" => {
            let binary = before.checked_sub(1).is_some_and(|j| ends_operand(text, &tokens[j]));
            binary.then_some(first)
        }
        _ => Some(first),
    }
}

/// The first token of the operand whose last one is `i`, with what follows its name: fields, calls, filters.
fn operand_begin(text: &str, tokens: &[Token], mut i: usize) -> Option<usize> {
    let word = |i: usize| &text[tokens[i].at.clone()];
    loop {
        if tokens[i].kind == Kind::Close {
            let mut depth = 0_usize;
            i = (0..=i).rev().find(|&j| {
                match tokens[j].kind {
                    Kind::Close => depth += 1,
                    Kind::Open => depth -= 1,
                    _ => {}
                }
                depth == 0
            })?;
        }
        let Some(before) = i.checked_sub(1) else { return Some(i) };
        let called = tokens[i].kind == Kind::Open && ends_operand(text, &tokens[before]);
        let joined = tokens[i].kind == Kind::Text && tokens[before].kind == Kind::Text;
        i = match word(before) {
            "." | "|" => before.checked_sub(1)?,
            _ if called || joined => before,
            _ => return Some(i),
        };
    }
}

/// Whether an operand may end with `token`.
fn ends_operand(text: &str, token: &Token) -> bool {
    const KEYWORDS: [&str; 11] =
        ["in", "is", "not", "and", "or", "if", "else", "elif", "set", "print", "filter"];
    match token.kind {
        Kind::Text | Kind::Close => true,
        Kind::Word => !KEYWORDS.contains(&&text[token.at.clone()]),
        Kind::Open | Kind::Operator => false,
    }
}

/// The end of the operand that begins at token `i`.
fn operand_after(text: &str, tokens: &[Token], mut i: usize) -> Option<usize> {
    let word = |i: usize| tokens.get(i).map(|t| &text[t.at.clone()]);
    while matches!(word(i), Some("-" | "+")) {
        i += 1;
    }
    let first = tokens.get(i)?;
    i = match first.kind {
        Kind::Open => close_of(tokens, i)? + 1,
        Kind::Text | Kind::Word => i + 1,
        Kind::Close | Kind::Operator => return None,
    };
    while first.kind == Kind::Text && tokens.get(i).is_some_and(|t| t.kind == Kind::Text) {
        i += 1;
    }
    loop {
        i = match word(i) {
            Some("." | "|") => i + 2,
            Some("(" | "[") => close_of(tokens, i)? + 1,
            Some("**") => operand_after(text, tokens, i + 1)?,
            _ => return Some(i.min(tokens.len())),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_on_strings_become_calls() {
        for (source, want) in [
            ("{{ '%s' % x }}", "{{ percent__('%s', x) }}"),
            ("{{- '%s-%s' % (a, b[0]) -}}", "{{- percent__('%s-%s', (a, b[0])) -}}"),
            ("{% set t = 'n %d' % m.n|int + 1 %}", "{% set t = percent__('n %d', m.n|int) + 1 %}"),
            ("{{ fmt % y if z }}", "{{ percent__(fmt, y) if z }}"),
            ("{{ 1 - 'a' 'b' % -x ** 2 }}", "{{ 1 - percent__('a' 'b', -x ** 2) }}"),
            ("{{ '%s' % x % y }}", "{{ percent__(percent__('%s', x), y) }}"),
            ("{{ f('%s' % ({'a': 1},)) }}", "{{ f(percent__('%s', ({'a': 1},))) }}"),
            ("{{ a.b('c')|d % (e) }}", "{{ percent__(a.b('c')|d, (e)) }}"),
            ("{{ (i + 1) % 3 }}", "{{ percent__((i + 1), 3) }}"),
            ("{% if x == 'a%s' % 'b' 'c' %}", "{% if x == percent__('a%s', 'b' 'c') %}"),
        ] {
            assert_eq!(replaced(source).unwrap(), want);
        }
    }

    #[test]
    fn sums_of_what_may_be_safe_become_calls() {
        for (source, want) in [
            ("{{ 'a'|safe + b }}", "{{ plus__('a'|safe, b) }}"),
            ("{{ 'a'|e + b['c'] + d|f() }}", "{{ plus__(plus__('a'|e, b['c']), d|f()) }}"),
            ("{% if x == a|safe + b * 2 %}", "{% if x == plus__(a|safe, b * 2) %}"),
            ("{{ a.b(c)|safe - d + -e ~ f }}", "{{ plus__(a.b(c)|safe - d, -e) ~ f }}"),
            ("{{ -a|safe + (b + c) }}", "{{ plus__(-a|safe, (plus__(b, c))) }}"),
            ("{{ a|safe + 1 + +b }}{{+ c }}", "{{ plus__(a|safe + 1, +b) }}{{+ c }}"),
            ("{{ a + b }}", "{{ a + b }}"),
            ("{{ 'safe' }}{{ not a + b if c }}", "{{ 'safe' }}{{ not plus__(a, b) if c }}"),
        ] {
            assert_eq!(replaced(source).unwrap(), want);
        }
    }

    #[test]
    fn expressions_have_an_end() {
        assert_eq!(replaced(&format!("{{{{ 1{} }}}}", "+1".repeat(MAX_TOKENS))), None);
        let text = format!("{{{{ '{}' }}}}", "long ".repeat(MAX_TOKENS));
        assert_eq!(replaced(&text), Some(text));
    }

    #[test]
    fn everything_else_stays() {
        for source in [
            "{% if loop.index0 % 2 == 1 %}100 % {{ '%s' }}{% endif %}",
            "{{ (i + 1) * 2 % 3 }}{{ 7 % x }}{{ 1.5 % y }}{{ -a % b }}{{ a * b % c }}",
            "{% raw %}{{ '%s' % x }}{% endraw %}{# '%s' % x #}",
            "{{ {'a': '%}'}['a'] }} 5% { % }",
            "{{ 'x' %}}",
            "{{ '%s' %",
            "{{ % }}",
            "{% raw %}{{ '%s' % x }}",
            "{{ )) % (( }}",
            "{",
        ] {
            assert_eq!(replaced(source).unwrap(), source);
        }
    }
}
