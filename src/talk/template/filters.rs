//! Filters and tests of Jinja2 that minijinja lacks, or has with other arguments or results. Widths are bounded in `python`.

use minijinja::filters as theirs;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::filters as contrib;

use super::python::{MAX_WIDTH, invalid, padded, words};

/// Adds all of it.
pub(super) fn add_to(env: &mut Environment<'static>) {
    // What goes through nothing makes nothing, whatever kind of nothing it is.
    env.add_filter("map__", theirs::map);
    env.add_filter("select__", theirs::select);
    env.add_filter("reject__", theirs::reject);
    env.add_filter("selectattr__", theirs::selectattr);
    env.add_filter("rejectattr__", theirs::rejectattr);
    for (name, real) in [
        ("map", "map__"),
        ("select", "select__"),
        ("reject", "reject__"),
        ("selectattr", "selectattr__"),
        ("rejectattr", "rejectattr__"),
    ] {
        env.add_filter(name, move |state: &mut State, all: Rest<ValueOrKwargs>| {
            let all = all.into_values();
            let empty = all.first().is_some_and(|value| !value.is_true());
            if empty {
                Ok(Value::from(Vec::<Value>::new()))
            } else {
                state.apply_filter(real, &all)
            }
        });
    }
    add_to_texts(env);
    add_to_values(env);
    add_tests(env);
}

/// Filters of texts, and those whose arguments are named or not.
fn add_to_texts(env: &mut Environment<'static>) {
    env.add_filter("sort", |state: &State, value: Value, args: Rest<ValueOrKwargs>| {
        theirs::sort(state, value, named(args, &["reverse", "case_sensitive", "attribute"])?)
    });
    env.add_filter("dictsort", |value: &Value, args: Rest<ValueOrKwargs>| {
        theirs::dictsort(value, named(args, &["case_sensitive", "by", "reverse"])?)
    });
    env.add_filter("tojson", |value: &Value, args: Rest<ValueOrKwargs>| {
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        super::json::tojson(value, None, named(args, &names)?)
    });
    env.add_filter("unique", unique);
    env.add_filter("truncate", truncate);
    env.add_filter("replace", replace);
    env.add_filter("indent", indent);
    env.add_filter("center", |value: &Value, width: Option<usize>| {
        padded(&value.to_string(), "center", width.unwrap_or(80), ' ')
    });
    env.add_filter("wordcount", |value: &Value| words(&value.to_string()).count());
    env.add_filter("striptags", |value: &Value| contrib::striptags(value.to_string()));
    env.add_filter("filesizeformat", |value: &Value, binary: Option<bool>| {
        Ok::<_, Error>(size(number(value)?, binary.unwrap_or(false)))
    });
    env.add_filter("urlencode", urlencode);
    env.add_filter("xmlattr", xmlattr);
}

/// Filters of numbers, and of what is gone through.
fn add_to_values(env: &mut Environment<'static>) {
    env.add_filter("float", float);
    env.add_filter("int", int);
    env.add_filter("abs", |value: Value| theirs::abs(plain_number(value)));
    env.add_filter("round", round);
    env.add_filter("first", |value: &Value| match value.kind() {
        ValueKind::Undefined => Ok(Value::UNDEFINED),
        _ => theirs::first(value),
    });
    env.add_filter("last", |value: Value| match value.kind() {
        ValueKind::Undefined => Ok(Value::UNDEFINED),
        ValueKind::String if !value.is_true() => Ok(Value::UNDEFINED),
        ValueKind::Seq | ValueKind::Map if value.len() == Some(0) => Ok(Value::UNDEFINED),
        ValueKind::Map => Ok(value.try_iter()?.last().unwrap_or_default()),
        _ => theirs::last(value),
    });
    env.add_filter("items", |value: &Value| match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        _ => theirs::items(value),
    });
    env.add_filter("reverse", |value: &Value| match value.kind() {
        ValueKind::Map => theirs::reverse(&value.try_iter()?.collect()),
        _ => theirs::reverse(value),
    });
    // The first of the largest, not the last.
    env.add_filter("max", |state: &State, value: Value, options: Kwargs| {
        theirs::max(state, theirs::reverse(&value.try_iter()?.collect())?, options)
    });
    // A map's keys are no attributes.
    env.add_filter("attr", |value: &Value, name: &Value| match value.kind() {
        ValueKind::Map => Ok(Value::UNDEFINED),
        _ => theirs::attr(value, name),
    });
}

fn add_tests(env: &mut Environment<'static>) {
    env.add_test("callable", |value: &Value| {
        matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined)
    });
    type Compare = fn(&Value, &Value) -> bool;
    let less: Compare = |a, b| a < b;
    let at_most: Compare = |a, b| a <= b;
    for (names, compare, turned) in [
        (&["lt", "<", "lessthan"][..], less, false),
        (&["gt", ">", "greaterthan"], less, true),
        (&["le", "<="], at_most, false),
        (&["ge", ">="], at_most, true),
    ] {
        for &name in names {
            env.add_test(name, move |a: Value, b: Value| {
                let (a, b) = (plain_number(a), plain_number(b));
                if turned { compare(&b, &a) } else { compare(&a, &b) }
            });
        }
    }
    env.add_test("filter", |state: &State, name: &Value| {
        name.as_str().is_some_and(|name| minijinja::tests::is_filter(state, name))
    });
    env.add_test("test", |state: &State, name: &Value| {
        name.as_str().is_some_and(|name| minijinja::tests::is_test(state, name))
    });
}

/// Arguments with the names that Jinja2 gives them.
fn named(args: Rest<ValueOrKwargs>, names: &[&str]) -> Result<Kwargs, Error> {
    let args = args.into_values();
    let (given, options): (&[Value], Kwargs) = from_args(&args)?;
    if given.len() > names.len() {
        return Err(ErrorKind::TooManyArguments.into());
    }
    let rest = options.args().map(|name| Ok((name, options.get::<Value>(name)?)));
    let rest = rest.collect::<Result<Vec<_>, Error>>()?;
    Ok(names.iter().copied().zip(given.iter().cloned()).chain(rest).collect())
}

fn unique(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Vec<Value>, Error> {
    let options = named(args, &["case_sensitive", "attribute"])?;
    let exact = options.get::<Option<bool>>("case_sensitive")?.unwrap_or(false);
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let mut seen = std::collections::BTreeSet::new();
    let mut all = Vec::new();
    for item in value.try_iter()? {
        let key = match &attribute {
            Some(path) => path.split('.').try_fold(item.clone(), |at, key| at.get_attr(key))?,
            None => item.clone(),
        };
        let key = match key.as_str() {
            Some(text) if !exact => Value::from(text.to_lowercase()),
            _ => plain_number(key),
        };
        if seen.insert(key) {
            all.push(item);
        }
    }
    Ok(all)
}

/// What is no longer than `length` and some more stays; the rest ends with a whole word.
fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let options = named(args, &["length", "killwords", "end", "leeway"])?;
    let length = options.get::<Option<usize>>("length")?.unwrap_or(255);
    let cuts_words = options.get::<Option<bool>>("killwords")?.unwrap_or(false);
    let end = options.get::<Option<String>>("end")?.unwrap_or_else(|| "...".to_owned());
    let leeway = options.get::<Option<usize>>("leeway")?.unwrap_or(5);
    options.assert_all_used()?;
    let n_end = end.chars().count();
    if length < n_end {
        return Err(invalid("truncate: shorter than what it ends with"));
    }
    let n = if value.is_undefined() { Some(0) } else { value.len() };
    let n = n.ok_or_else(|| invalid("truncate: it has no length"))?;
    if n <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let text = value.as_str().ok_or_else(|| invalid("truncate: it is no text"))?;
    let kept: String = text.chars().take(length - n_end).collect();
    let kept = if cuts_words { &kept } else { kept.rsplit_once(' ').map_or(&*kept, |(a, _)| a) };
    Ok(Value::from(format!("{kept}{end}")))
}

fn replace(value: &Value, from: &Value, to: &Value, count: Option<i64>) -> String {
    let (text, from, to) = (value.to_string(), from.to_string(), to.to_string());
    match count.map(usize::try_from) {
        Some(Ok(count)) => text.replacen(&from, &to, count),
        _ => text.replace(&from, &to),
    }
}

/// All lines but the first, and empty ones, begin with so many blanks, or with a text.
fn indent(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let options = named(args, &["width", "first", "blank"])?;
    let width = options.get::<Option<Value>>("width")?.unwrap_or_else(|| Value::from(4));
    let first = options.get::<Option<bool>>("first")?.unwrap_or(false);
    let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    let begin = match width.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let wrong = || invalid("indent: neither a width nor a text");
            let width = width.as_usize().ok_or_else(wrong)?;
            if width > MAX_WIDTH {
                return Err(invalid("indent: too wide"));
            }
            " ".repeat(width)
        }
    };
    let text = value.as_str().ok_or_else(|| invalid("indent: it is no text"))?;
    if begin.len().saturating_mul(text.lines().count()) > super::json::MAX_OUTPUT {
        return Err(invalid("indent: too long"));
    }
    let mut out = String::new();
    for (i, line) in format!("{text}\n").lines().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
            out.push_str(&begin);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Truth values are numbers.
fn plain_number(value: Value) -> Value {
    if value.kind() == ValueKind::Bool { Value::from(i64::from(value.is_true())) } else { value }
}

/// Rounds; up or down, it makes a number with a fraction.
fn round(
    value: Value,
    precision: Option<i32>,
    method: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let way = method.map(str::to_owned).or(options.peek::<String>("method").ok());
    let rounded = theirs::round(plain_number(value), precision, method, options)?;
    match way.as_deref() {
        Some("ceil" | "floor") => Ok(Value::from(f64::try_from(rounded)?)),
        _ => Ok(rounded),
    }
}

/// A number, or a text that is one.
fn number(value: &Value) -> Result<f64, Error> {
    let known = value.as_str().and_then(python_number);
    let known = known.or_else(|| f64::try_from(plain_number(value.clone())).ok());
    known.ok_or_else(|| invalid("it is no number"))
}

/// A text as Python's `float` reads it.
fn python_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let joins = |(i, c): (usize, char)| {
        let digit = |at: Option<usize>| {
            at.and_then(|at| text.as_bytes().get(at)).is_some_and(u8::is_ascii_digit)
        };
        c != '_' || (digit(i.checked_sub(1)) && digit(Some(i + 1)))
    };
    text.char_indices().all(joins).then(|| text.replace('_', ""))?.parse().ok()
}

/// The filter `float`: what is no number is the default.
fn float(value: &Value, default: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let default = default.or(options.get::<Option<Value>>("default")?);
    options.assert_all_used()?;
    Ok(number(value).map_or_else(|_| default.unwrap_or_else(|| Value::from(0.0)), Value::from))
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
    let read = match value.as_str() {
        Some(text) => Value::from(text.trim()),
        None => value.clone(),
    };
    if let Some(x) = read.as_str().and_then(python_number).filter(|x| x.fract() != 0.0) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the largest there is, as close as it gets"
        )]
        return Ok(Value::from(x as i64));
    }
    Ok(theirs::int(state, &read, default, base, options).unwrap_or(otherwise))
}

/// A number of bytes for people.
fn size(bytes: f64, binary: bool) -> String {
    let (base, units) = if binary {
        (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    if bytes == 1.0 {
        return "1 Byte".to_owned();
    }
    if bytes < base {
        return format!("{:.0} Bytes", bytes.trunc()).replace("-0 ", "0 ");
    }
    let mut scale = base;
    for (i, unit) in units.iter().enumerate() {
        if bytes < scale * base || i + 1 == units.len() {
            return format!("{:.1} {unit}", bytes / scale);
        }
        scale *= base;
    }
    String::new()
}

fn quoted(text: &str, in_query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if !in_query => out.push('/'),
            b' ' if in_query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn urlencode(value: &Value) -> Result<String, Error> {
    let pair = |key: &Value, value: &Value| {
        format!("{}={}", quoted(&key.to_string(), true), quoted(&value.to_string(), true))
    };
    let mut pairs = Vec::new();
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                pairs.push(pair(&key, &value.get_item(&key)?));
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                let both: Vec<Value> = item.try_iter()?.collect();
                let [key, value] = &both[..] else { return Err(invalid("urlencode: no pair")) };
                pairs.push(pair(key, value));
            }
        }
        _ => return Ok(quoted(&value.to_string(), false)),
    }
    Ok(pairs.join("&"))
}

fn xmlattr(value: &Value, space: Option<bool>) -> Result<String, Error> {
    if value.kind() != ValueKind::Map {
        return Err(invalid("xmlattr: it is no map"));
    }
    let mut out = String::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let name = key.to_string();
        if name.contains(|c: char| c.is_whitespace() || "/>=".contains(c)) {
            return Err(invalid("xmlattr: a key that is no name"));
        }
        if !out.is_empty() || space.unwrap_or(true) {
            out.push(' ');
        }
        let (name, item) = (super::python::escaped(&key), super::python::escaped(&item));
        out.push_str(&format!("{name}=\"{item}\""));
    }
    Ok(out)
}
