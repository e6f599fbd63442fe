//! `airrun pull` against a hub of its own: a server that speaks the hub's protocol, well and badly.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_abcdefghijklmnopqrstuvwxyz0123456789";

/// What the server does wrong.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    None,
    /// The first answers end after half of what they promise.
    Cut(usize),
    /// As many bytes as promised, but others.
    OtherBytes,
    /// Every answer begins at the beginning; the first ones are cut.
    NoRanges(usize),
    /// The first answers are this status, with `Retry-After: 0`.
    Busy(u16, usize),
    /// All answers about the repository are this status.
    Refuse(u16),
    /// The file is always somewhere else.
    Redirects,
    /// No length is announced: the file ends when the connection does.
    NoLength,
    /// The list of files says that it is this long.
    Huge(u64),
    /// After half of it nothing comes any more.
    Stall,
}

struct Hub {
    address: String,
    fault: Fault,
    files: Vec<(String, Vec<u8>)>,
    /// Answers that a fault has spoilt so far.
    spoilt: AtomicUsize,
    /// First lines of requests, with their Range and Authorization.
    log: Mutex<Vec<String>>,
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Hub {
    fn start(fault: Fault, files: &[(&str, &[u8])]) -> Arc<Hub> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let files = files.iter().map(|(n, b)| ((*n).to_owned(), b.to_vec())).collect();
        let (spoilt, log) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let hub = Arc::new(Hub { address, fault, files, spoilt, log });
        let serving = Arc::clone(&hub);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = Arc::clone(&serving);
                thread::spawn(move || hub.serve(stream));
            }
        });
        hub
    }

    /// Whether one more answer is to be spoilt, of `n`.
    fn spoil(&self, n: usize) -> bool {
        self.spoilt.fetch_add(1, Ordering::SeqCst) < n
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(first)) = lines.next() else { return };
        let headers: Vec<String> =
            lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
        let header = |name: &str| {
            let prefix = format!("{name}: ");
            let found = headers.iter().find(|h| h.to_lowercase().starts_with(&prefix));
            found.map(|h| h[prefix.len()..].to_owned())
        };
        let (range, authorization) = (header("range"), header("authorization"));
        let entry = format!("{first} range={range:?} auth={authorization:?}");
        self.log.lock().unwrap().push(entry);
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        // A client that has heard enough closes: that is no failure of the server.
        drop(self.answer(&mut stream, &path, from.unwrap_or(0)));
    }

    fn answer(&self, out: &mut TcpStream, path: &str, from: usize) -> std::io::Result<()> {
        match &self.fault {
            Fault::Refuse(status) => return simple(out, *status, "", b"{}"),
            Fault::Busy(status, n) if self.spoil(*n) => {
                return simple(out, *status, "Retry-After: 0\r\n", b"");
            }
            _ => {}
        }
        if path.starts_with("/api/models/o/r/revision/main") {
            return simple(out, 200, "", format!(r#"{{"sha":"{COMMIT}"}}"#).as_bytes());
        }
        if path == format!("/api/models/o/r/tree/{COMMIT}?recursive=true") {
            return simple(out, 200, "", self.tree().as_bytes());
        }
        if path.starts_with("/o/r/resolve/") && self.fault == Fault::Redirects {
            return simple(out, 302, &format!("Location: {path}x\r\n"), b"");
        }
        if let Some(file) = path.strip_prefix(&format!("/o/r/resolve/{COMMIT}/")) {
            // Another host, as far as a client can tell.
            let port = self.address.rsplit(':').next().unwrap();
            let location = format!("Location: http://localhost:{port}/cdn/{file}?sign=1\r\n");
            return simple(out, 302, &location, b"");
        }
        let name = path.strip_prefix("/cdn/").and_then(|p| p.split('?').next()).unwrap_or_default();
        match self.files.iter().find(|(n, _)| n.replace(' ', "%20") == name) {
            Some((_, bytes)) => self.content(out, bytes, from),
            None => simple(out, 404, "", b"{}"),
        }
    }

    fn tree(&self) -> String {
        let items = self.files.iter().map(|(name, bytes)| {
            let size = match self.fault {
                Fault::Huge(n) => n,
                _ => bytes.len() as u64,
            };
            serde_json::json!({"type": "file", "path": name, "size": size, "oid": "f".repeat(40),
                "lfs": {"oid": hash(bytes), "size": size, "pointerSize": 135}})
        });
        serde_json::to_string(&items.collect::<Vec<_>>()).unwrap()
    }

    fn content(&self, out: &mut TcpStream, bytes: &[u8], from: usize) -> std::io::Result<()> {
        let from = if matches!(self.fault, Fault::NoRanges(_)) { 0 } else { from.min(bytes.len()) };
        let mut body = bytes[from..].to_vec();
        if self.fault == Fault::OtherBytes {
            body.iter_mut().for_each(|b| *b ^= 1);
        }
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        write!(out, "HTTP/1.1 {status}\r\nConnection: close\r\n")?;
        if from > 0 {
            write!(out, "Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len())?;
        }
        if self.fault != Fault::NoLength {
            write!(out, "Content-Length: {}\r\n", body.len())?;
        }
        write!(out, "\r\n")?;
        let half = body.len() / 2;
        match self.fault {
            Fault::Cut(n) | Fault::NoRanges(n) if self.spoil(n) => out.write_all(&body[..half]),
            Fault::Stall => {
                out.write_all(&body[..half])?;
                out.flush()?;
                thread::sleep(Duration::from_secs(600));
                Ok(())
            }
            _ => out.write_all(&body),
        }
    }

    fn requests(&self, word: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|l| l.contains(word)).cloned().collect()
    }
}

fn simple(out: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let len = body.len();
    write!(
        out,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n"
    )?;
    out.write_all(body)
}

fn draft() -> Vec<u8> {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "models", "tiny-draft-q8_0.gguf"].iter().collect();
    fs::read(path).unwrap()
}

fn airrun(hub: &Hub, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    for var in ["HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "LLAMA_CACHE"]
    {
        command.env_remove(var);
    }
    for var in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        command.env_remove(var);
    }
    command
        .args(args)
        .current_dir(home)
        .env("HF_ENDPOINT", format!("http://{}", hub.address))
        .env("HF_HOME", home.join("hf"))
        .env("HOME", home)
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("OLLAMA_MODELS", home.join("ollama"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

fn pull(hub: &Hub, home: &Path, name: &str) -> Output {
    airrun(hub, home, &["pull", name]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that it succeeded, and that what lies where it says is `want`.
#[track_caller]
fn check_pulled(output: &Output, want: &[u8]) -> PathBuf {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let path = PathBuf::from(text(&output.stdout).trim_end());
    assert!(fs::read(&path).unwrap() == want, "another content at {}", path.display());
    path
}

#[track_caller]
fn check_refused(output: &Output, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    for word in words.iter().chain(&["airrun: ", "\n\nhint: "]) {
        assert!(stderr.contains(word), "'{word}' is missing in: {stderr}");
    }
}

fn blobs(home: &Path) -> Vec<String> {
    let dir = fs::read_dir(home.join("hf/hub/models--o--r/blobs"));
    let names = dir.into_iter().flatten().flatten().map(|e| e.file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_model_is_pulled_once_and_found_by_name() {
    let home = tempfile::tempdir().unwrap();
    let file = draft();
    let hub = Hub::start(
        Fault::None,
        &[("Tiny-Q4_K_M.gguf", &file), ("sub/Tiny-Q8_0.gguf", b"x"), ("mmproj-f16.gguf", b"y")],
    );
    let output =
        airrun(&hub, home.path(), &["pull", "o/r"]).env("HF_TOKEN", TOKEN).output().unwrap();
    let path = check_pulled(&output, &file);
    let cache = home.path().join("hf/hub/models--o--r");
    assert_eq!(path, cache.join("snapshots").join(COMMIT).join("Tiny-Q4_K_M.gguf"));
    assert_eq!(
        fs::read_link(&path).unwrap(),
        PathBuf::from(format!("../../blobs/{}", hash(&file)))
    );
    assert_eq!(fs::read_to_string(cache.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(blobs(home.path()), [hash(&file)]);
    assert!(hub.requests("/api/").iter().all(|l| l.contains(TOKEN)));
    assert!(
        hub.requests("/cdn/").iter().all(|l| l.contains("auth=None")),
        "the token went elsewhere"
    );

    check_pulled(&pull(&hub, home.path(), "hf.co/o/r:Q4_K_M"), &file);
    assert_eq!(hub.requests("/cdn/").len(), 1, "it was here already");
    let output = airrun(&hub, home.path(), &["inspect", "o/r", "--json"]).output().unwrap();
    assert!(text(&output.stdout).contains("tiny-draft"), "{}", text(&output.stderr));
}

#[test]
fn quantisations_files_and_parts_are_chosen() {
    let home = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 5] = [
        ("m-Q8_0.gguf", b"eight"),
        ("m-Q5_K_M.gguf", b"five"),
        ("big/m-F16-00001-of-00002.gguf", b"one"),
        ("big/m-F16-00002-of-00002.gguf", b"two"),
        ("a b-Q2_K.gguf", b"blank"),
    ];
    let hub = Hub::start(Fault::None, &files);
    let output = pull(&hub, home.path(), "o/r");
    check_pulled(&output, b"five");
    assert!(text(&output.stderr).contains("there is no Q4_K_M; taking Q5_K_M"));
    check_pulled(&pull(&hub, home.path(), "o/r:q8_0"), b"eight");
    check_pulled(&pull(&hub, home.path(), "o/r:Q2_K"), b"blank");
    let first = check_pulled(&pull(&hub, home.path(), "o/r:f16"), b"one");
    let second = first.with_file_name("m-F16-00002-of-00002.gguf");
    assert_eq!(fs::read(second).unwrap(), b"two");
    let url = format!("http://{}/o/r/resolve/main/m-Q8_0.gguf?download=true", hub.address);
    check_pulled(&pull(&hub, home.path(), &url), b"eight");
    check_refused(&pull(&hub, home.path(), "o/r:Q3_K_S"), &["no 'Q3_K_S'", "Q5_K_M"]);
}

#[test]
fn cut_connections_are_resumed() {
    for fault in [
        Fault::Cut(2),
        Fault::NoRanges(2),
        Fault::Busy(503, 2),
        Fault::Busy(429, 1),
        Fault::NoLength,
    ] {
        let home = tempfile::tempdir().unwrap();
        let file = draft();
        let hub = Hub::start(fault.clone(), &[("Tiny-Q4_K_M.gguf", &file)]);
        let output = pull(&hub, home.path(), "o/r");
        check_pulled(&output, &file);
        assert_eq!(blobs(home.path()), [hash(&file)], "{fault:?}");
        if let Fault::Cut(_) = fault {
            let from = format!("bytes={}-", file.len() / 2);
            assert!(!hub.requests(&from).is_empty(), "{:?}", hub.requests("/cdn/"));
        }
    }
}

#[test]
fn what_is_left_of_an_earlier_run_is_used_if_it_is_right() {
    let file = draft();
    for (left, is_right) in
        [(file[..1000].to_vec(), true), (vec![7; 1000], false), (vec![7; file.len() + 9], false)]
    {
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::start(Fault::None, &[("Tiny-Q4_K_M.gguf", &file)]);
        let blobs = home.path().join("hf/hub/models--o--r/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", hash(&file))), &left).unwrap();
        check_pulled(&pull(&hub, home.path(), "o/r"), &file);
        let asked = hub.requests("/cdn/");
        assert_eq!(
            asked.iter().any(|l| l.contains("bytes=1000-")),
            left.len() == 1000,
            "{asked:?}"
        );
        assert_eq!(asked.len(), if left.len() == 1000 && !is_right { 2 } else { 1 }, "{asked:?}");
    }
}

#[test]
fn what_cannot_work_ends_with_a_reason() {
    let file = draft();
    for (fault, words) in [
        (Fault::OtherBytes, &["damaged", "SHA-256"][..]),
        (Fault::Cut(usize::MAX), &["connection", "kept"]),
        (Fault::Busy(500, usize::MAX), &["500", "kept"]),
        (Fault::Refuse(401), &["not public", "HF_TOKEN"]),
        (Fault::Refuse(403), &["terms", "/o/r", "HF_TOKEN"]),
        (Fault::Refuse(404), &["does not exist"]),
        (Fault::Refuse(418), &["418"]),
        (Fault::Redirects, &["redirected without end"]),
        (Fault::Huge(1 << 60), &["missing", "free some room"]),
    ] {
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::start(fault.clone(), &[("Tiny-Q4_K_M.gguf", &file)]);
        check_refused(&pull(&hub, home.path(), "o/r"), words);
        let left = blobs(home.path());
        let kept = matches!(fault, Fault::Cut(_));
        assert_eq!(
            left.iter().filter(|n| n.ends_with(".incomplete")).count() > 0,
            kept,
            "{fault:?} {left:?}"
        );
        assert!(!left.contains(&hash(&file)), "{fault:?}");
    }
}

#[test]
fn repositories_without_gguf_and_wrong_names_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(Fault::None, &[("model.safetensors", b"x")]);
    check_refused(&pull(&hub, home.path(), "o/r"), &["no GGUF", "safetensors", "-GGUF"]);
    for name in ["nonsense", "../..", "o/r:", "https://example.com/o/r", "o r/x"] {
        check_refused(&pull(&hub, home.path(), name), &[&format!("model '{name}': ")]);
    }
    let output =
        airrun(&hub, home.path(), &["pull", "o/r"]).env("HF_TOKEN", "a\nb").output().unwrap();
    check_refused(&output, &["token"]);
    let nobody = airrun(&hub, home.path(), &["pull", "o/r"])
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .unwrap();
    check_refused(&nobody, &["127.0.0.1:1"]);
}

#[test]
fn a_full_disk_is_said() {
    let home = tempfile::tempdir().unwrap();
    let file = draft();
    let hub = Hub::start(Fault::None, &[("Tiny-Q4_K_M.gguf", &file)]);
    let blobs = home.path().join("hf/hub/models--o--r/blobs");
    fs::create_dir_all(&blobs).unwrap();
    // A file on which every write fails for want of room.
    symlink("/dev/full", blobs.join(format!("{}.incomplete", hash(&file)))).unwrap();
    check_refused(&pull(&hub, home.path(), "o/r"), &["No space left", "free some room"]);
}

#[test]
fn an_interrupt_leaves_what_can_be_resumed() {
    let home = tempfile::tempdir().unwrap();
    let file = draft();
    let hub = Hub::start(Fault::Stall, &[("Tiny-Q4_K_M.gguf", &file)]);
    let mut child = airrun(&hub, home.path(), &["pull", "o/r"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let left =
        home.path().join("hf/hub/models--o--r/blobs").join(format!("{}.incomplete", hash(&file)));
    let begin = Instant::now();
    while fs::metadata(&left).map_or(0, |m| m.len()) < file.len() as u64 / 2 {
        assert!(begin.elapsed() < Duration::from_secs(120), "nothing came");
        thread::sleep(Duration::from_millis(10));
    }
    // Another program sees that it is under way.
    check_refused(&pull(&hub, home.path(), "o/r"), &["another program"]);
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    let hub = Hub::start(Fault::None, &[("Tiny-Q4_K_M.gguf", &file)]);
    check_pulled(&pull(&hub, home.path(), "o/r"), &file);
    assert!(hub.requests("/cdn/")[0].contains(&format!("bytes={}-", file.len() / 2)));
}

#[test]
fn a_server_downloads_where_it_was_told_to() {
    let home = tempfile::tempdir().unwrap();
    let file = draft();
    let hub = Hub::start(Fault::None, &[("Tiny-Q4_K_M.gguf", &file)]);
    let model = format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"));
    let args = ["serve", &model, "--port", "0", "-t", "1", "-c", "256", "--pull"];
    let server = crate::serve::Server::run(&mut airrun(&hub, home.path(), &args));
    let lines = server.post("/api/pull", &serde_json::json!({"model": "o/r"})).text;
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[lines.len() - 1], serde_json::json!({"status": "success"}), "{lines:?}");
    assert!(lines[lines.len() - 2]["status"].as_str().unwrap().contains("o/r:Q4_K_M"), "{lines:?}");
    let path = home.path().join("hf/hub/models--o--r/snapshots").join(COMMIT);
    assert_eq!(fs::read(path.join("Tiny-Q4_K_M.gguf")).unwrap(), file);
    let body = serde_json::json!({"model": "o/r:Q2_K", "stream": false});
    let missing = server.post("/api/pull", &body);
    assert!(missing.status == 500 && missing.json()["error"].is_string(), "{missing:?}");
    let odd = server.post("/api/pull", &serde_json::json!({"model": "llama3.2"}));
    assert!(odd.status == 400 && odd.text.contains("ORG/REPO"), "{odd:?}");
}
