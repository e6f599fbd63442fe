//! Resident weights at the speed of the disk: libllama asks for one tensor after the other, and repacks each before it asks
//! for the next; meanwhile what it will probably ask for next is read, past the page cache.
//!
//! The order is a guess (libllama loads what it repacks from large to small, and the rest as it comes). A wrong guess costs
//! a few chunks that are read twice, never a wrong byte.

use std::sync::Arc;

use super::load::Loading;
use super::needs::{self, READ_AHEAD};
use crate::ggml::{RangeReader, VirtualFile};
use crate::source::{Done, Extent, HostBuf, ReadError, Ticket, WeightSource};
use crate::units::{Bytes, MIB};

/// What is read at a time. (bytes)
const CHUNK: u64 = 4 * MIB.0;

/// Chunks in memory: one is copied from, the others are on their way.
const N_CHUNKS: usize = (READ_AHEAD.0 / CHUNK) as usize;

/// Reads smaller than this that nobody foresaw are not worth a chunk.
const SMALL: usize = 64 << 10;

/// A chunk: its file, and its number there.
type Chunk = (usize, u64);

/// Reads chunks ahead.
#[derive(Debug)]
pub(super) struct ReadAhead {
    source: Arc<dyn WeightSource>,
    /// Bytes of each file.
    lens: Vec<u64>,
    /// The chunks in the order in which they will probably be asked for.
    order: Vec<Chunk>,
    /// Where in `order` the last chunk was.
    at: usize,
    held: Vec<(Chunk, Held)>,
    spare: Vec<HostBuf>,
}

#[derive(Debug)]
enum Held {
    Coming(Ticket),
    Here(HostBuf),
}

impl Loading<'_> {
    /// `file`, with its resident tensors read ahead through `source`.
    pub(super) fn read_ahead(
        &self,
        file: VirtualFile,
        source: Arc<dyn WeightSource>,
    ) -> VirtualFile {
        let streamed: std::collections::HashSet<usize> =
            self.plan.streamed.iter().flat_map(|u| u.tensors.iter().copied()).collect();
        let tensors = &self.index.tensors;
        let mut resident: Vec<usize> =
            (0..tensors.len()).filter(|t| !streamed.contains(t)).collect();
        let repacked = |&t: &usize| {
            let tensor = &tensors[t];
            self.gpu.is_none()
                && self.options.repack
                && needs::is_quantised(tensor.ty)
                && tensor.shape.len() > 1
        };
        resident.sort_by_key(|t| match repacked(t) {
            true => (0, u64::MAX - tensors[*t].len.0),
            false => (1, 0),
        });
        let mut order: Vec<Chunk> = Vec::new();
        for t in resident {
            let t = &tensors[t];
            let last = (t.offset + t.len.0.max(1) - 1) / CHUNK;
            order.extend((t.offset / CHUNK..=last).map(|number| (t.file, number)));
        }
        order.dedup();
        let lens = self.index.files.iter().map(|f| f.len.0).collect();
        let (held, spare) = (Vec::new(), Vec::new());
        file.with_reader(Box::new(ReadAhead { source, lens, order, at: 0, held, spare }))
    }
}

impl RangeReader for ReadAhead {
    fn read(&mut self, file: usize, offset: u64, out: &mut [u8]) -> Result<usize, String> {
        let chunk = (file, offset / CHUNK);
        let foreseen = self.held.iter().any(|(c, _)| *c == chunk);
        if !foreseen && out.len() < SMALL {
            return Ok(0);
        }
        self.advance(chunk).map_err(|e| e.to_string())?;
        let from = (offset % CHUNK) as usize;
        let end = self.extent(chunk).need as usize;
        let data = self.wait(chunk).map_err(|e| e.to_string())?;
        let n = end.saturating_sub(from).min(out.len());
        out[..n].copy_from_slice(&data.as_slice()[from..from + n]);
        Ok(n)
    }
}

impl ReadAhead {
    /// Starts reading `chunk` and what probably follows it; lets go of the rest.
    fn advance(&mut self, chunk: Chunk) -> std::io::Result<()> {
        let n = self.order.len();
        if self.order.get(self.at) != Some(&chunk)
            && let Some(step) = (0..n).find(|step| self.order[(self.at + step) % n] == chunk)
        {
            self.at = (self.at + step) % n;
        }
        let mut wanted = vec![chunk];
        for &next in self.order.iter().skip(self.at + 1) {
            if wanted.len() == N_CHUNKS {
                break;
            }
            if !wanted.contains(&next) {
                wanted.push(next);
            }
        }
        let (held, gone) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<Vec<_>, _>(|(c, _)| wanted.contains(c));
        self.held = held;
        for (_, held) in gone {
            match held {
                Held::Here(buf) => self.spare.push(buf),
                Held::Coming(ticket) => self.spare.extend(ticket.wait().map(|done| done.buf)),
            }
        }
        for chunk in wanted {
            if self.held.iter().all(|(c, _)| *c != chunk) {
                let buf = match self.spare.pop() {
                    Some(buf) => buf,
                    None => HostBuf::new(Bytes(CHUNK))?,
                };
                let ticket = self.source.request(Arc::new([self.extent(chunk)]), buf);
                self.held.push((chunk, Held::Coming(ticket)));
            }
        }
        Ok(())
    }

    /// What to read for a chunk: all of it, or what the file has.
    fn extent(&self, (file, number): Chunk) -> Extent {
        let offset = number * CHUNK;
        let need = self.lens[file].saturating_sub(offset).min(CHUNK);
        let len = need.next_multiple_of(crate::source::DIRECT_ALIGN);
        Extent { file, offset, len, dst: 0, need }
    }

    /// The bytes of a chunk that is held.
    fn wait(&mut self, chunk: Chunk) -> Result<&HostBuf, ReadError> {
        let at = self.held.iter().position(|(c, _)| *c == chunk).ok_or(ReadError::Stopped)?;
        if let (_, Held::Coming(_)) = self.held[at] {
            let (_, Held::Coming(ticket)) = self.held.swap_remove(at) else { unreachable!() };
            let Done { buf, outcome } = ticket.wait().ok_or(ReadError::Stopped)?;
            outcome?;
            self.held.push((chunk, Held::Here(buf)));
        }
        let held = self.held.iter().find(|(c, _)| *c == chunk);
        match held {
            Some((_, Held::Here(buf))) => Ok(buf),
            _ => Err(ReadError::Stopped),
        }
    }
}

/// A source for models that nobody computes with.
#[derive(Debug)]
pub(super) struct NoSource;

impl WeightSource for NoSource {
    fn request(&self, _: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        completion.complete(buf, Err(ReadError::Stopped));
        ticket
    }

    fn describe(&self) -> String {
        "nothing".to_owned()
    }
}
