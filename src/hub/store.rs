//! The hub's cache as its own library writes it: blobs by hash, snapshots that link to them, refs that name commits. Everything
//! appears complete or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use super::Error;
use super::api::RepoFile;
use crate::files;
use crate::models::hub::repo_dir;
use crate::os::files::link;
use crate::units::Bytes;

/// A repository in the cache.
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn new(cache: &Path, repo: &str) -> Store {
        Store { dir: repo_dir(cache, repo) }
    }

    /// Where a file's content is, once it is complete.
    pub(super) fn blob(&self, file: &RepoFile) -> PathBuf {
        self.dir.join("blobs").join(&file.oid)
    }

    /// Where it is until then: the name that the hub's own library gives it.
    pub(super) fn incomplete(&self, file: &RepoFile) -> PathBuf {
        self.dir.join("blobs").join(format!("{}.incomplete", file.oid))
    }

    /// Whether a file is there and complete: its name is its hash.
    pub(super) fn has(&self, file: &RepoFile) -> bool {
        fs::metadata(self.blob(file)).is_ok_and(|m| m.is_file() && m.len() == file.size.0)
    }

    /// Bytes of a file that are still to come.
    pub(super) fn missing(&self, file: &RepoFile) -> Bytes {
        if self.has(file) {
            return Bytes::ZERO;
        }
        let have = fs::metadata(self.incomplete(file)).map_or(0, |m| m.len());
        file.size.saturating_sub(Bytes(have))
    }

    /// Makes the directory of the blobs.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        let dir = self.dir.join("blobs");
        fs::create_dir_all(&dir).map_err(Error::disk(dir))
    }

    /// Gives the content in the unfinished file its name.
    pub(super) fn complete(&self, file: &RepoFile) -> Result<(), Error> {
        let blob = self.blob(file);
        fs::rename(self.incomplete(file), &blob).map_err(Error::disk(blob.clone()))?;
        sync_dir(blob.parent());
        Ok(())
    }

    /// Makes the file's name in the snapshot of `commit` lead to its content; returns that name.
    pub(super) fn link(&self, commit: &str, file: &RepoFile) -> Result<PathBuf, Error> {
        let snapshot = self.dir.join("snapshots").join(commit);
        let path = snapshot.join(&file.path);
        let parent = path.parent().unwrap_or(&snapshot);
        fs::create_dir_all(parent).map_err(Error::disk(parent))?;
        // Up from the file's directory to that of the repository: as many as the path has parts, and the commit, and "snapshots".
        let depth = Path::new(&file.path)
            .components()
            .filter(|c| matches!(c, Component::Normal(_)))
            .count();
        let target = PathBuf::from("../".repeat(depth + 1)).join("blobs").join(&file.oid);
        if fs::read_link(&path).is_ok_and(|old| old == target) && path.is_file() {
            return Ok(path);
        }
        let fresh = parent.join(format!(".{}.{}.part", file.oid, std::process::id()));
        let linked = link(&target, &fresh).or_else(|_| {
            // A file system without links: a second name, or a copy of the content.
            fs::hard_link(self.blob(file), &fresh)
                .or_else(|_| fs::copy(self.blob(file), &fresh).map(drop))
        });
        let named = linked.and_then(|()| fs::rename(&fresh, &path));
        if named.is_err() {
            drop(fs::remove_file(&fresh));
        }
        named.map_err(Error::disk(path.clone()))?;
        sync_dir(path.parent());
        Ok(path)
    }

    /// Remembers which commit a branch or tag means.
    pub(super) fn name_commit(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if revision == commit {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        let written = fs::create_dir_all(self.dir.join("refs"))
            .and_then(|()| files::write(&path, |file| file.write_all(commit.as_bytes())));
        written.map_err(Error::disk(path))
    }
}

/// Makes a new name in a directory last. A file system that cannot is no reason to fail.
fn sync_dir(dir: Option<&Path>) {
    let synced: Option<io::Result<()>> = dir.and_then(|d| File::open(d).ok()).map(|d| d.sync_all());
    drop(synced);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "o/r");
        let file = |path: &str| RepoFile {
            path: path.to_owned(),
            size: Bytes(2),
            sha256: None,
            oid: "abc".to_owned(),
        };
        store.prepare().unwrap();
        assert_eq!(store.missing(&file("x")), Bytes(2));
        fs::write(store.incomplete(&file("x")), "h").unwrap();
        assert_eq!(store.missing(&file("x")), Bytes(1));
        fs::write(store.incomplete(&file("x")), "hi").unwrap();
        store.complete(&file("x")).unwrap();
        assert!(store.has(&file("x")));
        for path in ["x.gguf", "deep/er/x.gguf"] {
            for _ in 0..2 {
                let link = store.link("c0ffee", &file(path)).unwrap();
                assert_eq!(fs::read_to_string(link).unwrap(), "hi");
            }
        }
        store.name_commit("main", "c0ffee").unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("models--o--r/refs/main")).unwrap(),
            "c0ffee"
        );
    }
}
