//! The command line as meant: the model, options for the engine and settings for the sampler.

use std::path::Path;

use crate::cli::args::{self, Budget, LoadArgs, SampleArgs, StreamArg};
use crate::engine::{LoadOptions, SamplerSettings, StreamMode};
use crate::gguf::Index;
use crate::models::{self, Settings};
use crate::units::Bytes;

/// The model that was named.
pub(crate) struct Chosen {
    /// What is in its file, with a chat template if one is known.
    pub(crate) index: Index,
    /// What the one who keeps it would run it with.
    pub(crate) settings: Settings,
    /// What people call it, where that is not the name of the file; and its other names.
    pub(crate) names: Vec<String>,
}

impl Chosen {
    /// The options with the context that came with the model, if the user named none.
    pub(crate) fn complete(&self, options: LoadOptions) -> LoadOptions {
        let trained = self.index.context_length().and_then(|n| u32::try_from(n).ok());
        let kept = self.settings.ctx.map(|n| n.min(trained.unwrap_or(u32::MAX)));
        LoadOptions { ctx: options.ctx.or(kept), ..options }
    }
}

/// The model that `text` means: a path, or a name that begins like that of one model on this machine.
pub(crate) fn model(text: &Path) -> anyhow::Result<Chosen> {
    let found = models::find(text)?;
    let mut index = Index::open(&found.path)?;
    if let Some(template) = &found.settings.template {
        index.offer_chat_template(template);
    }
    if let Some(name) = &found.name {
        index.offer_name(name);
    }
    let names = found.name.into_iter().chain(found.aliases).collect();
    Ok(Chosen { index, settings: found.settings, names })
}

/// What the engine is told.
pub(crate) fn load_options(args: &LoadArgs) -> LoadOptions {
    LoadOptions {
        device: args.device,
        stream: match args.stream {
            StreamArg::Auto => StreamMode::Auto,
            StreamArg::Always => StreamMode::Always,
            StreamArg::Never => StreamMode::Never,
        },
        ctx: args.ctx,
        threads: args.threads,
        ubatch: args.ubatch,
        ram: bytes(args.ram),
        vram: bytes(args.vram),
        repack: !args.no_repack,
        tokenizer: args.tokenizer.clone(),
        ..LoadOptions::default()
    }
}

/// What the sampler is told: what the user said, else what came with the model.
pub(crate) fn sampler(args: &SampleArgs, kept: &Settings) -> SamplerSettings {
    let default = SamplerSettings::default();
    let penalty = args.repeat_penalty.or(kept.repeat_penalty);
    SamplerSettings {
        temp: args.temp.or(kept.temp).unwrap_or(default.temp),
        top_k: args.top_k.or(kept.top_k).unwrap_or(default.top_k),
        top_p: args.top_p.or(kept.top_p).unwrap_or(default.top_p),
        min_p: args.min_p.or(kept.min_p).unwrap_or(default.min_p),
        repeat_penalty: penalty.unwrap_or(default.repeat_penalty),
        repeat_last_n: kept.repeat_last_n.unwrap_or(default.repeat_last_n),
        ignore_eos: args.ignore_eos,
        seed: args.seed.or(kept.seed),
        ..default
    }
}

/// The names that `/set` knows.
pub(crate) const SETTINGS: [&str; 7] =
    ["temp", "top-k", "top-p", "min-p", "repeat-penalty", "seed", "max-tokens"];

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
        "seed" if value == "none" => settings.seed = None,
        "seed" => settings.seed = Some(whole(0)?),
        "max-tokens" if value == "none" => *max_tokens = None,
        "max-tokens" => *max_tokens = Some(whole(1)? as usize),
        _ => return Err(format!("is not a setting; there are {}", SETTINGS.join(", "))),
    }
    Ok(())
}

fn bytes(budget: Budget) -> Option<Bytes> {
    match budget {
        Budget::Auto => None,
        Budget::Size(bytes) => Some(bytes),
    }
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
            ("repeat-penalty", "0"),
            ("seed", "x"),
            ("max-tokens", "0"),
            ("colour", "red"),
        ] {
            assert!(set(name, value).is_err(), "{name} {value}");
        }
    }
}
