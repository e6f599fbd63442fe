//! The processor: its name, its cores, and whether it has what this program was compiled for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Cores to compute on: physical ones, because two ggml threads on one core's two halves are slower than one; no more than
/// this process may use.
pub fn physical_cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = cores_below(Path::new("/sys/devices/system/cpu"));
    let cores = if cores == 0 { named() } else { cores };
    u32::try_from(if cores == 0 { allowed } else { cores.min(allowed) }).unwrap_or(1)
}

/// Cores by another word than the kernel's files about them; 0 where nobody says.
fn named() -> usize {
    #[cfg(target_os = "linux")]
    return fs::read_to_string("/proc/cpuinfo").map_or(0, |text| count_cores(&text));
    #[cfg(not(target_os = "linux"))]
    sysinfo::System::physical_core_count().unwrap_or(0)
}

/// Distinct sets of threads that share a core, below `/sys/devices/system/cpu`; 0 if it does not say. On all processors alike.
fn cores_below(dir: &Path) -> usize {
    let cpus = fs::read_dir(dir).into_iter().flatten().flatten();
    let shares = |cpu: fs::DirEntry| {
        fs::read_to_string(cpu.path().join("topology/thread_siblings_list")).ok()
    };
    cpus.filter_map(shares).collect::<BTreeSet<String>>().len()
}

/// Distinct (package, core) pairs of a `/proc/cpuinfo`; 0 if it does not say, as on ARM.
#[cfg(any(target_os = "linux", test))]
fn count_cores(cpuinfo: &str) -> usize {
    let mut package = "";
    let mut cores = BTreeSet::new();
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "physical id" => package = value.trim(),
            "core id" => drop(cores.insert((package, value.trim()))),
            _ => {}
        }
    }
    cores.len()
}

/// The processor's name, if the system has one for it.
pub fn name() -> Option<String> {
    #[cfg(target_os = "linux")]
    return name_in(&fs::read_to_string("/proc/cpuinfo").ok()?);
    #[cfg(not(target_os = "linux"))]
    {
        let mut system = sysinfo::System::new();
        system.refresh_cpu_all();
        let brand = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
        brand.filter(|brand| !brand.is_empty())
    }
}

/// The name in a `/proc/cpuinfo`. ARM's has none but the numbers of its maker and kinds, which tell it from others.
#[cfg(any(target_os = "linux", test))]
fn name_in(cpuinfo: &str) -> Option<String> {
    let fields = || cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let value = |key: &str| fields().find(|(k, _)| k.trim() == key).map(|(_, v)| v.trim());
    if let Some(name) = value("model name").or_else(|| value("Model")).or_else(|| value("cpu")) {
        return Some(name.to_owned());
    }
    // Large and small cores are two kinds.
    let kinds: BTreeSet<&str> =
        fields().filter(|(k, _)| k.trim() == "CPU part").map(|(_, v)| v.trim()).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    Some(format!("ARM {} {}", value("CPU implementer")?, kinds.join(" ")))
}

/// Something that this program was compiled to use and the processor lacks: whatever uses it would end the program without a word.
pub fn missing() -> Option<&'static str> {
    lacking().find(|(_, is_lacking)| *is_lacking).map(|(name, _)| name)
}

/// What a compiler may have used, and whether it did although it is not there.
#[cfg(target_arch = "x86_64")]
fn lacking() -> impl Iterator<Item = (&'static str, bool)> {
    macro_rules! all {
        ($($name:tt),*) => {
            [$(($name, cfg!(target_feature = $name) && !is_x86_feature_detected!($name))),*]
        };
    }
    all!(
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "popcnt",
        "avx",
        "f16c",
        "fma",
        "bmi1",
        "bmi2",
        "lzcnt",
        "movbe",
        "avx2",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512bf16",
        "avx512fp16",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512bitalg",
        "avxvnni",
        "gfni",
        "vaes"
    )
    .into_iter()
}

#[cfg(target_arch = "aarch64")]
fn lacking() -> impl Iterator<Item = (&'static str, bool)> {
    macro_rules! all {
        ($($name:tt),*) => {
            [$(($name, cfg!(target_feature = $name)
                && !std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    all!("dotprod", "fp16", "i8mm", "bf16", "sve", "sve2", "lse", "crc").into_iter()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn lacking() -> impl Iterator<Item = (&'static str, bool)> {
    std::iter::empty()
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
        let dir = tempfile::tempdir().unwrap();
        for (cpu, shares) in [("cpu0", "0,2"), ("cpu1", "1,3"), ("cpu2", "0,2"), ("cpu3", "1,3")] {
            let topology = dir.path().join(cpu).join("topology");
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("thread_siblings_list"), shares).unwrap();
        }
        fs::create_dir(dir.path().join("cpufreq")).unwrap();
        assert_eq!(cores_below(dir.path()), 2);
        assert_eq!(cores_below(Path::new("/nowhere")), 0);
        assert!((1..4096).contains(&physical_cores()));
    }

    #[test]
    fn processors_have_names_that_tell_them_apart() {
        let name = |text: &str| name_in(text);
        let intel = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nphysical id\t: 0\n";
        assert_eq!(name(intel).as_deref(), Some("Intel(R) Xeon(R)"));
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\nprocessor\t: 1\n\
                   CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(name(arm).as_deref(), Some("ARM 0x41 0xd0c"));
        let two = arm.replacen("0xd0c", "0xd05", 1);
        assert_eq!(name(&two).as_deref(), Some("ARM 0x41 0xd05 0xd0c"));
        assert_eq!(name("rubbish\n"), None);
    }

    #[test]
    fn this_processor_runs_what_was_compiled_for_it() {
        assert_eq!(missing(), None);
    }
}
