//! `airrun completions`, as typed.

/// Arguments of `airrun completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that completes
    pub(crate) shell: clap_complete::Shell,
}
