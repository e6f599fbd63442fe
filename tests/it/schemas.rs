//! Every key of JSON schemas, of draft 7 and of 2020-12: kept by the grammar, which then only says what a validator takes, or refused where a schema is to be
//! kept strictly, or told. No key is passed over in silence.

use airrun::engine::Grammar;
use boon::{Compiler, Draft, Schemas};
use serde_json::{Value, json};

use crate::gbnf::{Dice, Gbnf};
use crate::home::{Home, check_success, text};
use crate::serve::{Server, tiny, user, with};

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Is {
    /// In the grammar.
    Kept,
    /// Refused where the schema is to be kept strictly, told elsewhere.
    Refused,
    /// Told everywhere.
    Told,
}
use Is::{Kept, Refused, Told};

/// What a validator says.
struct Judge(Schemas, Option<boon::SchemaIndex>);

impl Judge {
    fn of(schema: &Value) -> Judge {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        let old = schema["$schema"].as_str().is_some_and(|s| s.contains("draft-07"));
        compiler.set_default_draft(if old { Draft::V7 } else { Draft::V2020_12 });
        compiler.enable_format_assertions();
        compiler.add_resource("test.json", schema.clone()).unwrap();
        let index = compiler.compile("test.json", &mut schemas);
        // Its expressions neither look ahead nor back: then only the table speaks.
        let text = schema.to_string();
        let is_beyond = text.contains("(?=") || text.contains("\\\\1");
        assert!(index.is_ok() || is_beyond, "{schema}: {}", index.unwrap_err());
        Judge(schemas, index.ok())
    }

    fn takes(&self, value: &Value) -> Option<bool> {
        self.1.map(|index| self.0.validate(value, index).is_ok())
    }
}

type Row = (String, Is, Value, Vec<Value>, Vec<Value>);

/// Each key, what becomes of it, in which schema; values that must be sayable, and values that must not.
fn table() -> Vec<Row> {
    serde_json::from_str(include_str!("../data/schemas.json")).unwrap()
}

#[test]
fn every_key_is_kept_refused_or_told() {
    let wrong: Vec<String> = table().into_iter().filter_map(|row| tried(row).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What is wrong with a row of the table.
fn tried((key, is, schema, good, bad): Row) -> Result<(), String> {
    let must =
        |holds: bool, what: String| if holds { Ok(()) } else { Err(format!("{schema}: {what}")) };
    let loose = Grammar::of_schema(&schema, false).map_err(|e| format!("{schema}: {e}"))?;
    let strict = Grammar::of_schema(&schema, true).map_err(|e| e.to_string());
    let named = |text: &str| text.contains(&format!("'{key}' at "));
    let is_right = match (is, &strict) {
        (Kept, Ok(grammar)) => grammar.loose.is_empty(),
        (Told, Ok(grammar)) => grammar.loose.iter().any(|one| named(one)),
        (Refused, Err(error)) => named(error) && loose.loose.iter().any(|one| named(one)),
        _ => false,
    };
    must(is_right, format!("it is not {is:?}: {strict:?}"))?;
    let (judge, gbnf) = (Judge::of(&schema), Gbnf::read(&loose.rules));
    for (values, fit) in [(&good, true), (&bad, false)] {
        for value in values {
            must(
                judge.takes(value).is_none_or(|takes| takes == fit),
                format!("the table is wrong: {value}"),
            )?;
            must(gbnf.fits(&value.to_string()) == fit, format!("{value} {fit}\n{}", loose.rules))?;
        }
    }
    let mut dice = Dice(7);
    let mut n_said = 0;
    for text in (0..150).filter_map(|_| gbnf.text(&mut dice)) {
        n_said += 1;
        let value: Value =
            serde_json::from_str(&text).map_err(|e| format!("{schema}: {text}: {e}"))?;
        must(is != Kept || judge.takes(&value) != Some(false), text)?;
    }
    must(n_said > 50, format!("{n_said} texts only"))
}

/// Who wants a schema kept strictly is refused what cannot be, with the key and where it stands; others are told in a header and in the log.
#[test]
fn clients_hear_of_what_is_not_enforced() {
    let server = Server::start(&["--log", "json"]);
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer", "maximum": 9},
        "contains": {"const": 1}, "maxItems": 2}}, "required": ["a"], "additionalProperties": false});
    let set = json!({"type": "array", "items": {"type": "integer", "maximum": 9}, "uniqueItems": true, "maxItems": 2});
    let format = |schema: &Value, strict: bool| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}});
    let ask = |path: &str, more: Value| {
        let more = with(json!({"stream": false, "max_tokens": 30, "seed": 1}), more);
        server.post(path, &with(json!({"messages": user("x")}), more))
    };
    let tool = |strict: bool| json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema, "strict": strict}}], "tool_choice": "required"});
    let chat = "/v1/chat/completions";
    for (path, more) in [
        (chat, json!({"response_format": format(&schema, true)})),
        (chat, tool(true)),
        (chat, json!({"json_schema": schema})),
        ("/api/chat", json!({"format": schema})),
    ] {
        let answer = ask(path, more);
        assert_eq!(answer.status, 400, "{path} {answer:?}");
        assert!(answer.text.contains("'contains' at '/properties/a'"), "{answer:?}");
    }
    for (path, more, key) in [
        (chat, json!({"response_format": format(&schema, false)}), "'contains' at '/properties/a'"),
        (chat, tool(false), "'contains' at '/properties/a'"),
        (chat, json!({"response_format": format(&set, true)}), "'uniqueItems' at its root"),
        ("/api/chat", json!({"format": set}), "'uniqueItems' at its root"),
        (
            "/completion",
            json!({"prompt": "x", "json_schema": set, "n_predict": 30}),
            "'uniqueItems' at its root",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "response_format": format(&set, true)}),
            "'uniqueItems' at its root",
        ),
    ] {
        let answer = ask(path, more);
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        let told = answer.header("x-airrun-warning").unwrap_or_default();
        assert!(told.contains(key), "{path} {answer:?}");
    }
    let answer = ask(chat, json!({"response_format": format(&json!({"type": "integer"}), true)}));
    assert_eq!((answer.status, answer.header("x-airrun-warning")), (200, None));
}

/// libllama reads every grammar that is made, and a model writes by it; a batch tells what it does not hold its answers to.
#[test]
fn every_grammar_is_one() {
    let home = Home::new();
    let line = |(_, _, schema, ..): Row| {
        let format = json!({"type": "json_schema", "json_schema": {"schema": schema}});
        json!({"prompt": "x", "max_tokens": 4, "response_format": format}).to_string() + "\n"
    };
    let all: Vec<String> = table().into_iter().map(line).collect();
    home.put("in.jsonl", all.concat().as_bytes());
    let output =
        home.run(&["batch", &tiny(), "in.jsonl", "-o", "out.jsonl", "-t", "1", "-c", "128"]);
    let said = check_success(&output);
    assert!(said.is_empty(), "{said}");
    assert!(text(&output.stderr).contains("'contains' at its root"), "{}", text(&output.stderr));
    let out = std::fs::read_to_string(home.at("out.jsonl")).unwrap();
    let wrong: Vec<&str> = out
        .lines()
        .filter(|line| line.contains("\"error\":{") || line.contains("\"error\":\""))
        .collect();
    assert!(wrong.is_empty() && out.lines().count() == all.len(), "{wrong:?}");
}
