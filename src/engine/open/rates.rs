//! What this machine can do with a model's kinds of weights: measured once, and remembered for a week where it does not depend
//! on what else goes on.

use std::path::Path;
use std::sync::Arc;

use crate::engine::Error;
use crate::engine::error::ggml_error;
use crate::ggml::{Device, DeviceKind, Threadpool};
use crate::gguf::{GgmlType, Index};
use crate::plan::{self, Beside, Cost, Further, Kind, MOST_FURTHER, Plan, Rates, Touched};
use crate::probe::load::Watch;
use crate::probe::rates::Doubt;
use crate::probe::{self, quick};
use crate::source;
use crate::stream::passes::Took;
use crate::units::{Bytes, Rate};

/// What is assumed of a disk whose file is too short to measure it, of a link that could not be measured, and of kinds of weights
/// that nothing could be measured with: any number will do for a file that small, and for one that cannot be computed with.
const UNKNOWN_DISK: Rate = Rate(1e9);
const UNKNOWN_LINK: Rate = Rate(10e9);
const UNKNOWN_COST: Cost = Cost { one: Rate(5e9), many: Rate(50e9) };

/// Rates of a machine with a GPU that nobody has measured yet: good enough to see that everything fits it.
pub(super) const UNKNOWN: Rates = Rates {
    disk: UNKNOWN_DISK,
    disk_one: None,
    disk_many: None,
    resident: UNKNOWN_COST,
    streamed: UNKNOWN_COST,
    memory: None,
    gpu: Some(Beside { link: UNKNOWN_LINK, cpu: UNKNOWN_COST, further: [None; MOST_FURTHER] }),
    open_seconds: 0.0,
};

/// Rates of which only those count that are put in.
const NOTHING_BESIDE: Rates = Rates { gpu: None, ..UNKNOWN };

/// What is known of a machine whose CPU computes, without measuring anything: opening a model is to be fast. What nobody has measured
/// is taken to be as usual.
pub(super) fn known(index: &Index, n_threads: u32, repack: bool) -> Rates {
    let kinds = Kind::most(index);
    let cost = |repack| probe::rates::known(&kinds, n_threads, repack);
    let disk = index.files.first().and_then(|f| quick::known_disk(&f.path));
    let usual = Rates::usual(n_threads);
    let streamed = cost(false).unwrap_or(usual.streamed);
    let resident = if repack { cost(true).unwrap_or(usual.resident) } else { streamed };
    let disk_one = bursts(index).and_then(|bursts| quick::known_bursts(bursts.file, bursts.each));
    Rates { disk: disk.unwrap_or(usual.disk), disk_one, resident, streamed, ..usual }
}

/// Whether all that [`known`] tells was measured.
pub(super) fn are_known(index: &Index, n_threads: u32, repack: bool) -> bool {
    let kinds = Kind::most(index);
    let disk = index.files.first().and_then(|f| quick::known_disk(&f.path));
    let cost = |repack| probe::rates::known(&kinds, n_threads, repack).is_some();
    disk.is_some() && cost(false) && (!repack || cost(true))
}

/// Measures the disk that the model is on, and computing with its kinds of weights: on the CPU, or on `gpu`, on `further` ones, and on the
/// CPU beside them. What
/// is remembered is only measured `again` if that is wanted.
///
/// # Errors
///
/// The files cannot be opened for reading.
pub(super) fn measure(
    index: &Index,
    gpu: Option<Device>,
    further: &[Device],
    threads: &Arc<Threadpool>,
    repack: bool,
    again: bool,
) -> Result<Rates, Error> {
    let paths: Vec<_> = index.files.iter().map(|f| f.path.clone()).collect();
    let source = source::open(&paths, source::Choice::default())?;
    let kinds = Kind::most(index);
    let cpu = Device::cpu().map_err(ggml_error(index))?;
    let compute = |device, repack| probe::rates::compute(&kinds, device, threads, repack, again);
    let plain = compute(cpu, false).unwrap_or(UNKNOWN_COST);
    let remembered = paths.first().filter(|_| !again).and_then(|path| quick::known_disk(path));
    let disk = remembered.or_else(|| {
        let watch = Watch::begin();
        let disk = probe::rates::disk(source.as_ref(), &paths)?;
        paths.iter().take(1).for_each(|p| quick::remember_disk(p, disk, watch.was_busy()));
        Some(disk)
    });
    let disk = disk.unwrap_or(UNKNOWN_DISK);
    let (resident, streamed, open_seconds) = (plain, plain, 0.0);
    let disk_one = bursts(index).and_then(|Bursts { file, each, n }| {
        let known = quick::known_bursts(file, each).filter(|_| !again);
        known.or_else(|| {
            let watch = Watch::begin();
            let rate = probe::rates::bursts(source.as_ref(), &paths, n, each)?;
            quick::remember_bursts(file, each, rate, watch.was_busy());
            Some(rate)
        })
    });
    let rates = Rates { disk, disk_one, resident, streamed, open_seconds, ..NOTHING_BESIDE };
    Ok(match gpu {
        None => {
            let resident = if repack { compute(cpu, true).unwrap_or(plain) } else { plain };
            let memory = probe::bandwidth::best(threads.n_threads());
            Rates { resident, memory, ..rates }
        }
        Some(gpu) => {
            let cost = compute(gpu, false).unwrap_or(UNKNOWN_COST);
            let link = probe::link::remembered_upload(gpu).unwrap_or(UNKNOWN_LINK);
            let mut costs = Further::default();
            for (place, &gpu) in costs.iter_mut().zip(further) {
                *place = compute(gpu, false);
            }
            let beside = Some(Beside { link, cpu: plain, further: costs });
            Rates { resident: cost, streamed: cost, gpu: beside, ..rates }
        }
    })
}

/// How a token's experts are read: so many at once, each of so many bytes.
struct Bursts<'a> {
    file: &'a Path,
    n: usize,
    each: Bytes,
}

/// How they are, in a model that has some.
fn bursts(index: &Index) -> Option<Bursts<'_>> {
    let file = &index.files.first()?.path;
    let stacks = index.tensors.iter().filter_map(|tensor| index.experts(tensor));
    let each = stacks.map(|experts| experts.each).max()?;
    let n = usize::try_from(index.arch_uint("expert_used_count")?).ok()?.max(1);
    Some(Bursts { file, n, each })
}

/// What is doubtful of what [`measure`] found.
pub(super) fn doubt(
    index: &Index,
    gpu: Option<Device>,
    threads: &Threadpool,
    repack: bool,
) -> Option<Doubt> {
    let kinds = Kind::most(index);
    let device = gpu.map_or_else(Device::cpu, Ok).ok()?;
    let of = |repack| probe::rates::doubt(&kinds, device, threads.n_threads(), repack);
    of(repack && gpu.is_none()).or_else(|| of(false))
}

/// Corrects what is remembered of the CPU, of these types of weights, by what passes of `plan` took. What is slower than predicted proves
/// nothing about other models: others may have computed, or the text may be long.
pub(in crate::engine) fn correct(index: &Index, plan: &Plan, n_threads: u32, took: Took) {
    let (touched, seconds) = (Touched::of(index), took.computing.as_secs_f64());
    let bytes = plan.blocks.iter().map(|b| b.len).sum::<Bytes>().f64() * touched.of_block;
    if plan.gpu.is_some() || seconds <= 0.0 || bytes < BEYOND_CACHES {
        return;
    }
    let tokens = u32::try_from(took.tokens).unwrap_or(u32::MAX);
    let predicted = plan::computing_seconds(plan, &known(index, n_threads, true), touched, tokens);
    let factor = predicted / seconds;
    if factor > FASTER && factor < ABSURD {
        let kinds = Kind::most(index);
        for repack in [true, false] {
            probe::rates::correct(&kinds, n_threads, repack, (factor, tokens > 1));
        }
    }
}

/// Models of which a token computes with less may be in the processor's caches, and say nothing of others. (bytes)
const BEYOND_CACHES: f64 = 256e6;
/// Passes that are faster than predicted by more than this show that the prediction was wrong ...
const FASTER: f64 = 1.1;
/// ... and by so much, that something else is.
const ABSURD: f64 = 20.0;

/// Measures computing on the CPU, with weights as they are resident there. Whether [`known`] knows it from then on.
pub(super) fn measure_cpu(index: &Index, threads: &Arc<Threadpool>, repack: bool) -> bool {
    let kinds = Kind::most(index);
    Device::cpu()
        .is_ok_and(|cpu| probe::rates::compute(&kinds, cpu, threads, repack, false).is_some())
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
    probe::rates::compute(&[kind], device, threads, repack, true).map(|cost| cost.one)
}
