//! Python's methods of texts, lists and numbers: those of minijinja-contrib, and those that it lacks or has with fewer arguments.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, State, Value};
use minijinja_contrib::pycompat;

use super::python::{check_widths, invalid, padded};

/// Python's methods: those of minijinja-contrib, and those that it lacks.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let known = match value.kind() {
        ValueKind::String => text_method(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Seq => list_method(value, name, args)?,
        ValueKind::Number | ValueKind::Bool => number_method(value, name),
        ValueKind::Map if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match known {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn list_method(list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(match name {
        "copy" => Some(list.clone()),
        "index" => {
            let (wanted,): (Value,) = from_args(args)?;
            let at = list.try_iter()?.position(|item| item == wanted);
            Some(Value::from(at.ok_or_else(|| invalid("index: it is not in the list"))?))
        }
        _ => None,
    })
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (at,): (&str,) = from_args(args)?;
            text.split_once(at).map_or_else(|| triple(text, "", ""), |(a, c)| triple(a, at, c))
        }
        "rpartition" => {
            let (at,): (&str,) = from_args(args)?;
            text.rsplit_once(at).map_or_else(|| triple("", "", text), |(a, c)| triple(a, at, c))
        }
        "split" | "rsplit" => split(text, args, name == "rsplit")?,
        "find" | "rfind" | "index" | "rindex" => found(text, name, args)?,
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            Value::from(padded(text, name, width, fill.unwrap_or(' '))?)
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let digits = text.trim_start_matches(['-', '+']);
            let sign = &text[..text.len() - digits.len()];
            let width = width.saturating_sub(sign.len());
            Value::from(format!("{sign}{}", padded(digits, "rjust", width, '0')?))
        }
        "swapcase" => {
            let swap = |c: char| -> String {
                if c.is_uppercase() {
                    c.to_lowercase().collect()
                } else {
                    c.to_uppercase().collect()
                }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "title" => Value::from(title(text)),
        "istitle" => Value::from(text.chars().any(char::is_alphabetic) && title(text) == text),
        "expandtabs" => {
            let (width,): (Option<usize>,) = from_args(args)?;
            Value::from(expanded(text, width.unwrap_or(8))?)
        }
        "isdecimal" => Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        "isprintable" => {
            let blank = |c: char| c.is_whitespace() && c != ' ';
            Value::from(!text.contains(|c: char| c.is_control() || blank(c)))
        }
        "isidentifier" => {
            let begins = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
            Value::from(begins && text.chars().all(|c| c.is_alphanumeric() || c == '_'))
        }
        "casefold" => Value::from(text.to_lowercase().replace('ß', "ss")),
        "format" => {
            check_widths(text)?;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// A tuple of three texts.
fn triple(a: &str, b: &str, c: &str) -> Value {
    Value::from_object(Tuple::from([a, b, c].map(Value::from).to_vec()))
}

/// Where one text is in another, in characters.
fn found(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted, from, to): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let part = part_of(text, from, to);
    let at = part.as_ref().and_then(|(_, part)| match name {
        "find" | "index" => part.find(wanted),
        _ => part.rfind(wanted),
    });
    match (at, part) {
        (Some(at), Some((first, part))) => Ok(Value::from(first + part[..at].chars().count())),
        _ if name.ends_with("find") => Ok(Value::from(-1)),
        _ => Err(invalid("index: it is not in the text")),
    }
}

/// What Python's numbers can.
fn number_method(value: &Value, name: &str) -> Option<Value> {
    let whole = value.kind() == ValueKind::Bool || value.is_integer();
    let number = match value.kind() {
        ValueKind::Bool => f64::from(u8::from(value.is_true())),
        _ => f64::try_from(value.clone()).ok()?,
    };
    match name {
        "is_integer" => Some(Value::from(whole || number.fract() == 0.0)),
        "bit_length" if whole => {
            let n = value.as_i64().unwrap_or_else(|| i64::from(value.is_true()));
            Some(Value::from(u64::BITS - n.unsigned_abs().leading_zeros()))
        }
        _ => None,
    }
}

/// `split` and `rsplit`: at blanks, or at a text; so many times, from either end.
fn split(text: &str, args: &[Value], from_end: bool) -> Result<Value, Error> {
    let (at, limit, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let at = at.or(options.get::<Option<Value>>("sep")?).filter(|at| !at.is_none());
    let limit = limit.or(options.get::<Option<i64>>("maxsplit")?).unwrap_or(-1);
    options.assert_all_used()?;
    let limit = usize::try_from(limit).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<&str> = Vec::new();
    match &at {
        Some(at) => {
            let at = at.as_str().filter(|at| !at.is_empty());
            let at = at.ok_or_else(|| invalid("split: at no text"))?;
            match from_end {
                true => parts.extend(text.rsplitn(limit, at)),
                false => parts.extend(text.splitn(limit, at)),
            }
        }
        None => {
            let mut rest = text;
            loop {
                rest = if from_end { rest.trim_end() } else { rest.trim_start() };
                if rest.is_empty() {
                    break;
                }
                let cut = match from_end {
                    true => rest.rfind(char::is_whitespace),
                    false => rest.find(char::is_whitespace),
                };
                let Some(cut) = cut.filter(|_| parts.len() + 1 < limit) else {
                    parts.push(rest);
                    break;
                };
                let (a, b) = rest.split_at(cut);
                if from_end {
                    parts.push(b.trim_start());
                    rest = a;
                } else {
                    parts.push(a);
                    rest = b;
                }
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// The characters from `from` to `to`, as Python counts them, and how many are before.
fn part_of(text: &str, from: Option<i64>, to: Option<i64>) -> Option<(usize, &str)> {
    let n = text.chars().count();
    let at = |i: i64| {
        let back = usize::try_from(i.unsigned_abs()).unwrap_or(usize::MAX);
        if i < 0 { n.saturating_sub(back) } else { back }
    };
    let (from, to) = (at(from.unwrap_or(0)), to.map_or(n, at).min(n));
    if from > to {
        return None;
    }
    let byte = |i: usize| text.char_indices().nth(i).map_or(text.len(), |(at, _)| at);
    Some((from, &text[byte(from)..byte(to)]))
}

/// Each run of letters begins with a large one.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match (c.is_alphabetic(), inside) {
            (true, true) => out.extend(c.to_lowercase()),
            (true, false) => out.extend(c.to_uppercase()),
            (false, _) => out.push(c),
        }
        inside = c.is_alphabetic();
    }
    out
}

/// Tabs as blanks up to the next column that `width` divides.
fn expanded(text: &str, width: usize) -> Result<String, Error> {
    if width > super::python::MAX_WIDTH {
        return Err(invalid("a field is too wide"));
    }
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if width == 0 => {}
            '\t' => {
                let n = width - column % width;
                out.extend(std::iter::repeat_n(' ', n));
                column += n;
            }
            c => {
                column = if c == '\n' || c == '\r' { 0 } else { column + 1 };
                out.push(c);
            }
        }
        if out.len() > super::json::MAX_OUTPUT {
            return Err(invalid("expandtabs: too long"));
        }
    }
    Ok(out)
}
