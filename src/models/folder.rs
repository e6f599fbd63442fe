//! Models in plain directories: the user's own, LM Studio's, Jan's, GPT4All's, llama.cpp's old cache. Their paths and file names
//! are their names.

use super::places::{Kind, Place};
use super::walk::{self, Listed};
use super::{Catalog, Model, quant};

/// File names that say nothing: the directory is the name.
const NAMELESS: [&str; 2] = ["model", "ggml-model"];

/// The models under a place.
pub(super) fn scan(place: &Place) -> Catalog {
    let mut notes = Vec::new();
    let mut listed = walk::list(&place.dir, &mut notes);
    listed.retain(|l| !is_projector(&l.stem));
    if place.kind == Kind::LlamaCpp {
        // Its old cache is flat; what lies deeper is its new one, which is the hub's.
        listed.retain(|l| l.path.parent().is_some_and(|dir| dir == place.dir));
    }
    let mut models: Vec<Model> = listed.into_iter().map(|l| model(place, l)).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Catalog { models, notes }
}

/// Whether a file's name says that it encodes images for the model beside it.
pub(super) fn is_projector(stem: &str) -> bool {
    stem.to_ascii_lowercase().contains("mmproj")
}

fn model(place: &Place, listed: Listed) -> Model {
    let Listed { path, stem, size, modified } = listed;
    let dirs: Vec<String> = path
        .parent()
        .and_then(|dir| dir.strip_prefix(&place.dir).ok())
        .map(|dir| dir.iter().map(|c| c.to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let (name, aliases) = match (place.kind, dirs.as_slice()) {
        (_, [.., last]) if NAMELESS.contains(&stem.as_str()) => {
            (last.clone(), vec![dirs.join("/")])
        }
        (Kind::LmStudio, [publisher, repo, ..]) => hub_style(publisher, repo, &stem),
        (Kind::LlamaCpp, _) => (stem.clone(), llama_cpp_repo(&stem)),
        _ => (stem.clone(), Vec::new()),
    };
    let aliases = aliases.into_iter().chain([stem]).filter(|a| *a != name).collect();
    Model { name, aliases, path, size, modified, origin: place.kind, layers: None }
}

/// `publisher/repo:Q4_K_M`, and the repository alone.
pub(super) fn hub_style(org: &str, repo: &str, stem: &str) -> (String, Vec<String>) {
    let tag = quant::of_name(stem).unwrap_or_else(|| stem.to_owned());
    let full = if org.is_empty() { repo.to_owned() } else { format!("{org}/{repo}") };
    (format!("{full}:{tag}"), vec![full, format!("{repo}:{tag}")])
}

/// llama.cpp named its files `ORG_REPO_FILE.gguf`: the file's own name is a name, too.
fn llama_cpp_repo(stem: &str) -> Vec<String> {
    // Neither part of the name is marked, so every cut at an underscore may be the right one; the last parts of the file's
    // name are the likeliest.
    let mut parts = stem.splitn(3, '_');
    let (org, repo, file) = (parts.next(), parts.next(), parts.next());
    match (org, repo, file) {
        (Some(org), Some(repo), Some(file)) if !org.is_empty() && !repo.is_empty() => {
            let (name, more) = hub_style(org, repo, file);
            more.into_iter().chain([name, file.to_owned()]).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn scan_with(kind: Kind, files: &[&str]) -> Vec<(String, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let found = scan(&Place { kind, dir: dir.path().to_owned() });
        found.models.into_iter().map(|m| (m.name, m.aliases)).collect()
    }

    #[test]
    fn names_follow_the_tool() {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let files = ["pub/Repo-GGUF/model-x-Q4_K_M.gguf", "pub/Repo-GGUF/mmproj-model-f16.gguf"];
        let (name, aliases) = scan_with(Kind::LmStudio, &files).remove(0);
        assert_eq!(name, "pub/Repo-GGUF:Q4_K_M");
        assert_eq!(aliases, own(&["pub/Repo-GGUF", "Repo-GGUF:Q4_K_M", "model-x-Q4_K_M"]));
        assert_eq!(scan_with(Kind::LmStudio, &files).len(), 1);
        let (name, _) = scan_with(Kind::Jan, &["janhq/Jan-v1/model.gguf"]).remove(0);
        assert_eq!(name, "Jan-v1");
        let file = "ggml-org_gemma-3-1b-it-GGUF_gemma-3-1b-it-Q4_K_M.gguf";
        let (name, aliases) = scan_with(Kind::LlamaCpp, &[file]).remove(0);
        assert_eq!(format!("{name}.gguf"), file);
        assert!(aliases.contains(&"ggml-org/gemma-3-1b-it-GGUF:Q4_K_M".to_owned()), "{aliases:?}");
        assert_eq!(scan_with(Kind::Here, &["a b ü.gguf"]), [("a b ü".to_owned(), vec![])]);
    }
}
