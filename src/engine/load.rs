//! From a file to a loaded model: index and plan become devices, a virtual file and libllama's model.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::{Grammar, VECTOR_TOKENS};
use super::devices::{self, DeviceChoice};
use super::layout::lay_out;
use super::planning::{Care, Planned, make_plan};
use super::resident::NoSource;
use super::tokenizer::OwnTokenizer;
use super::{Error, Session};
use crate::ggml::{
    self, BufferType, Device, Model, ModelParams, Segment, SegmentKind, Threadpool, Token,
    VirtualFile,
};
use crate::gguf::{Index, Purpose};
use crate::plan::{Plan, StreamMode, Tier};
use crate::source::{self, Caching, WeightSource};
use crate::stream::{self, Home, Monitor, StreamDevice, UnitSpec, WeightPlace};
use crate::units::Bytes;

/// How long idle compute threads spin before they sleep, on ggml's scale of 0 to 100: a few milliseconds. Longer than the gaps
/// between runs, shorter than waiting for a disk, which needs a core now and then, too.
pub(super) const POLL: u32 = 1;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What computes.
    pub device: DeviceChoice,
    /// Whether blocks stream.
    pub stream: StreamMode,
    /// Tokens of context that each sequence may have; 0 is what the model was trained for.
    pub ctx: Option<u32>,
    /// Sequences that are computed at once; 1 for a [`Session`], more for a [`batch`](super::batch). Room is made for four of full
    /// length at most, which they share.
    pub sequences: u32,
    /// Compute threads; the machine's cores if nothing is said.
    pub threads: Option<u32>,
    /// Tokens per pass.
    pub ubatch: Option<u32>,
    /// RAM that may be used.
    pub ram: Option<Bytes>,
    /// Device memory that may be used.
    pub vram: Option<Bytes>,
    /// Lets ggml repack resident weights for this CPU.
    pub repack: bool,
    /// Takes also models that make vectors of texts.
    pub embedding: bool,
    /// A `tokenizer.json` to be used instead of the file's tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Keeps blocks that stream from RAM there. Without, they are read for every pass all the same: for tests, and to measure.
    pub keep: bool,
    /// Where others see how far it is; a monitor serves one model.
    pub monitor: Option<Arc<Monitor>>,
}

/// Sequences whose full context is in the plan. There may be more: few texts are long at the same time.
const FULL_SEQUENCES: u32 = 4;

impl LoadOptions {
    /// Tokens of a batch that give logits: one of each text that is written, or some of one whose vector is made.
    pub(super) fn outputs(&self) -> u32 {
        self.sequences.max(if self.embedding { VECTOR_TOKENS } else { 1 })
    }

    /// Into how many contexts of full length the context is divided.
    pub(super) fn shares(&self) -> u32 {
        self.sequences.clamp(1, FULL_SEQUENCES)
    }
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: DeviceChoice::Auto,
            stream: StreamMode::Auto,
            ctx: None,
            sequences: 1,
            threads: None,
            ubatch: None,
            ram: None,
            vram: None,
            repack: true,
            embedding: false,
            tokenizer: None,
            keep: true,
            monitor: None,
        }
    }
}

/// A loaded model. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Loaded>);

/// The order of the fields is the order of dropping: the model goes before the device that holds its streamed tensors.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) vocab: Vocab,
    pub(super) model: Arc<Model>,
    pub(super) stream: Option<StreamDevice>,
    pub(super) threads: Arc<Threadpool>,
    pub(super) n_threads: u32,
    pub(super) sequences: u32,
    pub(super) n_outputs: u32,
    shares: u32,
    pub(super) monitor: Arc<Monitor>,
    pub(super) plan: Plan,
    pub(super) index: Arc<Index>,
    reader: Option<String>,
    /// What computes, for people.
    device: String,
    /// The GPU that computes, and what it had free before the model was loaded.
    gpu: Option<(Device, Bytes)>,
}

impl Loaded {
    /// Tokens of context that each sequence may have.
    pub(super) fn n_ctx_each(&self) -> u32 {
        self.plan.n_ctx / self.shares
    }
}

/// A model's vocabulary: text to tokens and back.
#[derive(Clone, Debug)]
pub struct Vocab {
    model: Arc<Model>,
    /// Speaks instead of the model's own.
    own: Option<Arc<OwnTokenizer>>,
}

impl Engine {
    /// Checks the model, plans, and loads it. Streamed weights are not read.
    ///
    /// # Errors
    ///
    /// A file that makes no sense, an architecture that libllama does not know, too little memory.
    pub fn open(index: Arc<Index>, options: &LoadOptions) -> Result<Engine, Error> {
        Engine::open_with(index, options, |source| source)
    }

    /// As [`Engine::open`], with the source of streamed weights wrapped by `wrap`: throttled or faulty ones, for tests.
    ///
    /// # Errors
    ///
    /// As [`Engine::open`].
    pub fn open_with(
        index: Arc<Index>,
        options: &LoadOptions,
        wrap: impl FnOnce(Arc<dyn WeightSource>) -> Arc<dyn WeightSource>,
    ) -> Result<Engine, Error> {
        index.check_model()?;
        let name = model_name(&index);
        let purpose = index.purpose();
        let wanted = options.embedding && purpose == Purpose::Embedding;
        if let Some(what) = purpose.not_for_text().filter(|_| !wanted) {
            return Err(Error::NotForText { model: name, what });
        }
        let own = options.tokenizer.as_deref().map(OwnTokenizer::open).transpose()?.map(Arc::new);
        ggml::set_abort_context(Some(format!("model '{name}'")));
        let n_threads = options.threads.unwrap_or_else(crate::probe::physical_cores).max(1);
        let threads = Threadpool::new(n_threads, POLL).map_err(ggml_error(&index))?;
        let threads = Arc::new(threads);
        let Planned { plan, gpu, .. } = make_plan(&index, options, &threads, Care::Quick)?;
        let before = gpu.map(|gpu| (gpu, gpu.memory().free));
        let monitor = options.monitor.clone().unwrap_or_default();
        let loading = Loading {
            index: &index,
            plan: &plan,
            options,
            gpu,
            threads: &threads,
            monitor: &monitor,
        };
        let (model, stream, reader) =
            if plan.streamed.is_empty() { loading.resident()? } else { loading.streamed(wrap)? };
        let model = Arc::new(model);
        let (sequences, shares) = match model.batches() {
            true => (options.sequences.max(1), options.shares()),
            false => (1, 1),
        };
        ggml::set_abort_context(Some(format!("running '{name}'")));
        let own = own.map(|own| own.check(model.vocab().len()).map(|()| own)).transpose()?;
        let vocab = Vocab { own, ..Vocab::of(model.clone()) };
        Ok(Engine(Arc::new(Loaded {
            vocab,
            model,
            stream,
            threads,
            n_threads,
            sequences,
            n_outputs: options.outputs(),
            shares,
            monitor,
            plan,
            index,
            reader,
            device: describe_device(gpu),
            gpu: before,
        })))
    }

    /// What is in the file.
    pub fn index(&self) -> &Index {
        &self.0.index
    }

    /// Where everything lives.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// The vocabulary.
    ///
    /// # Errors
    ///
    /// The file has no tokenizer.
    pub fn vocab(&self) -> Result<&Vocab, Error> {
        if self.0.vocab.own.is_none() && self.0.model.vocab().is_none() {
            return Err(Error::NoTokenizer { model: model_name(&self.0.index) });
        }
        Ok(&self.0.vocab)
    }

    /// What is odd about a tokenizer of the user's own, if one is used and something is.
    pub fn tokenizer_warning(&self) -> Option<String> {
        let own = self.0.vocab.own.as_ref()?;
        let (differ, n) = own.differing(&self.0.index).filter(|(differ, _)| *differ > 0)?;
        Some(format!(
            "{differ} of the tokenizer's {n} tokens are others than the model's: is it the right one?"
        ))
    }

    /// Number of tokens in the vocabulary, also of a file without a tokenizer.
    pub fn n_vocab(&self) -> usize {
        self.0.model.vocab().len()
    }

    /// Whether a grammar makes sense.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] if not.
    pub fn check_grammar(&self, grammar: &Grammar) -> Result<(), Error> {
        let vocab = self.0.model.vocab();
        let sampler = ggml::Sampler::new(&ggml::SamplerSettings::default(), vocab);
        let obeyed = sampler.and_then(|mut s| s.obey(&grammar.rules, &grammar.root, vocab));
        obeyed.map_err(|error| Error::Request(error.to_string()))
    }

    /// Whether it continues texts; otherwise it makes vectors of them.
    pub fn writes_text(&self) -> bool {
        self.0.index.purpose().not_for_text().is_none()
    }

    /// Tokens of context that each sequence may have.
    pub fn n_ctx_each(&self) -> u32 {
        self.0.n_ctx_each()
    }

    pub(super) fn loaded(&self) -> Arc<Loaded> {
        self.0.clone()
    }

    /// How many sequences can be computed at once: what was asked for, or 1 where the model does not allow it.
    pub fn sequences(&self) -> u32 {
        self.0.sequences
    }

    /// A new timeline.
    ///
    /// # Errors
    ///
    /// Too little memory for the context.
    pub fn session(&self) -> Result<Session, Error> {
        Session::new(self.0.clone())
    }

    /// What other threads may look at, and stop it by.
    pub fn monitor(&self) -> Arc<Monitor> {
        self.0.monitor.clone()
    }

    /// What computes: `cpu`, or what `--device` calls the GPU.
    pub fn device(&self) -> &str {
        self.0.device.split(' ').next().unwrap_or_default()
    }

    /// What of the GPU's memory was taken since before the model was loaded, as its driver says: by this program, if nobody else
    /// uses it. None where the CPU computes.
    pub fn device_memory(&self) -> Option<Bytes> {
        self.0.gpu.map(|(gpu, free)| free.saturating_sub(gpu.memory().free))
    }

    /// One line: device, threads, what streams and how.
    pub fn describe(&self) -> String {
        let Loaded { plan, n_threads, device, reader, .. } = &*self.0;
        let threads =
            if *n_threads == 1 { "1 thread".to_owned() } else { format!("{n_threads} threads") };
        let who = match plan.gpu {
            Some(_) => device.clone(),
            None => format!("CPU, {threads}"),
        };
        let mut where_from = Vec::new();
        let all = plan.blocks.len();
        let by_cpu = plan.count(Tier::Cpu);
        if by_cpu > 0 {
            where_from.push(format!("{by_cpu} of {all} blocks computed by the CPU with {threads}"));
        }
        let bytes = plan.streamed_bytes().saturating_sub(plan.disk_bytes());
        let host = plan.count(Tier::Host);
        if host > 0 {
            where_from.push(format!("{host} of {all} blocks ({bytes}) streamed from RAM"));
        }
        let n = plan.count(Tier::Streamed);
        if let (Some(reader), true) = (reader, n > 0) {
            let parts =
                plan.streamed.iter().filter(|u| plan.blocks[u.block].tier == Tier::Streamed);
            let parts = parts.count();
            let bytes = plan.disk_bytes();
            let what = match plan.count_partly() > 0 {
                true => format!("{parts} parts of {n} of {all} blocks ({bytes})"),
                false if parts > n => format!("{n} of {all} blocks ({bytes}) in {parts} parts"),
                false => format!("{n} of {all} blocks ({bytes})"),
            };
            where_from.push(format!("{what} streamed from disk ({reader})"));
        }
        if where_from.is_empty() {
            where_from.push("all resident".to_owned());
        }
        format!("{who}, {}", where_from.join(", "))
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

/// What computes, for people: the name first.
fn describe_device(gpu: Option<Device>) -> String {
    match gpu {
        None => "cpu".to_owned(),
        Some(device) => format!("{} ({})", devices::name(gpu), device.description().trim()),
    }
}

impl Vocab {
    /// The vocabulary of a model.
    pub(super) fn of(model: Arc<Model>) -> Vocab {
        Vocab { model, own: None }
    }

    /// Text to tokens. `add_special` adds what the model wants around a text; `parse_special` reads control tokens' texts.
    ///
    /// # Errors
    ///
    /// Texts of more than 2 GiB.
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, Error> {
        if let Some(own) = &self.own {
            return own.tokenize(text, add_special, parse_special);
        }
        let tokens = self.model.vocab().tokenize(text, add_special, parse_special);
        tokens.map_err(|error| Error::Ggml { model: "the tokenizer".into(), error })
    }

    /// The bytes of a token as they appear in an answer: none for control tokens, not always whole characters.
    pub fn piece(&self, token: Token) -> Vec<u8> {
        match &self.own {
            Some(own) => own.piece(token, false),
            None => self.model.vocab().piece(token, false),
        }
    }

    /// The bytes of a token, control tokens too.
    pub fn bytes(&self, token: Token) -> Vec<u8> {
        match &self.own {
            Some(own) => own.piece(token, true),
            None => self.model.vocab().piece(token, true),
        }
    }

    /// The text of a token, control tokens too.
    pub fn text(&self, token: Token) -> String {
        String::from_utf8_lossy(&self.bytes(token)).into_owned()
    }

    /// The token whose text is exactly `text`, a control token for example.
    pub fn find(&self, text: &str) -> Option<Token> {
        if let Some(own) = &self.own {
            return own.find(text);
        }
        match self.model.vocab().tokenize(text, false, true).as_deref() {
            Ok(&[token]) => Some(token),
            _ => None,
        }
    }

    /// Whether a token ends the answer.
    pub fn is_eog(&self, token: Token) -> bool {
        match &self.own {
            Some(own) => own.is_eog(token),
            None => self.model.vocab().is_eog(token),
        }
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<Token> {
        match &self.own {
            Some(own) => own.bos(),
            None => self.model.vocab().bos(),
        }
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<Token> {
        match &self.own {
            Some(own) => own.eos(),
            None => self.model.vocab().eos(),
        }
    }

    /// Whether texts begin with BOS.
    pub fn adds_bos(&self) -> bool {
        match &self.own {
            Some(own) => own.bos().is_some(),
            None => self.model.vocab().adds_bos(),
        }
    }

    /// The prompt for what is missing between two texts; `None` for a model that was not made to fill in.
    ///
    /// # Errors
    ///
    /// As [`Vocab::tokenize`].
    pub fn between(&self, before: &str, after: &str) -> Result<Option<Vec<Token>>, Error> {
        let Some([first, then, here]) = self.model.vocab().fill_in() else { return Ok(None) };
        // The texts are somebody's, and no control tokens are in them.
        let (before, after) =
            (self.tokenize(before, false, false)?, self.tokenize(after, false, false)?);
        let bos = self.bos().filter(|_| self.adds_bos());
        let opening = bos.into_iter().chain([first]);
        Ok(Some(opening.chain(before).chain([then]).chain(after).chain([here]).collect()))
    }

    /// Number of tokens.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a vocabulary is not a collection to be emptied"
    )]
    pub fn len(&self) -> usize {
        self.model.vocab().len()
    }
}

/// The first file's path, for messages.
pub(super) fn model_name(index: &Index) -> String {
    index.files.first().map_or_else(String::new, |f| f.path.display().to_string())
}

/// Wraps an error of ggml with the model's name.
pub(super) fn ggml_error(index: &Index) -> impl Fn(ggml::Error) -> Error {
    move |error| Error::Ggml { model: model_name(index), error }
}

/// Everything that loading needs to know.
pub(super) struct Loading<'a> {
    pub(super) index: &'a Index,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a LoadOptions,
    /// The GPU that computes, if one does.
    pub(super) gpu: Option<Device>,
    pub(super) threads: &'a Arc<Threadpool>,
    pub(super) monitor: &'a Arc<Monitor>,
}

/// The model, its stream device if blocks stream, and how they are read.
type Parts = (Model, Option<StreamDevice>, Option<String>);

impl Loading<'_> {
    /// Loads all of the model to where it is computed with. Its file is not mapped as llama.cpp would: repacking takes a copy
    /// in any case, and page faults read a cold file at a fraction of the disk's rate.
    fn resident(&self) -> Result<Parts, Error> {
        let params = ModelParams {
            device: self.gpu,
            overrides: self.by_cpu()?,
            repack: self.options.repack && self.gpu.is_none(),
            describe_only: false,
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

    /// Where libllama is to put what the CPU computes with beside a GPU: in its host memory, pinned where the GPU has such, so that
    /// large batches can bring it over.
    fn by_cpu(&self) -> Result<Vec<(String, BufferType)>, Error> {
        let cpu = Device::cpu().map_err(ggml_error(self.index))?.buffer_type();
        Ok(self.plan.cpu_pattern(self.index).map(|pattern| (pattern, cpu)).into_iter().collect())
    }

    /// Describes the model, as the GPU `device` and the CPU would compute it by the plan, without giving it any memory.
    pub(super) fn described(&self, device: Device) -> Result<Model, Error> {
        let overrides = self.by_cpu()?;
        let device = Some(device);
        let params =
            ModelParams { device, overrides, describe_only: true, ..ModelParams::default() };
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
    pub(super) fn hollow(&self) -> Result<(Model, StreamDevice), Error> {
        // Repacking would touch the memory that is to stay addresses.
        let options = LoadOptions { repack: false, ..self.options.clone() };
        let all = (0..self.index.tensors.len()).collect();
        let file = self.virtual_file(&self.paths(), &all)?;
        let device = self.device(Arc::new(NoSource))?;
        let params = Loading { options: &options, ..*self }.params_on(&device)?;
        let model = Model::load_virtual(file, &params, &|_| true);
        Ok((of_device(model.map_err(ggml_error(self.index)), &device, self.index)?, device))
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.index.files.iter().map(|f| f.path.clone()).collect()
    }

    /// Makes the stream device.
    fn device(&self, source: Arc<dyn WeightSource>) -> Result<StreamDevice, Error> {
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
            staging: stream::Staging::default(),
            monitor: self.monitor.clone(),
        })
        .map_err(|error| Error::Stream { model: model_name(self.index), error })
    }

    /// How to load the model with the streamed tensors on `device`, and the others in the memory of what computes with them.
    fn params_on(&self, device: &StreamDevice) -> Result<ModelParams, Error> {
        let mut overrides = vec![(self.plan.pattern(self.index), device.weights())];
        if self.gpu.is_some() {
            overrides.extend(self.by_cpu()?);
        } else {
            // For what is overridden to the CPU's memory, libllama considers the repacked kinds of it, too.
            let cpu = Device::cpu().map_err(ggml_error(self.index))?;
            overrides.push((".*".to_owned(), cpu.buffer_type()));
        }
        Ok(ModelParams {
            device: Some(device.device()),
            overrides,
            repack: self.options.repack && self.gpu.is_none(),
            describe_only: false,
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

    /// The file that libllama reads: the ranges of the tensors in `void` void, parts joined.
    fn virtual_file(&self, paths: &[PathBuf], void: &HashSet<usize>) -> Result<VirtualFile, Error> {
        let segments = match paths {
            [_] => self.single_file(void),
            _ => self.joined_files(void)?,
        };
        VirtualFile::open(paths, segments).map_err(|e| {
            let why = e.to_string();
            ggml_error(self.index)(ggml::Error::Null { what: "opening the files", why })
        })
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
