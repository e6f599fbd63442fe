//! `--device`, `--vram` and `airrun devices`. What needs a GPU runs on the one that `AIRRUN_TEST_DEVICE` names.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::test_device;

const QUESTION: &str = "What is the capital of Mongolia?";
const ANSWER: &str = "The capital of Mongolia is Ulaanbaatar.\n";

fn model(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "models", name].iter().collect();
    path.display().to_string()
}

fn airrun(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_airrun")).args(args).env("LC_ALL", "C").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn data(args: &[&str]) -> String {
    let output = airrun(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The GPU to test with, if there is one.
fn gpu() -> Option<String> {
    if test_device::is_cpu() {
        #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
        {
            eprintln!("skipped: AIRRUN_TEST_DEVICE names no GPU");
        }
        return None;
    }
    Some(test_device::name())
}

#[test]
fn the_cpu_is_always_there() {
    let list: Value = serde_json::from_str(&data(&["devices", "--json"])).unwrap();
    let list = list["devices"].as_array().unwrap();
    let cpu = list.last().unwrap();
    assert_eq!(cpu["name"], "cpu");
    assert!(cpu["memory_free"].as_u64() <= cpu["memory_total"].as_u64(), "{cpu}");
    // Several GPUs of a kind are all taken.
    assert!(list.iter().any(|d| d["auto"] == true), "{list:?}");
    let text = data(&["devices"]);
    assert!(text.lines().last().unwrap().starts_with("    "), "{text}");
    assert!(text.lines().any(|l| l.starts_with("cpu  ")), "{text}");
    let answer =
        data(&["run", &model("tiny-chat-q8_0.gguf"), QUESTION, "--temp", "0", "--device", "cpu"]);
    assert_eq!(answer, ANSWER);
}

#[test]
fn a_device_that_is_not_there_is_refused_with_those_that_are() {
    let path = model("tiny-chat-q8_0.gguf");
    for device in ["cuda:77", "vulkan:77", "metal:77"] {
        let output = airrun(&["run", &path, QUESTION, "--device", device]);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.starts_with(&format!("airrun: device '{device}': ")), "{text}");
        assert!(text.contains("\n\nhint: there is cpu"), "{text}");
    }
    for device in ["gpu", "cpu:1", "cuda:", "cuda:-1", ""] {
        let output = airrun(&["plan", &path, "--device", device]);
        assert_eq!(output.status.code(), Some(2), "{device}");
    }
}

/// The tests' own variable lets ggml see such a device; whoever sets it to choose among GPUs may have one by accident.
#[test]
fn a_gpu_made_of_the_cpu_is_taken_only_if_it_is_named() {
    if gpu().is_none() {
        return;
    }
    let list: Value = serde_json::from_str(&data(&["devices", "--json"])).unwrap();
    for device in list["devices"].as_array().unwrap() {
        let of_cpu = device["description"].as_str().unwrap().contains("llvmpipe");
        assert!(!of_cpu || device["auto"] == false, "{device}");
    }
}

#[test]
fn a_gpu_answers_as_the_cpu_does() {
    let Some(device) = gpu() else { return };
    for name in ["tiny-chat-q8_0.gguf", "tiny-chat-q4_k_m.gguf"] {
        let in_ram = ["--kv-in", "ram", "--stream", "always"];
        for more in [&[][..], &["--stream", "always"], &["--stream", "never"], &in_ram] {
            let path = model(name);
            let args = ["run", &path, QUESTION, "--temp", "0", "--device", &device];
            assert_eq!(data(&[&args[..], more].concat()), ANSWER, "{name} {more:?}");
        }
    }
}

/// What libllama allocates on a GPU is no more than the plan said, whoever computes what: KV cache and activations, with weights that
/// visit, and what is resident.
#[test]
fn a_gpu_is_given_no_more_than_the_plan_says() {
    let Some(device) = gpu() else { return };
    let path = model("tiny-chat-q8_0.gguf");
    let args = [&path[..], "--device", &device, "-c", "2048"];
    let refused = stderr(&airrun(&[&["plan"], &args[..], &["--vram", "1M"]].concat()));
    let hint = refused.split_once("hint: this would fit: --vram ").expect("a hint").1;
    let least: u64 = hint.split_once('M').unwrap().0.parse().unwrap();
    let mut shared = 0;
    for mib in [least + 1, least + 3, least + 5, least + 9, least + 40] {
        let budget = ["--vram", &format!("{mib}M")];
        let plan = data(&[&["plan"], &args[..], &budget, &["--json"]].concat());
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let more = ["--temp", "0", "-n", "2", "-v"];
        let run = airrun(&[&["run"], &args[..1], &[QUESTION], &args[1..], &budget, &more].concat());
        let mut sizes = Sizes::default();
        for line in stderr(&run).lines() {
            sizes.hear(line);
        }
        let planned = |name: &str| plan["gpu"][name].as_f64().unwrap() / f64::from(1 << 20);
        let context = planned("context") + planned("visiting");
        // Printed with two digits, and each of at most five buffers is rounded.
        assert!(sizes.context > 0.0 && sizes.context <= context + 0.03, "{mib}: {sizes:?} {plan}");
        let weights = planned("outside") + planned("blocks");
        assert!(sizes.weights <= weights + 0.03, "{mib}: {sizes:?} {plan}");
        shared += usize::from(plan["cpu"]["blocks"] != 0);
    }
    assert!(shared > 0, "no plan left a block to the CPU");
}

/// Keys and values that are in RAM take none of the GPU's memory, and the plan says where they are.
#[test]
fn keys_and_values_are_where_they_are_wanted() {
    let Some(device) = gpu() else { return };
    let path = model("tiny-chat-q8_0.gguf");
    let args = [&path[..], "--device", &device, "-c", "4096", "--json"];
    let plan = |home| -> Value {
        serde_json::from_str(&data(&[&["plan"], &args[..], &["--kv-in", home]].concat())).unwrap()
    };
    let [gpu, ram] = ["gpu", "ram"].map(plan);
    let bytes = |plan: &Value, of: &str| plan[of]["context"].as_u64().unwrap();
    let kept = ram["kept_in_ram"].as_u64().unwrap();
    assert_eq!(gpu["kept_in_ram"], 0, "{gpu}");
    assert!(kept > 1 << 20 && bytes(&ram, "memory") >= bytes(&gpu, "memory") + kept, "{ram}");
    assert!(bytes(&ram, "gpu") < bytes(&gpu, "gpu"), "{ram}");
    // Where the GPU has room for what computes and not for what is kept, that is in RAM by itself.
    let args = [&path[..], "--device", &device, "-c", "16384"];
    let least = |home| -> u64 {
        let refused = airrun(&[&["plan"], &args[..], &["--vram", "1M", "--kv-in", home]].concat());
        let text = stderr(&refused);
        let hint = text.split_once("hint: this would fit: --vram ").expect("a hint").1;
        hint.split_once('M').unwrap().0.parse().unwrap()
    };
    let [gpu, ram, auto] = ["gpu", "ram", "auto"].map(least);
    assert!(ram < gpu && auto == ram, "{gpu} {ram} {auto}");
    let vram = format!("{}M", ram.midpoint(gpu));
    let run = [&["run"], &args[..1], &[QUESTION, "--temp", "0", "--vram", &vram], &args[1..]];
    assert_eq!(data(&run.concat()), ANSWER);
}

/// What was measured once is not measured by every opening: it would take seconds, and no two plans would be alike.
#[test]
fn a_second_opening_measures_nothing() {
    let Some(device) = gpu() else { return };
    let home = tempfile::tempdir().unwrap();
    let path = model("tiny-chat-q8_0.gguf");
    let args = ["-c", "256", "--device", &device, "--vram"];
    let refused = stderr(&airrun(&[&["plan", &path[..]], &args[..], &["1M"]].concat()));
    let hint = refused.split_once("hint: this would fit: --vram ").expect("a hint").1;
    let least: u64 = hint.split_once('M').unwrap().0.parse().unwrap();
    let vram = format!("{}M", least + 2);
    let open = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
        command.args(["run", &path, QUESTION, "-n", "1"]).args(args).arg(&vram);
        command.env("HOME", home.path()).env_remove("XDG_CACHE_HOME");
        assert!(command.output().unwrap().status.success());
        let known = |name| std::fs::read(home.path().join(".cache/airrun").join(name)).unwrap();
        ["disks.json", "links.json", "rates.json"].map(known)
    };
    assert!(open() == open(), "something was measured again");
}

/// What libllama says that it allocated on the GPU for the context that it made last. (MiB)
#[derive(Debug, Default)]
struct Sizes {
    weights: f64,
    context: f64,
}

impl Sizes {
    /// `llama_kv_cache:    Vulkan0 KV buffer size =     3.00 MiB`
    fn hear(&mut self, line: &str) {
        let Some((head, size)) = line.split_once(" buffer size =") else { return };
        let words: Vec<_> = head.split_whitespace().collect();
        let [_, memory, what] = words[..] else { return };
        let size: f64 = size.split_whitespace().next().unwrap().parse().unwrap();
        // The streamed ones have addresses only.
        let of_gpu = !memory.ends_with("_Host") && memory != "CPU" && memory != "Stream";
        match what {
            "model" => {
                self.context = 0.0;
                self.weights = if of_gpu { size } else { self.weights };
            }
            _ if of_gpu => self.context += size,
            _ => {}
        }
    }
}

/// From the least that will do to everything resident: no plan is over its budget, and each gives the answer.
#[test]
fn every_share_of_a_gpus_memory_will_do() {
    let Some(device) = gpu() else { return };
    let path = model("tiny-chat-q8_0.gguf");
    let args = [&path[..], "--device", &device, "-c", "256"];
    let refused = airrun(&[&["plan"], &args[..], &["--vram", "1M"]].concat());
    let text = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("--vram allows 1.00 MiB"), "{text}");
    let hint = text.split_once("hint: this would fit: --vram ").expect("a hint").1;
    let least: u64 = hint.split_once('M').unwrap().0.parse().unwrap();
    let mut tiers = std::collections::BTreeSet::new();
    for mib in [least, least + 2, least + 4, least + 40] {
        let vram = format!("{mib}M");
        let budget = ["--vram", &vram];
        let plan = data(&[&["plan"], &args[..], &budget, &["--json"]].concat());
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert!(plan["gpu"]["peak"].as_u64() <= Some(mib << 20), "{plan}");
        assert_eq!(plan["device"].as_str().unwrap().split(':').next(), device.split(':').next());
        for block in plan["blocks"].as_array().unwrap() {
            tiers.insert(block["tier"].as_str().unwrap().to_owned());
        }
        let answer = data(
            &[&["run"], &args[..1], &[QUESTION], &args[1..], &budget, &["--temp", "0"]].concat(),
        );
        assert_eq!(answer, ANSWER, "--vram {vram}");
    }
    assert!(tiers.len() > 1, "{tiers:?}");
}
