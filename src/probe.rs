//! Asks what the machine has, and measures how fast it is. The system's part of that is in `os`; everything else is told.

pub mod bandwidth;
pub mod link;
pub mod quick;
pub mod rates;

pub use crate::os::memory::{available_memory, forget_peak, peak_memory};
pub use crate::os::processor::physical_cores;
pub use crate::os::{load, memory, nvidia, processor, space, system};

use crate::plan::{Machine, Rates};

/// What this process may use, and what it should leave.
pub fn machine() -> Machine {
    let memory::Share { ram, reserve } = memory::share();
    Machine { ram, reserve, rates: Rates::usual(physical_cores()), gpu: None }
}

/// What ggml's code for this CPU was built with, and uses: `AVX2`, `FMA`.
pub fn cpu_features() -> Vec<String> {
    let text = crate::ggml::system_info();
    let pairs = text.split(['|', ':']).filter_map(|pair| pair.split_once('='));
    let on = pairs.filter(|(_, value)| value.trim() == "1");
    on.map(|(name, _)| name.trim().to_owned()).collect()
}
