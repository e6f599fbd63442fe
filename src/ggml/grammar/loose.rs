//! What a grammar cannot hold an answer to: keys of a schema, and where they stand.

use std::fmt;

use serde_json::{Map, Value};

/// The key under which each schema says where it stood, while it is read.
pub(super) const AT: &str = "$at";

/// A key of a schema that is not enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// A JSON pointer to the schema; empty for the whole.
    at: String,
    key: String,
    /// Whether an answer may break it that fits the grammar; otherwise it is a remark of whoever made the schema, or what others leave to the client.
    counts: bool,
}

impl Loose {
    pub(super) fn new(map: &Map<String, Value>, key: &str, counts: bool) -> Loose {
        let at = map.get(AT).and_then(Value::as_str).unwrap_or_default().to_owned();
        Loose { at, key: key.to_owned(), counts }
    }

    /// Whether who wants a schema to be kept strictly must be refused.
    pub fn counts(&self) -> bool {
        self.counts
    }
}

impl fmt::Display for Loose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| -> String { text.chars().take(200).collect() };
        let at = if self.at.is_empty() {
            "its root".to_owned()
        } else {
            format!("'{}'", short(&self.at))
        };
        write!(f, "'{}' at {at}", short(&self.key))
    }
}

/// `schema`, in which each object that may be a schema says where it stands.
pub(super) fn placed(schema: &Value, at: &str) -> Value {
    match schema {
        Value::Object(map) => {
            // In a document of its own, places are counted from there.
            let at = if super::refs::begins_document(map) { "" } else { at };
            let below = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            let pair = |(key, value): (&String, &Value)| {
                let value = match (key.as_str(), value) {
                    ("const" | "enum" | "default" | "examples", literal) => literal.clone(),
                    (
                        "properties" | "patternProperties" | "dependentSchemas" | "$defs"
                        | "definitions",
                        Value::Object(named),
                    ) => {
                        let one = |(name, schema): (&String, &Value)| {
                            let at = format!(
                                "{}/{}",
                                below(key),
                                name.replace('~', "~0").replace('/', "~1")
                            );
                            (name.clone(), placed(schema, &at))
                        };
                        Value::Object(named.iter().map(one).collect())
                    }
                    (key, value) => placed(value, &below(key)),
                };
                (key.clone(), value)
            };
            let mut new: Map<String, Value> = map.iter().map(pair).collect();
            new.insert(AT.to_owned(), at.into());
            new.into()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(i, item)| placed(item, &format!("{at}/{i}"))).collect()
        }
        plain => plain.clone(),
    }
}
