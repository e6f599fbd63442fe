//! The engine in a simulator: the real planner, stream device, reader's account, slots, pool and batcher under libllama with one thread,
//! on a disk, a clock and clients that follow from a seed. `make sim SEEDS=1000` tries many; `make sim SEED=7` tells one story.

mod client;
mod models;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Count, Scene};

/// Seeds that are tried if nobody says how many.
const SEEDS: u64 = 200;

/// Seeds that once found something, and what.
const KEPT: [(u64, &str); 3] = [
    (19, "who had stalled for a moment was given up after a pass that took longer"),
    (21, "the same, with errors of the disk"),
    (48, "the same, beside others"),
];

/// Plays a seed. Its story, and what came of it.
fn play(seed: u64) -> (Vec<String>, Result<Count, String>) {
    let mut story = Vec::new();
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut scene = Scene::new(seed);
        let sky = scene.sky();
        let played = catch_unwind(AssertUnwindSafe(|| scene.play(&sky)));
        story = sky.story();
        played
    }));
    let played = played.and_then(|played| played);
    (story, played.unwrap_or_else(|panic| Err(format!("panicked: {}", words(&*panic)))))
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// Plays a seed, and tells its story if something is wrong.
#[expect(clippy::print_stdout, reason = "a story is read by people")]
fn check(seed: u64) -> Option<Count> {
    let (story, played) = play(seed);
    match played {
        Ok(count) => Some(count),
        Err(wrong) => {
            println!(
                "seed {seed}:\n{}\n{wrong}\nonce more: make sim SEED={seed}",
                story.join("\n")
            );
            None
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[expect(clippy::print_stdout, reason = "what happened is worth a line")]
fn many_worlds() {
    if let Some(seed) = number("SIM_SEED") {
        let (story, played) = play(seed);
        println!("{}\n{played:?}", story.join("\n"));
        return assert!(played.is_ok());
    }
    let (first, n) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8));
    let counts: Vec<Count> = std::thread::scope(|scope| {
        let work = || {
            let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
            seeds.take_while(|seed| *seed < first + n).filter_map(check).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_else(|p| panic!("{}", words(&*p))))
            .collect()
    });
    assert_eq!(counts.len() as u64, n, "worlds that went well");
    let sum = |what: fn(&Count) -> u64| counts.iter().map(what).sum::<u64>();
    println!(
        "{n} worlds, {} of which stream: {} steps and {} reads; {} texts answered, {} failed, {} given up; {} passes stopped",
        sum(|c| c.streams),
        sum(|c| c.steps),
        sum(|c| c.requests),
        sum(|c| c.answered),
        sum(|c| c.failed),
        sum(|c| c.given_up),
        sum(|c| c.stops),
    );
    // A simulator in which nothing happens finds nothing.
    if n >= SEEDS {
        assert!(sum(|c| c.answered) > n && sum(|c| c.failed) > n / 10);
        assert!(sum(|c| c.given_up) > n / 4 && sum(|c| c.stops) > n / 20);
        assert!(sum(|c| c.streams) > n / 2);
    }
}

#[test]
fn seeds_that_found_something() {
    // A seed is worth what its world is made of: whoever changes how worlds are made looks for others that find the same.
    for (seed, what) in KEPT {
        let (_, played) = play(seed);
        assert!(played.is_ok(), "{what}: {played:?}, make sim SEED={seed}");
    }
}

/// What follows from a seed is the same each time.
#[test]
fn a_story_repeats() {
    for seed in [1, 2, 3, 5, 8] {
        let (once, again) = (play(seed), play(seed));
        assert_eq!(once, again, "{seed}");
    }
}
