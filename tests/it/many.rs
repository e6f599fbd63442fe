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

/// Nobody is asked for a model, and none is loaded, for what no model answers.
#[test]
fn paths_that_nobody_answers_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&three(dir.path()), &[]);
    for path in ["/nothing", "/v1/nothing", "/api/nothing", "/v1/chat/completions/more"] {
        for body in [json!({}), question("a"), question("nobody")] {
            let answer = server.post(path, &body);
            assert!(answer.status == 404 && answer.text.contains(path), "{path}: {answer:?}");
        }
    }
    for path in ["/props", "/metrics", "/api/version"] {
        assert_eq!(server.post(path, &question("a")).status, 405, "{path}");
    }
    assert_eq!(loaded(&server), [] as [String; 0]);
    assert_eq!(server.ask("/api/chat", &question("b"))["message"]["content"], ANSWER);
    server.end();
}

/// What each path that a model answers is asked, but for the model.
fn paths() -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": "What is the capital of Mongolia?"}]);
    vec![
        ("/v1/chat/completions", json!({"messages": messages, "max_tokens": 2})),
        ("/v1/completions", json!({"prompt": "The capital", "max_tokens": 2})),
        ("/v1/responses", json!({"input": "Hello", "max_output_tokens": 2})),
        ("/v1/responses/input_tokens", json!({"input": "Hello"})),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 2})),
        ("/v1/messages/count_tokens", json!({"messages": messages})),
        ("/v1/embeddings", json!({"input": "Hello"})),
        ("/v1/rerank", json!({"query": "Hello", "documents": ["Hi", "Bye"]})),
        ("/tokenize", json!({"content": "Hello"})),
        ("/detokenize", json!({"tokens": [1, 2]})),
        ("/apply-template", json!({"messages": messages})),
        ("/completion", json!({"prompt": "The capital", "n_predict": 2})),
        ("/infill", json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 2})),
        (
            "/api/chat",
            json!({"messages": messages, "stream": false, "options": {"num_predict": 2}}),
        ),
        (
            "/api/generate",
            json!({"prompt": "Hello", "stream": false, "options": {"num_predict": 2}}),
        ),
        ("/api/embed", json!({"input": "Hello"})),
        ("/api/embeddings", json!({"prompt": "Hello"})),
        ("/api/show", json!({})),
    ]
}

#[test]
fn every_path_is_answered_by_the_model_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let models = three(dir.path());
    let server = start(&models, &[]);
    // One that answers all alone says what is right: also that a model which writes makes no ranks.
    let alone = Server::with_model(
        dir.path().join("a.gguf").to_str().unwrap(),
        &["-c", "256", "--prompt-cache", "off"],
    );
    let named =
        |body: &Value, model: &str| crate::serve::with(body.clone(), json!({"model": model}));
    for (i, (path, body)) in paths().into_iter().enumerate() {
        let model = ["a", "b", "c"][i % 3];
        let (answer, right) =
            (server.post(path, &named(&body, model)), alone.post(path, &named(&body, "a")));
        assert_eq!(answer.status, right.status, "{path}: {answer:?} where alone {right:?}");
        if path != "/api/show" {
            assert!(loaded(&server).contains(&model.to_owned()), "{path}");
        }
        let wrong = server.post(path, &named(&body, "nobody"));
        assert!(wrong.status == 404 && wrong.text.contains("a, b, c"), "{path}: {wrong:?}");
        // Who names none means the one that was asked last; Ollama's `show` wants a name.
        let unnamed = server.post(path, &body);
        let want = if path == "/api/show" { 400 } else { right.status };
        assert_eq!(unnamed.status, want, "{path}: {unnamed:?}");
    }
    let tokens = server.ask("/tokenize", &named(&json!({"content": "Hello there"}), "c"));
    let back = server.ask("/detokenize", &named(&tokens, "a"));
    assert_eq!(back["content"], "Hello there");
    server.end();
}

#[test]
fn what_models_tell_of_themselves_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(&three(dir.path()), &[]);
    let one = server.get("/v1/models/b").json();
    assert_eq!((&one["id"], &one["status"]["value"]), (&json!("b"), &json!("unloaded")), "{one}");
    assert_eq!(loaded(&server), [] as [String; 0]);
    assert_eq!(server.get("/props?model=b").json()["model_alias"], "b");
    assert!(server.get("/slots?model=c").json()[0]["n_ctx"].is_u64());
    assert_eq!(server.get("/props?model=c").json()["model_alias"], "c");
    // Who names none hears of the one that was asked last.
    server.ask("/api/chat", &question("a"));
    assert_eq!(server.get("/props").json()["model_alias"], "a");
    for path in ["/props?model=nobody", "/slots?model=nobody", "/v1/models/nobody"] {
        let answer = server.get(path);
        assert!(answer.status == 404 && answer.text.contains("a, b, c"), "{path}: {answer:?}");
    }
    // What Ollama would do with files is refused in words, whatever is loaded.
    for path in ["/api/create", "/api/copy", "/api/push"] {
        let answer = server.post(path, &json!({"model": "a", "source": "a", "destination": "d"}));
        assert!(answer.status >= 400 && answer.text.contains("error"), "{path}: {answer:?}");
    }
    assert!(server.delete("/api/delete") >= 400);
    let pull = server.post("/api/pull", &json!({"model": "nobody/nothing", "stream": false}));
    assert!(pull.status >= 400 && pull.text.contains("error"), "{pull:?}");
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
