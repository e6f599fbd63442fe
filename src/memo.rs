//! What was measured once and holds for a while, remembered in small files of the cache directory. Losing one means measuring again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcetera::BaseStrategy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files;

/// How long a measurement holds.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// No file is longer than this. (bytes)
const MAX_FILE: u64 = 8 << 20;

/// Where the file called `name` is kept; `None` where there is no place for such files.
pub fn path(name: &str) -> Option<PathBuf> {
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.cache_dir().join("airrun").join(name))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether something measured at `then` (seconds since 1970) still holds.
pub fn holds(then: u64) -> bool {
    let now = now();
    then <= now && now - then < LIFE.as_secs()
}

/// Reads what was remembered. `None` if there is nothing, or nothing that makes sense.
pub fn recall<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&files::read(file, MAX_FILE).ok()?).ok()
}

/// Writes `value`, complete or not at all: another process may be reading. A place that cannot be written to is ignored.
pub fn remember<T: Serialize>(file: &Path, value: &T) {
    let (Some(dir), Ok(text)) = (file.parent(), serde_json::to_vec_pretty(value)) else {
        return;
    };
    // Something else of this name, a pipe for example, would be waited for.
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return;
    }
    // What is not remembered is measured again.
    let _ = fs::create_dir_all(dir).and_then(|()| files::write(file, |out| out.write_all(&text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_recalled_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep").join("memo.json");
        assert_eq!(recall::<Vec<u32>>(&file), None);
        remember(&file, &vec![1, 2]);
        assert_eq!(recall(&file), Some(vec![1, 2]));
        fs::write(&file, "{").unwrap();
        assert_eq!(recall::<Vec<u32>>(&file), None);
        assert!(holds(now()) && !holds(0) && !holds(now() + 100));
    }
}
