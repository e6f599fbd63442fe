//! What is accepted of drafts is what would have been drawn without: the same distribution at each depth, the same bits after a chain
//! that was rejected, the same text within a grammar, and the same conversation after a pass that broke.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use airrun::ggml::{BatchToken, Context, ContextParams, Model, ModelParams, Part, Recall};
use airrun::ggml::{Segment, SegmentKind, Threadpool, VirtualFile};
use airrun::source::WeightSource;
use airrun::source::fault::{Behaviour, Fault, FaultySource};

use super::*;

/// Draws of each kind.
const DRAWS: u64 = 2000;

/// Tokens of each.
const DEPTH: usize = 4;

/// How often each token was drawn at each depth.
fn draws(batcher: &mut Batcher, prompt: &[Token], first_seed: u64) -> Vec<BTreeMap<Token, f64>> {
    let mut drawn = vec![BTreeMap::new(); DEPTH];
    for seed in first_seed..first_seed + DRAWS {
        let seed = u32::try_from(seed).unwrap();
        let settings =
            SamplerSettings { temp: 1.0, seed: Some(seed), ..SamplerSettings::default() };
        let ask =
            Ask { prompt: prompt.to_vec(), settings, max_tokens: Some(DEPTH), ..Ask::default() };
        let got = generate(batcher, ask, &mut |_| ControlFlow::Continue(())).unwrap();
        for (depth, token) in got.tokens.iter().enumerate() {
            *drawn[depth].entry(*token).or_insert(0.0) += 1.0;
        }
    }
    drawn
}

/// How far two samples are from being of one distribution: chi-square as a normal deviate (Wilson and Hilferty). What was seldom drawn
/// counts together.
fn deviate(a: &BTreeMap<Token, f64>, b: &BTreeMap<Token, f64>) -> f64 {
    let count = |of: &BTreeMap<Token, f64>, token: &Token| of.get(token).copied().unwrap_or(0.0);
    let tokens: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let (mut cells, mut rest) = (Vec::new(), [0.0; 2]);
    for token in tokens {
        let cell = [count(a, token), count(b, token)];
        if cell[0] + cell[1] >= 20.0 {
            cells.push(cell);
        } else {
            rest = [rest[0] + cell[0], rest[1] + cell[1]];
        }
    }
    if rest[0] + rest[1] >= 20.0 {
        cells.push(rest);
    }
    let sums: [f64; 2] = [0, 1].map(|i| cells.iter().map(|cell| cell[i]).sum());
    let all = sums[0] + sums[1];
    let square = cells.iter().flat_map(|cell| {
        let both = cell[0] + cell[1];
        [0, 1].map(|i| {
            let expected = both * sums[i] / all;
            (cell[i] - expected).powi(2) / expected
        })
    });
    let (square, freedom) = (square.sum::<f64>(), (cells.len().max(2) - 1) as f64);
    let spread = 2.0 / (9.0 * freedom);
    ((square / freedom).cbrt() - (1.0 - spread)) / spread.sqrt()
}

#[test]
fn drafted_draws_have_the_distribution_of_those_without() {
    let target = models().join("tiny-draft-q8_0.gguf");
    let prompt = golden().into_iter().find(|(name, _, _)| name == "story-fox").unwrap().1;
    let mut alone = open(&target, Draft::None, 1).batcher().unwrap();
    let drafting = open(&target, small(), 1);
    let want = draws(&mut alone, &prompt, 100_000);
    for chains in [true, false] {
        let mut batcher = drafting.batcher().unwrap();
        batcher.pace_drafts(streaming());
        if chains {
            batcher.draft_chains();
        }
        let got = draws(&mut batcher, &prompt, 1);
        let accepted = batcher.take_tally().accepted;
        assert!(accepted as u64 > DRAWS, "{accepted}");
        for depth in 0..DEPTH {
            assert!(want[depth].len() > 1, "the text leaves nothing to draw at depth {depth}");
            // One sample in ten thousand of the same distribution is farther off; the seeds are the same each time.
            let off = deviate(&got[depth], &want[depth]);
            assert!(off < 3.72, "depth {depth}: {off}");
        }
    }
    // The test can fail: at other depths, other tokens come.
    assert!(deviate(&want[0], &want[1]) > 10.0);
}

/// A context of a model that keeps a state, and no drafts of its own.
fn context(path: &Path) -> Context {
    let len = std::fs::metadata(path).unwrap().len();
    let all = vec![Segment { len, kind: SegmentKind::File { file: 0, offset: 0 } }];
    let file = VirtualFile::open(&[path.to_owned()], all).unwrap();
    let params = ModelParams { repack: false, ..ModelParams::default() };
    let model = Arc::new(Model::load_virtual(file, &params, &|_| true).unwrap());
    let threads = Arc::new(Threadpool::new(1, 0).unwrap());
    let params = ContextParams {
        n_ctx: 128,
        n_ubatch: 64,
        n_seqs: 1,
        n_outputs: 64,
        threads,
        n_threads: 1,
        offload: false,
        recall: Recall::default(),
        part: Part::Model,
    };
    Context::new(model, &params, Arc::new(AtomicBool::new(false))).unwrap()
}

/// Computes tokens from `at` on; the bits of the last one's logits.
fn decode(context: &mut Context, tokens: &[Token], at: usize) -> Vec<u32> {
    let entry = |(i, &token): (usize, &Token)| BatchToken::new(token, at + i, 0, true);
    let batch: Vec<_> = tokens.iter().enumerate().map(entry).collect();
    context.decode_batch(&batch).unwrap();
    context.logits_of(tokens.len() - 1).unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_rejected_chain_leaves_no_bit_in_a_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = Vec::new();
    let names = ["mamba", "mamba2", "jamba", "rwkv6", "rwkv7", "granitehybrid", "falcon-h1"];
    for name in
        names.into_iter().chain(["lfm2", "qwen3next", "plamo2", "nemotron_h", "kimi-linear"])
    {
        let Some(spec) = tiny_models::all().iter().find(|spec| spec.name == name) else { continue };
        let path = dir.path().join(format!("{name}.gguf"));
        tiny_models::write(spec, &path).unwrap();
        let prompt: Vec<Token> = (0..20).map(|i| 5 + i * 3 % 40).collect();
        let (mut with, mut without) = (context(&path), context(&path));
        assert_eq!(decode(&mut with, &prompt, 0), decode(&mut without, &prompt, 0), "{name}");
        for wrong in 1..6_usize {
            let at = prompt.len() + 3 * (wrong - 1);
            let state = with.save_state(0).expect("a state");
            let chain: Vec<Token> = (0..=wrong as i32).map(|i| 7 + i * 5).collect();
            decode(&mut with, &chain, at);
            assert!(with.restore_state(0, &state, at), "{name}");
            let right = [11, 13, 17];
            let (a, b) = (decode(&mut with, &right, at), decode(&mut without, &right, at));
            assert_eq!(a, b, "{name} after a chain of {wrong}");
        }
        tried.push(name);
    }
    assert!(tried.len() >= 5, "only {tried:?}");
}

#[test]
fn a_grammar_gives_the_same_answer_with_drafts() {
    // What the model would say anyway, more or less: of nonsense, all is equally likely.
    let forms = [
        ("capital", r#"root ::= "The capital of " [A-Z] [a-z]+ " is " [A-Z] [a-z]+ ".""#),
        ("capital-json", r#"root ::= "{\"answer\": \"" [A-Z] [a-z]+ "\"}""#),
        ("count", r#"root ::= [1-9] [0-9]* (", " [1-9] [0-9]*)* "\n""#),
        ("list", r#"root ::= ([1-9] ". " [A-Z] [a-z]+ "\n"?)+"#),
        ("months-later", r#"root ::= [A-Z] [a-z]+ ([, ]+ [A-Za-z]+)+ ".""#),
    ];
    let greedy = SamplerSettings { temp: 0.0, ..SamplerSettings::default() };
    let sampled = SamplerSettings { seed: Some(3), ..SamplerSettings::default() };
    let mut alone = open(&tiny_chat(), Draft::None, 1).batcher().unwrap();
    let mut accepted = 0;
    for draft in [ngrams(), small()] {
        let engine = open(&tiny_chat(), draft, 1);
        let mut drafted = engine.batcher().unwrap();
        drafted.pace_drafts(streaming());
        for (form, rules) in forms {
            let prompt = golden().into_iter().find(|(name, _, _)| name == form).unwrap().1;
            for settings in [&greedy, &sampled] {
                let grammar = Grammar::of(rules.to_owned());
                let ask = Ask {
                    prompt: prompt.clone(),
                    settings: settings.clone(),
                    max_tokens: Some(30),
                    grammar: Some(grammar),
                    ..Ask::default()
                };
                let say = |batcher: &mut Batcher| {
                    generate(batcher, ask.clone(), &mut |_| ControlFlow::Continue(())).unwrap()
                };
                let (want, got) = (say(&mut alone), say(&mut drafted));
                assert_eq!((&got.text, got.finish), (&want.text, want.finish), "{form}");
                accepted += got.drafted.accepted;
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
}

/// What a model says to a prompt, and one that drafts all of it, with forks, beside a source that fails once.
#[test]
fn a_conversation_goes_on_from_the_last_accepted_token() {
    let (_, prompt, _) = golden().into_iter().find(|(name, _, _)| name == "count").unwrap();
    let greedy = SamplerSettings { temp: 0.0, ignore_eos: true, ..SamplerSettings::default() };
    let mut alone = open(&tiny_chat(), Draft::None, 1).batcher().unwrap();
    let want = answer(&mut alone, &prompt, &greedy);
    let text = [prompt.clone(), want.tokens.clone()].concat();
    let ask = Ask {
        prompt: prompt.clone(),
        settings: greedy.clone(),
        max_tokens: Some(60),
        ..Ask::default()
    };
    let mut failed = 0;
    // Some block of some pass fails to be read, or somebody stops within some pass.
    for at in (1..40).step_by(3) {
        let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
            let behaviour = Behaviour { fault: Fault::ErrorAt(at), ..Behaviour::default() };
            Arc::new(FaultySource::new(inner, behaviour).unwrap())
        };
        let engine = Engine::open_with(index(&tiny_chat()), &options(ngrams(), 1), wrap).unwrap();
        let mut batcher = engine.batcher().unwrap();
        let told = Told { text: text.clone(), wrong: 7, forks: at % 2 == 0 };
        batcher.draft_with(Drafts::new(vec![Box::new(told)], free()));
        let mut said = String::new();
        let broke = generate(&mut batcher, ask.clone(), &mut |piece| {
            said += piece;
            ControlFlow::Continue(())
        });
        failed += usize::from(broke.is_err());
        assert!(want.text.starts_with(&said), "{at}: {said:?}");
        // What is kept is a beginning of the text that was accepted, and no more.
        assert!(batcher.n_kept() <= prompt.len() + want.tokens.len(), "{at}");
        let again = answer(&mut batcher, &prompt, &greedy);
        assert_eq!(again.tokens, want.tokens, "{at}");
        // Stopped after some pieces.
        let mut left = at;
        let stopped = generate(&mut batcher, ask.clone(), &mut |_| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let stopped = stopped.unwrap();
        assert!(want.tokens.starts_with(&stopped.tokens), "{at}");
        assert!(batcher.n_kept() <= prompt.len() + stopped.tokens.len(), "{at}");
        assert_eq!(answer(&mut batcher, &prompt, &greedy).tokens, want.tokens, "{at}");
    }
    assert!(failed > 3, "{failed}");
}
