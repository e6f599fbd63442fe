//! airrun runs GGUF language models that are larger than the device's memory, and larger than RAM.
//!
//! The rooms, in reading order (arrows go downward only; ARCHITECTURE.md has the map):
//!
//! - [`units`]: bytes and rates, parsed and printed
//! - [`files`]: read without waiting, written completely or not at all
//! - [`heap`]: what a single thread may take of the program's memory, and giving it back
//! - [`memo`]: measurements that hold for a while
//! - [`os`]: everything that depends on the operating system
//! - [`gguf`]: what is in the file: an index of its blocks
//! - [`models`]: the models that are on this machine already
//! - [`hub`]: downloads models from the Hugging Face hub
//! - [`plan`]: who lives where: a pure function from index, machine and wishes to a placement
//! - [`source`]: bytes on time: reads blocks into host memory
//! - [`ggml`]: safe wrappers of ggml and libllama
//! - `stream`: the stream device, a ggml device that wraps a ggml device
//! - [`talk`]: between people's words and tokens: templates, tokenizers, stop words
//! - `engine`: a loaded model: the narrow seam that all commands use
//! - [`serve`]: the engine behind HTTP, for the clients that people have
//! - [`cli`]: the commands

pub mod cli;
pub mod engine;
pub mod files;
pub mod ggml;
pub mod gguf;
pub mod heap;
pub mod hub;
pub mod memo;
pub mod models;
pub mod os;
pub mod plan;
pub mod probe;
pub mod serve;
pub mod source;
pub mod stream;
pub mod talk;
pub mod units;
