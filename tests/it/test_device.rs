//! The device that the tests of streaming run on: the one that `AIRRUN_TEST_DEVICE` names, as `--device` would; without it, the CPU.

use airrun::engine::DeviceChoice;

/// What `--device` calls it.
pub(crate) fn name() -> String {
    let name = std::env::var("AIRRUN_TEST_DEVICE").unwrap_or_default();
    if name.is_empty() { "cpu".to_owned() } else { name }
}

/// The device.
pub(crate) fn choice() -> DeviceChoice {
    let name = name();
    name.parse().unwrap_or_else(|why| panic!("AIRRUN_TEST_DEVICE: '{name}' {why}"))
}

/// Whether it computes in the host's memory.
pub(crate) fn is_cpu() -> bool {
    choice() == DeviceChoice::Cpu
}
