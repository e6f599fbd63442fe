//! Keys of older drafts, and those that say in another way what an object or a list may have more, in the words of the newest draft's plain ones.

use serde_json::{Map, Value};

/// One schema in today's words; what is in it stays.
pub(super) fn todays(map: &mut Map<String, Value>) {
    if map.get("items").is_some_and(Value::is_array) {
        let items = map.remove("items").unwrap_or_default();
        map.entry("prefixItems").or_insert(items);
        if let Some(more) = map.remove("additionalItems") {
            map.insert("items".to_owned(), more);
        }
    }
    for (open, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match map.get(open) {
            Some(Value::Bool(true)) => match map.remove(bound) {
                Some(value) => drop(map.insert(open.to_owned(), value)),
                None => drop(map.remove(open)),
            },
            Some(Value::Bool(false)) => drop(map.remove(open)),
            _ => {}
        }
    }
    // Lists of names and schemas were one key.
    if let Some(Value::Object(all)) = map.remove("dependencies") {
        for (name, value) in all {
            let key = if value.is_array() { "dependentRequired" } else { "dependentSchemas" };
            let entry = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entry) = entry {
                entry.insert(name, value);
            }
        }
    }
}

/// What a schema that is joined from nothing any more says of what it has not evaluated is what it says of all others.
pub(super) fn settled(map: &mut Map<String, Value>) {
    for (rest, plain) in
        [("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")]
    {
        if ["anyOf", "oneOf"].iter().all(|key| !map.contains_key(*key))
            && let Some(value) = map.remove(rest)
        {
            map.entry(plain).or_insert(value);
        }
    }
}
