//! References in JSON schemas, written as libllama's converter reads them: each thing that is referred to becomes a definition of the
//! root, under a name of its own. So a schema may lie inside of another one and keep its references (a tool's parameters do), may
//! refer to itself as a whole, and may give its definitions names that the converter would take for one another. It fetches nothing:
//! what is not inside of the schema is refused.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::join::is_note;
use super::{MAX_LEN, invalid};
use crate::ggml::result::Error;

/// The most things that are referred to: the converter goes as deep as a chain of them.
const MAX_TARGETS: usize = 512;

/// `schema`, with every reference leading to `$defs` of the root. A schema inside of it that has an `$id` is a document of its own:
/// references in it begin there.
///
/// # Errors
///
/// A reference to what is not there, or so many that the schema becomes too long.
pub(super) fn gathered(schema: &Value) -> Result<Value, Error> {
    let mut gatherer = Gatherer { targets: Vec::new(), known: HashMap::new(), n_values: 0 };
    let mut root = gatherer.rewrite(schema, schema)?;
    let mut definitions = Map::new();
    while let Some(&(target, document)) = gatherer.targets.get(definitions.len()) {
        let name = name(definitions.len());
        definitions.insert(name, gatherer.rewrite(target, document)?);
    }
    if !definitions.is_empty() {
        root["$defs"] = definitions.into();
    }
    Ok(root)
}

/// What the `n`th thing is called. The letters at both ends keep the converter, which appends to names to make others, from making one
/// of these.
fn name(n: usize) -> String {
    format!("t{n}t")
}

/// Finds what references lead to.
struct Gatherer<'a> {
    /// What was referred to, and the document that it lies in.
    targets: Vec<(&'a Value, &'a Value)>,
    /// Where each is among `targets`, by its address.
    known: HashMap<*const Value, usize>,
    /// How many values were written.
    n_values: usize,
}

impl<'a> Gatherer<'a> {
    /// A schema of `document`, with its references changed, and without definitions, which are gathered as they are needed.
    fn rewrite(&mut self, schema: &'a Value, document: &'a Value) -> Result<Value, Error> {
        self.n_values += 1;
        if self.n_values > MAX_LEN {
            return Err(invalid("refers to so much that it is too long"));
        }
        let Value::Object(map) = schema else {
            return match schema {
                Value::Array(items) => {
                    items.iter().map(|item| self.rewrite(item, document)).collect()
                }
                plain => Ok(plain.clone()),
            };
        };
        let document = if begins_document(map) { schema } else { document };
        if let Some(to) = map.get("$ref").and_then(Value::as_str) {
            let to = name(self.find(to, document)?);
            let to = json!({"$ref": format!("#/$defs/{to}")});
            let beside = |(key, _): &(&String, &Value)| *key != "$ref" && !is_note(key);
            if !map.iter().any(|one| beside(&one)) {
                return Ok(to);
            }
            // What stands beside a reference holds, too.
            let mut rest = Map::new();
            for (key, value) in map.iter().filter(|(key, _)| *key != "$ref") {
                rest.insert(key.clone(), self.key(key, value, document)?);
            }
            return Ok(json!({"allOf": [to, rest]}));
        }
        let mut new = Map::new();
        for (key, value) in map {
            if !["$defs", "definitions", "$id"].contains(&key.as_str()) {
                new.insert(key.clone(), self.key(key, value, document)?);
            }
        }
        Ok(Value::Object(new))
    }

    /// What a schema has under a key.
    fn key(&mut self, key: &str, value: &'a Value, document: &'a Value) -> Result<Value, Error> {
        match (key, value) {
            ("const" | "enum" | "default" | "examples", literal) => Ok(literal.clone()),
            ("properties" | "patternProperties" | "dependentSchemas", Value::Object(named)) => {
                let pair = |(name, value): (&String, &'a Value)| {
                    Ok((name.clone(), self.rewrite(value, document)?))
                };
                Ok(Value::Object(named.iter().map(pair).collect::<Result<_, Error>>()?))
            }
            (_, value) => self.rewrite(value, document),
        }
    }

    /// The number of what `to` leads to.
    fn find(&mut self, to: &str, document: &'a Value) -> Result<usize, Error> {
        let target =
            to.strip_prefix('#').and_then(|pointer| document.pointer(&unescaped(pointer)?));
        let target = target
            .ok_or_else(|| invalid(&format!("refers to '{to:.80}', which is not inside of it")))?;
        if let Some(&n) = self.known.get(&std::ptr::from_ref(target)) {
            return Ok(n);
        }
        let n = self.targets.len();
        if n == MAX_TARGETS {
            return Err(invalid("refers to too many things"));
        }
        self.targets.push((target, document));
        self.known.insert(target, n);
        Ok(n)
    }
}

/// Whether a schema is a document of its own. An `$id` that begins with `#` only named a place, in older drafts.
pub(super) fn begins_document(schema: &Map<String, Value>) -> bool {
    schema.get("$id").and_then(Value::as_str).is_some_and(|id| !id.starts_with('#'))
}

/// The part of an address behind its `#`, with its bytes as they are meant: `%25` is a percent sign.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |i: usize| char::from(*after.get(i)?).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_without_references_stay() {
        let schema = json!({"type": "object", "properties": {"default": {"type": "string"}, "a": {"enum": [{"$ref": "x"}]}}});
        assert_eq!(gathered(&schema).unwrap(), schema);
    }

    #[test]
    fn references_lead_to_definitions_of_the_root() {
        let schema = json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
            "$ref": {"type": "string"}, "next": {"$ref": "#/$defs/node", "description": "the next"}}}, "unused": {}}});
        let node = json!({"type": "object", "properties": {"$ref": {"type": "string"}, "next": {"$ref": "#/$defs/t0t"}}});
        assert_eq!(
            gathered(&schema).unwrap(),
            json!({"$ref": "#/$defs/t0t", "$defs": {"t0t": node}})
        );
    }

    #[test]
    fn every_place_can_be_referred_to() {
        for (schema, target) in [
            (
                json!({"type": "array", "items": {"$ref": "#"}}),
                json!({"type": "array", "items": {"$ref": "#/$defs/t0t"}}),
            ),
            (
                json!({"properties": {"a": {"type": "null"}, "b": {"$ref": "#/properties/a"}}}),
                json!({"type": "null"}),
            ),
            (
                json!({"items": [{"$ref": "#/definitions/a~1b%25%20c"}], "definitions": {"a/b% c": {"type": "null"}}}),
                json!({"type": "null"}),
            ),
            (json!({"items": [{"type": "null"}, {"$ref": "#/items/0"}]}), json!({"type": "null"})),
        ] {
            assert_eq!(gathered(&schema).unwrap()["$defs"]["t0t"], target, "{schema}");
        }
    }

    #[test]
    fn documents_inside_keep_their_own_names() {
        let tool = |id: &str, kind: &str| json!({"$id": id, "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": kind}}});
        let schema = json!({"anyOf": [tool("a", "string"), tool("b", "integer")]});
        let defs = json!({"t0t": {"type": "string"}, "t1t": {"type": "integer"}});
        let new = gathered(&schema).unwrap();
        assert_eq!(new["$defs"], defs);
        assert_eq!(new["anyOf"][1]["properties"]["x"], json!({"$ref": "#/$defs/t1t"}));
    }

    #[test]
    fn what_is_not_inside_is_refused() {
        for to in
            ["#/nowhere", "https://example.com/x.json", "other.json#/$defs/a", "#name", "#/%zz", ""]
        {
            let error = gathered(&json!({"items": {"$ref": to}})).unwrap_err().to_string();
            assert!(error.contains(&format!("'{to}'")), "{error}");
        }
    }

    #[test]
    fn references_cannot_multiply_a_schema() {
        // Each of the places holds all that follow, and is copied.
        let mut deep = json!({"type": "array", "items": vec![json!(1); 2000]});
        let mut place = String::from("#");
        let mut all = Vec::new();
        for _ in 0..40 {
            deep = json!({"not": deep});
            place += "/not";
            all.push(json!({"$ref": place}));
        }
        deep["items"] = all.into();
        let error = gathered(&deep).unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}
