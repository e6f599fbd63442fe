//! Objects: their properties in the schema's order, then others whose names are not among them.

use serde_json::{Map, Value};

use super::members::Members;
use super::text::Texts;
use super::{Writer, quoted};
use crate::ggml::grammar::fits::fits;
use crate::ggml::grammar::pattern::{self, Whole};
use crate::ggml::result::Error;

/// The most patterns of names.
const MAX_PATTERNS: usize = 8;

impl Writer<'_> {
    pub(super) fn object(&mut self, map: &Map<String, Value>) -> Result<Option<String>, Error> {
        let none = Map::new();
        let of = |key: &str| map.get(key).and_then(Value::as_object).unwrap_or(&none);
        let (properties, patterns) = (of("properties"), of("patternProperties"));
        let required = map.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_required = |name: &str| required.iter().any(|key| key == name);
        let names = map.get("propertyNames");
        let may_be = |name: &str, writer: &Self| {
            names.is_none_or(|names| fits(&Value::from(name), names, writer.definitions))
        };
        self.dependents(map, properties);
        let mut named = Vec::new();
        let own = properties.iter().map(|(name, schema)| (name.as_str(), Some(schema)));
        // What must be there and is no property is one of the others.
        let others = required.iter().filter_map(Value::as_str);
        let others = others.filter(|name| !properties.contains_key(*name));
        let other = map.get("additionalProperties");
        let any = Value::Bool(true);
        for (name, schema) in own.chain(others.map(|name| (name, None))) {
            let schema = schema.or(other).unwrap_or(&any);
            let value = if may_be(name, self) { self.schema(schema)? } else { None };
            match value {
                Some(value) => {
                    let key = quoted(&Value::from(name).to_string());
                    let one = self.rule(&format!("{key} space \":\" space {value}"));
                    named.push((one, is_required(name)));
                }
                None if is_required(name) => return Ok(None),
                None => {}
            }
        }
        let is_open = properties.is_empty() && patterns.is_empty();
        let more = match other {
            Some(Value::Bool(false)) => None,
            Some(schema) => Some(schema),
            None => is_open.then_some(&any),
        };
        let mut taken: Vec<&str> = properties.keys().map(String::as_str).collect();
        taken.extend(required.iter().filter_map(Value::as_str));
        let more = self.others(map, patterns, more, &taken)?;
        let count = |key: &str| map.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let (least, most) = (count("minProperties").unwrap_or(0), count("maxProperties"));
        if named.is_empty()
            && more.as_deref() == Some("string \":\" space value")
            && least == 0
            && most.is_none()
        {
            return Ok(Some("object".to_owned()));
        }
        // Of names that may be any, two may be the same.
        let n_required = named.iter().filter(|(_, required)| *required).count();
        if more.is_some() && least > n_required + 1 {
            self.leave(map, "minProperties");
        }
        let least = if least <= n_required { 0 } else { least };
        let most = most.filter(|most| more.is_some() || *most < named.len());
        let members = Members { named, more, least, most };
        let Some(inner) = self.members(&members)? else { return Ok(None) };
        Ok(Some(match inner.trim() {
            "" => self.rule("\"{\" space \"}\""),
            inner => self.rule(&format!("\"{{\" space {inner} space \"}}\"")),
        }))
    }

    /// Names with values that are no properties.
    fn others(
        &mut self,
        map: &Map<String, Value>,
        patterns: &Map<String, Value>,
        more: Option<&Value>,
        taken: &[&str],
    ) -> Result<Option<String>, Error> {
        let mut wholes: Vec<Vec<Whole>> = Vec::new();
        let mut schemas = Vec::new();
        for (text, schema) in patterns {
            match pattern::parsed(text)? {
                Some(all) if wholes.len() < MAX_PATTERNS && all.len() == 1 => {
                    wholes.push(all);
                    schemas.push(schema);
                }
                _ => self.leave(map, "patternProperties"),
            }
        }
        let mut texts = Texts::default();
        if let Some(names) = map.get("propertyNames") {
            match self.texts_of(names, 0)? {
                Some(all) => texts = all,
                None if *names == Value::Bool(false) => return Ok(None),
                None => self.leave(map, "propertyNames"),
            }
        }
        if !taken.is_empty() {
            texts.wholes.push(pattern::none_of(taken.iter().copied()));
        }
        let mut ways = Vec::new();
        let all = schemas.into_iter().map(Some).chain([None]);
        for (i, schema) in all.enumerate() {
            let Some(schema) = schema.or(more) else { continue };
            let Some(value) = self.schema(schema)? else { continue };
            let mut texts = texts.clone();
            for (j, whole) in wholes.iter().enumerate() {
                texts
                    .wholes
                    .extend(whole.iter().map(|whole| Whole { fits: i == j, ..whole.clone() }));
            }
            let key = self.name(map, &texts)?;
            ways.extend(key.map(|key| format!("{key} \":\" space {value}")));
        }
        Ok(match ways.len() {
            0 => None,
            1 => ways.pop(),
            _ => Some(self.rule(&ways.join(" | "))),
        })
    }

    /// The rule of names.
    fn name(&mut self, map: &Map<String, Value>, texts: &Texts) -> Result<Option<String>, Error> {
        match self.texts(texts) {
            Ok(key) => Ok(key),
            Err(_) if map.contains_key("propertyNames") => {
                self.leave(map, "propertyNames");
                Ok(Some("string".to_owned()))
            }
            Err(_) => Err(pattern::wrong("can be read in too many ways")),
        }
    }

    /// What must be there if something else is holds where that is never there, or what must be there always is.
    fn dependents(&mut self, map: &Map<String, Value>, properties: &Map<String, Value>) {
        let required = map.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_closed = !properties.is_empty()
            && map.get("additionalProperties").is_none_or(|more| *more == false)
            && map.get("patternProperties").is_none();
        for key in ["dependentRequired", "dependentSchemas"] {
            let Some(Value::Object(all)) = map.get(key) else { continue };
            let is_kept = |(name, needs): (&String, &Value)| {
                let never = is_closed && !properties.contains_key(name);
                let needs = needs.as_array();
                never || needs.is_some_and(|needs| needs.iter().all(|one| required.contains(one)))
            };
            if !all.iter().all(is_kept) {
                self.leave(map, key);
            }
        }
    }
}
