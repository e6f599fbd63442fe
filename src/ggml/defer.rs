//! Weights that libllama leaves to us. Its loader reads one tensor after the other and repacks each on the same thread; no interface
//! of its lets somebody else do that. So while a model loads on this thread, buffers of the watched types note the tensors that are put
//! into them, and those that are wanted lose their name, by which the loader would find them in the file. Once the model is there, they
//! get it back, and their bytes from whoever has them. Where they come from is not known here.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;

use ggml_sys as sys;

use super::backend::{BufferType, Device};
use super::graph::Tensor;
use super::guard::guarded;
use super::made;
use super::model::{Model, ModelParams, OnProgress};
use super::result::Error;
use super::vfile::VirtualFile;
use crate::units::Bytes;

/// A model some of whose weights are still to be set.
#[derive(Debug)]
pub struct Unfilled {
    model: Model,
    tensors: Vec<Deferred>,
}

/// A tensor in its place, without its bytes.
#[derive(Debug)]
pub struct Deferred {
    tensor: Tensor,
    name: String,
    len: Bytes,
    whole: bool,
}

impl Model {
    /// Loads a model from a virtual file, but for the bytes of the tensors called as `wanted` says that come into memory of the CPU's or
    /// of the `devices`'.
    pub fn load_deferring(
        file: VirtualFile,
        params: &ModelParams,
        on_progress: OnProgress<'_>,
        devices: &[Device],
        wanted: HashSet<String>,
    ) -> Result<Unfilled, Error> {
        let cpu = Device::cpu()?;
        let mut kinds = cpu.extra_buffer_types();
        kinds.push(cpu.buffer_type());
        for device in devices {
            kinds.push(device.buffer_type());
            kinds.extend(device.host_buffer_type());
        }
        let (model, tensors) =
            deferring(&kinds, wanted, || Model::load_virtual(file, params, on_progress))?;
        Ok(Unfilled { model, tensors })
    }
}

impl Unfilled {
    /// What is to be set. A name may be there twice: as embedding and as output matrix.
    pub fn tensors(&self) -> &[Deferred] {
        &self.tensors
    }

    /// The model, once all of it is set.
    pub fn filled(self) -> Model {
        self.model
    }
}

impl Deferred {
    /// What it is called in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes in the file.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == Bytes::ZERO
    }

    /// Whether it must be set as a whole, because it is repacked on the way.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Sets its bytes from `offset` on, which may take the time of repacking them. Several threads may set different bytes of the
    /// same model.
    ///
    /// # Errors
    ///
    /// Bytes that it does not have, or a part of what must be set as a whole.
    pub fn set(&self, offset: Bytes, bytes: &[u8]) -> Result<(), Error> {
        let len = Bytes::from(bytes.len());
        let fits = offset.0.checked_add(len.0).is_some_and(|end| end <= self.len.0);
        if !fits || (self.whole && len != self.len) {
            return Err(Error::Invalid(format!("{len} at {offset} of tensor '{}'", self.name)));
        }
        let (data, offset) = (bytes.as_ptr().cast(), offset.usize());
        // SAFETY: the model is alive, because it lends this value; the bytes are there, and the tensor has room for them.
        unsafe { sys::ggml_backend_tensor_set(self.tensor.as_ptr(), data, offset, bytes.len()) };
        Ok(())
    }
}

type Init =
    unsafe extern "C" fn(sys::ggml_backend_buffer_t, *mut sys::ggml_tensor) -> sys::ggml_status;

thread_local! {
    /// The model that this thread loads.
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// A buffer that was made while a model loads.
#[derive(Clone, Copy)]
struct Watched {
    /// What it does with a tensor by itself.
    init: Option<Init>,
    /// Whether it got one: others are gone before the model is loaded.
    used: bool,
}

#[derive(Default)]
struct Watch {
    wanted: HashSet<String>,
    /// The buffers that were made, by address.
    buffers: HashMap<usize, Watched>,
    found: Vec<Deferred>,
}

/// Watches what is put into buffers of `kinds` while `load` runs; tensors that are called as `wanted` says are kept from libllama.
fn deferring<T>(
    kinds: &[BufferType],
    wanted: HashSet<String>,
    load: impl FnOnce() -> Result<T, Error>,
) -> Result<(T, Vec<Deferred>), Error> {
    kinds.iter().for_each(|&kind| made::watch(kind, made_here));
    WATCH.set(Some(Watch { wanted, ..Watch::default() }));
    let loaded = load();
    let Watch { buffers, found, .. } = WATCH.take().unwrap_or_default();
    let loaded = loaded?;
    for (buffer, Watched { init, .. }) in buffers.into_iter().filter(|(_, b)| b.used) {
        let buffer = buffer as *mut sys::ggml_backend_buffer;
        // SAFETY: a buffer with weights lives as long as its model.
        unsafe { (*buffer).iface.init_tensor = init };
    }
    for deferred in &found {
        // SAFETY: a tensor of the model that was just loaded, which nobody else has yet.
        unsafe { deferred.tensor.set_name(&deferred.name) };
    }
    Ok((loaded, found))
}

/// A buffer was made; it is watched if this thread loads a model.
fn made_here(buffer: NonNull<sys::ggml_backend_buffer>, size: usize) {
    WATCH.with_borrow_mut(|watch| {
        if let Some(watch) = watch {
            watch.note(buffer, size);
        }
    });
}

impl Watch {
    fn note(&mut self, buffer: NonNull<sys::ggml_backend_buffer>, size: usize) {
        if size == 0 {
            return;
        }
        let raw = buffer.as_ptr();
        // SAFETY: a fresh buffer that nobody else has yet.
        let own = unsafe { (*raw).iface.init_tensor.replace(init) };
        // One type may make its buffers by another's function, which was watched, too.
        if !own.is_some_and(|own| std::ptr::fn_addr_eq(own, init as Init)) {
            self.buffers.insert(raw as usize, Watched { init: own, used: false });
        }
    }
}

/// Whether memory of a type is the CPU's.
///
/// # Safety
///
/// A valid buffer type.
unsafe fn is_of_cpu(kind: sys::ggml_backend_buffer_type_t) -> bool {
    // SAFETY: by this function's contract; a type without a device is plain memory.
    unsafe {
        let device = sys::ggml_backend_buft_get_device(kind);
        device.is_null() || sys::ggml_backend_dev_type(device) == sys::GGML_BACKEND_DEVICE_TYPE_CPU
    }
}

/// Puts a tensor into a buffer as the buffer does, and keeps it from libllama if it is wanted.
unsafe extern "C" fn init(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
) -> sys::ggml_status {
    guarded(sys::GGML_STATUS_FAILED, || {
        let own = WATCH.with_borrow_mut(|watch| {
            let watched = watch.as_mut()?.buffers.get_mut(&(buffer as usize))?;
            watched.used = true;
            watched.init
        });
        if let Some(own) = own {
            // SAFETY: the buffer's own function, with the arguments that ggml gave.
            let status = unsafe { own(buffer, tensor) };
            if status != sys::GGML_STATUS_SUCCESS {
                return status;
            }
        }
        WATCH.with_borrow_mut(|watch| {
            if let Some(watch) = watch {
                // SAFETY: ggml passes a valid buffer and a tensor that lives as long as the model.
                unsafe { watch.take(buffer, tensor) };
            }
        });
        sys::GGML_STATUS_SUCCESS
    })
}

impl Watch {
    /// # Safety
    ///
    /// A valid buffer, and a tensor that lives as long as the model that is being loaded.
    unsafe fn take(&mut self, buffer: sys::ggml_backend_buffer_t, raw: *mut sys::ggml_tensor) {
        // SAFETY: by this function's contract.
        unsafe {
            let Some(tensor) = Tensor::from_raw(raw).filter(|t| t.root().0 == *t) else { return };
            let name = tensor.name();
            if !self.wanted.contains(&name) {
                return;
            }
            let kind = (*buffer).buft;
            // Memory of the CPU's that is not plain memory has another order.
            let whole = is_of_cpu(kind) && !sys::ggml_backend_buft_is_host(kind);
            tensor.set_name("");
            let len = Bytes::from(sys::ggml_nbytes(raw));
            self.found.push(Deferred { tensor, name, len, whole });
        }
    }
}
