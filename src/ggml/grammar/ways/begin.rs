//! What texts begin with that fit alternatives of a schema, and how far two of them can be read at once. It looks at what libllama's
//! converter looks at, in its order, and gives up (the two are alike) wherever that is more than a look.

use std::cell::Cell;

use serde_json::{Map, Value};

use super::reference;

/// How many references and choices are followed to see what an alternative is.
const MAX_HOPS: usize = 16;

/// How many alternatives of a value are looked at to see whether it tells two objects apart.
const MAX_VALUES: usize = 16;

/// An alternative of a choice that is no choice itself.
pub(super) struct Alternative<'a> {
    pub(super) schema: &'a Value,
    /// The kinds of values that fit it, a bit for each.
    kinds: u8,
    /// The only values that fit it, where they are named.
    values: Option<Vec<&'a Value>>,
    /// If it is an object with known keys, what may come in it.
    keys: Option<Keys<'a>>,
}

/// An object's keys in the order in which they are written.
struct Keys<'a> {
    required: Vec<(&'a str, &'a Value)>,
    /// After all that are required, any of them, in order.
    optional: Vec<&'a str>,
    /// Whether others may come after them.
    open: bool,
}

/// What of two alternatives can be read at once.
pub(super) enum Shared<'a> {
    /// The first bytes tell them apart, or both are short.
    Nothing,
    /// These parts of the one and of the other, after which they differ.
    Parts(Vec<&'a Value>, Vec<&'a Value>),
    /// Everything, as far as one can tell.
    All,
}

const NULL: u8 = 1;
const BOOLEAN: u8 = 2;
const NUMBER: u8 = 4;
const STRING: u8 = 8;
const ARRAY: u8 = 16;
const OBJECT: u8 = 32;
const ANY: u8 = 63;

/// Looks at the alternatives of a schema, and at no more of them than can be afforded.
pub(super) struct Look<'a> {
    definitions: &'a Map<String, Value>,
    /// How many alternatives and pairs of values may still be looked at.
    left: Cell<usize>,
}

impl<'a> Look<'a> {
    /// A look that costs at most `work`.
    pub(super) fn new(definitions: &'a Map<String, Value>, work: usize) -> Look<'a> {
        Look { definitions, left: Cell::new(work) }
    }

    /// Whether there is nothing left to look with: then everything is alike.
    pub(super) fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    fn spend(&self, n: usize) {
        self.left.set(self.left.get().saturating_sub(n));
    }

    /// The alternatives that `schema` comes down to, appended to `found` until they are more than `most`.
    pub(super) fn alternatives(
        &self,
        schema: &'a Value,
        most: usize,
        found: &mut Vec<Alternative<'a>>,
    ) {
        let mut next = vec![(schema, 0)];
        while let Some((schema, hops)) = next.pop() {
            self.spend(1);
            let choice =
                schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
            match (reference(schema).and_then(|to| self.definitions.get(to)), choice) {
                _ if found.len() > most || self.is_over() => return,
                (Some(target), _) if hops < MAX_HOPS => next.push((target, hops + 1)),
                (None, Some(items)) if hops < MAX_HOPS => {
                    next.extend(items.iter().map(|item| (item, hops + 1)));
                }
                (None, None) => found.push(Alternative::of(schema)),
                _ => found.push(Alternative { schema, kinds: ANY, values: None, keys: None }),
            }
        }
    }

    /// Whether no text fits both schemas.
    fn differ(&self, a: &'a Value, b: &'a Value) -> bool {
        let all = |schema| {
            let mut found = Vec::new();
            self.alternatives(schema, MAX_VALUES, &mut found);
            found
        };
        let (a, b) = (all(a), all(b));
        a.len().max(b.len()) <= MAX_VALUES
            && a.iter().all(|a| b.iter().all(|b| a.differs(b, self)))
            && !self.is_over()
    }
}

impl<'a> Alternative<'a> {
    fn of(schema: &'a Value) -> Alternative<'a> {
        let one = schema.get("const").map(|value| vec![value]);
        let several = || Some(schema.get("enum")?.as_array()?.iter().collect());
        let values: Option<Vec<&Value>> = one.or_else(several);
        let joined = schema.get("allOf").is_some();
        let kinds = match (&values, schema.get("type")) {
            _ if joined => ANY,
            (Some(values), _) => values.iter().fold(0, |all, value| all | kind_of(value)),
            (None, Some(Value::String(name))) => named(name),
            (None, Some(Value::Array(names))) => {
                names.iter().fold(0, |all, name| all | name.as_str().map_or(ANY, named))
            }
            (None, Some(_)) => ANY,
            (None, None) => implied(schema),
        };
        let keys = if values.is_none() && !joined { Keys::of(schema) } else { None };
        Alternative { schema, kinds, values, keys }
    }

    /// What of the two can be read at once.
    pub(super) fn shares(&self, other: &Alternative<'a>, look: &Look<'a>) -> Shared<'a> {
        if self.differs(other, look) {
            return Shared::Nothing;
        }
        // Named values have an end, and nothing is chosen in them.
        let named = self.values.is_some() || other.values.is_some();
        if named || self.kinds & other.kinds & (ARRAY | OBJECT) == 0 {
            return Shared::Parts(Vec::new(), Vec::new());
        }
        match (&self.keys, &other.keys) {
            (Some(a), Some(b)) if self.kinds & other.kinds & ARRAY == 0 => a.shares(b, look),
            _ => Shared::All,
        }
    }

    /// Whether no text fits both.
    fn differs(&self, other: &Alternative<'_>, look: &Look<'_>) -> bool {
        look.spend(1);
        if self.kinds & other.kinds == 0 {
            return true;
        }
        let (Some(a), Some(b)) = (&self.values, &other.values) else { return false };
        look.spend(a.len() * b.len());
        !look.is_over() && a.iter().all(|value| !b.contains(value))
    }
}

impl<'a> Keys<'a> {
    /// The keys of an object; `None` if it has none of its own.
    fn of(schema: &'a Value) -> Option<Keys<'a>> {
        let properties = schema.get("properties")?.as_object()?;
        let names = schema.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| names.is_some_and(|names| names.iter().any(|n| n.as_str() == Some(name)));
        let (required, optional): (Vec<_>, Vec<_>) =
            properties.iter().partition(|(name, _)| is_required(name));
        let open = schema.get("patternProperties").is_some()
            || schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
        Some(Keys {
            required: required.into_iter().map(|(name, value)| (name.as_str(), value)).collect(),
            optional: optional.into_iter().map(|(name, _)| name.as_str()).collect(),
            open,
        })
    }

    /// What of two objects can be read at once: all values until a key or a value tells them apart.
    fn shares(&self, other: &Keys<'a>, look: &Look<'a>) -> Shared<'a> {
        let mut parts = (Vec::new(), Vec::new());
        let apart = |parts: (Vec<_>, Vec<_>)| Shared::Parts(parts.0, parts.1);
        for i in 0.. {
            let same = match (self.required.get(i), other.required.get(i)) {
                (Some(&(a, of_a)), Some(&(b, of_b))) => {
                    if a != b || look.differ(of_a, of_b) {
                        return apart(parts);
                    }
                    parts.0.push(of_a);
                    parts.1.push(of_b);
                    continue;
                }
                (Some((key, _)), None) => other.may_add(key),
                (None, Some((key, _))) => self.may_add(key),
                (None, None) => {
                    let mut keys = self.optional.iter();
                    self.open || other.open || keys.any(|key| other.may_add(key))
                }
            };
            return if same { Shared::All } else { apart(parts) };
        }
        Shared::All
    }

    /// Whether `key` may come after all that are required.
    fn may_add(&self, key: &str) -> bool {
        self.open || self.optional.contains(&key)
    }
}

fn named(kind: &str) -> u8 {
    match kind {
        "null" => NULL,
        "boolean" => BOOLEAN,
        "integer" | "number" => NUMBER,
        "string" => STRING,
        "array" => ARRAY,
        "object" => OBJECT,
        _ => ANY,
    }
}

/// The kind of a schema that names none, by what else is in it.
fn implied(schema: &Value) -> u8 {
    let has = |names: &[&str]| names.iter().any(|name| schema.get(name).is_some());
    if has(&["properties"])
        || schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(true))
    {
        OBJECT
    } else if has(&["items", "prefixItems"]) {
        ARRAY
    } else if has(&["pattern", "minLength", "maxLength"]) {
        STRING
    } else {
        ANY
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(_) => NUMBER,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}
