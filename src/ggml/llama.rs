//! libllama: models, contexts, vocabularies.

use std::any::Any;
use std::collections::HashSet;
use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ggml_sys as sys;

use super::backend::{BufferType, Device, Threadpool};
use super::guard::guarded;
use super::hidden::Layers;
use super::lent::with_stream;
use super::pooling::Pooling;
use super::recall::Recall;
use super::result::{Error, not_null};
use super::texts::Texts;
use super::vfile::VirtualFile;
use crate::units::Bytes;

/// A token's number in the vocabulary.
pub type Token = i32;

/// What must live as long as something does that C has pointers into.
pub type Keep = Option<Arc<dyn Any + Send + Sync>>;

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct ModelParams {
    /// The devices that run the layers, in the order of computation, each with how many it does: what comes after the last layer
    /// counts as one more. The CPU if there are none.
    pub devices: Vec<(Device, usize)>,
    /// Regular expressions (ECMAScript) on tensor names, and the buffer type of the tensors that match; the first match counts.
    pub overrides: Vec<(String, BufferType)>,
    /// Lets ggml repack weights for this CPU's instructions where it can.
    pub repack: bool,
    /// Describes the model only: nothing of it, nor of its contexts, gets memory, and nothing can be computed.
    pub describe_only: bool,
    /// Loads the heads that guess tokens ahead, too.
    pub heads: bool,
    /// What the device and the buffer types are part of, where they do not live for ever: the model holds it.
    pub keep: Keep,
}

/// Told how much of a model's bytes libllama has loaded (0 to 1); says whether it is to go on.
pub type OnProgress<'a> = &'a dyn Fn(f32) -> bool;

/// A loaded model, and what it lives on.
#[derive(Debug)]
pub struct Model(
    NonNull<sys::llama_model>,
    pub(super) Texts,
    #[expect(dead_code, reason = "dropped after the model")] Keep,
);

// SAFETY: a model is read-only after loading; libllama allows its use from several threads.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a model from a virtual file.
    pub fn load_virtual(
        file: VirtualFile,
        params: &ModelParams,
        on_progress: OnProgress<'_>,
    ) -> Result<Model, Error> {
        super::init();
        let _call = super::log::call();
        with_params(params, on_progress, |raw| {
            with_stream(file, |stream| {
                // SAFETY: a valid stream, and parameters whose pointers live during the call.
                let model =
                    unsafe { sys::llama_model_load_from_file_ptr(stream.as_ptr().cast(), raw) };
                let model = not_null("loading the model", model)?;
                Ok(Model(model, Texts::default(), params.keep.clone()))
            })
        })
    }

    /// Its vocabulary.
    pub fn vocab(&self) -> Vocab<'_> {
        // SAFETY: a valid model always has a vocabulary object, which lives as long as it.
        let vocab = unsafe { sys::llama_model_get_vocab(self.0.as_ptr()) };
        Vocab(NonNull::new(vocab.cast_mut()).expect("a model has a vocabulary"), self)
    }

    /// Whether there is an encoder, which reads the prompt (T5).
    pub fn has_encoder(&self) -> bool {
        // SAFETY: a valid model.
        unsafe { sys::llama_model_has_encoder(self.0.as_ptr()) }
    }

    /// Whether there is a decoder: without one, the model makes no text.
    pub fn has_decoder(&self) -> bool {
        // SAFETY: a valid model.
        unsafe { sys::llama_model_has_decoder(self.0.as_ptr()) }
    }

    /// Whether what it remembers of a sequence is, wholly or partly, one state, which cannot be taken apart by tokens.
    pub fn has_state(&self) -> bool {
        // SAFETY: a valid model.
        unsafe {
            sys::llama_model_is_recurrent(self.0.as_ptr())
                || sys::llama_model_is_hybrid(self.0.as_ptr())
        }
    }

    /// Numbers in a vector that it makes.
    pub fn n_vector(&self) -> usize {
        // SAFETY: a valid model.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.0.as_ptr()) }).unwrap_or(0)
    }

    /// Numbers in a row of what goes from block to block.
    pub fn n_embd(&self) -> usize {
        // SAFETY: a valid model.
        usize::try_from(unsafe { sys::llama_model_n_embd(self.0.as_ptr()) }).unwrap_or(0)
    }

    /// Its blocks; heads that guess tokens ahead are none.
    pub fn n_blocks(&self) -> u32 {
        // SAFETY: a valid model.
        u32::try_from(unsafe { sys::llama_model_n_layer(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(super) fn as_ptr(&self) -> *const sys::llama_model {
        self.0.as_ptr()
    }

    /// How many tokens some of its blocks look back at most, if they do not look at all.
    pub fn window(&self) -> Option<usize> {
        // SAFETY: a valid model.
        let window = unsafe { sys::llama_model_n_swa(self.0.as_ptr()) };
        usize::try_from(window).ok().filter(|&window| window > 0)
    }

    /// Whether it fills in a whole text at once instead of adding token after token; such models keep no memory.
    pub fn is_diffusion(&self) -> bool {
        // SAFETY: a valid model.
        unsafe { sys::llama_model_is_diffusion(self.0.as_ptr()) }
    }

    /// Whether it can compute several sequences at once: models with an encoder, and those without memory, cannot.
    pub fn batches(&self) -> bool {
        !self.has_encoder() && self.has_decoder() && !self.is_diffusion()
    }

    /// The token that begins the decoder's text, in models with an encoder.
    pub fn decoder_start(&self) -> Option<Token> {
        // SAFETY: a valid model.
        let token = unsafe { sys::llama_model_decoder_start_token(self.0.as_ptr()) };
        (token >= 0).then_some(token)
    }

    /// The names of its tensors that libllama put into memory of other kinds. A tensor may be there twice, here and elsewhere.
    pub fn outside_of(&self, kind: BufferType) -> HashSet<String> {
        self.tensors(|of| of != kind)
    }

    /// The names of its tensors that libllama put into memory of this kind.
    pub fn inside_of(&self, kind: BufferType) -> HashSet<String> {
        self.tensors(|of| of == kind)
    }

    /// The names of its tensors in memory of the kinds that are `wanted`.
    fn tensors(&self, wanted: impl Fn(BufferType) -> bool) -> HashSet<String> {
        // SAFETY: a valid model; without room, only the number comes back.
        let n = unsafe { sys::ggml_sys_model_tensors(self.0.as_ptr(), std::ptr::null_mut(), 0) };
        let mut tensors = vec![std::ptr::null(); n];
        // SAFETY: room for all of them.
        unsafe { sys::ggml_sys_model_tensors(self.0.as_ptr(), tensors.as_mut_ptr(), n) };
        let name = |&tensor: &*const sys::ggml_tensor| {
            // SAFETY: tensors of this model, which have a buffer, of which even that of a described model has a type.
            unsafe {
                let buffer = tensor.as_ref()?.buffer.as_ref()?;
                let kind = BufferType(NonNull::new(buffer.buft)?);
                wanted(kind).then(|| super::owned((*tensor).name.as_ptr()))
            }
        };
        tensors.iter().filter_map(name).collect()
    }

    /// The context length it was trained for.
    pub fn n_ctx_train(&self) -> u32 {
        // SAFETY: a valid model.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.0.as_ptr()) }).unwrap_or(0)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: ours, and every context of it holds an `Arc` that is gone by now.
        unsafe { sys::llama_model_free(self.0.as_ptr()) };
    }
}

/// Calls `body` with C's parameters.
fn with_params<T>(
    params: &ModelParams,
    on_progress: OnProgress<'_>,
    body: impl FnOnce(sys::llama_model_params) -> T,
) -> T {
    unsafe extern "C" fn report(share: f32, to: *mut c_void) -> bool {
        // SAFETY: the pointer is that of `on_progress`, which outlives the load.
        guarded(false, || unsafe { *to.cast::<OnProgress<'_>>() }(share))
    }
    let patterns: Vec<CString> = params
        .overrides
        .iter()
        .map(|(pattern, _)| CString::new(pattern.as_str()).unwrap_or_default())
        .collect();
    let alone = c"^$";
    let mut overrides: Vec<_> = patterns
        .iter()
        .zip(&params.overrides)
        .map(|(pattern, (_, buft))| sys::llama_model_tensor_buft_override {
            pattern: pattern.as_ptr(),
            buft: buft.0.as_ptr(),
        })
        .collect();
    // Several devices would compute several batches at a time, with buffers for each, where nothing is overridden; there is one batch.
    if let (true, Some((device, _))) = (overrides.is_empty(), params.devices.get(1)) {
        let (pattern, buft) = (alone.as_ptr(), device.buffer_type().0.as_ptr());
        overrides.push(sys::llama_model_tensor_buft_override { pattern, buft });
    }
    overrides.push(sys::llama_model_tensor_buft_override {
        pattern: std::ptr::null(),
        buft: std::ptr::null_mut(),
    });
    let mut devices: Vec<_> = params.devices.iter().map(|(d, _)| d.0.as_ptr()).collect();
    devices.push(std::ptr::null_mut());
    // libllama reads a share for each device that there could be. Whole numbers of layers divide without a remainder worth a layer.
    let mut shares = vec![0.0_f32; most_devices().max(params.devices.len())];
    for (share, (_, layers)) in shares.iter_mut().zip(&params.devices) {
        #[expect(clippy::cast_precision_loss, reason = "few layers")]
        let layers = *layers as f32;
        *share = layers;
    }
    // SAFETY: no arguments; returns plain data.
    let mut raw = unsafe { sys::llama_model_default_params() };
    raw.devices = devices.as_mut_ptr();
    raw.tensor_buft_overrides = overrides.as_ptr();
    raw.n_gpu_layers = if params.devices.is_empty() { 0 } else { i32::MAX };
    raw.tensor_split = if params.devices.len() > 1 { shares.as_ptr() } else { std::ptr::null() };
    raw.split_mode = sys::LLAMA_SPLIT_MODE_LAYER;
    raw.load_mode = sys::LLAMA_LOAD_MODE_NONE;
    raw.use_extra_bufts = params.repack;
    raw.no_alloc = params.describe_only;
    raw.load_mtp = params.heads;
    raw.progress_callback = Some(report);
    raw.progress_callback_user_data = (&raw const on_progress).cast_mut().cast();
    body(raw)
}

/// How many devices libllama has room for.
fn most_devices() -> usize {
    // SAFETY: no arguments; returns a constant.
    unsafe { sys::llama_max_devices() }
}

/// A model's vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Vocab<'a>(NonNull<sys::llama_vocab>, pub(super) &'a Model);

/// Why a token's text is found in texts as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// It controls: a role, an end.
    Control,
    /// Somebody added it.
    Added,
}

impl Vocab<'_> {
    /// Number of tokens.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a vocabulary is not a collection to be emptied"
    )]
    pub fn len(self) -> usize {
        // SAFETY: a valid vocabulary.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(super) fn as_ptr(self) -> *const sys::llama_vocab {
        self.0.as_ptr()
    }

    /// Whether it can turn text into tokens at all.
    pub fn is_none(self) -> bool {
        // SAFETY: a valid vocabulary.
        unsafe { sys::llama_vocab_type(self.0.as_ptr()) == sys::LLAMA_VOCAB_TYPE_NONE }
    }

    /// The bytes a token stands for: not always whole UTF-8. Control tokens give nothing unless `special`.
    pub fn piece(self, token: Token, special: bool) -> Vec<u8> {
        if !self.contains(token) || self.is_none() {
            return Vec::new();
        }
        let mut bytes = vec![0_u8; 32];
        loop {
            let room = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: a token of this vocabulary, and room for as many bytes as said.
            let n = unsafe {
                sys::llama_token_to_piece(
                    self.0.as_ptr(),
                    token,
                    bytes.as_mut_ptr().cast(),
                    room,
                    0,
                    special,
                )
            };
            if n >= 0 {
                bytes.truncate(n as usize);
                return bytes;
            }
            bytes.resize(n.unsigned_abs() as usize, 0);
        }
    }

    /// Why a token's text is found in texts as a whole, if it is.
    pub fn special(self, token: Token) -> Option<Special> {
        if !self.contains(token) {
            return None;
        }
        // SAFETY: a valid vocabulary and a token that is in it.
        let attributes = unsafe { sys::llama_vocab_get_attr(self.0.as_ptr(), token) };
        let has = |attribute: sys::llama_token_attr| attributes & attribute != 0;
        if has(sys::LLAMA_TOKEN_ATTR_CONTROL) {
            Some(Special::Control)
        } else {
            has(sys::LLAMA_TOKEN_ATTR_USER_DEFINED).then_some(Special::Added)
        }
    }

    /// Whether `token` is one of this vocabulary.
    pub fn contains(self, token: Token) -> bool {
        usize::try_from(token).is_ok_and(|t| t < self.len())
    }

    /// Whether `token` ends a generation (end of text, of turn, of message: every one the model knows).
    pub fn is_eog(self, token: Token) -> bool {
        // SAFETY: a valid vocabulary and a token that is in it.
        self.contains(token) && unsafe { sys::llama_vocab_is_eog(self.0.as_ptr(), token) }
    }

    /// Beginning of sequence.
    pub fn bos(self) -> Option<Token> {
        // SAFETY: a valid vocabulary.
        Some(unsafe { sys::llama_vocab_bos(self.0.as_ptr()) }).filter(|&t| self.contains(t))
    }

    /// End of sequence.
    pub fn eos(self) -> Option<Token> {
        // SAFETY: a valid vocabulary.
        Some(unsafe { sys::llama_vocab_eos(self.0.as_ptr()) }).filter(|&t| self.contains(t))
    }

    /// What stands before a beginning, before an end, and where the middle between them is to be written, in models made for that.
    pub fn fill_in(self) -> Option<[Token; 3]> {
        // SAFETY: a valid vocabulary.
        let tokens = unsafe {
            [
                sys::llama_vocab_fim_pre(self.0.as_ptr()),
                sys::llama_vocab_fim_suf(self.0.as_ptr()),
                sys::llama_vocab_fim_mid(self.0.as_ptr()),
            ]
        };
        tokens.iter().all(|&t| self.contains(t)).then_some(tokens)
    }

    /// What stands between two texts, where each of them ends with EOS besides.
    pub fn between_texts(self) -> Option<Token> {
        // SAFETY: a valid vocabulary.
        let (both, sep) = unsafe {
            let both = sys::llama_vocab_get_add_eos(self.0.as_ptr())
                && sys::llama_vocab_get_add_sep(self.0.as_ptr());
            (both, sys::llama_vocab_sep(self.0.as_ptr()))
        };
        (both && sep >= 0).then_some(sep)
    }

    /// Whether texts begin with BOS.
    pub fn adds_bos(self) -> bool {
        // SAFETY: a valid vocabulary.
        unsafe { sys::llama_vocab_get_add_bos(self.0.as_ptr()) }
    }
}

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
