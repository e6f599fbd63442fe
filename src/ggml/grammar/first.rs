//! Objects whose named values come first. What tells the alternatives of a union apart is often the last thing in them, or may be left
//! out (`kind: Literal["add"] = "add"` in Python); then all of them have to be followed through everything that comes before. JSON
//! does not care for the order of keys: what is written by the schema made here fits the one that was given.

use serde_json::{Map, Value};

/// `schema`, whose references all lead to its `$defs`, with each key that has one of some named values required, and before all others.
pub(super) fn named_first(schema: &Value) -> Value {
    rewrite(schema, schema)
}

fn rewrite(schema: &Value, root: &Value) -> Value {
    let map = match schema {
        Value::Object(map) => map,
        Value::Array(items) => return items.iter().map(|item| rewrite(item, root)).collect(),
        plain => return plain.clone(),
    };
    let pair = |(key, value): (&String, &Value)| {
        let value = match (key.as_str(), value) {
            ("const" | "enum" | "default" | "examples", literal) => literal.clone(),
            ("properties" | "$defs", Value::Object(all)) => {
                all.iter().map(|(name, schema)| (name.clone(), rewrite(schema, root))).collect()
            }
            (_, value) => rewrite(value, root),
        };
        (key.clone(), value)
    };
    let mut new: Map<String, Value> = map.iter().map(pair).collect();
    let Some(Value::Object(properties)) = new.get_mut("properties") else { return new.into() };
    let all = std::mem::take(properties).into_iter();
    let (named, others): (Vec<_>, Vec<_>) = all.partition(|(_, schema)| is_named(schema, root));
    let names: Vec<Value> = named.iter().map(|(name, _)| name.as_str().into()).collect();
    properties.extend(named.into_iter().chain(others));
    let required = new.entry("required").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(required) = required {
        required.extend(names);
    }
    new.into()
}

/// Whether only some values fit a schema, or the definition to which it leads.
fn is_named(schema: &Value, root: &Value) -> bool {
    let target = schema.get("$ref").and_then(Value::as_str);
    let target = target.and_then(|to| root.pointer(to.strip_prefix('#')?)).unwrap_or(schema);
    target.get("const").or_else(|| target.get("enum")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_with_named_values_come_first() {
        let schema = json!({"anyOf": [{"type": "object", "required": ["of"], "properties": {
                "of": {"$ref": "#/$defs/t0t"}, "unit": {"$ref": "#/$defs/t1t"}, "kind": {"const": {"properties": {"a": 1}}}}},
            {"enum": [{"properties": {"b": {"const": 1}}}]}, {"type": "string"}],
            "$defs": {"t0t": {"type": "string"}, "t1t": {"enum": ["g"]}}});
        let new = named_first(&schema);
        let object = &new["anyOf"][0];
        let keys: Vec<&String> = object["properties"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["unit", "kind", "of"]);
        assert_eq!(object["required"], json!(["of", "unit", "kind"]));
        // What is named is not a schema.
        assert_eq!(object["properties"]["kind"], schema["anyOf"][0]["properties"]["kind"]);
        assert_eq!(new["anyOf"][1], schema["anyOf"][1]);
        assert_eq!(new["$defs"], schema["$defs"]);
    }
}
