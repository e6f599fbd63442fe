//! The index of a model: its tensors by block, with the file ranges that hold their bytes. It reads no weights.

use std::path::{Path, PathBuf};

use crate::units::Bytes;

/// One file of a model; a split model has several.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length when it was indexed.
    pub len: Bytes,
    /// Where the tensor data begins: everything before it is header.
    pub data_offset: u64,
}

/// Where a tensor belongs in the order of computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Token embeddings and what else is read before block 0.
    Embedding,
    /// `blk.N.*` (and the numbered blocks of an encoder).
    Block(u32),
    /// Final norm and output matrix, and whatever else has no block number.
    Output,
}

/// A ggml tensor type: its number, and its name and block layout if this build knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GgmlType(pub u32);

/// One tensor of the file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its full name, such as `blk.17.ffn_gate_exps.weight`.
    pub name: String,
    /// Its element type.
    pub ty: GgmlType,
    /// `ne`: elements per dimension, the contiguous one first; one to four of them.
    pub shape: Vec<u64>,
    /// Which of [`Index::files`] holds it.
    pub file: usize,
    /// Offset of its first byte in that file.
    pub offset: u64,
    /// Its bytes.
    pub len: Bytes,
    /// Where it belongs.
    pub place: Place,
}

/// One block: the tensors of one layer.
#[derive(Clone, Debug)]
pub struct Block {
    /// The number in the tensors' names.
    pub number: u32,
    /// Indices into [`Index::tensors`], in file order.
    pub tensors: Vec<usize>,
    /// Sum of their bytes.
    pub len: Bytes,
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer type.
    Uint(u64),
    /// Any signed integer type.
    Int(i64),
    /// Either float type.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string; invalid UTF-8 is replaced.
    Str(String),
    /// An array of scalars or strings.
    Array(Vec<Value>),
}

/// The metadata of the (first) file, in file order.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Key and value pairs.
    pub entries: Vec<(String, Value)>,
}

/// Everything the rest of airrun needs to know of a model file.
#[derive(Clone, Debug)]
pub struct Index {
    /// The model's files, in order of their split number.
    pub files: Vec<ModelFile>,
    /// The first file's metadata.
    pub metadata: Metadata,
    /// All tensors, in file order.
    pub tensors: Vec<TensorInfo>,
    /// The blocks, by number.
    pub blocks: Vec<Block>,
}

impl Index {
    /// Reads the headers of `path` and, if it is the first part of a split model, of its siblings.
    pub fn open(_path: &Path) -> Result<Index, std::io::Error> {
        Err(std::io::Error::other("not written yet"))
    }
}
