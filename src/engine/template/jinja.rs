//! Jinja as Hugging Face renders it: the environment, its filters and functions, and the limits that keep a hostile
//! template from hanging the program. It knows nothing of chats, roles or vocabularies.
//!
//! Fuel bounds the steps of a template, but not what one step does to a large value: twenty steps make a gigabyte of a
//! byte. So a thread renders, and the caller watches the clock and the memory. A thread cannot be ended from outside; on
//! [`TemplateError::Runaway`] the program is expected to end.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use minijinja::syntax::SyntaxConfig;
use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Rest, StringInput, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

/// Instructions that one rendering may take; a long conversation with tools takes some ten thousand.
const FUEL: u64 = 2_000_000;
/// Text that one rendering may produce [bytes].
const MAX_OUTPUT: usize = 256 << 20;
/// The longest template [bytes]; the longest in use have some ten thousand.
const MAX_SOURCE: usize = 1 << 20;
/// Time that one rendering may take.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Memory by which the process may grow meanwhile [bytes].
const MAX_GROWTH: u64 = 512 << 20;
/// How often both are looked at; most templates are done before the first time.
const TICK: Duration = Duration::from_millis(5);
/// The widest field or indentation that a template may ask for.
const MAX_WIDTH: usize = 9999;
/// Room for values that a template nests as deeply as its fuel allows: dropping or printing them recurses. Only the part
/// that is used becomes memory.
const STACK: usize = 256 << 20;
/// Nesting of a value that `tojson` follows.
const MAX_JSON_DEPTH: usize = 128;

/// Why a template gave no text.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template itself called `raise_exception`.
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template is not Jinja, or asks for something that is not there.
    #[error("the chat template fails: {0}")]
    Failed(String),
    /// It took too many steps or wrote too much.
    #[error("the chat template goes past the limit for {0}")]
    Limit(&'static str),
    /// It is still running, and taking this without end. The program should end.
    #[error("the chat template takes {0} without end")]
    Runaway(&'static str),
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Jinja {
    env: Arc<Environment<'static>>,
}

impl Jinja {
    /// Compiles `source`.
    pub(super) fn new(source: &str) -> Result<Jinja, TemplateError> {
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::Limit("its own length"));
        }
        let source = plain_generation_tags(source);
        let mut env = environment();
        env.add_template_owned("chat", source).map_err(|e| explain(&e))?;
        Ok(Jinja { env: Arc::new(env) })
    }

    /// Renders with `context`, a map.
    pub(super) fn render(&self, context: Value) -> Result<String, TemplateError> {
        let failed = |why: &str| TemplateError::Failed(why.to_owned());
        let (sender, result) = sync_channel(1);
        let (env, begin, before) = (Arc::clone(&self.env), Instant::now(), resident());
        thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // Nobody listens any more if it took too long.
                let _ = sender.send(render(&env, context));
            })
            .map_err(|e| failed(&e.to_string()))?;
        loop {
            match result.recv_timeout(TICK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(failed("the renderer panicked")),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if begin.elapsed() > MAX_TIME {
                return Err(TemplateError::Runaway("time"));
            }
            if resident().saturating_sub(before) > MAX_GROWTH {
                return Err(TemplateError::Runaway("memory"));
            }
        }
    }
}

/// A Jinja value from a JSON one; the order of keys is kept.
pub(super) fn value_of(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), _, _) => Value::from(n),
            (_, Some(n), _) => Value::from(n),
            (_, _, n) => Value::from(n.unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => items.iter().map(value_of).collect(),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(k, v)| (k.as_str(), value_of(v)))),
    }
}

fn render(env: &Environment<'_>, context: Value) -> Result<String, TemplateError> {
    let template = env.get_template("chat").map_err(|e| explain(&e))?;
    let mut out = Capped::default();
    let rendered = template.render_captured_to(context, &mut out).map(drop);
    if out.full {
        return Err(TemplateError::Limit("its output"));
    }
    rendered.map_err(|e| explain(&e))?;
    String::from_utf8(out.bytes).map_err(|e| TemplateError::Failed(e.to_string()))
}

/// Memory that the process has now [bytes]; 0 where the system does not say.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(4096)
}

/// The environment that transformers sets up: blocks trimmed, no escaping, and its three extras.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(false);
    env.set_syntax(syntax.build().expect("the usual delimiters"));
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(method);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Refusal(message)))
    });
    env.add_function("strftime_now", strftime_now);
    env.add_filter("tojson", tojson);
    env.add_filter("format", format);
    env.add_filter("indent", indent);
    // These make rows of any length from nothing, and no chat template needs them.
    env.remove_filter("batch");
    env.remove_filter("slice");
    env
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn explain(error: &Error) -> TemplateError {
    if matches!(error.kind(), ErrorKind::OutOfFuel) {
        return TemplateError::Limit("its steps");
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(Refusal(message)) = current.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        cause = current.source();
    }
    TemplateError::Failed(error.to_string())
}

/// `{% generation %}` marks the assistant's text for training; transformers has an extension for it. It prints its body.
fn plain_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let body = tag.trim_start_matches(['-', '+']).trim_start();
        let plain = [("generation", "if true"), ("endgeneration", "endif")]
            .into_iter()
            .find_map(|(word, plain)| Some((plain, body.strip_prefix(word)?)))
            .filter(|(_, after)| {
                after.trim_start().trim_start_matches(['-', '+']).starts_with("%}")
            });
        if let Some((plain, after)) = plain {
            out.push_str(if tag.starts_with('-') { "- " } else { " " });
            out.push_str(plain);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The local time in C's notation.
fn strftime_now(format: &str) -> Result<String, Error> {
    let mut out = String::new();
    write!(out, "{}", chrono::Local::now().format(format))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "strftime_now: not a time format"))?;
    Ok(out)
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
        return Err(Error::new(ErrorKind::InvalidOperation, "indent: too wide"));
    }
    minijinja::filters::indent(text, width, first, blank, options)
}

/// Refuses format strings with numbers of more digits than a width may have.
fn check_widths(format: &str) -> Result<(), Error> {
    let wide = |run: &str| run.len() > MAX_WIDTH.ilog10() as usize + 1;
    if format.split(|c: char| !c.is_ascii_digit()).any(wide) {
        return Err(Error::new(ErrorKind::InvalidOperation, "format: a field is too wide"));
    }
    Ok(())
}

/// Python's methods: those of minijinja-contrib, and a few of strings that it lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    let triple = |a: &str, b: &str, c: &str| [a, b, c].into_iter().map(Value::from).collect();
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (at,): (&str,) = from_args(args)?;
            Ok(text.split_once(at).map_or_else(|| triple(text, "", ""), |(a, c)| triple(a, at, c)))
        }
        "rpartition" => {
            let (at,): (&str,) = from_args(args)?;
            Ok(text.rsplit_once(at).map_or_else(|| triple("", "", text), |(a, c)| triple(a, at, c)))
        }
        "rsplit" => {
            let (at, limit): (&str, Option<usize>) = from_args(args)?;
            let limit = limit.map_or(usize::MAX, |n| n.saturating_add(1));
            let mut parts: Vec<&str> = text.rsplitn(limit, at).collect();
            parts.reverse();
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "format" => {
            check_widths(text)?;
            minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// `json.dumps(value, ensure_ascii=False, indent=…, separators=…, sort_keys=…)`, as transformers defines the filter.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let step = match indent.filter(|i| !i.is_none() && !i.is_undefined()) {
        None => None,
        Some(i) if i.as_str().is_some() => i.as_str().map(str::to_owned),
        Some(i) => Some(" ".repeat(i.as_usize().unwrap_or(0).min(64))),
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let (comma, colon) = match separators.as_deref() {
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        _ if step.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let mut dump = Dump {
        out: String::new(),
        step,
        comma,
        colon,
        ascii: ensure_ascii.unwrap_or(false),
        sorted: sort_keys.unwrap_or(false),
    };
    dump.value(value, 0)?;
    Ok(Value::from(dump.out))
}

/// A JSON text being written the way Python writes it.
struct Dump {
    out: String,
    /// What one level of nesting is indented by; none: all on one line.
    step: Option<String>,
    comma: String,
    colon: String,
    ascii: bool,
    sorted: bool,
}

impl Dump {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let wrong = |why| Err(Error::new(ErrorKind::InvalidOperation, why));
        if depth > MAX_JSON_DEPTH {
            return wrong("tojson: nested too deeply");
        }
        if self.out.len() > MAX_OUTPUT {
            return wrong("tojson: too long");
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut items = Vec::new();
                for item in value.try_iter()?.checked() {
                    items.push((None, item?));
                }
                return self.items(['[', ']'], &items, depth);
            }
            ValueKind::Map => {
                let mut items = Vec::new();
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    let item = value.get_item(&key)?;
                    items.push((Some(json_key(&key)), item));
                }
                if self.sorted {
                    items.sort_by(|a, b| a.0.cmp(&b.0));
                }
                return self.items(['{', '}'], &items, depth);
            }
            _ => return wrong("tojson: this value is not JSON"),
        }
        Ok(())
    }

    fn items(
        &mut self,
        brackets: [char; 2],
        items: &[(Option<String>, Value)],
        depth: usize,
    ) -> Result<(), Error> {
        self.out.push(brackets[0]);
        for (i, (key, item)) in items.iter().enumerate() {
            if i > 0 {
                self.out.push_str(&self.comma);
            }
            self.line(depth + 1);
            if let Some(key) = key {
                self.string(key);
                self.out.push_str(&self.colon);
            }
            self.value(item, depth + 1)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out.push(brackets[1]);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(step) = &self.step {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(step);
            }
        }
    }

    fn number(&mut self, value: &Value) {
        if value.is_integer() {
            let _ = write!(self.out, "{value}");
        } else {
            let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            self.out.push_str(&python_float(number));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Python writes keys that are not strings as JSON would write the value.
fn json_key(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        _ => key.to_string(),
    }
}

/// `float.__repr__`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
fn python_float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) =
            exponent.strip_prefix('-').map_or(('+', exponent), |power| ('-', power));
        return format!("{digits}e{sign}{power:0>2}");
    }
    format!("{x:?}")
}

/// A writer that refuses to grow beyond the limit.
#[derive(Default)]
struct Capped {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::Error::other("too much output"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
