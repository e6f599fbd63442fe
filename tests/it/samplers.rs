//! How answers are drawn: every sampler does something, repeatably, on the command line and by its names in requests; what is drawn
//! fits its grammar.

use std::process::Command;

use serde_json::{Value, json};

use crate::serve::Server;

fn tiny() -> String {
    format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"))
}

fn run(args: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.args(["run", &tiny(), "Tell a story about a river.", "-t", "1"]).args(args);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// A text that is long, wild and repeatable.
const WILD: [&str; 7] = ["-n", "60", "--seed", "5", "--temp", "1.5", "--ignore-eos"];

#[test]
fn every_sampler_does_something_and_repeats() {
    let plain = run(&WILD).0;
    assert!(!plain.is_empty());
    let mut texts = vec![plain];
    for flags in [
        &["--presence-penalty", "2"][..],
        &["--frequency-penalty", "2"],
        &["--dry-multiplier", "20", "--dry-base", "4", "--dry-allowed-length", "1"],
        &["--xtc-probability", "1", "--xtc-threshold", "0.02"],
        &["--typical", "0.2"],
        &["--top-n-sigma", "0.3"],
        &["--dynatemp-range", "1.4", "--dynatemp-exp", "0.2"],
        &["--mirostat", "1", "--mirostat-ent", "2"],
        &["--mirostat", "2", "--mirostat-tau", "1.5", "--mirostat-lr", "0.3"],
    ] {
        let args = [&WILD[..], flags].concat();
        let (text, stderr, code) = run(&args);
        assert_eq!((stderr.as_str(), code), ("", Some(0)), "{flags:?}");
        assert!(!texts.contains(&text), "{flags:?}: {text}");
        assert_eq!(run(&args).0, text, "{flags:?} does not repeat");
        texts.push(text);
    }
}

/// How many words of a text stand where the word before them has been followed by them already.
fn repeated_pairs(text: &str) -> usize {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs: Vec<_> = words.windows(2).collect();
    (1..pairs.len()).filter(|&i| pairs[..i].contains(&pairs[i])).count()
}

#[test]
fn passages_are_not_repeated_with_dry() {
    let going_round = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
        command.args([
            "run",
            &tiny(),
            "The cat. The cat. The cat. The",
            "--raw",
            "-t",
            "1",
            "-n",
            "200",
        ]);
        let output = command.args(["--temp", "0", "--ignore-eos"]).args(more).output().unwrap();
        repeated_pairs(std::str::from_utf8(&output.stdout).unwrap())
    };
    let plain = going_round(&[]);
    let dry = ["--dry-multiplier", "20", "--dry-base", "3", "--dry-allowed-length", "2"];
    let fewer = going_round(&dry);
    assert!(plain > 20 && fewer * 2 < plain, "{plain} without, {fewer} with it");
}

#[test]
fn answers_fit_grammars_and_schemas() {
    let (text, ..) = run(&["-n", "40", "--grammar", "root ::= \"No, \" [a-f]{3} \"!\""]);
    let body = text.trim_end().strip_prefix("No, ").and_then(|t| t.strip_suffix('!'));
    assert!(
        body.is_some_and(|b| b.len() == 3 && b.chars().all(|c| matches!(c, 'a'..='f'))),
        "{text}"
    );
    let schema = r#"{"type":"object","properties":{"a":{"enum":[7,8]}},"required":["a"],"additionalProperties":false}"#;
    let (text, ..) = run(&["-n", "60", "--json-schema", schema]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(value["a"] == 7 || value["a"] == 8, "{text}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("yes.gbnf");
    std::fs::write(&file, "root ::= answer\nanswer ::= \"yes\" | \"no\"\n").unwrap();
    let (text, ..) = run(&["--grammar-file", file.to_str().unwrap()]);
    assert!(matches!(text.trim_end(), "yes" | "no"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let deep = format!("root ::= {}", "(".repeat(30_000));
    for (flags, code) in [
        (&["--grammar", "root : \"a\""][..], 1),
        (&["--grammar", "other ::= \"a\""], 1),
        (&["--grammar", "root ::= root \"a\""], 1),
        (&["--grammar", "root ::= nowhere"], 1),
        (&["--grammar", ""], 1),
        (&["--grammar", &deep], 1),
        (&["--json-schema", "{"], 1),
        (&["--json-schema", "{\"type\":\"wizard\"}"], 1),
        (&["--json-schema", "{}", "--grammar", "root ::= \"a\""], 2),
        (&["--json-schema-file", "/nowhere/at/all"], 1),
        (&["--presence-penalty", "3"], 2),
        (&["--mirostat", "3"], 2),
        (&["--typical", "0"], 2),
        (&["--dry-multiplier", "nan"], 2),
        (&["--logit-bias", "x"], 2),
    ] {
        let (text, stderr, status) = run(flags);
        assert_eq!((text.as_str(), status), ("", Some(code)), "{flags:.60?}: {stderr}");
        assert!(stderr.contains("airrun: ") || code == 2, "{flags:.60?}: {stderr}");
    }
}

#[test]
fn requests_name_samplers_as_their_protocol_does() {
    let server = Server::with_model(&tiny(), &["--grammars"]);
    let wild = json!({"temperature": 1.5, "seed": 5, "ignore_eos": true});
    let openai = |more: &Value| {
        let mut body =
            json!({"messages": [{"role": "user", "content": "Tell a story."}], "max_tokens": 50});
        for from in [&wild, more] {
            body.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
        }
        server.ask("/v1/chat/completions", &body)["choices"][0]["message"]["content"].clone()
    };
    let ollama = |more: &Value| {
        let mut options = json!({"num_predict": 50});
        for from in [&wild, more] {
            options.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
        }
        let body = json!({"prompt": "Tell a story.", "stream": false, "options": options});
        server.ask("/api/generate", &body)["response"].clone()
    };
    let plain = [openai(&json!({})), ollama(&json!({}))];
    for more in [
        json!({"dry_multiplier": 20, "dry_base": 4, "dry_allowed_length": 1}),
        json!({"xtc_probability": 1, "xtc_threshold": 0.02}),
        json!({"typical_p": 0.2}),
        json!({"top_n_sigma": 0.3}),
        json!({"mirostat": 2, "mirostat_tau": 1.5}),
        json!({"dynatemp_range": 1.4, "dynatemp_exponent": 0.2}),
        json!({"repetition_penalty": 1.8}),
    ] {
        assert_ne!(openai(&more), plain[0], "{more}");
        assert_ne!(ollama(&more), plain[1], "{more}");
    }
    assert_eq!(openai(&json!({"grammar": "root ::= \"ja\"", "ignore_eos": false})), "ja");
    let schema = json!({"json_schema": {"const": "ja"}, "ignore_eos": false});
    assert_eq!(openai(&schema), "\"ja\"");
}

#[test]
fn grammars_of_requests_are_taken_only_where_that_is_wanted() {
    let server = Server::with_model(&tiny(), &[]);
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let body = json!({"prompt": "x", "messages": [{"role": "user", "content": "x"}],
            "grammar": "root ::= \"ja\""});
        let answer = server.post(path, &body);
        assert!(answer.status == 400 && answer.text.contains("--grammars"), "{answer:?}");
    }
    // No limit, as LM Studio's samples ask for.
    let body = json!({"messages": [{"role": "user", "content": "What is the capital of Peru?"}],
        "max_tokens": -1, "temperature": 0});
    let answer = server.ask("/v1/chat/completions", &body);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
}
