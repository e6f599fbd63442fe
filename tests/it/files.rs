//! Files that are none, files that are in the way, and what is left of them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::home::Home;
use crate::serve::tiny;

fn pipe(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs the program, which must end by itself.
fn ends(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("it waits for a pipe");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn pipes_in_the_place_of_our_files_are_passed_over() {
    let home = Home::new();
    for name in ["rates.json", "quick.json", "disks.json", "readers.json", "facts.json"] {
        pipe(&home.at(".cache/airrun").join(name));
    }
    let model = tiny();
    for args in [
        &["plan", &model, "-c", "256"][..],
        &["run", &model, "Hi", "-n", "1", "-t", "1", "--temp", "0"],
        &["list"],
    ] {
        let (code, said) = ends(&mut home.airrun(args));
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    pipe(&home.at(".config/airrun/config.toml"));
    let (code, said) =
        ends(home.airrun(&["run", &model, "Hi", "-n", "1"]).env_remove("AIRRUN_CONFIG"));
    assert!(code == Some(1) && said.contains("config.toml"), "{said}");
}

#[test]
fn the_worker_that_quantises_keeps_what_is_there() {
    let home = Home::new();
    let precious = home.put("precious.txt", b"mine");
    let args = ["quantize-worker", "--type", "q4_0", "--threads", "1", &tiny(), "precious.txt"];
    let (code, said) = ends(&mut home.airrun(&args));
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(fs::read(precious).unwrap(), b"mine");
}

#[test]
fn names_of_files_do_not_command_the_terminal() {
    let home = Home::new();
    let name = "x\u{1b}[2J\u{1b}]0;title\u{7}.gguf";
    home.put(name, b"not a model");
    let (code, said) = ends(&mut home.airrun(&["inspect", &format!("./{name}")]));
    assert!(code == Some(1) && !said.contains('\u{1b}') && !said.contains('\u{7}'), "{said:?}");
}

#[test]
fn why_a_model_was_passed_over_is_said_to_the_end() {
    let home = Home::new();
    let folder =
        "models/quantised-by-somebody-with-a-long-name/Some-Model-With-A-Very-Long-Name-GGUF";
    home.put(&format!("{folder}/broken.gguf"), b"not a model at all");
    let output = home.airrun(&["list", "-v"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("broken.gguf") && said.contains("GGUF file"), "{said}");
}

#[test]
fn files_of_flags_are_read_as_people_write_them() {
    let home = Home::new();
    home.put("schema", "\u{feff}{\"enum\": [\"yes\"]}".as_bytes());
    home.put("grammar", "\u{feff}root ::= \"no\"\r\n".as_bytes());
    let tiny = tiny();
    let run = |flag: &str, file: &str| {
        let args = ["run", &tiny, "Hi", "-t", "1", "-n", "8", flag, file];
        let output = home.airrun(&args).stdin(std::process::Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert_eq!(run("--json-schema-file", "schema").lines().next(), Some("\"yes\""));
    assert_eq!(run("--grammar-file", "grammar").lines().next(), Some("no"));
    // What has no end is not read to it.
    for flag in ["--json-schema-file", "--grammar-file"] {
        assert!(run(flag, "/dev/zero").contains("too long"), "{flag}");
    }
}

/// A template's stack is one of many things that addresses are needed for.
#[test]
#[cfg(target_os = "linux")]
fn few_addresses_are_enough_for_a_template() {
    let shell = format!(
        "ulimit -v 1000000; exec '{}' run '{}' Hi -t 1 -n 1 -c 256 -q",
        env!("CARGO_BIN_EXE_airrun"),
        tiny()
    );
    let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_mark_of_byte_order_is_no_part_of_a_prompt() {
    let read = |prompt: &str| {
        let home = Home::new();
        let mut command = home.airrun(&["run", &tiny(), "-t", "1", "--temp", "0", "-v", "-n", "8"]);
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(prompt.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let n_prompt = said.split("prompt ").nth(1).and_then(|rest| rest.split(' ').next());
        (n_prompt.map(str::to_owned), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(read("\u{feff}Who are you?\r\n"), read("Who are you?"));
}
