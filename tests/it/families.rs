//! Families of models, by what they say of thoughts and calls: for each a template of our own with its marks and its answers
//! (`families/*.toml`), a parrot that says them, and what llama.cpp's `common/chat` makes of the same answers (`families/reference.json`,
//! made by `families/reference.cpp`). `docs/families.md` says what came of it; `AIRRUN_TEST_WRITE=1` writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::parrot::{Parrot, pieces};
use crate::serve::Server;

/// Answers of all families mean these: a thought and a text, one call, several, a call whose argument quotes the family's marks, and
/// one that a limit cuts.
const KINDS: [&str; 5] = ["thought", "call", "calls", "marks", "cut"];

#[derive(Deserialize)]
struct Family {
    title: String,
    /// What a prompt ends with.
    after: String,
    eos: String,
    /// Marks that are tokens of their own.
    control: Vec<String>,
    template: String,
    says: BTreeMap<String, String>,
    meant: BTreeMap<String, Meant>,
}

/// What is understood of an answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
struct Meant {
    thought: String,
    text: String,
    /// Names, and what is given: an object, or a beginning of it.
    calls: Vec<(String, Value)>,
}

impl Meant {
    /// Blanks around texts, and those of JSON, do not count.
    fn of(thought: &str, text: &str, calls: Vec<(String, String)>) -> Meant {
        let value = |given: &str| {
            serde_json::from_str(given).unwrap_or_else(|_| given.replace("\": ", "\":").into())
        };
        Meant {
            thought: thought.trim().to_owned(),
            text: text.trim().to_owned(),
            calls: calls.into_iter().map(|(name, given)| (name, value(&given))).collect(),
        }
    }
}

fn dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/families"))
}

fn families() -> Vec<(String, Family)> {
    let mut paths: Vec<_> = fs::read_dir(dir()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let family = toml::from_str(&fs::read_to_string(path).unwrap());
        let name = path.file_stem().unwrap().to_str().unwrap();
        (name.to_owned(), family.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    };
    paths.iter().map(read).collect()
}

fn tools() -> Value {
    serde_json::from_str(&fs::read_to_string(dir().join("tools.json")).unwrap()).unwrap()
}

/// What the reference makes of it; `None` if it refuses it.
fn reference(found: &Value) -> Option<Meant> {
    let calls = found["calls"].as_array()?.iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let calls = calls.map(|call| (text(&call["name"]), text(&call["arguments"]))).collect();
    Some(Meant::of(&text(&found["thought"]), &text(&found["text"]), calls))
}

/// What a whole message says.
fn whole(message: &Value) -> Meant {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let call = |c: &Value| (text(&c["function"]["name"]), text(&c["function"]["arguments"]));
    let calls = list.iter().map(call).collect();
    Meant::of(&text(&message["reasoning_content"]), &text(&message["content"]), calls)
}

/// What the deltas of a stream say together.
fn streamed(events: &[Value]) -> Meant {
    let (mut thought, mut text, mut calls) =
        (String::new(), String::new(), Vec::<(String, String)>::new());
    for event in events {
        let delta = &event["choices"][0]["delta"];
        thought += delta["reasoning_content"].as_str().unwrap_or_default();
        text += delta["content"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            if let Some(name) = call["function"]["name"].as_str() {
                calls.push((name.to_owned(), String::new()));
            }
            let at = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            calls[at].1 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
    }
    Meant::of(&thought, &text, calls)
}

/// What is understood of a family's answers that is not what they mean.
fn tried(name: &str, family: &Family, dir: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for (kind, says) in &family.says {
        // A mark that is said twice has two successors, which no parrot knows: it is spelled.
        let once = |mark: &&String| says.matches(mark.as_str()).count() == 1;
        let control: Vec<&str> = family.control.iter().filter(once).map(String::as_str).collect();
        let parrot = Parrot {
            says,
            template: &family.template,
            control: &control,
            after: &family.after,
            eos: &family.eos,
            more: vec![],
        };
        let model = parrot.write(dir, &format!("{name}-{kind}"));
        let server = Server::with_model(&model, &["-c", "2048", "--prompt-cache", "off"]);
        let mut body = json!({"messages": [{"role": "user", "content": "Go"}], "temperature": 0, "tools": tools()});
        if kind == "cut" {
            body["max_tokens"] = pieces(says, &control, &family.after).len().into();
        }
        let answer = server.ask("/v1/chat/completions", &body);
        body["stream"] = true.into();
        let events = server.post("/v1/chat/completions", &body).events();
        let ends = if kind == "cut" { "length" } else { "" };
        if !ends.is_empty() && answer["choices"][0]["finish_reason"] != ends {
            wrong.push(format!("{name} {kind}: it was not cut: {answer}"));
        }
        let said = [whole(&answer["choices"][0]["message"]), streamed(&events)];
        let meant = &family.meant[kind];
        for said in said.iter().filter(|said| *said != meant) {
            wrong.push(format!("{name} {kind}: {said:?} where {meant:?} was meant"));
        }
    }
    wrong
}

/// The table, by what the reference makes of the same answers.
fn table(families: &[(String, Family)], found: &Value) -> String {
    let mut out = "# Families of models\n\nWritten by the test that tries it: `AIRRUN_TEST_WRITE=1 cargo test --test it families::`. For each family a \
        template of our own with the family's marks, and a model that says nothing but one answer: a thought and a text; a call; a thought, a \
        text and two calls; a call whose argument quotes the family's own marks; a call that `max_tokens` cuts. What `/v1/chat/completions` makes of it, streamed and \
        not, is what is meant in every cell that is not empty. **both**: llama.cpp's `common/chat` makes the same of it from the same template. \
        **here**: it refuses the answer, or makes something else of it (`tests/it/families/reference.json`). Blanks around texts do not count. An empty \
        cell: the family has no such thing.\n\n\
        | family | thought | call | several calls | marks inside arguments | cut call |\n|---|---|---|---|---|---|\n".to_owned();
    for (name, family) in families {
        let _ = write!(out, "| {} |", family.title);
        for kind in KINDS {
            let cell = match family.meant.get(kind) {
                None => "",
                meant if reference(&found[name][kind]).as_ref() == meant => "both",
                Some(_) => "here",
            };
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
    out
}

#[test]
fn what_families_say_is_understood() {
    let families = families();
    assert!(families.len() >= 35, "{}", families.len());
    let dir = tempfile::tempdir().unwrap();
    let (queue, wrong) = (Mutex::new(families.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some((name, family)) = next else { return };
                    let found = tried(name, family, dir.path());
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_families_is_what_the_reference_says() {
    let found = fs::read_to_string(Path::new(dir()).join("reference.json")).unwrap();
    let text = table(&families(), &serde_json::from_str(&found).unwrap());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/families.md");
    if std::env::var_os("AIRRUN_TEST_WRITE").is_some() {
        fs::write(file, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(file).unwrap_or_default(), text, "docs/families.md is old");
}
