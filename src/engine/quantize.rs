//! Smaller weights: the mixtures of types that a model can be written in, how large they are, and which of them would fit. The
//! work itself is libllama's.

use std::path::Path;

use super::Error;
use super::error::model_name;
pub use crate::ggml::QuantizeStep;
use crate::ggml::{self, QuantizeParams};
use crate::gguf::{GgmlType, Index, TensorInfo};
use crate::units::Bytes;

/// A mixture of types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantType {
    /// As people write it: `q4_k_m`.
    pub name: &'static str,
    /// `llama_ftype`.
    file_type: u32,
    /// Bits per weight of the blocks.
    bits: f64,
    /// Whether `auto` considers it: of those of about one size, the best.
    auto: bool,
}

const fn of(name: &'static str, file_type: u32, bits: f64, auto: bool) -> QuantType {
    QuantType { name, file_type, bits, auto }
}

/// All that need no statistics about the model, largest first.
pub const TYPES: [QuantType; 19] = [
    of("f32", 0, 32.0, false),
    of("bf16", 32, 16.0, false),
    of("f16", 1, 16.0, false),
    of("q8_0", 7, 8.5, true),
    of("q6_k", 18, 6.5625, true),
    of("q5_1", 9, 6.0, false),
    of("q5_k_m", 17, 5.68, true),
    of("q5_k_s", 16, 5.52, false),
    of("q5_0", 8, 5.5, false),
    of("q4_1", 3, 5.0, false),
    of("q4_k_m", 15, 4.84, true),
    of("q4_k_s", 14, 4.6, false),
    of("q4_0", 2, 4.5, false),
    of("iq4_nl", 25, 4.5, false),
    of("iq4_xs", 30, 4.3, true),
    of("q3_k_l", 13, 4.2, false),
    of("q3_k_m", 12, 3.85, true),
    of("q3_k_s", 11, 3.5, false),
    of("q2_k", 10, 3.0, true),
];

/// The output matrix is kept at this much where the blocks have less: Q6_K. (bits per weight)
const OUTPUT_BITS: f64 = 6.5625;

/// The type called `name`, however it is written.
pub fn type_named(name: &str) -> Option<&'static QuantType> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    TYPES.iter().find(|t| t.name == name)
}

impl QuantType {
    /// The type of most weights of the blocks.
    pub fn blocks_type(&self) -> GgmlType {
        // Mixtures are named by it: `q4_k_m`.
        let types = [
            ("f32", 0),
            ("f16", 1),
            ("bf16", 30),
            ("q8_0", 8),
            ("q5_1", 7),
            ("q5_0", 6),
            ("q4_1", 3),
            ("q4_0", 2),
            ("iq4_nl", 20),
            ("iq4_xs", 23),
            ("q6_k", 14),
            ("q5_k", 13),
            ("q4_k", 12),
            ("q3_k", 11),
            ("q2_k", 10),
        ];
        let named = types.iter().find(|(name, _)| self.name.starts_with(name));
        GgmlType(named.map_or(0, |(_, number)| *number))
    }

    /// Roughly what the weights of a model would take.
    pub fn estimate(&self, index: &Index) -> Bytes {
        let tied = !index.tensors.iter().any(|t| t.name == "output.weight");
        index.tensors.iter().map(|t| self.estimate_tensor(t, tied)).sum()
    }

    fn estimate_tensor(&self, tensor: &TensorInfo, tied: bool) -> Bytes {
        let is_output =
            tensor.name == "output.weight" || (tied && tensor.name == "token_embd.weight");
        let small = ["_norm", "ffn_gate_inp", "ssm_conv1d", "position_embd", "token_types"];
        let kept = tensor.shape.len() < 2 || small.iter().any(|s| tensor.name.contains(s));
        if kept || !tensor.name.ends_with("weight") {
            return tensor.len;
        }
        let bits = if is_output { self.bits.max(OUTPUT_BITS) } else { self.bits };
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        Bytes((tensor.elements() as f64 * bits / 8.0) as u64)
    }
}

/// Whether weights of a model are quantised already: quantising them again loses more than once.
pub fn is_quantised_already(index: &Index) -> bool {
    index.tensors.iter().any(|t| t.ty.is_quantised())
}

/// The types that `auto` considers for a model, largest first: those that make it smaller.
pub fn smaller(index: &Index) -> impl Iterator<Item = &'static QuantType> {
    let now = index.bytes();
    let less = move |t: &&QuantType| t.estimate(index).0 < now.0 / 100 * 97;
    TYPES.iter().filter(|t| t.auto).filter(less).collect::<Vec<_>>().into_iter()
}

/// The largest type with which the weights of a model take `room` at most, and what they would take; `None` if none does. It says
/// nothing about a model that fits as it is.
pub fn would_fit(index: &Index, room: Bytes) -> Option<(&'static QuantType, Bytes)> {
    smaller(index).map(|t| (t, t.estimate(index))).find(|(_, size)| *size <= room)
}

/// What the quantiser is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A file that was checked.
    pub index: &'a Index,
    /// Where the result goes; with `dry_run`, nowhere.
    pub output: &'a Path,
    /// The type.
    pub ty: &'static QuantType,
    /// Threads that compute.
    pub threads: u32,
    /// Takes weights that are quantised already.
    pub requantize: bool,
    /// Only counts the bytes.
    pub dry_run: bool,
}

/// Quantises. ggml may end the process: call this in one of its own.
///
/// # Errors
///
/// A file that makes no sense, or what libllama says.
pub fn run(
    request: &Request,
    on_step: impl FnMut(QuantizeStep) + Send + 'static,
) -> Result<(), Error> {
    request.index.check_model()?;
    let model = model_name(request.index);
    ggml::set_abort_context(Some(format!("quantising '{model}'")));
    let Request { ty, threads, requantize, dry_run, .. } = *request;
    let params = QuantizeParams { file_type: ty.file_type, threads, requantize, dry_run };
    let input = request.index.files.first().map(|f| f.path.as_path()).unwrap_or(Path::new(""));
    let done = ggml::quantize(input, request.output, params, on_step);
    done.map_err(|error| Error::Ggml { model, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_and_ordered() {
        assert_eq!(type_named("Q4_K_M").map(|t| t.file_type), Some(15));
        assert_eq!(type_named("q4-k-m"), type_named("q4_k_m"));
        assert_eq!(type_named("q4"), None);
        assert!(TYPES.windows(2).all(|w| w[0].bits >= w[1].bits));
    }

    #[test]
    fn estimates_are_near_the_truth() {
        let open = |name: &str| {
            let path: std::path::PathBuf =
                [env!("CARGO_MANIFEST_DIR"), "models", name].iter().collect();
            Index::open(&path).unwrap()
        };
        let large = open("tiny-chat-q8_0.gguf");
        for (name, file) in [("q8_0", "tiny-chat-q8_0.gguf"), ("q4_k_m", "tiny-chat-q4_k_m.gguf")] {
            let guess = type_named(name).unwrap().estimate(&large).f64();
            let truth = open(file).bytes().f64();
            assert!((guess / truth - 1.0).abs() < 0.06, "{name}: {guess} for {truth}");
        }
        let (ty, size) = would_fit(&large, Bytes(large.bytes().0 * 6 / 10)).unwrap();
        assert!(ty.name == "q4_k_m" && size < large.bytes(), "{} {size}", ty.name);
        assert_eq!(would_fit(&large, Bytes(1000)), None);
    }
}
