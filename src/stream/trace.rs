//! A record of the pipeline: what the reader, the computation and the session did, when. It records and renders; who wants a
//! trace, and where it is written, is not its matter.
//!
//! Recording costs a lock that nobody else holds and a few stores, and nothing at all while there is no trace. Memory is
//! bounded: what comes after [`MAX_EVENTS`] is only counted.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::Unit;
use crate::units::Bytes;

/// Events that are kept: a thousand tokens of a model of 32 blocks, 5 MB of memory, 15 MB of JSON.
pub const MAX_EVENTS: usize = 100_000;

/// The tracks, in the order in which viewers show them.
const PASSES: u32 = 1;
const COMPUTE: u32 = 2;
const WAITING: u32 = 3;
/// The first reader; reads that overlap in time are on tracks of their own, from here on.
const READER: u32 = 4;

/// What is known of one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A pass over the weights, with so many tokens.
    Pass { n_tokens: usize },
    /// Computation with this unit's weights; nodes that need none come with the next unit's. A node that needs several units
    /// at once counts for the first.
    Compute { unit: Option<Unit> },
    /// Computation that waited for this unit.
    Wait { unit: Unit },
    /// The source read this unit.
    Read { unit: Unit, bytes: Bytes },
    /// Computation that waited for experts of this block, counting those that have some.
    WaitExperts { block: usize },
    /// The source read one stack's slice of an expert of this block.
    ReadExpert { block: usize, bytes: Bytes },
}

/// One stretch of time, in nanoseconds since the trace began.
#[derive(Clone, Copy, Debug)]
struct Event {
    begin: u64,
    end: u64,
    what: What,
}

/// What has been recorded since it began.
#[derive(Debug)]
pub struct Trace {
    zero: Instant,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Event>,
    /// Events for which there was no room.
    dropped: u64,
}

impl Trace {
    /// An empty record; it begins now.
    pub(super) fn begin() -> Trace {
        // Pages of the reservation are touched only as they are used.
        let log = Log { events: Vec::with_capacity(MAX_EVENTS), dropped: 0 };
        Trace { zero: Instant::now(), log: Mutex::new(log) }
    }

    /// Records what took the time between two instants. What began before the trace is not part of it.
    pub(super) fn record(&self, what: What, begin: Instant, end: Instant) {
        let Some(from) = begin.checked_duration_since(self.zero) else { return };
        let nanos = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let begin_nanos = nanos(from);
        let end = begin_nanos.saturating_add(nanos(end.saturating_duration_since(begin)));
        let mut log = self.lock();
        if log.events.len() < MAX_EVENTS {
            log.events.push(Event { begin: begin_nanos, end, what });
        } else {
            log.dropped += 1;
        }
    }

    /// Events that were not kept because there were too many.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Writes the trace in the Chrome trace event format: names of the tracks, then the events in order of their begin, times in
    /// microseconds. `units` are the units' names, `mixtures` those of the blocks with experts, `about` is what a viewer shows of the run as a whole.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(
        &self,
        units: &[String],
        mixtures: &[String],
        about: &Value,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut events = self.lock().events.clone();
        // Of events that begin together, the longer one contains the shorter.
        events.sort_by_key(|e| (e.begin, Reverse(e.end)));
        let tracks = tracks(&events);
        let n_readers = tracks.iter().map(|t| (t + 1).saturating_sub(READER)).max().unwrap_or(0);
        write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{about},\"traceEvents\":[")?;
        write!(out, "{}", header("process_name", 0, "airrun"))?;
        for (track, name) in [(PASSES, "passes"), (COMPUTE, "compute"), (WAITING, "waiting")] {
            write!(out, ",\n{}", header("thread_name", track, name))?;
        }
        for k in 0..n_readers.max(1) {
            let name = if k == 0 { "reader".to_owned() } else { format!("reader {}", k + 1) };
            write!(out, ",\n{}", header("thread_name", READER + k, &name))?;
        }
        for (event, &track) in events.iter().zip(&tracks) {
            write!(out, ",\n{}", event.render(track, units, mixtures))?;
        }
        writeln!(out, "\n]}}")
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Event {
    /// A "complete" event: one line that holds both ends.
    fn render(&self, track: u32, units: &[String], mixtures: &[String]) -> Value {
        let name = |unit: Unit| {
            let known = usize::try_from(unit).ok().and_then(|i| units.get(i));
            known.cloned().unwrap_or_else(|| format!("unit {unit}"))
        };
        let experts = |block: usize| match mixtures.get(block) {
            Some(name) => format!("experts of {name}"),
            None => format!("experts {block}"),
        };
        let (category, name, args) = match self.what {
            What::Pass { n_tokens: 1 } => ("pass", "1 token".to_owned(), json!({"tokens": 1})),
            What::Pass { n_tokens } => {
                ("pass", format!("{n_tokens} tokens"), json!({"tokens": n_tokens}))
            }
            What::Compute { unit: Some(unit) } => ("compute", name(unit), json!({"unit": unit})),
            What::Compute { unit: None } => ("compute", "outside of blocks".to_owned(), json!({})),
            What::Wait { unit } => ("wait", name(unit), json!({"unit": unit})),
            What::Read { unit, bytes } => {
                ("read", name(unit), json!({"unit": unit, "bytes": bytes}))
            }
            What::WaitExperts { block } => ("wait", experts(block), json!({"mixture": block})),
            What::ReadExpert { block, bytes } => {
                ("read", experts(block), json!({"mixture": block, "bytes": bytes}))
            }
        };
        json!({
            "name": name, "cat": category, "ph": "X", "pid": 1, "tid": track,
            "ts": micros(self.begin), "dur": micros(self.end - self.begin), "args": args,
        })
    }
}

/// A name for a track, or for the process.
fn header(kind: &str, track: u32, name: &str) -> Value {
    json!({"name": kind, "ph": "M", "pid": 1, "tid": track, "args": {"name": name}})
}

#[expect(clippy::cast_precision_loss, reason = "a trace is shorter than the 104 days of 2^53 ns")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// The track of each of `events`, which are sorted by their begin: a read goes to the first reader that is free.
fn tracks(events: &[Event]) -> Vec<u32> {
    let mut free_at: Vec<u64> = Vec::new();
    let mut reader = |event: &Event| {
        let free = free_at.iter().position(|&end| end <= event.begin);
        let k = free.unwrap_or_else(|| {
            free_at.push(0);
            free_at.len() - 1
        });
        free_at[k] = event.end;
        READER + u32::try_from(k).unwrap_or(0)
    };
    let track = |event: &Event| match event.what {
        What::Pass { .. } => PASSES,
        What::Compute { .. } => COMPUTE,
        What::Wait { .. } | What::WaitExperts { .. } => WAITING,
        What::Read { .. } | What::ReadExpert { .. } => reader(event),
    };
    events.iter().map(track).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rendered(trace: &Trace) -> Value {
        let mut out = Vec::new();
        let units = ["block 0".to_owned(), "block 1".to_owned()];
        let mixtures = ["block 3".to_owned()];
        trace.write_json(&units, &mixtures, &json!({"model": "m"}), &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn events_are_sorted_and_overlapping_reads_apart() {
        let trace = Trace::begin();
        let at = |ms: u64| trace.zero + Duration::from_millis(ms);
        let read = |unit| What::Read { unit, bytes: Bytes(10) };
        trace.record(read(1), at(2), at(5));
        trace.record(read(0), at(1), at(4));
        trace.record(read(0), at(4), at(6));
        trace.record(What::Compute { unit: Some(1) }, at(5), at(6));
        trace.record(What::WaitExperts { block: 0 }, at(7), at(8));
        let value = rendered(&trace);
        let events = value["traceEvents"].as_array().unwrap();
        let complete: Vec<_> = events.iter().filter(|e| e["ph"] == "X").collect();
        let tids: Vec<_> = complete.iter().map(|e| e["tid"].as_u64().unwrap()).collect();
        assert_eq!(tids, [4, 5, 4, 2, 3]);
        assert_eq!(complete[4]["name"], "experts of block 3");
        assert_eq!(complete[0]["name"], "block 0");
        assert_eq!(complete[0]["ts"], 1000.0);
        assert_eq!(complete[0]["dur"], 3000.0);
        assert_eq!(events.iter().filter(|e| e["name"] == "thread_name").count(), 5);
        assert_eq!(value["otherData"]["model"], "m");
    }

    #[test]
    fn memory_is_bounded_and_an_empty_trace_is_valid() {
        let trace = Trace::begin();
        assert!(rendered(&trace)["traceEvents"].is_array());
        let now = trace.zero;
        trace.record(What::Wait { unit: 0 }, now.checked_sub(Duration::from_secs(1)).unwrap(), now);
        assert!(trace.lock().events.is_empty());
        for _ in 0..MAX_EVENTS + 3 {
            trace.record(What::Compute { unit: None }, now, now);
        }
        assert_eq!(trace.dropped(), 3);
        assert_eq!(trace.lock().events.capacity(), MAX_EVENTS);
    }
}
