//! Alternatives: any of them, or exactly one. Of two that some value fits at once the grammar cannot say which it is: where what tells them apart is a
//! property, it must be there.

use serde_json::{Map, Value, json};

use super::{Writer, all_are, kinds, named};
use crate::ggml::grammar::fits::{fits, same};
use crate::ggml::result::Error;

/// How many references are followed.
const MAX_HOPS: usize = 16;

/// How two schemas differ.
enum Apart {
    /// No value fits both.
    Always,
    /// None does that has this property.
    By(String),
}

impl Writer<'_> {
    /// What fits one of `ways`, which `map` has under `key`.
    pub(super) fn union(
        &mut self,
        map: &Map<String, Value>,
        key: &str,
        ways: &[Value],
    ) -> Result<Option<String>, Error> {
        let mut all: Vec<Value> = ways.to_vec();
        if key == "oneOf" {
            let mut is_kept = true;
            for i in 0..ways.len() {
                for j in 0..i {
                    match self.apart(&ways[i], &ways[j]) {
                        Some(Apart::Always) => {}
                        Some(Apart::By(name)) => {
                            self.require(&mut all[i], &name);
                            self.require(&mut all[j], &name);
                        }
                        None => is_kept = false,
                    }
                }
            }
            if !is_kept {
                self.leave(map, key);
            }
        }
        let mut written = Vec::new();
        for way in &all {
            let way = self.schema(way)?;
            written.extend(way.filter(|way| !written.contains(way)));
        }
        Ok(match written.len() {
            0 => None,
            1 => written.pop(),
            _ => Some(self.rule(&written.join(" | "))),
        })
    }

    /// What a schema refers to.
    fn target<'b>(&'b self, mut schema: &'b Value) -> Option<&'b Map<String, Value>> {
        for _ in 0..MAX_HOPS {
            let Some(to) = schema.get("$ref").and_then(Value::as_str) else {
                return schema.as_object();
            };
            schema = self.definitions.get(to.strip_prefix("#/$defs/")?)?;
        }
        None
    }

    /// Makes a property one that must be there.
    fn require(&self, schema: &mut Value, name: &str) {
        let Some(mut map) = self.target(schema).cloned() else { return };
        let required = map.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(names) = required
            && !names.iter().any(|one| one == name)
        {
            names.push(name.into());
        }
        // Only an object has it; other kinds differ anyway.
        map.insert("type".to_owned(), "object".into());
        *schema = map.into();
    }

    /// How two schemas differ; `None` if some value may fit both.
    fn apart(&self, a: &Value, b: &Value) -> Option<Apart> {
        let (a, b) = (self.target(a)?, self.target(b)?);
        let is_union =
            |map: &Map<String, Value>| ["anyOf", "oneOf"].iter().any(|key| map.contains_key(*key));
        if is_union(a) || is_union(b) {
            return None;
        }
        match (named(a), named(b)) {
            (Some(x), Some(y)) => {
                let differ = !x.iter().any(|x| y.iter().any(|y| same(x, y)));
                return differ.then_some(Apart::Always);
            }
            (Some(values), None) | (None, Some(values)) => {
                let other = if named(a).is_some() { b } else { a };
                let other = Value::Object(other.clone());
                let differ = !values.iter().any(|value| fits(value, &other, self.definitions));
                return differ.then_some(Apart::Always);
            }
            (None, None) => {}
        }
        // What is not named, the standard does not exclude.
        let kinds_of = |map: &Map<String, Value>| map.get("type").and_then(|_| kinds(map).ok());
        let (of_a, of_b) = (kinds_of(a)?, kinds_of(b)?);
        let both = |x: &str| {
            of_b.iter().any(|y| {
                x == *y || x == "integer" && *y == "number" || x == "number" && *y == "integer"
            })
        };
        if !of_a.iter().any(|x| both(x)) {
            return Some(Apart::Always);
        }
        if of_a == ["object"] && of_b == ["object"] { self.objects_apart(a, b) } else { None }
    }

    fn objects_apart(&self, a: &Map<String, Value>, b: &Map<String, Value>) -> Option<Apart> {
        let requires = |map: &Map<String, Value>, name: &str| {
            map.get("required")
                .and_then(Value::as_array)
                .is_some_and(|all| all.iter().any(|one| one == name))
        };
        let properties =
            |map: &Map<String, Value>, name: &str| map.get("properties")?.get(name).cloned();
        // A property of one that the other may not have.
        let forbids = |map: &Map<String, Value>, name: &str| {
            map.get("additionalProperties") == Some(&Value::Bool(false))
                && map.get("patternProperties").is_none()
                && properties(map, name).is_none()
        };
        let names = |map: &Map<String, Value>| -> Vec<String> {
            let all = map.get("required").and_then(Value::as_array);
            all.into_iter().flatten().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
        };
        if names(a).iter().any(|name| forbids(b, name))
            || names(b).iter().any(|name| forbids(a, name))
        {
            return Some(Apart::Always);
        }
        let mut by = None;
        for (name, of_a) in a.get("properties").and_then(Value::as_object)? {
            let Some(of_b) = properties(b, name) else { continue };
            if !self.values_differ(of_a, &of_b) {
                continue;
            }
            if requires(a, name) && requires(b, name) {
                return Some(Apart::Always);
            }
            by.get_or_insert_with(|| name.clone());
        }
        by.map(Apart::By)
    }

    /// Whether two schemas name values, none of which is in both.
    fn values_differ(&self, a: &Value, b: &Value) -> bool {
        let (Some(a), Some(b)) = (self.target(a), self.target(b)) else { return false };
        match (named(a), named(b)) {
            (Some(x), Some(y)) => !x.iter().any(|x| y.iter().any(|y| same(x, y))),
            (Some(values), None) | (None, Some(values)) => {
                let other = if named(a).is_some() { b } else { a };
                let kinds = other.get("type").and_then(|_| kinds(other).ok());
                kinds.is_some_and(|kinds| values.iter().all(|value| !all_are(&[value], &kinds)))
            }
            _ => false,
        }
    }
}
