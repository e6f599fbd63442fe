//! The index against another reader of GGUF files, which somebody else wrote: `gguf-rs`. Both must say the same of every tiny model
//! that it can read, to the byte.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use airrun::gguf::{Index, Value};

use crate::tiny_models;

/// A tensor: type, shape, first byte in the file and length in bytes.
type Tensor = (u32, Vec<u64>, u64, u64);

/// ggml's numbers of its plain types that the other reader takes for blocks, and the bytes of one: whole numbers, F64, BF16.
const PLAIN: [(u32, u64); 6] = [(24, 1), (25, 2), (26, 4), (27, 8), (28, 8), (30, 2)];

fn theirs(path: &Path) -> Result<(BTreeMap<String, Tensor>, gguf_rs::GGUFModel), String> {
    let path = path.to_str().expect("a test's path is text");
    let container = gguf_rs::get_gguf_container_array_size(path, u64::MAX);
    let decode = || container.and_then(|mut c| c.decode());
    // Types that it does not know end in panics.
    let decoded = panic::catch_unwind(AssertUnwindSafe(decode)).map_err(|_| "it panics")?;
    let model = decoded.map_err(|error| format!("{error:#}"))?;
    let tensors = model.tensors().iter().map(|t| {
        let at = model.data_offset() + t.offset;
        // It takes some plain numbers for blocks of 256, and is wrong by that: their lengths are not its to say.
        let plain = PLAIN.iter().find(|(kind, _)| *kind == t.kind);
        let len = plain.map_or(t.size, |(_, bytes)| t.shape.iter().product::<u64>() * bytes);
        (t.name.clone(), (t.kind, t.shape.clone(), at, len))
    });
    Ok((tensors.collect(), model))
}

fn ours(index: &Index) -> BTreeMap<String, Tensor> {
    let tensors = index.tensors.iter();
    tensors.map(|t| (t.name.clone(), (t.ty.0, t.shape.clone(), t.offset, t.len.0))).collect()
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
