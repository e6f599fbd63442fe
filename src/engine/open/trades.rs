//! What another context would cost or bring beside a plan: twice the length, and smaller keys and values. The plan is made again with
//! them, so that what they mean for blocks and speed is known, too.

use std::sync::Arc;

use super::layout::{lay_out, lay_out_experts};
use super::length::trained;
use super::needs;
use super::options::LoadOptions;
use super::planning::Planned;
use crate::ggml::{Device, KvType, Threadpool};
use crate::gguf::Index;
use crate::plan::report::Trade;
use crate::plan::{self, Abilities, Needs, Plan, Rates, Tier, Touched, Wish};
use crate::units::Bytes;

/// What trades are judged by.
pub(super) struct Trades<'a> {
    pub(super) index: &'a Index,
    pub(super) options: &'a LoadOptions,
    pub(super) planned: &'a Planned,
    pub(super) rates: &'a Rates,
    pub(super) threads: &'a Arc<Threadpool>,
}

impl Trades<'_> {
    /// A context of twice the length, if the model was made for more than it has.
    pub(super) fn longer(&self) -> Option<Trade> {
        let shares = self.options.shares();
        let n_ctx = self.planned.plan.n_ctx;
        trained(self.index, self.options).filter(|&n| n > n_ctx / shares)?;
        self.again(&self.planned.needs, n_ctx.saturating_mul(2), self.options.recall.kv)
    }

    /// Keys and values of eight bits, where blocks stream and there are half floats.
    pub(super) fn smaller(&self) -> Option<Trade> {
        let Planned { plan, needs, .. } = self.planned;
        if plan.streamed.is_empty() || self.options.recall.kv != KvType::F16 {
            return None;
        }
        let kept = |kv| {
            let recall = self.options.recall.with_kv(kv);
            let options = LoadOptions { recall, ..self.options.clone() };
            needs::kept(self.index, &options, plan.n_ctx, self.threads).ok()
        };
        let saved = kept(KvType::F16)?.saturating_sub(kept(KvType::Q8_0)?);
        if saved == Bytes::ZERO {
            return None;
        }
        self.again(&needs.with_less_context(saved), plan.n_ctx, KvType::Q8_0)
    }

    /// The plan with other needs and another length.
    fn again(&self, needs: &Needs, ctx: u32, kv: KvType) -> Option<Trade> {
        let Planned { gpu, machine, left, wish, .. } = self.planned;
        let wish = Wish { ctx, ctx_least: ctx, ..*wish };
        let device = gpu.map_or_else(Device::cpu, Ok).ok()?;
        let size = |tensors: &[usize]| lay_out(self.index, tensors, device).size;
        let region = |stacks: &[usize], n: u64| lay_out_experts(self.index, stacks, n, device);
        let abilities = Abilities { slot_size: &size, expert_region: &region, left };
        let there = plan::solve(self.index, machine, needs, &wish, abilities).ok()?;
        let touched = Touched::of(self.index);
        let speed = plan::estimate(&there, self.rates, touched, 1).generation;
        Some(Trade {
            ctx,
            kv: kv.name(),
            context: context_bytes(&there),
            resident: there.bytes(Tier::Resident),
            tokens_per_second: speed.tokens_per_second,
        })
    }
}

/// What the context of a plan takes where it is computed.
fn context_bytes(plan: &Plan) -> Bytes {
    plan.gpu.map_or(plan.memory.context, |gpu| gpu.context)
}
