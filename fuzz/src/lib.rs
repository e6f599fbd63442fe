//! Whatever people and networks may give to the program, as functions of bytes: understood or refused, without a panic, and without
//! memory or time beyond the bytes given. Driven by `cargo fuzz run NAME`, and by `tests/it/fuzz.rs` with inputs changed at random.
#![allow(unreachable_pub, reason = "in tests it is a module")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use airrun::engine::{Engine, Grammar, LoadOptions, StreamMode};
use airrun::gguf::Index;
use airrun::models::{Catalog, Kind, Library, Place};
use airrun::talk::chat::Conversation;
use airrun::talk::template::{ChatTemplate, SpecialTokens};
use airrun::talk::tokenizer::OwnTokenizer;
use airrun::talk::{Message, Role};
use airrun::units::Bytes;
use airrun::{cli, engine, hub, serve};

/// A function that any bytes may be given to.
pub type Target = fn(&[u8]);

/// All of them by their names.
pub const TARGETS: [(&str, Target); 10] = [
    ("gguf_index", gguf_index),
    ("http_request", http_request),
    ("template", template),
    ("schema", schema),
    ("grammar", grammar),
    ("tokenizer", tokenizer),
    ("manifest", manifest),
    ("hub_list", hub_list),
    ("config", config),
    ("conversation", conversation),
];

/// A model file: an index or an error, whatever is asked of it. Half of the inputs are two parts of one.
pub fn gguf_index(data: &[u8]) {
    // The first byte moves the end of the file: headers are checked against it, and few inputs bring their tensor data.
    let Some((&more, header)) = data.split_first() else { return };
    if more == 255 {
        return split_files(header);
    }
    let len = Bytes(header.len() as u64 + (u64::from(more) << 12));
    let Ok(index) = Index::from_reader(Path::new("fuzz.gguf"), header, len) else { return };
    look_at(&index);
    for tensor in &index.tensors {
        assert!(tensor.offset + tensor.len.0 <= len.0);
    }
    assert_eq!(index.blocks.iter().map(|b| b.tensors.len()).sum::<usize>(), {
        index.tensors.iter().filter(|t| index.block(t.place).is_some()).count()
    });
}

fn look_at(index: &Index) {
    drop(index.check_model());
    drop((index.name(), index.file_type_name(), index.tokenizer(), index.chat_template()));
    for tensor in &index.tensors {
        let _ = (index.experts(tensor), tensor.role(), tensor.elements());
    }
}

/// Two files of one model, cut where the first byte says.
fn split_files(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let Ok(dir) = tempfile::tempdir() else { return };
    let at = data.len() * usize::from(cut) / 256;
    let name = |part: u8| dir.path().join(format!("m-0000{part}-of-00002.gguf"));
    for (part, bytes) in [(1, &data[..at]), (2, &data[at..])] {
        // So that headers find their data.
        let file = std::fs::File::create(name(part)).and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64 + (1 << 16))
        });
        if file.is_err() {
            return;
        }
    }
    let Ok(index) = Index::open(&name(1)) else { return };
    look_at(&index);
    drop(index.join());
}

/// The body of a request to any path that takes one.
pub fn http_request(data: &[u8]) {
    serve::try_body(data);
}

/// A chat template.
pub fn template(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let tokens = SpecialTokens {
        bos: Some("<s>".to_owned()),
        eos: Some("</s>".to_owned()),
        ..SpecialTokens::default()
    };
    let Ok(template) = ChatTemplate::new(source, tokens) else { return };
    let messages = [
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Hi {{ 1 }}"),
        Message::new(Role::Assistant, "<think>\nhm\n</think>\n\nHello"),
        Message::new(Role::User, "And?"),
    ];
    drop(template.render(&messages, None, true));
    let tools =
        serde_json::json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    drop(template.render(&messages[1..2], Some(&tools), true));
    drop((template.takes_tools(), template.dialect(), template.tool_dialect()));
}

thread_local! {
    /// A model whose words grammars are made of.
    static MODEL: Engine = {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let models = [root.join("models"), root.join("../models")];
        let models = models.iter().find(|dir| dir.exists()).expect("the repository has models");
        let index = Index::open(&models.join("tiny-draft-q8_0.gguf")).expect("it is a model");
        let stream = StreamMode::Never;
        let few = LoadOptions { ctx: Some(64), threads: Some(1), stream, ..LoadOptions::default() };
        Engine::open(Arc::new(index), &few).expect("it can be loaded")
    };
}

/// A schema for answers: a grammar or a refusal, and libllama knows what to do with the grammar.
pub fn schema(data: &[u8]) {
    let Ok(schema) = serde_json::from_slice(data) else { return };
    if let Ok(made) = engine::Grammar::of_schema(&schema, false) {
        MODEL.with(|model| model.check_grammar(&made)).expect("a grammar");
    }
}

/// A grammar.
pub fn grammar(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if engine::check_grammar_text(text).is_ok() {
        drop(MODEL.with(|model| model.check_grammar(&Grammar::of(text.to_owned()))));
    }
}

/// A file with these bytes, for what is read by its name.
fn file(data: &[u8]) -> Option<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new().ok()?;
    file.write_all(data).ok()?;
    Some(file)
}

/// A `tokenizer.json`.
pub fn tokenizer(data: &[u8]) {
    let Some(file) = file(data) else { return };
    let Ok(own) = OwnTokenizer::open(file.path()) else { return };
    for text in ["Hello  <s> wörld\n\u{1F600}", "", "</s>"] {
        for token in own.tokenize(text, true, true).unwrap_or_default() {
            drop((own.piece(token, true), own.piece(token, false)));
        }
    }
    let _ = (own.len(), own.n_merges(), own.bos(), own.eos(), own.check(7));
}

/// What Ollama keeps of a model: its manifest, and behind zeros what its layers are.
pub fn manifest(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let store = dir.path();
    let tags = store.join("manifests/registry.ollama.ai/library/m");
    let mut parts = data.split(|byte| *byte == 0);
    let made = std::fs::create_dir_all(&tags).and_then(|()| {
        std::fs::create_dir(store.join("blobs"))?;
        std::fs::write(tags.join("latest"), parts.next().unwrap_or_default())?;
        for (i, part) in parts.enumerate().take(9) {
            let digest = char::from(b'0' + i as u8).to_string().repeat(64);
            std::fs::write(store.join(format!("blobs/sha256-{digest}")), part)?;
        }
        Ok(())
    });
    if made.is_err() {
        return;
    }
    let catalog = Catalog::scan(&[Place { dir: store.to_owned(), kind: Kind::Ollama }]);
    for model in &catalog.models {
        drop(model.found());
    }
    drop(Library::open().facts(&catalog.models));
}

/// What the hub says of a repository's files.
pub fn hub_list(data: &[u8]) {
    hub::try_list(data);
}

/// A configuration.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    cli::try_config(text);
}

/// A conversation that was saved.
pub fn conversation(data: &[u8]) {
    let Some(file) = file(data) else { return };
    if let Ok(loaded) = Conversation::load(file.path()) {
        let again = tempfile::NamedTempFile::new().expect("a place for files");
        loaded.save(again.path()).expect("it can be saved");
        let again = Conversation::load(again.path()).expect("what was saved can be loaded");
        assert_eq!(again.messages, loaded.messages);
    }
}
