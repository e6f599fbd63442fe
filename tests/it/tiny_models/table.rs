//! The table of tiny models: which metadata each architecture needs beyond [`BASE`].
//!
//! Data only. Sizes are the smallest that keep an architecture's structure: at least four blocks, so that two slots wrap
//! around; grouped heads where it has them; every kind of layer that it mixes; a window shorter than the prompts.

use ggml_sys as sys;

use super::{N_VOCAB, Outcome, Spec};
use Value::{Bool, F32, I32s, Str, U32, U32s, U64s};

/// A metadata value. Arrays hold one element per block unless the key says otherwise.
#[derive(Clone, Copy)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(&'static str),
    U32s(&'static [u32]),
    I32s(&'static [i32]),
    U64s(&'static [u64]),
}

/// Metadata entries; keys without the architecture's prefix.
pub(super) type Keys = &'static [(&'static str, Value)];

/// What every model has.
pub(super) const BASE: Keys = &[
    ("tokenizer.ggml.model", Str("none")),
    ("vocab_size", U32(N_VOCAB)),
    ("context_length", U32(2048)),
    ("embedding_length", U32(64)),
    ("block_count", U32(4)),
    ("feed_forward_length", U32(96)),
    ("attention.head_count", U32(4)),
    ("attention.head_count_kv", U32(2)),
    ("attention.layer_norm_epsilon", F32(1e-5)),
    ("attention.layer_norm_rms_epsilon", F32(1e-5)),
];

/// Every head has its own keys and values.
const NO_GQA: Keys = &[("attention.head_count_kv", U32(4))];

/// Four experts, two used, and a shared one for the architectures that have it; the first block dense where it may be.
const MOE: Keys = &[
    ("expert_count", U32(4)),
    ("expert_used_count", U32(2)),
    ("expert_feed_forward_length", U32(48)),
    ("expert_shared_count", U32(1)),
    ("expert_shared_feed_forward_length", U32(48)),
    ("expert_weights_scale", F32(1.5)),
    ("expert_weights_norm", Bool(true)),
    ("leading_dense_block_count", U32(1)),
    ("interleave_moe_layer_step", U32(2)),
];

/// Many experts, each large enough to be read by itself past the page cache.
const MANY: Keys = &[
    ("expert_count", U32(24)),
    ("expert_used_count", U32(3)),
    ("expert_feed_forward_length", U32(256)),
];
/// Experts that end inside a page.
const UNEVEN: Keys = &[("expert_feed_forward_length", U32(261))];

const SOFTMAX: Keys = &[("expert_gating_func", U32(1))];
const SIGMOID: Keys = &[("expert_gating_func", U32(2))];

/// Latent attention: keys of 24 (16 without position, 8 with), values of 16, compressed to 32.
const MLA: Keys = &[
    ("attention.head_count_kv", U32(1)),
    ("attention.q_lora_rank", U32(32)),
    ("attention.kv_lora_rank", U32(32)),
    ("attention.key_length", U32(40)),
    ("attention.value_length", U32(32)),
    ("attention.key_length_mla", U32(24)),
    ("attention.value_length_mla", U32(16)),
    ("rope.dimension_count", U32(8)),
];

/// Latent attention that keeps its cache expanded: the keys and values of each head.
const SHORT_KEYS: Keys = &[("attention.key_length", U32(24)), ("attention.value_length", U32(16))];

/// A window of 16 tokens.
const SWA: Keys = &[("attention.sliding_window", U32(16)), ("rope.freq_base_swa", F32(10_000.0))];
/// Windowed and full blocks in turn, as a period.
const EVERY_SECOND: Keys = &[("attention.sliding_window_pattern", U32(2))];
/// Windowed and full blocks in turn, as a list.
const ALTERNATING: Keys = &[("attention.sliding_window_pattern", U32s(&[1, 0, 1, 0]))];

/// Selective state spaces.
const SSM: Keys = &[
    ("ssm.conv_kernel", U32(4)),
    ("ssm.inner_size", U32(128)),
    ("ssm.state_size", U32(16)),
    ("ssm.time_step_rank", U32(8)),
    ("ssm.group_count", U32(2)),
];

/// Gated delta rule: the state is square, so its size is a head's.
const DELTA: Keys = &[
    ("ssm.conv_kernel", U32(4)),
    ("ssm.inner_size", U32(64)),
    ("ssm.state_size", U32(16)),
    ("ssm.time_step_rank", U32(4)),
    ("ssm.group_count", U32(2)),
    ("full_attention_interval", U32(2)),
];

/// Kimi delta attention, between blocks of latent attention.
const KDA: Keys = &[
    ("ssm.conv_kernel", U32(4)),
    ("kda.head_dim", U32(16)),
    ("kda.gate_lower_bound", F32(-5.0)),
    ("attention.head_count_kv", U32s(&[0, 1, 0, 1])),
];

/// Attention in the second and last block, recurrence in the others.
const HYBRID: Keys = &[("attention.head_count_kv", U32s(&[0, 2, 0, 2]))];

/// One thing per block: recurrence, attention, feed-forward, recurrence, feed-forward.
const NEMOTRON: Keys = &[
    ("block_count", U32(5)),
    ("attention.head_count_kv", U32s(&[0, 2, 0, 0, 0])),
    ("feed_forward_length", U32s(&[0, 0, 96, 0, 96])),
];

/// Positions in several dimensions (half the rotated width in all).
const SECTIONS: Keys = &[("rope.dimension_sections", U32s(&[4, 2, 2, 0]))];

/// The indexer of sparse attention; its keys are rotated by a Hadamard matrix of 64.
const INDEXER: Keys = &[
    ("attention.indexer.head_count", U32(2)),
    ("attention.indexer.key_length", U32(64)),
    ("attention.indexer.top_k", U32(8)),
];

/// Residual streams that are mixed between blocks.
const HYPER: Keys = &[
    ("hyper_connection.count", U32(4)),
    ("hyper_connection.sinkhorn_iterations", U32(3)),
    ("hyper_connection.epsilon", F32(1e-6)),
    ("hyper_connection.magnitude", F32(1.0)),
    ("hyper_connection.low_rank", U32(8)),
];

/// Linear attention of the RWKV family; ggml's kernels for it work on heads of 64 and no smaller ones.
const RWKV: Keys = &[
    ("embedding_length", U32(128)),
    ("wkv.head_size", U32(64)),
    ("attention.head_count", U32(2)),
    ("attention.head_count_kv", U32(1)),
    ("time_mix_extra_dim", U32(16)),
    ("time_decay_extra_dim", U32(16)),
    ("attention.decay_lora_rank", U32(16)),
    ("attention.iclr_lora_rank", U32(16)),
    ("attention.value_residual_mix_lora_rank", U32(16)),
    ("attention.gate_lora_rank", U32(16)),
];

/// No attention anywhere.
const NO_HEADS: Keys = &[("attention.head_count", U32(0)), ("attention.head_count_kv", U32(0))];
/// Linear attention in a transformer's block: only the attention remembers the token before.
const ONE_SHIFT: Keys = &[("token_shift_count", U32(1))];

/// Every token sees every other, as in embedding models.
const TWO_WAY: Keys =
    &[("attention.causal", Bool(false)), ("tokenizer.ggml.token_type_count", U32(2))];

/// The multipliers of Granite and MiniCPM.
const SCALES: Keys = &[
    ("logit_scale", F32(2.0)),
    ("residual_scale", F32(0.5)),
    ("embedding_scale", F32(2.0)),
    ("attention.scale", F32(0.25)),
];

/// The first 20 blocks have keys and values of their own, whatever the number of blocks.
const GEMMA3N: Keys = &[
    ("block_count", U32(22)),
    ("embedding_length", U32(32)),
    ("attention.head_count", U32(2)),
    ("attention.head_count_kv", U32(1)),
];

/// Inputs per block, and wider heads where attention is full.
const GEMMA4: Keys = &[
    ("embedding_length_per_layer_input", U32(32)),
    ("attention.key_length", U32(32)),
    ("attention.value_length", U32(32)),
    ("attention.key_length_swa", U32(16)),
    ("attention.value_length_swa", U32(16)),
    ("rope.dimension_count_swa", U32(16)),
];

/// Hashed n-grams looked up in the third block, and compressed keys.
const PLE: Keys = &[
    ("attention.compress_ratios", U32s(&[0, 4, 0, 4])),
    ("ple.layers", U32s(&[2])),
    ("ple.ngram_size", U32(2)),
    ("ple.heads_per_ngram", U32(2)),
    ("ple.conv_kernel", U32(4)),
    ("ple.eos_token_id", U32(0)),
    ("embedding_length_per_layer_input", U32(32)),
    ("ple.layer_multipliers", U64s(&[3, 5])),
    ("ple.head_offsets", U64s(&[0, 61])),
    ("ple.head_vocab_sizes", U64s(&[61, 59])),
];

/// The last two blocks use the keys and values of earlier ones.
const LAST_TWO_SHARE: Keys = &[("attention.shared_kv_layers", U32(2))];

/// Every ratio of compression, and a block that routes by token id.
const DEEPSEEK4: Keys = &[
    ("attention.head_count_kv", U32(1)),
    ("attention.key_length", U32(32)),
    ("attention.value_length", U32(32)),
    ("rope.dimension_count", U32(8)),
    ("attention.q_lora_rank", U32(32)),
    ("attention.output_group_count", U32(2)),
    ("attention.output_lora_rank", U32(16)),
    ("attention.compress_rope_freq_base", F32(10_000.0)),
    ("attention.compress_ratios", U32s(&[0, 4, 128, 4])),
    ("hash_layer_count", U32(1)),
    ("expert_gating_func", U32(4)),
    ("swiglu_clamp_exp", F32(7.0)),
    ("swiglu_clamp_shexp", F32(7.0)),
];

/// Adapters switched on by two of the tokens.
const ADAPTERS: Keys = &[
    ("adapters.count", U32(2)),
    ("adapters.lora_rank", U32(8)),
    ("adapters.router_gain", F32(1.0)),
    ("adapters.token_ids_activate", I32s(&[120, 121])),
    ("adapters.token_ids_substitute", I32s(&[1, 2])),
];

/// Latent attention of another size in the windowed blocks.
const DOTS3: Keys = &[
    ("attention.indexer.types", U32s(&[1, 1, 1, 1])),
    ("attention.kv_lora_rank_swa", U32(56)),
    ("attention.key_length_swa", U32(64)),
    ("attention.value_length_swa", U32(56)),
    ("attention.key_length_mla_swa", U32(24)),
    ("attention.value_length_mla_swa", U32(16)),
];

/// Two of the blocks reuse the choice of the one before.
const EVERY_SECOND_INDEXES: Keys = &[("attention.indexer.types", U32s(&[1, 0, 1, 0]))];

const MINIMAX_01: Keys = &[("residual_scale", F32(1.0)), ("full_attention_interval", U32(2))];

const MINIMAX_M3: Keys =
    &[("attention.indexer.block_size", U32(16)), ("attention.indexer.local_blocks", U32(1))];

/// Attention over the blocks before, and experts in a narrower space.
const KIMI_K3: Keys = &[
    ("rope.dimension_count", U32(8)),
    ("attn_res.block_size", U32(2)),
    ("activation.situ_beta", F32(1.0)),
    ("activation.situ_linear_beta", F32(1.0)),
    ("expert_latent_length", U32(32)),
];

/// No positions in latent attention, and pooled keys in the indexer.
const GLM5: Keys = &[
    ("rope.dimension_count", U32(0)),
    ("attention.key_length", U32(32)),
    ("attention.indexer.kpool", U32(4)),
];

/// A fifth block that drafts tokens and takes no part in an ordinary pass.
const DRAFT_HEAD: Keys = &[("block_count", U32(5)), ("nextn_predict_layers", U32(1))];

/// A vocoder: its inputs have a width of their own, its outputs are sound.
const WAVTOKENIZER: Keys = &[
    ("features_length", U32(64)),
    ("attention.group_norm_epsilon", F32(1e-5)),
    ("attention.group_norm_groups", U32(8)),
    ("block_count", U32(6)),
    ("posnet.embedding_length", U32(64)),
    ("posnet.block_count", U32(6)),
    ("convnext.embedding_length", U32(64)),
    ("convnext.block_count", U32(4)),
];

/// A head that drafts tokens from another model's hidden states.
const DFLASH: Keys =
    &[("target_hidden_size", U32(64)), ("target_layers", I32s(&[0, 1, 2])), ("block_size", U32(4))];

/// Widths that every ggml type divides: super-blocks are 256 elements.
const WIDE: Keys = &[
    ("embedding_length", U32(256)),
    ("feed_forward_length", U32(256)),
    ("expert_feed_forward_length", U32(256)),
    ("attention.head_count", U32(4)),
    ("attention.head_count_kv", U32(2)),
];

impl Spec {
    const fn of(arch: &'static str) -> Self {
        Self {
            name: arch,
            arch,
            outcome: Outcome::Logits,
            keys: &[],
            without: &[],
            stored: sys::GGML_TYPE_F32,
        }
    }

    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    const fn keys(self, keys: &'static [Keys]) -> Self {
        Self { keys, ..self }
    }

    const fn refused(self) -> Self {
        Self { outcome: Outcome::Refused, ..self }
    }

    const fn stored(self, stored: sys::ggml_type) -> Self {
        Self { stored, ..self }
    }

    const fn without(self, without: &'static [&'static str]) -> Self {
        Self { without, ..self }
    }
}

/// Every architecture, dense and with experts where it has both.
pub(super) const ARCHS: &[Spec] = &[
    Spec::of("llama"),
    Spec::of("llama").named("llama-tied").without(&["output.", "rope_freqs", ".bias"]),
    Spec::of("llama").named("llama-moe").keys(&[MOE]),
    Spec::of("llama4").keys(&[MOE, SWA]),
    Spec::of("deci"),
    // The second block's attention is one matrix, the third has none.
    Spec::of("deci").named("deci-pruned").keys(&[&[
        ("attention.head_count", U32s(&[4, 4, 0, 4])),
        ("attention.head_count_kv", U32s(&[2, 0, 0, 2])),
    ]]),
    Spec::of("falcon").keys(&[&[("attention.head_count_kv", U32(1))]]),
    Spec::of("grok").keys(&[MOE]),
    Spec::of("gpt2").keys(&[NO_GQA]),
    Spec::of("gptneox").keys(&[NO_GQA, &[("use_parallel_residual", Bool(true))]]),
    Spec::of("gptneox")
        .named("gptneox-serial")
        .keys(&[NO_GQA, &[("use_parallel_residual", Bool(false))]]),
    Spec::of("mpt").keys(&[
        NO_GQA,
        &[("attention.max_alibi_bias", F32(8.0)), ("attention.clamp_kqv", F32(4.0))],
    ]),
    Spec::of("baichuan").keys(&[NO_GQA]),
    Spec::of("starcoder").keys(&[&[("attention.head_count_kv", U32(1))]]),
    Spec::of("refact").keys(&[&[("attention.head_count_kv", U32(1))]]),
    Spec::of("refact").named("refact-moe").keys(&[MOE]),
    Spec::of("bloom").keys(&[NO_GQA]),
    Spec::of("stablelm"),
    Spec::of("qwen").keys(&[NO_GQA]),
    Spec::of("qwen2"),
    Spec::of("qwen2moe").keys(&[MOE]),
    Spec::of("qwen2vl").keys(&[SECTIONS]),
    Spec::of("qwen3"),
    Spec::of("qwen3moe").keys(&[MOE]),
    Spec::of("qwen3next").keys(&[MOE, DELTA]),
    Spec::of("qwen3vl").keys(&[SECTIONS]),
    Spec::of("qwen3vlmoe").keys(&[MOE, SECTIONS]),
    Spec::of("qwen35").keys(&[DELTA, SECTIONS]),
    Spec::of("qwen35moe").keys(&[MOE, DELTA, SECTIONS]),
    Spec::of("qwen4exp").keys(&[MOE, DELTA, SECTIONS, INDEXER, HYPER]),
    Spec::of("qwen4exp").named("qwen4exp-ple").keys(&[MOE, DELTA, SECTIONS, INDEXER, HYPER, PLE]),
    Spec::of("phi2").keys(&[NO_GQA]),
    Spec::of("phi3"),
    Spec::of("phi3").named("phi3-swa").keys(&[SWA]),
    Spec::of("phimoe").keys(&[MOE]),
    Spec::of("plamo").keys(&[&[("attention.head_count_kv", U32(1))]]),
    Spec::of("plamo2").keys(&[SSM, HYBRID, &[("ssm.group_count", U32(0))]]),
    Spec::of("plamo3").keys(&[SWA, EVERY_SECOND]),
    Spec::of("codeshell"),
    Spec::of("orion"),
    Spec::of("internlm2"),
    Spec::of("minicpm").keys(&[SCALES]),
    Spec::of("minicpm").named("minicpm-moe").keys(&[SCALES, MOE]),
    Spec::of("minicpm3").keys(&[MLA, NO_GQA, SHORT_KEYS]),
    Spec::of("gemma").without(&["output."]),
    Spec::of("gemma2").keys(&[SWA]),
    Spec::of("gemma3").keys(&[SWA, EVERY_SECOND]),
    Spec::of("gemma3n").keys(&[SWA, EVERY_SECOND, GEMMA3N]).stored(sys::GGML_TYPE_F16),
    Spec::of("gemma4").keys(&[SWA, ALTERNATING, GEMMA4]),
    Spec::of("gemma4").named("gemma4-shared-kv").keys(&[SWA, ALTERNATING, GEMMA4, LAST_TWO_SHARE]),
    Spec::of("gemma4").named("gemma4-moe").keys(&[SWA, ALTERNATING, GEMMA4, MOE]),
    Spec::of("starcoder2"),
    Spec::of("mamba").keys(&[SSM]),
    Spec::of("mamba2").keys(&[SSM]),
    Spec::of("maple").keys(&[MOE, SWA, ALTERNATING, &[("swiglu_clamp_exp", F32(7.0))]]),
    Spec::of("jamba").keys(&[SSM, HYBRID]),
    Spec::of("jamba").named("jamba-moe").keys(&[SSM, HYBRID, MOE]),
    Spec::of("falcon-h1").keys(&[SSM]),
    Spec::of("xverse"),
    Spec::of("command-r").keys(&[&[("logit_scale", F32(0.5))]]),
    Spec::of("cohere2").keys(&[SWA, EVERY_SECOND, &[("logit_scale", F32(0.5))]]),
    Spec::of("cohere2moe").keys(&[MOE, SIGMOID, SWA, ALTERNATING, &[("logit_scale", F32(0.5))]]),
    Spec::of("dbrx").keys(&[MOE, &[("attention.clamp_kqv", F32(8.0))]]),
    Spec::of("olmo").keys(&[NO_GQA]),
    Spec::of("olmo2"),
    Spec::of("olmo2").named("olmo2-swa").keys(&[SWA, EVERY_SECOND]),
    Spec::of("olmoe").keys(&[MOE, NO_GQA]),
    Spec::of("muse-glimmer").keys(&[SWA, EVERY_SECOND, &[("logit_scale", F32(0.5))]]),
    Spec::of("openelm"),
    Spec::of("arctic").keys(&[MOE]),
    Spec::of("deepseek").keys(&[MOE]),
    Spec::of("deepseek2").keys(&[MOE, MLA, SIGMOID]),
    Spec::of("deepseek2-ocr").keys(&[MOE, SOFTMAX, NO_GQA]),
    Spec::of("deepseek32").keys(&[MOE, MLA, SIGMOID, INDEXER]),
    Spec::of("deepseek4").keys(&[MOE, SWA, INDEXER, HYPER, DEEPSEEK4]),
    Spec::of("chatglm"),
    Spec::of("glm4"),
    Spec::of("glm4moe").keys(&[MOE, SIGMOID]),
    Spec::of("glm-dsa").keys(&[MOE, MLA, SIGMOID, INDEXER]),
    Spec::of("bitnet"),
    Spec::of("t5").keys(&[NO_GQA, &[("attention.relative_buckets_count", U32(8))]]),
    Spec::of("jais").keys(&[NO_GQA, &[("attention.max_alibi_bias", F32(8.0))]]),
    Spec::of("jais2"),
    Spec::of("nemotron"),
    Spec::of("nemotron_h").keys(&[SSM, NEMOTRON]),
    Spec::of("nemotron_h_moe").keys(&[SSM, NEMOTRON, MOE]),
    Spec::of("exaone"),
    Spec::of("exaone4"),
    Spec::of("exaone-moe").keys(&[MOE, SIGMOID, SWA, EVERY_SECOND]),
    Spec::of("rwkv6").keys(&[RWKV, NO_HEADS]),
    Spec::of("rwkv6qwen2").keys(&[RWKV, ONE_SHIFT]).without(&[".time_mix_first.weight"]),
    Spec::of("rwkv7").keys(&[RWKV, NO_HEADS]),
    Spec::of("arwkv7").keys(&[RWKV, ONE_SHIFT]),
    Spec::of("granite").keys(&[SCALES]),
    Spec::of("granitemoe").keys(&[SCALES, MOE]),
    Spec::of("granitehybrid").keys(&[SCALES, SSM, HYBRID]),
    Spec::of("granitehybrid").named("granitehybrid-moe").keys(&[SCALES, SSM, HYBRID, MOE]),
    Spec::of("graniteswitch").keys(&[SCALES, ADAPTERS]),
    Spec::of("granite_swa").keys(&[SCALES, SWA, ALTERNATING]),
    Spec::of("chameleon")
        .keys(&[&[("vocab_size", U32(8200)), ("embedding_length", U32(32))]])
        .stored(sys::GGML_TYPE_F16),
    Spec::of("bailingmoe").keys(&[MOE]),
    Spec::of("bailingmoe2").keys(&[MOE, SIGMOID]),
    Spec::of("bailingmoe3").keys(&[MOE, MLA, SIGMOID, KDA]),
    Spec::of("dots1").keys(&[MOE, SIGMOID, NO_GQA]),
    Spec::of("dots3note").keys(&[MOE, MLA, SIGMOID, SWA, ALTERNATING, INDEXER, DOTS3]),
    Spec::of("arcee"),
    Spec::of("afmoe").keys(&[MOE, SIGMOID, SWA, EVERY_SECOND]),
    Spec::of("laguna").keys(&[MOE, SIGMOID, SWA, EVERY_SECOND]),
    Spec::of("ernie4_5"),
    Spec::of("ernie4_5-moe").keys(&[MOE]),
    Spec::of("hunyuan-moe").keys(&[MOE]),
    Spec::of("hunyuan-dense"),
    Spec::of("hunyuan_vl").keys(&[SECTIONS]),
    Spec::of("hy_v3").keys(&[MOE, SIGMOID]),
    Spec::of("hy_v4").keys(&[MOE, MLA, SIGMOID, HYPER]),
    Spec::of("hy_v4").named("hy_v4-sparse").keys(&[
        MOE,
        MLA,
        SIGMOID,
        HYPER,
        INDEXER,
        EVERY_SECOND_INDEXES,
    ]),
    Spec::of("smollm3"),
    Spec::of("gpt-oss").keys(&[MOE, SWA]),
    Spec::of("lfm2").keys(&[HYBRID, &[("shortconv.l_cache", U32(3))]]),
    Spec::of("lfm2moe").keys(&[MOE, SIGMOID, HYBRID, &[("shortconv.l_cache", U32(3))]]),
    Spec::of("dream"),
    Spec::of("smallthinker").keys(&[MOE, SWA, EVERY_SECOND, SIGMOID]),
    Spec::of("llada").keys(&[NO_GQA]),
    Spec::of("llada-moe").keys(&[MOE]),
    Spec::of("seed_oss"),
    Spec::of("grovemoe")
        .keys(&[MOE, &[("expert_group_scale", F32(1.0)), ("experts_per_group", U32(2))]]),
    Spec::of("apertus").keys(&[&[
        ("xielu.alpha_n", F32(0.8)),
        ("xielu.alpha_p", F32(0.8)),
        ("xielu.beta", F32(0.5)),
        ("xielu.eps", F32(1e-6)),
    ]]),
    Spec::of("minimax-01").keys(&[MOE, MINIMAX_01]),
    Spec::of("hrm_text").keys(&[&[
        ("hrm.layers_per_stack", U32(2)),
        ("hrm.h_cycles", U32(1)),
        ("hrm.l_cycles", U32(1)),
    ]]),
    Spec::of("hrm_text").named("hrm_text-cycles").keys(&[&[
        ("block_count", U32(12)),
        ("hrm.layers_per_stack", U32(2)),
        ("hrm.h_cycles", U32(2)),
        ("hrm.l_cycles", U32(2)),
    ]]),
    Spec::of("minimax-m2").keys(&[MOE, SIGMOID]),
    Spec::of("minimax-m3").keys(&[MOE, SIGMOID, INDEXER, MINIMAX_M3]),
    Spec::of("cogvlm"),
    Spec::of("rnd1").keys(&[MOE]),
    Spec::of("pangu-embedded"),
    Spec::of("mistral3"),
    Spec::of("mistral3").named("mistral3-moe").keys(&[MOE]),
    Spec::of("mistral4").keys(&[MOE, MLA]),
    Spec::of("paddleocr").keys(&[SECTIONS]),
    Spec::of("mimo2").keys(&[MOE, SIGMOID, SWA, ALTERNATING]),
    Spec::of("step35").keys(&[MOE, SIGMOID, SWA, ALTERNATING]),
    Spec::of("spark2_5").keys(&[SWA, ALTERNATING]),
    Spec::of("maincoder"),
    Spec::of("kimi-linear").keys(&[MOE, MLA, SIGMOID, KDA]),
    Spec::of("kimi-k3").keys(&[MOE, MLA, SIGMOID, KDA, KIMI_K3]),
    Spec::of("glm5-next").keys(&[MOE, MLA, SIGMOID, KDA, INDEXER, HYPER, GLM5]),
    Spec::of("talkie").keys(&[&[("logit_scale", F32(0.5))]]),
    Spec::of("mellum").keys(&[MOE, SWA, ALTERNATING]),
    Spec::of("nanbeige"),
    // The blocks run twice per pass.
    Spec::of("nanbeige").named("nanbeige-loops").keys(&[&[("num_loops", U32(2))]]),
    // Its head has 3072 rows, whatever the vocabulary.
    Spec::of("qwen3tts").keys(&[SECTIONS, &[("vocab_size", U32(3072))]]).stored(sys::GGML_TYPE_F16),
    Spec::of("pockettts").keys(&[NO_GQA]),
    Spec::of("qwen35").named("qwen35-mtp").keys(&[DELTA, SECTIONS, DRAFT_HEAD]),
    Spec::of("glm4moe").named("glm4moe-mtp").keys(&[MOE, SIGMOID, DRAFT_HEAD]),
    Spec::of("qwen35moe").named("qwen35moe-mtp").keys(&[MOE, DELTA, SECTIONS, DRAFT_HEAD]),
    Spec::of("qwen3next").named("qwen3next-mtp").keys(&[MOE, DELTA, DRAFT_HEAD]),
    Spec::of("hy_v3").named("hy_v3-mtp").keys(&[MOE, SIGMOID, DRAFT_HEAD]),
    Spec::of("cohere2moe").named("cohere2moe-mtp").keys(&[
        MOE,
        SIGMOID,
        SWA,
        &[("attention.sliding_window_pattern", U32s(&[1, 0, 1, 0, 0])), ("logit_scale", F32(0.5))],
        DRAFT_HEAD,
    ]),
    Spec::of("qwen3moe").named("qwen3moe-many").keys(&[MOE, MANY]),
    Spec::of("gpt-oss").named("gpt-oss-many").keys(&[MOE, SWA, MANY, UNEVEN]),
    Spec::of("deepseek2").named("deepseek2-many").keys(&[MOE, MLA, MANY]),
    Spec::of("bert").keys(&[TWO_WAY]).refused(),
    Spec::of("modern-bert").keys(&[TWO_WAY, SWA]).refused(),
    Spec::of("nomic-bert").keys(&[TWO_WAY]).refused(),
    Spec::of("nomic-bert-moe").keys(&[TWO_WAY, MOE, &[("moe_every_n_layers", U32(2))]]).refused(),
    Spec::of("neo-bert").keys(&[TWO_WAY]).refused(),
    Spec::of("jina-bert-v2").keys(&[TWO_WAY, NO_GQA]).refused(),
    Spec::of("jina-bert-v3").keys(&[TWO_WAY]).refused(),
    Spec::of("eurobert").keys(&[TWO_WAY]).refused(),
    Spec::of("gemma-embedding").keys(&[TWO_WAY, SWA, EVERY_SECOND]).refused(),
    Spec::of("llama-embed").keys(&[TWO_WAY]).refused(),
    Spec::of("wavtokenizer-dec").keys(&[TWO_WAY, NO_GQA, WAVTOKENIZER]).refused(),
    Spec::of("dflash").keys(&[DFLASH]).refused(),
    // libllama builds a graph for it that no file can satisfy.
    Spec::of("plm").keys(&[MLA, NO_GQA, SHORT_KEYS]).refused(),
    Spec::of("t5encoder")
        .keys(&[NO_GQA, &[("attention.relative_buckets_count", U32(8))]])
        .refused(),
];

/// Models of which every row is made once per ggml type, named after the type.
pub(super) const STORED: &[(Spec, &[sys::ggml_type])] = &[
    (Spec::of("llama").keys(&[WIDE]).without(&[".bias", "rope_freqs"]), EVERY_TYPE),
    (
        Spec::of("qwen3moe").keys(&[MOE, WIDE]),
        &[sys::GGML_TYPE_F16, sys::GGML_TYPE_Q8_0, sys::GGML_TYPE_Q4_K, sys::GGML_TYPE_IQ2_XXS],
    ),
    (Spec::of("gpt-oss").keys(&[MOE, SWA, WIDE]), &[sys::GGML_TYPE_MXFP4]),
    (
        Spec::of("gemma3").keys(&[SWA, EVERY_SECOND, WIDE]),
        &[sys::GGML_TYPE_Q4_0, sys::GGML_TYPE_Q6_K],
    ),
    (
        Spec::of("mamba2").keys(&[WIDE, SSM, &[("ssm.inner_size", U32(512))]]),
        &[sys::GGML_TYPE_Q8_0],
    ),
    (Spec::of("phi3").keys(&[WIDE]), &[sys::GGML_TYPE_Q5_K]),
];

const EVERY_TYPE: &[sys::ggml_type] = &[
    sys::GGML_TYPE_F16,
    sys::GGML_TYPE_BF16,
    sys::GGML_TYPE_Q4_0,
    sys::GGML_TYPE_Q4_1,
    sys::GGML_TYPE_Q5_0,
    sys::GGML_TYPE_Q5_1,
    sys::GGML_TYPE_Q8_0,
    sys::GGML_TYPE_Q2_K,
    sys::GGML_TYPE_Q3_K,
    sys::GGML_TYPE_Q4_K,
    sys::GGML_TYPE_Q5_K,
    sys::GGML_TYPE_Q6_K,
    sys::GGML_TYPE_IQ1_S,
    sys::GGML_TYPE_IQ1_M,
    sys::GGML_TYPE_IQ2_XXS,
    sys::GGML_TYPE_IQ2_XS,
    sys::GGML_TYPE_IQ2_S,
    sys::GGML_TYPE_IQ3_XXS,
    sys::GGML_TYPE_IQ3_S,
    sys::GGML_TYPE_IQ4_NL,
    sys::GGML_TYPE_IQ4_XS,
    sys::GGML_TYPE_TQ1_0,
    sys::GGML_TYPE_TQ2_0,
    sys::GGML_TYPE_MXFP4,
    sys::GGML_TYPE_NVFP4,
    sys::GGML_TYPE_Q1_0,
    sys::GGML_TYPE_Q2_0,
];
