//! Tidy: what the house rules say and a program can check.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest function [lines], for those that are not tables.
const MAX_FUNCTION: usize = 70;

/// Files that may hold `unsafe` code.
const UNSAFE: [&str; 19] = [
    "src/ggml/",
    "src/heap.rs",
    "src/os/nvidia.rs",
    "src/os/pages.rs",
    "src/os/reads.rs",
    "src/os/windows.rs",
    "src/source/align.rs",
    "src/source/reader/uring.rs",
    "src/stream/device.rs",
    "src/stream/exec.rs",
    "src/stream/experts/device.rs",
    "src/stream/experts/pool/arrival.rs",
    "src/stream/experts/pool/placing.rs",
    "src/stream/experts/pool.rs",
    "src/stream/host.rs",
    "src/stream/mock",
    "src/stream/staging.rs",
    "src/stream/tables.rs",
    "src/stream/vtable.rs",
];

/// For each room, the rooms that it may use. `units`, `memo`, `files` and `os` are for all.
const ARROWS: [(&str, &[&str]); 16] = [
    ("units", &[]),
    ("memo", &[]),
    ("os", &[]),
    ("heap", &[]),
    ("files", &[]),
    ("gguf", &[]),
    ("models", &["gguf"]),
    ("hub", &["models"]),
    ("plan", &["gguf"]),
    ("source", &[]),
    ("ggml", &[]),
    ("probe", &["ggml", "source", "plan", "gguf"]),
    ("stream", &["ggml", "source"]),
    ("talk", &["ggml", "gguf", "heap"]),
    ("engine", &["talk", "stream", "ggml", "source", "plan", "gguf", "probe"]),
    ("serve", &["engine", "talk", "heap"]),
];

/// What `cli` may use: the seam, and what needs no model loaded.
const CLI: &[&str] =
    &["serve", "engine", "talk", "gguf", "heap", "hub", "models", "plan", "probe", "units"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under `dir`, with their path from the root and their text.
pub(crate) fn sources(dir: &str) -> Vec<(String, String)> {
    let mut todo = vec![root().join(dir)];
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources under {dir}");
    found
}

/// The room that a file under `src/` belongs to; `main.rs` and `lib.rs` belong to none.
fn room(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    let room = rest.split('/').next()?.trim_end_matches(".rs");
    (room != "lib" && room != "main").then_some(room)
}

#[test]
fn every_file_says_what_it_owns() {
    for dir in ["src", "tests", "vendor/ggml-sys", "fuzz/src", "fuzz/fuzz_targets"] {
        for (file, text) in sources(dir) {
            let first = text.lines().next().unwrap_or_default();
            assert!(first.starts_with("//! "), "{file} does not open with what it owns");
        }
    }
}

#[test]
fn rooms_use_only_what_is_below_them() {
    for (file, text) in sources("src") {
        let Some(room) = room(&file) else { continue };
        let allowed = match room {
            "cli" => CLI,
            _ => ARROWS.iter().find(|(r, _)| *r == room).expect("a room without arrows").1,
        };
        // Tests inside a file may use what they like.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let used: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine = used == room
                    || used == "units"
                    || used == "memo"
                    || used == "files"
                    || used == "os"
                    || allowed.contains(&used.as_str());
                assert!(fine || used.is_empty(), "{file}: {room} must not use {used}: {line}");
            }
        }
    }
}

#[test]
fn only_some_rooms_are_unsafe() {
    for (file, text) in sources("src") {
        let may = UNSAFE.iter().any(|u| file.starts_with(u));
        let does = text.lines().any(|l| {
            let code = l.split("//").next().unwrap_or_default();
            code.contains("unsafe ") && !code.contains("unsafe_code")
        });
        assert!(may || !does, "{file} has unsafe code");
        let c = text.contains("ggml_sys") && !file.starts_with("src/ggml/");
        let tables = ["src/stream/tables.rs", "src/stream/vtable.rs"];
        let may = tables.contains(&file.as_str()) || file.starts_with("src/stream/mock");
        assert!(!c || may, "{file} calls C by itself");
    }
}

#[test]
fn functions_fit_a_screen() {
    for dir in ["src", "tests/it"] {
        for (file, text) in sources(dir) {
            for (line, name, len) in functions(&text) {
                assert!(len <= MAX_FUNCTION, "{file}:{line}: `{name}` has {len} lines");
            }
        }
    }
}

/// Line, signature and length of every function, by the indentation that rustfmt keeps.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let is_fn = head.starts_with("fn ") || head.contains(" fn ") && !head.starts_with("//");
        if !is_fn || head.contains('"') || head.ends_with([';', '}']) {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[i..].iter().position(|l| *l == close);
        if let Some(len) = end {
            found.push((i + 1, head.to_owned(), len + 1));
        }
    }
    found
}

/// What a user reads names things that exist.
#[test]
fn documents_are_there() {
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.starts_with("# "), "{file}");
        for word in text.split(|c: char| c == '`' || c.is_whitespace()) {
            let is_path = word.starts_with("src/") || word.starts_with("tests/it/");
            let plain = !word.contains(['{', '*', ',', ')']);
            if is_path && plain {
                assert!(Path::new(&root().join(word)).exists(), "{file} names {word}");
            }
        }
    }
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(map.lines().count() <= 120, "the architecture is too long to be read");
    for (room, _) in ARROWS {
        assert!(map.contains(&format!("`{room}")), "ARCHITECTURE.md does not name {room}");
    }
}
