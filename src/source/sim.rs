//! A simulator's disk: the readers' own account of requests and chunks, over answers that follow from a seed, in virtual time, without
//! threads. Answers are late, short, in any order, or none at all, and whoever waits for a read moves the time on. Nothing here reads
//! a disk; the file is only looked at as every reader does, to see whether somebody wrote to it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::source::files::Files;
use crate::source::reader::job::{Chunk, Job, JobQueue, Step};
use crate::source::{Driver, Extent, HostBuf, OpenError, ReadError, Ticket, WeightSource};
use crate::units::Bytes;

/// What memory holds that is being read into: numbers unlike any weight, so that whoever uses it too early gets another answer.
const UNREAD: u8 = 0x3F;

/// How often things go wrong, of 1000 answers or requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Answers with fewer bytes than were asked for.
    pub short: u64,
    /// Answers that say "try again", or that O_DIRECT cannot be had here.
    pub again: u64,
    /// Answers that take a hundred times as long ...
    pub slow: u64,
    /// ... and those that take minutes.
    pub stuck: u64,
    /// Requests that fail once, and are well when they are repeated.
    pub soft: u64,
    /// Requests that fail however often they are repeated.
    pub hard: u64,
    /// Requests that find the file cut short.
    pub truncated: u64,
}

impl Weather {
    /// One in which each thing goes wrong at most as often as in `most`, half of them not at all.
    pub fn rolled(dice: &mut Dice, most: Weather) -> Weather {
        let mut often = |most: u64| if dice.roll(2) == 0 { 0 } else { dice.roll(most) };
        Weather {
            short: often(most.short),
            again: often(most.again),
            slow: often(most.slow),
            stuck: often(most.stuck),
            soft: often(most.soft),
            hard: often(most.hard),
            truncated: often(most.truncated),
        }
    }
}

/// Who is told what happens, and what time it is.
pub trait World: Send + Sync + fmt::Debug {
    /// So much time has passed since the beginning.
    fn passed(&self, now: Duration);
    /// Something happened that a story should tell.
    fn tell(&self, line: fmt::Arguments<'_>);
}

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    Fails,
    FailsForGood,
    Truncated,
}

/// The disk.
#[derive(Debug)]
pub struct SimDisk {
    files: Files,
    bytes: Arc<[u8]>,
    weather: Weather,
    world: Arc<dyn World>,
    state: Mutex<State>,
    me: Weak<SimDisk>,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    now: Duration,
    queue: JobQueue,
    /// Chunks that are being read, and when they are answered.
    chunks: Vec<(Duration, Chunk)>,
    depth: usize,
    chunk: Bytes,
    /// Requests that are not fine.
    fates: HashMap<u64, Fate>,
    /// Requests that failed and are well next time, and those that fail again: a request that is repeated has the same extents. (Not the
    /// same bytes: others may read these, too.)
    healed: Vec<Arc<[Extent]>>,
    doomed: Vec<Arc<[Extent]>>,
    /// Requests that failed for good.
    failures: u64,
    requests: u64,
    answers: u64,
}

impl SimDisk {
    /// The file at `path`, which has these bytes, in a `weather` that follows from `seed`.
    ///
    /// # Errors
    ///
    /// The file is not there.
    pub fn new(
        path: &Path,
        bytes: Arc<[u8]>,
        seed: u64,
        weather: Weather,
        world: Arc<dyn World>,
    ) -> Result<Arc<SimDisk>, OpenError> {
        let mut dice = Dice::new(seed);
        let files = Files::pretend(path, dice.roll(2) == 0)?;
        let state = State {
            depth: 1 + dice.below(16),
            chunk: Bytes(4096 << dice.roll(5)),
            dice,
            now: Duration::ZERO,
            queue: JobQueue::default(),
            chunks: Vec::new(),
            fates: HashMap::new(),
            healed: Vec::new(),
            doomed: Vec::new(),
            failures: 0,
            requests: 0,
            answers: 0,
        };
        Ok(Arc::new_cyclic(|me| SimDisk {
            files,
            bytes,
            weather,
            world,
            state: Mutex::new(state),
            me: me.clone(),
        }))
    }

    /// What time it is.
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// Lets `time` pass, with all that is answered meanwhile.
    pub fn pass(&self, time: Duration) {
        let until = self.now() + time;
        while self.now() < until {
            self.drive(until - self.now());
        }
    }

    /// Requests that failed for good so far.
    pub fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Requests and answers so far.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.requests, state.answers)
    }

    /// Whether nothing is being read.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.chunks.is_empty() && state.queue.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a chunk is answered with.
    fn answer(&self, state: &mut State, chunk: &mut Chunk) -> io::Result<usize> {
        let Weather { short, again, .. } = self.weather;
        match state.fates.get(&chunk.job()) {
            Some(Fate::Fails | Fate::FailsForGood) => {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            Some(Fate::Truncated) => return Ok(0),
            Some(Fate::Fine) | None => {}
        }
        if state.dice.happens(again) {
            return Err(match state.dice.roll(3) {
                0 => io::ErrorKind::Interrupted.into(),
                1 => io::ErrorKind::WouldBlock.into(),
                _ if chunk.is_direct() => io::ErrorKind::InvalidInput.into(),
                _ => io::ErrorKind::Interrupted.into(),
            });
        }
        let at = Bytes(chunk.position()).usize().min(self.bytes.len());
        let target = chunk.target();
        let mut n = target.len().min(self.bytes.len() - at);
        if n > 1 && state.dice.happens(short) {
            n = 1 + state.dice.below(n - 1);
        }
        target[..n].copy_from_slice(&self.bytes[at..at + n]);
        Ok(n)
    }

    /// The first chunk that is due by `until` is answered. False if none is.
    fn settle(&self, state: &mut State, until: Duration) -> bool {
        let first = (0..state.chunks.len()).min_by_key(|&i| state.chunks[i].0);
        let Some(first) = first.filter(|&i| state.chunks[i].0 <= until) else { return false };
        let (due, mut chunk) = state.chunks.swap_remove(first);
        state.now = state.now.max(due);
        state.answers += 1;
        let answer = self.answer(state, &mut chunk);
        match chunk.absorb(answer, &self.files) {
            Step::Again => {
                let due = state.due(&self.weather);
                state.chunks.push((due, chunk));
            }
            Step::Ended(outcome) => {
                let id = chunk.job();
                if let Some(job) = state.queue.settle(chunk, outcome) {
                    state.fates.remove(&id);
                    job.finish(&self.files);
                }
            }
        }
        true
    }
}

impl State {
    /// What becomes of a request, and of the same request when it is made again.
    fn fate(&mut self, extents: &Arc<[Extent]>, weather: &Weather) -> Fate {
        let take = |list: &mut Vec<Arc<[Extent]>>| {
            let at = list.iter().position(|other| Arc::ptr_eq(other, extents));
            at.map(|at| list.swap_remove(at)).is_some()
        };
        if take(&mut self.healed) {
            return Fate::Fine;
        }
        if take(&mut self.doomed) {
            self.failures += 1;
            return Fate::FailsForGood;
        }
        if self.dice.happens(weather.soft) {
            self.healed.push(extents.clone());
            return Fate::Fails;
        }
        if self.dice.happens(weather.hard) {
            self.doomed.push(extents.clone());
            return Fate::Fails;
        }
        if self.dice.happens(weather.truncated) {
            self.failures += 1;
            return Fate::Truncated;
        }
        Fate::Fine
    }

    /// When a chunk that is asked for now is answered.
    fn due(&mut self, weather: &Weather) -> Duration {
        let mut micros = 50 + self.dice.roll(400);
        if self.dice.happens(weather.slow) {
            micros *= 100;
        }
        if self.dice.happens(weather.stuck) {
            micros *= 200_000;
        }
        self.now + Duration::from_micros(micros)
    }

    /// Hands out as many chunks as the disk takes at a time.
    fn fill(&mut self, files: &Files, weather: &Weather) {
        while self.chunks.len() < self.depth
            && let Some(chunk) = self.queue.next_chunk(files)
        {
            let due = self.due(weather);
            self.chunks.push((due, chunk));
        }
    }
}

impl WeightSource for SimDisk {
    fn request(&self, extents: Arc<[Extent]>, mut buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        let me = self.me.upgrade().expect("it is asked by somebody who holds it");
        let ticket = ticket.driven_by(me);
        for e in extents.iter() {
            let end = Bytes(e.dst + e.len).usize();
            buf.as_mut_slice()[Bytes(e.dst).usize()..end].fill(UNREAD);
        }
        let mut state = self.lock();
        state.requests += 1;
        let chunk = state.chunk;
        let Some(job) = Job::new(extents.clone(), buf, completion, &self.files, chunk) else {
            return ticket;
        };
        if let Some(job) = state.queue.push(job) {
            job.finish(&self.files);
            return ticket;
        }
        let fate = state.fate(&extents, &self.weather);
        if fate != Fate::Fine {
            let id = state.queue.last_id();
            state.fates.insert(id, fate);
            self.world.tell(format_args!(
                "request {}, {:?}: {fate:?}",
                state.requests,
                extents.first()
            ));
        }
        state.fill(&self.files, &self.weather);
        ticket
    }

    fn cancel(&self) {
        let mut state = self.lock();
        for job in state.queue.give_up(&ReadError::Cancelled) {
            job.finish(&self.files);
        }
        // What the kernel has is answered soon.
        let now = state.now;
        state.chunks.iter_mut().for_each(|(due, _)| *due = now);
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }
}

impl Driver for SimDisk {
    fn drive(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        state.fill(&self.files, &self.weather);
        let is_idle = state.chunks.is_empty();
        let until = state.now.saturating_add(limit);
        if !self.settle(&mut state, until) && limit < Duration::MAX {
            state.now = until;
        }
        state.fill(&self.files, &self.weather);
        let now = state.now;
        drop(state);
        self.world.passed(now);
        !is_idle
    }
}

/// Random numbers that follow from a seed alone (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(0x2545_F491_4F6C_DD1D))
    }

    /// Less than `n`, which is not 0.
    pub fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % n
    }

    /// Less than `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        Bytes(self.roll(n as u64)).usize()
    }

    /// Whether something happens that does so many times in 1000.
    pub fn happens(&mut self, per_mille: u64) -> bool {
        self.roll(1000) < per_mille
    }
}
