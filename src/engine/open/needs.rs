//! What a model needs besides its weights: asked of ggml, or bounded where memory is plenty. The plan takes it from here.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::loading::Loading;
use super::options::{self, LoadOptions};
use crate::engine::Error;
use crate::engine::devices::GpuBackend;
use crate::engine::error::ggml_error;
use crate::ggml::{Context, ContextParams, Device, Model, Part, Threadpool};
use crate::gguf::{Index, Purpose, TensorInfo};
use crate::plan::{ContextCost, GpuNeeds, MOST_FURTHER, Needs, Plan, Wish};
use crate::probe;
use crate::stream::Monitor;
use crate::units::{Bytes, MIB};

/// The context and the batches that a model is tried with, beside the wanted ones. (tokens)
const SMALL_CTX: u32 = 256;
const SMALL_UBATCH: u32 = 32;
const LARGE_UBATCH: u32 = 2048;

/// What the program takes beyond what was measured: thread stacks, the reader's queue, the sampler, the heap's holes.
const SLACK: Bytes = Bytes(24 * MIB.0);

/// What the program and a vocabulary take where nobody measured.
const PROCESS: Bytes = Bytes(256 * MIB.0);

/// Buffers of the reader that loads resident weights.
pub(super) const READ_AHEAD: Bytes = Bytes(16 * MIB.0);

/// What a GPU's driver takes in RAM where nobody measured.
const GPU_PROCESS: Bytes = Bytes(512 * MIB.0);

/// What a GPU's libraries take of its memory for themselves, beyond what an idle program takes. CUDA: work space of cuBLAS (32 MiB
/// on the largest GPUs), kernels that are loaded when they are first used, recorded graphs. Others have less of that.
const CUDA_LIBRARIES: Bytes = Bytes(128 * MIB.0);
const OTHER_LIBRARIES: Bytes = Bytes(32 * MIB.0);

/// Pinned memory that what is read from disk passes through, and some on top for what alignment costs.
const STAGING: Bytes = Bytes(48 * MIB.0);

/// Bounds that no model exceeds by much, for machines with plenty of memory: keys and values as wide as the model in every
/// block, and a batch through the widest layers.
pub(super) fn rough_needs(index: &Index, options: &LoadOptions, wish: &Wish) -> Needs {
    let width = index.arch_uint("embedding_length").unwrap_or(0);
    let heads = index.arch_uint("attention.head_count").unwrap_or(1);
    let widest = index.tensors.iter().filter_map(|t| t.shape.iter().take(2).max());
    let widest = widest.copied().max().unwrap_or(0);
    let results = (Bytes(8 * widest)).max(results(index, options));
    let bytes = |ctx: u32, ubatch: u32| {
        let (ctx, ubatch) = (u64::from(ctx), u64::from(ubatch));
        let kv = Bytes(4 * width) * ctx * index.blocks.len() as u64;
        // The widest may be the vocabulary, of which only one row is computed.
        let batch = (Bytes(4 * 16 * width) + Bytes(4 * 3 * widest.min(8 * width))) * ubatch;
        kv + batch + Bytes(4 * heads) * ctx * ubatch + results + MIB * 16
    };
    let (ctx, ubatch) = corners(wish);
    let bytes = ctx.map(|c| ubatch.map(|u| bytes(c, u)));
    Needs {
        process: PROCESS + tables(index),
        context: ContextCost { ctx, ubatch, bytes },
        read_ahead: READ_AHEAD,
        gpu: None,
    }
}

/// What libllama's tables of a vocabulary take: several times the header.
pub(super) fn tables(index: &Index) -> Bytes {
    index.files.iter().map(|file| Bytes(file.data_offset)).sum::<Bytes>() * 8
}

/// Whether texts are read whole, in one pass: by encoders, and where vectors are made of them.
fn reads_at_once(index: &Index, model: &Model) -> bool {
    model.has_encoder() || index.purpose() == Purpose::Embedding
}

/// The contexts and batches to try.
fn corners(wish: &Wish) -> ([u32; 2], [u32; 2]) {
    let ctx = wish.ctx.max(1);
    let largest = wish.ubatch.unwrap_or(LARGE_UBATCH).clamp(1, ctx);
    ([SMALL_CTX.min(ctx), ctx], [SMALL_UBATCH.min(largest), largest])
}

/// What ggml says: the model is loaded without its weights, and contexts are made of it. Their memory takes addresses only,
/// so that this costs neither memory nor much time. It is asked for each of the `variants` of the options, the one that needs least
/// first. Returns the seconds that loading took, too.
pub(super) fn measured_needs(
    index: &Index,
    variants: &[LoadOptions],
    wish: &Wish,
    threads: &Arc<Threadpool>,
) -> Result<(Vec<Needs>, f64), Error> {
    let Some(options) = variants.first() else { return Ok((Vec::new(), 0.0)) };
    let begin = Instant::now();
    let hollow = Plan::hollow(index, wish.ctx);
    let monitor = Arc::new(Monitor::default());
    let loading = Loading::for_cpu(index, &hollow, options, threads, &monitor);
    let (model, _device) = loading.hollow()?;
    let model = Arc::new(model);
    let seconds = begin.elapsed().as_secs_f64();
    let (ctx, mut ubatch) = corners(wish);
    if reads_at_once(index, &model) {
        ubatch = [ctx[1]; 2];
    }
    let need = |options: &LoadOptions, n_ctx: u32, n_ubatch: u32| -> Result<Bytes, Error> {
        let threads = threads.clone();
        let params = ContextParams {
            n_ctx,
            n_ubatch,
            n_seqs: options.n_seqs(&model),
            n_outputs: options.outputs(index),
            threads,
            n_threads: 1,
            offload: false,
            recall: options.recall,
            part: Part::Model,
        };
        let context = Context::new(model.clone(), &params, monitor.stop_flag());
        let context = context.map_err(ggml_error(index))?;
        let buffers: Bytes = context.taken().iter().map(|t| t.context + t.compute).sum();
        let beside =
            work(index, n_ubatch) + results(index, options) + hidden(index, options, n_ubatch);
        Ok(buffers + context.bookkeeping() + beside)
    };
    let mut costs = Vec::with_capacity(variants.len());
    for options in variants {
        let small = need(options, ctx[0], ubatch[0].min(ctx[0]))?;
        let long = need(options, ctx[1], ubatch[0])?;
        let large = need(options, ctx[1], ubatch[1])?;
        // A batch cannot be larger than the context; the fourth corner is a bound.
        let bytes = [[small, small + large.saturating_sub(long)], [long, large]];
        costs.push(ContextCost { ctx, ubatch, bytes });
    }
    // What other models have taken is no need of this one, and some systems do not tell.
    let process = if options.alone { process() } else { None };
    let process = process.unwrap_or_else(|| rough_needs(index, options, wish).process);
    let needs = costs.into_iter().map(|context| Needs {
        process,
        context,
        read_ahead: READ_AHEAD,
        gpu: None,
    });
    Ok((needs.collect(), seconds))
}

/// What a context of `n_ctx` tokens keeps of what it reads.
pub(super) fn kept(
    index: &Index,
    options: &LoadOptions,
    n_ctx: u32,
    threads: &Arc<Threadpool>,
) -> Result<Bytes, Error> {
    let hollow = Plan::hollow(index, n_ctx);
    let monitor = Arc::new(Monitor::default());
    let loading = Loading::for_cpu(index, &hollow, options, threads, &monitor);
    let (model, _device) = loading.hollow()?;
    let params = ContextParams {
        n_ctx,
        n_ubatch: SMALL_UBATCH.min(n_ctx),
        n_seqs: options.n_seqs(&model),
        n_outputs: options.outputs(index),
        threads: threads.clone(),
        n_threads: 1,
        offload: false,
        recall: options.recall,
        part: Part::Model,
    };
    let context = Context::new(Arc::new(model), &params, monitor.stop_flag());
    let taken = context.map_err(ggml_error(index))?.taken();
    Ok(taken.iter().map(|taken| taken.context).sum())
}

/// What the program took at most until now, and some more; `None` where the system does not tell. It differs by some pages from run
/// to run, and plans are to differ as seldom as possible.
fn process() -> Option<Bytes> {
    let peak = probe::peak_memory();
    (peak > Bytes::ZERO).then(|| (peak + SLACK).align_up(MIB.0))
}

/// As [`rough_needs`], for a machine whose GPU computes.
pub(super) fn rough_gpu_needs(
    index: &Index,
    options: &LoadOptions,
    wish: &Wish,
    device: Device,
) -> Needs {
    let needs = rough_needs(index, options, wish);
    let driver = driver_needs(index, wish, device);
    let (shared, more) = ([Bytes::ZERO; 2], [Bytes::ZERO; MOST_FURTHER]);
    let (kept, kept_in_ram) = (ContextCost::default(), ContextCost::default());
    let (context, staging) = (needs.context, STAGING);
    let gpu = GpuNeeds { context, driver, kept_in_ram, staging, shared, kept, more };
    Needs { process: needs.process + GPU_PROCESS, gpu: Some(gpu), ..needs }
}

/// What libllama says of a model for a GPU.
pub(super) struct Described {
    /// What it needs besides its weights.
    pub(super) needs: Needs,
    /// The blocks' tensors that the GPU cannot compute with: indices into the index's.
    pub(super) left: HashSet<usize>,
    /// What describing it took.
    pub(super) seconds: f64,
}

/// What ggml says of a machine whose GPU computes: the model is described to libllama, and so are contexts of it, none of which
/// gets any memory. `taken` is what the program had taken when that was first asked.
pub(super) fn described_needs(
    index: &Index,
    options: &LoadOptions,
    wish: &Wish,
    threads: &Arc<Threadpool>,
    device: Device,
    taken: &OnceCell<Option<Bytes>>,
) -> Result<Described, Error> {
    let begin = Instant::now();
    let hollow = Plan::hollow(index, wish.ctx);
    let describing = Describing::new(index, options, &hollow, threads, (device, &[]))?;
    let seconds = begin.elapsed().as_secs_f64();
    let (ctx, mut ubatch) = corners(wish);
    if reads_at_once(index, &describing.model) {
        ubatch = [ctx[1]; 2];
    }
    let nothing = ContextCost { ctx, ubatch, ..ContextCost::default() };
    let mut costs = [nothing; 4];
    for (i, n_ctx) in ctx.into_iter().enumerate() {
        for (j, n_ubatch) in ubatch.into_iter().enumerate() {
            let Sums { ram, first, kept, kept_in_ram, .. } = describing.context(n_ctx, n_ubatch)?;
            for (cost, sum) in costs.iter_mut().zip([ram, first, kept, kept_in_ram]) {
                cost.bytes[i][j] = sum;
            }
        }
    }
    let process = *taken.get_or_init(process);
    let process = process.filter(|_| options.alone).unwrap_or(PROCESS + GPU_PROCESS);
    let [context, on_gpu, kept, kept_in_ram] = costs;
    let (driver, shared) = (driver_needs(index, wish, device), [Bytes::ZERO; 2]);
    let kept_in_ram = if kept_in_ram == nothing { ContextCost::default() } else { kept_in_ram };
    let (more, staging) = ([Bytes::ZERO; MOST_FURTHER], STAGING);
    let gpu = GpuNeeds { context: on_gpu, driver, kept_in_ram, staging, shared, kept, more };
    let needs = Needs { process, context, read_ahead: READ_AHEAD, gpu: Some(gpu) };
    Ok(Described { needs, left: left(index, &describing.model, device), seconds })
}

/// What the context of a plan takes beyond what the plan says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    /// In RAM, and on the GPU that weights stream to.
    pub(super) shared: [Bytes; 2],
    /// On each further GPU.
    pub(super) further: [Bytes; MOST_FURTHER],
}

/// What the context of `plan` takes beyond what the plan says: where several compute, what they hand to each other is there twice, and
/// weights visit the GPU. `None` if libllama puts blocks elsewhere than planned; `left` are those that no GPU can compute with.
pub(super) fn beyond(
    index: &Index,
    options: &LoadOptions,
    plan: &Plan,
    threads: &Arc<Threadpool>,
    (device, further): (Device, &[Device]),
    left: &HashSet<usize>,
) -> Result<Option<Beyond>, Error> {
    let describing = Describing::new(index, options, plan, threads, (device, further))?;
    if !describing.is_as_planned(plan, left) {
        return Ok(None);
    }
    let sums = describing.context(plan.n_ctx, plan.n_ubatch)?;
    let planned = plan.gpu.map(|gpu| gpu.context + gpu.visiting).unwrap_or_default();
    let shared = [(sums.ram, plan.memory.context), (sums.first, planned)];
    let mut beyond =
        Beyond { shared: shared.map(|(a, b)| a.saturating_sub(b)), ..Beyond::default() };
    for held in &plan.further {
        beyond.further[held.number] = sums.further[held.number].saturating_sub(held.memory.context);
    }
    Ok(Some(beyond))
}

/// What a context takes of each memory. (bytes)
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    ram: Bytes,
    /// The GPU that weights stream to.
    first: Bytes,
    /// What of that is keys and values.
    kept: Bytes,
    /// And of what is in RAM.
    kept_in_ram: Bytes,
    further: [Bytes; MOST_FURTHER],
}

/// A model that is described to libllama, with its blocks where a plan puts them.
struct Describing<'a> {
    index: &'a Index,
    options: &'a LoadOptions,
    threads: &'a Arc<Threadpool>,
    device: Device,
    further: &'a [Device],
    monitor: Arc<Monitor>,
    model: Arc<Model>,
    /// Whether the CPU computes with some of it.
    shared: bool,
}

impl<'a> Describing<'a> {
    fn new(
        index: &'a Index,
        options: &'a LoadOptions,
        plan: &Plan,
        threads: &'a Arc<Threadpool>,
        (device, further): (Device, &'a [Device]),
    ) -> Result<Describing<'a>, Error> {
        let monitor = Arc::new(Monitor::default());
        let gpu = Some(device);
        let loading = Loading { index, plan, options, gpu, further, threads, monitor: &monitor };
        let model = Arc::new(loading.described(device)?);
        let shared = !plan.by_cpu.is_empty();
        Ok(Describing { index, options, threads, device, further, monitor, model, shared })
    }

    /// Whether further GPUs have all of their blocks and nothing of others; what is `left` is the CPU's.
    fn is_as_planned(&self, plan: &Plan, left: &HashSet<usize>) -> bool {
        plan.further.iter().all(|held| {
            let kind = self.further[held.number].buffer_type();
            let (inside, outside) = (self.model.inside_of(kind), self.model.outside_of(kind));
            self.index.blocks.iter().enumerate().all(|(i, block)| {
                let wrong = if held.blocks.contains(&i) { &outside } else { &inside };
                let mut tensors = block.tensors.iter().filter(|t| !left.contains(t));
                tensors.all(|&t| !wrong.contains(&self.index.tensors[t].name))
            })
        })
    }

    /// What a context of it would take.
    fn context(&self, n_ctx: u32, n_ubatch: u32) -> Result<Sums, Error> {
        let n_ubatch = n_ubatch.min(n_ctx);
        let params = ContextParams {
            n_ctx,
            n_ubatch,
            n_seqs: self.options.n_seqs(&self.model),
            n_outputs: self.options.outputs(self.index),
            threads: self.threads.clone(),
            n_threads: 1,
            offload: self.shared,
            recall: self.options.recall,
            part: Part::Model,
        };
        let context = Context::new(self.model.clone(), &params, self.monitor.stop_flag());
        let here = self.device.buffer_type();
        let beside = work(self.index, n_ubatch)
            + results(self.index, self.options)
            + hidden(self.index, self.options, n_ubatch);
        let context = context.map_err(ggml_error(self.index))?;
        let mut sums = Sums { ram: beside + context.bookkeeping(), ..Sums::default() };
        for taken in context.taken() {
            let mut further = self.further.iter().zip(&mut sums.further);
            let all = taken.context + taken.compute;
            if taken.kind == here {
                sums.first += all;
                sums.kept += taken.context;
            } else if let Some((_, sum)) = further.find(|(d, _)| d.buffer_type() == taken.kind) {
                *sum += all;
            } else {
                sums.ram += all;
                sums.kept_in_ram += taken.context;
            }
        }
        Ok(sums)
    }
}

/// The blocks' tensors that libllama leaves to the CPU although there is a GPU, which cannot do with them what is to be done.
fn left(index: &Index, model: &Model, device: Device) -> HashSet<usize> {
    let elsewhere = model.outside_of(device.buffer_type());
    let of_blocks = index.blocks.iter().flat_map(|b| &b.tensors).copied();
    of_blocks.filter(|&t| elsewhere.contains(&index.tensors[t].name)).collect()
}

/// What a GPU's libraries and kernels take beyond what ggml allocates by name: a batch's activations as they are converted to be
/// multiplied with, and the products, each once more because pools do not give back what does not fit the next size.
fn driver_needs(index: &Index, wish: &Wish, device: Device) -> ContextCost {
    let (ctx, ubatch) = corners(wish);
    let is_cuda = device.backend_name() == GpuBackend::Cuda.ggml_name();
    let libraries = if is_cuda { CUDA_LIBRARIES } else { OTHER_LIBRARIES };
    let longest = |side: usize| {
        let blocks = index.blocks.iter().flat_map(|b| &b.tensors);
        let sides = blocks.filter_map(|&t| index.tensors[t].shape.get(side).copied());
        sides.max().unwrap_or(0)
    };
    // Inputs as half floats, outputs as floats.
    let token = (Bytes(2) * longest(0) + Bytes(4) * longest(1)) * 2;
    let need = |n_ubatch: u32| libraries + token * u64::from(n_ubatch);
    ContextCost { ctx, ubatch, bytes: [ubatch.map(need); 2] }
}

/// What libllama keeps the results of a pass in, which it makes room for when the first are wanted.
fn results(index: &Index, options: &LoadOptions) -> Bytes {
    options::result(index) * u64::from(options.outputs(index))
}

/// What it keeps of a pass of `n_ubatch` tokens for a head to read: where it is computed, and where it is kept.
fn hidden(index: &Index, options: &LoadOptions, n_ubatch: u32) -> Bytes {
    options::hidden(index) * (options.rows_for_head() * u64::from(n_ubatch) * 2)
}

/// What ggml's CPU backend needs to compute a batch: the activations, converted to what the weights are multiplied with. (bytes)
fn work(index: &Index, n_ubatch: u32) -> Bytes {
    // Blocks of quantised activations take up to 36 bytes for 32 values; half floats take 2 each.
    let row = |t: &TensorInfo| {
        let per_256 = if t.ty.is_quantised() { 36 * 8 } else { 512 };
        t.shape.first().map_or(0, |n| n / 256 * per_256 + per_256)
    };
    Bytes(index.tensors.iter().map(row).max().unwrap_or(0)) * u64::from(n_ubatch)
}
