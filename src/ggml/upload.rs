//! How fast a device takes bytes from host memory, copied as weights are: from pinned memory, on a queue of its own.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::time::{Duration, Instant};

use super::backend::{Backend, Device};
use super::memory::{Area, Pinned};
use super::result::Error;
use crate::units::{Bytes, KIB, MIB, Rate};

/// Host memory to copy from, and room on the device for it. (bytes)
const ROOM: Bytes = Bytes(64 * MIB.0);
/// What is copied at a time, as when blocks stream. (bytes)
const CHUNK: Bytes = Bytes(4 * MIB.0);
/// What one try copies.
const TRY: Bytes = Bytes(256 * MIB.0);
/// Tries, of which the fastest counts; and when to stop trying on a slow device.
const TRIES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(1);

/// The speed of a device's link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Upload {
    /// Bytes per second to the device.
    pub rate: Rate,
    /// Whether the host memory was pinned, so that the device could read it without help of the CPU.
    pub pinned: bool,
}

/// Copies some hundred MiB to `device`.
///
/// # Errors
///
/// Too little memory, on either side.
pub fn measure_upload(device: Device) -> Result<Upload, Error> {
    let area = Area::new(device.buffer_type(), ROOM)?;
    let pinned = Pinned::new(device, ROOM, KIB.0 * 4);
    // Every page is written to before it is measured.
    let mut plain = if pinned.is_some() { Vec::new() } else { vec![1_u8; ROOM.usize()] };
    let from = match &pinned {
        Some(pinned) => pinned.start(),
        None => NonNull::from(plain.as_mut_slice()).cast(),
    };
    let mut queue = Backend::new(device, None)?;
    let begin = Instant::now();
    let mut best = Duration::MAX;
    for i in 0..=TRIES {
        let start = Instant::now();
        for at in (0..TRY.0).step_by(CHUNK.usize()).map(|at| at % ROOM.0) {
            // SAFETY: `CHUNK` divides `ROOM`, which both sides have; nobody else uses them, and they outlive the queue's work, which
            // is waited for below.
            unsafe { queue.copy(&area, at, from.add(Bytes(at).usize()), CHUNK.0) };
        }
        queue.synchronize();
        // The first try wakes the link up.
        if i > 0 {
            best = best.min(start.elapsed());
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
    }
    let rate = Rate(TRY.f64() / best.as_secs_f64().max(1e-9));
    Ok(Upload { rate, pinned: pinned.is_some() })
}
