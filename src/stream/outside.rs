//! Streamed weights for whoever needs them outside of a run: what the wrapped device cannot compute, ggml's scheduler gives to the
//! CPU, and copies the operands to it. Their bytes come straight from the source then, each time.

use std::ops::Range;
use std::sync::Arc;

use super::chunks::{chunks, part};
use super::host::STOP_INTERVAL;
use super::memory::Supply;
use super::split::Unit;
use super::{Error, Staging};
use crate::ggml;
use crate::source::{Extent, HostBuf, ReadError};
use crate::units::Bytes;

/// Reads the bytes of `unit` that lie at `range` in a slot into `out`, which is as long. `None` if not all of them are a tensor's.
pub(super) fn read(
    supply: &Supply,
    unit: Unit,
    range: Range<u64>,
    out: &mut [u8],
) -> Option<Result<(), Error>> {
    let extents = part(&supply.unit(unit).extents, range)?;
    Some(chunks(&extents, Staging::default().chunk.0).iter().try_for_each(|chunk| {
        let buf = bring(supply, unit, chunk.extent)?;
        for c in &chunk.copies {
            let [from, to, len] = [c.from, c.to, c.len].map(|n| Bytes(n).usize());
            out[to..to + len].copy_from_slice(&buf.as_slice()[from..from + len]);
        }
        Ok(())
    }))
}

/// Reads one extent, and waits for it unless somebody asks to stop.
fn bring(supply: &Supply, unit: Unit, extent: Extent) -> Result<HostBuf, Error> {
    let failed = |error| Error::Read { unit: supply.unit(unit).name.clone(), error };
    let buf = HostBuf::new(Bytes(extent.len)).map_err(|e| Error::NoMemory {
        n_slots: 1,
        size: Bytes(extent.len),
        message: e.to_string(),
    })?;
    let mut ticket = supply.source.request(Arc::new([extent]), buf);
    while !ticket.wait_timeout(STOP_INTERVAL) {
        if supply.monitor.is_stopped() {
            return Err(ggml::Error::Aborted.into());
        }
    }
    let done = ticket.wait().ok_or_else(|| failed(ReadError::Stopped))?;
    done.outcome.map_err(failed)?;
    Ok(done.buf)
}
