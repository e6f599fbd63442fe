//! The promises about the machine's memory, on the real program and the CPU: a GPU's driver takes memory of its own. `--ram` holds
//! with a context that is full to the last token, and what streams does not fill the page cache.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use airrun::gguf::Index;
use airrun::units::{Bytes, MIB};
use serde_json::Value;

fn tiny() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "models", "tiny-chat-q8_0.gguf"].iter().collect()
}

/// A prompt as long as the context, and a few tokens one by one.
fn fill_context(ram: Bytes, stream: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.arg("bench").arg(tiny()).args(["--json", "-t", "1", "-r", "1", "--stream", stream]);
    command.args(["-c", "1024", "-p", "1024", "-n", "8", "--ram", &ram.0.to_string()]);
    command.args(["--device", "cpu"]);
    command.output().unwrap()
}

/// The least RAM that would fit, as the program says itself. `NUMBERM` after `--ram`.
fn least() -> Bytes {
    let refused = fill_context(MIB * 30, "always");
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    let (_, hint) = stderr.rsplit_once("--ram ").unwrap();
    hint.split([',', '\n']).next().unwrap().trim().parse().unwrap()
}

#[test]
fn a_full_context_stays_within_the_ram_that_was_promised() {
    // What the program takes by itself differs a little from one start to the next.
    let least = least() + MIB * 4;
    for (ram, stream) in [(least, "auto"), (least, "always"), (least + MIB * 16, "auto")] {
        let output = fill_context(ram, stream);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{ram}, {stream}: {stderr}");
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let peak = Bytes(row["peak_rss_bytes"].as_u64().unwrap());
            assert!(peak > Bytes::ZERO && peak <= ram, "{peak} of {ram}, {stream}: {line}");
        }
    }
}

/// Bytes of a file in the page cache; `None` where nobody can tell.
fn cached(file: &Path) -> Option<Bytes> {
    let mut fincore = Command::new("fincore");
    fincore.args(["--bytes", "--noheadings", "--output", "RES"]).arg(file);
    let output = fincore.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok().map(Bytes)
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn streaming_leaves_the_page_cache_alone() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.gguf");
    std::fs::copy(tiny(), &model).unwrap();
    std::fs::File::open(&model).unwrap().sync_all().unwrap();
    let blocks: Bytes = Index::open(&model).unwrap().blocks.iter().map(|b| b.len).sum();
    for reader in ["uring", "pread"] {
        let drop = format!("if={}", model.display());
        let dropped = Command::new("dd").args([&drop, "iflag=nocache", "count=0"]).output();
        if !dropped.is_ok_and(|dd| dd.status.success()) || cached(&model) != Some(Bytes::ZERO) {
            eprintln!("skipped: no tool, or no file system, to look at the page cache with");
            return;
        }
        let mut run = Command::new(env!("CARGO_BIN_EXE_airrun"));
        run.arg("run").arg(&model).args(["Hi", "--stream", "always", "--ram", "200M", "-n", "8"]);
        run.args(["-t", "1", "-c", "256", "--device", "cpu"]);
        let output = run.env("AIRRUN_READER", reader).output();
        assert_eq!(output.unwrap().status.code(), Some(0), "{reader}");
        let (cached, len) = (cached(&model).unwrap(), std::fs::metadata(&model).unwrap().len());
        // The header is read through it; of the blocks, nothing but what the system reads ahead, which some do by megabytes.
        let most = Bytes(len - blocks.0 / 4);
        assert!(cached < most, "{reader}: {cached} of {}", Bytes(len));
    }
}
