//! What the doctor looks at: plain values, gathered once. It does not judge them.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::args;
use crate::cli::config;
use crate::cli::exit;
use crate::probe::{self, bandwidth, memory, rates, system};
use crate::units::{Bytes, MIB, Rate};

/// How many folders below a folder of models are looked into, and how many entries in all: model stores are small trees.
const MAX_DEPTH: usize = 8;
const MAX_ENTRIES: usize = 20_000;

/// A file shorter than this says nothing of its disk.
const LEAST_SAMPLE: Bytes = Bytes(4 * MIB.0);

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) version: String,
    pub(super) build: Build,
    pub(super) cpu: Cpu,
    pub(super) memory: Memory,
    /// Devices that this build can compute on.
    pub(super) devices: Vec<String>,
    /// Makers of the graphics cards that are there, whether this build knows them or not.
    pub(super) gpus: Vec<&'static str>,
    pub(super) config: Config,
    pub(super) folders: Vec<Folder>,
    /// Whether the administrator has switched io_uring off.
    pub(super) io_uring_off: bool,
}

/// What this program was built to do.
#[derive(Debug, Serialize)]
pub(super) struct Build {
    /// Kinds of devices beside the CPU.
    pub(super) features: Vec<&'static str>,
    /// Whether ggml's code uses what this processor has.
    pub(super) native: bool,
    pub(super) cpu_features: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Cpu {
    pub(super) name: String,
    pub(super) cores: u32,
    /// Cores that a control group allows, where that is less.
    pub(super) quota: Option<f64>,
    pub(super) governor: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) total: Bytes,
    pub(super) available: Bytes,
    /// What a control group allows, where there is one with a limit.
    pub(super) group_limit: Option<Bytes>,
    /// Bytes per second that all cores read together.
    pub(super) rate: Option<Rate>,
    pub(super) huge_pages: Option<String>,
    /// The most that may be locked; none: no limit.
    pub(super) memlock: Option<Bytes>,
    pub(super) swap: system::Swap,
}

/// The configuration file.
#[derive(Debug, Default, Serialize)]
pub(super) struct Config {
    /// The one that was read.
    pub(super) path: Option<PathBuf>,
    /// Where it would be looked for.
    pub(super) usual: Option<PathBuf>,
    /// What is wrong with it.
    pub(super) error: Option<String>,
}

/// A folder where models are looked for.
#[derive(Debug, Default, Serialize)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) exists: bool,
    pub(super) mount: Option<system::Mount>,
    pub(super) rotational: Option<bool>,
    pub(super) n_models: usize,
    /// How the largest of them is read, and how fast. (bytes per second)
    pub(super) reader: Option<String>,
    pub(super) rate: Option<Rate>,
}

impl Facts {
    /// Looks at everything; with `measure`, also at the rates of memory and disks.
    pub(super) fn gather(config: Option<&Path>, measure: bool) -> Facts {
        let cores = probe::physical_cores();
        let cpu_features = probe::cpu_features();
        Facts {
            version: env!("AIRRUN_VERSION").to_owned(),
            build: Build { features: features(), native: is_native(&cpu_features), cpu_features },
            cpu: Cpu {
                name: system::cpu_name().unwrap_or_else(|| env::consts::ARCH.to_owned()),
                cores,
                quota: system::cpu_quota().filter(|&quota| quota < f64::from(cores)),
                governor: system::governor(),
            },
            memory: Memory {
                total: system::total_memory(),
                available: probe::available_memory(),
                group_limit: memory::group_limit(),
                rate: measure.then(|| bandwidth::memory(cores)).flatten(),
                huge_pages: system::huge_pages(),
                memlock: system::memlock(),
                swap: system::swap(),
            },
            devices: probe::device_names(),
            gpus: system::gpus(),
            config: Config::look(config),
            folders: folders().into_iter().map(|path| Folder::look(path, measure)).collect(),
            io_uring_off: system::io_uring_off(),
        }
    }
}

impl Config {
    fn look(named: Option<&Path>) -> Config {
        let usual = config::usual_path();
        match config::find(named) {
            Ok(None) => Config { usual, ..Config::default() },
            Ok(Some(found)) => {
                let error = found.apply(args::command(), None).err();
                let error = error.map(|error| exit::describe(&error));
                Config { path: Some(found.path), usual, error }
            }
            Err(error) => {
                Config { usual, error: Some(exit::describe(&error)), ..Config::default() }
            }
        }
    }
}

impl Folder {
    fn look(path: PathBuf, measure: bool) -> Folder {
        if !path.is_dir() {
            return Folder { path, ..Folder::default() };
        }
        let (n_models, largest) = models(&path);
        let sample = largest.filter(|(_, len)| measure && *len >= LEAST_SAMPLE);
        let measured = sample.and_then(|(file, _)| rates::file(&file));
        let (reader, rate) = measured.unzip();
        Folder {
            exists: true,
            mount: system::mount_of(&path),
            rotational: system::rotational(&path),
            n_models,
            reader,
            rate,
            path,
        }
    }
}

/// How many GGUF files are below `folder`, and the largest with its length. (A store that names files by their hash is known
/// by the first bytes.)
fn models(folder: &Path) -> (usize, Option<(PathBuf, Bytes)>) {
    let mut todo = VecDeque::from([(folder.to_owned(), 0)]);
    let (mut n_models, mut n_entries, mut largest) = (0, 0, None::<(PathBuf, Bytes)>);
    while let Some((dir, depth)) = todo.pop_front() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            n_entries += 1;
            if n_entries > MAX_ENTRIES {
                return (n_models, largest);
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < MAX_DEPTH {
                todo.push_back((entry.path(), depth + 1));
            }
            // Stores of links point to files that are below them too.
            let Some(len) = entry.metadata().ok().filter(|m| m.is_file()).map(|m| m.len()) else {
                continue;
            };
            if is_gguf(&entry.path()) {
                n_models += 1;
                if largest.as_ref().is_none_or(|(_, most)| len > most.0) {
                    largest = Some((entry.path(), Bytes(len)));
                }
            }
        }
    }
    (n_models, largest)
}

fn is_gguf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"GGUF"
}

/// The kinds of devices that this build has beside the CPU.
fn features() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
    ];
    all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
}

/// Whether ggml was built with the widest vectors that this processor has.
fn is_native(used: &[String]) -> bool {
    let uses = |name: &str| used.iter().any(|feature| feature == name);
    #[cfg(target_arch = "x86_64")]
    {
        (uses("AVX2") || !is_x86_feature_detected!("avx2"))
            && (uses("FMA") || !is_x86_feature_detected!("fma"))
            && (uses("AVX512") || !is_x86_feature_detected!("avx512bw"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        uses("NEON") || cfg!(not(target_arch = "aarch64"))
    }
}

/// The folders where models are looked for.
fn folders() -> Vec<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let home = || env::var_os("HOME").map(PathBuf::from);
    let mut folders: Vec<PathBuf> = Vec::new();
    folders.extend(var("AIRRUN_MODELS").iter().flat_map(env::split_paths));
    folders.push(PathBuf::from("models"));
    let ollama = var("OLLAMA_MODELS").map(PathBuf::from);
    folders.extend(ollama.or_else(|| Some(home()?.join(".ollama/models"))));
    let hub = var("HF_HUB_CACHE").map(PathBuf::from);
    let hub = hub.or_else(|| Some(PathBuf::from(var("HF_HOME")?).join("hub")));
    folders.extend(hub.or_else(|| Some(home()?.join(".cache/huggingface/hub"))));
    folders
}
