//! What can be wrong with a model file, in sentences. Each error names the file and, where there is
//! one, the tensor and the offset. How it is printed, and the exit code, belong to the program.

use std::io;
use std::path::{Path, PathBuf};

use super::types::GgmlType;

/// A model that cannot be used, and why. It prints as `model 'PATH': why`.
#[derive(Debug, thiserror::Error)]
#[error("model '{}': {reason}", path.display())]
pub struct Error {
    /// The file that is wrong; of a split model, the part.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub reason: Box<Reason>,
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The system said no.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// A directory was given.
    #[error("it is a directory, not a GGUF file")]
    Directory,
    /// A pipe, a device, a socket.
    #[error("it is not a regular file")]
    NotRegular,
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The header or the metadata is wrong.
    #[error("{flaw} (at byte {offset})")]
    Header {
        /// Where in the file.
        offset: u64,
        /// What.
        flaw: Flaw,
    },
    /// An entry of the tensor table is wrong.
    #[error("tensor '{tensor}': {flaw} (at byte {offset})")]
    Tensor {
        /// Its name, made printable.
        tensor: String,
        /// Where in the file its entry begins.
        offset: u64,
        /// What.
        flaw: TensorFlaw,
    },
    /// The parts of a split model do not fit together.
    #[error("{0}")]
    Split(SplitFlaw),
    /// A value that no model of this architecture can have.
    #[error("key '{key}' {why}")]
    Model {
        /// The metadata key.
        key: String,
        /// What is wrong with its value.
        why: String,
    },
    /// Another file is in its place, or its bytes are others.
    #[error("the file was replaced or written to while the model was being opened")]
    Changed,
    /// The file has metadata only.
    #[error("it holds no tensors, only metadata")]
    NoTensors,
}

/// What can be wrong with a header or with metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The file ends inside a field.
    #[error("the file ends inside {0}: it was cut off")]
    Truncated(&'static str),
    /// The first four bytes.
    #[error("not a GGUF file: it begins with '{0}' instead of 'GGUF'")]
    BadMagic(String),
    /// A version number with its bytes swapped.
    #[error("a big-endian GGUF file; only little-endian files can be read")]
    BigEndian,
    /// Another version than 2 or 3.
    #[error("GGUF version {0} is not supported, only versions 2 and 3 are")]
    Version(u32),
    /// A count of keys or tensors that cannot be.
    #[error("the header claims {count} {what}, and only {left} bytes follow")]
    Count {
        /// Keys or tensors.
        what: &'static str,
        /// The number in the header.
        count: u64,
        /// Bytes from there to the end of the file.
        left: u64,
    },
    /// A count beyond what this program accepts.
    #[error("the header claims {count} {what}, more than the {limit} that are accepted")]
    TooMany {
        /// Keys or tensors.
        what: &'static str,
        /// The number in the header.
        count: u64,
        /// The cap.
        limit: u64,
    },
    /// A length beyond the end of the file or beyond what is accepted.
    #[error("{what} claims a length of {len}, and {left} bytes are left for it")]
    Length {
        /// Which string or array.
        what: String,
        /// Bytes of a string, elements of an array.
        len: u64,
        /// Bytes left.
        left: u64,
    },
    /// Metadata that never end.
    #[error("the header is larger than {0} bytes")]
    HeaderTooLarge(u64),
    /// A key that is empty, not UTF-8, or has a zero byte.
    #[error("key number {0} is empty or not text")]
    BadKey(u64),
    /// A key that appears twice.
    #[error("key '{0}' appears twice")]
    DuplicateKey(String),
    /// A value type that GGUF does not have.
    #[error("key '{key}' has the unknown value type {number}")]
    ValueType {
        /// The key.
        key: String,
        /// The number in the file.
        number: u32,
    },
    /// An array of arrays.
    #[error("key '{0}' is an array of arrays, which GGUF files cannot have")]
    NestedArray(String),
    /// `general.alignment` is not a power of two in 32 bits.
    #[error("key 'general.alignment' is {0}, not a power of two of type u32")]
    Alignment(String),
    /// `general.architecture` is missing, or not a word.
    #[error("key 'general.architecture' is missing or not a name")]
    Architecture,
}

/// What can be wrong with an entry of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorFlaw {
    /// Longer than ggml's limit.
    #[error("its name has {0} bytes, more than 63")]
    NameTooLong(u64),
    /// Empty, not UTF-8, or with a zero byte.
    #[error("its name is empty or not text")]
    BadName,
    /// A name that appears twice.
    #[error("its name appears twice")]
    Duplicate,
    /// Not one to four.
    #[error("it has {0} dimensions instead of 1 to 4")]
    Dims(u32),
    /// A dimension of zero.
    #[error("its dimension {0} is zero")]
    ZeroDim(usize),
    /// More elements or bytes than can be counted.
    #[error("its dimensions {0:?} overflow")]
    Overflow(Vec<u64>),
    /// A type number that ggml does not have, or no longer has.
    #[error("its ggml type {} is not known", .0.0)]
    UnknownType(GgmlType),
    /// A type that is stored, but not computed with.
    #[error("its type {0} is none that can be computed with")]
    NoKernel(GgmlType),
    /// A type that is multiplied with, for what is added or scaled by.
    #[error("its type {0} is for matrices, and it is no matrix")]
    NoMatrix(GgmlType),
    /// Rows that are no whole number of blocks.
    #[error("its rows have {len} elements, not a multiple of {block} as type {ty} needs")]
    Row {
        /// `ne[0]`.
        len: u64,
        /// Elements per block.
        block: u64,
        /// The type.
        ty: GgmlType,
    },
    /// An offset that is not aligned.
    #[error("its data offset {at} is not a multiple of the alignment {alignment}")]
    Misaligned {
        /// The offset in the data section.
        at: u64,
        /// `general.alignment`.
        alignment: u64,
    },
    /// It begins before the end of the one before.
    #[error("its data offset {at} overlaps the tensor before it, which ends at {end}")]
    Overlap {
        /// The offset in the data section.
        at: u64,
        /// Where it should begin.
        end: u64,
    },
    /// It does not follow the one before.
    #[error("its data offset is {at} where {end} was expected")]
    Gap {
        /// The offset in the data section.
        at: u64,
        /// Where it should begin.
        end: u64,
    },
    /// Its bytes are not all in the file.
    #[error("its data end at byte {end}, but the file has only {len}: it was cut off")]
    BeyondEnd {
        /// One past its last byte.
        end: u64,
        /// Length of the file.
        len: u64,
    },
}

/// What can be wrong with a model in several files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitFlaw {
    /// A part is not where its name says.
    #[error("part {part} of {count} is missing: '{}'", path.display())]
    Missing {
        /// Counted from 1.
        part: u64,
        /// How many there should be.
        count: u64,
        /// The path that was tried.
        path: PathBuf,
    },
    /// A part's name does not follow the pattern, so the others cannot be found.
    #[error(
        "it is part {part} of {count}, and its name does not end in -{part:05}-of-{count:05}.gguf"
    )]
    Name {
        /// Counted from 1.
        part: u64,
        /// How many there should be.
        count: u64,
    },
    /// `split.count` or `split.no` cannot be.
    #[error("key '{key}' is {value}")]
    Key {
        /// Which key.
        key: &'static str,
        /// Its value.
        value: u64,
    },
    /// A part says that it is another part, or of another whole.
    #[error(
        "it says that it is part {part} of {count}, and part {want} of {want_count} was expected"
    )]
    Mismatch {
        /// Counted from 1.
        part: u64,
        /// Of how many it says it is.
        count: u64,
        /// The part that was looked for, counted from 1.
        want: u64,
        /// Of how many.
        want_count: u64,
    },
    /// The parts do not hold as many tensors as the first one says.
    #[error("its parts hold {found} tensors, and {want} were expected")]
    TensorCount {
        /// In all parts.
        found: u64,
        /// `split.tensors.count`.
        want: u64,
    },
}

impl Error {
    pub(super) fn new(path: &Path, reason: Reason) -> Error {
        Error { path: path.to_owned(), reason: Box::new(reason) }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match &*self.reason {
            Reason::Io(e) if e.kind() == io::ErrorKind::NotFound => {
                "check the path; a model is named by its file"
            }
            Reason::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                "make the file readable for this user"
            }
            Reason::Io(_) => "check the disk and the file",
            Reason::Directory | Reason::NotRegular => "give the path of a .gguf file",
            Reason::Split(SplitFlaw::Missing { .. }) => {
                "put all parts into one directory, under the names they were published with"
            }
            Reason::Split(_) => "give the first part, with all parts of one model beside it",
            Reason::Header { flaw: Flaw::Version(_) | Flaw::BigEndian, .. } => {
                "convert the model again with a current converter"
            }
            Reason::Tensor { flaw: TensorFlaw::UnknownType(_), .. } => {
                "the file may be newer than this program: update airrun or use another file"
            }
            Reason::Tensor { flaw: TensorFlaw::NoKernel(_), .. } => {
                "convert the model again: weights are F32, F16, BF16 or of a quantised type"
            }
            Reason::Tensor { flaw: TensorFlaw::NoMatrix(_), .. } => {
                "convert the model again: norms and biases are F32"
            }
            Reason::Header {
                flaw: Flaw::Truncated(_) | Flaw::BadMagic(_) | Flaw::Length { .. },
                ..
            }
            | Reason::Tensor { flaw: TensorFlaw::BeyondEnd { .. }, .. }
                if is_piece(&self.path) =>
            {
                "it is a piece of a file that was cut up: join all pieces in their order with `cat` into one file"
            }
            Reason::Model { key, why }
                if key == "tokenizer.ggml.tokens" && why.contains("twice") =>
            {
                "libllama cannot read such a vocabulary, although the file may be as it was published: try another file of the model"
            }
            Reason::Model { key, .. } if key.ends_with(".rope.scaling.type") => {
                "libllama has no such scaling: try a file that was converted by a current llama.cpp"
            }
            Reason::Changed => "open it again when it is complete",
            Reason::Header { flaw: Flaw::BadMagic(_), .. } => "airrun reads GGUF files only",
            Reason::NoTensors => "this is a vocabulary or a part of a model: give the model itself",
            Reason::Empty
            | Reason::Header { .. }
            | Reason::Tensor { .. }
            | Reason::Model { .. } => "the file is damaged or incomplete: download it again",
        }
    }
}

/// Whether a file's name says that it was cut up by `split` or its like: `x.gguf.part1of2`, `x.gguf-split-a`, `x.gguf.aa`.
fn is_piece(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.split_once(".gguf").is_some_and(|(_, rest)| {
        let rest = rest.trim_start_matches(['.', '-', '_']);
        rest.starts_with("part")
            || rest.starts_with("split")
            || matches!(rest, "aa" | "ab" | "000" | "001")
    })
}

/// At most this many characters of a name from a file are repeated in a message.
const MAX_SHOWN: usize = 80;

/// Text from a file as it can be printed on a terminal: control characters escaped, long text cut.
pub fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * MAX_SHOWN)]);
    let mut shown = String::new();
    for c in text.chars().take(MAX_SHOWN) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MAX_SHOWN).is_some() { shown + "..." } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_told_by_their_names() {
        for (name, piece) in [
            ("m.gguf.part1of2", true),
            ("m.gguf-split-a", true),
            ("m.GGUF.aa", true),
            ("m-00001-of-00002.gguf", false),
            ("m.gguf", false),
        ] {
            assert_eq!(is_piece(Path::new(name)), piece, "{name}");
        }
    }

    #[test]
    fn text_from_files_cannot_move_the_cursor() {
        assert_eq!(printable(b"it's \x1b[2J\n\xff"), "it's \\u{1b}[2J\\n\u{fffd}");
        assert_eq!(printable(&[b'x'; 200]), "x".repeat(80) + "...");
    }
}
