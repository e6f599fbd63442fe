//! Responses and Anthropic's messages, as their clients meet them.

use serde_json::{Value, json};

use crate::serve::{Answer, Server, model_with_tools, user};

const QUESTION: &str = "What is the capital of Mongolia?";
const ANSWER: &str = "The capital of Mongolia is Ulaanbaatar.";

fn tiny() -> String {
    format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"))
}

/// The data of named server-sent events, each of which must be of the kind that its name says.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut name = "";
    let mut all = Vec::new();
    for line in answer.text.lines() {
        if let Some(kind) = line.strip_prefix("event: ") {
            name = kind;
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name, "{line}");
            all.push(data);
        }
    }
    all
}

fn texts(events: &[Value], kind: &str, path: &str) -> String {
    let of = events.iter().filter(|event| event["type"] == kind);
    of.map(|event| event.pointer(path).unwrap().as_str().unwrap()).collect()
}

#[test]
fn anthropics_messages_are_answered() {
    let server = Server::with_model(&tiny(), &["-c", "512"]);
    let ask = |more: Value| {
        let mut body = json!({"model": "claude-any", "max_tokens": 40, "temperature": 0,
            "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let message = server.ask("/v1/messages", &ask(json!({})));
    assert_eq!(message["content"], json!([{"type": "text", "text": ANSWER}]));
    assert_eq!(
        (&message["type"], &message["stop_reason"]),
        (&json!("message"), &json!("end_turn"))
    );
    let streamed = events(&server.post("/v1/messages", &ask(json!({"stream": true}))));
    assert_eq!(streamed[0]["type"], "message_start");
    assert_eq!(streamed[streamed.len() - 1]["type"], "message_stop");
    assert_eq!(texts(&streamed, "content_block_delta", "/delta/text"), ANSWER);
    let cut = server.ask("/v1/messages", &ask(json!({"max_tokens": 2})));
    assert_eq!(cut["stop_reason"], "max_tokens");
    let stopped = server.ask("/v1/messages", &ask(json!({"stop_sequences": ["Mongolia"]})));
    assert_eq!(stopped["stop_reason"], "stop_sequence", "{stopped}");
    let counted = server.ask("/v1/messages/count_tokens", &ask(json!({"system": "Be brief."})));
    assert!(counted["input_tokens"].as_u64().unwrap() > 15, "{counted}");
    // Who pays differs in each request, and costs no prefix.
    let system = |tag: &str| {
        json!({"system": [
            {"type": "text", "text": format!("x-anthropic-billing-header: cch={tag}")},
            {"type": "text", "text": "Be brief. ".repeat(20)},
        ]})
    };
    server.ask("/v1/messages", &ask(system("a")));
    let again = server.ask("/v1/messages", &ask(system("b")));
    assert!(again["usage"]["cache_read_input_tokens"].as_u64().unwrap() > 40, "{again}");
}

#[test]
fn responses_are_answered() {
    let server = Server::with_model(&tiny(), &["-c", "512"]);
    let body = json!({"model": "gpt-any", "input": QUESTION, "temperature": 0});
    let response = server.ask("/v1/responses", &body);
    assert_eq!(response["output"][0]["content"][0]["text"], ANSWER, "{response}");
    assert_eq!(
        (&response["object"], &response["status"]),
        (&json!("response"), &json!("completed"))
    );
    let mut body = body;
    body["stream"] = true.into();
    let streamed = events(&server.post("/v1/responses", &body));
    assert_eq!(streamed[0]["type"], "response.created");
    assert_eq!(streamed[streamed.len() - 1]["response"]["output"][0]["content"][0]["text"], ANSWER);
    assert_eq!(texts(&streamed, "response.output_text.delta", "/delta"), ANSWER);
    for (i, event) in streamed.iter().enumerate() {
        assert_eq!(event["sequence_number"], i);
    }
    let cut = server.ask("/v1/responses", &json!({"input": QUESTION, "max_output_tokens": 2}));
    assert_eq!(cut["incomplete_details"]["reason"], "max_output_tokens");
    let format = json!({"type": "json_schema", "name": "n", "schema": {"enum": ["yes", "no"]}});
    let body = json!({"input": QUESTION, "text": {"format": format}});
    let said = server.ask("/v1/responses", &body)["output"][0]["content"][0]["text"].clone();
    assert!(said == "\"yes\"" || said == "\"no\"", "{said}");
    let counted = server.ask("/v1/responses/input_tokens", &json!({"input": QUESTION}));
    assert!(counted["input_tokens"].as_u64().unwrap() > 10, "{counted}");
}

#[test]
fn tools_are_called_in_both() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::with_model(&model_with_tools(dir.path()), &["-c", "512"]);
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]});
    let known = |city: &Value| city == "Oslo" || city == "Rome";

    let body = json!({"max_tokens": 100, "messages": [{"role": "user", "content": QUESTION}],
        "tools": [{"name": "weather", "input_schema": schema}, {"type": "web_search_20250305", "name": "w"}],
        "tool_choice": {"type": "tool", "name": "weather"}});
    let message = server.ask("/v1/messages", &body);
    assert_eq!(message["stop_reason"], "tool_use", "{message}");
    let block = message["content"].as_array().unwrap().last().unwrap();
    assert!(block["type"] == "tool_use" && known(&block["input"]["city"]), "{message}");
    let mut stream = body.clone();
    stream["stream"] = true.into();
    let streamed = events(&server.post("/v1/messages", &stream));
    let json = texts(&streamed, "content_block_delta", "/delta/partial_json");
    assert!(known(&serde_json::from_str::<Value>(&json).unwrap()["city"]), "{json}");
    let mut next = body.clone();
    next["tool_choice"] = json!({"type": "auto"});
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": message["content"]}));
    messages.push(json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "Rain"}]}));
    assert_eq!(server.post("/v1/messages", &next).status, 200);

    let body = json!({"input": QUESTION, "max_output_tokens": 100, "tool_choice": "required",
        "tools": [{"type": "function", "name": "weather", "parameters": schema}, {"type": "web_search"}]});
    let response = server.ask("/v1/responses", &body);
    let call = response["output"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&call["type"], &call["name"]),
        (&json!("function_call"), &json!("weather")),
        "{response}"
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(known(&arguments["city"]), "{arguments}");
    let input = json!([{"role": "user", "content": QUESTION}, call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "Rain"}]);
    let body = json!({"input": input, "tools": body["tools"], "max_output_tokens": 5});
    assert_eq!(server.post("/v1/responses", &body).status, 200);
}

#[test]
fn bad_requests_are_refused_in_the_protocols_words() {
    let server = Server::with_model(&tiny(), &["-c", "256", "--api-key", "k"]);
    let anthropic = |body: &Value| server.post_with("/v1/messages", body, ("x-api-key", "k"));
    for body in [
        json!({}),
        json!({"messages": 1}),
        json!({"messages": [{"role": "wizard", "content": "x"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}),
        json!({"messages": [{"role": "user", "content": "word ".repeat(400)}]}),
    ] {
        let answer = anthropic(&body);
        let error = answer.json();
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(error["type"], "error");
        assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
    }
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(400)}]});
    assert!(anthropic(&long).text.contains("prompt is too long"));
    let answer = server.post("/v1/messages", &json!({}));
    assert_eq!(answer.json()["error"]["type"], "authentication_error");
    for body in
        [json!({}), json!({"input": [1]}), json!({"input": "x", "previous_response_id": "r"})]
    {
        let answer = server.post_with("/v1/responses", &body, ("authorization", "Bearer k"));
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
}

#[test]
fn responses_go_on_from_those_that_are_remembered() {
    let server = Server::with_model(&tiny(), &["-c", "1024", "--store", "1M"]);
    let ask = |body: Value| server.post("/v1/responses", &body);
    let first = ask(json!({"input": "My name is Rosa.", "temperature": 0})).json();
    let id = first["id"].as_str().unwrap().to_owned();
    let body = json!({"input": "What is my name?", "temperature": 0, "previous_response_id": id});
    let second = ask(body.clone()).json();
    assert_eq!(second["output"][0]["content"][0]["text"], "Your name is Rosa.", "{second}");
    assert_eq!(second["previous_response_id"], id.as_str());
    // Streamed, it is remembered, too; and two may go on from the same.
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let all = events(&ask(streamed));
    let third = all[all.len() - 1]["response"]["id"].as_str().unwrap().to_owned();
    assert_eq!(texts(&all, "response.output_text.delta", "/delta"), "Your name is Rosa.");
    let mut fourth = body;
    fourth["previous_response_id"] = third.as_str().into();
    let fourth = ask(fourth).json();
    assert!(
        fourth["usage"]["input_tokens"].as_u64() > second["usage"]["input_tokens"].as_u64(),
        "{fourth}"
    );
    assert_eq!(server.get(&format!("/v1/responses/{id}")).json()["output"], first["output"]);
    assert_eq!(server.delete(&format!("/v1/responses/{id}")), 200);
    assert_eq!(server.delete(&format!("/v1/responses/{id}")), 404);
    assert_eq!(server.get(&format!("/v1/responses/{id}")).status, 404);
    let lost = ask(json!({"input": "x", "previous_response_id": id}));
    assert_eq!(
        (lost.status, &lost.json()["error"]["code"]),
        (404, &json!("previous_response_not_found"))
    );
    // Who does not want to be remembered is not.
    let unkept = ask(json!({"input": "x", "store": false, "max_output_tokens": 2})).json();
    let id = unkept["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/responses/{id}")).status, 404);
}

/// Every path that takes a body, with bodies that make no sense: its protocol's error object, a status of the client's fault, and a
/// server that is none the worse.
#[test]
fn bad_bodies_are_refused_in_every_protocols_words() {
    let server = Server::with_model(&tiny(), &["-c", "256"]);
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let bodies = [
        "",
        "null",
        "[]",
        "\"x\"",
        "{",
        "{\"a\":}",
        "\u{0}",
        &deep,
        "{\"messages\": {}}",
        "{\"messages\": [null]}",
        "{\"messages\": [[]], \"input\": [[[]]], \"prompt\": {}, \"content\": 7, \"tokens\": [1e99]}",
        "{\"model\": 7}",
        "{\"messages\": [{\"role\": 1, \"content\": {}}], \"input\": {}, \"prompt\": [-1], \"query\": [], \"tokens\": [-1], \"input_prefix\": 1, \"content\": [1]}",
    ];
    let object = |path: &str, error: &Value| match path {
        _ if path.starts_with("/api/") => error["error"].is_string(),
        _ if path.starts_with("/v1/messages") => {
            error["type"] == "error" && error["error"]["message"].is_string()
        }
        _ => error["error"]["message"].is_string() && error["error"]["type"].is_string(),
    };
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v1/rerank",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/completion",
        "/infill",
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
        "/api/show",
        "/api/pull",
        "/api/create",
        "/api/copy",
    ] {
        for body in bodies {
            let answer = server.post_text(path, body);
            // Some of them ask for nothing, which is answered.
            if answer.status != 200 {
                assert!((400..500).contains(&answer.status), "{path} {body:.40}: {answer:?}");
                assert!(object(path, &answer.json()), "{path} {body:.40}: {answer:?}");
            }
        }
        let halves = r#"{"model": "tiny-chat-q8_0", "messages": [{"role": "user", "content": "hi \ud83d"}], "max_tokens": 2,
            "input": "hi \ud83d", "prompt": "hi \udc00", "content": "\ud83dx", "query": "\ud83d", "documents": ["\udc00"],
            "input_prefix": "\ud83d", "input_suffix": "", "n_predict": 2, "options": {"num_predict": 2}, "stream": false}"#;
        let answer = server.post_text(path, halves);
        assert!(!answer.text.contains("not JSON") && answer.status < 500, "{path}: {answer:?}");
    }
    let body = json!({"messages": [{"role": "user", "content": QUESTION}], "temperature": 0});
    let answer = server.ask("/v1/chat/completions", &body);
    assert_eq!(answer["choices"][0]["message"]["content"], ANSWER);
}

#[test]
fn what_clients_put_elsewhere_is_found_there() {
    let server = Server::start(&[]);
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": false});
    for format in [
        json!({"type": "json_object", "schema": schema}),
        json!({"type": "json_object", "value": schema}),
        json!({"type": "json_schema", "schema": schema}),
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}),
    ] {
        let body = json!({"messages": user("Hi"), "max_tokens": 60, "temperature": 0, "response_format": format});
        let answer = server.ask("/v1/chat/completions", &body);
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(text).unwrap(),
            json!({"a": 1}),
            "{format}: {answer}"
        );
    }
    // A schema that is none is not passed over.
    let format = json!({"type": "json_object", "schema": schema.to_string()});
    let refused = server
        .post("/v1/chat/completions", &json!({"messages": user("Hi"), "response_format": format}));
    assert!(
        refused.status == 400 && refused.text.contains("response_format.schema"),
        "{refused:?}"
    );
    // Addresses that were joined with a slash too many.
    let body = json!({"messages": user("Hi"), "max_tokens": 1});
    for path in ["/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions//"] {
        assert_eq!(server.post(path, &body).status, 200, "{path}");
    }
    assert_eq!(server.get("/v1/models/?x=1").status, 200);
    assert_eq!(server.get("/v1/chat/").status, 404);
    // What is asked only to have a model loaded, or let go.
    assert_eq!(server.ask("/api/embed", &json!({"input": []}))["embeddings"], json!([]));
    assert_eq!(server.ask("/api/embed", &json!({"input": ""}))["embeddings"], json!([]));
    assert_eq!(server.ask("/api/embeddings", &json!({"prompt": ""}))["embedding"], json!([]));
    for (stay, said) in [
        (json!(0), "unload"),
        (json!("0h0m"), "unload"),
        (json!("5m"), "load"),
        (json!(-1), "load"),
    ] {
        for (path, body) in [
            ("/api/generate", json!({"keep_alive": stay})),
            ("/api/chat", json!({"messages": [], "keep_alive": stay})),
        ] {
            assert_eq!(server.ask(path, &body)["done_reason"], said, "{path} {body}");
        }
    }
    let refused = server.post("/api/generate", &json!({"prompt": "a", "raw": true, "system": "b"}));
    assert!(refused.status == 400 && refused.text.contains("raw"), "{refused:?}");
    let packed =
        server.post_with("/v1/completions", &json!({"prompt": "a"}), ("content-encoding", "gzip"));
    assert!(packed.status == 415 && packed.text.contains("gzip"), "{packed:?}");
}
