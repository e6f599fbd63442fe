//! The loop's part in experts that are brought one by one: which products of a graph use them, where its runs must end so that the
//! routers' numbers are known, and when slots and pool may use the same memory.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::Exec;
use super::cut::Cut;
use crate::ggml::{self, Area, Device, Graph, Pieces, Tensor};
use crate::source::HostBuf;
use crate::stream::experts::pool::{Pool, Product};
use crate::stream::experts::{ExpertsSpec, Mode};
use crate::stream::memory::Supply;
use crate::stream::slots::State;
use crate::stream::split::{Run, Unit};
use crate::stream::{Error, WeightPlace, staging};
use crate::units::Bytes;

/// What a stream device knows of its experts.
#[derive(Debug)]
pub(super) struct ByExpert {
    pub(super) pool: Pool,
    /// The stacks by name: which block, and which of its stacks.
    names: HashMap<String, (usize, usize)>,
    stacks: HashMap<Tensor, (usize, usize)>,
    /// The units that consist of stacks.
    units: HashSet<Unit>,
    n_units: Unit,
    /// Bytes of a unit's slot.
    slot: Bytes,
    /// How the pass went that came after one of each mode.
    after: [Mode; 3],
    /// What is to be computed of products that have only a part of their experts.
    pub(super) pieces: Pieces,
    /// Rows of them that are not computed, those whose experts are not there at the end.
    pub(super) rows: Vec<usize>,
}

/// Memory of experts that slots of units are in as well, if there is any.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) host: Option<Arc<HostBuf>>,
    /// A piece for each slot.
    pub(super) device: Vec<Arc<Area>>,
}

/// A pool for `spec`, and the memory that the slots of units are to share with it, if they are. Slots take `slots` bytes in all.
pub(super) fn new(
    spec: ExpertsSpec,
    supply: &Supply,
    weights: &HashMap<String, WeightPlace>,
    slots: Bytes,
    device: Device,
) -> Result<(Option<ByExpert>, Shared), Error> {
    let mut names = HashMap::new();
    for (b, block) in spec.blocks.iter().enumerate() {
        names
            .extend(block.stacks.iter().enumerate().map(|(s, stack)| (stack.name.clone(), (b, s))));
    }
    let units = names.keys().filter_map(|name| weights.get(name).map(|place| place.unit)).collect();
    let shares = spec.shares_slots;
    let size = if shares { spec.pool.max(slots) } else { spec.pool };
    let arena = match spec.above {
        // What the device copies from.
        Some(_) => staging::pinned(device, size),
        None => HostBuf::new(size),
    };
    let no_memory =
        |e: std::io::Error| Error::NoMemory { n_slots: 1, size, message: e.to_string() };
    let arena = Arc::new(arena.map_err(no_memory)?);
    supply.monitor.name_experts(&spec.blocks);
    let lent = if shares { slots.0 } else { 0 };
    let (source, monitor) = (supply.source.clone(), supply.monitor.clone());
    let host = shares.then(|| arena.clone());
    let pool = Pool::new(spec, arena, lent, source, monitor, device)?;
    let shared = Shared { host, device: pool.lent_above().to_vec() };
    let by_expert = ByExpert {
        pool,
        names,
        stacks: HashMap::new(),
        units,
        n_units: Unit::try_from(supply.units.len()).unwrap_or(Unit::MAX),
        slot: supply.units.iter().map(|u| u.size).max().unwrap_or_default(),
        // An answer follows a question, and a token a token.
        after: [Mode::Kept, Mode::Kept, Mode::Passing],
        pieces: Pieces::default(),
        rows: Vec::new(),
    };
    Ok((Some(by_expert), shared))
}

/// What of a graph gets its experts one by one.
pub(super) struct Products {
    /// `None` if the graph uses no experts.
    pub(super) mode: Option<Mode>,
    /// Numbers from here on stand for experts, not for units.
    n_units: Unit,
    /// By the number of the node.
    products: HashMap<usize, Product>,
}

impl ByExpert {
    /// libllama has created the tensor of this name.
    pub(super) fn register(&mut self, tensor: Tensor, name: &str) {
        if let Some(&place) = self.names.get(name) {
            self.stacks.insert(tensor, place);
        }
    }

    /// Finds the products with experts among `nodes`. Where these are brought one by one, each (stack, router) that a product uses
    /// takes the place of its stack's unit in `needs`, under a number of its own.
    pub(super) fn cut(&self, nodes: &[Tensor], needs: &mut [Vec<Unit>]) -> Products {
        let mut products = HashMap::new();
        let mut otherwise = false;
        for (i, node) in nodes.iter().enumerate() {
            let product = node.expert_product().and_then(|(weights, ids)| {
                let &(block, stack) = self.stacks.get(&weights)?;
                Some(Product { node: *node, weights, ids, block, stack })
            });
            let uses = node.sources().filter(|s| self.stacks.contains_key(&s.root().0)).count();
            // Whatever else is done with a stack needs all of it.
            otherwise |= uses != usize::from(product.is_some());
            products.extend(product.map(|p| (i, p)));
        }
        if products.is_empty() && !otherwise {
            return Products { mode: None, products, n_units: self.n_units };
        }
        let list: Vec<Product> = products.values().copied().collect();
        let mode = if otherwise { Mode::Whole } else { self.pool.choose(&list) };
        if mode == Mode::Whole {
            products.clear();
        }
        let mut known: Vec<(usize, usize, Tensor)> = Vec::new();
        for (i, needs) in needs.iter_mut().enumerate() {
            let Some(p) = products.get(&i) else { continue };
            let key = (p.block, p.stack, p.ids);
            let at = known.iter().position(|k| *k == key).unwrap_or_else(|| {
                known.push(key);
                known.len() - 1
            });
            needs.retain(|unit| !self.units.contains(unit));
            needs.push(self.n_units + Unit::try_from(at).unwrap_or(0));
        }
        Products { mode: Some(mode), products, n_units: self.n_units }
    }

    /// Whether a unit may be read ahead that used to follow what is being computed: not where what comes next will want its experts one
    /// by one, nor where its slot is the pool's memory.
    pub(super) fn may_follow(&self, unit: Unit) -> bool {
        let mode = self.pool.mode();
        let in_use = self.pool.shares_slots() && mode != Mode::Whole;
        !self.units.contains(&unit) || (self.after[mode as usize] == Mode::Whole && !in_use)
    }

    /// A slot is going to be filled.
    pub(super) fn give_slot(&mut self, slot: usize) {
        self.pool.give_slot(slot, self.slot);
    }
}

impl Products {
    /// Ends runs before the first product with experts, whose numbers must be known by then, and says which products each run has.
    pub(super) fn assign(self, runs: &mut Vec<Run>, needs: &[Vec<Unit>]) -> Vec<Vec<Product>> {
        let mut out: Vec<(Run, Vec<Product>)> = Vec::with_capacity(runs.len());
        for mut run in runs.drain(..) {
            let of_run: Vec<usize> =
                run.nodes.clone().filter(|i| self.products.contains_key(i)).collect();
            if let Some(&first) = of_run.first() {
                debug_assert!(needs[run.nodes.start..first].iter().all(Vec::is_empty));
                if run.nodes.start < first {
                    let before = run.nodes.start..first;
                    out.push((Run { nodes: before, units: Vec::new() }, Vec::new()));
                    run.nodes.start = first;
                }
                run.units.retain(|&unit| unit < self.n_units);
            }
            out.push((run, of_run.iter().map(|i| self.products[i]).collect()));
        }
        let (all, products) = out.into_iter().unzip();
        *runs = all;
        products
    }
}

impl Exec {
    /// A graph comes that gets its experts in this way. Where slots and pool share memory, what the other holds of it is given up.
    pub(super) fn enter(&mut self, mode: Mode) -> Result<(), Error> {
        let Some(experts) = &mut self.experts else { return Ok(()) };
        let before = experts.pool.mode();
        experts.after[before as usize] = mode;
        if experts.pool.shares_slots() && mode != Mode::Whole {
            for slot in 0..self.slots.len() {
                if let State::Filling(unit) = self.slots.state(slot) {
                    match self.finish_fill(slot, unit) {
                        // Nobody needs it now; whoever does later will hear of it.
                        Ok(()) | Err(Error::Read { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                if let Some(unit) = self.slots.state(slot).unit() {
                    self.monitor.left(unit);
                }
                self.slots.forget(slot);
            }
        }
        let Some(experts) = &mut self.experts else { return Ok(()) };
        if before != mode && experts.pool.shares_slots() && experts.pool.is_on_device() {
            // What one kind of pass asked for is done before the other kind writes to the same memory.
            self.memory.rest();
            self.backend.synchronize();
        }
        experts.pool.enter(mode)
    }

    /// Brings the experts of run `k`, and says with which runs behind it it can be computed at once: those whose experts are there, and
    /// those that need none. Returns the node to begin with, before which there is nothing to do but the pieces, and the end of these
    /// runs.
    pub(super) fn bring_experts(
        &mut self,
        graph: &Graph<'_>,
        cut: &Cut,
        k: usize,
    ) -> Result<(usize, usize), Error> {
        let begin = cut.runs[k].nodes.start;
        let Some(experts) = &mut self.experts else { return Ok((begin, k + 1)) };
        let Some(first) = cut.products[k].first() else { return Ok((begin, k + 1)) };
        experts.pool.route(first, &mut self.backend)?;
        let group = k..k + cut.groups[k];
        let is_here = cut.products[group.clone()].iter().flatten().all(|p| experts.pool.is_here(p));
        let (begin, mut end) = if group.is_empty() || is_here {
            for product in &cut.products[k] {
                experts.pool.route(product, &mut self.backend)?;
                experts.pool.wait(product, &mut self.backend)?;
            }
            (begin, k + 1)
        } else {
            self.bring_rows(graph, cut, group.clone())?;
            (cut.runs[group.end - 1].nodes.start + 1, group.end)
        };
        let Some(experts) = &mut self.experts else { return Ok((begin, end)) };
        while let (Some(run), Some(products)) = (cut.runs.get(end), cut.products.get(end)) {
            let is_here = products.iter().all(|p| experts.pool.is_here(p));
            if !run.units.is_empty() || !is_here {
                break;
            }
            for product in products {
                experts.pool.wait(product, &mut self.backend)?;
            }
            end += 1;
        }
        if self.monitor.is_stopped() { Err(ggml::Error::Aborted.into()) } else { Ok((begin, end)) }
    }

    /// Computes the products of a group row by row, as their experts arrive; the last ones are left to be computed with what follows.
    fn bring_rows(
        &mut self,
        graph: &Graph<'_>,
        cut: &Cut,
        group: Range<usize>,
    ) -> Result<(), Error> {
        let Some(experts) = &mut self.experts else { return Ok(()) };
        let products = || cut.products[group.clone()].iter().flatten();
        experts.rows.clear();
        experts.rows.extend(0..products().next().and_then(|p| p.node.expert_rows()).unwrap_or(0));
        while let Some(experts) = &mut self.experts {
            // Those that are there come first, in their order.
            let (mut n, mut i) = (0, 0);
            while let Some(&row) = experts.rows.get(i) {
                let mut is_here = true;
                for product in products() {
                    is_here &= experts.pool.has_row(product, row)?;
                }
                if is_here {
                    experts.rows[n..=i].rotate_right(1);
                    n += 1;
                }
                i += 1;
            }
            if n == 0 {
                for product in products() {
                    experts.pool.wait_row(product, experts.rows[0])?;
                }
                continue;
            }
            self.add_pieces(products(), n);
            let Some(experts) = &mut self.experts else { break };
            experts.rows.drain(..n);
            if experts.rows.is_empty() {
                break;
            }
            self.compute_pieces(graph, products())?;
        }
        Ok(())
    }
}

/// For each run, how many from it on are products with the experts of one token that can be computed row by row: nothing is computed
/// between them, and they multiply the same, so that none of them can be given the memory of what another still reads.
pub(super) fn groups(nodes: &[Tensor], runs: &[Run], products: &[Vec<Product>]) -> Vec<usize> {
    let only = |k: usize| match &products[k][..] {
        [p] if nodes[runs[k].nodes.start] == p.node && p.node.expert_rows() > Some(1) => Some(p),
        _ => None,
    };
    let is_alone =
        |k: usize| nodes[runs[k].nodes.clone()].iter().skip(1).all(|node| node.is_free());
    let group = |k: usize| {
        let Some(first) = only(k) else { return 0 };
        let follows = |next: usize| {
            is_alone(next - 1)
                && runs[next].units.is_empty()
                && only(next)
                    .is_some_and(|p| p.block == first.block && p.node.has_factors_of(first.node))
        };
        1 + (k + 1..runs.len()).take_while(|&next| follows(next)).count()
    };
    (0..runs.len()).map(group).collect()
}
