//! Heads that guess tokens ahead, in the model's own file or in one of their own: whether they can, what they take, and how one in its own
//! file gets in.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::length::context_length;
use super::loading::Loading;
use super::needs;
use super::options::{self, Beside, Draft, LoadOptions};
use super::rates;
use crate::engine::error::{ggml_error, model_name};
use crate::engine::{Error, devices, threads};
use crate::ggml::{Context, ContextParams, Device, Layers, Model, Part, Recall, Threadpool};
use crate::gguf::{Blanks, Index};
use crate::plan::{self, Plan, Touched};
use crate::stream::{Monitor, StreamDevice};
use crate::units::Bytes;

/// A head in a file of its own.
#[derive(Debug)]
pub(in crate::engine) struct HeadFile {
    pub(in crate::engine) model: Arc<Model>,
    pub(in crate::engine) index: Arc<Index>,
    /// The blocks of the other model whose input it reads.
    pub(in crate::engine) layers: Layers,
    /// How it fills in several tokens at a time, if it does.
    pub(in crate::engine) blanks: Option<Blanks>,
}

/// What a head in the model's own file will take, as ggml says: its block, and a context of its own.
pub(super) fn own(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
) -> Result<Beside, Error> {
    index.check_heads_usable().map_err(refused(index))?;
    let gpu = one_gpu(index, options)?;
    let model = described(index, options, threads, gpu)?;
    let params = params(index, options, threads, options::HEAD_UBATCH, Part::Head);
    let context = Context::new(model.0, &params, monitor().stop_flag());
    let context = context.map_err(ggml_error(index))?;
    let result = options::result(index) * u64::from(options.sequences.max(1));
    // What a row takes is held for the pass, and once more for what is handed to the head.
    let rows = options::hidden(index) * u64::from(params.n_ubatch) * 2;
    let [ram, vram] = sums(&context, gpu, index.head_bytes(), result + rows);
    let first = index.heads.first().map(|head| head.len).unwrap_or_default();
    let touched = Touched::of(index);
    let read = plan::share(first, touched.of_block) + touched.output;
    let each = seconds(index, options, gpu, read, 1);
    Ok(Beside { draft: options.draft.clone(), ram, vram, each, why_not: None })
}

/// What a head in a file of its own will take: all of it, and its context, which is made as it will be.
pub(super) fn beside(
    index: &Index,
    head: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
) -> Result<Beside, Error> {
    let (layers, blanks) = check(head, index)?;
    let gpu = one_gpu(head, options)?;
    // The model as it is without drafts, to borrow from.
    let plain = LoadOptions { draft: Draft::None, ..options.clone() };
    let lender = described(index, &plain, threads, gpu)?;
    let few = ContextParams {
        n_ctx: 1,
        n_ubatch: 1,
        n_seqs: 1,
        n_outputs: 1,
        ..params(index, options, threads, 1, Part::Layers(layers))
    };
    let lender = Context::new(lender.0, &few, monitor().stop_flag()).map_err(ggml_error(index))?;
    let model = described(head, &options.of_draft(None), threads, gpu)?;
    let params = params(index, options, threads, options::HEAD_FILE_UBATCH, Part::Beside);
    let params = of_file(&params, blanks);
    let context = Context::of_head(model.0, &params, &lender, monitor().stop_flag());
    let context = context.map_err(ggml_error(head))?;
    // libllama makes room for a result of each token that a head reads.
    let n_rows = u64::from(params.n_ubatch);
    let rows = options::hidden(index) * (layers.as_slice().len() as u64 * n_rows * 2);
    let held = rows + options::result(index) * n_rows + needs::tables(head);
    let [ram, vram] = sums(&context, gpu, head.bytes(), held);
    let len = |name: &str| head.tensors.iter().find(|t| t.name == name).map(|t| t.len);
    let borrowed =
        if len("output.weight").is_some() { Bytes::ZERO } else { Touched::of(index).output };
    let read = head.bytes().saturating_sub(len("token_embd.weight").unwrap_or_default()) + borrowed;
    let each = match blanks {
        None => seconds(index, options, gpu, read, 1),
        // All but the first are guessed.
        Some(Blanks { size, .. }) => {
            seconds(index, options, gpu, read, size) / f64::from(size.max(2) - 1)
        }
    };
    Ok(Beside { draft: options.draft.clone(), ram, vram, each, why_not: None })
}

/// Loads a head in a file of its own to where the model `index` is computed: on `gpu`, or the CPU.
pub(super) fn load(
    head: &Arc<Index>,
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    gpu: Option<Device>,
) -> Result<HeadFile, Error> {
    let (layers, blanks) = check(head, index)?;
    // Repacking would take a copy while it loads, which the plan does not have room for.
    let options = LoadOptions { repack: false, ..options.of_draft(None) };
    let (plan, monitor) = (Plan::whole(head, 0), monitor());
    let loading = Loading {
        index: head,
        plan: &plan,
        options: &options,
        gpu,
        further: &[],
        threads,
        monitor: &monitor,
    };
    let (model, _, _) = loading.load(|source| source)?;
    Ok(HeadFile { model: Arc::new(model), index: head.clone(), layers, blanks })
}

/// The parameters of the context that a head in a file of its own drafts in, of those of its model's: one batch has a token of each text, or
/// a block of `blanks` of one text at least.
pub(in crate::engine) fn of_file(params: &ContextParams, blanks: Option<Blanks>) -> ContextParams {
    let params = ContextParams { recall: Recall::default(), ..params.clone() };
    let n_ubatch = options::HEAD_FILE_UBATCH;
    match blanks {
        None => {
            let n_ubatch = n_ubatch.max(params.n_seqs).min(params.n_ctx.max(1));
            ContextParams { n_ubatch, part: Part::Beside, ..params }
        }
        Some(Blanks { size, .. }) => {
            let n_ubatch = n_ubatch.max(size);
            ContextParams { n_ubatch, n_outputs: n_ubatch, part: Part::Block, ..params }
        }
    }
}

/// The blocks of a model whose input a head reads that can guess for it, and how it fills in tokens, if it does.
fn check(head: &Index, index: &Index) -> Result<(Layers, Option<Blanks>), Error> {
    head.check_kind_of_head().map_err(refused(head))?;
    head.check_model()?;
    let fit = head.head_for(index).map_err(refused(head))?;
    check_tokens(head)?;
    let too_many = || refused(head)("it reads too many blocks".to_owned());
    Ok((Layers::new(&fit.layers).ok_or_else(too_many)?, fit.blanks))
}

/// Whether each of a head's own tokens is another one of the model's: libllama takes their numbers as they are.
fn check_tokens(head: &Index) -> Result<(), Error> {
    let Some(table) = head.head_tokens() else { return Ok(()) };
    let n_tokens = Bytes(head.n_tokens()).usize();
    let failed = |e: io::Error| refused(head)(format!("its tokens cannot be read: {e}"));
    let file = File::open(&head.files[table.file].path).map_err(failed)?;
    head.check_unchanged()?;
    let mut file = BufReader::new(file);
    file.seek(SeekFrom::Start(table.offset)).map_err(failed)?;
    let mut seen = vec![false; n_tokens];
    for i in 0..table.elements() {
        let mut number = [0; 8];
        file.read_exact(&mut number).map_err(failed)?;
        let token = i64::from_le_bytes(number);
        let place = usize::try_from(token).ok().and_then(|token| seen.get_mut(token));
        match place {
            Some(seen) if !*seen => *seen = true,
            Some(_) => {
                return Err(refused(head)(format!("its token {i} is {token}, as another is")));
            }
            None => {
                let why = format!("its token {i} is {token}, and the model has {n_tokens} tokens");
                return Err(refused(head)(why));
            }
        }
    }
    Ok(())
}

fn refused(index: &Index) -> impl Fn(String) -> Error {
    let model = model_name(index);
    move |why| Error::Draft { model: model.clone(), why }
}

/// The GPU that computes, if one does; heads draft with one.
fn one_gpu(of: &Index, options: &LoadOptions) -> Result<Option<Device>, Error> {
    let gpus = devices::choose(&options.device)?;
    match gpus.len() {
        0 | 1 => Ok(gpus.first().copied()),
        _ => Err(refused(of)("heads draft with one GPU".to_owned())),
    }
}

fn monitor() -> Arc<Monitor> {
    Arc::new(Monitor::default())
}

/// A model without memory, and what it is on.
type Described = (Arc<Model>, Option<Arc<StreamDevice>>);

/// Describes a model to libllama, so that what that would refuse is refused here.
fn described(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    gpu: Option<Device>,
) -> Result<Described, Error> {
    let (plan, monitor, further) = (Plan::hollow(index, 0), monitor(), &[]);
    let loading = Loading { index, plan: &plan, options, gpu, further, threads, monitor: &monitor };
    Ok(match gpu {
        Some(device) => (Arc::new(loading.described(device)?), None),
        None => {
            let (model, device) = loading.hollow()?;
            (Arc::new(model), Some(device))
        }
    })
}

/// The parameters of a context that drafts for the model `index`.
fn params(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    n_ubatch: u32,
    part: Part,
) -> ContextParams {
    let n_ctx = context_length(index, options).saturating_mul(options.shares());
    ContextParams {
        n_ctx,
        n_ubatch: n_ubatch.min(n_ctx.max(1)),
        n_seqs: options.sequences.max(1),
        n_outputs: options.sequences.max(1),
        threads: threads.clone(),
        n_threads: 1,
        offload: false,
        recall: options.recall,
        part,
    }
}

/// What a head takes in RAM and on the GPU: its weights, its context, and what is `held` beside it.
fn sums(context: &Context, gpu: Option<Device>, weights: Bytes, held: Bytes) -> [Bytes; 2] {
    let mut sums = [held + context.bookkeeping(), Bytes::ZERO];
    let here = gpu.map(Device::buffer_type);
    for taken in context.taken() {
        sums[usize::from(Some(taken.kind) == here)] += taken.context + taken.compute;
    }
    sums[usize::from(gpu.is_some())] += weights;
    sums
}

/// For `n` tokens that are computed together, for which `read` is read.
fn seconds(index: &Index, options: &LoadOptions, gpu: Option<Device>, read: Bytes, n: u32) -> f64 {
    let known = rates::known(index, threads::count(options.threads), options.repack);
    let rates = if gpu.is_some() { rates::UNKNOWN } else { known };
    rates.resident.seconds(read, n)
}
