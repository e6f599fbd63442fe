//! Models that libllama has loaded: what they are and how they are loaded.

use std::any::Any;
use std::collections::HashSet;
use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use ggml_sys as sys;

use super::backend::{BufferType, Device};
use super::guard::guarded;
use super::lent::with_stream;
use super::result::{Error, not_null};
use super::texts::Texts;
use super::vfile::VirtualFile;

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
    pub(super) NonNull<sys::llama_model>,
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
