//! A worker thread that reads with `pread`: works everywhere, copies through the page cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::source::{Completion, Extent, HostBuf, ReadError, ReadStats, Ticket, WeightSource};
use crate::units::Bytes;

struct Job {
    extents: Arc<[Extent]>,
    buf: HostBuf,
    completion: Completion,
}

/// Reads with `pread` on one thread.
#[derive(Debug)]
pub struct PreadSource {
    jobs: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
}

impl PreadSource {
    /// Opens the files and starts the worker.
    pub fn open(paths: &[PathBuf]) -> std::io::Result<PreadSource> {
        let files = paths
            .iter()
            .map(|p| Ok((File::open(p)?, p.clone())))
            .collect::<std::io::Result<Vec<_>>>()?;
        let (sender, receiver) = channel();
        let worker = std::thread::Builder::new()
            .name("airrun-reader".into())
            .spawn(move || work(&files, &receiver))?;
        Ok(PreadSource { jobs: Some(sender), worker: Some(worker) })
    }
}

impl WeightSource for PreadSource {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(Job { extents, buf, completion }));
        if let Some(Err(lost)) = sent {
            lost.0.completion.complete(lost.0.buf, Err(ReadError::Stopped));
        }
        ticket
    }

    fn describe(&self) -> String {
        "pread, buffered".into()
    }
}

impl Drop for PreadSource {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            drop(worker.join());
        }
    }
}

fn work(files: &[(File, PathBuf)], jobs: &Receiver<Job>) {
    while let Ok(Job { extents, mut buf, completion }) = jobs.recv() {
        let begin = Instant::now();
        let outcome = extents.iter().try_fold(Bytes::ZERO, |sum, e| {
            read_extent(&files[e.file], e, buf.as_mut_slice()).map(|()| sum + Bytes(e.need))
        });
        let stats = outcome.map(|bytes| ReadStats { bytes, span: (begin, Instant::now()) });
        completion.complete(buf, stats);
    }
}

fn read_extent((file, path): &(File, PathBuf), e: &Extent, buf: &mut [u8]) -> Result<(), ReadError> {
    let start = usize::try_from(e.dst).unwrap_or(usize::MAX);
    let need = usize::try_from(e.need).unwrap_or(usize::MAX);
    let dst = &mut buf[start..start + need];
    file.read_exact_at(dst, e.offset).map_err(|err| match err.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            ReadError::Truncated { path: path.display().to_string(), offset: e.offset }
        }
        _ => ReadError::Io {
            path: path.display().to_string(),
            offset: e.offset,
            message: err.to_string(),
        },
    })
}
