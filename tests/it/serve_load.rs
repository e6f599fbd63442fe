//! The server under load and under attack: who left, who is slow, who sends too much, and what that costs the others.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::model_with_template;
use crate::home::Home;
use crate::serve::{ANSWER, QUESTION, Server, question, tiny, user, with};

/// A text that nothing ends but the context.
fn endless() -> Value {
    json!({"prompt": "Once", "max_tokens": 100_000, "ignore_eos": true, "stream": true})
}

/// One of the numbers in `/proc/PID/status`.
fn status(server: &Server, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Sends bytes as they are; what comes back until the server closes.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(bytes).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn who_leaves_gives_the_place_back_at_once() {
    let server = Server::start(&["--parallel", "1", "--queue", "2", "--stream", "always"]);
    let waiting = |n: f64| server.until("they wait", || server.metric("waiting_requests") == n);
    let running = server.begin("/v1/completions", &endless());
    server.until("it runs", || server.metric("running_requests") == 1.0);
    let left: Vec<TcpStream> =
        (0..2).map(|_| server.begin("/v1/chat/completions", &question())).collect();
    waiting(2.0);
    assert_eq!(server.post("/v1/chat/completions", &question()).status, 429);
    drop(left);
    waiting(0.0);
    let live = server.begin("/v1/chat/completions", &question());
    waiting(1.0);
    drop(running);
    server.until("it is answered", || server.metric("answers_total{end=\"finished\"}") == 1.0);
    // Nothing was computed for those who left while they waited.
    assert_eq!(server.metric("answers_total{end=\"cancelled\"}"), 1.0);
    drop(live);
}

#[test]
fn every_text_takes_a_place() {
    let server = Server::start(&["--parallel", "1", "--queue", "4"]);
    let running = server.begin("/v1/completions", &endless());
    server.until("it runs", || server.metric("running_requests") == 1.0);
    let texts = json!({"input": ["a", "b", "c"]});
    let some = server.begin("/v1/chat/completions", &with(question(), json!({"n": 3})));
    server.until("they wait", || server.metric("waiting_requests") == 3.0);
    assert_eq!(server.post("/v1/embeddings", &texts).status, 429);
    drop((some, running));
    // More than there are places, but alone.
    server.until("nobody waits", || server.metric("waiting_requests") == 0.0);
    server.ask("/v1/embeddings", &json!({"input": vec!["a"; 9]}));
}

#[test]
fn vectors_have_the_length_that_they_have() {
    let server = Server::start(&[]);
    let length = server.ask("/v1/embeddings", &json!({"input": "x"}))["data"][0]["embedding"]
        .as_array()
        .unwrap()
        .len();
    for path in ["/v1/embeddings", "/api/embed"] {
        let ask = |n: usize| server.post(path, &json!({"input": "x", "dimensions": n}));
        assert_eq!(ask(length).status, 200, "{path}");
        // The first of them, as long as 1 again.
        let some = ask(64);
        let found: Value = serde_json::from_str(&some.text).unwrap();
        let some = [&found["data"][0]["embedding"], &found["embeddings"][0]];
        let some: Vec<f64> = some
            .iter()
            .find_map(|v| v.as_array())
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect();
        assert!(
            some.len() == 64 && (some.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-4,
            "{path}: {some:?}"
        );
        let before = server.metric("passes_total");
        let refused = ask(length + 1);
        assert!(refused.status == 400 && refused.text.contains("dimensions"), "{refused:?}");
        // Nothing was computed to find that out.
        assert_eq!(server.metric("passes_total"), before);
    }
}

/// The pass of who waits for a vector is for somebody, whoever else leaves.
#[test]
fn vectors_come_beside_clients_that_leave() {
    let server = Server::start(&["-c", "1024"]);
    let text = json!({"input": "word ".repeat(900)});
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.post("/v1/embeddings", &text).status);
        server.until("the vector is there", || {
            for _ in 0..10 {
                drop(server.begin("/v1/chat/completions", &question()));
                std::thread::sleep(Duration::from_millis(3));
            }
            asked.is_finished()
        });
        assert_eq!(asked.join().unwrap(), 200);
    });
}

/// Vectors that nobody waits for any more are not computed.
#[test]
fn who_leaves_wants_no_vectors() {
    const TEXTS: usize = 256;
    let server = Server::start(&["-c", "1024"]);
    let texts = json!({"input": vec!["word ".repeat(900); TEXTS]});
    let asked = server.begin("/v1/embeddings", &texts);
    server.until("it runs", || server.metric("running_requests") == 1.0);
    drop(asked);
    server.until("it is let go", || server.metric("running_requests") == 0.0);
    assert!(server.metric("passes_total") < TEXTS as f64 / 2.0);
    server.ask("/v1/embeddings", &json!({"input": "x"}));
}

#[test]
fn slow_grammars_hold_nobody_up() {
    let server = Server::start(&["--parallel", "8", "--grammars"]);
    // Each letter can be any of those that may be left out: to go on takes libllama most of a second. It does not end by itself.
    let grammar = format!("root ::= {}\"Z\"", "[a-z]? ".repeat(400));
    let slow = json!({"prompt": "Go", "n_predict": 300, "stream": true, "grammar": grammar, "temperature": 1});
    let slow: Vec<_> = (0..4).map(|_| server.begin("/completion", &slow)).collect();
    server.until("they run", || server.metric("running_requests") == 4.0);
    let answer = server.ask("/v1/chat/completions", &question());
    assert_eq!(answer["choices"][0]["message"]["content"], ANSWER);
    let tokens = answer["usage"]["completion_tokens"].as_f64().unwrap();
    let others = server.metric("generated_tokens_total") - tokens;
    // Token by token with them, each would have as many.
    assert!(others < 4.0 * tokens, "{others} tokens beside {tokens}");
    drop(slow);
    server.until("they are let go", || server.metric("running_requests") == 0.0);
    assert_eq!(
        server.ask("/v1/chat/completions", &question())["choices"][0]["message"]["content"],
        ANSWER
    );
}

/// What replaces a chat template is told where people look.
#[test]
fn a_template_that_fails_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = model_with_template(dir.path(), "{{ nothing() }}");
    let server = Server::with_model(&file, &[]);
    let told = "the file's chat template cannot be used";
    let shown = server.ask("/api/show", &json!({"model": "other-template"}));
    for answer in [shown, server.get("/props").json(), server.get("/api/airrun/status").json()] {
        let warning = answer["warnings"][0].as_str().unwrap_or_default();
        assert!(warning.contains(told), "{answer}");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_airrun"));
    child.args(["serve", &file, "--port", "0", "-t", "1"]).stdin(Stdio::null());
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| !line.contains("ready: ")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.iter().any(|line| line.contains(told)), "{said:?}");
}

#[test]
fn what_nothing_fits_is_the_requests_fault() {
    let server = Server::start(&[]);
    // The only text that fits has a letter for which there is no room.
    let schema = json!({"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let ban: serde_json::Map<String, Value> =
        (0..1000).map(|token| (token.to_string(), json!(-100))).collect();
    let asked = with(question(), json!({"response_format": format, "logit_bias": ban}));
    let answer = server.post("/v1/chat/completions", &asked);
    assert!(answer.status == 200 || answer.status == 400, "{answer:?}");
}

#[test]
fn bodies_are_borrowed_memory() {
    let server = Server::start(&["--ram", "200M", "-c", "256", "--parallel", "2"]);
    let peak = status(&server, "VmHWM");
    // Values that are many times as large as their text: 3 million of them.
    let greedy = format!(r#"{{"messages":[{}1]}}"#, "1,".repeat(3_000_000));
    let answer = server.post_text("/v1/chat/completions", &greedy);
    assert!(answer.status == 413 && answer.text.contains("set aside"), "{:.300}", answer.text);
    // As much at once as would be too much together: some are told to come later, the others that it does not fit.
    let long = json!({"messages": user(&"word ".repeat(300_000))}).to_string();
    std::thread::scope(|scope| {
        let ask = |_| scope.spawn(|| server.post_text("/v1/chat/completions", &long).status);
        let answers: Vec<_> = (0..24).map(ask).collect();
        for answer in answers {
            let status = answer.join().unwrap();
            assert!([400, 429].contains(&status), "{status}");
        }
    });
    let grown = status(&server, "VmHWM").saturating_sub(peak);
    assert!(grown < 64 << 10, "{grown} KiB");
    server.ask("/v1/chat/completions", &question());
}

/// The allocator would keep it in holes, a heap for each thread.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn what_large_bodies_took_is_given_back() {
    let server = Server::start(&["--parallel", "2", "--queue", "32"]);
    server.ask("/v1/chat/completions", &question());
    let before = status(&server, "RssAnon");
    let ask = |client: usize| {
        for round in 0..4 {
            let size = 200_000 + (client * 7919 + round * 104_729) % 1_000_000;
            let messages = match (client + round) % 3 {
                0 => json!(vec![1; size * 5 / 4]),
                _ => user(&"word ".repeat(size)),
            };
            let answer = server.post("/v1/chat/completions", &json!({ "messages": messages }));
            assert!([400, 413, 429].contains(&answer.status), "{answer:?}");
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|client| drop(scope.spawn(move || ask(client)))));
    server.until("memory is back", || status(&server, "RssAnon") < before + (48 << 10));
}

#[test]
fn texts_that_cannot_fit_are_not_read() {
    let server = Server::start(&["-c", "128", "--parallel", "1"]);
    let long = "x".repeat(1 << 20);
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": user(&long)})),
        ("/v1/completions", json!({"prompt": long})),
        ("/v1/completions", json!({"prompt": "a", "suffix": long})),
        ("/v1/embeddings", json!({"input": ["a", long]})),
        ("/api/chat", json!({"messages": user(&long)})),
        ("/api/generate", json!({"prompt": long})),
    ] {
        let answer = server.post(path, &body);
        assert!(answer.status == 400 && answer.text.contains("context"), "{path}: {answer:?}");
    }
    // Ollama's way: the beginning of it.
    let answer = server.ask("/api/embed", &json!({"input": long}));
    assert_eq!(answer["prompt_eval_count"], 128);
}

#[test]
fn a_template_that_runs_away_does_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let template = "{% if 'boom' in messages[-1].content %}{% set ns=namespace(s='abcdefgh') %}{% for i in range(60) %}\
        {% set ns.s=ns.s~ns.s %}{% endfor %}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    let file = model_with_template(dir.path(), template);
    let server = Server::with_model(&file, &["--parallel", "2"]);
    server.ask("/v1/chat/completions", &json!({"messages": user("Hi"), "max_tokens": 1}));
    let ask = |text: &str| {
        server.post("/v1/chat/completions", &json!({"messages": user(text), "max_tokens": 1}))
    };
    assert_eq!(ask("boom").status, 400);
    let (threads, memory) = (status(&server, "Threads"), status(&server, "VmRSS"));
    for text in ["boom", "boom", "Hi"].repeat(4) {
        let answer = ask(text);
        assert!(answer.status == 400 && answer.text.contains("without end"), "{answer:?}");
    }
    // One for each of them would be twelve, for ever; the server's own come, and go after ten idle seconds.
    server.until("its own threads go", || status(&server, "Threads") <= threads + 3);
    assert!(status(&server, "VmRSS") < memory + (64 << 10));
    assert!(memory < 900 << 10, "{memory} KiB");
    // What needs no template goes on.
    server.ask("/v1/completions", &json!({"prompt": "Hi", "max_tokens": 1}));
}

#[test]
fn half_open_connections_make_room() {
    let shell = format!(
        "ulimit -n 80; exec '{}' serve '{}' --port 0 -t 1 --timeout 600",
        env!("CARGO_BIN_EXE_airrun"),
        tiny()
    );
    let server = Server::run(Command::new("sh").args(["-c", &shell]));
    let busy = server.begin("/v1/completions", &endless());
    let half: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(b"POST /v1/chat").unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
        let head = format!(
            "GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            server.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    drop((half, busy));
}

#[test]
fn odd_requests_are_answered_in_words() {
    let server = Server::start(&[]);
    let host = &server.address;
    let two = raw(&server, format!("GET /health HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\nConnection: close\r\n\r\n").as_bytes());
    assert!(two.starts_with("HTTP/1.1 400") && two.contains("several Host"), "{two}");
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    let chunk =
        raw(&server, format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n").as_bytes());
    assert!(chunk.starts_with("HTTP/1.1 400") && !chunk.contains("larger"), "{chunk}");
    for path in ["/v1/models/%FF", "/v1/models/a%FFb"] {
        let answer = server.get(path);
        assert!(
            answer.status == 400 && answer.json()["error"]["message"].is_string(),
            "{answer:?}"
        );
    }
    let marked = format!("\u{feff}{}", question());
    assert_eq!(
        server.post_text("/v1/chat/completions", &marked).json()["choices"][0]["message"]["content"],
        ANSWER
    );
    let half = r#"{"messages":[{"role":"user","content":"x \ud83d y"}],"max_tokens":1}"#;
    assert_eq!(server.post_text("/v1/chat/completions", half).status, 200);
    for host in ["evil.example", "evil.local.example", "localhost:80@evil.example"] {
        let text = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert!(raw(&server, text.as_bytes()).starts_with("HTTP/1.1 403"));
    }
    let text =
        "GET /health HTTP/1.1\r\nHost: host.docker.internal:11435\r\nConnection: close\r\n\r\n";
    assert!(raw(&server, text.as_bytes()).starts_with("HTTP/1.1 200"));
}

#[test]
fn addresses_that_all_can_reach_have_names_too() {
    let server =
        Server::start(&["--host", "0.0.0.0", "--no-api-key", "--host-name", "llm.example"]);
    let ask = |host: &str| {
        let port = server.address.rsplit(':').next().unwrap();
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let head =
            format!("GET /health HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text[9..12].to_owned()
    };
    assert_eq!(
        ["evil.example", "10.1.2.3", "llm.example", "nas.local"].map(ask),
        ["403", "200", "200", "200"]
    );
}

/// A store of Ollama's with the tiny model as `pirate`.
fn pirate(home: &Home) {
    let put = |digit: &str, content: &[u8]| {
        let digest = digit.repeat(64);
        home.put(&format!(".ollama/models/blobs/sha256-{digest}"), content);
        format!("sha256:{digest}")
    };
    let weights = put("1", &fs::read(tiny()).unwrap());
    let params = put(
        "2",
        br#"{"temperature": 0, "stop": ["a is Ulaan"], "num_ctx": 512, "num_predict": 40}"#,
    );
    let system = put("3", b"You are a pirate.");
    let layer = |(kind, digest): (&str, String)| json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": digest, "size": 1});
    let layers: Vec<Value> =
        [("model", weights), ("params", params), ("system", system)].map(layer).into();
    let manifest = json!({"schemaVersion": 2, "config": {}, "layers": layers}).to_string();
    home.put(
        ".ollama/models/manifests/registry.ollama.ai/library/pirate/latest",
        manifest.as_bytes(),
    );
}

#[test]
fn models_are_served_as_their_keeper_would() {
    let home = Home::new();
    pirate(&home);
    let command = |name: &str| home.airrun(&["serve", name, "--port", "0", "-t", "1"]);
    let server = Server::run(&mut command("pirate"));
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "pirate");
    for path in ["/api/chat", "/v1/chat/completions"] {
        for name in ["pirate", "pirate:latest", "Pirate", ""] {
            let asked = json!({"messages": user(QUESTION), "model": name, "stream": false});
            let answer = server.ask(path, &asked);
            let said = match path {
                "/api/chat" => &answer["message"]["content"],
                _ => &answer["choices"][0]["message"]["content"],
            };
            let said = said.as_str().unwrap();
            assert!(said.contains("Arr") && !said.contains("Ulaan"), "{path} {name}: {said}");
        }
        // With one model, OpenAI's paths take any name.
        let status = if path == "/api/chat" { 404 } else { 200 };
        let parrot = json!({"messages": user("x"), "model": "parrot", "max_tokens": 2});
        assert_eq!(server.post(path, &parrot).status, status);
    }
    let show = server.ask("/api/show", &json!({"model": "pirate"}));
    assert!(show["parameters"].as_str().unwrap().contains("a is Ulaan"), "{show}");
    assert_eq!(show["system"], "You are a pirate.");
    let asked = json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]});
    let said = server.ask("/v1/chat/completions", &asked);
    assert!(!said["choices"][0]["message"]["content"].as_str().unwrap().contains("Arr"), "{said}");
    // By its beginning, and by its file.
    let server = Server::run(&mut command("pir"));
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "pirate:latest");
    let blob = home.at(&format!(".ollama/models/blobs/sha256-{}", "1".repeat(64)));
    let server = Server::run(&mut command(blob.to_str().unwrap()));
    server.ask("/v1/chat/completions", &with(question(), json!({"model": "pirate"})));
}
