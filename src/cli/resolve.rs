//! The command line as meant: the model, and options for the engine.

use std::path::Path;

use crate::cli::args::{Budget, LoadArgs, StreamArg};
use crate::engine::{LoadOptions, StreamMode};
use crate::gguf::Index;
use crate::models::{self, Settings};
use crate::units::Bytes;

/// The model that was named.
#[derive(Clone)]
pub(crate) struct Chosen {
    /// What is in its file, with a chat template if one is known.
    pub(crate) index: Index,
    /// What the one who keeps it would run it with.
    pub(crate) settings: Settings,
    /// What people call it, where that is not the name of the file; and its other names.
    pub(crate) names: Vec<String>,
}

impl Chosen {
    /// The options with the context that came with the model, if the user named none.
    pub(crate) fn complete(&self, options: LoadOptions) -> LoadOptions {
        let trained = self.index.context_length().and_then(|n| u32::try_from(n).ok());
        let kept = self.settings.ctx.map(|n| n.min(trained.unwrap_or(u32::MAX)));
        LoadOptions { ctx: options.ctx.or(kept), ..options }
    }
}

/// The model that `text` means: a path, or a name that begins like that of one model on this machine.
pub(crate) fn model(text: &Path) -> anyhow::Result<Chosen> {
    open(models::find(text)?)
}

/// The model that was found.
pub(crate) fn open(found: models::Found) -> anyhow::Result<Chosen> {
    let mut index = Index::open(&found.path)?;
    if let Some(template) = &found.settings.template {
        index.offer_chat_template(template);
    }
    if let Some(name) = &found.name {
        index.offer_name(name);
    }
    let names = found.name.into_iter().chain(found.aliases).collect();
    Ok(Chosen { index, settings: found.settings, names })
}

/// What the engine is told.
pub(crate) fn load_options(args: &LoadArgs) -> LoadOptions {
    LoadOptions {
        device: args.device.clone(),
        stream: match args.stream {
            StreamArg::Auto => StreamMode::Auto,
            StreamArg::Always => StreamMode::Always,
            StreamArg::Never => StreamMode::Never,
        },
        ctx: args.ctx,
        recall: args.recall.recall(),
        threads: args.threads,
        ubatch: args.ubatch,
        ram: bytes(args.ram),
        vram: bytes(args.vram),
        repack: !args.no_repack,
        tokenizer: args.tokenizer.clone(),
        ..LoadOptions::default()
    }
}

fn bytes(budget: Budget) -> Option<Bytes> {
    match budget {
        Budget::Auto => None,
        Budget::Size(bytes) => Some(bytes),
    }
}
