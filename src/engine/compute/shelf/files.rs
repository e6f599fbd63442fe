//! Pairs of files: `ID.state`, which libllama writes, and `ID.json`, which says what it is and comes last, so that a pair is complete
//! or not there. Readable by their owner only; the oldest go when there is no room. It knows nothing of models.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ggml::Token;
use crate::os::{private, space};
use crate::units::Bytes;

/// The form of these files.
const VERSION: u32 = 1;
/// No label is longer. (bytes)
const MAX_LABEL: u64 = 16 << 20;
/// The most pairs of all models that are looked at.
const MAX_PAIRS: usize = 1024;
/// What must stay free on the disk. (bytes)
const SPARE: u64 = 1 << 30;
/// Unfinished files of this age were left by a process that was killed.
const STALE: Duration = Duration::from_secs(3600);

/// What is said of a kept text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Label {
    version: u32,
    /// The model, the build and what else must be the same.
    key: String,
    /// Its tokens.
    pub(super) tokens: Vec<Token>,
    /// The length of its state, and the state's hash.
    pub(super) bytes: u64,
    sha256: String,
    /// The name of its files.
    #[serde(skip)]
    pub(super) id: String,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    most: u64,
}

impl Files {
    /// The directory `dir`, made if it is not there, in which at most `most` bytes are kept. `None` if it cannot be ours alone.
    pub(super) fn open(dir: PathBuf, most: Bytes) -> Option<Files> {
        private::own_dir(&dir).ok()?;
        let files = Files { dir, most: most.0 };
        files.evict();
        Some(files)
    }

    /// What is kept under `key`.
    pub(super) fn labels(&self, key: &str) -> Vec<Label> {
        let pairs = self.pairs();
        let labels = pairs.iter().filter_map(|pair| self.label(&pair.id));
        labels.filter(|label| label.key == key && label.version == VERSION).collect()
    }

    fn label(&self, id: &str) -> Option<Label> {
        let mut text = Vec::new();
        private::open(&self.path(id, "json")).ok()?.take(MAX_LABEL).read_to_end(&mut text).ok()?;
        let label: Label = serde_json::from_slice(&text).ok()?;
        Some(Label { id: id.to_owned(), ..label })
    }

    /// The state that belongs to `label`, if it is as it was written. It counts as used now.
    pub(super) fn checked(&self, label: &Label) -> Option<PathBuf> {
        let path = self.path(&label.id, "state");
        let mut file = private::open(&path).ok()?;
        if file.metadata().ok()?.len() != label.bytes || hash(&mut file).ok()? != label.sha256 {
            return None;
        }
        // Where this fails, it is only thought to be older than it is.
        let touched = OpenOptions::new().write(true).open(self.path(&label.id, "json"));
        let _ = touched.and_then(|file| file.set_modified(SystemTime::now()));
        Some(path)
    }

    /// Writes a pair: the state as `write` does it. `None` if that failed, or is more than may be kept.
    pub(super) fn put(
        &self,
        key: &str,
        tokens: &[Token],
        write: impl FnOnce(&Path) -> bool,
    ) -> Option<Label> {
        let mut id = Sha256::new();
        id.update(key);
        tokens.iter().for_each(|token| id.update(token.to_le_bytes()));
        let id = hex(&id.finalize()[..16]);
        let fresh = self.dir.join(format!("{id}.{}.tmp", std::process::id()));
        let label = self.written(&fresh, write).and_then(|(bytes, sha256)| {
            let (key, tokens) = (key.to_owned(), tokens.to_vec());
            let label = Label { version: VERSION, key, tokens, bytes, sha256, id: id.clone() };
            // A pair with this name is gone before it is half another one.
            self.remove(&id);
            fs::rename(&fresh, self.path(&id, "state")).ok()?;
            let text = serde_json::to_vec(&label).ok()?;
            private::create(&fresh)
                .and_then(|mut file| io::Write::write_all(&mut file, &text))
                .ok()?;
            fs::rename(&fresh, self.path(&id, "json")).ok()?;
            Some(label)
        });
        if label.is_none() {
            let _ = fs::remove_file(&fresh);
        }
        label
    }

    fn written(&self, fresh: &Path, write: impl FnOnce(&Path) -> bool) -> Option<(u64, String)> {
        let _ = fs::remove_file(fresh);
        let mut file = private::create(fresh).ok()?;
        if !write(fresh) {
            return None;
        }
        let bytes = file.metadata().ok()?.len();
        let sha256 = hash(&mut file).ok()?;
        (bytes > 0 && bytes <= self.most).then_some((bytes, sha256))
    }

    /// Whether `bytes` more may be kept, after older ones have gone.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let free = space::free(&self.dir).map_or(0, |free| free.0);
        bytes <= self.most && free >= bytes.saturating_add(SPARE)
    }

    /// Removes a pair.
    pub(super) fn remove(&self, id: &str) {
        // Its label first: without one, a state is nothing.
        for kind in ["json", "state"] {
            let _ = fs::remove_file(self.path(id, kind));
        }
    }

    /// Removes the oldest pairs until the rest has room, and what was left unfinished. Returns the names of those removed.
    pub(super) fn evict(&self) -> Vec<String> {
        let mut pairs = self.pairs();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.used));
        let mut kept = 0_u64;
        let mut gone = Vec::new();
        for pair in pairs {
            kept = kept.saturating_add(pair.bytes);
            if kept > self.most {
                self.remove(&pair.id);
                gone.push(pair.id);
            }
        }
        gone
    }

    /// All pairs; what is no part of one and was left long ago is removed.
    fn pairs(&self) -> Vec<Pair> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut pairs = Vec::new();
        for entry in entries.flatten().take(4 * MAX_PAIRS) {
            let path = entry.path();
            let (Some(id), Ok(found)) =
                (path.file_stem().and_then(|s| s.to_str()), entry.metadata())
            else {
                continue;
            };
            let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let old = used.elapsed().is_ok_and(|age| age > STALE);
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") if pairs.len() < MAX_PAIRS => {
                    let state = fs::symlink_metadata(self.path(id, "state")).map_or(0, |s| s.len());
                    pairs.push(Pair { id: id.to_owned(), bytes: state + found.len(), used });
                }
                Some("state") if old && !self.path(id, "json").exists() => {
                    let _ = fs::remove_file(&path);
                }
                Some("tmp") if old => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        pairs
    }

    fn path(&self, id: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }
}

struct Pair {
    id: String,
    bytes: u64,
    used: SystemTime,
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut io::BufReader::with_capacity(1 << 20, file), &mut Sink(&mut hash))?;
    Ok(hex(&hash.finalize()))
}

struct Sink<'a>(&'a mut Sha256);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn put(files: &Files, key: &str, tokens: &[Token], state: &[u8]) -> Option<Label> {
        files.put(key, tokens, |path| fs::write(path, state).is_ok())
    }

    #[test]
    fn what_was_put_is_found_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().join("a/prompts"), Bytes(1 << 20)).unwrap();
        let label = put(&files, "model", &[1, 2, 3], b"state").unwrap();
        assert!(files.labels("other").is_empty());
        assert_eq!(files.labels("model")[0].tokens, [1, 2, 3]);
        let state = files.checked(&label).unwrap();
        for path in [&state, &state.with_extension("json")] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&files.dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&files.dir).unwrap().count(), 2);
    }

    #[test]
    fn what_was_changed_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().join("prompts"), Bytes(1 << 20)).unwrap();
        let changes: [&dyn Fn(&Path); 5] = [
            &|p| fs::write(p, b"stat3").unwrap(),
            &|p| fs::write(p, b"stat").unwrap(),
            &|p| fs::write(p, b"").unwrap(),
            &|p| fs::remove_file(p).unwrap(),
            &|p| {
                fs::rename(p, p.with_extension("elsewhere")).unwrap();
                std::os::unix::fs::symlink(p.with_extension("elsewhere"), p).unwrap();
            },
        ];
        for change in changes {
            let label = put(&files, "model", &[1, 2, 3], b"state").unwrap();
            change(&files.checked(&label).unwrap());
            assert_eq!(files.checked(&label), None);
        }
        for text in ["", "{", "{}", "[1]", "\u{0}"] {
            fs::write(files.dir.join("x.json"), text).unwrap();
            assert_eq!(files.labels("model").len(), 1, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().join("prompts"), Bytes(10)).unwrap();
        assert!(files.put("model", &[1], |_| false).is_none());
        assert!(put(&files, "model", &[1], b"").is_none());
        assert!(put(&files, "model", &[1], b"more than ten bytes").is_none());
        assert_eq!(fs::read_dir(&files.dir).unwrap().count(), 0);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(Files::open(dir.path().join("file"), Bytes(10)).is_none());
    }

    #[test]
    fn the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().join("prompts"), Bytes(3000)).unwrap();
        let state = [7; 1000];
        let labels: Vec<Label> =
            (0..3).map(|i| put(&files, "model", &[i], &state).unwrap()).collect();
        for (age, label) in [(30, &labels[0]), (20, &labels[1]), (10, &labels[2])] {
            let file = OpenOptions::new().write(true).open(files.path(&label.id, "json")).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        // It was used just now.
        assert!(files.checked(&labels[0]).is_some());
        assert_eq!(files.evict(), [labels[1].id.clone()]);
        assert_eq!(files.labels("model").len(), 2);
    }
}
