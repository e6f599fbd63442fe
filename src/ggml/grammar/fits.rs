//! Whether a value fits a schema, for those that are named in one: what stands beside `enum` and `const` holds, too. It knows what the grammar knows.

use serde_json::{Map, Value};

use super::automaton::Automaton;
use super::formats::{self, Format};
use super::pattern;

/// How many references are followed from one value.
const MAX_DEPTH: usize = 64;

/// Whether `value` fits `schema`, whose references lead to `definitions`.
pub(super) fn fits(value: &Value, schema: &Value, definitions: &Map<String, Value>) -> bool {
    within(value, schema, definitions, 0)
}

fn within(value: &Value, schema: &Value, definitions: &Map<String, Value>, depth: usize) -> bool {
    let Value::Object(map) = schema else { return *schema != Value::Bool(false) };
    if depth > MAX_DEPTH {
        return false;
    }
    let inner = |value: &Value, schema: &Value| within(value, schema, definitions, depth + 1);
    map.iter().all(|(key, wanted)| match (key.as_str(), wanted) {
        ("$ref", Value::String(to)) => {
            let target = to.strip_prefix("#/$defs/").and_then(|name| definitions.get(name));
            target.is_none_or(|target| inner(value, target))
        }
        ("anyOf", Value::Array(all)) => all.iter().any(|one| inner(value, one)),
        ("oneOf", Value::Array(all)) => all.iter().filter(|one| inner(value, one)).count() == 1,
        ("allOf", Value::Array(all)) => all.iter().all(|one| inner(value, one)),
        ("not", schema) => !inner(value, schema),
        ("type", Value::Array(kinds)) => {
            kinds.iter().any(|kind| kind.as_str().is_some_and(|kind| is(value, kind)))
        }
        ("type", Value::String(kind)) => is(value, kind),
        ("const", wanted) => same(value, wanted),
        ("enum", Value::Array(all)) => all.iter().any(|one| same(value, one)),
        _ => match value {
            Value::Number(n) => number(n.as_f64().unwrap_or(f64::NAN), key, wanted),
            Value::String(text) => text_fits(text, key, wanted),
            Value::Array(items) => list(items, map, key, &inner),
            Value::Object(members) => object(members, map, key, &inner),
            _ => true,
        },
    })
}

/// Whether two values are one to the standard: 1 is 1.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

/// Whether a value is of a kind.
pub(super) fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn number(n: f64, key: &str, wanted: &Value) -> bool {
    let Some(bound) = wanted.as_f64() else { return true };
    match key {
        "minimum" => n >= bound,
        "exclusiveMinimum" => n > bound,
        "maximum" => n <= bound,
        "exclusiveMaximum" => n < bound,
        "multipleOf" => ((n / bound) - (n / bound).round()).abs() < 1e-9,
        _ => true,
    }
}

fn text_fits(text: &str, key: &str, wanted: &Value) -> bool {
    let count = || text.chars().count() as f64;
    let is_found = |pattern: &str| {
        let Ok(Some(wholes)) = pattern::parsed(pattern) else { return true };
        Automaton::of(&wholes, 0, None).map_or(true, |all| all.is_some_and(|all| all.fits(text)))
    };
    match (key, wanted) {
        ("pattern" | "format", Value::Array(all)) => {
            all.iter().all(|one| text_fits(text, key, one))
        }
        ("minLength", wanted) => wanted.as_f64().is_none_or(|least| count() >= least),
        ("maxLength", wanted) => wanted.as_f64().is_none_or(|most| count() <= most),
        ("pattern", Value::String(pattern)) => is_found(pattern),
        ("format", Value::String(name)) => match formats::of(name) {
            Format::Pattern(pattern) => is_found(&pattern),
            _ => true,
        },
        _ => true,
    }
}

type Inner<'a> = &'a dyn Fn(&Value, &Value) -> bool;

fn list(items: &[Value], map: &Map<String, Value>, key: &str, inner: Inner<'_>) -> bool {
    let count = items.len() as f64;
    let first = map.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
    match (key, &map[key]) {
        ("minItems", wanted) => wanted.as_f64().is_none_or(|least| count >= least),
        ("maxItems", wanted) => wanted.as_f64().is_none_or(|most| count <= most),
        ("prefixItems", Value::Array(all)) => items.iter().zip(all).all(|(one, s)| inner(one, s)),
        ("items", schema) => items.iter().skip(first).all(|item| inner(item, schema)),
        ("uniqueItems", Value::Bool(true)) => {
            (1..items.len()).all(|i| !items[..i].iter().any(|other| same(other, &items[i])))
        }
        ("contains", schema) => {
            let n = items.iter().filter(|item| inner(item, schema)).count() as f64;
            let bound = |key: &str| map.get(key).and_then(Value::as_f64);
            n >= bound("minContains").unwrap_or(1.0)
                && bound("maxContains").is_none_or(|most| n <= most)
        }
        _ => true,
    }
}

fn object(
    members: &Map<String, Value>,
    map: &Map<String, Value>,
    key: &str,
    inner: Inner<'_>,
) -> bool {
    let count = members.len() as f64;
    match (key, &map[key]) {
        ("minProperties", wanted) => wanted.as_f64().is_none_or(|least| count >= least),
        ("maxProperties", wanted) => wanted.as_f64().is_none_or(|most| count <= most),
        ("required", Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).all(|name| members.contains_key(name))
        }
        ("properties", Value::Object(all)) => {
            all.iter().all(|(name, schema)| members.get(name).is_none_or(|one| inner(one, schema)))
        }
        ("dependentRequired", Value::Object(all)) => all.iter().all(|(name, needs)| {
            let needs = needs.as_array().into_iter().flatten().filter_map(Value::as_str);
            !members.contains_key(name) || needs.into_iter().all(|one| members.contains_key(one))
        }),
        ("propertyNames", schema) => {
            members.keys().all(|name| inner(&Value::from(name.as_str()), schema))
        }
        ("patternProperties", Value::Object(all)) => all.iter().all(|(pattern, schema)| {
            members.iter().all(|(name, one)| {
                !text_fits(name, "pattern", &Value::from(pattern.as_str())) || inner(one, schema)
            })
        }),
        ("additionalProperties", schema) => {
            let is_named =
                |name: &String| map.get("properties").is_some_and(|all| all.get(name).is_some());
            let patterns = map.get("patternProperties").and_then(Value::as_object);
            let is_found = |name: &str| {
                let mut all = patterns.into_iter().flat_map(Map::keys);
                all.any(|pattern| text_fits(name, "pattern", &Value::from(pattern.as_str())))
            };
            let others = members.iter().filter(|(name, _)| !is_named(name) && !is_found(name));
            others.into_iter().all(|(_, one)| inner(one, schema))
        }
        _ => true,
    }
}
