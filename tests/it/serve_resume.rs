//! What the server does for its page, as any client can ask for it: answers that are taken up again, conversations that are made to
//! fit, and how far a prompt is.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::serve::{Server, user};

const NAME: &str = "a-name-that-nobody-guesses";

/// A long answer, the same each time.
fn long() -> Value {
    json!({"messages": user("Tell me a story."), "temperature": 0, "ignore_eos": true, "max_tokens": 60, "stream": true})
}

/// Asks under a name, reads some of the answer, and goes.
fn begin(server: &Server, body: &Value, n_bytes: usize) -> String {
    let body = body.to_string();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nX-Airrun-Stream: {NAME}\r\nContent-Length: {}\r\n\r\n",
        server.address(),
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut text = Vec::new();
    let mut chunk = [0; 64];
    while text.len() < n_bytes {
        let n = stream.read(&mut chunk).unwrap();
        assert!(n > 0, "it ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The answer's text in `events`, and their ids.
fn read(events: &str) -> (String, Vec<usize>) {
    let mut text = String::new();
    for data in events.lines().filter_map(|line| line.strip_prefix("data: {")) {
        let event: Value = serde_json::from_str(&format!("{{{data}")).unwrap();
        text += event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
    }
    let ids = events.lines().filter_map(|line| line.strip_prefix("id: "));
    (text, ids.map(|id| id.parse().unwrap()).collect())
}

#[test]
fn a_stream_is_taken_up_where_it_was_left() {
    let server = Server::start(&["--stream", "always"]);
    let whole = read(&server.post("/v1/chat/completions", &long()).text).0;
    assert!(whole.len() > 60, "{whole}");
    begin(&server, &long(), 600);
    let path = format!("/api/airrun/streams/{NAME}");
    let all = server.get(&path);
    assert_eq!(all.status, 200);
    let (text, ids) = read(&all.text);
    assert_eq!(text, whole);
    assert_eq!(ids, (1..=ids.len()).collect::<Vec<_>>());
    assert!(all.text.trim_end().ends_with("data: [DONE]"), "{}", all.text);
    // From each place on, nothing is missing and nothing comes twice.
    for at in [0, 1, 7, ids.len() - 1, ids.len()] {
        let rest = server.get(&format!("{path}?after={at}"));
        let expect: Vec<&str> = all.text.split("id: ").skip(at + 1).collect();
        let found: Vec<&str> = rest.text.split("id: ").skip(1).collect();
        assert_eq!(found, expect, "{at}");
    }
    assert_eq!(server.get(&format!("{path}?after={}", ids.len() + 1)).status, 404);
    assert_eq!(server.get("/api/airrun/streams/another-name-of-a-stream").status, 404);
    assert_eq!(server.metric("answers_total{end=\"cancelled\"}"), 0.0);
}

#[test]
fn who_stops_a_stream_or_stays_away_ends_the_answer() {
    let server = Server::start(&["--stream", "always", "--linger", "1"]);
    let cancelled = || server.metric("answers_total{end=\"cancelled\"}");
    let endless = json!({
        "messages": user("Tell me a story."), "ignore_eos": true, "stream": true, "temperature": 2,
        "max_tokens": 100_000,
    });
    begin(&server, &endless, 600);
    server.until("nobody comes back", || cancelled() == 1.0);
    server.until("it is forgotten", || {
        server.get(&format!("/api/airrun/streams/{NAME}")).status == 404
    });
    let server = Server::start(&["--stream", "always", "--linger", "3600"]);
    begin(&server, &endless, 600);
    assert_eq!(server.delete(&format!("/api/airrun/streams/{NAME}")), 204);
    assert_eq!(server.get(&format!("/api/airrun/streams/{NAME}")).status, 404);
    // Once more does no harm.
    assert_eq!(server.delete(&format!("/api/airrun/streams/{NAME}")), 204);
    server.until("it ended", || server.metric("running_requests") == 0.0);
}

#[test]
fn names_of_streams_are_checked() {
    let server = Server::start(&[]);
    let with =
        |name: &str| server.post_with("/v1/chat/completions", &long(), ("x-airrun-stream", name));
    assert_eq!(with("short").status, 400);
    assert_eq!(with(&"x".repeat(65)).status, 400);
    assert_eq!(with("with spaces in its name").status, 400);
    assert_eq!(with(NAME).status, 200);
    assert_eq!(with(NAME).status, 409);
    // What is no stream is answered as ever, and not kept.
    let quiet = json!({"messages": user("Hello"), "max_tokens": 2});
    let name = ("x-airrun-stream", "another-name-of-a-stream");
    assert_eq!(server.post_with("/v1/chat/completions", &quiet, name).status, 200);
    assert_eq!(server.post_with("/v1/chat/completions", &quiet, name).status, 200);
    assert_eq!(server.post_with("/v1/chat/completions", &json!({}), name).status, 400);
}

fn with_usage(ask: &Value) -> Value {
    let mut ask = ask.clone();
    ask["stream_options"] = json!({"include_usage": true});
    ask
}

#[test]
fn how_far_a_prompt_is_comes_with_the_stream() {
    let server = Server::start(&["--stream", "always", "-c", "1024", "--ubatch", "64"]);
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(30);
    let ask =
        json!({"messages": user(&text), "stream": true, "return_progress": true, "max_tokens": 1});
    let events = server.post("/v1/chat/completions", &ask).events();
    let told: Vec<&Value> =
        events.iter().map(|e| &e["prompt_progress"]).filter(|p| !p.is_null()).collect();
    assert!(told.len() > 3, "{told:?}");
    let mut done = 0;
    let predicted = |progress: &Value| {
        let all =
            ["before_ms", "pass_ms", "after_ms"].map(|part| progress["passes"][part].as_f64());
        all.into_iter().map(Option::unwrap).sum::<f64>()
    };
    for (i, progress) in told.iter().enumerate() {
        assert_eq!(progress["processed"], done);
        assert_eq!(
            (&progress["passes"]["pass"], &progress["passes"]["of"]),
            (&json!(i + 1), &json!(told.len()))
        );
        assert!((predicted(progress) / predicted(told[0]) - 1.0).abs() < 1e-6, "{progress}");
        done += progress["batch"].as_u64().unwrap();
    }
    assert_eq!(told[0]["total"], done);
    let ask = with_usage(&ask);
    let events = server.post("/v1/chat/completions", &ask).events();
    let timings = &events.last().unwrap()["timings"];
    assert!(timings["prompt_ms"].as_f64() > Some(0.0) && timings["predicted_n"] == 1, "{timings}");
    let quiet = json!({"messages": user("Hello"), "stream": true, "max_tokens": 1});
    let events = server.post("/v1/chat/completions", &quiet).events();
    assert!(events.iter().all(|event| event.get("prompt_progress").is_none()));
}

#[test]
fn a_conversation_that_is_too_long_goes_on_without_its_beginning() {
    let server = Server::start(&["-c", "256"]);
    let turn = |i: usize| {
        [
            json!({"role": "user", "content": format!("Question {i}: what is the capital of Mongolia, and of France, and of Peru?")}),
            json!({"role": "assistant", "content": "The capital of Mongolia is Ulaanbaatar."}),
        ]
    };
    let mut messages = vec![json!({"role": "system", "content": "Be brief."})];
    messages.extend((0..12).flat_map(turn));
    messages.push(json!({"role": "user", "content": "What is the capital of Mongolia?"}));
    let count = server.ask("/api/airrun/count", &json!({"messages": messages}));
    assert!(count["tokens"].as_u64() > count["n_ctx"].as_u64(), "{count}");
    assert_eq!(count["n_ctx"], 256);
    let ask = |truncation: Value| {
        server.post(
            "/v1/chat/completions",
            &json!({"messages": messages, "max_tokens": 8, "truncation": truncation}),
        )
    };
    assert_eq!(ask(Value::Null).status, 400);
    assert_eq!(ask("disabled".into()).status, 400);
    assert_eq!(ask("sometimes".into()).status, 400);
    let fitted = ask("auto".into());
    assert_eq!(fitted.status, 200, "{fitted:?}");
    let dropped = fitted.header("x-airrun-dropped").unwrap().parse::<usize>().unwrap();
    assert!(dropped > 0 && dropped % 2 == 0 && dropped < messages.len() - 1, "{dropped}");
    // The same as if they had not been sent; now everything fits.
    messages.drain(1..=dropped);
    let shorter = server.post(
        "/v1/chat/completions",
        &json!({"messages": messages, "max_tokens": 8, "truncation": "auto"}),
    );
    assert_eq!(shorter.header("x-airrun-dropped"), None);
    // The last question alone may be too long; that is said.
    let long = json!({"messages": user(&"word ".repeat(600)), "truncation": "auto"});
    let refused = server.post("/v1/chat/completions", &long);
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("context_length_exceeded"), "{refused:?}");
}
