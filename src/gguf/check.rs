//! Refuses metadata that would make libllama abort, divide by zero or take absurd memory.
//!
//! libllama answers most nonsense with an exception, which comes back as an error. What is checked
//! here are the values that reach an assertion, an integer division or an allocation in its loader,
//! its vocabulary or a graph, as read in the pinned source (`llama-model.cpp`, `llama-vocab.cpp`,
//! `models/`); docs/decisions/gguf.md has the table. It is deliberately not a description of valid models: a key that is absent is fine
//! here, and zeros are fine wherever libllama writes them itself for "not used".

use super::error::{Error, Reason, TensorFlaw, printable};
use super::index::{Index, TensorInfo};
use super::place::{Place, Stack};
use super::value::Value;

/// `LLAMA_MAX_LAYERS`.
pub(super) const MAX_BLOCKS: u64 = 512;
/// `LLAMA_MAX_EXPERTS`.
const MAX_EXPERTS: u64 = 1024;
/// No model is wider; products of two widths stay far from overflow.
pub(super) const MAX_WIDTH: u64 = 1 << 20;
/// More heads per block, or elements per head, than any model has.
pub(super) const MAX_HEADS: u64 = 1 << 16;
/// More tokens than any vocabulary has. libllama allocates them on the word of `vocab_size` alone.
pub(super) const MAX_VOCABULARY: u64 = 1 << 24;

/// A key and what is wrong with its value.
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) why: String,
}

pub(super) type Checked = Result<(), Wrong>;

/// Types that ggml stores but multiplies nothing by: intermediate ones (Q8_1, Q8_K), whole numbers, and F64.
const NO_KERNEL: [u32; 7] = [9, 15, 24, 25, 26, 27, 28];

/// Whether nothing can be computed with a tensor: ggml would jump to an address of zero.
fn has_no_kernel(tensor: &TensorInfo) -> bool {
    // Tables of numbers: which experts a token has, and which token of a model a head's is.
    let is_table = ["ffn_gate_tid2eid.weight", "d2t"].contains(&tensor.role());
    NO_KERNEL.contains(&tensor.ty.0) && !is_table
}

/// F32, F16, BF16.
const PLAIN: [u32; 3] = [0, 1, 30];

/// What is added to activations or scales them, and is neither called a norm nor a bias.
#[rustfmt::skip]
const ELEMENTWISE: [&str; 38] = [
    "altup_correct_scale.weight", "attn_sinks.weight", "channel_mix_lerp_k.weight", "channel_mix_lerp_r.weight",
    "exp_probs_b", "ffn.act.scales", "ffn_gate_inp.scale", "ffn_res_score.weight", "hc_attn_base.weight",
    "hc_attn_scale.weight", "hc_ffn_base.weight", "hc_ffn_scale.weight", "hrm.z_l_init", "output_hc_base.weight",
    "output_hc_scale.weight", "output_res_score.weight", "rope_factors_long.weight", "rope_factors_short.weight",
    "rope_freqs.weight", "shortconv.conv.weight", "ssm_a", "ssm_conv1d.weight", "ssm_conv1d_k.weight",
    "ssm_conv1d_q.weight", "ssm_conv1d_v.weight", "ssm_d", "time_mix_a0.weight", "time_mix_decay.weight",
    "time_mix_k_a.weight", "time_mix_k_k.weight", "time_mix_lerp_fused.weight", "time_mix_lerp_x.weight",
    "time_mix_ln.weight", "time_mix_r_k.weight", "time_mix_w0.weight", "layer_output_scale.weight",
    "attn_res_score.weight", "time_mix_v0.weight",
];

/// Whether it is added to activations, or scales them: ggml does that with plain numbers, and ends the program for others.
fn is_elementwise(tensor: &TensorInfo) -> bool {
    let role = tensor.role();
    role.contains("norm") || role.ends_with(".bias") || ELEMENTWISE.contains(&role)
}

fn flaw_of(tensor: &TensorInfo) -> Option<TensorFlaw> {
    if has_no_kernel(tensor) {
        return Some(TensorFlaw::NoKernel(tensor.ty));
    }
    let of_matrices = is_elementwise(tensor) && !PLAIN.contains(&tensor.ty.0);
    of_matrices.then_some(TensorFlaw::NoMatrix(tensor.ty))
}

impl Index {
    /// Refuses what a GPU may compute with and the CPU does not: norms and biases of half precision.
    ///
    /// # Errors
    ///
    /// Names the tensor.
    pub fn check_for_cpu(&self) -> Result<(), Error> {
        let half = |tensor: &&TensorInfo| is_elementwise(tensor) && tensor.ty.0 != PLAIN[0];
        match self.tensors.iter().find(half).filter(|_| self.architecture() != "clip") {
            None => Ok(()),
            Some(tensor) => Err(self.refused(tensor, TensorFlaw::NoMatrix(tensor.ty))),
        }
    }

    fn refused(&self, tensor: &TensorInfo, flaw: TensorFlaw) -> Error {
        let name = printable(tensor.name.as_bytes());
        let reason = Reason::Tensor { tensor: name, offset: tensor.offset, flaw };
        Error::new(&self.files[0].path, reason)
    }

    /// Refuses a model that libllama cannot load without aborting.
    ///
    /// # Errors
    ///
    /// Names the metadata key and what is wrong with its value.
    pub fn check_model(&self) -> Result<(), Error> {
        let refuse = |reason| Err(Error::new(&self.files[0].path, reason));
        if self.tensors.is_empty() {
            return refuse(Reason::NoTensors);
        }
        // A projector: libllama reads no hyperparameters of it.
        if self.architecture() == "clip" {
            return Ok(());
        }
        if let Some((tensor, flaw)) = self.tensors.iter().find_map(|t| Some((t, flaw_of(t)?))) {
            return Err(self.refused(tensor, flaw));
        }
        let checks = [
            Index::check_sizes,
            Index::check_embedding,
            Index::check_experts,
            Index::check_heads,
            Index::check_lengths,
            Index::check_rope,
            Index::check_rows,
            Index::check_windows,
            Index::check_caches,
            Index::check_numbers,
            Index::check_recurrent,
            Index::check_attention_tensors,
            Index::check_queries,
            Index::check_own_keys,
            Index::check_vocabulary,
            Index::check_special_tokens,
            Index::check_bytes,
        ];
        match checks.iter().try_for_each(|check| check(self)) {
            Ok(()) => Ok(()),
            Err(Wrong { key, why }) => refuse(Reason::Model { key, why }),
        }
    }

    /// The complaint about `ARCHITECTURE.key`.
    pub(super) fn wrong(&self, key: &str, why: impl Into<String>) -> Wrong {
        Wrong { key: format!("{}.{key}", self.architecture()), why: why.into() }
    }

    /// `ARCHITECTURE.key` if it is there, and in `range`.
    pub(super) fn within(&self, key: &str, low: u64, high: u64) -> Result<Option<u64>, Wrong> {
        match self.arch(key) {
            None => Ok(None),
            Some(value) => match value.uint() {
                Some(n) if (low..=high).contains(&n) => Ok(Some(n)),
                Some(n) => Err(self.wrong(key, format!("is {n}, not from {low} to {high}"))),
                None => Err(self.wrong(key, "is not a whole number")),
            },
        }
    }

    /// `ARCHITECTURE.key` for each block: one number for all, or an array of one for each.
    pub(super) fn per_block(&self, key: &str, n_blocks: u64) -> Result<Option<Vec<u64>>, Wrong> {
        let not_numbers = || self.wrong(key, "is not made of whole numbers");
        match self.arch(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.len() as u64 != n_blocks => {
                Err(self.wrong(key, format!("has {} values for {n_blocks} blocks", array.len())))
            }
            Some(Value::Array(array)) => {
                let all: Option<Vec<u64>> = array.iter().map(|v| v.uint()).collect();
                all.map(Some).ok_or_else(not_numbers)
            }
            Some(value) => {
                let one = value.uint().ok_or_else(not_numbers)?;
                Ok(Some((0..n_blocks).map(|_| one).collect()))
            }
        }
    }

    /// The number of blocks, which later checks rely on.
    pub(super) fn n_blocks(&self) -> u64 {
        self.block_count().unwrap_or(0).min(MAX_BLOCKS)
    }

    /// The lengths that everything else depends on.
    fn check_sizes(&self) -> Checked {
        let blocks = self.within("block_count", 1, MAX_BLOCKS)?;
        let required = [
            ("block_count", blocks),
            ("embedding_length", self.within("embedding_length", 1, MAX_WIDTH)?),
            ("context_length", self.within("context_length", 1, u32::MAX.into())?),
        ];
        for (key, value) in required {
            value.ok_or_else(|| self.wrong(key, "is missing"))?;
        }
        for key in ["nextn_predict_layers", "posnet.block_count", "convnext.block_count"] {
            self.within(key, 0, self.n_blocks())?;
        }
        if self.architecture() == "t5" {
            self.within("decoder_block_count", 0, MAX_BLOCKS)?;
        }
        self.within("vocab_size", 0, MAX_VOCABULARY)?;
        Ok(())
    }

    /// The asserts of `load_hparams` about experts, in its order.
    fn check_experts(&self) -> Checked {
        let count = self.within("expert_count", 0, MAX_EXPERTS)?.unwrap_or(0);
        let per_block = self.per_block("expert_used_count", self.n_blocks())?.unwrap_or_default();
        let used = per_block.iter().copied().max().unwrap_or(0);
        // libllama sets these aside for the models of this family that have one expert; it asks for no groups all the same.
        if count <= 1 && matches!(self.architecture(), "hunyuan-dense" | "hunyuan_vl") {
            self.within("expert_group_count", 0, 0)?;
            return Ok(());
        }
        if used > count || (count > 0 && used == 0) {
            let why = format!("is {used}, and there are {count} experts");
            return Err(self.wrong("expert_used_count", why));
        }
        self.check_used(&per_block)?;
        let groups = self.arch_uint("expert_group_count").unwrap_or(0);
        let groups_used = self.arch_uint("expert_group_used_count").unwrap_or(0);
        let even = groups == 0 || count.is_multiple_of(groups);
        if groups > 0 && (groups >= count || !even) {
            let why = format!("is {groups}, and there are {count} experts");
            return Err(self.wrong("expert_group_count", why));
        }
        if groups > 1 && !(1..groups).contains(&groups_used) {
            let why = format!("is {groups_used}, and there are {groups} groups");
            return Err(self.wrong("expert_group_used_count", why));
        }
        Ok(())
    }

    /// Experts used per block: some where there are any, and no more than in the first, whose number all graphs but one take.
    fn check_used(&self, per_block: &[u64]) -> Checked {
        let first = per_block.first().copied().unwrap_or(0);
        let by_block = self.architecture() == "nemotron_h_moe";
        for tensor in self.tensors.iter().filter(|t| t.role() == "ffn_gate_inp.weight") {
            let Place::Block(Stack::Main, block) = tensor.place else { continue };
            let Some(&used) = per_block.get(block as usize).filter(|_| self.computes(block)) else {
                continue;
            };
            if used == 0 || (used > first && !by_block) {
                let why = format!("is {used} for block {block}, which has experts");
                return Err(self.wrong("expert_used_count", why));
            }
        }
        Ok(())
    }

    /// Floats that ggml asserts about, or that would make every result NaN.
    fn check_numbers(&self) -> Checked {
        for key in [
            "attention.layer_norm_epsilon",
            "attention.layer_norm_rms_epsilon",
            "attention.group_norm_epsilon",
            "attention.max_alibi_bias",
            "rope.freq_base",
            "rope.scaling.factor",
        ] {
            if let Some(x) = self.arch(key).and_then(Value::float)
                && !(x.is_finite() && x >= 0.0)
            {
                return Err(self.wrong(key, format!("is {x}, not a positive number")));
            }
        }
        Ok(())
    }
}
