//! How a context keeps what it has read, and how it counts positions: what users may choose of it.

use ggml_sys as sys;

use super::result::Error;

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Half floats: what models are made for.
    #[default]
    F16,
    /// Eight bits and a scale for 32: about half of it.
    Q8_0,
    /// Four bits and a scale for 32: about a quarter; some models get noticeably worse.
    Q4_0,
}

impl KvType {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
            KvType::Q4_0 => "q4_0",
        }
    }

    fn raw(self) -> sys::ggml_type {
        match self {
            KvType::F16 => sys::GGML_TYPE_F16,
            KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
            KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        }
    }
}

/// Whose memory keys and values are in, beside a GPU; whoever has them computes attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvHome {
    /// The better of both, by the plan.
    #[default]
    Auto,
    /// The GPU's, for the blocks that it computes.
    Gpu,
    /// RAM.
    Ram,
}

/// How rotary positions are stretched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeScaling {
    /// Not at all, whatever the file says.
    None,
    /// All alike.
    Linear,
    /// Slow rotations only.
    Yarn,
}

/// Rotary positions other than the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rope {
    /// How they are stretched.
    pub scaling: Option<RopeScaling>,
    /// By how much: the context that makes sense is so many times as long.
    pub scale: Option<f32>,
    /// The base of the frequencies.
    pub base: Option<f32>,
}

/// How a context keeps what it has read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recall {
    /// What keys and values are.
    pub kv: KvType,
    /// Where they are.
    pub home: KvHome,
    /// Rotary positions.
    pub rope: Rope,
    /// Whether attention is computed in one operation; as libllama finds best if nothing is said.
    pub flash: Option<bool>,
}

impl Recall {
    /// The same, with keys and values of another type.
    pub fn with_kv(self, kv: KvType) -> Recall {
        Recall { kv, ..self }
    }

    /// The same, with keys and values in another memory.
    pub fn at_home(self, home: KvHome) -> Recall {
        Recall { home, ..self }
    }

    /// How many times as long a context makes sense.
    pub fn stretch(&self) -> f32 {
        self.rope.scale.filter(|_| self.rope.scaling != Some(RopeScaling::None)).unwrap_or(1.0)
    }

    /// Whether a model can have it: one with an encoder adds what its attention says of distances, for which ggml needs half floats.
    pub(super) fn check(&self, has_encoder: bool) -> Result<(), Error> {
        if has_encoder && self.kv != KvType::F16 {
            return Err(Error::Invalid(format!(
                "this model's context cannot be {}",
                self.kv.name()
            )));
        }
        Ok(())
    }

    pub(super) fn apply(&self, raw: &mut sys::llama_context_params) {
        (raw.type_k, raw.type_v) = (self.kv.raw(), self.kv.raw());
        raw.offload_kqv = self.home != KvHome::Ram;
        if let Some(scaling) = self.rope.scaling {
            raw.rope_scaling_type = match scaling {
                RopeScaling::None => sys::LLAMA_ROPE_SCALING_TYPE_NONE,
                RopeScaling::Linear => sys::LLAMA_ROPE_SCALING_TYPE_LINEAR,
                RopeScaling::Yarn => sys::LLAMA_ROPE_SCALING_TYPE_YARN,
            };
        }
        if let Some(scale) = self.rope.scale {
            raw.rope_freq_scale = 1.0 / scale;
        }
        if let Some(base) = self.rope.base {
            raw.rope_freq_base = base;
        }
        raw.flash_attn_type = match self.flash {
            None => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            Some(false) => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            Some(true) => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        };
    }
}
