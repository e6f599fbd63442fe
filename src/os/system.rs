//! What the system says of itself that bears on speed: mounts, huge pages, limits, graphics cards. Linux tells by files below
//! /proc and /sys; elsewhere, and where they are hidden, nothing is known and nothing is said. It does not judge.

use std::fs;
use std::path::{Path, PathBuf};

use crate::units::Bytes;

/// Where a path is mounted from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Mount {
    /// The folder that it appears at.
    pub point: PathBuf,
    /// The kind of file system: `ext4`, `nfs4`.
    pub kind: String,
}

/// Swap space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swap {
    /// All of it.
    pub total: Bytes,
    /// What holds something.
    pub used: Bytes,
}

/// The file system that `path`, which exists, is on.
pub fn mount_of(path: &Path) -> Option<Mount> {
    let path = path.canonicalize().ok()?;
    innermost(&fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
}

/// The last of the longest mount points above `path` in a `/proc/self/mountinfo`: later mounts hide earlier ones.
fn innermost(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let point = PathBuf::from(unescaped(head.split(' ').nth(4)?));
        let kind = tail.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some(Mount { point, kind })
    });
    mounts.max_by_key(|mount| mount.point.components().count())
}

/// Spaces and the like stand as three octal digits in the kernel's tables.
fn unescaped(text: &str) -> String {
    let mut out = text.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, plain);
    }
    out
}

/// Whether the disk below `path` turns; `None` where there is no disk, or nobody knows.
pub fn rotational(path: &Path) -> Option<bool> {
    let dev = super::files::device(path).ok()?;
    // The kernel's numbers of a device, as glibc's makedev packs them.
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
    let minor = (dev & 0xff) | (dev >> 12 & !0xff);
    let disk = PathBuf::from(format!("/sys/dev/block/{major}:{minor}")).canonicalize().ok()?;
    // A partition has no queue of its own: the disk is above it.
    let queue = disk.ancestors().take(2).map(|dir| dir.join("queue/rotational"));
    let text = queue.filter_map(|file| fs::read_to_string(file).ok()).next()?;
    Some(text.trim() == "1")
}

/// When memory gets huge pages: `always`, `madvise` or `never`.
pub fn huge_pages() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    chosen(&text)
}

/// The word in brackets.
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// The most memory that this process may lock; `None` without a limit.
pub fn memlock() -> Option<Bytes> {
    soft_limit(&fs::read_to_string("/proc/self/limits").ok()?, "Max locked memory")
}

fn soft_limit(limits: &str, name: &str) -> Option<Bytes> {
    let line = limits.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok().map(Bytes)
}

/// The swap space of the machine.
pub fn swap() -> Swap {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let get = |key| super::memory::field(&text, key).unwrap_or_default();
    let total = get("SwapTotal");
    Swap { total, used: Bytes(total.0.saturating_sub(get("SwapFree").0)) }
}

/// How the first core chooses its clock: `performance`, `powersave`.
pub fn governor() -> Option<String> {
    let file = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// Cores that the control groups of this process allow it, which may be a fraction; `None` without a limit.
pub fn cpu_quota() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let dirs = Path::new(path).ancestors().map(|dir| Path::new("/sys/fs/cgroup").join(dir));
    let quotas = dirs.filter_map(|dir| quota(&fs::read_to_string(dir.join("cpu.max")).ok()?));
    quotas.min_by(f64::total_cmp)
}

/// A `cpu.max`: microseconds of computing in so many of time.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// This machine's own name, if it has one.
pub fn host_name() -> Option<String> {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    #[cfg(not(unix))]
    sysinfo::System::host_name()
}

/// Whether the administrator has switched io_uring off for this process's user.
pub fn io_uring_off() -> bool {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    !matches!(text.trim(), "" | "0")
}

/// Graphics cards and accelerators on the bus, by their maker.
pub fn gpus() -> Vec<&'static str> {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let mut found: Vec<&str> = devices
        .filter_map(|device| {
            let read = |name| fs::read_to_string(device.path().join(name)).ok();
            maker(read("class")?.trim(), read("vendor")?.trim())
        })
        .collect();
    found.sort_unstable();
    found
}

/// The maker of a display controller or accelerator that ggml may know.
fn maker(class: &str, vendor: &str) -> Option<&'static str> {
    let computes = class.starts_with("0x03") || class.starts_with("0x12");
    match vendor {
        _ if !computes => None,
        "0x10de" => Some("NVIDIA"),
        "0x1002" => Some("AMD"),
        "0x8086" => Some("Intel"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                    2 1 0:50 / /mnt/my\\040disk rw shared:1 - nfs4 server:/x rw\n\
                    3 1 0:51 / /mnt rw - tmpfs t rw\nrubbish\n";
        let kind = |path| innermost(text, Path::new(path)).map(|m| m.kind);
        assert_eq!(kind("/mnt/my disk/a/b").as_deref(), Some("nfs4"));
        assert_eq!(kind("/mnt/my").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/home").as_deref(), Some("ext4"));
    }

    #[test]
    fn words_and_limits_are_read() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen("rubbish"), None);
        let limits = "Limit  Soft Limit  Hard\nMax locked memory  8388608  8388608  bytes\n";
        assert_eq!(soft_limit(limits, "Max locked memory"), Some(Bytes(8_388_608)));
        assert_eq!(soft_limit("Max locked memory  unlimited u", "Max locked memory"), None);
        assert_eq!((quota("250000 100000\n"), quota("max 100000")), (Some(2.5), None));
        assert_eq!(maker("0x030000", "0x10de"), Some("NVIDIA"));
        assert_eq!(maker("0x020000", "0x8086"), None);
    }
}
