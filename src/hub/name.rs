//! What was asked for: a repository with or without a quantisation, or the address of one file. It asks nobody.

use super::Error;

/// Hosts whose addresses are taken for the hub's, wherever it is.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];
/// Longest part of a repository's name that the hub allows.
const MAX_PART: usize = 96;

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `org/repo`.
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The quantisation, or the name of a file.
    pub tag: Option<String>,
}

impl Wanted {
    /// Reads `org/repo`, `org/repo:Q4_K_M`, the same behind `hf.co/`, or the address of a file in a repository.
    ///
    /// # Errors
    ///
    /// What cannot be a repository's name.
    pub fn parse(text: &str) -> Result<Wanted, Error> {
        let wrong = |why| Error::Name { name: text.to_owned(), why };
        let trimmed = text.trim();
        let address = ["https://", "http://"].iter().find_map(|p| trimmed.strip_prefix(p));
        let rest = match address {
            Some(address) => {
                let (host, rest) = address.split_once('/').unwrap_or((address, ""));
                let known = HOSTS.contains(&host)
                    || std::env::var("HF_ENDPOINT").is_ok_and(|e| trimmed.starts_with(&e));
                known.then_some(rest).ok_or_else(|| wrong("it is not an address on the hub"))?
            }
            None => HOSTS
                .iter()
                .find_map(|h| trimmed.strip_prefix(h)?.strip_prefix('/'))
                .unwrap_or(trimmed),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let mut parts = rest.splitn(3, '/');
        let org = parts.next().unwrap_or_default();
        let repo = parts.next().ok_or_else(|| wrong("a repository's name is ORG/REPO"))?;
        let (repo, tag) = match repo.split_once(':') {
            Some((repo, tag)) => (repo, Some(tag)),
            None => (repo, None),
        };
        if !is_part(org) || !is_part(repo) {
            return Err(wrong(
                "a repository's name is ORG/REPO, of letters, digits, '-', '_' and '.'",
            ));
        }
        let wanted = |revision: &str, tag: Option<&str>| Wanted {
            repo: format!("{org}/{repo}"),
            revision: revision.to_owned(),
            tag: tag.map(str::to_owned),
        };
        match parts.next() {
            None if tag == Some("") => Err(wrong("there is nothing after the ':'")),
            // Ollama's word for whatever is usual.
            None => Ok(wanted("main", tag.filter(|t| !t.eq_ignore_ascii_case("latest")))),
            Some(_) if tag.is_some() => Err(wrong("give a quantisation or a file, not both")),
            Some(inside) => in_repo(inside)
                .map_or(Err(wrong("it is not a file in a repository")), |(revision, file)| {
                    Ok(wanted(revision, file))
                }),
        }
    }
}

/// The revision and the file of `resolve/main/dir/file.gguf`, `tree/main`, or a plain path to a file.
fn in_repo(rest: &str) -> Option<(&str, Option<&str>)> {
    let (verb, after) = rest.split_once('/').unwrap_or((rest, ""));
    if matches!(verb, "resolve" | "blob" | "raw") {
        let (revision, file) = after.split_once('/')?;
        return (is_part(revision) && is_path(file)).then_some((revision, Some(file)));
    }
    if verb == "tree" {
        return is_part(after).then_some((after, None));
    }
    is_path(rest).then_some(("main", Some(rest)))
}

/// A part of a repository's name, as the hub allows it.
fn is_part(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty()
        && text.len() <= MAX_PART
        && text.chars().all(fine)
        && !text.starts_with('.')
        && !text.contains("..")
}

/// A path inside a repository that leads nowhere else.
pub(super) fn is_path(path: &str) -> bool {
    let fine = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() < 256;
    path.len() < 4096
        && path.split('/').all(fine)
        && !path.chars().any(|c| c.is_control() || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read() {
        let want = |repo: &str, revision: &str, tag: Option<&str>| Wanted {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            tag: tag.map(str::to_owned),
        };
        for (text, expected) in [
            ("org/repo", want("org/repo", "main", None)),
            ("org/repo:Q4_K_M", want("org/repo", "main", Some("Q4_K_M"))),
            ("org/repo:latest", want("org/repo", "main", None)),
            ("hf.co/org/re.po-1:q8_0", want("org/re.po-1", "main", Some("q8_0"))),
            ("https://huggingface.co/org/repo", want("org/repo", "main", None)),
            ("https://huggingface.co/org/repo/tree/main", want("org/repo", "main", None)),
            (
                "https://huggingface.co/org/repo/resolve/v1/sub/x.gguf?download=true",
                want("org/repo", "v1", Some("sub/x.gguf")),
            ),
            ("org/repo/x.gguf", want("org/repo", "main", Some("x.gguf"))),
        ] {
            assert_eq!(Wanted::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "repo",
            "org/",
            "/repo",
            "org/repo:",
            "../..",
            "org/..",
            "o rg/repo",
            "org/repo:a/b",
            "https://example.com/org/repo",
            "org/repo/resolve/main/../../x",
            "org/repo/a//b",
            "ftp://x/y",
            "-/\u{7}",
        ] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }
}
