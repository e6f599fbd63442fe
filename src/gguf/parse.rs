//! Reads the header of one GGUF file: version, metadata, tensor table. It knows no other file and
//! no meaning of keys.
//!
//! Nothing in the file is believed: every count and length is checked against the bytes that remain
//! before memory is taken for it, and the header as a whole is capped. The rules for the tensor
//! table are ggml's own, so that what passes here is not refused there: names shorter than 64
//! bytes, one to four dimensions, whole blocks, and data that lie one after another in the order of
//! the table, each padded to the alignment.

use std::collections::HashSet;
use std::io::{self, Read};
use std::ops::Range;

use super::error::{Flaw, Reason, TensorFlaw, printable};
use super::types::GgmlType;
use super::value::{Array, ElementType, Metadata, Value};
use crate::units::Bytes;

/// A header may be this long. The largest vocabularies in use, 262k tokens with their merges, take
/// about 16 MiB.
const MAX_HEADER: u64 = 256 << 20;
/// Keys of one file; models in use have about 50.
const MAX_KEYS: u64 = 1 << 16;
/// Tensors of one file; the largest models in use have a few thousand.
const MAX_TENSORS: u64 = 1 << 18;
/// A key may be this long (the specification's limit).
const MAX_KEY: u64 = 65_535;
/// A single string value, such as a chat template, may be this long.
const MAX_STRING: u64 = 16 << 20;
/// Longest tensor name: ggml keeps names in 64 bytes, the last of them zero.
const MAX_NAME: u64 = 63;
/// The least bytes that a key with its value takes: length, one letter, type, one byte.
const MIN_KEY_BYTES: u64 = 8 + 1 + 4 + 1;
/// The least bytes that an entry of the tensor table takes: length, one letter, dimensions, one of
/// them, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// What tensor data are aligned to where the file does not say.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;

/// What the header of one file says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// Where the key-value pairs lie in the file.
    pub(super) keys: Range<u64>,
    /// How many they are.
    pub(super) n_keys: u64,
    pub(super) tensors: Vec<Entry>,
    /// Where the tensor data begin.
    pub(super) data_offset: u64,
}

/// An entry of the tensor table, checked.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) ty: GgmlType,
    pub(super) shape: Vec<u64>,
    /// First byte in the file.
    pub(super) offset: u64,
    pub(super) len: Bytes,
    /// Where in the file this entry is.
    pub(super) at: u64,
}

/// Parses the header of a file of `len` bytes.
pub(super) fn parse(reader: impl Read, len: u64) -> Result<Header, Reason> {
    if len == 0 {
        return Err(Reason::Empty);
    }
    let mut r = Reader { inner: reader, pos: 0, len };
    let version_at = magic(&mut r)?;
    let version = r.u32("the version")?;
    check_version(version).map_err(|flaw| Reason::Header { offset: version_at, flaw })?;
    let n_tensors = r.u64("the tensor count")?;
    let n_keys = r.u64("the key count")?;
    r.check_count("keys", n_keys, MAX_KEYS, MIN_KEY_BYTES)?;
    r.check_count("tensors", n_tensors, MAX_TENSORS, MIN_TENSOR_BYTES)?;
    let keys_at = r.pos;
    let (metadata, alignment) = metadata(&mut r, n_keys)?;
    let keys = keys_at..r.pos;
    let mut tensors = tensor_table(&mut r, n_tensors)?;
    // Without tensors there are no data, and their place is the end of the header, padded or not.
    let data_offset = r.pos.next_multiple_of(alignment).min(len.max(r.pos));
    if let Some(flawed) = place(&mut tensors, r.pos.next_multiple_of(alignment), alignment, len) {
        return Err(flawed);
    }
    Ok(Header { metadata, keys, n_keys, tensors, data_offset })
}

/// Reads the magic; returns where the version is.
fn magic<R: Read>(r: &mut Reader<R>) -> Result<u64, Reason> {
    const MAGIC: &[u8; 4] = b"GGUF";
    let mut bytes = [0; 4];
    let bytes = &mut bytes[..usize::try_from(r.len).map_or(4, |n| n.min(4))];
    r.exact(bytes, "the magic")?;
    if bytes == MAGIC {
        return Ok(r.pos);
    }
    let flaw = if MAGIC.starts_with(bytes) {
        Flaw::Truncated("the magic")
    } else {
        Flaw::BadMagic(bytes.escape_ascii().to_string())
    };
    Err(Reason::Header { offset: 0, flaw })
}

fn check_version(version: u32) -> Result<(), Flaw> {
    match version {
        2 | 3 => Ok(()),
        // A small number whose low half is zero is another byte order, as ggml tells it.
        swapped if swapped != 0 && swapped & 0xffff == 0 => Err(Flaw::BigEndian),
        other => Err(Flaw::Version(other)),
    }
}

/// The key-value pairs, and the alignment that they ask for.
fn metadata<R: Read>(r: &mut Reader<R>, n_keys: u64) -> Result<(Metadata, u64), Reason> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for number in 0..n_keys {
        let at = r.pos;
        let flawed = |flaw| Reason::Header { offset: at, flaw };
        let key = r.string("a key", MAX_KEY)?;
        let key = String::from_utf8(key).map_err(|_| flawed(Flaw::BadKey(number)))?;
        if key.is_empty() || key.contains('\0') {
            return Err(flawed(Flaw::BadKey(number)));
        }
        if !seen.insert(key.clone()) {
            return Err(flawed(Flaw::DuplicateKey(printable(key.as_bytes()))));
        }
        let type_number = r.u32("a value type")?;
        let value = value(r, &key, type_number)?;
        if key == "general.alignment" {
            let stated = value.uint().filter(|n| n.is_power_of_two());
            alignment = stated
                .filter(|_| type_number == ElementType::U32 as u32)
                .ok_or_else(|| flawed(Flaw::Alignment(format!("{value:?}"))))?;
        }
        entries.push((key, value));
    }
    Ok((Metadata { entries }, alignment))
}

/// One value of the type `number`.
fn value<R: Read>(r: &mut Reader<R>, key: &str, number: u32) -> Result<Value, Reason> {
    const ARRAY: u32 = 9;
    let at = r.pos;
    let flawed = |flaw| Reason::Header { offset: at, flaw };
    let shown = || printable(key.as_bytes());
    if number == ARRAY {
        let element = r.u32("an array's element type")?;
        if element == ARRAY {
            return Err(flawed(Flaw::NestedArray(shown())));
        }
        let element = ElementType::from_number(element)
            .ok_or_else(|| flawed(Flaw::ValueType { key: shown(), number: element }))?;
        return array(r, key, element).map(Value::Array);
    }
    let ty = ElementType::from_number(number)
        .ok_or_else(|| flawed(Flaw::ValueType { key: shown(), number }))?;
    if ty == ElementType::Str {
        let bytes = r.string("a value", MAX_STRING)?;
        return Ok(Value::Str(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }));
    }
    let mut bytes = [0; 8];
    r.exact(&mut bytes[..ty.size()], "a value")?;
    // Only strings are no scalars, and they are gone by now.
    ty.decode(&bytes[..ty.size()]).ok_or_else(|| flawed(Flaw::ValueType { key: shown(), number }))
}

/// An array of `element`s, its length first.
fn array<R: Read>(r: &mut Reader<R>, key: &str, element: ElementType) -> Result<Array, Reason> {
    let at = r.pos;
    let len = r.u64("an array's length")?;
    let left = r.left();
    let bytes = len.checked_mul(element.size() as u64).filter(|&n| n <= left);
    let bytes = bytes.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| Reason::Header {
        offset: at,
        flaw: Flaw::Length { what: format!("array '{}'", printable(key.as_bytes())), len, left },
    })?;
    r.check_size(bytes as u64)?;
    if element != ElementType::Str {
        let mut data = vec![0; bytes];
        r.exact(&mut data, "an array")?;
        return Ok(Array::scalars(element, data));
    }
    let mut data = Vec::new();
    let mut ends = Vec::with_capacity(bytes / element.size());
    for _ in 0..len {
        r.append_string(&mut data)?;
        // MAX_HEADER keeps the text of all strings far below 4 GiB.
        ends.push(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }
    Ok(Array::strings(data, ends))
}

/// The tensor table; the entries' offsets are still those of the file, relative to the data
/// section.
fn tensor_table<R: Read>(r: &mut Reader<R>, n_tensors: u64) -> Result<Vec<Entry>, Reason> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for _ in 0..n_tensors {
        let entry = tensor(r)?;
        if !seen.insert(entry.name.clone()) {
            return Err(flawed_tensor(&entry.name, entry.at, TensorFlaw::Duplicate));
        }
        tensors.push(entry);
    }
    Ok(tensors)
}

/// One entry of the table, with its name, shape and type checked.
fn tensor<R: Read>(r: &mut Reader<R>) -> Result<Entry, Reason> {
    let at = r.pos;
    let name = r.string("a tensor name", MAX_KEY)?;
    let text = String::from_utf8_lossy(&name).into_owned();
    let flawed = |flaw| flawed_tensor(&text, at, flaw);
    if name.len() as u64 > MAX_NAME {
        return Err(flawed(TensorFlaw::NameTooLong(name.len() as u64)));
    }
    if text.is_empty() || text.as_bytes() != name || text.contains('\0') {
        return Err(flawed(TensorFlaw::BadName));
    }
    let n_dims = r.u32("a tensor's dimensions")?;
    if !(1..=4).contains(&n_dims) {
        return Err(flawed(TensorFlaw::Dims(n_dims)));
    }
    let mut shape = Vec::with_capacity(4);
    for _ in 0..n_dims {
        shape.push(r.u64("a tensor's dimensions")?);
    }
    let ty = GgmlType(r.u32("a tensor's type")?);
    let offset = r.u64("a tensor's offset")?;
    let len = tensor_bytes(&shape, ty).map_err(flawed)?;
    Ok(Entry { name: text, ty, shape, offset, len, at })
}

/// Bytes of a tensor, or why there can be no such tensor.
fn tensor_bytes(shape: &[u64], ty: GgmlType) -> Result<Bytes, TensorFlaw> {
    if let Some(dim) = shape.iter().position(|&n| n == 0) {
        return Err(TensorFlaw::ZeroDim(dim));
    }
    if !ty.is_known() {
        return Err(TensorFlaw::UnknownType(ty));
    }
    let overflow = || TensorFlaw::Overflow(shape.to_vec());
    // ggml counts elements and bytes in signed 64 bits.
    let fits = |n: &u64| i64::try_from(*n).is_ok();
    let elements = shape.iter().try_fold(1_u64, |product, &n| product.checked_mul(n).filter(fits));
    let elements = elements.ok_or_else(overflow)?;
    let block = ty.block_elements();
    if !shape[0].is_multiple_of(block) {
        return Err(TensorFlaw::Row { len: shape[0], block, ty });
    }
    ty.bytes(elements).filter(|b| fits(&b.0)).ok_or_else(overflow)
}

/// Checks that the data lie as ggml wants them, and makes the offsets absolute. Returns the first
/// thing that is wrong.
fn place(tensors: &mut [Entry], data_at: u64, alignment: u64, file_len: u64) -> Option<Reason> {
    let mut expected = 0_u64;
    for t in tensors {
        let flaw = if !t.offset.is_multiple_of(alignment) {
            Some(TensorFlaw::Misaligned { at: t.offset, alignment })
        } else if t.offset < expected {
            Some(TensorFlaw::Overlap { at: t.offset, end: expected })
        } else if t.offset > expected {
            Some(TensorFlaw::Gap { at: t.offset, end: expected })
        } else {
            // No overflow: up to here all lie inside the file, and this one is shorter than 2^63.
            let end = data_at.saturating_add(t.offset).saturating_add(t.len.0);
            (end > file_len).then_some(TensorFlaw::BeyondEnd { end, len: file_len })
        };
        if let Some(flaw) = flaw {
            return Some(flawed_tensor(&t.name, t.at, flaw));
        }
        expected = (t.offset + t.len.0).next_multiple_of(alignment);
        t.offset += data_at;
    }
    None
}

fn flawed_tensor(name: &str, offset: u64, flaw: TensorFlaw) -> Reason {
    Reason::Tensor { tensor: printable(name.as_bytes()), offset, flaw }
}

/// A reader that knows where it is and how much is left.
struct Reader<R> {
    inner: R,
    pos: u64,
    len: u64,
}

impl<R: Read> Reader<R> {
    fn left(&self) -> u64 {
        self.len.saturating_sub(self.pos)
    }

    fn flawed(&self, flaw: Flaw) -> Reason {
        Reason::Header { offset: self.pos, flaw }
    }

    /// Whether `n` more bytes keep the header below its cap.
    fn check_size(&self, n: u64) -> Result<(), Reason> {
        if self.pos.saturating_add(n) > MAX_HEADER {
            return Err(self.flawed(Flaw::HeaderTooLarge(MAX_HEADER)));
        }
        Ok(())
    }

    fn check_count(
        &self,
        what: &'static str,
        count: u64,
        cap: u64,
        size: u64,
    ) -> Result<(), Reason> {
        let left = self.left();
        if count.checked_mul(size).is_none_or(|n| n > left) {
            return Err(self.flawed(Flaw::Count { what, count, left }));
        }
        if count > cap {
            return Err(self.flawed(Flaw::TooMany { what, count, limit: cap }));
        }
        Ok(())
    }

    fn exact(&mut self, out: &mut [u8], what: &'static str) -> Result<(), Reason> {
        let n = out.len() as u64;
        if n > self.left() {
            return Err(self.flawed(Flaw::Truncated(what)));
        }
        self.check_size(n)?;
        match self.inner.read_exact(out) {
            Ok(()) => {
                self.pos += n;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.flawed(Flaw::Truncated(what)))
            }
            Err(e) => Err(Reason::Io(e)),
        }
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Reason> {
        let mut bytes = [0; 4];
        self.exact(&mut bytes, what)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Reason> {
        let mut bytes = [0; 8];
        self.exact(&mut bytes, what)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A length that is followed by as many bytes, of which at most `cap` are accepted.
    fn length(&mut self, what: &'static str, cap: u64) -> Result<usize, Reason> {
        let len = self.u64(what)?;
        let left = self.left().min(cap);
        if len > left {
            return Err(self.flawed(Flaw::Length { what: what.to_owned(), len, left }));
        }
        self.check_size(len)?;
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn string(&mut self, what: &'static str, cap: u64) -> Result<Vec<u8>, Reason> {
        let mut bytes = vec![0; self.length(what, cap)?];
        self.exact(&mut bytes, what)?;
        Ok(bytes)
    }

    /// Appends a string of an array to `text`.
    fn append_string(&mut self, text: &mut Vec<u8>) -> Result<(), Reason> {
        let what = "a string of an array";
        let len = self.length(what, MAX_STRING)?;
        let old = text.len();
        text.resize(old + len, 0);
        self.exact(&mut text[old..], what)
    }
}
