//! How fast this machine reads its memory: what bounds the generation of a model that is wholly resident.

use std::thread;
use std::time::{Duration, Instant};

use super::{quick, rates};
use crate::units::{Bytes, MIB, Rate};

/// More than caches hold. (bytes)
const SIZE: Bytes = Bytes(256 * MIB.0);
/// The share of the free memory that may be taken for it.
const SHARE: u64 = 8;
/// How long is measured.
const TIME: Duration = Duration::from_millis(200);

/// The best of several times that `n_threads` threads read a large piece of memory. `None` where there is too little memory
/// to tell.
pub fn memory(n_threads: u32) -> Option<Rate> {
    let size = SIZE.min(Bytes(super::available_memory().0 / SHARE));
    let n_words = usize::try_from(size.0 / 8).ok()?;
    let n_threads = usize::try_from(n_threads).ok()?.max(1);
    let mut words: Vec<u64> = Vec::new();
    words.try_reserve_exact(n_words).ok()?;
    // Not zeros, so that every page is memory of its own.
    words.resize(n_words, 1);
    let begin = Instant::now();
    let mut best = 0.0_f64;
    while begin.elapsed() < TIME && n_words > n_threads {
        let start = Instant::now();
        let sum = thread::scope(|scope| {
            let parts = words.chunks(n_words.div_ceil(n_threads));
            let readers: Vec<_> = parts.map(|part| scope.spawn(move || sum(part))).collect();
            readers.into_iter().map(|reader| reader.join().unwrap_or(0)).fold(0, u64::wrapping_add)
        });
        let seconds = start.elapsed().as_secs_f64();
        // The sum is known; comparing keeps the reading from being left out.
        if sum == n_words as u64 && seconds > 0.0 {
            best = best.max(size.f64() / seconds);
        }
    }
    (best > 0.0).then_some(Rate(best))
}

/// As [`memory()`], or what it was within the last week, if that is more: only other programs make memory slower.
pub fn best(n_threads: u32) -> Option<Rate> {
    let key = format!("memory, {}", rates::processor(n_threads));
    let known = quick::samples(quick::QUICK).get(&key).map(|known| known.rate);
    let best = memory(n_threads).filter(|now| known.is_none_or(|known| now.0 > known));
    if let Some(best) = best {
        quick::remember(quick::QUICK, key, best);
    }
    best.or(known.map(Rate))
}

fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_rate() {
        assert!(memory(2).is_some_and(|rate| rate.0 > 1e6));
    }
}
