//! Bodies of every protocol, changed at random: fields that are odd, missing or doubled, texts that are cut or broken. Whatever comes, the
//! server says what is wrong in the protocol's own words, or answers, and goes on. `AIRRUN_TEST_BODIES=N` tries N of each path.

use serde_json::{Value, json};

use crate::compat::{Endpoint, endpoints};
use crate::parrot::Parrot;
use crate::serve::{Answer, Server, model_with_tools};

/// A sequence of numbers, the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % n.max(1)
    }
}

/// What nobody sends on purpose.
fn odd(dice: &mut Dice) -> Value {
    let all = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(1e308),
        json!(-1e-320),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("\u{0}\u{fffe}\u{10ffff}"),
        json!("<|im_start|>".repeat(300)),
        json!("{% for i in range(10**9) %}x{% endfor %}"),
        json!([]),
        json!({}),
        json!([[[[[[[[[[]]]]]]]]]]),
        json!([null, -1, "a", {}, []]),
        json!({"type": "function", "type ": 1, "$ref": "#", "anyOf": [{"$ref": "#"}]}),
        json!({"role": "user", "content": [{"type": "text"}]}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a", "b"]}),
    ];
    all[dice.below(all.len())].clone()
}

/// Changes one place somewhere in `value`.
fn change(value: &mut Value, dice: &mut Dice) {
    if dice.below(4) == 0 {
        *value = odd(dice);
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            let at = dice.below(map.len());
            let key = map.keys().nth(at).unwrap().clone();
            match dice.below(6) {
                0 => drop(map.remove(&key)),
                1 => {
                    let taken = map.remove(&key).unwrap();
                    map.insert(format!("{key}s"), taken);
                }
                _ => change(map.get_mut(&key).unwrap(), dice),
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = dice.below(list.len());
            match dice.below(6) {
                0 => drop(list.remove(at)),
                1 => {
                    let again = list[at].clone();
                    list.extend(vec![again; 40]);
                }
                _ => change(&mut list[at], dice),
            }
        }
        other => *other = odd(dice),
    }
}

/// Breaks the text of a body.
fn break_text(text: &str, dice: &mut Dice) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        match dice.below(4) {
            0 => bytes.truncate(at),
            1 => bytes[at] = b"\"{}[],:\\u09"[dice.below(11)],
            2 => drop(bytes.splice(at..at, *b"\\ud800")),
            _ => {
                let end = (at + dice.below(20)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A body that is no mistake of a writer's: deep, or with a number or a text that JSON can say and nothing can hold.
fn hostile(text: &str, dice: &mut Dice) -> String {
    let Some(colon) = text.match_indices(':').nth(dice.below(4)).map(|(at, _)| at + 1) else {
        return text.to_owned();
    };
    let end = text[colon..].find([',', '}']).map_or(text.len(), |n| colon + n);
    let deep = 200 << dice.below(8);
    let value = match dice.below(8) {
        0 => "[".repeat(deep) + &"]".repeat(deep),
        1 => "{\"a\":".repeat(deep) + "1" + &"}".repeat(deep),
        2 => "1e999".to_owned(),
        3 => "-".to_owned() + &"9".repeat(400),
        4 => "\"\\ud83d\"".to_owned(),
        5 => "\"\\udc00x\\ud800\"".to_owned(),
        6 => format!("[{}0]", "0,".repeat(deep)),
        _ => format!("\"{}\"", "-".repeat(deep)),
    };
    text[..colon].to_owned() + &value + &text[end..]
}

/// Whether an error is in the words of the path's protocol.
fn says_so(path: &str, answer: &Answer) -> bool {
    let error = &answer.json()["error"];
    match path {
        path if path.starts_with("/api/") && !path.starts_with("/api/airrun/") => error.is_string(),
        path if path.starts_with("/v1/messages") => {
            answer.json()["type"] == "error" && error["message"].is_string()
        }
        _ => error["message"].is_string(),
    }
}

/// Paths beside those of the table of fields, which a model that writes answers.
fn others() -> Vec<Endpoint> {
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let tool = json!({"name": "f", "description": "d", "input_schema": {"type": "object"}});
    vec![
        (
            "/tokenize",
            json!({"content": "Hello"}),
            json!({"add_special": true, "with_pieces": true, "parse_special": false}),
        ),
        ("/detokenize", json!({"tokens": [1, 2, 3]}), json!({"model": "x"})),
        (
            "/apply-template",
            json!({"messages": messages}),
            json!({"tools": [{"type": "function", "function": {"name": "f"}}], "chat_template_kwargs": {"a": 1}}),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"messages": messages}),
            json!({"system": [{"type": "text", "text": "x"}], "tools": [tool], "thinking": {"type": "adaptive"}}),
        ),
        (
            "/v1/responses/input_tokens",
            json!({"input": messages}),
            json!({"instructions": "x", "tools": [{"type": "function", "name": "f"}]}),
        ),
        ("/api/show", json!({"model": "with-tools"}), json!({"name": "x", "verbose": true})),
        ("/api/pull", json!({"model": "with-tools"}), json!({"insecure": true, "stream": false})),
        ("/api/create", json!({"model": "x"}), json!({"from": "y"})),
        ("/api/copy", json!({"source": "x", "destination": "y"}), json!({})),
        ("/api/airrun/count", json!({"messages": messages}), json!({"max_tokens": 4})),
        ("/v1/rerank", json!({"query": "Hello", "documents": ["Hi", "Bye"]}), json!({"top_n": 1})),
    ]
}

/// Paths of a model for vectors.
fn of_vectors() -> Vec<Endpoint> {
    let documents = json!(["Hello", {"text": "Bye"}]);
    vec![
        (
            "/v1/rerank",
            json!({"query": "Hello", "documents": documents}),
            json!({"top_n": 1, "return_documents": true, "model": "x", "texts": ["a"]}),
        ),
        (
            "/v1/embeddings",
            json!({"input": ["Hello", "Bye"]}),
            json!({"encoding_format": "base64", "dimensions": 8, "user": "x"}),
        ),
        (
            "/api/embed",
            json!({"input": "Hello"}),
            json!({"truncate": false, "options": {"num_ctx": 8}, "keep_alive": 1, "dimensions": 4}),
        ),
        ("/api/embeddings", json!({"prompt": "Hello"}), json!({"options": {}, "keep_alive": "1m"})),
        (
            "/tokenize",
            json!({"content": "Hello"}),
            json!({"add_special": true, "with_pieces": true}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
            json!({}),
        ),
    ]
}

/// How many of `n` changed bodies of each path were answered, and how many refused.
fn try_all(server: &Server, endpoints: &[Endpoint], n: usize, dice: &mut Dice) -> [usize; 2] {
    let [mut well, mut refused] = [0, 0];
    for (path, base, more) in endpoints {
        for i in 0..n {
            let mut body = base.clone();
            // Some of the fields that clients send, so that not all bodies are alike.
            for (name, value) in more.as_object().unwrap() {
                if dice.below(4) == 0 && !name.starts_with("options.") {
                    body[name] = value.clone();
                }
            }
            for _ in 0..=dice.below(3) {
                change(&mut body, dice);
            }
            // Nothing that would be written for a long time.
            for name in ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"] {
                if base.get(name).is_some() && body.get(name).is_some_and(Value::is_number) {
                    body[name] = 1.into();
                }
            }
            let text = match i % 5 {
                0 => break_text(&body.to_string(), dice),
                1 => hostile(&body.to_string(), dice),
                _ => body.to_string(),
            };
            let answer = server.post_text(path, &text);
            assert!(answer.status < 500, "{path} {text}: {answer:?}");
            match answer.status {
                200 => well += 1,
                _ => {
                    refused += 1;
                    assert!(says_so(path, &answer), "{path} {text}: {answer:?}");
                }
            }
        }
        assert_eq!(server.get("/health").status, 200, "after {path}");
        let answer = server.post(path, base);
        assert!(answer.status < 500, "after {path}: {answer:?}");
    }
    [well, refused]
}

fn bodies() -> usize {
    std::env::var("AIRRUN_TEST_BODIES").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

#[test]
fn changed_bodies_are_answered_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_tools(dir.path());
    let server = Server::with_model(&model, &["--grammars", "-c", "256", "--prompt-cache", "off"]);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let all = [endpoints(), others()].concat();
    let [well, refused] = try_all(&server, &all, bodies(), &mut dice);
    assert!(well > 0 && refused > 0, "{well} answered, {refused} refused");
    server.end();
}

#[test]
fn changed_bodies_of_vectors_and_gaps_are_answered_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let model = crate::embedding::model(dir.path(), "bert", 1);
    let server = Server::with_model(model.to_str().unwrap(), &[]);
    let [well, refused] = try_all(&server, &of_vectors(), bodies(), &mut dice);
    assert!(well > 0 && refused > 0, "{well} answered, {refused} refused");
    server.end();
    let control = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
    let parrot =
        Parrot { says: "there", control: &control, after: control[2], ..Parrot::default() };
    let server =
        Server::with_model(&parrot.write(dir.path(), "gaps"), &["-c", "256", "--grammars"]);
    let extra = json!([{"filename": "a", "text": "b"}]);
    let gaps = [
        (
            "/infill",
            json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 2}),
            json!({"input_extra": extra, "prompt": "c", "stream": true, "n_probs": 2, "stop": ["x"], "temperature": 0.5}),
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "suffix": "b", "max_tokens": 1}),
            json!({"echo": true, "logprobs": 2}),
        ),
        (
            "/api/generate",
            json!({"prompt": "a", "suffix": "b", "stream": false, "options": {"num_predict": 1}}),
            json!({"raw": true, "format": "json"}),
        ),
    ];
    let [well, refused] = try_all(&server, &gaps, bodies(), &mut dice);
    assert!(well > 0 && refused > 0, "{well} answered, {refused} refused");
    server.end();
}
