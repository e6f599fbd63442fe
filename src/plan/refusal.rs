//! Why there is no plan, and what would fit.

use crate::units::{Bytes, MIB};

/// A memory with a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The machine's.
    Ram,
    /// The GPU's.
    Vram,
}

impl Pool {
    fn name(self) -> &'static str {
        match self {
            Pool::Ram => "RAM",
            Pool::Vram => "the GPU's memory",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Pool::Ram => "--ram",
            Pool::Vram => "--vram",
        }
    }

    /// By how much what is needed may differ from one run to the next, at most: a hint is to hold in the run that follows it. The
    /// program's own part of RAM, which the system counts, has been seen to differ by two huge pages of 2 MiB.
    pub(super) fn spread(self) -> Bytes {
        match self {
            Pool::Ram => Bytes(4 * MIB.0),
            Pool::Vram => MIB,
        }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "needs at least {least} of {} with a context of {ctx} tokens, and {} {budget}",
    pool.name(),
    match (*.promised, pool) {
        (true, _) => format!("{} allows", pool.flag()),
        (false, Pool::Ram) => "this machine has room for".to_owned(),
        (false, Pool::Vram) => "the GPU has room for".to_owned(),
    }
)]
pub struct Refusal {
    /// Which memory is too small.
    pub pool: Pool,
    /// What it takes at least.
    pub least: Bytes,
    /// What may be used.
    pub budget: Bytes,
    /// Whether the user said so.
    pub promised: bool,
    /// Whether the user wants every block resident.
    pub resident: bool,
    /// The context that was wanted. (tokens)
    pub ctx: u32,
    /// The longest context that would fit; 0 if none does. (tokens)
    pub fits: u32,
}

impl Refusal {
    /// What would fit.
    pub fn hint(&self) -> String {
        let mut ways = Vec::new();
        if self.promised {
            let enough = (self.least + self.pool.spread()).0.div_ceil(MIB.0);
            ways.push(format!("{} {enough}M", self.pool.flag()));
        }
        if self.fits > 0 {
            ways.push(format!("-c {}", self.fits));
        }
        if self.resident {
            ways.push("--stream auto".to_owned());
        }
        if self.pool == Pool::Vram {
            ways.push("--device cpu".to_owned());
        }
        match ways.as_slice() {
            [] => "close other programs, or take a smaller model".to_owned(),
            ways => format!("this would fit: {}", ways.join(", or ")),
        }
    }
}
