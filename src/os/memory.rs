//! How much memory there is: for the machine, for the control group that this process is in, and for the process itself.

use std::path::{Component, Path, PathBuf};

use crate::units::{Bytes, GIB, MIB};

/// What is taken to be free where no system tells: enough for a small model, and on any machine there.
const PRUDENT: Bytes = Bytes(2 * GIB.0);

/// What this process may use, what it has already included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// All of it.
    pub ram: Bytes,
    /// What of it should be left to others.
    pub reserve: Bytes,
}

/// What this process may use, and what it should leave.
pub fn share() -> Share {
    System::real().share()
}

/// Memory that can be used without pushing anything out: the system's estimate, or what the control group leaves.
pub fn available_memory() -> Bytes {
    let real = System::real();
    let system = real.available();
    real.group_headroom().map_or(system, |group| group.min(system))
}

/// All memory of the machine; 0 if it does not say.
pub fn total_memory() -> Bytes {
    System::real().meminfo("MemTotal").or_else(|| Some(asked()?.0)).unwrap_or_default()
}

/// What the system says when it is called and not read: all memory, and what is free of it.
#[cfg(target_os = "linux")]
fn asked() -> Option<(Bytes, Bytes)> {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    #[expect(clippy::useless_conversion, reason = "their width is the system's")]
    let bytes = |n| Bytes(u64::from(n).saturating_mul(unit));
    (info.totalram > 0).then(|| (bytes(info.totalram), bytes(info.freeram) + bytes(info.bufferram)))
}

#[cfg(not(target_os = "linux"))]
fn asked() -> Option<(Bytes, Bytes)> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    (system.total_memory() > 0)
        .then(|| (Bytes(system.total_memory()), Bytes(system.available_memory())))
}

/// The most memory that this process has had so far; 0 if the system does not say.
pub fn peak_memory() -> Bytes {
    System::real().status("VmHWM")
}

/// Lets [`peak_memory`] begin anew, with what this process has now, where the system can.
pub fn forget_peak() {
    // What proc(5) says of "5"; where it is not to be had, the peak stays.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// The memory that the control groups above this process allow in all; `None` without limits.
pub fn group_limit() -> Option<Bytes> {
    System::real().group_limit()
}

/// The files in which a system tells of itself, under some root: `/`, or a test's.
struct System {
    root: PathBuf,
}

impl System {
    fn real() -> System {
        System { root: PathBuf::from("/") }
    }

    fn share(&self) -> Share {
        let system = self.available();
        let own = self.status("VmRSS");
        // A machine needs room for what its other programs will want; a group has been given its share already, and only needs
        // some for what the kernel counts to it.
        let tenth = Bytes(system.0 / 10);
        let (available, reserve) = match self.group_headroom() {
            Some(group) if group < system => (group, Bytes(group.0 / 20).max(MIB * 32)),
            _ => (system, tenth.max(GIB.min(Bytes(system.0 / 4)))),
        };
        Share { ram: available + own, reserve }
    }

    /// What the machine has free. Never more than somebody said, nor all there may be.
    fn available(&self) -> Bytes {
        let is_real = self.root == Path::new("/");
        let asked = || if is_real { Some(asked()?.1) } else { None };
        let free = || Some(self.meminfo("MemFree")? + self.meminfo("Cached").unwrap_or_default());
        // Kernels before 3.14 estimate nothing.
        self.meminfo("MemAvailable").or_else(free).or_else(asked).unwrap_or(PRUDENT)
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn meminfo(&self, key: &str) -> Option<Bytes> {
        field(&self.read("proc/meminfo")?, key)
    }

    fn status(&self, key: &str) -> Bytes {
        field(&self.read("proc/self/status").unwrap_or_default(), key).unwrap_or_default()
    }

    /// The control groups above this process.
    fn groups(&self) -> Vec<Group> {
        self.read("proc/self/cgroup").map(|text| groups(&text)).unwrap_or_default()
    }

    /// What they leave it; `None` without limits.
    fn group_headroom(&self) -> Option<Bytes> {
        self.groups().into_iter().filter_map(|group| self.headroom(&group)).min()
    }

    /// What they allow in all; `None` without limits.
    fn group_limit(&self) -> Option<Bytes> {
        self.groups().into_iter().filter_map(|group| self.limit(&group)).min()
    }

    fn limit(&self, group: &Group) -> Option<Bytes> {
        let limit = |name: &str| {
            let text = self.read(group.dir.join(name))?;
            // No limit is `max`, or a number that no machine has.
            text.trim().parse().ok().filter(|&n| n < 1 << 60).map(Bytes)
        };
        group.names.limits.iter().filter_map(|name| limit(name)).min()
    }

    fn headroom(&self, group: &Group) -> Option<Bytes> {
        let limit = self.limit(group)?.0;
        let usage: u64 = self.read(group.dir.join(group.names.usage))?.trim().parse().ok()?;
        let stat = self.read(group.dir.join("memory.stat")).unwrap_or_default();
        let idle = |line: &str| line.strip_prefix(group.names.inactive)?.trim().parse().ok();
        let idle = stat.lines().find_map(idle).unwrap_or(0);
        Some(Bytes(limit.saturating_sub(usage.saturating_sub(idle))))
    }
}

/// The line `key:   123 kB`.
pub(super) fn field(text: &str, key: &str) -> Option<Bytes> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(Bytes(kib.saturating_mul(1024)))
}

/// A directory of a control group, from the system's root, and the names of its files.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    dir: PathBuf,
    names: &'static Names,
}

#[derive(Debug, PartialEq, Eq)]
struct Names {
    /// Beyond any of these, memory is refused, or a group made to wait for it.
    limits: &'static [&'static str],
    usage: &'static str,
    /// File pages that were not used lately, in `memory.stat`: they give way.
    inactive: &'static str,
}

const V1: Names = Names {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};
const V2: Names = Names {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    inactive: "inactive_file",
};

/// The groups of a `/proc/self/cgroup`, innermost first. A container may see its own group as the root of what is mounted:
/// then the longer paths do not exist, and the root is asked in the end.
fn groups(text: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, names) = match controllers {
            "" => ("sys/fs/cgroup", &V2),
            list if list.split(',').any(|c| c == "memory") => ("sys/fs/cgroup/memory", &V1),
            _ => continue,
        };
        for above in Path::new(path).ancestors() {
            let below_root = above.strip_prefix("/").unwrap_or(above);
            // `/../x` is a group outside of what this process may see.
            if below_root.components().any(|c| c == Component::ParentDir) {
                continue;
            }
            groups.push(Group { dir: Path::new(root).join(below_root), names });
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 64 GiB free, whose process is in `cgroup`, and which has these files.
    fn system(cgroup: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal: 99999999 kB\nMemAvailable: 67108864 kB\n");
        write("proc/self/status", "VmHWM:\t 2048 kB\nVmRSS:\t 1024 kB\n");
        write("proc/self/cgroup", cgroup);
        files.iter().for_each(|(path, text)| write(path, text));
        let root = dir.path().to_owned();
        (dir, System { root })
    }

    /// Limit and headroom.
    fn group(cgroup: &str, files: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let (_dir, system) = system(cgroup, files);
        (system.group_limit().map(|b| b.0), system.group_headroom().map(|b| b.0))
    }

    #[test]
    fn groups_are_found_from_the_inside_out() {
        let dirs = |text| groups(text).into_iter().map(|g| g.dir).collect::<Vec<_>>();
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let want = ["sys/fs/cgroup/a/b", "sys/fs/cgroup/a", "sys/fs/cgroup/"];
        assert_eq!(dirs("0::/a/b\n"), paths(&want));
        let want = ["sys/fs/cgroup/memory/d", "sys/fs/cgroup/memory/"];
        assert_eq!(dirs("5:cpu:/x\n4:hugetlb,memory:/d\n"), paths(&want));
        assert_eq!(dirs("0::/../b\n"), paths(&["sys/fs/cgroup/"]));
        assert!(dirs("rubbish\n\n::").len() <= 1);
    }

    #[test]
    fn a_group_of_the_second_kind() {
        let dir = |name: &str| format!("sys/fs/cgroup/user/{name}");
        let max = dir("memory.max");
        let current = dir("memory.current");
        let stat = dir("memory.stat");
        let usual = [(max.as_str(), "1000\n"), (current.as_str(), "700\n")];
        let text = "0::/user\n";
        assert_eq!(group(text, &usual), (Some(1000), Some(300)));
        // File pages that nobody used lately give way.
        let idle = [usual[0], usual[1], (&stat, "anon 1\ninactive_file 200\n")];
        assert_eq!(group(text, &idle), (Some(1000), Some(500)));
        assert_eq!(group(text, &[(&max, "max\n"), usual[1]]), (None, None));
        // Files that are missing, or make no sense.
        assert_eq!(group(text, &[]), (None, None));
        assert_eq!(group(text, &usual[..1]), (Some(1000), None));
        assert_eq!(group(text, &[(&max, "-5\n"), usual[1]]), (None, None));
        assert_eq!(group("", &usual), (None, None));
        // More in use than is allowed, as after a limit was lowered.
        assert_eq!(group(text, &[usual[0], (&current, "1200\n")]), (Some(1000), Some(0)));
    }

    #[test]
    fn a_group_is_slowed_down_from_its_high_mark_on() {
        let high = ("sys/fs/cgroup/memory.high", "800\n");
        let max = ("sys/fs/cgroup/memory.max", "1000\n");
        let current = ("sys/fs/cgroup/memory.current", "100\n");
        assert_eq!(group("0::/\n", &[high, max, current]), (Some(800), Some(700)));
        let none = ("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(group("0::/\n", &[high, none, current]), (Some(800), Some(700)));
        let none = ("sys/fs/cgroup/memory.high", "max\n");
        assert_eq!(group("0::/\n", &[none, max, current]), (Some(1000), Some(900)));
    }

    #[test]
    fn the_tightest_of_nested_groups_counts() {
        let file = |dir: &str, name: &str| format!("sys/fs/cgroup/{dir}memory.{name}");
        let nested = |outer: [&str; 2], inner: [&str; 2]| {
            let [outer_max, outer_current] = ["max", "current"].map(|name| file("a/", name));
            let [inner_max, inner_current] = ["max", "current"].map(|name| file("a/b/", name));
            let files = [
                (outer_max.as_str(), outer[0]),
                (&outer_current, outer[1]),
                (&inner_max, inner[0]),
                (&inner_current, inner[1]),
            ];
            group("0::/a/b\n", &files)
        };
        assert_eq!(nested(["1000", "600"], ["2000", "500"]), (Some(1000), Some(400)));
        assert_eq!(nested(["5000", "600"], ["2000", "500"]), (Some(2000), Some(1500)));
        // The one with less left need not be the one with the lower limit.
        assert_eq!(nested(["3000", "2900"], ["2000", "500"]), (Some(2000), Some(100)));
        assert_eq!(nested(["max", "600"], ["max", "500"]), (None, None));
    }

    #[test]
    fn a_group_of_the_first_kind() {
        let dir = "sys/fs/cgroup/memory/job/";
        let file = |name: &str| format!("{dir}memory.{name}");
        let names = ["limit_in_bytes", "usage_in_bytes", "stat"].map(file);
        let files = |limit| {
            [
                (names[0].as_str(), limit),
                (&names[1], "700\n"),
                (&names[2], "total_inactive_file 50\n"),
            ]
        };
        // Systems with both kinds have the memory in the first; the second has no limits there.
        for text in ["9:memory:/job\n", "9:memory:/job\n1:name=systemd:/job\n0::/job\n"] {
            assert_eq!(group(text, &files("1000\n")), (Some(1000), Some(350)));
            assert_eq!(group(text, &files("9223372036854771712\n")), (None, None));
        }
    }

    #[test]
    fn a_container_sees_its_group_as_the_root() {
        let files = [("sys/fs/cgroup/memory.max", "1000"), ("sys/fs/cgroup/memory.current", "100")];
        // With a name space of its own, or with the path that it has outside.
        for text in ["0::/\n", "0::/docker/4f2a\n", "0::/../../machine\n"] {
            assert_eq!(group(text, &files), (Some(1000), Some(900)), "{text}");
        }
    }

    #[test]
    fn a_machine_keeps_room_for_others_and_a_group_does_not() {
        let (_dir, free) = system("0::/\n", &[]);
        let share = free.share();
        assert_eq!(share.ram, GIB * 64 + MIB);
        assert!(share.reserve > GIB * 6, "{}", share.reserve);
        let gib = GIB.0.to_string();
        let files =
            [("sys/fs/cgroup/memory.max", gib.as_str()), ("sys/fs/cgroup/memory.current", "0")];
        let (_dir, tight) = system("0::/\n", &files);
        let share = tight.share();
        assert_eq!((share.ram, share.reserve), (GIB + MIB, Bytes(GIB.0 / 20)));
        // A system that says nothing.
        let silent = System { root: PathBuf::from("/nowhere") };
        assert_eq!(silent.status("VmHWM"), Bytes::ZERO);
        assert_eq!(silent.share(), Share { ram: PRUDENT, reserve: Bytes(PRUDENT.0 / 4) });
        assert!(asked().is_some_and(|(all, free)| free <= all && all > MIB * 64));
    }

    #[test]
    fn fields_are_read() {
        let text = "VmPeak:\t  100 kB\nVmHWM:\t   12 kB\nThreads:\t1\n";
        assert_eq!(field(text, "VmHWM"), Some(Bytes(12 * 1024)));
        assert_eq!(field(text, "VmRSS"), None);
    }
}
