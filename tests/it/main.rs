//! One binary of integration tests; each module drives one part of the program.

mod archs;
mod bench;
mod cli;
mod comfort;
mod devices;
mod gguf_corrupt;
mod gguf_index;
mod gguf_types;
mod gguf_writer;
mod golden;
mod plan;
mod setup;
mod stream;
mod template;
mod tidy;
mod tiny_models;
