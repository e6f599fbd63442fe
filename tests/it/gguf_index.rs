//! What the index says of files that are right: blocks, places, experts, parts, and answers about
//! the whole.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use airrun::gguf::{ElementType, Experts, GgmlType, Index, Place, Stack, Value};
use airrun::units::Bytes;

use crate::gguf_corrupt::write_parts;
use crate::gguf_writer::{self as gw, Gguf, Tensor};

fn index(g: &Gguf) -> Index {
    let bytes = g.bytes();
    let len = Bytes(bytes.len() as u64);
    Index::from_reader(Path::new("/models/file-name.gguf"), Cursor::new(bytes), len).unwrap()
}

#[test]
fn a_small_model_is_indexed_by_block() {
    let g = Gguf::llama();
    let index = index(&g);
    assert_eq!((index.architecture(), index.name().as_str()), ("llama", "tiny"));
    assert_eq!((index.context_length(), index.block_count()), (Some(64), Some(1)));
    assert_eq!(index.tensors.len(), 12);
    assert_eq!(index.bytes_of(Place::Embedding), Bytes(512));
    assert_eq!(index.bytes_of(Place::Output), Bytes(512 + 64));
    let block = &index.blocks[0];
    assert_eq!((block.place(), block.tensors.len()), (Place::Block(Stack::Main, 0), 9));
    assert_eq!(index.largest_unit(), Some((block.place(), block.len)));
    assert_eq!(index.bytes(), Bytes(4 * index.parameters()));
    assert_eq!(index.file_type_name(), "F32");
    assert_eq!(index.tokenizer().unwrap().n_tokens, 8);
    let bytes = g.bytes();
    for (tensor, written) in index.tensors.iter().zip(&g.tensors) {
        let (at, len) = (tensor.offset as usize, tensor.len.usize());
        assert_eq!(&bytes[at..at + len], written.data, "{}", tensor.name);
    }
    assert_eq!(index.tensors[4].role(), "attn_q.weight");
}

#[test]
fn version_2_and_other_alignments_are_read() {
    for alignment in [8, 64, 4096] {
        let mut g = Gguf::llama();
        g.version = 2;
        g.set("general.alignment", gw::u32(alignment));
        g.alignment = alignment.into();
        let mut bytes = g.header();
        bytes.resize(bytes.len().next_multiple_of(alignment as usize), 0);
        let data_at = bytes.len() as u64;
        let len = Bytes(data_at + 1_000_000);
        let index = Index::from_reader(Path::new("x"), &bytes[..], len).unwrap();
        assert_eq!(index.files[0].data_offset, data_at);
        assert!(index.tensors.iter().all(|t| t.offset % u64::from(alignment) == 0));
    }
}

#[test]
fn encoder_and_decoder_blocks_are_distinct() {
    let mut g = Gguf::new();
    g.set("general.architecture", gw::str("t5"));
    for name in ["dec.blk.0.attn_q.weight", "enc.blk.1.attn_q.weight", "enc.blk.0.attn_q.weight"] {
        g.tensors.push(Tensor::f32(name, &[4, 4]));
    }
    let places: Vec<_> = index(&g).blocks.iter().map(|b| b.place().to_string()).collect();
    assert_eq!(places, ["enc.blk.0", "enc.blk.1", "dec.blk.0"]);
}

#[test]
fn experts_are_ranges() {
    let mut g = Gguf::new();
    g.set("general.architecture", gw::str("qwen3moe"));
    g.set("qwen3moe.expert_count", gw::u32(4));
    g.tensors.push(Tensor::of_type("blk.0.ffn_up_exps.weight", &[256, 8, 4], 12, 4 * 8 * 144));
    g.tensors.push(Tensor::f32("blk.0.ffn_up_exps.bias", &[8, 4]));
    g.tensors.push(Tensor::f32("blk.0.ffn_up_shexp.weight", &[8, 4]));
    g.tensors.push(Tensor::f32("blk.0.ffn_gate_exps.weight", &[8, 8]));
    let index = index(&g);
    let experts: Vec<_> = index.tensors.iter().map(|t| index.experts(t)).collect();
    let of = |each| Some(Experts { count: 4, each: Bytes(each) });
    assert_eq!(experts, [of(8 * 144), of(32), None, None]);
}

#[test]
fn a_split_model_is_joined_from_any_part() {
    let dir = tempfile::tempdir().unwrap();
    let paths = write_parts(dir.path(), "whole", |_| {});
    for path in &paths {
        let index = Index::open(path).unwrap();
        assert_eq!(index.files.iter().map(|f| &f.path).collect::<Vec<_>>(), [&paths[0], &paths[1]]);
        assert_eq!(index.name(), "tiny");
        let names: Vec<_> = index.tensors.iter().map(|t| t.name.as_bytes().to_vec()).collect();
        assert_eq!(names, Gguf::llama().tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>());
        for (tensor, want) in index.tensors.iter().zip(Gguf::llama().tensors) {
            let bytes = fs::read(&index.files[tensor.file].path).unwrap();
            assert_eq!(&bytes[tensor.offset as usize..][..tensor.len.usize()], want.data);
        }
    }
}

#[test]
fn parts_joined_are_the_file_that_was_split() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.gguf");
    fs::write(&whole, Gguf::llama().bytes()).unwrap();
    let single = Index::open(&whole).unwrap();
    let joined = single.join().unwrap();
    assert_eq!(joined.header, fs::read(&whole).unwrap()[..joined.header.len()]);
    assert_eq!(joined.header.len() as u64, single.files[0].data_offset);
    assert_eq!(joined.offsets, single.tensors.iter().map(|t| t.offset).collect::<Vec<_>>());
    assert_eq!(joined.len, single.files[0].len.0);

    let [first, _] = write_parts(dir.path(), "parts", |_| {});
    let split = Index::open(&first).unwrap();
    let joined = split.join().unwrap();
    let again = Index::from_reader(&whole, &joined.header[..], Bytes(joined.len)).unwrap();
    assert_eq!(again.tensors.len(), split.tensors.len());
    assert_eq!(again.tensors.iter().map(|t| t.offset).collect::<Vec<_>>(), joined.offsets);
    assert_eq!(again.metadata.entries, split.metadata.entries);
}

#[test]
fn without_a_name_the_file_gives_it() {
    let mut g = Gguf::llama();
    g.set("general.name", gw::str("  "));
    g.set("general.file_type", gw::u32(15));
    g.set("tokenizer.chat_template", gw::str("{{ x }}"));
    let index = index(&g);
    assert_eq!(index.name(), "file-name");
    assert_eq!(index.file_type_name(), "Q4_K - Medium");
    assert_eq!(index.chat_template(), Some("{{ x }}"));
}

#[test]
fn models_without_attention_or_vocabulary_pass_the_check() {
    let passes = |change: &dyn Fn(&mut Gguf)| {
        let mut g = Gguf::llama();
        change(&mut g);
        index(&g).check_model().unwrap();
    };
    // What libllama itself writes for "not used".
    passes(&|g| {
        for key in [
            "expert_count",
            "expert_used_count",
            "expert_group_count",
            "ssm.inner_size",
            "ssm.conv_kernel",
            "ssm.group_count",
            "wkv.head_size",
            "interleave_moe_layer_step",
            "nextn_predict_layers",
            "attention.sliding_window",
            "experts_per_group",
        ] {
            g.set(&format!("llama.{key}"), gw::u32(0));
        }
    });
    passes(&|g| {
        for key in ["head_count", "head_count_kv", "key_length", "value_length"] {
            g.set(&format!("llama.attention.{key}"), gw::u32(0));
        }
        g.set("llama.rope.dimension_count", gw::u32(0));
        g.tensors.retain(|t| t.name != b"blk.0.attn_q.weight");
    });
    passes(&|g| {
        g.set("llama.attention.head_count_kv", gw::u32s(&[0]));
        g.tensors.retain(|t| {
            !t.name.starts_with(b"blk.0.attn_k.") && !t.name.starts_with(b"blk.0.attn_v.")
        });
    });
    passes(&|g| {
        g.set("tokenizer.ggml.model", gw::str("none"));
        g.unset("tokenizer.ggml.tokens");
    });
    passes(&|g| g.set("tokenizer.ggml.padding_token_id", gw::u32(99)));
    passes(&|g| g.set("tokenizer.ggml.eos_token_id", gw::u32(u32::MAX)));
    passes(&|g| {
        g.set("tokenizer.ggml.tokens", gw::strings(&["", "", "a", "b", "c", "d", "e", "f"]))
    });
}

#[test]
fn arrays_keep_their_types() {
    let mut g = Gguf::llama();
    g.set("llama.attention.head_count_kv", gw::u32s(&[1]));
    let index = index(&g);
    let kv = index.meta_array("llama.attention.head_count_kv").unwrap();
    assert_eq!((kv.element(), kv.get(0)), (ElementType::U32, Some(Value::Uint(1))));
    let scores = index.meta_array("tokenizer.ggml.scores").unwrap();
    assert_eq!((scores.len(), scores.get(7)), (8, Some(Value::Float(0.0))));
    let tokens = index.meta_array("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.bytes(2), Some(&b"</s>"[..]));
}

/// A model with a vocabulary of 262144 tokens and as many merges.
pub(crate) fn large_vocabulary() -> Gguf {
    let n = 262_144;
    let token = |i: u32| format!("tok{:x}", i.wrapping_mul(2_654_435_761));
    let merges: Vec<String> = (0..n).map(|i| format!("{} {}", token(i), token(i + 1))).collect();
    let tokens: Vec<String> = (0..n).map(token).collect();
    let strs = |list: &[String]| gw::strings(&list.iter().map(String::as_str).collect::<Vec<_>>());
    let mut g = Gguf::llama();
    g.set("tokenizer.ggml.tokens", strs(&tokens));
    g.set("tokenizer.ggml.merges", strs(&merges));
    g.set("tokenizer.ggml.scores", gw::f32s(&vec![0.5; n as usize]));
    g.set("tokenizer.ggml.token_type", gw::i32s(&vec![1; n as usize]));
    g
}

#[test]
#[expect(clippy::print_stderr, reason = "the measured time is the point")]
fn a_vocabulary_of_262k_tokens_opens_fast() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.gguf");
    fs::write(&path, large_vocabulary().bytes()).unwrap();
    let took = |f: &dyn Fn()| {
        let times = (0..5).map(|_| {
            let start = Instant::now();
            f();
            start.elapsed()
        });
        times.min().unwrap()
    };
    let open = took(&|| drop(Index::open(&path).unwrap()));
    let index = Index::open(&path).unwrap();
    let check = took(&|| index.check_model().unwrap());
    eprintln!("262144 tokens and merges: opened in {open:.1?}, checked in {check:.1?}");
    // Far above what is measured (about 20 and 30 ms): a slow machine or build must not fail this.
    assert!(open.max(check) < Duration::from_secs(2));
}

#[test]
fn types_beyond_39_have_their_sizes() {
    for (ty, elements, bytes) in [(40, 64, 36), (41, 128, 18), (42, 64, 18), (39, 32, 17)] {
        assert_eq!(GgmlType(ty).bytes(elements), Some(Bytes(bytes)));
    }
}
