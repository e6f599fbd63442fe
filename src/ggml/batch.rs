//! Several sequences in one context: batches that mix their tokens, and what a context remembers of each.
#![allow(unsafe_code)]

use ggml_sys as sys;

use super::context::{Context, Part};
use super::model::Token;
use super::result::{Error, not_null};

/// One token of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchToken {
    /// The token.
    pub token: Token,
    /// Its place in its sequence: the number of tokens before it.
    pub position: usize,
    /// The sequence of its text.
    pub sequence: u32,
    /// Whether it is in that sequence ...
    pub own: bool,
    /// ... and in these, as many as the second number says: ways that a text may go.
    pub ways: (u32, u32),
    /// Whether the logits after it are wanted.
    pub output: bool,
}

impl BatchToken {
    /// A token of one sequence.
    pub fn new(token: Token, position: usize, sequence: u32, output: bool) -> BatchToken {
        BatchToken { token, position, sequence, own: true, ways: (0, 0), output }
    }

    fn sequences(&self) -> impl Iterator<Item = u32> {
        let (from, n) = self.ways;
        let ways = (0..n).map(move |i| from.saturating_add(i));
        self.own.then_some(self.sequence).into_iter().chain(ways)
    }
}

/// The arrays that C wants of a batch.
struct Columns {
    tokens: Vec<Token>,
    positions: Vec<sys::llama_pos>,
    counts: Vec<i32>,
    sequences: Vec<sys::llama_seq_id>,
    outputs: Vec<i8>,
}

impl Columns {
    fn of(batch: &[BatchToken]) -> Columns {
        let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        Columns {
            tokens: batch.iter().map(|t| t.token).collect(),
            positions: batch.iter().map(|t| number(t.position)).collect(),
            counts: batch.iter().map(|t| number(t.sequences().count())).collect(),
            sequences: batch
                .iter()
                .flat_map(BatchToken::sequences)
                .map(|sequence| number(sequence as usize))
                .collect(),
            outputs: batch.iter().map(|t| i8::from(t.output)).collect(),
        }
    }
}

impl Context {
    /// Computes a batch: each sequence's tokens in order, behind what the context has of it. Afterwards the logits that were
    /// wanted are there.
    pub fn decode_batch(&mut self, batch: &[BatchToken]) -> Result<(), Error> {
        if matches!(self.part, Part::Head | Part::Beside | Part::Block) {
            return Err(Error::Invalid("a head without what it reads".into()));
        }
        self.decode_with(batch, None)
    }

    /// As [`Context::decode_batch`]; a head reads a row of `hidden` with each token, or in its place.
    pub(super) fn decode_with(
        &mut self,
        batch: &[BatchToken],
        hidden: Option<&[f32]>,
    ) -> Result<(), Error> {
        self.check(batch)?;
        self.is_computed = false;
        let mut columns = Columns::of(batch);
        let mut rest = columns.sequences.as_mut_slice();
        let mut rows: Vec<*mut sys::llama_seq_id> = Vec::with_capacity(batch.len());
        for &n in &columns.counts {
            let (row, after) = rest.split_at_mut(usize::try_from(n).unwrap_or(0));
            rows.push(row.as_mut_ptr());
            rest = after;
        }
        let raw = sys::llama_batch {
            n_tokens: i32::try_from(batch.len()).unwrap_or(i32::MAX),
            token: match (self.part, hidden) {
                (Part::Block, Some(_)) => std::ptr::null_mut(),
                _ => columns.tokens.as_mut_ptr(),
            },
            // libllama only reads it, although its type says otherwise.
            embd: hidden.map_or(std::ptr::null_mut(), |rows| rows.as_ptr().cast_mut()),
            pos: columns.positions.as_mut_ptr(),
            n_seq_id: columns.counts.as_mut_ptr(),
            seq_id: rows.as_mut_ptr(),
            logits: columns.outputs.as_mut_ptr(),
        };
        let _call = super::log::call();
        let _leased = self.threads.lease();
        // SAFETY: a valid context; every column has as many entries as the batch, and lives during the call.
        let code = unsafe { sys::llama_decode(self.ptr.as_ptr(), raw) };
        self.is_computed = code == 0;
        self.outcome("computing the answers", code)
    }

    /// What libllama would fail an assert on.
    fn check(&self, batch: &[BatchToken]) -> Result<(), Error> {
        let vocab = self.model().vocab();
        // SAFETY: a valid context.
        let most = unsafe { sys::llama_n_batch(self.ptr.as_ptr()) } as usize;
        let outputs = batch.iter().filter(|t| t.output).count();
        let unknown = |t: &BatchToken| t.sequences().any(|sequence| sequence >= self.n_seqs());
        let none = |t: &BatchToken| !t.own && t.ways.1 == 0;
        let wrong = |t: &BatchToken| !vocab.contains(t.token) || none(t) || unknown(t);
        if batch.is_empty() || batch.len() > most || batch.iter().any(wrong) {
            return Err(Error::Invalid("a batch that does not fit the context".into()));
        }
        if outputs > self.n_outputs() {
            return Err(Error::Invalid("more results than the context has room for".into()));
        }
        Ok(())
    }

    /// The logits after token `i` of the last batch, for which they were wanted.
    pub fn logits_of(&self, i: usize) -> Result<&[f32], Error> {
        let i = i32::try_from(i).unwrap_or(i32::MAX);
        // SAFETY: a valid context; NULL if there are none for this token.
        let logits = unsafe { sys::llama_get_logits_ith(self.ptr.as_ptr(), i) };
        let logits = not_null("reading the logits", logits)?;
        // SAFETY: the row holds as many numbers as the vocabulary has tokens, until the next batch.
        Ok(unsafe { std::slice::from_raw_parts(logits.as_ptr(), self.model().vocab().len()) })
    }

    /// Forgets what `sequence` has from position `n` on. False if this memory cannot forget a part; then nothing changed, and
    /// `n` = 0 is the way out.
    pub fn truncate_sequence(&mut self, sequence: u32, n: usize) -> bool {
        // SAFETY: a valid context; its memory is NULL for models that keep none.
        let memory = unsafe { sys::llama_get_memory(self.ptr.as_ptr()) };
        let (Ok(id), Ok(n)) = (i32::try_from(sequence), i32::try_from(n)) else { return false };
        if memory.is_null() || sequence >= self.n_seqs() {
            return memory.is_null();
        }
        // SAFETY: a valid memory, and one of its sequences.
        unsafe { sys::llama_memory_seq_rm(memory, id, n, -1) }
    }

    /// Whether `sequence`, of which `n` tokens are left, can go on: models that look back through a window drop what is before
    /// it, and with it what an earlier token would look back at.
    pub fn can_go_on(&self, sequence: u32, n: usize) -> bool {
        let Some(window) = self.model().window() else { return true };
        // SAFETY: a valid context; its memory is NULL for models that keep none.
        let memory = unsafe { sys::llama_get_memory(self.ptr.as_ptr()) };
        if memory.is_null() || sequence >= self.n_seqs() || n == 0 {
            return true;
        }
        // SAFETY: a valid memory, and one of its sequences.
        let first = unsafe { sys::llama_memory_seq_pos_min(memory, sequence.cast_signed()) };
        usize::try_from(first).is_ok_and(|first| first <= n.saturating_sub(window))
    }

    /// Lets `to` begin with all that `from` has; what `to` had is forgotten.
    pub fn copy_sequence(&mut self, from: u32, to: u32) {
        // SAFETY: a valid context; its memory is NULL for models that keep none.
        let memory = unsafe { sys::llama_get_memory(self.ptr.as_ptr()) };
        let known = from < self.n_seqs() && to < self.n_seqs();
        if memory.is_null() || !known || from == to || !self.truncate_sequence(to, 0) {
            return;
        }
        // SAFETY: a valid memory, and two of its sequences; all of it is copied, which every kind of memory can.
        unsafe { sys::llama_memory_seq_cp(memory, from.cast_signed(), to.cast_signed(), -1, -1) };
    }

    /// Gives `to` what `from` has from position `begin` up to `end`, in a memory that keeps tokens one by one.
    pub fn copy_part(&mut self, from: u32, to: u32, begin: usize, end: usize) {
        // SAFETY: a valid context; its memory is NULL for models that keep none.
        let memory = unsafe { sys::llama_get_memory(self.ptr.as_ptr()) };
        let known = from < self.n_seqs() && to < self.n_seqs() && from != to;
        let (Ok(begin), Ok(end)) = (i32::try_from(begin), i32::try_from(end)) else { return };
        if memory.is_null() || !known || self.model().has_state() {
            return;
        }
        // SAFETY: a valid memory, and two of its sequences, which share one buffer.
        unsafe {
            sys::llama_memory_seq_cp(memory, from.cast_signed(), to.cast_signed(), begin, end);
        }
    }

    /// What the model keeps as one state of `sequence`, which cannot be taken back otherwise: what it keeps token by token is not in it.
    pub fn save_state(&mut self, sequence: u32) -> Option<Vec<u8>> {
        let (id, part) = (sequence.cast_signed(), sys::LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
        if sequence >= self.n_seqs() {
            return None;
        }
        // SAFETY: a valid context, one of its sequences, and room for as much as libllama says.
        unsafe {
            let n = sys::llama_state_seq_get_size_ext(self.ptr.as_ptr(), id, part);
            let mut bytes = vec![0_u8; n];
            let got = sys::llama_state_seq_get_data_ext(
                self.ptr.as_ptr(),
                bytes.as_mut_ptr(),
                n,
                id,
                part,
            );
            (n > 0 && got == n).then_some(bytes)
        }
    }

    /// Brings `sequence` back to a state that was saved of it, when it had `n` tokens. False if that failed.
    pub fn restore_state(&mut self, sequence: u32, state: &[u8], n: usize) -> bool {
        let (id, part) = (sequence.cast_signed(), sys::LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
        if sequence >= self.n_seqs() {
            return false;
        }
        // SAFETY: a valid context, one of its sequences, and bytes that came from it.
        let read = unsafe {
            let (ptr, len) = (state.as_ptr(), state.len());
            sys::llama_state_seq_set_data_ext(self.ptr.as_ptr(), ptr, len, id, part)
        };
        // What is kept token by token is forgotten from there on; the state is that of the last one that stays.
        read == state.len() && self.truncate_sequence(sequence, n)
    }
}
