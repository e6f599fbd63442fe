//! What is in a GGUF file: metadata, and an index of tensors by block. One reader, no ggml, no
//! unsafe.
//!
//! Reading order: [`Index::open`] reads the headers (`parse`) of all parts of a model
//! (`split`), sorts the tensors into blocks by their names (`names`), and answers questions
//! about the whole (`facts`); [`Index::check_model`] refuses what would make libllama abort
//! (`check` and its kind), and [`Index::join`] shows a model of several files as one. Weights are never read
//! here.

mod check;
mod check_arch;
mod check_caches;
mod check_heads;
mod check_vocabulary;
mod error;
mod facts;
mod head_dflash;
mod head_file;
mod heads;
pub mod index;
mod join;
pub mod names;
mod parse;
mod place;
mod purpose;
mod split;
mod types;
mod usual;
mod value;

pub use error::{Error, Flaw, Reason, SplitFlaw, TensorFlaw, printable};
pub use facts::{Experts, Tokenizer};
pub use head_file::{Blanks, Fit};
pub use index::{Block, Index, ModelFile, TensorInfo};
pub use join::Joined;
pub use place::{Place, Stack};
pub use purpose::Purpose;
pub use split::part_path;
pub use types::GgmlType;
pub use usual::usual_hits;
pub use value::{Array, ElementType, Metadata, Value};
