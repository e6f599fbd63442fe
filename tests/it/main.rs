//! One binary of integration tests; each module drives one part of the program.

mod cli;
mod template;
