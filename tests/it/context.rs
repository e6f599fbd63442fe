//! Contexts that users choose: smaller keys and values, stretched positions. Streamed and resident alike; a plan says what they take.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use airrun::engine::{Engine, KvType, LoadOptions, Recall, StreamMode, Token};
use airrun::gguf::Index;
use serde_json::Value;

use crate::tiny_models::{self, Outcome};

fn tiny() -> String {
    format!("{}/models/tiny-chat-q8_0.gguf", env!("CARGO_MANIFEST_DIR"))
}

/// stdout, stderr and whether it ended well.
fn airrun(args: &[&str]) -> (String, String, bool) {
    let run = Command::new(env!("CARGO_BIN_EXE_airrun")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(run.stdout), text(run.stderr), run.status.success())
}

fn logits(more: &[&str]) -> String {
    let (model, tokens) = (tiny(), "5,6,7,8,9,10,11,12");
    let args = [&["logits", &model, "--tokens", tokens, "--json", "-q"][..], more].concat();
    let (out, why, well) = airrun(&args);
    assert!(well, "{more:?}: {why}");
    out
}

#[test]
fn smaller_keys_and_stretched_positions_change_logits_and_stream_alike() {
    let plain = logits(&[]);
    for more in [
        &["--kv", "q8_0"][..],
        &["--kv", "q4_0"],
        &["--rope-scaling", "linear", "--rope-scale", "4"],
        &["--rope-scaling", "yarn", "--rope-scale", "4"],
        &["--rope-base", "1000000"],
    ] {
        let resident = logits(&[more, &["--stream", "never"]].concat());
        assert_ne!(resident, plain, "{more:?}");
        assert_eq!(resident, logits(&[more, &["--stream", "always"]].concat()), "{more:?}");
    }
    assert_eq!(plain, logits(&["--kv", "f16", "--rope-scaling", "none"]));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let model = tiny();
    for wrong in [
        ["--kv", "q2_k"],
        ["--rope-scale", "0"],
        ["--rope-scale", "-1"],
        ["--rope-scale", "nan"],
        ["--rope-scale", "inf"],
        ["--rope-base", "0"],
        ["--rope-scaling", "more"],
        ["--flash", "maybe"],
    ] {
        let (out, why, well) = airrun(&["run", &model, "Hi", wrong[0], wrong[1]]);
        assert!(!well && out.is_empty() && why.contains(wrong[1]), "{wrong:?}: {why}");
    }
    // ggml keeps quantised values only where attention is one operation.
    let (_, why, well) = airrun(&["run", &model, "Hi", "--kv", "q8_0", "--flash", "off"]);
    assert!(!well && why.starts_with("airrun: "), "{why}");
}

#[test]
fn a_context_beyond_the_models_own_is_said_once() {
    let model = tiny();
    for args in [&["plan", &model][..], &["run", &model, "Hi", "-n", "1"]] {
        let said = |more: &[&str]| {
            let (_, why, well) = airrun(&[args, more].concat());
            assert!(well, "{why}");
            why.matches("made for 1024").count()
        };
        assert_eq!(said(&["-c", "2048"]), 1, "{args:?}");
        assert_eq!(said(&["-c", "1024"]), 0, "{args:?}");
        assert_eq!(said(&["-c", "2048", "--rope-scale", "2"]), 0, "{args:?}");
    }
}

fn plan(more: &[&str]) -> Value {
    let model = tiny();
    let args = [&["plan", &model, "--json", "--stream", "always"][..], more].concat();
    let (out, why, well) = airrun(&args);
    assert!(well, "{why}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_plan_weighs_contexts() {
    let context = |plan: &Value| plan["memory"]["context"].as_u64().unwrap();
    let halves = plan(&["-c", "2048", "--rope-scale", "4"]);
    let longer = &halves["longer"];
    assert_eq!((&halves["kv"], &longer["ctx"]), (&"f16".into(), &4096.into()));
    assert!(longer["context"].as_u64().unwrap() > context(&halves), "{longer}");
    assert_eq!(plan(&["-c", "1024"])["longer"], Value::Null);
    let long = ["-c", "4096", "--rope-scale", "4"];
    let whole = plan(&long);
    assert_eq!(whole["longer"], Value::Null);
    let smaller = whole["smaller_kv"]["context"].as_u64().unwrap();
    let bytes = plan(&[&long[..], &["--kv", "q8_0"]].concat());
    assert!(context(&bytes) < context(&whole) && smaller < context(&whole));
    assert_eq!(bytes["smaller_kv"], Value::Null);
    // Stretched, the model is made for more.
    assert_eq!(plan(&["-c", "1024", "--rope-scale", "4"])["longer"]["ctx"], 2048);
}

/// The logits after some tokens, or why not.
fn computed(path: &Path, kv: KvType, stream: StreamMode) -> Result<Vec<u32>, String> {
    let index = Index::open(path).map_err(|error| error.to_string())?;
    let options = LoadOptions {
        stream,
        ctx: Some(512),
        threads: Some(2),
        repack: false,
        recall: Recall { kv, ..Recall::default() },
        ..LoadOptions::default()
    };
    let engine = Engine::open(Arc::new(index), &options).map_err(|error| error.to_string())?;
    let mut session = engine.session().map_err(|error| error.to_string())?;
    let tokens: Vec<Token> = (1..40).map(|i| i * 37 % 127).collect();
    session.sync(&tokens).map_err(|error| error.to_string())?;
    session.logits().map(|l| l.iter().map(|l| l.to_bits()).collect()).map_err(|e| e.to_string())
}

/// Of all kinds of models: what can have such a context streams with it as it is resident, and what cannot says so.
#[test]
fn all_kinds_of_models_take_smaller_keys_or_say_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let every = std::env::var("AIRRUN_TEST_EVERY").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut took, mut refused) = (0, Vec::new());
    for spec in tiny_models::all().iter().step_by(every) {
        if !matches!(spec.outcome, Outcome::Logits) {
            continue;
        }
        let path = dir.path().join("m.gguf");
        tiny_models::write(spec, &path).unwrap();
        for kv in [KvType::Q8_0, KvType::Q4_0] {
            let resident = computed(&path, kv, StreamMode::Never);
            assert_eq!(resident, computed(&path, kv, StreamMode::Always), "{}", spec.name);
            match resident {
                Ok(_) => took += 1,
                Err(why) => refused.push((spec.name, why)),
            }
        }
    }
    let in_words = |why: &str| {
        ["does not divide", "cannot be", "requires"].iter().any(|word| why.contains(word))
    };
    let odd: Vec<_> = refused.iter().filter(|(_, why)| !in_words(why)).collect();
    assert!(took > 2 && odd.is_empty(), "{took}, {odd:?}");
}
