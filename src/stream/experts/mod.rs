//! Experts one by one: what a token's routers chose is brought, and stays for the tokens after it as far as there is room.
//!
//! A *stack* is a tensor of experts, an *expert* its slices in all stacks of a block, a *route* those that a pass uses. The numbers of
//! the experts are known only when the router was computed, so a run ends before the first product with them; then all that is
//! missing is asked for at once, and each product waits for its own stack only. The product is the same operation on the same bytes:
//! its operand points at a pool, and a private table counts the experts as the pool does.
//!
//! `policy` says who stays, and `simulate` what others would have kept; both are pure. `regions` divides the memory, `pool` holds
//! experts in the host's memory, `device` those of them that are in a device's, `watch` tells what happens.

mod device;
pub mod policy;
pub(super) mod pool;
mod regions;
pub mod simulate;
mod watch;

pub use policy::Decay;
pub use regions::{area_size, region_size};
pub use watch::{BlockView, Counts, Watch};

/// For each expert of a block, the share of passes that use it. (0 to 1)
pub type Habit = Vec<f64>;

use crate::source::Slice;
use crate::units::Bytes;

/// A tensor of experts as it lies in its file.
#[derive(Clone, Debug)]
pub struct StackSpec {
    /// The tensor's name.
    pub name: String,
    /// Which file.
    pub file: usize,
    /// The first expert's first byte.
    pub offset: u64,
    /// Bytes of each.
    pub each: u64,
    /// How they are read.
    pub slice: Slice,
    /// Bytes beyond the last one that a device's kernels may look at; none in the host's memory.
    pub beyond: u64,
}

/// The stacks of a block, in the order of their use.
#[derive(Clone, Debug)]
pub struct BlockSpec {
    /// What people call it: `block 17`.
    pub name: String,
    /// How many experts it has.
    pub count: usize,
    /// Those of its stacks that stream.
    pub stacks: Vec<StackSpec>,
}

/// What streams by expert, and through how much memory.
#[derive(Clone, Debug)]
pub struct ExpertsSpec {
    /// The blocks that have experts.
    pub blocks: Vec<BlockSpec>,
    /// Experts of each block that are kept between passes; none if 0.
    pub n_slots: usize,
    /// Memory of the pool.
    pub pool: Bytes,
    /// Whether the slots of units are in the same memory: then either is in use, never both.
    pub shares_slots: bool,
    /// How fast what was used is forgotten.
    pub decay: Decay,
    /// The pool above this one, where a device computes in memory of its own.
    pub above: Option<Above>,
}

/// The pool in a device's memory: what it has not comes from the host's pool, and that from the file.
#[derive(Clone, Debug)]
pub struct Above {
    /// Experts of each block that are kept between passes; none if 0: then all blocks share the memory.
    pub n_slots: usize,
    /// The pieces of its memory.
    pub areas: Vec<Bytes>,
    /// In which of them each block's experts are, and from which byte on; a single place if all blocks share it.
    pub places: Vec<(usize, Bytes)>,
    /// So many pieces are slots of units as well, from their first bytes on: either is in use, never both.
    pub lent: usize,
    /// What addresses there must be a multiple of. (bytes)
    pub align: u64,
}

/// How a pass gets its experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Whole stacks, as units.
    Whole,
    /// One by one, from a pool for each block, where they stay.
    Kept,
    /// One by one, through memory that all blocks share: more than the pool of a block holds, or there is none.
    Passing,
}

/// A pass that is expected to use this share of the experts or more gets all of them: whole stacks are read ahead while others are
/// computed with, and in long reads.
const NEARLY_ALL: f64 = 0.6;

/// How many of `count` experts a pass uses that chooses `used` of them for each of `n_tokens` tokens, all alike likely.
#[expect(clippy::cast_precision_loss, reason = "few experts")]
pub(super) fn expected(count: usize, used: usize, n_tokens: usize) -> f64 {
    let misses = 1.0 - used as f64 / count.max(1) as f64;
    count as f64 * (1.0 - misses.max(0.0).powf(n_tokens as f64))
}

/// Whether so many are worth being fetched one by one.
#[expect(clippy::cast_precision_loss, reason = "few experts")]
pub(super) fn is_narrow(count: usize, used: usize, n_tokens: usize) -> bool {
    expected(count, used, n_tokens) < NEARLY_ALL * count as f64
}
