//! From an index and options to a plan: asks the machine what it has, and ggml what the model needs. The one place that does,
//! for the loader and for `airrun plan` alike.

use std::sync::Arc;
use std::time::Instant;

use super::Error;
use super::load::{LoadOptions, Loading, POLL, ggml_error, model_name};
use crate::ggml::{Context, ContextParams, Device, Threadpool};
use crate::gguf::{GgmlType, Index, TensorInfo};
use crate::plan::report::Advice;
use crate::plan::{
    self, ContextCost, Cost, Estimate, Kind, Needs, Plan, Rates, StreamMode, Touched, Wish,
};
use crate::probe;
use crate::source::layout::{self, Layout};
use crate::source::{self, Piece};
use crate::stream::Monitor;
use crate::units::{Bytes, MIB, Rate};

/// The context that is made when nobody says how large: enough for a conversation, small enough for any machine.
const DEFAULT_CTX: u32 = 4096;

/// The least of it that will do where memory is short.
const LEAST_CTX: u32 = 512;

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

/// What is assumed of a disk whose file is too short to measure it, and of kinds of weights that nothing could be
/// measured with: any number will do for a file that small, and for one that cannot be computed with.
const UNKNOWN_DISK: Rate = Rate(1e9);
const UNKNOWN_COST: Cost = Cost { one: Rate(5e9), many: Rate(50e9) };

/// A plan, and what it was made from.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where everything will live.
    pub plan: Plan,
    /// What the machine has.
    pub machine: plan::Machine,
    /// What was wished.
    pub wish: Wish,
    /// What the model needs; rough where memory is plenty.
    pub needs: Needs,
    /// Seconds that describing the model to libllama took, where that was tried.
    pub open_seconds: Option<f64>,
}

/// Plans without loading any weights. Where memory is tight, or `exact`, the model is loaded without its weights to ask what
/// its context takes, which takes as long as loading its vocabulary.
///
/// # Errors
///
/// As [`super::Engine::open`].
pub fn plan(index: &Arc<Index>, options: &LoadOptions, exact: bool) -> Result<Planned, Error> {
    index.check_model()?;
    let n_threads = options.threads.unwrap_or_else(probe::physical_cores).max(1);
    let threads = Threadpool::new(n_threads, 0).map_err(ggml_error(index))?;
    make_plan(index, options, &Arc::new(threads), exact)
}

/// As [`plan()`], for a model that was checked.
pub(super) fn make_plan(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    exact: bool,
) -> Result<Planned, Error> {
    let machine = probe::machine();
    let shares = options.shares();
    let ctx = context_length(index, options).saturating_mul(shares);
    let wish = Wish {
        stream: options.stream,
        ram: options.ram,
        ctx,
        ctx_least: if options.ctx.is_some() { ctx } else { ctx.min(LEAST_CTX * shares) },
        ubatch: options.ubatch,
        repack: options.repack,
    };
    let refused = |refusal| Error::Plan { model: model_name(index), refusal };
    let align = Device::cpu().map_err(ggml_error(index))?.buffer_type().alignment();
    let size = |tensors: &[usize]| lay_out(index, tensors, align).size;
    let solve = |needs: &Needs| plan::solve(index, &machine, needs, &wish, &size);
    let rough = rough_needs(index, &wish);
    let done = |plan, needs, open_seconds| Planned { plan, machine, wish, needs, open_seconds };
    // Streaming everything takes the least there is; without a budget, it is not worth the time to measure how little.
    let always = wish.stream == StreamMode::Always && wish.ram.is_none();
    if let Ok(plan) = solve(&rough)
        && !exact
        && plan.n_ctx == wish.ctx
        && (always || plan.streamed.is_empty())
    {
        return Ok(done(plan, rough, None));
    }
    let (needs, seconds) = measured_needs(index, options, &wish, threads)?;
    Ok(done(solve(&needs).map_err(refused)?, needs, Some(seconds)))
}

fn context_length(index: &Index, options: &LoadOptions) -> u32 {
    let trained = index.context_length().and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
    match options.ctx {
        Some(0) => trained.unwrap_or(DEFAULT_CTX),
        Some(n) => n,
        None => trained.unwrap_or(DEFAULT_CTX).min(DEFAULT_CTX),
    }
}

/// How tensors lie in a slot; `tensor_align` is what the device asks of their addresses.
pub(super) fn lay_out(index: &Index, tensors: &[usize], tensor_align: u64) -> Layout {
    let piece = |&t: &usize| {
        let TensorInfo { file, offset, len, .. } = index.tensors[t];
        Piece { file, offset, len: len.0 }
    };
    layout::layout(&tensors.iter().map(piece).collect::<Vec<_>>(), tensor_align)
}

/// Bounds that no model exceeds by much, for machines with plenty of memory: keys and values as wide as the model in every
/// block, and a batch through the widest layers.
fn rough_needs(index: &Index, wish: &Wish) -> Needs {
    let width = index.arch_uint("embedding_length").unwrap_or(0);
    let heads = index.arch_uint("attention.head_count").unwrap_or(1);
    let widest = index.tensors.iter().filter_map(|t| t.shape.iter().take(2).max());
    let widest = widest.copied().max().unwrap_or(0);
    let bytes = |ctx: u32, ubatch: u32| {
        let (ctx, ubatch) = (u64::from(ctx), u64::from(ubatch));
        let kv = Bytes(4 * width) * ctx * index.blocks.len() as u64;
        // The widest may be the vocabulary, of which only one row is computed.
        let batch = (Bytes(4 * 16 * width) + Bytes(4 * 3 * widest.min(8 * width))) * ubatch;
        kv + batch + Bytes(4 * heads) * ctx * ubatch + Bytes(8 * widest) + MIB * 16
    };
    let (ctx, ubatch) = corners(wish);
    let bytes = ctx.map(|c| ubatch.map(|u| bytes(c, u)));
    let header: Bytes = index.files.iter().map(|f| Bytes(f.data_offset)).sum();
    Needs {
        // libllama's tables of the vocabulary take several times the header.
        process: PROCESS + header * 8,
        context: ContextCost { ctx, ubatch, bytes },
        read_ahead: READ_AHEAD,
    }
}

/// The contexts and batches to try.
fn corners(wish: &Wish) -> ([u32; 2], [u32; 2]) {
    let ctx = wish.ctx.max(1);
    let largest = wish.ubatch.unwrap_or(LARGE_UBATCH).clamp(1, ctx);
    ([SMALL_CTX.min(ctx), ctx], [SMALL_UBATCH.min(largest), largest])
}

/// What ggml says: the model is loaded without its weights, and contexts are made of it. Their memory takes addresses only,
/// so that this costs neither memory nor much time. Returns the seconds that loading took, too.
fn measured_needs(
    index: &Index,
    options: &LoadOptions,
    wish: &Wish,
    threads: &Arc<Threadpool>,
) -> Result<(Needs, f64), Error> {
    let begin = Instant::now();
    let hollow = Plan::hollow(index, wish.ctx);
    let monitor = Arc::new(Monitor::default());
    let loading = Loading { index, plan: &hollow, options, threads, monitor: &monitor };
    let (model, _device) = loading.hollow()?;
    let model = Arc::new(model);
    let seconds = begin.elapsed().as_secs_f64();
    let before = probe::address_space();
    let (ctx, mut ubatch) = corners(wish);
    if model.has_encoder() {
        // An encoder reads its whole text in one pass.
        ubatch = [ctx[1]; 2];
    }
    let need = |n_ctx: u32, n_ubatch: u32| -> Result<Bytes, Error> {
        let threads = threads.clone();
        let n_seqs = options.sequences;
        let params = ContextParams { n_ctx, n_ubatch, n_seqs, threads, n_threads: 1 };
        let context = Context::new(model.clone(), &params, monitor.stop_flag());
        let _context = context.map_err(ggml_error(index))?;
        Ok(probe::address_space().saturating_sub(before) + work(index, n_ubatch))
    };
    // The smallest first: what the heap keeps of one context is part of the next.
    let small = need(ctx[0], ubatch[0].min(ctx[0]))?;
    let long = need(ctx[1], ubatch[0])?;
    let large = need(ctx[1], ubatch[1])?;
    // A batch cannot be larger than the context; the fourth corner is a bound.
    let bytes = [[small, small + large.saturating_sub(long)], [long, large]];
    let process = probe::peak_memory() + SLACK;
    let context = ContextCost { ctx, ubatch, bytes };
    let needs = if before == Bytes::ZERO || process == SLACK {
        // A system that does not tell; the bounds have to do.
        rough_needs(index, wish)
    } else {
        Needs { process, context, read_ahead: READ_AHEAD }
    };
    Ok((needs, seconds))
}

/// What ggml's CPU backend needs to compute a batch: the activations, converted to what the weights are multiplied with. (bytes)
fn work(index: &Index, n_ubatch: u32) -> Bytes {
    // Blocks of quantised activations take up to 36 bytes for 32 values; half floats take 2 each.
    let row = |t: &TensorInfo| {
        let per_256 = if is_quantised(t.ty) { 36 * 8 } else { 512 };
        t.shape.first().map_or(0, |n| n / 256 * per_256 + per_256)
    };
    Bytes(index.tensors.iter().map(row).max().unwrap_or(0)) * u64::from(n_ubatch)
}

/// Whether elements are stored in blocks.
pub(super) fn is_quantised(ty: GgmlType) -> bool {
    ty.block_elements() > 1
}

/// What a plan will cost on this machine, and what would help most.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    /// What was measured.
    pub rates: Rates,
    /// What the plan will cost.
    pub estimate: Estimate,
    /// What more memory would bring, if anything.
    pub advice: Option<Advice>,
}

/// Measures the machine with this model's disk and kinds of weights, and predicts.
///
/// # Errors
///
/// The files cannot be opened for reading.
pub fn forecast(
    index: &Index,
    options: &LoadOptions,
    planned: &Planned,
    n_prompt: u32,
) -> Result<Forecast, Error> {
    let n_threads = options.threads.unwrap_or_else(probe::physical_cores).max(1);
    let threads = Arc::new(Threadpool::new(n_threads, POLL).map_err(ggml_error(index))?);
    let paths: Vec<_> = index.files.iter().map(|f| f.path.clone()).collect();
    let source = source::open(&paths, source::Choice::default())?;
    let len = index.files.first().map_or(Bytes::ZERO, |f| f.len);
    let kinds = Kind::most(index);
    let streamed = probe::rates::compute(&kinds, &threads, false).unwrap_or(UNKNOWN_COST);
    let resident = match options.repack {
        true => probe::rates::compute(&kinds, &threads, true).unwrap_or(streamed),
        false => streamed,
    };
    let disk = probe::rates::disk(source.as_ref(), len).unwrap_or(UNKNOWN_DISK);
    let rates =
        Rates { disk, resident, streamed, open_seconds: planned.open_seconds.unwrap_or(0.0) };
    let touched = Touched::of(index);
    let estimate = plan::estimate(&planned.plan, &rates, touched, n_prompt);
    let advice = advice(index, planned)?.map(|(more_ram, better)| {
        let generation = plan::estimate(&better, &rates, touched, n_prompt).generation;
        Advice { more_ram, tokens_per_second: generation.tokens_per_second }
    });
    let now = estimate.generation.tokens_per_second;
    Ok(Forecast { rates, estimate, advice: advice.filter(|a| a.tokens_per_second > now * 1.02) })
}

/// The RAM that is missing for everything to be resident, and the plan with it.
fn advice(index: &Index, planned: &Planned) -> Result<Option<(Bytes, Plan)>, Error> {
    if planned.plan.streamed.is_empty() {
        return Ok(None);
    }
    let all = Wish { stream: StreamMode::Never, ram: Some(Bytes(u64::MAX >> 1)), ..planned.wish };
    let align = Device::cpu().map_err(ggml_error(index))?.buffer_type().alignment();
    let size = |tensors: &[usize]| lay_out(index, tensors, align).size;
    let plan = plan::solve(index, &planned.machine, &planned.needs, &all, &size).ok();
    let more = |plan: Plan| (plan.memory.peak().saturating_sub(planned.plan.memory.budget), plan);
    // Where all of it fits already and streams all the same, that was the wish.
    Ok(plan.map(more).filter(|(more, _)| *more > Bytes::ZERO))
}
