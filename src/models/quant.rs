//! The name of a quantisation in the name of a file, as publishers write it. It reads no file.

/// Words that name a quantisation, beside those that begin with `Q`, `IQ` or `TQ` and a digit.
const PLAIN: [&str; 7] = ["F16", "BF16", "F32", "FP16", "FP32", "MXFP4", "NVFP4"];

/// What a quantisation's name may go on with after `Q4`.
const TAILS: [&str; 15] =
    ["K", "S", "M", "L", "XS", "XL", "XXS", "XXL", "NL", "0", "1", "4", "8", "MOE", "P"];

/// The quantisation that a file's name (without `.gguf` and part numbers) ends with or contains, in capitals: the last one, with
/// the publisher's mark before it (`UD-Q4_K_XL`).
pub fn of_name(stem: &str) -> Option<String> {
    let upper = stem.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['-', '.', ' ', '+']).collect();
    let at = words.iter().rposition(|w| is_quant(w))?;
    let marked = at > 0 && words[at - 1] == "UD";
    Some(if marked { format!("UD-{}", words[at]) } else { words[at].to_owned() })
}

/// Whether a word in capitals names a quantisation.
fn is_quant(word: &str) -> bool {
    if PLAIN.contains(&word.split('_').next().unwrap_or_default()) {
        return word.split('_').skip(1).all(|t| TAILS.contains(&t));
    }
    let Some(rest) = ["IQ", "TQ", "Q"].iter().find_map(|p| word.strip_prefix(p)) else {
        return false;
    };
    let mut parts = rest.split('_');
    let bits = parts.next().unwrap_or_default();
    bits.len() == 1 && bits.bytes().all(|b| b.is_ascii_digit()) && parts.all(|t| TAILS.contains(&t))
}

/// Bits per weight, roughly: the order in which quantisations are alike. `None` for what is no quantisation's name.
pub fn bits(name: &str) -> Option<f64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("UD-").unwrap_or(&name);
    if name.starts_with("F32") || name.starts_with("FP32") {
        return Some(32.0);
    }
    if name.contains("F16") || name.contains("FP16") {
        return Some(16.0);
    }
    if name.contains("FP4") {
        return Some(4.25);
    }
    let rest = ["IQ", "TQ", "Q"].iter().find_map(|p| name.strip_prefix(p))?;
    let whole = f64::from(rest.chars().next()?.to_digit(10)?);
    let size = rest.split('_').next_back().unwrap_or_default();
    let more = match size {
        "XXS" => 0.06,
        "XS" => 0.25,
        "S" => 0.45,
        "M" | "K" => 0.8,
        "L" => 0.9,
        "XL" => 0.95,
        _ => 0.5,
    };
    Some(whole + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_publishers_write_them() {
        for (stem, want) in [
            ("Llama-3.2-1B-Instruct-Q4_K_M", Some("Q4_K_M")),
            ("mistral-7b-instruct-v0.2.Q5_K_S", Some("Q5_K_S")),
            ("gemma-2-2b-it-q8_0", Some("Q8_0")),
            ("Qwen3-30B-A3B-UD-Q4_K_XL", Some("UD-Q4_K_XL")),
            ("model-IQ2_XXS", Some("IQ2_XXS")),
            ("model-bf16", Some("BF16")),
            ("gpt-oss-20b-MXFP4", Some("MXFP4")),
            ("gpt-oss-20b-mxfp4_moe", Some("MXFP4_MOE")),
            ("Phi-3-mini-4k-instruct-fp16", Some("FP16")),
            ("Meta-Llama-3-8B.Q4_0_4_4", Some("Q4_0_4_4")),
            ("bitnet-TQ1_0", Some("TQ1_0")),
            ("Q4_K_M", Some("Q4_K_M")),
            ("qwen2.5-7b-instruct", None),
            ("quantum-Q-learning", None),
            ("Q42-model", None),
            ("", None),
        ] {
            assert_eq!(of_name(stem).as_deref(), want, "{stem}");
        }
    }

    #[test]
    fn quantisations_have_an_order() {
        let order = [
            "IQ2_XXS", "Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M", "Q5_K_M", "Q8_0",
            "F16",
        ];
        let bits: Vec<f64> = order.iter().map(|n| bits(n).unwrap()).collect();
        assert!(bits.windows(2).all(|w| w[0] <= w[1]), "{bits:?}");
        assert_eq!(super::bits("hello"), None);
    }
}
