//! A queue of the mock device: a thread that does one thing after the other, each with a delay of its own; or no thread, so that
//! everything is done when it is asked for, and only the referee's calendar knows of time.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ptr::null_mut;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ggml_sys as sys;

use super::referee::{Access, Actor, Referee};
use crate::ggml::{Backend, Device, Graph};

/// Locks, also after a panic elsewhere.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far an event has come: each recording has a number.
#[derive(Debug, Default)]
pub(super) struct Passed {
    last: Mutex<u64>,
    news: Condvar,
}

impl Passed {
    fn pass(&self, number: u64) {
        *lock(&self.last) = number;
        self.news.notify_all();
    }

    pub(super) fn wait_for(&self, number: u64) {
        let mut last = lock(&self.last);
        while *last < number {
            last = self.news.wait(last).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What a queue is asked for.
#[derive(Debug)]
pub(super) enum Task {
    Copy { to: usize, from: usize, len: usize },
    Compute(Snapshot),
    Pass(Arc<Passed>, u64),
    WaitFor(Arc<Passed>, u64),
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) actor: Actor,
    /// None: tasks are done when they are asked for.
    thread: Option<(Sender<Task>, JoinHandle<()>)>,
    worker: Option<Worker>,
    end: (Arc<Passed>, u64),
    /// Tasks asked for since somebody waited for all of them.
    backlog: u64,
}

/// Who does what a queue is asked for.
#[derive(Debug)]
struct Worker {
    actor: Actor,
    cpu: Backend,
    referee: Arc<Mutex<Referee>>,
    /// How long to pause; none where nothing happens at the same time.
    dice: Option<Dice>,
}

impl Queue {
    /// Queue number `actor` of a device; with a thread, whose delays follow from `seed`, or without.
    pub(super) fn new(actor: Actor, referee: Arc<Mutex<Referee>>, seed: Option<u64>) -> Queue {
        let mut cpu = Backend::new(Device::cpu().unwrap(), None).unwrap();
        cpu.set_n_threads(1);
        let dice = seed.map(|seed| Dice(seed.wrapping_add(actor as u64 * 1024) | 1));
        let mut worker = Worker { actor, cpu, referee, dice };
        let end = (Arc::default(), 0);
        if seed.is_none() {
            return Queue { actor, thread: None, worker: Some(worker), end, backlog: 0 };
        }
        let (sender, tasks) = channel::<Task>();
        let thread = std::thread::spawn(move || {
            for task in tasks {
                worker.pause();
                worker.work(task);
            }
        });
        Queue { actor, thread: Some((sender, thread)), worker: None, end, backlog: 0 }
    }

    /// Asks for a task.
    pub(super) fn ask(&mut self, task: Task) {
        self.backlog += 1;
        match (&self.thread, &mut self.worker) {
            (Some((sender, _)), _) => sender.send(task).expect("the thread lives"),
            (None, Some(worker)) => worker.work(task),
            (None, None) => unreachable!("a queue has a thread or a worker"),
        }
    }

    /// Waits until all is done. Gives how much there was.
    pub(super) fn finish(&mut self) -> u64 {
        let backlog = std::mem::take(&mut self.backlog);
        self.end.1 += 1;
        self.ask(Task::Pass(self.end.0.clone(), self.end.1));
        self.end.0.wait_for(self.end.1);
        backlog
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            drop(thread.join());
        }
    }
}

impl Worker {
    fn work(&mut self, task: Task) {
        match task {
            Task::Pass(event, number) => event.pass(number),
            Task::WaitFor(event, number) => event.wait_for(number),
            Task::Copy { to, from, len } => {
                let touched = [
                    Access { bytes: to..to + len, write: true },
                    Access { bytes: from..from + len, write: false },
                ];
                self.watched(&touched, |_| {
                    // SAFETY: the copying side's contract (`Backend::copy`): both stretches are valid until the queue has done it.
                    // They may be written at the same time only if that contract is broken, which is what tests try to find.
                    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, len) };
                });
            }
            Task::Compute(mut snapshot) => {
                let touched = std::mem::take(&mut snapshot.touched);
                self.watched(&touched, |worker| worker.compute(&mut snapshot));
            }
        }
    }

    /// Does something while the referee watches what it touches; for long enough that others may come in between.
    fn watched(&mut self, touched: &[Access], what: impl FnOnce(&mut Worker)) {
        lock(&self.referee).begin(self.actor, touched);
        self.pause();
        what(self);
        self.pause();
        lock(&self.referee).end(self.actor);
    }

    fn compute(&mut self, snapshot: &mut Snapshot) {
        for pad in &snapshot.pads {
            // SAFETY: the room behind a tensor, inside its slot.
            let zeros = unsafe { std::slice::from_raw_parts(pad.start as *const u8, pad.len()) };
            if zeros.iter().any(|z| *z != 0) {
                lock(&self.referee).reports.push("what is behind a tensor is not zero".into());
            }
        }
        let n = snapshot.nodes.len();
        // SAFETY: a graph of plain numbers and NULL, but for the nodes, which the snapshot owns.
        unsafe {
            let mut graph: sys::ggml_cgraph = std::mem::zeroed();
            graph.n_nodes = n as i32;
            graph.nodes = snapshot.nodes.as_mut_ptr();
            let graph = Graph::from_raw(std::ptr::NonNull::from(&mut graph));
            self.cpu.compute(&graph, 0..n).unwrap();
        }
    }

    /// Most often not at all, sometimes for long.
    fn pause(&mut self) {
        let Some(dice) = &mut self.dice else { return };
        match dice.roll(32) {
            0 => std::thread::sleep(Duration::from_micros(20)),
            1..=4 => std::thread::yield_now(),
            5..=9 => (0..dice.roll(300)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

/// A graph as it is at some moment: what happens to its tensors afterwards does not matter.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Owns what `nodes` points to.
    _tensors: Box<[sys::ggml_tensor]>,
    nodes: Vec<*mut sys::ggml_tensor>,
    /// The weights.
    pub(super) touched: Vec<Access>,
    /// What is behind the weights, and must be zero.
    pads: Vec<std::ops::Range<usize>>,
}

// SAFETY: it owns what it points to, but for the tensors' data, which is whoever's the referee says.
unsafe impl Send for Snapshot {}

impl Snapshot {
    /// Copies all that the nodes of a graph say of themselves and of their operands.
    ///
    /// # Safety
    ///
    /// The graph must be valid.
    pub(super) unsafe fn new(graph: *mut sys::ggml_cgraph) -> Snapshot {
        // SAFETY: by this function's contract: `n_nodes` tensors, whose operands are valid or NULL.
        unsafe {
            let n = (*graph).n_nodes as usize;
            let originals: Vec<_> = (0..n).map(|i| *(*graph).nodes.add(i)).collect();
            let operands = originals.iter().flat_map(|&t| (*t).src);
            let views = originals.iter().map(|&t| (*t).view_src);
            let mut all: Vec<_> = operands.chain(views).chain(originals.clone()).collect();
            all.retain(|t| !t.is_null());
            all.sort_unstable();
            all.dedup();
            let mut tensors: Box<[sys::ggml_tensor]> = all.iter().map(|&t| *t).collect();
            let base = tensors.as_mut_ptr();
            let copy: HashMap<_, _> =
                all.iter().enumerate().map(|(i, &t)| (t, base.add(i))).collect();
            let find = |t: *mut sys::ggml_tensor| copy.get(&t).copied().unwrap_or(null_mut());
            let (mut touched, mut pads) = (Vec::new(), Vec::new());
            for i in 0..all.len() {
                let t = base.add(i);
                for s in &mut (*t).src {
                    *s = find(*s);
                }
                (*t).view_src = find((*t).view_src);
            }
            let nodes: Vec<_> = originals.iter().map(|&t| find(t)).collect();
            for &node in nodes.iter().filter(|&&n| (*n).op == sys::GGML_OP_MUL_MAT) {
                let weight = (*node).src[0];
                let (from, len) = ((*weight).data as usize, sys::ggml_nbytes(weight));
                let buft = sys::ggml_backend_buffer_get_type((*weight).buffer);
                let room = sys::ggml_backend_buft_get_alloc_size(buft, weight);
                touched.push(Access { bytes: from..from + room, write: false });
                if (*weight).view_src.is_null() {
                    pads.push(from + len..from + room);
                }
            }
            for &node in nodes.iter().filter(|&&n| (*n).op == sys::GGML_OP_MUL_MAT_ID) {
                let stack = (*node).src[0];
                let (from, len) = ((*stack).data as usize, sys::ggml_nbytes(stack));
                touched.push(Access { bytes: from..from + len, write: false });
            }
            Snapshot { _tensors: tensors, nodes, touched, pads }
        }
    }

    /// How many products it computes.
    pub(super) fn products(&self) -> usize {
        self.touched.len()
    }
}

/// Random numbers that repeat exactly; never 0.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Less than `n`.
    pub(super) fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
