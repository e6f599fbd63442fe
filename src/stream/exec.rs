//! The loop: ask for what comes next, wait for what is needed now, point the tensors at it, compute, let go. It has no policy:
//! which units exist and how many slots there are was decided before.
#![allow(unsafe_code)]

mod by_expert;
mod cut;
mod cuts;
mod fill;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use self::by_expert::{ByExpert, Shared};
use self::cut::Cut;
use self::cuts::Cuts;
use super::device::DeviceMemory;
use super::experts::Habit;
use super::experts::pool::Product;
use super::host::HostMemory;
use super::memory::{SlotMemory, Supply};
use super::slots::Slots;
use super::split::Unit;
use super::{Config, Error, Monitor, Staging, UnitState, WeightPlace, outside};
use crate::ggml::{self, Backend, Device, Graph, Placement, Tensor};
use crate::units::Bytes;

/// How far a pass is. A scheduler may split it into several graphs, for what is computed elsewhere.
#[derive(Debug, Default)]
struct Pass {
    /// Its runs in the graphs before this one.
    done: usize,
    /// As many as the last whole one had.
    whole: usize,
    /// How many passes were over when it began.
    after: u64,
}

/// The state of a stream device.
#[derive(Debug)]
pub(super) struct Exec {
    backend: Backend,
    supply: Supply,
    /// Names are resolved once, when libllama creates the tensors.
    names: HashMap<String, WeightPlace>,
    weights: HashMap<Tensor, WeightPlace>,
    /// Tensors without their names while libllama loads.
    loading: Vec<(Tensor, String)>,
    slots: Slots,
    memory: Box<dyn SlotMemory>,
    cuts: Cuts,
    pass: Pass,
    /// For each unit, the one that was used after it last time: what to prefetch beyond a graph's end.
    successor: Vec<Unit>,
    last_unit: Option<Unit>,
    upcoming: Vec<Unit>,
    placement: Placement,
    monitor: Arc<Monitor>,
    experts: Option<ByExpert>,
}

impl Exec {
    pub(super) fn new(config: Config) -> Result<Exec, Error> {
        config.monitor.name_units(&config.units);
        let n_units = Unit::try_from(config.units.len()).unwrap_or(Unit::MAX);
        let n_slots = config.n_slots.max(2).min(config.units.len().max(1));
        let monitor = config.monitor;
        let (units, source) = (config.units.into(), config.source);
        let supply = Supply { units, source, monitor: monitor.clone() };
        let size = supply.units.iter().map(|u| u.size).max().unwrap_or_default();
        let (experts, within) = match config.experts {
            Some(spec) => {
                let slots = size * n_slots as u64;
                by_expert::new(spec, &supply, &config.weights, slots, config.inner)?
            }
            None => (None, Shared::default()),
        };
        Ok(Exec {
            backend: Backend::new(config.inner, Some(config.threads))?,
            memory: memory(config.inner, &supply, (n_slots, size), &within, config.staging)?,
            experts,
            supply,
            names: config.weights,
            weights: HashMap::new(),
            loading: Vec::new(),
            slots: Slots::new(n_slots),
            cuts: Cuts::default(),
            pass: Pass::default(),
            successor: (0..n_units).map(|u| (u + 1) % n_units).collect(),
            last_unit: None,
            upcoming: Vec::with_capacity(n_slots),
            placement: Placement::default(),
            monitor,
        })
    }

    /// libllama has created a tensor in a weight buffer. False if it is not one that streams.
    ///
    /// The tensor goes by another name until [`Exec::loaded`]: libllama reads only tensors whose names are in the file, and this
    /// one's bytes are to stay there. (It would make a buffer of each tensor's size, and pass over all of it.)
    pub(super) fn register(&mut self, tensor: Tensor) -> bool {
        let name = tensor.name();
        let Some(&place) = self.names.get(&name) else { return false };
        self.weights.insert(tensor, place);
        if let Some(experts) = &mut self.experts {
            experts.register(tensor, &name);
        }
        // SAFETY: libllama has just created the tensor, on this thread.
        unsafe { tensor.set_name("") };
        self.loading.push((tensor, name));
        true
    }

    /// The model is loaded: its tensors get their names back.
    pub(super) fn loaded(&mut self) {
        for (tensor, name) in self.loading.drain(..) {
            // SAFETY: the tensor is the model's, which nobody computes with yet.
            unsafe { tensor.set_name(&name) };
        }
    }

    pub(super) fn set_n_threads(&mut self, n: i32) {
        self.backend.set_n_threads(n);
    }

    /// Bytes of a streamed tensor from `offset` on, for what is computed elsewhere because the wrapped device cannot.
    pub(super) fn read(&self, tensor: Tensor, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let (root, from_root) = tensor.root();
        let bytes = self.weights.get(&root).and_then(|place| {
            let begin = place.offset + from_root + offset;
            outside::read(&self.supply, place.unit, begin..begin + out.len() as u64, out)
        });
        bytes.unwrap_or_else(|| Err(Error::OutsideRun(root.name())))
    }

    /// Waits until everything that was asked for is computed.
    pub(super) fn synchronize(&mut self) {
        self.memory.advance();
        self.backend.synchronize();
        self.placement.restore_buffers();
        self.memory.advance();
    }

    /// The queue that computes, for what passes through to it.
    pub(super) fn backend(&mut self) -> &mut Backend {
        &mut self.backend
    }

    /// Starts reading the units that a first pass begins with.
    pub(super) fn prefetch(&mut self) {
        self.upcoming.clear();
        let n = Unit::try_from(self.supply.units.len().min(self.slots.len())).unwrap_or(0);
        self.upcoming.extend(0..n);
        self.begin_fills();
    }

    /// How often experts are used, by what is known before the first pass. Whether any can be read ahead.
    pub(super) fn expect(&mut self, habits: &[Habit]) -> bool {
        self.experts.as_mut().is_some_and(|experts| experts.pool.expect(habits))
    }

    /// Reads some of them ahead. Whether there is more to do.
    pub(super) fn warm(&mut self) -> bool {
        self.experts.as_mut().is_some_and(|experts| experts.pool.warm())
    }

    /// Computes a graph, streaming the weights that it needs.
    pub(super) fn compute(&mut self, graph: &Graph<'_>) -> Result<(), Error> {
        let cut = self.cut(graph);
        if let Some(experts) = &mut self.experts {
            // A pass that failed may have left some.
            experts.pieces.clear();
        }
        if self.is_beside(&cut) {
            return Ok(self.backend.begin_compute(graph, 0..graph.n_nodes())?);
        }
        if let Some(mode) = cut.mode {
            self.enter(mode)?;
        }
        self.begin_graph(&cut);
        let mut k = 0;
        while let Some(run) = cut.runs.get(k) {
            if self.monitor.is_stopped() {
                return Err(ggml::Error::Aborted.into());
            }
            self.tell_run(k, &cut);
            self.look_ahead(&cut.runs[k..]);
            self.begin_fills();
            self.wait_for(&run.units)?;
            let (begin, end) = self.bring_experts(graph, &cut, k)?;
            self.compute_runs(graph, &cut, k..end, begin)?;
            self.memory.advance();
            k = end;
        }
        if let Some(last) = self.last_unit {
            // What comes next loads while something else computes, or the output is sampled.
            self.upcoming.clear();
            self.follow(last);
            self.begin_fills();
            self.memory.advance();
        }
        self.tell_run(cut.runs.len(), &cut);
        self.pass.done += cut.runs.len();
        Ok(())
    }

    /// Whether a graph belongs to no pass: it uses nothing that streams, and the pass before is over. A head that guesses tokens computes
    /// such graphs.
    fn is_beside(&self, cut: &Cut) -> bool {
        cut.mode.is_none()
            && cut.runs.iter().all(|run| run.units.is_empty())
            && self.pass.after != self.monitor.n_passes()
    }

    /// Whether a pass begins with this graph, or goes on, shows in its first unit; where there is none, because experts come one by one,
    /// in whether the pass before was over.
    fn begin_graph(&mut self, cut: &Cut) {
        let after = self.monitor.n_passes();
        let first = cut.runs.iter().flat_map(|run| &run.units).next().copied();
        let begins = match first {
            Some(first) => self.last_unit.is_none_or(|last| first <= last),
            None => self.pass.after != after,
        };
        if !begins {
            return;
        }
        self.pass = Pass { done: 0, whole: self.pass.done, after };
        if first.is_some() {
            self.memory.begin_pass();
        }
    }

    /// Tells that the graph's run `k` begins; after the last one, that they are done.
    fn tell_run(&self, k: usize, cut: &Cut) {
        let Pass { done, whole, .. } = self.pass;
        // A graph with all units is a pass by itself.
        let all = if done == 0 && cut.is_pass(self.supply.units.len()) { 0 } else { whole };
        self.monitor.run(done + k, all.max(done + cut.runs.len()));
    }

    /// Computes consecutive runs at once, from the node `begin` on, and before it what is left in pieces. Only the first has units.
    fn compute_runs(
        &mut self,
        graph: &Graph<'_>,
        cut: &Cut,
        which: Range<usize>,
        begin: usize,
    ) -> Result<(), Error> {
        let run = &cut.runs[which.start];
        for &(tensor, place) in cut.patches[which.clone()].iter().flatten() {
            let slot = self.slots.find(place.unit).expect("the units of a run are in slots");
            let (buffer, base) = self.memory.place(slot);
            // SAFETY: the tensor is one of the graph being computed, and the slot is Ready: what computes from now on finds the
            // tensor's bytes at this offset.
            unsafe { self.placement.place(tensor, buffer, base, place.offset) };
        }
        self.place_experts(cut.products[which.clone()].iter().flatten());
        let nodes = begin..cut.runs[which.end - 1].nodes.end;
        for &unit in &run.units {
            let slot = self.slots.find(unit).expect("the units of a run are in slots");
            self.slots.begin_use(slot);
            self.monitor.unit_is(unit, UnitState::Computing);
            self.memory.begin_use(slot, &mut self.backend);
        }
        let begin = Instant::now();
        let result = match &mut self.experts {
            Some(experts) if !experts.pieces.is_empty() => {
                self.backend.compute_pieces(&mut experts.pieces, graph, nodes)
            }
            _ => self.backend.begin_compute(graph, nodes),
        };
        self.monitor.computed(run.units.first().copied(), begin);
        if self.memory.is_asynchronous() {
            self.placement.restore_addresses();
        } else {
            self.placement.restore();
        }
        for &unit in &run.units {
            let slot = self.slots.find(unit).expect("a busy slot keeps its unit");
            self.memory.end_use(slot, &mut self.backend);
            self.slots.end_use(slot);
            self.monitor.unit_is(unit, UnitState::Idle);
            if let Some(last) = self.last_unit.replace(unit).filter(|&last| last != unit) {
                self.successor[last as usize] = unit;
            }
        }
        Ok(result?)
    }

    /// Lets products compute with the experts that are there.
    fn place_experts<'a>(&mut self, products: impl Iterator<Item = &'a Product>) {
        let Some(experts) = &self.experts else { return };
        for product in products {
            // SAFETY: a node of the graph being computed; who places it restores it before the next route.
            unsafe { experts.pool.place(product, &mut self.placement) };
        }
    }

    /// Adds the first `n` of the rows that are left to the pieces, of each product; their experts are there.
    fn add_pieces<'a>(&mut self, products: impl Iterator<Item = &'a Product>, n: usize) {
        let Some(experts) = &mut self.experts else { return };
        for product in products {
            for rows in experts.rows[..n].chunk_by(|a, b| a + 1 == *b) {
                let rows = rows[0]..rows[0] + rows.len();
                // SAFETY: the rows' experts are there, and whoever computes the pieces places the product.
                unsafe { experts.pool.add_rows(product, rows, &mut experts.pieces) };
            }
        }
    }

    /// Computes the pieces of `products` that were added.
    fn compute_pieces<'a>(
        &mut self,
        graph: &Graph<'_>,
        products: impl Iterator<Item = &'a Product>,
    ) -> Result<(), Error> {
        self.place_experts(products);
        let Some(experts) = &mut self.experts else { return Ok(()) };
        let begin = Instant::now();
        let result = self.backend.compute_pieces(&mut experts.pieces, graph, 0..0);
        self.monitor.computed(None, begin);
        self.placement.restore();
        Ok(result?)
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // Nobody will need what is being read, and tickets wait for their reads when they are dropped: one that never
        // ends would hold the program up.
        self.supply.source.cancel();
        self.backend.synchronize();
    }
}

/// Slots of the kind that the device needs.
fn memory(
    device: Device,
    supply: &Supply,
    (n_slots, size): (usize, Bytes),
    within: &Shared,
    staging: Staging,
) -> Result<Box<dyn SlotMemory>, Error> {
    let supply = supply.clone();
    Ok(if device.buffer_type().is_host() {
        Box::new(HostMemory::new(supply, n_slots, size, within.host.as_ref())?)
    } else {
        Box::new(DeviceMemory::new(supply, device, (n_slots, size), &within.device, staging)?)
    })
}
