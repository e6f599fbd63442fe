//! What Python and Jinja2 do and minijinja does otherwise or not at all: operators on texts, and how numbers are printed; `filters` and
//! `methods` have those. Widths and counts that a template asks for are bounded here.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::globals;

use super::json::python_float;
use super::percent;

/// The widest field or indentation that a template may ask for, and the longest row.
pub(super) const MAX_WIDTH: usize = 9999;

/// Adds all of it.
pub(super) fn add_to(env: &mut Environment<'static>) {
    env.set_unknown_method_callback(super::methods::method);
    env.set_formatter(|out, state, value| {
        if value.kind() == ValueKind::Number && !value.is_integer() {
            let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            return out.write_str(&python_float(number)).map_err(Error::from);
        }
        minijinja::escape_formatter(out, state, value)
    });
    super::filters::add_to(env);
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
    env.add_filter("format", format);
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

pub(super) fn invalid(why: &'static str) -> Error {
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
pub(super) fn escaped(value: &Value) -> Value {
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

/// Refuses format strings with numbers of more digits than a width may have.
pub(super) fn check_widths(format: &str) -> Result<(), Error> {
    let wide = |run: &str| run.len() > MAX_WIDTH.ilog10() as usize + 1;
    if format.split(|c: char| !c.is_ascii_digit()).any(wide) {
        return Err(invalid("format: a field is too wide"));
    }
    Ok(())
}

/// Runs of letters, digits and underscores.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// `text` in a field of `width` characters; in the middle, an odd one goes where Python puts it.
pub(super) fn padded(text: &str, side: &str, width: usize, fill: char) -> Result<String, Error> {
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
