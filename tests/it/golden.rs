//! The golden answers of the tiny models: greedy, token by token, streamed and not, repacked and not.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use airrun::engine::{Ask, Engine, LoadOptions, SamplerSettings, StreamMode, Token, generate};
use airrun::gguf::Index;
use serde::Deserialize;

use crate::test_device;

/// Where the best two logits are closer than this, another order of summation may choose the other.
const NEAR_TIE: f64 = 0.5;

#[derive(Deserialize)]
struct Golden {
    model: String,
    prompts: Vec<Prompt>,
    tokenizer_samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    prompt: String,
    prompt_ids: Vec<Token>,
    #[serde(flatten)]
    answer: Answer,
    other_models: BTreeMap<String, Answer>,
}

#[derive(Deserialize)]
struct Answer {
    completion: String,
    completion_ids: Vec<Token>,
    finish: String,
    margins: Vec<f64>,
}

#[derive(Deserialize)]
struct Sample {
    text: String,
    ids: Vec<Token>,
}

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models")
}

fn golden() -> Golden {
    serde_json::from_reader(File::open(models().join("golden.json")).unwrap()).unwrap()
}

fn open(model: &str, stream: StreamMode, repack: bool) -> Engine {
    let index = Arc::new(Index::open(&models().join(model)).unwrap());
    let device = test_device::choice();
    let options =
        LoadOptions { device, stream, repack, threads: Some(1), ..LoadOptions::default() };
    Engine::open(index, &options).unwrap()
}

/// Answers every prompt and compares tokens up to the first near tie, and the text where there is none.
fn check(model: &str, stream: StreamMode, repack: bool) {
    let engine = open(model, stream, repack);
    let golden = golden();
    let vocab = engine.vocab().unwrap();
    let mut batcher = engine.batcher().unwrap();
    let greedy = SamplerSettings { temp: 0.0, ..SamplerSettings::default() };
    for prompt in &golden.prompts {
        let what = format!("{model} {stream:?} repack {repack}: {}", prompt.name);
        assert_eq!(
            vocab.tokenize(&prompt.prompt, false, true).unwrap(),
            prompt.prompt_ids,
            "{what}"
        );
        let want = if model == golden.model { &prompt.answer } else { &prompt.other_models[model] };
        let go_on = &mut |_: &str| ControlFlow::Continue(());
        let ask = Ask {
            prompt: prompt.prompt_ids.clone(),
            settings: greedy.clone(),
            max_tokens: Some(48),
            ..Ask::default()
        };
        let got = generate(&mut batcher, ask, go_on).unwrap();
        let sure = want.margins.iter().take_while(|&&m| m > NEAR_TIE).count();
        let spoken: Vec<Token> = want.completion_ids.iter().copied().filter(|&t| t != 2).collect();
        let n = sure.min(spoken.len());
        assert_eq!(got.tokens[..n], spoken[..n], "{what}");
        if sure == want.margins.len() {
            assert_eq!(got.text, want.completion, "{what}");
            assert_eq!(format!("{:?}", got.finish).to_lowercase(), want.finish, "{what}");
        }
    }
}

#[test]
fn answers_are_golden() {
    if !test_device::is_cpu() {
        // GPUs may be made of software, and repack nothing.
        check("tiny-chat-q4_k_m.gguf", StreamMode::Never, false);
        check("tiny-chat-q4_k_m.gguf", StreamMode::Always, false);
        return;
    }
    for model in ["tiny-chat-q8_0.gguf", "tiny-chat-q4_k_m.gguf", "tiny-draft-q8_0.gguf"] {
        check(model, StreamMode::Never, true);
        check(model, StreamMode::Never, false);
        check(model, StreamMode::Always, false);
    }
}

#[test]
fn awkward_texts_become_the_right_tokens() {
    let engine = open("tiny-chat-q8_0.gguf", StreamMode::Never, true);
    for sample in golden().tokenizer_samples {
        let got = engine.vocab().unwrap().tokenize(&sample.text, false, true).unwrap();
        assert_eq!(got, sample.ids, "{:?}", sample.text);
    }
}
