//! No circle of imports among the files of `src/`: each can be read with only those below it in mind. A file and the folder of its name
//! are one thing (`batch.rs` and `batch/`); a `mod.rs` only passes names on, and what it passes on counts where it is defined. Tests
//! may use what they like.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::tidy::sources;

/// A module: its path from the crate (`engine::open`), the names that it passes on, and what it takes from elsewhere.
#[derive(Debug, Default)]
struct Module {
    path: Vec<String>,
    passes_on: HashMap<String, Vec<String>>,
    takes: BTreeSet<Vec<String>>,
}

/// The modules by path, and those whose folder belongs to them.
#[derive(Debug, Default)]
struct House {
    modules: BTreeMap<Vec<String>, Module>,
    with_folder: BTreeSet<Vec<String>>,
}

/// `src/engine/open/mod.rs` is `engine::open`.
fn path_of(file: &str) -> Vec<String> {
    let file = file.trim_start_matches("src/").trim_end_matches(".rs");
    let file = file.strip_suffix("/mod").unwrap_or(file);
    file.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

/// The paths in `a::{b, c::{self, d as e}}`, each with the name that it gets.
fn expanded(tree: &str, before: &[String], out: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut path = before.to_vec();
        let head = tree[..open].split("::").map(str::trim).filter(|part| !part.is_empty());
        path.extend(head.map(str::to_owned));
        let inner = tree[open + 1..].trim_end().trim_end_matches('}');
        let (mut depth, mut from) = (0, 0);
        for (i, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expanded(&inner[from..i], &path, out);
                    from = i + 1;
                }
                _ => {}
            }
        }
        return expanded(&inner[from..], &path, out);
    }
    if tree.is_empty() {
        return;
    }
    let (tree, renamed) = tree.split_once(" as ").map_or((tree, None), |(t, n)| (t, Some(n)));
    let mut path = before.to_vec();
    path.extend(tree.split("::").map(|part| part.trim().to_owned()));
    path.pop_if(|last| last == "self");
    let name = renamed.map_or_else(|| path.last().cloned().unwrap_or_default(), str::to_owned);
    out.push((path, name));
}

/// A path as it stands in a file, from the crate; none for other crates.
fn absolute(
    path: &[String],
    module: &[String],
    children: &BTreeSet<String>,
) -> Option<Vec<String>> {
    let mut at = module.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (at, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {}
        first if children.contains(first) => {}
        _ => return None,
    }
    while rest.first().is_some_and(|part| part == "super") {
        at.pop();
        rest = &rest[1..];
    }
    at.extend_from_slice(rest);
    Some(at)
}

impl House {
    fn read() -> House {
        let mut house = House::default();
        let mut files = sources("src");
        files.retain(|(file, _)| !file.ends_with("/tests.rs"));
        for (file, text) in &files {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code: String = lines.flat_map(|line| [line, "\n"]).collect();
            let path = path_of(file);
            let folder = file.trim_end_matches(".rs").to_owned() + "/";
            if !file.ends_with("mod.rs") && files.iter().any(|(f, _)| f.starts_with(&folder)) {
                house.with_folder.insert(path.clone());
            }
            house.modules.insert(path.clone(), Module::read(path, &code));
        }
        house
    }

    /// The module in which what `path` names is defined.
    fn definition(&self, path: &[String]) -> Option<&Module> {
        let n = (0..=path.len()).rev().find(|&n| self.modules.contains_key(&path[..n]))?;
        let module = &self.modules[&path[..n]];
        match path.get(n).and_then(|name| module.passes_on.get(name)) {
            Some(further) => self.definition(further),
            None => Some(module),
        }
    }

    /// What a module is part of: the outermost file whose folder it is in.
    fn whole(&self, path: &[String]) -> Vec<String> {
        let n = (1..=path.len()).find(|&n| self.with_folder.contains(&path[..n]));
        path[..n.unwrap_or(path.len())].to_vec()
    }

    fn arrows(&self) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
        let mut arrows: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for module in self.modules.values().filter(|module| !module.path.is_empty()) {
            let from = self.whole(&module.path);
            let to = arrows.entry(from.clone()).or_default();
            let found = module.takes.iter().filter_map(|path| self.definition(path));
            to.extend(found.map(|m| self.whole(&m.path)).filter(|m| *m != from && !m.is_empty()));
        }
        arrows
    }
}

impl Module {
    fn read(path: Vec<String>, code: &str) -> Module {
        let mut module = Module { path, ..Module::default() };
        let children = code.lines().filter_map(|line| line.trim().strip_suffix(';'));
        let children = children.filter_map(|line| line.rsplit_once("mod ").map(|(_, name)| name));
        let children: BTreeSet<String> = children.map(str::to_owned).collect();
        for statement in code.split("\n").collect::<Vec<_>>().join(" ").split(';') {
            let Some(at) = statement.find("use ") else { continue };
            let (visible, tree) = (statement[..at].contains("pub"), &statement[at + 4..]);
            let mut found = Vec::new();
            expanded(tree, &[], &mut found);
            for (used, name) in found {
                let Some(used) = absolute(&used, &module.path, &children) else { continue };
                if visible {
                    module.passes_on.insert(name, used);
                } else {
                    module.takes.insert(used);
                }
            }
        }
        for (at, _) in code.match_indices("crate::") {
            let path = code[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = path.take(1).flat_map(|path| path.split("::")).skip(1);
            let path: Vec<String> = path.map(str::to_owned).collect();
            if path.iter().all(|part| !part.is_empty()) {
                module.takes.insert(path);
            }
        }
        module
    }
}

/// Everything that can be reached from `from`.
fn reached(
    arrows: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
    from: &[String],
) -> BTreeSet<Vec<String>> {
    let mut reached = BTreeSet::new();
    let mut todo = vec![from.to_vec()];
    while let Some(at) = todo.pop() {
        for next in arrows.get(&at).into_iter().flatten() {
            if reached.insert(next.clone()) {
                todo.push(next.clone());
            }
        }
    }
    reached
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let arrows = House::read().arrows();
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 200, "imports were not found");
    let all: BTreeMap<_, _> = arrows.keys().map(|m| (m.clone(), reached(&arrows, m))).collect();
    let circle: Vec<String> = arrows
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| (from, to)))
        .filter(|(from, to)| all.get(*to).is_some_and(|reached| reached.contains(*from)))
        .map(|(from, to)| format!("{} uses {}", from.join("::"), to.join("::")))
        .collect();
    assert!(circle.is_empty(), "circles of imports:\n{}", circle.join("\n"));
}

#[test]
fn paths_are_read_as_rust_reads_them() {
    let mut found = Vec::new();
    expanded("super::{self, a::{B, c as d}, e}", &[], &mut found);
    let found: Vec<String> = found.iter().map(|(p, n)| format!("{} {n}", p.join("::"))).collect();
    assert_eq!(found, ["super super", "super::a::B B", "super::a::c d", "super::e e"]);
    let (module, children) = (path_of("src/a/b.rs"), BTreeSet::from(["k".to_owned()]));
    let at = |path: &str| {
        let path: Vec<String> = path.split("::").map(str::to_owned).collect();
        absolute(&path, &module, &children).map(|path| path.join("::"))
    };
    assert_eq!(at("super::super::x").as_deref(), Some("x"));
    assert_eq!(at("crate::y::Z").as_deref(), Some("y::Z"));
    assert_eq!(at("k::V").as_deref(), Some("a::b::k::V"));
    assert_eq!(at("std::io"), None);
}
