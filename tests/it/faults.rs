//! Disks and files that go wrong under the real program: each ends in the right answer, or in a clear error at that token after which
//! the conversation goes on; never in wrong text, a hang or a crash. Broken disks are played by a library that stands in for
//! `pread` (`faults/bad_disk.c`), and by one that makes the kernel answer what a ring was asked with real errors (`faults/bad_ring.c`);
//! files are really cut off, overwritten and replaced.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cli::Terminal;

const QUESTION: &str = "What is the capital of Mongolia?";
const ANSWER: &str = "The capital of Mongolia is Ulaanbaatar.";

/// Longer than anything takes that ends at all.
const AGES: Duration = Duration::from_secs(120);

/// A copy of a small model that a test may ruin, and what its disk does.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        let model: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "models", "tiny-chat-q8_0.gguf"].iter().collect();
        fs::copy(model, bench.model()).unwrap();
        bench
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("m.gguf")
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// From the next read on. The file changes in one step.
    fn disk(&self, fault: &str) {
        let fresh = self.dir.path().join("control.new");
        fs::write(&fresh, fault).unwrap();
        fs::rename(fresh, self.control()).unwrap();
    }

    /// Makes reads hang while `begin` lets the program begin one, and waits until it has.
    fn hang(&self, begin: impl FnOnce()) {
        let hung = self.dir.path().join("control.hung");
        drop(fs::remove_file(&hung));
        self.disk("hang");
        begin();
        let since = Instant::now();
        while !hung.exists() {
            assert!(since.elapsed() < AGES, "nothing is read");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What makes a program see the bad disk; `None`, with a word, where that cannot be had.
    fn bad_disk(&self, reader: &'static str) -> Option<Vec<(&'static str, String)>> {
        let library = if reader == "uring" { bad_ring() } else { bad_disk() };
        Some(vec![
            ("LD_PRELOAD", library?.display().to_string()),
            ("FAULT_CONTROL", self.control().display().to_string()),
            ("AIRRUN_READER", reader.to_owned()),
        ])
    }

    /// `airrun run` over the bad disk, with every block streamed.
    fn run(&self, reader: &'static str, args: &[&str]) -> Option<Command> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
        command.arg("run").arg(self.model()).arg(QUESTION);
        command.args(["--stream", "always", "--temp", "0", "-t", "1"]).args(args);
        command.envs(self.bad_disk(reader)?).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Some(command)
    }

    /// A conversation, with every block streamed.
    fn chat(&self, envs: &[(&str, String)]) -> Option<Terminal> {
        let model = self.model().display().to_string();
        let args = ["chat", &model, "--temp", "0", "--stream", "always", "-c", "512"];
        Terminal::open_with(&args, self.dir.path(), envs)
    }
}

/// A library, and the directory that it is in as long as the tests run.
type Library = Option<(tempfile::TempDir, PathBuf)>;

/// What stands in for `pread`.
fn bad_disk() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("bad_disk")).as_ref().map(|(_, library)| library.as_path())
}

/// What spoils the reads that a ring is asked for.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn bad_ring() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    if !*ALLOWED.get_or_init(rings_are_allowed) {
        eprintln!("skipped: this system does not allow io_uring");
        return None;
    }
    LIBRARY.get_or_init(|| compile("bad_ring")).as_ref().map(|(_, library)| library.as_path())
}

/// Compiles one of the libraries in `faults`.
fn compile(name: &str) -> Library {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join(name).with_extension("so");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
    cc.arg(sources.join(name).with_extension("c")).arg("-ldl");
    if cc.status().is_ok_and(|status| status.success()) {
        return Some((dir, library));
    }
    crate::skip::skipped(&format!("there is no C compiler to make a {name} with"));
    None
}

/// Whether the program can read through io_uring here.
fn rings_are_allowed() -> bool {
    let bench = Bench::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.arg("run").arg(bench.model()).args([QUESTION, "--stream", "always", "-n", "1"]);
    command.env("AIRRUN_READER", "uring").stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for the end; a program that never ends is killed and fails the test.
#[track_caller]
fn end(mut child: Child) -> Output {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > AGES {
            child.kill().unwrap();
            panic!("the program hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Readers whose disk can be made to fail.
const FAILING: [&str; 2] = ["pread", "uring"];

#[test]
fn what_a_disk_makes_good_again_changes_no_answer() {
    for reader in FAILING {
        let bench = Bench::new();
        for fault in ["", "short", "slow", "eio once"] {
            bench.disk(fault);
            let Some(mut run) = bench.run(reader, &[]) else { break };
            let output = end(run.spawn().unwrap());
            // What streams and who drafts is said before; of the disk, nothing.
            let said = text(&output.stderr);
            let before =
                |line: &str| line.starts_with("streams ") || line.starts_with("drafts by ");
            let said: Vec<&str> = said.lines().filter(|line| !before(line)).collect();
            assert!(said.is_empty(), "{reader}, {fault}: {said:?}");
            assert_eq!(text(&output.stdout), format!("{ANSWER}\n"), "{reader}, {fault}");
            assert_eq!(output.status.code(), Some(0), "{reader}, {fault}");
            let failed = fault == "eio once" && !bench.control().exists();
            assert!(
                failed || fault != "eio once",
                "{reader}: the read that was to fail was never made"
            );
        }
    }
}

#[test]
fn a_disk_that_fails_from_the_beginning_is_an_error() {
    let bench = Bench::new();
    bench.disk("eio");
    for (reader, stream) in FAILING.into_iter().flat_map(|r| ["always", "auto"].map(|s| (r, s))) {
        let args = ["--stream", stream, "--ram", "150M"];
        let Some(mut run) = bench.run(reader, &args) else { continue };
        let output = end(run.spawn().unwrap());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{reader}: {stderr}");
        assert_eq!(text(&output.stdout), "");
        assert!(stderr.starts_with("airrun: ") && stderr.contains("m.gguf"), "{reader}: {stderr}");
        assert!(stderr.contains("nput/output error"), "{reader}: {stderr}");
    }
}

/// A long answer over a slow disk, of which the beginning has come. Gives what has come, too.
fn long_answer(bench: &Bench, reader: &'static str) -> Option<(Child, Vec<u8>)> {
    bench.disk("slow");
    let mut child = bench.run(reader, &["--ignore-eos", "-n", "400"])?.spawn().unwrap();
    let mut begun = vec![0; 10];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    Some((child, begun))
}

#[test]
fn a_disk_that_breaks_during_an_answer_ends_it_there() {
    for reader in FAILING {
        let bench = Bench::new();
        let Some(mut whole) = bench.run(reader, &["--ignore-eos", "-n", "400"]) else { continue };
        let whole = text(&end(whole.spawn().unwrap()).stdout);
        let Some((child, begun)) = long_answer(&bench, reader) else { continue };
        bench.disk("eio");
        let output = end(child);
        let (stdout, stderr) = (text(&[begun, output.stdout].concat()), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{reader}: {stderr}");
        assert!(whole.starts_with(stdout.trim_end()) && stdout.len() < whole.len(), "{stdout}");
        assert!(stderr.contains("block ") && stderr.contains("m.gguf"), "{reader}: {stderr}");
        assert!(stderr.contains("nput/output error") && stderr.contains("hint: "), "{stderr}");
    }
}

#[test]
fn a_disk_that_hangs_is_left_by_ctrl_c() {
    let bench = Bench::new();
    let Some((child, _)) = long_answer(&bench, "pread") else { return };
    bench.hang(|| {});
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let output = end(child);
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
}

/// A conversation whose second question meets a disk that cannot read any more; the first is still there.
fn asked_of_a_broken_disk(bench: &Bench, envs: &[(&str, String)]) -> Option<Terminal> {
    let mut terminal = bench.chat(envs)?;
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.expect("tokens/s");
    bench.disk("eio");
    terminal.ask("What is my name?", "nput/output error");
    terminal.expect("hint:");
    terminal.ask("/show", "messages        2");
    Some(terminal)
}

#[test]
fn a_conversation_outlives_a_broken_disk() {
    let bench = Bench::new();
    let Some(envs) = bench.bad_disk("pread") else { return };
    let Some(mut terminal) = asked_of_a_broken_disk(&bench, &envs) else { return };
    bench.hang(|| terminal.ask("What is my name?", ""));
    terminal.press("\x03");
    terminal.expect("(stopped)");
    terminal.ask("/show", "messages        2");
    bench.disk("");
    terminal.ask("What is my name?", "Your name is Rosa.");
    terminal.expect("tokens/s");
    bench.hang(|| terminal.ask(QUESTION, ""));
    terminal.press("\x03");
    terminal.expect("(stopped)");
    assert_eq!(terminal.close(), Some(0));
}

#[test]
fn a_conversation_outlives_errors_of_a_ring() {
    let bench = Bench::new();
    let Some(envs) = bench.bad_disk("uring") else { return };
    let Some(mut terminal) = asked_of_a_broken_disk(&bench, &envs) else { return };
    bench.disk("short");
    terminal.ask("What is my name?", "Your name is Rosa.");
    terminal.expect("tokens/s");
    assert_eq!(terminal.close(), Some(0));
}

/// A conversation during which something happens to the file.
fn while_talking(reader: &str, happens: fn(&Path), then: &[&str]) {
    let bench = Bench::new();
    let Some(mut terminal) = bench.chat(&[("AIRRUN_READER", reader.to_owned())]) else { return };
    terminal.ask("My name is Rosa.", "Nice to meet you, Rosa!");
    terminal.expect("tokens/s");
    happens(&bench.model());
    for words in then {
        terminal.ask("What is my name?", words);
        terminal.expect(if words.starts_with("Your") { "tokens/s" } else { "hint:" });
    }
    let messages =
        if then[0].starts_with("Your") { "messages        4" } else { "messages        2" };
    terminal.ask("/show", messages);
    assert_eq!(terminal.close(), Some(0));
}

const READERS: [&str; 3] = ["uring", "pread", "buffered"];

#[test]
fn a_file_that_is_cut_off_during_a_conversation_is_an_error() {
    let cut = |model: &Path| {
        let file = fs::File::options().write(true).open(model).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    for reader in READERS {
        while_talking(reader, cut, &["truncated or replaced"; 2]);
    }
}

#[test]
fn a_file_that_is_written_to_during_a_conversation_is_an_error() {
    let overwrite = |model: &Path| {
        let noise = vec![0x5A; fs::metadata(model).unwrap().len() as usize];
        let file = fs::File::options().write(true).open(model).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &noise, 0).unwrap();
    };
    for reader in READERS {
        while_talking(reader, overwrite, &["was modified"; 2]);
    }
}

#[test]
fn a_file_that_another_one_replaces_stays_the_models() {
    let replace = |model: &Path| {
        let other = model.with_extension("other");
        fs::write(&other, vec![0x5A; 1 << 20]).unwrap();
        fs::rename(other, model).unwrap();
    };
    for reader in READERS {
        while_talking(reader, replace, &["Your name is Rosa."]);
    }
}
