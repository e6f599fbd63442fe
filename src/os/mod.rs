//! The operating system: everything that depends on which one it is, so that a port is these files and not a hunt. What a system does
//! not tell is said to be unknown, or is guessed with prudence, never taken for plenty. It decides nothing.

pub mod files;
pub mod load;
pub mod memory;
pub mod nvidia;
pub mod pages;
pub mod private;
pub mod process;
pub mod processor;
pub mod reads;
pub mod signals;
pub mod space;
pub mod system;
pub mod terminal;
#[cfg(windows)]
pub(crate) mod windows;
