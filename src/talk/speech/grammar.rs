//! Grammars: an answer that calls a tool in the model's own form, or fits a format, after the thought that the model may have.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::dialect::Dialect;
use super::forms::{
    BARE, BARE_PYTHON, CHANNEL, Form, Given, HEAD_END, Pattern, START, Step, THOUGHTS, Tags,
};
use crate::ggml::grammar_of_schema;
use crate::talk::tools::{Kinds, Tools};

/// The rule that an answer must fit.
pub const ROOT: &str = "airrun-answer";

/// Rules under names of their own.
#[derive(Default)]
struct Rules {
    text: String,
    n: usize,
    /// Whether the tool that is written wants its schema kept, and what is not kept of any.
    strict: bool,
    loose: Vec<String>,
}

/// What the answer begins with.
pub struct Opening<'a> {
    /// What ends the thought that the prompt has opened.
    pub thought: Option<&'a str>,
    /// Whether the model is not to think.
    pub quiet: bool,
}

/// The grammar of an answer that fits `rules` (whose root is `root`) after its thought; None where there can be none.
pub fn after_thought(
    dialect: &Dialect,
    opening: &Opening<'_>,
    rules: &str,
    root: &str,
) -> Option<String> {
    let mut all = Rules::default();
    let before = all.thought(dialect, opening);
    let head = if dialect.channels && opening.thought.is_none() {
        let json = format!("(\" \"? {} \"json\")?", quoted("<|constrain|>"));
        format!("{} {json} {}", quoted(&format!("{CHANNEL}final")), quoted(HEAD_END))
    } else {
        String::new()
    };
    if before.is_empty() && head.is_empty() {
        return None;
    }
    let _ = writeln!(all.text, "{ROOT} ::= {before} {head} {}", prefixed(root, "f-"));
    Some(all.text + &prefixed(rules, "f-") + "\n")
}

/// The grammar of an answer that calls one of `tools`, and what they ask of their parameters that it does not hold an answer to.
///
/// # Errors
/// A schema of parameters that cannot be one.
pub fn call(
    dialect: &Dialect,
    opening: &Opening<'_>,
    tools: &Tools,
) -> Result<(String, Vec<String>), String> {
    // One that wants its schema kept is enough: the rules are those of all.
    let strict = tools.list.iter().any(|tool| tool["function"]["strict"] == true);
    let mut all = Rules { strict, ..Rules::default() };
    let before = all.thought(dialect, opening);
    let call = if dialect.channels && dialect.taught.is_none() {
        let mut ways = Vec::new();
        for tool in &tools.list {
            let name = tool["function"]["name"].as_str().unwrap_or_default();
            let head =
                format!("{CHANNEL}commentary to=functions.{name} <|constrain|>json{HEAD_END}");
            let given = all.schema(&parameters(tool))?;
            ways.push(format!("{} {given}", quoted(&head)));
        }
        ways.join(" | ")
    } else {
        let (form, steps): (&Form, Pattern) = match dialect.taught {
            Some((form, call)) if form.open != "<|python_tag|>" => (form, call.steps),
            _ if dialect.bare_python => (&BARE_PYTHON, BARE_PYTHON.calls[0].steps),
            _ => (&BARE, BARE.calls[0].steps),
        };
        all.form(dialect, form, steps, tools)?
    };
    let _ = writeln!(all.text, "{ROOT} ::= {before} ({call})");
    Ok((all.text, all.loose))
}

impl Rules {
    fn name(&mut self) -> String {
        self.n += 1;
        format!("airrun-{}", self.n)
    }

    /// What an answer may begin with.
    fn thought(&mut self, dialect: &Dialect, opening: &Opening<'_>) -> String {
        let blank = "[ \\n]? [ \\n]?";
        if let Some(end) = opening.thought {
            let rest = self.until(end);
            return format!("{rest} {blank}");
        }
        if dialect.channels && dialect.taught.is_none() {
            let rest = self.until("<|end|>");
            let head = quoted(&format!("{CHANNEL}analysis{HEAD_END}"));
            return format!("({head} {rest} {})?", quoted(&format!("{START}assistant")));
        }
        match dialect.first_thought().filter(|_| !opening.quiet) {
            Some(i) => {
                let [open, close] = THOUGHTS[i];
                let rest = self.until(close);
                format!("({} {rest} {blank})?", quoted(open))
            }
            None => String::new(),
        }
    }

    /// Any text up to `end`, and that.
    fn until(&mut self, end: &str) -> String {
        let name = self.name();
        let end: Vec<char> = end.chars().collect();
        // How much of the end is there once `c` comes after so much of it.
        let then = |had: usize, c: char| {
            let mut text: Vec<char> = end[..had].to_vec();
            text.push(c);
            (0..=text.len())
                .rev()
                .find(|&n| n <= end.len() && text.ends_with(&end[..n]))
                .unwrap_or(0)
        };
        for had in 0..end.len() {
            let mut known: Vec<char> = end[..=had].to_vec();
            known.sort_unstable();
            known.dedup();
            let mut ways = Vec::new();
            for &c in known.iter().filter(|&&c| then(had, c) > 0) {
                let next = then(had, c);
                let rest = if next == end.len() { String::new() } else { format!("{name}-{next}") };
                ways.push(format!("{} {rest}", quoted(&c.to_string())));
            }
            known.retain(|&c| then(had, c) > 0);
            let class: String = known.iter().map(|&c| format!("\\U{:08X}", u32::from(c))).collect();
            let _ =
                writeln!(self.text, "{name}-{had} ::= {} | [^{class}] {name}-0", ways.join(" | "));
        }
        format!("{name}-0")
    }

    /// What fits `schema`.
    fn schema(&mut self, schema: &Value) -> Result<String, String> {
        let mut made = grammar_of_schema(schema).map_err(|error| error.to_string())?;
        if self.strict {
            made = made.strictly().map_err(|error| error.to_string())?;
        }
        for one in made.warnings() {
            if !self.loose.contains(&one) {
                self.loose.push(one);
            }
        }
        let prefix = format!("s{}-", self.n);
        self.n += 1;
        self.text += &prefixed(&made.rules, &prefix);
        self.text.push('\n');
        Ok(format!("{prefix}root"))
    }

    /// A call in `form`.
    fn form(
        &mut self,
        dialect: &Dialect,
        form: &'static Form,
        steps: Pattern,
        tools: &Tools,
    ) -> Result<String, String> {
        let lines = form.open.contains("ML\u{ff5c}")
            || form.open.starts_with(']')
            || form.open[form.open.len().min(1)..].starts_with(|c: char| c.is_ascii_lowercase());
        let line = if lines && !form.within { "\"\\n\"" } else { "" };
        let is_list = !lines && form.close.first().is_none_or(|close| *close != "<|message_sep|>");
        let whole = steps == [Step::Given(Given::Whole)];
        let call = if whole {
            let schema = self.schema(&objects(dialect, form, tools))?;
            match is_list && !form.open.is_empty() {
                true => format!("\"[\" {schema} \"]\""),
                false => schema,
            }
        } else {
            let mut ways = Vec::new();
            for tool in &tools.list {
                ways.push(self.steps(steps, tool, tools, line)?);
            }
            let ways = format!("({})", ways.join(" | "));
            let brackets = matches!(steps.last(), Some(Step::Given(Given::Python)));
            if brackets { format!("\"[\" {ways} \"]\"") } else { ways }
        };
        let (fence, unfence) = match form.open {
            "Action:" => ("\" ```json\\n\"", "\"\\n\""),
            _ => ("", ""),
        };
        let open =
            if form.within || form.open.is_empty() { String::new() } else { quoted(form.open) };
        let close = form.close.first().map_or(String::new(), |close| quoted(close));
        Ok(format!("{open} {line} {fence} {call} {unfence} {line} {close}"))
    }

    fn steps(
        &mut self,
        steps: Pattern,
        tool: &Value,
        tools: &Tools,
        line: &str,
    ) -> Result<String, String> {
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        let mut out = String::new();
        for step in steps {
            let part = match step {
                Step::Lit("```json") => "\"\\n```json\\n\"".to_owned(),
                Step::Lit("```") => "\"\\n```\"".to_owned(),
                Step::Lit(text) | Step::Maybe(text) | Step::Past(text) => quoted(text),
                Step::Name => quoted(name),
                Step::Id => "[a-zA-Z0-9] ".repeat(9),
                Step::NameAndId => format!("{} [0-9]", quoted(&format!("functions.{name}:"))),
                Step::Given(Given::Json | Given::Whole) => self.schema(&parameters(tool))?,
                Step::Given(Given::Tagged(tags)) => self.tagged(tags, tool, tools, line)?,
                Step::Given(Given::Braces(quote)) => {
                    let members = self.members(tool, ":", &mut |rules, schema, kinds| {
                        if kinds.text && !kinds.other {
                            let rest = rules.until(quote);
                            return Ok(format!("{} {rest}", quoted(quote)));
                        }
                        rules.schema(schema)
                    })?;
                    format!("\"{{\" {members} \"}}\"")
                }
                Step::Given(Given::Python) => {
                    let members =
                        self.members(tool, "=", &mut |rules, schema, _| rules.schema(schema))?;
                    format!("\"(\" {members} \")\"")
                }
            };
            let _ = write!(out, " {part}");
        }
        Ok(out)
    }

    /// The parameters that must be there, or all, if none must.
    fn members(
        &mut self,
        tool: &Value,
        colon: &str,
        value: &mut dyn FnMut(&mut Rules, &Value, Kinds) -> Result<String, String>,
    ) -> Result<String, String> {
        let parameters = parameters(tool);
        let (properties, required) = properties(&parameters);
        let all =
            properties.iter().filter(|(key, _)| required.is_empty() || required.contains(key));
        let mut parts = Vec::new();
        let tools = Tools { list: vec![tool.clone()], ..Tools::default() };
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        for (key, schema) in all {
            let kinds = tools.kinds(name, key);
            let value = value(self, schema, kinds)?;
            parts.push(format!("{} {value}", quoted(&format!("{key}{colon}"))));
        }
        Ok(parts.join(" \",\" \" \"? "))
    }

    fn tagged(
        &mut self,
        tags: &Tags,
        tool: &Value,
        tools: &Tools,
        line: &str,
    ) -> Result<String, String> {
        let parameters = parameters(tool);
        let (properties, required) = properties(&parameters);
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        let wrap = if tags.open == "<parameter=" { line } else { "" };
        let mut out = line.to_owned();
        for (key, schema) in &properties {
            let kinds = tools.kinds(name, key);
            let is_text = kinds.text && !kinds.other;
            let attribute = match tags.open {
                open if open.contains("ML\u{ff5c}") => format!(" string=\"{is_text}\""),
                open if open.starts_with("<|open|>") && is_text => " type=\"string\"".to_owned(),
                open if open.starts_with("<|open|>") => " type=\"object\"".to_owned(),
                _ => String::new(),
            };
            let between = if tags.value.starts_with("<arg") { line } else { "" };
            let close = tags.close.replace("{}", key);
            let refers = schema.to_string().contains("\"$ref\"");
            let value = if kinds.text || refers || !kinds.other {
                let end = if wrap.is_empty() { close } else { format!("\n{close}") };
                self.until(&end)
            } else {
                format!("{} {wrap} {}", self.schema(schema)?, quoted(&close))
            };
            let begin = quoted(&format!("{}{key}{}", tags.open, tags.key_end));
            let attribute = quoted(&format!("{attribute}{}", tags.value));
            let one = format!("{begin} {between} {attribute} {wrap} {value} {line}");
            let must = required.contains(key);
            let _ = write!(out, " ({one}){}", if must { "" } else { "?" });
        }
        Ok(out)
    }
}

/// The calls of all tools as objects.
fn objects(dialect: &Dialect, form: &Form, tools: &Tools) -> Value {
    let one = |tool: &Value| {
        let name = tool["function"]["name"].as_str().unwrap_or_default();
        let (named, given) = match form.open {
            "<|tools_prefix|>" => {
                return json!({"type": "object", "properties": {name: parameters(tool)}, "required": [name]});
            }
            "<|START_ACTION|>" | "Action:" => ("tool_name", "parameters"),
            "" if dialect.parameters && !dialect.generic => ("name", "parameters"),
            _ => ("name", "arguments"),
        };
        let call = json!({
            "type": "object",
            "properties": {named: {"const": name}, given: parameters(tool)},
            "required": [named, given],
        });
        match dialect.generic {
            true => {
                json!({"type": "object", "properties": {"tool_call": call}, "required": ["tool_call"]})
            }
            false => call,
        }
    };
    match tools.list.as_slice() {
        [tool] => one(tool),
        list => json!({"anyOf": list.iter().map(one).collect::<Vec<_>>()}),
    }
}

/// The schema of what a tool is given: a document of its own, whose references are not to what is around it.
fn parameters(tool: &Value) -> Value {
    let given = &tool["function"]["parameters"];
    let empty = given.as_object().is_none_or(serde_json::Map::is_empty);
    let mut given = if empty { json!({"type": "object"}) } else { given.clone() };
    given["$id"] = "tool".into();
    given
}

/// Names and schemas of parameters, and which must be there.
fn properties(parameters: &Value) -> (Vec<(String, Value)>, Vec<String>) {
    let properties = parameters["properties"].as_object().into_iter().flatten();
    let required = parameters["required"].as_array().into_iter().flatten();
    (
        properties.map(|(key, schema)| (key.clone(), schema.clone())).collect(),
        required.filter_map(|key| key.as_str().map(str::to_owned)).collect(),
    )
}

/// A text as grammars write it.
fn quoted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `rules` with `prefix` before each rule's name.
fn prefixed(rules: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(rules.len() * 2);
    let mut chars = rules.chars().peekable();
    let (mut inside, mut in_word) = (None, false);
    while let Some(c) = chars.next() {
        if let Some(end) = inside {
            out.push(c);
            if c == '\\' && end != '}' && end != '\n' {
                out.extend(chars.next());
            } else if c == end {
                inside = None;
            }
            continue;
        }
        let is_word = c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if is_word && !in_word {
            out.push_str(prefix);
        }
        in_word = is_word;
        inside = match c {
            '"' => Some('"'),
            '[' => Some(']'),
            '{' => Some('}'),
            '#' => Some('\n'),
            _ => None,
        };
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_prefix() {
        let rules = "root ::= \"a b\" x-1{2,3} [a-z\\]]* # root\nx-1 ::= \"\\\"\" | root?";
        let want = "p-root ::= \"a b\" p-x-1{2,3} [a-z\\]]* # root\np-x-1 ::= \"\\\"\" | p-root?";
        assert_eq!(prefixed(rules, "p-"), want);
    }

    #[test]
    fn texts_end_at_their_end() {
        let mut rules = Rules::default();
        assert_eq!(rules.until("aab"), "airrun-1-0");
        let lines: Vec<&str> = rules.text.lines().collect();
        assert_eq!(lines[0], "airrun-1-0 ::= \"a\" airrun-1-1 | [^\\U00000061] airrun-1-0");
        assert_eq!(lines[1], "airrun-1-1 ::= \"a\" airrun-1-2 | [^\\U00000061] airrun-1-0");
        assert_eq!(
            lines[2],
            "airrun-1-2 ::= \"a\" airrun-1-2 | \"b\"  | [^\\U00000061\\U00000062] airrun-1-0"
        );
    }
}
