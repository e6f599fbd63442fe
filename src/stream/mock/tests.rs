//! Streaming to the mock device: thousands of random schedules that the referee watches, proof that it would see what is wrong, and
//! how long passes take over a link.

mod edges;
mod experts;

use std::collections::HashMap;
use std::ptr::{NonNull, null_mut};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use ggml_sys as sys;

use super::queue::{Dice, lock};
use super::referee::{Access, HOST, Referee};
use super::{Behaviour, Mock};
use crate::ggml::{Backend, Device, Graph, Pinned, Tensor, Threadpool};
use crate::source::{Completion, Extent, HostBuf, ReadStats, Ticket, WeightSource};
use crate::stream::exec::Exec;
use crate::stream::{Config, Home, Monitor, Staging, UnitSpec, WeightPlace};
use crate::units::Bytes;

/// Schedules that are tried; each is another model, other slots, other delays.
const SCHEDULES: u64 = 10_000;

/// Rows and columns of every matrix, and columns that it is multiplied with.
const WIDTH: i64 = 64;
const COLUMNS: i64 = 2;

/// What a schedule is made of.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// For each unit, its matrices.
    units: Vec<usize>,
    /// The units in the order in which a pass uses them.
    order: Vec<usize>,
    homes: Vec<Home>,
    /// Every other matrix is used through a view of it.
    views: bool,
    quantised: bool,
    n_slots: usize,
    staging: Staging,
    pub(super) passes: usize,
}

impl Shape {
    pub(super) fn random(dice: &mut Dice) -> Shape {
        let n = 1 + dice.roll(6) as usize;
        let mut order: Vec<usize> = (0..n).collect();
        if dice.roll(4) == 0 {
            order.push(dice.roll(n as u64) as usize);
        }
        Shape {
            units: (0..n).map(|_| 1 + dice.roll(3) as usize).collect(),
            order,
            homes: (0..n).map(|_| if dice.roll(3) == 0 { Home::Ram } else { Home::Disk }).collect(),
            views: dice.roll(4) == 0,
            quantised: dice.roll(2) == 0,
            n_slots: 2 + dice.roll(3) as usize,
            staging: Staging {
                chunk: Bytes(4096 << dice.roll(3)),
                n_buffers: 1 + dice.roll(4) as usize,
            },
            passes: 2 + dice.roll(2) as usize,
        }
    }
}

/// A model made of products, its graph, and what streaming it needs to know. It computes on the CPU as it is.
pub(super) struct Model {
    contexts: [*mut sys::ggml_context; 2],
    buffers: [*mut sys::ggml_backend_buffer; 2],
    weights: Vec<*mut sys::ggml_tensor>,
    input: *mut sys::ggml_tensor,
    output: *mut sys::ggml_tensor,
    graph: *mut sys::ggml_cgraph,
    pub(super) file: Vec<u8>,
    specs: Vec<UnitSpec>,
    places: HashMap<String, WeightPlace>,
}

impl Model {
    /// Makes the model; what it computes is in memory of `mock`.
    pub(super) fn new(shape: &Shape, mock: &Mock, dice: &mut Dice) -> Model {
        let n: usize = shape.units.iter().sum();
        let ty = if shape.quantised { sys::GGML_TYPE_Q8_0 } else { sys::GGML_TYPE_F32 };
        // SAFETY: contexts with room for these tensors, and types and sizes that ggml accepts. All is freed on drop.
        unsafe {
            let contexts = [context(n), context(2 * n * shape.order.len() + 8)];
            let weights: Vec<_> =
                (0..n).map(|_| sys::ggml_new_tensor_2d(contexts[0], ty, WIDTH, WIDTH)).collect();
            let cpu = sys::ggml_backend_cpu_buffer_type();
            let memory = sys::ggml_backend_alloc_ctx_tensors_from_buft(contexts[0], cpu);
            let input = sys::ggml_new_tensor_2d(contexts[1], sys::GGML_TYPE_F32, WIDTH, COLUMNS);
            let graph = sys::ggml_new_graph_custom(contexts[1], 256, false);
            let mut output = input;
            for &unit in &shape.order {
                let first: usize = shape.units[..unit].iter().sum();
                for (k, &whole) in weights.iter().enumerate().skip(first).take(shape.units[unit]) {
                    let mut weight = whole;
                    if shape.views && k % 2 == 1 {
                        let row = (*whole).nb[1];
                        weight = sys::ggml_view_2d(contexts[1], whole, WIDTH, WIDTH, row, 0);
                    }
                    output = sys::ggml_mul_mat(contexts[1], weight, output);
                }
            }
            sys::ggml_build_forward_expand(graph, output);
            let kind = mock.device().buffer_type().0.as_ptr();
            let work = sys::ggml_backend_alloc_ctx_tensors_from_buft(contexts[1], kind);
            let (specs, places) = (Vec::new(), HashMap::new());
            let (buffers, file) = ([memory, work], Vec::new());
            let mut model =
                Model { contexts, buffers, weights, input, output, graph, file, specs, places };
            model.fill(shape, mock, dice);
            model
        }
    }

    /// Invents the weights, and writes the file that they are read from.
    fn fill(&mut self, shape: &Shape, mock: &Mock, dice: &mut Dice) {
        let kind = mock.device().buffer_type();
        let mut next = 0;
        for (unit, &n) in shape.units.iter().enumerate() {
            let (mut extents, mut zeros, mut at) = (Vec::new(), Vec::new(), 0_u64);
            for k in next..next + n {
                // SAFETY: a tensor of the CPU's memory, overwritten from its first to its last byte.
                let (len, ty) = unsafe {
                    let weight = self.weights[k];
                    let bytes = random_weights(sys::ggml_nbytes(weight), shape.quantised, dice);
                    sys::ggml_backend_tensor_set(weight, bytes.as_ptr().cast(), 0, bytes.len());
                    sys::ggml_set_name(weight, format!("{k}\0").as_ptr().cast());
                    self.file.resize(self.file.len() + 32 * dice.roll(200) as usize, 0xEE);
                    self.file.extend_from_slice(&bytes);
                    (bytes.len() as u64, (*weight).type_)
                };
                let offset = self.file.len() as u64 - len;
                extents.push(Extent { file: 0, offset, len, dst: at, need: len });
                let place = WeightPlace { unit: unit as u32, offset: at };
                self.places.insert(k.to_string(), place);
                let room = kind.room_for(ty, &[WIDTH as u64; 2]).unwrap().0;
                if room > len {
                    zeros.push(at + len..at + room);
                }
                at = (at + room).next_multiple_of(kind.alignment());
            }
            next += n;
            self.specs.push(UnitSpec {
                name: format!("unit {unit}"),
                extents: extents.into(),
                zeros: zeros.into(),
                size: Bytes(at),
                home: shape.homes[unit],
            });
        }
    }

    /// What comes out for an input that follows from `seed`, computed by `compute`.
    pub(super) fn answer(&self, seed: u64, compute: impl FnOnce(&Graph<'_>)) -> Vec<f32> {
        let n = (WIDTH * COLUMNS) as usize;
        let mut dice = Dice(seed | 1);
        let input: Vec<f32> = (0..n).map(|_| dice.roll(2001) as f32 / 1000.0 - 1.0).collect();
        let mut output = vec![0.0_f32; n];
        // SAFETY: tensors of this size, and a valid graph that nobody else uses.
        unsafe {
            sys::ggml_backend_tensor_set(self.input, input.as_ptr().cast(), 0, 4 * n);
            compute(&Graph::from_raw(NonNull::new(self.graph).unwrap()));
            sys::ggml_backend_tensor_get(self.output, output.as_mut_ptr().cast(), 0, 4 * n);
        }
        output
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe {
            self.buffers.iter().for_each(|&b| sys::ggml_backend_buffer_free(b));
            self.contexts.iter().for_each(|&c| sys::ggml_free(c));
        }
    }
}

fn context(n: usize) -> *mut sys::ggml_context {
    // SAFETY: plain numbers; ggml allocates the memory.
    unsafe {
        let mem_size =
            sys::ggml_tensor_overhead() * n + sys::ggml_graph_overhead_custom(256, false);
        sys::ggml_init(sys::ggml_init_params { mem_size, mem_buffer: null_mut(), no_alloc: true })
    }
}

/// Small numbers, as floats or as blocks of 32 with a scale.
fn random_weights(len: usize, quantised: bool, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        if quantised {
            bytes.extend(0x1400_u16.to_le_bytes()); // a thousandth, as a half float
            bytes.extend((0..4).flat_map(|_| dice.roll(u64::MAX).to_le_bytes()));
        } else {
            let number = dice.roll(2001) as f32 / 4000.0 - 0.25;
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes.truncate(len);
    bytes
}

/// A file in memory whose reads end in any order, a little later; the referee is told of every one.
#[derive(Debug)]
struct LateSource {
    file: Arc<[u8]>,
    referee: Arc<Mutex<Referee>>,
    thread: Option<(Sender<Request>, JoinHandle<()>)>,
}

type Request = (Arc<[Extent]>, HostBuf, Completion);

impl LateSource {
    fn new(file: &[u8], mock: &Mock, seed: Option<u64>) -> LateSource {
        let (file, referee): (Arc<[u8]>, _) = (file.into(), mock.referee());
        let thread = seed.map(|seed| {
            let (sender, requests) = channel::<Request>();
            let (file, referee, mut dice) = (file.clone(), referee.clone(), Dice(seed | 1));
            let thread = std::thread::spawn(move || {
                let mut waiting = Vec::new();
                while let Ok(request) = requests.recv() {
                    waiting.push(request);
                    waiting.extend(requests.try_iter());
                    while !waiting.is_empty() {
                        let k = dice.roll(waiting.len() as u64) as usize;
                        let (extents, buf, completion) = waiting.swap_remove(k);
                        serve(&file, &extents, buf, completion, Some(&referee));
                        waiting.extend(requests.try_iter());
                    }
                }
            });
            (sender, thread)
        });
        LateSource { file, referee, thread }
    }
}

impl WeightSource for LateSource {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        lock(&self.referee).step(HOST, 0.0, &written(&extents, &buf));
        match &self.thread {
            Some((sender, _)) => sender.send((extents, buf, completion)).unwrap(),
            None => serve(&self.file, &extents, buf, completion, None),
        }
        ticket
    }

    fn describe(&self) -> String {
        "late".to_owned()
    }
}

impl Drop for LateSource {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            thread.join().unwrap();
        }
    }
}

fn written(extents: &[Extent], buf: &HostBuf) -> Vec<Access> {
    let start = buf.start().as_ptr() as usize;
    let bytes = |e: &Extent| start + e.dst as usize..start + (e.dst + e.len) as usize;
    extents.iter().map(|e| Access { bytes: bytes(e), write: true }).collect()
}

fn serve(
    file: &[u8],
    extents: &[Extent],
    mut buf: HostBuf,
    completion: Completion,
    referee: Option<&Arc<Mutex<Referee>>>,
) {
    let begin = Instant::now();
    let touched = written(extents, &buf);
    if let Some(referee) = referee {
        lock(referee).begin(HOST, &touched);
    }
    for e in extents {
        let (from, n) = (e.offset as usize, e.need as usize);
        buf.as_mut_slice()[e.dst as usize..][..n].copy_from_slice(&file[from..from + n]);
    }
    if let Some(referee) = referee {
        lock(referee).end(HOST);
    }
    let bytes = extents.iter().map(|e| Bytes(e.len)).sum();
    completion.complete(buf, Ok(ReadStats { bytes, span: (begin, Instant::now()) }));
}

/// Streams `model` to `mock`.
fn exec(model: &Model, shape: &Shape, mock: &Mock, seed: Option<u64>) -> Exec {
    let source = LateSource::new(&model.file, mock, seed);
    exec_from(model, config(model, shape, mock, Arc::new(source)))
}

/// Streams `model` by `config`.
pub(super) fn exec_from(model: &Model, config: Config) -> Exec {
    let mut exec = Exec::new(config).unwrap();
    for &weight in &model.weights {
        // SAFETY: tensors that live as long as the model.
        assert!(exec.register(unsafe { Tensor::from_raw(weight) }.unwrap()));
    }
    exec.loaded();
    exec
}

pub(super) fn config(
    model: &Model,
    shape: &Shape,
    mock: &Mock,
    source: Arc<dyn WeightSource>,
) -> Config {
    Config {
        inner: mock.device(),
        threads: Arc::new(Threadpool::new(1, 0).unwrap()),
        units: model.specs.clone(),
        weights: model.places.clone(),
        source,
        n_slots: shape.n_slots,
        experts: None,
        staging: shape.staging,
        monitor: Arc::new(Monitor::default()),
    }
}

/// Computes a schedule's passes, streamed and resident. Gives what the referee found, and whether an answer differed.
fn run(seed: u64, behaviour: Behaviour) -> (Vec<String>, bool) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let shape = Shape::random(&mut dice);
    let mock = Mock::new(behaviour);
    let model = Model::new(&shape, &mock, &mut dice);
    let mut cpu = Backend::new(Device::cpu().unwrap(), None).unwrap();
    cpu.set_n_threads(1);
    let mut streamed = exec(&model, &shape, &mock, behaviour.seed);
    if dice.roll(2) == 0 {
        streamed.prefetch();
    }
    let mut differs = false;
    for pass in 0..shape.passes as u64 {
        let resident = model.answer(pass, |graph| cpu.compute(graph, 0..graph.n_nodes()).unwrap());
        let got = model.answer(pass, |graph| {
            streamed.compute(graph).unwrap_or_else(|error| panic!("{seed}: {shape:?}: {error}"));
            streamed.synchronize();
        });
        let same = resident.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits());
        differs |= !same;
    }
    // What is dropped while it computes waits for the end of it.
    let is_busy = dice.roll(2) == 0;
    model.answer(0, |graph| {
        if is_busy {
            streamed.compute(graph).unwrap();
        }
        drop(streamed);
    });
    (mock.reports(), differs)
}

/// The kinds of devices that there are.
fn kind(seed: u64) -> Behaviour {
    let (events, copies) = [(true, true), (true, true), (true, true), (false, true), (true, false)]
        [(seed % 5) as usize];
    Behaviour {
        seed: Some(seed),
        events,
        copies,
        pinned: !seed.is_multiple_of(7),
        ..Behaviour::default()
    }
}

#[test]
fn no_schedule_is_wrong() {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) as u64;
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                for seed in (worker..SCHEDULES).step_by(workers as usize) {
                    let (reports, differs) = run(seed, kind(seed));
                    assert!(reports.is_empty(), "schedule {seed}: {reports:?}");
                    assert!(!differs, "schedule {seed}: another answer");
                }
            });
        }
    });
}

/// Whichever queue does not wait for the other, the referee sees it.
#[test]
fn a_queue_that_does_not_wait_is_found_out() {
    for deaf in [1, 2] {
        let found = (0..50).filter(|&seed| {
            let behaviour =
                Behaviour { seed: Some(seed), deaf: Some(deaf), ..Behaviour::default() };
            !run(seed, behaviour).0.is_empty()
        });
        // Where all units have a slot of their own, nothing is ever overwritten.
        let found = found.count();
        assert!(found >= 10, "queue {deaf}: {found} of 50");
    }
}

/// ggml gives ordinary memory where pinned memory is short, and does not say so.
#[test]
fn what_is_not_pinned_is_found_out() {
    let pinned = Mock::new(Behaviour::default());
    let memory = Pinned::new(pinned.device(), Bytes(10_000), 4096).unwrap();
    assert!(memory.start().as_ptr().addr().is_multiple_of(4096));
    let ordinary = Mock::new(Behaviour { pinned: false, ..Behaviour::default() });
    assert!(Pinned::new(ordinary.device(), Bytes(10_000), 4096).is_none());
    assert!(Pinned::new(Device::cpu().unwrap(), Bytes(10_000), 4096).is_none());
}

/// A pass over 80 blocks takes as long as the slower of copying and computing, and at most one block's copying more.
#[test]
fn a_pass_takes_as_long_as_the_slower_of_copying_and_computing() {
    const BLOCKS: usize = 80;
    for home in [Home::Ram, Home::Disk] {
        for ratio in [0.1, 0.3, 0.9, 1.0, 1.1, 3.0, 10.0] {
            let shape = Shape {
                units: vec![2; BLOCKS],
                order: (0..BLOCKS).collect(),
                homes: vec![home; BLOCKS],
                views: false,
                quantised: false,
                n_slots: 2,
                staging: Staging { chunk: Bytes(8192), n_buffers: 4 },
                passes: 0,
            };
            // Copying a block takes a second.
            let block = 2.0 * 4.0 * (WIDTH * WIDTH) as f64;
            let costs = (1.0 / block, 1.0 / ratio / 2.0);
            let mock = Mock::new(Behaviour { costs, ..Behaviour::default() });
            let model = Model::new(&shape, &mock, &mut Dice(7));
            let mut exec = exec(&model, &shape, &mock, None);
            let (copying, computing) = (BLOCKS as f64, BLOCKS as f64 / ratio);
            let mut backlog = 0;
            for pass in 0..5 {
                let begin = mock.now();
                model.answer(pass, |graph| {
                    exec.compute(graph).unwrap();
                    exec.synchronize();
                });
                let took = mock.now() - begin;
                let limit = 1.03 * copying.max(computing) + 1.0;
                assert!(pass == 0 || took <= limit, "{home:?}, {ratio}: {took} s of {limit} s");
                if pass == 3 {
                    backlog = mock.backlog();
                }
            }
            drop(exec);
            assert!(mock.reports().is_empty(), "{:?}", mock.reports());
            // What a device keeps for an event is used again only when the host knows that nothing waits for it.
            assert_eq!(mock.ahead(), 0, "{home:?}, {ratio}");
            // Nor does it have to remember more with every pass.
            assert_eq!(mock.backlog(), backlog, "{home:?}, {ratio}");
        }
    }
}
