//! `airrun list` and models by name, over the stores of other tools as they are on disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::gguf_writer::{Gguf, I32, Payload, Tensor, str, u32};
use crate::home::{Home, check_refused, check_success, model, text};

/// The number of the type.
const U16: u32 = 2;

const WHO: &str = "I am tiny-chat, a very small model that runs with airrun.\n";

/// A blob in Ollama's store, by a hash of this number.
fn blob(home: &Home, number: u8, content: &[u8]) -> String {
    let hex = format!("{number:02x}").repeat(32);
    home.put(&format!(".ollama/models/blobs/sha256-{hex}"), content);
    format!("sha256:{hex}")
}

/// A manifest in Ollama's store.
fn manifest(home: &Home, name: &str, layers: &[(&str, &str)]) {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(kind, digest)| {
            json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": digest, "size": 1})
        })
        .collect();
    let json = json!({"schemaVersion": 2, "config": {}, "layers": layers});
    home.put(&format!(".ollama/models/manifests/{name}"), json.to_string().as_bytes());
}

/// A file in the hub's cache.
fn in_hub(home: &Home, repo: &str, file: &str, content: &[u8]) -> PathBuf {
    let repo = format!(".cache/huggingface/hub/models--{}", repo.replace('/', "--"));
    let name = file.replace('/', "-");
    home.put(&format!("{repo}/blobs/{name}-hash"), content);
    home.put(&format!("{repo}/refs/main"), b"c0ffee");
    let link = home.at(&format!("{repo}/snapshots/c0ffee/{file}"));
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(format!("../../blobs/{name}-hash"), &link).unwrap();
    link
}

fn small(arch: &str) -> Vec<u8> {
    let mut gguf = Gguf::llama();
    gguf.set("general.architecture", str(arch));
    gguf.bytes()
}

fn list(home: &Home, args: &[&str]) -> Vec<Value> {
    let stdout = check_success(&home.run(&[&["list", "--json"], args].concat()));
    serde_json::from_str(&stdout).unwrap()
}

fn names(rows: &[Value]) -> Vec<(String, String)> {
    let field = |row: &Value, key| row[key].as_str().unwrap_or("none").to_owned();
    rows.iter().map(|r| (field(r, "name"), field(r, "origin"))).collect()
}

/// A home where every tool keeps something.
fn full_home() -> Home {
    let home = Home::new();
    let tiny = fs::read(model("tiny-draft-q8_0.gguf")).unwrap();
    let weights = blob(&home, 1, &tiny);
    manifest(&home, "registry.ollama.ai/library/llama3.2/1b", &[("model", &weights)]);
    manifest(&home, "registry.ollama.ai/me/mine/latest", &[("model", &weights)]);
    in_hub(&home, "org/Repo-GGUF", "Repo-Q4_K_M.gguf", &tiny);
    in_hub(&home, "org/Repo-GGUF", "Repo-Q8_0.gguf", &tiny);
    in_hub(&home, "org/Repo-GGUF", "mmproj-f16.gguf", &small("clip"));
    home.put(".lmstudio/models/pub/Lm-GGUF/lm-q5_k_m.gguf", &tiny);
    home.put(".cache/llama.cpp/ggml-org_Old-GGUF_old-Q8_0.gguf", &tiny);
    home.put(".local/share/nomic.ai/GPT4All/gpt4all-falcon.gguf", &tiny);
    home.put(".config/Jan/data/llamacpp/models/jan-v1/model.gguf", &tiny);
    home.put("models/here ü.gguf", &tiny);
    home.put("mine/deep/er/own.gguf", &tiny);
    let mut embedding = Gguf::llama();
    embedding.set("llama.pooling_type", u32(3));
    home.put("mine/embed.gguf", &embedding.bytes());
    let mut adapter = Gguf::llama();
    adapter.set("general.type", str("adapter"));
    home.put("mine/lora.gguf", &adapter.bytes());
    home.put("mine/flux.gguf", &small("flux"));
    home.put("mine/whisper.gguf", &small("whisper"));
    home
}

/// What its header refuses fits nowhere, and nobody promises how fast it would be.
#[test]
fn what_cannot_be_loaded_does_not_fit() {
    let home = Home::new();
    home.put("models/good.gguf", &fs::read(model("tiny-draft-q8_0.gguf")).unwrap());
    home.put("models/unknown.gguf", &small("llama9000"));
    let mut double = Gguf::llama();
    *double.tensor("output.weight") = Tensor::of_type("output.weight", &[16, 8], 28, 1024);
    home.put("models/double.gguf", &double.bytes());
    let mut heads = Gguf::llama();
    heads.set("llama.attention.head_count_kv", u32(3));
    home.put("models/heads.gguf", &heads.bytes());
    let mut good = fs::read(model("tiny-draft-q8_0.gguf")).unwrap();
    let key = b"tokenizer.ggml.pre";
    let at = good.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4 + 8;
    good[at] = b'z';
    home.put("models/words.gguf", &good);
    for row in list(&home, &[]) {
        let name = row["name"].as_str().unwrap();
        let runs = home.run(&["run", name, "a", "-n", "1", "-t", "1"]).status.success();
        assert_eq!(runs, name == "good", "{row}");
        assert_eq!(row["refused"].is_null(), runs, "{row}");
        assert_eq!(row["how"].is_null(), !runs, "{row}");
    }
    let output = home.run(&["list", "-v"]);
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(table.matches("cannot be loaded").count(), 4, "{table}");
    assert!(said.contains("libllama knows no architecture 'llama9000'"), "{said}");
    assert!(said.contains("4 cannot be loaded"), "{said}");
}

#[test]
fn every_store_is_listed() {
    let home = full_home();
    let mut command = home.airrun(&["list", "--json"]);
    let output = command.env("AIRRUN_MODELS", home.at("mine")).output().unwrap();
    let rows: Vec<Value> = serde_json::from_str(&check_success(&output)).unwrap();
    let want = [
        ("own", "named"),
        ("here ü", "here"),
        ("org/Repo-GGUF:Q4_K_M", "hub"),
        ("org/Repo-GGUF:Q8_0", "hub"),
        ("ggml-org_Old-GGUF_old-Q8_0", "llama-cpp"),
        ("llama3.2:1b", "ollama"),
        ("me/mine:latest", "ollama"),
        ("pub/Lm-GGUF:Q5_K_M", "lm-studio"),
        ("gpt4all-falcon", "gpt4all"),
        ("jan-v1", "jan"),
    ];
    assert_eq!(names(&rows), want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    for row in &rows {
        assert_eq!(row["architecture"], "llama", "{row}");
        assert_eq!((&row["how"], &row["purpose"]), (&json!("fits"), &json!("text")), "{row}");
        assert!(row["tokens_per_second"].as_f64().is_some_and(|x| x > 0.0), "{row}");
        assert_eq!(row["size"], 1_248_736, "{row}");
    }
    let mut command = home.airrun(&["list", "--json", "--all"]);
    let all = command.env("AIRRUN_MODELS", home.at("mine")).output().unwrap();
    let all: Vec<Value> = serde_json::from_str(&check_success(&all)).unwrap();
    let purpose = |name: &str| all.iter().find(|r| r["name"] == name).map(|r| r["purpose"].clone());
    for (name, what) in
        [("embed", "embedding"), ("lora", "helper"), ("flux", "image"), ("whisper", "speech")]
    {
        assert_eq!(purpose(name), Some(json!(what)), "{name}");
    }
    let table = check_success(&home.run(&["list"]));
    assert!(table.starts_with("NAME ") && table.contains("llama3.2:1b"), "{table}");
    assert!(table.contains("fits, "), "{table}");
}

#[test]
fn trouble_in_one_place_hides_no_other() {
    let home = full_home();
    home.put("models/broken.gguf", b"not a model");
    home.put("models/half-00001-of-00002.gguf", b"x");
    home.put("models/later.gguf.part", b"x");
    home.put(".ollama/models/manifests/registry.ollama.ai/library/bad/latest", b"{");
    symlink("nowhere", home.at("models/lost.gguf")).unwrap();
    symlink(home.at("models"), home.at("models/loop")).unwrap();
    fs::create_dir_all(home.at("models/closed")).unwrap();
    fs::set_permissions(home.at("models/closed"), fs::Permissions::from_mode(0o0)).unwrap();
    let output = home.run(&["list", "-v"]);
    let (stdout, stderr) = (check_success(&output), text(&output.stderr));
    fs::set_permissions(home.at("models/closed"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(stdout.lines().count(), 10, "{stdout}");
    for word in ["broken.gguf", "part 2 of 2", "later.gguf.part", "bad/latest", "lost.gguf"] {
        assert!(stderr.contains(word), "'{word}' is missing in: {stderr}");
    }
    assert_eq!(text(&home.run(&["list"]).stderr), "", "said only to those who ask");
}

#[test]
fn a_machine_without_models_is_told_how_to_get_one() {
    let home = Home::new();
    let output = home.run(&["list"]);
    assert_eq!(check_success(&output), "");
    assert!(text(&output.stderr).contains("airrun pull"));
    assert_eq!(list(&home, &[]), Vec::<Value>::new());
}

#[test]
fn models_go_by_name_everywhere() {
    let home = full_home();
    for name in [
        "llama3.2:1b",
        "llama",
        "me/mine",
        "org/repo-gguf",
        "hf.co/org/Repo-GGUF:Q8_0",
        "Repo-Q8_0",
        "jan",
        "here ü",
        "lm-q5",
    ] {
        let output = home.run(&["inspect", name]);
        assert!(check_success(&output).contains("tiny-draft"), "{name}");
    }
    let output = home.run(&["logits", "jan-v1", "--tokens", "1", "-t", "1"]);
    assert_eq!(check_success(&output).lines().count(), 11);
    check_refused(
        &home.run(&["run", "g", "Hi"]),
        &["'g': it could be ggml-org_Old-GGUF_old-Q8_0 or gpt4all-falcon"],
    );
    check_refused(
        &home.run(&["run", "lama3.2", "Hi"]),
        &["no model of this name", "did you mean 'llama3.2:1b'?"],
    );
    check_refused(&home.run(&["plan", "some/where"]), &["airrun pull some/where"]);
    check_refused(&home.run(&["bench", "models/none.gguf"]), &["No such file"]);
    // A name that is also a directory's.
    fs::create_dir_all(home.at("org/Repo-GGUF")).unwrap();
    check_success(&home.run(&["inspect", "org/Repo-GGUF"]));
    check_refused(&home.run(&["inspect", "models"]), &["directory"]);
}

/// The tiny model in Ollama's store, with these parameters, a system message, and a template.
fn ollama_home(params: &Value, weights: &[u8]) -> Home {
    let home = Home::new();
    let weights = blob(&home, 1, weights);
    let params = blob(&home, 2, params.to_string().as_bytes());
    let template =
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}";
    let template = blob(&home, 3, template.as_bytes());
    let layers = [("model", &*weights), ("params", &params), ("template", &template)];
    manifest(&home, "registry.ollama.ai/library/tiny/latest", &layers);
    home
}

#[test]
fn ollamas_settings_hold_where_the_user_says_nothing() {
    let weights = fs::read(model("tiny-chat-q8_0.gguf")).unwrap();
    let ask = |home: &Home, args: &[&str]| {
        home.run(&[&["run", "tiny", "Who are you?", "-t", "1"], args].concat())
    };
    let home = ollama_home(&json!({"temperature": 0, "num_ctx": 256}), &weights);
    assert_eq!(check_success(&ask(&home, &[])), WHO);
    let home = ollama_home(&json!({"temperature": 0, "stop": ["nothing", "small mod"]}), &weights);
    assert_eq!(check_success(&ask(&home, &[])), "I am tiny-chat, a very \n");
    let home = ollama_home(&json!({"temperature": 100, "num_predict": 3}), &weights);
    assert_eq!(check_success(&ask(&home, &["--temp", "0", "-n", "40"])), WHO);
    // Its blob, by path: the same model.
    let path = home.at(&format!(".ollama/models/blobs/sha256-{}", "01".repeat(32)));
    let output = home.run(&[
        "run",
        path.to_str().unwrap(),
        "Who are you?",
        "--temp",
        "0",
        "-n",
        "40",
        "-t",
        "1",
    ]);
    assert_eq!(check_success(&output), WHO);
}

#[test]
fn ollamas_template_helps_a_file_without_one() {
    let mut weights = fs::read(model("tiny-chat-q8_0.gguf")).unwrap();
    let key = b"tokenizer.chat_template";
    let at = weights.windows(key.len()).position(|w| w == key).unwrap();
    weights[at] = b'T';
    let home = ollama_home(&json!({"temperature": 0}), &weights);
    let output = home.run(&["run", "tiny", "Who are you?", "-t", "1"]);
    assert_eq!((check_success(&output).as_str(), text(&output.stderr).as_str()), (WHO, ""));
    let plain = home.put("plain.gguf", &weights);
    let output =
        home.run(&["run", plain.to_str().unwrap(), "Who are you?", "--temp", "0", "-t", "1"]);
    assert!(text(&output.stderr).contains("no chat template"));
}

#[test]
fn split_models_open_through_links() {
    let home = Home::new();
    // Two files that say that they are parts of one model.
    let u16 = |n: u16| Payload(U16, n.to_le_bytes().to_vec());
    let part = |n: u16| {
        let mut gguf = Gguf::llama();
        gguf.set("split.no", u16(n));
        gguf.set("split.count", u16(2));
        gguf.set("split.tensors.count", Payload(I32, 12_i32.to_le_bytes().to_vec()));
        let cut = gguf.tensors.split_off(6);
        if n == 1 {
            gguf.tensors = cut;
        }
        gguf.bytes()
    };
    for n in 0..2 {
        in_hub(&home, "o/Split", &format!("s-F32-0000{}-of-00002.gguf", n + 1), &part(n));
    }
    let rows = list(&home, &[]);
    assert_eq!(names(&rows), [("o/Split:F32".to_owned(), "hub".to_owned())]);
    let output = home.run(&["logits", "o/split", "--tokens", "1,2", "-t", "1"]);
    assert_eq!(check_success(&output).lines().count(), 9);
}
