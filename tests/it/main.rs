fn main(){}

mod gguf_corrupt;
mod gguf_index;
mod gguf_types;
mod gguf_writer;
