//! Heads that fill in several tokens at a time (DFlash): what they fill in changes no answer, whether they know anything or not, and what a
//! file says that is not so is refused with a sentence.

use airrun::engine::{Draft, Engine, LoadOptions, StreamMode};

use super::beside::{BOOL, I64, Lie, N_TOKENS, READ, WIDTH};
use super::beside::{head_at, is, matrix, next, remove, table};
use super::heads::{prompt, settings, together, write, write_knowing};
use super::*;
use crate::gguf_writer::{Gguf, Payload, Tensor, array, f32, i32s, str, u32};

/// Tokens of a block, and how far back the head looks: beyond the block's beginning, whichever of its tokens is filled in.
const BLOCK: usize = 16;

/// A blank: a token that has a place in the models' embedding.
const BLANK: u32 = 36;

/// Numbers of a head of attention.
const EACH: usize = 16;

/// The token so many places on.
fn later(token: usize, n: usize) -> usize {
    (0..n).fold(token, |token, _| next(token))
}

/// Texts of which each token says the next, as `write_knowing` has it.
pub(super) fn chain(n: usize) -> Vec<Token> {
    let tokens = std::iter::successors(Some(5), |&token| Some(next(token)));
    tokens.take(n).map(|token| Token::try_from(token).unwrap()).collect()
}

/// What a blank looks for, so that rotated by where it is it is most like what is a block before it.
fn query(at: usize) -> f32 {
    let pair = at % (EACH / 2);
    let angle = 10000_f32.powf(-2.0 * pair as f32 / EACH as f32) * BLOCK as f32;
    if at < EACH / 2 { angle.cos() + angle.sin() } else { angle.cos() - angle.sin() }
}

/// A head that looks a block back and says what comes so many places later. With an embedding, an output and tokens of its own, or none;
/// it is mistaken about tokens that `wrong` divides.
pub(super) fn filling(own: bool, wrong: usize) -> Gguf {
    let mut g = Gguf::new();
    g.set("general.architecture", str("dflash"));
    g.set("tokenizer.ggml.model", str("none"));
    g.set("tokenizer.ggml.mask_token_id", u32(BLANK));
    for (key, n) in [
        ("vocab_size", N_TOKENS),
        ("context_length", 2048),
        ("embedding_length", 64),
        ("block_count", 2),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 4),
        ("block_size", 16),
    ] {
        g.set(&format!("dflash.{key}"), u32(n));
    }
    g.set("dflash.attention.layer_norm_rms_epsilon", f32(1e-6));
    g.set("dflash.target_layers", i32s(&[1, 3]));
    // The model's output says what comes after a state.
    let step = if own { BLOCK } else { BLOCK - 1 };
    let said =
        |token: usize| (later(token, step) + usize::from(token.is_multiple_of(wrong))) % WIDTH;
    let ones = |name: &str, n: usize, value: f32| {
        let name = format!("{name}.weight");
        Tensor { dims: vec![n as u64], ..matrix(&name, n, 1, |_, _| value) }
    };
    g.tensors = vec![
        matrix("fc.weight", 2 * WIDTH, WIDTH, |row, col| is(col == WIDTH + row)),
        ones("enc.output_norm", WIDTH, 1.0),
        ones("output_norm", WIDTH, 1.0),
    ];
    for block in 0..2 {
        let name = |role: &str| format!("blk.{block}.{role}");
        let first = |value: f32| if block == 0 { value } else { 0.0 };
        let weight = |role: &str| format!("blk.{block}.{role}.weight");
        g.tensors.extend([
            matrix(&weight("attn_q"), WIDTH, WIDTH, |row, _| query(row % EACH)),
            matrix(&weight("attn_k"), WIDTH, WIDTH, |_, _| 1.0),
            matrix(&weight("attn_v"), WIDTH, WIDTH, |row, col| is(said(col) == row)),
            matrix(&weight("attn_output"), WIDTH, WIDTH, |row, col| first(is(row == col))),
            matrix(&weight("ffn_gate"), WIDTH, 96, |row, col| is(row == col)),
            matrix(&weight("ffn_up"), WIDTH, 96, |row, col| is(row == col)),
            matrix(&weight("ffn_down"), 96, WIDTH, |_, _| 0.0),
            ones(&name("attn_norm"), WIDTH, 1.0),
            ones(&name("ffn_norm"), WIDTH, 1.0),
            // What is likest is far likelier than all else.
            ones(&name("attn_q_norm"), EACH, 100.0),
            ones(&name("attn_k_norm"), EACH, 1.0),
        ]);
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

#[test]
fn a_head_that_fills_in_what_comes_saves_passes() {
    let dir = tempfile::tempdir().unwrap();
    const NEVER: usize = 1000;
    for (name, own, wrong) in [
        ("llama", true, NEVER),
        ("llama", false, NEVER),
        ("llama", true, 5),
        ("qwen35", true, NEVER),
    ] {
        let case = format!("{name} {own} {wrong}");
        let path = write_knowing(name, true, NEVER, dir.path());
        let head = head_at(dir.path(), "fills.gguf", &filling(own, wrong));
        let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
        let mut drafted = open(&path, head, 1).batcher().unwrap();
        drafted.pace_drafts(free());
        // The text goes on for less than it takes to begin anew, so that nothing repeats itself.
        let prompt = chain(20);
        let ask = |prompt: &[Token]| Ask {
            prompt: prompt.to_vec(),
            settings: settings(0.0),
            max_tokens: Some(40),
            ..Ask::default()
        };
        let say = |batcher: &mut Batcher, prompt: &[Token]| {
            generate(batcher, ask(prompt), &mut |_| ControlFlow::Continue(())).unwrap()
        };
        let (want, got) = (say(&mut alone, &prompt), say(&mut drafted, &prompt));
        assert_eq!(want.tokens, chain(60)[20..], "{case}");
        assert_eq!(got.tokens, want.tokens, "{case}");
        let [brought, passes] = got.per_pass;
        if wrong == NEVER {
            assert!(brought >= 6 * passes, "{case}: {brought} in {passes}");
        } else {
            assert!(got.drafted.tried > got.drafted.accepted, "{case}: {:?}", got.drafted);
            assert!(brought >= 2 * passes, "{case}: {brought} in {passes}");
        }
        // The next turn of a conversation goes on from there, and so does its head.
        let next = [&prompt[..], &got.tokens, &[7, 22]].concat();
        let (want, again) = (say(&mut alone, &next), say(&mut drafted, &next));
        assert_eq!(again.tokens, want.tokens, "{case}");
        assert!(again.drafted.accepted > 10, "{case}: {:?}", again.drafted);
    }
}

#[test]
fn a_head_that_fills_in_nonsense_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    for name in READ {
        let path = write(name, dir.path());
        let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
        for (own, stream, n, temp) in
            [(true, StreamMode::Always, 150, 0.8), (false, StreamMode::Never, 20, 0.0)]
        {
            let head = head_at(dir.path(), "head.gguf", &filling(own, 3));
            let options = LoadOptions { stream, ..options(head, 1) };
            let mut drafted = Engine::open(index(&path), &options).unwrap().batcher().unwrap();
            assert!(drafted.drafters().unwrap().contains("head.gguf"), "{name}");
            drafted.pace_drafts(free());
            let (prompt, settings) = (prompt(n), settings(temp));
            let want = answer(&mut alone, &prompt, &settings);
            let got = answer(&mut drafted, &prompt, &settings);
            let same = got.tokens.iter().zip(&want.tokens).take_while(|(a, b)| a == b).count();
            assert!(same >= 10, "{name} {n}: {same}: {:?} {:?}", got.tokens, want.tokens);
            assert!(got.drafted.tried > 0, "{name} {n}");
        }
    }
}

#[test]
fn several_texts_are_filled_in_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_knowing("llama", true, 1000, dir.path());
    let head = head_at(dir.path(), "head.gguf", &filling(true, 7));
    let ((want, _), (got, accepted)) = (together(&path, Draft::None), together(&path, head));
    assert_eq!(got, want);
    assert!(accepted > 20, "{accepted}");
}

const LIES: &[Lie] = &[
    (|g| g.unset("tokenizer.ggml.mask_token_id"), "which token is a blank"),
    (|g| g.set("tokenizer.ggml.mask_token_id", u32(128)), "which token is a blank"),
    (|g| g.set("dflash.block_size", u32(1)), "none of 2 to 64"),
    (|g| g.set("dflash.block_size", u32(u32::MAX)), "none of 2 to 64"),
    (|g| g.set("dflash.block_size", str("16")), "none of 2 to 64"),
    (|g| g.set("dflash.block_count", u32(0)), ""),
    (|g| g.set("dflash.block_count", u32(3)), ""),
    (|g| g.set("dflash.embedding_length", u32(32)), ""),
    (|g| g.set("dflash.vocab_size", u32(64)), "64 tokens"),
    (|g| g.set("dflash.target_layers", i32s(&[])), "1 to 16 blocks"),
    (|g| g.set("dflash.target_layers", i32s(&[0; 17])), "1 to 16 blocks"),
    (|g| g.set("dflash.target_layers", i32s(&[0, -1])), "1 to 16 blocks"),
    (|g| g.set("dflash.target_layers", i32s(&[0, 4])), "reads block 4"),
    (|g| g.set("dflash.target_layers", i32s(&[0, 1, 3])), ""),
    (|g| g.unset("dflash.target_layers"), "does not say which blocks"),
    (|g| g.set("dflash.attention.sliding_window", u32(8)), "see a window"),
    (|g| g.set("dflash.hyper_connection_count", u32(2)), "DeepSeek"),
    (|g| g.set("dflash.selector_top_k", u32(2)), "a selector"),
    (|g| g.set("dflash.rope.dimension_sections", array(5, 0, &[])), "in sections"),
    (|g| g.set("dflash.attention.causal", Payload(BOOL, vec![1])), "look back only"),
    (|g| g.set("dflash.attention.head_count", i32s(&[4, 2])), ""),
    (|g| g.set("dflash.attention.head_count", u32(0)), "no heads"),
    (|g| g.set("dflash.attention.head_count_kv", u32(3)), ""),
    (|g| g.set("dflash.attention.value_length", u32(8)), "value_length"),
    (|g| g.set("dflash.rope.dimension_count", u32(0)), "dimension_count"),
    (|g| g.set("dflash.rope.dimension_count", u32(7)), "dimension_count"),
    (|g| g.set("dflash.hidden_activation", str("tanh")), ""),
    (|g| g.set("dflash.nextn_predict_layers", u32(1)), ""),
    (|g| g.tensors.push(Tensor::f32("markov_w1.weight", &[8, 128])), "a Markov head"),
    (|g| g.tensors.push(Tensor::f32("selector_hidden.weight", &[64, 8])), "a selector"),
    (|g| remove(g, "fc.weight"), ""),
    (|g| remove(g, "enc.output_norm.weight"), ""),
    (|g| remove(g, "blk.1.attn_q_norm.weight"), ""),
    (|g| remove(g, "blk.1.ffn_down.weight"), ""),
    (|g| remove(g, "output.weight"), ""),
    (|g| remove(g, "d2t"), ""),
    (|g| g.tensor("fc.weight").dims = vec![64, 128], ""),
    (|g| *g.tensor("d2t") = table(&[128; 64]), "its token 0 is 128"),
    (|g| *g.tensor("d2t") = table(&[7; 64]), "its token 1 is 7, as another is"),
    (|g| *g.tensor("fc.weight") = Tensor::of_type("fc.weight", &[128, 64], I64, 65536), "I64"),
];

#[test]
fn what_a_head_that_fills_in_says_that_is_not_so_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = write("llama", dir.path());
    for (i, (lie, why)) in LIES.iter().enumerate() {
        let mut head = filling(true, 1000);
        lie(&mut head);
        let file = dir.path().join("h.gguf");
        std::fs::write(&file, head.bytes()).unwrap();
        let error = match Index::open(&file) {
            Ok(index) => {
                let draft = Draft::HeadFile { index: Arc::new(index), always: true };
                let opened = Engine::open(self::index(&path), &options(draft, 1));
                match opened.and_then(|engine| engine.batcher()) {
                    Ok(_) => String::new(),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        assert!(error.contains(why) && !error.is_empty(), "{i} ({why}): {error}");
    }
    let error = Engine::open(index(&write("qwen2", dir.path())), &{
        options(head_at(dir.path(), "h.gguf", &filling(true, 1000)), 1)
    });
    assert!(error.unwrap_err().to_string().contains("hand nothing"));
}
