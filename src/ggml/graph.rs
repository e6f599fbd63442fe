//! Compute graphs and tensors as the stream device sees them: read, and cut.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use ggml_sys as sys;

/// A graph that libllama handed over for the length of one call.
#[derive(Debug)]
pub struct Graph<'a> {
    ptr: NonNull<sys::ggml_cgraph>,
    _call: PhantomData<&'a ()>,
}

/// A tensor of a graph or of a model. A handle: whoever holds one must know that the graph or model is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub(super) NonNull<sys::ggml_tensor>);

// SAFETY: a handle; it is followed only by the thread that computes, through a `Graph` it was given.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

impl Graph<'_> {
    /// The graph at `ptr`.
    ///
    /// # Safety
    ///
    /// `ptr` must be a valid graph whose nodes stay valid, and are used by nobody else, as long as the value lives.
    pub unsafe fn from_raw(ptr: NonNull<sys::ggml_cgraph>) -> Self {
        Graph { ptr, _call: PhantomData }
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        // SAFETY: a valid graph.
        usize::try_from(unsafe { self.ptr.as_ref() }.n_nodes).unwrap_or(0)
    }

    /// A number that two graphs share only if they are the same; 0 if it has none.
    pub fn uid(&self) -> u64 {
        // SAFETY: a valid graph.
        unsafe { self.ptr.as_ref() }.uid
    }

    /// Node `i`, in the order of computation.
    pub fn node(&self, i: usize) -> Tensor {
        assert!(i < self.n_nodes(), "node {i} of {}", self.n_nodes());
        // SAFETY: `nodes` holds `n_nodes` valid tensors.
        let node = unsafe { *self.ptr.as_ref().nodes.add(i) };
        Tensor(NonNull::new(node).expect("a graph has no NULL nodes"))
    }

    pub(crate) fn view(&self, range: Range<usize>) -> sys::ggml_cgraph {
        assert!(range.start <= range.end && range.end <= self.n_nodes());
        let (i0, i1) = (range.start as i32, range.end as i32);
        // SAFETY: a valid graph and a range inside it; the view borrows its arrays.
        unsafe { sys::ggml_graph_view(self.ptr.as_ptr(), i0, i1) }
    }
}

impl Tensor {
    /// The tensor at `ptr`, unless NULL.
    ///
    /// # Safety
    ///
    /// A pointer that is not NULL must be a valid tensor as long as the handle is used.
    pub unsafe fn from_raw(ptr: *mut sys::ggml_tensor) -> Option<Tensor> {
        NonNull::new(ptr).map(Tensor)
    }

    pub(super) fn as_ptr(self) -> *mut sys::ggml_tensor {
        self.0.as_ptr()
    }

    /// What the tensor is called.
    pub fn name(self) -> String {
        // SAFETY: a valid tensor; names are NUL-terminated.
        unsafe { super::owned((*self.0.as_ptr()).name.as_ptr()) }
    }

    /// Gives it another name, of at most 63 bytes; the rest is cut off.
    ///
    /// # Safety
    ///
    /// The tensor must be valid, and nobody else may look at its name meanwhile.
    pub unsafe fn set_name(self, name: &str) {
        let name = std::ffi::CString::new(name).unwrap_or_default();
        // SAFETY: by this function's contract; ggml copies the name.
        unsafe { sys::ggml_set_name(self.0.as_ptr(), name.as_ptr()) };
    }

    /// Whether it is the product of a matrix, which is where the time goes.
    pub fn is_matmul(self) -> bool {
        // SAFETY: a valid tensor.
        let op = unsafe { (*self.0.as_ptr()).op };
        op == sys::GGML_OP_MUL_MAT || op == sys::GGML_OP_MUL_MAT_ID
    }

    /// What a product with experts multiplies by which: the stack of all experts, and the numbers of those that each token uses.
    pub fn expert_product(self) -> Option<(Tensor, Tensor)> {
        // SAFETY: a valid tensor, whose operands are valid.
        let (op, src) = unsafe { ((*self.0.as_ptr()).op, (*self.0.as_ptr()).src) };
        let [stack, _, ids, ..] = src.map(NonNull::new);
        (op == sys::GGML_OP_MUL_MAT_ID).then_some((Tensor(stack?), Tensor(ids?)))
    }

    /// How many elements it has.
    pub fn n_elements(self) -> usize {
        // SAFETY: a valid tensor.
        usize::try_from(unsafe { sys::ggml_nelements(self.0.as_ptr()) }).unwrap_or(usize::MAX)
    }

    /// Elements of its first dimension, and of the second.
    pub fn rows(self) -> [usize; 2] {
        // SAFETY: a valid tensor.
        let ne = unsafe { (*self.0.as_ptr()).ne };
        [ne[0], ne[1]].map(|n| usize::try_from(n).unwrap_or(0))
    }

    /// Whether its elements are 32-bit integers in two dimensions.
    pub fn is_table_of_numbers(self) -> bool {
        // SAFETY: a valid tensor.
        let (ty, ne) = unsafe { ((*self.0.as_ptr()).type_, (*self.0.as_ptr()).ne) };
        ty == sys::GGML_TYPE_I32 && ne[2] == 1 && ne[3] == 1
    }

    /// The numbers in it, row by row, where it is in the host's memory.
    ///
    /// # Safety
    ///
    /// It must have been computed, be a table of numbers, and be in the host's memory.
    pub unsafe fn read_numbers(self, out: &mut Vec<i32>) {
        out.clear();
        let [n, rows] = self.rows();
        // SAFETY: by this function's contract; strides are those of a valid tensor.
        unsafe {
            let t = self.0.as_ptr();
            let (data, nb) = ((*t).data.cast::<u8>(), (*t).nb);
            for row in 0..rows {
                for i in 0..n {
                    let at = data.add(row * nb[1] + i * nb[0]).cast::<i32>();
                    out.push(at.read_unaligned());
                }
            }
        }
    }

    /// The same, wherever it is: asks its device, which must have computed it. `raw` is room for what comes from there.
    ///
    /// # Safety
    ///
    /// It must be a table of numbers, have memory, and have been computed.
    pub unsafe fn fetch_numbers(self, raw: &mut Vec<i32>, out: &mut Vec<i32>) {
        let [n, rows] = self.rows();
        // SAFETY: by this function's contract; the list is as long as what is copied to it, and numbers may have any bytes.
        let nb = unsafe {
            let t = self.0.as_ptr();
            let size = sys::ggml_nbytes(t);
            raw.clear();
            raw.resize(size.div_ceil(size_of::<i32>()), 0);
            sys::ggml_backend_tensor_get(t, raw.as_mut_ptr().cast(), 0, size);
            (*t).nb
        };
        out.clear();
        let at = |row: usize, i: usize| (row * nb[1] + i * nb[0]) / size_of::<i32>();
        out.extend((0..rows).flat_map(|row| (0..n).map(move |i| at(row, i))).map(|at| raw[at]));
    }

    /// Its operands.
    pub fn sources(self) -> impl Iterator<Item = Tensor> {
        // SAFETY: a valid tensor; `src` is copied, and holds NULL or valid tensors.
        let src = unsafe { (*self.0.as_ptr()).src };
        src.into_iter().filter_map(|p| NonNull::new(p).map(Tensor))
    }

    /// The tensor that owns the data: itself, or what it is a view of, with the offset into it (bytes).
    pub fn root(self) -> (Tensor, u64) {
        // SAFETY: a valid tensor; ggml flattens views, so `view_src` is no view itself.
        let (src, offset) = unsafe { ((*self.0.as_ptr()).view_src, (*self.0.as_ptr()).view_offs) };
        match NonNull::new(src) {
            Some(root) => (Tensor(root), offset as u64),
            None => (self, 0),
        }
    }
}
