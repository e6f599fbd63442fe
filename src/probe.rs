//! Asks the system what the machine has. The only room that does; everything else is told.

pub mod bandwidth;
pub mod link;
pub mod load;
pub mod memory;
pub mod quick;
pub mod rates;
pub mod space;
pub mod system;

pub use memory::{address_space, available_memory, machine, peak_memory};

/// Cores to compute on: physical ones, because two ggml threads on one core's two halves are slower than one; no more than
/// this process may use.
pub fn physical_cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = std::fs::read_to_string("/proc/cpuinfo").map_or(0, |text| count_cores(&text));
    u32::try_from(if cores == 0 { allowed } else { cores.min(allowed) }).unwrap_or(1)
}

/// What ggml's code for this CPU was built with, and uses: `AVX2`, `FMA`.
pub fn cpu_features() -> Vec<String> {
    let text = crate::ggml::system_info();
    let pairs = text.split(['|', ':']).filter_map(|pair| pair.split_once('='));
    let on = pairs.filter(|(_, value)| value.trim() == "1");
    on.map(|(name, _)| name.trim().to_owned()).collect()
}

/// Distinct (package, core) pairs of a `/proc/cpuinfo`; 0 if it does not say.
fn count_cores(cpuinfo: &str) -> usize {
    let mut package = "";
    let mut cores = Vec::new();
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "physical id" => package = value.trim(),
            "core id" => cores.push((package, value.trim())),
            _ => {}
        }
    }
    cores.sort_unstable();
    cores.dedup();
    cores.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperthreads_are_not_cores() {
        let text = "physical id\t: 0\ncore id\t\t: 0\n\nphysical id\t: 0\ncore id\t\t: 0\n\n\
                    physical id\t: 0\ncore id\t\t: 1\n\nphysical id\t: 1\ncore id\t\t: 0\n";
        assert_eq!(count_cores(text), 3);
        assert_eq!(count_cores("processor : 0\n"), 0);
    }
}
