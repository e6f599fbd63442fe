//! What the headers of models say, remembered in the cache directory: hundreds of files are listed at once, and each has a
//! vocabulary to be read past.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};

use super::{Model, quant};
use crate::gguf::{Index, Purpose};
use crate::memo;
use crate::units::Bytes;

/// Remembered headers, at most; those that were not seen this time go first.
const MAX_KEPT: usize = 2000;
/// Changes when the fields below do.
const FORMAT: u32 = 4;
/// Headers that are read at a time: more wait for the same disk.
const MAX_THREADS: usize = 4;

/// What a model's header says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// What the model calls itself.
    pub title: String,
    /// `llama`, `qwen3moe`.
    pub architecture: String,
    /// All elements of all tensors.
    pub parameters: u64,
    /// How it is quantised.
    pub quantisation: String,
    /// What it is made for; `None` for a file without tensors.
    pub purpose: Option<Purpose>,
    /// Tokens of context it was trained for.
    pub context: Option<u64>,
    /// Bytes of all tensors.
    pub weights: u64,
    /// Bytes of all blocks, and what share of them one token computes with.
    pub blocks: u64,
    /// That share.
    pub touched: f64,
    /// Bytes of the largest block.
    pub largest_block: u64,
    /// Bytes of the output matrix, or of the embeddings that serve as one.
    pub output: u64,
    /// Bytes of keys and values per token of context, at 16 bits each.
    pub kv_per_token: u64,
    /// The blocks' types, those of most bytes first.
    pub types: Vec<TypeShare>,
    /// Why it cannot be loaded, as far as its header tells.
    pub refused: Option<String>,
}

/// What blocks have of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeShare {
    /// ggml's number of the type.
    pub ty: u32,
    /// Elements of a row, and rows, of the matrices that most of its bytes are in.
    pub row: u64,
    /// Those rows.
    pub rows: u64,
    /// Bytes of all its matrices.
    pub bytes: u64,
}

/// Headers that were read before.
#[derive(Debug)]
pub struct Library {
    file: Option<PathBuf>,
    kept: Kept,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    format: u32,
    version: String,
    models: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    size: u64,
    modified: u64,
    facts: Facts,
}

impl Library {
    /// What the cache directory remembers.
    pub fn open() -> Library {
        Library::at(memo::path("models.json"))
    }

    /// What `file` remembers.
    fn at(file: Option<PathBuf>) -> Library {
        let fresh = || Kept {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Kept::default()
        };
        let kept = file.as_deref().and_then(memo::recall::<Kept>);
        let current = |k: &Kept| k.format == FORMAT && k.version == env!("CARGO_PKG_VERSION");
        Library { kept: kept.filter(current).unwrap_or_else(fresh), file }
    }

    /// The facts of `models`, in their order; the reason where a header makes no sense. Reads those that are new or changed, and
    /// remembers them.
    pub fn facts(&mut self, models: &[Model]) -> Vec<Result<Facts, String>> {
        let known: Vec<Option<Facts>> = models.iter().map(|m| self.recall(m)).collect();
        let unknown: Vec<usize> = (0..models.len()).filter(|&i| known[i].is_none()).collect();
        let mut read = read_all(models, &unknown);
        let results: Vec<Result<Facts, String>> = (0..models.len())
            .zip(known)
            .map(|(i, known)| match known {
                Some(facts) => Ok(facts),
                None => read.remove(&i).unwrap_or_else(|| Err("was not read".to_owned())),
            })
            .collect();
        for &i in &unknown {
            if let Ok(facts) = &results[i] {
                self.keep(&models[i], facts);
            }
        }
        if !unknown.is_empty() {
            self.save(models);
        }
        results
    }

    fn recall(&self, model: &Model) -> Option<Facts> {
        let entry = self.kept.models.get(&key(model))?;
        let same = entry.size == model.size.0 && entry.modified == file_time(model);
        same.then(|| entry.facts.clone())
    }

    fn keep(&mut self, model: &Model, facts: &Facts) {
        let (size, modified) = (model.size.0, file_time(model));
        self.kept.models.insert(key(model), Entry { size, modified, facts: facts.clone() });
    }

    fn save(&mut self, seen: &[Model]) {
        if self.kept.models.len() > MAX_KEPT {
            let seen: std::collections::HashSet<String> = seen.iter().map(key).collect();
            self.kept.models.retain(|k, _| seen.contains(k));
        }
        if let Some(file) = &self.file {
            memo::remember(file, &self.kept);
        }
    }
}

/// Whole paths: `./models` is another place tomorrow.
fn key(model: &Model) -> String {
    let path = std::path::absolute(&model.path).unwrap_or_else(|_| model.path.clone());
    path.display().to_string()
}

/// When the first file was last modified, in nanoseconds since 1970.
fn file_time(model: &Model) -> u64 {
    let time = std::fs::metadata(&model.path).and_then(|m| m.modified()).ok();
    let since = time.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Reads the headers of the models with these numbers, several at a time.
fn read_all(models: &[Model], numbers: &[usize]) -> HashMap<usize, Result<Facts, String>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(HashMap::new());
    let work = || {
        while let Some(&i) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let facts = Index::open(&models[i].path).map(|index| Facts::of(&index, &models[i]));
            let facts = facts.map_err(|error| error.to_string());
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(i, facts);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let n_threads = cores.min(MAX_THREADS).min(numbers.len());
    thread::scope(|scope| {
        for _ in 1..n_threads {
            scope.spawn(work);
        }
        work();
    });
    done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Facts {
    /// What `index` says of `model`.
    fn of(index: &Index, model: &Model) -> Facts {
        Facts { quantisation: quantisation(index, model), ..Facts::of_index(index) }
    }

    /// What `index` says, by whatever name.
    pub fn of_index(index: &Index) -> Facts {
        let blocks: Bytes = index.blocks.iter().map(|b| b.len).sum();
        let largest = index.largest_block().map_or(Bytes::ZERO, |b| b.len);
        let named = |name: &str| index.tensors.iter().find(|t| t.name == name).map(|t| t.len);
        let output = named("output.weight").or_else(|| named("token_embd.weight"));
        Facts {
            title: crate::gguf::printable(index.name().as_bytes()),
            architecture: index.architecture().to_owned(),
            parameters: index.parameters(),
            quantisation: index.file_type_name(),
            purpose: (!index.tensors.is_empty()).then(|| index.purpose()),
            context: index.context_length(),
            weights: index.bytes().0,
            blocks: blocks.0,
            touched: touched(index),
            largest_block: largest.0,
            output: output.unwrap_or_default().0,
            kv_per_token: kv_per_token(index),
            types: types(index),
            refused: refused(index),
        }
    }
}

/// Why it cannot be loaded, as far as the header says.
fn refused(index: &Index) -> Option<String> {
    let checked = index.check_model().err().map(|error| error.reason.to_string());
    checked.or_else(|| {
        let cut = crate::gguf::printable(index.unknown_cut()?.as_bytes());
        Some(format!("it cuts texts into words by '{cut}', which is unknown here"))
    })
}

/// As publishers write it: from the file's name, else from the header.
fn quantisation(index: &Index, model: &Model) -> String {
    let stem = model.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stem = super::walk::split(&stem).map_or(stem.as_str(), |(prefix, _)| prefix);
    let named = quant::of_name(stem).or_else(|| quant::of_name(&model.name.replace(':', "-")));
    named.unwrap_or_else(|| {
        let long = index.file_type_name();
        let short = [(" - Small", "_S"), (" - Medium", "_M"), (" - Large", "_L")];
        short.iter().fold(long, |name, (from, to)| name.replace(from, to))
    })
}

/// The share of the blocks' bytes that one token computes with: all of them, but for experts.
fn touched(index: &Index) -> f64 {
    let used = index.arch_uint("expert_used_count").unwrap_or(0);
    let (mut all, mut some) = (Bytes::ZERO, Bytes::ZERO);
    for tensor in index.blocks.iter().flat_map(|b| &b.tensors).map(|&t| &index.tensors[t]) {
        all += tensor.len;
        some += index.experts(tensor).map_or(tensor.len, |e| e.each * used.min(e.count));
    }
    if all > Bytes::ZERO { some.f64() / all.f64() } else { 1.0 }
}

/// What the matrices of keys and values make of a token, as F16: nothing in blocks that keep a state instead. (bytes)
fn kv_per_token(index: &Index) -> u64 {
    let value = |&t: &usize| {
        let tensor = &index.tensors[t];
        let rows = tensor.shape.get(1).copied().unwrap_or(0);
        let kind = tensor.name.rsplit_once('.').and_then(|(name, _)| name.rsplit_once('.'));
        match kind.map(|(_, kind)| kind) {
            Some("attn_k" | "attn_v" | "attn_kv_a_mqa") => rows,
            // Queries, keys and values in one: the first are as wide as the model, or wider.
            Some("attn_qkv") => {
                rows.saturating_sub(index.arch_uint("embedding_length").unwrap_or(0))
            }
            _ => 0,
        }
    };
    let values: u64 =
        index.blocks.iter().flat_map(|b| &b.tensors).map(value).fold(0, u64::saturating_add);
    values.saturating_mul(2)
}

/// The types that have a tenth of the blocks' bytes or more.
fn types(index: &Index) -> Vec<TypeShare> {
    let mut shapes: BTreeMap<(u32, u64, u64), u64> = BTreeMap::new();
    for &t in index.blocks.iter().flat_map(|b| &b.tensors) {
        let tensor = &index.tensors[t];
        if let [row, rows, ..] = tensor.shape[..] {
            *shapes.entry((tensor.ty.0, row, rows)).or_default() += tensor.len.0;
        }
    }
    let all: u64 = shapes.values().sum();
    let mut shapes: Vec<_> = shapes.into_iter().collect();
    shapes.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    let mut types: Vec<TypeShare> = Vec::new();
    for ((ty, row, rows), bytes) in shapes {
        match types.iter_mut().find(|t| t.ty == ty) {
            Some(known) => known.bytes += bytes,
            None => types.push(TypeShare { ty, row, rows, bytes }),
        }
    }
    types.retain(|t| t.bytes.saturating_mul(10) >= all);
    types.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    types
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::places::Kind;
    use std::fs;

    fn tiny() -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "models", "tiny-chat-q8_0.gguf"].iter().collect()
    }

    fn model(path: PathBuf) -> Model {
        let size = Bytes(fs::metadata(&path).map_or(0, |m| m.len()));
        let (name, aliases, layers) = ("m".to_owned(), Vec::new(), None);
        Model { name, aliases, path, size, modified: 0, origin: Kind::Named, layers }
    }

    #[test]
    fn headers_are_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let memo = Some(dir.path().join("models.json"));
        let copy = dir.path().join("copy.gguf");
        fs::copy(tiny(), &copy).unwrap();
        let bad = dir.path().join("bad.gguf");
        fs::write(&bad, "GGUX").unwrap();
        let models = [model(copy.clone()), model(bad)];
        let first = Library::at(memo.clone()).facts(&models);
        let facts = first[0].clone().unwrap();
        assert_eq!(facts.architecture, "llama");
        assert_eq!(facts.purpose, Some(Purpose::Text));
        assert_eq!(facts.quantisation, "Q8_0");
        // 6 blocks with keys and values of 4 heads of 32.
        assert_eq!(facts.kv_per_token, 6 * 2 * 4 * 32 * 2);
        assert!(facts.parameters > 5_000_000 && facts.touched == 1.0 && facts.types.len() == 1);
        assert!(first[1].clone().unwrap_err().contains("bad.gguf"));

        // Remembered: the file's content does not matter as long as its size and time are the same.
        let time = fs::metadata(&copy).unwrap().modified().unwrap();
        let len = fs::metadata(&copy).unwrap().len();
        fs::write(&copy, vec![0; usize::try_from(len).unwrap()]).unwrap();
        fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
        assert_eq!(Library::at(memo.clone()).facts(&models)[0], Ok(facts));
        fs::File::options().write(true).open(&copy).unwrap().set_len(len + 1).unwrap();
        assert!(Library::at(memo).facts(&[model(copy)])[0].is_err());
    }
}
