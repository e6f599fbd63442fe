//! Makes tiny random GGUF models, one per architecture that libllama can build, so that tests need no downloaded file.
//!
//! Owns: from a row of [`table`] to a file. libllama itself is asked which tensors the row's metadata calls for
//! (`llama_model_init_from_user`), so no tensor list is kept here; the bytes are pseudo-random, seeded by tensor name,
//! the same on every run. Deliberately absent: vocabularies (`tokenizer.ggml.model` is `none`; tests feed token ids),
//! sensible text, and any knowledge of airrun.
#![allow(unsafe_code)]

mod table;

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::{LazyLock, OnceLock};

use ggml_sys as sys;

/// Number of token ids in every model: valid ids are `0..N_VOCAB`.
pub(crate) const N_VOCAB: u32 = 128;

/// One model to make.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    /// Unique in [`all`], fit for a file name.
    pub(crate) name: &'static str,
    /// `general.architecture` of the file.
    pub(crate) arch: &'static str,
    /// What a run over the file must give.
    pub(crate) outcome: Outcome,
    /// Metadata, later entries win over earlier ones and all of them over [`table::BASE`].
    keys: &'static [table::Keys],
    /// Optional tensors to leave out: how their names begin, or how they end if that starts with a dot.
    without: &'static [&'static str],
    /// Type of the matrices; vectors, norms and routers stay F32.
    stored: sys::ggml_type,
}

/// What a run over a model must give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Logits, the same whether streamed or resident.
    Logits,
    /// A sentence that says why not, streamed or resident: the model has no next-token logits.
    Refused,
}

/// A tensor libllama asked for: its name and shape, `ne[0]` contiguous, unused dimensions 1.
struct Tensor {
    name: CString,
    ne: [i64; 4],
}

/// Every model of the table, then one model per ggml type.
pub(crate) fn all() -> &'static [Spec] {
    static ALL: LazyLock<Vec<Spec>> = LazyLock::new(|| {
        let mut specs = table::ARCHS.to_vec();
        specs.extend(table::STORED.iter().flat_map(|(base, types)| {
            types.iter().map(move |&stored| Spec {
                name: stored_name(base, stored),
                stored,
                ..*base
            })
        }));
        specs
    });
    &ALL
}

/// Number of blocks (`block_count`) in the file of `spec`.
pub(crate) fn n_blocks(spec: &Spec) -> u32 {
    let count = spec.entries().rev().find_map(|(key, value)| match value {
        table::Value::U32(n) if *key == "block_count" => Some(*n),
        _ => None,
    });
    count.expect("BASE has a block count")
}

/// Writes the model of `spec` to `path`.
///
/// # Errors
///
/// What libllama said when it refused the metadata, or that the file cannot be written.
pub(crate) fn write(spec: &Spec, path: &Path) -> Result<(), String> {
    quieten();
    MAKES.set(true);
    let made = make(spec, path);
    MAKES.set(false);
    made
}

fn make(spec: &Spec, path: &Path) -> Result<(), String> {
    let metadata = Metadata::of(spec)?;
    let tensors = wanted_tensors(&metadata, spec)?;
    let path =
        path.to_str().and_then(|p| CString::new(p).ok()).ok_or("the path is not plain text")?;
    let stored: Vec<_> = tensors.iter().map(|t| (t, stored_type(spec, t))).collect();
    let bytes = stored.iter().map(|(t, ty)| n_bytes(t, *ty) + TENSOR_OVERHEAD).sum();
    let pool = Pool::new(bytes)?;
    let mut rows = RowPool::default();
    for (tensor, ty) in stored {
        let data = encode(ty, tensor, &mut rows)?;
        // SAFETY: the pool has room for this tensor, the data has its exact size, and the pool outlives the write below.
        unsafe {
            let made =
                sys::ggml_new_tensor(pool.0.as_ptr(), ty, tensor.n_dims(), tensor.ne.as_ptr());
            assert_eq!(sys::ggml_nbytes(made), data.len(), "{:?}", tensor.name);
            ptr::copy_nonoverlapping(data.as_ptr(), (*made).data.cast(), data.len());
            sys::ggml_set_name(made, tensor.name.as_ptr());
            sys::gguf_add_tensor(metadata.0.as_ptr(), made);
        }
    }
    // SAFETY: all tensors added above are alive in `pool`.
    let written = unsafe { sys::gguf_write_to_file(metadata.0.as_ptr(), path.as_ptr(), false) };
    if written { Ok(()) } else { Err(format!("cannot write {path:?}")) }
}

/// Writes the model at `path` once more, as two files with every second tensor each, in `dir`; returns the path of the first.
pub(crate) fn split(path: &Path, dir: &Path) -> PathBuf {
    let c_path = |path: &Path| c_string(path.to_str().expect("plain text"));
    let mut pool = ptr::null_mut();
    let params = sys::gguf_init_params { no_alloc: false, ctx: &raw mut pool };
    // SAFETY: the path ends in NUL; ggml makes a context of the file's tensors, which is freed with `_pool`.
    let whole = unsafe { sys::gguf_init_from_file(c_path(path).as_ptr(), params) };
    let whole = Metadata(NonNull::new(whole).expect("it was written here"));
    let _pool = Pool(NonNull::new(pool).expect("its tensors"));
    // SAFETY: alive, and asked for as many tensors as there are.
    let n = unsafe { sys::gguf_get_n_tensors(whole.0.as_ptr()) };
    let name = |part: u16| dir.join(format!("split-{:05}-of-00002.gguf", part + 1));
    for part in 0..2_u16 {
        // SAFETY: nothing is asked of it.
        let gguf = unsafe { sys::gguf_init_empty() };
        let made = Metadata(NonNull::new(gguf).expect("memory"));
        // SAFETY: all that is passed is alive until the file is written, and copied or read only.
        unsafe {
            if part == 0 {
                sys::gguf_set_kv(gguf, whole.0.as_ptr());
            }
            sys::gguf_set_val_u16(gguf, c"split.no".as_ptr(), part);
            sys::gguf_set_val_u16(gguf, c"split.count".as_ptr(), 2);
            sys::gguf_set_val_i32(gguf, c"split.tensors.count".as_ptr(), i32::try_from(n).unwrap());
            for i in (i64::from(part)..n).step_by(2) {
                let tensor =
                    sys::ggml_get_tensor(pool, sys::gguf_get_tensor_name(whole.0.as_ptr(), i));
                sys::gguf_add_tensor(gguf, tensor);
            }
            assert!(sys::gguf_write_to_file(gguf, c_path(&name(part)).as_ptr(), false));
        }
        drop(made);
    }
    name(0)
}

/// Room that ggml takes in a pool beside a tensor's own bytes: its header and the padding to alignment.
const TENSOR_OVERHEAD: usize = 512;

impl Spec {
    /// All metadata entries in the order in which they are set.
    fn entries(&self) -> impl DoubleEndedIterator<Item = &'static (&'static str, table::Value)> {
        [table::BASE].into_iter().chain(self.keys.iter().copied()).flatten()
    }
}

impl Tensor {
    fn n_dims(&self) -> i32 {
        let last = self.ne.iter().rposition(|&n| n > 1).unwrap_or(0);
        i32::try_from(last + 1).expect("at most four")
    }

    fn n_elements(&self) -> usize {
        usize::try_from(self.ne.iter().product::<i64>()).expect("libllama made this shape")
    }

    fn row(&self) -> usize {
        usize::try_from(self.ne[0]).expect("libllama made this shape")
    }

    fn name(&self) -> &str {
        self.name.to_str().expect("tensor names are ASCII")
    }
}

/// A GGUF under construction.
struct Metadata(NonNull<sys::gguf_context>);

impl Metadata {
    fn of(spec: &Spec) -> Result<Self, String> {
        // SAFETY: no preconditions.
        let made = Self(NonNull::new(unsafe { sys::gguf_init_empty() }).ok_or("out of memory")?);
        made.set("general.architecture", &table::Value::Str(spec.arch));
        for (key, value) in spec.entries() {
            let global = ["tokenizer.", "general.", "xielu."].iter().any(|p| key.starts_with(p));
            let key = if global { (*key).to_owned() } else { format!("{}.{key}", spec.arch) };
            made.set(&key, value);
        }
        Ok(made)
    }

    fn set(&self, key: &str, value: &table::Value) {
        use table::Value::{Bool, F32, I32s, Str, U32, U32s, U64s};
        let (gguf, key) = (self.0.as_ptr(), c_string(key));
        // SAFETY: `gguf` is alive, keys and strings end in NUL, and arrays are as long as stated; all are copied.
        unsafe {
            let array = |ty, data: *const c_void, n| {
                sys::gguf_set_arr_data(gguf, key.as_ptr(), ty, data, n)
            };
            match *value {
                U32(v) => sys::gguf_set_val_u32(gguf, key.as_ptr(), v),
                F32(v) => sys::gguf_set_val_f32(gguf, key.as_ptr(), v),
                Bool(v) => sys::gguf_set_val_bool(gguf, key.as_ptr(), v),
                Str(v) => sys::gguf_set_val_str(gguf, key.as_ptr(), c_string(v).as_ptr()),
                U32s(v) => array(sys::GGUF_TYPE_UINT32, v.as_ptr().cast(), v.len()),
                U64s(v) => array(sys::GGUF_TYPE_UINT64, v.as_ptr().cast(), v.len()),
                I32s(v) => array(sys::GGUF_TYPE_INT32, v.as_ptr().cast(), v.len()),
            }
        }
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: owned, and freed only here.
        unsafe { sys::gguf_free(self.0.as_ptr()) }
    }
}

/// A ggml context that holds the tensors' bytes until the file is written.
struct Pool(NonNull<sys::ggml_context>);

impl Pool {
    fn new(bytes: usize) -> Result<Self, String> {
        let params =
            sys::ggml_init_params { mem_size: bytes, mem_buffer: ptr::null_mut(), no_alloc: false };
        // SAFETY: ggml allocates the memory itself.
        NonNull::new(unsafe { sys::ggml_init(params) })
            .map(Self)
            .ok_or_else(|| "out of memory".into())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: owned, and freed only here.
        unsafe { sys::ggml_free(self.0.as_ptr()) }
    }
}

/// The tensors that libllama creates for this metadata, less those that `spec` leaves out.
///
/// libllama invents every optional tensor too. Most do no harm and exercise more of its graphs; the scales that belong
/// to NVFP4 weights are left out of every model.
fn wanted_tensors(metadata: &Metadata, spec: &Spec) -> Result<Vec<Tensor>, String> {
    let mut found: Vec<Tensor> = Vec::new();
    // SAFETY: the callback gets `found`, alive for the whole call, and runs on this thread; a NULL device ends the list,
    // so that no accelerator is touched; the model is freed before anything it refers to.
    unsafe {
        let mut no_devices: [sys::ggml_backend_dev_t; 1] = [ptr::null_mut()];
        let mut params = sys::llama_model_default_params();
        params.devices = no_devices.as_mut_ptr();
        params.n_gpu_layers = 0;
        params.load_mtp = true; // or it cannot name the tensors of a draft head
        let collect = (&raw mut found).cast();
        let model = sys::llama_model_init_from_user(
            metadata.0.as_ptr(),
            Some(collect_tensor),
            collect,
            params,
        );
        if model.is_null() {
            return Err(LAST_ERROR.take());
        }
        sys::llama_model_free(model);
    }
    // A tied embedding is created twice, once per role; in a file it is there once.
    let mut seen = HashSet::new();
    found.retain(|t| {
        let name = t.name();
        let of_nvfp4 = (name.ends_with(".scale") && !name.contains("gate_inp"))
            || name.ends_with(".input_scale");
        let left_out = spec.without.iter().any(|w| match w.strip_prefix('.') {
            Some(_) => name.ends_with(w),
            None => name.starts_with(w),
        });
        !of_nvfp4 && !left_out && seen.insert(t.name.clone())
    });
    Ok(found)
}

/// What libllama calls once per tensor of the model it is making; `found` is a `Vec<Tensor>`.
unsafe extern "C" fn collect_tensor(tensor: *mut sys::ggml_tensor, found: *mut c_void) {
    // SAFETY: libllama hands over a live tensor with a NUL-terminated name, and the vector passed to it.
    let (tensor, found) = unsafe { (&*tensor, &mut *found.cast::<Vec<Tensor>>()) };
    // SAFETY: as above; ggml keeps the NUL inside the array.
    let name = unsafe { CStr::from_ptr(tensor.name.as_ptr()) }.to_owned();
    found.push(Tensor { name, ne: tensor.ne });
}

/// The type a tensor has in the file: `spec.stored` for matrices that real files quantise, F32 for the rest.
fn stored_type(spec: &Spec, tensor: &Tensor) -> sys::ggml_type {
    const MATRICES: [&str; 11] = [
        "token_embd",
        "output.weight",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "ssm_in",
        "ssm_out",
    ];
    let name = tensor.name();
    if name.ends_with("tid2eid.weight") {
        return sys::GGML_TYPE_I32;
    }
    let matrix = tensor.n_dims() >= 2
        && name.ends_with(".weight")
        && MATRICES.iter().any(|m| name.contains(m))
        && !["norm", "gate_inp"].iter().any(|m| name.contains(m));
    // SAFETY: a table look-up by a valid type.
    let block = unsafe { sys::ggml_blck_size(spec.stored) };
    if matrix && tensor.ne[0] % block == 0 { spec.stored } else { sys::GGML_TYPE_F32 }
}

fn n_bytes(tensor: &Tensor, ty: sys::ggml_type) -> usize {
    // SAFETY: a table look-up by a valid type; the row is a multiple of its block.
    unsafe { sys::ggml_row_size(ty, tensor.ne[0]) * tensor.n_elements() / tensor.row() }
}

/// The tensor's bytes in the file.
fn encode(ty: sys::ggml_type, tensor: &Tensor, pool: &mut RowPool) -> Result<Vec<u8>, String> {
    if ty == sys::GGML_TYPE_I32 {
        // A table of expert numbers: every model has at least two experts.
        return Ok((0..tensor.n_elements())
            .flat_map(|i| i32::to_le_bytes((i % 2) as i32))
            .collect());
    }
    let mut random = Random::seeded(tensor.name());
    if ty == sys::GGML_TYPE_F32 {
        let values = (0..tensor.n_elements()).map(|_| value(tensor, &mut random));
        return Ok(values.flat_map(f32::to_le_bytes).collect());
    }
    let rows = pool.rows(ty, tensor.row())?;
    let n_rows = tensor.n_elements() / tensor.row();
    Ok((0..n_rows).flat_map(|_| rows.chunk(random.next())).copied().collect())
}

/// Encoded rows to draw from, by width: a model takes a few milliseconds instead of half a second to quantise.
#[derive(Default)]
struct RowPool(HashMap<usize, Rows>);

/// Rows of one width and type.
struct Rows(Vec<u8>);

impl RowPool {
    fn rows(&mut self, ty: sys::ggml_type, width: usize) -> Result<&Rows, String> {
        match self.0.entry(width) {
            Entry::Occupied(made) => Ok(made.into_mut()),
            Entry::Vacant(room) => Ok(room.insert(Rows::new(ty, width)?)),
        }
    }
}

impl Rows {
    const COUNT: usize = 32;

    /// `COUNT` rows of deviation near `1 / sqrt(width)`.
    fn new(ty: sys::ggml_type, width: usize) -> Result<Self, String> {
        let mut random = Random::seeded("rows");
        let n = i64::try_from(width).map_err(|e| e.to_string())?;
        // SAFETY: table look-ups by a valid type.
        let (row_bytes, block) = unsafe { (sys::ggml_row_size(ty, n), sys::ggml_type_size(ty)) };
        let mut bytes = vec![0_u8; Self::COUNT * row_bytes];
        if let Some(scale) = scale_of_searched(ty) {
            bytes.fill_with(|| random.next() as u8);
            bytes.chunks_exact_mut(block).for_each(|block| set_scale(ty, block, scale));
            return Ok(Self(bytes));
        }
        let deviation = (width as f32).sqrt().recip();
        let values: Vec<f32> =
            (0..Self::COUNT * width).map(|_| random.normal() * deviation).collect();
        // SAFETY: `values` holds `COUNT` rows and `bytes` has room for as many; these types need no importances.
        let written = unsafe {
            let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast());
            sys::ggml_quantize_chunk(ty, from, to, 0, Self::COUNT as i64, n, ptr::null())
        };
        if written == bytes.len() {
            Ok(Self(bytes))
        } else {
            Err(format!("type {ty} quantised short"))
        }
    }

    /// The bytes of one row.
    fn chunk(&self, which: u64) -> &[u8] {
        let row_bytes = self.0.len() / Self::COUNT;
        let start = (which % Self::COUNT as u64) as usize * row_bytes;
        &self.0[start..start + row_bytes]
    }
}

/// For the types whose codes ggml finds by search, after half a minute of preparation: the block scale, as the bits of
/// a half float, that gives random codes a deviation near 1/16. Any codes are valid.
fn scale_of_searched(ty: sys::ggml_type) -> Option<u16> {
    match ty {
        sys::GGML_TYPE_IQ1_S | sys::GGML_TYPE_IQ1_M => Some(0x2000), // 2^-7
        sys::GGML_TYPE_IQ2_XXS | sys::GGML_TYPE_IQ2_XS | sys::GGML_TYPE_IQ2_S => Some(0x1400), // 2^-10
        sys::GGML_TYPE_IQ3_XXS | sys::GGML_TYPE_IQ3_S => Some(0x1000), // 2^-11
        _ => None,
    }
}

/// Writes the scale of one block of a searched type.
fn set_scale(ty: sys::ggml_type, block: &mut [u8], scale: u16) {
    if ty == sys::GGML_TYPE_IQ1_M {
        // Its nibbles are the highest of the last four 16-bit words, lowest first.
        let words = block.len() - 8;
        for i in 0..4 {
            let high = &mut block[words + 2 * i + 1];
            *high = (*high & 0x0f) | (((scale >> (4 * i)) & 0xf) << 4) as u8;
        }
    } else {
        block[..2].copy_from_slice(&scale.to_le_bytes());
    }
}

/// One element. Matrices keep the size of what they multiply; gains and divisors stay near one; decays stay negative.
fn value(tensor: &Tensor, random: &mut Random) -> f32 {
    let (name, x) = (tensor.name(), random.normal());
    if name.ends_with("ssm_a") {
        return -0.1 - x.abs();
    }
    let gain =
        ["norm", "scale", "rope_freqs", "rope_factors", "ssm_d."].iter().any(|m| name.contains(m));
    if gain && !name.ends_with(".bias") {
        return 1.0 + 0.1 * x.clamp(-3.0, 3.0);
    }
    if tensor.n_dims() == 1 { 0.1 * x } else { x / (tensor.ne[0] as f32).sqrt() }
}

/// A stream of pseudo-random numbers (SplitMix64) that depends on its seed alone.
struct Random(u64);

impl Random {
    fn seeded(seed: &str) -> Self {
        // FNV-1a.
        Self(
            seed.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
            }),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Nearly normal, mean 0, deviation 1: the sum of four uniform numbers.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
        (sum as f32 / 65_536.0 - 2.0) * 3_f32.sqrt()
    }
}

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
    /// Whether this thread makes a model.
    static MAKES: Cell<bool> = const { Cell::new(false) };
}

/// Starts libllama once, and from then on keeps what it says to a thread that makes a model: [`write`] returns the errors. The rest goes
/// where it went before.
fn quieten() {
    OTHERS.get_or_init(|| {
        // The program's own way of listening first, for it is chosen once.
        airrun::ggml::Device::cpu().expect("there is a CPU");
        let (mut before, mut data) = (None, ptr::null_mut());
        // SAFETY: two places for the answer; the program's listener needs no data.
        unsafe {
            sys::llama_log_get(&raw mut before, &raw mut data);
            sys::llama_log_set(Some(keep_error), ptr::null_mut());
        }
        before
    });
}

/// Who listened before.
static OTHERS: OnceLock<sys::ggml_log_callback> = OnceLock::new();

unsafe extern "C" fn keep_error(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if !MAKES.get() {
        if let Some(Some(before)) = OTHERS.get() {
            // SAFETY: passed on as it came.
            unsafe { before(level, text, ptr::null_mut()) };
        }
    } else if level == sys::GGML_LOG_LEVEL_ERROR {
        // SAFETY: libllama passes a NUL-terminated string.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        LAST_ERROR.with_borrow_mut(|last| last.push_str(&text));
    }
}

/// "llama" stored as Q4_K is "llama-q4_K". Leaked: there are a few dozen names, made once.
fn stored_name(base: &Spec, stored: sys::ggml_type) -> &'static str {
    // SAFETY: a table look-up by a valid type, static and NUL-terminated.
    let ty = unsafe { CStr::from_ptr(sys::ggml_type_name(stored)) };
    format!("{}-{}", base.name, ty.to_string_lossy()).leak()
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("no NUL in the table")
}
