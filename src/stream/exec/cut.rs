//! What a graph is cut into: runs that need one unit's weights each, or experts of one router.

use std::sync::Arc;

use super::Exec;
use super::by_expert;
use crate::ggml::{Graph, Tensor};
use crate::stream::WeightPlace;
use crate::stream::experts::Mode;
use crate::stream::experts::pool::Product;
use crate::stream::split::{Run, Unit, split};

/// A graph's cut, kept as long as libllama reuses the graph.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) runs: Vec<Run>,
    /// For each run, the tensors to point at slots.
    pub(super) patches: Vec<Vec<(Tensor, WeightPlace)>>,
    /// For each run, its products with experts that are brought one by one.
    pub(super) products: Vec<Vec<Product>>,
    /// For each run, how many from it on can be computed row by row; see [`by_expert::groups`].
    pub(super) groups: Vec<usize>,
    /// How it gets its experts; `None` if it uses none.
    pub(super) mode: Option<Mode>,
}

impl Exec {
    /// The graph's cut, from the cache if it was seen before.
    pub(super) fn cut(&mut self, graph: &Graph<'_>) -> Arc<Cut> {
        let uid = graph.uid();
        if let Some(cut) = self.cuts.get(uid).filter(|_| uid != 0) {
            return cut;
        }
        let cut = Arc::new(self.make_cut(graph));
        if uid != 0 {
            // Of a weight and its views, the weight.
            let is_weight = |patch: &&(Tensor, WeightPlace)| self.weights.contains_key(&patch.0);
            let uses = cut.patches.iter().flatten().filter(is_weight).count();
            self.cuts.put(uid, cut.clone(), uses, self.weights.len());
        }
        cut
    }

    /// The runs that a graph would be cut into.
    pub(in crate::stream) fn runs(&self, graph: &Graph<'_>) -> Vec<Run> {
        self.make_cut(graph).runs
    }

    fn make_cut(&self, graph: &Graph<'_>) -> Cut {
        let place_of = |tensor: Tensor| {
            let (root, offset) = tensor.root();
            let place = self.weights.get(&root)?;
            Some(WeightPlace { unit: place.unit, offset: place.offset + offset })
        };
        let nodes: Vec<Tensor> = (0..graph.n_nodes()).map(|i| graph.node(i)).collect();
        let mut needs: Vec<Vec<Unit>> = nodes
            .iter()
            .map(|n| n.sources().filter_map(|s| place_of(s).map(|p| p.unit)).collect())
            .collect();
        let heavy: Vec<bool> = nodes.iter().map(|n| n.is_matmul()).collect();
        let by_expert = self.experts.as_ref().map(|experts| experts.cut(&nodes, &mut needs));
        let mode = by_expert.as_ref().and_then(|of| of.mode);
        let mut runs = split(&needs, &heavy);
        let products = match by_expert {
            Some(of) => of.assign(&mut runs, &needs),
            None => vec![Vec::new(); runs.len()],
        };
        let patches = runs.iter().map(|run| {
            let mut list: Vec<(Tensor, WeightPlace)> = nodes[run.nodes.clone()]
                .iter()
                .flat_map(|&n| n.sources().chain([n]))
                // Some backends look for a view's bytes where the tensor is that it is a view of.
                .flat_map(|t| [t, t.root().0])
                .filter_map(|t| place_of(t).map(|p| (t, p)))
                // A view that is a node here may be of a weight whose unit only a later run needs.
                .filter(|(_, p)| run.units.contains(&p.unit))
                .collect();
            list.sort_unstable_by_key(|&(t, _)| t);
            list.dedup_by_key(|&mut (t, _)| t);
            list
        });
        // Row by row is for who computes in the memory that is read to.
        let rows = self.experts.as_ref().is_some_and(|experts| !experts.pool.is_on_device());
        let groups = match rows {
            true => by_expert::groups(&nodes, &runs, &products),
            false => vec![0; runs.len()],
        };
        Cut { patches: patches.collect(), runs, products, groups, mode }
    }
}

impl Cut {
    /// Whether it uses the first unit of `n` and the last.
    pub(super) fn is_pass(&self, n: usize) -> bool {
        let mut units = self.runs.iter().flat_map(|run| &run.units);
        let first = units.next().copied();
        first == Some(0)
            && units.next_back().or(first.as_ref()).is_some_and(|&u| u as usize + 1 == n)
    }
}
