//! Heads in files of their own (EAGLE3): what they guess changes no answer, whether they know anything or not; what reads the model's blocks
//! changes no logits; and what a file says that is not so is refused with a sentence.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use airrun::engine::batch::{Batcher, Ended, Piece, Room, Scored, Sink};
use airrun::engine::{Draft, Engine, Error, LoadOptions, SamplerSettings, StreamMode, planning};
use airrun::units::Bytes;

use super::heads::{NEVER, prompt, saves_passes, settings, together, write, write_knowing};
use super::{Ear, answer, free, index, ngrams, open, options, request};
use crate::gguf_writer::{Gguf, Payload, Tensor, array, f32, i32s, str, u32};

/// Models whose blocks such heads read: one for each architecture that hands out what goes into them.
pub(super) const READ: [&str; 9] = [
    "llama",
    "qwen3",
    "qwen3moe",
    "gpt-oss",
    "gemma4",
    "minimax-m2",
    "lfm2",
    "qwen35",
    "qwen3next",
];

/// What the tiny models have.
pub(super) const WIDTH: usize = 64;
pub(super) const N_TOKENS: u32 = 128;

/// ggml's number for whole numbers of 64 bits, and GGUF's for yes and no.
pub(super) const I64: u32 = 27;
pub(super) const BOOL: u32 = 7;

/// What comes after a token, as `write_knowing` has it.
pub(super) fn next(token: usize) -> usize {
    (token * 5 + 3) % WIDTH
}

pub(super) fn matrix(
    name: &str,
    cols: usize,
    rows: usize,
    value: impl Fn(usize, usize) -> f32,
) -> Tensor {
    let values = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
    let data = values.flat_map(|(row, col)| value(row, col).to_le_bytes()).collect();
    Tensor { data, ..Tensor::f32(name, &[cols as u64, rows as u64]) }
}

pub(super) fn is(yes: bool) -> f32 {
    f32::from(u8::from(yes))
}

/// A head that knows what comes by what goes into the last block that it reads. With an embedding, an output and tokens of its own, or
/// none; it is mistaken about tokens that `wrong` divides.
pub(super) fn knowing(own: bool, wrong: usize) -> Gguf {
    let mut g = Gguf::new();
    g.set("general.architecture", str("eagle3"));
    g.set("tokenizer.ggml.model", str("none"));
    for (key, n) in [
        ("vocab_size", N_TOKENS),
        ("context_length", 2048),
        ("embedding_length", 64),
        ("block_count", 1),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("target_hidden_size", 64),
    ] {
        g.set(&format!("eagle3.{key}"), u32(n));
    }
    g.set("eagle3.attention.layer_norm_rms_epsilon", f32(1e-6));
    g.set("eagle3.target_layers", i32s(&[0, 1, 3]));
    // A head with an output of its own says of its state which token it is; the model's output says which comes after it. So one is a
    // token further than the other when it begins.
    let step = |i: usize| if own { next(i) } else { i };
    let mistake = |i: usize| usize::from(i.is_multiple_of(wrong));
    g.tensors = vec![
        matrix("fc.weight", 3 * WIDTH, WIDTH, |row, col| {
            is(col >= 2 * WIDTH
                && (step(col - 2 * WIDTH) + mistake(col - 2 * WIDTH)) % WIDTH == row)
        }),
        // Normalised, a state of one token has eight there: the gate lets eight through, and eight times that are 64.
        matrix("blk.0.ffn_gate.weight", WIDTH, 96, |row, col| is(row == col)),
        matrix("blk.0.ffn_up.weight", WIDTH, 96, |row, col| is(row == col) / 64.0),
        matrix("blk.0.ffn_down.weight", 96, WIDTH, |row, col| {
            if col < WIDTH { is(next(col) == row) - is(col == row) } else { 0.0 }
        }),
        matrix("blk.0.attn_q.weight", 2 * WIDTH, WIDTH, |row, col| is((row + col) % 9 == 0)),
        matrix("blk.0.attn_k.weight", 2 * WIDTH, 32, |row, col| is((row + col) % 7 == 0)),
        matrix("blk.0.attn_v.weight", 2 * WIDTH, 32, |row, col| is((row + col) % 5 == 0)),
        matrix("blk.0.attn_output.weight", WIDTH, WIDTH, |_, _| 0.0),
    ];
    for name in ["blk.0.attn_norm", "blk.0.attn_norm_2", "blk.0.ffn_norm", "output_norm"] {
        let name = format!("{name}.weight");
        g.tensors.push(Tensor { dims: vec![64], ..matrix(&name, WIDTH, 1, |_, _| 1.0) });
    }
    if own {
        // Its own tokens are half of the model's, and in another order.
        let tokens: Vec<i64> = (0..64).rev().collect();
        g.tensors.push(matrix("output.weight", WIDTH, 64, |row, col| 2.0 * is(63 - row == col)));
        g.tensors.push(matrix("token_embd.weight", WIDTH, 128, |row, col| is(row % WIDTH == col)));
        g.tensors.push(table(&tokens));
    }
    g
}

/// A table of the model's tokens.
pub(super) fn table(tokens: &[i64]) -> Tensor {
    let data = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    Tensor { data, ..Tensor::of_type("d2t", &[tokens.len() as u64], I64, 0) }
}

pub(super) fn head_at(dir: &Path, name: &str, head: &Gguf) -> Draft {
    let path = dir.join(name);
    std::fs::write(&path, head.bytes()).unwrap();
    Draft::HeadFile { index: index(&path), always: true }
}

#[test]
fn a_head_beside_the_model_that_knows_what_comes_saves_passes() {
    let dir = tempfile::tempdir().unwrap();
    for (name, own, wrong) in [
        ("llama", true, NEVER),
        ("llama", false, NEVER),
        ("llama", true, 5),
        // It keeps a state.
        ("qwen35", true, NEVER),
    ] {
        let case = format!("{name} {own} {wrong}");
        let path = write_knowing(name, true, NEVER, dir.path());
        let head = head_at(dir.path(), "knows.gguf", &knowing(own, wrong));
        saves_passes(&case, &path, head, wrong);
    }
}

#[test]
fn a_head_beside_the_model_that_knows_nothing_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    for name in READ {
        let path = write(name, dir.path());
        let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
        // What it says has nothing to do with what such a model says.
        let long: &[(i32, f32)] = &[(20, 0.0), (300, 0.8), (290, 0.0)];
        for (own, stream, texts) in
            [(true, StreamMode::Always, long), (false, StreamMode::Never, &[(1, 0.0), (20, 0.8)])]
        {
            let head = head_at(dir.path(), "head.gguf", &knowing(own, 3));
            let options = LoadOptions { stream, ..options(head, 1) };
            let mut drafted = Engine::open(index(&path), &options).unwrap().batcher().unwrap();
            assert!(drafted.drafters().unwrap().contains("head.gguf"), "{name}");
            for &(n, temp) in texts {
                let (prompt, settings) = (prompt(n), settings(temp));
                let want = answer(&mut alone, &prompt, &settings);
                // Nobody knows yet that it is wrong.
                drafted.pace_drafts(free());
                let got = answer(&mut drafted, &prompt, &settings);
                let same = got.tokens.iter().zip(&want.tokens).take_while(|(a, b)| a == b).count();
                assert!(same >= 10, "{name} {n}: {same}: {:?} {:?}", got.tokens, want.tokens);
                assert!(got.drafted.tried > 0, "{name} {n}");
            }
        }
    }
}

/// Listens to how likely tokens were.
#[derive(Clone, Debug, Default)]
struct Scores(Arc<Mutex<Vec<Scored>>>);

impl Sink for Scores {
    fn room(&self) -> Room {
        Room::Free
    }

    fn piece(&mut self, piece: Piece) {
        self.0.lock().unwrap().extend(piece.scored);
    }

    fn end(self: Box<Self>, _: Result<Ended, Error>) {}
}

#[test]
fn what_a_head_reads_of_a_model_changes_no_logits() {
    let dir = tempfile::tempdir().unwrap();
    for name in READ {
        let path = write(name, dir.path());
        let scores = |draft: Draft, stream: StreamMode| {
            let options = LoadOptions { stream, ..options(draft, 1) };
            let mut batcher: Batcher =
                Engine::open(index(&path), &options).unwrap().batcher().unwrap();
            batcher.pause_drafts(true);
            let scores = Scores::default();
            let mut request = request(&prompt(150), None, &Ear::default());
            (request.logprobs, request.sink) = (Some(5), Box::new(scores.clone()));
            request.settings = SamplerSettings { ignore_eos: true, ..request.settings };
            batcher.add(request);
            while batcher.step() {}
            let all = scores.0.lock().unwrap().clone();
            assert!(all.len() >= 40, "{name}: {}", all.len());
            all
        };
        let head = || head_at(dir.path(), "head.gguf", &knowing(true, 3));
        let want = scores(ngrams(), StreamMode::Always);
        assert!(scores(head(), StreamMode::Always) == want, "{name}");
        assert!(scores(head(), StreamMode::Never) == want, "{name}");
    }
}

#[test]
fn several_texts_with_a_head_beside_the_model_are_as_they_are_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_knowing("llama", true, 1000, dir.path());
    let head = head_at(dir.path(), "head.gguf", &knowing(true, 5));
    let ((want, _), (got, accepted)) = (together(&path, Draft::None), together(&path, head));
    assert_eq!(got, want);
    assert!(accepted > 20, "{accepted}");
}

#[test]
fn a_head_beside_the_model_costs_memory_only_where_it_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let index = index(&write("llama", dir.path()));
    let plan = |draft: Draft| {
        let options = LoadOptions { ram: Some(Bytes(1 << 30)), ..options(draft, 1) };
        planning::plan(&index, &options, true).unwrap().plan.memory
    };
    let head = head_at(dir.path(), "head.gguf", &knowing(true, 1000));
    let Draft::HeadFile { index: of_head, .. } = &head else { unreachable!() };
    let bytes = of_head.bytes();
    let (without, with) = (plan(ngrams()), plan(head.clone()));
    let less = without.budget.saturating_sub(with.budget);
    assert!(less > bytes, "{less}");
    // Three rows for each token of a pass, twice.
    let rows = with.context.saturating_sub(without.context);
    assert!(rows >= Bytes(2 * 3 * 4 * 64 * 128), "{rows}");
}

/// What is wrong with a file, and what is said of it.
pub(super) type Lie = (fn(&mut Gguf), &'static str);

pub(super) fn remove(g: &mut Gguf, name: &str) {
    g.tensors.retain(|tensor| tensor.name != name.as_bytes());
}

const LIES: &[Lie] = &[
    (|g| g.set("eagle3.target_layers", i32s(&[0, 1, 4])), "reads block 4"),
    (|g| g.set("eagle3.target_layers", i32s(&[0, 1])), "not 3 blocks"),
    (|g| g.set("eagle3.target_layers", i32s(&[0, -1, 2])), "not 3 blocks"),
    (|g| g.set("eagle3.target_layers", i32s(&[0, 1, 2, 3])), "not 3 blocks"),
    (|g| g.set("eagle3.target_layers", u32(1)), "does not say which blocks"),
    (|g| g.unset("eagle3.target_layers"), "does not say which blocks"),
    (|g| g.set("eagle3.target_hidden_size", u32(32)), "width 32"),
    (|g| g.unset("eagle3.target_hidden_size"), "width 0"),
    (|g| g.set("eagle3.vocab_size", u32(64)), "64 tokens"),
    (|g| g.set("eagle3.vocab_size", u32(256)), "256 tokens"),
    (|g| g.set("eagle3.block_count", u32(2)), "one block"),
    (|g| g.set("eagle3.embedding_length_out", u32(32)), "another width"),
    (|g| g.set("eagle3.embedding_length", u32(32)), "embedding_length"),
    (|g| g.set("eagle3.nextn_predict_layers", u32(1)), "head of its own"),
    (|g| g.set("eagle3.attention.head_count", u32(0)), "no heads"),
    (|g| g.unset("eagle3.attention.head_count"), "no heads"),
    (|g| g.set("eagle3.attention.head_count_kv", u32(0)), ""),
    (|g| g.set("eagle3.attention.value_length", u32(8)), "value_length"),
    (|g| g.set("eagle3.attention.key_length", u32(8)), ""),
    (|g| g.set("eagle3.rope.dimension_count", u32(7)), "dimension_count"),
    (|g| g.set("eagle3.rope.dimension_count", u32(0)), "dimension_count"),
    (|g| g.set("eagle3.rope.dimension_count", u32(64)), "dimension_count"),
    (|g| g.set("eagle3.feed_forward_length", u32(64)), ""),
    (|g| g.set("eagle3.norm_before_fc", Payload(BOOL, vec![1])), ""),
    (|g| g.set("general.architecture", str("dflash")), "dflash.block_count"),
    (|g| remove(g, "fc.weight"), ""),
    (|g| remove(g, "output_norm.weight"), ""),
    (|g| remove(g, "blk.0.attn_norm_2.weight"), ""),
    (|g| remove(g, "blk.0.ffn_down.weight"), ""),
    (|g| g.tensor("fc.weight").dims = vec![64, 192], ""),
    (|g| g.tensor("blk.0.attn_k.weight").dims = vec![256, 16], ""),
    (|g| *g.tensor("d2t") = table(&[128; 64]), "its token 0 is 128"),
    (|g| *g.tensor("d2t") = table(&[-1; 64]), "its token 0 is -1"),
    (|g| *g.tensor("d2t") = table(&[i64::MAX; 64]), "its token 0 is 9"),
    (|g| *g.tensor("d2t") = table(&[7; 64]), "its token 1 is 7, as another is"),
    (|g| *g.tensor("d2t") = table(&(0..63).collect::<Vec<_>>()), "63 numbers"),
    (|g| *g.tensor("d2t") = table(&(0..129).collect::<Vec<_>>()), "129 numbers"),
    (|g| *g.tensor("d2t") = Tensor::of_type("d2t", &[64], 0, 256), "64 bits"),
    (|g| remove(g, "d2t"), ""),
    (|g| remove(g, "output.weight"), "no output"),
    (
        |g| *g.tensor("token_embd.weight") = Tensor::f32("token_embd.weight", &[64, 100]),
        "100 of 128 tokens",
    ),
    (|g| *g.tensor("fc.weight") = Tensor::of_type("fc.weight", &[192, 64], I64, 98304), "I64"),
];

/// A head that is narrower than the model, from which it cannot borrow then.
fn narrow(g: &mut Gguf) {
    g.set("eagle3.embedding_length", u32(32));
    g.set("eagle3.attention.key_length", u32(16));
    g.set("eagle3.attention.value_length", u32(16));
}

#[test]
fn what_a_head_says_that_is_not_so_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = write("llama", dir.path());
    let refused = |path: &PathBuf, head: &Gguf| {
        let opened = Engine::open(index(path), &options(head_at(dir.path(), "h.gguf", head), 1));
        match opened.and_then(|engine| engine.batcher()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    for (i, (lie, why)) in LIES.iter().enumerate() {
        let mut head = knowing(true, 1000);
        lie(&mut head);
        let error = refused(&path, &head);
        assert!(error.contains(why) && !error.is_empty(), "{i} ({why}): {error}");
    }
    for (lie, why) in [
        (narrow as fn(&mut Gguf), "no embedding"),
        (|g| g.tensors.push(table(&[1, 2, 3])), "no output"),
    ] {
        let mut head = knowing(false, 1000);
        lie(&mut head);
        let error = refused(&path, &head);
        assert!(error.contains(why), "{why}: {error}");
    }
    // Models that hand nothing to heads, or have other blocks.
    for (name, why) in [("mamba", "hand nothing"), ("qwen2", "hand nothing")] {
        let error = refused(&write(name, dir.path()), &knowing(true, 1000));
        assert!(error.contains(why), "{name}: {error}");
    }
    // A head alone is no model, and a model no head.
    let head = head_at(dir.path(), "h.gguf", &knowing(true, 1000));
    let Draft::HeadFile { index: of_head, .. } = head else { unreachable!() };
    let alone = options(Draft::None, 1);
    let opened = Engine::open(of_head.clone(), &alone).map(drop);
    for refused in [opened, planning::plan(&of_head, &alone, true).map(drop)] {
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("a head that drafts for another model"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--draft ")), "{error}");
    }
    let model = Draft::HeadFile { index: index(&path), always: true };
    let error = Engine::open(index(&path), &options(model, 1)).unwrap_err().to_string();
    assert!(error.contains("architecture 'llama' are not used"), "{error}");
    // Whatever it says of pooling and of what attends to what, it is a head.
    let mut head = knowing(true, 1000);
    head.set("eagle3.pooling_type", u32(1));
    head.set("eagle3.attention.causal", Payload(BOOL, vec![0]));
    let mut batcher = open(&path, head_at(dir.path(), "h.gguf", &head), 1).batcher().unwrap();
    batcher.pace_drafts(free());
    assert!(answer(&mut batcher, &prompt(20), &settings(0.0)).drafted.tried > 0);
    // Where it is only a possibility, people are told why not, if not.
    let unfit = |g: &mut Gguf| g.set("eagle3.target_layers", array(5, 0, &[]));
    let mut head = knowing(true, 1000);
    unfit(&mut head);
    let Draft::HeadFile { index: of_head, .. } = head_at(dir.path(), "h.gguf", &head) else {
        unreachable!()
    };
    let engine = open(&path, Draft::HeadFile { index: of_head, always: false }, 1);
    let why = engine.foreseen().and_then(|foreseen| foreseen.why_not.clone());
    assert!(why.is_some_and(|why| why.contains("not 3 blocks")));
}
