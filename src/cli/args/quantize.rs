//! The arguments of `airrun quantize`, and of the process that does its work.

use std::path::PathBuf;

use crate::cli::args::{Budget, budget};
use crate::engine::quantize::{QuantType, TYPES, type_named};

/// `--type`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TypeArg {
    /// The largest that fits this machine.
    Auto,
    /// This one.
    Named(&'static QuantType),
}

#[derive(Debug, clap::Args)]
pub(crate) struct QuantizeArgs {
    /// The model: a name that `airrun list` shows, or a GGUF file, best F16 or BF16
    pub(crate) model: PathBuf,
    /// The file to be written
    pub(crate) output: PathBuf,
    /// The type of the new weights, such as q8_0 or q4_k_m; auto is the largest
    /// with which the model fits this machine's RAM
    #[arg(long = "type", value_name = "TYPE", value_parser = quant_type)]
    pub(crate) ty: TypeArg,
    /// For auto: the RAM that the model is to fit, such as 8G
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = budget)]
    #[arg(hide_default_value = true)]
    pub(crate) ram: Budget,
    /// Threads that compute
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) threads: Option<u32>,
    /// Replace the file if it exists
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Take weights that are quantised already, which makes them worse than
    /// quantising the original
    #[arg(long)]
    pub(crate) requantize: bool,
}

/// What the process that quantises is told.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    pub(crate) model: PathBuf,
    pub(crate) output: PathBuf,
    #[arg(long = "type", value_parser = quant_type)]
    pub(crate) ty: TypeArg,
    #[arg(long)]
    pub(crate) threads: u32,
    #[arg(long)]
    pub(crate) requantize: bool,
    #[arg(long)]
    pub(crate) dry_run: bool,
}

fn quant_type(text: &str) -> Result<TypeArg, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(TypeArg::Auto);
    }
    let names: Vec<&str> = TYPES.iter().map(|t| t.name).collect();
    let unknown = || format!("there are auto, {}", names.join(", "));
    type_named(text).map(TypeArg::Named).ok_or_else(unknown)
}
