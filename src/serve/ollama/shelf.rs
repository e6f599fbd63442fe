//! What Ollama's clients ask about models: which there are, which are loaded, and what they are made of.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::asked::Asked;
use super::super::error::ApiError;
use super::super::preset::Preset;
use super::super::server::{Served, Server};
use crate::engine::Index;

/// The time, as Ollama writes it.
pub(super) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// The Ollama whose protocol this is: clients refuse older ones.
const OLLAMA: &str = "0.13.5";

/// `/api/version`.
pub(in super::super) async fn version() -> Json<Value> {
    Json(json!({ "version": OLLAMA, "airrun": env!("CARGO_PKG_VERSION") }))
}

/// `/api/tags`.
pub(in super::super) async fn tags(
    State(server): State<Arc<Server>>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "models": [entry(server.model()?)] })))
}

/// `/api/ps`.
pub(in super::super) async fn ps(
    State(server): State<Arc<Server>>,
) -> Result<Json<Value>, ApiError> {
    let served = server.model()?;
    let mut entry = entry(served);
    // It stays as long as the server.
    let later = Utc::now() + TimeDelta::days(365);
    entry["expires_at"] = later.to_rfc3339_opts(SecondsFormat::Nanos, true).into();
    entry["size_vram"] = 0.into();
    entry["context_length"] = served.n_ctx.into();
    Ok(Json(json!({ "models": [entry] })))
}

/// `/api/show`.
pub(in super::super) async fn show(asked: Asked) -> Result<Json<Value>, ApiError> {
    let (server, served, fields) = asked.parts()?;
    let name = fields.text("model")?.or(fields.text("name")?);
    server.named(served, Some(name.ok_or_else(|| fields.wrong("model", "there"))?))?;
    let knows = Some([served.takes_tools(), served.thinks()]);
    let index = served.engine.index();
    let mut shown = shown(&served.name, index, &server.config.preset, served.n_ctx, knows);
    shown["warnings"] = served.warnings.clone().into();
    Ok(Json(shown))
}

/// What is told of a model that is served with `n_ctx` tokens of context; whether it knows tools and thinks is guessed where
/// nobody has looked.
pub(in super::super) fn shown(
    name: &str,
    index: &Index,
    preset: &Preset,
    n_ctx: u32,
    knows: Option<[bool; 2]>,
) -> Value {
    let mut info = Map::new();
    for (key, value) in &index.metadata.entries {
        // Lists, such as the vocabulary, are too long to be of use.
        if let Some(scalar) = scalar(value.str(), value.bool(), value.uint(), value.float()) {
            info.insert(key.clone(), scalar);
        }
    }
    info.remove("tokenizer.chat_template");
    info.insert("general.parameter_count".to_owned(), index.parameters().into());
    // Clients size their prompts by it.
    if let Some(length) = info.get_mut(&format!("{}.context_length", index.architecture())) {
        *length = length.as_u64().unwrap_or(u64::MAX).min(u64::from(n_ctx)).into();
    }
    let template = index.chat_template().unwrap_or_default();
    let writes = index.purpose().not_for_text().is_none();
    let [tools, thinks] =
        knows.unwrap_or([template.contains("tools"), template.contains("enable_thinking")]);
    let mut capabilities = vec![if writes { "completion" } else { "embedding" }];
    capabilities.extend(tools.then_some("tools"));
    capabilities.extend(thinks.then_some("thinking"));
    let said = |(role, text): &(String, String)| json!({"role": role, "content": text});
    let said: Vec<Value> = preset.messages.iter().map(said).collect();
    json!({
        "license": index.meta_str("general.license").unwrap_or_default(),
        "modelfile": preset.modelfile(name, n_ctx),
        "parameters": preset.parameters(n_ctx),
        "system": preset.system.as_deref().unwrap_or_default(),
        "messages": said,
        "template": template,
        "details": details(index),
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": modified(index),
    })
}

fn scalar(
    text: Option<&str>,
    flag: Option<bool>,
    whole: Option<u64>,
    number: Option<f64>,
) -> Option<Value> {
    let flag = flag.map(Value::from);
    text.map(Value::from).or(flag).or(whole.map(Value::from)).or(number.map(Value::from))
}

fn entry(served: &Served) -> Value {
    described(&served.name, served.engine.index())
}

/// What a list of models says of one.
pub(in super::super) fn described(name: &str, index: &Index) -> Value {
    json!({
        "name": name, "model": name, "modified_at": modified(index),
        "size": index.bytes(), "digest": digest(index), "details": details(index),
    })
}

fn details(index: &Index) -> Value {
    json!({
        "parent_model": "", "format": "gguf", "family": index.architecture(),
        "families": [index.architecture()], "parameter_size": count(index.parameters()),
        "quantization_level": index.file_type_name(),
    })
}

/// `5.8M`, `7.2B`.
fn count(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let x = n as f64;
    if x >= 1e9 { format!("{:.1}B", x / 1e9) } else { format!("{:.1}M", x / 1e6) }
}

fn modified(index: &Index) -> String {
    let file = index.files.first();
    let time = file.and_then(|file| std::fs::metadata(&file.path).ok()?.modified().ok());
    DateTime::<Utc>::from(time.unwrap_or(SystemTime::UNIX_EPOCH))
        .to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// A name for this file as it is: of its path, size and time. Its bytes are too many to be hashed for a list.
fn digest(index: &Index) -> String {
    let mut hash = Sha256::new();
    for file in &index.files {
        hash.update(file.path.as_os_str().as_encoded_bytes());
        hash.update(file.len.0.to_le_bytes());
    }
    hash.update(modified(index));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
