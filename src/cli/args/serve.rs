//! What `airrun serve` takes.

use std::path::{Path, PathBuf};

use clap::value_parser;

use super::sampling::{MoreSampleArgs, UsualSampleArgs};
use super::{KeepArgs, LoadArgs};
use crate::units::Bytes;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("model", |arg| arg.index(1).required(false).default_value("all").hide_default_value(true)))]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// More models: each is loaded when somebody asks for it
    #[arg(value_name = "MODEL", index = 2)]
    pub(crate) more: Vec<PathBuf>,
    /// All models in this directory, or all on this machine; without any MODEL, all are meant
    #[arg(long, value_name = "DIR|all", help_heading = "Serving")]
    pub(crate) models: Option<PathBuf>,
    /// Minutes that one of several models stays when nobody asks for it
    #[arg(long, value_name = "MINUTES", default_value_t = 5, help_heading = "Serving")]
    #[arg(value_parser = value_parser!(u32).range(0..=525_600))]
    pub(crate) idle: u32,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    /// Listen on this address, or that of this name
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", help_heading = "Serving")]
    pub(crate) host: String,
    /// Listen on this port; 0 picks a free one
    #[arg(long, value_name = "N", default_value_t = 11435, help_heading = "Serving")]
    pub(crate) port: u16,
    /// Requests computed at once; -c is the limit of each, and memory is
    /// reserved for four full ones
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Serving")]
    #[arg(value_parser = value_parser!(u32).range(1..=64))]
    pub(crate) parallel: u32,
    /// Requests that may wait; more are refused with status 503
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Serving")]
    #[arg(value_parser = value_parser!(u32).range(1..=65536))]
    pub(crate) queue: u32,
    /// The key that clients must send
    #[arg(long, value_name = "KEY", env = "AIRRUN_API_KEY", hide_env_values = true)]
    #[arg(help_heading = "Serving")]
    pub(crate) api_key: Option<String>,
    /// Allow access without a key from other machines
    #[arg(long, conflicts_with = "api_key", help_heading = "Serving")]
    pub(crate) no_api_key: bool,
    /// A name by which this machine may be called, beside its own; may be given several times
    #[arg(long, value_name = "NAME", help_heading = "Serving")]
    pub(crate) host_name: Vec<String>,
    /// Allow calls from web pages of this origin (or *)
    #[arg(long, value_name = "ORIGIN", help_heading = "Serving")]
    pub(crate) cors: Option<String>,
    /// The name that clients know the model by [default: the file's]
    #[arg(long, value_name = "NAME", help_heading = "Serving")]
    pub(crate) name: Option<String>,
    /// The system message for conversations without one
    #[arg(long, value_name = "TEXT", help_heading = "Serving")]
    pub(crate) system: Option<String>,
    /// Remember so much of responses, for previous_response_id
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true)]
    #[arg(help_heading = "Serving")]
    pub(crate) store: Bytes,
    /// Let clients download models from the hub (/api/pull)
    #[arg(long, help_heading = "Serving")]
    pub(crate) pull: bool,
    /// Take grammars (GBNF) in requests: one can be written that never ends
    #[arg(long, help_heading = "Serving")]
    pub(crate) grammars: bool,
    /// The largest request body
    #[arg(long, value_name = "SIZE", default_value = "16M", help_heading = "Serving")]
    pub(crate) max_body: Bytes,
    /// What is written for each request: text, json or off
    #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
    #[arg(value_name = "HOW", help_heading = "Serving")]
    pub(crate) log: LogArg,
    /// When the server is stopped, give running answers this long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Serving")]
    #[arg(value_parser = value_parser!(u32).range(0..=86400))]
    pub(crate) grace: u32,
    /// Compute an answer for this long after its client has left, if the client
    /// asked for that
    #[arg(long, value_name = "SECONDS", default_value_t = 600, help_heading = "Serving")]
    #[arg(value_parser = value_parser!(u32).range(0..=86400))]
    pub(crate) linger: u32,
    /// Close connections that are idle for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Serving")]
    #[arg(value_parser = value_parser!(u32).range(1..=86400))]
    pub(crate) timeout: u32,
    /// Send a keep-alive after this long without a token
    #[arg(long, value_name = "SECONDS", default_value_t = 15, help_heading = "Serving")]
    #[arg(value_parser = value_parser!(u32).range(1..=86400))]
    pub(crate) ping: u32,
    #[command(flatten)]
    pub(crate) usual: UsualSampleArgs,
    #[command(flatten)]
    pub(crate) more_sampling: MoreSampleArgs,
}

/// What means all models of this machine.
const ALL: &str = "all";

impl ServeArgs {
    /// The models that were named.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Path> {
        let first = Some(self.load.model.as_path()).filter(|model| *model != Path::new(ALL));
        first.into_iter().chain(self.more.iter().map(PathBuf::as_path))
    }

    /// The place whose models are all meant, if one is.
    pub(crate) fn place(&self) -> Option<&Path> {
        let all = self.named().next().is_none().then_some(Path::new(ALL));
        self.models.as_deref().or(all)
    }

    /// Whether it is not one model that is served, from the start.
    pub(crate) fn has_many(&self) -> bool {
        self.place().is_some() || self.named().count() != 1
    }
}

/// `--log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogArg {
    Text,
    Json,
    Off,
}

const EXAMPLES: &str = "\
Examples:
  airrun serve model.gguf
  airrun serve model.gguf --ram 4G --parallel 8 -c 2048
  airrun serve model.gguf --temp 0            for requests that do not say it
  airrun serve                    every model on this machine, loaded on demand
  curl http://127.0.0.1:11435/v1/chat/completions -d \\
    '{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'";
