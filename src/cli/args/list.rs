//! The arguments of `airrun list`.

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only the names, one a line
    #[arg(long, conflicts_with = "json")]
    pub(crate) names: bool,
    /// Show also what writes no text: embeddings, vision, sound, parts
    #[arg(short, long)]
    pub(crate) all: bool,
}
