//! Tidy: what the house rules say and a program can check.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest function [lines], for those that are not tables.
const MAX_FUNCTION: usize = 70;

/// What every room may use.
const FOR_ALL: [&str; 4] = ["units", "memo", "files", "os"];

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

fn map() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// For each room of the map, top down, the rooms that it uses.
fn arrows(map: &str) -> Vec<(&str, Vec<&str>)> {
    let rows = map.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    cells
        .map(|cells: Vec<&str>| {
            assert_eq!(cells.len(), 4, "a row of the map without its four cells: {cells:?}");
            let uses = cells[2].split(", ").filter(|room| !room.is_empty()).collect();
            (cells[0].trim_matches('`'), uses)
        })
        .collect()
}

/// What the map says of where `unsafe` is: files and folders under `src/`.
fn unsafe_places(map: &str) -> Vec<String> {
    let from = map.find("- `unsafe` is in ").expect("the map says where `unsafe` is");
    let sentence = map[from..].split(';').next().unwrap_or_default();
    let marked = sentence.split('`').skip(3).step_by(2);
    marked
        .flat_map(|place| match place.split_once('{') {
            None => vec![format!("src/{place}")],
            Some((before, rest)) => {
                let (names, after) = rest.split_once('}').expect("a closed brace");
                names.split(',').map(|name| format!("src/{before}{name}{after}")).collect()
            }
        })
        .collect()
}

#[test]
fn rooms_use_only_what_is_below_them() {
    let map = map();
    let arrows = arrows(&map);
    for (at, (room, uses)) in arrows.iter().enumerate() {
        let above = &arrows[..at];
        for used in uses {
            assert!(above.iter().any(|(r, _)| r == used), "{room} uses {used}, no room before it");
        }
    }
    for (file, text) in sources("src") {
        let Some(room) = room(&file) else { continue };
        let (_, allowed) =
            arrows.iter().find(|(r, _)| *r == room).expect("a room that the map does not know");
        // Tests inside a file may use what they like.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let used: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let used = used.as_str();
                let fine = used == room || FOR_ALL.contains(&used) || allowed.contains(&used);
                assert!(fine || used.is_empty(), "{file}: {room} must not use {used}: {line}");
            }
        }
    }
}

#[test]
fn only_some_rooms_are_unsafe() {
    let places = unsafe_places(&map());
    for place in &places {
        assert!(sources("src").iter().any(|(f, _)| f.starts_with(place)), "no {place} is there");
    }
    for (file, text) in sources("src") {
        let may = places.iter().any(|place| file.starts_with(place));
        let does = text.lines().any(|l| {
            let code = l.split("//").next().unwrap_or_default();
            code.contains("unsafe ") && !code.contains("unsafe_code")
        });
        assert!(may || !does, "{file} has unsafe code");
        let c = text.contains("ggml_sys") && !file.starts_with("src/ggml/");
        let tables = ["src/stream/tables.rs", "src/stream/vtable", "src/stream/mock"];
        let may = tables.iter().any(|place| file.starts_with(place));
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
    assert!(map().lines().count() <= 120, "the architecture is too long to be read");
}
