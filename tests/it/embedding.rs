//! Models that make vectors: recognised, not offered for what they cannot do, and pooled as their files say.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::gguf_writer::{Payload, string, strings, u32};
use crate::home::{Home, check_refused, check_success};
use crate::serve::Server;
use crate::tiny_models;

/// Ways to make one vector of many, by the numbers that files give them.
const MEAN: u32 = 1;
const CLS: u32 = 2;
const LAST: u32 = 3;
const RANK: u32 = 4;

/// Special tokens, then whole words and ends of words, as libllama wants WordPiece written.
fn vocabulary() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "."];
    let words = words.map(|word| format!("\u{2581}{word}"));
    let letters = ('a'..='z').flat_map(|c| [format!("\u{2581}{c}x"), c.to_string()]);
    let mut all: Vec<String> = special.into_iter().chain(words).chain(letters).collect();
    let unused = tiny_models::N_VOCAB as usize - all.len();
    all.extend((0..unused).map(|i| format!("[unused{i}]")));
    all
}

/// Writes a random model of architecture `arch`, with a vocabulary of words and this pooling.
pub(crate) fn model(dir: &Path, arch: &str, pooling: u32) -> PathBuf {
    model_with(dir, arch, pooling, vec![])
}

/// The same with more keys.
fn model_with(dir: &Path, arch: &str, pooling: u32, more: Vec<(String, Payload)>) -> PathBuf {
    let spec = tiny_models::all().iter().find(|spec| spec.name == arch).unwrap();
    let path = dir.join(format!("{arch}-{pooling}.gguf"));
    tiny_models::write(spec, &path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // The writer's models have no tokenizer.
    let none =
        [&string(b"tokenizer.ggml.model", 20)[..], &8_u32.to_le_bytes(), &string(b"none", 4)]
            .concat();
    let at = bytes.windows(none.len()).position(|w| w == none).unwrap() + none.len() - 4;
    bytes[at..at + 4].copy_from_slice(b"bert");
    let words = vocabulary();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut keys = vec![
        ("tokenizer.ggml.tokens".to_owned(), strings(&words)),
        ("tokenizer.ggml.padding_token_id".to_owned(), u32(0)),
        ("tokenizer.ggml.unknown_token_id".to_owned(), u32(1)),
        ("tokenizer.ggml.bos_token_id".to_owned(), u32(2)),
        ("tokenizer.ggml.cls_token_id".to_owned(), u32(2)),
        ("tokenizer.ggml.seperator_token_id".to_owned(), u32(3)),
        ("tokenizer.ggml.eos_token_id".to_owned(), u32(3)),
        ("tokenizer.ggml.mask_token_id".to_owned(), u32(4)),
        (format!("{arch}.pooling_type"), u32(pooling)),
    ];
    keys.extend(more);
    fs::write(&path, with_keys(&bytes, &keys)).unwrap();
    path
}

/// A file with more keys, its data where it was in the page of 32 bytes.
pub(crate) fn with_keys(file: &[u8], keys: &[(String, Payload)]) -> Vec<u8> {
    let entry = |(name, Payload(ty, bytes)): &(String, Payload)| {
        [&string(name.as_bytes(), name.len() as u64)[..], &ty.to_le_bytes(), bytes].concat()
    };
    let mut new: Vec<u8> = keys.iter().flat_map(entry).collect();
    let fill = |n: usize| entry(&("x.fill".to_owned(), crate::gguf_writer::str(&" ".repeat(n))));
    let missing = (32 - (new.len() + fill(0).len()) % 32) % 32;
    new.extend(fill(missing));
    let n_keys = u64::from_le_bytes(file[16..24].try_into().unwrap()) + keys.len() as u64 + 1;
    [&file[..16], &n_keys.to_le_bytes(), &new, &file[24..]].concat()
}

fn vector(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

const TEXTS: [&str; 3] = ["the cat sat on a mat.", "a dog ran", "the cat sat on a mat."];

/// The vectors of [`TEXTS`].
fn vectors(server: &Server) -> Vec<Vec<f64>> {
    let answer = server.ask("/v1/embeddings", &json!({"input": TEXTS}));
    answer["data"].as_array().unwrap().iter().map(|d| vector(&d["embedding"])).collect()
}

#[test]
fn texts_become_vectors_as_the_file_says() {
    let home = Home::new();
    for arch in ["bert", "nomic-bert", "jina-bert-v2", "gemma-embedding"] {
        let mut by_pooling: Vec<Vec<f64>> = Vec::new();
        let all = [MEAN, CLS, LAST];
        for pooling in if arch == "bert" { &all[..] } else { &all[..2] } {
            let pooling = *pooling;
            let path = model(home.path(), arch, pooling).display().to_string();
            let server = Server::with_model(&path, &["--stream", "always"]);
            let all = vectors(&server);
            for v in &all {
                assert!((dot(v, v) - 1.0).abs() < 1e-4, "{arch} {pooling}: {}", dot(v, v));
            }
            assert!(dot(&all[0], &all[2]) > 0.9999, "{arch} {pooling}");
            assert!(dot(&all[0], &all[1]) < 0.9999, "{arch} {pooling}");
            let asked = json!({"model": format!("{arch}-{pooling}"), "input": TEXTS[0]});
            let same = server.ask("/api/embed", &asked);
            assert!(dot(&vector(&same["embeddings"][0]), &all[0]) > 0.9999, "{arch} {pooling}");
            let body = json!({"query": TEXTS[0], "documents": [TEXTS[1], {"text": TEXTS[2]}], "return_documents": true});
            let ranks = server.ask("/v1/rerank", &body)["results"].clone();
            let likeness = |i: usize| ranks[i]["relevance_score"].as_f64().unwrap();
            assert_eq!(
                (&ranks[0]["index"], &ranks[0]["document"]["text"]),
                (&json!(1), &json!(TEXTS[2]))
            );
            assert!(
                (likeness(1) - dot(&all[0], &all[1])).abs() < 1e-3 && likeness(0) > 0.9999,
                "{ranks}"
            );
            by_pooling.push(all[0].clone());
        }
        for (i, a) in by_pooling.iter().enumerate() {
            for b in &by_pooling[..i] {
                assert!(dot(a, b) < 0.999, "{arch}: two poolings give the same vector");
            }
        }
        // Resident weights give the same.
        let path = home.at(&format!("{arch}-{MEAN}.gguf")).display().to_string();
        let server = Server::with_model(&path, &["--stream", "never"]);
        assert!(dot(&vectors(&server)[0], &by_pooling[0]) > 0.9999, "{arch}");
    }
}

/// What a server says of the texts, in the order in which they were sent, and how many tokens it read for that.
fn scores(server: &Server, query: &str, documents: &[&str]) -> (Vec<f64>, u64) {
    let answer = server.ask("/v1/rerank", &json!({"query": query, "documents": documents}));
    let mut scores = vec![0.0; documents.len()];
    let results = answer["results"].as_array().unwrap();
    for result in results {
        let at = usize::try_from(result["index"].as_u64().unwrap()).unwrap();
        scores[at] = result["relevance_score"].as_f64().unwrap();
    }
    assert!(
        results
            .windows(2)
            .all(|w| w[0]["relevance_score"].as_f64() >= w[1]["relevance_score"].as_f64())
    );
    (scores, answer["usage"]["prompt_tokens"].as_u64().unwrap())
}

#[test]
fn a_head_says_how_well_texts_answer() {
    let home = Home::new();
    let path = model(home.path(), "bert", RANK).display().to_string();
    let server = Server::with_model(&path, &["--stream", "always"]);
    let documents = ["a dog ran", "the cat sat on a mat.", "the mat"];
    let (all, n) = scores(&server, "the cat", &documents);
    // One beginning, an end of each: [CLS] the cat [SEP] a dog ran [SEP].
    assert_eq!(n, 3 * 5 + (3 + 7 + 2));
    assert!(all[0] != all[1] && all[1] != all[2] && all.iter().all(|x| x.is_finite()), "{all:?}");
    // It depends on the question, and on no other text; marks in a text are words.
    for (document, score) in documents.iter().zip(&all) {
        assert!((scores(&server, "the cat", &[document]).0[0] - score).abs() < 1e-4);
        assert!((scores(&server, "a dog", &[document]).0[0] - score).abs() > 1e-6);
    }
    // Vectors and scores by turns; the same with resident weights.
    assert!(dot(&vectors(&server)[0], &vectors(&server)[2]) > 0.9999);
    assert_eq!(scores(&server, "the cat", &documents).0, all);
    let resident = Server::with_model(&path, &["--stream", "never"]);
    let same = scores(&resident, "the cat", &documents).0;
    assert!(same.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-4), "{same:?} {all:?}");
    let long = json!({"query": "cat ".repeat(500), "documents": ["cat ".repeat(5000)]});
    assert_eq!(server.post("/v1/rerank", &long).status, 400);

    // A model that has a template for it, whose words are its own.
    let template = crate::gguf_writer::str("[CLS] {query} [MASK] {document} [SEP]");
    let key = ("tokenizer.chat_template.rerank".to_owned(), template);
    let kinds: Vec<i32> = (0..vocabulary().len()).map(|i| if i < 5 { 3 } else { 1 }).collect();
    let kinds = ("tokenizer.ggml.token_type".to_owned(), crate::gguf_writer::i32s(&kinds));
    let path = model_with(home.path(), "qwen3", RANK, vec![key, kinds]);
    let server = Server::with_model(path.to_str().unwrap(), &[]);
    let n = |query: &str| scores(&server, query, &["a dog ran"]).1;
    assert_eq!(n("the cat"), 3 + 2 + 3);
    assert!(n("the cat [SEP]") > n("the cat") + 1);

    // A file that promises a head, and has none.
    let path = model(home.path(), "gemma-embedding", RANK);
    let server = Server::with_model(path.to_str().unwrap(), &[]);
    let answer = server.post("/v1/rerank", &json!({"query": "a", "documents": ["b"]}));
    assert!(answer.status == 400 && answer.text.contains("no head"), "{answer:?}");
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "the cat"})).status, 200);
}

#[test]
fn a_model_for_vectors_writes_nothing() {
    let home = Home::new();
    let path = model(home.path(), "bert", MEAN).display().to_string();
    let words = ["an embedding model, which writes no text"];
    let question = fs::File::open(home.put("question", b"Hi")).unwrap();
    check_refused(&home.airrun(&["chat", &path]).stdin(question).output().unwrap(), &words);
    check_refused(&home.run(&["run", &path, "Hi"]), &words);
    let list = |args: &[&str]| -> Vec<Value> {
        let output = home.airrun(args).env("AIRRUN_MODELS", home.path()).output().unwrap();
        serde_json::from_str(&check_success(&output)).unwrap()
    };
    assert_eq!(list(&["list", "--json"]), [] as [Value; 0]);
    let all = list(&["list", "--json", "--all"]);
    assert_eq!((&all[0]["purpose"], &all[0]["how"]), (&json!("embedding"), &Value::Null));

    let server = Server::with_model(&path, &[]);
    let text = json!({"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi"});
    for path in ["/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate"] {
        let answer = server.post(path, &text);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.text.contains("makes vectors, and no text"), "{answer:?}");
    }
    assert_eq!(
        server.ask("/api/show", &json!({"model": "bert-1"}))["capabilities"],
        json!(["embedding"])
    );
    // A text that is too long is refused, or cut where Ollama's clients ask for that.
    let long = "cat ".repeat(5000);
    assert_eq!(server.post("/v1/embeddings", &json!({"input": long})).status, 400);
    let cut = json!({"model": "bert-1", "input": long, "truncate": true});
    assert_eq!(server.post("/api/embed", &cut).status, 200);
}

/// The vectors of a model that writes take no memory that was promised to nobody.
#[test]
fn vectors_keep_within_the_budget() {
    let tiny = crate::home::model("tiny-chat-q8_0.gguf").display().to_string();
    for parallel in ["1", "3"] {
        let server =
            Server::with_model(&tiny, &["--ram", "96M", "-c", "512", "--parallel", parallel]);
        let answer = server
            .ask("/v1/embeddings", &json!({"input": ["word ".repeat(400), "cat".to_owned()]}));
        let long = vector(&answer["data"][0]["embedding"]);
        assert!((dot(&long, &long) - 1.0).abs() < 1e-4);
        assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    }
}
