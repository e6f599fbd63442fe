//! Prompts on disk of models whose memory is one state, or partly one: what is read back is what was there, bit for bit; what others
//! begin with, too, is kept where they part; what is damaged is not used.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use airrun::engine::batch::{Course, Ended, Piece, Request, Room, Scored, Sink};
use airrun::engine::{Engine, Error, Index, LoadOptions, SamplerSettings, StreamMode, Token};
use airrun::talk::StopWords;
use airrun::units::Bytes;

use crate::tiny_models;

/// Keeps what it hears of one text.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<(Vec<Scored>, Option<Ended>)>>);

impl Sink for Heard {
    fn room(&self) -> Room {
        Room::Free
    }

    fn piece(&mut self, piece: Piece) {
        self.0.lock().unwrap().0.extend(piece.scored);
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        self.0.lock().unwrap().1 = Some(end.unwrap());
    }
}

fn tokens(n: usize, seed: usize, n_vocab: usize) -> Vec<Token> {
    (0..n).map(|i| Token::try_from((i * 37 + seed * 101) % (n_vocab - 10) + 5).unwrap()).collect()
}

/// Recurrent ones, and hybrids.
const MODELS: [&str; 7] =
    ["mamba", "mamba2", "jamba", "rwkv7", "granitehybrid", "lfm2", "qwen3next"];
const UBATCH: usize = 24;

fn open(path: &Path, stream: StreamMode) -> Engine {
    let options = LoadOptions {
        stream,
        ctx: Some(512),
        sequences: 1,
        threads: Some(1),
        ubatch: Some(u32::try_from(UBATCH).unwrap()),
        repack: false,
        ..LoadOptions::default()
    };
    Engine::open(Arc::new(Index::open(path).unwrap()), &options).unwrap()
}

/// Asks a context of its own, which keeps what it knows in `dir` when it goes.
fn ask(engine: &Engine, dir: &Path, prompt: &[Token]) -> (Ended, Vec<Scored>) {
    let mut batcher = engine.batcher().unwrap();
    let shelf = engine.shelf_in(dir.to_path_buf(), Bytes(64 << 20)).unwrap();
    batcher.keep_on(Some(shelf.at_any_price()));
    let heard = Heard::default();
    batcher.add(Request {
        prompt: prompt.to_vec(),
        settings: SamplerSettings { temp: 0.0, ignore_eos: true, ..SamplerSettings::default() },
        grammar: None,
        max_tokens: Some(8),
        stops: StopWords::default(),
        logprobs: Some(2),
        shown: Arc::default(),
        course: Course::default(),
        sink: Box::new(heard.clone()),
    });
    while batcher.step() {}
    let (scored, ended) = heard.0.lock().unwrap().clone();
    (ended.expect("the text has ended"), scored)
}

fn try_model(path: &Path, stream: StreamMode) {
    let name = path.display();
    let engine = open(path, stream);
    let n_vocab = engine.n_vocab();
    let dir = tempfile::tempdir().unwrap();
    let prompt = tokens(200, 1, n_vocab);
    let (first, before) = ask(&engine, dir.path(), &prompt);
    assert_eq!(first.n_reused, 0, "{name}");
    // Where weights stream, another pass would cost what it spares: the state is the one before the last.
    let want = if stream == StreamMode::Never { 199 } else { 199 / UBATCH * UBATCH };
    let (again, after) = ask(&engine, dir.path(), &prompt);
    assert_eq!((again.n_reused, &again.written), (want, &first.written), "{name}");
    assert!(before == after && !before.is_empty(), "{name}: {before:?} {after:?}");
    // A conversation goes on from the end of the answer.
    let longer = [first.tokens.clone(), tokens(30, 2, n_vocab)].concat();
    assert_eq!(ask(&engine, dir.path(), &longer).0.n_reused, first.tokens.len(), "{name}");
    // What is damaged is as good as not there.
    for entry in fs::read_dir(dir.path()).unwrap().flatten() {
        let mut bytes = fs::read(entry.path()).unwrap();
        if entry.path().extension().is_some_and(|kind| kind == "state") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(entry.path(), bytes).unwrap();
        }
    }
    let (anew, computed) = ask(&engine, dir.path(), &prompt);
    assert!(anew.n_reused == 0 && computed == before, "{name}: {}", anew.n_reused);
}

/// The second that begins like another finds out where they part; the third is spared what all have.
fn try_parting(path: &Path) {
    let engine = open(path, StreamMode::Always);
    let n_vocab = engine.n_vocab();
    let dir = tempfile::tempdir().unwrap();
    let shared = tokens(120, 5, n_vocab);
    let reused = |seed: usize| {
        let own = [Token::try_from(seed + 9).unwrap()];
        let prompt = [&shared[..], &own, &tokens(80, seed, n_vocab)].concat();
        ask(&engine, dir.path(), &prompt).0.n_reused
    };
    assert_eq!([reused(1), reused(2), reused(3), reused(4)], [0, 0, 120, 120], "{path:?}");
}

#[test]
fn states_come_back_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    for spec in tiny_models::all().iter().filter(|spec| MODELS.contains(&spec.name)) {
        let path = dir.path().join(format!("{}.gguf", spec.name));
        tiny_models::write(spec, &path).unwrap();
        for stream in [StreamMode::Never, StreamMode::Always] {
            try_model(&path, stream);
        }
        try_parting(&path);
        n += 1;
    }
    assert!(n >= 5, "only {n} models were tried");
}
