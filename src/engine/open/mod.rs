//! How a model gets in: what it needs and what the machine can do become a plan, and the plan a loaded model.

pub mod compare;
mod drafting;
pub(super) mod forecast;
pub(super) mod heads;
mod layout;
mod length;
mod loading;
mod needs;
pub(super) mod options;
pub(super) mod planning;
pub(super) mod rates;
mod resident;
mod trades;

use std::sync::Arc;

use drafting::make_plan;
use heads::HeadFile;
use loading::Loading;
use options::{Draft, LoadOptions};
use planning::{Care, Planned};

use super::error::model_name;
use super::loaded::{Drafting, Engine, Loaded};
use super::warm::Warmer;
use super::{Error, devices, habits, threads};
use crate::ggml::{self, Device, Model};
use crate::gguf::{Index, Purpose};
use crate::plan::{self, Plan, Rates, Touched};
use crate::probe::load::Watch;
use crate::source::WeightSource;
use crate::stream::{Monitor, StreamDevice};
use crate::talk::Vocab;
use crate::talk::tokenizer::OwnTokenizer;

/// Refuses what no plan can be made for.
fn check_file(index: &Index) -> Result<(), Error> {
    if index.is_head() {
        return Err(Error::HeadAlone { model: model_name(index) });
    }
    Ok(index.check_model()?)
}

/// Refuses what cannot be loaded, or is not what is wanted.
fn check(index: &Index, options: &LoadOptions) -> Result<(), Error> {
    if index.is_head() {
        return check_file(index);
    }
    let purpose = index.purpose();
    let makes_vectors = purpose == Purpose::Embedding;
    let other = purpose.not_for_text().filter(|_| !(makes_vectors && options.embedding));
    let refused = other.map(|what| Error::NotForText { model: model_name(index), what });
    match refused {
        // What is no language model lacks keys that one has: it is not damaged for that.
        Some(refused) if !makes_vectors => Err(refused),
        refused => {
            check_file(index)?;
            refused.map_or(Ok(()), Err)
        }
    }
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
        let name = model_name(&index);
        check(&index, options)?;
        let own = options.tokenizer.as_deref().map(OwnTokenizer::open).transpose()?.map(Arc::new);
        ggml::set_abort_context(Some(format!("model '{name}'")));
        let n_threads = threads::count(options.threads);
        let threads = threads::pool(n_threads, &index)?;
        let planned = make_plan(&index, options, &threads, Care::Quick)?;
        let (rates, rates_measured) = planned.rates(&index, options);
        let context = planned.context(&index, options);
        let passes = passes(&index, &planned, &rates);
        let foreseen = drafting::foresee(&index, &planned, &rates, options);
        let Planned { plan, gpu, further, beside, .. } = planned;
        let options = &LoadOptions { draft: beside.draft, ..options.clone() };
        let used = plan.further.iter().map(|held| further[held.number]);
        let used: Vec<Device> = gpu.into_iter().chain(used).collect();
        let gpus = used.iter().map(|gpu| (*gpu, gpu.memory().free)).collect();
        let monitor = options.monitor.clone().unwrap_or_default();
        let loading = Loading {
            index: &index,
            plan: &plan,
            options,
            gpu,
            further: &further,
            threads: &threads,
            monitor: &monitor,
        };
        let (model, stream, reader) = loading.load(wrap)?;
        let model = Arc::new(model);
        let (sequences, shares) = match model.batches() {
            true => (options.sequences.max(1), options.shares()),
            false => (1, 1),
        };
        ggml::set_abort_context(Some(format!("running '{name}'")));
        let own = own.map(|own| own.check(model.vocab().len()).map(|()| own)).transpose()?;
        let vocab = Vocab::of(model.clone(), own);
        let load_head = |head: &Arc<Index>| heads::load(head, &index, options, &threads, gpu);
        let draft = draft(options, &plan, shares, &model, load_head)?;
        Ok(Engine::of(Loaded {
            _warmer: stream.as_ref().and_then(|s| warmer(&index, &plan, s, &monitor)),
            draft,
            foreseen,
            passes,
            n_ways: options.n_ways(&model),
            vocab,
            model,
            stream,
            threads,
            n_threads,
            sequences,
            n_outputs: options.outputs(&index),
            shares,
            recall: planning::recall(options, &plan),
            monitor,
            plan,
            rates,
            rates_measured,
            since: Watch::begin(),
            context,
            index,
            reader,
            device: describe_device(gpu),
            further: used.iter().skip(1).map(|gpu| devices::name(Some(*gpu))).collect(),
            gpus,
        }))
    }
}

/// Who reads ahead what was used most when the model was loaded before, if that is known.
fn warmer(
    index: &Index,
    plan: &Plan,
    stream: &Arc<StreamDevice>,
    monitor: &Arc<Monitor>,
) -> Option<Warmer> {
    Warmer::start(stream, monitor, &habits::of(index, plan)?)
}

/// Who drafts, where somebody does.
fn draft(
    options: &LoadOptions,
    plan: &Plan,
    shares: u32,
    model: &Model,
    load_head: impl FnOnce(&Arc<Index>) -> Result<HeadFile, Error>,
) -> Result<Option<Drafting>, Error> {
    let is_asked = match options.draft {
        Draft::None => false,
        Draft::Ngrams { always }
        | Draft::Head { always }
        | Draft::HeadFile { always, .. }
        | Draft::Model { always, .. } => always || !plan.streamed.is_empty(),
    };
    if !is_asked || !model.batches() {
        return Ok(None);
    }
    Ok(match &options.draft {
        Draft::None => None,
        Draft::Ngrams { .. } => Some(Drafting::Ngrams),
        Draft::Head { .. } => Some(Drafting::Head),
        Draft::HeadFile { index, .. } => Some(Drafting::HeadFile(load_head(index)?)),
        Draft::Model { index, .. } => {
            let options = options.of_draft(Some(plan.n_ctx / shares));
            Some(Drafting::Model(Engine::open(index.clone(), &options)?))
        }
    })
}

/// What passes of 1, 2, 4, ... tokens are expected to take. (seconds)
fn passes(index: &Index, planned: &Planned, rates: &Rates) -> Vec<f64> {
    let plan = &planned.plan;
    let touched = Touched::of(index);
    let seconds = |i: u32| {
        let seconds = plan::pass_seconds(plan, rates, touched, 1 << i);
        if seconds.is_finite() && seconds > 0.0 { seconds } else { 1.0 }
    };
    (0..9).map(seconds).collect()
}

/// What computes, for people: the name first.
fn describe_device(gpu: Option<Device>) -> String {
    match gpu {
        None => "cpu".to_owned(),
        Some(device) => format!("{} ({})", devices::name(gpu), device.description().trim()),
    }
}
