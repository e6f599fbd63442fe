//! The file of lines that were typed before.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

/// The longest history that is repaired. (bytes)
const MAX_HISTORY: u64 = 16 << 20;

/// Where the history is kept, its directory made.
pub(super) fn file() -> Option<PathBuf> {
    let places = etcetera::choose_base_strategy().ok()?;
    let dir = places.state_dir().unwrap_or_else(|| places.data_dir()).join("airrun");
    fs::create_dir_all(&dir).ok()?;
    // Something else of this name, a pipe for example, would be waited for.
    Some(dir.join("history")).filter(|path| path.is_file() || !path.exists())
}

/// Replaces what is not UTF-8 in a history: it would be refused each time.
pub(super) fn repair(path: &Path) {
    let Ok(bytes) = crate::files::read(path, MAX_HISTORY) else { return };
    if let Err(error) = String::from_utf8(bytes) {
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        // Then it is warned of.
        let _ = crate::files::write(path, |file| file.write_all(text.as_bytes()));
    }
}
