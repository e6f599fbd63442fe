//! The index against another reader of GGUF files, which somebody else wrote: `gguf-rs`. Both must say the same of every tiny model
//! that it can read, to the byte.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use airrun::gguf::{Index, Value};

use crate::tiny_models;

/// A tensor: type, shape, first byte in the file and length in bytes with its padding.
type Tensor = (u32, Vec<u64>, u64, u64);

/// Whether its lengths of a type are right, by ggml's number of it: it takes IQ4_NL and plain numbers but F32 and F16 for blocks of 256.
/// Of the others, places tell: a tensor ends where the next one begins, but for the padding.
fn has_lengths(kind: u32) -> bool {
    matches!(kind, 0..=19 | 21..=23 | 29)
}

fn theirs(path: &Path) -> Result<(BTreeMap<String, Tensor>, gguf_rs::GGUFModel), String> {
    let len = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    let path = path.to_str().expect("a test's path is text");
    let container = gguf_rs::get_gguf_container_array_size(path, u64::MAX);
    let decode = || container.and_then(|mut c| c.decode());
    // Types that it does not know end in panics.
    let decoded = panic::catch_unwind(AssertUnwindSafe(decode)).map_err(|_| "it panics")?;
    let model = decoded.map_err(|error| format!("{error:#}"))?;
    let alignment = model.alignment();
    let place = |t: &gguf_rs::Tensor| model.data_offset() + t.offset;
    let mut places: Vec<u64> = model.tensors().iter().map(place).collect();
    places.push(len.next_multiple_of(alignment));
    places.sort_unstable();
    let tensors = model.tensors().iter().map(|t| {
        let at = place(t);
        let next = places[places.partition_point(|&other| other <= at)];
        let len = if has_lengths(t.kind) { t.size.next_multiple_of(alignment) } else { next - at };
        (t.name.clone(), (t.kind, t.shape.clone(), at, len))
    });
    let tensors = tensors.collect();
    Ok((tensors, model))
}

fn ours(index: &Index) -> BTreeMap<String, Tensor> {
    let alignment = index.metadata.uint("general.alignment").unwrap_or(32);
    let padded = |len: u64| len.next_multiple_of(alignment);
    let tensors = index.tensors.iter();
    tensors
        .map(|t| (t.name.clone(), (t.ty.0, t.shape.clone(), t.offset, padded(t.len.0))))
        .collect()
}

/// Whether a value is the same as JSON says it; arrays by their lengths.
fn is_same(value: &Value, json: &serde_json::Value) -> bool {
    match value {
        Value::Uint(n) => json.as_u64() == Some(*n),
        Value::Int(n) => json.as_i64() == Some(*n),
        // Single ones become double ones by way of decimals.
        Value::Float(x) => json.as_f64().is_some_and(|y| (x - y).abs() <= 1e-6 * x.abs()),
        Value::Bool(b) => json.as_bool() == Some(*b),
        Value::Str(text) => json.as_str() == Some(text),
        Value::Array(array) => json.as_array().is_some_and(|other| other.len() == array.len()),
    }
}

#[test]
fn another_reader_says_the_same_of_every_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let (mut read, mut unread) = (0, BTreeMap::<String, usize>::new());
    for spec in tiny_models::all() {
        let Ok(()) = tiny_models::write(spec, &path) else { continue };
        let index = Index::open(&path).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
        let (tensors, model) = match theirs(&path) {
            Ok(read) => read,
            Err(why) => {
                *unread.entry(why).or_default() += 1;
                continue;
            }
        };
        assert_eq!(model.model_family(), index.architecture(), "{}", spec.name);
        assert_eq!(ours(&index), tensors, "{}", spec.name);
        assert_eq!(model.num_kv(), index.metadata.entries.len() as u64, "{}", spec.name);
        for (key, value) in &index.metadata.entries {
            let json = model.metadata().get(key).unwrap_or_else(|| panic!("{}: {key}", spec.name));
            assert!(is_same(value, json), "{}: {key} is {value:?}, or {json}", spec.name);
        }
        read += 1;
    }
    println!("gguf-rs read {read} models; not these: {unread:?}");
    let all = tiny_models::all().len();
    assert!(read * 10 >= all * 8, "{read} of {all}; {unread:?}");
}
