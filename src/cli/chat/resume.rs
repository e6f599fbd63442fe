//! The last conversation with each model, kept for `--resume`. What the model computed of it is the session's to keep.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::cli::exit::Failure;
use crate::engine::Engine;
use crate::memo;
use crate::os::private;
use crate::talk::chat::Conversation;

/// Where the conversation with `engine`'s model is kept.
fn file(engine: &Engine) -> Option<PathBuf> {
    let path = &engine.index().files.first()?.path;
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Some(memo::path("conversations")?.join(format!("{name}.json")))
}

/// The last conversation, if there was one.
///
/// # Errors
///
/// Its file cannot be read, or is none.
pub(super) fn last(engine: &Engine) -> anyhow::Result<Option<Conversation>> {
    let Some(file) = file(engine).filter(|file| file.exists()) else { return Ok(None) };
    let loaded = Conversation::load(&file).map_err(|error| {
        let what = format!("conversation '{}': {error}", file.display());
        Failure::error(what, "without --resume a new one begins, and takes its place")
    });
    loaded.map(Some)
}

/// Keeps `conversation`, readable by its owner only. Where there is no place for it, it is not kept.
pub(super) fn keep(engine: &Engine, conversation: &Conversation) {
    let Some(file) = file(engine).filter(|_| !conversation.messages.is_empty()) else { return };
    let Some(dir) = file.parent() else { return };
    let kept = private::make_dir(dir).and_then(|()| conversation.save(&file));
    let _ = kept.and_then(|()| private::own_file(&file));
}
