//! In how many ways a text can be read that fits a JSON schema, as long as it has not ended. libllama's grammars follow all ways at
//! once, and alternatives that begin alike multiply with each level of nesting: three lines of a recursive schema can ask for more
//! ways than memory holds. It counts upwards, and converts nothing.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// The most ways that are followed: each token that may come next is tried in all of them.
const MAX_WAYS: u64 = 1000;

/// How many references are followed to see what an alternative begins with.
const MAX_HOPS: usize = 8;

/// Whether no text that fits `schema` can be read in too many ways at once.
pub(super) fn are_few(schema: &Value) -> bool {
    let mut counter = Counter { root: schema, known: HashMap::new(), open: HashSet::new() };
    counter.ways(schema).is_some_and(|ways| ways <= MAX_WAYS)
}

/// Counts the ways through a schema.
struct Counter<'a> {
    root: &'a Value,
    /// The ways through what was referred to.
    known: HashMap<&'a str, u64>,
    /// References that are being followed.
    open: HashSet<&'a str>,
}

impl<'a> Counter<'a> {
    /// The ways through a schema; `None` if they have no end.
    fn ways(&mut self, schema: &'a Value) -> Option<u64> {
        let map = match schema {
            Value::Object(map) => map,
            Value::Array(items) => return self.most(items.iter()),
            _ => return Some(1),
        };
        let mut most = 1;
        for (name, value) in map {
            let ways = match (name.as_str(), value) {
                // Reached by references only.
                ("$defs" | "definitions", _) => 1,
                ("enum" | "const" | "default" | "examples", _) => 1,
                ("$ref", Value::String(to)) => self.through(to)?,
                ("anyOf" | "oneOf", Value::Array(items)) => self.choice(schema, items)?,
                ("type", Value::Array(names)) if repeats(names) => return None,
                _ => self.ways(value)?,
            };
            most = most.max(ways);
        }
        Some(most)
    }

    /// At any time, a text is inside of one of `schemas` only.
    fn most(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Option<u64> {
        let mut most = 1;
        for schema in schemas {
            most = most.max(self.ways(schema)?);
        }
        Some(most)
    }

    /// The ways through what a reference names.
    fn through(&mut self, to: &'a str) -> Option<u64> {
        if let Some(&known) = self.known.get(to) {
            return Some(known);
        }
        // A circle that comes by no choice, or by one way through each, adds none.
        let Some(target) = self.target(to).filter(|_| self.open.insert(to)) else { return Some(1) };
        let ways = self.ways(target)?;
        self.open.remove(to);
        self.known.insert(to, ways);
        Some(ways)
    }

    /// The ways through alternatives: all of them at once where they begin alike.
    fn choice(&mut self, schema: &'a Value, items: &'a [Value]) -> Option<u64> {
        let begins: Vec<Begin<'_>> = items.iter().map(|item| self.begin(item)).collect();
        let apart = |i: usize| (0..i).all(|j| begins[i].differs(&begins[j]));
        if (0..items.len()).all(apart) {
            return self.most(items.iter());
        }
        // Two that lead back here double with each time round.
        let circles = items.iter().filter(|item| self.reaches(item, schema, &mut HashSet::new()));
        if circles.count() > 1 {
            return None;
        }
        let mut sum = 0_u64;
        for item in items {
            sum = sum.saturating_add(self.ways(item)?);
        }
        Some(sum)
    }

    /// Whether `goal` is inside of `from`, or of what that refers to.
    fn reaches(&self, from: &'a Value, goal: &Value, seen: &mut HashSet<&'a str>) -> bool {
        if std::ptr::eq(from, goal) {
            return true;
        }
        match from {
            Value::Array(items) => items.iter().any(|item| self.reaches(item, goal, seen)),
            Value::Object(map) => map.iter().any(|(name, value)| match (name.as_str(), value) {
                ("$defs" | "definitions", _) => false,
                ("$ref", Value::String(to)) => {
                    let target = self.target(to).filter(|_| seen.insert(to));
                    target.is_some_and(|target| self.reaches(target, goal, seen))
                }
                (_, value) => self.reaches(value, goal, seen),
            }),
            _ => false,
        }
    }

    fn target(&self, to: &str) -> Option<&'a Value> {
        self.root.pointer(to.strip_prefix('#')?)
    }

    /// What a text that fits `schema` begins with.
    fn begin(&self, schema: &'a Value) -> Begin<'a> {
        let mut schema = schema;
        for _ in 0..MAX_HOPS {
            match schema.get("$ref").and_then(Value::as_str).and_then(|to| self.target(to)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        let constant = schema.get("const").or_else(|| schema.get("enum")?.get(0));
        let kind = match (schema.get("type").and_then(Value::as_str), constant) {
            (Some(name), _) => Some(name),
            // Of several values, each may be of another kind.
            (None, Some(value)) if schema.get("enum").is_none() => Some(kind_of(value)),
            (None, _) => None,
        };
        let first = match kind {
            Some("object") => first_key(schema),
            _ => None,
        };
        Begin { kind, first }
    }
}

/// What a text that fits a schema begins with, as far as one can tell.
#[derive(Debug, PartialEq)]
struct Begin<'a> {
    /// The kind of value.
    kind: Option<&'a str>,
    /// Of an object, its first key, and the texts that may stand there.
    first: Option<(&'a str, Option<Vec<&'a str>>)>,
}

impl Begin<'_> {
    /// Whether the beginning of a text tells which of the two it fits.
    fn differs(&self, other: &Begin<'_>) -> bool {
        let (Some(a), Some(b)) = (self.kind, other.kind) else { return false };
        let number = |kind: &str| matches!(kind, "integer" | "number");
        if a != b {
            return !(number(a) && number(b));
        }
        let (Some((key, texts)), Some((other_key, other_texts))) = (&self.first, &other.first)
        else {
            return false;
        };
        let disjoint = |(a, b): (&Vec<&str>, &Vec<&str>)| a.iter().all(|text| !b.contains(text));
        key != other_key || texts.as_ref().zip(other_texts.as_ref()).is_some_and(disjoint)
    }
}

/// The key that objects begin with, as libllama writes them (what is required comes first), and the texts it allows there.
fn first_key(schema: &Value) -> Option<(&str, Option<Vec<&str>>)> {
    let required = schema.get("required")?.as_array()?;
    let is_required = |name: &str| required.iter().any(|r| r.as_str() == Some(name));
    let (name, value) =
        schema.get("properties")?.as_object()?.iter().find(|(n, _)| is_required(n))?;
    let texts = match (value.get("const"), value.get("enum").and_then(Value::as_array)) {
        (Some(text), _) => text.as_str().map(|text| vec![text]),
        (None, Some(all)) => all.iter().map(Value::as_str).collect(),
        (None, None) => None,
    };
    Some((name, texts))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a value is in the list twice.
fn repeats(list: &[Value]) -> bool {
    (1..list.len()).any(|i| list[..i].contains(&list[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(kind: &str) -> Value {
        json!({"type": "object", "properties": {"kind": {"const": kind}, "inner": {"$ref": "#/$defs/node"}},
            "required": ["kind", "inner"]})
    }

    #[test]
    fn ordinary_schemas_have_few_ways() {
        let object = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
        let tree = json!({"type": "object", "properties": {
            "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}});
        let many: Vec<Value> = (0..120).map(|_| object("same")).collect();
        for schema in [
            json!({"type": "string"}),
            json!({"$ref": "#/$defs/tree", "$defs": {"tree": tree}}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [node("add"), node("mul"), {"type": "number"}]}}}),
            json!({"$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [
                {"$ref": "#/$defs/node"}, {"type": "null"}]}}}}, "$ref": "#/$defs/node"}),
            // Pydantic's unions: alike at first, but not in circles.
            json!({"type": "array", "items": {"anyOf": many}}),
            json!({"anyOf": [object("a"), object("b"), {"type": "integer"}, {"type": "null"}]}),
            json!({"$ref": "#/nowhere"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
        ] {
            assert!(are_few(&schema), "{schema}");
        }
    }

    #[test]
    fn ways_that_multiply_are_seen() {
        let list = |to: &str| json!({"type": "array", "items": {"$ref": to}});
        let a = || list("#/$defs/a");
        // No circle, but a doubling in each of forty definitions.
        let defs: serde_json::Map<String, Value> = (0..40)
            .map(|i| {
                let to = format!("#/$defs/d{}", i + 1);
                (format!("d{i}"), json!({"anyOf": [list(&to), list(&to)]}))
            })
            .collect();
        let optional = json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}});
        for schema in [
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [a(), a()]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"oneOf": [a(), {"anyOf": [a(), {"type": "null"}]}]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [optional, optional]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [
                {"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]}, "b": a()}}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [node("add"), node("add")]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": ["array", "array"], "items": {"$ref": "#/$defs/a"}}}}),
            json!({"$ref": "#/$defs/d0", "$defs": defs}),
        ] {
            assert!(!are_few(&schema), "{schema}");
        }
    }
}
