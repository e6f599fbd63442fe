//! Schemas that are joined from several: libllama's converter reads `allOf` of objects only, and nothing beside `anyOf` and `oneOf`. What is
//! joined is written as one schema, and what stands beside alternatives becomes a part of each. References stay where nothing is joined to
//! them. It judges no bounds: `mend` does.

use serde_json::{Map, Value, json};

use super::{MAX_DEPTH, MAX_LEN, drafts, fits, invalid};
use crate::ggml::result::Error;

/// Keys that say what fits. All others are remarks, those that the standard does not know among them.
const KEYWORDS: [&str; 44] = [
    LOST,
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "type",
    "enum",
    "const",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "required",
    "minProperties",
    "maxProperties",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Keys of which two cannot be joined to one, and where it is noted that one of them was not.
const UNJOINED: [&str; 10] = [
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "dependentSchemas",
    "dependentRequired",
    "$dynamicRef",
    "$recursiveRef",
];
pub(super) const LOST: &str = "$lost";

/// Keys of which the larger value holds, and those of which the smaller does.
const LARGER: [&str; 5] = ["minItems", "minLength", "minProperties", "minimum", "exclusiveMinimum"];
const SMALLER: [&str; 5] =
    ["maxItems", "maxLength", "maxProperties", "maximum", "exclusiveMaximum"];

/// `schema`, whose references all lead to its `$defs`, with nothing left to join.
///
/// # Errors
///
/// What is joined contains itself, or makes the schema too long.
pub(super) fn joined(schema: &Value) -> Result<Value, Error> {
    let none = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    let mut joiner = Joiner { definitions, n_values: 0 };
    let mut root = joiner.join(schema, 0)?;
    if let (Value::Object(root), false) = (&mut root, definitions.is_empty()) {
        let one = |(name, schema): (&String, &Value)| Ok((name.clone(), joiner.join(schema, 0)?));
        let all = definitions.iter().map(one).collect::<Result<Map<_, _>, Error>>()?;
        root.insert("$defs".to_owned(), all.into());
    }
    Ok(root)
}

struct Joiner<'a> {
    definitions: &'a Map<String, Value>,
    /// How many schemas were written.
    n_values: usize,
}

/// Whether a key says nothing of what fits.
pub(super) fn is_note(key: &str) -> bool {
    !KEYWORDS.contains(&key)
}

/// Whether all that a schema says is what it is for.
fn says_nothing(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.keys().all(|key| is_note(key)),
        other => *other == Value::Bool(true),
    }
}

impl<'a> Joiner<'a> {
    /// A schema, with all schemas in it joined; `false` if nothing can fit what is joined.
    fn join(&mut self, schema: &Value, depth: usize) -> Result<Value, Error> {
        self.count(depth)?;
        let Value::Object(map) = schema else { return Ok(schema.clone()) };
        let mut rest = map.clone();
        drafts::todays(&mut rest);
        let map = &rest.clone();
        if let Some(Value::Array(parts)) = map.get("allOf") {
            rest.remove("allOf");
            return self.all(rest, parts, depth);
        }
        for key in ["anyOf", "oneOf"] {
            let Some(Value::Array(ways)) = map.get(key) else { continue };
            rest.remove(key);
            if rest.keys().all(|key| is_note(key)) {
                break;
            }
            // What says nothing of its own adds nothing to the others.
            let each =
                ways.iter().map(|way| self.all(rest.clone(), std::slice::from_ref(way), depth));
            let each: Vec<Value> = each.collect::<Result<_, _>>()?;
            return Ok(json!({ key: each }));
        }
        let mut new = Map::new();
        for (key, value) in map {
            let value = match (key.as_str(), value) {
                ("$defs", _) => continue,
                ("properties" | "patternProperties", Value::Object(named)) => {
                    let one = |(name, schema): (&String, &Value)| {
                        Ok((name.clone(), self.join(schema, depth + 1)?))
                    };
                    Value::Object(named.iter().map(one).collect::<Result<_, Error>>()?)
                }
                ("anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(all)) => all
                    .iter()
                    .map(|schema| self.join(schema, depth + 1))
                    .collect::<Result<_, _>>()?,
                ("items" | "additionalProperties" | "propertyNames", one) => {
                    self.join(one, depth + 1)?
                }
                (_, value) => value.clone(),
            };
            new.insert(key.clone(), value);
        }
        self.patterned(&mut new, depth)?;
        Ok(new.into())
    }

    fn count(&mut self, depth: usize) -> Result<(), Error> {
        self.n_values += 1;
        if depth > MAX_DEPTH {
            return Err(invalid("is joined from itself, or nested too deeply"));
        }
        if self.n_values > MAX_LEN {
            return Err(invalid("joins so much that it is too long"));
        }
        Ok(())
    }

    /// What fits `base` and each of `parts`.
    fn all(
        &mut self,
        base: Map<String, Value>,
        parts: &[Value],
        depth: usize,
    ) -> Result<Value, Error> {
        let mut parts: Vec<&Value> = parts.iter().filter(|part| !says_nothing(part)).collect();
        if base.keys().all(|key| is_note(key)) && parts.len() == 1 {
            // A reference, perhaps to what this is a part of.
            return match parts.remove(0) {
                only if only.get("$ref").is_some() => Ok(only.clone()),
                only => self.join(only, depth + 1),
            };
        }
        let mut whole = Some(base);
        for part in parts {
            let part = self.resolved(part)?;
            let mut part = self.join(part, depth + 1)?;
            // What a part has not evaluated is what it does not name itself.
            part.as_object_mut().into_iter().for_each(drafts::settled);
            whole = match (whole, self.map_of(&part)?) {
                (Some(whole), Some(part)) => self.merge(whole, part, depth + 1)?,
                _ => None,
            };
        }
        match whole {
            Some(whole) => self.join(&whole.into(), depth + 1),
            None => Ok(Value::Bool(false)),
        }
    }

    /// What a schema refers to, if it is a reference.
    fn resolved<'b>(&self, mut schema: &'b Value) -> Result<&'b Value, Error>
    where
        'a: 'b,
    {
        let definitions = self.definitions;
        for _ in 0..MAX_DEPTH {
            let Some(to) = schema.get("$ref").and_then(Value::as_str) else { return Ok(schema) };
            let name = to.strip_prefix("#/$defs/").unwrap_or_default();
            schema = definitions.get(name).ok_or_else(|| invalid("refers to nothing"))?;
        }
        Err(invalid("refers to itself only"))
    }

    /// The keys of a schema; none if nothing fits it.
    fn map_of(&self, schema: &Value) -> Result<Option<Map<String, Value>>, Error> {
        Ok(match self.resolved(schema)? {
            Value::Object(map) => Some(map.clone()),
            Value::Bool(false) => None,
            _ => Some(Map::new()),
        })
    }

    /// What fits both; `None` if nothing can.
    fn merge(
        &mut self,
        mut whole: Map<String, Value>,
        part: Map<String, Value>,
        depth: usize,
    ) -> Result<Option<Map<String, Value>>, Error> {
        self.count(depth)?;
        let (mine, theirs) = (whole.clone(), part.clone());
        for (key, new) in part {
            if key == "$defs" {
                continue;
            }
            let Some(old) = whole.get(&key).filter(|old| **old != new) else {
                whole.insert(key, new);
                continue;
            };
            let both = match key.as_str() {
                "properties" | "patternProperties" => self.named(old.clone(), new, depth)?,
                "items" | "additionalProperties" => self.both(old, &new, depth)?,
                // Each of these and one of those, as one will be joined.
                "anyOf" | "oneOf" => {
                    let ways = old.as_array().into_iter().flatten();
                    ways.map(|way| json!({"allOf": [way, {key.as_str(): new}]})).collect()
                }
                "propertyNames" => self.both(old, &new, depth)?,
                "prefixItems" => self.first(old, &new, depth)?,
                "not" => json!({"anyOf": [old, new]}),
                _ if UNJOINED.contains(&key.as_str()) => {
                    // The first holds, and that the other does not is told.
                    let lost = whole.entry(LOST).or_insert_with(|| json!([]));
                    lost.as_array_mut().into_iter().for_each(|lost| lost.push(key.clone().into()));
                    continue;
                }
                _ => match simple(&key, old, new) {
                    Some(both) => both,
                    None => return Ok(None),
                },
            };
            whole.insert(key, both);
        }
        self.others(&mut whole, &mine, &theirs, depth)?;
        Ok(Some(whole))
    }

    /// What lists of both begin with.
    fn first(&mut self, old: &Value, new: &Value, depth: usize) -> Result<Value, Error> {
        let (Value::Array(old), Value::Array(new)) = (old, new) else { return Ok(old.clone()) };
        let any = Value::Bool(true);
        let pair = |i: usize| (old.get(i).unwrap_or(&any), new.get(i).unwrap_or(&any));
        let pairs = (0..old.len().max(new.len())).map(pair);
        pairs.map(|(old, new)| self.both(old, new, depth)).collect()
    }

    /// Holds properties of one to what the other says of those that it does not name.
    fn others(
        &mut self,
        whole: &mut Map<String, Value>,
        a: &Map<String, Value>,
        b: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        for (one, other) in [(a, b), (b, a)] {
            let Some(more) = one.get("additionalProperties").filter(|more| !says_nothing(more))
            else {
                continue;
            };
            let Some(Value::Object(named)) = other.get("properties") else { continue };
            let patterns = one.get("patternProperties").and_then(Value::as_object);
            let mut all = patterns.into_iter().flat_map(Map::keys);
            let names = named.keys().filter(|name| {
                one.get("properties").is_none_or(|own| own.get(name.as_str()).is_none())
                    && !all.any(|pattern| is_found(pattern, name))
            });
            let names: Vec<&String> = names.collect();
            for name in names {
                let Some(Value::Object(properties)) = whole.get("properties") else { continue };
                let Some(old) = properties.get(name).cloned() else { continue };
                let both = self.both(&old, more, depth)?;
                if let Some(Value::Object(properties)) = whole.get_mut("properties") {
                    properties.insert(name.clone(), both);
                }
            }
        }
        Ok(())
    }

    /// Holds properties to the patterns that are found in their names; what is required is one of them.
    fn patterned(&mut self, map: &mut Map<String, Value>, depth: usize) -> Result<(), Error> {
        let Some(Value::Object(patterns)) = map.get("patternProperties").cloned() else {
            return Ok(());
        };
        let mut properties = match map.remove("properties") {
            Some(Value::Object(properties)) => properties,
            _ => Map::new(),
        };
        let required = map.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for name in required.iter().filter_map(Value::as_str) {
            if !properties.contains_key(name) && patterns.keys().any(|one| is_found(one, name)) {
                properties.insert(name.to_owned(), Value::Bool(true));
            }
        }
        for (name, schema) in &mut properties {
            for (pattern, more) in &patterns {
                if is_found(pattern, name) && *schema != *more {
                    *schema = self.both(schema, more, depth)?;
                }
            }
        }
        if !properties.is_empty() {
            map.insert("properties".to_owned(), properties.into());
        }
        Ok(())
    }

    /// Properties of both; those that are in both fit both.
    fn named(&mut self, old: Value, new: Value, depth: usize) -> Result<Value, Error> {
        let (Value::Object(mut all), Value::Object(new)) = (old.clone(), new) else {
            return Ok(old);
        };
        for (name, schema) in new {
            let both = match all.get(&name) {
                Some(old) => self.both(old, &schema, depth)?,
                None => schema,
            };
            all.insert(name, both);
        }
        Ok(all.into())
    }

    /// A schema of what fits two.
    fn both(&mut self, old: &Value, new: &Value, depth: usize) -> Result<Value, Error> {
        if old == new || says_nothing(new) {
            return Ok(old.clone());
        }
        if says_nothing(old) {
            return Ok(new.clone());
        }
        self.all(Map::new(), &[old.clone(), new.clone()], depth + 1)
    }
}

/// Whether a pattern is found in a name; those that cannot be read are told as not kept.
fn is_found(pattern: &str, name: &str) -> bool {
    let schema = json!({ "pattern": pattern });
    fits::fits(&name.into(), &schema, &Map::new())
}

/// What holds of a key that two schemas have with other values; `None` if nothing fits both. Of what cannot be joined, the first holds.
fn simple(key: &str, old: &Value, new: Value) -> Option<Value> {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        all.iter().filter_map(|kind| Some(kind.as_str()?.to_owned())).collect()
    };
    match key {
        "type" => {
            let (old, new) = (texts(old), texts(&new));
            let has = |all: &[String], kind: &str| all.iter().any(|one| one == kind);
            let of = |all: &[String], kind: &str| {
                has(all, kind) || kind == "integer" && has(all, "number")
            };
            let mut both: Vec<String> = old.iter().filter(|kind| of(&new, kind)).cloned().collect();
            let more = new.iter().filter(|kind| !has(&old, kind) && of(&old, kind));
            both.extend(more.cloned());
            match both.len() {
                0 => None,
                1 => Some(both.remove(0).into()),
                _ => Some(both.into()),
            }
        }
        "required" => {
            let mut all = texts(old);
            all.extend(texts(&new));
            all.sort();
            all.dedup();
            Some(all.into())
        }
        "enum" => {
            let (Value::Array(old), Value::Array(new)) = (old, new) else {
                return Some(old.clone());
            };
            let both: Vec<Value> = old.iter().filter(|one| new.contains(one)).cloned().collect();
            (!both.is_empty()).then(|| both.into())
        }
        "const" => fits::same(old, &new).then_some(new),
        "multipleOf" => multiple(old, new),
        // All of them hold: the grammar knows lists of these.
        "pattern" | "format" => {
            let all =
                |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            Some(all(old).into_iter().chain(all(&new)).collect())
        }
        "uniqueItems" => Some((*old == true || new == true).into()),
        _ if LARGER.contains(&key) || SMALLER.contains(&key) => {
            let (a, b) = (old.as_f64(), new.as_f64());
            let first = match (a, b) {
                (Some(a), Some(b)) => (a >= b) == LARGER.contains(&key),
                (a, _) => a.is_some(),
            };
            Some(if first { old.clone() } else { new })
        }
        _ => Some(old.clone()),
    }
}

/// What two numbers divide.
fn multiple(old: &Value, new: Value) -> Option<Value> {
    let (a, b) = (old.as_f64()?, new.as_f64()?);
    if (a / b).fract() == 0.0 {
        return Some(old.clone());
    }
    if (b / a).fract() == 0.0 {
        return Some(new);
    }
    let (mut x, mut y) = (old.as_u64()?, new.as_u64()?);
    let product = x.checked_mul(y)?;
    while y != 0 {
        (x, y) = (y, x % y);
    }
    Some((product / x).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_one_schema() {
        let whole = json!({"type": "integer", "minimum": 1, "maximum": 3});
        for (schema, right) in [
            // As Pydantic and OpenAPI write a reference with a description.
            (json!({"allOf": [{"$ref": "#/$defs/i"}], "default": 1}), json!({"$ref": "#/$defs/i"})),
            (
                json!({"allOf": [{"$ref": "#/$defs/i"}, {"title": "x"}]}),
                json!({"$ref": "#/$defs/i"}),
            ),
            (
                json!({"allOf": [{"$ref": "#/$defs/i"}, {"minimum": 2}]}),
                json!({"type": "integer", "minimum": 2, "maximum": 3}),
            ),
            (
                json!({"allOf": [{"type": "integer"}, {"minimum": 1, "maximum": 9}, {"maximum": 3}]}),
                whole.clone(),
            ),
            (json!({"type": ["string", "number"], "allOf": [whole]}), whole.clone()),
            (json!({"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]}), json!({"enum": [2, 3]})),
            (
                json!({"type": "object", "properties": {"a": whole}, "required": ["a"], "allOf": [
                    {"properties": {"a": {"minimum": 2}, "b": {}}, "required": ["b"]}]}),
                json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 3}, "b": {}}, "required": ["a", "b"]}),
            ),
            (
                json!({"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({"anyOf": [
                    {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]},
                    {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]}]}),
            ),
            (
                json!({"description": "x", "anyOf": [{"type": "null"}]}),
                json!({"description": "x", "anyOf": [{"type": "null"}]}),
            ),
            (
                json!({"type": "string", "oneOf": [{"type": "null"}, {"minLength": 2}]}),
                json!({"oneOf": [false, {"type": "string", "minLength": 2}]}),
            ),
            (json!({"allOf": [{"type": "string"}, {"type": "integer"}]}), json!(false)),
            (json!({"allOf": [{"const": 1}, {"const": 2}]}), json!(false)),
            (json!({"allOf": []}), json!({})),
        ] {
            let mut asked = schema.clone();
            asked["$defs"] = json!({"i": whole});
            let mut got = joined(&asked).unwrap();
            if let Value::Object(map) = &mut got {
                map.remove("$defs");
            }
            assert_eq!(got, right, "{schema}");
        }
    }

    #[test]
    fn what_is_joined_from_itself_is_refused() {
        let own = json!({"allOf": [{"$ref": "#/$defs/a"}, {"minimum": 1}]});
        for schema in [
            json!({"$ref": "#/$defs/a", "$defs": {"a": own}}),
            json!({"allOf": [{"$ref": "#/$defs/a"}, {"minimum": 1}], "$defs": {"a": {"$ref": "#/$defs/a"}}}),
        ] {
            joined(&schema).unwrap_err();
        }
        // A tree is well.
        let node = json!({"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"next": {"$ref": "#/$defs/node"}}}]});
        let base = json!({"type": "object", "properties": {"id": {"type": "integer"}}});
        let got = joined(&json!({"$ref": "#/$defs/node", "$defs": {"node": node, "base": base}}));
        assert_eq!(
            got.unwrap()["$defs"]["node"]["properties"]["next"],
            json!({"$ref": "#/$defs/node"})
        );
    }

    #[test]
    fn alternatives_cannot_multiply_a_schema() {
        let two = json!([{"minimum": 1}, {"minimum": 2}]);
        let mut schema = json!({"type": "integer"});
        for _ in 0..40 {
            schema = json!({"allOf": [schema, {"anyOf": two}, {"title": "x", "multipleOf": 1}]});
        }
        assert!(joined(&schema).is_err());
    }
}
