//! The filter `tojson`, which writes JSON to the letter as Python's `json.dumps` does.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Text that one rendering may produce, in bytes.
pub(super) const MAX_OUTPUT: usize = 256 << 20;

/// Nesting of a value that is followed.
const MAX_DEPTH: usize = 128;

/// `json.dumps(value, ensure_ascii=False, indent=…, separators=…, sort_keys=…)`, as transformers
/// defines the filter.
pub(super) fn tojson(
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
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
    let ensure_ascii: Option<Value> = options.get("ensure_ascii")?;
    let sort_keys: Option<Value> = options.get("sort_keys")?;
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
        ascii: ensure_ascii.is_some_and(|given| given.is_true()),
        sorted: sort_keys.is_some_and(|given| given.is_true()),
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
        if depth > MAX_DEPTH {
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
pub(super) fn python_float(x: f64) -> String {
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
