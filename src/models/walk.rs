//! Lists the GGUF files under a directory, with split ones as one. Loops, broken links, unreadable directories and unfinished
//! downloads are noted and passed over. It opens no file.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::Note;
use crate::gguf::part_path;
use crate::units::Bytes;

/// How deep directories are searched: publisher, model, quantisation, and some.
const MAX_DEPTH: usize = 8;
/// Files and directories that are looked at in one place.
const MAX_ENTRIES: usize = 50_000;

/// Endings of downloads that are under way or were given up.
const UNFINISHED: [&str; 6] =
    [".incomplete", ".part", ".partial", ".downloadinprogress", ".crdownload", ".aria2"];

/// A model's file, or the parts of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The first part.
    pub(super) path: PathBuf,
    /// The file's name without `.gguf` and part numbers.
    pub(super) stem: String,
    /// Bytes of all parts.
    pub(super) size: Bytes,
    /// Newest modification, in seconds since 1970.
    pub(super) modified: u64,
}

/// What a walk has seen.
struct Walk<'a> {
    files: Vec<PathBuf>,
    notes: &'a mut Vec<Note>,
    /// Directories, by what they really are: links may form loops.
    seen: HashSet<PathBuf>,
    n_entries: usize,
}

/// The models under `dir`, by path. A directory that does not exist has none.
pub(super) fn list(dir: &Path, notes: &mut Vec<Note>) -> Vec<Listed> {
    let mut walk = Walk { files: Vec::new(), notes, seen: HashSet::new(), n_entries: 0 };
    walk.enter(dir, 0);
    let mut files = walk.files;
    files.sort_unstable();
    join_parts(files, notes)
}

/// The entries of `dir`, sorted; one that cannot be read is noted and has none, one that does not exist has none.
pub(super) fn entries(dir: &Path, notes: &mut Vec<Note>) -> Vec<PathBuf> {
    let mut paths = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect::<Vec<_>>(),
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                notes.push(Note { path: dir.to_owned(), what: error.to_string() });
            }
            Vec::new()
        }
    };
    paths.sort_unstable();
    paths
}

/// Whether a file's name says that its download is not finished.
pub(super) fn is_unfinished(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // GPT4All's begin with a word instead.
    UNFINISHED.iter().any(|end| name.ends_with(end)) || name.starts_with("incomplete-")
}

impl Walk<'_> {
    fn enter(&mut self, dir: &Path, depth: usize) {
        let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        if !self.seen.insert(real) {
            return;
        }
        for path in entries(dir, self.notes) {
            self.n_entries += 1;
            if self.n_entries > MAX_ENTRIES {
                if self.n_entries == MAX_ENTRIES + 1 {
                    self.note(
                        dir,
                        &format!("more than {MAX_ENTRIES} entries; the rest is passed over"),
                    );
                }
                return;
            }
            self.look_at(path, depth);
        }
    }

    fn look_at(&mut self, path: PathBuf, depth: usize) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            return;
        }
        if is_unfinished(&name) {
            return self.note(&path, "an unfinished download");
        }
        let is_gguf = name.to_ascii_lowercase().ends_with(".gguf");
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => self.enter(&path, depth + 1),
            Ok(meta) if meta.is_dir() => self.note(&path, "too deep to be looked into"),
            Ok(meta) if is_gguf && meta.is_file() && meta.len() > 0 => self.files.push(path),
            Ok(_) if is_gguf => self.note(&path, "not a file with anything in it"),
            Ok(_) => {}
            Err(error) if is_gguf => self.note(&path, &error.to_string()),
            // A broken link of another kind is nobody's model.
            Err(_) => {}
        }
    }

    fn note(&mut self, path: &Path, what: &str) {
        self.notes.push(Note { path: path.to_owned(), what: what.to_owned() });
    }
}

/// Split models as one; those that lack a part are noted.
fn join_parts(files: Vec<PathBuf>, notes: &mut Vec<Note>) -> Vec<Listed> {
    let mut models: BTreeMap<PathBuf, Listed> = BTreeMap::new();
    // First parts that were looked for: each of thousands of parts leads to the same ones.
    let mut sought = HashSet::new();
    for path in files {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some((prefix, count)) = split(&stem) else {
            models.insert(path.clone(), Listed { stem, ..listed(&[path]) });
            continue;
        };
        let Some(first) = part_path(&path, 1, count) else { continue };
        if !sought.insert(first.clone()) {
            continue;
        }
        let mut parts = Vec::new();
        let missing = (1..=count).find(|&n| match part_path(&path, n, count) {
            Some(part) if part.is_file() => {
                parts.push(part);
                false
            }
            _ => true,
        });
        match missing {
            None => {
                let stem = prefix.to_owned();
                models.insert(first, Listed { stem, ..listed(&parts) });
            }
            Some(missing) => {
                let what = format!("part {missing} of {count} is missing");
                notes.push(Note { path: first, what });
            }
        }
    }
    models.into_values().collect()
}

/// `NAME` and `5` of `NAME-00002-of-00005`.
pub fn split(stem: &str) -> Option<(&str, u64)> {
    let (head, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = head.rsplit_once('-')?;
    let is_number = |t: &str| t.len() == 5 && t.bytes().all(|b| b.is_ascii_digit());
    let count = is_number(count).then(|| count.parse().ok()).flatten()?;
    (is_number(number) && count > 0).then_some((prefix, count))
}

/// Size and age of parts.
pub(super) fn listed(parts: &[PathBuf]) -> Listed {
    let (mut size, mut modified) = (Bytes::ZERO, 0);
    for meta in parts.iter().filter_map(|p| fs::metadata(p).ok()) {
        size += Bytes(meta.len());
        let time = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        modified = modified.max(time.map_or(0, |t| t.as_secs()));
    }
    Listed { path: parts.first().cloned().unwrap_or_default(), stem: String::new(), size, modified }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(dir: &Path) -> (Vec<String>, Vec<String>) {
        let mut notes = Vec::new();
        let listed = list(dir, &mut notes);
        let name = |p: &Path| p.file_name().unwrap().to_string_lossy().into_owned();
        let notes = notes.iter().map(|n| format!("{}: {}", name(&n.path), n.what)).collect();
        (listed.into_iter().map(|l| l.stem).collect(), notes)
    }

    #[test]
    fn trouble_is_noted_and_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir_all(at("a/b")).unwrap();
        for file in ["a/b/one model.gguf", "a/zwei-ä.GGUF", "a/notes.txt", ".hidden.gguf"] {
            fs::write(at(file), "x").unwrap();
        }
        fs::write(at("a/empty.gguf"), "").unwrap();
        fs::write(at("a/three.gguf.part"), "x").unwrap();
        fs::write(at("incomplete-four.gguf"), "x").unwrap();
        symlink("nowhere", at("a/broken.gguf")).unwrap();
        symlink(dir.path(), at("a/b/loop")).unwrap();
        symlink(at("a/b/one model.gguf"), at("linked.gguf")).unwrap();
        let (models, notes) = names(dir.path());
        assert_eq!(models, ["one model", "zwei-ä", "linked"]);
        assert_eq!(notes.len(), 4, "{notes:?}");
        for (name, why) in [
            ("three.gguf.part", "unfinished"),
            ("incomplete-four.gguf", "unfinished"),
            ("empty.gguf", "anything"),
            ("broken.gguf", "No such file"),
        ] {
            assert!(
                notes.iter().any(|n| n.starts_with(name) && n.contains(why)),
                "{name} {notes:?}"
            );
        }
        assert_eq!(names(&at("no/such")), (vec![], vec![]));
    }

    #[test]
    fn parts_are_one_model() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=3 {
            fs::write(dir.path().join(format!("big-Q8_0-0000{n}-of-00003.gguf")), "xx").unwrap();
        }
        fs::write(dir.path().join("half-00002-of-00002.gguf"), "x").unwrap();
        let mut notes = Vec::new();
        let models = list(dir.path(), &mut notes);
        assert_eq!(models.len(), 1);
        assert_eq!((models[0].stem.as_str(), models[0].size), ("big-Q8_0", Bytes(6)));
        assert!(models[0].path.ends_with("big-Q8_0-00001-of-00003.gguf"));
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].what, "part 1 of 2 is missing");
    }

    /// Of a model of which parts are missing, each part there is leads to the same search: it is done once.
    #[test]
    fn thousands_of_parts_are_sought_once() {
        let dir = tempfile::tempdir().unwrap();
        for n in 2..=1500 {
            fs::write(dir.path().join(format!("big-{n:05}-of-99999.gguf")), "x").unwrap();
        }
        let (mut notes, begin) = (Vec::new(), std::time::Instant::now());
        assert!(list(dir.path(), &mut notes).is_empty());
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].what, "part 1 of 99999 is missing");
        // Sought for each of them, it takes minutes.
        assert!(begin.elapsed() < std::time::Duration::from_secs(30));
    }
}
