//! Metadata values as a GGUF file stores them. Arrays stay packed: a vocabulary of 262k tokens
//! costs about its size in the file. Which key means what is the matter of `facts` and `check`.

use std::fmt;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer type.
    Uint(u64),
    /// Any signed integer type.
    Int(i64),
    /// Either float type.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string; invalid UTF-8 is replaced.
    Str(String),
    /// An array of scalars or strings.
    Array(Array),
}

impl Value {
    /// The value as an unsigned number, if it is a whole number of at least 0.
    pub fn uint(&self) -> Option<u64> {
        match self {
            Value::Uint(n) => Some(*n),
            Value::Int(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The value as a float, if it is a number.
    #[expect(clippy::cast_precision_loss, reason = "metadata numbers are small")]
    pub fn float(&self) -> Option<f64> {
        match self {
            Value::Uint(n) => Some(*n as f64),
            Value::Int(n) => Some(*n as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// The value if it is a string.
    pub fn str(&self) -> Option<&str> {
        if let Value::Str(text) = self { Some(text) } else { None }
    }

    /// The value if it is a boolean.
    pub fn bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    /// The value if it is an array.
    pub fn array(&self) -> Option<&Array> {
        if let Value::Array(array) = self { Some(array) } else { None }
    }
}

/// The type of a metadata value or of an array's elements, with its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ElementType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ElementType {
    /// From the number in the file; 9 (an array) is no element type.
    pub(super) fn from_number(number: u32) -> Option<ElementType> {
        use ElementType::{Bool, F32, F64, I8, I16, I32, I64, Str, U8, U16, U32, U64};
        let all = [U8, I8, U16, I16, U32, I32, F32, Bool, Str, U64, I64, F64];
        all.into_iter().find(|&t| t as u32 == number)
    }

    /// Bytes of one element; for a string, of its length field.
    pub(super) fn size(self) -> usize {
        match self {
            ElementType::U8 | ElementType::I8 | ElementType::Bool => 1,
            ElementType::U16 | ElementType::I16 => 2,
            ElementType::U32 | ElementType::I32 | ElementType::F32 => 4,
            ElementType::U64 | ElementType::I64 | ElementType::F64 | ElementType::Str => 8,
        }
    }

    /// The scalar in `bytes`, little-endian and [`ElementType::size`] long. A string is not a
    /// scalar.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            ElementType::U8 => Value::Uint(u8::from_le_bytes(bytes.try_into().ok()?).into()),
            ElementType::I8 => Value::Int(i8::from_le_bytes(bytes.try_into().ok()?).into()),
            ElementType::U16 => Value::Uint(u16::from_le_bytes(bytes.try_into().ok()?).into()),
            ElementType::I16 => Value::Int(i16::from_le_bytes(bytes.try_into().ok()?).into()),
            ElementType::U32 => Value::Uint(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            ElementType::I32 => Value::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            ElementType::F32 => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            ElementType::Bool => Value::Bool(*bytes.first()? != 0),
            ElementType::U64 => Value::Uint(u64::from_le_bytes(bytes.try_into().ok()?)),
            ElementType::I64 => Value::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
            ElementType::F64 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            ElementType::Str => return None,
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ElementType::U8 => "u8",
            ElementType::I8 => "i8",
            ElementType::U16 => "u16",
            ElementType::I16 => "i16",
            ElementType::U32 => "u32",
            ElementType::I32 => "i32",
            ElementType::F32 => "f32",
            ElementType::Bool => "bool",
            ElementType::Str => "str",
            ElementType::U64 => "u64",
            ElementType::I64 => "i64",
            ElementType::F64 => "f64",
        })
    }
}

/// An array, packed as in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    element: ElementType,
    /// Scalars: the little-endian bytes of all. Strings: their text, end to end.
    data: Vec<u8>,
    /// Where each string ends in `data`; empty for scalars.
    ends: Vec<u32>,
}

impl Array {
    /// An array of scalars; `data` holds a whole number of them.
    pub(super) fn scalars(element: ElementType, data: Vec<u8>) -> Array {
        debug_assert!(element != ElementType::Str && data.len().is_multiple_of(element.size()));
        Array { element, data, ends: Vec::new() }
    }

    /// An array of strings; `ends` rises and its last entry is the length of `data`.
    pub(super) fn strings(data: Vec<u8>, ends: Vec<u32>) -> Array {
        debug_assert_eq!(data.len(), ends.last().map_or(0, |&e| e as usize));
        Array { element: ElementType::Str, data, ends }
    }

    /// The type of its elements.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        match self.element {
            ElementType::Str => self.ends.len(),
            other => self.data.len() / other.size(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i`; invalid UTF-8 of a string is replaced.
    pub fn get(&self, i: usize) -> Option<Value> {
        if self.element == ElementType::Str {
            return self.bytes(i).map(|b| Value::Str(String::from_utf8_lossy(b).into_owned()));
        }
        let size = self.element.size();
        let start = i.checked_mul(size)?;
        self.element.decode(self.data.get(start..start.checked_add(size)?)?)
    }

    /// The bytes of string `i`, as they are in the file; `None` for scalars.
    pub fn bytes(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.data.get(start..end)
    }

    /// All elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// The strings' bytes in order; nothing for scalars.
    pub fn iter_bytes(&self) -> impl Iterator<Item = &[u8]> + '_ {
        (0..self.ends.len()).filter_map(|i| self.bytes(i))
    }
}

/// The metadata of the (first) file, in file order.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Key and value pairs; no key appears twice.
    pub entries: Vec<(String, Value)>,
}

impl Metadata {
    /// Sets `key`, or adds it.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The value of `key` if it is a whole number of at least 0.
    pub fn uint(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Value::uint)
    }

    /// The value of `key` if it is a number.
    pub fn float(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::float)
    }

    /// The value of `key` if it is a string.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::str)
    }

    /// The value of `key` if it is a boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::bool)
    }

    /// The value of `key` if it is an array.
    pub fn array(&self, key: &str) -> Option<&Array> {
        self.get(key).and_then(Value::array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_packed_and_read_back() {
        let strings = Array::strings(b"abc\xff".to_vec(), vec![1, 1, 4]);
        assert_eq!(strings.len(), 3);
        assert_eq!(strings.bytes(2), Some(&b"bc\xff"[..]));
        assert_eq!(strings.get(1), Some(Value::Str(String::new())));
        assert_eq!(strings.get(3), None);
        let numbers = Array::scalars(ElementType::I16, vec![1, 0, 0xff, 0xff]);
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [Value::Int(1), Value::Int(-1)]);
        assert_eq!((numbers.get(2), numbers.bytes(0)), (None, None));
        assert_eq!(numbers.get(usize::MAX), None);
    }

    #[test]
    fn numbers_convert_only_where_nothing_is_lost() {
        assert_eq!(Value::Int(-1).uint(), None);
        assert_eq!(Value::Int(7).uint(), Some(7));
        assert_eq!(Value::Float(7.0).uint(), None);
        assert_eq!(Value::Uint(7).float(), Some(7.0));
    }
}
