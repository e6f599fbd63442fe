//! `airrun doctor`, as typed.

/// Arguments of `airrun doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out what takes a moment to measure
    #[arg(long)]
    pub(crate) quick: bool,
}
