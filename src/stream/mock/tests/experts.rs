//! Mixtures on the mock device: passes of one token, of a few and of many in any order, so that experts come one by one and as whole stacks
//! in turn, apart from slots or in the same memory; the referee watches, and answers are those of resident experts.

use super::*;
use crate::source::Slice;
use crate::stream::experts::{
    Above, BlockSpec, Decay, ExpertsSpec, StackSpec, area_size, region_size,
};
use crate::stream::mock::PADDING;

/// Mixtures that are tried.
const MIXTURES: u64 = 300;

/// Experts that a token uses of each block.
const USED: usize = 2;

/// A model of blocks of two products with experts each.
struct Mixture {
    context: *mut sys::ggml_context,
    buffer: *mut sys::ggml_backend_buffer,
    /// The stacks, two of each block.
    stacks: Vec<*mut sys::ggml_tensor>,
    count: usize,
    file: Vec<u8>,
    /// Bytes of an expert's slice of any stack.
    each: u64,
}

impl Mixture {
    fn new(dice: &mut Dice) -> Mixture {
        let (blocks, count) = (2 + dice.roll(4) as usize, 4 + dice.roll(8) as usize);
        let quantised = dice.roll(2) == 0;
        let ty = if quantised { sys::GGML_TYPE_Q8_0 } else { sys::GGML_TYPE_F32 };
        // SAFETY: a context with room for these tensors, of types and sizes that ggml accepts, overwritten from first to last byte.
        unsafe {
            let context = context(2 * blocks);
            let stack = |_| sys::ggml_new_tensor_3d(context, ty, WIDTH, WIDTH, count as i64);
            let stacks: Vec<_> = (0..2 * blocks).map(stack).collect();
            let cpu = sys::ggml_backend_cpu_buffer_type();
            let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(context, cpu);
            let mut file = Vec::new();
            for (i, &stack) in stacks.iter().enumerate() {
                let bytes = random_weights(sys::ggml_nbytes(stack), quantised, dice);
                sys::ggml_backend_tensor_set(stack, bytes.as_ptr().cast(), 0, bytes.len());
                sys::ggml_set_name(stack, format!("{i}\0").as_ptr().cast());
                file.extend_from_slice(&bytes);
            }
            let each = (*stacks[0]).nb[2] as u64;
            Mixture { context, buffer, stacks, count, file, each }
        }
    }

    fn stack_len(&self) -> u64 {
        self.each * self.count as u64
    }

    /// How each stack is a unit, and how its experts lie in the file.
    fn lay_out(&self) -> (Vec<UnitSpec>, HashMap<String, WeightPlace>, Vec<BlockSpec>) {
        let room = self.stack_len() + PADDING as u64;
        let (mut units, mut weights, mut blocks) = (Vec::new(), HashMap::new(), Vec::new());
        for i in 0..self.stacks.len() {
            let (offset, len) = (i as u64 * self.stack_len(), self.stack_len());
            let extent = Extent { file: 0, offset, len, dst: 0, need: len };
            weights.insert(i.to_string(), WeightPlace { unit: i as u32, offset: 0 });
            units.push(UnitSpec {
                name: format!("unit {i}"),
                extents: Arc::new([extent]),
                zeros: std::iter::once(len..room).collect(),
                size: Bytes(room),
                home: Home::Disk,
            });
            let (each, slice) = (self.each, Slice::of(offset, self.each, 1));
            let (name, beyond) = (i.to_string(), PADDING as u64);
            let stack = StackSpec { name, file: 0, offset, each, slice, beyond };
            match blocks.last_mut() {
                Some(BlockSpec { stacks, .. }) if stacks.len() < 2 => stacks.push(stack),
                _ => {
                    let name = format!("block {}", i / 2);
                    blocks.push(BlockSpec { name, count: self.count, stacks: vec![stack] });
                }
            }
        }
        (units, weights, blocks)
    }

    /// Streamed to `mock`: with pools of `kept` experts of each block in RAM and on the device, none if 0, and `n_slots` slots of units, in
    /// the memory of experts if it `lends`.
    fn exec(
        &self,
        mock: &Mock,
        kept: [usize; 2],
        (n_slots, lends): (usize, bool),
        seed: u64,
    ) -> (Exec, Arc<Monitor>) {
        let kind = mock.device().buffer_type();
        let (units, weights, blocks) = self.lay_out();
        let room = units[0].size.0;
        let align = kind.alignment();
        let slice = || std::iter::repeat_n((self.each, PADDING as u64), 2);
        let region = |n: usize| Bytes(area_size(slice(), n, align));
        let in_ram =
            |n| region_size(blocks[0].stacks.iter().map(|stack: &StackSpec| stack.slice.room), n);
        let regions = match kept[1] {
            0 => vec![region(USED)],
            n => vec![region(n); blocks.len()],
        };
        let slots = if lends { n_slots } else { 0 };
        let (areas, places) = divide(regions, slots, Bytes(room));
        let pool = match kept[0] {
            0 => in_ram(USED),
            n => in_ram(n) * blocks.len() as u64,
        };
        let experts = ExpertsSpec {
            n_slots: kept[0],
            pool: Bytes(pool),
            shares_slots: false,
            decay: Decay::default(),
            above: Some(Above { n_slots: kept[1], areas, places, lent: slots, align }),
            blocks,
        };
        let source = Arc::new(LateSource::new(&self.file, mock, Some(seed)));
        let monitor = Arc::new(Monitor::default());
        let mut exec = Exec::new(Config {
            inner: mock.device(),
            threads: Arc::new(Threadpool::new(1, 0).unwrap()),
            units,
            weights,
            source,
            n_slots,
            experts: Some(experts),
            staging: Staging { chunk: Bytes(8192), n_buffers: 3 },
            monitor: monitor.clone(),
        })
        .unwrap();
        for &stack in &self.stacks {
            // SAFETY: tensors that live as long as the model.
            assert!(exec.register(unsafe { Tensor::from_raw(stack) }.unwrap()));
        }
        exec.loaded();
        (exec, monitor)
    }

    /// What `compute` makes of a pass with so many tokens, whose routes and input follow from `seed`.
    fn answer(
        &self,
        mock: &Mock,
        n: usize,
        seed: u64,
        compute: impl FnOnce(&Graph<'_>),
    ) -> Vec<f32> {
        let (mut dice, blocks) = (Dice(seed | 1), self.stacks.len() / 2);
        // SAFETY: a context with room for these tensors, in memory of the mock, all written before they are computed with, and freed
        // after that.
        unsafe {
            let context = context(8 * blocks + 8);
            let new = |ty, a, b, c| sys::ggml_new_tensor_3d(context, ty, a, b, c);
            let input = new(sys::GGML_TYPE_F32, WIDTH, 1, n as i64);
            let graph = sys::ggml_new_graph_custom(context, 256, false);
            let (mut at, mut routes) = (input, Vec::new());
            for pair in self.stacks.chunks(2) {
                let ids =
                    sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_I32, USED as i64, n as i64);
                routes.push(ids);
                let up = sys::ggml_mul_mat_id(context, pair[0], at, ids);
                let down = sys::ggml_mul_mat_id(context, pair[1], up, ids);
                let row = |k: usize| {
                    let nb = (*down).nb;
                    sys::ggml_view_3d(context, down, WIDTH, 1, n as i64, nb[1], nb[2], k * nb[1])
                };
                at = sys::ggml_add(context, row(0), row(1));
            }
            sys::ggml_build_forward_expand(graph, at);
            let kind = mock.device().buffer_type().0.as_ptr();
            let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(context, kind);
            for ids in routes {
                // Some experts are likelier than others; those of a token differ.
                let mut numbers = Vec::new();
                for _ in 0..n {
                    let first = dice.roll(self.count as u64).min(dice.roll(self.count as u64));
                    let next = 1 + dice.roll(self.count as u64 - 1);
                    numbers.extend([first, (first + next) % self.count as u64].map(|e| e as i32));
                }
                sys::ggml_backend_tensor_set(ids, numbers.as_ptr().cast(), 0, 4 * numbers.len());
            }
            let len = WIDTH as usize * n;
            let numbers: Vec<f32> =
                (0..len).map(|_| dice.roll(2001) as f32 / 1000.0 - 1.0).collect();
            sys::ggml_backend_tensor_set(input, numbers.as_ptr().cast(), 0, 4 * len);
            compute(&Graph::from_raw(NonNull::new(graph).unwrap()));
            let mut output = vec![0.0_f32; len];
            sys::ggml_backend_tensor_get(at, output.as_mut_ptr().cast(), 0, 4 * len);
            sys::ggml_backend_buffer_free(buffer);
            sys::ggml_free(context);
            output
        }
    }
}

/// Pieces of memory for `regions`, the first of them slots of `room` bytes, so many.
fn divide(regions: Vec<Bytes>, slots: usize, room: Bytes) -> (Vec<Bytes>, Vec<(usize, Bytes)>) {
    let (mut areas, mut places) = (vec![room; slots], Vec::new());
    for (i, region) in regions.into_iter().enumerate() {
        // Two in a slot, where that has room, and then one in each.
        match i.checked_sub(1).filter(|_| i < 2 && slots > 0 && region * 2 <= areas[0]) {
            Some(_) => places.push((0, region)),
            None if i < slots => {
                areas[i] = areas[i].max(region);
                places.push((i, Bytes::ZERO));
            }
            None => {
                places.push((areas.len(), Bytes::ZERO));
                areas.push(region);
            }
        }
    }
    (areas, places)
}

impl Drop for Mixture {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe {
            sys::ggml_backend_buffer_free(self.buffer);
            sys::ggml_free(self.context);
        }
    }
}

/// What a mixture's passes found, and how many experts were there when they were wanted.
fn run_mixture(seed: u64, behaviour: Behaviour) -> (Vec<String>, bool, u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mock = Mock::new(behaviour);
    let mixture = Mixture::new(&mut dice);
    let mut cpu = Backend::new(Device::cpu().unwrap(), None).unwrap();
    cpu.set_n_threads(1);
    let kept = |dice: &mut Dice| match dice.roll(4) {
        0 => 0,
        _ => USED + dice.roll((mixture.count - USED) as u64) as usize,
    };
    let kept = [kept(&mut dice), kept(&mut dice)];
    let slots = (2 + dice.roll(3) as usize, dice.roll(4) > 0);
    let (mut streamed, monitor) = mixture.exec(&mock, kept, slots, seed);
    if dice.roll(2) == 0 {
        streamed.prefetch();
    }
    let mut differs = false;
    for pass in 0..12 {
        let n = [1, 1, 1, 2, 3, 40][dice.roll(6) as usize];
        let seed = seed.wrapping_mul(31) + pass;
        let resident = mixture.answer(&mock, n, seed, |graph| {
            cpu.compute(graph, 0..graph.n_nodes()).unwrap();
        });
        let got = mixture.answer(&mock, n, seed, |graph| {
            streamed.compute(graph).unwrap_or_else(|error| panic!("{seed}: {error}"));
            streamed.synchronize();
        });
        differs |= resident.iter().zip(&got).any(|(a, b)| a.to_bits() != b.to_bits());
        monitor.passed(n, Instant::now());
    }
    let counts = monitor.experts().unwrap().counts();
    assert!(counts.misses <= counts.copied && counts.copied <= counts.uses, "{counts:?}");
    drop(streamed);
    (mock.reports(), differs, counts.uses - counts.misses)
}

#[test]
fn no_order_of_tokens_and_prompts_is_wrong() {
    let mut hits = 0;
    for seed in 0..MIXTURES {
        let (reports, differs, found) = run_mixture(seed, kind(seed));
        assert!(reports.is_empty(), "mixture {seed}: {reports:?}");
        assert!(!differs, "mixture {seed}: another answer");
        hits += found;
    }
    assert!(hits > MIXTURES, "{hits} hits");
}
