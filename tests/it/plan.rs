//! `airrun plan`, and what runs by it: the real program on the tiny models.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

fn model(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "models", name].iter().collect();
    path.display().to_string()
}

/// Runs the program with a home of these tests' own, so that its first measurements are first ones.
fn airrun(args: &[&str]) -> Output {
    static HOME: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let home = &*HOME;
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.args(args).env("HOME", home.path()).env_remove("XDG_CACHE_HOME");
    command.env("LC_ALL", "C").output().unwrap()
}

#[track_caller]
fn data(args: &[&str]) -> String {
    let output = airrun(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&data(args)).unwrap()
}

/// The least RAM that is refused with `args` names in its hint, in MiB.
fn least(args: &[&str]) -> u64 {
    let output = airrun(&[args, &["--ram", "1M"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(
        stderr.starts_with("airrun: model '") && stderr.contains("--ram allows 1.00 MiB"),
        "{stderr}"
    );
    let hint = stderr.split_once("\n\nhint: this would fit: --ram ").expect("a hint").1;
    hint.split_once('M').unwrap().0.parse().unwrap()
}

#[test]
fn a_tiny_model_is_resident() {
    let plan = json(&["plan", &model("tiny-chat-q8_0.gguf"), "--json"]);
    assert_eq!(plan["model"], "tiny-chat");
    assert_eq!(plan["resident"]["blocks"], 6);
    assert_eq!(plan["streamed"]["bytes"], 0);
    assert_eq!(plan["slots"]["count"], 0);
    assert!(plan["blocks"].as_array().unwrap().iter().all(|b| b["tier"] == "resident"));
    assert!(plan["memory"]["context"].as_u64().unwrap() > 1 << 20, "{plan}");
    assert!(plan["memory"]["peak"].as_u64() <= plan["memory"]["budget"].as_u64());
    for rate in ["generation", "prompt"] {
        assert!(plan["estimate"][rate]["tokens_per_second"].as_f64().unwrap() > 1.0, "{plan}");
    }
}

#[test]
fn people_get_a_picture() {
    let path = model("tiny-chat-q8_0.gguf");
    let text = data(&["plan", &path]);
    assert!(text.contains("\nblocks        ######\n"), "{text}");
    let text = data(&["plan", &path, "--stream", "always"]);
    assert!(text.contains("\nblocks        ......\n"), "{text}");
    assert!(text.contains("6 streamed from disk"), "{text}");
    assert!(text.lines().all(|l| l.len() <= 80), "{text}");
}

#[test]
fn too_little_memory_is_refused_with_what_would_do() {
    let path = model("tiny-chat-q8_0.gguf");
    let enough = least(&["plan", &path]);
    let ram = format!("{enough}M");
    let plan = json(&["plan", &path, "--ram", &ram, "--json"]);
    assert!(plan["memory"]["peak"].as_u64() <= Some(enough << 20), "{plan}");
}

/// The first plan measures the machine, and whoever plans after it is to come to the same.
#[test]
fn a_plan_does_not_change_from_run_to_run() {
    let path = model("tiny-chat-q8_0.gguf");
    let ram = format!("{}M", least(&["plan", &path, "-c", "512", "--ubatch", "512"]) + 1);
    // How many tokens go in a pass is weighed with the machine's speed, which differs from run to run beside other tests.
    // What the program takes differs by some pages, and is rounded to MiB: where that is the same, all is.
    let mut by_process = std::collections::BTreeMap::new();
    let mut streamed = Vec::new();
    for _ in 0..6 {
        let mut plan = json(&[
            "plan", &path, "--ram", &ram, "-c", "512", "--ubatch", "512", "--draft", "none",
            "--json",
        ]);
        streamed.push(plan["streamed"]["blocks"].as_u64().unwrap());
        let process = plan["memory"]["process"].as_u64().unwrap();
        let plan =
            ["blocks", "streamed", "slots", "ctx", "ubatch", "memory"].map(|key| plan[key].take());
        assert_eq!(by_process.entry(process).or_insert_with(|| plan.clone()), &plan);
    }
    let sizes: Vec<u64> = by_process.keys().copied().collect();
    let spread = sizes.last().unwrap() - sizes[0];
    assert!(spread <= 3 << 20, "{sizes:?}");
    let bench = [
        "bench", &path, "--ram", &ram, "-c", "512", "--ubatch", "512", "-p", "0", "-n", "1", "-r",
        "1", "--json",
    ];
    let run = json(&bench)["plan"].take();
    // The same again: no more than four blocks of a model this small.
    let most = streamed.iter().max().unwrap() + 4;
    assert!(run["streamed"]["blocks"].as_u64() <= Some(most), "{run} {streamed:?}");
}

/// Whatever is resident and however the rest is cut, the logits are the same to the last bit.
#[test]
fn every_share_of_memory_computes_the_same() {
    // Of the smaller one everything fits as soon as anything does.
    for (name, has_between) in [("tiny-chat-q8_0.gguf", true), ("tiny-chat-q4_k_m.gguf", false)] {
        let path = model(name);
        let logits = ["logits", &path, "--tokens", "1,2,3,4,5,6,7", "--json"];
        let with = |more: &[&str]| data(&[&logits[..], more].concat());
        let want = with(&["--stream", "never"]);
        // The hint leaves some room, which all of a model this small may fit in.
        let least = least(&logits) - 3;
        let mut shares = Vec::new();
        // From nothing resident to everything.
        for kib in (least * 1024..(least + 7) * 1024).step_by(512) {
            let ram = format!("{kib}K");
            assert!(with(&["--ram", &ram]) == want, "{name}, --ram {ram}");
            // As `logits` needs it, which checks no drafts.
            let plan = json(&[
                "plan",
                &path,
                "-c",
                "7",
                "--no-repack",
                "--ram",
                &ram,
                "--draft",
                "none",
                "--json",
            ]);
            shares.push(["resident", "streamed"].map(|tier| plan[tier]["bytes"].as_u64().unwrap()));
        }
        let between = shares.iter().any(|&[resident, streamed]| resident > 0 && streamed > 0);
        assert!(between || !has_between, "{name}: {shares:?}");
    }
}
