//! What a model is for, by its architecture: not every GGUF file writes text, and libllama has no flag that says so.

use super::Index;

/// What a model is made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Continue a text.
    Text,
    /// Turn a text into a vector.
    Embedding,
    /// Encode images for another model.
    Vision,
    /// Turn codes into sound, or sound into text.
    Speech,
    /// Draw images or films.
    Image,
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
const HELPER: [&str; 5] = ["clef", "controlvector", "dflash", "eagle3", "gemma4-assistant"];
const SPEECH: [&str; 3] = ["kokoro", "wavtokenizer-dec", "whisper"];
/// The names that ComfyUI and stable-diffusion.cpp give to models that draw.
const IMAGE: [&str; 17] = [
    "aura",
    "chroma",
    "cosmos",
    "flux",
    "hidream",
    "hunyuan_video",
    "hyvid",
    "krea2",
    "ltxv",
    "lumina2",
    "pig",
    "qwen_image",
    "sd1",
    "sd3",
    "sdxl",
    "wan",
    "z_image",
];
/// `POOLING_TYPE_RANK` and those before it: how the vectors of a text become one.
const POOLING: std::ops::RangeInclusive<u64> = 1..=4;

/// Tensors of heads that score.
const HEADS: [&str; 2] = ["cls.weight", "cls.output.weight"];

impl Index {
    /// Whether the model was made to say how well a text answers a question, and whether its head is there.
    pub fn ranks(&self) -> (bool, bool) {
        let meant = self.arch_uint("pooling_type") == Some(*POOLING.end());
        let has_head = self.tensors.iter().any(|tensor| HEADS.contains(&tensor.name.as_str()));
        (meant, has_head)
    }

    /// What the model is for; an architecture that nobody knows is taken to write text.
    pub fn purpose(&self) -> Purpose {
        let arch = self.architecture();
        match arch {
            "clip" => Purpose::Vision,
            _ if SPEECH.contains(&arch) => Purpose::Speech,
            _ if IMAGE.contains(&arch) => Purpose::Image,
            _ if self.meta_str("general.type") == Some("mmproj") => Purpose::Vision,
            _ if matches!(self.meta_str("general.type"), Some("adapter" | "imatrix")) => {
                Purpose::Helper
            }
            _ if HELPER.contains(&arch) => Purpose::Helper,
            _ if EMBEDDING.contains(&arch) => Purpose::Embedding,
            // A model of a kind that writes text, trained on to pool it instead.
            _ if self.arch_uint("pooling_type").is_some_and(|n| POOLING.contains(&n)) => {
                Purpose::Embedding
            }
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
            Purpose::Speech => Some("a model for sound"),
            Purpose::Image => Some("a model that draws images"),
            Purpose::Helper => Some("a part for another model, not a model by itself"),
        }
    }
}
