//! The header of a split model as if it had never been split, so that libllama reads its parts as one virtual file.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use ggml_sys as sys;

use super::result::{Error, not_null};

/// A parsed header, with the tensor descriptions it owns.
struct Parsed {
    gguf: NonNull<sys::gguf_context>,
    tensors: *mut sys::ggml_context,
}

impl Parsed {
    fn read(path: &Path) -> Result<Parsed, Error> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::Invalid("a path must not contain a NUL byte".into()))?;
        let mut tensors = std::ptr::null_mut();
        let params = sys::gguf_init_params { no_alloc: true, ctx: &raw mut tensors };
        // SAFETY: a C string and parameters that live during the call; `tensors` is written on success.
        let gguf = unsafe { sys::gguf_init_from_file(name.as_ptr(), params) };
        Ok(Parsed { gguf: not_null("reading the header of a part", gguf)?, tensors })
    }
}

impl Drop for Parsed {
    fn drop(&mut self) {
        // SAFETY: both were made by `gguf_init_from_file`; freeing a NULL ggml context is allowed.
        unsafe {
            sys::gguf_free(self.gguf.as_ptr());
            sys::ggml_free(self.tensors);
        }
    }
}

/// One header for several files.
#[derive(Debug)]
pub struct JoinedHeader {
    /// The header, padded to the alignment of the data that follows it.
    pub bytes: Vec<u8>,
    /// Each tensor's name and its offset behind the header, in the order of the files.
    pub tensors: Vec<(String, u64)>,
}

/// Joins the headers of the files in `paths`, the parts of a split model.
pub fn joined_header(paths: &[impl AsRef<Path>]) -> Result<JoinedHeader, Error> {
    super::init();
    let parts = paths.iter().map(|p| Parsed::read(p.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let Some((first, rest)) = parts.split_first() else {
        return Err(Error::Invalid("a model has at least one file".into()));
    };
    let joined = first.gguf.as_ptr();
    // SAFETY: valid contexts all through; tensors of the other parts are alive until `parts` is dropped, and `joined` copies
    // what it is given. Names are NUL-terminated.
    unsafe {
        for key in [c"split.no", c"split.count", c"split.tensors.count"] {
            sys::gguf_remove_key(joined, key.as_ptr());
        }
        for part in rest {
            let mut tensor = sys::ggml_get_first_tensor(part.tensors);
            while !tensor.is_null() {
                if sys::gguf_find_tensor(joined, (*tensor).name.as_ptr()) >= 0 {
                    let name = super::owned((*tensor).name.as_ptr());
                    return Err(Error::Invalid(format!("tensor '{name}' is in two parts of the model")));
                }
                sys::gguf_add_tensor(joined, tensor);
                tensor = sys::ggml_get_next_tensor(part.tensors, tensor);
            }
        }
        let mut header = vec![0_u8; sys::gguf_get_meta_size(joined)];
        sys::gguf_get_meta_data(joined, header.as_mut_ptr().cast());
        let count = sys::gguf_get_n_tensors(joined);
        let tensors = (0..count).map(|i| {
            let name = super::owned(sys::gguf_get_tensor_name(joined, i));
            (name, sys::gguf_get_tensor_offset(joined, i) as u64)
        });
        Ok(JoinedHeader { bytes: header, tensors: tensors.collect() })
    }
}
