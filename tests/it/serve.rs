//! The server, as its clients meet it: the real program, spoken to over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::model_with_template;

/// A margin between the two best logits below which another batch may choose differently.
const SURE: f64 = 1.0;

/// How long to wait for what comes soon on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn tiny() -> String {
    format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"))
}

/// A running server; ends with its test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    agent: ureq::Agent,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    kind: String,
    retry_after: bool,
    headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The data of server-sent events, without the last, which must be `[DONE]`.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut data: Vec<&str> = data.collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", self.text);
        data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    fn lines(&self) -> Vec<Value> {
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Server {
        Server::with_model(&tiny(), args)
    }

    pub(crate) fn with_model(model: &str, args: &[&str]) -> Server {
        Server::with_env(model, args, &[])
    }

    /// One whose models `args` name.
    pub(crate) fn without_model(args: &[&str]) -> Server {
        Server::launch(args, &[])
    }

    pub(crate) fn with_env(model: &str, args: &[&str], env: &[(&str, &str)]) -> Server {
        Server::launch(&[&[model], args].concat(), env)
    }

    fn launch(args: &[&str], env: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
        command.args(["serve", "--port", "0", "-t", "1"]).args(args).envs(env.iter().copied());
        Server::run(command.stdin(Stdio::null()))
    }

    /// Runs `command`, which serves.
    pub(crate) fn run(command: &mut Command) -> Server {
        let command = command.env_remove("AIRRUN_API_KEY").stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on ") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without listening");
        }
        // Whatever it says later must not block it.
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let server = Server { child, address, agent: config.new_agent() };
        server.until("the model is loaded", || server.get("/health").status == 200);
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(self.url(path)).call().unwrap())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    /// With a header more.
    pub(crate) fn post_with(&self, path: &str, body: &Value, header: (&str, &str)) -> Answer {
        let request = self.agent.post(self.url(path)).header(header.0, header.1);
        answer(request.send(&body.to_string()).unwrap())
    }

    /// The status of what is left.
    pub(crate) fn delete(&self, path: &str) -> u16 {
        self.agent.delete(self.url(path)).call().unwrap().status().as_u16()
    }

    pub(crate) fn post_text(&self, path: &str, body: &str) -> Answer {
        let request = self.agent.post(self.url(path)).header("content-type", "application/json");
        answer(request.send(body).unwrap())
    }

    /// An answer that must be well, as JSON.
    #[track_caller]
    pub(crate) fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Sends a request and does not read the answer.
    pub(crate) fn begin(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    }

    /// One of the numbers in `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text;
        let line = text.lines().find(|line| line.starts_with(&format!("airrun_{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {text}"))
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !so() {
            assert!(begin.elapsed() < PATIENCE, "{what}: it did not come to that");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a user would, and waits until it has ended well.
    pub(crate) fn end(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let (kind, retry_after) =
        (header("content-type").unwrap_or_default(), header("retry-after").is_some());
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.body_mut().read_to_string().unwrap();
    Answer { status, kind, retry_after, headers, text }
}

pub(crate) fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

pub(crate) const QUESTION: &str = "What is the capital of Mongolia?";
pub(crate) const ANSWER: &str = "The capital of Mongolia is Ulaanbaatar.";

pub(crate) fn question() -> Value {
    json!({"messages": user(QUESTION), "temperature": 0})
}

/// `base` with more fields.
pub(crate) fn with(base: Value, more: Value) -> Value {
    let (Value::Object(mut base), Value::Object(more)) = (base, more) else { panic!("objects") };
    base.extend(more);
    base.into()
}

/// A line for each request tells how it went, and nothing of what was said.
#[test]
fn requests_are_logged_without_what_was_said() {
    for (how, words) in [
        ("json", &["\"path\":\"/v1/completions\"", "\"status\":200", "\"status\":404"][..]),
        ("text", &["POST /v1/completions 200, ", "GET /nothing 404, "]),
        ("off", &[]),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_airrun"))
            .args(["serve", &tiny(), "--port", "0", "-t", "1", "--log", how, "--device", "cpu"])
            .env_remove("AIRRUN_API_KEY")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains("ready: ") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "{all}");
            all += &line;
        }
        for said in ["context: 1024 tokens for each request; about ", "a page for browsers at /"] {
            assert!(all.contains(said), "{all}");
        }
        let address = all.split("http://").nth(1).unwrap().lines().next().unwrap().to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let server = Server { child, address, agent: config.new_agent() };
        let body = json!({"prompt": "Xyzzy", "max_tokens": 2, "stream": true});
        assert_eq!(server.post("/v1/completions", &body).status, 200);
        assert_eq!(server.get("/nothing").status, 404);
        assert_eq!(server.get("/health").status, 200);
        server.signal("-TERM");
        stderr.read_to_string(&mut all).unwrap();
        assert!(words.iter().all(|word| all.contains(word)), "{how}: {all}");
        assert!(!all.contains("Xyzzy") && !all.contains("/health"), "{how}: {all}");
        assert_eq!(all.contains("/nothing"), how != "off", "{how}: {all}");
    }
}

/// Many long texts; nothing ends them but the context.
fn endless() -> Value {
    json!({"prompt": "Once", "n": 16, "max_tokens": 100_000, "temperature": 2, "ignore_eos": true, "stream": true})
}

#[test]
fn answers_at_once_are_those_of_one_at_a_time() {
    let golden = std::fs::read(tiny().replace("tiny-chat-q8_0.gguf", "golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let sure = |p: &&Value| p["min_margin"].as_f64().unwrap() >= SURE;
    let prompts: Vec<&Value> = golden["prompts"].as_array().unwrap().iter().filter(sure).collect();
    assert!(prompts.len() >= 5);
    for stream in ["always", "never"] {
        let server = Server::start(&["--stream", stream, "--parallel", "3"]);
        thread::scope(|scope| {
            for prompt in &prompts {
                let server = &server;
                scope.spawn(move || {
                    let request =
                        json!({"messages": prompt["messages"], "temperature": 0, "max_tokens": 48});
                    let answer = server.ask("/v1/chat/completions", &request);
                    let said = &answer["choices"][0]["message"]["content"];
                    assert_eq!(said, &prompt["completion"], "{} {stream}", prompt["name"]);
                });
            }
        });
        assert_eq!(server.metric("answers_total{end=\"failed\"}"), 0.0);
    }
}

#[test]
fn openai_chats() {
    let server = Server::start(&[]);
    let path = "/v1/chat/completions";
    let whole =
        server.ask(path, &with(question(), json!({"model": "tiny-chat-q8_0", "unknown": [1]})));
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": ANSWER, "refusal": null})
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let usage = &whole["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(15 + usage["completion_tokens"].as_u64().unwrap())
    );

    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = server.post(path, &with(question(), stream));
    assert_eq!(answer.kind, "text/event-stream");
    let events = answer.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let text = |e: &Value| e["choices"][0]["delta"]["content"].as_str().unwrap_or("").to_owned();
    assert_eq!(events.iter().map(text).collect::<String>(), ANSWER);
    let (usage, rest) = events.split_last().unwrap();
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["usage"]["prompt_tokens_details"]["cached_tokens"], 14);

    for (stop, want) in
        [(json!("a is Ulaan"), "The capital of Mongoli"), (json!(["x", "."]), &ANSWER[..38])]
    {
        let answer = server.ask(path, &with(question(), json!({ "stop": stop })));
        let choice = &answer["choices"][0];
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&json!(want), &json!("stop"))
        );
    }
    let answer = server.ask(path, &with(question(), json!({"max_completion_tokens": 3})));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let parts = json!({"temperature": 0, "messages": [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]}]});
    assert_eq!(server.ask(path, &parts)["choices"][0]["message"]["content"], ANSWER);
}

#[test]
fn choices_differ_and_seeds_repeat() {
    let server = Server::start(&[]);
    let request = json!({"messages": user("Tell me a story."), "n": 6, "seed": 7, "temperature": 2, "max_tokens": 24});
    let stories = |request: &Value| -> Vec<String> {
        let answer = server.ask("/v1/chat/completions", request);
        let choices = answer["choices"].as_array().unwrap().iter().enumerate();
        choices
            .map(|(i, choice)| {
                assert_eq!(choice["index"], i);
                choice["message"]["content"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let first = stories(&request);
    assert!(first.iter().any(|story| *story != first[0]), "{first:?}");
    // One text at a time, so that no other text is in its batches.
    let alone = Server::start(&["--parallel", "1"]);
    let one = with(request, json!({"n": 1}));
    let [a, b] =
        [0, 1].map(|_| alone.ask("/v1/chat/completions", &one)["choices"][0]["message"].clone());
    assert_eq!(a, b);
}

#[test]
fn what_requests_do_not_say_is_as_the_flags_say() {
    let flags = ["--temp", "0", "-n", "5", "--presence-penalty", "1", "--xtc-probability", "0.25"];
    let more =
        ["--mirostat", "2", "--dry-multiplier", "0.5", "--seed", "3", "--logit-bias", "65+1"];
    let server = Server::start(&[&flags[..], &more[..]].concat());
    let ask = |body: Value| server.post("/v1/chat/completions", &body).json();
    let messages = json!([{"role": "user", "content": "Tell me a story."}]);
    let tokens = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().unwrap();
    let silent = ask(json!({"messages": messages}));
    assert_eq!(tokens(&silent), 5, "{silent}");
    assert_eq!(silent["choices"], ask(json!({"messages": messages}))["choices"]);
    assert_eq!(tokens(&ask(json!({"messages": messages, "max_tokens": 2}))), 2);
    let ollama = json!({"messages": messages, "stream": false});
    assert_eq!(server.ask("/api/chat", &ollama)["eval_count"], 5);
    let params = &server.get("/props").json()["default_generation_settings"]["params"];
    for (name, value) in [
        ("temperature", json!(0.0)),
        ("n_predict", json!(5)),
        ("presence_penalty", json!(1.0)),
        ("xtc_probability", json!(0.25)),
        ("mirostat", json!(2)),
        ("dry_multiplier", json!(0.5)),
        ("seed", json!(3)),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
    let defaults = &server.get("/api/airrun/status").json()["defaults"];
    assert_eq!((&defaults["temperature"], &defaults["max_tokens"]), (&json!(0.0), &json!(5)));
}

#[test]
fn probabilities_are_told() {
    let server = Server::start(&[]);
    let asked = with(question(), json!({"logprobs": true, "top_logprobs": 3}));
    let answer = server.ask("/v1/chat/completions", &asked);
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let text: Vec<u8> = content
        .iter()
        .flat_map(|t| t["bytes"].as_array().unwrap())
        .map(|b| u8::try_from(b.as_u64().unwrap()).unwrap())
        .collect();
    assert_eq!(String::from_utf8(text).unwrap(), ANSWER);
    for token in &content {
        let top: Vec<f64> = token["top_logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["logprob"].as_f64().unwrap())
            .collect();
        assert_eq!(top.len(), 3);
        assert!(top.is_sorted_by(|a, b| a >= b) && top[0] <= 0.0, "{top:?}");
        // Without randomness, the likeliest is chosen.
        assert_eq!(token["logprob"].as_f64(), Some(top[0]));
    }
    let asked = json!({"prompt": ["The capital of Peru is", "Hello"], "temperature": 0, "logprobs": 2, "max_tokens": 2, "n": 2});
    let answer = server.ask("/v1/completions", &asked);
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert_eq!(choices[0]["text"], " Lima.");
    assert_eq!(choices[0]["logprobs"]["tokens"], json!([" Lima", "."]));
    assert_eq!(choices[1]["text"], choices[0]["text"]);
    assert_eq!(choices[3]["text"], choices[2]["text"]);
}

#[test]
fn answers_fit_their_schema() {
    let server = Server::start(&[]);
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "colour": {"enum": ["red", "blue"]}}, "required": ["name", "age", "colour"], "additionalProperties": false});
    let check = |text: &Value| {
        let value: Value =
            serde_json::from_str(text.as_str().unwrap()).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(value["name"].as_str().unwrap().chars().count() <= 8, "{value}");
        assert!(value["age"].as_u64().unwrap() <= 120, "{value}");
        assert!(["red", "blue"].contains(&value["colour"].as_str().unwrap()), "{value}");
    };
    for (seed, temperature) in [(1, 0.0), (2, 1.0), (3, 2.0)] {
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema}});
        let asked = json!({"messages": user("Who are you?"), "seed": seed, "temperature": temperature, "response_format": format});
        check(&server.ask("/v1/chat/completions", &asked)["choices"][0]["message"]["content"]);
        let options = json!({"seed": seed, "temperature": temperature});
        let asked = json!({"messages": user("Who are you?"), "format": schema, "stream": false, "options": options});
        check(&server.ask("/api/chat", &asked)["message"]["content"]);
    }
}

/// A schema of three lines can ask for more ways to read a text than there is memory.
#[test]
fn schemas_that_multiply_are_refused() {
    let server = Server::start(&[]);
    let format = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let list = json!({"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1});
    let hostile = json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": vec![list; 8]}}});
    let asked = json!({"messages": user("x"), "response_format": format(hostile.clone())});
    check_refused(&server, "/v1/chat/completions", &asked.to_string(), 400, "too many ways");
    let asked = json!({"messages": user("x"), "format": hostile});
    check_refused(&server, "/api/chat", &asked.to_string(), 400, "too many ways");
    // Bounds that contradict each other, which libllama would count down without end.
    for schema in [
        json!({"type": "array", "minItems": 5, "maxItems": 2}),
        json!({"type": "string", "pattern": "^a{5,2}$"}),
        json!({"type": "integer", "minimum": 200_000_000_000_000_000_i64}),
        json!({"type": "object", "properties": {"a": false}, "required": ["a"]}),
    ] {
        let asked = json!({"messages": user("x"), "response_format": format(schema)});
        check_refused(&server, "/v1/chat/completions", &asked.to_string(), 400, "the JSON schema");
    }
    // One that goes round in one way only is as good as any.
    let list = json!({"type": "object", "properties": {"next": {"anyOf": [
        {"$ref": "#/$defs/a"}, {"type": "null"}]}}, "required": ["next"], "additionalProperties": false});
    let schema = json!({"$ref": "#/$defs/a", "$defs": {"a": list}});
    let asked = json!({"messages": user("x"), "max_tokens": 40, "response_format": format(schema)});
    let answer = server.ask("/v1/chat/completions", &asked);
    let said = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(said.trim_start().starts_with('{'), "{said}");
}

/// Patterns with one reading are kept; `true` and keys without a name are as good as others.
#[test]
fn patterns_of_everyday_are_kept() {
    let server = Server::start(&[]);
    let format = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    for (pattern, begins) in [
        (r"^[a-z0-9]{1,4}(?:-[a-z0-9]{1,4}){0,2}$", "abcdefghijklmnopqrstuvwxyz0123456789"),
        (r"^-?\d{1,4}(\.\d{1,3})?$", "-0123456789"),
        (r"^\d{4}-\d{2}-\d{2}$", "0123456789"),
        (r"^#[0-9a-f]{6}$", "#"),
    ] {
        let schema = json!({"type": "object", "required": ["a", ""], "additionalProperties": false, "properties": {
            "a": {"type": "string", "pattern": pattern}, "": {"const": 7}, "b": true}});
        let asked = json!({"messages": user("Who are you?"), "max_tokens": 100, "temperature": 0, "response_format": format(schema)});
        let answer = server.ask("/v1/chat/completions", &asked);
        let choice = &answer["choices"][0];
        let said = choice["message"]["content"].as_str().unwrap();
        if choice["finish_reason"] == "stop" {
            let said: Value = serde_json::from_str(said).unwrap();
            let text = said["a"].as_str().unwrap();
            assert!(begins.contains(text.chars().next().unwrap()), "{pattern}: {text}");
            assert_eq!(said[""], 7, "{pattern}");
        } else {
            assert!(said.trim_start().starts_with('{'), "{pattern}: {said}");
        }
    }
}

/// A model whose template knows tools, in `dir`.
pub(crate) fn model_with_tools(dir: &Path) -> String {
    let template = "{% for t in tools or [] %}<tool_call>{{ t.function.name }}{% endfor %}\
        {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";
    model_with_template(dir, template)
}

/// Definitions as Pydantic writes them: each tool's own, whose names may be those of another.
#[test]
fn tools_keep_their_definitions() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::with_model(&model_with_tools(dir.path()), &[]);
    let tool = |name: &str, unit: Value| {
        let size = json!({"type": "object", "required": ["unit"], "additionalProperties": false,
            "properties": {"unit": {"$ref": "#/$defs/Unit"}}});
        let parameters = json!({"type": "object", "required": ["size", "last"], "additionalProperties": false,
            "properties": {"size": {"$ref": "#/$defs/Size"}, "last": {"$ref": "#/properties/size"}},
            "$defs": {"Size": size, "Unit": unit}});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    };
    let units = [("weigh", json!({"enum": ["g", "kg"]})), ("count", json!({"type": "boolean"}))];
    let fits = |call: &Value| {
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(arguments.as_object().unwrap().len(), 2, "{arguments}");
        for unit in [&arguments["size"]["unit"], &arguments["last"]["unit"]] {
            match call["function"]["name"].as_str().unwrap() {
                "weigh" => assert!([json!("g"), json!("kg")].contains(unit), "{call}"),
                "count" => assert!(unit.is_boolean(), "{call}"),
                other => panic!("{other}"),
            }
        }
    };
    let tools: Vec<Value> = units.iter().map(|(name, unit)| tool(name, unit.clone())).collect();
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    for choice in [json!("required"), named("weigh"), named("count")] {
        for seed in [1, 2] {
            let asked = json!({"messages": user("How much?"), "tools": tools, "tool_choice": choice,
                "temperature": 2, "seed": seed});
            let message = &server.ask("/v1/chat/completions", &asked)["choices"][0]["message"];
            let call = &message["tool_calls"][0];
            if let Some(name) = choice["function"]["name"].as_str() {
                assert_eq!(call["function"]["name"], name);
            }
            fits(call);
        }
    }
    // What refers to something else is refused in words.
    let asked = json!({"messages": user("x"), "tool_choice": "required",
        "tools": [tool("weigh", json!({"$ref": "https://example.com/unit.json"}))]});
    let path = "/v1/chat/completions";
    check_refused(&server, path, &asked.to_string(), 400, "'https://example.com/unit.json'");
}

/// A schema that refers to itself as a whole, and one whose definitions differ in punctuation only.
#[test]
fn formats_may_refer_to_all_of_themselves() {
    let server = Server::start(&[]);
    let list = json!({"type": "object", "required": ["next"], "additionalProperties": false,
        "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": list}});
    let asked = json!({"messages": user("x"), "max_tokens": 40, "response_format": format});
    let answer = server.ask("/v1/chat/completions", &asked);
    let said = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(said.trim_start().starts_with('{'), "{said}");
    let two = json!({"type": "array", "prefixItems": [{"$ref": "#/$defs/a_b"}, {"$ref": "#/$defs/a.b"}],
        "$defs": {"a_b": {"const": 1}, "a.b": {"const": 2}}});
    let asked = json!({"messages": user("x"), "format": two, "stream": false});
    let said = server.ask("/api/chat", &asked)["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), json!([1, 2]));
}

/// Unions that go round, as Pydantic writes them: what kind it is has a default, so that it need not be there.
#[test]
fn unions_tell_their_kind_first() {
    let server = Server::start(&[]);
    let side = || json!({"$ref": "#/$defs/Expr"});
    let node = |kind: &str| {
        json!({"type": "object", "required": ["left", "right"], "additionalProperties": false, "properties": {
            "left": side(), "right": side(), "kind": {"const": kind, "default": kind, "type": "string"}}})
    };
    let schema = json!({"type": "object", "required": ["it"],
        "properties": {"it": {"anyOf": [node("add"), node("mul")]}},
        "$defs": {"Expr": {"anyOf": [node("add"), node("mul"), {"type": "integer"}]}}});
    for seed in 0..3 {
        let options = json!({"seed": seed, "temperature": seed, "num_predict": 100});
        let asked =
            json!({"messages": user("x"), "format": schema, "stream": false, "options": options});
        let answer = server.ask("/api/chat", &asked);
        let said = answer["message"]["content"].as_str().unwrap();
        let said: String = said.split_whitespace().collect();
        assert!(said.starts_with(r#"{"it":{"kind":""#), "{said}");
    }
}

#[test]
fn tools_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::with_model(&model_with_tools(dir.path()), &[]);
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Oslo", "Lima"]}}, "required": ["city"]}}})
    };
    let asked = json!({"messages": user("Weather?"), "tools": [tool("weather"), tool("time")],
        "tool_choice": {"type": "function", "function": {"name": "weather"}}, "temperature": 1});
    let check = |call: &Value| {
        assert_eq!(call["function"]["name"], "weather");
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert!(["Oslo", "Lima"].contains(&arguments["city"].as_str().unwrap()));
    };
    let choice = server.ask("/v1/chat/completions", &asked)["choices"][0].clone();
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    check(&choice["message"]["tool_calls"][0]);
    let events =
        server.post("/v1/chat/completions", &with(asked.clone(), json!({"stream": true}))).events();
    let calls: Vec<&Value> =
        events.iter().filter_map(|e| e["choices"][0]["delta"].get("tool_calls")).collect();
    let mut call = calls[0][0].clone();
    let given = |calls: &Value| calls[0]["function"]["arguments"].as_str().unwrap().to_owned();
    call["function"]["arguments"] = calls.iter().map(|c| given(c)).collect::<String>().into();
    assert!(calls.len() > 1 && calls.iter().all(|c| c[0]["index"] == 0), "{calls:?}");
    check(&call);
    // And back: the result is read, and the model says something.
    let call = choice["message"].clone();
    let messages = json!([{"role": "user", "content": "Weather?"}, call,
        {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "Sunny."}]);
    let answer =
        server.ask("/v1/chat/completions", &json!({"messages": messages, "max_tokens": 4}));
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert!(
        server.ask("/api/show", &json!({"model": "other-template"}))["capabilities"]
            .to_string()
            .contains("tools")
    );

    // A model whose template knows none calls in a form of ours; Ollama's clients are told so, in the words that they look for.
    let server = Server::start(&[]);
    check(&server.ask("/v1/chat/completions", &asked)["choices"][0]["message"]["tool_calls"][0]);
    let answer = server.post("/api/chat", &asked);
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("does not support tools"), "{}", answer.text);
}

#[test]
fn vectors_are_made() {
    let server = Server::start(&[]);
    let asked = json!({"input": ["The capital of Peru", "The capital of Peru", "sheep"]});
    let answer = server.ask("/v1/embeddings", &asked);
    let vector = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let data: Vec<Vec<f64>> =
        answer["data"].as_array().unwrap().iter().map(|d| vector(&d["embedding"])).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert_eq!(data[0].len(), 256);
    assert!((dot(&data[0], &data[0]) - 1.0).abs() < 1e-4);
    assert!((dot(&data[0], &data[1]) - 1.0).abs() < 1e-4);
    assert!(dot(&data[0], &data[2]) < 0.99);
    let packed =
        server.ask("/v1/embeddings", &json!({"input": "sheep", "encoding_format": "base64"}));
    assert_eq!(
        packed["data"][0]["embedding"].as_str().map(str::len),
        Some((256_usize * 4).div_ceil(3) * 4)
    );
    let same = server.ask("/api/embed", &json!({"model": "tiny-chat-q8_0", "input": "sheep"}));
    assert!(dot(&vector(&same["embeddings"][0]), &data[2]) > 0.999);
    let old = server.ask("/api/embeddings", &json!({"model": "tiny-chat-q8_0", "prompt": "sheep"}));
    assert_eq!(vector(&old["embedding"]).len(), 256);
    // Long texts are read in pieces, and while texts are written.
    let stream = server.begin("/v1/completions", &endless());
    let long = server.ask("/v1/embeddings", &json!({"input": "word ".repeat(300)}));
    assert!(long["usage"]["prompt_tokens"].as_u64().unwrap() >= 300);
    drop(stream);
}

#[test]
fn ollama_chats() {
    let server = Server::start(&[]);
    let asked = json!({"model": "tiny-chat-q8_0:latest", "messages": user(QUESTION), "options": {"temperature": 0}, "keep_alive": "5m"});
    let answer = server.post("/api/chat", &asked);
    assert_eq!(answer.kind, "application/x-ndjson");
    let lines = answer.lines();
    let text = |line: &Value| line["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(lines.iter().map(text).collect::<String>(), ANSWER);
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    for count in [
        "total_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ] {
        assert!(last[count].as_u64().unwrap() > 0, "{last}");
    }
    let asked = json!({"model": "tiny-chat-q8_0", "prompt": "My name is Rosa.", "stream": false, "options": {"temperature": 0}});
    let first = server.ask("/api/generate", &asked);
    assert_eq!(first["response"], "Nice to meet you, Rosa!");
    let next =
        with(asked.clone(), json!({"prompt": "What is my name?", "context": first["context"]}));
    assert_eq!(server.ask("/api/generate", &next)["response"], "Your name is Rosa.");
    let raw = with(
        asked,
        json!({"prompt": "The capital of Peru is", "raw": true, "options": {"temperature": 0, "num_predict": 2}}),
    );
    assert_eq!(server.ask("/api/generate", &raw)["response"], " Lima.");
    assert_eq!(
        server.ask("/api/generate", &json!({"model": "tiny-chat-q8_0"}))["done_reason"],
        "load"
    );
}

#[test]
fn what_there_is_can_be_asked() {
    let server = Server::start(&["--name", "small", "--stream", "always", "--draft", "none"]);
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "small");
    assert_eq!(server.get("/v1/models/small").json()["id"], "small");
    assert_eq!(server.get("/v1/models/large").status, 404);
    assert_eq!(server.get("/api/tags").json()["models"][0]["name"], "small");
    assert_eq!(server.get("/api/ps").json()["models"][0]["details"]["format"], "gguf");
    assert!(server.get("/api/version").json()["version"].is_string());
    let show = server.ask("/api/show", &json!({"model": "small"}));
    assert_eq!(show["model_info"]["general.architecture"], "llama");
    assert_eq!(show["capabilities"], json!(["completion"]));
    let status = server.get("/api/airrun/status").json();
    assert_eq!(status["plan"]["blocks"].as_array().unwrap().len(), 6);
    assert_eq!(status["plan"]["blocks"][0]["tier"], "streamed");
    let units = status["plan"]["units"].as_array().unwrap();
    for (i, block) in status["plan"]["blocks"].as_array().unwrap().iter().enumerate() {
        let of_it = units.iter().filter(|unit| unit["block"] == json!(i));
        let bytes = of_it.map(|unit| unit["bytes"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(block["streamed_bytes"], json!(bytes));
        assert_eq!(block["partly"], false);
    }
    assert_eq!(status["now"]["units"].as_array().unwrap().len(), 6);
    let page = server.agent.get(server.url("/")).header("accept", "text/html").call().unwrap();
    assert!(answer(page).text.contains("airrun"));
    server.ask("/v1/chat/completions", &question());
    assert!(server.metric("passes_total") >= 8.0);
    assert!(server.metric("streamed_bytes_total") > 1e6);

    let mut events = server.agent.get(server.url("/api/airrun/events")).call().unwrap();
    let mut lines = BufReader::new(events.body_mut().as_reader()).lines();
    let line = lines.next().unwrap().unwrap();
    let event: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
    assert!(event["passes"].as_u64().unwrap() >= 8, "{event}");
}

/// Asserts that a request is refused in the words of its protocol.
#[track_caller]
fn check_refused(server: &Server, path: &str, body: &str, status: u16, word: &str) {
    let answer = server.post_text(path, body);
    assert_eq!(answer.status, status, "{path} {body:.80}: {answer:?}");
    let error = &answer.json()["error"];
    let message = if path.starts_with("/api/") { error } else { &error["message"] };
    assert!(message.as_str().is_some_and(|m| m.contains(word)), "'{word}' is missing: {answer:?}");
    if !path.starts_with("/api/") {
        for key in ["type", "param", "code"] {
            assert!(error.get(key).is_some(), "{answer:?}");
        }
    }
}

#[test]
fn bad_requests_are_refused_and_the_server_stays() {
    let server = Server::start(&["-c", "256"]);
    let long = json!({"messages": user(&"word ".repeat(400))}).to_string();
    let deep = "[".repeat(100_000);
    let hi = |more: &str| format!(r#"{{"messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
    for path in ["/v1/chat/completions", "/api/chat"] {
        check_refused(&server, path, "", 400, "not JSON");
        check_refused(&server, path, "{", 400, "not JSON");
        check_refused(&server, path, &deep, 400, "not JSON");
        check_refused(&server, path, "[]", 400, "JSON object");
        check_refused(&server, path, r#"{"model":1}"#, 400, "'model' must be a text");
        check_refused(&server, path, &hi(r#","model":5"#), 400, "model");
        check_refused(&server, path, &hi(r#","stream":"yes""#), 400, "'stream'");
        check_refused(&server, path, &hi(r#","tools":[1]"#), 400, "'tools'");
        check_refused(&server, path, r#"{"messages":[{"role":"x","content":""}]}"#, 400, "role");
        check_refused(&server, path, r#"{"messages":"Hi"}"#, 400, "'messages'");
        check_refused(&server, path, &long, 400, "the context has room for 255");
    }
    check_refused(&server, "/v1/completions", r#"{"prompt":[99999999]}"#, 400, "'prompt'");
    check_refused(&server, "/v1/completions", r#"{"prompt":""}"#, 400, "empty");
    check_refused(&server, "/v1/completions", "{}", 400, "'prompt'");
    check_refused(&server, "/v1/embeddings", r#"{"input":[]}"#, 400, "'input'");
    check_refused(
        &server,
        "/v1/embeddings",
        r#"{"input":"x","encoding_format":"mp3"}"#,
        400,
        "encoding_format",
    );
    check_refused(
        &server,
        "/api/generate",
        r#"{"prompt":"x","options":{"top_k":"many"}}"#,
        400,
        "options.top_k",
    );
    check_refused(
        &server,
        "/api/generate",
        r#"{"prompt":"x","images":["aGk="]}"#,
        400,
        "text only",
    );
    check_refused(&server, "/api/show", r#"{"model":"other"}"#, 404, "other");
    check_refused(&server, "/api/pull", "{}", 400, "model");
    check_refused(&server, "/api/pull", r#"{"model":"other"}"#, 403, "--pull");
    check_refused(&server, "/health", "{}", 405, "POST");
    let answer = server.ask("/v1/chat/completions", &question());
    assert_eq!(answer["choices"][0]["message"]["content"], ANSWER);
}

#[test]
fn fields_of_the_wrong_kind_are_refused() {
    let server = Server::start(&["-c", "256"]);
    let hi = |more: &str| format!(r#"{{"messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
    let path = "/v1/chat/completions";
    check_refused(&server, path, "{}", 400, "'messages'");
    for (field, name) in [
        (r#""temperature":"hot""#, "temperature"),
        (r#""temperature":-1"#, "temperature"),
        (r#""top_p":2"#, "top_p"),
        (r#""n":0"#, "'n'"),
        (r#""n":1000"#, "'n'"),
        (r#""n":1.5"#, "'n'"),
        (r#""max_tokens":-5"#, "max_tokens"),
        (r#""stop":[1]"#, "stop"),
        (r#""seed":"x""#, "seed"),
        (r#""logit_bias":{"a":1}"#, "logit_bias"),
        (r#""logit_bias":{"1":1000}"#, "logit_bias"),
        (r#""top_logprobs":99,"logprobs":true"#, "top_logprobs"),
        (r#""response_format":{"type":"xml"}"#, "response_format.type"),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"schema":{"type":"nonsense"}}}"#,
            "schema",
        ),
        (r#""stream_options":1"#, "stream_options"),
    ] {
        check_refused(&server, path, &hi(&format!(",{field}")), 400, name);
    }
}

#[test]
fn bodies_have_a_limit() {
    let server = Server::start(&["--max-body", "2K"]);
    let long = json!({"messages": user(&"x".repeat(3000))}).to_string();
    assert_eq!(server.post_text("/v1/chat/completions", &long).status, 413);
    // Of unknown length.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.address
    );
    let chunk = format!("{:x}\r\n{}\r\n", long.len(), long);
    stream.write_all((head + &chunk).as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(server.post("/v1/chat/completions", &question()).status, 200);
}

#[test]
fn who_may_ask() {
    let server = Server::start(&["--api-key", "secret", "--cors", "https://page.example"]);
    let send = |headers: &[(&str, &str)]| {
        let mut request = server.agent.get(server.url("/v1/models"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().unwrap()
    };
    assert_eq!(send(&[]).status(), 401);
    assert_eq!(send(&[("authorization", "Bearer wrong")]).status(), 401);
    assert_eq!(send(&[("authorization", "Bearer secret")]).status(), 200);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(
        server.get("/api/tags").json(),
        json!({"error": "this server wants its API key: 'Authorization: Bearer KEY'"})
    );
    let key = ("authorization", "Bearer secret");
    assert_eq!(send(&[key, ("host", "evil.example")]).status(), 403);
    assert_eq!(send(&[key, ("origin", "https://evil.example")]).status(), 403);
    let shared = send(&[key, ("origin", "https://page.example")]);
    assert_eq!(shared.headers()["access-control-allow-origin"], "https://page.example");

    let refused = |args: &[&str]| {
        let tiny = tiny();
        let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
        command.args(["serve", &tiny, "--port", "0"]).args(args).env_remove("AIRRUN_API_KEY");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = refused(&["--host", "0.0.0.0"]);
    assert!(code == Some(1) && said.contains("--api-key"), "{said}");
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let (code, said) = refused(&["--port", &port]);
    assert!(code == Some(1) && said.contains("cannot listen"), "{said}");
    let (code, said) = refused(&["-c", "4000000000"]);
    assert!(code == Some(1) && said.starts_with("listening on "), "{said}");
}

#[test]
fn clients_that_go_are_let_go() {
    let server = Server::start(&["--stream", "always", "--parallel", "2"]);
    let ended = || server.metric("answers_total{end=\"cancelled\"}");
    let mut stream = server.begin("/v1/completions", &endless());
    stream.read_exact(&mut [0; 100]).unwrap();
    server.until("it runs", || server.metric("running_requests") > 0.0);
    drop(stream);
    server.until("its texts are cancelled", || {
        ended() > 0.0 && server.metric("running_requests") == 0.0
    });
    // Without streaming, too: nobody waits for the answer.
    let before = ended();
    let quiet = server.begin("/v1/completions", &with(endless(), json!({"stream": false})));
    server.until("it runs", || server.metric("running_requests") > 0.0);
    drop(quiet);
    server.until("its texts are cancelled", || {
        ended() > before && server.metric("running_requests") == 0.0
    });
    assert_eq!(
        server.ask("/v1/chat/completions", &question())["choices"][0]["message"]["content"],
        ANSWER
    );
}

#[test]
fn too_many_requests_are_told_to_come_back() {
    let server = Server::start(&["--stream", "always", "--parallel", "1", "--queue", "1"]);
    let running = server.begin("/v1/completions", &endless());
    server.until("it runs", || server.metric("running_requests") > 0.0);
    let waiting = server.begin("/v1/completions", &endless());
    server.until("one waits", || server.metric("waiting_requests") >= 16.0);
    let answer = server.post("/v1/chat/completions", &question());
    assert_eq!((answer.status, answer.retry_after), (429, true), "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "queue_full");
    assert_eq!(server.post("/api/chat", &question()).status, 429);
    drop((running, waiting));
    server.until("there is room again", || {
        server.post("/v1/chat/completions", &question()).status == 200
    });
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let server = Server::start(&["--stream", "always", "--parallel", "2"]);
    let lazy: Vec<_> = (0..1)
        .map(|_| server.begin("/v1/completions", &with(endless(), json!({"n": 1}))))
        .collect();
    for _ in 0..3 {
        assert_eq!(
            server.ask("/v1/chat/completions", &question())["choices"][0]["message"]["content"],
            ANSWER
        );
    }
    drop(lazy);
}

/// Whether a write failed because nobody reads, not because the connection has ended.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// Whether the server has ended this connection: what is sent into it comes back as an error, sooner or later.
fn is_let_go(mut stream: &TcpStream) -> bool {
    stream.write_all(b"GET").is_err_and(|error| !is_full(&error))
}

#[test]
fn clients_that_do_nothing_are_let_go() {
    let server = Server::start(&["--stream", "always", "--timeout", "1"]);
    // One takes nothing of many answers, ...
    let greedy = TcpStream::connect(&server.address).unwrap();
    greedy.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let asked = format!("GET /assets/app.js HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let sent = (0..100_000).try_for_each(|_| (&greedy).write_all(asked.as_bytes()));
    assert!(sent.is_err(), "the server takes requests without end");
    // ... one begins a request, one a body, one nothing at all.
    let begun = [
        "GET /health HTTP/1.1\r\nHos",
        "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        "",
    ];
    let mut slow: Vec<TcpStream> = begun
        .iter()
        .map(|text| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream
        })
        .collect();
    server.until("the one that reads nothing is let go", || is_let_go(&greedy));
    for stream in &mut slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn who_waits_long_hears_of_it() {
    let server = Server::start(&["--stream", "always", "--parallel", "1", "--ping", "1"]);
    let running = server.begin("/v1/completions", &endless());
    server.until("it runs", || server.metric("running_requests") > 0.0);
    let ask = with(question(), json!({"stream": true, "model": "tiny-chat-q8_0"}));
    for (path, sign) in
        [("/v1/chat/completions", ": still waiting"), ("/api/chat", "\"content\":\"\"")]
    {
        let stream = server.begin(path, &ask);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        for _ in 0..2 {
            assert!(lines.any(|line| line.contains(sign)), "{path}");
        }
    }
    drop(running);
    // The answer is none the worse for it.
    let events = server.post("/v1/chat/completions", &ask).events();
    let text = |e: &Value| e["choices"][0]["delta"]["content"].as_str().unwrap_or("").to_owned();
    assert_eq!(events.iter().map(text).collect::<String>(), ANSWER);
}

#[test]
fn prompts_are_echoed() {
    let server = Server::start(&[]);
    let asked = json!({"prompt": "The capital of Peru is", "echo": true, "temperature": 0, "max_tokens": 2});
    let whole = server.ask("/v1/completions", &asked);
    assert_eq!(whole["choices"][0]["text"], "The capital of Peru is Lima.");
    let events =
        server.post("/v1/completions", &with(asked.clone(), json!({"stream": true}))).events();
    let text = |e: &Value| e["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(events.iter().map(text).collect::<String>(), "The capital of Peru is Lima.");
    // Tokens are echoed as their text, and each choice has its own prompt.
    let two = with(asked.clone(), json!({"prompt": [[3, 4], [5]], "n": 2, "max_tokens": 0}));
    let texts: Vec<Value> = server.ask("/v1/completions", &two)["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].clone())
        .collect();
    assert_eq!(texts, ["!\"", "!\"", "#", "#"]);
    let scored = with(asked, json!({"logprobs": 1}));
    check_refused(&server, "/v1/completions", &scored.to_string(), 400, "probabilities");
}

/// The small model with tokens for filling in, which are other tokens renamed.
fn model_that_fills_in(dir: &std::path::Path) -> String {
    let mut bytes = std::fs::read(tiny()).unwrap();
    for (old, new) in [("Apple", "<PRE>"), ("utumn", "<SUF>"), ("quare", "<MID>")] {
        let long = |text: &str| [&5_u64.to_le_bytes()[..], text.as_bytes()].concat();
        let (old, new) = (long(old), long(new));
        let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
        bytes[at..at + new.len()].copy_from_slice(&new);
    }
    let path = dir.join("fills-in.gguf");
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

#[test]
fn what_is_missing_between_two_texts_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::with_model(&model_that_fills_in(dir.path()), &[]);
    let asked =
        json!({"prompt": "def f(", "suffix": "return x", "max_tokens": 2, "temperature": 0});
    let n = |text: &str| {
        let asked = json!({"prompt": text, "max_tokens": 1});
        server.ask("/v1/completions", &asked)["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let want = n("def f(") + n("return x") + 3;
    let answer = server.ask("/v1/completions", &asked);
    assert_eq!(answer["usage"]["prompt_tokens"].as_u64(), Some(want));
    let answer = server.ask("/api/generate", &with(asked.clone(), json!({"stream": false})));
    assert_eq!(answer["prompt_eval_count"].as_u64(), Some(want));
    check_refused(&server, "/v1/completions", r#"{"suffix":"x"}"#, 400, "'prompt'");
    // A model that was not made for it says so, in both protocols.
    let server = Server::start(&[]);
    check_refused(&server, "/v1/completions", &asked.to_string(), 400, "not made to fill in");
    check_refused(&server, "/api/generate", &asked.to_string(), 400, "not made to fill in");
}

#[test]
fn it_ends_well_when_told_to() {
    for (signal, grace) in [("-TERM", "0"), ("-INT", "0")] {
        let mut server = Server::start(&["--stream", "always", "--grace", grace]);
        let mut stream = server.begin("/v1/completions", &endless());
        stream.read_exact(&mut [0; 100]).unwrap();
        server.signal(signal);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("\"finish_reason\":\"length\""), "{:.300}", rest);
        assert!(rest.contains("data: [DONE]"), "{signal}");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        assert!(TcpStream::connect(&server.address).is_err());
    }
    // What runs may end by itself.
    let mut server = Server::start(&["--grace", "100"]);
    let mut stream =
        server.begin("/v1/chat/completions", &with(question(), json!({"stream": true})));
    stream.read_exact(&mut [0; 100]).unwrap();
    server.signal("-TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"finish_reason\":\"stop\"") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
