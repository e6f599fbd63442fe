//! Heads whose pass is broken off, whose text was kept on disk, or whose context is full: answers are as they are without a head, and
//! the head finds its way back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use airrun::source::fault::{Behaviour, Fault, FaultySource};
use airrun::source::{Extent, HostBuf, Ticket, WeightSource};
use airrun::stream::Monitor;

use super::beside::{head_at, knowing};
use super::blocks::filling;
use super::heads::{head, prompt, settings, write_knowing};
use super::*;

/// Stops what is computed when so many reads were asked for: somewhere in a pass.
#[derive(Debug)]
struct Stopping {
    inner: Arc<dyn WeightSource>,
    left: AtomicU64,
    monitor: Arc<OnceLock<Arc<Monitor>>>,
}

impl WeightSource for Stopping {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        if let Some(monitor) = self.monitor.get()
            && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            monitor.stop();
        }
        self.inner.request(extents, buf)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Models that know what comes, with heads that do too: in their own file, and in one of its own.
fn with_heads(dir: &Path) -> Vec<(&'static str, PathBuf, Draft)> {
    let own = |name| (name, write_knowing(name, true, 7, dir), head());
    let beside = |name, head| {
        let file = head_at(dir, &format!("{name}-head.gguf"), &head);
        (name, write_knowing(name, true, 1000, dir), file)
    };
    // Those with a state and those without.
    vec![
        own("glm4moe-mtp"),
        own("qwen35-mtp"),
        beside("llama", knowing(true, 7)),
        beside("qwen35", knowing(false, 7)),
        beside("qwen3", filling(true, 7)),
    ]
}

#[test]
fn a_pass_with_a_head_that_broke_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    for (name, path, draft) in with_heads(dir.path()) {
        let prompt = prompt(20);
        let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
        let want = answer(&mut alone, &prompt, &settings(0.0));
        let mut failed = 0;
        for at in (1..30).step_by(4) {
            let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
                let behaviour = Behaviour { fault: Fault::ErrorAt(at), ..Behaviour::default() };
                Arc::new(FaultySource::new(inner, behaviour).unwrap())
            };
            let options = options(draft.clone(), 1);
            let engine = Engine::open_with(index(&path), &options, wrap).unwrap();
            let mut batcher = engine.batcher().unwrap();
            batcher.pace_drafts(free());
            let ask = Ask {
                prompt: prompt.clone(),
                settings: settings(0.0),
                max_tokens: Some(60),
                ..Ask::default()
            };
            // A read fails once, in the first answer or a later one.
            for _ in 0..4 {
                match generate(&mut batcher, ask.clone(), &mut |_| ControlFlow::Continue(())) {
                    Err(_) => failed += 1,
                    Ok(again) => {
                        assert_eq!(again.tokens, want.tokens, "{name} {at}");
                        let accepted = again.drafted.accepted;
                        assert!(accepted > 20, "{name} {at}: {:?}", again.drafted);
                    }
                }
            }
        }
        assert!(failed > 3, "{name}: {failed}");
    }
}

#[test]
fn a_pass_with_a_head_that_was_stopped_leaves_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    for (name, path, draft) in with_heads(dir.path()) {
        let prompt = prompt(20);
        let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
        let want = answer(&mut alone, &prompt, &settings(0.0));
        let mut stopped = 0;
        for at in (1..30).step_by(4) {
            let monitor = Arc::<OnceLock<Arc<Monitor>>>::default();
            let wrap = |inner: Arc<dyn WeightSource>| -> Arc<dyn WeightSource> {
                let (left, monitor) = (AtomicU64::new(at), monitor.clone());
                Arc::new(Stopping { inner, left, monitor })
            };
            let options = options(draft.clone(), 1);
            let engine = Engine::open_with(index(&path), &options, wrap).unwrap();
            let mut batcher = engine.batcher().unwrap();
            batcher.pace_drafts(free());
            monitor.set(batcher.monitor()).unwrap();
            // Somebody stops once, in the first answer or a later one.
            for _ in 0..4 {
                let got = answer(&mut batcher, &prompt, &settings(0.0));
                if got.finish == Finish::Interrupted {
                    stopped += usize::from(!got.tokens.is_empty());
                    assert!(want.tokens.starts_with(&got.tokens), "{name} {at}");
                    assert!(batcher.n_kept() <= prompt.len() + got.tokens.len(), "{name} {at}");
                } else {
                    assert_eq!(got.tokens, want.tokens, "{name} {at}");
                    assert!(got.drafted.accepted > 20, "{name} {at}: {:?}", got.drafted);
                }
            }
        }
        assert!(stopped > 3, "{name}: {stopped}");
    }
}

#[test]
fn a_prompt_that_was_kept_on_disk_goes_on_with_a_head() {
    let dir = tempfile::tempdir().unwrap();
    for (name, path, draft) in with_heads(dir.path()) {
        let kept = dir.path().join(format!("{name}-kept"));
        let long = prompt(200);
        let say = |draft: Draft, text: &[Token]| {
            let engine = open(&path, draft, 1);
            let mut batcher = engine.batcher().unwrap();
            batcher.pace_drafts(free());
            let shelf = engine.shelf_in(kept.clone(), Bytes(64 << 20)).unwrap();
            batcher.keep_on(Some(shelf.at_any_price()));
            answer(&mut batcher, text, &settings(0.0))
        };
        let first = say(Draft::None, &long);
        assert_eq!(first.n_reused, 0, "{name}");
        // What the head did not read it does without: it begins where the model does.
        for text in [long.clone(), [&long[..], &first.tokens, &[7, 22]].concat()] {
            let mut alone = open(&path, Draft::None, 1).batcher().unwrap();
            let want = answer(&mut alone, &text, &settings(0.0));
            let got = say(draft.clone(), &text);
            assert!(got.n_reused >= 100, "{name}: {}", got.n_reused);
            assert_eq!(got.tokens, want.tokens, "{name}");
            assert!(got.drafted.accepted > 20, "{name}: {:?}", got.drafted);
        }
    }
}

#[test]
fn a_context_that_is_full_ends_a_text_with_a_head_as_without() {
    let dir = tempfile::tempdir().unwrap();
    for (name, path, draft) in with_heads(dir.path()) {
        let say = |draft: Draft| {
            let options = LoadOptions { ctx: Some(64), ..options(draft, 1) };
            let engine = Engine::open(index(&path), &options).unwrap();
            let mut batcher = engine.batcher().unwrap();
            batcher.pace_drafts(free());
            let ask = Ask { prompt: prompt(20), settings: settings(0.0), ..Ask::default() };
            // Twice: what is kept of the first leaves no room, either.
            [(); 2].map(|()| {
                generate(&mut batcher, ask.clone(), &mut |_| ControlFlow::Continue(())).unwrap()
            })
        };
        for (want, got) in say(Draft::None).into_iter().zip(say(draft)) {
            assert_eq!((want.finish, want.tokens.len()), (Finish::ContextFull, 45), "{name}");
            assert_eq!((got.finish, &got.tokens), (want.finish, &want.tokens), "{name}");
            assert!(got.drafted.accepted > 10, "{name}: {:?}", got.drafted);
        }
    }
}
