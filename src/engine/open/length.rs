//! How long a context is: what a model was made for, and what is made of that.

use super::options::LoadOptions;
use crate::gguf::Index;

/// The context that is made when nobody says how large: enough for a conversation, small enough for any machine.
const DEFAULT_CTX: u32 = 4096;

/// What the model was made for, stretched as was asked; `None` if its file does not say.
pub(super) fn trained(index: &Index, options: &LoadOptions) -> Option<u32> {
    let length = index.context_length().and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    Some((f64::from(length) * f64::from(options.recall.stretch())) as u32)
}

pub(super) fn context_length(index: &Index, options: &LoadOptions) -> u32 {
    let trained = trained(index, options);
    match options.ctx {
        Some(0) => trained.unwrap_or(DEFAULT_CTX),
        Some(n) => n,
        None => trained.unwrap_or(DEFAULT_CTX).min(DEFAULT_CTX),
    }
}
