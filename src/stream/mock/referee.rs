//! Watches who touches which bytes, and when: the judge of whether queues are ordered as they must be. No IO, no threads, no clock.
//!
//! It knows what is ordered by what (a vector clock per queue, as race detectors have): whatever is asked of a queue comes after
//! what was asked of it before, after the events that it was told to wait for, and after what the host had waited for. Two accesses
//! to the same bytes, one of them a write, that nothing orders are reported, whether or not they happened to collide. Besides, it
//! is told when accesses begin and end, and reports those that did collide. And it keeps a calendar: when each queue would be done,
//! if copies and computations took as long as a model says.

use std::ops::Range;

/// Who does things: the host, or one of the queues.
pub(super) type Actor = usize;

/// The host.
pub(super) const HOST: Actor = 0;

/// The host and as many queues as a test has.
const ACTORS: usize = 4;

/// What an actor knows to be over: the number of steps of each.
type Clock = [u64; ACTORS];

/// Bytes that are read or written.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) bytes: Range<usize>,
    pub(super) write: bool,
}

/// What an event stands for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    clock: Clock,
    time: f64,
}

/// The judge of one device.
#[derive(Debug, Default)]
pub(super) struct Referee {
    clocks: [Clock; ACTORS],
    /// When each is done with what it was asked for; for the host: now. (seconds)
    pub(super) times: [f64; ACTORS],
    past: Vec<(Actor, u64, Access)>,
    in_progress: Vec<(Actor, Access)>,
    /// What was found wrong.
    pub(super) reports: Vec<String>,
}

impl Referee {
    /// `actor` is asked for a step that takes `seconds` and touches these bytes.
    pub(super) fn step(&mut self, actor: Actor, seconds: f64, accesses: &[Access]) {
        self.clocks[actor] = join(self.clocks[actor], self.clocks[HOST]);
        self.clocks[actor][actor] += 1;
        self.times[actor] = self.times[actor].max(self.times[HOST]) + seconds;
        let clock = self.clocks[actor];
        for access in accesses {
            let unordered = self.past.iter().find(|(other, at, past)| {
                *other != actor && collide(past, access) && clock[*other] < *at
            });
            if let Some((other, _, past)) = unordered {
                self.reports.push(format!("{other} {past:?} and {actor} {access:?}: no order"));
            }
        }
        // What the new access orders after itself need not be remembered where it covers the same bytes.
        self.past.retain(|(other, at, past)| {
            let gone = |a: &Access| {
                a.write && a.bytes.start <= past.bytes.start && a.bytes.end >= past.bytes.end
            };
            !(clock[*other] >= *at && accesses.iter().any(gone))
        });
        self.past.extend(accesses.iter().map(|a| (actor, clock[actor], a.clone())));
    }

    /// What `actor` was asked for so far.
    pub(super) fn mark(&mut self, actor: Actor) -> Mark {
        self.clocks[actor] = join(self.clocks[actor], self.clocks[HOST]);
        Mark { clock: self.clocks[actor], time: self.times[actor].max(self.times[HOST]) }
    }

    /// `actor` waits for what `mark` stands for.
    pub(super) fn wait(&mut self, actor: Actor, mark: Mark) {
        self.clocks[actor] = join(self.clocks[actor], mark.clock);
        self.times[actor] = self.times[actor].max(mark.time);
    }

    /// A queue is given up. What it does then cannot be waited for any more.
    pub(super) fn close(&mut self, actor: Actor) {
        if self.clocks[HOST][actor] < self.clocks[actor][actor] {
            self.reports.push(format!("{actor} is closed before it is known to be done"));
        }
    }

    /// An access begins.
    pub(super) fn begin(&mut self, actor: Actor, accesses: &[Access]) {
        for access in accesses {
            for (other, now) in &self.in_progress {
                if *other != actor && collide(now, access) {
                    self.reports.push(format!("{other} {now:?} while {actor} {access:?}"));
                }
            }
        }
        self.in_progress.extend(accesses.iter().map(|a| (actor, a.clone())));
    }

    /// All accesses of `actor` end.
    pub(super) fn end(&mut self, actor: Actor) {
        self.in_progress.retain(|(other, _)| *other != actor);
    }
}

fn join(a: Clock, b: Clock) -> Clock {
    std::array::from_fn(|i| a[i].max(b[i]))
}

fn collide(a: &Access, b: &Access) -> bool {
    (a.write || b.write) && a.bytes.start < b.bytes.end && b.bytes.start < a.bytes.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: Range<usize>) -> [Access; 1] {
        [Access { bytes, write: true }]
    }

    fn read(bytes: Range<usize>) -> [Access; 1] {
        [Access { bytes, write: false }]
    }

    #[test]
    fn what_nothing_orders_is_reported() {
        let mut referee = Referee::default();
        referee.step(1, 1.0, &write(0..10));
        referee.step(2, 1.0, &read(10..20));
        assert!(referee.reports.is_empty());
        referee.step(2, 1.0, &read(9..20));
        assert_eq!(referee.reports.len(), 1);
    }

    #[test]
    fn events_and_the_host_make_order_and_time() {
        let mut referee = Referee::default();
        referee.step(1, 5.0, &write(0..10));
        let filled = referee.mark(1);
        referee.wait(2, filled);
        referee.step(2, 1.0, &read(0..10));
        let used = referee.mark(2);
        referee.wait(HOST, used);
        referee.step(1, 1.0, &write(0..10));
        assert!(referee.reports.is_empty());
        assert_eq!(referee.times[..3], [6.0, 7.0, 6.0]);
    }

    #[test]
    fn a_queue_that_may_be_busy_is_not_closed() {
        let mut referee = Referee::default();
        referee.close(1);
        referee.step(1, 1.0, &write(0..10));
        let end = referee.mark(1);
        referee.wait(HOST, end);
        referee.close(1);
        assert!(referee.reports.is_empty());
        referee.step(1, 1.0, &write(0..10));
        referee.close(1);
        assert_eq!(referee.reports.len(), 1);
    }

    #[test]
    fn what_collides_is_reported() {
        let mut referee = Referee::default();
        referee.begin(1, &read(0..10));
        referee.begin(2, &read(0..10));
        referee.end(1);
        referee.begin(1, &write(20..30));
        assert!(referee.reports.is_empty());
        referee.begin(1, &write(5..6));
        assert_eq!(referee.reports.len(), 1);
    }
}
