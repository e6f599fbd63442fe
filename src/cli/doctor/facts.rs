//! What the doctor looks at: plain values, gathered once. It does not judge them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::args;
use crate::cli::config;
use crate::cli::exit;
use crate::engine::devices::{self, Listed};
use crate::models::Catalog;
use crate::models::places::{self, Place};
use crate::probe::{self, bandwidth, memory, nvidia, processor, rates, system};
use crate::units::{Bytes, MIB, Rate};

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
    pub(super) devices: Vec<Listed>,
    /// Makers of the graphics cards that are there, whether this build knows them or not.
    pub(super) gpus: Vec<&'static str>,
    /// What NVIDIA's driver says, whatever this program was built with.
    pub(super) nvidia: nvidia::Driver,
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
    /// Who keeps models there.
    pub(super) keeper: Option<places::Kind>,
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
                name: processor::name().unwrap_or_else(|| env::consts::ARCH.to_owned()),
                cores,
                quota: system::cpu_quota().filter(|&quota| quota < f64::from(cores)),
                governor: system::governor(),
            },
            memory: Memory {
                total: memory::total_memory(),
                available: probe::available_memory(),
                group_limit: memory::group_limit(),
                rate: measure.then(|| bandwidth::memory(cores)).flatten(),
                huge_pages: system::huge_pages(),
                memlock: system::memlock(),
                swap: system::swap(),
            },
            devices: devices::list().unwrap_or_default(),
            gpus: system::gpus(),
            nvidia: nvidia::Driver::ask(),
            config: Config::look(config),
            folders: places::here().into_iter().map(|place| Folder::look(place, measure)).collect(),
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
    fn look(place: Place, measure: bool) -> Folder {
        let (path, keeper) = (place.dir.clone(), Some(place.kind));
        if !path.is_dir() {
            return Folder { path, keeper, ..Folder::default() };
        }
        let models = Catalog::scan(&[place]).models;
        let files = models.iter().filter_map(|model| {
            let len = fs::metadata(&model.path).ok()?.len();
            Some((model.path.as_path(), Bytes(len)))
        });
        let sample = files.max_by_key(|(_, len)| *len).filter(|(_, len)| *len >= LEAST_SAMPLE);
        let measured = sample.filter(|_| measure).and_then(|(file, _)| rates::file(file));
        let (reader, rate) = measured.unzip();
        Folder {
            exists: true,
            mount: system::mount_of(&path),
            rotational: system::rotational(&path),
            n_models: models.len(),
            reader,
            rate,
            path,
            keeper,
        }
    }
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
