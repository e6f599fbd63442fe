//! Prompts that outlive the server: found again after a restart, with the same numbers; never used when damaged or of another model.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::serve::Server;

fn tiny() -> String {
    format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"))
}

fn start(model: &str, cache: &Path, args: &[&str]) -> Server {
    let args = [&["--stream", "always", "-c", "1024"][..], args].concat();
    Server::with_env(model, &args, &[("XDG_CACHE_HOME", cache.to_str().unwrap())])
}

/// A long question.
fn question() -> Value {
    let numbers: Vec<String> = (0..180).map(|i| format!("{i}")).collect();
    json!({
        "messages": [{"role": "user", "content": format!("{} What is the capital of Peru?", numbers.join(" "))}],
        "temperature": 0, "max_tokens": 8, "logprobs": true, "top_logprobs": 5,
    })
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

fn files(cache: &Path, kind: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cache.join("airrun/prompts")) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == kind)).collect()
}

/// Asks once, and ends the server well, so that the prompt is kept. Returns how much of the prompt there was.
fn ask_and_end(model: &str, cache: &Path) -> u64 {
    let server = start(model, cache, &[]);
    let n = cached(&server.ask("/v1/chat/completions", &question()));
    server.end();
    n
}

#[test]
fn a_prompt_is_found_after_a_restart_with_the_same_numbers() {
    let cache = tempfile::tempdir().unwrap();
    let server = start(&tiny(), cache.path(), &[]);
    let first = server.ask("/v1/chat/completions", &question());
    assert_eq!(cached(&first), 0);
    let again = server.ask("/v1/chat/completions", &question());
    server.end();
    assert_eq!(files(cache.path(), "state").len(), 1);
    let server = start(&tiny(), cache.path(), &[]);
    let later = server.ask("/v1/chat/completions", &question());
    let n = later["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(n > 300, "{n}");
    assert_eq!(cached(&later), n - 1);
    assert_eq!(later["choices"][0], again["choices"][0]);
}

#[test]
fn what_is_damaged_or_foreign_is_not_used() {
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(ask_and_end(&tiny(), cache.path()), 0);
    let state = files(cache.path(), "state").remove(0);
    let whole = fs::read(&state).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
        fs::write(&state, damaged).unwrap();
        assert_eq!(ask_and_end(&tiny(), cache.path()), 0);
        // Another one, as it should be, has taken its place.
        assert_eq!(fs::read(&state).unwrap().len(), whole.len());
    }
    // A copy of the model is another file, and what its weights are might be another thing.
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.gguf");
    fs::copy(tiny(), &other).unwrap();
    let old = fs::File::options().write(true).open(&other).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(ask_and_end(other.to_str().unwrap(), cache.path()), 0);
    assert_eq!(files(cache.path(), "state").len(), 2);
}

#[test]
fn nothing_is_kept_where_that_is_off_or_there_is_no_room() {
    for size in ["off", "1000"] {
        let cache = tempfile::tempdir().unwrap();
        let server = start(&tiny(), cache.path(), &["--prompt-cache", size]);
        server.ask("/v1/chat/completions", &question());
        server.end();
        assert_eq!(files(cache.path(), "state"), [] as [PathBuf; 0], "{size}");
    }
}

#[test]
fn a_slot_that_is_given_up_leaves_its_text_behind() {
    let cache = tempfile::tempdir().unwrap();
    let server = start(&tiny(), cache.path(), &["--parallel", "1"]);
    server.ask("/v1/chat/completions", &question());
    let other =
        json!({"messages": [{"role": "user", "content": "Hi ".repeat(150)}], "max_tokens": 1});
    server.ask("/v1/chat/completions", &other);
    let again = server.ask("/v1/chat/completions", &question());
    assert_eq!(cached(&again), again["usage"]["prompt_tokens"].as_u64().unwrap() - 1);
}
