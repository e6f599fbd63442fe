//! Products with experts in pieces: for one token, each row of the result is the work of one expert, so that those whose experts are there
//! are computed while the others are being read. Each row is the same operation on the same bytes as in the whole product.

use std::ops::Range;
use std::ptr::NonNull;

use ggml_sys as sys;

use super::backend::Backend;
use super::graph::{Graph, Tensor};
use super::placement::Numbers;
use super::result::{Error, check};

/// Rows of products that are to be computed. The descriptions are kept for the next token.
#[derive(Debug, Default)]
pub struct Pieces {
    // Boxed: they point at each other.
    #[expect(clippy::vec_box, reason = "they stay where they are while the list grows")]
    made: Vec<Box<sys::ggml_tensor>>,
    n_used: usize,
    nodes: Vec<*mut sys::ggml_tensor>,
}

// SAFETY: the pointers lead to the boxes, and to tensors that are followed only by the thread that computes; see `Pieces::add`.
unsafe impl Send for Pieces {}

impl Pieces {
    /// Nothing is to be computed.
    pub fn clear(&mut self) {
        self.n_used = 0;
        self.nodes.clear();
    }

    /// Whether nothing is to be computed.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Some rows of `product`, whose experts are counted by `numbers`.
    ///
    /// # Safety
    ///
    /// The product must have rows of their own ([`Tensor::expert_rows`]), `rows` of them, belong to the graph that is being computed by
    /// this thread, and its stack be in place when the pieces are computed. `numbers` must be of the shape of the router's.
    pub unsafe fn add(&mut self, product: Tensor, numbers: &Numbers, rows: Range<usize>) {
        let len = i64::try_from(rows.len()).unwrap_or(0);
        // SAFETY: valid tensors by this function's contract; descriptions are plain data, of which only what was checked is changed.
        unsafe {
            let whole = *product.as_ptr();
            let mut ids = *numbers.as_ptr();
            ids.ne[0] = len;
            ids.data = ids.data.byte_add(rows.start * ids.nb[0]);
            let mut input = *whole.src[1];
            if input.ne[1] > 1 {
                input.ne[1] = len;
                input.data = input.data.byte_add(rows.start * input.nb[1]);
            }
            let mut piece = whole;
            piece.ne[1] = len;
            piece.data = piece.data.byte_add(rows.start * piece.nb[1]);
            piece.src[1] = self.keep(input).as_ptr();
            piece.src[2] = self.keep(ids).as_ptr();
            let node = self.keep(piece).as_ptr();
            self.nodes.push(node);
        }
    }

    fn keep(&mut self, tensor: sys::ggml_tensor) -> NonNull<sys::ggml_tensor> {
        match self.made.get_mut(self.n_used) {
            Some(place) => **place = tensor,
            None => self.made.push(Box::new(tensor)),
        }
        self.n_used += 1;
        NonNull::from(&mut *self.made[self.n_used - 1])
    }
}

impl Backend {
    /// Asks the queue to compute `pieces`, then nodes `range` of `graph`; the pieces are done with.
    pub fn compute_pieces(
        &mut self,
        pieces: &mut Pieces,
        graph: &Graph<'_>,
        range: Range<usize>,
    ) -> Result<(), Error> {
        let mut view = graph.view(range.clone());
        pieces.nodes.extend(range.map(|i| graph.node(i).as_ptr()));
        view.nodes = pieces.nodes.as_mut_ptr();
        view.n_nodes = i32::try_from(pieces.nodes.len()).unwrap_or(i32::MAX);
        let _leased = self.lease();
        // SAFETY: valid nodes, those of the pieces by the contract of `add`; the list lives until the call returns, and the CPU, which
        // alone computes pieces, is done by then.
        let status = unsafe { sys::ggml_backend_graph_compute_async(self.as_ptr(), &raw mut view) };
        pieces.clear();
        check("computing a part of the graph", status)
    }
}

impl Tensor {
    /// The rows of a product with experts, if each is the work of one expert: one token, and nothing but rows.
    pub fn expert_rows(self) -> Option<usize> {
        let (_, ids) = self.expert_product()?;
        // SAFETY: a valid tensor with its operands.
        let (node, ids) = unsafe { (*self.as_ptr(), *ids.as_ptr()) };
        // SAFETY: as above; a product has two factors.
        let input = unsafe { node.src[1].as_ref() }?;
        let n = ids.ne[0];
        let fits = ids.ne[1..] == [1, 1, 1]
            && node.ne[1..] == [n, 1, 1]
            && (input.ne[1] == 1 || input.ne[1] == n)
            && input.ne[2..] == [1, 1];
        fits.then(|| usize::try_from(n).ok()).flatten()
    }

    /// Whether two products multiply the same by the same experts' numbers.
    pub fn has_factors_of(self, other: Tensor) -> bool {
        // SAFETY: valid tensors; only their operands' addresses are compared.
        let (a, b) = unsafe { ((*self.as_ptr()).src, (*other.as_ptr()).src) };
        a[1..3] == b[1..3]
    }

    /// Whether nothing is computed for it: it is a view of what others compute.
    pub fn is_free(self) -> bool {
        // SAFETY: a valid tensor.
        let op = unsafe { (*self.as_ptr()).op };
        matches!(
            op,
            sys::GGML_OP_NONE
                | sys::GGML_OP_RESHAPE
                | sys::GGML_OP_VIEW
                | sys::GGML_OP_PERMUTE
                | sys::GGML_OP_TRANSPOSE
        )
    }
}
