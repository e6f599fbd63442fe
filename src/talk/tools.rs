//! The tools of a request: what a template is shown of them, and of which kinds a parameter's values are. It calls none.

use serde_json::Value;

/// How deep references in a parameter's schema are followed.
const MAX_REFERENCES: usize = 8;

/// What a request says of tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tools {
    /// As the template gets them: `{"type": "function", "function": {...}}`.
    pub list: Vec<Value>,
    /// Whether one of them must be called.
    pub required: bool,
    /// Whether an answer may call several.
    pub several: bool,
}

/// Of which kinds a parameter's values may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) text: bool,
    pub(super) other: bool,
}

impl Tools {
    /// The tools' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter_map(|tool| tool["function"]["name"].as_str())
    }

    /// Whether one has this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// The kinds of the parameter `key` of the tool `name`; neither where nothing is said of it.
    pub(super) fn kinds(&self, name: &str, key: &str) -> Kinds {
        let tool = self.list.iter().find(|tool| tool["function"]["name"] == name);
        let Some(schema) = tool.map(|tool| &tool["function"]["parameters"]) else {
            return Kinds::default();
        };
        kinds(&schema["properties"][key], schema, MAX_REFERENCES)
    }
}

fn kinds(schema: &Value, root: &Value, left: usize) -> Kinds {
    let mut found = Kinds::default();
    let mut add = |more: Kinds| {
        found.text |= more.text;
        found.other |= more.other;
    };
    let named = |name: &Value| Kinds { text: name == "string", other: name != "string" };
    match &schema["type"] {
        Value::Array(names) => names.iter().for_each(|name| add(named(name))),
        Value::String(_) => add(named(&schema["type"])),
        _ => {}
    }
    let value = |value: &Value| Kinds { text: value.is_string(), other: !value.is_string() };
    schema["enum"].as_array().into_iter().flatten().for_each(|v| add(value(v)));
    schema.get("const").into_iter().for_each(|v| add(value(v)));
    if left > 0 {
        for key in ["anyOf", "oneOf", "allOf"] {
            let parts = schema[key].as_array().into_iter().flatten();
            parts.for_each(|part| add(kinds(part, root, left - 1)));
        }
        let target = schema["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
        if let Some(part) = target.and_then(|path| root.pointer(path)) {
            add(kinds(part, root, left - 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_have_kinds() {
        let parameters = json!({
            "$defs": {"n": {"type": "integer"}, "loop": {"$ref": "#/$defs/loop"}},
            "properties": {
                "a": {"type": "string"}, "b": {"type": ["string", "null"]}, "c": {"$ref": "#/$defs/n"},
                "d": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/n"}]}, "e": {"enum": ["x"]}, "f": {},
                "g": {"$ref": "#/$defs/loop"},
            },
        });
        let list = vec![json!({"function": {"name": "t", "parameters": parameters}})];
        let tools = Tools { list, ..Tools::default() };
        let of = |key| {
            let Kinds { text, other } = tools.kinds("t", key);
            [text, other]
        };
        assert_eq!(of("a"), [true, false]);
        assert_eq!(of("b"), [true, true]);
        assert_eq!(of("c"), [false, true]);
        assert_eq!(of("d"), [true, true]);
        assert_eq!(of("e"), [true, false]);
        for key in ["f", "g", "h"] {
            assert_eq!(of(key), [false, false], "{key}");
        }
        assert_eq!(tools.kinds("u", "a"), Kinds::default());
    }
}
