//! Ollama's store: manifests that name blobs. A model's file is called by its hash there; its name, its settings and its system
//! message are in the manifest's other layers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::places::Kind;
use super::walk::{self, listed};
use super::{Catalog, Model, Note, template};
use crate::files;

/// A manifest, and a layer of text, are no longer than this. (bytes)
const MAX_TEXT: u64 = 4 << 20;
/// Manifests that are read.
const MAX_MANIFESTS: usize = 10_000;
/// Messages that are taken over.
const MAX_MESSAGES: usize = 1000;
/// Stop words that are taken over.
const MAX_STOPS: usize = 32;

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
            _ => {}
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
    /// Reads the layers. What makes no sense is left out.
    pub(super) fn settings(&self) -> Settings {
        let text = |file: &Option<PathBuf>| file.as_deref().and_then(read);
        let params = text(&self.params).and_then(|t| serde_json::from_str::<Value>(&t).ok());
        let mut settings = params.as_ref().map(from_params).unwrap_or_default();
        settings.system = text(&self.system).filter(|t| !t.trim().is_empty());
        settings.messages = text(&self.messages).map(|t| messages(&t)).unwrap_or_default();
        if let Some(source) = text(&self.template) {
            settings.template = template::known_form(&source).map(str::to_owned);
        }
        if self.has_adapter {
            let note = "Ollama adds an adapter to this model, which airrun cannot: it runs without";
            settings.notes.push(note.to_owned());
        }
        settings
    }
}

/// What is said before a conversation begins. Roles that nobody has are left out.
fn messages(text: &str) -> Vec<(String, String)> {
    let list: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let message = |message: &Value| {
        let part = |key| message.get(key).and_then(Value::as_str);
        let role = part("role").filter(|r| ["system", "user", "assistant"].contains(r))?;
        Some((role.to_owned(), part("content")?.to_owned()))
    };
    list.iter().filter_map(message).take(MAX_MESSAGES).collect()
}

/// The parameters that airrun has, too, where they are in range.
fn from_params(params: &Value) -> Settings {
    let float = |key: &str, low: f64, high: f64| {
        let x = params.get(key)?.as_f64().filter(|x| (low..=high).contains(x))?;
        #[expect(clippy::cast_possible_truncation, reason = "a setting needs no more digits")]
        Some(x as f32)
    };
    let whole = |key: &str| params.get(key)?.as_i64();
    let stop = match params.get("stop") {
        Some(Value::String(word)) => vec![word.clone()],
        Some(Value::Array(words)) => {
            words.iter().filter_map(|w| Some(w.as_str()?.to_owned())).take(MAX_STOPS).collect()
        }
        _ => Vec::new(),
    };
    Settings {
        temp: float("temperature", 0.0, 100.0),
        top_k: whole("top_k").and_then(|n| i32::try_from(n).ok()).filter(|&n| n >= 0),
        top_p: float("top_p", f64::MIN_POSITIVE, 1.0),
        min_p: float("min_p", 0.0, 1.0),
        repeat_penalty: float("repeat_penalty", 0.01, 100.0),
        repeat_last_n: whole("repeat_last_n")
            .and_then(|n| i32::try_from(n).ok())
            .filter(|n| (0..=1 << 20).contains(n)),
        seed: whole("seed").and_then(|n| u32::try_from(n).ok()),
        // Negative numbers: no limit.
        max_tokens: whole("num_predict").and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0),
        ctx: whole("num_ctx").and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0),
        stop: stop.into_iter().filter(|w| !w.is_empty() && w.len() < 256).collect(),
        ..Settings::default()
    }
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
        assert_eq!(settings.notes.len(), 1);
    }

    #[test]
    fn rubbish_gives_no_settings() {
        for text in ["[]", "{}", "7", r#"{"temperature":"hot","stop":7,"top_k":-1,"num_ctx":1e99}"#]
        {
            assert_eq!(from_params(&serde_json::from_str(text).unwrap()), Settings::default());
        }
        assert_eq!(owner_of(Path::new("/no/blobs/sha256-1")), None);
        assert_eq!(owner_of(Path::new("x.gguf")), None);
    }
}
