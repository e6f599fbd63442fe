//! How much memory there is: for the machine, for the control group that this process is in, and for the process itself.

use std::path::{Path, PathBuf};

use crate::plan::Machine;
use crate::units::{Bytes, GIB, MIB};

/// What this process may use, and what it should leave.
pub fn machine() -> Machine {
    let system = meminfo("MemAvailable").unwrap_or(Bytes(u64::MAX >> 1));
    let own = status("VmRSS");
    // A machine needs room for what its other programs will want; a group has been given its share already, and only needs
    // some for what the kernel counts to it.
    let tenth = Bytes(system.0 / 10);
    let (available, reserve) = match group_headroom() {
        Some(group) if group < system => (group, Bytes(group.0 / 20).max(MIB * 32)),
        _ => (system, tenth.max(GIB.min(Bytes(system.0 / 4)))),
    };
    Machine { ram: available + own, reserve, gpu: None }
}

/// Memory that can be used without pushing anything out: the system's estimate, or what the control group leaves.
pub fn available_memory() -> Bytes {
    let system = meminfo("MemAvailable").unwrap_or(Bytes(u64::MAX));
    group_headroom().map_or(system, |group| group.min(system))
}

/// The most memory that this process has had so far; 0 if the system does not say.
pub fn peak_memory() -> Bytes {
    status("VmHWM")
}

/// The addresses that this process may write to, with memory behind them yet or without; 0 if the system does not say. (All
/// addresses would count what the C library sets aside for a thread that allocates for the first time, at any moment.)
pub fn address_space() -> Bytes {
    status("VmData")
}

fn meminfo(key: &str) -> Option<Bytes> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, key)
}

fn status(key: &str) -> Bytes {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&text, key).unwrap_or_default()
}

/// The line `key:   123 kB`.
pub(super) fn field(text: &str, key: &str) -> Option<Bytes> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(Bytes(kib.saturating_mul(1024)))
}

/// What the control groups above this process leave it; `None` without limits.
fn group_headroom() -> Option<Bytes> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    group_dirs(&groups).into_iter().filter_map(|group| headroom(&group)).min()
}

/// The memory that the control groups above this process allow in all; `None` without limits.
pub fn group_limit() -> Option<Bytes> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    group_dirs(&groups).into_iter().filter_map(|group| limit(&group)).min()
}

/// A directory of a control group, and the names of its files.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    dir: PathBuf,
    names: &'static Names,
}

#[derive(Debug, PartialEq, Eq)]
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// File pages that were not used lately, in `memory.stat`: they give way.
    inactive: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};
const V2: Names = Names { limit: "memory.max", usage: "memory.current", inactive: "inactive_file" };

/// The groups of a `/proc/self/cgroup`, innermost first. A container may see its own group as the root of what is mounted:
/// then the longer paths do not exist, and the root is asked in the end.
fn group_dirs(groups: &str) -> Vec<Group> {
    let mut dirs = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup", &V2),
            list if list.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", &V1),
            _ => continue,
        };
        for above in Path::new(path).ancestors() {
            let below_root = above.strip_prefix("/").unwrap_or(above);
            dirs.push(Group { dir: Path::new(root).join(below_root), names });
        }
    }
    dirs
}

fn limit(group: &Group) -> Option<Bytes> {
    let text = std::fs::read_to_string(group.dir.join(group.names.limit)).ok()?;
    // No limit is `max`, or a number that no machine has.
    text.trim().parse().ok().filter(|&n| n < 1 << 60).map(Bytes)
}

fn headroom(group: &Group) -> Option<Bytes> {
    let number = |text: String| text.trim().parse::<u64>().ok();
    let read = |name| std::fs::read_to_string(group.dir.join(name)).ok();
    let limit = limit(group)?.0;
    let usage = read(group.names.usage).and_then(number)?;
    let stat = read("memory.stat").unwrap_or_default();
    let idle = stat.lines().find_map(|l| l.strip_prefix(group.names.inactive)?.trim().parse().ok());
    Some(Bytes(limit.saturating_sub(usage.saturating_sub(idle.unwrap_or(0)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_from_the_inside_out() {
        let dirs = |text| group_dirs(text).into_iter().map(|g| g.dir).collect::<Vec<_>>();
        assert_eq!(dirs("0::/a/b\n").len(), 3);
        assert_eq!(dirs("0::/a/b\n")[0], Path::new("/sys/fs/cgroup/a/b"));
        assert_eq!(dirs("0::/a/b\n")[2], Path::new("/sys/fs/cgroup"));
        assert_eq!(
            dirs("5:cpu:/x\n4:hugetlb,memory:/d\n"),
            ["/sys/fs/cgroup/memory/d", "/sys/fs/cgroup/memory"].map(PathBuf::from)
        );
        assert!(dirs("rubbish\n\n::").len() <= 1);
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let group = Group { dir: dir.path().to_owned(), names: &V2 };
        assert_eq!(headroom(&group), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(headroom(&group), None);
        write("memory.max", "1000\n");
        assert_eq!(headroom(&group), Some(Bytes(300)));
        write("memory.stat", "anon 1\ninactive_file 200\n");
        assert_eq!(headroom(&group), Some(Bytes(500)));
    }

    #[test]
    fn fields_are_read() {
        let text = "VmPeak:\t  100 kB\nVmHWM:\t   12 kB\nThreads:\t1\n";
        assert_eq!(field(text, "VmHWM"), Some(Bytes(12 * 1024)));
        assert_eq!(field(text, "VmRSS"), None);
    }
}
