//! How a context keeps what it has read, as typed.

use clap::ValueEnum;

use crate::engine::{KvHome, KvType, Recall, Rope, RopeScaling};

/// Keys, values and positions.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct RecallArgs {
    /// What the context keeps: f16, q8_0 (half of it), q4_0 (a quarter)
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f16")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub(crate) kv: KvArg,
    /// Whose memory it is in beside a GPU: auto, gpu, ram (attention is then the CPU's)
    #[arg(long, value_enum, value_name = "WHERE", default_value = "auto")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub(crate) kv_in: KvInArg,
    /// Attention in one operation: auto, on, off
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub(crate) flash: FlashArg,
    /// Stretch rotary positions: none, linear, yarn
    #[arg(long, value_enum, value_name = "HOW", hide_possible_values = true)]
    pub(crate) rope_scaling: Option<RopeArg>,
    /// Stretch them N times: a context that is N times as long makes sense
    #[arg(long, value_name = "N", value_parser = scale)]
    pub(crate) rope_scale: Option<f32>,
    /// The base of their frequencies, instead of the model's
    #[arg(long, value_name = "N", value_parser = base)]
    pub(crate) rope_base: Option<f32>,
}

/// `--kv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvArg {
    F16,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
}

/// `--kv-in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvInArg {
    Auto,
    Gpu,
    Ram,
}

/// `--flash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlashArg {
    Auto,
    On,
    Off,
}

/// `--rope-scaling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RopeArg {
    None,
    Linear,
    Yarn,
}

impl RecallArgs {
    /// What the engine is told.
    pub(crate) fn recall(&self) -> Recall {
        Recall {
            kv: match self.kv {
                KvArg::F16 => KvType::F16,
                KvArg::Q8 => KvType::Q8_0,
                KvArg::Q4 => KvType::Q4_0,
            },
            home: match self.kv_in {
                KvInArg::Auto => KvHome::Auto,
                KvInArg::Gpu => KvHome::Gpu,
                KvInArg::Ram => KvHome::Ram,
            },
            flash: match self.flash {
                FlashArg::Auto => None,
                FlashArg::On => Some(true),
                FlashArg::Off => Some(false),
            },
            rope: Rope {
                scaling: self.rope_scaling.map(|scaling| match scaling {
                    RopeArg::None => RopeScaling::None,
                    RopeArg::Linear => RopeScaling::Linear,
                    RopeArg::Yarn => RopeScaling::Yarn,
                }),
                scale: self.rope_scale,
                base: self.rope_base,
            },
        }
    }
}

fn scale(text: &str) -> Result<f32, String> {
    within(text, 0.01, 1024.0)
}

fn base(text: &str) -> Result<f32, String> {
    within(text, 1.0, 1e12)
}

fn within(text: &str, least: f32, most: f32) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| format!("it is a number from {least} to {most}"))
}
