//! A tokenizer of the user's own: used instead of the file's, and compared with it.

use std::fs;
use std::sync::Arc;

use airrun::engine::{Engine, LoadOptions};
use airrun::gguf::Index;
use serde_json::{Value, json};

use crate::home::{Home, check_refused, check_success, model, text};

const WHO: &str = "I am tiny-chat, a very small model that runs with airrun.\n";

fn tiny() -> String {
    model("tiny-chat-q8_0.gguf").display().to_string()
}

fn own() -> Value {
    serde_json::from_slice(&fs::read(model("tiny-chat-tokenizer.json")).unwrap()).unwrap()
}

fn ask(home: &Home, model: &str, tokenizer: &str) -> std::process::Output {
    home.run(&["run", model, "Who are you?", "--temp", "0", "-t", "1", "--tokenizer", tokenizer])
}

#[test]
fn the_right_tokenizer_changes_nothing() {
    let home = Home::new();
    let right = model("tiny-chat-tokenizer.json").display().to_string();
    let output = ask(&home, &tiny(), &right);
    assert_eq!((check_success(&output).as_str(), text(&output.stderr).as_str()), (WHO, ""));
    // Characters of several bytes come whole.
    let args = |extra: &[&'static str]| {
        let tiny = tiny();
        let mut all = vec!["run".to_owned(), tiny, "Wie heißt die Hauptstadt? 東京 🦀".to_owned()];
        all.extend(["--temp", "0", "-t", "1", "-n", "24", "--ignore-eos"].map(str::to_owned));
        all.extend(extra.iter().map(|e| (*e).to_owned()));
        all
    };
    let run = |args: Vec<String>| {
        check_success(&home.run(&args.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let mut with = args(&["--tokenizer"]);
    with.push(right);
    assert_eq!(run(args(&[])), run(with));
}

#[test]
fn the_two_are_compared() {
    let home = Home::new();
    let check = |file: &str, extra: &[&str]| {
        home.run(&[&["inspect", &tiny(), "--check-tokenizer", file], extra].concat())
    };
    let right = model("tiny-chat-tokenizer.json").display().to_string();
    let stdout = check_success(&check(&right, &[]));
    assert!(stdout.ends_with("the same, for all 24 texts\n"), "{stdout}");
    let json: Value = serde_json::from_str(&check_success(&check(&right, &["--json"]))).unwrap();
    assert_eq!(json["same"], true);

    let mut other = own();
    other["model"]["merges"].as_array_mut().unwrap().truncate(900);
    let other = home.put("other.json", other.to_string().as_bytes()).display().to_string();
    let output = check(&other, &[]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("1789") && stdout.contains("900"), "{stdout}");
    assert!(
        stdout.contains("differs at") && stdout.contains("texts are cut otherwise"),
        "{stdout}"
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn wrong_tokenizers_are_refused_or_warned_about() {
    let home = Home::new();
    for (name, content) in [
        ("empty.json", ""),
        ("text.json", "hello"),
        ("object.json", "{}"),
        ("deep.json", &"[".repeat(100_000)),
    ] {
        let file = home.put(name, content.as_bytes()).display().to_string();
        check_refused(&ask(&home, &tiny(), &file), &[&format!("tokenizer '{file}': ")]);
        check_refused(
            &home.run(&["inspect", &tiny(), "--check-tokenizer", &file]),
            &["not a tokenizer.json"],
        );
    }
    check_refused(&ask(&home, &tiny(), "/no/such.json"), &["No such file"]);
    let mut large = own();
    large["model"]["vocab"]["zzzz"] = json!(2048);
    let file = home.put("large.json", large.to_string().as_bytes()).display().to_string();
    check_refused(&ask(&home, &tiny(), &file), &["2049 tokens, and the model knows 2048"]);
    let mut swapped = own();
    let vocab = swapped["model"]["vocab"].as_object_mut().unwrap();
    let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
    vocab.insert("a".to_owned(), b);
    vocab.insert("b".to_owned(), a);
    let file = home.put("swapped.json", swapped.to_string().as_bytes()).display().to_string();
    let output = ask(&home, &tiny(), &file);
    assert!(
        text(&output.stderr).contains("warning: 2 of the tokenizer's 2048 tokens"),
        "{}",
        text(&output.stderr)
    );
}

/// A pattern that is read in exponentially many ways ends all the same, and one that is too large is refused.
#[test]
fn hostile_patterns_end() {
    let home = Home::new();
    let long = "a".repeat(3000) + "!";
    let with_pattern = |pattern: &str| {
        let mut own = own();
        own["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]});
        home.put("pattern.json", own.to_string().as_bytes()).display().to_string()
    };
    for pattern in [r"(?=((a+)+)+$)x|(a|a)*(?!a)b\1", r"((a*)*)*(?<=z)\1", r"(a?){500}a{500}(?=b)"]
    {
        let file = with_pattern(pattern);
        let args = [
            "run",
            &tiny(),
            &long,
            "--raw",
            "-n",
            "1",
            "-t",
            "1",
            "-c",
            "4096",
            "--tokenizer",
            &file,
        ];
        let output = home.run(&args);
        // Whether it cuts the text or cannot, it says so and comes back.
        let stderr = text(&output.stderr);
        let refused = output.status.code() == Some(1) && stderr.starts_with("airrun: ");
        assert!(output.status.code() == Some(0) || refused, "{pattern}: {stderr}");
    }
    let file = with_pattern("((a{1000}){1000}){1000}");
    check_refused(&ask(&home, &tiny(), &file), &["not a tokenizer.json"]);
}

/// A copy of the tiny model whose text is cut into words as `pre` says: a name as long as the file's own.
fn cut_as(dir: &std::path::Path, pre: &str) -> std::path::PathBuf {
    let mut bytes = std::fs::read(tiny()).unwrap();
    let key = b"tokenizer.ggml.pre";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    let len = u64::from_le_bytes(bytes[at + 4..at + 12].try_into().unwrap()) as usize;
    assert_eq!(len, pre.len(), "{:?}", String::from_utf8_lossy(&bytes[at + 12..at + 12 + len]));
    bytes[at + 12..at + 12 + len].copy_from_slice(pre.as_bytes());
    let path = dir.join(format!("{pre}.gguf"));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn long_rows_of_one_kind_end_nobody() {
    let dir = tempfile::tempdir().unwrap();
    // libllama has no scanner of its own for the first three.
    for pre in ["bloom", "youtu", "afmoe", "qwen2"] {
        let index = Index::open(&cut_as(dir.path(), pre)).unwrap();
        let engine = Engine::open(Arc::new(index), &LoadOptions::default()).unwrap();
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let read = small.spawn(move || {
            let vocab = engine.vocab().unwrap();
            for row in ["a", "=", " ", "\n", "7", "Ω", "。", "<|im_end|>", "\u{301}", "aB"] {
                let text = row.repeat((300 << 10) / row.len()) + "x";
                let tokens = vocab.tokenize(&text, true, true).unwrap();
                assert!(vocab.fewest_tokens(&text) <= tokens.len(), "{row:?}");
                let bytes: Vec<u8> = tokens.iter().flat_map(|&t| vocab.bytes(t)).collect();
                assert!(bytes == text.as_bytes(), "{pre} {row:?}");
            }
        });
        read.unwrap().join().unwrap();
    }
}

#[test]
fn texts_in_pieces_have_the_tokens_of_the_whole() {
    let index = Index::open(std::path::Path::new(&tiny())).unwrap();
    let engine = Engine::open(Arc::new(index), &LoadOptions::default()).unwrap();
    let vocab = engine.vocab().unwrap();
    let line = "Who <|im_start|>are you?<|im_end|>\n <|im_|im_end|> end|>";
    let whole = line.repeat(2000);
    let one = vocab.tokenize(line, false, true).unwrap();
    // Each line ends and begins with letters of one kind only: its tokens do not depend on its neighbours.
    let lines: Vec<_> = std::iter::repeat_n(one, 2000).flatten().collect();
    let tokens = vocab.tokenize(&whole, false, true).unwrap();
    let bytes: Vec<u8> = tokens.iter().flat_map(|&t| vocab.bytes(t)).collect();
    assert!(bytes == whole.as_bytes());
    assert_eq!(tokens.len(), lines.len());
    let with_control = tokens.iter().filter(|&&t| vocab.piece(t).is_empty()).count();
    assert_eq!(with_control, 2 * 2000);
    assert!(vocab.fewest_tokens(&whole) > 0 && vocab.fewest_tokens(&whole) <= tokens.len());
}

#[test]
fn what_a_vocabulary_lacks_is_an_error_of_that_text_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    // Letters, and no bytes.
    std::fs::write(&path, crate::gguf_writer::Gguf::llama().bytes()).unwrap();
    let engine = Engine::open(Arc::new(Index::open(&path).unwrap()), &LoadOptions::default());
    let engine = engine.unwrap();
    let vocab = engine.vocab().unwrap();
    let error = vocab.tokenize("5 €", true, true).unwrap_err().to_string();
    assert!(error.contains("lacks tokens"), "{error}");
    vocab.tokenize("", true, true).unwrap();
}
