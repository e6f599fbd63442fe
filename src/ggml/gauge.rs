//! How fast a device multiplies: a matrix of some type and shape times a few columns, timed on the CPU with the threads that
//! will compute the model, or on a GPU.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ggml_sys as sys;

use super::backend::{Backend, BufferType, Device, Threadpool};
use super::graph::Graph;
use super::result::{Error, not_null};
use super::tensors::Tensors;
use crate::units::Bytes;

/// What to multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matmul {
    /// ggml's number of the matrices' type.
    pub ty: u32,
    /// Elements of a row; a multiple of the type's block.
    pub row: u64,
    /// Rows of each matrix.
    pub rows: u64,
    /// How many matrices, used one after the other: enough of them do not fit the caches.
    pub matrices: usize,
    /// Columns that each is multiplied with: tokens of a batch.
    pub tokens: u64,
    /// Whether they are the experts of a mixture: one stack of all matrices, each multiplied with tokens of its own.
    pub experts: bool,
    /// Whether the matrices are repacked for this device, where ggml can.
    pub repack: bool,
    /// Where to multiply.
    pub device: Device,
}

/// Memory that ggml allocated for tensors.
struct Memory(NonNull<sys::ggml_backend_buffer>);

impl Matmul {
    /// What all matrices take at their fastest, measured for about `limit`, and for a few times that where others compute, too; and
    /// their bytes.
    ///
    /// # Errors
    ///
    /// A type that ggml does not know or the device cannot multiply with, or too little memory.
    pub fn time(
        &self,
        threads: Arc<Threadpool>,
        limit: Duration,
    ) -> Result<(Duration, Bytes), Error> {
        let device = self.device;
        let mut backend = Backend::new(device, Some(threads))?;
        let weights = Tensors::new(self.matrices)?;
        let work = Tensors::new(2 * self.matrices + 8)?;
        let (n, [row, rows, tokens, count]) = self.shape()?;
        // SAFETY: contexts with room for these tensors, and a type and sizes that ggml accepts; contexts and memory are dropped
        // after the computation.
        unsafe {
            let matrices: Vec<_> = (0..n)
                .map(|_| sys::ggml_new_tensor_3d(weights.as_ptr(), self.ty, row, rows, count))
                .collect();
            let (a, f32, i32) = (work.as_ptr(), sys::GGML_TYPE_F32, sys::GGML_TYPE_I32);
            let columns = match self.experts {
                true => sys::ggml_new_tensor_3d(a, f32, row, 1, tokens),
                false => sys::ggml_new_tensor_2d(a, f32, row, tokens),
            };
            let ids = self.experts.then(|| sys::ggml_new_tensor_2d(a, i32, 1, tokens));
            let graph = sys::ggml_new_graph_custom(a, graph_size(self.matrices), false);
            for &matrix in &matrices {
                let product = match ids {
                    Some(ids) => sys::ggml_mul_mat_id(a, matrix, columns, ids),
                    None => sys::ggml_mul_mat(a, matrix, columns),
                };
                sys::ggml_build_forward_expand(graph, product);
            }
            let graph = not_null("measuring", graph)?;
            let graph = Graph::from_raw(graph);
            let repacked =
                if self.repack { repacked_type(device, &graph, matrices[0]) } else { None };
            if !sys::ggml_backend_dev_supports_op(device.0.as_ptr(), graph.node(0).as_ptr()) {
                return Err(Error::Invalid(format!("weights of type {}", self.ty)));
            }
            let plain = device.buffer_type();
            let _weights = Memory::new(&weights, repacked.unwrap_or(plain))?;
            let bytes = sys::ggml_nbytes(matrices[0]);
            // A byte that makes small ordinary numbers, of scales too: none that a kernel is slow with.
            let numbers = vec![0x21_u8; bytes];
            for &matrix in &matrices {
                sys::ggml_backend_tensor_set(matrix, numbers.as_ptr().cast(), 0, bytes);
            }
            let memory = Memory::new(&work, plain)?;
            sys::ggml_backend_buffer_clear(memory.0.as_ptr(), 0);
            if let Some(ids) = ids {
                // Each token uses one of them, in turn.
                let ids_of: Vec<i32> = (0..tokens).map(|t| (t % count) as i32).collect();
                sys::ggml_backend_tensor_set(
                    ids,
                    ids_of.as_ptr().cast(),
                    0,
                    size_of_val(&ids_of[..]),
                );
            }
            let best = fastest(&mut backend, &graph, limit)?;
            Ok((best, Bytes::from(bytes) * n as u64))
        }
    }

    /// How many tensors there are, and their row, their rows, the columns of all and how many matrices are in each, as ggml takes them.
    fn shape(&self) -> Result<(usize, [i64; 4]), Error> {
        let known =
            i64::try_from(self.row).is_ok() && self.ty < sys::GGML_TYPE_COUNT && self.row > 0;
        // SAFETY: a type that ggml knows.
        let block = if known { unsafe { sys::ggml_blck_size(self.ty) } } else { 0 };
        if block <= 0 || !self.row.is_multiple_of(block.unsigned_abs()) {
            return Err(Error::Invalid(format!(
                "rows of {} elements of type {}",
                self.row, self.ty
            )));
        }
        let (n, each) = match self.experts {
            true => (1, self.matrices as u64),
            false => (self.matrices, 1),
        };
        let shape = [self.row, self.rows, self.tokens.saturating_mul(each), each];
        let [Ok(row), Ok(rows), Ok(tokens), Ok(count)] = shape.map(i64::try_from) else {
            return Err(Error::Invalid("a matrix of this size".into()));
        };
        Ok((n, [row, rows, tokens, count]))
    }
}

/// Room for as many products, each of a matrix and the one tensor of columns.
fn graph_size(matrices: usize) -> usize {
    matrices + 8
}

/// What a piece of the graph is to take at least: starting threads is little of it.
const PIECE: Duration = Duration::from_millis(4);
/// How many times the limit measuring may take in all, where others compute, too.
const PATIENCE: u32 = 4;

/// What all products of `graph`, which are alike, take at the pace of the fastest piece of it. They are gone through twice, and for
/// `limit`, as far as patience lasts: where other programs compute, threads wait for each other in every product, and all of the
/// graph may take minutes; so the clock is looked at between pieces.
fn fastest(backend: &mut Backend, graph: &Graph<'_>, limit: Duration) -> Result<Duration, Error> {
    let n = graph.n_nodes();
    // Wakes everything up.
    backend.compute(graph, 0..1)?;
    let begin = Instant::now();
    let (mut size, mut at, mut seen) = (1, 0, 0);
    let (mut best, mut any) = (f64::INFINITY, f64::INFINITY);
    while seen < 2 * n || begin.elapsed() < limit {
        let end = n.min(at + size);
        let start = Instant::now();
        backend.compute(graph, at..end)?;
        let took = start.elapsed();
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand products")]
        let each = took.as_secs_f64() / (end - at) as f64;
        any = any.min(each);
        if took >= PIECE || end - at == n {
            best = best.min(each);
        } else if end - at == size {
            size = n.min(size * 2);
        }
        seen += end - at;
        at = end % n;
        if begin.elapsed() >= limit * PATIENCE && any.is_finite() {
            break;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "at most a thousand products")]
    let all = if best.is_finite() { best } else { any } * n as f64;
    Ok(Duration::from_secs_f64(all))
}

/// The first of the device's special kinds of memory that takes `matrix` as an operand of the graph's first node, asked for
/// in the way that libllama does.
///
/// # Safety
///
/// `matrix` must be a valid tensor without memory, and an operand of the first node.
unsafe fn repacked_type(
    device: Device,
    graph: &Graph<'_>,
    matrix: *mut sys::ggml_tensor,
) -> Option<BufferType> {
    let product = graph.node(0).as_ptr();
    device.extra_buffer_types().into_iter().find(|kind| {
        // SAFETY: a valid device and buffer type. The matrix gets an empty buffer for the length of a question.
        unsafe {
            let buffer = sys::ggml_backend_buft_alloc_buffer(kind.0.as_ptr(), 0);
            (*matrix).buffer = buffer;
            let takes = sys::ggml_backend_dev_supports_op(device.0.as_ptr(), product);
            (*matrix).buffer = null_mut();
            sys::ggml_backend_buffer_free(buffer);
            takes
        }
    })
}

impl Memory {
    /// Memory for all tensors of a context that have none.
    fn new(tensors: &Tensors, kind: BufferType) -> Result<Memory, Error> {
        // SAFETY: a valid context and buffer type.
        let buffer = unsafe {
            sys::ggml_backend_alloc_ctx_tensors_from_buft(tensors.as_ptr(), kind.0.as_ptr())
        };
        not_null("measuring", buffer).map(Memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::ggml_backend_buffer_free(self.0.as_ptr()) };
    }
}
