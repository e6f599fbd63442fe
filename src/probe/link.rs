//! The link between a device and the machine's memory: what the bus says of itself, and how fast copies really are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::ggml::{self, Device, Upload};
use crate::memo;
use crate::units::Rate;

/// A PCI Express link as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Link {
    /// Transfers per second and lane at this moment; an idle device may have slowed down. (GT/s)
    pub speed: f64,
    /// Lanes in use.
    pub width: u32,
    /// What device and slot can do at most. (GT/s)
    pub max_speed: f64,
    /// Lanes there are at most.
    pub max_width: u32,
}

impl Link {
    /// The generation of PCI Express that a speed belongs to.
    pub fn generation(speed: f64) -> u32 {
        let limits = [2.5, 5.0, 8.0, 16.0, 32.0];
        limits.iter().fold(1, |n, &limit| n + u32::from(speed > limit))
    }
}

/// The link of a device that is on the PCI bus, where the system tells.
pub fn link(device: Device) -> Option<Link> {
    read_link(&Path::new("/sys/bus/pci/devices").join(device.pci_address()?))
}

/// Copies to the device for up to a second.
pub fn upload(device: Device) -> Option<Upload> {
    ggml::measure_upload(device).ok()
}

/// As [`upload`], or what it was within the last week.
pub fn remembered_upload(device: Device) -> Option<Rate> {
    let memory = memo::path("links.json");
    let key = format!("{}, {}", device.backend_name(), device.description());
    let known: Option<BTreeMap<String, Known>> = memory.as_deref().and_then(memo::recall);
    let mut known = known.unwrap_or_default();
    known.retain(|_, k| memo::holds(k.measured) && k.rate.is_finite() && k.rate > 0.0);
    if let Some(known) = known.get(&key) {
        return Some(Rate(known.rate));
    }
    let rate = upload(device)?.rate;
    known.insert(key, Known { rate: rate.0, measured: memo::now() });
    if let Some(memory) = memory {
        memo::remember(&memory, &known);
    }
    Some(rate)
}

/// A measurement that is remembered.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Known {
    /// Bytes per second.
    rate: f64,
    /// Seconds since 1970.
    measured: u64,
}

/// The link of a device's directory in `/sys`.
fn read_link(dir: &Path) -> Option<Link> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    // `16.0 GT/s PCIe`, or `Unknown`.
    let speed = |name| read(name)?.split_whitespace().next()?.parse::<f64>().ok();
    let width = |name| read(name)?.trim().parse::<u32>().ok();
    let (now, lanes) = (speed("current_link_speed")?, width("current_link_width")?);
    Some(Link {
        speed: now,
        width: lanes,
        max_speed: speed("max_link_speed").unwrap_or(now),
        max_width: width("max_link_width").unwrap_or(lanes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(read_link(dir.path()), None);
        write("current_link_speed", "2.5 GT/s PCIe\n");
        write("current_link_width", "16\n");
        write("max_link_speed", "16.0 GT/s PCIe\n");
        let want = Link { speed: 2.5, width: 16, max_speed: 16.0, max_width: 16 };
        assert_eq!(read_link(dir.path()), Some(want));
        write("current_link_speed", "Unknown\n");
        assert_eq!(read_link(dir.path()), None);
    }

    #[test]
    fn speeds_have_generations() {
        let generations = [2.5, 5.0, 8.0, 16.0, 32.0, 64.0].map(Link::generation);
        assert_eq!(generations, [1, 2, 3, 4, 5, 6]);
    }
}
