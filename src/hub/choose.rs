//! Which files of a repository are meant: those of one quantisation, all parts of it. It asks nobody.

use std::collections::BTreeMap;

use super::api::RepoFile;
use super::{Error, Wanted};
use crate::models::{PREFERRED, quant};
use crate::units::Bytes;

/// Other kinds of weights that a repository may hold.
const OTHERS: [(&str, &str); 4] = [
    (".safetensors", "it has safetensors"),
    (".bin", "it has PyTorch weights"),
    (".onnx", "it has ONNX"),
    (".mlx", "it has MLX"),
];
/// Names of GGUF files that are no models: encoders of images, statistics for quantising.
const NO_MODELS: [&str; 2] = ["mmproj", "imatrix"];

/// What is to be downloaded.
#[derive(Debug)]
pub(super) struct Choice {
    /// What the model is called: `org/repo:Q4_K_M`.
    pub(super) name: String,
    /// Its files, in order of the parts.
    pub(super) files: Vec<RepoFile>,
    /// What was decided.
    pub(super) remarks: Vec<String>,
}

/// A model in a repository.
#[derive(Debug)]
struct Candidate {
    /// The path without `.gguf` and part numbers.
    stem: String,
    /// Its quantisation; without one, its file's name.
    tag: String,
    files: Vec<RepoFile>,
    /// Parts there should be.
    n_parts: u64,
}

impl Candidate {
    fn size(&self) -> Bytes {
        self.files.iter().map(|f| f.size).sum()
    }

    fn is(&self, tag: &str) -> bool {
        let tag = tag.strip_suffix(".gguf").unwrap_or(tag);
        let tag = split(tag).map_or(tag, |(stem, _)| stem);
        let file = self.stem.rsplit('/').next().unwrap_or_default();
        [self.tag.as_str(), &self.stem, file].iter().any(|name| name.eq_ignore_ascii_case(tag))
    }
}

/// The files that `wanted` means.
pub(super) fn choose(wanted: &Wanted, files: Vec<RepoFile>) -> Result<Choice, Error> {
    let repo = &wanted.repo;
    let other = OTHERS.iter().find(|(end, _)| files.iter().any(|f| f.path.ends_with(end)));
    let mut candidates = candidates(files);
    if candidates.is_empty() {
        let other = other.map(|(_, what)| (*what).to_owned());
        return Err(Error::NoGguf { repo: repo.clone(), other });
    }
    let mut remarks = Vec::new();
    let at = match &wanted.tag {
        Some(tag) => named(&candidates, tag).ok_or_else(|| no_such(repo, tag, &candidates))?,
        None => {
            let at = usual(&candidates);
            if !candidates[at].tag.eq_ignore_ascii_case(PREFERRED) && candidates.len() > 1 {
                remarks.push(format!("there is no {PREFERRED}; taking {}", candidates[at].tag));
            }
            at
        }
    };
    let chosen = candidates.swap_remove(at);
    let n_parts = chosen.files.len() as u64;
    if n_parts != chosen.n_parts {
        let why = format!("of {} parts of '{}' there are {n_parts}", chosen.n_parts, chosen.stem);
        return Err(Error::Nonsense(why));
    }
    remarks.push(format!("{} is {}", chosen.tag, chosen.size()));
    Ok(Choice { name: format!("{repo}:{}", chosen.tag), files: chosen.files, remarks })
}

fn candidates(files: Vec<RepoFile>) -> Vec<Candidate> {
    let mut models: BTreeMap<String, Candidate> = BTreeMap::new();
    for file in files {
        let lower = file.name().to_ascii_lowercase();
        if !lower.ends_with(".gguf") || NO_MODELS.iter().any(|n| lower.contains(n)) {
            continue;
        }
        let whole = file.path[..file.path.len() - ".gguf".len()].to_owned();
        let (stem, n_parts) = split(&whole).map_or((whole.clone(), 1), |(s, n)| (s.to_owned(), n));
        let name = stem.rsplit('/').next().unwrap_or_default();
        let tag = quant::of_name(name).unwrap_or_else(|| name.to_owned());
        let new = || Candidate { stem: stem.clone(), tag, files: Vec::new(), n_parts };
        models.entry(stem.clone()).or_insert_with(new).files.push(file);
    }
    let mut models: Vec<Candidate> = models.into_values().collect();
    for model in &mut models {
        model.files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    models
}

/// `NAME` and `5` of `NAME-00002-of-00005`.
fn split(stem: &str) -> Option<(&str, u64)> {
    crate::models::split_name(stem)
}

/// The model that is called `tag`; of several, the one whose path is shortest.
fn named(candidates: &[Candidate], tag: &str) -> Option<usize> {
    let is = |i: &usize| candidates[*i].is(tag);
    (0..candidates.len()).filter(is).min_by_key(|&i| candidates[i].stem.len())
}

/// The model that most people would want: the preferred quantisation, or what is nearest to it, rather larger than smaller.
fn usual(candidates: &[Candidate]) -> usize {
    let want = quant::bits(PREFERRED).unwrap_or(0.0);
    let far = |c: &Candidate| quant::bits(&c.tag).map_or(f64::INFINITY, |bits| (bits - want).abs());
    let key = |&i: &usize| {
        let c = &candidates[i];
        (!c.tag.eq_ignore_ascii_case(PREFERRED), far(c), std::cmp::Reverse(c.size()), c.stem.len())
    };
    let less =
        |a: &usize, b: &usize| key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal);
    (0..candidates.len()).min_by(less).unwrap_or(0)
}

fn no_such(repo: &str, tag: &str, candidates: &[Candidate]) -> Error {
    let mut there: Vec<String> = candidates.iter().map(|c| c.tag.clone()).collect();
    there.sort();
    there.dedup();
    Error::NoSuchQuant { repo: repo.to_owned(), tag: tag.to_owned(), there }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_from(tag: Option<&str>, paths: &[&str]) -> Result<Vec<String>, Error> {
        let file = |path: &&str| RepoFile {
            path: (*path).to_owned(),
            size: Bytes(1),
            sha256: None,
            oid: String::new(),
        };
        let wanted = Wanted {
            repo: "o/r".to_owned(),
            revision: "main".to_owned(),
            tag: tag.map(str::to_owned),
        };
        let choice = choose(&wanted, paths.iter().map(file).collect())?;
        Ok(choice.files.into_iter().map(|f| f.path).collect())
    }

    #[test]
    fn the_usual_one_is_chosen() {
        let all =
            ["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "mmproj-m-f16.gguf", "README.md"];
        assert_eq!(choose_from(None, &all).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(
            choose_from(None, &["m-Q8_0.gguf", "m-Q5_K_M.gguf", "m-Q2_K.gguf"]).unwrap(),
            ["m-Q5_K_M.gguf"]
        );
        assert_eq!(choose_from(None, &["m.gguf"]).unwrap(), ["m.gguf"]);
    }

    #[test]
    fn a_quantisation_or_a_file_is_found() {
        let all = [
            "m-q8_0.gguf",
            "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf",
            "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf",
            "UD/m-UD-Q4_K_M.gguf",
        ];
        assert_eq!(choose_from(Some("Q8_0"), &all).unwrap(), ["m-q8_0.gguf"]);
        assert_eq!(choose_from(Some("q4_k_m"), &all).unwrap().len(), 2);
        assert_eq!(
            choose_from(Some("Q4_K_M/m-Q4_K_M-00001-of-00002.gguf"), &all).unwrap().len(),
            2
        );
        assert_eq!(choose_from(Some("ud-q4_k_m"), &all).unwrap(), ["UD/m-UD-Q4_K_M.gguf"]);
        let error = choose_from(Some("Q3_K_M"), &all).unwrap_err();
        assert!(error.to_string().contains("there is Q4_K_M, Q8_0, UD-Q4_K_M"), "{error}");
        assert!(choose_from(Some("Q4_0"), &["m-Q4_0-00001-of-00002.gguf"]).is_err());
        let error = choose_from(None, &["model.safetensors"]).unwrap_err();
        assert!(error.to_string().contains("safetensors"), "{error}");
    }
}
