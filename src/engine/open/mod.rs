//! How a model gets in: what it needs and what the machine can do become a plan, and the plan a loaded model.

pub mod compare;
mod layout;
mod loading;
mod needs;
pub(super) mod options;
pub mod planning;
mod rates;
mod resident;

use std::sync::Arc;

use loading::Loading;
use options::LoadOptions;
use planning::{Care, Planned, make_plan};

use super::error::model_name;
use super::loaded::{Engine, Loaded};
use super::{Error, devices, threads};
use crate::ggml::{self, Device};
use crate::gguf::{Index, Purpose};
use crate::source::WeightSource;
use crate::talk::Vocab;
use crate::talk::tokenizer::OwnTokenizer;

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
        let n_threads = threads::count(options.threads);
        let threads = threads::pool(n_threads, &index)?;
        let planned = make_plan(&index, options, &threads, Care::Quick)?;
        let (rates, rates_measured) = planned.rates(&index, options);
        let context = planned.context(&index, options);
        let Planned { plan, gpu, .. } = planned;
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
        let (model, stream, reader) = loading.load(wrap)?;
        let model = Arc::new(model);
        let (sequences, shares) = match model.batches() {
            true => (options.sequences.max(1), options.shares()),
            false => (1, 1),
        };
        ggml::set_abort_context(Some(format!("running '{name}'")));
        let own = own.map(|own| own.check(model.vocab().len()).map(|()| own)).transpose()?;
        let vocab = Vocab::of(model.clone(), own);
        Ok(Engine::of(Loaded {
            vocab,
            model,
            stream,
            threads,
            n_threads,
            sequences,
            n_outputs: options.outputs(&index),
            shares,
            monitor,
            plan,
            rates,
            rates_measured,
            context,
            index,
            reader,
            device: describe_device(gpu),
            gpu: before,
        }))
    }
}

/// What computes, for people: the name first.
fn describe_device(gpu: Option<Device>) -> String {
    match gpu {
        None => "cpu".to_owned(),
        Some(device) => format!("{} ({})", devices::name(gpu), device.description().trim()),
    }
}
