//! Contexts: what has been read of a text, and the passes that read more of it.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ggml_sys as sys;

use super::backend::{BufferType, Threadpool};
use super::model::{Model, Token};
use super::pooling::Pooling;
use super::recall::Recall;
use super::result::{Error, not_null};
use crate::units::Bytes;

/// How a context is made.
#[derive(Clone, Debug)]
pub struct ContextParams {
    /// Room for this many tokens.
    pub n_ctx: u32,
    /// Tokens per pass.
    pub n_ubatch: u32,
    /// Sequences that share the room; each may use all of it.
    pub n_seqs: u32,
    /// Tokens of a batch that give logits, at most.
    pub n_outputs: u32,
    /// Compute threads.
    pub threads: Arc<Threadpool>,
    /// Their number.
    pub n_threads: u32,
    /// Lets large batches bring weights from the CPU's memory to the device, instead of computing with them on the CPU.
    pub offload: bool,
    /// How it keeps what it has read.
    pub recall: Recall,
    /// What it computes.
    pub part: Part,
}

/// Blocks of a model of which stays what goes into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    all: [u32; Layers::MOST],
    n: usize,
}

impl Layers {
    /// The most blocks.
    pub const MOST: usize = 16;

    /// These blocks; `None` if they are too many.
    pub fn new(layers: &[u32]) -> Option<Layers> {
        let mut all = [0; Layers::MOST];
        all.get_mut(..layers.len())?.copy_from_slice(layers);
        Some(Layers { all, n: layers.len() })
    }

    /// They.
    pub fn as_slice(&self) -> &[u32] {
        &self.all[..self.n]
    }
}

/// What of a model a context computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The model.
    #[default]
    Model,
    /// The model; what is behind each token before the output stays, for a head to read.
    Hidden,
    /// The first of the heads that guess tokens ahead, which reads that.
    Head,
    /// The model; what goes into these blocks stays, for a head in a file of its own to read.
    Layers(Layers),
    /// A head in a file of its own (EAGLE3), which reads that: see [`Context::of_head`].
    Beside,
    /// One that fills in several tokens at a time (DFlash).
    Block,
}

impl Part {
    fn apply(self, raw: &mut sys::llama_context_params, other: Option<&Context>) {
        match self {
            Part::Head => raw.ctx_type = sys::LLAMA_CONTEXT_TYPE_MTP,
            Part::Beside => {
                // Whatever its file says.
                raw.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
                raw.attention_type = sys::LLAMA_ATTENTION_TYPE_CAUSAL;
            }
            Part::Block => {
                raw.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
                // What is filled in sees all of its block.
                raw.attention_type = sys::LLAMA_ATTENTION_TYPE_NON_CAUSAL;
            }
            Part::Model | Part::Hidden | Part::Layers(_) => {}
        }
        raw.ctx_other = other.map_or(std::ptr::null_mut(), |other| other.ptr.as_ptr());
    }
}

/// What a context and its model take of one kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The kind of memory.
    pub kind: BufferType,
    /// The KV cache, or whatever the model keeps of the text.
    pub context: Bytes,
    /// Activations.
    pub compute: Bytes,
}

/// One timeline of a model: its KV cache (or recurrent state) and compute buffers.
#[derive(Debug)]
pub struct Context {
    pub(super) ptr: NonNull<sys::llama_context>,
    model: Arc<Model>,
    n_seqs: u32,
    n_outputs: usize,
    pub(super) part: Part,
    pub(super) threads: Arc<Threadpool>,
    /// Read by compute threads through a pointer given to ggml.
    stop: Arc<AtomicBool>,
    /// Whether the last batch was computed, so that what stays of it is there.
    pub(super) is_computed: bool,
    /// What frees it.
    held: Arc<Held>,
    /// What keeps the context whose model it borrows from.
    #[expect(dead_code, reason = "dropped after its own")]
    other: Option<Arc<Held>>,
}

/// libllama's context, and what that has pointers into.
#[derive(Debug)]
struct Held {
    ptr: NonNull<sys::llama_context>,
    #[expect(dead_code, reason = "dropped after the context")]
    kept: (Arc<Model>, Arc<Threadpool>, Arc<AtomicBool>),
}

// SAFETY: nobody does anything with it but free it, once, on whatever thread; what is computed goes through the one `Context` that has it.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: ours, and the last who knew of it; all that it points to is still held.
        unsafe { sys::llama_free(self.ptr.as_ptr()) };
    }
}

// SAFETY: a context may move between threads; all methods that change it take `&mut self`. Who borrows from its model reads nothing else of
// it than which model that is, which does not change.
unsafe impl Send for Context {}

impl Context {
    /// A context of `model`. When `stop` becomes true, a computation under way ends with [`Error::Aborted`].
    pub fn new(
        model: Arc<Model>,
        params: &ContextParams,
        stop: Arc<AtomicBool>,
    ) -> Result<Context, Error> {
        Context::create(model, params, None, None, stop)
    }

    pub(super) fn create(
        model: Arc<Model>,
        params: &ContextParams,
        vectors: Option<Pooling>,
        other: Option<&Context>,
        stop: Arc<AtomicBool>,
    ) -> Result<Context, Error> {
        unsafe extern "C" fn on_abort(stop: *mut c_void) -> bool {
            // SAFETY: the pointer is that of the `Arc` kept in the context.
            unsafe { &*stop.cast::<AtomicBool>() }.load(Ordering::Relaxed)
        }
        params.recall.check(model.has_encoder())?;
        // SAFETY: no arguments; returns plain data.
        let mut raw = unsafe { sys::llama_context_default_params() };
        raw.n_ctx = params.n_ctx;
        raw.n_batch = params.n_ubatch;
        raw.n_ubatch = params.n_ubatch;
        // Logits of few tokens are all that is asked for; a model that reads a whole text at once gives all of them.
        // libllama has room for an output of each sequence, whatever else is asked for, and asserts that it was.
        raw.n_outputs_max =
            if model.is_diffusion() { 0 } else { params.n_outputs.max(params.n_seqs).max(1) };
        params.recall.apply(&mut raw);
        if let Some(pooling) = vectors {
            raw.embeddings = true;
            raw.n_outputs_max = 0;
            raw.pooling_type = match pooling {
                Pooling::OfModel => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
                Pooling::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
                Pooling::Score => sys::LLAMA_POOLING_TYPE_RANK,
            };
        }
        params.part.apply(&mut raw, other);
        raw.n_seq_max = params.n_seqs.max(1);
        // One buffer for all sequences: with a buffer each, tokens of prompts and of answers could not share a pass.
        raw.kv_unified = true;
        raw.n_threads = i32::try_from(params.n_threads).unwrap_or(1);
        raw.n_threads_batch = raw.n_threads;
        raw.op_offload = params.offload;
        raw.no_perf = true;
        raw.abort_callback = Some(on_abort);
        raw.abort_callback_data = Arc::as_ptr(&stop).cast_mut().cast();
        let _call = super::log::call();
        // SAFETY: a valid model; the parameters are plain data, and the callback's data lives as long as the context.
        let ptr = unsafe { sys::llama_init_from_model(model.0.as_ptr(), raw) };
        let ptr = not_null("making room for the context", ptr)?;
        let pool = params.threads.as_ptr();
        // SAFETY: a valid context and a pool that is kept alive with it.
        unsafe { sys::llama_attach_threadpool(ptr.as_ptr(), pool, pool) };
        let (n_seqs, n_outputs) = (raw.n_seq_max, raw.n_outputs_max as usize);
        let threads = params.threads.clone();
        let held = Arc::new(Held { ptr, kept: (model.clone(), threads.clone(), stop.clone()) });
        let mut context = Context {
            ptr,
            model,
            n_seqs,
            n_outputs,
            part: params.part,
            threads,
            stop,
            is_computed: false,
            held,
            other: other.map(|other| other.held.clone()),
        };
        context.keep_hidden()?;
        Ok(context)
    }

    /// Sequences it has room for.
    pub fn n_seqs(&self) -> u32 {
        self.n_seqs
    }

    /// Tokens of a batch that may have results.
    pub(super) fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    /// Tokens it has room for; may be more than asked.
    pub fn n_ctx(&self) -> u32 {
        // SAFETY: a valid context.
        unsafe { sys::llama_n_ctx(self.ptr.as_ptr()) }
    }

    /// What it takes of each kind of memory; what it would take, if the model is only described.
    pub fn taken(&self) -> Vec<Taken> {
        // A device has one kind or two, and so has the CPU.
        const ROWS: usize = 64;
        let mut rows = [sys::ggml_sys_breakdown_row::default(); ROWS];
        // SAFETY: a valid context, and room for as many rows.
        let n =
            unsafe { sys::ggml_sys_breakdown(self.ptr.as_ptr(), rows.as_mut_ptr(), rows.len()) };
        let taken = |row: &sys::ggml_sys_breakdown_row| {
            Some(Taken {
                kind: BufferType(NonNull::new(row.buft)?),
                context: Bytes::from(row.context),
                compute: Bytes::from(row.compute),
            })
        };
        rows[..n.min(ROWS)].iter().filter_map(taken).collect()
    }

    /// What it keeps besides buffers of ggml's: graphs, the scheduler's tables, and what is noted of each token. No allocation of it
    /// is reported; what is said here is a bound of what gets memory, by the sizes of their structures. (A scheduler also takes
    /// addresses for as many copies of tensors as a graph could need, which get no memory.)
    pub fn bookkeeping(&self) -> Bytes {
        // Three graphs with a tensor and places in three tables for each, and the scheduler's and the allocator's tables.
        const NODE: Bytes = Bytes(2048);
        // Its position, its sequences as bits, and its place in the order of each of them; twice where windows have a cache of their own.
        const TOKEN: Bytes = Bytes(2 * 128);
        // SAFETY: a valid context.
        let nodes = unsafe { sys::ggml_sys_graph_nodes(self.ptr.as_ptr()) };
        NODE * nodes as u64 + TOKEN * u64::from(self.n_ctx())
    }

    /// Runs `tokens` through the model, behind what it has seen; afterwards the last one's logits are there.
    pub fn decode(&mut self, tokens: &[Token]) -> Result<(), Error> {
        // SAFETY: see `run`.
        self.run("computing the answer", tokens, |ctx, batch| unsafe {
            sys::llama_decode(ctx, batch)
        })
    }

    /// Runs `tokens` through the encoder.
    pub fn encode(&mut self, tokens: &[Token]) -> Result<(), Error> {
        // SAFETY: see `run`.
        self.run("encoding the prompt", tokens, |ctx, batch| unsafe {
            sys::llama_encode(ctx, batch)
        })
    }

    /// Hands a batch of known tokens to `call`, with a valid context and a batch that lives during the call.
    fn run(
        &mut self,
        what: &'static str,
        tokens: &[Token],
        call: impl FnOnce(*mut sys::llama_context, sys::llama_batch) -> i32,
    ) -> Result<(), Error> {
        let vocab = self.model.vocab();
        if let Some(bad) = tokens.iter().find(|&&t| !vocab.contains(t)) {
            return Err(Error::Invalid(format!(
                "token {bad} is not in the vocabulary of {}",
                vocab.len()
            )));
        }
        if tokens.is_empty() {
            return Err(Error::Invalid("there are no tokens to run".into()));
        }
        let n =
            i32::try_from(tokens.len()).map_err(|_| Error::Invalid("too many tokens".into()))?;
        // SAFETY: libllama only reads the tokens, although its type says otherwise.
        let batch = unsafe { sys::llama_batch_get_one(tokens.as_ptr().cast_mut(), n) };
        let _call = super::log::call();
        let leased = self.threads.lease();
        let code = call(self.ptr.as_ptr(), batch);
        drop(leased);
        self.outcome(what, code)
    }

    /// What libllama's answer to a batch means.
    pub(super) fn outcome(&self, what: &'static str, code: i32) -> Result<(), Error> {
        match code {
            0 => Ok(()),
            1 => Err(Error::Invalid("the context is full".into())),
            2 => Err(Error::Aborted),
            -2 => Err(Error::NoMemory { what: "the computation" }),
            _ if self.stop.load(Ordering::Relaxed) => Err(Error::Aborted),
            _ => Err(Error::Null { what, why: super::log::take_error() }),
        }
    }

    /// The logits after the last token of the last batch: one number per token of the vocabulary.
    pub fn logits(&self) -> Result<&[f32], Error> {
        // SAFETY: a valid context; -1 is the last output, NULL if there is none.
        let logits = unsafe { sys::llama_get_logits_ith(self.ptr.as_ptr(), -1) };
        let logits = not_null("reading the logits", logits)?;
        // SAFETY: libllama says that the row holds as many numbers as the vocabulary has tokens, until the next batch.
        Ok(unsafe { std::slice::from_raw_parts(logits.as_ptr(), self.model.vocab().len()) })
    }

    /// Forgets everything from position `n` on. False if this memory cannot forget a part (recurrent states): then nothing
    /// changed, and `n` = 0 is the way out.
    pub fn truncate(&mut self, n: usize) -> bool {
        // SAFETY: a valid context; its memory is NULL for models that keep none.
        let memory = unsafe { sys::llama_get_memory(self.ptr.as_ptr()) };
        if memory.is_null() {
            return true;
        }
        let Ok(n) = i32::try_from(n) else { return true };
        if n == 0 {
            // SAFETY: a valid memory.
            unsafe { sys::llama_memory_clear(memory, true) };
            return true;
        }
        // SAFETY: a valid memory; sequence 0 is the only one.
        unsafe { sys::llama_memory_seq_rm(memory, 0, n, -1) }
    }

    /// The model it belongs to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}
