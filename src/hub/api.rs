//! What the hub says: the commit of a revision, and the files of a repository. It downloads no file.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::name::is_path;
use super::{Error, Options, Wanted};
use crate::units::Bytes;

/// The longest answer that is read. (bytes)
const MAX_ANSWER: u64 = 32 << 20;
/// Pages of a list of files.
const MAX_PAGES: usize = 100;
/// Requests for one thing that fail, until the failure is believed.
pub(super) const TRIES: u32 = 5;
/// The wait after the first failure; doubled after each.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait that a server can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection that says nothing for so long is lost.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);

/// The hub.
pub(super) struct Hub<'a> {
    agent: Agent,
    options: &'a Options,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its path in the repository.
    pub(super) path: String,
    /// Its length.
    pub(super) size: Bytes,
    /// Its SHA-256, in hexadecimal digits, if the hub knows it.
    pub(super) sha256: Option<String>,
    /// What the hub names its content.
    pub(super) oid: String,
}

impl RepoFile {
    /// Its name without directories.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

#[derive(Deserialize)]
struct Revision {
    sha: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(default)]
    oid: String,
    size: Option<u64>,
}

impl<'a> Hub<'a> {
    pub(super) fn new(options: &'a Options) -> Hub<'a> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            // Files are kept elsewhere, and that place must not see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("airrun/", env!("CARGO_PKG_VERSION")));
        Hub { agent: config.build().into(), options }
    }

    /// The commit that a revision means.
    pub(super) fn commit(&self, wanted: &Wanted) -> Result<String, Error> {
        let Wanted { repo, revision, .. } = wanted;
        let url = format!("{}/api/models/{repo}/revision/{revision}", self.options.endpoint);
        let found: Revision = self.json(&url, repo, &format!("revision '{revision}'"))?.0;
        found
            .sha
            .filter(|sha| is_commit(sha))
            .ok_or_else(|| Error::Nonsense("no commit is named".to_owned()))
    }

    /// All files at a commit. Names that lead elsewhere are left out.
    pub(super) fn files(&self, repo: &str, commit: &str) -> Result<Vec<RepoFile>, Error> {
        let base = &self.options.endpoint;
        let mut url = format!("{base}/api/models/{repo}/tree/{commit}?recursive=true");
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let (items, next): (Vec<Item>, _) = self.json(&url, repo, "its list of files")?;
            files.extend(items.into_iter().filter_map(file));
            // Only pages of the same hub: the token goes there, too.
            match next.filter(|n| n.starts_with(&format!("{base}/"))) {
                Some(next) => url = next,
                None => break,
            }
        }
        Ok(files)
    }

    /// A JSON answer, and the address of its next page.
    fn json<T: DeserializeOwned>(
        &self,
        url: &str,
        repo: &str,
        what: &str,
    ) -> Result<(T, Option<String>), Error> {
        let mut failures = 0;
        loop {
            let failed = match self.get(url, None) {
                Ok(mut answer) if answer.status().is_success() => {
                    let next = next_page(&answer);
                    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
                    match body {
                        Ok(bytes) => {
                            let parsed = serde_json::from_slice(&bytes);
                            return parsed
                                .map(|v| (v, next))
                                .map_err(|e| Error::Nonsense(e.to_string()));
                        }
                        Err(error) => Failed { error: self.network(url, &error), wait: None },
                    }
                }
                Ok(answer) => self.refused(url, repo, what, &answer)?,
                Err(error) => Failed { error: self.network(url, &error), wait: None },
            };
            failures += 1;
            failed.wait_or_give_up(failures)?;
        }
    }

    /// Asks for `url`, from byte `from` on.
    pub(super) fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.options.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from.filter(|&n| n > 0) {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call()
    }

    /// The address of a file.
    pub(super) fn file_url(&self, repo: &str, commit: &str, path: &str) -> String {
        format!("{}/{repo}/resolve/{commit}/{}", self.options.endpoint, escaped(path))
    }

    /// An answer that is not what was asked for: an error, or a failure after which to try again.
    pub(super) fn refused(
        &self,
        url: &str,
        repo: &str,
        what: &str,
        answer: &Response<Body>,
    ) -> Result<Failed, Error> {
        let repo = repo.to_owned();
        let token = self.options.token.is_some();
        let code = answer.headers().get("X-Error-Code").and_then(|v| v.to_str().ok());
        let status = match answer.status().as_u16() {
            // A repository that everybody sees and not everybody may read.
            401 if code == Some("GatedRepo") => 403,
            status => status,
        };
        match status {
            401 => Err(Error::Unknown { repo, token }),
            403 => {
                let page = format!("{}/{repo}", self.options.endpoint);
                Err(Error::Gated { repo, page, token })
            }
            404 | 410 => Err(Error::NotFound { repo, what: what.to_owned() }),
            status @ (408 | 425 | 429 | 500..) => {
                let asked = answer.headers().get("Retry-After").and_then(|v| v.to_str().ok());
                let wait = asked.and_then(|t| t.trim().parse().ok()).map(Duration::from_secs);
                Ok(Failed { error: Error::Status { url: url.to_owned(), status }, wait })
            }
            status => Err(Error::Status { url: url.to_owned(), status }),
        }
    }

    /// An error of the network, in words.
    pub(super) fn network(&self, url: &str, error: &ureq::Error) -> Error {
        let why = match error {
            ureq::Error::TooManyRedirects => "it is redirected without end".to_owned(),
            ureq::Error::HostNotFound => {
                "the server's name is not known: is there a network?".to_owned()
            }
            ureq::Error::Timeout(_) => format!("no answer for {} s", SILENCE.as_secs()),
            other => other.to_string(),
        };
        Error::Network { url: url.to_owned(), why }
    }
}

/// Something that may go better the next time.
pub(super) struct Failed {
    pub(super) error: Error,
    /// What the server asks for.
    pub(super) wait: Option<Duration>,
}

impl Failed {
    /// Waits before the next try; after too many of them, the failure is an error.
    pub(super) fn wait_or_give_up(self, failures: u32) -> Result<(), Error> {
        // What never changes is not tried again.
        let hopeless =
            matches!(&self.error, Error::Network { why, .. } if why.contains("redirected"));
        if failures >= TRIES || hopeless {
            return Err(self.error);
        }
        let usual = FIRST_WAIT * 2_u32.saturating_pow(failures.saturating_sub(1));
        std::thread::sleep(self.wait.unwrap_or(usual).min(LONGEST_WAIT));
        Ok(())
    }
}

/// Reads what a hub may say of a revision and its files, without asking one: for fuzzing.
pub(super) fn try_list(bytes: &[u8]) {
    if let Ok(Revision { sha }) = serde_json::from_slice(bytes) {
        drop(sha.filter(|sha| is_commit(sha)));
    }
    let items: Vec<Item> = serde_json::from_slice(bytes).unwrap_or_default();
    for file in items.into_iter().filter_map(file) {
        assert!(!escaped(&file.path).contains([' ', '?', '#']) && !file.name().contains('/'));
    }
}

fn is_commit(sha: &str) -> bool {
    sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A file from a list, if it is one.
fn file(item: Item) -> Option<RepoFile> {
    let Item { kind, path, size, oid, lfs } = item;
    if kind != "file" || !is_path(&path) {
        return None;
    }
    let is_hash = |s: &String| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
    let size = Bytes(lfs.as_ref().and_then(|l| l.size).unwrap_or(size));
    let sha256 =
        lfs.map(|l| l.oid.trim_start_matches("sha256:").to_ascii_lowercase()).filter(is_hash);
    let is_name =
        |s: &String| s.len() >= 8 && s.len() <= 128 && s.bytes().all(|b| b.is_ascii_hexdigit());
    let oid = sha256.clone().or(Some(oid).filter(is_name))?;
    Some(RepoFile { path, size, sha256, oid })
}

/// The address marked `rel="next"`.
fn next_page(answer: &Response<Body>) -> Option<String> {
    let links = answer.headers().get("Link")?.to_str().ok()?;
    let next = links.split(',').find(|l| l.contains("rel=\"next\""))?;
    let (from, to) = (next.find('<')?, next.find('>')?);
    next.get(from + 1..to).map(str::to_owned)
}

/// A path as it stands in an address.
fn escaped(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                text.push(byte.into())
            }
            other => text += &format!("%{other:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_lead_elsewhere_are_left_out() {
        let item = |path: &str, oid: &str| {
            let json = serde_json::json!({"type":"file","path":path,"size":3,"oid":oid,"lfs":{"oid":oid,"size":7}});
            file(serde_json::from_value(json).unwrap())
        };
        let hash = "AB".repeat(32);
        let found = item("a b/x.gguf", &hash).unwrap();
        assert_eq!(
            (found.size, found.sha256.as_deref()),
            (Bytes(7), Some("ab".repeat(32).as_str()))
        );
        assert_eq!(found.name(), "x.gguf");
        for path in ["../x", "/x", "a/../../x", "", "a//b", "a\\b"] {
            assert_eq!(item(path, &hash), None, "{path}");
        }
        assert_eq!(item("x", "../../evil"), None);
        assert_eq!(item("x", &"a".repeat(40)).unwrap().sha256, None);
        assert_eq!(escaped("a b/ü.gguf"), "a%20b/%C3%BC.gguf");
    }
}
