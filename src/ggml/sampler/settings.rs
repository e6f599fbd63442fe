//! How a text is to be drawn, as plain numbers. Their ranges are checked where they are read; nothing here computes.

use crate::ggml::Token;

/// How tokens are chosen, in this order: biases, penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature, draw.
/// With mirostat, only biases, penalties, DRY and the temperature come before it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SamplerSettings {
    /// 0: the most likely token, always; higher: more variety.
    pub temp: f32,
    /// How far the temperature goes up and down with how sure the model is; 0: not at all.
    pub dynatemp_range: f32,
    /// How it follows the model's entropy.
    pub dynatemp_exponent: f32,
    /// Keep the k most likely; 0: all.
    pub top_k: i32,
    /// Keep the most likely ones that together have this probability; 1: all.
    pub top_p: f32,
    /// Drop those less likely than this times the most likely; 0: none.
    pub min_p: f32,
    /// Keep those about as surprising as is to be expected, that together have this probability; 1: all.
    pub typical_p: f32,
    /// Keep those whose logits are within so many standard deviations of the largest; 0: all.
    pub top_n_sigma: f32,
    /// How often the likeliest tokens are left out, but for the last of them; 0: never.
    pub xtc_probability: f32,
    /// What is among the likeliest for that; above 0.5: none.
    pub xtc_threshold: f32,
    /// Divide the logits of recent tokens by this; 1: no.
    pub repeat_penalty: f32,
    /// Taken from the logits of recent tokens for each time that they occur; 0: no.
    pub frequency_penalty: f32,
    /// Taken from the logits of recent tokens; 0: no.
    pub presence_penalty: f32,
    /// How many tokens are recent.
    pub repeat_last_n: i32,
    /// Against the repetition of whole passages.
    pub dry: Dry,
    /// Steers towards an even surprise.
    pub mirostat: Option<Mirostat>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(Token, f32)>,
    /// Never choose a token that would end the answer.
    pub ignore_eos: bool,
    /// Seed; chosen by the clock if there is none.
    pub seed: Option<u32>,
}

/// "Don't repeat yourself": what would go on repeating a passage is penalised, the longer the passage the more.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Dry {
    /// 0: off.
    pub multiplier: f32,
    /// How the penalty grows with the passage.
    pub base: f32,
    /// Passages up to so many tokens are free.
    pub allowed_length: i32,
    /// How many tokens are looked at; -1: as many as [`Dry::MOST`].
    pub penalty_last_n: i32,
    /// Texts at which passages end.
    pub breakers: Vec<String>,
}

impl Dry {
    /// The most tokens that are looked at.
    pub const MOST: i32 = 1 << 16;

    /// How many tokens are looked at.
    pub(super) fn reach(&self) -> i32 {
        if self.penalty_last_n < 0 { Dry::MOST } else { self.penalty_last_n.min(Dry::MOST) }
    }

    pub(super) fn is_on(&self) -> bool {
        self.multiplier > 0.0 && self.base >= 1.0 && self.penalty_last_n != 0
    }
}

impl Default for Dry {
    fn default() -> Dry {
        Dry {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            penalty_last_n: -1,
            breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        }
    }
}

/// Mirostat: the surprise of what is drawn is held near `tau`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Mirostat {
    /// 1, or else 2.
    pub version: u8,
    /// The surprise to hold. (bits)
    pub tau: f32,
    /// How fast it is corrected.
    pub eta: f32,
}

impl Default for Mirostat {
    fn default() -> Mirostat {
        Mirostat { version: 2, tau: 5.0, eta: 0.1 }
    }
}

impl Default for SamplerSettings {
    fn default() -> SamplerSettings {
        SamplerSettings {
            temp: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_last_n: 64,
            dry: Dry::default(),
            mirostat: None,
            logit_bias: Vec::new(),
            ignore_eos: false,
            seed: None,
        }
    }
}

impl SamplerSettings {
    /// The seed, from the clock if nobody set one.
    pub(super) fn seed(&self) -> u32 {
        let by_clock = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |d| d.subsec_nanos() ^ d.as_secs() as u32)
        };
        self.seed.unwrap_or_else(by_clock)
    }

    #[expect(clippy::float_cmp, reason = "exactly 1 and exactly 0 mean off")]
    pub(super) fn penalises(&self) -> bool {
        let off = self.repeat_penalty == 1.0
            && self.frequency_penalty == 0.0
            && self.presence_penalty == 0.0;
        !off && self.repeat_last_n != 0
    }

    /// How many of the last tokens matter for what comes next.
    pub(super) fn memory(&self) -> usize {
        let recent = if self.penalises() { self.repeat_last_n } else { 0 };
        let passages = if self.dry.is_on() { self.dry.reach() } else { 0 };
        usize::try_from(recent.max(passages)).unwrap_or(0)
    }
}
