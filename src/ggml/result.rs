//! What C answers, as `Result`: statuses, NULL and false.

use std::ptr::NonNull;

/// Why ggml or libllama refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A computation ended with a status other than success.
    #[error("{what} failed")]
    Failed {
        /// What was asked.
        what: &'static str,
    },
    /// A computation was stopped on request.
    #[error("stopped on request")]
    Aborted,
    /// Memory for something could not be had.
    #[error("not enough memory for {what}")]
    NoMemory {
        /// What it was for.
        what: &'static str,
    },
    /// NULL came back; `why` is what libllama logged about it.
    #[error("{what} failed: {why}")]
    Null {
        /// What was asked.
        what: &'static str,
        /// libllama's own words.
        why: String,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Unfit(&'static str),
    /// An argument that libllama would have aborted on.
    #[error("{0}")]
    Invalid(String),
}

/// A `ggml_status` as a result.
pub(super) fn check(what: &'static str, status: ggml_sys::ggml_status) -> Result<(), Error> {
    match status {
        ggml_sys::GGML_STATUS_SUCCESS => Ok(()),
        ggml_sys::GGML_STATUS_ABORTED => Err(Error::Aborted),
        ggml_sys::GGML_STATUS_ALLOC_FAILED => Err(Error::NoMemory { what }),
        _ => Err(Error::Failed { what }),
    }
}

/// A pointer that must not be NULL; libllama's last words are the reason if it is.
pub(super) fn not_null<T>(what: &'static str, ptr: *mut T) -> Result<NonNull<T>, Error> {
    NonNull::new(ptr).ok_or_else(|| Error::Null { what, why: super::log::take_reason() })
}
