//! Corrupt model files, by name: each gets a clear sentence from the index, and exit code 1 from
//! the program; none a panic.
//!
//! [`all_cases`] makes the files once; the same ones are thrown at `Index` and at the real binary.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use airrun::engine::{Engine, LoadOptions, StreamMode};
use airrun::gguf::Index;
use airrun::units::Bytes;
use proptest::prelude::*;

use crate::gguf_writer::{self as gw, Gguf, Payload, Tensor};

/// What refuses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fails {
    /// `Index::open`.
    Open,
    /// `Index::check_model`.
    Check,
    /// Only loading the model: the index is fine, and `inspect` shows it.
    Load,
}

/// A file that is wrong.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) fails: Fails,
    /// What the sentence must contain.
    pub(crate) says: &'static str,
    pub(crate) path: PathBuf,
}

/// Name, what refuses it, what is said, and the file.
type Row = (&'static str, Fails, &'static str, Vec<u8>);

/// A row made from the tiny model by one change.
fn row(name: &'static str, fails: Fails, says: &'static str, change: impl Fn(&mut Gguf)) -> Row {
    let mut g = Gguf::llama();
    change(&mut g);
    (name, fails, says, g.bytes())
}

/// All corrupt files, written into `dir`.
pub(crate) fn all_cases(dir: &Path) -> Vec<Case> {
    let mut rows = magic_rows();
    rows.extend(count_rows());
    rows.extend(key_rows());
    rows.extend(array_rows());
    rows.extend(tensor_name_rows());
    rows.extend(tensor_shape_rows());
    rows.extend(tensor_offset_rows());
    rows.extend(size_rows());
    rows.extend(head_rows());
    rows.extend(length_rows());
    rows.extend(family_rows());
    rows.extend(expert_rows());
    rows.extend(vocabulary_rows());
    rows.extend(type_rows());
    rows.extend(load_rows());
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, fails, says, bytes)| {
            let path = dir.join(format!("{name}.gguf"));
            fs::write(&path, bytes).unwrap();
            Case { name, fails, says, path }
        })
        .collect();
    cases.extend(split_cases(dir));
    cases.extend(path_cases(dir));
    cases
}

fn magic_rows() -> Vec<Row> {
    use Fails::Open;
    let valid = Gguf::llama().bytes();
    let version = |n: u32| [b"GGUF", &n.to_le_bytes()[..], &valid[8..]].concat();
    let garbage: Vec<u8> =
        (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        ("EMPTY_FILE", Open, "empty", Vec::new()),
        ("HEADER_ONE_BYTE", Open, "cut off", b"G".to_vec()),
        ("HEADER_BAD_MAGIC", Open, "not a GGUF file", [b"FUGG", &valid[4..]].concat()),
        ("HEADER_GGML_MAGIC", Open, "not a GGUF file", [b"lmgg", &valid[4..]].concat()),
        ("HEADER_ZIP", Open, "PK", [b"PK\x03\x04", &valid[4..]].concat()),
        ("HEADER_TEXT", Open, "not a GGUF file", b"Once upon a time\n".to_vec()),
        ("HEADER_GARBAGE", Open, "not a GGUF file", garbage),
        ("HEADER_ZEROS", Open, "not a GGUF file", vec![0; 4096]),
        ("HEADER_MAGIC_ONLY", Open, "the version", b"GGUF".to_vec()),
        ("HEADER_VERSION_0", Open, "version 0", version(0)),
        ("HEADER_VERSION_1", Open, "version 1", version(1)),
        ("HEADER_VERSION_4", Open, "version 4", version(4)),
        ("HEADER_VERSION_MAX", Open, "version 4294967295", version(u32::MAX)),
        ("HEADER_BIG_ENDIAN", Open, "big-endian", version(3_u32.swap_bytes())),
        ("HEADER_NO_COUNTS", Open, "the tensor count", valid[..8].to_vec()),
        ("HEADER_NO_KEY_COUNT", Open, "the key count", valid[..16].to_vec()),
        ("HEADER_NO_KEYS", Open, "keys", valid[..24].to_vec()),
    ]
}

fn count_rows() -> Vec<Row> {
    use Fails::{Check, Load, Open};
    let keys = |name, says, n: u64| row(name, Open, says, move |g| g.n_keys = Some(n));
    let tensors = |name, says, n: u64| row(name, Open, says, move |g| g.n_tensors = Some(n));
    let n_keys = Gguf::llama().keys.len() as u64;
    let n_tensors = Gguf::llama().tensors.len() as u64;
    vec![
        keys("KEYS_2_60", "claims 1152921504606846976 keys", 1 << 60),
        keys("KEYS_MAX", "keys", u64::MAX),
        keys("KEYS_ONE_MORE", "", n_keys + 1),
        keys("KEYS_ONE_LESS", "", n_keys - 1),
        keys("KEYS_NONE", "", 0),
        tensors("TENSORS_2_60", "claims 1152921504606846976 tensors", 1 << 60),
        tensors("TENSORS_MAX", "tensors", u64::MAX),
        tensors("TENSORS_NEGATIVE", "tensors", 1 << 63),
        tensors("TENSORS_ONE_MORE", "", n_tensors + 1),
        row("TENSORS_ONE_LESS", Load, "", move |g| g.n_tensors = Some(n_tensors - 1)),
        row("TENSORS_NONE", Check, "holds no tensors", |g| g.tensors.clear()),
        ("KEYS_TOO_MANY", Open, "more than the", {
            let mut g = Gguf::new();
            g.keys = (0..70_000).map(|i| (format!("k{i:08}").into_bytes(), gw::u8(1))).collect();
            g.bytes()
        }),
    ]
}

fn key_rows() -> Vec<Row> {
    use Fails::Open;
    let raw_key = |name, says, key: &'static [u8]| {
        row(name, Open, says, move |g| g.keys.push((key.to_vec(), gw::u32(1))))
    };
    let value = |name, says, value: Payload| {
        row(name, Open, says, move |g| g.keys.push((b"extra".to_vec(), value.clone())))
    };
    let set = |name, says, key: &'static str, value: Payload| {
        row(name, Open, says, move |g| g.set(key, value.clone()))
    };
    let key_length = |name, says, len: u64| {
        let mut bytes = Gguf::llama().bytes();
        bytes[24..32].copy_from_slice(&len.to_le_bytes());
        (name, Open, says, bytes)
    };
    vec![
        raw_key("KEY_EMPTY", "empty or not text", b""),
        raw_key("KEY_NOT_UTF8", "empty or not text", b"a\xff\xfe"),
        raw_key("KEY_WITH_ZERO", "empty or not text", b"a\0b"),
        raw_key("KEY_DUPLICATE", "appears twice", b"llama.block_count"),
        key_length("KEY_LENGTH_2_62", "length of", 1 << 62),
        key_length("KEY_LENGTH_MAX", "length of", u64::MAX),
        key_length("KEY_LENGTH_PAST_END", "length of", 60_000),
        value("VALUE_TYPE_13", "value type 13", Payload(13, vec![0; 8])),
        value("VALUE_TYPE_MAX", "value type", Payload(u32::MAX, vec![0; 8])),
        value("VALUE_STRING_2_63", "length of", Payload(gw::STR, gw::string(b"x", 1 << 63))),
        value("VALUE_STRING_MAX", "length of", Payload(gw::STR, gw::string(b"x", u64::MAX))),
        value("VALUE_STRING_PAST_END", "length of", Payload(gw::STR, gw::string(b"x", 1 << 20))),
        set("ALIGNMENT_0", "general.alignment", "general.alignment", gw::u32(0)),
        set("ALIGNMENT_3", "general.alignment", "general.alignment", gw::u32(3)),
        set("ALIGNMENT_U64", "general.alignment", "general.alignment", gw::u64(32)),
        set("ALIGNMENT_TEXT", "general.alignment", "general.alignment", gw::str("32")),
        set("ALIGNMENT_2_31", "tensor", "general.alignment", gw::u32(1 << 31)),
        set("ARCHITECTURE_NUMBER", "general.architecture", "general.architecture", gw::u32(1)),
        set("ARCHITECTURE_EMPTY", "general.architecture", "general.architecture", gw::str("")),
        set("ARCHITECTURE_PATH", "general.architecture", "general.architecture", gw::str("../x y")),
        row("ARCHITECTURE_MISSING", Open, "general.architecture", |g| {
            g.unset("general.architecture");
        }),
    ]
}

fn array_rows() -> Vec<Row> {
    let extra = |name, says, value: Payload| {
        row(name, Fails::Open, says, move |g| g.keys.push((b"extra".to_vec(), value.clone())))
    };
    vec![
        extra("ARRAY_OF_ARRAYS", "array of arrays", gw::array(gw::ARRAY, 1, &[0; 32])),
        extra("ARRAY_ELEMENT_TYPE_99", "value type 99", gw::array(99, 1, &[0; 8])),
        extra("ARRAY_LENGTH_2_62", "length of", gw::array(gw::U32, 1 << 62, &[0; 8])),
        extra("ARRAY_LENGTH_WRAPS", "length of", gw::array(gw::U64, (1 << 61) + 1, &[0; 8])),
        extra("ARRAY_LENGTH_MAX", "length of", gw::array(gw::U8, u64::MAX, &[0; 8])),
        extra("ARRAY_LENGTH_PAST_END", "length of", gw::array(gw::U8, 1 << 20, &[0; 8])),
        extra("ARRAY_STRINGS_2_60", "length of", gw::array(gw::STR, 1 << 60, &[0; 8])),
        extra("ARRAY_STRINGS_ONE_MORE", "", gw::array(gw::STR, 2, &gw::string(b"ab", 2))),
        extra("ARRAY_STRING_LENGTH_MAX", "length of", {
            gw::array(gw::STR, 1, &gw::string(b"ab", u64::MAX))
        }),
    ]
}

fn tensor_name_rows() -> Vec<Row> {
    use Fails::Open;
    let named = |name, says, tensor: &'static [u8]| {
        row(name, Open, says, move |g| g.tensors[3].name = tensor.to_vec())
    };
    vec![
        named("TENSOR_NAME_64", "64 bytes", &[b'x'; 64]),
        named("TENSOR_NAME_9000", "9000 bytes", &[b'x'; 9000]),
        named("TENSOR_NAME_EMPTY", "empty or not text", b""),
        named("TENSOR_NAME_NOT_UTF8", "empty or not text", b"blk\xff"),
        named("TENSOR_NAME_WITH_ZERO", "empty or not text", b"blk\0.0"),
        named("TENSOR_DUPLICATE", "'output.weight': its name appears twice", b"output.weight"),
        ("TENSOR_NAME_LENGTH_MAX", Open, "length of", {
            let mut g = Gguf::llama();
            g.tensors.clear();
            g.n_tensors = Some(1);
            let mut bytes = g.bytes();
            bytes.extend([0xff; 40]);
            bytes
        }),
        ("TENSOR_TABLE_CUT", Open, "", {
            let g = Gguf::llama();
            g.header()[..g.header().len() - 4].to_vec()
        }),
    ]
}

fn tensor_shape_rows() -> Vec<Row> {
    let q = "blk.0.attn_q.weight";
    let change =
        |name, says, f: fn(&mut Tensor)| row(name, Fails::Open, says, move |g| f(g.tensor(q)));
    vec![
        change("DIMS_0", "0 dimensions", |t| t.dims = vec![]),
        change("DIMS_5", "5 dimensions", |t| t.dims = vec![1; 5]),
        change("DIMS_MAX", "4294967295 dimensions", |t| t.n_dims = Some(u32::MAX)),
        change("DIM_ZERO", "dimension 1 is zero", |t| t.dims = vec![16, 0]),
        change("DIM_2_63", "overflow", |t| t.dims = vec![1 << 63]),
        change("DIM_MAX", "overflow", |t| t.dims = vec![u64::MAX, 1]),
        change("DIMS_OVERFLOW", "overflow", |t| t.dims = vec![1 << 32, 1 << 32]),
        change("DIMS_WRAP_TO_ZERO", "overflow", |t| t.dims = vec![1 << 16; 4]),
        change("BYTES_OVERFLOW", "overflow", |t| (t.dims, t.ty) = (vec![1 << 61], 27)),
        change("DIM_LARGER_THAN_FILE", "cut off", |t| t.dims = vec![1 << 40]),
        change("ROW_NOT_BLOCKS", "not a multiple of 256", |t| t.ty = 12),
        change("TYPE_WITHDRAWN_4", "ggml type 4 ", |t| t.ty = 4),
        change("TYPE_WITHDRAWN_31", "ggml type 31 ", |t| t.ty = 31),
        change("TYPE_43", "ggml type 43 ", |t| t.ty = 43),
        change("TYPE_MAX", "ggml type 4294967295 ", |t| t.ty = u32::MAX),
        change("SHAPE_SMALLER", "was expected", |t| t.dims = vec![16, 4]),
        change("SHAPE_LARGER", "overlaps", |t| t.dims = vec![16, 32]),
    ]
}

fn tensor_offset_rows() -> Vec<Row> {
    use Fails::Open;
    let at = |name, says, offset: u64| {
        row(name, Open, says, move |g| g.tensor("blk.0.attn_q.weight").offset = Some(offset))
    };
    let cut = |name, says, less: usize| {
        let mut bytes = Gguf::llama().bytes();
        bytes.truncate(bytes.len() - less);
        (name, Open, says, bytes)
    };
    vec![
        at("TENSORS_BAD_OFFSET", "multiple of the alignment", 33),
        at("OFFSET_OVERLAPS", "overlaps", 0),
        at("OFFSET_LEAVES_GAP", "was expected", 1 << 20),
        at("OFFSET_2_63", "was expected", 1 << 63),
        at("OFFSET_MAX", "multiple of the alignment", u64::MAX),
        at("OFFSET_MAX_ALIGNED", "was expected", u64::MAX - 31),
        cut("DATA_CUT_BY_ONE", "cut off", 1),
        cut("DATA_CUT_BY_A_TENSOR", "cut off", 1024),
        ("DATA_MISSING", Open, "cut off", Gguf::llama().header()),
    ]
}

/// Makes the model one of another architecture, by its keys.
fn rename(g: &mut Gguf, arch: &str) {
    for (key, _) in &mut g.keys {
        if let Some(rest) = key.strip_prefix(b"llama") {
            *key = [arch.as_bytes(), rest].concat();
        }
    }
    g.set("general.architecture", gw::str(arch));
}

/// A row about numbers of another architecture.
fn of(
    name: &'static str,
    says: &'static str,
    arch: &'static str,
    keys: &'static [(&'static str, u32)],
) -> Row {
    row(name, Fails::Check, says, move |g| become_with(g, arch, keys))
}

fn become_with(g: &mut Gguf, arch: &str, keys: &[(&str, u32)]) {
    rename(g, arch);
    for (key, n) in keys {
        g.set(&format!("{arch}.{key}"), gw::u32(*n));
    }
}

/// Sizes of blocks with linear attention.
fn linear(g: &mut Gguf, arch: &str, inner: u32) {
    let keys = [("conv_kernel", 4), ("state_size", 8), ("time_step_rank", 4), ("group_count", 2)];
    for (key, n) in keys.into_iter().chain([("inner_size", inner)]) {
        g.set(&format!("{arch}.ssm.{key}"), gw::u32(n));
    }
}

/// A row about a key of the architecture.
fn model(name: &'static str, says: &'static str, key: &'static str, value: Payload) -> Row {
    row(name, Fails::Check, says, move |g| g.set(&format!("llama.{key}"), value.clone()))
}

fn size_rows() -> Vec<Row> {
    vec![
        model("BLOCK_COUNT_0", "block_count", "block_count", gw::u32(0)),
        model("BLOCK_COUNT_513", "block_count", "block_count", gw::u32(513)),
        model("BLOCK_COUNT_TEXT", "whole number", "block_count", gw::str("1")),
        model("BLOCK_COUNT_ARRAY", "whole number", "block_count", gw::u32s(&[1])),
        row("BLOCK_COUNT_MISSING", Fails::Check, "is missing", |g| g.unset("llama.block_count")),
        model("NEXTN_MORE_THAN_BLOCKS", "nextn", "nextn_predict_layers", gw::u32(2)),
        model("EMBEDDING_0", "embedding_length", "embedding_length", gw::u32(0)),
        model("EMBEDDING_MAX", "embedding_length", "embedding_length", gw::u32(u32::MAX)),
        model("EMBEDDING_LIES", "is not 16", "embedding_length", gw::u32(32)),
        model("CONTEXT_0", "context_length", "context_length", gw::u32(0)),
        model("VOCAB_SIZE_MAX", "vocab_size", "vocab_size", gw::u32(u32::MAX)),
        of("INTERVAL_0", "full_attention", "minimax-01", &[("full_attention_interval", 0)]),
        row("SSM_KERNEL_0", Fails::Check, "ssm.conv_kernel", |g| {
            rename(g, "mamba2");
            g.set("mamba2.ssm.inner_size", gw::u32(32));
            g.set("mamba2.ssm.conv_kernel", gw::u32(0));
        }),
        row("SSM_GROUPS_0", Fails::Check, "ssm.group_count", |g| {
            rename(g, "qwen3next");
            for (key, n) in [("inner_size", 32), ("conv_kernel", 4), ("state_size", 8)] {
                g.set(&format!("qwen3next.ssm.{key}"), gw::u32(n));
            }
            g.set("qwen3next.ssm.time_step_rank", gw::u32(4));
            g.set("qwen3next.ssm.group_count", gw::u32(0));
        }),
    ]
}

fn head_rows() -> Vec<Row> {
    let (heads, kv) = ("attention.head_count", "attention.head_count_kv");
    vec![
        model("HEADS_ABSURD", "head_count' is 4294967295", heads, gw::u32(u32::MAX)),
        model("HEADS_MORE_THAN_WIDTH", "head_count' is 32", heads, gw::u32(32)),
        model("HEADS_TEXT", "whole numbers", heads, gw::str("two")),
        model("HEADS_ARRAY_LONG", "2 values for 1 blocks", heads, gw::u32s(&[2, 2])),
        model("HEADS_ARRAY_EMPTY", "0 values for 1 blocks", heads, gw::u32s(&[])),
        model("KV_HEADS_DO_NOT_DIVIDE", "does not divide", kv, gw::u32(3)),
        model("KV_HEADS_ARRAY", "does not divide", kv, gw::u32s(&[5])),
        row("HEADS_0_WITH_QUERIES", Fails::Check, "no heads for block 0", |g| {
            g.set("llama.attention.head_count", gw::u32(0));
            g.set("llama.attention.head_count_kv", gw::u32(0));
        }),
        of("SHARED_KV_ALL", "shared_kv", "gemma4", &[("attention.shared_kv_layers", 1)]),
        model("KEY_LENGTH_0", "key_length", "attention.key_length", gw::u32(0)),
        of("ROPE_ODD", "odd", "gemma", &[("rope.dimension_count", 7)]),
        of("ROPE_WIDER_THAN_HEAD", "is 10, not from", "gemma", &[("rope.dimension_count", 10)]),
        model("ROPE_SCALING_UNKNOWN", "unknown kind", "rope.scaling.type", gw::str("cubic")),
        row("HEADS_LEAVE_A_REST", Fails::Check, "do not make 16", |g| {
            rename(g, "lfm2");
            g.set("lfm2.attention.head_count", gw::u32(4));
            g.set("lfm2.attention.head_count_kv", gw::u32(1));
            g.set("lfm2.attention.value_length", gw::u32(8));
            g.set("lfm2.attention.key_length", gw::u32(8));
        }),
        row("HEADS_DO_NOT_DIVIDE", Fails::Check, "do not make 16", |g| {
            rename(g, "qwen2");
            g.set("qwen2.attention.head_count", gw::u32(3));
            g.set("qwen2.attention.head_count_kv", gw::u32(1));
            g.set("qwen2.attention.key_length", gw::u32(8));
            g.set("qwen2.attention.value_length", gw::u32(8));
        }),
        model("ROPE_BASE_NAN", "NaN", "rope.freq_base", gw::f32(f32::NAN)),
        model("EPSILON_NEGATIVE", "epsilon", "attention.layer_norm_rms_epsilon", gw::f32(-1.0)),
        model("EPSILON_NAN", "epsilon", "attention.layer_norm_rms_epsilon", gw::f32(f32::NAN)),
    ]
}

/// Lengths of heads that do not fit each other, or the weights.
fn length_rows() -> Vec<Row> {
    vec![
        of(
            "VALUES_SHORTER_THAN_KEYS",
            "value_length' is 4",
            "qwen3",
            &[("attention.value_length", 4)],
        ),
        of("HEADS_HALF_ROTATED", "dimension_count' is 4", "qwen3", &[("rope.dimension_count", 4)]),
        of("NOTHING_ROTATED", "dimension_count' is 0", "gemma", &[("rope.dimension_count", 0)]),
        row("ROTATED_BY_ODD_HEADS", Fails::Check, "odd", |g| {
            become_with(g, "gemma", &[("attention.key_length", 7)]);
            g.unset("gemma.rope.dimension_count");
        }),
        of("WINDOW_NOT_ROTATED", "_swa' is 0", "gemma2", &[("rope.dimension_count_swa", 0)]),
        of("WINDOW_ODD", "odd", "gemma2", &[("rope.dimension_count_swa", 3)]),
        of(
            "WINDOW_OF_OTHER_KEYS",
            "key_length_swa' is 4",
            "cohere2",
            &[("attention.key_length_swa", 4)],
        ),
        of(
            "WINDOW_OF_OTHER_VALUES",
            "value_length_swa' is 4",
            "maple",
            &[("attention.value_length_swa", 4)],
        ),
        of(
            "WINDOW_NOWHERE",
            "no block with a window",
            "gemma3",
            &[("attention.sliding_window_pattern", 1)],
        ),
        row("SECTIONS_LONGER_THAN_HEADS", Fails::Check, "have 9 numbers", |g| {
            rename(g, "qwen2vl");
            g.set("qwen2vl.rope.dimension_sections", gw::u32s(&[3, 3, 3, 0]));
        }),
        row("SECTIONS_NONE", Fails::Check, "have 1 numbers", |g| {
            rename(g, "qwen35");
            g.set("qwen35.rope.dimension_sections", gw::u32s(&[0, 0, 0, 1]));
            linear(g, "qwen35", 32);
        }),
        row("KEYS_OF_MORE_HEADS", Fails::Check, "has 8 rows", |g| {
            g.set("llama.attention.head_count_kv", gw::u32s(&[2]));
        }),
        of(
            "QUERIES_OF_MORE_HEADS",
            "has 16 rows",
            "granite",
            &[
                ("attention.head_count", 4),
                ("attention.key_length", 8),
                ("attention.value_length", 8),
                ("rope.dimension_count", 8),
            ],
        ),
    ]
}

/// What one architecture says of itself, and contradicts.
fn family_rows() -> Vec<Row> {
    vec![
        of(
            "SHIFTS_OF_RWKV",
            "token_shift_count' is 1",
            "rwkv6",
            &[("wkv.head_size", 8), ("token_shift_count", 1)],
        ),
        of("LOOPS_NONE", "num_loops' is 0", "nanbeige", &[("num_loops", 0)]),
        of("LOOPS_TOO_MANY", "num_loops' is 513", "nanbeige", &[("num_loops", 513)]),
        of(
            "STACKS_MAKE_OTHER_BLOCKS",
            "makes 4 blocks",
            "hrm_text",
            &[("hrm.layers_per_stack", 2), ("hrm.h_cycles", 1), ("hrm.l_cycles", 1)],
        ),
        of(
            "CYCLES_NONE",
            "h_cycles' is 0",
            "hrm_text",
            &[("hrm.layers_per_stack", 1), ("hrm.h_cycles", 0), ("hrm.l_cycles", 1)],
        ),
        of(
            "INNER_SIZE_NOT_TWICE",
            "inner_size' is 64",
            "granitehybrid",
            &[
                ("ssm.inner_size", 64),
                ("ssm.conv_kernel", 4),
                ("ssm.state_size", 8),
                ("ssm.time_step_rank", 4),
                ("ssm.group_count", 1),
            ],
        ),
        row("LINEAR_OF_OTHER_SIZE", Fails::Check, "inner_size' is 64", |g| {
            rename(g, "qwen3next");
            linear(g, "qwen3next", 64);
            g.tensors.push(Tensor::f32("blk.0.ssm_out.weight", &[32, 16]));
        }),
        row("BOUND_NOT_BELOW_ZERO", Fails::Check, "gate_lower_bound' is 1", |g| {
            rename(g, "bailingmoe3");
            g.set("bailingmoe3.kda.gate_lower_bound", gw::f32(1.0));
        }),
        of(
            "GATING_MISSING",
            "expert_gating_func' is missing",
            "dots1",
            &[("expert_count", 4), ("expert_used_count", 2)],
        ),
        of(
            "GROUPS_OF_ONE_EXPERT",
            "expert_group_count' is 1",
            "hunyuan-dense",
            &[("expert_group_count", 1)],
        ),
        of(
            "GROUPS_FEWER_THAN_USED",
            "expert_used_count' is 4",
            "grovemoe",
            &[("expert_count", 4), ("expert_used_count", 4), ("experts_per_group", 2)],
        ),
        row("EXPERTS_NONE_IN_A_BLOCK", Fails::Check, "is 0 for block 1", |g| {
            experts_by_block(g, &[2, 0]);
        }),
        row("EXPERTS_MORE_THAN_AT_FIRST", Fails::Check, "is 3 for block 1", |g| {
            experts_by_block(g, &[2, 3]);
        }),
    ]
}

/// Two blocks with experts, of which each uses as many as are told.
fn experts_by_block(g: &mut Gguf, used: &[u32]) {
    g.set("llama.block_count", gw::u32(2));
    g.set("llama.expert_count", gw::u32(4));
    g.set("llama.expert_used_count", gw::u32s(used));
    for block in 0..2 {
        g.tensors.push(Tensor::f32(&format!("blk.{block}.ffn_gate_inp.weight"), &[16, 4]));
    }
}

fn expert_rows() -> Vec<Row> {
    let experts = |name, says, values: &'static [(&str, u32)]| {
        row(name, Fails::Check, says, move |g| {
            for (key, n) in values {
                g.set(&format!("llama.expert_{key}"), gw::u32(*n));
            }
        })
    };
    vec![
        experts("EXPERTS_2000", "expert_count", &[("count", 2000), ("used_count", 2)]),
        experts("EXPERTS_USED_TOO_MANY", "used_count' is 9", &[("count", 8), ("used_count", 9)]),
        experts("EXPERTS_USED_NONE", "used_count' is 0", &[("count", 8)]),
        experts("EXPERTS_USED_OF_NONE", "used_count' is 2", &[("used_count", 2)]),
        experts(
            "EXPERT_GROUPS_UNEVEN",
            "group_count' is 3",
            &[("count", 8), ("used_count", 2), ("group_count", 3), ("group_used_count", 1)],
        ),
        experts(
            "EXPERT_GROUPS_ALL_USED",
            "group_used_count' is 4",
            &[("count", 8), ("used_count", 2), ("group_count", 4), ("group_used_count", 4)],
        ),
        of(
            "EXPERT_GATING_UNKNOWN",
            "expert_gating_func",
            "deepseek2",
            &[("expert_count", 8), ("expert_used_count", 2), ("expert_gating_func", 5)],
        ),
        experts("EXPERT_GROUPS_OF_NONE", "group_count' is 1", &[("group_count", 1)]),
    ]
}

fn vocabulary_rows() -> Vec<Row> {
    let key = |name, says, key: &'static str, value: Payload| {
        let key = format!("tokenizer.ggml.{key}");
        row(name, Fails::Check, says, move |g| g.set(&key, value.clone()))
    };
    vec![
        key("TOKENS_DUPLICATE", "'a' twice", "tokens", {
            gw::strings(&["<unk>", "<s>", "</s>", "a", "b", "a", "d", "e"])
        }),
        key("TOKENS_ALIKE_UP_TO_ZERO", "twice", "tokens", {
            gw::strings(&["<unk>", "<s>", "</s>", "a\0b", "b", "a\0c", "d", "e"])
        }),
        key("TOKENS_NONE", "has 0 tokens", "tokens", gw::strings(&[])),
        key("SCORES_SHORT", "7 values for 8", "scores", gw::f32s(&[0.0; 7])),
        key("TOKEN_TYPES_SHORT", "2 values for 8", "token_type", gw::i32s(&[1; 2])),
        key("TOKENS_NAMED_AS_EMPTY_ONES", "twice", "tokens", {
            gw::strings(&["<unk>", "<s>", "</s>", "a", "b", "", "[EMPTY_5]", "e"])
        }),
        row("RWKV_WITHOUT_A_BYTE", Fails::Check, "0xE2", |g| {
            g.set("tokenizer.ggml.model", gw::str("rwkv"));
            let tokens = ["a", "b", "\\n", "\\x0A\\n", "\\xe2\\x82", "ab", "\\t", " "];
            g.set("tokenizer.ggml.tokens", gw::strings(&tokens));
        }),
        row("BERT_WITH_BYTES", Fails::Check, "token 5 is a byte", |g| {
            g.set("tokenizer.ggml.model", gw::str("bert"));
            g.set("tokenizer.ggml.token_type", gw::i32s(&[2, 3, 3, 1, 1, 6, 1, 1]));
        }),
        key("BOS_OUTSIDE", "bos_token_id' is 8", "bos_token_id", gw::u32(8)),
        key("EOS_OUTSIDE", "eos_token_id' is 4000000000", "eos_token_id", gw::u32(4_000_000_000)),
    ]
}

/// Weights of types that ggml stores, and cannot compute with.
fn type_rows() -> Vec<Row> {
    let added = |name, role: &'static str| {
        row(name, Fails::Check, "type Q8_0 is for matrices", move |g| {
            g.tensors.push(Tensor::of_type(&format!("blk.0.{role}"), &[32], 8, 34));
        })
    };
    let typed = |name, says, ty, len: usize| {
        row(name, Fails::Check, says, move |g| {
            let weight = "blk.0.ffn_up.weight";
            *g.tensor(weight) = Tensor::of_type(weight, &[16, 16], ty, len);
        })
    };
    vec![
        typed("WEIGHT_I8", "type I8 is none", 24, 256),
        typed("WEIGHT_I32", "type I32 is none", 26, 1024),
        typed("WEIGHT_I64", "type I64 is none", 27, 2048),
        typed("WEIGHT_F64", "type F64 is none", 28, 2048),
        row("NORM_Q8_0", Fails::Check, "type Q8_0 is for matrices", |g| {
            *g.tensor("output_norm.weight") = Tensor::of_type("output_norm.weight", &[32], 8, 34);
        }),
        added("SINKS_Q8_0", "attn_sinks.weight"),
        added("STATE_Q8_0", "ssm_a"),
        added("KERNEL_Q8_0", "ssm_conv1d.weight"),
        added("LERP_Q8_0", "time_mix_lerp_x.weight"),
        added("ROUTER_BIAS_Q8_0", "exp_probs_b"),
        added("SECOND_NORM_Q8_0", "attn_norm_2.weight"),
        added("NORM_OF_EXPERTS_Q8_0", "ffn_norm_exps.weight"),
        row("ROPE_FACTORS_Q8_0", Fails::Check, "type Q8_0 is for matrices", |g| {
            g.tensors.push(Tensor::of_type("rope_freqs.weight", &[32], 8, 34));
        }),
        row("BIAS_Q4_0", Fails::Check, "type Q4_0 is for matrices", |g| {
            g.tensors.push(Tensor::of_type("blk.0.attn_q.bias", &[32], 2, 18));
        }),
    ]
}

/// A change to a file, and what it is called.
type Named = (&'static str, Box<dyn Fn(&mut Gguf)>);

/// Changes after which a file is as good as before: just inside of what is refused.
fn harmless_changes() -> Vec<Named> {
    let mut all = harmless_lengths();
    all.extend(harmless_windows());
    all.extend(harmless_counts());
    all
}

/// Lengths and rotations.
fn harmless_lengths() -> Vec<Named> {
    let key = |name: &'static str, key: &'static str, value: Payload| {
        let change = move |g: &mut Gguf| g.set(&format!("llama.{key}"), value.clone());
        (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>)
    };
    let change = |name, change: fn(&mut Gguf)| (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>);
    vec![
        change("KV_HEADS_EQUAL", |g| {
            g.set("llama.attention.head_count_kv", gw::u32(2));
            keys_and_values(g, 16);
        }),
        change("KV_HEADS_NONE", |g| {
            g.set("llama.attention.head_count_kv", gw::u32(0));
            g.tensors
                .retain(|t| t.name != b"blk.0.attn_k.weight" && t.name != b"blk.0.attn_v.weight");
        }),
        key("BLOCK_COUNT_MOST", "block_count", gw::u32(512)),
        key("CONTEXT_1", "context_length", gw::u32(1)),
        key("CONTEXT_MOST", "context_length", gw::u32(u32::MAX)),
        key("NEXTN_AS_MANY_AS_BLOCKS", "nextn_predict_layers", gw::u32(1)),
        key("INTERVAL_1", "full_attention_interval", gw::u32(1)),
        key("ROPE_AS_WIDE_AS_HEAD", "rope.dimension_count", gw::u32(8)),
        change("ROPE_NONE", |g| become_with(g, "bloom", &[("rope.dimension_count", 0)])),
        change("ROPE_ODD_AND_UNREAD", |g| become_with(g, "gpt2", &[("rope.dimension_count", 3)])),
        change("ROPE_LEAST", |g| become_with(g, "gemma", &[("rope.dimension_count", 2)])),
        change("WINDOW_LEAST", |g| become_with(g, "gemma2", &[("rope.dimension_count_swa", 2)])),
        change("WINDOW_NOWHERE_READ", |g| {
            become_with(g, "qwen3", &[("rope.dimension_count_swa", 1)])
        }),
        change("WINDOW_EVERY_SECOND", |g| {
            become_with(g, "gemma3", &[("attention.sliding_window_pattern", 2)]);
        }),
        change("WINDOW_NONE", |g| {
            let keys = [("attention.sliding_window_pattern", 1), ("attention.sliding_window", 0)];
            become_with(g, "gemma3", &keys);
        }),
        change("WINDOW_AS_THE_OTHERS", |g| {
            become_with(g, "cohere2", &[("attention.key_length_swa", 8)])
        }),
        change("WINDOW_OF_ONE_LENGTH", |g| {
            become_with(g, "maple", &[("attention.value_length_swa", 8)]);
        }),
        change("SECTIONS_AS_LONG_AS_HEADS", |g| {
            rename(g, "qwen2vl");
            g.set("qwen2vl.rope.dimension_sections", gw::u32s(&[4, 2, 2, 0]));
        }),
        change("SECTIONS_UNREAD", |g| g.set("llama.rope.dimension_sections", gw::u32s(&[99; 4]))),
    ]
}

/// Windows, sections, and keys without readers.
fn harmless_windows() -> Vec<Named> {
    let key = |name: &'static str, key: &'static str, value: Payload| {
        let change = move |g: &mut Gguf| g.set(&format!("llama.{key}"), value.clone());
        (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>)
    };
    let change = |name, change: fn(&mut Gguf)| (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>);
    vec![
        change("KEYS_WITHOUT_READERS", |g| {
            let keys = [
                ("attention.shared_kv_layers", 1),
                ("full_attention_interval", 0),
                ("decoder_block_count", u32::MAX),
                ("expert_gating_func", 9),
                ("attention.key_length_mla", 1),
            ];
            become_with(g, "llama", &keys);
        }),
        change("HEADS_AS_MANY_AS_WIDE", |g| {
            become_with(
                g,
                "bloom",
                &[("attention.head_count", 16), ("attention.head_count_kv", 8)],
            );
        }),
        key("EPSILON_0", "attention.layer_norm_rms_epsilon", gw::f32(0.0)),
        change("KEY_LENGTH_MOST", |g| {
            for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
                g.set(&format!("llama.{key}"), gw::u32(1 << 16));
            }
            keys_and_values(g, 1 << 16);
        }),
        change("GATING_LAST", |g| {
            become_with(
                g,
                "deepseek2",
                &[("expert_count", 8), ("expert_used_count", 2), ("expert_gating_func", 4)],
            );
        }),
        change("EXPERTS_ALL_USED", |g| {
            g.set("llama.expert_count", gw::u32(1024));
            g.set("llama.expert_used_count", gw::u32(1024));
        }),
        change("EXPERT_GROUPS_EVEN", |g| {
            for (key, n) in
                [("count", 8), ("used_count", 2), ("group_count", 4), ("group_used_count", 3)]
            {
                g.set(&format!("llama.expert_{key}"), gw::u32(n));
            }
        }),
        change("BOS_NONE", |g| g.set("tokenizer.ggml.bos_token_id", gw::u32(u32::MAX))),
        change("BOS_LAST", |g| g.set("tokenizer.ggml.bos_token_id", gw::u32(7))),
        change("SCORES_LONG", |g| g.set("tokenizer.ggml.scores", gw::f32s(&[0.0; 9]))),
    ]
}

/// Counts, tokens and types.
fn harmless_counts() -> Vec<Named> {
    let change = |name, change: fn(&mut Gguf)| (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>);
    vec![
        change("NUMBERS_OF_EXPERTS", |g| {
            let name = "blk.0.ffn_gate_tid2eid.weight";
            g.tensors.push(Tensor::of_type(name, &[2, 8], 26, 64));
        }),
        // Products, though they look like the others.
        change("PRODUCTS_Q8_0", |g| {
            for role in [
                "ffn_gate_inp.weight",
                "time_mix_w1.weight",
                "altup_router.weight",
                "ssm_beta.weight",
            ] {
                g.tensors.push(Tensor::of_type(&format!("blk.0.{role}"), &[32, 2], 8, 68));
            }
        }),
        change("NORM_F16", |g| {
            *g.tensor("output_norm.weight") = Tensor::of_type("output_norm.weight", &[16], 1, 32);
        }),
        change("SHARED_KV_MOST", |g| {
            g.set("llama.block_count", gw::u32(4));
            g.set("llama.attention.shared_kv_layers", gw::u32(2));
        }),
        change("ROPE_SCALED", |g| {
            g.set("llama.rope.scaling.type", gw::str("longrope"));
            g.set("llama.rope.scaling.factor", gw::f32(0.0));
        }),
        change("VOCABULARY_MOST", |g| g.set("llama.vocab_size", gw::u32(1 << 24))),
        change("ONE_EXPERT_GROUP", |g| {
            for (key, n) in [("count", 2), ("used_count", 1), ("group_count", 1)] {
                g.set(&format!("llama.expert_{key}"), gw::u32(n));
            }
        }),
        change("QUERIES_OF_LINEAR_ATTENTION", |g| {
            rename(g, "kimi-linear");
            g.set("kimi-linear.attention.head_count", gw::u32s(&[0]));
            g.set("kimi-linear.attention.head_count_kv", gw::u32(2));
        }),
    ]
}

/// The same, to what one architecture or vocabulary has for itself.
fn harmless_to_families() -> Vec<Named> {
    let mut all = harmless_sizes_of_families();
    all.extend(harmless_numbers_of_families());
    all.extend(harmless_heads_of_families());
    all
}

/// Heads of windows that are longer than the others.
fn harmless_heads_of_families() -> Vec<Named> {
    let change = |name, change: fn(&mut Gguf)| (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>);
    vec![change("KEYS_OF_A_WINDOW", |g| {
        become_with(
            g,
            "gemma4",
            &[
                ("attention.key_length", 4),
                ("attention.value_length", 4),
                ("attention.key_length_swa", 8),
                ("attention.value_length_swa", 8),
                ("rope.dimension_count", 4),
                ("rope.dimension_count_swa", 8),
            ],
        );
    })]
}

/// Keys that make sense together.
fn harmless_numbers_of_families() -> Vec<Named> {
    let change = |name, change: fn(&mut Gguf)| (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>);
    vec![
        change("SHIFTS_OF_RWKV", |g| {
            become_with(g, "rwkv6", &[("wkv.head_size", 16), ("token_shift_count", 2)]);
        }),
        change("LOOPS_MOST", |g| become_with(g, "nanbeige", &[("num_loops", 512)])),
        change("STACKS_MAKE_ALL_BLOCKS", |g| {
            let keys = [
                ("block_count", 12),
                ("hrm.layers_per_stack", 2),
                ("hrm.h_cycles", 2),
                ("hrm.l_cycles", 2),
            ];
            become_with(g, "hrm_text", &keys);
        }),
        change("INNER_SIZE_TWICE", |g| {
            become_with(
                g,
                "granitehybrid",
                &[
                    ("ssm.inner_size", 32),
                    ("ssm.conv_kernel", 4),
                    ("ssm.state_size", 8),
                    ("ssm.time_step_rank", 4),
                    ("ssm.group_count", 1),
                ],
            );
        }),
        change("LINEAR_OF_ONE_SIZE", |g| {
            rename(g, "qwen3next");
            linear(g, "qwen3next", 32);
            g.tensors.push(Tensor::f32("blk.0.ssm_out.weight", &[32, 16]));
        }),
        change("BOUND_BELOW_ZERO", |g| {
            rename(g, "bailingmoe3");
            g.set("bailingmoe3.kda.gate_lower_bound", gw::f32(-0.001));
        }),
        change("GATING_GIVEN", |g| {
            become_with(
                g,
                "dots1",
                &[("expert_count", 4), ("expert_used_count", 2), ("expert_gating_func", 1)],
            );
        }),
        change("GROUPS_AS_MANY_AS_USED", |g| {
            become_with(
                g,
                "grovemoe",
                &[("expert_count", 4), ("expert_used_count", 2), ("experts_per_group", 2)],
            );
        }),
        change("EXPERTS_FEWER_THAN_AT_FIRST", |g| experts_by_block(g, &[3, 1])),
        change("EXPERTS_NONE_IN_A_DENSE_BLOCK", |g| {
            experts_by_block(g, &[2, 0]);
            g.tensors.retain(|t| t.name != b"blk.1.ffn_gate_inp.weight");
        }),
    ]
}

/// Weights of keys and values with as many rows.
fn keys_and_values(g: &mut Gguf, rows: u64) {
    for name in ["blk.0.attn_k.weight", "blk.0.attn_v.weight"] {
        *g.tensor(name) = Tensor::f32(name, &[16, rows]);
    }
}

/// Sizes that fit each other.
fn harmless_sizes_of_families() -> Vec<Named> {
    let change = |name, change: fn(&mut Gguf)| (name, Box::new(change) as Box<dyn Fn(&mut Gguf)>);
    vec![
        change("RWKV_BYTES", |g| {
            g.set("tokenizer.ggml.model", gw::str("rwkv"));
            let tokens = ["a", "b", "\\n", "\\x0A\\n", "\\xe2\\x82", "ab", "\\xE2", " "];
            g.set("tokenizer.ggml.tokens", gw::strings(&tokens));
        }),
        change("EMPTY_TOKENS", |g| {
            g.set(
                "tokenizer.ggml.tokens",
                gw::strings(&["<unk>", "<s>", "</s>", "", "", "[EMPTY_5]", "", "e"]),
            );
        }),
        change("HEADS_MAKE_THE_WIDTH", |g| {
            rename(g, "lfm2");
            g.set("lfm2.attention.head_count", gw::u32(4));
            g.set("lfm2.attention.head_count_kv", gw::u32(2));
            g.set("lfm2.attention.key_length", gw::u32(4));
            g.set("lfm2.rope.dimension_count", gw::u32(4));
        }),
        change("HEADS_OF_A_BLOCK_WITHOUT_ATTENTION", |g| {
            rename(g, "jamba");
            for (key, n) in
                [("inner_size", 32), ("conv_kernel", 4), ("state_size", 8), ("time_step_rank", 4)]
            {
                g.set(&format!("jamba.ssm.{key}"), gw::u32(n));
            }
            g.set("jamba.attention.head_count", gw::u32(3));
            g.set("jamba.attention.head_count_kv", gw::u32(0));
            g.tensors.retain(|t| !t.name.starts_with(b"blk.0.attn_"));
            g.set("jamba.rope.dimension_count", gw::u32(0));
        }),
        change("HEADS_AS_LONG_AS_THEY_LIKE", |g| {
            for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
                g.set(&format!("llama.{key}"), gw::u32(32));
            }
            keys_and_values(g, 32);
        }),
        change("SSM_DIVISORS", |g| {
            rename(g, "qwen3next");
            for (key, n) in [
                ("inner_size", 32),
                ("conv_kernel", 1),
                ("state_size", 1),
                ("time_step_rank", 32),
                ("group_count", 32),
            ] {
                g.set(&format!("qwen3next.ssm.{key}"), gw::u32(n));
            }
        }),
        change("RWKV_ONE_HEAD", |g| {
            rename(g, "rwkv6");
            g.set("rwkv6.wkv.head_size", gw::u32(16));
        }),
        change("HEADS_AS_LONG_AS_ROTATED", |g| {
            rename(g, "gpt-oss");
            for key in ["key_length", "value_length", "key_length_swa", "value_length_swa"] {
                g.set(&format!("gpt-oss.attention.{key}"), gw::u32(8));
            }
        }),
    ]
}

#[test]
fn what_is_just_inside_is_not_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, change) in harmless_changes().into_iter().chain(harmless_to_families()) {
        let mut g = Gguf::llama();
        change(&mut g);
        let path = dir.path().join(format!("{name}.gguf"));
        fs::write(&path, g.bytes()).unwrap();
        assert_eq!(complaint(&path), Ok(()), "{name}");
    }
}

#[test]
fn a_file_that_is_replaced_or_written_to_is_not_the_one_that_was_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("m.gguf"), dir.path().join("other"));
    let bytes = Gguf::llama().bytes();
    let indexed = || {
        fs::write(&path, &bytes).unwrap();
        let index = Index::open(&path).unwrap();
        index.check_unchanged().unwrap();
        index
    };
    let refused = |index: Index| index.check_unchanged().unwrap_err().to_string();
    let index = indexed();
    fs::write(&other, &bytes).unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(refused(index).contains("replaced"));
    let index = indexed();
    fs::write(&path, &bytes[1..]).unwrap();
    assert!(refused(index).contains("replaced"));
    let index = indexed();
    fs::remove_file(&path).unwrap();
    refused(index);
    // As long as before, and of another time.
    let index = indexed();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert!(refused(index).contains("replaced"));
    // Of parts, each.
    let parts = write_parts(dir.path(), "two", |_| {});
    let index = Index::open(&parts[0]).unwrap();
    fs::copy(&parts[1], &other).unwrap();
    fs::rename(&other, &parts[1]).unwrap();
    assert!(refused(index).contains("00002-of-00002"));
}

/// Opening looks again: what was planned for one file is not done with another, whether weights stay in memory or stream.
#[test]
fn a_file_that_another_one_replaces_before_it_is_opened_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let one = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, Gguf::llama().bytes()).unwrap();
        vec![path]
    };
    let two = |name: &str| write_parts(dir.path(), name, |_| {}).to_vec();
    for stream in [StreamMode::Never, StreamMode::Always] {
        for (paths, others) in [(one("m.gguf"), one("other.gguf")), (two("m"), two("other"))] {
            let index = Index::open(&paths[0]).unwrap();
            let last = paths.len() - 1;
            fs::rename(&others[last], &paths[last]).unwrap();
            let options = LoadOptions { stream, ..LoadOptions::default() };
            let error = Engine::open(std::sync::Arc::new(index), &options).unwrap_err();
            assert!(error.to_string().contains("replaced"), "{stream:?}: {error}");
        }
    }
}

/// A tower that reads images lies in the file, as Ollama keeps it: the text part is loaded without.
#[test]
fn towers_in_the_same_file_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sees.gguf");
    let mut g = Gguf::llama();
    for name in ["v.blk.0.attn_q.weight", "mm.0.weight", "v.patch_embd.weight"] {
        g.tensors.insert(3, Tensor::f32(name, &[16, 16]));
    }
    fs::write(&path, g.bytes()).unwrap();
    assert_eq!(complaint(&path), Ok(()));
    assert_eq!(Index::open(&path).unwrap().left_out, 3);
    let plain = dir.path().join("plain.gguf");
    fs::write(&plain, Gguf::llama().bytes()).unwrap();
    for stream in ["never", "always"] {
        let args = ["logits", "--tokens", "3,4,5", "--stream", stream];
        let (sees, text) = (airrun(&args, &path), airrun(&args, &plain));
        assert_eq!(sees.status.code(), Some(0), "{}", String::from_utf8_lossy(&sees.stderr));
        assert_eq!(sees.stdout, text.stdout, "{stream}");
    }
}

/// Adapters, control vectors, statistics of weights and models of other kinds are files for something else, and not damaged.
#[test]
fn what_is_no_language_model_is_called_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for (arch, kind, words) in [
        ("llama", Some("adapter"), "a part for another model"),
        ("llama", Some("imatrix"), "a part for another model"),
        ("llama", Some("mmproj"), "a vision encoder"),
        ("controlvector", None, "a part for another model"),
        ("whisper", None, "a model for sound"),
        ("flux", None, "draws images"),
    ] {
        let mut g = Gguf::llama();
        rename(&mut g, arch);
        g.keys.retain(|(key, _)| !key.ends_with(b".block_count"));
        if let Some(kind) = kind {
            g.set("general.type", gw::str(kind));
        }
        let path = dir.path().join("part.gguf");
        fs::write(&path, g.bytes()).unwrap();
        let output = airrun(&["logits", "--tokens", "1"], &path);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(words), "{arch} {kind:?}: {said}");
        assert!(!said.contains("damaged"), "{said}");
    }
}

/// Files that only loading finds wrong.
fn load_rows() -> Vec<Row> {
    use Fails::Load;
    vec![
        row("ARCHITECTURE_UNKNOWN", Load, "", |g| rename(g, "nonesuch")),
        row("TENSOR_MISSING", Load, "", |g| g.tensors.retain(|t| t.name != b"blk.0.attn_q.weight")),
        row("TENSOR_SHAPE_WRONG", Load, "", |g| {
            *g.tensor("blk.0.attn_q.weight") = Tensor::f32("blk.0.attn_q.weight", &[16, 8]);
        }),
        row("TOKENIZER_UNKNOWN", Load, "", |g| g.set("tokenizer.ggml.model", gw::str("nonesuch"))),
        row("TOKENS_ARE_NUMBERS", Load, "", |g| g.set("tokenizer.ggml.tokens", gw::u32s(&[1; 8]))),
        row("FEED_FORWARD_LIES", Load, "", |g| g.set("llama.feed_forward_length", gw::u32(32))),
    ]
}

/// libllama says why on the thread that loads, and others that load at the same time have reasons of their own.
#[test]
fn models_that_fail_at_once_have_reasons_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let says = |name: &str| match name {
        "TENSOR_MISSING" => "not found",
        "TENSOR_SHAPE_WRONG" => "wrong shape",
        "TOKENIZER_UNKNOWN" => "unknown tokenizer",
        _ => "",
    };
    let rows: Vec<_> = load_rows().into_iter().filter(|row| !says(row.0).is_empty()).collect();
    assert_eq!(rows.len(), 3);
    std::thread::scope(|scope| {
        for (name, _, _, bytes) in &rows {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            scope.spawn(move || {
                for _ in 0..20 {
                    let index = std::sync::Arc::new(Index::open(&path).unwrap());
                    let error = Engine::open(index, &LoadOptions::default()).unwrap_err();
                    assert!(error.to_string().contains(says(name)), "{name}: {error}");
                }
            });
        }
    });
}

/// The two parts of the tiny model: the first with all keys and half of the tensors.
fn parts() -> [Gguf; 2] {
    let mut first = Gguf::llama();
    let mut second = Gguf::new();
    second.tensors = first.tensors.split_off(6);
    first.set("split.tensors.count", gw::u32(12));
    for (no, part) in [&mut first, &mut second].into_iter().enumerate() {
        part.set("split.no", gw::u32(no as u32));
        part.set("split.count", gw::u32(2));
    }
    [first, second]
}

/// Writes the parts of the tiny model after `change`; returns their paths.
pub(crate) fn write_parts(dir: &Path, name: &str, change: impl Fn(&mut [Gguf; 2])) -> [PathBuf; 2] {
    let mut both = parts();
    change(&mut both);
    let paths = [1, 2].map(|n| dir.join(format!("{name}-{n:05}-of-00002.gguf")));
    for (path, part) in paths.iter().zip(&both) {
        fs::write(path, part.bytes()).unwrap();
    }
    paths
}

fn split_cases(dir: &Path) -> Vec<Case> {
    let changed = |name, says, change: fn(&mut [Gguf; 2])| {
        let [path, _] = write_parts(dir, name, change);
        Case { name, fails: Fails::Open, says, path }
    };
    let without = |name, says, gone: usize| {
        let paths = write_parts(dir, name, |_| {});
        fs::remove_file(&paths[gone]).unwrap();
        Case { name, fails: Fails::Open, says, path: paths[1 - gone].clone() }
    };
    let misnamed = || {
        let [first, _] = write_parts(dir, "SPLIT_NAMED_OTHERWISE", |_| {});
        let path = dir.join("SPLIT_NAMED_OTHERWISE.gguf");
        fs::rename(first, &path).unwrap();
        let says = "its name does not end in -00001-of-00002.gguf";
        Case { name: "SPLIT_NAMED_OTHERWISE", fails: Fails::Open, says, path }
    };
    vec![
        without("SPLIT_SECOND_MISSING", "part 2 of 2 is missing", 1),
        without("SPLIT_FIRST_MISSING", "part 1 of 2 is missing", 0),
        misnamed(),
        changed("SPLIT_NO_BEYOND_COUNT", "split.no", |p| p[0].set("split.no", gw::u32(2))),
        changed("SPLIT_COUNT_MAX", "split.count", |p| p[0].set("split.count", gw::u64(u64::MAX))),
        changed("SPLIT_BOTH_FIRST", "part 1 of 2", |p| p[1].set("split.no", gw::u32(0))),
        changed("SPLIT_OF_ANOTHER", "part 2 of 3", |p| p[1].set("split.count", gw::u32(3))),
        changed("SPLIT_TENSOR_COUNT", "13 were expected", |p| {
            p[0].set("split.tensors.count", gw::u32(13));
        }),
        changed("SPLIT_DUPLICATE_TENSOR", "appears twice", |p| {
            p[1].tensors[0].name = b"output.weight".to_vec();
        }),
        changed("SPLIT_SECOND_NOT_GGUF", "not a GGUF file", |p| p[1].magic = *b"PK\x03\x04"),
    ]
}

/// Paths that are no readable files.
#[expect(clippy::print_stderr, reason = "a skipped case says so")]
fn path_cases(dir: &Path) -> Vec<Case> {
    let case = |name, says, path| Case { name, fails: Fails::Open, says, path };
    let mut cases = vec![
        case("FILE_MISSING", "No such file", dir.join("there-is-none.gguf")),
        case("DIRECTORY", "is a directory", dir.to_owned()),
    ];
    if cfg!(unix) {
        cases.push(case("DEVICE", "not a regular file", PathBuf::from("/dev/null")));
        let file = dir.join("a-file");
        fs::write(&file, b"x").unwrap();
        cases.push(case("BELOW_A_FILE", "Not a directory", file.join("model.gguf")));
        let path = dir.join("NO_PERMISSION.gguf");
        if unreadable(&path) {
            cases.push(case("NO_PERMISSION", "Permission denied", path));
        } else {
            eprintln!("skipped NO_PERMISSION: this user reads every file (root)");
        }
    }
    cases
}

/// Writes a valid model that may not be read; false if this user may read it all the same.
fn unreadable(path: &Path) -> bool {
    fs::write(path, Gguf::llama().bytes()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    fs::File::open(path).is_err()
}

/// The complaint about a file, by the rooms that can complain without loading it.
fn complaint(path: &Path) -> Result<(), (Fails, String)> {
    let index = Index::open(path).map_err(|e| (Fails::Open, e.to_string()))?;
    index.check_model().map_err(|e| (Fails::Check, e.to_string()))
}

#[test]
fn every_corrupt_file_gets_its_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let cases = all_cases(dir.path());
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    for case in &cases {
        let found = complaint(&case.path);
        match (case.fails, found) {
            (Fails::Load, found) => assert_eq!(found, Ok(()), "{}", case.name),
            (fails, Ok(())) => panic!("{}: passed, and {fails:?} should refuse it", case.name),
            (fails, Err((by, text))) => {
                assert_eq!(by, fails, "{}: {text}", case.name);
                assert!(text.contains(case.says), "{}: {text}", case.name);
                assert!(
                    text.starts_with("model '") && !text.contains('\n'),
                    "{}: {text}",
                    case.name
                );
                assert!(text.len() < 400, "{}: {text}", case.name);
            }
        }
    }
}

#[test]
fn the_untouched_files_are_fine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("valid.gguf");
    fs::write(&path, Gguf::llama().bytes()).unwrap();
    assert_eq!(complaint(&path), Ok(()));
    for path in write_parts(dir.path(), "valid", |_| {}) {
        assert_eq!(complaint(&path), Ok(()));
    }
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let whole = Gguf::llama().bytes();
    for len in 0..whole.len() {
        let cut = &whole[..len];
        let refused = Index::from_reader(Path::new("cut.gguf"), cut, Bytes(len as u64)).is_err();
        assert!(refused, "cut at byte {len} of {}", whole.len());
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_refused() {
    let whole = Gguf::llama().bytes();
    let header = Gguf::llama().header().len();
    for len in 0..header {
        let result = Index::from_reader(Path::new("x"), &whole[..len], Bytes(whole.len() as u64));
        assert!(result.is_err(), "{len}");
    }
}

fn airrun(args: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airrun"));
    command.arg(args[0]).arg(path).args(&args[1..]).output().unwrap()
}

#[test]
fn the_program_refuses_every_corrupt_file() {
    let dir = tempfile::tempdir().unwrap();
    for case in all_cases(dir.path()) {
        for args in [&["inspect"][..], &["logits", "--tokens", "1"]] {
            let out = airrun(args, &case.path);
            let stderr = String::from_utf8_lossy(&out.stderr);
            let told = format!("{} {}: {:?}\n{stderr}", case.name, args[0], out.status);
            if case.fails == Fails::Load && args[0] == "inspect" {
                assert_eq!(out.status.code(), Some(0), "{told}");
                continue;
            }
            assert_eq!(out.status.code(), Some(1), "{told}");
            assert!(stderr.starts_with("airrun: "), "{told}");
            assert!(!stderr.contains("panicked"), "{told}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever bytes of the header are changed: an index or an error, no panic.
    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let g = Gguf::llama();
        let header = g.header().len();
        let mut bytes = g.bytes();
        for (at, byte) in changes {
            bytes[at.index(header)] = byte;
        }
        let len = Bytes(bytes.len() as u64);
        if let Ok(index) = Index::from_reader(Path::new("x"), Cursor::new(bytes), len) {
            drop(index.check_model());
            drop((index.file_type_name(), index.name(), index.tokenizer()));
            let _ = (index.largest_unit(), index.parameters());
        }
    }
}
