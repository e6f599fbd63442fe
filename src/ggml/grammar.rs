//! JSON schemas to grammars. What a key of a schema asks is in the grammar, or told as loose: none is passed over in silence. Schemas are checked first: what
//! reads them, and libllama's parser of grammars, go as deep as what they are given.

mod automaton;
mod drafts;
mod first;
mod fits;
mod formats;
pub(super) mod gbnf;
mod join;
mod loose;
mod mend;
mod pattern;
mod refs;
mod text;
mod ways;
mod write;

use std::thread;

use serde_json::Value;

use super::result::Error;
pub use loose::Loose;
pub use text::check_grammar_text;

/// The longest schema that is converted. (bytes)
const MAX_LEN: usize = 64 << 10;
/// How deep objects and lists may be nested in it.
const MAX_DEPTH: usize = 48;
/// The most members of an object, each of which may come next while they are optional, and the longest list.
const MAX_MEMBERS: usize = 128;
const MAX_ITEMS: usize = 512;
/// The longest text in it. (bytes)
const MAX_TEXT: usize = 4 << 10;
/// Room for the recursion over a schema. (bytes)
const STACK: usize = 32 << 20;

/// The grammar of what fits a schema.
#[derive(Clone, Debug)]
pub struct SchemaGrammar {
    /// GBNF, its root called `root`.
    pub rules: String,
    /// What of the schema it does not hold answers to.
    pub loose: Vec<Loose>,
}

impl SchemaGrammar {
    /// Itself, for who wants the schema kept in all that counts.
    ///
    /// # Errors
    ///
    /// It asks what a grammar cannot hold an answer to.
    pub fn strictly(self) -> Result<SchemaGrammar, Error> {
        match self.loose.iter().find(|loose| loose.counts()) {
            Some(loose) => Err(invalid(&format!("asks what cannot be enforced: {loose}"))),
            None => Ok(self),
        }
    }

    /// What is told of keys that are not enforced.
    pub fn warnings(&self) -> Vec<String> {
        self.loose
            .iter()
            .map(|loose| format!("the JSON schema's {loose} is not enforced"))
            .collect()
    }
}

/// The grammar of what fits a JSON schema. A schema in it that has an `$id` is a document of its own, in which references begin. Where alternatives could not be
/// told apart soon enough otherwise, keys with named values come first.
///
/// # Errors
///
/// The schema is too large or too deep, refers to what is not inside of it, can be read in too many ways at once, contradicts itself, or has a type that is none.
pub fn grammar_of_schema(schema: &Value) -> Result<SchemaGrammar, Error> {
    super::init();
    length(schema)?;
    check(schema, 0)?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || {
            let gathered = refs::gathered(&loose::placed(schema, ""))?;
            let plain = mend::mended(&join::joined(&gathered)?)?;
            let (rules, loose) = write::written(&legible(plain)?)?;
            Ok(SchemaGrammar { rules, loose })
        });
        let thread = thread.map_err(|_| Error::NoMemory { what: "the schema's grammar" })?;
        thread.join().map_err(|_| invalid("cannot be converted"))?
    })
}

/// A schema whose texts can be read in few ways at any time.
fn legible(schema: Value) -> Result<Value, Error> {
    if ways::are_few(&schema) {
        return Ok(schema);
    }
    let named = first::named_first(&schema);
    if ways::are_few(&named) {
        return Ok(named);
    }
    Err(invalid("can be read in too many ways: its alternatives begin alike"))
}

fn length(schema: &Value) -> Result<(), Error> {
    if schema.to_string().len() > MAX_LEN { Err(invalid("is too long")) } else { Ok(()) }
}

fn invalid(why: &str) -> Error {
    Error::Invalid(format!("the JSON schema {why}"))
}

fn check(schema: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid("is nested too deeply"));
    }
    match schema {
        Value::String(text) => check_text(text),
        Value::Array(items) if items.len() > MAX_ITEMS => Err(invalid("has too long a list")),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth + 1)),
        Value::Object(map) if map.len() > MAX_MEMBERS => Err(invalid("has too many members")),
        Value::Object(map) => map.iter().try_for_each(|(name, value)| {
            check_text(name)?;
            check(value, depth + 1)
        }),
        _ => Ok(()),
    }
}

fn check_text(text: &str) -> Result<(), Error> {
    if text.len() > MAX_TEXT {
        return Err(invalid("has too long a text"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_become_grammars() {
        let schema =
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
        let grammar = grammar_of_schema(&schema).unwrap().rules;
        assert!(grammar.contains("root ::="), "{grammar}");
    }

    #[test]
    fn ordinary_schemas_pass() {
        for schema in [
            json!({"type": "string", "pattern": r"^[A-Z][a-z]{1,20} [A-Z][a-z]+$"}),
            json!({"type": "string", "pattern": r"^([0-9]{3})-(ab)+[(*)]\)*$"}),
            json!({"type": "string", "pattern": r"^\p{L}+$"}),
            json!({"type": "string", "pattern": "^((((a*)*)*)*)*b$"}),
            json!({"type": "object", "properties": {"": {"type": "integer"}, "a": true}, "required": [""]}),
            json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 9_007_199_254_740_991_i64}),
            json!({"type": "array", "items": true, "maxItems": 2}),
            json!(true),
            json!({"const": {"pattern": "((a*)*)*", "minItems": 5, "maxItems": 2}}),
        ] {
            grammar_of_schema(&schema).unwrap_or_else(|e| panic!("{schema}: {e}"));
        }
    }

    /// libllama writes out each repetition that a grammar has, at some 400 bytes each time.
    #[test]
    fn long_texts_and_lists_take_little_room() {
        let members: Value = (0..100)
            .map(|i| (format!("p{i}"), json!({"type": "string", "maxLength": 900_000 - i})))
            .collect();
        // A thousand different numbers, each of which would be written out.
        let each = |from: usize, step: usize, schema: &dyn Fn(usize) -> Value| -> Value {
            let group = |i: usize| -> Value {
                let members: Value = (0..100)
                    .map(|j| (format!("p{j}"), schema(from + step * (100 * i + j))))
                    .collect();
                json!({"type": "object", "properties": members})
            };
            let groups: Value = (0..10).map(|i| (format!("q{i}"), group(i))).collect();
            json!({"type": "object", "properties": groups})
        };
        let text = |n| json!({"type": "string", "maxLength": n});
        let list = |n| json!({"type": "array", "items": {"type": "null"}, "maxItems": n});
        for (schema, most) in [
            (each(100, 1, &text), 40_000),
            (each(1000, 97, &text), 150_000),
            (each(100, 1, &list), 40_000),
            (json!({"type": "string", "maxLength": 1_000_000}), 4_000),
            (json!({"type": "string", "minLength": 999_999, "maxLength": 1_999_999}), 8_000),
            (json!({"type": "array", "items": {"type": "integer"}, "maxItems": 1_000_000}), 4_000),
            (json!({"type": "object", "properties": members}), 200_000),
        ] {
            let rules = grammar_of_schema(&schema).unwrap().rules;
            let times = rules.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
            let last = |(times, _): (&str, &str)| times.rsplit(',').next()?.parse::<usize>().ok();
            let all: usize = times.filter_map(last).sum();
            assert!(all + rules.lines().count() < most, "{all}: {:.80}", schema.to_string());
        }
    }

    #[test]
    fn hostile_schemas_are_refused() {
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({"items": deep, "type": "array"});
        }
        let many: Value = (0..2000).map(|i| (format!("p{i}"), json!({}))).collect();
        for schema in [
            deep,
            json!({"properties": many}),
            json!({"type": "string", "pattern": format!("^{}$", "(".repeat(4000))}),
            json!({"type": "string", "pattern": "^(a?){0,2000}$"}),
            json!({"type": "string", "pattern": "^a{5,2}$"}),
            json!({"type": "array", "minItems": 5, "maxItems": 2}),
            json!({"type": "string", "minLength": 50, "maxLength": 2}),
            json!({"type": "string", "pattern": "a.{40}$"}),
            json!({"type": "nonsense"}),
            json!({"const": "x".repeat(100_000)}),
            json!({"$ref": "#/nowhere/at/all"}),
            json!({"$ref": "#"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"anyOf": [{"type": "null"}, {"$ref": "#"}]}),
        ] {
            assert!(grammar_of_schema(&schema).is_err(), "{:.80}", schema.to_string());
        }
    }
}
