//! Bodies of every protocol, changed at random: fields that are odd, missing or doubled, texts that are cut or broken. Whatever comes, the
//! server says what is wrong in the protocol's own words, or answers, and goes on. `AIRRUN_TEST_BODIES=N` tries N of each path.

use serde_json::{Value, json};

use crate::compat::endpoints;
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

/// Whether an error is in the words of the path's protocol.
fn says_so(path: &str, answer: &Answer) -> bool {
    let error = &answer.json()["error"];
    match path {
        path if path.starts_with("/api/") => error.is_string(),
        "/v1/messages" => answer.json()["type"] == "error" && error["message"].is_string(),
        _ => error["message"].is_string(),
    }
}

#[test]
fn changed_bodies_are_answered_or_refused() {
    let n = std::env::var("AIRRUN_TEST_BODIES").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_tools(dir.path());
    let server = Server::with_model(&model, &["--grammars", "-c", "256", "--prompt-cache", "off"]);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (mut well, mut refused) = (0, 0);
    for (path, base, more) in endpoints() {
        for i in 0..n {
            let mut body = base.clone();
            // Some of the fields that clients send, so that not all bodies are alike.
            for (name, value) in more.as_object().unwrap() {
                if dice.below(4) == 0 && !name.starts_with("options.") {
                    body[name] = value.clone();
                }
            }
            for _ in 0..=dice.below(3) {
                change(&mut body, &mut dice);
            }
            // Nothing that would be written for a long time.
            for name in ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"] {
                if base.get(name).is_some() && body.get(name).is_some_and(Value::is_number) {
                    body[name] = 1.into();
                }
            }
            let text = match i % 3 {
                0 => break_text(&body.to_string(), &mut dice),
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
    }
    assert!(well > 0 && refused > 0, "{well} answered, {refused} refused");
    server.end();
}
