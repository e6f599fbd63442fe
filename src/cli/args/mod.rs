//! The command line as typed: clap definitions and nothing else. What it means is found in
//! `resolve`; nothing here touches the disk or a device.

pub(crate) mod batch;
mod completions;
mod devices;
mod doctor;
mod examples;
mod keep;
mod list;
mod man;
pub(crate) mod opposites;
mod pull;
mod quantize;
mod recall;
pub(crate) mod sampling;
pub(crate) mod serve;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use batch::BatchArgs;
pub(crate) use completions::CompletionsArgs;
pub(crate) use doctor::DoctorArgs;
pub(crate) use keep::KeepArgs;
pub(crate) use list::ListArgs;
pub(crate) use man::ManArgs;
pub(crate) use pull::PullArgs;
pub(crate) use quantize::{QuantizeArgs, TypeArg, WorkerArgs};
pub(crate) use recall::RecallArgs;
pub(crate) use sampling::SampleArgs;

use crate::engine::DeviceChoice;
use crate::units::Bytes;

pub(crate) use devices::DevicesArgs;

/// The longest text of a measurement.
const MAX_BENCH_TOKENS: i64 = 1 << 20;

/// Runs GGUF language models larger than the GPU and larger than RAM.
#[derive(Debug, Parser)]
#[command(name = "airrun", version = env!("AIRRUN_VERSION"), max_term_width = 80, args_override_self = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Print details, and libllama's log
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) verbose: bool,
    /// Take defaults of flags from this file; --no-FLAG turns off what it turns on
    #[arg(long, global = true, value_name = "FILE", help_heading = "Output")]
    pub(crate) config: Option<PathBuf>,
}

/// The whole command line: the definitions, and what each command's help ends with.
pub(crate) fn command() -> clap::Command {
    let mut command = opposites::with_opposites(Args::command()).after_help(examples::PROGRAM);
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        if let Some(text) = examples::of(&name) {
            command = command.mut_subcommand(&name, |sub| sub.after_help(text));
        }
    }
    command
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Chat with a model; with stdin piped, stdin is the prompt
    Chat(ChatArgs),
    /// Answer one prompt, given as an argument, on stdin, or both
    Run(RunArgs),
    /// Answer many prompts, from a file of lines into another
    Batch(BatchArgs),
    /// Measure the speed of a model, and what the hardware would allow
    Bench(BenchArgs),
    /// List the models on this machine, and how each would run here
    List(ListArgs),
    /// Download a model from the Hugging Face hub
    Pull(PullArgs),
    /// Write a smaller file of the same model
    Quantize(QuantizeArgs),
    /// The process that `quantize` starts
    #[command(hide = true)]
    QuantizeWorker(WorkerArgs),
    /// Show what is in a model file
    Inspect(InspectArgs),
    /// Show where a model's blocks will live, and how fast it will be
    Plan(PlanArgs),
    /// List the devices that can compute, and how fast they are fed
    Devices(DevicesArgs),
    /// Print the logits after the last of some tokens
    Logits(LogitsArgs),
    /// Show what this machine has, and what makes it slow
    Doctor(DoctorArgs),
    /// Print a script that completes commands and flags
    Completions(CompletionsArgs),
    /// Print the manual, or write its pages
    Man(ManArgs),
    /// Serve a model over HTTP, as OpenAI and Ollama do
    Serve(serve::ServeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The system message of the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Go on with the last conversation with this model
    #[arg(long, conflicts_with = "system")]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) sample: SampleArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The prompt; what stdin holds is added after it
    pub(crate) prompt: Option<String>,
    /// The prompt, as llama.cpp's users give it: instead of PROMPT
    #[arg(short = 'p', long = "prompt", value_name = "TEXT", conflicts_with = "prompt")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) prompt_flag: Option<String>,
    /// Continue the prompt as it is, without the model's chat template
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) sample: SampleArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Tokens of the prompt test; 0 leaves it out
    #[arg(short = 'p', long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=MAX_BENCH_TOKENS))]
    pub(crate) prompt_tokens: u32,
    /// Tokens of the generation test; 0 leaves it out
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=MAX_BENCH_TOKENS))]
    pub(crate) gen_tokens: u32,
    /// How often each test runs; the median counts
    #[arg(short = 'r', long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Compute the tokens of this text; with --draft, go on with it, by turns without
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Write which experts were used to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) record_routes: Option<PathBuf>,
    /// Measure nothing: say what pools of several sizes would hit on these routes
    #[arg(long, value_name = "FILE", conflicts_with = "record_routes")]
    pub(crate) routes: Option<PathBuf>,
    /// Print one JSON object per test
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The model: a name that `airrun list` shows, or a GGUF file
    pub(crate) model: PathBuf,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Compare the file's tokenizer with this tokenizer.json; exit 1 if they differ
    #[arg(long, value_name = "FILE")]
    pub(crate) check_tokenizer: Option<PathBuf>,
    /// List the blocks
    #[arg(long)]
    pub(crate) blocks: bool,
    /// List the tensors
    #[arg(long)]
    pub(crate) tensors: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The length of the prompt that is predicted (tokens)
    #[arg(short = 'p', long, value_name = "N", default_value = "512")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prompt: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The tokens' numbers; no tokenizer is needed
    #[arg(long, value_name = "N,N,...", required = true, value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) tokens: Vec<i32>,
    /// Print {"n_vocab":N,"logits":[...]} instead of the ten largest
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the model is, and how it is loaded.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The model: a name that `airrun list` shows, or a GGUF file
    pub(crate) model: PathBuf,
    /// Compute on auto, cpu, cuda, vulkan or metal; cuda:1 is the second, and
    /// cuda:0,cuda:1 are both: weights stream to the first, others hold blocks
    #[arg(long, default_value = "auto", value_name = "NAME")]
    #[arg(hide_default_value = true, help_heading = "Memory")]
    pub(crate) device: DeviceChoice,
    /// Stream blocks if they do not fit: auto, always, never
    #[arg(long, value_enum, default_value = "auto", hide_possible_values = true)]
    #[arg(value_name = "WHEN", hide_default_value = true, help_heading = "Memory")]
    pub(crate) stream: StreamArg,
    /// The most memory of each device to use, such as 6G, or auto
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = budget)]
    #[arg(hide_default_value = true, help_heading = "Memory")]
    pub(crate) vram: Budget,
    /// The most RAM to use, such as 800M, or auto
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = budget)]
    #[arg(hide_default_value = true, help_heading = "Memory")]
    pub(crate) ram: Budget,
    /// Tokens of context; 0 is what the model was made for
    #[arg(short, long, value_name = "N", help_heading = "Computing")]
    pub(crate) ctx: Option<u32>,
    #[command(flatten)]
    pub(crate) recall: RecallArgs,
    /// Threads that compute
    #[arg(short, long, value_name = "N", help_heading = "Computing")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) threads: Option<u32>,
    /// Prompt tokens that are computed in one pass
    #[arg(long, value_name = "N", help_heading = "Computing")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) ubatch: Option<u32>,
    /// Do not repack weights for this CPU: less memory while loading, slower
    #[arg(long, help_heading = "Computing")]
    pub(crate) no_repack: bool,
    /// Guess ahead, for passes to check: auto, none, ngram, mtp, or a small MODEL or head
    #[arg(long, value_name = "WHO", default_value = "auto", hide_default_value = true)]
    #[arg(help_heading = "Computing")]
    pub(crate) draft: DraftArg,
    /// Use this tokenizer.json instead of the model's own tokenizer
    #[arg(long, value_name = "FILE", help_heading = "Computing")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Write a timeline of reads and computation: .html, or .json for Perfetto
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) trace: Option<PathBuf>,
}

/// `--stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamArg {
    Auto,
    Always,
    Never,
}

/// `--draft`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DraftArg {
    /// What there is, where weights stream.
    Auto,
    None,
    Ngram,
    /// A head in the model's own file.
    Mtp,
    Model(PathBuf),
}

impl std::str::FromStr for DraftArg {
    type Err = String;

    fn from_str(text: &str) -> Result<DraftArg, String> {
        Ok(match text {
            "" => return Err("must be auto, none, ngram, mtp or a model".to_owned()),
            "auto" => DraftArg::Auto,
            "none" => DraftArg::None,
            "ngram" => DraftArg::Ngram,
            "mtp" => DraftArg::Mtp,
            model => DraftArg::Model(model.into()),
        })
    }
}

/// `--vram`, `--ram`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    Auto,
    Size(Bytes),
}

fn budget(text: &str) -> Result<Budget, String> {
    match text {
        "auto" => Ok(Budget::Auto),
        size => size.parse().map(Budget::Size).map_err(|e| format!("{e}")),
    }
}
