//! The devices that can compute: what there is, and which one is meant. Choosing starts no driver that was not asked for by
//! being built in, and measures nothing; only [`list`] does, for people who want to know.

use std::collections::HashSet;
use std::str::FromStr;

use super::Error;
use crate::ggml::{self, Device, DeviceKind, DeviceMemory};
use crate::probe::link::{self, Link};
use crate::units::{Bytes, Rate};

/// What computes, as the user says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU with memory and processors of its own, and further ones of its kind; the CPU if there is none.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// GPUs of one kind: the one that weights may stream to, and further ones, which may hold blocks. There is one at least.
    Gpus {
        /// The kind of driver.
        backend: GpuBackend,
        /// The number of each among those, all different; the first if nothing is said.
        numbers: Vec<Option<usize>>,
    },
}

/// A kind of GPU driver that ggml knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuBackend {
    /// NVIDIA's.
    Cuda,
    /// Vulkan, for GPUs of all makers.
    Vulkan,
    /// Apple's.
    Metal,
}

impl GpuBackend {
    /// All of them, the one to be preferred first where one GPU is found by several.
    const ALL: [GpuBackend; 3] = [GpuBackend::Cuda, GpuBackend::Metal, GpuBackend::Vulkan];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            GpuBackend::Cuda => "cuda",
            GpuBackend::Vulkan => "vulkan",
            GpuBackend::Metal => "metal",
        }
    }

    /// What ggml calls it.
    pub(super) fn ggml_name(self) -> &'static str {
        match self {
            GpuBackend::Cuda => "CUDA",
            GpuBackend::Vulkan => "Vulkan",
            GpuBackend::Metal => "MTL",
        }
    }

    /// Whether this program was built with it.
    fn is_built_in(self) -> bool {
        match self {
            GpuBackend::Cuda => cfg!(feature = "cuda"),
            GpuBackend::Vulkan => cfg!(feature = "vulkan"),
            GpuBackend::Metal => cfg!(feature = "metal"),
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |backend: GpuBackend, number: &Option<usize>| match number {
            None => backend.name().to_owned(),
            Some(n) => format!("{}:{n}", backend.name()),
        };
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Gpus { backend, numbers } => {
                let names: Vec<String> = numbers.iter().map(|n| name(*backend, n)).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match text {
            "auto" => return Ok(DeviceChoice::Auto),
            "cpu" => return Ok(DeviceChoice::Cpu),
            _ => {}
        }
        let names = text.split(',').map(gpu_name).collect::<Result<Vec<_>, _>>()?;
        let backend = names[0].0;
        if names.iter().any(|(other, _)| *other != backend) {
            return Err("names GPUs of several kinds".to_owned());
        }
        let numbers: Vec<Option<usize>> = names.into_iter().map(|(_, number)| number).collect();
        let different: HashSet<usize> = numbers.iter().map(|n| n.unwrap_or(0)).collect();
        if different.len() < numbers.len() {
            return Err("names a GPU twice".to_owned());
        }
        Ok(DeviceChoice::Gpus { backend, numbers })
    }
}

/// `cuda:1` or `cuda`.
fn gpu_name(text: &str) -> Result<(GpuBackend, Option<usize>), String> {
    let (name, number) = match text.split_once(':') {
        Some((name, number)) => (name, Some(number)),
        None => (text, None),
    };
    let backend = GpuBackend::ALL.into_iter().find(|b| b.name() == name);
    let backend = backend.ok_or("must be auto, cpu, cuda, vulkan or metal")?;
    let number = number.map(|n| n.parse().map_err(|_| format!("'{n}' is not a number")));
    Ok((backend, number.transpose()?))
}

/// A GPU that this build can compute on.
#[derive(Clone, Copy, Debug)]
struct Gpu {
    backend: GpuBackend,
    number: usize,
    device: Device,
}

impl Gpu {
    fn name(&self) -> String {
        format!("{}:{}", self.backend.name(), self.number)
    }
}

/// All GPUs, in the order in which one is chosen.
fn gpus() -> Vec<Gpu> {
    let all = Device::all();
    let of = |backend: GpuBackend| {
        let is_one = |d: &&Device| {
            matches!(d.kind(), DeviceKind::Gpu | DeviceKind::Integrated)
                && d.backend_name() == backend.ggml_name()
        };
        let found: Vec<Device> = all.iter().filter(is_one).copied().collect();
        (0..).zip(found).map(move |(number, device)| Gpu { backend, number, device })
    };
    GpuBackend::ALL.into_iter().flat_map(of).collect()
}

/// Drivers that make a GPU of the CPU, by what they call it. ggml lists such a device where `GGML_VK_VISIBLE_DEVICES` counts it in,
/// and does not tell it from others.
const SOFTWARE: [&str; 3] = ["llvmpipe", "SwiftShader", "Microsoft Basic Render Driver"];

fn is_software(device: Device) -> bool {
    let description = device.description();
    SOFTWARE.iter().any(|name| description.contains(name))
}

/// The GPUs that `choice` means, the one that weights may stream to first; none is the CPU. A GPU that computes from the machine's
/// memory, or is made of the CPU, is taken only if it is named: it brings nothing that the CPU lacks.
pub(super) fn choose(choice: &DeviceChoice) -> Result<Vec<Device>, Error> {
    let (backend, numbers) = match choice {
        DeviceChoice::Cpu => return Ok(Vec::new()),
        DeviceChoice::Auto => {
            let brings_more =
                |g: &Gpu| g.device.kind() == DeviceKind::Gpu && !is_software(g.device);
            let gpus: Vec<Gpu> = gpus().into_iter().filter(brings_more).collect();
            let of_a_kind = gpus.iter().filter(|g| g.backend == gpus[0].backend);
            return Ok(of_a_kind.map(|g| g.device).collect());
        }
        DeviceChoice::Gpus { backend, numbers } => (*backend, numbers),
    };
    let gpus = gpus();
    let device = |number: &Option<usize>| {
        let number = number.unwrap_or(0);
        let found = gpus.iter().find(|g| g.backend == backend && g.number == number);
        found.map(|g| g.device).ok_or_else(|| no_such_device(choice, backend, &gpus))
    };
    numbers.iter().map(device).collect()
}

/// Why there is no such device, and what there is.
fn no_such_device(choice: &DeviceChoice, backend: GpuBackend, gpus: &[Gpu]) -> Error {
    let name = backend.name();
    let why = if !backend.is_built_in() {
        format!("this build of airrun knows no {name}")
    } else if gpus.iter().any(|g| g.backend == backend) {
        "there are not so many".to_owned()
    } else {
        format!("{name} finds no GPU on this machine")
    };
    let mut there = vec!["cpu".to_owned()];
    there.extend(gpus.iter().map(|g| format!("{} ({})", g.name(), g.device.description())));
    let build = (!backend.is_built_in()).then_some(name);
    Error::NoDevice { wanted: choice.to_string(), why, there: there.join(", "), build }
}

/// What people call a device: `cpu`, `cuda:0`.
pub(super) fn name(device: Option<Device>) -> String {
    let gpu = device.and_then(|d| gpus().into_iter().find(|g| g.device == d));
    gpu.map_or_else(|| "cpu".to_owned(), |g| g.name())
}

/// A device, for people.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Listed {
    /// What `--device` calls it.
    pub name: String,
    /// The model of the processor or GPU.
    pub description: String,
    /// Whether it has no memory of its own.
    pub integrated: bool,
    /// What nobody uses of its memory.
    pub memory_free: Bytes,
    /// All of its memory.
    pub memory_total: Bytes,
    /// The bus that it is on, where the system tells.
    pub link: Option<Link>,
    /// Bytes per second from the machine's memory, measured now; none for the CPU.
    pub upload: Option<Rate>,
    /// Whether that was from memory that the device can read by itself.
    pub pinned: Option<bool>,
    /// Whether `--device auto` takes it.
    pub auto: bool,
}

/// All devices, the CPU last, each measured for up to a second.
///
/// # Errors
///
/// ggml has no CPU device.
pub fn list() -> Result<Vec<Listed>, Error> {
    let auto = choose(&DeviceChoice::Auto)?;
    let mut list: Vec<Listed> = gpus()
        .into_iter()
        .map(|gpu| {
            let DeviceMemory { free, total } = gpu.device.memory();
            let upload = link::upload(gpu.device);
            Listed {
                name: gpu.name(),
                description: gpu.device.description(),
                integrated: gpu.device.kind() == DeviceKind::Integrated,
                memory_free: free,
                memory_total: total,
                link: link::link(gpu.device),
                upload: upload.map(|u| u.rate),
                pinned: upload.map(|u| u.pinned),
                auto: auto.contains(&gpu.device),
            }
        })
        .collect();
    let no_cpu = |error: ggml::Error| Error::Ggml { model: "the CPU".to_owned(), error };
    let cpu = Device::cpu().map_err(no_cpu)?;
    list.push(Listed {
        name: "cpu".to_owned(),
        description: cpu.description(),
        integrated: false,
        memory_free: crate::probe::available_memory(),
        memory_total: cpu.memory().total,
        link: None,
        upload: None,
        pinned: None,
        auto: auto.is_empty(),
    });
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        let several = ["cuda:0,cuda:1", "vulkan:2,vulkan:0,vulkan:1", "vulkan,vulkan:1"];
        let one = ["auto", "cpu", "cuda", "cuda:1", "vulkan", "vulkan:12", "metal"];
        for text in several.into_iter().chain(one) {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        let others = [
            "cuda:0,",
            ",",
            "cuda:0,vulkan:0",
            "cuda:1,cuda:1",
            "cuda,cuda:0",
            "auto,cuda:0",
            "cpu,cuda",
        ];
        let one = ["", "gpu", "cpu:0", "auto:1", "cuda:", "cuda:x", "cuda:-1", "CUDA", ":0"];
        for text in others.into_iter().chain(one) {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_built_in_is_refused_by_name() {
        let absent = GpuBackend::ALL.into_iter().find(|b| !b.is_built_in());
        let Some(backend) = absent else { return };
        let error = choose(&DeviceChoice::Gpus { backend, numbers: vec![Some(3)] }).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("'{}:3'", backend.name())), "{text}");
        assert!(error.hint().unwrap().contains("cpu"), "{error:?}");
    }
}
