//! Grammars (GBNF) of what fits a schema that `join` and `mend` have made plain: every key of it that speaks of values is in the grammar, or among what is told
//! as loose. It writes a rule for each thing once, and reads no schema twice.

mod array;
mod members;
mod number;
mod object;
mod text;
mod union;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::fits::{fits, is, same};
use super::invalid;
use super::join::{self, LOST};
use super::loose::Loose;
use crate::ggml::result::Error;

/// The longest grammar. (bytes)
const MAX_RULES: usize = 8 << 20;

/// Values of any kind. A character is one of Unicode, so that lengths count, and an exponent leaves a number that can be read.
const PLAIN: &str = r#"
space ::= | " " | "\n"{1,2} [ \t]{0,20}
value ::= object | array | string | number | boolean | null
object ::= "{" space ( string ":" space value ("," space string ":" space value)* )? space "}"
array ::= "[" space ( value ("," space value)* )? space "]"
string ::= "\"" char* "\""
char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" unicode)
unicode ::= [0-9a-cA-CefEF] hex hex hex | [dD] ([0-7] hex hex | [89abAB] hex hex "\\u" [dD] [c-fC-F] hex hex)
hex ::= [0-9a-fA-F]
integral ::= "0" | [1-9] [0-9]{0,15}
number ::= "-"? integral ("." [0-9]{1,16})? ([eE] [-+]? "0"? [0-9] [0-9]?)?
integer ::= "-"? integral
boolean ::= "true" | "false"
null ::= "null"
"#;

/// The kinds of values, and the keys that speak of each.
const KINDS: [(&str, &[&str]); 7] = [
    (
        "object",
        &[
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
        ],
    ),
    ("array", &["items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"]),
    ("string", &["pattern", "minLength", "maxLength"]),
    ("number", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
    ("integer", &[]),
    ("boolean", &[]),
    ("null", &[]),
];

/// The grammar of what fits `schema`, and what of it could not be kept.
///
/// # Errors
///
/// Nothing fits it, or it would take too many rules.
pub(super) fn written(schema: &Value) -> Result<(String, Vec<Loose>), Error> {
    let none = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    goes_on(definitions)?;
    let mut writer = Writer::new(definitions);
    let root = writer.schema(schema)?.ok_or_else(|| invalid("fits nothing"))?;
    while let Some(name) = writer.open.pop() {
        let rule = writer.schema(&definitions[name])?;
        let rule = rule.ok_or_else(|| invalid("refers to what nothing fits"))?;
        let _ = writeln!(writer.text, "d-{name} ::= {rule}");
    }
    let mut loose = writer.loose;
    let mut told = Vec::new();
    loose.retain(|one| {
        !told.contains(one) && {
            told.push(one.clone());
            true
        }
    });
    Ok((format!("root ::= {root}\n{}{}", writer.text, PLAIN.trim_start()), loose))
}

/// Definitions that come to themselves before they say anything would be read for ever.
///
/// # Errors
///
/// One does.
fn goes_on(definitions: &Map<String, Value>) -> Result<(), Error> {
    // Those that come to an end, found from the ends.
    let mut good: HashSet<&str> = HashSet::new();
    loop {
        let before = good.len();
        for (name, schema) in definitions {
            let mut at_once = Vec::new();
            alike(schema, &mut at_once);
            if at_once.iter().all(|to| good.contains(to) || !definitions.contains_key(*to)) {
                good.insert(name);
            }
        }
        if good.len() == definitions.len() {
            return Ok(());
        }
        if good.len() == before {
            return Err(invalid("refers to itself before it says anything"));
        }
    }
}

/// The definitions that what fits a schema may have to fit, too, from its first character on.
fn alike<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    let to = schema.get("$ref").and_then(Value::as_str);
    if let Some(to) = to {
        found.extend(to.strip_prefix("#/$defs/"));
        return;
    }
    for ways in ["anyOf", "oneOf"].iter().filter_map(|key| schema.get(key)?.as_array()) {
        ways.iter().for_each(|way| alike(way, found));
    }
}

struct Writer<'a> {
    definitions: &'a Map<String, Value>,
    text: String,
    /// The names of rules that are written.
    named: HashMap<String, String>,
    /// Texts' rules, by what they must fit.
    texts: HashMap<String, Option<String>>,
    /// Repetitions that may be left out and are left to libllama to write out.
    n_written_out: usize,
    /// For a rule, the rules of up to one of it, up to two, and so on.
    ladders: HashMap<String, Vec<String>>,
    /// Definitions that are referred to, and those among them that are still to be written.
    known: HashSet<&'a str>,
    open: Vec<&'a str>,
    loose: Vec<Loose>,
}

impl<'a> Writer<'a> {
    fn new(definitions: &'a Map<String, Value>) -> Writer<'a> {
        Writer {
            definitions,
            text: String::new(),
            named: HashMap::new(),
            texts: HashMap::new(),
            n_written_out: 0,
            ladders: HashMap::new(),
            known: HashSet::new(),
            open: Vec::new(),
            loose: Vec::new(),
        }
    }

    /// A rule that says `body`.
    fn rule(&mut self, body: &str) -> String {
        if let Some(name) = self.named.get(body) {
            return name.clone();
        }
        let name = format!("r{}", self.named.len());
        let _ = writeln!(self.text, "{name} ::= {body}");
        self.named.insert(body.to_owned(), name.clone());
        name
    }

    fn leave(&mut self, map: &Map<String, Value>, key: &str) {
        self.loose.push(Loose::new(map, key, true));
    }

    /// The expression of what fits a schema; `None` if nothing does.
    fn schema(&mut self, schema: &Value) -> Result<Option<String>, Error> {
        if self.text.len() > MAX_RULES {
            return Err(invalid("needs too many rules"));
        }
        let Value::Object(map) = schema else {
            return Ok((*schema != Value::Bool(false)).then(|| "value".to_owned()));
        };
        if let Some(to) = map.get("$ref").and_then(Value::as_str) {
            return self.reference(to).map(Some);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(ways)) = map.get(key) {
                return self.union(map, key, ways);
            }
        }
        for key in map.get(LOST).and_then(Value::as_array).into_iter().flatten() {
            self.leave(map, key.as_str().unwrap_or_default());
        }
        for key in ["not", "$dynamicRef", "$recursiveRef"] {
            if map.contains_key(key) && !self.is_kept(map, key) {
                self.leave(map, key);
            }
        }
        if map.contains_key("if") && (map.contains_key("then") || map.contains_key("else")) {
            self.leave(map, "if");
        }
        if let Some(values) = named(map) {
            return Ok(self.values(map, values));
        }
        if map.get("format").is_some() {
            self.look_at_format(map);
        }
        let kinds = kinds(map)?;
        let is_spoken_of = |keys: &[&str]| keys.iter().any(|key| map.contains_key(*key));
        if kinds.len() == KINDS.len() && !KINDS.iter().any(|(_, keys)| is_spoken_of(keys)) {
            return Ok(Some("value".to_owned()));
        }
        let mut ways = Vec::new();
        for kind in kinds {
            ways.extend(self.kind(map, kind)?);
        }
        Ok(match ways.len() {
            0 => None,
            1 => ways.pop(),
            _ => Some(self.rule(&ways.join(" | "))),
        })
    }

    /// Values of one kind.
    fn kind(&mut self, map: &Map<String, Value>, kind: &str) -> Result<Option<String>, Error> {
        match kind {
            "object" => self.object(map),
            "array" => self.array(map),
            "string" => self.string(map),
            "number" | "integer" => {
                let whole = kind == "integer";
                let limits = number::Limits::of(map, whole)?;
                if limits.are_none() {
                    return Ok(Some(kind.to_owned()));
                }
                if let Ok(rule) = self.number(&limits) {
                    return Ok(rule);
                }
                self.leave(map, "multipleOf");
                let limits = limits.without_step();
                if limits.are_none() {
                    return Ok(Some(kind.to_owned()));
                }
                self.number(&limits).map_err(|()| invalid("has bounds of too many digits"))
            }
            plain => Ok(Some(plain.to_owned())),
        }
    }

    fn reference(&mut self, to: &str) -> Result<String, Error> {
        let name = to.strip_prefix("#/$defs/").unwrap_or_default();
        let found = self.definitions.get_key_value(name);
        let (name, _) = found.ok_or_else(|| invalid("refers to nothing"))?;
        if self.known.insert(name) {
            self.open.push(name);
        }
        Ok(format!("d-{name}"))
    }

    /// Values that are named, if all else that is said of them holds.
    fn values(&mut self, map: &Map<String, Value>, values: Vec<&Value>) -> Option<String> {
        let rest = Value::Object(map.clone());
        let mut fitting: Vec<&Value> = Vec::new();
        for value in values {
            if fits(value, &rest, self.definitions) && !fitting.iter().any(|one| same(one, value)) {
                fitting.push(value);
            }
        }
        let all: Vec<String> = fitting.iter().map(|value| literal(value)).collect();
        match all.len() {
            0 => None,
            1 => all.into_iter().next(),
            _ => Some(self.rule(&all.join(" | "))),
        }
    }

    /// Whether what a key says is held to in any case.
    fn is_kept(&self, map: &Map<String, Value>, key: &str) -> bool {
        // Of values that are named, and of kinds, only those are left that fit.
        key == "not" && (named(map).is_some() || excluded(map).is_some())
    }
}

/// The values that a schema names.
fn named(map: &Map<String, Value>) -> Option<Vec<&Value>> {
    let one = map.get("const").map(|value| vec![value]);
    one.or_else(|| Some(map.get("enum")?.as_array()?.iter().collect()))
}

/// The kinds that `not` excludes, if it does nothing else.
fn excluded(map: &Map<String, Value>) -> Option<Vec<&str>> {
    let not = map.get("not")?.as_object()?;
    let other = |key: &String| key != "type" && !join::is_note(key);
    if not.keys().any(other) {
        return None;
    }
    let kinds = match not.get("type") {
        None => KINDS.iter().map(|(kind, _)| *kind).collect(),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        Some(kind) => vec![kind.as_str()?],
    };
    // Numbers that are not whole are no kind.
    let numbers = kinds.contains(&"number") || !kinds.contains(&"integer");
    numbers.then_some(kinds)
}

/// The kinds of values that may fit a schema: those that it names, or those that it speaks of.
fn kinds(map: &Map<String, Value>) -> Result<Vec<&'static str>, Error> {
    let all = || KINDS.iter().map(|(kind, _)| *kind);
    let mut kinds: Vec<&str> = match map.get("type") {
        Some(Value::String(name)) => vec![known(name)?],
        Some(Value::Array(names)) if !names.is_empty() => {
            let name = |name: &Value| known(name.as_str().unwrap_or_default());
            names.iter().map(name).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(invalid("has a 'type' that is none")),
        None => {
            let has = |keys: &[&str]| keys.iter().any(|key| map.contains_key(*key));
            let mut spoken: Vec<_> =
                KINDS.iter().filter(|(_, keys)| has(keys)).map(|(kind, _)| *kind).collect();
            if text::has_pattern(map) && !spoken.contains(&"string") {
                spoken.push("string");
            }
            if spoken.is_empty() { all().collect() } else { spoken }
        }
    };
    if let Some(not) = excluded(map) {
        let is_any = kinds.len() == KINDS.len();
        kinds.retain(|kind| !(not.contains(kind) || *kind == "integer" && not.contains(&"number")));
        // Each of them by itself.
        if is_any && !not.is_empty() && kinds.contains(&"number") {
            kinds.retain(|kind| *kind != "integer");
        }
    } else if kinds.contains(&"number") && kinds.len() < KINDS.len() {
        kinds.retain(|kind| *kind != "integer");
    }
    let mut once = Vec::new();
    kinds.retain(|kind| {
        !once.contains(kind) && {
            once.push(*kind);
            true
        }
    });
    Ok(kinds)
}

fn known(name: &str) -> Result<&'static str, Error> {
    let found = KINDS.iter().find(|(kind, _)| *kind == name).map(|(kind, _)| *kind);
    found.ok_or_else(|| invalid(&format!("has a 'type' that is none: '{name:.80}'")))
}

/// The expression of one value.
fn literal(value: &Value) -> String {
    quoted(&value.to_string())
}

/// The expression of a text.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether all values that `a` names are of one of the kinds that `b` is for.
fn all_are(values: &[&Value], kinds: &[&str]) -> bool {
    values.iter().all(|value| kinds.iter().any(|kind| is(value, kind)))
}
