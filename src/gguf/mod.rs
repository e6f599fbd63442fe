//! What is in a GGUF file: metadata, and an index of tensors by block. One reader, no ggml, no unsafe.

pub mod index;
pub mod names;
mod parse;

pub use index::{Block, GgmlType, Index, Metadata, ModelFile, Place, TensorInfo, Value};
