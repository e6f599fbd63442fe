//! The open files of a model: a handle through the page cache and, where the file system allows it, one past it; and what
//! the files looked like when they were opened, to notice later that someone wrote to them. It does not read weights.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::os::files::{Found, device_of, holds_bytes};
use crate::os::reads::{self, Seek, seek};
use crate::source::ReadError;
use crate::source::choice::OpenError;
use crate::units::Bytes;

/// The files of a model, in the order in which extents number them.
#[derive(Debug)]
pub(super) struct Files {
    files: Vec<OpenFile>,
    drop_behind: bool,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    buffered: File,
    direct: Option<File>,
    seen: Looks,
}

/// What shows that a file was written to. (Not its inode: a replaced path leaves the open one as it was.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looks {
    len: u64,
    modified: Option<SystemTime>,
}

/// How to treat the pages that reading through the page cache leaves in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageCache {
    /// They stay.
    Use,
    /// They are dropped after reading.
    Avoid,
}

impl Files {
    /// Opens `paths`, for O_DIRECT too where a trial read shows that it works.
    pub(super) fn open(paths: &[PathBuf], cache: PageCache) -> Result<Files, OpenError> {
        Files::open_all(paths, cache, true)
    }

    /// Opens `paths` for reading through the page cache only.
    pub(super) fn open_buffered(paths: &[PathBuf], cache: PageCache) -> Result<Files, OpenError> {
        Files::open_all(paths, cache, false)
    }

    /// The file at `path`, which somebody only pretends to read; past the page cache if `direct`.
    pub(super) fn pretend(path: &Path, direct: bool) -> Result<Files, OpenError> {
        let mut files = Files::open_buffered(&[path.to_owned()], PageCache::Use)?;
        let file = &mut files.files[0];
        file.direct = file.buffered.try_clone().ok().filter(|_| direct);
        Ok(files)
    }

    fn open_all(paths: &[PathBuf], cache: PageCache, direct: bool) -> Result<Files, OpenError> {
        let files = paths
            .iter()
            .map(|path| {
                OpenFile::open(path, direct)
                    .map_err(|error| OpenError::Open { path: path.display().to_string(), error })
            })
            .collect::<Result<_, _>>()?;
        Ok(Files { files, drop_behind: cache == PageCache::Avoid })
    }

    /// Number of files.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether any of the files can be read past the page cache.
    pub(super) fn any_direct(&self) -> bool {
        self.files.iter().any(|f| f.direct.is_some())
    }

    /// Whether file `i` can be read past the page cache.
    pub(super) fn has_direct(&self, i: usize) -> bool {
        self.files[i].direct.is_some()
    }

    /// Where file `i` was found.
    pub(super) fn path(&self, i: usize) -> &Path {
        &self.files[i].path
    }

    /// Length of file `i` when it was opened.
    pub(super) fn file_len(&self, i: usize) -> Bytes {
        Bytes(self.files[i].seen.len)
    }

    /// The handle of file `i`. `direct` only where [`Files::has_direct`]; otherwise the buffered one is all there is.
    pub(super) fn handle(&self, i: usize, direct: bool) -> &File {
        let file = &self.files[i];
        file.direct.as_ref().filter(|_| direct).unwrap_or(&file.buffered)
    }

    /// The device that file `i` lies on.
    pub(super) fn device(&self, i: usize) -> io::Result<u64> {
        device_of(&self.files[i].buffered)
    }

    /// Where file `i` has bytes on the disk: first byte and end of at most `max` ranges. All of it where the system cannot tell.
    pub(super) fn data(&self, i: usize, max: usize) -> Vec<(u64, u64)> {
        let file = &self.files[i];
        let len = file.seen.len;
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < len && ranges.len() < max {
            let from = match seek(&file.buffered, at, Seek::Data) {
                Ok(Some(from)) => from,
                Ok(None) => break,
                Err(_) => at,
            };
            let end = seek(&file.buffered, from, Seek::Hole).ok().flatten().unwrap_or(len).min(len);
            if end <= from {
                break;
            }
            ranges.push((from, end));
            at = end;
        }
        ranges
    }

    /// Fails if file `i` was written to since it was opened. Costs about a microsecond.
    pub(super) fn check(&self, i: usize) -> Result<(), ReadError> {
        let file = &self.files[i];
        let now = file.buffered.metadata().map_err(|e| ReadError::io(&file.path, 0, &e))?;
        let now = Looks::of(&now);
        let path = || file.path.display().to_string();
        if now.len < file.seen.len {
            return Err(ReadError::Truncated { path: path(), offset: now.len });
        }
        if now != file.seen { Err(ReadError::Changed { path: path() }) } else { Ok(()) }
    }

    /// Reads from file `i` what the page cache has at `offset`, up to all of `out`, without ever waiting for the disk. Returns how
    /// many bytes that was; none where the system cannot tell.
    pub(super) fn read_cached(&self, i: usize, offset: u64, out: &mut [u8]) -> usize {
        reads::read_cached(&self.files[i].buffered, out, offset)
    }

    /// Drops a range that was read through the page cache from it again, where the page cache is to be avoided.
    pub(super) fn forget(&self, i: usize, offset: u64, len: u64) {
        if self.drop_behind {
            reads::drop_cached(&self.files[i].buffered, offset, len);
        }
    }
}

impl OpenFile {
    fn open(path: &Path, try_direct: bool) -> io::Result<OpenFile> {
        // Asked before opening: opening a FIFO would wait for its writer.
        let kind = std::fs::metadata(path)?.file_type();
        if !holds_bytes(kind) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let buffered = File::open(path)?;
        let seen = Looks::of(&buffered.metadata()?);
        let direct = if try_direct { open_direct(path, seen.len) } else { None };
        // Replaced between the two openings: the two handles would read different files.
        let direct = direct.filter(|d| same_file(d, &buffered));
        Ok(OpenFile { path: path.to_owned(), buffered, direct, seen })
    }
}

impl Looks {
    fn of(meta: &Metadata) -> Looks {
        Looks { len: meta.len(), modified: meta.modified().ok() }
    }
}

/// Opens to read past the page cache and tries it: some file systems accept the flag and refuse the read. The trial begins at the second
/// page where there is one, so that a file system that asks for more than our alignment is found out.
fn open_direct(path: &Path, len: u64) -> Option<File> {
    use crate::source::{DIRECT_ALIGN, HostBuf};
    let file = reads::open_direct(path).ok()?;
    let mut buf = HostBuf::new(Bytes(DIRECT_ALIGN)).ok()?;
    let at = if len > DIRECT_ALIGN { DIRECT_ALIGN } else { 0 };
    reads::read_at(&file, &mut buf.as_mut_slice()[..DIRECT_ALIGN as usize], at).ok()?;
    Some(file)
}

fn same_file(a: &File, b: &File) -> bool {
    matches!((Found::of(a), Found::of(b)), (Ok(a), Ok(b)) if a.id == b.id)
}
