//! llama-server's own paths, and what Ollama's and browsers' clients look for before they come in.

use serde_json::{Value, json};

use crate::serve::Server;

fn tiny() -> String {
    format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"))
}

const QUESTION: &str = "What is the capital of Mongolia?";

#[test]
fn llama_servers_paths_are_there() {
    let server = Server::with_model(&tiny(), &["-c", "512"]);
    let text = "Hello, würld! <|im_end|>";
    let tokens = server.ask("/tokenize", &json!({"content": text}))["tokens"].clone();
    assert!(tokens.as_array().unwrap().len() > 3, "{tokens}");
    assert_eq!(server.ask("/detokenize", &json!({"tokens": tokens}))["content"], text);
    let pieces = server.ask("/tokenize", &json!({"content": text, "with_pieces": true}));
    assert_eq!(pieces["tokens"][0]["id"], tokens[0]);
    let plain = server.ask("/tokenize", &json!({"content": text, "parse_special": false}));
    assert!(plain["tokens"].as_array().unwrap().len() > tokens.as_array().unwrap().len());
    assert_eq!(server.ask("/tokenize", &json!({}))["tokens"], json!([]));
    assert_eq!(server.ask("/detokenize", &json!({}))["content"], "");

    let messages = json!([{"role": "user", "content": QUESTION}]);
    let prompt = server.ask("/apply-template", &json!({"messages": messages}))["prompt"].clone();
    assert!(prompt.as_str().unwrap().contains(QUESTION), "{prompt}");
    let body = json!({"prompt": prompt, "temperature": 0, "n_predict": 30, "n_probs": 2});
    let answer = server.ask("/completion", &body);
    assert_eq!(answer["content"], "The capital of Mongolia is Ulaanbaatar.", "{answer}");
    assert_eq!((&answer["stop"], &answer["stop_type"]), (&json!(true), &json!("eos")));
    assert_eq!(
        answer["tokens_predicted"],
        answer["completion_probabilities"].as_array().unwrap().len()
    );
    let streamed =
        server.post("/completion", &json!({"prompt": prompt, "temperature": 0, "stream": true}));
    let data = streamed.text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|d| serde_json::from_str(d).unwrap()).collect();
    let said: String = events.iter().map(|e| e["content"].as_str().unwrap()).collect();
    assert_eq!(said, answer["content"].as_str().unwrap());
    assert_eq!(events.last().unwrap()["stop"], true);

    let props = server.get("/props").json();
    assert_eq!(props["default_generation_settings"]["n_ctx"], 512);
    assert!(props["chat_template"].as_str().unwrap().contains("im_start"));
    assert_eq!(server.get("/slots").json().as_array().unwrap().len(), 16);
    assert_eq!(server.get("/v1/health").status, 200);
    let body = json!({"messages": messages, "temperature": 0});
    let short = server.ask("/chat/completions", &body);
    assert_eq!(short["choices"][0]["message"]["content"], answer["content"]);
}

#[test]
fn bad_requests_to_llama_servers_paths_are_refused() {
    let server = Server::with_model(&tiny(), &["-c", "256"]);
    for (path, body) in [
        ("/tokenize", json!({"content": 1})),
        ("/detokenize", json!({"tokens": "x"})),
        ("/detokenize", json!({"tokens": [1, "x"]})),
        ("/detokenize", json!({"tokens": [-1]})),
        ("/detokenize", json!({"tokens": [999_999_999]})),
        ("/detokenize", json!({"tokens": [[1]]})),
        ("/apply-template", json!({})),
        ("/completion", json!({})),
        ("/completion", json!({"prompt": "x", "n_predict": "many"})),
        ("/completion", json!({"prompt": "x", "grammar": "root ::= \"a\""})),
        ("/infill", json!({"input_prefix": "a", "input_suffix": "b"})),
        ("/infill", json!({"input_prefix": 1})),
        ("/infill", json!({"input_extra": [1]})),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
    }
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(500)}]});
    let answer = server.post("/v1/chat/completions", &long);
    assert!(
        answer.text.contains("This model's maximum context length is 255 tokens"),
        "{answer:?}"
    );
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
}

#[test]
fn long_conversations_lose_their_beginning_in_ollamas_protocol() {
    let server = Server::with_model(&tiny(), &["-c", "256"]);
    let mut messages = vec![json!({"role": "system", "content": "Be brief."})];
    for _ in 0..12 {
        messages.push(json!({"role": "user", "content": "Hello"}));
        messages.push(json!({"role": "assistant", "content": "Hi! ".repeat(12)}));
    }
    messages.push(json!({"role": "user", "content": QUESTION}));
    let mut body = json!({"stream": false, "messages": messages, "options": {"num_predict": 4}});
    let answer = server.ask("/api/chat", &body);
    let n = answer["prompt_eval_count"].as_u64().unwrap();
    assert!((100..256).contains(&n), "{answer}");
    body["options"]["num_ctx"] = 128.into();
    let less = server.ask("/api/chat", &body)["prompt_eval_count"].as_u64().unwrap();
    assert!(less < 128 && less < n, "{less} {n}");
    body["truncate"] = false.into();
    let answer = server.post("/api/chat", &body);
    assert!(answer.status == 400 && answer.text.contains("maximum context length"), "{answer:?}");
}

#[test]
fn ollamas_clients_find_what_they_look_for() {
    let server = Server::with_model(&tiny(), &["-c", "512"]);
    assert_eq!(server.get("/").text, "Ollama is running");
    let version = server.get("/api/version").json()["version"].as_str().unwrap().to_owned();
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts >= vec![0, 13, 4], "{version}");
    let body = json!({"messages": [{"role": "user", "content": QUESTION}], "stream": false,
        "options": {"temperature": 0}, "logprobs": true, "top_logprobs": 3});
    let answer = server.ask("/api/chat", &body);
    let probabilities = answer["logprobs"].as_array().unwrap();
    assert_eq!(probabilities.len() as u64, answer["eval_count"].as_u64().unwrap());
    let said: String = probabilities.iter().map(|p| p["token"].as_str().unwrap()).collect();
    assert_eq!(said, answer["message"]["content"].as_str().unwrap());
    assert_eq!(probabilities[0]["top_logprobs"].as_array().unwrap().len(), 3);
    let show = server.ask("/api/show", &json!({"model": "tiny-chat-q8_0"}));
    assert_eq!(show["model_info"]["llama.context_length"], 512, "{show}");
}

#[test]
fn models_files_are_nobodys_to_change() {
    let server = Server::with_model(&tiny(), &["-c", "256"]);
    let name = json!({"model": "tiny-chat-q8_0"});
    // Scripts pull before they ask.
    let pulled = server.post("/api/pull", &name);
    assert_eq!((pulled.status, pulled.text.as_str()), (200, "{\"status\":\"success\"}\n"));
    let other = server.post("/api/pull", &json!({"model": "org/other"}));
    assert!(other.status == 403 && other.text.contains("--pull"), "{other:?}");
    for path in ["/api/create", "/api/copy", "/api/push"] {
        let answer = server.post(path, &name);
        assert!(answer.status == 403 && answer.text.contains("changes no models"), "{answer:?}");
    }
    assert_eq!(server.delete("/api/delete"), 403);
    let rank = server.post("/v1/rerank", &json!({"query": "x", "documents": ["y"]}));
    assert!(rank.status == 400 && rank.text.contains("does not support reranking"), "{rank:?}");
}
