//! Families of models, by what they say of thoughts and calls: for each a template of our own with its marks and its answers
//! (`families/*.toml`), a parrot that says them, and what llama.cpp's `common/chat` makes of the same answers (`families/reference.json`,
//! made by `families/reference.cpp`). `docs/families.md` says what came of it; `AIRRUN_TEST_WRITE=1` writes it.

mod heard;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use serde::Deserialize;
use serde_json::Value;

use heard::{Meant, PROTOCOLS};

use crate::parrot::{Parrot, pieces};
use crate::serve::Server;

/// Answers of all families mean these: a thought and a text, one call, several, one with text around it, one whose argument quotes the
/// family's marks, and one that a limit cuts.
const KINDS: [&str; 6] = ["thought", "call", "calls", "around", "marks", "cut"];

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
        let cut = kind == "cut";
        let most = cut.then(|| pieces(says, &control, &family.after).len());
        for protocol in &PROTOCOLS {
            let heard = protocol.ask(&server, &tools(), most);
            let found = protocol.differs(&heard, &family.meant[kind], cut);
            wrong.extend(found.map(|found| format!("{name} {kind}: {found}")));
        }
    }
    wrong
}

/// A template that refuses a conversation whose last word is `reveal`, with the prompt for it.
fn revealing(template: &str) -> String {
    format!(
        "{{%- set all -%}}{template}{{%- endset -%}}\
         {{%- if messages[-1].content == 'reveal' %}}{{{{ raise_exception(all) }}}}{{% endif -%}}{{{{ all }}}}"
    )
}

/// Families whose templates write numbers of calls, in the form of the family's answers.
const NUMBERED: [&str; 4] = ["mistral_nemo", "mistral_small", "kimi_k2", "solar"];

#[test]
fn calls_come_back_as_they_were_said() {
    let (dir, tools) = (tempfile::tempdir().unwrap(), tools());
    let joined = |text: &str| text.split_whitespace().collect::<String>();
    for (name, family) in families().iter().filter(|(name, _)| NUMBERED.contains(&name.as_str())) {
        let says = &family.says["calls"];
        let once = |mark: &&String| says.matches(mark.as_str()).count() == 1;
        let control: Vec<&str> = family.control.iter().filter(once).map(String::as_str).collect();
        let template = revealing(&family.template);
        let (after, eos, more) = (family.after.as_str(), family.eos.as_str(), vec![]);
        let parrot = Parrot { says, template: &template, control: &control, after, eos, more };
        let model = parrot.write(dir.path(), name);
        let server = Server::with_model(&model, &["-c", "2048", "--prompt-cache", "off"]);
        // From where the calls begin: a thought or a text before them is another message in some protocols.
        let from = ["[TOOL_CALLS]", "<|tool_calls"].iter().filter_map(|mark| says.find(mark)).min();
        let said = joined(&says[from.unwrap()..]);
        for protocol in &PROTOCOLS {
            for heard in protocol.ask(&server, &tools, None) {
                let prompt = protocol.refusal(&server, &heard, &tools, "reveal", true);
                assert!(joined(&prompt).contains(&said), "{name} {protocol:?}: {prompt}");
                // Clients that keep no numbers, and conversations that another model began.
                let bare = protocol.refusal(&server, &heard, &tools, "reveal", false);
                let names = ["functions.weather:0", "functions.time:1"];
                let is_kimi = name == "kimi_k2";
                assert!(!is_kimi || names.iter().all(|id| bare.contains(id)), "{bare}");
                let other = heard.renumbered();
                let prompt = protocol.refusal(&server, &other, &tools, "reveal", true);
                assert!([bare, prompt].iter().all(|text| text.contains("reveal")), "{name}");
            }
        }
    }
}

/// The table, by what the reference makes of the same answers.
fn table(families: &[(String, Family)], found: &Value) -> String {
    let mut out = "# Families of models\n\nWritten by the test that tries it: `AIRRUN_TEST_WRITE=1 cargo test --test it families::`. For each family a \
        template of our own with the family's marks, and a model that says nothing but one answer: a thought and a text; a call; a thought, a \
        text and two calls; a call with text before and after it; a call whose argument quotes the family's own marks; a call that a limit cuts. \
        In every cell that is not empty, what comes of it is what is meant, whole and as a stream of deltas, by all four protocols: \
        `/v1/chat/completions`, `/v1/responses`, Anthropic's `/v1/messages` and Ollama's `/api/chat`. **both**: llama.cpp's `common/chat` makes the same of \
        it from the same template. **here**: it refuses the answer, or makes something else of it (`tests/it/families/reference.json`). How many blanks \
        there are between words does not count. An empty cell: the family has no such thing.\n\nOf a call that was cut, the text of what it is given comes as far as it \
        was said, and the answer ends by `length`, `incomplete` or `max_tokens`. Where only objects can be told (Ollama, and whole messages of \
        Anthropic's) it is given `{}`.\n\n\
        | family | thought | call | several calls | text around | marks inside arguments | cut call |\n|---|---|---|---|---|---|---|\n".to_owned();
    for (name, family) in families {
        let _ = write!(out, "| {} |", family.title);
        for kind in KINDS {
            let cell = match family.meant.get(kind) {
                None => "",
                Some(meant)
                    if reference(&found[name][kind]).as_ref()
                        == Some(&meant.clone().in_words()) =>
                {
                    "both"
                }
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
    assert!(families.len() >= 37, "{}", families.len());
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
