//! A model of several files as one: the header that a single file with all its tensors would have.
//! It writes no file.
//!
//! The key-value pairs are copied byte by byte from the first file, because libllama insists on
//! their exact types. For a model that is one file of version 3 already, the header is the one that
//! it has.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::error::{Error, Flaw, Reason};
use super::index::{Index, TensorInfo, read_header};
use super::parse::DEFAULT_ALIGNMENT;

/// How a model looks as a single GGUF file.
#[derive(Clone, Debug)]
pub struct Joined {
    /// All bytes before the tensor data, padding included.
    pub header: Vec<u8>,
    /// For each of [`Index::tensors`], where its data begin in the single file. They lie in that
    /// order.
    pub offsets: Vec<u64>,
    /// The length of the single file.
    pub len: u64,
}

impl Index {
    /// The model as a single file. Reads the header of the first file again.
    ///
    /// # Errors
    ///
    /// As [`Index::open`]: the file may have changed since.
    pub fn join(&self) -> Result<Joined, Error> {
        let (path, n_tensors) = (&self.files[0].path, self.tensors.len() as u64);
        let first = read_header(path)?.1;
        let mut header = b"GGUF\x03\0\0\0".to_vec();
        header.extend(n_tensors.to_le_bytes());
        header.extend(first.n_keys.to_le_bytes());
        let expected = first.keys.end - first.keys.start;
        let copied = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(first.keys.start))?;
            file.take(expected).read_to_end(&mut header)
        });
        let copied = copied.map_err(|e| Error::new(path, Reason::Io(e)))? as u64;
        if copied != expected {
            let (offset, flaw) = (first.keys.start + copied, Flaw::Truncated("the keys"));
            return Err(Error::new(path, Reason::Header { offset, flaw }));
        }
        let alignment = first.metadata.uint("general.alignment").unwrap_or(DEFAULT_ALIGNMENT);
        let mut offsets = Vec::with_capacity(self.tensors.len());
        let mut end = 0; // of the data so far, relative to their beginning
        for tensor in &self.tensors {
            let at = u64::next_multiple_of(end, alignment);
            append_entry(&mut header, tensor, at);
            offsets.push(at);
            end = at + tensor.len.0;
        }
        let data_at = (header.len() as u64).next_multiple_of(alignment);
        header.resize(usize::try_from(data_at).unwrap_or(usize::MAX), 0);
        offsets.iter_mut().for_each(|at| *at += data_at);
        Ok(Joined { header, offsets, len: data_at + end })
    }
}

/// Appends the entry of `tensor`, whose data begin at `at` in the data section, to a tensor table.
fn append_entry(header: &mut Vec<u8>, tensor: &TensorInfo, at: u64) {
    header.extend((tensor.name.len() as u64).to_le_bytes());
    header.extend(tensor.name.as_bytes());
    // One to four dimensions, as the parser has checked.
    header.extend(u32::try_from(tensor.shape.len()).unwrap_or(4).to_le_bytes());
    header.extend(tensor.shape.iter().flat_map(|n| n.to_le_bytes()));
    header.extend(tensor.ty.0.to_le_bytes());
    header.extend(at.to_le_bytes());
}
