//! Counters of what was served, and their text for Prometheus.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::engine::Progress;
use crate::engine::batch::Tally;
use crate::engine::experts::Counts;

/// What was served since the start.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Answers by what was asked for and the status.
    answers: Mutex<Vec<((&'static str, u16), u64)>>,
    /// Answers that the worker ended, by how.
    pub(super) finished: Counter,
    pub(super) cancelled: Counter,
    pub(super) failed: Counter,
    /// Tokens of prompts that were computed, and of those that were there from before.
    pub(super) prompt_tokens: Counter,
    pub(super) reused_tokens: Counter,
    pub(super) generated_tokens: Counter,
    pub(super) drafted_tokens: Counter,
    pub(super) accepted_tokens: Counter,
    /// Steps of the worker, and the requests in them.
    pub(super) steps: Counter,
    pub(super) step_requests: Counter,
    step_nanos: Counter,
    /// The last steps that wrote something.
    pace: Mutex<VecDeque<(usize, Duration)>>,
    /// The step under way.
    pub(super) pass: Pass,
    /// Texts that were taken from the queue and wait for a place, and those that are being written.
    pub(super) pending: Counter,
    pub(super) running: Counter,
}

/// A number that threads add to.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(super) fn set(&self, n: usize) {
        self.0.store(n as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When the step under way began.
#[derive(Debug, Default)]
pub(super) struct Pass(Mutex<Option<Instant>>);

impl Pass {
    pub(super) fn begin(&self, now: Instant) {
        *self.lock() = Some(now);
    }

    pub(super) fn end(&self) {
        *self.lock() = None;
    }

    /// How long it has taken; none between steps.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        self.lock().map(|begin| begin.elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Rates are those of the steps of so long ...
const PACE: Duration = Duration::from_secs(2);
/// ... and of so many at least.
const PACE_STEPS: usize = 4;

/// The paths that are counted by name; all others are one.
const PATHS: [&str; 16] = [
    "/",
    "/health",
    "/metrics",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/api/chat",
    "/api/generate",
    "/api/tags",
    "/api/show",
    "/api/ps",
    "/api/version",
    "/api/embed",
    "/api/embeddings",
    "/api/airrun/status",
];

impl Metrics {
    /// A request was answered.
    pub(super) fn answered(&self, path: &str, status: StatusCode) {
        let path = PATHS.into_iter().find(|known| *known == path).unwrap_or("other");
        let key = (path, status.as_u16());
        let mut answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match answers.iter_mut().find(|(known, _)| *known == key) {
            Some((_, n)) => *n += 1,
            None => answers.push((key, 1)),
        }
    }

    /// What a step of the worker has done.
    pub(super) fn count(&self, tally: &Tally) {
        let [finished, cancelled, failed] = tally.ended;
        self.finished.add(finished);
        self.cancelled.add(cancelled);
        self.failed.add(failed);
        self.prompt_tokens.add(tally.prompt);
        self.reused_tokens.add(tally.reused);
        self.generated_tokens.add(tally.generated);
        self.drafted_tokens.add(tally.drafted);
        self.accepted_tokens.add(tally.accepted);
    }

    /// The worker made a step.
    pub(super) fn stepped(&self, tally: &Tally, took: Duration) {
        self.steps.add(1);
        self.step_requests.add(tally.texts);
        // A step that also reads a prompt takes longer than a token does.
        if tally.generated > 0 && tally.prompt == 0 {
            let mut pace = self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            pace.push_back((tally.generated, took));
            while pace.len() > PACE_STEPS
                && pace.iter().skip(1).map(|step| step.1).sum::<Duration>() > PACE
            {
                pace.pop_front();
            }
        }
        self.step_nanos.add(usize::try_from(took.as_nanos()).unwrap_or(0));
    }

    /// Tokens per second that the last steps wrote, where they wrote any: of the time that they took, so that it is right for tokens
    /// of a millisecond and of a minute.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no exact count")]
    pub(super) fn tokens_per_second(&self) -> f64 {
        let pace = self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (tokens, took) =
            pace.iter().fold((0, Duration::ZERO), |sum, step| (sum.0 + step.0, sum.1 + step.1));
        if took.is_zero() { 0.0 } else { tokens as f64 / took.as_secs_f64() }
    }

    /// All of it as text, with what the streaming of weights has done, and how many requests are `waiting`.
    pub(super) fn text(&self, weights: &Progress, waiting: usize) -> String {
        let mut out = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            let _ = writeln!(out, "# HELP airrun_{name} {help}\n# TYPE airrun_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(out, "airrun_{name}{labels} {value}");
            }
        };
        let one = |value: f64| [(String::new(), value)];
        let count = |counter: &Counter| one(exact(counter.get()));
        let answers =
            self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let label = |((path, status), n): ((&str, u16), u64)| {
            (format!("{{path=\"{path}\",status=\"{status}\"}}"), exact(n))
        };
        let requests: Vec<_> = answers.into_iter().map(label).collect();
        metric("requests_total", "counter", "Answers, by path and status.", &requests);
        let by =
            |how: &str, counter: &Counter| (format!("{{end=\"{how}\"}}"), exact(counter.get()));
        let ends = [
            by("finished", &self.finished),
            by("cancelled", &self.cancelled),
            by("failed", &self.failed),
        ];
        metric("answers_total", "counter", "Texts that were written, by their end.", &ends);
        let t = "counter";
        metric(
            "prompt_tokens_total",
            t,
            "Tokens of prompts computed.",
            &count(&self.prompt_tokens),
        );
        metric(
            "reused_tokens_total",
            t,
            "Tokens of prompts kept from before.",
            &count(&self.reused_tokens),
        );
        metric("generated_tokens_total", t, "Tokens written.", &count(&self.generated_tokens));
        metric(
            "drafted_tokens_total",
            t,
            "Tokens drafted and checked.",
            &count(&self.drafted_tokens),
        );
        metric("accepted_tokens_total", t, "Of those, accepted.", &count(&self.accepted_tokens));
        metric("steps_total", t, "Batches computed.", &count(&self.steps));
        metric("step_requests_total", t, "Requests in those batches.", &count(&self.step_requests));
        let seconds = exact(self.step_nanos.get()) / 1e9;
        metric("step_seconds_total", t, "Time that batches took.", &one(seconds));
        metric("passes_total", t, "Passes over the weights.", &one(exact(weights.passes)));
        metric("streamed_bytes_total", t, "Bytes of weights read.", &one(weights.streamed.f64()));
        metric(
            "stall_seconds_total",
            t,
            "Time that computing waited for weights.",
            &one(weights.stall_seconds),
        );
        metric("waiting_requests", "gauge", "Requests in the queue.", &one(exact(waiting as u64)));
        metric("running_requests", "gauge", "Texts being written.", &count(&self.running));
        out
    }
}

/// What experts that are brought one by one did.
pub(super) fn of_experts(counts: &Counts) -> String {
    let Counts { uses, misses, copied, bytes } = *counts;
    let mut out = String::new();
    for (name, help, value) in [
        ("expert_uses_total", "Experts that passes used, each once a pass.", uses),
        ("expert_misses_total", "Of those, the ones that had to be read.", misses),
        (
            "expert_copies_total",
            "Of the uses, the ones that a device lacked in its own memory.",
            copied,
        ),
        ("expert_bytes_total", "Bytes read for them.", bytes.0),
    ] {
        let _ = writeln!(out, "# HELP airrun_{name} {help}\n# TYPE airrun_{name} counter");
        let _ = writeln!(out, "airrun_{name} {value}");
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floats")]
fn exact(n: u64) -> f64 {
    n as f64
}

/// What Prometheus calls its text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
