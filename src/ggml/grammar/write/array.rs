//! Lists: what comes first, one by one, and the others, as many as may be. Lists in which nothing may come twice are written in the order of the values that
//! their items name.

use serde_json::{Map, Value};

use super::members::Members;
use super::{Writer, literal, named};
use crate::ggml::grammar::fits::{fits, same};
use crate::ggml::grammar::loose::Loose;
use crate::ggml::result::Error;

/// The most values of which each may come once.
const MAX_VALUES: usize = 96;

impl Writer<'_> {
    pub(super) fn array(&mut self, map: &Map<String, Value>) -> Result<Option<String>, Error> {
        let count = |key: &str| map.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let (least, mut most) = (count("minItems").unwrap_or(0), count("maxItems"));
        let first = map.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let items = map.get("items");
        self.contains(map);
        if map.get("uniqueItems") == Some(&Value::Bool(true)) && most.is_none_or(|most| most > 1) {
            if first.is_empty()
                && let Some(values) = items.and_then(|items| self.all_values(items, 0))
            {
                let named = values.iter().map(|value| (literal(value), false)).collect();
                return self.brackets(&Members { named, more: None, least, most });
            }
            self.loose.push(Loose::new(map, "uniqueItems", false));
        }
        let mut named = Vec::new();
        for (i, schema) in first.iter().enumerate() {
            if most.is_some_and(|most| i >= most) {
                break;
            }
            match self.schema(schema)? {
                Some(item) => named.push((item, true)),
                None => {
                    most = Some(i);
                    break;
                }
            }
        }
        let is_open = first.is_empty() || least > first.len();
        let more = match items {
            Some(items) => self.schema(items)?,
            None => is_open.then(|| "value".to_owned()),
        };
        if items.is_none() && !first.is_empty() {
            most =
                Some(most.map_or(least.max(first.len()), |most| most.min(least.max(first.len()))));
        }
        if most.is_some_and(|most| most < least) {
            return Ok(None);
        }
        self.brackets(&Members { named, more, least, most })
    }

    fn brackets(&mut self, members: &Members) -> Result<Option<String>, Error> {
        let Some(inner) = self.members(members)? else { return Ok(None) };
        Ok(Some(match inner.trim() {
            "" => self.rule("\"[\" space \"]\""),
            inner => self.rule(&format!("\"[\" space {inner} space \"]\"")),
        }))
    }

    /// `contains` holds where all items are of its kind, and there is one.
    fn contains(&mut self, map: &Map<String, Value>) {
        let Some(schema) = map.get("contains") else { return };
        let number = |key: &str| map.get(key).and_then(Value::as_u64);
        let wanted = number("minContains").unwrap_or(1);
        let has_most = map.contains_key("maxContains");
        let is_any = schema == &Value::Bool(true) || schema.as_object().is_some_and(Map::is_empty);
        let there = number("minItems").unwrap_or(0) >= wanted;
        if wanted == 0 && !has_most
            || !has_most && there && (is_any || map.get("items") == Some(schema))
        {
            return;
        }
        self.leave(map, "contains");
    }

    /// All values that fit a schema, if it names them.
    fn all_values(&self, schema: &Value, depth: usize) -> Option<Vec<Value>> {
        let map = schema.as_object()?;
        if let Some(to) = map.get("$ref").and_then(Value::as_str) {
            let target = self.definitions.get(to.strip_prefix("#/$defs/")?)?;
            return if depth < 16 { self.all_values(target, depth + 1) } else { None };
        }
        let mut all: Vec<Value> = Vec::new();
        let mut add = |value: &Value| {
            if !all.iter().any(|other| same(other, value)) {
                all.push(value.clone());
            }
        };
        if let Some(ways) = map.get("anyOf").and_then(Value::as_array) {
            for way in ways {
                self.all_values(way, depth + 1)?.iter().for_each(&mut add);
            }
        } else if let Some(values) = named(map) {
            let fitting = values.into_iter().filter(|value| fits(value, schema, self.definitions));
            fitting.for_each(&mut add);
        } else {
            match map.get("type")?.as_str()? {
                "boolean" => [true, false].map(Value::Bool).iter().for_each(&mut add),
                "null" => add(&Value::Null),
                _ => return None,
            }
        }
        (all.len() <= MAX_VALUES).then_some(all)
    }
}
