//! Resident weights at the speed of the disk: libllama makes room for them and leaves them to us; they are read in the order of the
//! file, past the page cache, while several threads put what has come in its place, repacked where that was planned.
//!
//! In memory meanwhile: a buffer for each thread, and a few for what is on its way, as many as the plan leaves room for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::ggml::guard::caught;
use crate::ggml::{self, Deferred};
use crate::gguf::TensorInfo;
use crate::source::{DIRECT_ALIGN, Done, Extent, HostBuf, ReadError, Ticket, WeightSource};
use crate::stream::Monitor;
use crate::units::{Bytes, MIB};

/// What is read at a time of a tensor that may be set by pieces.
const PIECE: Bytes = Bytes(8 * MIB.0);

/// What is on its way keeps a disk busy if it is at least this much.
const ON_ITS_WAY: Bytes = Bytes(32 * MIB.0);

/// A piece of a tensor: what is set by one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Which of the deferred tensors.
    tensor: usize,
    /// Its first byte, in the tensor and in the file.
    offset: u64,
    file: usize,
    at: u64,
    len: u64,
}

impl Piece {
    /// What to read for it, in whole pages, to `dst`. It begins `at % DIRECT_ALIGN` bytes after the beginning of its first.
    fn extent(&self, dst: u64) -> Extent {
        let skip = self.at % DIRECT_ALIGN;
        let need = skip + self.len;
        let len = need.next_multiple_of(DIRECT_ALIGN);
        Extent { file: self.file, offset: self.at - skip, len, dst, need }
    }
}

/// Pieces that are read by one request, and where each goes.
#[derive(Clone, Debug, Default)]
struct Batch {
    pieces: Vec<Piece>,
    extents: Vec<Extent>,
}

impl Batch {
    /// The room that it takes. (bytes)
    fn len(&self) -> u64 {
        self.extents.last().map_or(0, |last| last.dst + last.len)
    }

    fn push(&mut self, piece: Piece) {
        self.extents.push(piece.extent(self.len()));
        self.pieces.push(piece);
    }

    /// Its pieces with their bytes, out of what was read.
    fn bytes<'a>(&'a self, read: &'a [u8]) -> impl Iterator<Item = (&'a Piece, &'a [u8])> {
        self.pieces.iter().zip(&self.extents).map(|(piece, extent)| {
            let from = Bytes(extent.dst + piece.at - extent.offset).usize();
            (piece, &read[from..from + Bytes(piece.len).usize()])
        })
    }
}

/// Gathers neighbours, in their order, up to what the largest of them takes: a request for every small tensor would leave a disk
/// waiting.
fn batches(pieces: &[Piece]) -> Vec<Batch> {
    let largest = pieces.iter().map(|p| p.extent(0).len).max().unwrap_or_default().max(PIECE.0);
    let mut batches: Vec<Batch> = Vec::new();
    for &piece in pieces {
        match batches.last_mut() {
            Some(last) if last.len() + piece.extent(0).len <= largest => last.push(piece),
            _ => {
                let mut batch = Batch::default();
                batch.push(piece);
                batches.push(batch);
            }
        }
    }
    batches
}

/// Reads `tensors` from their `places` in the files through `source`, with `n_threads` threads and in no more memory than `room`, unless
/// a single tensor takes more.
pub(super) fn fill(
    tensors: &[Deferred],
    places: &HashMap<&str, &TensorInfo>,
    source: &dyn WeightSource,
    monitor: &Monitor,
    n_threads: usize,
    room: Bytes,
) -> Result<(), Unfillable> {
    monitor.to_load(tensors.iter().map(Deferred::len).sum());
    let batches = batches(&pieces(tensors, places));
    Filling::new(tensors, &batches, source, monitor).run(n_threads, room)
}

/// Cuts the tensors into pieces, in the order of the files.
fn pieces(tensors: &[Deferred], places: &HashMap<&str, &TensorInfo>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (tensor, deferred) in tensors.iter().enumerate() {
        // Only what is in `places` was deferred.
        let Some(place) = places.get(deferred.name()) else { continue };
        let all = deferred.len().0;
        let step = if deferred.is_whole() { all.max(1) } else { PIECE.0 };
        let mut offset = 0;
        while offset < all {
            let len = step.min(all - offset);
            let at = place.offset + offset;
            pieces.push(Piece { tensor, offset, file: place.file, at, len });
            offset += len;
        }
    }
    pieces.sort_by_key(|p| (p.file, p.at));
    pieces
}

/// Why tensors could not be filled.
#[derive(Debug)]
pub(super) enum Unfillable {
    Read(ReadError),
    Ggml(ggml::Error),
}

/// What the threads share.
struct Filling<'a> {
    tensors: &'a [Deferred],
    batches: &'a [Batch],
    source: &'a dyn WeightSource,
    monitor: &'a Monitor,
    state: Mutex<State>,
    /// A buffer is free again, or all is over.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// How many batches were asked for.
    asked: usize,
    /// Those of them that nobody waits for yet.
    coming: VecDeque<(usize, Ticket)>,
    spare: Vec<HostBuf>,
    failed: Option<Unfillable>,
}

impl<'a> Filling<'a> {
    fn new(
        tensors: &'a [Deferred],
        batches: &'a [Batch],
        source: &'a dyn WeightSource,
        monitor: &'a Monitor,
    ) -> Filling<'a> {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Filling { tensors, batches, source, monitor, state, wake }
    }

    /// Reads the batches and puts them in place with `n_threads` threads, in no more memory than `room` unless a single batch takes more.
    fn run(self, n_threads: usize, room: Bytes) -> Result<(), Unfillable> {
        let largest = self.batches.iter().map(|b| Bytes(b.len())).max();
        let Some(largest) = largest else { return Ok(()) };
        let wanted = n_threads as u64 + ON_ITS_WAY.0.div_ceil(largest.0).max(2);
        let n_buffers = wanted.min(room.0 / largest.0).clamp(1, self.batches.len() as u64);
        for _ in 0..n_buffers {
            let buf = HostBuf::new(largest).map_err(|e| {
                let (what, why) = ("making room to read", e.to_string());
                Unfillable::Ggml(ggml::Error::Null { what, why })
            })?;
            self.lock().spare.push(buf);
        }
        thread::scope(|scope| {
            // This thread is one of them.
            for _ in 1..n_threads.min(self.batches.len()) {
                scope.spawn(|| self.work());
            }
            self.work();
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's part. Others wait for its buffer: whatever ends it, they are told.
    fn work(&self) {
        if let Err(why) = caught(|| self.take_turns()) {
            self.fail(Unfillable::Ggml(ggml::Error::Null {
                what: "putting weights in place",
                why,
            }));
        }
    }

    /// Takes what was asked for first, waits for it, and puts it in its place, until there is nothing left.
    fn take_turns(&self) {
        while let Some((batch, ticket)) = self.next() {
            match self.place(&self.batches[batch], ticket) {
                Ok(buf) => self.lock().spare.push(buf),
                Err(why) => self.fail(why),
            }
            self.wake.notify_all();
        }
    }

    fn fail(&self, why: Unfillable) {
        self.lock().failed.get_or_insert(why);
        self.source.cancel();
        self.wake.notify_all();
    }

    /// Asks for as much as there is room for; returns what was asked for first. None when nothing is left.
    fn next(&self) -> Option<(usize, Ticket)> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            while let Some(batch) = self.batches.get(state.asked)
                && let Some(buf) = state.spare.pop()
            {
                let ticket = self.source.request(batch.extents.clone().into(), buf);
                let asked = state.asked;
                state.coming.push_back((asked, ticket));
                state.asked += 1;
            }
            if let Some(first) = state.coming.pop_front() {
                return Some(first);
            }
            if state.asked == self.batches.len() {
                return None;
            }
            // Every buffer is with another thread.
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn place(&self, batch: &Batch, ticket: Ticket) -> Result<HostBuf, Unfillable> {
        let stopped = || Unfillable::Read(ReadError::Stopped);
        let Done { buf, outcome } = ticket.wait().ok_or_else(stopped)?;
        outcome.map_err(Unfillable::Read)?;
        for (piece, bytes) in batch.bytes(buf.as_slice()) {
            let set = self.tensors[piece.tensor].set(Bytes(piece.offset), bytes);
            set.map_err(Unfillable::Ggml)?;
            self.monitor.loaded(Bytes(piece.len));
        }
        Ok(buf)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ggml::{Device, Model, ModelParams, Segment, SegmentKind, VirtualFile};
    use crate::gguf::Index;
    use crate::source::fault::MemorySource;
    use proptest::prelude::*;
    use std::path::Path;

    /// libllama leaves every tensor to us, repacked or not, and what is set is what the file holds.
    #[test]
    fn every_tensor_is_left_to_us() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q4_k_m.gguf");
        let index = Index::open(&path).unwrap();
        let bytes: Arc<[u8]> = std::fs::read(&path).unwrap().into();
        for repack in [true, false] {
            let kind = SegmentKind::File { file: 0, offset: 0 };
            let all = vec![Segment { len: bytes.len() as u64, kind }];
            let file = VirtualFile::open(std::slice::from_ref(&path), all).unwrap();
            let params = ModelParams { repack, ..ModelParams::default() };
            let places: HashMap<&str, &TensorInfo> =
                index.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
            let wanted: HashSet<String> = places.keys().map(|&name| name.to_owned()).collect();
            let cpu = Device::cpu().unwrap();
            let unfilled =
                Model::load_deferring(file, &params, &|_| true, &[cpu], wanted.clone()).unwrap();
            let names: HashSet<String> =
                unfilled.tensors().iter().map(|t| t.name().to_owned()).collect();
            assert_eq!(names, wanted);
            assert!(repack || unfilled.tensors().iter().all(|t| !t.is_whole()));
            let source = MemorySource::new(vec![bytes.clone()]);
            let monitor = Monitor::default();
            let batches = batches(&pieces(unfilled.tensors(), &places));
            let filling = Filling::new(unfilled.tensors(), &batches, &source, &monitor);
            filling.run(2, Bytes::ZERO).unwrap();
            let all: Bytes = unfilled.tensors().iter().map(Deferred::len).sum();
            assert_eq!(monitor.snapshot().loaded, all);
            let first = &unfilled.tensors()[0];
            assert!(first.set(first.len(), &[0]).is_err());
        }
    }

    /// A source that panics when it is asked for the `n`th time.
    #[derive(Debug)]
    struct Panics(MemorySource, AtomicUsize);

    impl WeightSource for Panics {
        fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
            assert!(self.1.fetch_sub(1, Ordering::Relaxed) > 1, "as if by a fault of ours");
            self.0.request(extents, buf)
        }

        fn describe(&self) -> String {
            self.0.describe()
        }

        fn cancel(&self) {
            self.0.cancel();
        }
    }

    /// The others do not wait for a buffer that it had.
    #[test]
    fn a_thread_that_panics_ends_the_loading() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q8_0.gguf");
        let index = Index::open(&path).unwrap();
        let bytes: Arc<[u8]> = std::fs::read(&path).unwrap().into();
        let places: HashMap<&str, &TensorInfo> =
            index.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        let kind = SegmentKind::File { file: 0, offset: 0 };
        let all = vec![Segment { len: bytes.len() as u64, kind }];
        let file = VirtualFile::open(std::slice::from_ref(&path), all).unwrap();
        let names = places.keys().map(|&name| name.to_owned()).collect();
        let params = ModelParams { repack: false, ..ModelParams::default() };
        let cpu = Device::cpu().unwrap();
        let unfilled = Model::load_deferring(file, &params, &|_| true, &[cpu], names).unwrap();
        let monitor = Monitor::default();
        let batches = batches(&pieces(unfilled.tensors(), &places));
        for n in 1..=batches.len().min(3) {
            let source = Panics(MemorySource::new(vec![bytes.clone()]), AtomicUsize::new(n));
            let filling = Filling::new(unfilled.tensors(), &batches, &source, &monitor);
            let failed = filling.run(4, Bytes::ZERO).unwrap_err();
            assert!(format!("{failed:?}").contains("a fault of ours"), "{failed:?}");
        }
    }

    proptest! {
        /// Every byte of every piece is read once, to a place of its own, and found there; pages are read that are needed.
        #[test]
        fn batches_hold_their_pieces(lens in prop::collection::vec(1_u64..40_000_000, 1..40), gap in 0_u64..100_000) {
            let mut at = 1234;
            let mut list = Vec::new();
            for (tensor, &len) in lens.iter().enumerate() {
                list.push(Piece { tensor, offset: 0, file: 0, at, len });
                at += len + gap;
            }
            let batches = batches(&list);
            let again: Vec<Piece> = batches.iter().flat_map(|b| b.pieces.iter().copied()).collect();
            prop_assert_eq!(&again, &list);
            let largest = list.iter().map(|p| p.extent(0).len).max().unwrap().max(PIECE.0);
            for batch in &batches {
                prop_assert!(batch.len() <= largest);
                let mut end = 0;
                for (piece, extent) in batch.pieces.iter().zip(&batch.extents) {
                    prop_assert!(extent.dst >= end && extent.is_aligned());
                    prop_assert!(extent.offset <= piece.at);
                    prop_assert!(extent.offset + extent.need == piece.at + piece.len);
                    end = extent.dst + extent.len;
                }
            }
        }
    }
}
