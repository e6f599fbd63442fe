//! Sources for tests and measurements: memory that answers like a file, and a wrapper that makes any source slow, late,
//! out of order, or broken, in ways that repeat exactly. Nothing here reads a disk.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::source::{
    Completion, Done, Extent, HostBuf, ReadError, ReadStats, Ticket, WeightSource,
};
use crate::units::{Bytes, Rate};

/// Files that are slices of memory. Requests end before `request` returns.
#[derive(Debug)]
pub struct MemorySource {
    files: Vec<Arc<[u8]>>,
}

/// What is wrong with a [`FaultySource`]. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// Requests are served one after the other at this rate (bytes per second), over any length of time precisely.
    pub bandwidth: Option<Rate>,
    /// Each request takes at least this long from when it is asked for.
    pub latency: Duration,
    /// Of the requests that wait, the newest is served first.
    pub newest_first: bool,
    /// Which requests fail.
    pub fault: Fault,
}

/// Which requests fail, counted from 0, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// This one ends in an IO error.
    ErrorAt(u64),
    /// This one and all later ones do.
    ErrorFrom(u64),
    /// From this one on, only the first half of the bytes arrives, as from a truncated file.
    ShortFrom(u64),
    /// This one never ends, unless it is cancelled; nor do those behind it.
    StuckAt(u64),
}

/// A source that misbehaves as told.
#[derive(Debug)]
pub struct FaultySource {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn WeightSource>,
    behaviour: Behaviour,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Item>,
    next: u64,
    /// Requests with smaller numbers are cancelled.
    cancelled: u64,
    closed: bool,
}

#[derive(Debug)]
struct Item {
    number: u64,
    asked: Instant,
    bytes: Bytes,
    ticket: Ticket,
    completion: Completion,
}

impl MemorySource {
    /// Serves `files`, numbered in this order.
    pub fn new(files: Vec<Arc<[u8]>>) -> MemorySource {
        MemorySource { files }
    }

    fn copy(&self, i: usize, e: &Extent, buf: &mut [u8]) -> Result<(), ReadError> {
        let invalid = |why| ReadError::Invalid { extent: i, why };
        let file = self.files.get(e.file).ok_or(invalid("names no file"))?;
        let from = Bytes(e.offset).usize().min(file.len());
        let n = Bytes(e.len).usize().min(file.len() - from);
        let dst = buf.get_mut(Bytes(e.dst).usize()..).and_then(|b| b.get_mut(..n));
        dst.ok_or(invalid("does not fit the buffer"))?.copy_from_slice(&file[from..from + n]);
        if (n as u64) < e.need {
            let offset = file.len() as u64;
            return Err(ReadError::Truncated { path: format!("memory {}", e.file), offset });
        }
        Ok(())
    }
}

impl WeightSource for MemorySource {
    fn request(&self, extents: Arc<[Extent]>, mut buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        let begin = Instant::now();
        let copied =
            extents.iter().enumerate().try_for_each(|(i, e)| self.copy(i, e, buf.as_mut_slice()));
        let bytes = total(&extents);
        let stats = copied.map(|()| ReadStats { bytes, span: (begin, Instant::now()) });
        completion.complete(buf, stats);
        ticket
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

impl FaultySource {
    /// Wraps `inner`.
    pub fn new(
        inner: Arc<dyn WeightSource>,
        behaviour: Behaviour,
    ) -> std::io::Result<FaultySource> {
        let (state, news) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { inner, behaviour, state, news });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("airrun-fault".into());
        let thread = thread.spawn(move || for_thread.work())?;
        Ok(FaultySource { shared, thread: Some(thread) })
    }

    /// Wraps `inner` so that it gives `rate` and no more.
    pub fn throttled(inner: Arc<dyn WeightSource>, rate: Rate) -> std::io::Result<FaultySource> {
        FaultySource::new(inner, Behaviour { bandwidth: Some(rate), ..Behaviour::default() })
    }
}

impl WeightSource for FaultySource {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        let (asked, bytes) = (Instant::now(), total(&extents));
        let mut state = self.shared.lock();
        let inner = self.shared.inner.request(extents, buf);
        let number = state.next;
        state.next += 1;
        state.waiting.push_back(Item { number, asked, bytes, ticket: inner, completion });
        drop(state);
        self.shared.news.notify_one();
        ticket
    }

    fn cancel(&self) {
        let mut state = self.shared.lock();
        state.cancelled = state.next;
        drop(state);
        self.shared.inner.cancel();
        self.shared.news.notify_one();
    }

    fn describe(&self) -> String {
        format!("{}, with faults", self.shared.inner.describe())
    }
}

impl Drop for FaultySource {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's life: serves one request after the other, each not before it is due.
    fn work(&self) {
        // When the line is free again. It runs by the plan, not by the clock, so late wake-ups do not add up.
        let mut free = Instant::now();
        while let Some(item) = self.take() {
            let mut due = item.asked + self.behaviour.latency;
            if let Some(rate) = self.behaviour.bandwidth {
                let seconds = rate.seconds(item.bytes);
                let cost = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
                free = free.max(item.asked).checked_add(cost).unwrap_or(free);
                due = due.max(free);
            }
            let interrupted = self.wait_until(due, item.number);
            self.finish(item, interrupted);
        }
    }

    fn take(&self) -> Option<Item> {
        let mut state = self.lock();
        loop {
            let newest = self.behaviour.newest_first;
            let item = if newest { state.waiting.pop_back() } else { state.waiting.pop_front() };
            if item.is_some() || state.closed {
                return item;
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `due`, or for ever where the request is to be stuck; gives the reason for ending early.
    fn wait_until(&self, due: Instant, number: u64) -> Option<ReadError> {
        let stuck = self.behaviour.fault == Fault::StuckAt(number);
        let mut state = self.lock();
        loop {
            if state.closed {
                return Some(ReadError::Stopped);
            }
            if number < state.cancelled {
                return Some(ReadError::Cancelled);
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() && !stuck {
                return None;
            }
            let pause = if stuck { Duration::from_secs(3600) } else { left };
            let woken = self.news.wait_timeout(state, pause);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Passes the outcome of the inner source on, spoilt as the behaviour says.
    fn finish(&self, item: Item, interrupted: Option<ReadError>) {
        let Some(Done { mut buf, mut outcome }) = item.ticket.wait() else { return };
        let path = || format!("{} (request {})", self.inner.describe(), item.number);
        let io = || ReadError::Io { path: path(), offset: 0, message: "made to fail".into() };
        let fault = match self.behaviour.fault {
            _ if interrupted.is_some() => interrupted,
            Fault::ErrorAt(n) if item.number == n => Some(io()),
            Fault::ErrorFrom(n) if item.number >= n => Some(io()),
            Fault::ShortFrom(n) if item.number >= n => {
                Some(ReadError::Truncated { path: path(), offset: item.bytes.0 / 2 })
            }
            _ => None,
        };
        if let Some(error) = fault {
            // Whoever uses these bytes all the same is to be found out.
            let kept = if matches!(error, ReadError::Truncated { .. }) { buf.len() / 2 } else { 0 };
            buf.as_mut_slice()[kept..].fill(0xFF);
            outcome = Err(error);
        }
        let end = Instant::now();
        let stats = outcome.map(|s| ReadStats { span: (item.asked.max(s.span.0), end), ..s });
        item.completion.complete(buf, stats);
    }
}

fn total(extents: &[Extent]) -> Bytes {
    extents.iter().map(|e| Bytes(e.len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Retrying;

    const LEN: u64 = 1 << 20;

    fn memory() -> Arc<dyn WeightSource> {
        let bytes: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
        Arc::new(MemorySource::new(vec![bytes.into()]))
    }

    fn with(fault: Fault) -> FaultySource {
        FaultySource::new(memory(), Behaviour { fault, ..Behaviour::default() }).unwrap()
    }

    fn ask(source: &dyn WeightSource) -> Ticket {
        let extent = Extent { file: 0, offset: 0, len: LEN, dst: 0, need: LEN };
        source.request(Arc::new([extent]), HostBuf::new(Bytes(LEN)).unwrap())
    }

    fn is_right(ticket: Ticket) -> Result<(), ReadError> {
        let done = ticket.wait().unwrap();
        done.outcome?;
        assert!(done.buf.as_slice().iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
        Ok(())
    }

    #[test]
    fn one_error_is_healed_by_a_retry_and_a_lasting_one_is_told() {
        let once = Retrying::new(Arc::new(with(Fault::ErrorAt(1))));
        for _ in 0..4 {
            is_right(ask(&once)).unwrap();
        }
        let mut polled = ask(&Retrying::new(Arc::new(with(Fault::ErrorAt(0)))));
        while !polled.is_done() {
            std::thread::yield_now();
        }
        let lasting = Retrying::new(Arc::new(with(Fault::ErrorFrom(2))));
        is_right(ask(&lasting)).unwrap();
        is_right(ask(&lasting)).unwrap();
        assert!(matches!(is_right(ask(&lasting)), Err(ReadError::Io { .. })));
    }

    #[test]
    fn short_reads_are_told() {
        let short = Retrying::new(Arc::new(with(Fault::ShortFrom(1))));
        is_right(ask(&short)).unwrap();
        assert!(matches!(is_right(ask(&short)), Err(ReadError::Truncated { .. })));
    }

    #[test]
    fn a_stuck_request_ends_when_cancelled_and_is_not_repeated() {
        let source = Retrying::new(Arc::new(with(Fault::StuckAt(0))));
        let (mut stuck, behind) = (ask(&source), ask(&source));
        assert!(!stuck.wait_timeout(Duration::from_millis(30)));
        let begin = Instant::now();
        source.cancel();
        assert!(matches!(is_right(stuck), Err(ReadError::Cancelled)));
        assert!(matches!(is_right(behind), Err(ReadError::Cancelled)));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        is_right(ask(&source)).unwrap();
    }

    #[test]
    fn an_error_after_a_cancel_is_not_repeated() {
        let behaviour = Behaviour {
            fault: Fault::ErrorAt(0),
            latency: Duration::from_millis(1),
            ..Behaviour::default()
        };
        let faulty = Arc::new(FaultySource::new(memory(), behaviour).unwrap());
        let source = Retrying::new(Arc::clone(&faulty) as Arc<dyn WeightSource>);
        let ticket = ask(&source);
        std::thread::sleep(Duration::from_millis(30));
        source.cancel(); // the error has arrived, but nobody has looked at it yet
        assert!(is_right(ticket).is_err());
        assert_eq!(faulty.shared.lock().next, 1);
    }

    #[test]
    fn dropping_the_source_ends_its_requests() {
        let source = with(Fault::StuckAt(0));
        let tickets = [ask(&source), ask(&source)];
        drop(source);
        for ticket in tickets {
            assert!(matches!(is_right(ticket), Err(ReadError::Stopped) | Ok(())));
        }
    }

    #[test]
    fn the_newest_can_overtake() {
        let behaviour = Behaviour {
            newest_first: true,
            latency: Duration::from_millis(100),
            ..Behaviour::default()
        };
        let source = FaultySource::new(memory(), behaviour).unwrap();
        let tickets = [ask(&source), ask(&source), ask(&source)];
        let ends = tickets.map(|t| t.wait().unwrap().outcome.unwrap().span.1);
        // Whichever the thread took first, of the other two it served the newer one next.
        assert!(!ends.is_sorted(), "{ends:?}");
    }

    #[test]
    fn the_throttle_keeps_its_rate() {
        let rate = Rate(50e6);
        let source = FaultySource::throttled(memory(), rate).unwrap();
        let ratio = || {
            let begin = Instant::now();
            let tickets: Vec<Ticket> = (0..20).map(|_| ask(&source)).collect();
            for ticket in tickets {
                ticket.wait().unwrap().outcome.unwrap();
            }
            let ratio = begin.elapsed().as_secs_f64() / rate.seconds(Bytes(20 * LEN));
            assert!(ratio >= 0.999, "{ratio}");
            ratio
        };
        // The plan is exact; what is above 1 is the last wake-up, which a busy machine may delay, but not always.
        assert!((0..8).any(|_| ratio() < 1.01));
    }
}
