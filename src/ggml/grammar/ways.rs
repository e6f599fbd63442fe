//! In how many ways a text can be read that fits a JSON schema, as long as it has not ended. libllama's grammars follow all ways at
//! once, and alternatives that begin alike multiply with each level of nesting: three lines of a recursive schema can ask for more
//! ways than memory holds. It counts upwards, and converts nothing. What alternatives begin with is `begin`'s.

mod begin;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use begin::{Look, Shared};

/// The most ways that are followed: each token that may come next is tried in all of them.
const MAX_WAYS: u64 = 1000;

/// The most alternatives of one choice, with those of the choices among them.
const MAX_ALTERNATIVES: usize = 512;

/// How much alternatives are looked at, over all choices: clients may send what they like, and a look takes less than a microsecond.
const MAX_WORK: usize = 500_000;

/// Whether no text that fits `schema`, whose references all lead to its `$defs`, can be read in too many ways at once.
pub(super) fn are_few(schema: &Value) -> bool {
    let none = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    let mut owners = HashMap::new();
    definitions.iter().for_each(|(name, schema)| collect_choices(schema, name, &mut owners));
    let mut counter = Counter {
        definitions,
        reached: reached(definitions),
        owners,
        known: HashMap::new(),
        open: HashSet::new(),
        look: Look::new(definitions, MAX_WORK),
    };
    counter.ways(schema).is_some_and(|ways| ways <= MAX_WAYS)
}

/// Counts the ways through a schema.
struct Counter<'a> {
    definitions: &'a Map<String, Value>,
    /// For each definition, all to which it leads.
    reached: HashMap<&'a str, HashSet<&'a str>>,
    /// The definition in which each choice is, by the address of its list.
    owners: HashMap<*const Value, &'a str>,
    /// The ways through schemas, by their addresses.
    known: HashMap<*const Value, u64>,
    /// References that are being followed.
    open: HashSet<&'a str>,
    look: Look<'a>,
}

impl<'a> Counter<'a> {
    /// The ways through a schema; `None` if they have no end.
    fn ways(&mut self, schema: &'a Value) -> Option<u64> {
        let map = match schema {
            Value::Object(map) => map,
            Value::Array(items) => return self.most(items.iter()),
            _ => return Some(1),
        };
        if let Some(to) = reference(schema) {
            return self.through(to);
        }
        if let Some(&known) = self.known.get(&std::ptr::from_ref(schema)) {
            return Some(known);
        }
        // Alternatives are counted without the references that led to them: one may be what this choice is in. Such a circle adds
        // none, as in `through`; what goes round beside it, `together` has seen.
        self.known.insert(schema, 1);
        let mut most = 1;
        for (name, value) in map {
            let ways = match (name.as_str(), value) {
                // Reached by references only.
                ("$defs", _) => 1,
                ("enum" | "const" | "default" | "examples", _) => 1,
                ("properties" | "patternProperties", Value::Object(named)) => {
                    self.most(named.values())?
                }
                ("anyOf" | "oneOf", Value::Array(items)) => self.choice(value, items)?,
                ("type", Value::Array(names)) if repeats(names) => return None,
                _ => self.ways(value)?,
            };
            most = most.max(ways);
        }
        self.known.insert(schema, most);
        Some(most)
    }

    /// At any time, a text is inside of one of `schemas` only.
    fn most(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Option<u64> {
        let mut most = 1;
        for schema in schemas {
            most = most.max(self.ways(schema)?);
        }
        Some(most)
    }

    /// The ways through a definition.
    fn through(&mut self, name: &'a str) -> Option<u64> {
        // A circle that comes by no choice, or by one way through each, adds none.
        let target = self.definitions.get(name);
        let Some(target) = target.filter(|_| self.open.insert(name)) else { return Some(1) };
        let ways = self.ways(target)?;
        self.open.remove(name);
        Some(ways)
    }

    /// The ways through alternatives: those that begin alike are followed together, until the text tells them apart.
    fn choice(&mut self, list: &'a Value, items: &'a [Value]) -> Option<u64> {
        let mut all = Vec::new();
        for item in items {
            self.look.alternatives(item, MAX_ALTERNATIVES, &mut all);
        }
        if all.len() > MAX_ALTERNATIVES || self.look.is_over() {
            return None;
        }
        // What of each is read while others are followed, too, and a number for those that hang together.
        let mut shared: Vec<Vec<&'a Value>> = vec![Vec::new(); all.len()];
        let mut groups: Vec<usize> = (0..all.len()).collect();
        for i in 0..all.len() {
            for j in 0..i {
                if self.look.is_over() {
                    return None;
                }
                let (of_i, of_j) = match all[i].shares(&all[j], &self.look) {
                    Shared::Nothing => continue,
                    Shared::Parts(of_i, of_j) => (of_i, of_j),
                    Shared::All => (vec![all[i].schema], vec![all[j].schema]),
                };
                add_new(&mut shared[i], of_i);
                add_new(&mut shared[j], of_j);
                let (from, to) = (groups[i], groups[j]);
                groups.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
            }
        }
        let mut most = self.most(items.iter())?;
        let here = self.owners.get(&std::ptr::from_ref(list)).copied();
        for group in 0..all.len() {
            let members = (0..all.len()).filter(|&i| groups[i] == group);
            let members: Vec<&[&'a Value]> = members.map(|i| shared[i].as_slice()).collect();
            most = most.max(self.together(&members, here)?);
        }
        Some(most)
    }

    /// The ways through parts of alternatives that are followed together, of a choice in the definition `here`.
    fn together(&mut self, members: &[&[&'a Value]], here: Option<&str>) -> Option<u64> {
        let reached: Vec<_> = members.iter().map(|parts| self.leads(parts)).collect();
        let back = |reached: &&HashSet<&str>| here.is_some_and(|here| reached.contains(here));
        let circles = reached.iter().filter(back).count();
        // Two that lead back here double with each time round. Of one that does, the others are left behind in each round: if
        // they go round by themselves, that multiplies as well.
        let round = |name: &&str| self.reached.get(name).is_some_and(|all| all.contains(name));
        let mut beside = reached.iter().filter(|reached| !back(reached)).flatten();
        if circles > 1 || circles == 1 && beside.any(round) {
            return None;
        }
        let mut sum = 0_u64;
        for parts in members {
            sum = sum.saturating_add(self.most(parts.iter().copied())?);
        }
        Some(sum)
    }

    /// The definitions to which `parts` lead.
    fn leads(&self, parts: &[&'a Value]) -> HashSet<&'a str> {
        let mut names = HashSet::new();
        parts.iter().for_each(|part| collect_references(part, &mut names));
        let further = names.iter().filter_map(|name| self.reached.get(name)).flatten();
        let further: Vec<&'a str> = further.copied().collect();
        names.extend(further);
        names
    }
}

/// The name of the definition to which `schema` leads, if it is a reference.
fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// For each definition, all to which it leads.
fn reached(definitions: &Map<String, Value>) -> HashMap<&str, HashSet<&str>> {
    let mut direct: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (name, schema) in definitions {
        collect_references(schema, direct.entry(name).or_default());
    }
    let mut reached = HashMap::new();
    for (&name, names) in &direct {
        let mut seen = names.clone();
        let mut next: Vec<&str> = seen.iter().copied().collect();
        while let Some(to) = next.pop() {
            let further = direct.get(to).into_iter().flatten();
            next.extend(further.filter(|&&further| seen.insert(further)));
        }
        reached.insert(name, seen);
    }
    reached
}

/// Notes that all lists of alternatives in `schema` are in the definition `owner`.
fn collect_choices<'a>(
    schema: &Value,
    owner: &'a str,
    owners: &mut HashMap<*const Value, &'a str>,
) {
    match schema {
        Value::Array(items) => {
            owners.insert(schema, owner);
            items.iter().for_each(|item| collect_choices(item, owner, owners));
        }
        Value::Object(map) => map.values().for_each(|value| collect_choices(value, owner, owners)),
        _ => {}
    }
}

/// Adds what is not there yet.
fn add_new<'a>(to: &mut Vec<&'a Value>, parts: Vec<&'a Value>) {
    for part in parts {
        if !to.iter().any(|known| std::ptr::eq(*known, part)) {
            to.push(part);
        }
    }
}

/// The references in `schema`, but for those in its own definitions.
fn collect_references<'a>(schema: &'a Value, names: &mut HashSet<&'a str>) {
    names.extend(reference(schema));
    match schema {
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, names)),
        Value::Object(map) => map
            .iter()
            .filter(|(name, _)| *name != "$defs")
            .for_each(|(_, value)| collect_references(value, names)),
        _ => {}
    }
}

/// Whether a value is in the list twice.
fn repeats(list: &[Value]) -> bool {
    (1..list.len()).any(|i| list[..i].contains(&list[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml::grammar::refs::gathered;
    use serde_json::json;

    fn node(kind: &str) -> Value {
        json!({"type": "object", "properties": {"kind": {"const": kind}, "inner": {"$ref": "#/$defs/node"}},
            "required": ["kind", "inner"]})
    }

    #[test]
    fn ordinary_schemas_have_few_ways() {
        let object = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
        let tree = json!({"type": "object", "properties": {
            "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}});
        let many: Vec<Value> = (0..120).map(|_| object("same")).collect();
        for schema in [
            json!({"type": "string"}),
            json!({"$ref": "#/$defs/tree", "$defs": {"tree": tree}}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [node("add"), node("mul"), {"type": "number"}]}}}),
            json!({"$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [
                {"$ref": "#/$defs/node"}, {"type": "null"}]}}}}, "$ref": "#/$defs/node"}),
            // Pydantic's unions: alike at first, but not in circles.
            json!({"type": "array", "items": {"anyOf": many}}),
            json!({"anyOf": [object("a"), object("b"), {"type": "integer"}, {"type": "null"}]}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
        ] {
            assert!(are_few(&gathered(&schema).unwrap()), "{schema}");
        }
    }

    /// A union called `Expr`, and a text that it is in.
    fn union(alternatives: Value) -> Value {
        json!({"type": "object", "required": ["it"], "properties": {"it": {"$ref": "#/$defs/Expr"}},
            "$defs": {"Expr": {"anyOf": alternatives}}})
    }

    fn object(properties: Value) -> Value {
        let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
        json!({"type": "object", "required": names, "properties": properties})
    }

    #[test]
    fn alternatives_that_differ_before_they_go_round_have_few_ways() {
        let it = || json!({"$ref": "#/$defs/Expr"});
        let (text, list) = (
            || json!({"type": "string"}),
            || json!({"type": "array", "items": {"$ref": "#/$defs/Expr"}}),
        );
        let optional = |properties: Value| json!({"type": "object", "properties": properties});
        let dict = || json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/Expr"}});
        for alternatives in [
            // JSON as Pydantic writes it: whole numbers and others.
            json!([text(), {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"}, list(), dict()]),
            // What tells them apart comes second, by a text or by a key.
            json!([
                object(json!({"id": text(), "op": {"const": "add"}, "left": it(), "right": it()})),
                object(json!({"id": text(), "op": {"enum": ["neg", "not"]}, "of": it()}))
            ]),
            json!([
                object(json!({"name": text(), "left": it()})),
                object(json!({"name": text(), "children": list()})),
                object(json!({"name": text(), "value": text()}))
            ]),
            // The kind of a value tells.
            json!([
                object(json!({"value": {"type": "number"}, "next": it()})),
                object(json!({"value": text(), "next": it()}))
            ]),
            // Keys that may be left out.
            json!([
                optional(json!({"left": it(), "right": it()})),
                optional(json!({"children": list()}))
            ]),
            json!([
                object(json!({"a": text()})),
                optional(json!({"left": it()})),
                optional(json!({"children": list()}))
            ]),
            // Choices among the alternatives, and lists of kinds.
            json!([{"anyOf": [{"type": ["array", "null"], "items": it()}, text()]}, dict()]),
            json!([{"properties": {"left": it()}, "required": ["left"]}, {"items": it()}]),
        ] {
            let schema = union(alternatives);
            assert!(are_few(&gathered(&schema).unwrap()), "{schema}");
        }
        // A kind that is a definition, and a union inside of another.
        let kind = |name: &str, value: &str| json!({name: {"const": value, "type": "string"}});
        let node =
            |kind: &str| object(json!({"kind": {"$ref": format!("#/$defs/{kind}")}, "of": it()}));
        let either = json!({"anyOf": [{"$ref": "#/$defs/Expr"}, list(), {"type": "null"}]});
        let mut schema = union(json!([node("Add"), node("Not"), object(json!({"block": either}))]));
        for part in [kind("Add", "add"), kind("Not", "not")] {
            schema["$defs"].as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        assert!(are_few(&gathered(&schema).unwrap()), "{schema}");
    }

    #[test]
    fn alternatives_that_go_round_before_they_differ_multiply() {
        let it = || json!({"$ref": "#/$defs/Expr"});
        let text = || json!({"type": "string"});
        let list = |of: Value| json!({"type": "array", "items": of});
        let optional = |properties: Value| json!({"type": "object", "properties": properties});
        for alternatives in [
            // What tells them apart comes last.
            json!([
                object(json!({"left": it(), "op": {"const": "add"}})),
                object(json!({"left": it(), "op": {"const": "sub"}}))
            ]),
            json!([
                object(json!({"a": text(), "b": it()})),
                object(json!({"a": text(), "b": it(), "c": text()}))
            ]),
            // The same text fits both.
            json!([
                object(json!({"a": text(), "b": it()})),
                object(json!({"a": {"const": "x"}, "b": it()}))
            ]),
            json!([
                object(json!({"a": {"enum": ["x", "y"]}, "b": it()})),
                object(json!({"a": {"enum": ["y", "z"]}, "b": it()}))
            ]),
            // Keys that may be left out, or may be any.
            json!([
                optional(json!({"a": it(), "b": it()})),
                optional(json!({"b": it(), "c": it()}))
            ]),
            json!([object(json!({"a": it()})), {"type": "object", "additionalProperties": it()}]),
            json!([object(json!({"a": it()})), {"type": "object", "properties": {"b": it()}, "additionalProperties": it()}]),
            // Through a property whose name means something elsewhere.
            json!([object(json!({"default": list(it())})), object(json!({"default": list(it())}))]),
            json!([list(it()), {"anyOf": [list(it()), {"type": "null"}]}]),
            json!([{"type": ["array", "null"], "items": it()}, {"type": ["array", "object"], "items": it()}]),
            json!([list(it()), {"allOf": [list(it())]}]),
        ] {
            let schema = union(alternatives);
            assert!(!are_few(&gathered(&schema).unwrap()), "{schema}");
        }
        // Each list may end and another kind of list begin at any depth: as many ways as there are to choose the depths.
        let defs: Map<String, Value> = (0..9)
            .map(|i| {
                let of = |i: usize| list(json!({"$ref": format!("#/$defs/d{i}")}));
                (format!("d{i}"), json!({"anyOf": [of(i), of((i + 1).min(9))]}))
            })
            .chain([("d9".to_owned(), text())])
            .collect();
        let schema = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert!(!are_few(&gathered(&schema).unwrap()), "{schema}");
    }

    #[test]
    fn choices_among_what_they_are_in_have_few_ways() {
        let (any, it) = (json!({"type": "object"}), json!({"$ref": "#"}));
        let list = |of: Value| json!({"type": "array", "items": of});
        for either in [
            json!([any, it]),
            json!([it, any]),
            json!([any, it, {"type": "null"}]),
            json!([{"type": "unknown"}, it]),
            json!([{}, it]),
            json!([{"anyOf": [any, it]}, {"type": "string"}]),
        ] {
            for schema in [
                json!({"type": "object", "properties": {"next": {"anyOf": either}}}),
                json!({"properties": {"next": {"items": {"oneOf": either}}}}),
                json!({"anyOf": either, "type": "object", "properties": {"a": list(any.clone())}}),
            ] {
                // Whether it is refused is another question than whether it comes to an end.
                let _ = are_few(&gathered(&schema).unwrap());
            }
            let schema = json!({"type": "object", "properties": {"next": {"anyOf": either}}});
            assert!(are_few(&gathered(&schema).unwrap()), "{schema}");
        }
        // By a detour, and two of them.
        let schema = json!({"$ref": "#/$defs/a", "$defs": {
            "a": {"type": "object", "properties": {"x": {"anyOf": [{"$ref": "#/$defs/b"}, any]}}},
            "b": {"type": "object", "properties": {"y": {"anyOf": [any, {"$ref": "#/$defs/a"}]}}}}});
        assert!(are_few(&gathered(&schema).unwrap()), "{schema}");
    }

    #[test]
    fn large_schemas_are_counted_soon() {
        // Each choice is inside of one that is inside of one, and all compare the same large objects.
        let keys: Map<String, Value> =
            (0..100).map(|i| (format!("k{i}"), json!({"type": "string"}))).collect();
        let mut schema = object(keys.into());
        for _ in 0..20 {
            schema = json!({"anyOf": [schema, {"type": "null"}]});
        }
        assert!(are_few(&gathered(&schema).unwrap()));
        // So many pairs of objects with so many keys would take half a minute.
        let keys: Map<String, Value> =
            (0..126).map(|i| (format!("k{i}"), json!({"$ref": "#/$defs/either"}))).collect();
        let many: Vec<Value> = (0..350).map(|_| json!({"$ref": "#/$defs/a"})).collect();
        let schema = json!({"anyOf": many, "$defs": {
            "a": object(keys.into()), "either": {"anyOf": vec![json!({"type": "string"}); 16]}}});
        assert!(!are_few(&gathered(&schema).unwrap()));
    }

    #[test]
    fn ways_that_multiply_are_seen() {
        let list = |to: &str| json!({"type": "array", "items": {"$ref": to}});
        let a = || list("#/$defs/a");
        // No circle, but a doubling in each of forty definitions.
        let defs: serde_json::Map<String, Value> = (0..40)
            .map(|i| {
                let to = format!("#/$defs/d{}", i + 1);
                (format!("d{i}"), json!({"anyOf": [list(&to), list(&to)]}))
            })
            .chain([("d40".to_owned(), json!({"type": "string"}))])
            .collect();
        let optional = json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}});
        for schema in [
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [a(), a()]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"oneOf": [a(), {"anyOf": [a(), {"type": "null"}]}]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [optional, optional]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [
                {"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]}, "b": a()}}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [node("add"), node("add")]}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": ["array", "array"], "items": {"$ref": "#/$defs/a"}}}}),
            json!({"$ref": "#/$defs/d0", "$defs": defs}),
        ] {
            assert!(!are_few(&gathered(&schema).unwrap()), "{schema}");
        }
    }
}
