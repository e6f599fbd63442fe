//! Heads in a model's own file: what they guess changes no answer, whether they know anything or not; and what a file says of them is
//! refused, or leaves them unused, with a sentence.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use airrun::engine::batch::Ended;
use airrun::engine::{Draft, Engine, LoadOptions, SamplerSettings, StreamMode, Token, planning};
use airrun::gguf::Index;
use airrun::units::Bytes;

use super::{Ear, answer, free, index, open, options, request};
use crate::tiny_models;

/// Models with heads that are used.
const WITH_HEADS: [&str; 6] =
    ["qwen35-mtp", "glm4moe-mtp", "qwen35moe-mtp", "qwen3next-mtp", "hy_v3-mtp", "cohere2moe-mtp"];

pub(super) fn head() -> Draft {
    Draft::Head { always: true }
}

pub(super) fn write(name: &str, dir: &Path) -> PathBuf {
    let spec = tiny_models::all().iter().find(|spec| spec.name == name).unwrap();
    let path = dir.join(format!("{name}.gguf"));
    tiny_models::write(spec, &path).unwrap();
    path
}

pub(super) fn prompt(n: i32) -> Vec<Token> {
    (0..n).map(|i| 5 + i * 3 % 40).collect()
}

pub(super) fn settings(temp: f32) -> SamplerSettings {
    SamplerSettings { temp, seed: Some(7), ignore_eos: true, ..SamplerSettings::default() }
}

#[test]
fn a_head_that_knows_nothing_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    for name in WITH_HEADS {
        let path = write(name, dir.path());
        let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
        for stream in [StreamMode::Always, StreamMode::Never] {
            let options = LoadOptions { stream, ..options(head(), 1) };
            let mut drafted = Engine::open(index(&path), &options).unwrap().batcher().unwrap();
            assert!(drafted.drafters().unwrap().contains("own head"), "{name}");
            // A second text in the same place, one that goes on from the first, and one that begins like it.
            for (n, temp) in [(20, 0.0), (300, 0.8), (310, 0.0), (290, 0.0)] {
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

/// Writes a model of which each token says the next, and a head that knows it: from the last token if `by_token`, else from what the model
/// has behind the one before. It is mistaken about tokens that `wrong` divides.
pub(super) fn write_knowing(name: &str, by_token: bool, wrong: usize, dir: &Path) -> PathBuf {
    let path = write(name, dir);
    let index = Index::open(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    const WIDTH: usize = 64;
    // Of the tokens, those below the width have a place of their own.
    let next = |token: usize| (token * 5 + 3) % WIDTH;
    for tensor in &index.tensors {
        let (role, row) = (tensor.role(), Bytes(tensor.shape[0]).usize());
        let value = |i: usize| -> Option<f32> {
            let (at, of) = (i % row, i / row);
            let one = |is: bool| Some(f32::from(u8::from(is)));
            match role {
                "token_embd.weight" | "nextn.embed_tokens.weight" => one(at == of),
                "output.weight" => one(at < WIDTH && next(at) == of),
                "nextn.shared_head_head.weight" => {
                    let mistake = usize::from(at % wrong == 0);
                    one(at < WIDTH && (next(at) + mistake) % WIDTH == of)
                }
                "nextn.eh_proj.weight" if by_token => one(at == of),
                "nextn.eh_proj.weight" => one(at >= WIDTH && next(at - WIDTH) == of),
                "output_norm.weight" => Some(1.0),
                "nextn.enorm.weight" | "nextn.hnorm.weight" | "nextn.shared_head_norm.weight" => {
                    Some(1.0)
                }
                name if ["output", "attn_output", "ssm_out", "ffn_down"]
                    .iter()
                    .any(|zero| name.starts_with(zero)) =>
                {
                    Some(0.0)
                }
                _ => None,
            }
        };
        let n = Bytes(tensor.elements()).usize();
        let Some(values) = (0..n).map(value).collect::<Option<Vec<f32>>>() else { continue };
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(bytes.len() as u64, tensor.len.0, "{role}");
        file.write_all_at(&bytes, tensor.offset).unwrap();
    }
    path
}

/// A head that is never wrong.
pub(super) const NEVER: usize = 1000;

/// That a model that knows says the same with `draft`, which is wrong after every so many tokens, in fewer passes; and in its next turn.
pub(super) fn saves_passes(case: &str, path: &Path, draft: Draft, wrong: usize) {
    let mut alone = open(path, Draft::None, 1).batcher().unwrap();
    let mut drafted = open(path, draft, 1).batcher().unwrap();
    drafted.pace_drafts(free());
    let prompt = [5, 9, 40];
    let want = answer(&mut alone, &prompt, &settings(0.0));
    let got = answer(&mut drafted, &prompt, &settings(0.0));
    assert_eq!(want.tokens[..3], [11, 58, 37], "{case}");
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
    let want = answer(&mut alone, &next, &settings(0.0));
    let again = answer(&mut drafted, &next, &settings(0.0));
    assert_eq!(again.tokens, want.tokens, "{case}");
    assert!(again.drafted.accepted > 20, "{case}: {:?}", again.drafted);
}

#[test]
fn a_head_that_knows_what_comes_saves_passes() {
    let dir = tempfile::tempdir().unwrap();
    // The model says each token once before it begins anew, so that nothing repeats itself.
    for (name, by_token, wrong) in [
        ("qwen35-mtp", true, NEVER),
        ("qwen35-mtp", false, NEVER),
        ("qwen35-mtp", true, 5),
        ("glm4moe-mtp", true, 5),
        ("hy_v3-mtp", false, NEVER),
    ] {
        let case = format!("{name} {by_token} {wrong}");
        let path = write_knowing(name, by_token, wrong, dir.path());
        saves_passes(&case, &path, head(), wrong);
    }
}

/// What is written of five texts that share passes, three at a time, and how many of their tokens were guessed right.
pub(super) fn together(path: &Path, draft: Draft) -> (Vec<Vec<Token>>, usize) {
    let mut batcher = open(path, draft, 3).batcher().unwrap();
    batcher.pace_drafts(free());
    let ears: Vec<Ear> = (0..5).map(|_| Ear::default()).collect();
    for (i, ear) in (0..).zip(&ears) {
        batcher.add(request(&prompt(10 + 7 * i), None, ear));
    }
    while batcher.step() {}
    let ended = |ear: &Ear| ear.0.lock().unwrap().1.clone().unwrap().unwrap();
    let ended: Vec<Ended> = ears.iter().map(ended).collect();
    let accepted: usize = ended.iter().map(|ended| ended.drafted.accepted).sum();
    (ended.into_iter().map(|ended| ended.written).collect(), accepted)
}

#[test]
fn several_texts_with_a_head_are_as_they_are_alone() {
    let dir = tempfile::tempdir().unwrap();
    // What a model says that knows is the same whoever shares its passes.
    for name in ["glm4moe-mtp", "qwen35-mtp"] {
        let path = write_knowing(name, true, 5, dir.path());
        let ((want, _), (got, accepted)) = (together(&path, Draft::None), together(&path, head()));
        assert_eq!(got, want, "{name}");
        // A model that keeps a state has drafts for a text that is alone.
        assert!(accepted > 0 || name == "qwen35-mtp", "{name}");
    }
}

#[test]
fn a_head_costs_memory_only_where_it_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let path = write("qwen35-mtp", dir.path());
    let index = index(&path);
    assert_eq!((index.heads.len(), index.blocks.len()), (1, 4));
    let plan = |draft: Draft| {
        let options = LoadOptions { ram: Some(Bytes(1 << 30)), ..options(draft, 1) };
        planning::plan(&index, &options, true).unwrap()
    };
    let (without, with) = (plan(Draft::None), plan(head()));
    assert_eq!(without.plan.blocks.len(), 4);
    // What is left to the model is less by the head and its context.
    let less = without.plan.memory.budget.saturating_sub(with.plan.memory.budget);
    assert!(less > index.head_bytes(), "{less}");
    // A file without heads, one of an architecture whose heads nobody computes, and one that is none of its own.
    for (name, why) in [("llama", "no head"), ("mamba", "no head")] {
        let path = write(name, dir.path());
        let error = Engine::open(super::index(&path), &options(head(), 1)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Where `what` begins in `bytes`, which it is in once.
fn place(bytes: &[u8], what: &str) -> usize {
    bytes.windows(what.len()).position(|window| window == what.as_bytes()).unwrap()
}

#[test]
fn what_a_file_says_of_heads_is_refused_or_leaves_them_unused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(write("qwen35-mtp", dir.path())).unwrap();
    let number = |key: &str, n: u32| {
        let mut bytes = whole.clone();
        // Behind the key are four bytes of its type.
        let at = place(&bytes, key) + key.len() + 4;
        bytes[at..at + 4].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    let renamed = |from: &str, to: &str| {
        let mut bytes = whole.clone();
        let at = place(&bytes, from);
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let count = "qwen35.nextn_predict_layers";
    let cases = [
        (number(count, 0), "no head"),
        (number(count, 2), "2 heads"),
        (number(count, 4), "4 heads"),
        (renamed("blk.4.nextn.enorm", "blk.4.nextn.xnorm"), "nextn.enorm.weight"),
        (renamed("blk.4.nextn.hnorm", "blk.9.nextn.hnorm"), ""),
        (renamed("blk.4.nextn.eh_proj", "blk.3.nextn.eh_proj"), "nextn.eh_proj.weight"),
        // What libllama misses when it is asked for the head.
        (renamed("blk.4.attn_norm", "blk.4.attn_mron"), ""),
    ];
    for (i, (bytes, why)) in cases.into_iter().enumerate() {
        let path = dir.path().join(format!("{i}.gguf"));
        std::fs::write(&path, bytes).unwrap();
        let error = match Index::open(&path) {
            Ok(_) => Engine::open(index(&path), &options(head(), 1)).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(why) && !error.is_empty(), "{i}: {error}");
    }
    // Where it is only a possibility, people are told why not, if not.
    let path = dir.path().join("qwen35-mtp.gguf");
    let engine = open(&path, Draft::Head { always: false }, 1);
    let why = engine.foreseen().and_then(|foreseen| foreseen.why_not.clone());
    let drafters = engine.batcher().unwrap().drafters().unwrap();
    assert!(drafters.contains("own head") != why.is_some(), "{drafters}: {why:?}");
}
