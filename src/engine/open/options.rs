//! What a model is to be loaded with, as the commands say it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::devices::DeviceChoice;
use crate::ggml::{Model, Recall};
use crate::gguf::Index;
use crate::plan::StreamMode;
use crate::stream::Monitor;
use crate::units::Bytes;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What computes.
    pub device: DeviceChoice,
    /// Leaves further GPUs to others.
    pub one_gpu: bool,
    /// Whether blocks stream.
    pub stream: StreamMode,
    /// Tokens of context that each sequence may have; 0 is what the model was trained for.
    pub ctx: Option<u32>,
    /// Sequences that are computed at once; 1 for a [`Session`](crate::engine::Session), more for a [`batch`](crate::engine::batch). Room
    /// is made for four of full length at most, which they share.
    pub sequences: u32,
    /// Who guesses how texts go on, for passes to check.
    pub draft: Draft,
    /// How contexts keep what they have read.
    pub recall: Recall,
    /// Compute threads; the machine's cores if nothing is said.
    pub threads: Option<u32>,
    /// Tokens per pass.
    pub ubatch: Option<u32>,
    /// RAM that may be used.
    pub ram: Option<Bytes>,
    /// RAM that the plan leaves to others in this program: a server's requests.
    pub aside: Bytes,
    /// Device memory that may be used, of each GPU.
    pub vram: Option<Bytes>,
    /// Lets ggml repack resident weights for this CPU.
    pub repack: bool,
    /// Takes also models that make vectors of texts.
    pub embedding: bool,
    /// Whether no other model is loaded in this process: then what the process has taken so far is counted as its own.
    pub alone: bool,
    /// A `tokenizer.json` to be used instead of the file's tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Keeps blocks that stream from RAM there. Without, they are read for every pass all the same: for tests, and to measure.
    pub keep: bool,
    /// Where others see how far it is; a monitor serves one model.
    pub monitor: Option<Arc<Monitor>>,
}

/// Tokens of a text whose vector is made that are read at a time, at least and at most: each gives logits, too, which take room and
/// which nobody wants.
const VECTOR_TOKENS: [u32; 2] = [32, 512];

/// Drafted tokens that a pass may check of all its texts together, at most, and in any case.
const DRAFTS: u32 = 64;
const LEAST_DRAFTS: u32 = 8;

/// Ways that texts may go beside their likeliest ones, all together, at least and usually; sequences up to so many are a power of two.
const LEAST_WAYS: u32 = 8;
const WAYS: u32 = 15;
const FEW_SEQUENCES: u32 = 32;

/// Tokens of a prompt that a model which drafts reads in one pass: more would take more memory, and be no faster on a small model.
const DRAFT_UBATCH: u32 = 256;

/// Tokens that a head reads at a time; fewer in a file of its own, of which libllama makes a result for each of them.
pub(in crate::engine) const HEAD_UBATCH: u32 = 256;
pub(in crate::engine) const HEAD_FILE_UBATCH: u32 = 32;

/// Who guesses how texts go on.
#[derive(Clone, Debug, Default)]
pub enum Draft {
    /// Nobody.
    #[default]
    None,
    /// The texts themselves, by what they repeat; if `always`, also where no weights stream.
    Ngrams {
        /// Whether also a model without streamed weights gets drafts.
        always: bool,
    },
    /// They, and a head in the model's own file.
    Head {
        /// Whether also a model without streamed weights gets drafts.
        always: bool,
    },
    /// They, and a head in a file of its own.
    HeadFile {
        /// The head.
        index: Arc<Index>,
        /// Whether also a model without streamed weights gets drafts.
        always: bool,
    },
    /// They, and a small model with the same vocabulary.
    Model {
        /// The model.
        index: Arc<Index>,
        /// Whether also a model without streamed weights gets drafts.
        always: bool,
    },
}

impl PartialEq for Draft {
    fn eq(&self, other: &Draft) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Who drafts; what a model that does takes, and how long.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    pub(super) draft: Draft,
    /// Of the RAM.
    pub(super) ram: Bytes,
    /// Of the GPU's memory.
    pub(super) vram: Bytes,
    /// For each token that it guesses. (seconds)
    pub(super) each: f64,
    /// Why a head does not, where it might have.
    pub(super) why_not: Option<String>,
}

/// What results of a pass may take beyond one for each text: a share of the RAM that may be used, or so much where nobody says.
const RESULTS_SHARE: u64 = 16;
const RESULTS: Bytes = Bytes(256 << 20);

/// Sequences whose full context is in the plan. There may be more: few texts are long at the same time.
const FULL_SEQUENCES: u32 = 4;

impl LoadOptions {
    /// Tokens of a batch that give logits: one of each text that is written and of each token that was drafted, or as many as can
    /// be paid for of a text whose vector is made.
    pub(in crate::engine) fn outputs(&self, index: &Index) -> u32 {
        let room = self.ram.map_or(RESULTS, |ram| Bytes(ram.0 / RESULTS_SHARE));
        let paid = u32::try_from(room.0 / result(index).0.max(1)).unwrap_or(u32::MAX);
        let drafts = DRAFTS.min(paid.max(LEAST_DRAFTS)) * u32::from(self.draft != Draft::None);
        let [least, most] = VECTOR_TOKENS;
        let vectors = if self.embedding { paid.clamp(least, most) } else { 1 };
        (self.sequences.max(1) + drafts).max(vectors)
    }

    /// Whether a head in the model's own file drafts.
    pub(in crate::engine) fn has_head(&self) -> bool {
        matches!(self.draft, Draft::Head { .. })
    }

    /// Rows that are kept of each token of a pass for a head to read.
    pub(super) fn rows_for_head(&self) -> u64 {
        match self.draft {
            Draft::Head { .. } => 1,
            Draft::HeadFile { ref index, .. } => index.n_layers_read() as u64,
            Draft::None | Draft::Ngrams { .. } | Draft::Model { .. } => 0,
        }
    }

    /// Sequences that a context of `model` has: one for each text, and some for the ways that drafts see.
    pub(in crate::engine) fn n_seqs(&self, model: &Model) -> u32 {
        self.sequences.max(1) + self.n_ways(model)
    }

    /// Sequences for the ways that drafts see: none where a model keeps one state, which costs as much for each.
    ///
    /// libllama makes room for a batch whose length is a multiple of the number of sequences, so that 31 of them cost room for 93 tokens
    /// where 64 are computed at most; 32 cost nothing.
    pub(in crate::engine) fn n_ways(&self, model: &Model) -> u32 {
        if self.draft == Draft::None || !model.batches() || model.has_state() {
            return 0;
        }
        let texts = self.sequences.max(1);
        let all = texts.saturating_add(LEAST_WAYS).checked_next_power_of_two();
        all.filter(|all| *all <= FEW_SEQUENCES).map_or(WAYS, |all| all - texts)
    }

    /// The options that the model that drafts for this one is loaded with: all of it is resident.
    pub(in crate::engine) fn of_draft(&self, n_ctx: Option<u32>) -> LoadOptions {
        LoadOptions {
            stream: StreamMode::Never,
            ctx: n_ctx.or(self.ctx),
            ram: None,
            vram: None,
            one_gpu: true,
            embedding: false,
            draft: Draft::None,
            // The other model's choices need not suit this one.
            recall: Recall::default(),
            monitor: None,
            ubatch: Some(DRAFT_UBATCH),
            tokenizer: None,
            ..self.clone()
        }
    }

    /// Into how many contexts of full length the context is divided.
    pub(in crate::engine) fn shares(&self) -> u32 {
        self.sequences.clamp(1, FULL_SEQUENCES)
    }
}

/// What the result of one token takes: its logits, where they are computed and where they are kept.
pub(super) fn result(index: &Index) -> Bytes {
    let named = |name: &str| index.tensors.iter().find(|t| t.name == name);
    let output = named("output.weight").or_else(|| named("token_embd.weight"));
    let n_vocab = output.and_then(|t| t.shape.get(1)).copied().unwrap_or(0);
    let width = index.arch_uint("embedding_length").unwrap_or(0);
    Bytes(4) * (2 * n_vocab.min(MOST_VOCAB) + width.min(MOST_VOCAB))
}

/// What a row of one token takes that heads read.
pub(super) fn hidden(index: &Index) -> Bytes {
    Bytes(4) * index.arch_uint("embedding_length").unwrap_or(0).min(MOST_VOCAB)
}

/// Larger vocabularies are none: what a damaged header says must not overflow.
const MOST_VOCAB: u64 = 1 << 24;

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: DeviceChoice::default(),
            one_gpu: false,
            stream: StreamMode::Auto,
            ctx: None,
            sequences: 1,
            draft: Draft::None,
            recall: Recall::default(),
            threads: None,
            ubatch: None,
            ram: None,
            vram: None,
            aside: Bytes::ZERO,
            repack: true,
            embedding: false,
            alone: true,
            tokenizer: None,
            keep: true,
            monitor: None,
        }
    }
}
