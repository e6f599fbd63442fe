//! libllama's quantiser. It reads a file and writes a file; how far it is, it says in its log only.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;

use ggml_sys as sys;

use super::log;
use super::result::Error;

/// Rows that are converted at a time take no more than this. (bytes)
const BUFFER: usize = 256 << 20;

/// What the quantiser is told.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeParams {
    /// `llama_ftype`: the mixture of types.
    pub file_type: u32,
    /// Threads that compute.
    pub threads: u32,
    /// Takes weights that are quantised already.
    pub requantize: bool,
    /// Only counts the bytes.
    pub dry_run: bool,
}

/// How far the quantiser is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuantizeStep {
    /// It begins with tensor `.0` of `.1`, counted from 1.
    Tensor(u32, u32),
    /// The weights will take, or take, so many bytes.
    Size(u64),
}

/// Writes the weights of `input` to `output` as another type. ggml may end the process on a file that makes no sense, so this is
/// for a process of its own.
pub fn quantize(
    input: &Path,
    output: &Path,
    params: QuantizeParams,
    mut on_step: impl FnMut(QuantizeStep) + Send + 'static,
) -> Result<(), Error> {
    super::init();
    let text = |path: &Path| {
        let bytes = path.as_os_str().as_encoded_bytes();
        CString::new(bytes).map_err(|_| Error::Invalid("a path must not contain a NUL byte".into()))
    };
    let (from, to) = (text(input)?, text(output)?);
    // SAFETY: no arguments; returns plain data.
    let mut raw = unsafe { sys::llama_model_quantize_default_params() };
    raw.ftype = params.file_type;
    raw.nthread = i32::try_from(params.threads).unwrap_or(1);
    raw.allow_requantize = params.requantize;
    raw.dry_run = params.dry_run;
    raw.max_buf_size = BUFFER;
    drop(log::take_messages());
    let _call = log::call();
    let listening = log::listen(move |line| {
        if let Some(step) = step(line) {
            on_step(step);
        }
    });
    // SAFETY: two C strings and parameters without pointers, valid during the call; exceptions end inside it.
    let status = unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw) };
    drop(listening);
    if status == 0 {
        return Ok(());
    }
    let why = log::take_messages();
    let reason = why.iter().rev().find_map(|m| m.split_once("failed to quantize: "));
    let why = reason.map_or_else(|| why.join("; "), |(_, reason)| reason.trim().to_owned());
    Err(Error::Null { what: "quantising", why })
}

/// What a line of the log says: `[   3/ 39] blk.0...`, or `...: quant size  =     3.28 MiB (4.77 BPW)`.
fn step(line: &str) -> Option<QuantizeStep> {
    if let Some(numbers) = line.strip_prefix('[') {
        let (i, n) = numbers.split_once(']')?.0.split_once('/')?;
        return Some(QuantizeStep::Tensor(i.trim().parse().ok()?, n.trim().parse().ok()?));
    }
    let mib: f64 = line
        .split_once("quant size")?
        .1
        .trim_start()
        .strip_prefix('=')?
        .trim_start()
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    if !mib.is_finite() || mib < 0.0 {
        return None;
    }
    // The log rounds to hundredths.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
    let bytes = ((mib + 0.01) * 1_048_576.0) as u64;
    Some(QuantizeStep::Size(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_how_far_it_is() {
        assert_eq!(
            step("[   3/  39] blk.0.x - [256], type = f32, "),
            Some(QuantizeStep::Tensor(3, 39))
        );
        let size = step("llama_model_quantize_impl: quant size  =     2.00 MiB (4.77 BPW)\n");
        assert_eq!(size, Some(QuantizeStep::Size(2_107_637)));
        for line in ["", "[", "[1]", "[a/b]", "quant size", "size = 3 MiB"] {
            assert_eq!(step(line), None, "{line}");
        }
    }
}
