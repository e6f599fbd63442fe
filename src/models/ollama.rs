//! Ollama's store: manifests that name blobs. A model's file is called by its hash there; its name, its settings and its system
//! message are in the manifest's other layers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::places::Kind;
use super::walk::{self, listed};
use super::{Catalog, Model, Note, template};
use crate::files;
use crate::gguf::printable;

/// A manifest, and a layer of text, are no longer than this. (bytes)
const MAX_TEXT: u64 = 4 << 20;
/// Manifests that are read.
const MAX_MANIFESTS: usize = 10_000;
/// Messages that are taken over.
const MAX_MESSAGES: usize = 1000;
/// Stop words that are taken over, and the bytes that each stays below.
const MAX_STOPS: usize = 32;
const MAX_STOP: usize = 256;
/// Tokens that count as just said, at most.
const LONGEST_LOOK: i32 = 65_536;
/// Characters of a value that are repeated to the user.
const MAX_SAID: usize = 40;

/// Layers that are texts, as their media types end.
const TEXTS: [&str; 5] = ["params", "system", "template", "prompt", "messages"];

/// The registry and the owner that names leave out.
const REGISTRY: &str = "registry.ollama.ai";
const OWNER: &str = "library";

/// What a manifest names beside the weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    params: Option<PathBuf>,
    system: Option<PathBuf>,
    template: Option<PathBuf>,
    messages: Option<PathBuf>,
    has_adapter: bool,
    /// Kinds of layers whose digests name no file.
    lost: Vec<String>,
}

/// What a model is to be run with where the user says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Randomness.
    pub temp: Option<f32>,
    /// Draw from the N likeliest.
    pub top_k: Option<i32>,
    /// Draw from the likeliest P.
    pub top_p: Option<f32>,
    /// Drop what is below P times the best.
    pub min_p: Option<f32>,
    /// Avoid what was just said.
    pub repeat_penalty: Option<f32>,
    /// How many tokens were just said.
    pub repeat_last_n: Option<i32>,
    /// Makes the draw repeatable.
    pub seed: Option<u32>,
    /// The most tokens of an answer.
    pub max_tokens: Option<u32>,
    /// Tokens of context.
    pub ctx: Option<u32>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Instructions for the whole conversation.
    pub system: Option<String>,
    /// What every conversation begins with, as (role, text).
    pub messages: Vec<(String, String)>,
    /// A chat template (Jinja), for a file that has none.
    pub template: Option<String>,
    /// What cannot be done as its keeper would.
    pub notes: Vec<String>,
}

/// Whether `dir` looks like a store.
pub(super) fn is_store(dir: &Path) -> bool {
    dir.join("manifests").is_dir() && dir.join("blobs").is_dir()
}

/// The models of the store at `dir`.
pub(super) fn scan(dir: &Path) -> Catalog {
    let mut catalog = Catalog::default();
    let notes = &mut catalog.notes;
    let mut level = vec![dir.join("manifests")];
    // Registry, owner, model; below them the tags, which are files.
    for _ in 0..3 {
        level = level.iter().flat_map(|d| walk::entries(d, notes)).filter(|p| p.is_dir()).collect();
    }
    let tags: Vec<PathBuf> = level.iter().flat_map(|d| walk::entries(d, notes)).collect();
    for manifest in tags.into_iter().filter(|p| p.is_file()).take(MAX_MANIFESTS) {
        match model(dir, &manifest) {
            Ok(model) => catalog.models.push(model),
            Err(what) => catalog.notes.push(Note { path: manifest, what }),
        }
    }
    catalog.models.sort_by(|a, b| a.name.cmp(&b.name));
    catalog
}

/// The model whose blob is at `path`, if it is in a store.
pub(super) fn owner_of(path: &Path) -> Option<Model> {
    let name = path.file_name()?.to_str()?;
    let dir = path.parent().filter(|d| d.ends_with("blobs"))?;
    name.starts_with("sha256").then_some(())?;
    scan(dir.parent()?).models.into_iter().find(|m| m.path == path)
}

/// The model of a manifest.
fn model(store: &Path, manifest: &Path) -> Result<Model, String> {
    let text = read(manifest).ok_or("cannot be read")?;
    let json: Value = serde_json::from_str(&text).map_err(|e| format!("not a manifest: {e}"))?;
    let layers = json.get("layers").and_then(Value::as_array).ok_or("not a manifest: no layers")?;
    let mut weights = None;
    let mut more = Layers::default();
    for layer in layers {
        let text = |key| layer.get(key).and_then(Value::as_str).unwrap_or_default();
        let media = text("mediaType").split(';').next().unwrap_or_default();
        let file = blob(store, text("digest"));
        match media.strip_prefix("application/vnd.ollama.image.") {
            // Of several, the first is the model itself.
            Some("model") if weights.is_none() => weights = file,
            Some("params") => more.params = file,
            Some("system") => more.system = file,
            Some("template" | "prompt") => more.template = file,
            Some("messages") => more.messages = file,
            Some("adapter") => more.has_adapter = true,
            _ => continue,
        }
        let kind = media.rsplit('.').next().unwrap_or_default();
        if TEXTS.contains(&kind) && blob(store, text("digest")).is_none() {
            more.lost.push(kind.to_owned());
        }
    }
    let path = weights.ok_or("no GGUF weights are on this machine")?;
    if !path.is_file() {
        return Err(format!("its weights are missing: {}", path.display()));
    }
    let (name, aliases) = names(store, manifest);
    let weights = listed(&[path]);
    let modified = listed(&[manifest.to_owned()]).modified;
    Ok(Model {
        name,
        aliases,
        path: weights.path,
        size: weights.size,
        modified,
        origin: Kind::Ollama,
        layers: Some(more),
    })
}

/// `manifests/registry.ollama.ai/library/llama3.2/1b` is `llama3.2:1b`; what is left out of names is left out here.
fn names(store: &Path, manifest: &Path) -> (String, Vec<String>) {
    let rest = manifest.strip_prefix(store.join("manifests")).unwrap_or(manifest);
    let parts: Vec<String> = rest.iter().map(|c| c.to_string_lossy().into_owned()).collect();
    let [registry, owner, model, tag] = parts.as_slice() else {
        return (rest.display().to_string(), Vec::new());
    };
    let short = match (registry.as_str(), owner.as_str()) {
        (REGISTRY, OWNER) => model.clone(),
        (REGISTRY, _) => format!("{owner}/{model}"),
        _ => format!("{registry}/{owner}/{model}"),
    };
    let mut aliases = Vec::new();
    if tag == "latest" {
        aliases.push(short.clone());
    }
    if registry == "hf.co" || registry == "huggingface.co" {
        aliases.push(format!("{owner}/{model}:{tag}"));
    }
    (format!("{short}:{tag}"), aliases)
}

/// The file of a digest `sha256:HEX`; anything else could name any file.
fn blob(store: &Path, digest: &str) -> Option<PathBuf> {
    let hex = digest.strip_prefix("sha256:")?;
    let is_hash = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    // Old versions kept the colon.
    let named = |mark| store.join("blobs").join(format!("sha256{mark}{hex}"));
    let old = is_hash.then(|| named(':')).filter(|p| p.is_file());
    is_hash.then(|| old.unwrap_or_else(|| named('-')))
}

impl Layers {
    /// Reads the layers. What makes no sense is left out, and noted.
    pub(super) fn settings(&self) -> Settings {
        let mut notes: Vec<String> =
            self.lost.iter().map(|kind| unread(kind, "not there")).collect();
        let mut text = |kind: &str, file: &Option<PathBuf>| {
            let read = files::read_text(file.as_deref()?, MAX_TEXT);
            read.map_err(|error| notes.push(unread(kind, &error.to_string()))).ok()
        };
        let params = text("params", &self.params);
        let system = text("system", &self.system).filter(|t| !t.trim().is_empty());
        let said = text("messages", &self.messages);
        let template = text("template", &self.template);
        let mut settings = match params.map(|text| serde_json::from_str::<Value>(&text)) {
            Some(Ok(params)) => from_params(&params),
            Some(Err(error)) => {
                notes.push(unread("params", &error.to_string()));
                Settings::default()
            }
            None => Settings::default(),
        };
        settings.system = system;
        if let Some(said) = said {
            let (messages, why) = messages(&said);
            settings.messages = messages;
            notes.extend(why.map(|why| unread("messages", &why)));
        }
        settings.template =
            template.and_then(|source| template::known_form(&source).map(str::to_owned));
        if self.has_adapter {
            let note = "Ollama adds an adapter to this model, which airrun cannot: it runs without";
            notes.push(note.to_owned());
        }
        notes.append(&mut settings.notes);
        settings.notes = notes;
        settings
    }
}

/// That the model runs otherwise than its keeper would, and why.
fn unread(kind: &str, why: &str) -> String {
    let what = match kind {
        "params" => "parameters",
        "system" => "system message",
        "messages" => "first messages",
        _ => "template",
    };
    format!(
        "the {what} that Ollama keeps with this model cannot be used: {}",
        printable(why.as_bytes())
    )
}

/// What is said before a conversation begins, and what is wrong with it. Roles that nobody has are left out.
fn messages(text: &str) -> (Vec<(String, String)>, Option<String>) {
    let list: Vec<Value> = match serde_json::from_str(text) {
        Ok(list) => list,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let message = |message: &Value| {
        let part = |key| message.get(key).and_then(Value::as_str);
        let role = part("role").filter(|r| ["system", "user", "assistant"].contains(r))?;
        Some((role.to_owned(), part("content")?.to_owned()))
    };
    let all: Vec<_> = list.iter().filter_map(message).take(MAX_MESSAGES).collect();
    let n_lost = list.len() - all.len();
    let why = (n_lost > 0).then(|| format!("{n_lost} of {} are left out", list.len()));
    (all, why)
}

/// The parameters that airrun has, too, where they are in range; a note of each that is not.
fn from_params(params: &Value) -> Settings {
    let mut notes = Vec::new();
    let mut of = |key: &str, low: f64, high: f64| {
        let value = params.get(key)?;
        let number = value.as_f64().filter(|x| (low..=high).contains(x));
        if number.is_none() {
            let said: String = value.to_string().chars().take(MAX_SAID).collect();
            notes.push(unread("params", &format!("'{key}' is {said}")));
        }
        number
    };
    #[expect(clippy::cast_possible_truncation, reason = "a setting needs no more digits")]
    let mut float = |key, low, high| of(key, low, high).map(|x| x as f32);
    let temp = float("temperature", 0.0, 100.0);
    let top_p = float("top_p", f64::MIN_POSITIVE, 1.0);
    let min_p = float("min_p", 0.0, 1.0);
    let repeat_penalty = float("repeat_penalty", 0.01, 100.0);
    #[expect(clippy::cast_possible_truncation, reason = "the bounds are those of the type")]
    let mut whole = |key, low: i32| of(key, low.into(), i32::MAX.into()).map(|x| x.trunc() as i32);
    let top_k = whole("top_k", -1).map(|n| n.max(0));
    // As many as the context has.
    let repeat_last_n =
        whole("repeat_last_n", -1).map(|n| if n < 0 { LONGEST_LOOK } else { n.min(LONGEST_LOOK) });
    // Negative numbers: no limit, another one each time.
    let mut natural = |key| whole(key, i32::MIN).and_then(|n| u32::try_from(n).ok());
    let max_tokens = natural("num_predict").filter(|&n| n > 0);
    let ctx = natural("num_ctx").filter(|&n| n > 0);
    let seed = seed(params, &mut notes);
    let stop = stops(params.get("stop"), &mut notes);
    Settings {
        temp,
        top_k,
        top_p,
        min_p,
        repeat_penalty,
        repeat_last_n,
        seed,
        max_tokens,
        ctx,
        stop,
        notes,
        ..Settings::default()
    }
}

/// Any whole number of 64 bits is a seed, as the server takes it: its last bits count, and -1 leaves it to the clock.
fn seed(params: &Value, notes: &mut Vec<String>) -> Option<u32> {
    let seed = params.get("seed")?;
    let bits = seed.as_i64().map(i64::cast_unsigned).or_else(|| seed.as_u64());
    if bits.is_none() {
        let said: String = seed.to_string().chars().take(MAX_SAID).collect();
        notes.push(unread("params", &format!("'seed' is {said}")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the last bits are the seed")]
    bits.filter(|&bits| bits != u64::MAX).map(|bits| bits as u32)
}

/// Stop words.
fn stops(value: Option<&Value>, notes: &mut Vec<String>) -> Vec<String> {
    let words: Vec<&str> = match value {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let n_given = match value {
        None | Some(Value::Null) => 0,
        Some(Value::Array(words)) => words.len(),
        Some(_) => 1,
    };
    let usable = words.into_iter().filter(|word| !word.is_empty() && word.len() < MAX_STOP);
    let stop: Vec<String> = usable.take(MAX_STOPS).map(str::to_owned).collect();
    if stop.len() < n_given {
        let n_lost = n_given - stop.len();
        notes.push(unread("params", &format!("{n_lost} of {n_given} stop words are left out")));
    }
    stop
}

/// A small text file.
fn read(file: &Path) -> Option<String> {
    files::read_text(file, MAX_TEXT).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn digest(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    fn put(store: &Path, n: u8, text: &str) -> String {
        let digest = digest(n);
        fs::create_dir_all(store.join("blobs")).unwrap();
        fs::write(store.join("blobs").join(digest.replace(':', "-")), text).unwrap();
        digest
    }

    fn manifest(store: &Path, name: &str, layers: &[(&str, String)]) {
        let layer = |(kind, digest): &(&str, String)| {
            let media = format!("application/vnd.ollama.image.{kind}");
            serde_json::json!({"mediaType": media, "digest": digest, "size": 1})
        };
        let layers: Vec<Value> = layers.iter().map(layer).collect();
        let file = store.join("manifests").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let json = serde_json::json!({"schemaVersion": 2, "layers": layers});
        fs::write(file, json.to_string()).unwrap();
    }

    #[test]
    fn a_store_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path();
        let weights = put(store, 1, "GGUF");
        let params = r#"{"stop":["<|eot_id|>","</s>"],"temperature":0.3,"num_ctx":8192,"top_p":7,
            "num_predict":-1,"top_k":20,"mirostat":2}"#;
        let params = put(store, 2, params);
        let system = put(store, 3, "Be brief.");
        let said = r#"[{"role":"user","content":"Hi"},{"role":"wizard","content":"x"},7,
            {"role":"assistant","content":"Ho"}]"#;
        let said = put(store, 5, said);
        let template = put(store, 4, "{{ if .System }}<|im_start|>system\n<|im_end|>{{ end }}");
        manifest(
            store,
            "registry.ollama.ai/library/llama3.2/1b",
            &[
                ("model", weights.clone()),
                ("params", params),
                ("system", system),
                ("template", template),
                ("messages", said),
                ("adapter", digest(9)),
            ],
        );
        for name in [
            "registry.ollama.ai/library/phi/latest",
            "registry.ollama.ai/me/mine/v1",
            "hf.co/o/r/Q4_K_M",
        ] {
            manifest(store, name, &[("model", weights.clone())]);
        }
        manifest(store, "registry.ollama.ai/library/gone/latest", &[("model", digest(7))]);
        manifest(
            store,
            "registry.ollama.ai/library/evil/x",
            &[("model", "sha256:../../../etc".into())],
        );
        manifest(store, "registry.ollama.ai/library/cloud/x", &[]);
        fs::write(store.join("manifests/registry.ollama.ai/library/phi/broken"), "{").unwrap();

        let found = scan(store);
        let names: Vec<&str> = found.models.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["hf.co/o/r:Q4_K_M", "llama3.2:1b", "me/mine:v1", "phi:latest"]);
        assert_eq!(found.models[0].aliases, ["o/r:Q4_K_M"]);
        assert_eq!(found.models[3].aliases, ["phi"]);
        assert_eq!(found.notes.len(), 4, "{:?}", found.notes);

        let model = &found.models[1];
        assert!(owner_of(&model.path).is_some());
        let settings = model.found().settings;
        assert_eq!(settings.temp, Some(0.3));
        assert_eq!((settings.top_k, settings.top_p), (Some(20), None));
        assert_eq!((settings.ctx, settings.max_tokens), (Some(8192), None));
        assert_eq!(settings.stop, ["<|eot_id|>", "</s>"]);
        assert_eq!(settings.system.as_deref(), Some("Be brief."));
        assert!(settings.template.unwrap().contains("im_start"));
        let said = [("user", "Hi"), ("assistant", "Ho")].map(|(r, t)| (r.to_owned(), t.to_owned()));
        assert_eq!(settings.messages, said);
        // The adapter, `top_p` of 7, and two messages.
        assert_eq!(settings.notes.len(), 3, "{:?}", settings.notes);
    }

    #[test]
    fn rubbish_gives_no_settings() {
        let of = |text: &str| from_params(&serde_json::from_str(text).unwrap());
        for text in ["[]", "{}", "7", r#"{"mirostat":2,"num_predict":-1,"num_ctx":0,"seed":-1}"#] {
            assert_eq!(of(text), Settings::default(), "{text}");
        }
        let said = of(r#"{"temperature":"hot","stop":7,"top_k":-2,"num_ctx":1e99,"seed":0.5}"#);
        assert_eq!(said.notes.len(), 5, "{:?}", said.notes);
        assert_eq!(Settings { notes: Vec::new(), ..said }, Settings::default());
        assert_eq!(owner_of(Path::new("/no/blobs/sha256-1")), None);
        assert_eq!(owner_of(Path::new("x.gguf")), None);
    }

    #[test]
    fn parameters_mean_what_they_mean_to_ollama() {
        let of = |text: &str| from_params(&serde_json::from_str(text).unwrap());
        let said = of(
            r#"{"repeat_last_n":-1,"top_k":-1,"seed":18446744073709551614,"num_predict":-2,"stop":"x"}"#,
        );
        assert_eq!((said.repeat_last_n, said.top_k), (Some(LONGEST_LOOK), Some(0)));
        assert_eq!((said.seed, said.max_tokens), (Some(u32::MAX - 1), None));
        assert_eq!(said.stop, ["x"]);
        assert!(said.notes.is_empty(), "{:?}", said.notes);
    }

    /// Whatever a layer that is not as it should be would have said, the model runs without it: that is told.
    #[test]
    fn layers_that_cannot_be_used_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path();
        let weights = put(store, 1, "GGUF");
        let bad = put(store, 2, "{\"temperature\": 0");
        let binary = digest(3);
        fs::write(store.join("blobs").join(binary.replace(':', "-")), b"Be brief\xff").unwrap();
        let said =
            put(store, 4, r#"[{"role":"tool","content":"x"},{"role":"user","content":"Hi"}]"#);
        for (name, layers, words) in [
            ("a", vec![("params", bad)], "parameters"),
            ("b", vec![("system", binary)], "system message"),
            ("c", vec![("messages", said)], "1 of 2 are left out"),
            ("d", vec![("template", digest(7))], "No such file"),
            ("e", vec![("system", "sha256:../../x".to_owned())], "system message"),
            ("f", vec![("messages", put(store, 5, "{}"))], "first messages"),
            ("g", vec![("params", put(store, 6, r#"{"top_p":7}"#))], "'top_p' is 7"),
        ] {
            let layers = [vec![("model", weights.clone())], layers].concat();
            manifest(store, &format!("registry.ollama.ai/library/{name}/latest"), &layers);
            let found = scan(store).models.into_iter().find(|m| m.aliases == [name]).unwrap();
            let notes = found.found().settings.notes;
            assert!(notes.len() == 1 && notes[0].contains(words), "{name}: {notes:?}");
        }
    }
}
