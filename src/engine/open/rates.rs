//! What this machine can do with a model's kinds of weights: measured once, and remembered for a week where it does not depend
//! on what else goes on.

use std::sync::Arc;

use crate::engine::Error;
use crate::engine::error::ggml_error;
use crate::ggml::{Device, DeviceKind, Threadpool};
use crate::gguf::{GgmlType, Index};
use crate::plan::{Beside, Cost, Kind, Rates};
use crate::probe::{self, quick};
use crate::source;
use crate::units::Rate;

/// What is assumed of a disk whose file is too short to measure it, of a link that could not be measured, and of kinds of weights
/// that nothing could be measured with: any number will do for a file that small, and for one that cannot be computed with.
const UNKNOWN_DISK: Rate = Rate(1e9);
const UNKNOWN_LINK: Rate = Rate(10e9);
const UNKNOWN_COST: Cost = Cost { one: Rate(5e9), many: Rate(50e9) };

/// Rates of a machine with a GPU that nobody has measured yet: good enough to see that everything fits it.
pub(super) const UNKNOWN: Rates = Rates {
    disk: UNKNOWN_DISK,
    resident: UNKNOWN_COST,
    streamed: UNKNOWN_COST,
    memory: None,
    gpu: Some(Beside { link: UNKNOWN_LINK, cpu: UNKNOWN_COST }),
    open_seconds: 0.0,
};

/// What is known of a machine whose CPU computes, without measuring anything: opening a model is to be fast. What nobody has measured
/// is taken to be as usual.
pub(super) fn known(index: &Index, n_threads: u32, repack: bool) -> Rates {
    let kinds = Kind::most(index);
    let cost = |repack| probe::rates::known(&kinds, n_threads, repack);
    let disk = index.files.first().and_then(|f| quick::known_disk(&f.path));
    let usual = Rates::usual(n_threads);
    let streamed = cost(false).unwrap_or(usual.streamed);
    let resident = if repack { cost(true).unwrap_or(usual.resident) } else { streamed };
    Rates { disk: disk.unwrap_or(usual.disk), resident, streamed, ..usual }
}

/// Whether all that [`known`] tells was measured.
pub(super) fn are_known(index: &Index, n_threads: u32, repack: bool) -> bool {
    let kinds = Kind::most(index);
    let disk = index.files.first().and_then(|f| quick::known_disk(&f.path));
    let cost = |repack| probe::rates::known(&kinds, n_threads, repack).is_some();
    disk.is_some() && cost(false) && (!repack || cost(true))
}

/// Measures the disk that the model is on, and computing with its kinds of weights: on the CPU, or on `gpu` and the CPU beside it.
///
/// # Errors
///
/// The files cannot be opened for reading.
pub(super) fn measure(
    index: &Index,
    gpu: Option<Device>,
    threads: &Arc<Threadpool>,
    repack: bool,
) -> Result<Rates, Error> {
    let paths: Vec<_> = index.files.iter().map(|f| f.path.clone()).collect();
    let source = source::open(&paths, source::Choice::default())?;
    let kinds = Kind::most(index);
    let cpu = Device::cpu().map_err(ggml_error(index))?;
    let compute = |device, repack| probe::rates::compute(&kinds, device, threads, repack);
    let plain = compute(cpu, false).unwrap_or(UNKNOWN_COST);
    let disk = probe::rates::disk(source.as_ref(), &paths);
    if let (Some(disk), Some(path)) = (disk, paths.first()) {
        quick::remember_disk(path, disk);
    }
    let disk = disk.unwrap_or(UNKNOWN_DISK);
    let (resident, streamed, open_seconds) = (plain, plain, 0.0);
    let rates = Rates { disk, resident, streamed, memory: None, gpu: None, open_seconds };
    Ok(match gpu {
        None => {
            let resident = if repack { compute(cpu, true).unwrap_or(plain) } else { plain };
            let memory = probe::bandwidth::best(threads.n_threads());
            Rates { resident, memory, ..rates }
        }
        Some(gpu) => {
            let cost = compute(gpu, false).unwrap_or(UNKNOWN_COST);
            let link = probe::link::remembered_upload(gpu).unwrap_or(UNKNOWN_LINK);
            let beside = Some(Beside { link, cpu: plain });
            Rates { resident: cost, streamed: cost, gpu: beside, ..rates }
        }
    })
}

/// Measures computing on the CPU, with weights as they are resident there. Whether [`known`] knows it from then on.
pub(super) fn measure_cpu(index: &Index, threads: &Arc<Threadpool>, repack: bool) -> bool {
    let kinds = Kind::most(index);
    Device::cpu().is_ok_and(|cpu| probe::rates::compute(&kinds, cpu, threads, repack).is_some())
        && probe::rates::known(&kinds, threads.n_threads(), repack).is_some()
}

/// One token's rate with weights of type `ty`, in matrices as most of the model's are; `None` where `device` cannot compute with them.
pub(super) fn of_type(
    index: &Index,
    ty: GgmlType,
    device: Device,
    threads: &Arc<Threadpool>,
    repack: bool,
) -> Option<Rate> {
    let most = Kind::most(index).into_iter().next()?;
    let matrix = ty.bytes(most.row.checked_mul(most.rows)?)?;
    let kind = Kind { ty: ty.0, matrix, ..most };
    let repack = repack && device.kind() == DeviceKind::Cpu;
    probe::rates::compute(&[kind], device, threads, repack).map(|cost| cost.one)
}
