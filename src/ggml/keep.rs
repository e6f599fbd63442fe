//! What a context remembers of a sequence, written to a file and read back: in libllama's own form, which it checks against the
//! context but not against harm. Who reads a file must know that it is as it was written.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;

use ggml_sys as sys;

use super::context::Context;
use super::model::Token;
use super::result::Error;

impl Context {
    /// What a file of `sequence` takes, without its tokens. (bytes)
    pub fn sequence_bytes(&mut self, sequence: u32) -> u64 {
        let Some(id) = self.known(sequence) else { return 0 };
        // SAFETY: a valid context, and one of its sequences.
        unsafe { sys::llama_state_seq_get_size(self.ptr.as_ptr(), id) as u64 }
    }

    /// Writes what the context has of `sequence`, whose text `tokens` is, over `file`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save_sequence(
        &mut self,
        sequence: u32,
        file: &Path,
        tokens: &[Token],
    ) -> Result<(), Error> {
        let failed = Error::Failed { what: "writing what the context has of a text" };
        let (Some(id), Ok(path)) = (self.known(sequence), c_path(file)) else { return Err(failed) };
        // SAFETY: a valid context, one of its sequences, a C string, and as many tokens as said. C++'s exceptions end inside.
        let written = unsafe {
            let (tokens, n) = (tokens.as_ptr(), tokens.len());
            sys::llama_state_seq_save_file(self.ptr.as_ptr(), path.as_ptr(), id, tokens, n)
        };
        if written == 0 { Err(failed) } else { Ok(()) }
    }

    /// Lets `sequence`, of which the context has nothing, be what `file` says; its text, of at most `most` tokens.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is of another kind of context, or does not fit. Then the sequence is to be forgotten.
    pub fn load_sequence(
        &mut self,
        sequence: u32,
        file: &Path,
        most: usize,
    ) -> Result<Vec<Token>, Error> {
        let failed = Error::Failed { what: "reading what a context had of a text" };
        let (Some(id), Ok(path)) = (self.known(sequence), c_path(file)) else { return Err(failed) };
        let mut tokens: Vec<Token> = vec![0; most];
        let mut n = 0_usize;
        // SAFETY: a valid context, one of its sequences, a C string, and room for as many tokens as said. C++'s exceptions end inside.
        let read = unsafe {
            let room = tokens.as_mut_ptr();
            let context = self.ptr.as_ptr();
            sys::llama_state_seq_load_file(context, path.as_ptr(), id, room, most, &raw mut n)
        };
        if read == 0 || n > most {
            return Err(failed);
        }
        tokens.truncate(n);
        Ok(tokens)
    }

    /// libllama's name of a sequence, if it has one and the model remembers any.
    fn known(&self, sequence: u32) -> Option<sys::llama_seq_id> {
        // SAFETY: a valid context; its memory is NULL for models that keep none.
        let memory = unsafe { sys::llama_get_memory(self.ptr.as_ptr()) };
        (!memory.is_null() && sequence < self.n_seqs()).then_some(sequence.cast_signed())
    }
}

fn c_path(file: &Path) -> Result<CString, std::ffi::NulError> {
    CString::new(file.as_os_str().as_encoded_bytes())
}
