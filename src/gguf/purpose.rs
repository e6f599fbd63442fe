//! What a model is for, by its architecture: not every GGUF file writes text, and libllama has no flag that says so.

use super::Index;

/// What a model is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Continue a text.
    Text,
    /// Turn a text into a vector.
    Embedding,
    /// Encode images for another model.
    Vision,
    /// Turn codes into sound.
    Speech,
    /// Help another model on its way: heads that draft for it, and adapters.
    Helper,
}

const EMBEDDING: [&str; 11] = [
    "bert",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "llama-embed",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "t5encoder",
];
const HELPER: [&str; 4] = ["clef", "dflash", "eagle3", "gemma4-assistant"];

impl Index {
    /// What the model is for; an architecture that nobody knows is taken to write text.
    pub fn purpose(&self) -> Purpose {
        let arch = self.architecture();
        match arch {
            "clip" => Purpose::Vision,
            "wavtokenizer-dec" => Purpose::Speech,
            _ if self.meta_str("general.type") == Some("adapter") => Purpose::Helper,
            _ if HELPER.contains(&arch) => Purpose::Helper,
            _ if EMBEDDING.contains(&arch) => Purpose::Embedding,
            _ => Purpose::Text,
        }
    }
}

impl Purpose {
    /// What to call a model that does not write text.
    pub fn not_for_text(self) -> Option<&'static str> {
        match self {
            Purpose::Text => None,
            Purpose::Embedding => Some("an embedding model, which writes no text"),
            Purpose::Vision => Some("a vision encoder for another model"),
            Purpose::Speech => Some("a decoder of sound"),
            Purpose::Helper => Some("a part for another model, not a model by itself"),
        }
    }
}
