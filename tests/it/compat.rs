//! `COMPAT.md`: which models and which fields of which protocol work. What it says of fields is tried here, each with a right value and with
//! one of a wrong kind; what it says of models is what `archs` tries. `AIRRUN_TEST_WRITE=1` writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use crate::archs::{DIFFUSION, KINDS};
use crate::seen;
use crate::serve::{Server, model_with_tools, with};
use crate::tiny_models::{self, Outcome};

/// A protocol's path, a request that works, and fields with right values. The wrong ones follow from them.
pub(crate) type Endpoint = (&'static str, Value, Value);

/// What clients send.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    [openai(), others(), own()].concat()
}

fn messages() -> Value {
    json!([{"role": "user", "content": "Hello"}])
}

fn tool() -> Value {
    json!({"name": "f", "description": "d", "parameters": {"type": "object"}})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "integer"}}})
}

/// Chats and texts as OpenAI has them.
fn openai() -> Vec<Endpoint> {
    let (messages, tool, schema) = (messages(), tool(), schema());
    let sampling = json!({
        "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["###"], "presence_penalty": 0.1,
        "frequency_penalty": 0.1, "top_k": 20, "min_p": 0.05, "repeat_penalty": 1.1, "logit_bias": {"5": -1},
        "n": 2, "user": "somebody", "stream": true, "stream_options": {"include_usage": true},
    });
    vec![
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 1}),
            with(
                sampling.clone(),
                json!({
                    "max_completion_tokens": 1, "logprobs": true, "top_logprobs": 2, "tool_choice": "none",
                    "tools": [{"type": "function", "function": tool}], "parallel_tool_calls": false,
                    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
                    "reasoning_effort": "low", "store": false, "metadata": {"a": "b"}, "service_tier": "auto",
                    "modalities": ["text"], "prediction": {"type": "content", "content": "x"},
                }),
            ),
        ),
        (
            "/v1/completions",
            json!({"prompt": "Hello", "max_tokens": 1}),
            with(sampling, json!({"logprobs": 2, "echo": true, "suffix": ".", "best_of": 2})),
        ),
    ]
}

/// Responses, and Anthropic's messages.
fn others() -> Vec<Endpoint> {
    let (messages, tool) = (messages(), tool());
    vec![
        (
            "/v1/responses",
            json!({"input": "Hello", "max_output_tokens": 1}),
            json!({
                "instructions": "Be brief.", "temperature": 0.5, "top_p": 0.9, "stream": true, "store": false,
                "tool_choice": "none", "tools": [with(json!({"type": "function"}), tool.clone())],
                "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "metadata": {"a": "b"},
                "parallel_tool_calls": false, "truncation": "disabled", "include": [], "user": "somebody",
                "previous_response_id": "resp_1", "background": false, "service_tier": "auto", "max_tool_calls": 2,
            }),
        ),
        (
            "/v1/messages",
            json!({"messages": messages, "max_tokens": 1}),
            json!({
                "system": "Be brief.", "temperature": 0.5, "top_p": 0.9, "top_k": 20, "stop_sequences": ["###"],
                "stream": true, "metadata": {"user_id": "x"}, "thinking": {"type": "disabled"},
                "tool_choice": {"type": "auto"}, "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
                "service_tier": "auto", "container": "x",
            }),
        ),
    ]
}

/// Ollama's, embeddings, and llama-server's.
fn own() -> Vec<Endpoint> {
    let (messages, tool, schema) = (messages(), tool(), schema());
    let options = json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "seed": 7, "stop": ["###"], "num_predict": 1,
        "repeat_penalty": 1.1, "repeat_last_n": 32, "num_ctx": 512, "num_gpu": 1, "mirostat": 0, "tfs_z": 1.0,
        "presence_penalty": 0.1, "frequency_penalty": 0.1, "num_keep": 4,
    });
    let inside = |options: &Value| -> Value {
        let fields = options.as_object().unwrap().iter();
        fields.map(|(name, value)| (format!("options.{name}"), value.clone())).collect()
    };
    vec![
        (
            "/api/chat",
            json!({"messages": messages, "stream": false, "options": {"num_predict": 1}}),
            with(
                json!({
                    "format": schema, "keep_alive": "5m", "think": false, "logprobs": true,
                    "tools": [{"type": "function", "function": tool}],
                }),
                inside(&options),
            ),
        ),
        (
            "/api/generate",
            json!({"prompt": "Hello", "stream": false, "options": {"num_predict": 1}}),
            json!({
                "system": "Be brief.", "template": "{{ .Prompt }}", "raw": true, "suffix": ".", "format": "json",
                "keep_alive": "5m", "images": ["aGVsbG8="], "context": [1, 2], "think": false,
            }),
        ),
        (
            "/v1/embeddings",
            json!({"input": "Hello"}),
            json!({"encoding_format": "base64", "dimensions": 8, "user": "somebody"}),
        ),
        (
            "/completion",
            json!({"prompt": "Hello", "n_predict": 1}),
            json!({
                "temperature": 0.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "seed": 7, "stop": ["###"],
                "repeat_penalty": 1.1, "repeat_last_n": 32, "n_probs": 2, "stream": true, "cache_prompt": true,
                "json_schema": schema, "grammar": "root ::= \"a\"", "logit_bias": [[5, -1.0]], "mirostat": 0,
                "typical_p": 1.0, "dry_multiplier": 0.5, "xtc_probability": 0.1, "samplers": ["top_k"], "id_slot": 0,
                "ignore_eos": true, "n_keep": 0,
            }),
        ),
    ]
}

/// Something of another kind than `value`, which whoever reads it must refuse.
fn wrong(name: &str, value: &Value) -> Value {
    match value {
        // An object is a schema, too.
        _ if name == "format" || name == "json_schema" => json!("no schema"),
        Value::Object(_) | Value::Array(_) => json!(5.5),
        _ => json!({"no": [1]}),
    }
}

/// A request with one field more; `options.x` is inside.
fn field(base: &Value, tried: &Value, name: &str, value: Value) -> Value {
    let mut request = base.clone();
    match name.split_once('.') {
        Some((outer, inner)) => request[outer][inner] = value,
        None => request[name] = value,
    }
    // What is only of use beside another field.
    match name {
        "stream_options" => request["stream"] = json!(true),
        "top_logprobs" => request["logprobs"] = json!(true),
        "tool_choice" | "parallel_tool_calls" => request["tools"] = tried["tools"].clone(),
        "n" | "best_of" => request["temperature"] = json!(0.5),
        _ => {}
    }
    request
}

/// How many fields are what, and their table.
fn fields() -> (BTreeMap<&'static str, usize>, String) {
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_tools(dir.path());
    let server = Server::with_model(&model, &["--grammars", "-c", "512"]);
    let (mut counts, mut out) = (BTreeMap::new(), String::new());
    for (path, base, tried) in endpoints() {
        assert_eq!(server.post(path, &base).status, 200, "{path} {base}");
        let _ = writeln!(out, "\n### `{path}`\n\n| field | |\n|---|---|");
        for (name, value) in tried.as_object().unwrap() {
            let right = server.post(path, &field(&base, &tried, name, value.clone()));
            let wrong = server.post(path, &field(&base, &tried, name, wrong(name, value)));
            assert!(right.status < 500 && wrong.status < 500, "{path} {name}: {right:?} {wrong:?}");
            let status = match (right.status, wrong.status) {
                (200, 200) => "ignored",
                (200, _) => "works",
                _ => "refused",
            };
            *counts.entry(status).or_default() += 1;
            let _ = writeln!(out, "| `{name}` | {status} |");
        }
    }
    (counts, out)
}

/// The models, by their architecture.
fn models() -> String {
    let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for spec in tiny_models::all() {
        rows.entry(spec.arch).or_default().push(spec);
    }
    let vulkan = seen::on("vulkan");
    let mut out = "| architecture | resident | streamed, bit for bit | texts that share passes, streamed, bit for bit | on Vulkan, streamed, bit for bit | tried on Vulkan in every run |\n\
                   |---|---|---|---|---|---|\n"
        .to_owned();
    for (arch, specs) in rows {
        let runs = match specs[0].outcome {
            Outcome::Refused => "refused in words",
            Outcome::Logits => "works",
        };
        let texts = if DIFFUSION.contains(&arch) { "refused in words" } else { runs };
        // Of several models of an architecture, what one of them does not do is what counts.
        let seen: Vec<&String> = specs.iter().filter_map(|spec| vulkan.get(spec.name)).collect();
        let seen = seen.iter().find(|word| **word != runs).or(seen.first());
        let seen = seen.map_or("not tried", |word| word.as_str());
        let always = if specs.iter().any(|spec| KINDS.contains(&spec.name)) { "yes" } else { "" };
        let _ = writeln!(out, "| `{arch}` | {runs} | {runs} | {texts} | {seen} | {always} |");
    }
    out
}

#[test]
fn the_table_of_what_works_is_true() {
    let (counts, fields) = fields();
    let all: usize = counts.values().sum();
    let text = format!(
        "# What works\n\nWritten by the tests that try it: `AIRRUN_TEST_WRITE=1 cargo test --test it the_table_of_what_works`.\n\n\
         ## Fields of requests\n\nOf {all} fields that clients send, {} work: a right value is taken and one of a wrong kind is refused. \
         {} are ignored, whatever they say. {} are refused in words with the model of the test, which takes tools, and has no thoughts, pictures or gaps to be filled.\n{fields}\n\
         ## Architectures\n\nA tiny model of each is computed with all blocks in memory and with all blocks streamed, with prompts of several \
         lengths, and with three texts that share passes (`make test`, `archs`). Models without logits of next tokens are refused. \
         On Vulkan the same is asked of a prompt, on Mesa's device that is made of the CPU: `make test-vulkan` tries some of them each time and holds them against what was seen, \
         which is written down by `VULKAN_EVERY=1 VULKAN_TESTS=archs:: AIRRUN_TEST_WRITE=1 make test-vulkan`. No card was seen, and nothing was tried on CUDA or Metal.\n\n{}",
        counts.get("works").unwrap_or(&0),
        counts.get("ignored").unwrap_or(&0),
        counts.get("refused").unwrap_or(&0),
        models()
    );
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/COMPAT.md");
    if std::env::var_os("AIRRUN_TEST_WRITE").is_some() {
        fs::write(file, &text).unwrap();
    }
    let there = fs::read_to_string(file).unwrap_or_default();
    let differing = there.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(there == text, "COMPAT.md is not what works: {differing:?}");
    assert!(counts["works"] * 2 > all, "{counts:?}");
}
