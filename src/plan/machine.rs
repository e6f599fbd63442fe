//! What a plan is made from: plain numbers about the machine, the model's needs on it, and the user's wishes. They are given,
//! never probed here.

use std::collections::{BTreeMap, HashMap};

use super::StreamMode;
use crate::gguf::{GgmlType, Index};
use crate::units::{Bytes, Rate, most};

/// How many further GPUs a plan counts with at most.
pub const MOST_FURTHER: usize = 7;

/// A value for each further GPU that there is, in the order in which they are filled.
pub type Further<T> = [Option<T>; MOST_FURTHER];

/// What the machine offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// RAM that this process may use in all, what it uses already included, without pushing anything else out.
    pub ram: Bytes,
    /// Of that, what is left to the rest of the machine when the user names no budget.
    pub reserve: Bytes,
    /// What is known of its disk and its CPU, or is taken to be so: what a plan for the CPU is judged by.
    pub rates: Rates,
    /// The GPU that computes, if one does.
    pub gpu: Option<Gpu>,
}

/// A GPU as the plan sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Its memory that nobody uses.
    pub free: Bytes,
    /// Of that, what is left to others when the user names no budget.
    pub reserve: Bytes,
    /// Whether its memory is the machine's.
    pub shares_ram: bool,
    /// What was measured of it and around it: [`Rates::gpu`] is there.
    pub rates: Rates,
    /// Of further GPUs, which hold whole blocks, what may be used of their memory.
    pub further: Further<Bytes>,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whether blocks stream.
    pub stream: StreamMode,
    /// The most RAM to use; `None` leaves it to the machine.
    pub ram: Option<Bytes>,
    /// The most memory of the GPU to use; `None` leaves it to the machine.
    pub vram: Option<Bytes>,
    /// Tokens of context.
    pub ctx: u32,
    /// The least that will do where memory is short, down from `ctx`. (tokens)
    pub ctx_least: u32,
    /// Tokens per pass; `None` is as many as pay.
    pub ubatch: Option<u32>,
    /// Whether resident weights are repacked for this CPU.
    pub repack: bool,
}

/// What a model needs besides its weights, as ggml says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The program, the vocabulary, the model's description.
    pub process: Bytes,
    /// KV cache and compute buffers in RAM.
    pub context: ContextCost,
    /// Buffers of the reader that loads resident weights.
    pub read_ahead: Bytes,
    /// What a GPU needs, if one computes.
    pub gpu: Option<GpuNeeds>,
}

impl Needs {
    /// With so much more for contexts that CPU and GPU share, in RAM and on the GPU.
    #[must_use]
    pub fn plus(self, [in_ram, on_gpu]: [Bytes; 2]) -> Needs {
        let plus = |[ram, gpu]: [Bytes; 2]| [ram + in_ram, gpu + on_gpu];
        let gpu = self.gpu.map(|gpu| GpuNeeds { shared: plus(gpu.shared), ..gpu });
        Needs { gpu, ..self }
    }

    /// With so much more for contexts on each further GPU.
    #[must_use]
    pub fn plus_further(self, more: [Bytes; MOST_FURTHER]) -> Needs {
        let mut gpu = self.gpu;
        let all = gpu.iter_mut().flat_map(|gpu| &mut gpu.more).zip(more);
        all.for_each(|(bytes, more)| *bytes += more);
        Needs { gpu, ..self }
    }

    /// With a context that takes so much less where it is computed.
    #[must_use]
    pub fn with_less_context(self, saved: Bytes) -> Needs {
        let less = |cost: ContextCost| {
            let bytes = cost.bytes.map(|row| row.map(|bytes| bytes.saturating_sub(saved)));
            ContextCost { bytes, ..cost }
        };
        match self.gpu {
            Some(gpu) => {
                let (context, kept) = (less(gpu.context), less(gpu.kept));
                Needs { gpu: Some(GpuNeeds { context, kept, ..gpu }), ..self }
            }
            None => Needs { context: less(self.context), ..self },
        }
    }
}

/// What a model needs of a GPU besides its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuNeeds {
    /// KV cache and compute buffers in its memory.
    pub context: ContextCost,
    /// What its driver and kernels take for themselves, by the batch: work space that nobody asked for by name.
    pub driver: ContextCost,
    /// What of a context in RAM is keys and values of blocks that the GPU computes: nothing where it keeps them itself.
    pub kept_in_ram: ContextCost,
    /// Pinned buffers in RAM that what is read from disk passes through.
    pub staging: Bytes,
    /// What contexts take more, in RAM and on the GPU, where the CPU or further GPUs compute a part of the model.
    pub shared: [Bytes; 2],
    /// Of `context`, what is kept of texts: blocks on further GPUs have theirs there.
    pub kept: ContextCost,
    /// What contexts take more of each further GPU than their blocks' share of what is kept, and the rest of `context`.
    pub more: [Bytes; MOST_FURTHER],
}

/// The bytes of a context as a function of its length and batch, linear in each: exact where it was measured, and not less
/// than the truth between, since the largest of several linear needs lies below its chords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextCost {
    /// Context lengths that were measured, the smaller first. (tokens)
    pub ctx: [u32; 2],
    /// Batches that were measured, the smaller first. (tokens)
    pub ubatch: [u32; 2],
    /// `bytes[i][j]` is the need at `ctx[i]` and `ubatch[j]`.
    pub bytes: [[Bytes; 2]; 2],
}

impl ContextCost {
    /// The need of `n_ctx` tokens of context with batches of `n_ubatch`.
    pub fn at(&self, n_ctx: u32, n_ubatch: u32) -> Bytes {
        let along_batch = self.bytes.map(|row| line(self.ubatch, row.map(Bytes::f64), n_ubatch));
        let bytes = line(self.ctx, along_batch, n_ctx).max(0.0).ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0")]
        Bytes(bytes as u64)
    }

    /// The longest context, at most `n_ctx`, whose need with batches of `n_ubatch` is at most `room`; 0 if there is none.
    pub fn longest(&self, room: Bytes, n_ctx: u32, n_ubatch: u32) -> u32 {
        let fits = |n: usize| {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            self.at(n, n_ubatch.min(n)) <= room
        };
        u32::try_from(most(n_ctx as usize, fits)).unwrap_or(n_ctx)
    }
}

/// The line through two points, at `x`; constant if they are one.
fn line(at: [u32; 2], y: [f64; 2], x: u32) -> f64 {
    if at[0] == at[1] {
        return y[1];
    }
    let [a, b] = at.map(f64::from);
    y[0] + (y[1] - y[0]) * (f64::from(x) - a) / (b - a)
}

/// How fast weights of one kind are computed with.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Cost {
    /// Weight bytes per second when a pass has one token.
    pub one: Rate,
    /// Weight bytes times tokens per second when a pass has many.
    pub many: Rate,
}

/// A kind of weights that a model has: what a machine's speed is measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// ggml's number of the type.
    pub ty: u32,
    /// Elements of a row.
    pub row: u64,
    /// Rows of a matrix.
    pub rows: u64,
    /// Bytes of a matrix.
    pub matrix: Bytes,
    /// Bytes of all blocks' matrices of this type.
    pub bytes: Bytes,
    /// If they are experts: how many there are, and how many a token uses.
    pub experts: Option<(u64, u64)>,
}

impl Kind {
    /// The types that make up most of the blocks, each with the shape that most of its bytes have; largest first.
    pub fn most(index: &Index) -> Vec<Kind> {
        let used = index.arch_uint("expert_used_count").unwrap_or(0);
        let mut shapes: HashMap<(u32, u64, u64, u64), Bytes> = HashMap::new();
        for &t in index.blocks.iter().flat_map(|b| &b.tensors) {
            let tensor = &index.tensors[t];
            if let [row, rows, ..] = tensor.shape[..] {
                let stack = index.experts(tensor).filter(|_| tensor.shape.len() == 3);
                let count = stack.map_or(0, |experts| experts.count);
                *shapes.entry((tensor.ty.0, row, rows, count)).or_default() += tensor.len;
            }
        }
        let all: Bytes = shapes.values().copied().sum();
        let mut kinds: BTreeMap<u32, Kind> = BTreeMap::new();
        let mut shapes: Vec<_> = shapes.into_iter().collect();
        shapes.sort_unstable_by_key(|&(shape, bytes)| (std::cmp::Reverse(bytes), shape));
        for ((ty, row, rows, count), bytes) in shapes {
            let matrix = || GgmlType(ty).bytes(row.saturating_mul(rows)).unwrap_or_default();
            let kind = kinds.entry(ty).or_insert_with(|| Kind {
                ty,
                row,
                rows,
                matrix: matrix(),
                bytes: Bytes::ZERO,
                experts: (count > 0 && used > 0).then_some((count, used.min(count))),
            });
            kind.bytes += bytes;
        }
        let mut kinds: Vec<Kind> = kinds.into_values().collect();
        kinds.retain(|k| k.bytes * 10 >= all && k.matrix > Bytes::ZERO);
        kinds.sort_unstable_by_key(|k| std::cmp::Reverse(k.bytes));
        kinds
    }
}

/// What was measured of the machine, with this model's kinds of weights.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Rates {
    /// The disk that the model is on, past the page cache.
    pub disk: Rate,
    /// The same in passes of one token, where those are known to be brought at another rate ...
    pub disk_one: Option<Rate>,
    /// ... and in those of many.
    pub disk_many: Option<Rate>,
    /// Resident weights, where most of the model is computed.
    pub resident: Cost,
    /// Weights in slots, there too.
    pub streamed: Cost,
    /// RAM, read by all cores that compute; `None` where nobody measured it.
    pub memory: Option<Rate>,
    /// What there is beside a GPU that computes.
    pub gpu: Option<Beside>,
    /// Seconds until the vocabulary is loaded.
    pub open_seconds: f64,
}

impl Rates {
    /// What a machine with so many threads is taken to do where nobody has measured it. To a plan only the relation of disk to
    /// computing matters, and that by little.
    pub fn usual(n_threads: u32) -> Rates {
        // More threads than this wait for the memory.
        let threads = f64::from(n_threads.clamp(1, 10));
        let cost = |one, many| Cost { one: Rate(one * threads), many: Rate(many * threads) };
        Rates {
            disk: Rate(2.5e9),
            disk_one: None,
            disk_many: None,
            resident: cost(6.0e9, 30e9),
            streamed: cost(5.5e9, 20e9),
            memory: None,
            gpu: None,
            open_seconds: 0.0,
        }
    }
}

impl Rates {
    /// The disk in passes of `tokens` tokens.
    pub fn disk_in(&self, tokens: u32) -> Rate {
        let known = if tokens == 1 { self.disk_one } else { self.disk_many };
        known.unwrap_or(self.disk)
    }

    /// What GPU number `further` of the further ones computes.
    pub fn of_further(&self, number: usize) -> Cost {
        let known = self.gpu.and_then(|beside| beside.further.get(number).copied().flatten());
        known.unwrap_or(self.resident)
    }

    /// The same machine with a disk that takes no time.
    #[must_use]
    pub fn without_disk(self) -> Rates {
        Rates { disk: Rate(f64::INFINITY), disk_one: None, disk_many: None, ..self }
    }
}

/// What was measured beside a GPU.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Beside {
    /// From RAM to the GPU's memory.
    pub link: Rate,
    /// What the CPU computes meanwhile, with weights as they are in the file.
    pub cpu: Cost,
    /// What further GPUs compute; the same as the first, where that is not known.
    #[serde(skip_serializing_if = "is_nothing", serialize_with = "those_there")]
    pub further: Further<Cost>,
}

fn is_nothing(further: &Further<Cost>) -> bool {
    further.iter().all(Option::is_none)
}

fn those_there<S: serde::Serializer>(further: &Further<Cost>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(further.iter().flatten())
}

impl Cost {
    /// The cost of a mixture: weights of several costs, each with its share of the bytes.
    pub fn mixed(costs: &[(Cost, Bytes)]) -> Option<Cost> {
        let all: Bytes = costs.iter().map(|c| c.1).sum();
        let mix = |of: fn(&Cost) -> Rate| {
            Rate(
                all.f64() / costs.iter().map(|(cost, bytes)| of(cost).seconds(*bytes)).sum::<f64>(),
            )
        };
        (all > Bytes::ZERO).then(|| Cost { one: mix(|c| c.one), many: mix(|c| c.many) })
    }

    /// Seconds to compute `tokens` tokens with `bytes` of weights.
    pub fn seconds(&self, bytes: Bytes, tokens: u32) -> f64 {
        self.one.seconds(bytes).max(self.many.seconds(bytes) * f64::from(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_costs_what_was_measured() {
        let cost = ContextCost {
            ctx: [256, 4096],
            ubatch: [32, 512],
            bytes: [[Bytes(100), Bytes(1000)], [Bytes(1100), Bytes(9000)]],
        };
        assert_eq!(cost.at(256, 32), Bytes(100));
        assert_eq!(cost.at(4096, 512), Bytes(9000));
        assert_eq!(cost.at(256, 272), Bytes(550));
        assert_eq!(cost.longest(Bytes(9000), 4096, 512), 4096);
        let longest = cost.longest(Bytes(5000), 4096, 512);
        assert!(cost.at(longest, 512) <= Bytes(5000) && cost.at(longest + 1, 512) > Bytes(5000));
        let flat = ContextCost { ctx: [64, 64], ubatch: [8, 8], bytes: [[Bytes(7); 2]; 2] };
        assert_eq!(flat.at(64, 8), Bytes(7));
        assert_eq!(flat.longest(Bytes(6), 64, 8), 0);
    }
}
