//! What the facts mean: what is broken, what is slow and why, and what to do about it. A pure function of the facts.

use serde::Serialize;

use super::facts::{Facts, Folder};
use crate::probe::nvidia;
use crate::units::{GIB, Rate};

/// File systems that bring bytes over a network.
const NETWORK: [&str; 10] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "fuse.sshfs", "fuse.rclone", "afs"];

/// A disk slower than this is what a streamed model waits for, on any machine.
const SLOW_DISK: Rate = Rate(1e9);

/// No disk that turns is read faster than this.
const FASTEST_TURNING: Rate = Rate(4e8);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Something does not work.
    Broken,
    /// It works, and could be faster.
    Slow,
    /// Worth knowing.
    Note,
}

/// Whether a folder's disk turns, for all that is known: virtual machines say so of every disk.
pub(super) fn turns(folder: &Folder) -> bool {
    folder.rotational == Some(true) && folder.rate.is_none_or(|rate| rate < FASTEST_TURNING)
}

/// One thing to know, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) what: String,
    pub(super) hint: String,
}

/// All that can be said, the worst first.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    build(facts, &mut all);
    memory(facts, &mut all);
    cpu(facts, &mut all);
    for folder in &facts.folders {
        disk(folder, &mut all);
    }
    if let Some(error) = &facts.config.error {
        say(
            &mut all,
            Level::Broken,
            error.clone(),
            "other commands end with this error; correct it",
        );
    }
    if facts.folders.iter().all(|folder| folder.n_models == 0) {
        say(
            &mut all,
            Level::Note,
            "no models were found",
            "a command also takes the path of any GGUF file; AIRRUN_MODELS names folders to look in",
        );
    }
    if facts.io_uring_off {
        say(
            &mut all,
            Level::Slow,
            "io_uring is switched off, so threads read the disk instead",
            "sysctl kernel.io_uring_disabled=0 allows it",
        );
    }
    all.sort_by_key(|finding| finding.level);
    all
}

fn say(all: &mut Vec<Finding>, level: Level, what: impl Into<String>, hint: impl Into<String>) {
    all.push(Finding { level, what: what.into(), hint: hint.into() });
}

fn build(facts: &Facts, all: &mut Vec<Finding>) {
    if !facts.build.native {
        say(
            all,
            Level::Slow,
            "ggml was built without the vector instructions that this processor has",
            "build on this machine with RUSTFLAGS='-C target-cpu=native', as .cargo/config.toml does; it is several times faster",
        );
    }
    for device in facts.devices.iter().filter(|device| device.pinned == Some(false)) {
        say(
            all,
            Level::Slow,
            format!(
                "{} cannot read this machine's memory by itself, which halves its feed",
                device.name
            ),
            "allow more memory to be locked (ulimit -l), and keep its driver up to date",
        );
    }
    graphics(facts, all);
}

/// Cards that nobody uses.
fn graphics(facts: &Facts, all: &mut Vec<Finding>) {
    let has = |feature| facts.build.features.contains(&feature);
    let cards: Vec<String> = facts
        .nvidia
        .cards()
        .iter()
        .map(|card| format!("{} with {}", card.name, card.memory))
        .collect();
    if !cards.is_empty() && !has("cuda") {
        let what = format!("there is a card ({}), and this build has no CUDA", cards.join(", "));
        // Vulkan computes on it, too, and slower.
        let level = if has("vulkan") { Level::Note } else { Level::Slow };
        say(all, level, what, "make cuda");
    } else if let nvidia::Driver::Failed(why) = &facts.nvidia {
        let what = format!("NVIDIA's driver does not work: {why}");
        say(
            all,
            Level::Slow,
            what,
            "nvidia-smi should list the cards; if it does not, mend the driver",
        );
    } else if facts.gpus.contains(&"NVIDIA") && facts.nvidia == nvidia::Driver::Absent {
        let what = "there is a GPU of NVIDIA's, and no driver for it";
        say(all, Level::Slow, what, "install NVIDIA's driver, then: make cuda");
    } else if facts.build.features.is_empty() && !facts.gpus.is_empty() {
        let what = format!(
            "there is a GPU ({}), and this build computes on the CPU only",
            facts.gpus.join(", ")
        );
        say(all, Level::Slow, what, "make vulkan");
    }
}

fn memory(facts: &Facts, all: &mut Vec<Finding>) {
    let memory = &facts.memory;
    if memory.huge_pages.as_deref() == Some("never") {
        say(
            all,
            Level::Slow,
            "huge pages are off, which makes reading past the page cache up to 1.7 times slower",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        );
    }
    if memory.swap.used.0 > memory.total.0 / 20 && memory.swap.used > GIB {
        say(
            all,
            Level::Slow,
            format!("{} are swapped out: memory is short", memory.swap.used),
            "end other programs, or give airrun a smaller budget with --ram",
        );
    }
    if memory.group_limit.is_some_and(|limit| limit < memory.total) {
        say(
            all,
            Level::Note,
            "a control group (a container, a service) limits the memory; plans keep to it",
            "raise the limit to keep more of a model in RAM",
        );
    }
    if memory.memlock.is_some_and(|limit| limit.0 < 64 << 10) {
        say(
            all,
            Level::Note,
            "almost no memory may be locked, so older kernels refuse io_uring",
            "raise it with ulimit -l, or LimitMEMLOCK= of a service",
        );
    }
}

fn cpu(facts: &Facts, all: &mut Vec<Finding>) {
    if facts.cpu.governor.as_deref() == Some("powersave") && !facts.cpu.name.contains("Intel") {
        say(
            all,
            Level::Slow,
            "the processor saves power at the cost of its clock",
            "sudo cpupower frequency-set -g performance",
        );
    }
    if let Some(quota) = facts.cpu.quota {
        say(
            all,
            Level::Slow,
            format!("a control group allows {quota:.1} of {} cores", facts.cpu.cores),
            format!("use as many threads as cores are allowed: -t {:.0}", quota.max(1.0).floor()),
        );
    }
}

fn disk(folder: &Folder, all: &mut Vec<Finding>) {
    if folder.n_models == 0 {
        return;
    }
    let path = folder.path.display();
    let kind = folder.mount.as_ref().map_or("", |mount| mount.kind.as_str());
    if NETWORK.contains(&kind) {
        let what = format!("'{path}' is on a network ({kind}): a model that streams waits for it");
        say(all, Level::Slow, what, "copy models that do not fit into memory to a local disk");
    } else if turns(folder) {
        let what = format!("'{path}' is on a disk that turns: a model that streams waits for it");
        say(all, Level::Slow, what, "copy models that do not fit into memory to an SSD");
    } else if let Some(rate) = folder.rate.filter(|&rate| rate < SLOW_DISK) {
        let what = format!("'{path}' is read at {rate} only: a model that streams waits for it");
        say(all, Level::Slow, what, "an NVMe disk reads several GB/s");
    }
    if folder.reader.as_ref().is_some_and(|reader| reader.contains("buffered")) {
        let what = format!("'{path}' ({kind}) is read through the page cache");
        let hint = "past it (O_DIRECT) is usually faster; tmpfs, overlay and some network file \
                    systems refuse it";
        say(all, Level::Note, what, hint);
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Build, Config, Cpu, Memory};
    use super::*;
    use crate::engine::devices::Listed;
    use crate::probe::system::{Mount, Swap};
    use crate::units::Bytes;

    /// A machine with nothing to complain of.
    fn facts() -> Facts {
        let folder = Folder {
            exists: true,
            n_models: 1,
            mount: Some(Mount { point: "/".into(), kind: "ext4".to_owned() }),
            rotational: Some(false),
            reader: Some("io_uring, O_DIRECT".to_owned()),
            rate: Some(Rate(3e9)),
            ..Folder::default()
        };
        Facts {
            version: String::new(),
            build: Build { features: vec![], native: true, cpu_features: vec![] },
            cpu: Cpu { name: String::new(), cores: 8, quota: None, governor: None },
            memory: Memory {
                total: GIB * 32,
                available: GIB * 16,
                group_limit: None,
                rate: None,
                huge_pages: Some("madvise".to_owned()),
                memlock: None,
                swap: Swap::default(),
            },
            devices: vec![],
            gpus: vec![],
            nvidia: nvidia::Driver::Absent,
            config: Config::default(),
            folders: vec![folder],
            io_uring_off: false,
        }
    }

    fn card() -> nvidia::Card {
        nvidia::Card {
            name: "NVIDIA GeForce".to_owned(),
            memory: GIB * 8,
            capability: (8, 9),
            pci_address: "0000:65:00.0".to_owned(),
        }
    }

    /// A GPU that is fed from memory that is not pinned.
    fn gpu() -> Listed {
        Listed {
            name: "cuda:0".to_owned(),
            description: String::new(),
            integrated: false,
            memory_free: GIB,
            memory_total: GIB,
            link: None,
            upload: Some(Rate(5e9)),
            pinned: Some(false),
            auto: true,
        }
    }

    #[test]
    fn nothing_is_said_of_a_fine_machine() {
        assert_eq!(findings(&facts()), []);
    }

    #[test]
    fn each_trouble_is_told_with_what_to_do() {
        type Trouble = (&'static str, fn(&mut Facts));
        let troubles: [Trouble; 16] = [
            ("vector", |f| f.build.native = false),
            ("GPU", |f| f.gpus = vec!["AMD"]),
            ("no driver", |f| f.gpus = vec!["NVIDIA"]),
            ("no CUDA", |f| {
                f.nvidia = nvidia::Driver::Works { cuda: (12, 8), cards: vec![card()] }
            }),
            ("does not work", |f| f.nvidia = nvidia::Driver::Failed("no device".to_owned())),
            ("by itself", |f| f.devices = vec![gpu()]),
            ("huge pages", |f| f.memory.huge_pages = Some("never".to_owned())),
            ("swapped", |f| f.memory.swap = Swap { total: GIB * 9, used: GIB * 8 }),
            ("control group", |f| f.memory.group_limit = Some(GIB)),
            ("locked", |f| f.memory.memlock = Some(Bytes::ZERO)),
            ("2.5 of 8 cores", |f| f.cpu.quota = Some(2.5)),
            ("network", |f| f.folders[0].mount.as_mut().unwrap().kind = "nfs4".to_owned()),
            ("turns", |f| {
                f.folders[0].rotational = Some(true);
                f.folders[0].rate = None;
            }),
            ("page cache", |f| f.folders[0].reader = Some("pread, buffered".to_owned())),
            ("no models", |f| f.folders.clear()),
            ("line 3", |f| f.config.error = Some("line 3: no".to_owned())),
        ];
        for (word, change) in troubles {
            let mut facts = facts();
            change(&mut facts);
            let found = findings(&facts);
            assert_eq!(found.len(), 1, "{word}: {found:?}");
            assert!(found[0].what.contains(word) && !found[0].hint.is_empty(), "{found:?}");
        }
    }
}
