//! From index and plan to libllama's model: the virtual file that it reads, the stream device, and what lives where. A plan is obeyed,
//! not made here.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::layout::{beyond, lay_out, lay_out_experts, slice};
use super::options::LoadOptions;
use super::resident::{Unfillable, fill};
use crate::engine::Error;
use crate::engine::error::{ggml_error, model_name};
use crate::ggml::{
    self, BufferType, Device, Model, ModelParams, Segment, SegmentKind, Threadpool, VirtualFile,
};
use crate::gguf::{Index, TensorInfo};
use crate::plan::{Areas, ExpertBlock, Experts, OnDevice, Plan, Tier};
use crate::source::{self, Caching, Extent, HostBuf, ReadError, Ticket, WeightSource};
use crate::stream::experts::{Above, BlockSpec, Decay, ExpertsSpec, StackSpec};
use crate::stream::{self, Home, Monitor, StreamDevice, UnitSpec, WeightPlace};
use crate::units::Bytes;

/// Everything that loading needs to know.
pub(super) struct Loading<'a> {
    pub(super) index: &'a Index,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a LoadOptions,
    /// The GPU that computes, if one does.
    pub(super) gpu: Option<Device>,
    /// Further ones, as [`crate::plan::HeldBy::number`] counts them.
    pub(super) further: &'a [Device],
    pub(super) threads: &'a Arc<Threadpool>,
    pub(super) monitor: &'a Arc<Monitor>,
}

/// The model, its stream device if blocks stream, and how they are read.
pub(super) type Parts = (Model, Option<Arc<StreamDevice>>, Option<String>);

impl<'a> Loading<'a> {
    /// What there is to know where the CPU computes.
    pub(super) fn for_cpu(
        index: &'a Index,
        plan: &'a Plan,
        options: &'a LoadOptions,
        threads: &'a Arc<Threadpool>,
        monitor: &'a Arc<Monitor>,
    ) -> Loading<'a> {
        Loading { index, plan, options, gpu: None, further: &[], threads, monitor }
    }
}

impl Loading<'_> {
    /// Loads the model by its plan; `wrap` may put a source of its own before the one that streamed blocks are read by.
    pub(super) fn load(
        &self,
        wrap: impl FnOnce(Arc<dyn WeightSource>) -> Arc<dyn WeightSource>,
    ) -> Result<Parts, Error> {
        if self.gpu.is_none() {
            self.index.check_for_cpu()?;
        }
        if self.plan.streamed.is_empty() { self.resident() } else { self.streamed(wrap) }
    }

    /// Loads all of the model to where it is computed with. Its file is not mapped as llama.cpp would: repacking takes a copy
    /// in any case, and page faults read a cold file at a fraction of the disk's rate.
    fn resident(&self) -> Result<Parts, Error> {
        let params = ModelParams {
            devices: self.gpu.map(|gpu| self.layers(gpu)).unwrap_or_default(),
            overrides: self.by_cpu()?,
            repack: self.options.repack && self.gpu.is_none(),
            heads: self.options.has_head(),
            ..ModelParams::default()
        };
        let paths = self.paths();
        let all: Bytes = self.index.files.iter().map(|f| f.len).sum();
        let roomy = self.plan.memory.peak() + all < crate::probe::available_memory();
        let cache = if roomy && !self.plan.promised { Caching::Allow } else { Caching::Avoid };
        let source = source::open(&paths, source::Choice { cache, ..source::Choice::default() })?;
        let file = self.virtual_file(&paths, &HashSet::new())?;
        let model = self.load_filled(file, &params, source.as_ref())?;
        Ok((model, None, None))
    }

    /// Which GPUs compute how many layers, where the further ones have the last, and `first` what the plan does not give to others.
    fn layers(&self, first: Device) -> Vec<(Device, usize)> {
        let held: usize = self.plan.further.iter().map(|held| held.blocks.len()).sum();
        let mut layers = vec![(first, self.plan.blocks.len() - held)];
        let further = self.plan.further.iter().rev();
        layers.extend(further.map(|held| (self.further[held.number], held.blocks.len())));
        // To libllama, the output is a layer, and so are heads, whether they are loaded or not.
        if let Some((_, last)) = layers.last_mut() {
            *last += 1 + self.index.heads.len();
        }
        layers
    }

    /// Where libllama is to put what the CPU computes with beside a GPU: in its host memory, pinned where the GPU has such, so that
    /// large batches can bring it over.
    fn by_cpu(&self) -> Result<Vec<(String, BufferType)>, Error> {
        let cpu = Device::cpu().map_err(ggml_error(self.index))?.buffer_type();
        Ok(self.plan.cpu_pattern(self.index).map(|pattern| (pattern, cpu)).into_iter().collect())
    }

    /// Describes the model, as the GPU `device` and the CPU would compute it by the plan, without giving it any memory.
    pub(super) fn described(&self, device: Device) -> Result<Model, Error> {
        let (devices, overrides) = (self.layers(device), self.by_cpu()?);
        let heads = self.options.has_head();
        let params = ModelParams {
            devices,
            overrides,
            describe_only: true,
            heads,
            ..ModelParams::default()
        };
        let all = (0..self.index.tensors.len()).collect();
        let file = self.virtual_file(&self.paths(), &all)?;
        let model = Model::load_virtual(file, &params, &|_| true);
        model.map_err(ggml_error(self.index))
    }

    /// Loads what is resident, and makes a stream device for the rest.
    fn streamed(
        &self,
        wrap: impl FnOnce(Arc<dyn WeightSource>) -> Arc<dyn WeightSource>,
    ) -> Result<Parts, Error> {
        let paths = self.paths();
        // Through the page cache only where it costs nobody anything: everything streams, and twice as much is free.
        let expect_cached = !self.plan.promised
            && self.plan.count(Tier::Resident) == 0
            && self.gpu.is_none()
            && self.plan.streamed_bytes() * 2 < crate::probe::available_memory();
        let cache = if expect_cached { Caching::Expect } else { Caching::Avoid };
        let choice = source::Choice { cache, ..source::Choice::default() };
        let direct: Arc<dyn WeightSource> = source::open(&paths, choice)?.into();
        let source = wrap(direct.clone());
        let reader = source.describe();
        let streamed = self.plan.streamed.iter().flat_map(|u| u.tensors.iter().copied()).collect();
        let file = self.virtual_file(&paths, &streamed)?;
        let device = self.device(source)?;
        device.prefetch();
        let params = self.params_on(&device)?;
        let model = self.load_filled(file, &params, direct.as_ref());
        Ok((of_device(model, &device, self.index)?, Some(device), Some(reader)))
    }

    /// Describes the model to libllama without reading any of its weights: no token can be computed with it.
    pub(super) fn hollow(&self) -> Result<(Model, Arc<StreamDevice>), Error> {
        // Repacking would touch the memory that is to stay addresses.
        let options = LoadOptions { repack: false, ..self.options.clone() };
        let all = (0..self.index.tensors.len()).collect();
        let file = self.virtual_file(&self.paths(), &all)?;
        let device = self.device(Arc::new(NoSource))?;
        let params = Loading { options: &options, ..*self }.params_on(&device)?;
        let model = Model::load_virtual(file, &params, &|_| true);
        Ok((of_device(model.map_err(ggml_error(self.index)), &device, self.index)?, device))
    }

    /// Loads `file` as `params` say, with what is resident read through `source`.
    fn load_filled(
        &self,
        file: VirtualFile,
        params: &ModelParams,
        source: &dyn WeightSource,
    ) -> Result<Model, Error> {
        let devices: Vec<Device> = self.gpu.iter().chain(self.further).copied().collect();
        let streamed: HashSet<usize> =
            self.plan.streamed.iter().flat_map(|u| u.tensors.iter().copied()).collect();
        let resident = self.index.tensors.iter().enumerate();
        let resident = resident.filter(|(i, _)| !streamed.contains(i));
        let places: HashMap<&str, &TensorInfo> =
            resident.map(|(_, t)| (t.name.as_str(), t)).collect();
        let wanted = places.keys().map(|&name| name.to_owned()).collect();
        let unfilled = Model::load_deferring(file, params, &|_| true, &devices, wanted)
            .map_err(ggml_error(self.index))?;
        let n_threads = self.threads.n_threads() as usize;
        let room = self.room();
        let filled = fill(unfilled.tensors(), &places, source, self.monitor, n_threads, room);
        filled.map_err(|why| {
            let model = model_name(self.index);
            match why {
                Unfillable::Read(error) => Error::Load { model, error },
                Unfillable::Ggml(error) => Error::Ggml { model, error },
            }
        })?;
        Ok(unfilled.filled())
    }

    /// What the plan leaves for loading: the room of a context that is not there yet, and what else is free.
    fn room(&self) -> Bytes {
        let memory = &self.plan.memory;
        let lasting = memory.peak().saturating_sub(memory.context.max(memory.loading));
        memory.budget.saturating_sub(lasting).max(memory.loading)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.index.files.iter().map(|f| f.path.clone()).collect()
    }

    /// Makes the stream device.
    fn device(&self, source: Arc<dyn WeightSource>) -> Result<Arc<StreamDevice>, Error> {
        let inner = match self.gpu {
            Some(gpu) => gpu,
            None => Device::cpu().map_err(ggml_error(self.index))?,
        };
        let (units, weights) = self.lay_out(inner);
        StreamDevice::new(stream::Config {
            inner,
            threads: self.threads.clone(),
            units,
            weights,
            source,
            n_slots: self.plan.n_slots,
            experts: self.experts(inner),
            staging: stream::Staging::default(),
            monitor: self.monitor.clone(),
        })
        .map(Arc::new)
        .map_err(|error| Error::Stream { model: model_name(self.index), error })
    }

    /// How to load the model with the streamed tensors on `device`, and the others in the memory of what computes with them.
    fn params_on(&self, device: &Arc<StreamDevice>) -> Result<ModelParams, Error> {
        let mut overrides = vec![(self.plan.pattern(self.index), device.weights())];
        if self.gpu.is_some() {
            overrides.extend(self.by_cpu()?);
        } else {
            // For what is overridden to the CPU's memory, libllama considers the repacked kinds of it, too.
            let cpu = Device::cpu().map_err(ggml_error(self.index))?;
            overrides.push((".*".to_owned(), cpu.buffer_type()));
        }
        Ok(ModelParams {
            devices: self.layers(device.device()),
            overrides,
            repack: self.options.repack && self.gpu.is_none(),
            describe_only: false,
            heads: self.options.has_head(),
            keep: Some(device.clone()),
        })
    }

    /// How each unit lies in a slot of `inner`, where it is at home, and where in it each streamed tensor is.
    fn lay_out(&self, inner: Device) -> (Vec<UnitSpec>, HashMap<String, WeightPlace>) {
        let mut weights = HashMap::new();
        let mut units = Vec::with_capacity(self.plan.streamed.len());
        for (unit, number) in self.plan.streamed.iter().zip(0..) {
            let laid = lay_out(self.index, &unit.tensors, inner);
            for (&tensor, &offset) in unit.tensors.iter().zip(&laid.offsets) {
                let name = self.index.tensors[tensor].name.clone();
                weights.insert(name, WeightPlace { unit: number, offset });
            }
            let tier = self.plan.blocks[unit.block].tier;
            units.push(UnitSpec {
                name: unit.name.clone(),
                extents: laid.extents.into(),
                zeros: laid.zeros.into(),
                size: laid.size,
                home: if tier == Tier::Host && self.options.keep { Home::Ram } else { Home::Disk },
            });
        }
        (units, weights)
    }

    /// What streams by expert.
    fn experts(&self, inner: Device) -> Option<ExpertsSpec> {
        let plan = self.plan.experts.as_ref()?;
        let stack = |&t: &usize| {
            let TensorInfo { name, file, offset, .. } = &self.index.tensors[t];
            let each = self.index.experts(&self.index.tensors[t])?.each.0;
            let (name, file, offset) = (name.clone(), *file, *offset);
            let slice = slice(self.index, t, each, inner);
            let beyond = beyond(&self.index.tensors[t], each, inner);
            Some(StackSpec { name, file, offset, each, slice, beyond })
        };
        let block = |of: &ExpertBlock| BlockSpec {
            name: self.index.blocks[of.block].title(),
            count: Bytes(of.count).usize(),
            stacks: of.stacks.iter().filter_map(stack).collect(),
        };
        Some(ExpertsSpec {
            blocks: plan.blocks.iter().map(block).collect(),
            n_slots: plan.n_slots,
            pool: plan.pool,
            shares_slots: plan.shares_slots,
            decay: Decay::default(),
            above: plan.on_device.and_then(|above| self.above(plan, above, inner)),
        })
    }

    /// The memory of `inner` that experts are kept in.
    fn above(&self, plan: &Experts, above: OnDevice, inner: Device) -> Option<Above> {
        let region = |stacks: &[usize], n: u64| lay_out_experts(self.index, stacks, n, inner);
        let slots = (self.plan.n_slots, self.plan.slot);
        let Areas { sizes, places, lent } = plan.areas(slots, region)?;
        let align = inner.buffer_type().alignment();
        Some(Above { n_slots: above.n_slots, areas: sizes, places, lent, align })
    }

    /// The file that libllama reads: the ranges of the tensors in `void` void, parts joined.
    fn virtual_file(&self, paths: &[PathBuf], void: &HashSet<usize>) -> Result<VirtualFile, Error> {
        let segments = match paths {
            [_] if self.index.left_out == 0 => self.single_file(void),
            _ => self.joined_files(void)?,
        };
        let file = VirtualFile::open(paths, segments).map_err(|e| {
            let why = e.to_string();
            ggml_error(self.index)(ggml::Error::Null { what: "opening the files", why })
        })?;
        // The source of their weights is open as well by now.
        self.index.check_unchanged()?;
        Ok(file)
    }

    /// One file: as it is, but for the void tensors.
    fn single_file(&self, void: &HashSet<usize>) -> Vec<Segment> {
        let mut holes: Vec<(u64, u64)> = void
            .iter()
            .map(|&t| (self.index.tensors[t].offset, self.index.tensors[t].len.0))
            .collect();
        holes.sort_unstable();
        let mut at = 0;
        let mut segments = Vec::with_capacity(2 * holes.len() + 1);
        for (offset, len) in holes {
            segments.push(Segment {
                len: offset - at,
                kind: SegmentKind::File { file: 0, offset: at },
            });
            segments.push(Segment { len, kind: SegmentKind::Void });
            at = offset + len;
        }
        let end = self.index.files[0].len.0;
        segments.push(Segment { len: end - at, kind: SegmentKind::File { file: 0, offset: at } });
        segments.retain(|s| s.len > 0);
        segments
    }

    /// Several parts: a joined header, then every tensor where that header says.
    fn joined_files(&self, void: &HashSet<usize>) -> Result<Vec<Segment>, Error> {
        let joined = self.index.join()?;
        let mut at = joined.header.len() as u64;
        let mut segments =
            vec![Segment { len: at, kind: SegmentKind::Memory(joined.header.into()) }];
        for (i, (tensor, offset)) in self.index.tensors.iter().zip(joined.offsets).enumerate() {
            let kind = match void.contains(&i) {
                true => SegmentKind::Void,
                false => SegmentKind::File { file: tensor.file, offset: tensor.offset },
            };
            segments.push(Segment { len: offset - at, kind: SegmentKind::Void });
            segments.push(Segment { len: tensor.len.0, kind });
            at = offset + tensor.len.0;
        }
        segments.retain(|s| s.len > 0);
        Ok(segments)
    }
}

/// A model that was loaded on `device`, which may know better why it was not.
fn of_device(
    loaded: Result<Model, Error>,
    device: &StreamDevice,
    index: &Index,
) -> Result<Model, Error> {
    let model = loaded.map_err(|error| match device.take_error() {
        Some(error) => Error::Stream { model: model_name(index), error },
        None => error,
    })?;
    device.loaded();
    Ok(model)
}

/// A source for models that nobody computes with.
#[derive(Debug)]
struct NoSource;

impl WeightSource for NoSource {
    fn request(&self, _: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        completion.complete(buf, Err(ReadError::Stopped));
        ticket
    }

    fn describe(&self) -> String {
        "nothing".to_owned()
    }
}
