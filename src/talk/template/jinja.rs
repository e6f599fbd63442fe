//! Jinja as Hugging Face renders it: the environment, its filters and functions, and the limits
//! that keep a hostile template from hanging the program. It knows nothing of chats, roles or
//! vocabularies.
//!
//! Fuel bounds the steps of a template, but not what one step does to a large value: twenty steps
//! make a gigabyte of a byte. So a thread renders, and the caller watches the clock and the memory.
//! A thread cannot be ended from outside; on [`TemplateError::Runaway`] the program is expected to
//! end.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::json::MAX_OUTPUT;
use super::{percent, python};

/// Instructions that one rendering may take; a long conversation with tools takes some ten
/// thousand.
const FUEL: u64 = 2_000_000;
/// The longest template, in bytes; the longest in use have some ten thousand.
const MAX_SOURCE: usize = 128 << 10;
/// Time that one rendering may take.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Memory by which the process may grow meanwhile, in bytes.
const MAX_GROWTH: u64 = 512 << 20;
/// How often both are looked at; most templates are done before the first time.
const TICK: Duration = Duration::from_millis(5);
/// Room for expressions as deep as a template is long, and for values nested as deeply as its fuel
/// allows: compiling, printing and dropping them recurses. Only the part that is used becomes
/// memory.
const STACK: usize = 512 << 20;

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
        let source =
            percent::replaced(source).ok_or(TemplateError::Limit("an expression's length"))?;
        let source = plain_generation_tags(&source);
        let env = watched(move || {
            let mut env = environment();
            env.add_template_owned("chat", source).map_err(|e| explain(&e))?;
            Ok(env)
        })?;
        Ok(Jinja { env: Arc::new(env) })
    }

    /// Renders with `context`, a map.
    pub(super) fn render(&self, context: Value) -> Result<String, TemplateError> {
        let env = Arc::clone(&self.env);
        watched(move || render(&env, context))
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

/// Does `work` on a thread of its own, with a large stack, and gives up on it when it takes too
/// much.
fn watched<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TemplateError> + Send + 'static,
) -> Result<T, TemplateError> {
    let failed = |why: &str| TemplateError::Failed(why.to_owned());
    let (sender, result) = sync_channel(1);
    let (begin, before) = (Instant::now(), resident());
    thread::Builder::new()
        .name("template".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = sender.send(work());
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

/// Memory that the process has now, in bytes; 0 where the system does not say.
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
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Refusal(message)))
    });
    env.add_function("strftime_now", strftime_now);
    env.add_filter("tojson", super::json::tojson);
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
