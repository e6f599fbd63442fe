//! How answers are sampled, as typed, and the ranges of what can be set.

use std::path::PathBuf;

use clap::value_parser;

/// How an answer is sampled.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) usual: UsualSampleArgs,
    /// Go on where the model would end its answer
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    #[command(flatten)]
    pub(crate) more: MoreSampleArgs,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// What most people set.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct UsualSampleArgs {
    /// The most tokens of an answer
    #[arg(short = 'n', long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(crate) max_tokens: Option<u32>,
    /// Temperature; 0 is greedy [default: 0.8]
    #[arg(long, value_name = "X", value_parser = temp, allow_negative_numbers = true)]
    pub(crate) temp: Option<f32>,
    /// Keep only the N likeliest tokens; 0 keeps all [default: 40]
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(0..))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) top_k: Option<i32>,
    /// Keep the smallest set of tokens with total probability P
    /// [default: 0.95]
    #[arg(long, value_name = "P", value_parser = top_p, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Drop tokens less likely than P times the likeliest
    /// [default: 0.05]
    #[arg(long, value_name = "P", value_parser = min_p, allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,
    /// Repetition penalty; 1 is off [default: 1]
    #[arg(long, value_name = "X", value_parser = repeat_penalty, allow_negative_numbers = true)]
    pub(crate) repeat_penalty: Option<f32>,
    /// Random seed
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u32>,
    /// Think before the answer [on, off, low, medium, high; default: as the model does]
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    #[arg(value_parser = ["on", "off", "low", "medium", "high"])]
    pub(crate) think: Option<String>,
    /// Answer without thinking
    #[arg(long, conflicts_with = "think")]
    pub(crate) no_think: bool,
}

/// What fewer people set. The names are llama.cpp's.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "More sampling")]
pub(crate) struct MoreSampleArgs {
    /// Avoid what was said at all [default: 0, off]
    #[arg(long, value_name = "X", value_parser = penalty, allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Avoid what was said, the more often the more [default: 0, off]
    #[arg(long, value_name = "X", value_parser = penalty, allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Tokens that count as just said; -1 is 65536 [default: 64]
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(-1..=65536))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) repeat_last_n: Option<i32>,
    /// Avoid repeating passages (DRY); 0.8 is usual [default: 0, off]
    #[arg(long, value_name = "X", value_parser = from_0_to_100, allow_negative_numbers = true)]
    pub(crate) dry_multiplier: Option<f32>,
    /// How that grows with the passage [default: 1.75]
    #[arg(long, value_name = "X", value_parser = from_0_to_100, allow_negative_numbers = true)]
    pub(crate) dry_base: Option<f32>,
    /// Passages of up to N tokens are free [default: 2]
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(0..=65536))]
    pub(crate) dry_allowed_length: Option<i32>,
    /// Tokens in which passages are sought; -1 is 65536 [default: -1]
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(-1..=65536))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) dry_penalty_last_n: Option<i32>,
    /// A text at which passages end, instead of line break, colon, quote and star
    #[arg(long = "dry-sequence-breaker", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) dry_breakers: Vec<String>,
    /// How often the likeliest are left out (XTC) [default: 0, never]
    #[arg(long, value_name = "P", value_parser = min_p, allow_negative_numbers = true)]
    pub(crate) xtc_probability: Option<f32>,
    /// Which those are: at least so likely [default: 0.1]
    #[arg(long, value_name = "P", value_parser = min_p, allow_negative_numbers = true)]
    pub(crate) xtc_threshold: Option<f32>,
    /// Draw from what is as surprising as usual [default: 1, off]
    #[arg(long, visible_alias = "typical-p", value_name = "P", value_parser = top_p)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) typical: Option<f32>,
    /// Draw from within N standard deviations of the best [default: 0, off]
    #[arg(long, visible_alias = "top-nsigma", value_name = "N", value_parser = from_0_to_100)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) top_n_sigma: Option<f32>,
    /// How far the temperature goes up and down [default: 0, off]
    #[arg(long, value_name = "X", value_parser = from_0_to_100, allow_negative_numbers = true)]
    pub(crate) dynatemp_range: Option<f32>,
    /// How it follows the model's doubt [default: 1]
    #[arg(long, value_name = "X", value_parser = from_0_to_100, allow_negative_numbers = true)]
    pub(crate) dynatemp_exp: Option<f32>,
    /// Hold the surprise even, by mirostat 1 or 2 [default: 0, off]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(0..=2))]
    pub(crate) mirostat: Option<u8>,
    /// The surprise that mirostat holds [default: 5]
    #[arg(long, visible_alias = "mirostat-tau", value_name = "X", value_parser = from_0_to_100)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) mirostat_ent: Option<f32>,
    /// How fast mirostat corrects [default: 0.1]
    #[arg(long, visible_alias = "mirostat-eta", value_name = "X", value_parser = from_0_to_100)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) mirostat_lr: Option<f32>,
    /// Add to a token's logit: 15043+1, 15043-1 or 15043-inf; several times
    #[arg(long, value_name = "TOKEN+X", value_parser = bias)]
    pub(crate) logit_bias: Vec<(i32, f32)>,
}

/// What answers must fit.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
#[group(id = "answer format", multiple = false)]
pub(crate) struct FormatArgs {
    /// Write only what fits this grammar (GBNF, its root called root)
    #[arg(long, value_name = "GBNF", allow_hyphen_values = true)]
    pub(crate) grammar: Option<String>,
    /// Write only what fits the grammar in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar_file: Option<PathBuf>,
    /// Write only JSON that fits this schema; {} is any
    #[arg(short = 'j', long, value_name = "SCHEMA", allow_hyphen_values = true)]
    pub(crate) json_schema: Option<String>,
    /// Write only JSON that fits the schema in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json_schema_file: Option<PathBuf>,
}

/// A temperature.
pub(crate) fn temp(text: &str) -> Result<f32, String> {
    from_0_to_100(text)
}

/// A share of the probability that is kept.
pub(crate) fn top_p(text: &str) -> Result<f32, String> {
    number(text, |x| x > 0.0 && x <= 1.0, "above 0, at most 1")
}

/// A probability, or a share of the likeliest token's.
pub(crate) fn min_p(text: &str) -> Result<f32, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "from 0 to 1")
}

/// A factor by which logits are divided.
pub(crate) fn repeat_penalty(text: &str) -> Result<f32, String> {
    number(text, |x| x > 0.0 && x <= 100.0, "above 0, at most 100")
}

/// What is taken from logits.
pub(crate) fn penalty(text: &str) -> Result<f32, String> {
    number(text, |x| (-2.0..=2.0).contains(&x), "from -2 to 2")
}

/// Anything that is not negative, within reason.
pub(crate) fn from_0_to_100(text: &str) -> Result<f32, String> {
    number(text, |x| (0.0..=100.0).contains(&x), "from 0 to 100")
}

/// `15043+1`, `15043-inf`.
fn bias(text: &str) -> Result<(i32, f32), String> {
    let wrong = || "must be a token's number and a bias from -100 to 100, as 15043+1".to_owned();
    let at = text.find(['+', '-', '=']).filter(|&at| at > 0).ok_or_else(wrong)?;
    let token = text[..at].parse().map_err(|_| wrong())?;
    let bias = match text[at..].trim_start_matches('=') {
        "-inf" => f32::NEG_INFINITY,
        number => number.parse().ok().filter(|x: &f32| x.abs() <= 100.0).ok_or_else(wrong)?,
    };
    Ok((token, bias))
}

fn number(text: &str, fits: impl Fn(f32) -> bool, range: &str) -> Result<f32, String> {
    let number: Option<f32> = text.parse().ok();
    number.filter(|&x| fits(x)).ok_or_else(|| format!("must be a number {range}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_are_read() {
        assert_eq!(bias("15043+1"), Ok((15043, 1.0)));
        assert_eq!(bias("15043-1.5"), Ok((15043, -1.5)));
        assert_eq!(bias("7=-2"), Ok((7, -2.0)));
        assert_eq!(bias("7-inf"), Ok((7, f32::NEG_INFINITY)));
        for wrong in ["", "7", "+1", "x+1", "7+", "7+nan", "7+101", "7+inf", "-7+1", "9999999999+1"]
        {
            assert!(bias(wrong).is_err(), "{wrong}");
        }
    }
}
