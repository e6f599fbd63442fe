//! Resident weights at the speed of the disk: libllama asks for one tensor after the other, and repacks each before it asks
//! for the next; meanwhile what it will probably ask for next is read, past the page cache.
//!
//! Within a tensor there is nothing to guess. Which tensor comes next is learned: what followed in one block follows in the next.
//! Until it is known, a guess serves (libllama loads what it repacks from large to small, and the rest as it comes). A wrong one
//! costs a few chunks that are read twice, never a wrong byte.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::load::Loading;
use super::needs::{self, READ_AHEAD};
use crate::ggml::{RangeReader, VirtualFile};
use crate::gguf::TensorInfo;
use crate::source::{DIRECT_ALIGN, Done, Extent, HostBuf, ReadError, Ticket, WeightSource};
use crate::units::{Bytes, MIB};

/// Room for what is read at a time. (bytes)
const ROOM: u64 = 4 * MIB.0;

/// What is read at a time: whole pages, but a tensor begins and ends inside of one. (bytes)
const CHUNK: u64 = ROOM - 2 * DIRECT_ALIGN;

/// Chunks in memory: one is copied from, the others are on their way.
const N_CHUNKS: usize = (READ_AHEAD.0 / ROOM) as usize;

/// Tensors smaller than this are not worth a chunk. (bytes)
const SMALL: u64 = 64 << 10;

/// When C's library seeks, it reads the rest of the stream's buffer before the place, too: the end of some other tensor. (bytes)
const LOOK_BACK: u64 = 256 << 10;

/// A chunk: the tensor's place in [`Order::tensors`], and its number there.
type Chunk = (usize, u64);

/// Reads chunks ahead.
#[derive(Debug)]
pub(super) struct ReadAhead {
    source: Arc<dyn WeightSource>,
    order: Order,
    held: Vec<(Chunk, Held)>,
    spare: Vec<HostBuf>,
}

#[derive(Debug)]
enum Held {
    Coming(Ticket),
    Here(HostBuf),
}

/// What is to be loaded, and what is known of the order in which it will be asked for.
#[derive(Debug, Default)]
struct Order {
    /// By file and offset.
    tensors: Vec<Resident>,
    /// For each kind, its tensors in the order of the blocks.
    kinds: Vec<Vec<usize>>,
    /// For each kind, what was asked for after a tensor of it: the kind, and how much further on among those.
    follows: Vec<Option<(usize, isize)>>,
    /// All tensors as they will probably be asked for.
    guess: Vec<usize>,
    now: Option<usize>,
}

#[derive(Debug)]
struct Resident {
    file: usize,
    offset: u64,
    len: u64,
    /// The same role and size in other blocks: the place in [`Order::kinds`], and the place there.
    kind: usize,
    rank: usize,
    /// Whether it was asked for already.
    begun: bool,
}

impl Loading<'_> {
    /// `file`, with its resident tensors read ahead through `source`.
    pub(super) fn read_ahead(
        &self,
        file: VirtualFile,
        source: Arc<dyn WeightSource>,
    ) -> VirtualFile {
        let streamed: HashSet<usize> =
            self.plan.streamed.iter().flat_map(|u| u.tensors.iter().copied()).collect();
        let tensors = &self.index.tensors;
        let resident: Vec<&TensorInfo> = (0..tensors.len())
            .filter(|t| !streamed.contains(t) && tensors[*t].len.0 >= SMALL)
            .map(|t| &tensors[t])
            .collect();
        let repacked = |t: &TensorInfo| {
            self.gpu.is_none()
                && self.options.repack
                && needs::is_quantised(t.ty)
                && t.shape.len() > 1
        };
        let order = Order::new(&resident, &repacked);
        let (held, spare) = (Vec::new(), Vec::new());
        file.with_reader(Box::new(ReadAhead { source, order, held, spare }))
    }
}

impl Order {
    fn new(resident: &[&TensorInfo], repacked: &dyn Fn(&TensorInfo) -> bool) -> Order {
        let mut order = Order::default();
        let mut known: HashMap<(&str, u64), usize> = HashMap::new();
        let mut sorted = resident.to_vec();
        sorted.sort_by_key(|t| (t.file, t.offset));
        for (i, t) in sorted.iter().enumerate() {
            let kind = *known.entry((t.role(), t.len.0)).or_insert_with(|| {
                order.kinds.push(Vec::new());
                order.kinds.len() - 1
            });
            let rank = order.kinds[kind].len();
            order.kinds[kind].push(i);
            let (file, offset, len) = (t.file, t.offset, t.len.0);
            order.tensors.push(Resident { file, offset, len, kind, rank, begun: false });
        }
        order.follows = vec![None; order.kinds.len()];
        order.guess = (0..sorted.len()).collect();
        order.guess.sort_by_key(|&i| match repacked(sorted[i]) {
            true => (0, u64::MAX - sorted[i].len.0),
            false => (1, 0),
        });
        order
    }

    /// The chunk that a byte is in; `None` for what is not read by chunks.
    fn chunk(&self, file: usize, offset: u64) -> Option<Chunk> {
        let after = self.tensors.partition_point(|t| (t.file, t.offset) <= (file, offset));
        let i = after.checked_sub(1)?;
        let within = offset - self.tensors[i].offset;
        let Resident { file: its_file, len, .. } = self.tensors[i];
        let looks_back = self.now != Some(i) && within > 0 && within + LOOK_BACK >= len;
        (its_file == file && within < len && !looks_back).then_some((i, within / CHUNK))
    }

    /// Notes that a tensor is asked for.
    fn begin(&mut self, i: usize) {
        let before = self.now.replace(i);
        self.tensors[i].begun = true;
        if let Some(before) = before.filter(|&before| before != i) {
            let (from, to) = (&self.tensors[before], &self.tensors[i]);
            let step = to.rank.cast_signed() - from.rank.cast_signed();
            self.follows[from.kind] = Some((to.kind, step));
        }
    }

    /// What will probably be asked for after a chunk.
    fn next(&self, (i, number): Chunk) -> Option<Chunk> {
        let tensor = &self.tensors[i];
        if (number + 1) * CHUNK < tensor.len {
            return Some((i, number + 1));
        }
        let learned = self.follows[tensor.kind].and_then(|(kind, step)| {
            let rank = tensor.rank.checked_add_signed(step)?;
            self.kinds[kind].get(rank).copied()
        });
        let waits = |&next: &usize| next != i && !self.tensors[next].begun;
        let guessed = || {
            let at = self.guess.iter().position(|&t| t == i).unwrap_or(0);
            let (before, after) = self.guess.split_at(at);
            after.iter().chain(before).copied().find(waits)
        };
        learned.filter(waits).or_else(guessed).map(|next| (next, 0))
    }

    /// What to read for a chunk, in whole pages. The tensor begins `offset % DIRECT_ALIGN` bytes after the beginning of its first.
    fn extent(&self, (i, number): Chunk) -> Extent {
        let Resident { file, offset, len, .. } = self.tensors[i];
        let from = offset + number * CHUNK;
        let end = (offset + len).min(from + CHUNK);
        let skip = from % DIRECT_ALIGN;
        let need = skip + end - from;
        let len = need.next_multiple_of(DIRECT_ALIGN);
        Extent { file, offset: from - skip, len, dst: 0, need }
    }
}

impl RangeReader for ReadAhead {
    fn read(&mut self, file: usize, offset: u64, out: &mut [u8]) -> Result<usize, String> {
        let Some(chunk) = self.order.chunk(file, offset) else { return Ok(0) };
        self.order.begin(chunk.0);
        self.advance(chunk).map_err(|e| e.to_string())?;
        let Extent { offset: start, need, .. } = self.order.extent(chunk);
        let (from, end) = ((offset - start) as usize, need as usize);
        let data = self.wait(chunk).map_err(|e| e.to_string())?;
        let n = (end - from).min(out.len());
        out[..n].copy_from_slice(&data.as_slice()[from..from + n]);
        Ok(n)
    }
}

impl ReadAhead {
    /// Starts reading `chunk` and what probably follows it; lets go of the rest.
    fn advance(&mut self, chunk: Chunk) -> std::io::Result<()> {
        let mut wanted = vec![chunk];
        let mut last = chunk;
        while wanted.len() < N_CHUNKS
            && let Some(next) = self.order.next(last).filter(|next| !wanted.contains(next))
        {
            wanted.push(next);
            last = next;
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
                    None => HostBuf::new(Bytes(ROOM))?,
                };
                let ticket = self.source.request(Arc::new([self.order.extent(chunk)]), buf);
                self.held.push((chunk, Held::Coming(ticket)));
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Index;
    use crate::source::fault::MemorySource;
    use std::path::Path;
    use std::sync::Mutex;

    /// Counts the bytes that are asked for.
    #[derive(Debug)]
    struct Counting(MemorySource, Mutex<u64>);

    impl WeightSource for Counting {
        fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
            *self.1.lock().unwrap() += extents.iter().map(|e| e.len).sum::<u64>();
            self.0.request(extents, buf)
        }

        fn describe(&self) -> String {
            String::new()
        }
    }

    /// Loads all tensors of a model in an order that is no file's, but the same in every block, and asks as C does: by as much as
    /// it likes. Every byte is right, and hardly any is read twice.
    #[test]
    fn an_order_is_learned_from_the_first_block() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q8_0.gguf");
        let index = Index::open(&path).unwrap();
        let file: Arc<[u8]> = std::fs::read(&path).unwrap().into();
        let large: Vec<&TensorInfo> = index.tensors.iter().filter(|t| t.len.0 >= SMALL).collect();
        let source = Arc::new(Counting(MemorySource::new(vec![file.clone()]), Mutex::default()));
        let order = Order::new(&large, &|_| true);
        let (held, spare) = (Vec::new(), Vec::new());
        let mut reader = ReadAhead { source: source.clone(), order, held, spare };
        // Blocks in their order; in each, the roles by the alphabet.
        let mut asked: Vec<&TensorInfo> = Vec::new();
        for block in &index.blocks {
            let mut tensors: Vec<_> = block.tensors.iter().map(|&t| &index.tensors[t]).collect();
            tensors.retain(|t| t.len.0 >= SMALL);
            tensors.sort_by_key(|t| t.role());
            asked.extend(tensors);
        }
        for t in asked {
            let mut at = t.offset;
            // As C's library does after a seek.
            drop(reader.read(0, at - 100.min(at), &mut [0; 100]));
            while at < t.offset + t.len.0 {
                let mut out = vec![0; 300_000];
                let n = reader.read(0, at, &mut out).unwrap();
                let from = at as usize;
                assert!(n > 0 && out[..n] == file[from..from + n], "{} at {at}", t.name);
                at += n as u64;
            }
        }
        let (read, all) = (*source.1.lock().unwrap(), large.iter().map(|t| t.len.0).sum::<u64>());
        // Whole pages, and what was guessed wrong in the first block.
        assert!(read < all + all / 5, "{read} bytes for {all}");
    }
}
