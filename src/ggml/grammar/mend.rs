//! Schemas as libllama's converter can take them: it knows neither `true` nor `false`, counts wrongly where bounds contradict each other, keeps few
//! patterns, and takes a key without a name for the whole. It looks at each place where a schema may be, and at nothing else.

use serde_json::{Map, Value, json};

use super::{drafts, invalid};
use crate::ggml::result::Error;

/// Integers beyond this have neighbours that JSON's readers cannot tell from them, and libllama's rules end there.
const MAX_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Pairs of keys that count, and the kind of value for which they do.
const COUNTS: [(&str, &str, &str); 3] = [
    ("minItems", "maxItems", "array"),
    ("minLength", "maxLength", "string"),
    ("minProperties", "maxProperties", "object"),
];

/// `schema`, whose references all lead to its `$defs`.
///
/// # Errors
///
/// Nothing fits it, or part of it: bounds that contradict each other, keys that are required and cannot be.
pub(super) fn mended(schema: &Value) -> Result<Value, Error> {
    let mut unnamed = false;
    let root = mend(schema, &mut unnamed)?.ok_or_else(|| invalid("fits nothing"))?;
    let (true, Value::Object(mut root)) = (unnamed, root.clone()) else { return Ok(root) };
    // The converter names rules after keys: only the root's may have no name.
    let mut definitions = match root.remove("$defs") {
        Some(Value::Object(all)) => all,
        _ => Map::new(),
    };
    definitions.insert("whole".to_owned(), root.into());
    Ok(json!({"$ref": "#/$defs/whole", "$defs": definitions}))
}

/// One schema; `None` if nothing fits it. `unnamed` becomes true where a key has no name.
fn mend(schema: &Value, unnamed: &mut bool) -> Result<Option<Value>, Error> {
    let map = match schema {
        Value::Bool(true) => return Ok(Some(json!({}))),
        Value::Bool(false) => return Ok(None),
        Value::Object(map) => map,
        other => return Ok(Some(other.clone())),
    };
    let mut map = map.clone();
    drafts::settled(&mut map);
    let map = &map;
    let mut new = Map::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(all)) => properties(map, all, unnamed)?,
            ("$defs", Value::Object(all)) => {
                let one = |(name, schema): (&String, &Value)| {
                    let schema = mend(schema, unnamed)?;
                    let schema = schema.ok_or_else(|| invalid("refers to what nothing fits"))?;
                    Ok((name.clone(), schema))
                };
                Value::Object(all.iter().map(one).collect::<Result<_, Error>>()?)
            }
            ("anyOf" | "oneOf", Value::Array(all)) => {
                let (mut fitting, mut wrong) = (Vec::new(), None);
                for schema in all {
                    match mend(schema, unnamed) {
                        Ok(schema) => fitting.extend(schema),
                        // An alternative that contradicts itself is none.
                        Err(error) => wrong = Some(error),
                    }
                }
                match wrong {
                    Some(error) if fitting.is_empty() => return Err(error),
                    None if fitting.is_empty() && !all.is_empty() => return Ok(None),
                    _ => {}
                }
                fitting.into()
            }
            ("allOf" | "prefixItems", Value::Array(all)) | ("items", Value::Array(all)) => {
                let all = all.iter().map(|schema| mend(schema, unnamed));
                match all.collect::<Result<Option<Vec<_>>, _>>()? {
                    Some(all) => all.into(),
                    None => return Ok(None),
                }
            }
            // Whether more may come is all that is asked behind items that are given one by one.
            ("items", Value::Bool(_)) if map.contains_key("prefixItems") => continue,
            ("items", value @ (Value::Object(_) | Value::Bool(_))) => match mend(value, unnamed)? {
                Some(items) => items,
                None => {
                    new.insert("maxItems".to_owned(), 0.into());
                    continue;
                }
            },
            ("additionalProperties", value @ Value::Object(_)) => {
                mend(value, unnamed)?.unwrap_or(Value::Bool(false))
            }
            // Only one of the bounds of `items: false`, above, may stand.
            ("maxItems", _) if new.contains_key("maxItems") => continue,
            (_, value) => value.clone(),
        };
        new.insert(key.clone(), value);
    }
    required(&mut new)?;
    counts(&mut new)?;
    integers(&mut new)?;
    Ok(Some(new.into()))
}

/// The properties of the object `map` that can be there.
fn properties(
    map: &Map<String, Value>,
    all: &Map<String, Value>,
    unnamed: &mut bool,
) -> Result<Value, Error> {
    let required = map.get("required").and_then(Value::as_array);
    let is_required =
        |name: &str| required.is_some_and(|all| all.iter().any(|key| key.as_str() == Some(name)));
    let mut new = Map::new();
    for (name, schema) in all {
        *unnamed |= name.is_empty();
        match mend(schema, unnamed)? {
            Some(schema) => drop(new.insert(name.clone(), schema)),
            None if is_required(name) => {
                return Err(invalid(&format!("requires '{name:.80}', which nothing fits")));
            }
            None => {}
        }
    }
    Ok(new.into())
}

/// What an object must have is one of its properties: the converter looks for it nowhere else.
fn required(map: &mut Map<String, Value>) -> Result<(), Error> {
    let is_object =
        map.get("type").is_some_and(|_| is_for(map, "object")) || map.contains_key("properties");
    let Some(Value::Array(names)) = map.get("required").filter(|_| is_object).cloned() else {
        return Ok(());
    };
    let other = map.get("additionalProperties").cloned().unwrap_or(Value::Bool(true));
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    let Value::Object(properties) = properties else { return Ok(()) };
    for name in names.iter().filter_map(Value::as_str) {
        if properties.contains_key(name) {
            continue;
        }
        let schema = match &other {
            Value::Bool(false) => {
                return Err(invalid(&format!("requires '{name:.80}', which nothing fits")));
            }
            Value::Bool(true) => json!({}),
            schema => schema.clone(),
        };
        properties.insert(name.to_owned(), schema);
    }
    Ok(())
}

/// Whether a schema is, among others, for values of this kind.
fn is_for(map: &Map<String, Value>, kind: &str) -> bool {
    match map.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(|name| name == kind),
        Some(name) => name == kind,
    }
}

/// Numbers that count: they are whole, and the smaller comes first.
fn counts(map: &mut Map<String, Value>) -> Result<(), Error> {
    for (low, high, kind) in COUNTS {
        if !is_for(map, kind) {
            continue;
        }
        for key in [low, high] {
            let Some(n) = map.get(key).and_then(Value::as_f64) else { continue };
            if n < 0.0 || n.fract() != 0.0 {
                return Err(invalid(&format!("has a '{key}' that counts nothing")));
            }
            if n < f64::from(i32::MAX) {
                map.insert(key.to_owned(), Value::from(n as i64));
            } else if key == high {
                map.remove(key);
            } else {
                return Err(invalid(&format!("has a '{key}' that nothing reaches")));
            }
        }
        let number = |key: &str| map.get(key).and_then(Value::as_i64);
        if let (Some(least), Some(most)) = (number(low), number(high))
            && least > most
        {
            return Err(contradiction(low, high));
        }
    }
    Ok(())
}

fn contradiction(low: &str, high: &str) -> Error {
    invalid(&format!("contradicts itself: its '{low}' is more than its '{high}' allows"))
}

/// Bounds of whole numbers, in the way in which libllama reads them.
fn integers(map: &mut Map<String, Value>) -> Result<(), Error> {
    let number = |key: &str| map.get(key).and_then(Value::as_f64);
    let (least, above) = (number("minimum"), number("exclusiveMinimum"));
    let (most, below) = (number("maximum"), number("exclusiveMaximum"));
    if !is_for(map, "integer") && !is_for(map, "number") {
        return Ok(());
    }
    let low = [least, above].into_iter().flatten().fold(f64::NEG_INFINITY, f64::max);
    let high = [most, below].into_iter().flatten().fold(f64::INFINITY, f64::min);
    let open = above.is_some_and(|n| n >= low) || below.is_some_and(|n| n <= high);
    if low > high || low == high && open {
        return Err(contradiction("minimum", "maximum"));
    }
    if map.get("type").is_none_or(|kind| kind != "integer") {
        return Ok(());
    }
    // Whole numbers within the bounds.
    let first = least.map_or(f64::NEG_INFINITY, f64::ceil);
    let first = first.max(above.map_or(f64::NEG_INFINITY, |n| n.floor() + 1.0));
    let last = most.map_or(f64::INFINITY, f64::floor);
    let last = last.min(below.map_or(f64::INFINITY, |n| n.ceil() - 1.0));
    if first > last {
        return Err(contradiction("minimum", "maximum"));
    }
    if first >= MAX_INTEGER || last <= -MAX_INTEGER {
        return Err(invalid("has bounds beyond the whole numbers of JSON"));
    }
    for key in ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"] {
        map.remove(key);
    }
    for (key, bound) in [("minimum", first), ("maximum", last)] {
        if bound.abs() < MAX_INTEGER {
            map.insert(key.to_owned(), Value::from(bound as i64));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_and_false_are_schemas() {
        for (schema, right) in [
            (json!(true), json!({})),
            (
                json!({"properties": {"a": true, "b": false}, "required": ["a"]}),
                json!({"properties": {"a": {}}, "required": ["a"]}),
            ),
            (json!({"items": true}), json!({"items": {}})),
            (json!({"items": false, "maxItems": 3}), json!({"maxItems": 0})),
            (
                json!({"prefixItems": [{"type": "null"}], "items": false}),
                json!({"prefixItems": [{"type": "null"}]}),
            ),
            (json!({"anyOf": [false, {"type": "null"}]}), json!({"anyOf": [{"type": "null"}]})),
            (json!({"const": false, "enum": [true]}), json!({"const": false, "enum": [true]})),
        ] {
            assert_eq!(mended(&schema).unwrap(), right, "{schema}");
        }
        for schema in [
            json!(false),
            json!({"anyOf": [false]}),
            json!({"properties": {"a": false}, "required": ["a"]}),
        ] {
            mended(&schema).unwrap_err();
        }
    }

    #[test]
    fn bounds_that_contradict_are_refused() {
        for (schema, ok) in [
            (json!({"type": "array", "minItems": 5, "maxItems": 2}), false),
            (json!({"type": "array", "minItems": 2, "maxItems": 2}), true),
            (json!({"items": {"minLength": 5, "maxLength": 4}}), false),
            (json!({"type": "string", "minItems": 5, "maxItems": 2}), true),
            (json!({"type": ["string", "array"], "minItems": 5, "maxItems": 2}), false),
            (json!({"type": "array", "minItems": 1, "items": false}), false),
            (json!({"type": "array", "minItems": 0.5}), false),
            (json!({"type": "array", "minItems": -1}), false),
            (json!({"type": "array", "maxItems": 1e300}), true),
            (json!({"type": "array", "minItems": 4_294_967_296_u64}), false),
            (json!({"type": "integer", "minimum": 3, "maximum": 2}), false),
            (json!({"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 3}), false),
            (json!({"type": "number", "exclusiveMinimum": 2, "exclusiveMaximum": 3}), true),
            (json!({"type": "number", "minimum": 2, "exclusiveMaximum": 2}), false),
            (json!({"type": "integer", "minimum": 1e17}), false),
            (
                json!({"type": "integer", "minimum": -9_007_199_254_740_991_i64, "maximum": 9_007_199_254_740_991_i64}),
                true,
            ),
            (json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX}), true),
            (json!({"type": "string", "minimum": 3, "maximum": 2}), true),
        ] {
            assert_eq!(mended(&schema).is_ok(), ok, "{schema}");
        }
    }

    #[test]
    fn what_is_required_is_there() {
        let object = |properties: Value, more: Value| {
            let mut schema =
                json!({"type": "object", "properties": properties, "required": ["a", "b"]});
            if !more.is_null() {
                schema["additionalProperties"] = more;
            }
            schema
        };
        let one = json!({"a": {"type": "null"}});
        for (more, b) in [
            (json!(null), json!({})),
            (json!(true), json!({})),
            (json!({"type": "integer"}), json!({"type": "integer"})),
        ] {
            let right = object(json!({"a": {"type": "null"}, "b": b}), more.clone());
            assert_eq!(mended(&object(one.clone(), more)).unwrap(), right);
        }
        mended(&object(one, json!(false))).unwrap_err();
        assert_eq!(mended(&json!({"required": ["a"]})).unwrap(), json!({"required": ["a"]}));
    }

    #[test]
    fn keys_without_a_name_are_not_the_whole() {
        let schema = json!({"type": "object", "properties": {"": {"type": "integer"}}});
        assert_eq!(
            mended(&schema).unwrap(),
            json!({"$ref": "#/$defs/whole", "$defs": {"whole": schema}})
        );
    }
}
