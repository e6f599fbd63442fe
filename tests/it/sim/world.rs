//! A simulated world: a model opened by the real engine on a disk that follows from a seed, clients that come and go, and what must hold
//! after every step. One thread, one clock, which only the disk and the world move.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use airrun::engine::batch::{Batcher, Tally};
use airrun::engine::draft::Pace;
use airrun::engine::planning::plan;
use airrun::engine::{Clock, Draft, Engine, Index, LoadOptions, Monitor, StreamMode};
use airrun::plan::Plan;
use airrun::source::sim::{Dice, SimDisk, Weather, World};
use airrun::source::{Retrying, WeightSource};
use airrun::units::Bytes;

use super::client::{Ask, Client, Temper};
use super::models::{self, Tiny};

/// What a computation takes. (of the world's time)
const PASS: Duration = Duration::from_micros(700);

/// How long the engine has patience with who takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The world as the disk and the engine see it.
#[derive(Debug)]
pub(super) struct Sky {
    clock: Arc<AtomicU64>,
    clients: Mutex<Vec<Client>>,
    story: Mutex<Vec<String>>,
    monitor: OnceLock<Arc<Monitor>>,
    /// The file that somebody writes to, and when.
    change: Option<(Duration, PathBuf)>,
    changed: AtomicBool,
    n_stops: AtomicU64,
}

/// What is tried, and by whom.
pub(super) struct Scene {
    pub(super) dice: Dice,
    tiny: &'static Tiny,
    options: LoadOptions,
    weather: Weather,
    clients: Vec<(Duration, Client)>,
    /// The model's file, if it is one of its own.
    file: Option<tempfile::NamedTempFile>,
    drafts: bool,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) steps: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) given_up: u64,
    pub(super) stops: u64,
    pub(super) requests: u64,
    pub(super) streams: u64,
}

impl Sky {
    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn story(&self) -> Vec<String> {
        Sky::lock(&self.story).clone()
    }

    /// Somebody writes to the file.
    fn change(&self, path: &PathBuf) {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().append(true).open(path);
        file.and_then(|mut file| file.write_all(b"new")).unwrap();
        self.changed.store(true, Ordering::Relaxed);
        self.tell(format_args!("the file is written to"));
    }
}

impl World for Sky {
    fn passed(&self, now: Duration) {
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.clock.store(micros, Ordering::Relaxed);
        if let Some((at, path)) = &self.change
            && now >= *at
            && !self.changed.load(Ordering::Relaxed)
        {
            self.change(path);
        }
        for client in Sky::lock(&self.clients).iter() {
            let mut heard = client.lock();
            let Some(stops) = heard.passed(now) else { continue };
            let number = heard.number;
            // Who listens to nothing that is being computed stops nothing.
            let stops = stops && !heard.dropped;
            drop(heard);
            self.tell(format_args!(
                "client {number} goes{}",
                if stops { ", and stops the pass" } else { "" }
            ));
            if stops && let Some(monitor) = self.monitor.get() {
                self.n_stops.fetch_add(1, Ordering::Relaxed);
                monitor.stop();
            }
        }
    }

    fn tell(&self, line: fmt::Arguments<'_>) {
        let now = Duration::from_micros(self.clock.load(Ordering::Relaxed));
        let mut line = format!("{:10.4} s  {line}", now.as_secs_f64());
        if let Some((_, path)) = &self.change {
            // Its name follows from no seed.
            line = line.replace(&*path.to_string_lossy(), "the file");
        }
        Sky::lock(&self.story).push(line);
    }
}

impl Scene {
    pub(super) fn new(seed: u64) -> Scene {
        let mut dice = Dice::new(seed);
        let tiny = models::get(models::MODELS[dice.below(models::MODELS.len())]);
        let weather = Weather::rolled(&mut dice, WORST);
        let drafts = dice.roll(4) == 0;
        let mut options = LoadOptions {
            stream: StreamMode::Always,
            ctx: Some([40, 64, 96][dice.below(3)]),
            sequences: 1 + u32::try_from(dice.roll(5)).unwrap(),
            threads: Some(1),
            ubatch: Some([6, 8, 16, 24][dice.below(4)]),
            repack: false,
            alone: false,
            draft: if drafts { Draft::Ngrams { always: true } } else { Draft::None },
            ..LoadOptions::default()
        };
        if dice.roll(2) == 0 {
            options.stream = StreamMode::Auto;
            options.ram = Some(budget(&tiny.index, &options, &mut dice));
        }
        let clients = clients(tiny, &options, &mut dice);
        let file = (dice.roll(12) == 0).then(|| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::copy(&tiny.path, file.path()).unwrap();
            file
        });
        Scene { dice, tiny, options, weather, clients, file, drafts }
    }

    pub(super) fn sky(&mut self) -> Arc<Sky> {
        let at = Duration::from_micros(self.dice.roll(200_000));
        Arc::new(Sky {
            clock: Arc::default(),
            clients: Mutex::default(),
            story: Mutex::default(),
            monitor: OnceLock::new(),
            change: self.file.as_ref().map(|file| (at, file.path().to_owned())),
            changed: AtomicBool::new(false),
            n_stops: AtomicU64::new(0),
        })
    }

    /// Plays it to its end. What was wrong, if anything was.
    pub(super) fn play(mut self, sky: &Arc<Sky>) -> Result<Count, String> {
        let (stream, weather) = (self.options.stream, self.weather);
        let path = self.file.as_ref().map_or(self.tiny.path.clone(), |file| file.path().to_owned());
        sky.tell(format_args!("{path:?} {stream:?} {weather:?}"));
        let disk = SimDisk::new(
            &path,
            self.tiny.bytes.clone(),
            self.dice.roll(u64::MAX),
            weather,
            sky.clone(),
        )
        .map_err(|error| error.to_string())?;
        let index = match &self.file {
            Some(_) => Arc::new(Index::open(&path).map_err(|e| e.to_string())?),
            None => self.tiny.index.clone(),
        };
        let source: Arc<dyn WeightSource> = Arc::new(Retrying::new(disk.clone()));
        let engine = Engine::open_with(index, &self.options, |_| source);
        let engine = engine.map_err(|error| format!("cannot be opened: {error}"))?;
        let plan = engine.plan();
        kept_to(plan, &self.options)?;
        sky.tell(format_args!(
            "{} units stream through {} slots, {} sequences, {} tokens, {} a pass, drafts: {}",
            plan.streamed.len(),
            plan.n_slots,
            self.options.sequences,
            plan.n_ctx,
            plan.n_ubatch,
            self.drafts,
        ));
        drop(sky.monitor.set(engine.monitor()));
        let streams = u64::from(!plan.streamed.is_empty());
        let mut batcher = engine.batcher().map_err(|error| error.to_string())?;
        batcher.tell_time(Clock::Told(Instant::now(), sky.clock.clone()));
        batcher.give_up_after(PATIENCE);
        batcher.pace_drafts(Pace::fixed(vec![1.0; 9]));
        let mut play = Play {
            disk: &disk,
            sky,
            batcher,
            engine,
            clients: Vec::new(),
            count: Count::default(),
        };
        let clients = std::mem::take(&mut self.clients);
        let over = play.all(clients);
        let mut count = play.count;
        // Whatever came of it, nothing may be left when it goes.
        drop(play);
        over?;
        count.streams = streams;
        count.stops = sky.n_stops.load(Ordering::Relaxed);
        count.requests = disk.counts().0;
        if !disk.is_idle() {
            return Err("something is still being read".to_owned());
        }
        match Arc::strong_count(&disk) {
            1 => Ok(count),
            n => Err(format!("{} hold the disk when the engine is gone", n - 1)),
        }
    }
}

/// A scene being played.
struct Play<'a> {
    disk: &'a Arc<SimDisk>,
    sky: &'a Arc<Sky>,
    batcher: Batcher,
    engine: Engine,
    clients: Vec<Client>,
    count: Count,
}

impl Play<'_> {
    fn all(&mut self, clients: Vec<(Duration, Client)>) -> Result<(), String> {
        let tokens: usize = clients.iter().map(|(_, client)| client.lock().ask.len()).sum();
        // Each token in a pass of its own, each prompt read again for each that makes room or is stopped, and waits for those who stall.
        let limit = 200 + 12 * tokens as u64;
        let mut coming = clients.into_iter().peekable();
        loop {
            while let Some((_, client)) = coming.next_if(|(at, _)| *at <= self.disk.now()) {
                self.welcome(client);
            }
            let is_over = self.clients.iter().all(|client| client.lock().dropped);
            if is_over && coming.peek().is_none() {
                return Ok(());
            }
            let went = self.step()?;
            self.disk.pass(if went { PASS } else { PASS * 20 });
            self.count.steps += 1;
            if self.count.steps > limit {
                let left = self.clients.iter().filter(|client| !client.lock().dropped);
                let left: Vec<_> = left.map(|client| client.lock().number).collect();
                return Err(format!("after {limit} steps {left:?} are still waiting"));
            }
        }
    }

    fn welcome(&mut self, client: Client) {
        let heard = client.lock();
        let (n, len, temper) = (heard.number, heard.ask.len(), heard.temper.clone());
        drop(heard);
        self.sky.tell(format_args!("client {n} comes: {len} tokens, {temper:?}"));
        Sky::lock(&self.sky.clients).push(client.clone());
        self.clients.push(client.clone());
        self.batcher.add(client.request());
    }

    /// A step, and what must hold after it.
    fn step(&mut self) -> Result<bool, String> {
        let left: Vec<bool> = self.clients.iter().map(|client| client.lock().gone).collect();
        let before: Vec<bool> = self.clients.iter().map(|client| client.lock().dropped).collect();
        let went = self.batcher.step();
        let tally = self.batcher.take_tally();
        let (n, running, waiting) =
            (self.count.steps, self.batcher.n_running(), self.batcher.n_pending());
        self.sky.tell(format_args!(
            "step {n}: {running} run, {waiting} wait, {} tokens kept; {tally:?}",
            self.batcher.n_kept()
        ));
        self.budgets(&tally)?;
        let failures = self.disk.failures() > 0 || self.sky.changed.load(Ordering::Relaxed);
        let mut here = 0;
        for (client, (left, before)) in self.clients.iter().zip(left.into_iter().zip(before)) {
            let heard = client.lock();
            if let Some(wrong) = &heard.wrong {
                return Err(wrong.clone());
            }
            here += usize::from(!heard.dropped);
            if left && !heard.dropped {
                return Err(format!("client {} has gone, and is still served", heard.number));
            }
            if before || !heard.dropped {
                continue;
            }
            let number = heard.number;
            match &heard.end {
                Some(Ok(_)) => self.count.answered += 1,
                Some(Err(why)) => {
                    self.count.failed += 1;
                    self.sky.tell(format_args!("client {number} is told: {why}"));
                    let deserved = matches!(heard.ask, Ask::Nonsense(_)) || failures;
                    if !deserved {
                        return Err(format!("client {number} is told, for no reason: {why}"));
                    }
                }
                None if heard.gone || heard.full => self.count.given_up += 1,
                None => return Err(format!("client {number} was dropped without a word")),
            }
        }
        if here != running + waiting {
            return Err(format!("{here} clients are here, {running} run and {waiting} wait"));
        }
        Ok(went)
    }

    fn budgets(&self, tally: &Tally) -> Result<(), String> {
        let plan = self.engine.plan();
        let kept = self.batcher.n_kept();
        if kept > plan.n_ctx as usize {
            return Err(format!("{kept} tokens are kept where {} have room", plan.n_ctx));
        }
        if tally.prompt > plan.n_ubatch as usize {
            return Err(format!(
                "{} tokens of prompts in a pass of {}",
                tally.prompt, plan.n_ubatch
            ));
        }
        if self.batcher.n_running() > self.batcher.n_places() {
            return Err("more texts run than there are places".to_owned());
        }
        Ok(())
    }
}

/// A plan keeps to what was said.
fn kept_to(plan: &Plan, options: &LoadOptions) -> Result<(), String> {
    match options.ram {
        Some(ram) if plan.memory.peak() > ram => {
            Err(format!("the plan takes {} of {ram}", plan.memory.peak()))
        }
        _ => Ok(()),
    }
}

/// How bad the worst weather of a world is.
const WORST: Weather =
    Weather { short: 400, again: 200, slow: 30, stuck: 2, soft: 150, hard: 8, truncated: 3 };

/// RAM for some of the model.
fn budget(index: &Arc<Index>, options: &LoadOptions, dice: &mut Dice) -> Bytes {
    let peak = |stream| {
        let options = LoadOptions { stream, ram: Some(Bytes(1 << 40)), ..options.clone() };
        plan(index, &options, true).unwrap().plan.memory.peak().0
    };
    let (least, most) = (peak(StreamMode::Always), peak(StreamMode::Never));
    Bytes(least + most.saturating_sub(least) * dice.roll(11) / 10)
}

fn clients(tiny: &Tiny, options: &LoadOptions, dice: &mut Dice) -> Vec<(Duration, Client)> {
    let n_ctx = options.ctx.unwrap_or_default() as usize;
    let n = 1 + dice.below(12);
    let mut at = Duration::ZERO;
    let mut clients = Vec::with_capacity(n);
    for number in 0..n {
        if dice.roll(3) > 0 {
            at += Duration::from_micros(dice.roll(40_000));
        }
        let answer = tiny.answers[dice.below(tiny.answers.len())].clone();
        let ask = match dice.roll(16) {
            0 => Ask::Nonsense(
                [vec![], vec![9; n_ctx + 1], vec![3, -1], vec![1 << 20]][dice.below(4)].clone(),
            ),
            _ if answer.prompt.len() >= n_ctx => Ask::Nonsense(answer.prompt.clone()),
            _ => Ask::Answer(answer.clone(), 1 + dice.below(answer.tokens.len())),
        };
        let temper = Temper::random(dice, at);
        clients.push((at, Client::new(number, ask, temper)));
    }
    clients
}

impl Ask {
    /// Tokens, all together.
    fn len(&self) -> usize {
        match self {
            Ask::Answer(answer, max) => answer.prompt.len() + max,
            Ask::Nonsense(prompt) => prompt.len(),
        }
    }
}
