//! A loaded model, and what it says of itself.

use std::sync::Arc;

use super::Error;
use super::error::{ggml_error, model_name};
use super::experience;
use super::habits;
use super::open::heads::HeadFile;
use super::open::planning::ContextRoom;
use super::open::rates;
use super::warm::Warmer;
use crate::ggml::{self, Device, Model, Part, Recall, Threadpool};
use crate::gguf::Index;
use crate::plan::{Foreseen, Plan, Rates, Tier};
use crate::probe::load::Watch;
use crate::stream::{Monitor, StreamDevice};
use crate::talk::Vocab;
use crate::talk::template::{ChatTemplate, SpecialTokens};
use crate::units::Bytes;

/// A loaded model. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Loaded>);

/// The order of the fields is the order of dropping. The model holds the device that its streamed tensors are on.
#[derive(Debug)]
pub(super) struct Loaded {
    /// It uses the stream device, and ends before anything is dropped.
    pub(super) _warmer: Option<Warmer>,
    pub(super) draft: Option<Drafting>,
    /// What drafts are expected to bring.
    pub(super) foreseen: Option<Foreseen>,
    /// What passes of 1, 2, 4, ... tokens are expected to take. (seconds)
    pub(super) passes: Vec<f64>,
    /// Sequences for the ways that drafts see.
    pub(super) n_ways: u32,
    pub(super) vocab: Vocab,
    pub(super) model: Arc<Model>,
    pub(super) stream: Option<Arc<StreamDevice>>,
    pub(super) threads: Arc<Threadpool>,
    pub(super) n_threads: u32,
    pub(super) sequences: u32,
    pub(super) n_outputs: u32,
    pub(super) shares: u32,
    pub(super) recall: Recall,
    pub(super) monitor: Arc<Monitor>,
    pub(super) plan: Plan,
    /// What the plan was judged by ...
    pub(super) rates: Rates,
    /// ... and whether somebody measured it.
    pub(super) rates_measured: bool,
    /// Whether others computed since it was loaded.
    pub(super) since: Watch,
    /// What else the context could be.
    pub(super) context: ContextRoom,
    pub(super) index: Arc<Index>,
    pub(super) reader: Option<String>,
    /// What computes, for people.
    pub(super) device: String,
    /// What `--device` calls the further GPUs that hold blocks, in the order of [`Plan::further`].
    pub(super) further: Vec<String>,
    /// The GPUs that compute, and what each had free before the model was loaded.
    pub(super) gpus: Vec<(Device, Bytes)>,
}

/// Who guesses how texts go on: they themselves, and perhaps somebody else.
#[derive(Debug)]
pub(super) enum Drafting {
    Ngrams,
    /// A head in the model's own file.
    Head,
    HeadFile(HeadFile),
    Model(Engine),
}

impl Loaded {
    /// What a context that writes computes: with a head, it keeps what that reads.
    pub(super) fn part(&self) -> Part {
        match &self.draft {
            Some(Drafting::Head) => Part::Hidden,
            Some(Drafting::HeadFile(head)) => Part::Layers(head.layers),
            Some(Drafting::Ngrams | Drafting::Model(_)) | None => Part::Model,
        }
    }

    /// Tokens of context that each sequence may have.
    pub(super) fn n_ctx_each(&self) -> u32 {
        self.plan.n_ctx / self.shares
    }

    /// What a computation that ggml calls done is worth: nothing, if weights could not be read for what the CPU computed of it.
    pub(super) fn checked<T>(&self, computed: Result<T, ggml::Error>) -> Result<T, ggml::Error> {
        match &self.stream {
            Some(stream) if stream.has_failed() => {
                computed.and(Err(ggml::Error::Failed { what: "reading weights" }))
            }
            _ => computed,
        }
    }

    /// Why a computation failed: by the stream's word, if it has one.
    pub(super) fn explain(&self, error: ggml::Error) -> Error {
        let stream_error = self.stream.as_ref().and_then(|stream| stream.take_error());
        match (error, stream_error) {
            (ggml::Error::Aborted, _) => Error::Interrupted,
            (_, Some(error)) => Error::Stream { model: model_name(&self.index), error },
            (error, None) => ggml_error(&self.index)(error),
        }
    }
}

impl Engine {
    pub(super) fn of(loaded: Loaded) -> Engine {
        Engine(Arc::new(loaded))
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
        if !self.0.vocab.reads_text() {
            return Err(Error::NoTokenizer { model: model_name(&self.0.index) });
        }
        Ok(&self.0.vocab)
    }

    /// The chat template: the file's own if it works.
    ///
    /// # Errors
    ///
    /// The file has no tokenizer, or a template that runs away.
    pub fn chat_template(&self) -> Result<ChatTemplate, Error> {
        let tokens = SpecialTokens::of(self.vocab()?);
        let index = self.index();
        let tool_use = index.meta_str("tokenizer.chat_template.tool_use");
        Ok(ChatTemplate::choose_two(index.chat_template(), tool_use, tokens)?)
    }

    /// What somebody who serves the model should know: parts that are left out, and a chat template that cannot be used.
    pub fn notes(&self) -> Vec<String> {
        let template = self.chat_template().ok();
        let replaced = template.and_then(|template| template.warning().map(str::to_owned));
        self.index().note().into_iter().chain(replaced).collect()
    }

    /// What is odd about a tokenizer of the user's own, if one is used and something is.
    pub fn tokenizer_warning(&self) -> Option<String> {
        let own = self.0.vocab.own()?;
        let (differ, n) = own.differing(&self.0.index).filter(|(differ, _)| *differ > 0)?;
        Some(format!(
            "{differ} of the tokenizer's {n} tokens are others than the model's: is it the right one?"
        ))
    }

    /// Number of tokens in the vocabulary, also of a file without a tokenizer.
    pub fn n_vocab(&self) -> usize {
        self.0.model.vocab().len()
    }

    /// Numbers in the vectors that it makes.
    pub fn vector_length(&self) -> usize {
        self.0.model.n_vector()
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

    /// What drafts are expected to bring, where somebody drafts.
    pub fn foreseen(&self) -> Option<&Foreseen> {
        self.0.foreseen.as_ref().filter(|_| self.0.draft.is_some())
    }

    /// Its context beside the one that the model was made for.
    pub fn context(&self) -> ContextRoom {
        self.0.context
    }

    /// How many sequences can be computed at once: what was asked for, or 1 where the model does not allow it.
    pub fn sequences(&self) -> u32 {
        self.0.sequences
    }

    /// What other threads may look at, and stop it by.
    pub fn monitor(&self) -> Arc<Monitor> {
        self.0.monitor.clone()
    }

    /// Remembers what the last passes took, and which experts were used; and corrects by it what is remembered of this machine, where they
    /// were faster than that predicts.
    pub fn learn(&self) {
        let Loaded { index, plan, n_threads, monitor, .. } = &*self.0;
        if let Some(watch) = monitor.experts() {
            habits::remember(index, plan, watch);
        }
        let took = monitor.took();
        for took in took.into_iter().flatten() {
            rates::correct(index, plan, *n_threads, took);
        }
        // Where others computed, it is no one's fault.
        if !self.0.since.was_busy() {
            experience::remember(index, plan, *n_threads, took);
        }
    }

    /// What computes: `cpu`, or what `--device` calls the GPU.
    pub fn device(&self) -> &str {
        self.0.device.split(' ').next().unwrap_or_default()
    }

    /// What of the GPUs' memory was taken since before the model was loaded, as their drivers say: by this program, if nobody else
    /// uses it. None where the CPU computes.
    pub fn device_memory(&self) -> Option<Bytes> {
        let taken = self.0.gpus.iter().map(|(gpu, free)| free.saturating_sub(gpu.memory().free));
        (!self.0.gpus.is_empty()).then(|| taken.sum())
    }

    /// What `--device` calls the further GPUs that hold blocks, in the order of [`Plan::further`].
    pub fn further_devices(&self) -> &[String] {
        &self.0.further
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
        let all = plan.blocks.len();
        let held = self.0.further.iter().zip(&plan.further);
        let held =
            held.map(|(name, held)| format!(", {} of {all} blocks on {name}", held.blocks.len()));
        let by_cpu = match plan.count(Tier::Cpu) {
            0 => String::new(),
            n => format!(", {n} of {all} blocks computed by the CPU with {threads}"),
        };
        let by_cpu = held.chain([by_cpu]).collect::<String>();
        let streams = match (plan.streamed.is_empty(), by_cpu.is_empty(), reader) {
            (true, true, _) => ", all resident".to_owned(),
            (true, false, _) => String::new(),
            (false, _, Some(reader)) if plan.disk_bytes() > Bytes::ZERO => {
                format!(", {} ({reader})", self.describe_streams())
            }
            (false, ..) => format!(", {}", self.describe_streams()),
        };
        format!("{who}{by_cpu}{streams}")
    }

    /// What each pass brings: `streams 3.25 of 3.45 GiB from disk for each token`; empty where nothing streams.
    pub fn describe_streams(&self) -> String {
        let plan = &self.0.plan;
        // Of a mixture, what a token is expected to read; whole stacks are for prompts.
        let disk = plan.bytes_per_token();
        let ram = plan.streamed_bytes().saturating_sub(plan.disk_bytes());
        let mut parts = Vec::new();
        for (bytes, place) in [(ram, "RAM"), (disk, "disk")] {
            if bytes > Bytes::ZERO {
                parts.push(format!("{} from {place}", of(bytes, self.0.index.bytes())));
            }
        }
        if parts.is_empty() {
            return String::new();
        }
        format!("streams {} for each token", parts.join(", and "))
    }
}

/// `3.25 of 3.45 GiB`; both with their units where these differ.
fn of(part: Bytes, all: Bytes) -> String {
    let (part, all) = (part.to_string(), all.to_string());
    match (part.split_once(' '), all.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number} of {all}"),
        _ => format!("{part} of {all}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::engine::{LoadOptions, StreamMode};

    fn streamed() -> Engine {
        opened(StreamMode::Always)
    }

    fn opened(stream: StreamMode) -> Engine {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q4_k_m.gguf");
        let options =
            LoadOptions { threads: Some(2), ctx: Some(64), stream, ..LoadOptions::default() };
        Engine::open(Arc::new(Index::open(&model).unwrap()), &options).unwrap()
    }

    #[test]
    fn a_vocabulary_holds_what_its_model_streams_through() {
        let engine = streamed();
        let device = Arc::downgrade(engine.0.stream.as_ref().unwrap());
        let vocab = engine.vocab().unwrap().clone();
        drop(engine);
        assert!(device.upgrade().is_some());
        assert!(!vocab.tokenize("Hello", false, false).unwrap().is_empty());
        drop(vocab);
        assert!(device.upgrade().is_none());
    }

    /// They share the compute threads, which know one graph at a time: resident ones meet there, those that stream at the device before.
    #[test]
    fn two_timelines_compute_on_two_threads() {
        for stream in [StreamMode::Never, StreamMode::Always] {
            compute_together(&opened(stream));
        }
    }

    fn compute_together(engine: &Engine) {
        let write = |first: i32| {
            let mut session = engine.session().unwrap();
            let mut all = Vec::new();
            for token in first..first + 12 {
                session.eval(&[token]).unwrap();
                all.extend(session.logits().unwrap().iter().map(|x| x.to_bits()));
            }
            all
        };
        let alone = [write(300), write(400)];
        for _ in 0..2 {
            let begin = Barrier::new(2);
            let together = |first| {
                begin.wait();
                write(first)
            };
            let both = thread::scope(|scope| {
                let other = scope.spawn(|| together(400));
                [together(300), other.join().unwrap()]
            });
            assert!(alone == both);
        }
    }
}
