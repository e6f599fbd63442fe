//! One binary of integration tests; each module drives one part of the program.

mod archs;
mod batch;
mod bench;
mod cli;
mod comfort;
mod devices;
mod faults;
mod gguf_corrupt;
mod gguf_index;
mod gguf_types;
mod gguf_writer;
mod golden;
mod home;
mod memory;
mod models;
mod plan;
mod pull;
mod quantize;
mod serve;
mod setup;
mod stream;
mod template;
mod test_device;
mod tidy;
mod tiny_models;
mod tokenizer;
