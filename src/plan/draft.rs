//! A placement on paper: which parts stream, and where each block lives; what that takes of both memories, and the plan that comes of it.
//! What is worth it is decided elsewhere.

use super::cut::{Cut, Part};
use super::experts::Experts;
use super::further::{Held, share_of};
use super::machine::MOST_FURTHER;
use super::problem::Problem;
use super::refusal::{Pool, Refusal};
use super::{Cost, GpuMemory, Memory, Placed, Plan, Rates, Tier, Unit};
use crate::units::Bytes;

/// What the CPU computes of its blocks, where a GPU computes the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// All of it.
    Whole,
    /// The feed-forward network; the rest is resident.
    Ffn,
}

/// What makes a plan.
#[derive(Clone)]
pub(super) struct Draft<'a> {
    pub(super) cut: &'a Cut,
    /// Whether each part streams. Those of blocks that the CPU computes do not.
    pub(super) streams: Vec<bool>,
    /// Of each block, [`Tier::Cpu`], or where what of it streams is at home: [`Tier::Host`] or [`Tier::Streamed`].
    pub(super) homes: Vec<Tier>,
    /// The last blocks, which further GPUs hold: nothing of them streams, and they have no other home.
    pub(super) held: Held,
    /// What the CPU computes of its blocks.
    pub(super) share: Share,
    /// Whether what computes the blocks computes the output matrix, too.
    pub(super) output_here: bool,
    pub(super) n_slots: usize,
    pub(super) n_ubatch: u32,
    /// Whether slots are in the memory of a GPU's pool of experts, where they can be.
    pub(super) lends: bool,
}

impl Draft<'_> {
    /// Whether the CPU or further GPUs compute a part of the model beside a GPU.
    fn is_shared(&self) -> bool {
        !self.output_here || self.homes.contains(&Tier::Cpu) || self.held.n() > 0
    }

    /// The bytes of each block that stream; `None` where nothing does.
    pub(super) fn streamed(&self, size: impl Fn(&Part) -> Bytes) -> Vec<Option<Bytes>> {
        let mut of_blocks = vec![None; self.cut.blocks.len()];
        for (part, _) in self.cut.parts.iter().zip(&self.streams).filter(|(_, streams)| **streams) {
            *of_blocks[part.block].get_or_insert(Bytes::ZERO) += size(part);
        }
        of_blocks
    }
}

/// What a draft takes.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) ram: Memory,
    pub(super) gpu: Option<GpuMemory>,
    /// Room for the largest part that streams.
    pub(super) slot: Bytes,
    /// Bytes that the CPU computes with beside a GPU.
    pub(super) by_cpu: Bytes,
    /// Bytes of the blocks that each further GPU holds.
    pub(super) held: [Bytes; MOST_FURTHER],
}

impl Taken {
    /// What computes what comes after the blocks, if the CPU does not.
    pub(super) fn after(&self, rates: &Rates) -> Cost {
        let first = self.held.iter().position(|len| *len > Bytes::ZERO);
        first.map_or(rates.resident, |number| rates.of_further(number))
    }

    /// By how much the RAM is too small.
    pub(super) fn over_ram(&self) -> Bytes {
        self.ram.peak().saturating_sub(self.ram.budget)
    }

    /// By how much the memory of what computes is too small.
    pub(super) fn over_here(&self) -> Bytes {
        self.gpu.map_or(self.over_ram(), |gpu| gpu.peak().saturating_sub(gpu.budget))
    }

    pub(super) fn fits(&self) -> bool {
        self.over_here() == Bytes::ZERO && self.over_ram() == Bytes::ZERO
    }
}

/// What the blocks of a draft take. (bytes)
#[derive(Default)]
struct Sums {
    /// Resident in the memory of what computes.
    here: Bytes,
    /// Computed with by the CPU beside a GPU.
    by_cpu: Bytes,
    /// What the GPU cannot compute with.
    left: Bytes,
    /// Room in RAM for what is at home there.
    host: Bytes,
    /// Whether something streams.
    streams: bool,
    /// The largest part that streams, in a slot.
    slot: Bytes,
    /// The largest tensor that stays where it is.
    largest: Bytes,
    /// The largest tensor of blocks that the CPU computes.
    visiting: Bytes,
}

impl Sums {
    fn of(draft: &Draft<'_>) -> Sums {
        let mut sums = Sums::default();
        let mut parts = draft.cut.parts.iter().zip(&draft.streams);
        let n = draft.cut.blocks.len() - draft.held.n();
        for block in &draft.cut.blocks[n..] {
            sums.left += block.left;
            sums.largest = sums.largest.max(block.largest);
        }
        for (block, home) in draft.cut.blocks[..n].iter().zip(&draft.homes) {
            let parts = parts.by_ref().take(block.units.len());
            if *home == Tier::Cpu {
                parts.for_each(drop);
                let (by_cpu, left) = match draft.share {
                    Share::Whole => (block.len, Bytes::ZERO),
                    Share::Ffn => (block.ffn_len, block.left),
                };
                sums.by_cpu += by_cpu;
                sums.left += left;
                sums.here += block.len.saturating_sub(by_cpu + left);
                sums.visiting = sums.visiting.max(block.largest);
                sums.largest = sums.largest.max(block.largest);
                continue;
            }
            let mut streamed = Bytes::ZERO;
            for (part, streams) in parts {
                if !streams {
                    sums.largest = sums.largest.max(part.largest);
                    continue;
                }
                streamed += part.len;
                sums.streams = true;
                sums.slot = sums.slot.max(part.slot);
                if *home == Tier::Host {
                    sums.host += part.slot;
                }
            }
            sums.here += block.len.saturating_sub(block.left + streamed);
            sums.left += block.left;
            sums.largest = sums.largest.max(block.largest_kept);
        }
        sums
    }
}

impl Problem<'_> {
    /// What a draft takes of both memories, the pools of experts not counted: those have what is left.
    pub(super) fn taken(&self, draft: &Draft<'_>) -> Taken {
        let sums = Sums::of(draft);
        let (ctx, outside) = (self.wish.ctx, &self.outside);
        let slots = sums.slot * draft.n_slots as u64;
        let mut ram = Memory {
            budget: self.ram,
            process: self.needs.process,
            outside: outside.embedding,
            context: self.needs.context.at(ctx, draft.n_ubatch),
            ..Memory::default()
        };
        let largest = outside.largest.max(sums.largest);
        let Some(needs) = self.gpu else {
            // A model without an output matrix uses the embedding's; repacked, that is a second copy.
            let copied = !outside.tied || self.wish.repack;
            ram.outside += outside.others + if copied { outside.output_len } else { Bytes::ZERO };
            (ram.blocks, ram.slots) = (sums.here, slots);
            // libllama repacks a tensor out of a buffer as large as itself.
            let staged = if self.wish.repack { largest } else { Bytes::ZERO };
            ram.loading = staged + self.needs.read_ahead.min(ram.outside + ram.blocks);
            let held = [Bytes::ZERO; MOST_FURTHER];
            return Taken { ram, gpu: None, slot: sums.slot, by_cpu: Bytes::ZERO, held };
        };
        // Further GPUs have what their blocks keep, and what comes after them.
        let (n, n_held) = (draft.cut.blocks.len(), draft.held.n());
        let elsewhere = share_of(needs.kept.at(ctx, draft.n_ubatch), n_held, n);
        let after = if n_held > 0 { Bytes::ZERO } else { self.after(draft.output_here) };
        let mut gpu = GpuMemory {
            budget: self.vram,
            outside: after,
            blocks: sums.here,
            slots,
            context: needs.context.at(ctx, draft.n_ubatch).saturating_sub(elsewhere),
            driver: needs.driver.at(ctx, draft.n_ubatch),
            visiting: sums.visiting,
        };
        if !draft.output_here {
            ram.outside += outside.output_len;
            gpu.visiting = gpu.visiting.max(outside.output_len);
        }
        if draft.is_shared() {
            ram.context += needs.shared[0];
            gpu.context += needs.shared[1];
        }
        ram.blocks = sums.by_cpu + sums.left;
        ram.host = sums.host;
        // What is at home in RAM comes from the disk once, the same way.
        ram.staging = if sums.streams { needs.staging } else { Bytes::ZERO };
        // libllama reads a tensor into RAM before it is the GPU's.
        ram.loading = largest + self.needs.read_ahead;
        let held = draft.held.bytes();
        Taken { ram, gpu: Some(gpu), slot: sums.slot, by_cpu: sums.by_cpu, held }
    }

    /// The plan of a draft that fits, and takes so much.
    pub(super) fn plan(&self, draft: &Draft<'_>, mut taken: Taken) -> Plan {
        let experts = self.experts(draft, &mut taken);
        let mut plan = Plan {
            blocks: Vec::with_capacity(draft.cut.blocks.len()),
            streamed: Vec::new(),
            experts,
            by_cpu: Vec::new(),
            output_by_cpu: !draft.output_here,
            n_slots: 0,
            slot: taken.slot,
            n_ctx: self.wish.ctx,
            n_ubatch: draft.n_ubatch,
            memory: taken.ram,
            gpu: taken.gpu,
            kept_in_ram: self
                .gpu
                .map(|needs| needs.kept_in_ram.at(self.wish.ctx, draft.n_ubatch))
                .unwrap_or_default(),
            further: draft.held.by(draft.cut.blocks.len()),
            promised: self.wish.ram.is_some(),
        };
        let mut streams = draft.streams.as_slice();
        for i in 0..draft.cut.blocks.len() {
            let (of_block, rest) = streams.split_at(draft.cut.blocks[i].units.len());
            self.place(draft, i, of_block, &mut plan);
            streams = rest;
        }
        if !draft.output_here {
            plan.by_cpu.extend(self.outside.output);
        }
        plan.n_slots = if plan.streamed.is_empty() { 0 } else { draft.n_slots };
        plan
    }

    /// Puts block `i`, of whose units some stream, into the plan.
    fn place(&self, draft: &Draft<'_>, i: usize, streams: &[bool], plan: &mut Plan) {
        let (block, cut, home) = (&self.index.blocks[i], &draft.cut.blocks[i], draft.homes[i]);
        let by_cpu = match (home, draft.share) {
            (Tier::Cpu, Share::Whole) => block.tensors.as_slice(),
            (Tier::Cpu, Share::Ffn) => cut.ffn.as_slice(),
            _ => &[],
        };
        plan.by_cpu.extend(by_cpu);
        let (mut before, mut streamed, mut n) = (Bytes::ZERO, Bytes::ZERO, 0);
        let units = cut.units.iter().zip(streams).filter(|_| home != Tier::Cpu);
        for (unit, &streams) in units {
            if !streams {
                before += unit.len;
                continue;
            }
            streamed += unit.len;
            n += 1;
            plan.streamed.push(Unit { before: std::mem::take(&mut before), ..unit.clone() });
        }
        let stays = n == 0 && home != Tier::Cpu;
        plan.blocks.push(Placed {
            place: block.place(),
            tier: if stays { Tier::Resident } else { home },
            len: block.len,
            streamed,
            partly: n > 0 && n < cut.units.len(),
            by_cpu: by_cpu.iter().map(|&t| self.index.tensors[t].len).sum(),
            left: if by_cpu.len() == block.tensors.len() { Bytes::ZERO } else { cut.left },
        });
    }

    /// Whether experts of a cut come one by one: to a GPU only where nothing else is brought.
    pub(super) fn one_by_one(&self, cut: &Cut) -> bool {
        self.by_expert && (self.gpu.is_none() || self.always() || cut.only_stacks)
    }

    /// The experts of a draft that come one by one, with the memory that is left for them, which is added to what is taken; the least
    /// that does where nothing but streaming is asked for, and no budget given. `None` where there is no room, or nothing comes so.
    pub(super) fn experts(&self, draft: &Draft<'_>, taken: &mut Taken) -> Option<Experts> {
        let (cut, with_gpu) = (draft.cut, taken.gpu.is_some());
        if !self.one_by_one(cut) {
            return None;
        }
        let units = cut.blocks.iter().flat_map(|b| &b.units).zip(&cut.parts).zip(&draft.streams);
        let stacks = units.filter(|((unit, part), streams)| {
            **streams && part.of_stacks && draft.homes[unit.block] == Tier::Streamed
        });
        let tensors =
            stacks.flat_map(|((unit, _), _)| unit.tensors.iter().map(|&t| (unit.block, t)));
        let experts = Experts::of(self.index, tensors, self.abilities)?;
        let least = experts.least(self.abilities);
        let room = |given: Option<Bytes>, left: Bytes, least: Bytes| {
            if self.always() && given.is_none() { least } else { left }
        };
        // Without a GPU, slots of units are in the same memory.
        let slots = taken.ram.slots;
        let left = (taken.ram.budget + slots).saturating_sub(taken.ram.peak());
        let in_ram = room(self.wish.ram, left, slots + least.ram).min(left);
        let mut streamed = cut.parts.iter().zip(&draft.streams).filter(|(_, streams)| **streams);
        let only_stacks = streamed.all(|(part, _)| part.of_stacks);
        let shares = !with_gpu && only_stacks;
        let lent = (with_gpu && only_stacks && draft.lends).then_some((draft.n_slots, taken.slot));
        let experts = match taken.gpu {
            Some(gpu) => {
                let own = if lent.is_some() { gpu.slots } else { Bytes::ZERO };
                let left = (gpu.budget + own).saturating_sub(gpu.peak());
                let least = experts.areas_of(0, lent, self.abilities).bytes();
                let above = room(self.wish.vram, left, least);
                experts.with_device_room(above, lent, self.abilities)?
            }
            None => experts,
        };
        let experts = experts.with_room(in_ram, slots, shares, self.abilities)?;
        taken.ram.slots = if shares { experts.pool.max(slots) } else { slots + experts.pool };
        if let (Some(gpu), Some(above)) = (&mut taken.gpu, experts.on_device) {
            gpu.slots = if above.lends { above.pool } else { gpu.slots + above.pool };
        }
        Some(experts)
    }

    /// Why a draft, the smallest of its kind, does not fit; `None` if it does.
    pub(super) fn refuse(&self, draft: &Draft<'_>) -> Option<Refusal> {
        let taken = self.taken(draft);
        let here = if taken.gpu.is_some() { Pool::Vram } else { Pool::Ram };
        let (pool, least, budget, fixed, loading) = match taken.gpu {
            Some(gpu) if gpu.peak() > gpu.budget => {
                (here, gpu.peak(), gpu.budget, gpu.peak() - gpu.context, Bytes::ZERO)
            }
            _ => {
                let ram = taken.ram;
                let fixed = ram.peak() - ram.context.max(ram.loading);
                (Pool::Ram, ram.peak(), ram.budget, fixed, ram.loading)
            }
        };
        let room = budget.saturating_sub(fixed + pool.spread());
        let fits = match pool == here && loading <= room {
            true => self.context().longest(room, self.wish.ctx, draft.n_ubatch),
            false => 0,
        };
        let given = if pool == Pool::Ram { self.wish.ram } else { self.wish.vram };
        (least > budget).then(|| Refusal {
            pool,
            least,
            budget,
            promised: given.is_some(),
            resident: self.never(),
            ctx: self.wish.ctx,
            fits,
        })
    }
}
