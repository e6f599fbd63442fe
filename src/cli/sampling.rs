//! How answers are drawn, as meant: what was typed, what came with the model, and what is set during a conversation.

use std::path::Path;

use anyhow::Context as _;

use crate::cli::args::SampleArgs;
use crate::cli::args::sampling::{self as args, FormatArgs, MoreSampleArgs};
use crate::cli::exit::Failure;
use crate::cli::input;
use crate::engine::{Dry, Grammar, Mirostat, SamplerSettings, check_grammar_text};
use crate::models::Settings;

/// What the sampler is told: what the user said, else what came with the model.
pub(crate) fn settings(args: &SampleArgs, kept: &Settings) -> SamplerSettings {
    let default = SamplerSettings::default();
    let usual = &args.usual;
    let penalty = usual.repeat_penalty.or(kept.repeat_penalty);
    SamplerSettings {
        temp: usual.temp.or(kept.temp).unwrap_or(default.temp),
        top_k: usual.top_k.or(kept.top_k).unwrap_or(default.top_k),
        top_p: usual.top_p.or(kept.top_p).unwrap_or(default.top_p),
        min_p: usual.min_p.or(kept.min_p).unwrap_or(default.min_p),
        repeat_penalty: penalty.unwrap_or(default.repeat_penalty),
        repeat_last_n: recent(&args.more).or(kept.repeat_last_n).unwrap_or(default.repeat_last_n),
        ignore_eos: args.ignore_eos,
        seed: usual.seed.or(kept.seed),
        ..others(&args.more)
    }
}

/// How many tokens are recent, if the user said so.
pub(crate) fn recent(more: &MoreSampleArgs) -> Option<i32> {
    more.repeat_last_n.map(|n| if n < 0 { Dry::MOST } else { n })
}

/// What the user said of what fewer people set, over the defaults.
pub(crate) fn others(more: &MoreSampleArgs) -> SamplerSettings {
    let default = SamplerSettings::default();
    SamplerSettings {
        dynatemp_range: more.dynatemp_range.unwrap_or(default.dynatemp_range),
        dynatemp_exponent: more.dynatemp_exp.unwrap_or(default.dynatemp_exponent),
        typical_p: more.typical.unwrap_or(default.typical_p),
        top_n_sigma: more.top_n_sigma.unwrap_or(default.top_n_sigma),
        xtc_probability: more.xtc_probability.unwrap_or(default.xtc_probability),
        xtc_threshold: more.xtc_threshold.unwrap_or(default.xtc_threshold),
        frequency_penalty: more.frequency_penalty.unwrap_or(default.frequency_penalty),
        presence_penalty: more.presence_penalty.unwrap_or(default.presence_penalty),
        dry: dry(more),
        mirostat: mirostat(more),
        logit_bias: more.logit_bias.clone(),
        ..default
    }
}

fn dry(args: &MoreSampleArgs) -> Dry {
    let default = Dry::default();
    Dry {
        multiplier: args.dry_multiplier.unwrap_or(default.multiplier),
        base: args.dry_base.unwrap_or(default.base),
        allowed_length: args.dry_allowed_length.unwrap_or(default.allowed_length),
        penalty_last_n: args.dry_penalty_last_n.unwrap_or(default.penalty_last_n),
        breakers: match args.dry_breakers.is_empty() {
            true => default.breakers,
            false => args.dry_breakers.clone(),
        },
    }
}

fn mirostat(args: &MoreSampleArgs) -> Option<Mirostat> {
    let default = Mirostat::default();
    let version = args.mirostat.filter(|&version| version > 0)?;
    let (tau, eta) = (args.mirostat_ent, args.mirostat_lr);
    Some(Mirostat { version, tau: tau.unwrap_or(default.tau), eta: eta.unwrap_or(default.eta) })
}

/// What answers must fit, if the user said so.
pub(crate) fn grammar(args: &FormatArgs) -> anyhow::Result<Option<Grammar>> {
    let schema = match (&args.json_schema, &args.json_schema_file) {
        (Some(text), _) => Some(text.clone()),
        (None, Some(file)) => Some(read(file)?),
        (None, None) => None,
    };
    if let Some(text) = schema {
        let schema = serde_json::from_str(&text).map_err(|error| {
            let hint = "a schema is JSON, such as '{\"type\": \"object\"}'";
            Failure::error(format!("the JSON schema is not JSON: {error}"), hint)
        })?;
        return Ok(Some(Grammar::of_schema(&schema, true)?));
    }
    let text = match (&args.grammar, &args.grammar_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => return Ok(None),
    };
    check_grammar_text(&text)?;
    Ok(Some(Grammar::of(text)))
}

/// Longer ones are refused in any case, in other words. (bytes)
const MAX_GRAMMAR: u64 = 1 << 20;

fn read(file: &Path) -> anyhow::Result<String> {
    input::text_of(file, MAX_GRAMMAR).with_context(|| format!("cannot read '{}'", file.display()))
}

/// The names that `/set` knows.
pub(crate) const SETTINGS: [&str; 14] = [
    "temp",
    "top-k",
    "top-p",
    "min-p",
    "repeat-penalty",
    "presence-penalty",
    "frequency-penalty",
    "typical",
    "top-n-sigma",
    "xtc-probability",
    "xtc-threshold",
    "dry-multiplier",
    "seed",
    "max-tokens",
];

/// Changes one setting; `seed` and `max-tokens` also take `none`.
pub(crate) fn set(
    settings: &mut SamplerSettings,
    max_tokens: &mut Option<usize>,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let whole = |least: u32| {
        let number = value.parse::<u32>().ok().filter(|&n| n >= least);
        number.ok_or_else(|| format!("must be a whole number from {least}"))
    };
    match name.replace('_', "-").as_str() {
        "temp" => settings.temp = args::temp(value)?,
        "top-k" => {
            settings.top_k = i32::try_from(whole(0)?).map_err(|_| "is too large".to_owned())?;
        }
        "top-p" => settings.top_p = args::top_p(value)?,
        "min-p" => settings.min_p = args::min_p(value)?,
        "repeat-penalty" => settings.repeat_penalty = args::repeat_penalty(value)?,
        "presence-penalty" => settings.presence_penalty = args::penalty(value)?,
        "frequency-penalty" => settings.frequency_penalty = args::penalty(value)?,
        "typical" => settings.typical_p = args::top_p(value)?,
        "top-n-sigma" => settings.top_n_sigma = args::from_0_to_100(value)?,
        "xtc-probability" => settings.xtc_probability = args::min_p(value)?,
        "xtc-threshold" => settings.xtc_threshold = args::min_p(value)?,
        "dry-multiplier" => settings.dry.multiplier = args::from_0_to_100(value)?,
        "seed" if value == "none" => settings.seed = None,
        "seed" => settings.seed = Some(whole(0)?),
        "max-tokens" if value == "none" => *max_tokens = None,
        "max-tokens" => *max_tokens = Some(whole(1)? as usize),
        _ => return Err(format!("is not a setting; there are {}", SETTINGS.join(", "))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let (mut settings, mut max) = (SamplerSettings::default(), None);
        let mut set = |name, value| super::set(&mut settings, &mut max, name, value);
        for (name, value) in [
            ("temp", "0"),
            ("top_k", "5"),
            ("top-p", "1"),
            ("min-p", "0"),
            ("repeat_penalty", "1.1"),
            ("presence-penalty", "-0.5"),
            ("xtc-probability", "0.5"),
            ("dry_multiplier", "0.8"),
            ("seed", "7"),
            ("seed", "none"),
            ("max-tokens", "9"),
            ("max-tokens", "none"),
        ] {
            assert_eq!(set(name, value), Ok(()), "{name} {value}");
        }
        for (name, value) in [
            ("temp", "-1"),
            ("temp", "nan"),
            ("temp", "inf"),
            ("temp", ""),
            ("top-k", "-1"),
            ("top-k", "4000000000"),
            ("top-p", "0"),
            ("top-p", "1.5"),
            ("min-p", "2"),
            ("frequency-penalty", "3"),
            ("typical", "0"),
            ("repeat-penalty", "0"),
            ("seed", "x"),
            ("max-tokens", "0"),
            ("colour", "red"),
        ] {
            assert!(set(name, value).is_err(), "{name} {value}");
        }
    }
}
