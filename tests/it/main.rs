//! The tests that run the program from outside: one binary, one module per subject.

mod archs;
mod tiny_models;
