//! What Python and Jinja2 do and minijinja does otherwise or not at all: methods of texts and lists, filters, tests, the operator
//! `%` on texts, and how numbers are printed. Widths and counts that a template asks for are bounded here.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Rest, StringInput, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::{filters, globals, pycompat};

use super::json::python_float;
use super::percent;

/// The widest field or indentation that a template may ask for, and the longest row.
const MAX_WIDTH: usize = 9999;

/// Adds all of it.
pub(super) fn add_to(env: &mut Environment<'static>) {
    env.set_unknown_method_callback(method);
    env.set_formatter(|out, state, value| {
        if value.kind() == ValueKind::Number && !value.is_integer() {
            let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            return out.write_str(&python_float(number)).map_err(Error::from);
        }
        minijinja::escape_formatter(out, state, value)
    });
    env.add_function(percent::NAME, percent_operator);
    env.add_function(percent::PLUS, plus_operator);
    for name in ["escape", "e"] {
        env.add_filter(name, |value: Value| if value.is_safe() { value } else { escaped(&value) });
    }
    env.add_filter("forceescape", |value: &Value| escaped(value));
    env.add_function("joiner", globals::joiner);
    env.add_function("cycler", |items: Rest<Value>| globals::cycler(items.0));
    for name in ["length", "count"] {
        env.add_filter(name, length);
    }
    for name in ["default", "d"] {
        env.add_filter(name, default);
    }
    env.add_filter("int", int);
    env.add_filter("format", format);
    env.add_filter("indent", indent);
    env.add_filter("center", |text: &str, width: Option<usize>| {
        padded(text, "center", width.unwrap_or(80), ' ')
    });
    env.add_filter("wordcount", |text: &str| words(text).count());
    env.add_filter("truncate", filters::truncate);
    env.add_filter("striptags", filters::striptags);
    env.add_filter("batch", |state: &State, value: Value, n: usize, fill: Option<Value>| {
        minijinja::filters::batch(state, value, row(n)?, fill)
    });
    env.add_filter("slice", |state: &State, value: Value, n: usize, fill: Option<Value>| {
        minijinja::filters::slice(state, value, row(n)?, fill)
    });
    // What there is nothing of cannot be gone through; but what is undefined can, as in Jinja2.
    env.add_test("iterable", |value: &Value| {
        let kind = value.kind();
        kind == ValueKind::Undefined || (kind != ValueKind::None && value.try_iter().is_ok())
    });
    // What has a length and takes an index: texts and maps, too.
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined
        )
    });
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

fn row(n: usize) -> Result<usize, Error> {
    if n > MAX_WIDTH { Err(invalid("a row is too long")) } else { Ok(n) }
}

/// What is undefined has no length but 0.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { minijinja::filters::length(value) }
}

/// The filter `default`, whose second argument may be named.
fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let named = options.get::<Option<Value>>("default_value")?;
    let boolean = boolean.or(options.get::<Option<bool>>("boolean")?).unwrap_or(false);
    options.assert_all_used()?;
    let stays = if boolean { value.is_true() } else { !value.is_undefined() };
    Ok(if stays { value.clone() } else { other.or(named).unwrap_or_else(|| Value::from("")) })
}

/// The filter `int`: what is no number is the default.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    options: Kwargs,
) -> Result<Value, Error> {
    let otherwise =
        default.clone().or(options.peek("default").ok()).unwrap_or_else(|| Value::from(0));
    Ok(minijinja::filters::int(state, value, default, base, options).unwrap_or(otherwise))
}

/// The operator `%`, where its left side may be a text.
fn percent_operator(state: &State, left: Value, right: Value) -> Result<Value, Error> {
    let Some(text) = left.as_str() else {
        let numbers = state.env().compile_expression("a % b")?;
        return numbers.eval(minijinja::context! { a => left, b => right });
    };
    let args: Vec<Value> = if right.is_tuple() { right.try_iter()?.collect() } else { vec![right] };
    format(text, Rest(args)).map(Value::from)
}

/// The operator `+`, where a side may be a text that is marked as safe: then the other is escaped.
fn plus_operator(state: &State, left: Value, right: Value) -> Result<Value, Error> {
    if left.as_str().is_some() && right.as_str().is_some() && (left.is_safe() || right.is_safe()) {
        let safe = |side: Value| if side.is_safe() { side } else { escaped(&side) };
        return Ok(Value::from_safe_string(format!("{}{}", safe(left), safe(right))));
    }
    let sum = state.env().compile_expression("a + b")?;
    sum.eval(minijinja::context! { a => left, b => right })
}

/// A value's text as HTML, as Python's markupsafe writes it.
fn escaped(value: &Value) -> Value {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Value::from_safe_string(out)
}

/// The filter `format`, for fields of reasonable width.
fn format(text: &str, args: Rest<Value>) -> Result<String, Error> {
    check_widths(text)?;
    minijinja::formatting::format(FormatStyle::Printf, text, &args)
}

/// The filter `indent`, of reasonable width.
fn indent(
    text: StringInput<'_>,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    if width.or(options.peek("width").ok()).is_some_and(|width| width > MAX_WIDTH) {
        return Err(invalid("indent: too wide"));
    }
    minijinja::filters::indent(text, width, first, blank, options)
}

/// Refuses format strings with numbers of more digits than a width may have.
fn check_widths(format: &str) -> Result<(), Error> {
    let wide = |run: &str| run.len() > MAX_WIDTH.ilog10() as usize + 1;
    if format.split(|c: char| !c.is_ascii_digit()).any(wide) {
        return Err(invalid("format: a field is too wide"));
    }
    Ok(())
}

/// Runs of letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Python's methods: those of minijinja-contrib, and those that it lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let known = match value.kind() {
        ValueKind::String => text_method(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Seq => list_method(value, name, args)?,
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
        "rsplit" => {
            let (at, limit): (&str, Option<usize>) = from_args(args)?;
            let limit = limit.map_or(usize::MAX, |n| n.saturating_add(1));
            let mut parts: Vec<&str> = text.rsplitn(limit, at).collect();
            parts.reverse();
            parts.into_iter().map(Value::from).collect()
        }
        "index" => {
            let (wanted,): (&str,) = from_args(args)?;
            let at = text.find(wanted).ok_or_else(|| invalid("index: it is not in the text"))?;
            Value::from(text[..at].chars().count())
        }
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

/// `text` in a field of `width` characters; in the middle, an odd one goes where Python puts it.
fn padded(text: &str, side: &str, width: usize, fill: char) -> Result<String, Error> {
    if width > MAX_WIDTH {
        return Err(invalid("a field is too wide"));
    }
    let room = width.saturating_sub(text.chars().count());
    let before = match side {
        "ljust" => 0,
        "rjust" => room,
        _ => room / 2 + (room & width & 1),
    };
    let fill = |n: usize| std::iter::repeat_n(fill, n);
    Ok(fill(before).chain(text.chars()).chain(fill(room - before)).collect())
}
