//! The Hugging Face hub's cache: `models--ORG--REPO/{refs,snapshots,blobs}`. Snapshots hold links to blobs under the names that
//! the publisher gave. Downloads that write into it use the same names (`repo_dir`).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::folder::{hub_style, is_projector};
use super::places::Kind;
use super::walk::{self, Listed};
use super::{Catalog, Model};
use crate::files;

/// A commit's name in a file of `refs` is no longer than this. (bytes)
const MAX_REF: u64 = 256;

/// The directory of a repository in a cache.
pub fn repo_dir(cache: &Path, repo: &str) -> PathBuf {
    cache.join(format!("models--{}", repo.replace('/', "--")))
}

/// Whether `dir` looks like a cache.
pub(super) fn is_cache(dir: &Path) -> bool {
    let repo = |p: &PathBuf| p.join("snapshots").is_dir();
    walk::entries(dir, &mut Vec::new()).iter().any(repo)
}

/// The models of the cache at `dir`.
pub(super) fn scan(dir: &Path) -> Catalog {
    let mut catalog = Catalog::default();
    for repo in walk::entries(dir, &mut catalog.notes) {
        let name = repo.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix("models--").filter(|_| repo.is_dir()) else { continue };
        scan_repo(&repo, &id.replace("--", "/"), &mut catalog);
    }
    catalog
}

/// The models of one repository: of each file, the newest revision.
fn scan_repo(repo: &Path, id: &str, catalog: &mut Catalog) {
    let mut files = HashSet::new();
    let mut listed: Vec<Listed> = Vec::new();
    for snapshot in snapshots(repo, catalog) {
        for model in walk::list(&snapshot, &mut catalog.notes) {
            let inside = model.path.strip_prefix(&snapshot).unwrap_or(&model.path).to_owned();
            if !is_projector(&model.stem) && files.insert(inside) {
                listed.push(model);
            }
        }
    }
    let (org, name) = id.split_once('/').unwrap_or(("", id));
    let mut tags = HashSet::new();
    for Listed { path, stem, size, modified } in listed {
        let (mut full, mut aliases) = hub_style(org, name, &stem);
        if !tags.insert(full.clone()) {
            // Two files of one quantisation: the second is called by its file.
            (full, aliases) = (format!("{id}:{stem}"), Vec::new());
        }
        aliases.push(stem);
        let (origin, layers) = (Kind::Hub, None);
        catalog.models.push(Model { name: full, aliases, path, size, modified, origin, layers });
    }
}

/// The snapshots, those first that a name such as `main` points to, then the newest.
fn snapshots(repo: &Path, catalog: &mut Catalog) -> Vec<PathBuf> {
    let read = |file: PathBuf| {
        let text = files::read_text(&file, MAX_REF).ok()?;
        Some(text.trim().to_owned())
    };
    let mut refs = walk::entries(&repo.join("refs"), &mut catalog.notes);
    refs.sort_by_key(|p| !p.ends_with("main"));
    let named: Vec<String> = refs.into_iter().filter_map(read).collect();
    let mut dirs = walk::entries(&repo.join("snapshots"), &mut catalog.notes);
    dirs.sort_by_cached_key(|dir| {
        let commit = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rank = named.iter().position(|n| *n == commit).unwrap_or(usize::MAX);
        let age = fs::metadata(dir).and_then(|m| m.modified()).ok().map(std::cmp::Reverse);
        (rank, age)
    });
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn put(cache: &Path, repo: &str, commit: &str, file: &str, hash: &str) {
        let dir = repo_dir(cache, repo);
        let path = dir.join("snapshots").join(commit).join(file);
        fs::create_dir_all(dir.join("blobs")).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(dir.join("blobs").join(hash), hash).unwrap();
        symlink(dir.join("blobs").join(hash), path).unwrap();
    }

    #[test]
    fn snapshots_are_joined() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path();
        let repo = "org/Big-GGUF";
        put(cache, repo, "old", "Big-Q4_K_M.gguf", "1");
        put(cache, repo, "old", "Big-Q8_0.gguf", "2");
        put(cache, repo, "new", "Big-Q4_K_M.gguf", "3");
        put(cache, repo, "new", "other/Big-v2-Q4_K_M.gguf", "4");
        put(cache, repo, "new", "mmproj-Big-f16.gguf", "5");
        put(cache, repo, "new", "README.md", "6");
        put(cache, "gpt2", "x", "gpt2.gguf", "7");
        let big = repo_dir(cache, repo);
        fs::create_dir_all(big.join("refs")).unwrap();
        fs::write(big.join("refs/main"), "new\n").unwrap();
        fs::write(big.join("blobs/8.incomplete"), "").unwrap();
        symlink("nowhere", big.join("snapshots/new/lost.gguf")).unwrap();
        fs::create_dir_all(cache.join("datasets--org--x")).unwrap();

        let found = scan(cache);
        let names: Vec<(&str, u64)> =
            found.models.iter().map(|m| (m.name.as_str(), m.size.0)).collect();
        assert_eq!(
            names,
            [
                ("gpt2:gpt2", 1),
                ("org/Big-GGUF:Q4_K_M", 1),
                ("org/Big-GGUF:Big-v2-Q4_K_M", 1),
                ("org/Big-GGUF:Q8_0", 1)
            ]
        );
        let current = fs::read_to_string(&found.models[1].path).unwrap();
        assert_eq!(current, "3", "of each file, the revision that main names");
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    }
}
