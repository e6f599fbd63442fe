//! `airrun devices`, as typed.

#[derive(Debug, clap::Args)]
pub(crate) struct DevicesArgs {
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
