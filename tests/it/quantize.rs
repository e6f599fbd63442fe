//! `airrun quantize`: the file it writes, what it refuses, and what it leaves when it is stopped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gguf_writer::{Gguf, Tensor, u32};
use crate::home::{Home, check_refused, check_success, model, text};

/// A model of F32 weights with rows of 256, which every type can hold; its feed-forward is `ffn` wide.
fn model_of(ffn: u64) -> Vec<u8> {
    let mut gguf = Gguf::llama();
    for (key, n) in [
        ("llama.embedding_length", 256),
        ("llama.rope.dimension_count", 128),
        ("llama.feed_forward_length", u32::try_from(ffn).unwrap()),
    ] {
        gguf.set(key, u32(n));
    }
    gguf.tensors.clear();
    for (name, dims) in [
        ("token_embd.weight", &[256, 8][..]),
        ("output_norm.weight", &[256]),
        ("output.weight", &[256, 8]),
        ("blk.0.attn_norm.weight", &[256]),
        ("blk.0.attn_q.weight", &[256, 256]),
        ("blk.0.attn_k.weight", &[256, 128]),
        ("blk.0.attn_v.weight", &[256, 128]),
        ("blk.0.attn_output.weight", &[256, 256]),
        ("blk.0.ffn_norm.weight", &[256]),
        ("blk.0.ffn_gate.weight", &[256, ffn]),
        ("blk.0.ffn_up.weight", &[256, ffn]),
        ("blk.0.ffn_down.weight", &[ffn, 256]),
    ] {
        gguf.tensors.push(Tensor::f32(name, dims));
    }
    gguf.bytes()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|n| n.contains(".gguf"))
        .collect();
    names.sort();
    names
}

#[test]
fn smaller_files_of_the_same_model_are_written() {
    let home = Home::new();
    let input = model_of(512);
    home.put("in.gguf", &input);
    for (ty, shown) in [("q8_0", "Q8_0"), ("Q4-K-M", "Q4_K - Medium"), ("f16", "F16")] {
        let output = home.run(&["quantize", "in.gguf", "out.gguf", "--type", ty, "--force"]);
        assert_eq!(check_success(&output), "", "{ty}");
        assert!(text(&output.stderr).contains("out.gguf: "), "{}", text(&output.stderr));
        assert!(fs::metadata(home.at("out.gguf")).unwrap().len() < input.len() as u64 * 6 / 10);
        assert!(check_success(&home.run(&["inspect", "out.gguf"])).contains(shown), "{ty}");
        let logits = home.run(&["logits", "out.gguf", "--tokens", "1,2,3", "-t", "1"]);
        assert_eq!(check_success(&logits).lines().count(), 9, "{ty}");
        assert_eq!(files(home.path()), ["in.gguf", "out.gguf"]);
    }
}

#[test]
fn what_would_lose_something_is_refused() {
    let home = Home::new();
    let input = model_of(256);
    home.put("in.gguf", &input);
    let quantize = |args: &[&str]| home.run(&[&["quantize"], args].concat());
    check_success(&quantize(&["in.gguf", "out.gguf", "--type", "q8_0"]));
    let before = fs::read(home.at("out.gguf")).unwrap();
    check_refused(&quantize(&["in.gguf", "out.gguf", "--type", "q4_k_m"]), &["exists", "--force"]);
    symlink("in.gguf", home.at("link.gguf")).unwrap();
    for same in ["in.gguf", "./in.gguf", "link.gguf"] {
        check_refused(
            &quantize(&["in.gguf", same, "--type", "q8_0", "--force"]),
            &["the model itself"],
        );
    }
    check_refused(&quantize(&["in.gguf", ".", "--type", "q8_0", "-f"]), &["not a file"]);
    check_refused(&quantize(&["in.gguf", "no/x.gguf", "--type", "q8_0"]), &["no directory 'no'"]);
    check_refused(
        &quantize(&["out.gguf", "x.gguf", "--type", "q4_k_m"]),
        &["quantised already", "--requantize"],
    );
    check_refused(&quantize(&["none.gguf", "x.gguf", "--type", "q4_k_m"]), &["none.gguf"]);
    let usage = quantize(&["in.gguf", "x.gguf", "--type", "q9"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(text(&usage.stderr).contains("q4_k_m"), "{}", text(&usage.stderr));
    assert_eq!(fs::read(home.at("in.gguf")).unwrap(), input);
    assert_eq!(fs::read(home.at("out.gguf")).unwrap(), before);
    let again = quantize(&["out.gguf", "x.gguf", "--type", "q4_k_m", "--requantize"]);
    check_success(&again);
    assert!(text(&again.stderr).contains("warning: "));
    assert_eq!(files(home.path()), ["in.gguf", "link.gguf", "out.gguf", "x.gguf"]);
}

#[test]
fn auto_takes_the_largest_type_that_fits() {
    let home = Home::new();
    // 48 MiB of F32: 12.8 MiB as Q8_0.
    home.put("in.gguf", &model_of(16 << 10));
    let output = home.run(&["plan", "in.gguf", "--json", "--ram", "1G"]);
    let plan: Value = serde_json::from_str(&check_success(&output)).unwrap();
    let memory = &plan["memory"];
    let beside = memory["process"].as_u64().unwrap() + memory["context"].as_u64().unwrap();
    let ram = format!("{}", beside + (30 << 20));
    let output = home.run(&["quantize", "in.gguf", "out.gguf", "--type", "auto", "--ram", &ram]);
    check_success(&output);
    assert!(text(&output.stderr).contains("taking q8_0: "), "{}", text(&output.stderr));
    check_refused(
        &home.run(&["quantize", "in.gguf", "x.gguf", "--type", "auto", "--ram", "4G"]),
        &["fits", "as it is"],
    );
    check_refused(
        &home.run(&["quantize", "in.gguf", "x.gguf", "--type", "auto", "--ram", "1M"]),
        &["no type makes it fit"],
    );
}

/// Starts a long run, and waits until it writes.
fn long_run(home: &Home) -> Child {
    home.put("in.gguf", &model_of(20 << 10));
    let args = ["quantize", "in.gguf", "out.gguf", "--type", "iq4_nl", "-t", "1"];
    let mut child = home.airrun(&args).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while !files(home.path()).iter().any(|n| n.ends_with(".part")) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended too soon");
        assert!(begin.elapsed() < Duration::from_secs(300), "it does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
}

#[test]
fn an_interrupt_leaves_nothing() {
    let home = Home::new();
    let mut child = long_run(&home);
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(home.path()), ["in.gguf"]);
}

#[test]
fn the_worker_does_not_outlive_the_program() {
    let home = Home::new();
    let mut child = long_run(&home);
    signal(&child, "-KILL");
    child.wait().unwrap();
    let begin = Instant::now();
    while files(home.path()) != ["in.gguf"] {
        assert!(begin.elapsed() < Duration::from_secs(300), "{:?}", files(home.path()));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_disk_that_takes_no_more_is_said() {
    let home = Home::new();
    home.put("in.gguf", &model_of(2048));
    let program = home.airrun(&[]).get_program().to_owned();
    let limited = home.airrun(&[]);
    let mut shell = Command::new("sh");
    // Files of at most 512 blocks of 512 bytes.
    shell.args(["-c", "ulimit -c 0; ulimit -f 512; exec \"$@\"", "sh"]).arg(program);
    shell.args(["quantize", "in.gguf", "out.gguf", "--type", "q8_0"]);
    for (name, value) in limited.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.current_dir(home.path()).stdin(Stdio::null()).output().unwrap();
    check_refused(&output, &["quantising failed"]);
    assert_eq!(files(home.path()), ["in.gguf"]);
}

#[test]
fn the_tiny_model_survives() {
    let home = Home::new();
    let tiny = model("tiny-chat-q8_0.gguf");
    let args = ["quantize", tiny.to_str().unwrap(), "out.gguf", "--type", "q6_k", "--requantize"];
    check_success(&home.run(&args));
    let answer = home.run(&["run", "./out.gguf", "Who are you?", "--temp", "0", "-t", "1"]);
    assert!(check_success(&answer).contains("tiny-chat"));
}
