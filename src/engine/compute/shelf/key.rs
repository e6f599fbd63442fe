//! What must be the same for a context's memory to be read back: the model's weights, the build, the device, and how memory is laid out.

use std::fs::File;
use std::io;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::files::hex;
use crate::engine::loaded::Loaded;
use crate::gguf::ModelFile;
use crate::os::reads::{read_at, read_exact_at};

/// How much of a header is looked at. (bytes)
const HEADER: u64 = 1 << 20;
/// Places of each file that are looked at: weights that were trained further differ everywhere.
const SAMPLES: u64 = 8;
const SAMPLE: usize = 4 << 10;

/// A key for what `loaded` computes; `None` if its files cannot be read.
pub(super) fn of(loaded: &Loaded) -> Option<String> {
    let mut hash = Sha256::new();
    hash.update(env!("AIRRUN_VERSION"));
    hash.update(&loaded.device);
    for (name, held) in loaded.further.iter().zip(&loaded.plan.further) {
        hash.update(format!("{name} {:?}", held.blocks));
    }
    let repacked = loaded.plan.streamed.is_empty();
    hash.update(format!("{repacked} {:?}", loaded.plan.by_cpu.len()));
    hash.update(format!("{:?}", loaded.recall));
    for file in &loaded.index.files {
        add(&mut hash, file).ok()?;
    }
    Some(hex(&hash.finalize()))
}

fn add(hash: &mut Sha256, model: &ModelFile) -> io::Result<()> {
    let file = File::open(&model.path)?;
    let found = file.metadata()?;
    hash.update(found.len().to_le_bytes());
    let modified = found.modified()?.duration_since(SystemTime::UNIX_EPOCH);
    // Before 1970 by as much.
    let (after, since) = modified.map_or_else(|e| (0, e.duration()), |since| (1, since));
    hash.update([after]);
    hash.update(since.as_nanos().to_le_bytes());
    let header = model.data_offset.min(HEADER).min(found.len());
    let mut bytes = vec![0; usize::try_from(header).unwrap_or(0)];
    read_exact_at(&file, &mut bytes, 0)?;
    hash.update(&bytes);
    bytes.resize(SAMPLE, 0);
    let weights = found.len().saturating_sub(model.data_offset);
    for i in 0..SAMPLES {
        let n = read_at(&file, &mut bytes, model.data_offset + weights / SAMPLES * i)?;
        hash.update(&bytes[..n]);
    }
    Ok(())
}
