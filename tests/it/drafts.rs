//! Drafts change nothing about an answer: whoever drafts, right or wrong, in chains or trees, for one text or several, on weights that
//! stream or not, with grammars, at the end of the context, and when a pass is stopped.

mod accept;
mod beside;
mod blocks;
mod broken;
mod changed;
mod heads;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use airrun::engine::batch::{Batcher, Course, Ended, Piece, Request, Room, Sink};
use airrun::engine::draft::{Drafter, Drafts, Node, Pace, Sketch, Tree};
use airrun::engine::{
    Answer, Ask, Draft, Engine, Error, Finish, Grammar, LoadOptions, SamplerSettings, StreamMode,
    Token, generate, planning,
};
use airrun::gguf::Index;
use airrun::talk::StopWords;
use airrun::units::Bytes;
use serde_json::Value;

use crate::{test_device, tiny_models};

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models")
}

fn index(path: &Path) -> Arc<Index> {
    Arc::new(Index::open(path).unwrap())
}

fn options(draft: Draft, sequences: u32) -> LoadOptions {
    LoadOptions {
        device: test_device::choice(),
        stream: StreamMode::Always,
        ctx: Some(512),
        sequences,
        threads: Some(1),
        ubatch: Some(128),
        repack: false,
        draft,
        ..LoadOptions::default()
    }
}

fn ngrams() -> Draft {
    Draft::Ngrams { always: true }
}

fn small() -> Draft {
    Draft::Model { index: index(&models().join("tiny-draft-q8_0.gguf")), always: true }
}

fn open(path: &Path, draft: Draft, sequences: u32) -> Engine {
    Engine::open(index(path), &options(draft, sequences)).unwrap()
}

fn tiny_chat() -> PathBuf {
    models().join("tiny-chat-q8_0.gguf")
}

/// The golden prompts, and for each token of their answers how far the next best was.
fn golden() -> Vec<(String, Vec<Token>, f64)> {
    let text = std::fs::read_to_string(models().join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let prompts = golden["prompts"].as_array().unwrap();
    let ids = |value: &Value| -> Vec<Token> {
        value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap() as Token).collect()
    };
    let margin = |p: &Value| p["min_margin"].as_f64().unwrap();
    prompts
        .iter()
        .map(|p| (p["name"].as_str().unwrap().to_owned(), ids(&p["prompt_ids"]), margin(p)))
        .collect()
}

fn answer(batcher: &mut Batcher, prompt: &[Token], settings: &SamplerSettings) -> Answer {
    let ask = Ask {
        prompt: prompt.to_vec(),
        settings: settings.clone(),
        max_tokens: Some(60),
        ..Ask::default()
    };
    generate(batcher, ask, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Drafts what it is told: the right answer but for some places, and forks that are wrong.
#[derive(Debug)]
struct Told {
    /// What will come, by the first token of the text; wrong wherever `wrong` divides the place.
    text: Vec<Token>,
    wrong: usize,
    forks: bool,
}

impl Drafter for Told {
    fn name(&self) -> &str {
        "told"
    }

    fn draft(&mut self, texts: &[Sketch<'_>]) -> Vec<Tree> {
        let tree = |sketch: &Sketch<'_>| {
            let mut tree = Tree::default();
            let mut parent = None;
            for i in sketch.text.len()..(sketch.text.len() + sketch.nodes / 2).min(self.text.len())
            {
                let is_wrong = i % self.wrong == 0;
                let right = Node { token: self.text[i], parent, likely: 0.9, by: 0 };
                let other = Node { token: (self.text[i] + 7) % 40 + 3, ..right };
                // The right one is the first child, the second one, or none.
                if self.forks && i % 2 == 0 {
                    tree.add(other);
                }
                parent = Some(tree.add(if is_wrong && !self.forks { other } else { right }));
            }
            tree
        };
        texts.iter().map(tree).collect()
    }
}

/// Passes as of weights that stream: up to sixteen tokens cost what one does.
fn streaming() -> Pace {
    Pace::fixed(vec![1.0, 1.0, 1.0, 1.0, 1.2, 2.4, 4.8, 9.6, 19.2])
}

/// Passes that cost the same whatever is in them.
fn free() -> Pace {
    Pace::fixed(vec![1.0; 9])
}

#[test]
fn any_draft_leaves_greedy_and_sampled_texts_as_they_are() {
    let plain = open(&tiny_chat(), Draft::None, 1);
    let mut alone = plain.batcher().unwrap();
    let sampled = SamplerSettings { seed: Some(7), ..SamplerSettings::default() };
    let greedy = SamplerSettings { temp: 0.0, ..SamplerSettings::default() };
    let mut by_settings = Vec::new();
    for (draft, chains) in [(ngrams(), false), (small(), true), (small(), false)] {
        let engine = open(&tiny_chat(), draft, 1);
        let mut drafted = engine.batcher().unwrap();
        // How much is drafted follows from the texts alone, not from what else this machine does.
        drafted.pace_drafts(streaming());
        if chains {
            drafted.draft_chains();
        }
        let mut per_pass = Vec::new();
        for (name, prompt, margin) in golden() {
            for settings in [&greedy, &sampled] {
                let (want, got) = (
                    answer(&mut alone, &prompt, settings),
                    answer(&mut drafted, &prompt, settings),
                );
                if margin > 0.5 {
                    assert_eq!(got.tokens, want.tokens, "{name} {settings:?}");
                    assert_eq!((&got.text, got.finish), (&want.text, want.finish), "{name}");
                }
                if settings.temp == 0.0 && got.tokens.len() >= 20 {
                    per_pass.push(got.tokens.len() as f64 / got.passes as f64);
                }
                assert!(got.drafted.accepted <= got.drafted.tried, "{name}");
                // Without drafts, each pass from the prompt's last on brings one; the one that ends an answer counts.
                let all = want.tokens.len() + usize::from(want.finish == Finish::Stop);
                assert_eq!(want.per_pass, [all, all], "{name}");
                let [brought, passes] = got.per_pass;
                let all = got.tokens.len() + usize::from(got.finish == Finish::Stop);
                assert!(brought == all && passes <= all, "{name}: {brought} in {passes}");
            }
        }
        per_pass.sort_by(f64::total_cmp);
        by_settings.push(per_pass[per_pass.len() / 2]);
    }
    let [ngrams, chains, trees] = by_settings[..] else { unreachable!() };
    assert!(ngrams >= 1.0 && chains >= 4.0 && trees >= 6.0, "{by_settings:?} tokens per pass");
}

#[test]
fn right_and_wrong_drafts_in_chains_and_trees_change_nothing() {
    let (_, prompt, _) = golden().into_iter().max_by_key(|(name, _, _)| name.len()).unwrap();
    let engine = open(&tiny_chat(), ngrams(), 1);
    let greedy = SamplerSettings { temp: 0.0, ignore_eos: true, ..SamplerSettings::default() };
    let mut alone = open(&tiny_chat(), Draft::None, 1).batcher().unwrap();
    let want = answer(&mut alone, &prompt, &greedy);
    for (wrong, forks) in [(1, false), (2, false), (3, true), (5, false), (1000, true)] {
        let mut batcher = engine.batcher().unwrap();
        let text = [prompt.clone(), want.tokens.clone()].concat();
        let told = Told { text, wrong, forks };
        batcher.draft_with(Drafts::new(vec![Box::new(told)], free()));
        let got = answer(&mut batcher, &prompt, &greedy);
        let same = got.tokens.iter().zip(&want.tokens).take_while(|(a, b)| a == b).count();
        assert!(same >= 20, "{wrong} {forks}: {same} of {}", want.tokens.len());
        assert_eq!(got.tokens.len(), 60);
        if wrong == 1000 {
            assert!(got.passes < 20, "{wrong}: {} passes", got.passes);
        }
        // What was kept is what came: the same again costs one pass for the prompt's last token.
        assert!(batcher.n_kept() <= prompt.len() + 60);
    }
}

/// What was said, and how it ended.
type Heard = (String, Option<Result<Ended, String>>);

/// Listens, and lets others see.
#[derive(Clone, Debug, Default)]
struct Ear(Arc<Mutex<Heard>>);

impl Sink for Ear {
    fn room(&self) -> Room {
        Room::Free
    }

    fn piece(&mut self, piece: Piece) {
        self.0.lock().unwrap().0 += &piece.text;
    }

    fn end(self: Box<Self>, end: Result<Ended, Error>) {
        self.0.lock().unwrap().1 = Some(end.map_err(|error| error.to_string()));
    }
}

fn request(prompt: &[Token], grammar: Option<Grammar>, ear: &Ear) -> Request {
    Request {
        prompt: prompt.to_vec(),
        settings: SamplerSettings { temp: 0.0, ..SamplerSettings::default() },
        grammar,
        max_tokens: Some(40),
        stops: StopWords::default(),
        logprobs: None,
        shown: Arc::default(),
        course: Course::default(),
        sink: Box::new(ear.clone()),
    }
}

#[test]
fn several_texts_and_grammars_share_passes_with_drafts() {
    let rules = r#"root ::= "{\"capital\": \"" [A-Z] [a-z]* "\"}""#.to_owned();
    let grammar = Grammar::of(rules);
    let mut answers = Vec::new();
    for draft in [Draft::None, ngrams(), small()] {
        let engine = open(&tiny_chat(), draft, 4);
        let mut batcher = engine.batcher().unwrap();
        let ears: Vec<Ear> = golden().iter().map(|_| Ear::default()).collect();
        for (i, ((_, prompt, _), ear)) in golden().iter().zip(&ears).enumerate() {
            batcher.add(request(prompt, (i % 3 == 0).then(|| grammar.clone()), ear));
        }
        while batcher.step() {}
        let ends = |ear: &Ear| {
            let heard = ear.0.lock().unwrap();
            (heard.0.clone(), heard.1.clone().unwrap().map(|ended| ended.finish))
        };
        answers.push(ears.iter().map(ends).collect::<Vec<_>>());
        for (i, (text, _)) in answers[answers.len() - 1].iter().enumerate() {
            assert!(i % 3 > 0 || text.starts_with("{\"capital\": \""), "{text}");
        }
    }
    for (i, (_, _, margin)) in golden().iter().enumerate() {
        let [a, b, c] = [&answers[0][i], &answers[1][i], &answers[2][i]];
        if i % 3 > 0 && *margin > 0.5 {
            assert_eq!((a, a), (b, c), "{i}");
        }
    }
}

#[test]
fn a_context_that_is_full_and_a_pass_that_is_stopped_leave_what_was_accepted() {
    let small_context = LoadOptions { ctx: Some(64), ..options(ngrams(), 1) };
    let engine = Engine::open(index(&tiny_chat()), &small_context).unwrap();
    let mut batcher = engine.batcher().unwrap();
    let text: Vec<Token> = vec![50; 200];
    batcher
        .draft_with(Drafts::new(vec![Box::new(Told { text, wrong: 1000, forks: true })], free()));
    let settings = SamplerSettings {
        temp: 0.0,
        ignore_eos: true,
        logit_bias: vec![(50, 1000.0)],
        ..SamplerSettings::default()
    };
    let ask = Ask { prompt: vec![50; 10], settings, ..Ask::default() };
    let got = generate(&mut batcher, ask.clone(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((got.finish, got.tokens.len()), (Finish::ContextFull, 64 - 10 + 1));
    assert_eq!(batcher.n_kept(), 64);
    assert!(got.passes < 30, "{}", got.passes);
    // Stopped by the listener after the first words: what follows goes on from there.
    let got = generate(&mut batcher, ask.clone(), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(got.finish, Finish::Interrupted);
    assert!(batcher.n_kept() >= 10 && batcher.n_kept() < 64, "{}", batcher.n_kept());
    let again = generate(&mut batcher, ask, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(again.tokens.len(), 64 - 10 + 1);
}

#[test]
fn models_that_keep_a_state_take_chains_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    for name in ["mamba", "mamba2", "jamba", "rwkv7", "granitehybrid", "lfm2", "qwen3next"] {
        let Some(spec) = tiny_models::all().iter().find(|spec| spec.name == name) else { continue };
        let path = dir.path().join(format!("{name}.gguf"));
        tiny_models::write(spec, &path).unwrap();
        let prompt: Vec<Token> = (0..20).map(|i| 5 + i * 3 % 40).collect();
        let settings =
            SamplerSettings { temp: 0.0, ignore_eos: true, ..SamplerSettings::default() };
        let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
        let want = answer(&mut alone, &prompt, &settings);
        for wrong in [1, 3, 1000] {
            let mut batcher = open(&path, ngrams(), 1).batcher().unwrap();
            let text = [prompt.clone(), want.tokens.clone()].concat();
            let told = Told { text, wrong, forks: false };
            batcher.draft_with(Drafts::new(vec![Box::new(told)], free()));
            let got = answer(&mut batcher, &prompt, &settings);
            let same = got.tokens.iter().zip(&want.tokens).take_while(|(a, b)| a == b).count();
            assert!(same >= 10, "{name} {wrong}: {same}: {:?} {:?}", got.tokens, want.tokens);
            assert!(got.drafted.tried > 0, "{name}");
            if wrong == 1000 && same == 60 {
                assert!(got.passes < 40, "{name}: {}", got.passes);
            }
        }
        n += 1;
    }
    assert!(n >= 4, "only {n} models were tried");
}

#[test]
fn a_model_with_other_tokens_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spec = tiny_models::all().iter().find(|spec| spec.name == "llama").unwrap();
    let path = dir.path().join("other.gguf");
    tiny_models::write(spec, &path).unwrap();
    let draft = Draft::Model { index: index(&path), always: true };
    let engine = Engine::open(index(&tiny_chat()), &options(draft, 1)).unwrap();
    let error = engine.batcher().unwrap_err().to_string();
    assert!(error.contains("other.gguf': without a vocabulary"), "{error}");
}

#[test]
fn a_resident_model_pays_nothing_for_drafts_that_it_does_not_get() {
    let index = index(&tiny_chat());
    let small =
        Draft::Model { index: self::index(&models().join("tiny-draft-q8_0.gguf")), always: false };
    let mut plans = Vec::new();
    for draft in [Draft::None, Draft::Ngrams { always: false }, small.clone()] {
        // Needs that were measured, so that nothing is hidden by bounds.
        let options = LoadOptions {
            stream: StreamMode::Never,
            ram: Some(Bytes(1 << 30)),
            ..options(draft, 1)
        };
        plans.push(planning::plan(&index, &options, true).unwrap().plan.memory.context);
        let engine = Engine::open(index.clone(), &options).unwrap();
        assert_eq!(engine.batcher().unwrap().drafters(), None);
        assert_eq!(engine.foreseen(), None);
    }
    assert!(plans.iter().all(|context| *context == plans[0]), "{plans:?}");
    // Where it streams, they are there, and what they bring is foreseen.
    let engine = open(&tiny_chat(), small, 1);
    assert!(engine.batcher().unwrap().drafters().is_some());
    let foreseen = engine.foreseen().unwrap();
    assert!(
        foreseen.gain.tokens_per_pass >= 1.0 && foreseen.who.contains("n-grams"),
        "{foreseen:?}"
    );
}
