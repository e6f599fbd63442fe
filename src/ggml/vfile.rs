//! The virtual file: what libllama reads a model from. Bytes it must hold are real, streamed ranges are answered without
//! touching disk or memory, and the parts of a split model look like one file.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// A stretch of a virtual file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Bytes.
    pub len: u64,
    /// What they are.
    pub kind: SegmentKind,
}

/// Where the bytes of a segment come from.
#[derive(Clone, Debug)]
pub enum SegmentKind {
    /// Memory.
    Memory(Arc<[u8]>),
    /// A real file, from this offset on.
    File {
        /// Index into the virtual file's list.
        file: usize,
        /// Offset of the segment's first byte.
        offset: u64,
    },
    /// Bytes nobody looks at: reading them succeeds and writes nothing.
    Void,
}

/// A read-only file made of segments.
#[derive(Debug)]
pub struct VirtualFile {
    pub(super) files: Vec<(File, PathBuf)>,
    /// Start of each segment in the virtual file.
    pub(super) starts: Vec<u64>,
    pub(super) segments: Vec<Segment>,
    /// Bytes of all segments.
    pub(super) len: u64,
}

impl VirtualFile {
    /// Opens `paths` and lays the segments end to end.
    pub fn open(paths: &[PathBuf], segments: Vec<Segment>) -> std::io::Result<VirtualFile> {
        let files = paths.iter().map(|p| Ok((File::open(p)?, p.clone())));
        let files = files.collect::<std::io::Result<Vec<_>>>()?;
        let mut len = 0;
        let mut starts = Vec::with_capacity(segments.len());
        for segment in &segments {
            starts.push(len);
            len += segment.len;
        }
        Ok(VirtualFile { files, starts, segments, len })
    }
}
