//! Measures a session: fixed tokens, no sampling, no end of the text; and, in `rates`, what the hardware could do. How often,
//! in which order, and what is printed is the caller's matter.

mod rates;
mod usage;

use std::time::Instant;

pub use rates::{disk_rate, memory_rate};

use super::experts::{Counts, Watch};
use super::{Error, Progress, Session, Token};
use crate::gguf::{Index, Place, TensorInfo};
pub use crate::source::sample::{NoSample, Sample};
use crate::units::{Bytes, Rate};

/// What a test took.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Tokens computed.
    pub tokens: usize,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// Passes over the weights.
    pub passes: u64,
    /// Bytes of weights that were brought into slots, from wherever.
    pub streamed: Bytes,
    /// Bytes that the disk delivered for this process: fewer than `streamed` where page caches helped. Where the system does
    /// not count them, `streamed`.
    pub from_disk: Bytes,
    /// Seconds that computation waited for bytes.
    pub stall_seconds: f64,
    /// Experts that were used and read one by one, if any were.
    pub experts: Option<Counts>,
}

/// Computes a prompt of `n` tokens in an empty session: of `text`, if there is one.
///
/// # Errors
///
/// As [`Session::sync`].
pub fn prompt(session: &mut Session, n: usize, text: &[Token]) -> Result<Measure, Error> {
    session.rewind(0)?;
    let tokens = tokens(n, text, session.vocab().len());
    measure(session, n, |session| session.sync(&tokens).map(drop))
}

/// Computes `n` tokens one after the other, each with a pass of its own, after a text of one token. They are
/// those of `text`, if there is one.
///
/// # Errors
///
/// As [`Session::eval`]; models that do not write token by token are refused.
pub fn generation(session: &mut Session, n: usize, text: &[Token]) -> Result<Measure, Error> {
    if !session.continues_text() {
        let what = "a diffusion model, which does not write token by token";
        return Err(Error::NotForText { model: session.name(), what });
    }
    session.rewind(0)?;
    let tokens = tokens(n + 1, text, session.vocab().len());
    session.sync(&tokens[..1])?;
    measure(session, n, |session| {
        tokens[1..].iter().try_for_each(|&token| {
            session.eval(&[token])?;
            // Asking for them makes sure that they are there.
            session.logits().map(drop)
        })
    })
}

/// Watches `compute` from outside.
fn measure(
    session: &mut Session,
    tokens: usize,
    compute: impl FnOnce(&mut Session) -> Result<(), Error>,
) -> Result<Measure, Error> {
    let monitor = session.monitor();
    let counts = || monitor.experts().map(Watch::counts);
    let (before, disk_before, experts_before) = (monitor.snapshot(), usage::disk_reads(), counts());
    let begin = Instant::now();
    compute(session)?;
    let seconds = begin.elapsed().as_secs_f64();
    let (after, disk_after) = (monitor.snapshot(), usage::disk_reads());
    let streamed = after.streamed.saturating_sub(before.streamed);
    let from_disk = match (disk_before, disk_after) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => streamed,
    };
    let spent = |of: fn(&Progress) -> f64| of(&after) - of(&before);
    Ok(Measure {
        tokens,
        seconds,
        passes: after.passes - before.passes,
        streamed,
        from_disk,
        stall_seconds: spent(|p| p.stall_seconds),
        experts: counts().zip(experts_before).map(|(after, before)| after.since(before)),
    })
}

/// The first `n` tokens of `text`, again and again if it is shorter; without one, tokens that mean nothing.
fn tokens(n: usize, text: &[Token], n_vocab: usize) -> Vec<Token> {
    match text {
        [] => fixed_tokens(n, n_vocab),
        _ => text.iter().copied().cycle().take(n).collect(),
    }
}

/// `n` tokens scattered over the vocabulary, the same every time: the experts of a mixture depend on them.
fn fixed_tokens(n: usize, n_vocab: usize) -> Vec<Token> {
    let n_vocab = n_vocab.max(1) as u64;
    let token = |i: u64| (i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % n_vocab;
    (0..n as u64).map(|i| Token::try_from(token(i)).unwrap_or(0)).collect()
}

/// The fastest that the machine could go, by what would hold it up. [tokens per second]
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Limits {
    /// The disk's rate over the bytes that came from it.
    pub disk: Option<f64>,
    /// The memory's rate over the bytes of weights that a pass touches.
    pub memory: Option<f64>,
    /// Computation alone: as it went in this very test, without its waiting. Where nothing streams there is no waiting to be told
    /// from computing: then, as the machine multiplies such weights when it does nothing else, if that is faster.
    pub compute: Option<f64>,
}

/// Computing that reaches this share of the memory's rate is held up by the memory.
const KEEPS_UP: f64 = 0.9;

impl Limits {
    /// What bounds `measure`. `touched` are the bytes of weights that one pass of it reads from memory, if that is what takes its
    /// time: a pass with many tokens is held up by arithmetic. `computing` is how fast the machine multiplies the model's
    /// weights, in tokens per second.
    pub fn of(
        measure: &Measure,
        disk: Option<Rate>,
        memory: Option<(Rate, Bytes)>,
        computing: Option<f64>,
    ) -> Limits {
        let per_second = |seconds: f64| {
            #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
            let tokens = measure.tokens as f64;
            (seconds > 0.0 && seconds.is_finite()).then(|| tokens / seconds)
        };
        let from_disk = measure.from_disk > Bytes::ZERO;
        let here = per_second(measure.seconds - measure.stall_seconds);
        let streams = measure.streamed > Bytes::ZERO;
        let compute = match computing.filter(|_| !streams) {
            Some(computing) => here.map(|here| here.max(computing)),
            None => here.filter(|_| streams),
        };
        Limits {
            disk: disk.filter(|_| from_disk).and_then(|r| per_second(r.seconds(measure.from_disk))),
            memory: memory
                .and_then(|(rate, touched)| per_second(rate.seconds(touched * measure.passes))),
            compute,
        }
    }

    /// The tightest, and its name. Memory is named only where computing was measured to go as fast as memory gives.
    pub fn tightest(&self) -> Option<(f64, &'static str)> {
        let keeps_up =
            |compute: f64| self.memory.is_some_and(|memory| compute >= KEEPS_UP * memory);
        let compute = self.compute.filter(|&compute| !keeps_up(compute));
        let memory = self.memory.filter(|_| compute.is_none());
        [(self.disk, "disk"), (memory, "memory"), (compute, "compute")]
            .into_iter()
            .filter_map(|(limit, name)| Some((limit?, name)))
            .min_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// The bytes of weights that a pass with one token reads from memory: all but the rows of the embedding that are not its own and
/// the experts that are not asked.
pub fn touched_by_token(index: &Index) -> Bytes {
    let has_output = index.tensors.iter().any(|t| t.name == "output.weight");
    let used = index.arch_uint("expert_used_count");
    let touched = |tensor: &TensorInfo| match index.experts(tensor) {
        Some(experts) => experts.each * used.unwrap_or(experts.count).min(experts.count),
        // Without an output matrix the embedding is it.
        None if tensor.name == "token_embd.weight" && !has_output => tensor.len,
        None if tensor.place == Place::Embedding => Bytes::ZERO,
        None => tensor.len,
    };
    index.tensors.iter().map(touched).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measure {
        Measure {
            tokens: 10,
            seconds: 20.0,
            passes: 10,
            streamed: Bytes(40_000),
            from_disk: Bytes(30_000),
            stall_seconds: 12.0,
            experts: None,
        }
    }

    #[test]
    fn the_tightest_limit_is_named() {
        let memory = |rate| Some((Rate(rate), Bytes(5_000)));
        let limits =
            |disk, memory, computing| Limits::of(&measured(), Some(Rate(disk)), memory, computing);
        let slow_disk = limits(2_000.0, memory(1e6), None);
        assert_eq!(slow_disk.disk, Some(10.0 / 15.0));
        assert_eq!(slow_disk.memory, Some(200.0));
        assert_eq!(slow_disk.compute, Some(10.0 / 8.0));
        assert_eq!(slow_disk.tightest(), Some((10.0 / 15.0, "disk")));
        // Where it streams, the test itself says what computing takes.
        let fast_disk = |memory, computing| limits(1e9, memory, computing).tightest();
        assert_eq!(fast_disk(memory(1e6), Some(9.0)), Some((10.0 / 8.0, "compute")));
        assert_eq!(fast_disk(None, None), Some((10.0 / 8.0, "compute")));
        // Memory bounds what computes as fast as it gives.
        assert_eq!(fast_disk(memory(6.5e3), None), Some((1.3, "memory")));
    }

    #[test]
    fn what_does_not_stream_has_no_limit_by_disk() {
        let resident = Measure {
            streamed: Bytes::ZERO,
            from_disk: Bytes::ZERO,
            stall_seconds: 0.0,
            experts: None,
            ..measured()
        };
        assert_eq!(Limits::of(&resident, Some(Rate(1.0)), None, None), Limits::default());
        assert_eq!(Limits::default().tightest(), None);
        // It is never said to be faster than its limit.
        assert_eq!(Limits::of(&resident, None, None, Some(0.1)).compute, Some(0.5));
        assert_eq!(Limits::of(&resident, None, None, Some(0.6)).compute, Some(0.6));
        // A rate of zero bounds nothing: it was not measured.
        assert_eq!(Limits::of(&measured(), Some(Rate(0.0)), None, None).disk, None);
    }

    #[test]
    fn tokens_are_fixed_and_in_the_vocabulary() {
        assert_eq!(fixed_tokens(50, 100), fixed_tokens(50, 100));
        assert!(fixed_tokens(1000, 7).iter().all(|t| (0..7).contains(t)));
        assert_eq!(fixed_tokens(3, 0), [0, 0, 0]);
    }
}
