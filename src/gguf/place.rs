//! Where tensors belong in the order of computation.

use std::fmt;

/// Which row of blocks a block number counts in, in the order of computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stack {
    /// `v.blk.N`: a vision tower.
    Vision,
    /// `a.blk.N`: an audio tower.
    Audio,
    /// `enc.blk.N`: the encoder of an encoder-decoder model.
    Encoder,
    /// `blk.N`: the blocks of all other models.
    Main,
    /// `dec.blk.N`: the decoder of an encoder-decoder model.
    Decoder,
    /// `posnet.N` of a speech decoder.
    PosNet,
    /// `convnext.N` of a speech decoder.
    ConvNext,
}

/// Where a tensor belongs in the order of computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Token embeddings and what else is read before block 0.
    Embedding,
    /// A numbered block: `blk.N.*`, or that of another stack.
    Block(Stack, u32),
    /// Final norm and output matrix, and whatever else has no block number.
    Output,
}

impl Stack {
    /// What precedes the block number in tensor names, without the dot.
    pub fn prefix(self) -> &'static str {
        match self {
            Stack::Vision => "v.blk",
            Stack::Audio => "a.blk",
            Stack::Encoder => "enc.blk",
            Stack::Main => "blk",
            Stack::Decoder => "dec.blk",
            Stack::PosNet => "posnet",
            Stack::ConvNext => "convnext",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Embedding => f.pad("embedding"),
            Place::Block(stack, number) => f.pad(&format!("{}.{number}", stack.prefix())),
            Place::Output => f.pad("output"),
        }
    }
}
