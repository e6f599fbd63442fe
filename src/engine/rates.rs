//! What this machine can do with a model's kinds of weights: measured once, and remembered for a week where it does not depend
//! on what else goes on.

use std::sync::Arc;

use super::Error;
use super::load::ggml_error;
use crate::ggml::{Device, Threadpool};
use crate::gguf::Index;
use crate::plan::{Beside, Cost, Kind, Rates};
use crate::probe;
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
    gpu: Some(Beside { link: UNKNOWN_LINK, cpu: UNKNOWN_COST }),
    open_seconds: 0.0,
};

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
    let disk = probe::rates::disk(source.as_ref(), &paths).unwrap_or(UNKNOWN_DISK);
    let rates = Rates { disk, resident: plain, streamed: plain, gpu: None, open_seconds: 0.0 };
    Ok(match gpu {
        None if repack => Rates { resident: compute(cpu, true).unwrap_or(plain), ..rates },
        None => rates,
        Some(gpu) => {
            let cost = compute(gpu, false).unwrap_or(UNKNOWN_COST);
            let link = probe::link::remembered_upload(gpu).unwrap_or(UNKNOWN_LINK);
            let beside = Some(Beside { link, cpu: plain });
            Rates { resident: cost, streamed: cost, gpu: beside, ..rates }
        }
    })
}
