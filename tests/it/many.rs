//! Several models behind one address: loaded when asked for, let go when idle or when another needs the memory.

use std::fs;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::serve::Server;

/// Copies of the tiny model, called `a`, `b` and `c`.
fn three(dir: &Path) -> String {
    let tiny = format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"));
    for name in ["a", "b", "c"] {
        fs::copy(&tiny, dir.join(format!("{name}.gguf"))).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

fn start(dir: &str, args: &[&str]) -> Server {
    let args = [&["--models", dir, "-c", "256", "--prompt-cache", "off"][..], args].concat();
    Server::without_model(&args)
}

fn question(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "What is the capital of Mongolia?"}],
        "temperature": 0, "stream": false})
}

fn loaded(server: &Server) -> Vec<String> {
    let models = server.get("/api/ps").json()["models"].clone();
    let name = |model: &Value| model["name"].as_str().unwrap().to_owned();
    models.as_array().unwrap().iter().map(name).collect()
}

const ANSWER: &str = "The capital of Mongolia is Ulaanbaatar.";

#[test]
fn models_are_listed_and_loaded_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&three(dir.path()), &[]);
    let tags = server.get("/api/tags").json();
    assert_eq!(tags["models"].as_array().unwrap().len(), 3, "{tags}");
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][1]["id"], "b", "{models}");
    assert_eq!(loaded(&server), [] as [String; 0]);
    assert_eq!(server.ask("/api/show", &json!({"model": "c"}))["details"]["format"], "gguf");
    assert_eq!(server.ask("/api/chat", &question("b"))["message"]["content"], ANSWER);
    assert_eq!(loaded(&server), ["b"]);
    let answer = server.ask("/v1/chat/completions", &question("a.gguf"));
    assert_eq!(answer["choices"][0]["message"]["content"], ANSWER);
    assert_eq!(answer["model"], "a");
    // Who names none means the one that was asked last.
    let answer = server.ask("/v1/chat/completions", &question(""));
    assert_eq!(answer["model"], "a");
    for path in ["/v1/chat/completions", "/api/chat", "/v1/embeddings"] {
        let answer = server.post(path, &question("nobody"));
        assert!(answer.status == 404 && answer.text.contains("a, b, c"), "{answer:?}");
    }
    assert_eq!(server.get("/health").status, 200);
    server.end();
}

#[test]
fn what_is_kept_for_no_time_goes() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&three(dir.path()), &[]);
    let mut body = question("a");
    body["keep_alive"] = 0.into();
    assert_eq!(server.ask("/api/chat", &body)["message"]["content"], ANSWER);
    server.until("the model has gone", || loaded(&server).is_empty());
    // It comes back.
    assert_eq!(server.ask("/api/chat", &question("a"))["message"]["content"], ANSWER);
    assert_eq!(loaded(&server), ["a"]);
}

#[test]
fn one_that_cannot_be_loaded_is_that_requests_error() {
    let dir = tempfile::tempdir().unwrap();
    let models = three(dir.path());
    let server = start(&models, &[]);
    fs::write(dir.path().join("b.gguf"), "rubbish").unwrap();
    let answer = server.post("/v1/chat/completions", &question("b"));
    assert!(
        answer.status == 500 && answer.text.contains("model 'b' cannot be loaded"),
        "{answer:?}"
    );
    assert_eq!(server.ask("/api/chat", &question("a"))["message"]["content"], ANSWER);
}

/// What one of the models takes, by its plan, in MiB.
fn taken(server: &Server) -> u64 {
    let ps = server.get("/api/ps").json();
    let models = ps["models"].as_array().unwrap().iter();
    models.map(|model| model["size"].as_u64().unwrap()).sum::<u64>() >> 20
}

#[test]
fn models_that_do_not_fit_together_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let models = three(dir.path());
    let each = {
        let server = start(&models, &["--ram", "1G"]);
        server.ask("/api/chat", &question("a"));
        taken(&server)
    };
    let budget = each * 2 + each / 2;
    let server = start(&models, &["--ram", &format!("{budget}M")]);
    thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for turn in 0..6 {
                    let model = ["a", "b", "c"][(client + turn) % 3];
                    let answer = server.ask("/api/chat", &question(model));
                    assert_eq!(answer["message"]["content"], ANSWER, "{model}");
                    assert!(taken(server) <= budget);
                }
            });
        }
    });
    assert!(loaded(&server).len() <= 2);
    server.end();
}
