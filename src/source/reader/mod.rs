//! The readers: different ways to read extents, behind one trait, under the same tests.

pub mod pread;
