//! From what was typed to one model: the whole name, else a beginning that only one has; or what could have been meant.

use std::path::Path;

use super::{Catalog, Model, quant};

/// Candidates that a message names.
const MAX_NAMED: usize = 10;
/// Names that are less alike than this are not worth a question. (0 to 1)
const ALIKE: f64 = 0.55;

/// What addresses on the Hugging Face hub begin with.
const HUB: [&str; 3] = ["huggingface.co/", "www.huggingface.co/", "hf.co/"];

/// The quantisation that a repository's name alone means.
pub const PREFERRED: &str = "Q4_K_M";

/// Why a name means no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nothing begins like this.
    #[error("model '{name}': no model of this name is on this machine")]
    Unknown {
        /// What was typed.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// Several begin like this.
    #[error("model '{name}': it could be {}{}", list(candidates), and_more(*more))]
    Ambiguous {
        /// What was typed.
        name: String,
        /// Whole names.
        candidates: Vec<String>,
        /// How many more there are.
        more: usize,
    },
}

fn list(candidates: &[String]) -> String {
    match candidates {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => candidates.join(""),
    }
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(", and there are {more} more") }
}

impl FindError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            FindError::Unknown { name, .. } if is_address(name) && !is_on_the_hub(name) => {
                "models are files: download it first, and give the path of the file".to_owned()
            }
            FindError::Unknown { name, nearest } if name.contains('/') => match nearest {
                Some(near) => {
                    format!("`airrun pull {name}` downloads it; or did you mean '{near}'?")
                }
                None => {
                    format!("`airrun pull {name}` downloads it; `airrun list` shows what is here")
                }
            },
            FindError::Unknown { nearest: Some(name), .. } => {
                format!("did you mean '{name}'? `airrun list` shows all of them")
            }
            FindError::Unknown { .. } => {
                "give the path of a .gguf file, or a name that `airrun list` shows; \
                 `airrun pull ORG/REPO` downloads a model"
                    .to_owned()
            }
            FindError::Ambiguous { .. } => "write more of the name".to_owned(),
        }
    }
}

/// Whether `text` can only be a path: it leads somewhere, or looks like a file's.
pub(super) fn is_path(text: &Path) -> bool {
    let looks = text.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let leads = text.is_absolute() || text.starts_with(".") || text.starts_with("..");
    let address = text.to_str().is_some_and(is_address);
    leads || text.is_file() || (looks && !address && text.components().count() > 1)
}

/// Whether `name` is an address on the web.
fn is_address(name: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| name.starts_with(scheme))
}

/// Whether the address `name` is on the Hugging Face hub, from where `airrun pull` downloads.
fn is_on_the_hub(name: &str) -> bool {
    let after = name.split_once("://").map_or(name, |(_, rest)| rest);
    HUB.iter().any(|host| after.starts_with(host))
}

impl Catalog {
    /// The model that `name` means.
    ///
    /// # Errors
    ///
    /// No model of this name, or several.
    pub fn find(&self, name: &str) -> Result<&Model, FindError> {
        let plain = plain(name);
        let whole: Vec<&Model> =
            self.models.iter().filter(|m| spellings(m).any(|s| s == plain)).collect();
        if let Some(model) = whole.iter().find(|m| m.name.to_lowercase() == plain) {
            return Ok(model);
        }
        if let Some(model) = one(&whole) {
            return Ok(model);
        }
        let begin = if whole.is_empty() { self.beginning(name) } else { whole };
        match one(&begin) {
            Some(model) => Ok(model),
            None if begin.is_empty() => {
                Err(FindError::Unknown { name: name.to_owned(), nearest: self.nearest(&plain) })
            }
            None => Err(ambiguous(name, &begin)),
        }
    }

    /// The models one of whose names begins with `name`.
    pub(super) fn beginning(&self, name: &str) -> Vec<&Model> {
        let plain = plain(name);
        self.models.iter().filter(|m| spellings(m).any(|s| s.starts_with(&plain))).collect()
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let alike = |m: &Model| {
            let each = spellings(m).map(|s| strsim::normalized_damerau_levenshtein(&s, name));
            each.fold(0.0, f64::max)
        };
        let scored = self.models.iter().map(|m| (alike(m), m));
        let best = scored.filter(|s| s.0 >= ALIKE).reduce(|a, b| if b.0 > a.0 { b } else { a });
        best.map(|(_, m)| m.name.clone())
    }
}

/// The one that is meant if all are one model, or one repository's files of which one is the usual choice.
fn one<'a>(models: &[&'a Model]) -> Option<&'a Model> {
    let first = *models.first()?;
    if models.iter().all(|m| m.name == first.name) {
        return Some(first);
    }
    let repo = |m: &Model| m.name.rsplit_once(':').map(|(repo, _)| repo.to_owned());
    if repo(first).is_none() || models.iter().any(|m| repo(m) != repo(first)) {
        return None;
    }
    models
        .iter()
        .find(|m| quant::of_name(&m.name.replace(':', "-")).as_deref() == Some(PREFERRED))
        .copied()
}

fn ambiguous(name: &str, models: &[&Model]) -> FindError {
    let mut candidates: Vec<String> = models.iter().map(|m| m.name.clone()).collect();
    candidates.sort();
    candidates.dedup();
    let more = candidates.len().saturating_sub(MAX_NAMED);
    candidates.truncate(MAX_NAMED);
    FindError::Ambiguous { name: name.to_owned(), candidates, more }
}

/// A name as it is compared: without the hub's address, a file's ending, and capitals.
fn plain(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let name = ["https://", "http://"].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(&name);
    let name = HUB.iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    name.strip_suffix(".gguf").unwrap_or(name).to_owned()
}

/// All spellings of a model's name, plain.
fn spellings(model: &Model) -> impl Iterator<Item = String> + '_ {
    std::iter::once(&model.name).chain(&model.aliases).map(|name| plain(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::places::Kind;
    use crate::units::Bytes;

    fn catalog() -> Catalog {
        let model = |(name, aliases): (&str, &[&str])| Model {
            name: name.to_owned(),
            aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
            path: name.into(),
            size: Bytes(1),
            modified: 0,
            origin: Kind::Named,
            layers: None,
        };
        let all: [(&str, &[&str]); 8] = [
            ("llama3.2:1b", &[]),
            ("llama3.2:3b", &[]),
            ("phi3:latest", &["phi3"]),
            ("org/Big-GGUF:Q4_K_M", &["org/Big-GGUF", "Big-GGUF:Q4_K_M", "Big-Q4_K_M"]),
            ("org/Big-GGUF:Q8_0", &["org/Big-GGUF", "Big-GGUF:Q8_0", "Big-Q8_0"]),
            ("org/Small:Q5_0", &["org/Small", "Small:Q5_0"]),
            ("tiny chat", &[]),
            ("tiny chat", &[]),
        ];
        Catalog { models: all.into_iter().map(model).collect(), notes: Vec::new() }
    }

    #[test]
    fn names_complete() {
        let catalog = catalog();
        for (typed, want) in [
            ("llama3.2:1b", "llama3.2:1b"),
            ("LLAMA3.2:1B", "llama3.2:1b"),
            ("phi3", "phi3:latest"),
            ("ph", "phi3:latest"),
            ("org/Big-GGUF", "org/Big-GGUF:Q4_K_M"),
            ("hf.co/org/Big-GGUF:Q8_0", "org/Big-GGUF:Q8_0"),
            ("https://huggingface.co/org/big-gguf", "org/Big-GGUF:Q4_K_M"),
            ("big-gguf:q8", "org/Big-GGUF:Q8_0"),
            ("Big-Q8_0.gguf", "org/Big-GGUF:Q8_0"),
            ("org/small", "org/Small:Q5_0"),
            ("tiny chat", "tiny chat"),
            ("ti", "tiny chat"),
        ] {
            assert_eq!(catalog.find(typed).map(|m| m.name.as_str()), Ok(want), "{typed}");
        }
    }

    #[test]
    fn what_is_not_clear_is_asked() {
        let catalog = catalog();
        let error = catalog.find("llama3").unwrap_err();
        assert!(error.to_string().ends_with("it could be llama3.2:1b or llama3.2:3b"), "{error}");
        let error = catalog.find("lama3.2:1b").unwrap_err();
        assert!(error.hint().contains("did you mean 'llama3.2:1b'?"), "{}", error.hint());
        let error = catalog.find("some/thing-else").unwrap_err();
        assert!(error.hint().contains("airrun pull some/thing-else"), "{}", error.hint());
        let error = catalog.find("https://huggingface.co/a/b/resolve/main/x.gguf").unwrap_err();
        assert!(error.hint().contains("airrun pull https://"), "{}", error.hint());
        let error = catalog.find("https://example.com/x.gguf").unwrap_err();
        assert!(error.hint().contains("download it first"), "{}", error.hint());
        let error = catalog.find("org/smal-l").unwrap_err();
        assert!(error.hint().contains("airrun pull org/smal-l"), "{}", error.hint());
        assert!(matches!(catalog.find("org/"), Err(FindError::Ambiguous { .. })));
        assert!(Catalog::default().find("x").unwrap_err().hint().contains("airrun pull"));
    }

    #[test]
    fn paths_are_not_names() {
        for path in ["/x", "./x", "../x", "a/b.gguf", "a/b.GGUF"] {
            assert!(is_path(Path::new(path)), "{path}");
        }
        for name in
            ["x", "a/b", "llama3.2:1b", "x.gguf", "hf.co/a/b:Q4", "https://hf.co/a/b/x.gguf"]
        {
            assert!(!is_path(Path::new(name)), "{name}");
        }
    }
}
