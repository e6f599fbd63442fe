//! The index of a model: its tensors by block, with the file ranges that hold their bytes. It reads
//! no weights.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{Error, Flaw, Reason, SplitFlaw, TensorFlaw, printable};
use super::names;
use super::parse::{self, Header};
use super::place::{Place, Stack};
use super::split::{self, Part};
use super::types::GgmlType;
use super::value;
use crate::os::files::{Found, Identity};
use crate::units::Bytes;

/// One file of a model; a split model has several.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length when it was indexed.
    pub len: Bytes,
    /// Where the tensor data begins: everything before it is header.
    pub data_offset: u64,
    /// What told it from all other files then; `None` if there was no file.
    pub(super) looks: Option<Looks>,
}

/// What tells a file from another one in its place, and from itself after somebody wrote to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    id: Identity,
    len: u64,
    modified: Option<SystemTime>,
}

impl Looks {
    fn of(file: &Found) -> Looks {
        Looks { id: file.id, len: file.meta.len(), modified: file.meta.modified().ok() }
    }
}

/// One tensor of the file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its full name, such as `blk.17.ffn_gate_exps.weight`.
    pub name: String,
    /// Its element type.
    pub ty: GgmlType,
    /// `ne`: elements per dimension, the contiguous one first; one to four of them.
    pub shape: Vec<u64>,
    /// Which of [`Index::files`] holds it.
    pub file: usize,
    /// Offset of its first byte in that file.
    pub offset: u64,
    /// Its bytes.
    pub len: Bytes,
    /// Where it belongs.
    pub place: Place,
}

/// One block: the tensors of one layer.
#[derive(Clone, Debug)]
pub struct Block {
    /// Which stack its number counts in.
    pub stack: Stack,
    /// The number in the tensors' names.
    pub number: u32,
    /// Indices into [`Index::tensors`], in file order.
    pub tensors: Vec<usize>,
    /// Sum of their bytes.
    pub len: Bytes,
}

/// Everything the rest of airrun needs to know of a model file.
#[derive(Clone, Debug)]
pub struct Index {
    /// The model's files, in order of their split number.
    pub files: Vec<ModelFile>,
    /// The first file's metadata.
    pub metadata: value::Metadata,
    /// All tensors, in file order.
    pub tensors: Vec<TensorInfo>,
    /// The blocks, in order of computation: by stack, then by number.
    pub blocks: Vec<Block>,
    /// Heads that guess tokens ahead: blocks that stand behind the others, and that are loaded only for whoever asks for them.
    pub heads: Vec<Block>,
    /// Tensors of towers for images or sound that are in the file of a model that writes text: libllama wants them in a file of their own,
    /// and the text part does without.
    pub left_out: usize,
}

impl TensorInfo {
    /// Its name without the block: `ffn_gate_exps.weight`. Outside the blocks, the whole name.
    pub fn role(&self) -> &str {
        names::split(&self.name).1
    }

    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product, &n| product.saturating_mul(n))
    }
}

impl Block {
    /// What people call it: `block 17`; with its stack, where there are several.
    pub fn title(&self) -> String {
        match self.stack {
            Stack::Main => format!("block {}", self.number),
            _ => self.place().to_string(),
        }
    }

    /// The place that its tensors have.
    pub fn place(&self) -> Place {
        Place::Block(self.stack, self.number)
    }
}

impl Index {
    /// Reads the headers of `path` and, if it is a part of a split model, of all its parts.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, is not a GGUF file of version 2 or 3, lies about anything that
    /// this room relies on, or lacks parts. Whether the model makes sense is the matter of
    /// [`Index::check_model`].
    pub fn open(path: &Path) -> Result<Index, Error> {
        let (file, header) = read_header(path)?;
        let part = split::part_of(&header.metadata)
            .map_err(|flaw| Error::new(path, Reason::Split(flaw)))?;
        match part {
            None => Index::build(vec![(file, header)]),
            Some(part) => Index::build(read_parts(file, header, part)?),
        }
    }

    /// Reads a header from `reader`, as if it came from a model of one file of `len` bytes at
    /// `path`. It trusts `len` for all checks against the end of the file. For tests and fuzzing.
    ///
    /// # Errors
    ///
    /// As [`Index::open`].
    pub fn from_reader(path: &Path, reader: impl Read, len: Bytes) -> Result<Index, Error> {
        let header = parse::parse(reader, len.0).map_err(|reason| Error::new(path, reason))?;
        let data_offset = header.data_offset;
        let file = ModelFile { path: path.to_owned(), len, data_offset, looks: None };
        Index::build(vec![(file, header)])
    }

    /// Whether the files are those that were indexed. To be asked after they were opened by anyone: what is at their paths then was
    /// there all the time between.
    ///
    /// # Errors
    ///
    /// One of them was replaced, moved or written to.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        for file in &self.files {
            let refuse = |reason| Error::new(&file.path, reason);
            let now = Found::at(&file.path).map_err(|e| refuse(Reason::Io(e)))?;
            if file.looks.is_some_and(|looks| looks != Looks::of(&now)) {
                return Err(refuse(Reason::Changed));
            }
        }
        Ok(())
    }

    /// Joins the headers of all parts.
    fn build(parts: Vec<(ModelFile, Header)>) -> Result<Index, Error> {
        let mut index = Index {
            files: Vec::new(),
            metadata: value::Metadata::default(),
            tensors: Vec::new(),
            blocks: Vec::new(),
            heads: Vec::new(),
            left_out: 0,
        };
        let mut names_seen = HashSet::new();
        for (number, (file, header)) in parts.into_iter().enumerate() {
            for entry in header.tensors {
                if !names_seen.insert(entry.name.clone()) {
                    let tensor = printable(entry.name.as_bytes());
                    let flaw = TensorFlaw::Duplicate;
                    let reason = Reason::Tensor { tensor, offset: entry.at, flaw };
                    return Err(Error::new(&file.path, reason));
                }
                index.tensors.push(TensorInfo {
                    place: names::split(&entry.name).0,
                    name: entry.name,
                    ty: entry.ty,
                    shape: entry.shape,
                    file: number,
                    offset: entry.offset,
                    len: entry.len,
                });
            }
            if number == 0 {
                index.metadata = header.metadata;
            }
            index.files.push(file);
        }
        index.check_identity()?;
        index.leave_out_towers();
        index.blocks = blocks(&index.tensors);
        index.part_heads();
        Ok(index)
    }

    /// Ollama keeps the tower that reads images in the model's file.
    fn leave_out_towers(&mut self) {
        let has_text = self.tensors.iter().any(|tensor| tensor.name == "token_embd.weight");
        if has_text && self.metadata.str("general.architecture") != Some("clip") {
            let all = self.tensors.len();
            self.tensors.retain(|tensor| !names::is_of_tower(&tensor.name));
            self.left_out = all - self.tensors.len();
        }
    }

    /// What somebody who uses the model should know of the file.
    pub fn note(&self) -> Option<String> {
        let parts = self.left_out;
        (parts > 0).then(|| {
            format!("{parts} tensors for images or sound are left out: the model takes text only")
        })
    }

    /// What every model file must say of itself: its architecture, and for a split one the number
    /// of its tensors.
    fn check_identity(&self) -> Result<(), Error> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let arch = self.metadata.str("general.architecture").unwrap_or_default();
        let refuse = |reason| Err(Error::new(&self.files[0].path, reason));
        if arch.is_empty() || arch.len() > 64 || !arch.chars().all(is_word) {
            return refuse(Reason::Header { offset: 0, flaw: Flaw::Architecture });
        }
        let found = self.tensors.len() as u64;
        match self.metadata.get("split.tensors.count").and_then(super::Value::uint) {
            Some(want) if self.files.len() > 1 && want != found => {
                refuse(Reason::Split(SplitFlaw::TensorCount { found, want }))
            }
            _ => Ok(()),
        }
    }
}

/// Groups tensors by block.
fn blocks(tensors: &[TensorInfo]) -> Vec<Block> {
    let mut by_place: BTreeMap<(Stack, u32), Block> = BTreeMap::new();
    for (i, tensor) in tensors.iter().enumerate() {
        if let Place::Block(stack, number) = tensor.place {
            let empty = Block { stack, number, tensors: Vec::new(), len: Bytes::ZERO };
            let block = by_place.entry((stack, number)).or_insert(empty);
            block.tensors.push(i);
            block.len += tensor.len;
        }
    }
    by_place.into_values().collect()
}

/// Reads the header of one file.
pub(super) fn read_header(path: &Path) -> Result<(ModelFile, Header), Error> {
    let refuse = |reason| Error::new(path, reason);
    // Asked before opening: opening a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(|e| refuse(Reason::Io(e)))?;
    if kind.is_dir() {
        return Err(refuse(Reason::Directory));
    }
    if !kind.is_file() {
        return Err(refuse(Reason::NotRegular));
    }
    let file = File::open(path).map_err(|e| refuse(Reason::Io(e)))?;
    let looks = Looks::of(&Found::of(&file).map_err(|e| refuse(Reason::Io(e)))?);
    let len = looks.len;
    let reader = BufReader::with_capacity(256 << 10, file);
    let header = parse::parse(reader, len).map_err(refuse)?;
    let data_offset = header.data_offset;
    let looks = Some(looks);
    Ok((ModelFile { path: path.to_owned(), len: Bytes(len), data_offset, looks }, header))
}

/// Reads the headers of all parts of a split model, of which one is given. The first comes first.
fn read_parts(
    file: ModelFile,
    header: Header,
    part: Part,
) -> Result<Vec<(ModelFile, Header)>, Error> {
    let Part { no: given, count } = part;
    let given_path = file.path.clone();
    let mut at_hand = Some((file, header));
    let mut parts = Vec::new();
    for no in 0..count {
        let (file, header) = match at_hand.take_if(|_| no == given) {
            Some(pair) => pair,
            None => read_header(&sibling(&given_path, part, no)?)?,
        };
        split::check_part(&header.metadata, Part { no, count })
            .map_err(|flaw| Error::new(&file.path, Reason::Split(flaw)))?;
        parts.push((file, header));
    }
    Ok(parts)
}

/// The path of part `no`, which must exist, next to the given one.
fn sibling(given: &Path, part: Part, no: u64) -> Result<PathBuf, Error> {
    let refuse = |flaw| Error::new(given, Reason::Split(flaw));
    let Some(path) = split::part_path(given, no + 1, part.count) else {
        return Err(refuse(SplitFlaw::Name { part: part.no + 1, count: part.count }));
    };
    if !path.exists() {
        return Err(refuse(SplitFlaw::Missing { part: no + 1, count: part.count, path }));
    }
    Ok(path)
}
