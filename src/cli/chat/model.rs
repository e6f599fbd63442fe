//! How a model gets into a conversation: the first one as the command line says, others in its place.

use crate::cli::args::{DraftArg, LoadArgs, SampleArgs};
use crate::cli::interrupt::Interrupt;
use crate::cli::printer::Printer;
use crate::cli::resolve::Chosen;
use crate::cli::talk::Talk;
use crate::talk::template::ChatTemplate;
use crate::units::Bytes;

/// What outlives a conversation, and whether the last one goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keep {
    /// The most bytes of what was computed.
    pub(super) most: Bytes,
    pub(super) resume: bool,
}

/// What every model of a conversation is opened with.
pub(super) struct Opening<'a> {
    pub(super) load: &'a LoadArgs,
    pub(super) sample: &'a SampleArgs,
    pub(super) keep: Keep,
    pub(super) printer: Printer,
}

impl Opening<'_> {
    /// The model of the command line.
    pub(super) fn first(&self, chosen: Chosen) -> anyhow::Result<(Talk, ChatTemplate)> {
        self.furnish(Talk::open(self.load, self.sample, chosen, self.printer)?)
    }

    /// Another one. What belongs to the first does not hold for it: its tokenizer, its drafter, its trace.
    pub(super) fn another(
        &self,
        interrupt: &Interrupt,
        chosen: Chosen,
    ) -> anyhow::Result<(Talk, ChatTemplate)> {
        let draft = match &self.load.draft {
            DraftArg::Model(_) | DraftArg::Mtp => DraftArg::Auto,
            draft => draft.clone(),
        };
        let load = LoadArgs { tokenizer: None, trace: None, draft, ..self.load.clone() };
        // Until it is loaded, Ctrl-C ends the program, as it does at the start.
        interrupt.exits();
        self.furnish(Talk::open_after(interrupt.clone(), &load, self.sample, chosen, self.printer)?)
    }

    fn furnish(&self, mut talk: Talk) -> anyhow::Result<(Talk, ChatTemplate)> {
        let template = talk.template()?;
        talk.batcher.keep_on(talk.engine.shelf(self.keep.most));
        Ok((talk, template))
    }
}
