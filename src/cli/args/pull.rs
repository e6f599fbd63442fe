//! The arguments of `airrun pull`.

#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// ORG/REPO, ORG/REPO:QUANT, or the address of a .gguf file on the hub
    pub(crate) name: String,
}
