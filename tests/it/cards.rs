//! Two GPUs: one that weights stream to, and one that holds whole blocks. Both are Mesa's software device, whose driver is listed twice for
//! the programs that are started here; without it, there is nothing to try.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::{skip, test_device};

const BOTH: &str = "vulkan:0,vulkan:1";

fn model(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "models", name].iter().collect();
    path.display().to_string()
}

/// A machine with two GPUs, made of one, and faster by what is remembered than its CPU, which they are made of.
struct Two {
    drivers: String,
    _copy: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Two {
    /// `None` where no driver of a software device is named, as `make test-vulkan` does.
    fn make() -> Option<Two> {
        if test_device::name() != "vulkan" {
            #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
            {
                eprintln!("skipped: AIRRUN_TEST_DEVICE is not vulkan");
            }
            return None;
        }
        let drivers = env::var("VK_DRIVER_FILES").unwrap_or_default();
        let first = drivers.split(':').find(|path| path.contains("lvp"));
        let Some(text) = first.and_then(|path| fs::read(path).ok()) else {
            skip::skipped("VK_DRIVER_FILES names no software device to list twice");
            return None;
        };
        let copy = tempfile::tempdir().unwrap();
        let second = copy.path().join("second.json");
        fs::write(&second, text).unwrap();
        let drivers = format!("{drivers}:{}", second.display());
        Some(Two { drivers, _copy: copy, home: tempfile::tempdir().unwrap() })
    }

    /// Remembers of the kinds of weights of a model that GPUs are fast and the CPU is slow.
    fn teach(&self, path: &str) {
        self.plan(&[path, "--device", "vulkan:0", "--vram", "1G"]);
        let file = self.home.path().join(".cache/airrun/rates.json");
        let mut known: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for (of, rate) in known.as_object_mut().unwrap() {
            let one = if of.contains("llvmpipe") { 1e12 } else { 1e7 };
            (rate["one"], rate["many"], rate["busy"]) =
                (one.into(), (one * 20.0).into(), false.into());
        }
        fs::write(&file, known.to_string()).unwrap();
    }

    fn airrun(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
        command.args(args).env("LC_ALL", "C").env("GGML_VK_VISIBLE_DEVICES", "0,1");
        command.env("VK_DRIVER_FILES", &self.drivers).env("VK_ICD_FILENAMES", &self.drivers);
        command.env("HOME", self.home.path()).env_remove("XDG_CACHE_HOME");
        command.output().unwrap()
    }

    /// stdout and stderr of what succeeds.
    #[track_caller]
    fn run(&self, args: &[&str]) -> (String, String) {
        let output = self.airrun(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    }

    #[track_caller]
    fn plan(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[&["plan", "--json"], args].concat()).0).unwrap()
    }

    /// The least `--vram` that will do for a command. (MiB)
    fn least(&self, args: &[&str]) -> u64 {
        let refused = self.airrun(&[args, &["--vram", "1M"]].concat());
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        let hint = text.split_once("hint: this would fit: --vram ").expect("a hint").1;
        hint.split_once('M').unwrap().0.parse().unwrap()
    }
}

/// What libllama says that it allocated of a kind of memory: weights, and what the context took besides. (MiB)
#[derive(Debug, Default)]
struct Taken {
    weights: f64,
    context: f64,
}

/// What is described before a model is loaded takes nothing of weights, and its contexts come before those of the model.
fn taken(text: &str, memory: &str) -> Taken {
    let mut taken = Taken::default();
    for line in text.lines() {
        let Some((head, size)) = line.split_once(" buffer size =") else { continue };
        let words: Vec<_> = head.split_whitespace().collect();
        let [_, of, what] = words[..] else { continue };
        let size: f64 = size.split_whitespace().next().unwrap().parse().unwrap();
        match what {
            "model" => {
                taken.context = 0.0;
                taken.weights = if of == memory { size } else { taken.weights };
            }
            _ if of == memory => taken.context += size,
            _ => {}
        }
    }
    taken
}

/// What plans keep for the driver of such a device, at least. (MiB)
const DRIVER: f64 = 32.0;

/// From the least that will do to everything on one of them: the same logits, bit for bit, wherever blocks live, and no GPU is given more
/// than the budget.
#[test]
fn two_gpus_compute_what_one_does() {
    let Some(two) = Two::make() else { return };
    let path = model("tiny-chat-q8_0.gguf");
    two.teach(&path);
    let tokens: Vec<String> = (0..50).map(|i| (i * 37 % 2000 + 3).to_string()).collect();
    let tokens = tokens.join(",");
    // Attention is the GPUs', too: another processor's sums are others.
    let load = ["logits", &path, "-c", "256", "--ubatch", "32", "--kv-in", "gpu"];
    let args = [&load[..], &["--json", "--tokens", &tokens]].concat();
    let resident = two.run(&[&args[..], &["--device", "vulkan:0", "--vram", "1G"]].concat()).0;
    let both = [&args[..], &["--device", BOTH, "-v"]].concat();
    let least = two.least(&both);
    let mut seen = BTreeSet::new();
    for mib in least..least + 7 {
        let vram = format!("{mib}M");
        let (logits, text) = two.run(&[&both[..], &["--vram", &vram]].concat());
        let of = ["Vulkan0", "Vulkan1", "Stream"].map(|memory| taken(&text, memory));
        for gpu in &of[..2] {
            let all = gpu.weights + gpu.context;
            #[expect(clippy::cast_precision_loss, reason = "few MiB")]
            let budget = mib as f64;
            assert!(all == 0.0 || all + DRIVER <= budget, "--vram {vram}: {of:?}");
        }
        // Another processor's sums are others.
        let on_cpu = ["CPU", "Vulkan_Host"].map(|memory| taken(&text, memory).weights);
        if on_cpu.iter().sum::<f64>() < 1.0 {
            seen.insert((of[1].weights > 0.0, of[2].weights > 0.0));
            assert!(logits == resident, "--vram {vram}: {of:?}");
        }
    }
    // Both at work, with streams beside them and without; and the second left alone where all fits the first.
    for both in [(true, true), (true, false), (false, false)] {
        assert!(seen.contains(&both), "{both:?} is not among {seen:?}");
    }
}

/// What is named is used, and no more than that; and a plan says what lives where.
#[test]
fn a_gpu_that_is_not_named_holds_nothing() {
    let Some(two) = Two::make() else { return };
    let path = model("tiny-chat-q8_0.gguf");
    two.teach(&path);
    let args = [&path[..], "-c", "256", "--ubatch", "32", "--kv-in", "gpu"];
    let least = two.least(&[&["plan"], &args[..], &["--device", BOTH]].concat());
    let vram = format!("{}M", least + 2);
    let with =
        |device: &str| two.plan(&[&args[..], &["--device", device, "--vram", &vram]].concat());
    for one in ["vulkan:0", "vulkan:1"] {
        let plan = with(one);
        assert_eq!(plan["device"], one);
        assert_eq!(plan["further_gpus"].as_array().map(Vec::len), Some(0), "{plan}");
    }
    for (first, second) in [("vulkan:0", "vulkan:1"), ("vulkan:1", "vulkan:0")] {
        let plan = with(&format!("{first},{second}"));
        assert_eq!(plan["device"], first);
        let further = &plan["further_gpus"][0];
        assert_eq!(further["device"], second, "{plan}");
        assert!(further["memory"]["peak"].as_u64() <= Some((least + 2) << 20), "{plan}");
        assert!(further["blocks"].as_u64() > Some(0), "{plan}");
    }
    let text = two.run(&[&["plan"], &args[..], &["--device", BOTH, "--vram", &vram]].concat()).0;
    assert!(text.contains(", vulkan:0\n") && text.contains(", vulkan:1\n"), "{text}");
    assert!(text.contains("resident in the GPUs"), "{text}");
    let output = two.airrun(&["plan", &path, "--device", "vulkan:0,vulkan:7"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("vulkan:0 (") && text.contains("vulkan:1 ("), "{text}");
}
