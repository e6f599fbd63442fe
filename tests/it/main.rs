//! One binary of integration tests; each module drives one part of the program.

mod archs;
mod bench;
mod cli;
mod comfort;
mod gguf_corrupt;
mod gguf_index;
mod gguf_types;
mod gguf_writer;
mod golden;
mod plan;
mod stream;
mod template;
mod test_device;
mod tidy;
mod tiny_models;
