//! A JSON value that comes in pieces: checked character by character, so that what is passed on can still become JSON. It builds no tree.

use serde_json::Value;

/// The deepest nesting.
const MAX_DEPTH: usize = 128;
/// The longest number or word. (bytes)
const MAX_WORD: usize = 400;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Value,
    /// A value, or the end of a list.
    ValueOrEnd,
    /// A key, or the end of an object.
    KeyOrEnd,
    Key,
    Colon,
    CommaOrEnd,
    /// Inside of a text; whether it is a key.
    Text(bool),
    /// After a backslash.
    Escape(bool),
    /// So many digits of `\uXXXX`.
    Hex(bool, u8),
    /// Inside of a number, `true`, `false` or `null`.
    Word,
    Done,
}

/// Reads one value.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    next: Next,
    open: Vec<u8>,
    word: String,
    /// The value as valid JSON, what was not taken yet.
    out: String,
}

/// It cannot become JSON any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What became of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// It is none of the value's: that ended before.
    No,
}

impl Scan {
    pub(super) fn new() -> Scan {
        Scan { next: Next::Value, open: Vec::new(), word: String::new(), out: String::new() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.next == Next::Done
    }

    /// What is known of the value since the last call.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    /// Gives back what was taken too early.
    pub(super) fn put_back(&mut self, text: String) {
        self.out.insert_str(0, &text);
    }

    /// Reads as much of `text` as is the value's. Returns how many bytes.
    pub(super) fn read(&mut self, text: &str) -> Result<usize, Broken> {
        for (at, c) in text.char_indices() {
            if self.is_done() || self.push(c)? == Taken::No {
                return Ok(at);
            }
        }
        Ok(text.len())
    }

    /// The text is over: a number may end with it.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        if self.next == Next::Word { self.end_word() } else { Ok(()) }
    }

    fn push(&mut self, c: char) -> Result<Taken, Broken> {
        match self.next {
            Next::Done => return Ok(Taken::No),
            Next::Text(key) => self.in_text(c, key),
            Next::Escape(key) => {
                self.out.push(c);
                self.next = match c {
                    'u' => Next::Hex(key, 0),
                    '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => Next::Text(key),
                    // Models escape what needs none: the sign is meant.
                    _ => {
                        let kept = self.out.len() - c.len_utf8() - 1;
                        self.out.truncate(kept);
                        if c < ' ' {
                            return Err(Broken);
                        }
                        self.out.push(c);
                        Next::Text(key)
                    }
                };
            }
            Next::Hex(key, n) => {
                if !c.is_ascii_hexdigit() {
                    return Err(Broken);
                }
                self.out.push(c);
                self.next = if n == 3 { Next::Text(key) } else { Next::Hex(key, n + 1) };
            }
            Next::Word if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') => {
                self.word.push(c);
                if self.word.len() > MAX_WORD {
                    return Err(Broken);
                }
            }
            Next::Word => {
                self.end_word()?;
                return self.push(c);
            }
            _ if matches!(c, ' ' | '\n' | '\r' | '\t') => {
                if !self.open.is_empty() {
                    self.out.push(c);
                }
            }
            _ => self.outside(c)?,
        }
        Ok(Taken::Yes)
    }

    fn in_text(&mut self, c: char, key: bool) {
        match c {
            '"' => {
                self.out.push(c);
                if key { self.next = Next::Colon } else { self.end_value() }
            }
            '\\' => {
                self.out.push(c);
                self.next = Next::Escape(key);
            }
            // JSON wants them escaped, and models forget it.
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            c if c < ' ' => self.out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => self.out.push(c),
        }
    }

    fn outside(&mut self, c: char) -> Result<(), Broken> {
        let in_object = self.open.last() == Some(&b'}');
        self.next = match (self.next, c) {
            (Next::Value | Next::ValueOrEnd, '"') => Next::Text(false),
            (Next::KeyOrEnd | Next::Key, '"') => Next::Text(true),
            (Next::Value | Next::ValueOrEnd, '{' | '[') => {
                if self.open.len() >= MAX_DEPTH {
                    return Err(Broken);
                }
                self.open.push(if c == '{' { b'}' } else { b']' });
                if c == '{' { Next::KeyOrEnd } else { Next::ValueOrEnd }
            }
            (Next::Colon, ':') => Next::Value,
            (Next::CommaOrEnd, ',') if in_object => Next::Key,
            (Next::CommaOrEnd, ',') => Next::Value,
            (Next::CommaOrEnd | Next::KeyOrEnd | Next::ValueOrEnd, '}' | ']') => {
                if self.open.pop().map(char::from) != Some(c) {
                    return Err(Broken);
                }
                self.out.push(c);
                self.end_value();
                return Ok(());
            }
            (Next::Value | Next::ValueOrEnd, c) if c.is_ascii_alphanumeric() || c == '-' => {
                self.word.push(c);
                self.next = Next::Word;
                return Ok(());
            }
            _ => return Err(Broken),
        };
        self.out.push(c);
        Ok(())
    }

    fn end_value(&mut self) {
        self.next = if self.open.is_empty() { Next::Done } else { Next::CommaOrEnd };
    }

    fn end_word(&mut self) -> Result<(), Broken> {
        let word = std::mem::take(&mut self.word);
        match word.as_str() {
            "True" => self.out.push_str("true"),
            "False" => self.out.push_str("false"),
            "None" => self.out.push_str("null"),
            word => {
                serde_json::from_str::<Value>(word).map_err(|_| Broken)?;
                self.out.push_str(word);
            }
        }
        self.end_value();
        Ok(())
    }
}

/// What a value that is no object means as arguments: none where it is nothing, an object where it is one's JSON.
pub(super) fn as_arguments(value: &str) -> Result<String, Broken> {
    match serde_json::from_str(value) {
        Ok(Value::Null) => Ok("{}".to_owned()),
        Ok(Value::String(text)) if text.trim().is_empty() => Ok("{}".to_owned()),
        Ok(Value::String(text)) => match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(_)) => Ok(text),
            Ok(Value::Null) => Ok("{}".to_owned()),
            _ => Err(Broken),
        },
        _ => Err(Broken),
    }
}

/// A text as JSON writes it, without the quotes.
pub(super) fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scanned(text: &str) -> Result<(String, usize), Broken> {
        let mut scan = Scan::new();
        let n = scan.read(text)?;
        scan.finish()?;
        if scan.is_done() { Ok((scan.take(), n)) } else { Err(Broken) }
    }

    #[test]
    fn values_end_where_they_end() {
        for (text, want) in [
            (r#" {"a": [1, {"b": "}\""}]} rest"#, r#"{"a": [1, {"b": "}\""}]}"#),
            ("\"x\"y", "\"x\""),
            ("-1.5e3}", "-1.5e3"),
            ("[True, False, None]", "[true, false, null]"),
            ("\"a\nb\\'\"", "\"a\\nb'\""),
            ("{}{}", "{}"),
        ] {
            assert_eq!(scanned(text).unwrap().0, want, "{text}");
        }
        for text in ["{\"a\" 1}", "{,}", "[1,]x", "{\"a\": oops}", "]", "{\"a\":1]", "\"\\u12x\""] {
            assert!(scanned(text).is_err(), "{text}");
        }
        assert!(scanned(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn what_is_no_object_may_still_be_arguments() {
        assert_eq!(as_arguments("null").unwrap(), "{}");
        assert_eq!(as_arguments("\"\"").unwrap(), "{}");
        assert_eq!(as_arguments(r#""{\"a\":1}""#).unwrap(), r#"{"a":1}"#);
        for text in ["1", "[]", "\"x\"", "true"] {
            assert!(as_arguments(text).is_err(), "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_read_as_it_is(value in value(), rest in "[ ,x]{0,3}") {
            let text = value.to_string();
            let (out, n) = scanned(&format!("{text} {rest}")).unwrap();
            prop_assert_eq!(&out, &text);
            prop_assert_eq!(n, text.len());
        }

        #[test]
        fn what_is_passed_on_is_json(text in ".{0,30}") {
            if let Ok((out, _)) = scanned(&text) {
                prop_assert!(serde_json::from_str::<Value>(&out).is_ok(), "{}", out);
            }
        }
    }
}
