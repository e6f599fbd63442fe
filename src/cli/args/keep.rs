//! What is kept of prompts on disk, as typed.

use crate::units::Bytes;

/// How much of long prompts outlives the program.
#[derive(Debug, clap::Args)]
pub(crate) struct KeepArgs {
    /// Keep what was computed of long prompts on disk, up to this size; or off
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = size)]
    #[arg(help_heading = "Memory")]
    prompt_cache: Bytes,
}

impl KeepArgs {
    /// The most bytes; none if it is off.
    pub(crate) fn most(&self) -> Bytes {
        self.prompt_cache
    }
}

fn size(text: &str) -> Result<Bytes, String> {
    match text {
        "off" => Ok(Bytes::ZERO),
        size => size.parse().map_err(|error| format!("{error}; or off")),
    }
}
