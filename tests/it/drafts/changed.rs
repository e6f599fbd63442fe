//! Head files that were right before some of their header was changed at random: each is refused, or drafts, and the answer is the same.

use airrun::source::sim::Dice;

use super::beside::knowing;
use super::blocks::filling;
use super::heads::{prompt, settings, write_knowing};
use super::*;
use crate::gguf_writer::{Gguf, i32s, u32};

/// Files of each kind.
const FILES: usize = 300;

/// Numbers that are something to somebody.
const NUMBERS: [u64; 20] =
    [0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 1 << 31, 1 << 40];

type Make = fn() -> Gguf;

/// Says something else: of a key, of a tensor, or with any byte of the header.
fn changed(mut head: Gguf, dice: &mut Dice) -> Vec<u8> {
    let number = |dice: &mut Dice| match dice.below(8) {
        0 => dice.roll(u64::MAX),
        _ => NUMBERS[dice.below(NUMBERS.len())],
    };
    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    for _ in 0..=dice.below(2) {
        let (key, tensor) = (dice.below(head.keys.len()), dice.below(head.tensors.len()));
        let tensor = &mut head.tensors[tensor];
        match dice.below(6) {
            0 | 1 => head.keys[key].1 = u32(number(dice) as u32),
            2 => head.keys[key].1 = i32s(&[number(dice) as i32, 1, 3]),
            3 => {
                let dim = dice.below(tensor.dims.len());
                tensor.dims[dim] = number(dice);
            }
            4 => tensor.dims.reverse(),
            _ => tensor.ty = dice.below(40) as u32,
        }
    }
    let mut bytes = head.bytes();
    if dice.happens(200) {
        let at = dice.below(head.header().len());
        bytes[at] = dice.below(256) as u8;
    }
    bytes
}

#[test]
fn a_head_with_a_changed_header_is_refused_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_knowing("llama", true, 1000, dir.path());
    let model = index(&path);
    let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
    let want = answer(&mut alone, &prompt(20), &settings(0.0));
    let kinds: [(&str, Make); 2] =
        [("eagle3", || knowing(true, 7)), ("dflash", || filling(true, 7))];
    for (kind, head) in kinds {
        let mut dice = Dice::new(std::env::var("SEED").map_or(5, |s| s.parse().unwrap()));
        let [mut refused, mut drafted] = [0; 2];
        for i in 0..FILES {
            let file = dir.path().join("head.gguf");
            std::fs::write(&file, changed(head(), &mut dice)).unwrap();
            let opened = Index::open(&file).map_err(|error| error.to_string()).and_then(|head| {
                let draft = Draft::HeadFile { index: Arc::new(head), always: true };
                let engine = Engine::open(model.clone(), &options(draft, 1));
                let batcher = engine.and_then(|engine| engine.batcher());
                batcher.map_err(|error| error.to_string())
            });
            let Ok(mut batcher) = opened else {
                refused += 1;
                continue;
            };
            batcher.pace_drafts(free());
            let got = answer(&mut batcher, &prompt(20), &settings(0.0));
            assert_eq!(got.tokens, want.tokens, "{kind} {i}");
            drafted += usize::from(got.drafted.tried > 0);
        }
        assert!(refused > 100 && drafted > 5, "{kind}: {refused} refused, {drafted} drafted");
    }
}
