//! Jinja as Hugging Face renders it: the environment, its filters and functions, and the limits
//! that keep a hostile template from hanging the program. It knows nothing of chats, roles or
//! vocabularies.
//!
//! What it runs is watched (`watch`): a template that once took time or memory without end is not rendered again.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::json::MAX_OUTPUT;
use super::watch::{parts, watched};
use super::{percent, python};

/// Instructions that one rendering may take; a long conversation with tools takes some ten
/// thousand.
const FUEL: u64 = 2_000_000;
/// The longest template, in bytes; the longest in use have some ten thousand.
const MAX_SOURCE: usize = 128 << 10;
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
    /// It took this without end, now or when it was rendered before.
    #[error("the chat template takes {0} without end")]
    Runaway(&'static str),
}

impl TemplateError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        "`airrun run --raw` goes without the chat template"
    }
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Jinja {
    env: Arc<Environment<'static>>,
    /// What it once took without end. One rendering at a time: of a template that runs away, one thread is lost.
    runs_away: Mutex<Option<&'static str>>,
}

impl Jinja {
    /// Compiles `source`.
    pub(super) fn new(source: &str) -> Result<Jinja, TemplateError> {
        if source.len() > MAX_SOURCE / parts() {
            return Err(TemplateError::Limit("its own length"));
        }
        let source =
            percent::replaced(source).ok_or(TemplateError::Limit("an expression's length"))?;
        let source = plain_generation_tags(&source);
        let env = watched(move || {
            let mut env = environment();
            env.add_template_owned("chat", source).map_err(|e| explain(&e))?;
            Ok(env)
        })?;
        Ok(Jinja { env: Arc::new(env), runs_away: Mutex::new(None) })
    }

    /// Renders with `context`, a map.
    pub(super) fn render(&self, context: Value) -> Result<String, TemplateError> {
        let mut known = self.runs_away.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(what) = *known {
            return Err(TemplateError::Runaway(what));
        }
        let env = Arc::clone(&self.env);
        let result = watched(move || render(&env, context));
        if let Err(TemplateError::Runaway(what)) = result {
            *known = Some(what);
        }
        result
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

/// The environment that transformers sets up: blocks trimmed, no escaping, and its three extras.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(false);
    env.set_syntax(syntax.build().expect("the usual delimiters"));
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(FUEL / parts() as u64));
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Refusal(message)))
    });
    env.add_function("strftime_now", strftime_now);
    python::add_to(&mut env);
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

/// `{% generation %}` marks the assistant's text for training; transformers has an extension for
/// it. It prints its body, whose variables are its own.
fn plain_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let body = tag.trim_start_matches(['-', '+']).trim_start();
        let plain = [("generation", "with"), ("endgeneration", "endwith")]
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
