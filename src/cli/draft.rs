//! `--draft`: who guesses how texts go on. A name or a path is taken at its word; `auto` takes a head in
//! the model's own file, or looks for one in a file of its own, or for a small model with the same vocabulary, beside the large one and among
//! the models of this machine, where the large one is likely to stream.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::args::{DraftArg, LoadArgs};
use crate::cli::resolve;
use crate::engine::{Draft, LoadOptions, StreamMode};
use crate::gguf::{Index, Purpose};
use crate::models;
use crate::probe;

/// A model that drafts is at least so many times smaller: it is computed once for each token that it guesses.
const SMALLER: u64 = 12;

/// A head in a file of its own may be larger: much of it may be an embedding, of which a row is read.
const HEAD_SMALLER: u64 = 3;

/// Headers that are looked at.
const MOST_LOOKED_AT: usize = 24;

/// What the command line says of drafts for the model `index`, which will be loaded with `options`.
pub(crate) fn choose(
    args: &LoadArgs,
    index: &Index,
    options: &LoadOptions,
) -> anyhow::Result<Draft> {
    Ok(match &args.draft {
        DraftArg::None => Draft::None,
        DraftArg::Ngram => Draft::Ngrams { always: true },
        DraftArg::Mtp => Draft::Head { always: true },
        DraftArg::Model(model) => {
            let index = Arc::new(resolve::model(model)?.index);
            match index.is_head() {
                true => Draft::HeadFile { index, always: true },
                false => Draft::Model { index, always: true },
            }
        }
        DraftArg::Auto => likely(index, options),
    })
}

/// Who may draft for a model: a head of its own, else one in another file, else a small model, where weights are likely to stream.
fn likely(index: &Index, options: &LoadOptions) -> Draft {
    if !likely_streams(index, options) {
        return Draft::Ngrams { always: false };
    }
    let head = Draft::Head { always: false };
    if index.check_heads_usable().is_ok() {
        return head;
    }
    let of_it = |other: &Index| other.is_head() && other.head_for(index).is_ok();
    if let Some(index) = sibling(index, HEAD_SMALLER, of_it) {
        return Draft::HeadFile { index: Arc::new(index), always: false };
    }
    match sibling(index, SMALLER, |small| fits(small, index)) {
        Some(index) => Draft::Model { index: Arc::new(index), always: false },
        // A head that is there and cannot be used is asked for all the same: then people are told why.
        None if !index.heads.is_empty() => head,
        None => Draft::Ngrams { always: false },
    }
}

/// Whether the model does not fit by a look at its size.
fn likely_streams(index: &Index, options: &LoadOptions) -> bool {
    let room = options.ram.unwrap_or_else(probe::available_memory);
    match options.stream {
        StreamMode::Always => true,
        StreamMode::Never => false,
        StreamMode::Auto => index.bytes() > room,
    }
}

/// A file that is so many times `smaller` than `large`, and that `suits` it: the largest one beside it, else elsewhere.
fn sibling(large: &Index, smaller: u64, suits: impl Fn(&Index) -> bool) -> Option<Index> {
    let mut candidates: Vec<(bool, u64, PathBuf)> = Vec::new();
    let beside = large.files.first().and_then(|file| directory(&file.path));
    let beside = beside.into_iter().flat_map(files_in);
    candidates.extend(beside.map(|(size, path)| (true, size, path)));
    let here = models::Catalog::here().models;
    candidates.extend(here.into_iter().map(|model| (false, model.size.0, model.path)));
    candidates.retain(|(_, size, _)| size.saturating_mul(smaller) <= large.bytes().0);
    candidates.sort_by(|a, b| b.cmp(a));
    candidates.truncate(MOST_LOOKED_AT);
    let index = |(_, _, path): (bool, u64, PathBuf)| Index::open(&path).ok();
    candidates.into_iter().filter_map(index).find(|other| suits(other))
}

/// The directory that a file is in.
fn directory(file: &Path) -> Option<&Path> {
    let dir = file.parent()?;
    // A name alone is one of the directory that we are in.
    Some(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
}

/// The models in a directory, and their sizes.
fn files_in(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let is_model = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "gguf");
    let paths = entries.flatten().map(|entry| entry.path()).filter(is_model);
    let size = |path: PathBuf| Some((std::fs::metadata(&path).ok()?.len(), path));
    paths.filter_map(size).collect()
}

/// Whether the tokens of two models are the same, and the small one writes text.
fn fits(small: &Index, large: &Index) -> bool {
    let tokens = "tokenizer.ggml.tokens";
    let model = "tokenizer.ggml.model";
    small.purpose() == Purpose::Text
        && small.meta_str(model) == large.meta_str(model)
        && small.meta_array(tokens).is_some()
        && small.meta_array(tokens) == large.meta_array(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_named_without_a_directory_has_one() {
        assert_eq!(directory(Path::new("big.gguf")), Some(Path::new(".")));
        assert_eq!(directory(Path::new("models/big.gguf")), Some(Path::new("models")));
        assert_eq!(directory(Path::new("/big.gguf")), Some(Path::new("/")));
    }
}
