//! What `airrun batch` takes.

use std::path::PathBuf;

use super::{LoadArgs, SampleArgs};

#[derive(Debug, clap::Args)]
pub(crate) struct BatchArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The texts, one JSON object a line; - is stdin
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// Write the answers here, one a line; - is stdout. A file goes on where it ends
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// How answers are written: auto (as the line was asked), openai, short
    #[arg(long, value_enum, default_value = "auto", hide_possible_values = true)]
    #[arg(value_name = "NAME", hide_default_value = true)]
    pub(crate) format: FormatArg,
    /// Texts that share a pass, or auto: as many as memory allows
    #[arg(long, value_name = "N", default_value = "auto", hide_default_value = true)]
    #[arg(value_parser = parallel)]
    pub(crate) parallel: Parallel,
    /// Continue a "prompt" as it is, without the model's chat template
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) sample: SampleArgs,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FormatArg {
    Auto,
    Openai,
    Short,
}

/// `--parallel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parallel {
    Auto,
    Texts(u32),
}

fn parallel(text: &str) -> Result<Parallel, String> {
    let number = text.parse::<u32>().ok().filter(|n| (1..=128).contains(n));
    match text {
        "auto" => Ok(Parallel::Auto),
        _ => number.map(Parallel::Texts).ok_or_else(|| "must be auto, or from 1 to 128".to_owned()),
    }
}
