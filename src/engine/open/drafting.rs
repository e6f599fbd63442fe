//! Who drafts for a model, and what that is expected to bring: decided with the plan, because drafts take memory that blocks could live
//! in. Nobody drafts for a model that is resident unless that was asked for, and then it costs no memory either.

use std::path::Path;
use std::sync::Arc;

use super::options::{Beside, Draft, LoadOptions};
use super::planning::{Asked, Care, Planned, plan_with};
use crate::engine::compute::draft::{self, By};
use crate::engine::error::model_name;
use crate::engine::{Error, devices};
use crate::ggml::Threadpool;
use crate::gguf::Index;
use crate::plan::{self, Foreseen, Rates, Touched};
use crate::probe;

/// Plans for a model and for who drafts for it: as the options say, or what is expected to be the fastest where they leave it open.
pub(super) fn make_plan(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    care: Care,
) -> Result<Planned, Error> {
    let with = |draft: &Draft| LoadOptions { draft: draft.clone(), ..options.clone() };
    let is_open = matches!(
        options.draft,
        Draft::Ngrams { always: false }
            | Draft::Head { always: false }
            | Draft::HeadFile { always: false, .. }
            | Draft::Model { always: false, .. }
    );
    if !is_open {
        return plan_with(index, options, threads, care, &Asked::of(vec![options.clone()]));
    }
    let ngrams = Draft::Ngrams { always: false };
    let asked = Asked::of(vec![with(&Draft::None), with(&ngrams), options.clone()]);
    let of = |draft: &Draft| plan_with(index, &with(draft), threads, care, &asked);
    let has_experts = index.tensors.iter().any(|tensor| index.experts(tensor).is_some());
    if has_experts || !certainly_streams(index, options) {
        let without = of(&Draft::None)?;
        // Each token of a pass chooses experts of its own: many tokens read more, and push out what the pool has kept for the next.
        if without.plan.streamed.is_empty() || without.plan.experts.is_some() {
            return Ok(without);
        }
    }
    let ngrams = of(&ngrams)?;
    if matches!(options.draft, Draft::Ngrams { .. }) {
        return Ok(ngrams);
    }
    // A model or a head that there is no room for, or that cannot be had, drafts for nobody.
    let other = match of(&options.draft) {
        Ok(other) => other,
        Err(why) => return Ok(without(ngrams, &options.draft, why.to_string())),
    };
    let rates = match asked.measured() {
        Some(rates) => ngrams.taught(index, options, rates),
        None => ngrams.rates(index, options).0,
    };
    let speed = |planned: &Planned| {
        let foreseen = foresee(index, planned, &rates, options);
        foreseen.map_or(0.0, |foreseen| foreseen.gain.tokens_per_second)
    };
    Ok(match (speed(&other), speed(&ngrams)) {
        (with, without) if with > without => other,
        (with, alone) => {
            let why = format!("{with:.2} tokens/s with it, {alone:.2} without");
            without(ngrams, &options.draft, why)
        }
    })
}

/// A plan in which somebody does not draft, and for a head why: people were not asked for it, and may miss it.
fn without(planned: Planned, draft: &Draft, why: String) -> Planned {
    let is_head = matches!(draft, Draft::Head { .. } | Draft::HeadFile { .. });
    let why_not = is_head.then_some(why);
    Planned { beside: Beside { why_not, ..planned.beside }, ..planned }
}

/// Whether the weights alone are more than there is room for.
fn certainly_streams(index: &Index, options: &LoadOptions) -> bool {
    match options.stream {
        plan::StreamMode::Always => true,
        plan::StreamMode::Never => false,
        // What a GPU has is for the plan to say.
        plan::StreamMode::Auto => {
            index.bytes().saturating_sub(index.head_bytes())
                > options.ram.unwrap_or_else(probe::available_memory)
                && devices::choose(&options.device).is_ok_and(|gpus| gpus.is_empty())
        }
    }
}

/// What drafts are expected to bring with a plan, at `rates`.
pub(super) fn foresee(
    index: &Index,
    planned: &Planned,
    rates: &Rates,
    options: &LoadOptions,
) -> Option<Foreseen> {
    let (plan, touched) = (&planned.plan, Touched::of(index));
    let by = match &planned.beside.draft {
        Draft::Model { index, .. } => By::Model(model_name(index)),
        Draft::HeadFile { index, .. } => By::Head(model_name(index)),
        Draft::Head { .. } => By::Head(draft::HEAD.to_owned()),
        Draft::Ngrams { .. } => By::Ngrams,
        Draft::None => return None,
    };
    let habit = draft::known(&model_name(index), &by);
    let options = LoadOptions { draft: planned.beside.draft.clone(), ..options.clone() };
    let room = options.outputs(index).saturating_sub(options.sequences.max(1));
    let pass = |n| plan::pass_seconds(plan, rates, touched, n).max(1e-9);
    let gain = plan::gain(habit, pass, planned.beside.each, room);
    let name = by.name().map(|by| match Path::new(by).file_stem() {
        Some(name) => format!(" and {}", name.to_string_lossy()),
        None => format!(" and {by}"),
    });
    let who = format!("n-grams{}", name.unwrap_or_default());
    let why_not = planned.beside.why_not.clone();
    Some(Foreseen { who, habit, gain, memory: planned.beside.ram + planned.beside.vram, why_not })
}
