//! `airrun bench` and `--trace`: every promised field with a sensible value, and traces that a viewer can open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Blocks of tiny-chat.
const N_BLOCKS: usize = 6;

fn tiny() -> String {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "models", "tiny-chat-q8_0.gguf"].iter().collect();
    path.display().to_string()
}

/// Runs `airrun bench` over tiny-chat, on one thread: other tests keep the cores busy.
fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.args(["bench", &tiny(), "-t", "1"]).args(args).output().unwrap()
}

/// The lines of `bench --json`.
fn rows(args: &[&str]) -> Vec<Value> {
    let output = bench(&[args, &["--json", "-r", "1"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("{field} in {row}"))
}

#[test]
fn every_field_has_a_sensible_value() {
    for (stream, n_streamed) in [("never", 0), ("always", N_BLOCKS)] {
        let rows = rows(&["-p", "32", "-n", "8", "--ubatch", "16", "--stream", stream]);
        let tests: Vec<_> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
        assert_eq!(tests, ["pp32", "tg8"]);
        for (row, (tokens, passes)) in rows.iter().zip([(32.0, 2.0), (8.0, 8.0)]) {
            assert_eq!(number(row, "tokens"), tokens);
            assert_eq!(number(row, "passes"), passes);
            let (seconds, speed) = (number(row, "seconds"), number(row, "tokens_per_second"));
            assert!(seconds > 0.0 && (speed * seconds / tokens - 1.0).abs() < 1e-6, "{row}");
            assert!(number(row, "stall_seconds") <= seconds, "{row}");
            assert!(number(row, "peak_rss_bytes") > 1e6, "{row}");
            assert_eq!(number(row, "peak_device_bytes"), 0.0);
            assert_eq!(row["device"], "cpu");
            assert_eq!(row["plan"]["streamed"]["blocks"], n_streamed);
            let streamed = number(&row["plan"]["streamed"], "bytes");
            let read = number(row, "streamed_bytes") / passes;
            assert!(read >= streamed && read <= streamed * 1.05, "{row}");
        }
        check_limits(&rows);
    }
}

/// Each test has a limit, by what it says; nothing is faster than computing is known to be.
fn check_limits(rows: &[Value]) {
    let [_, generation] = rows else { panic!("{rows:?}") };
    for row in rows {
        let limit = number(row, "limit_tokens_per_second");
        let ratio = number(row, "tokens_per_second") / limit;
        assert!((number(row, "of_limit") - ratio).abs() < 1e-9, "{row}");
        let by = row["limited_by"].as_str().unwrap();
        assert!((number(&row["limits"], by) - limit).abs() < 1e-9, "{row}");
        let computing = number(&row["limits"], "compute");
        assert!(number(row, "tokens_per_second") <= computing * 1.000_001, "{row}");
    }
    assert!(rows.iter().all(|row| number(row, "predicted_tokens_per_second") > 0.0), "{rows:?}");
    assert!(generation["limits"]["memory"].is_number(), "{generation}");
    assert!(number(generation, "memory_bytes_per_second") > 1e8);
    assert!(number(generation, "disk_bytes_per_second") > 1e5);
}

#[test]
fn the_table_is_on_stdout_and_the_rest_is_not() {
    let output = bench(&["-p", "0", "-n", "4", "-r", "2"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    assert!(lines[0].starts_with("test") && lines[1].starts_with("tg4"), "{stdout}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("tg4 2/2"), "{stderr}");
    assert!(bench(&["-p", "0", "-n", "4", "-r", "1", "-q"]).stderr.is_empty());
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (args, word) in [
        (&["-p", "0", "-n", "0"][..], "nothing to measure"),
        (&["-p", "64", "-c", "32"], "context"),
        (&["--trace", "x.txt"], "x.txt"),
        (&["--trace", "/nowhere/at/all.json"], "/nowhere/at/all.json"),
    ] {
        let output = bench(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains(word) && stderr.contains("hint:"), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

/// The complete events of a trace, in order.
fn events(trace: &Value) -> Vec<&Value> {
    let all = trace["traceEvents"].as_array().unwrap();
    all.iter().filter(|event| event["ph"] == "X").collect()
}

fn check_trace(trace: &Value, n_passes: usize) {
    let events = events(trace);
    let begins: Vec<f64> = events.iter().map(|event| number(event, "ts")).collect();
    assert!(begins.is_sorted());
    assert!(events.iter().all(|event| number(event, "dur") >= 0.0 && event["pid"] == 1));
    for category in ["read", "compute"] {
        let blocks: BTreeSet<_> = events
            .iter()
            .filter(|event| event["cat"] == category)
            .filter_map(|event| event["name"].as_str())
            .filter(|name| name.starts_with("block "))
            .collect();
        assert_eq!(blocks.len(), N_BLOCKS, "{category}: {blocks:?}");
    }
    let passes = events.iter().filter(|event| event["cat"] == "pass").count();
    assert_eq!(passes, n_passes);
    // Within a track nothing overlaps.
    let tracks: BTreeSet<_> = events.iter().map(|event| event["tid"].as_u64().unwrap()).collect();
    for track in tracks {
        let mut until = 0.0;
        for event in events.iter().filter(|event| event["tid"] == track) {
            // Times are in whole nanoseconds, and written in microseconds.
            assert!(number(event, "ts") >= until - 0.002, "track {track}: {event}");
            until = number(event, "ts") + number(event, "dur");
        }
    }
}

#[test]
fn traces_can_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (json, page) = (path("trace.json"), path("trace.html"));
    let test = ["-p", "0", "-n", "3", "-r", "1", "--stream", "always", "--trace"];
    for file in [&json, &page] {
        let output = bench(&[&test[..], &[file]].concat());
        assert_eq!(output.status.code(), Some(0));
    }
    let read = |file: &str| std::fs::read_to_string(Path::new(file)).unwrap();
    // The warm-up computes two tokens, the test one before it counts three.
    check_trace(&serde_json::from_str(&read(&json)).unwrap(), 6);
    let page = read(&page);
    let embedded = page.split_once("const GIVEN = ").unwrap().1.split_once("]}\n").unwrap().0;
    check_trace(&serde_json::from_str(&format!("{embedded}]}}")).unwrap(), 6);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}
