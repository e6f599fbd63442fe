//! How tokens are chosen, as requests say it: the names that the protocols share, and those of llama-server and vLLM, each with its
//! range. It draws nothing.

use serde_json::Value;

use super::error::ApiError;
use super::fields::Fields;
use crate::engine::{Dry, Mirostat, SamplerSettings, Token};

/// The most tokens with a bias.
const MAX_BIASES: usize = 1024;
/// The most texts at which passages end, and the longest. (bytes)
const MAX_BREAKERS: usize = 8;
const MAX_BREAKER: usize = 40;
/// The most tokens that are looked back at.
const MOST: i64 = 1 << 16;

/// How tokens are chosen; what is not said is as in `default`.
pub(super) fn settings(
    fields: Fields<'_>,
    default: &SamplerSettings,
) -> Result<SamplerSettings, ApiError> {
    let number = |name, least, most, default: f32| {
        Ok::<f32, ApiError>(fields.number(name, least, most)?.unwrap_or(default))
    };
    let top_p = number("top_p", 0.0, 1.0, default.top_p)?;
    // Of nothing, nothing can be drawn: the likeliest token is always there.
    let typical_p = number("typical_p", 0.0, 1.0, default.typical_p)?;
    Ok(SamplerSettings {
        temp: number("temperature", 0.0, 100.0, default.temp)?,
        dynatemp_range: number("dynatemp_range", 0.0, 100.0, default.dynatemp_range)?,
        dynatemp_exponent: number("dynatemp_exponent", 0.0, 100.0, default.dynatemp_exponent)?,
        top_k: fields.whole("top_k", -1, 1 << 30)?.map_or(default.top_k, |k| int(k.max(0))),
        top_p: top_p.max(f32::MIN_POSITIVE),
        min_p: number("min_p", 0.0, 1.0, default.min_p)?,
        typical_p: typical_p.max(f32::MIN_POSITIVE),
        top_n_sigma: number("top_n_sigma", -1.0, 100.0, default.top_n_sigma)?,
        xtc_probability: number("xtc_probability", 0.0, 1.0, default.xtc_probability)?,
        xtc_threshold: number("xtc_threshold", 0.0, 1.0, default.xtc_threshold)?,
        repeat_penalty: repeat_penalty(fields)?.unwrap_or(default.repeat_penalty),
        frequency_penalty: number("frequency_penalty", -2.0, 2.0, default.frequency_penalty)?,
        presence_penalty: number("presence_penalty", -2.0, 2.0, default.presence_penalty)?,
        repeat_last_n: recent(fields, "repeat_last_n")?.unwrap_or(default.repeat_last_n),
        dry: dry(fields, &default.dry)?,
        mirostat: mirostat(fields, default.mirostat)?,
        logit_bias: biases(fields, &default.logit_bias)?,
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        seed: seed(fields, default.seed)?,
    })
}

fn int(n: i64) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// `repeat_penalty`, or what vLLM calls it. 0 and 1 are none.
fn repeat_penalty(fields: Fields<'_>) -> Result<Option<f32>, ApiError> {
    let known = ["repeat_penalty", "repetition_penalty"];
    let name = known.into_iter().find(|name| fields.any(name).is_some()).unwrap_or(known[0]);
    let penalty = fields.number(name, 0.0, 100.0)?;
    Ok(penalty.map(|x| if x == 0.0 { 1.0 } else { x.max(1e-3) }))
}

/// A number of tokens to look back at; negative ones mean all.
fn recent(fields: Fields<'_>, name: &str) -> Result<Option<i32>, ApiError> {
    let n = fields.whole(name, -1, i64::from(i32::MAX))?;
    Ok(n.map(|n| int(if n < 0 { MOST } else { n.min(MOST) })))
}

fn dry(fields: Fields<'_>, default: &Dry) -> Result<Dry, ApiError> {
    let breakers = match fields.any("dry_sequence_breakers") {
        None => default.breakers.clone(),
        Some(_) => {
            let texts = fields.texts("dry_sequence_breakers", MAX_BREAKERS)?;
            if texts.iter().any(|text| text.len() > MAX_BREAKER) {
                return Err(fields.wrong("dry_sequence_breakers", "at most 40 bytes long"));
            }
            texts.into_iter().map(str::to_owned).collect()
        }
    };
    let multiplier = fields.number("dry_multiplier", 0.0, 100.0)?;
    Ok(Dry {
        multiplier: multiplier.unwrap_or(default.multiplier),
        base: fields.number("dry_base", 0.0, 100.0)?.unwrap_or(default.base),
        allowed_length: fields
            .whole("dry_allowed_length", 0, MOST)?
            .map_or(default.allowed_length, int),
        penalty_last_n: recent(fields, "dry_penalty_last_n")?.unwrap_or(default.penalty_last_n),
        breakers,
    })
}

/// `mirostat`: 0 (off), 1 or 2, with `mirostat_tau` and `mirostat_eta`.
fn mirostat(fields: Fields<'_>, kept: Option<Mirostat>) -> Result<Option<Mirostat>, ApiError> {
    let default = kept.unwrap_or_default();
    let tau = fields.number("mirostat_tau", 0.0, 100.0)?.unwrap_or(default.tau);
    let eta = fields.number("mirostat_eta", 0.0, 100.0)?.unwrap_or(default.eta);
    let version = fields.whole("mirostat", 0, 2)?.and_then(|n| u8::try_from(n).ok());
    let wanted = version.or(kept.map(|kept| kept.version)).filter(|&version| version > 0);
    Ok(wanted.map(|version| Mirostat { version, tau, eta }))
}

/// Any whole number of 64 bits is a seed; its last bits count, and -1 leaves it to the clock.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the last bits are meant"
)]
fn seed(fields: Fields<'_>, default: Option<u32>) -> Result<Option<u32>, ApiError> {
    if let Some(seed) = fields.any("seed").and_then(Value::as_u64) {
        return Ok(Some(seed as u32));
    }
    match fields.whole("seed", i64::MIN, i64::MAX)? {
        None => Ok(default),
        Some(-1) => Ok(None),
        Some(seed) => Ok(Some(seed as u32)),
    }
}

/// `logit_bias`: an object of token numbers, or a list of pairs, in which `false` is a ban.
fn biases(fields: Fields<'_>, default: &[(Token, f32)]) -> Result<Vec<(Token, f32)>, ApiError> {
    let want = "an object of token numbers, or a list of pairs, with biases from -100 to 100";
    let wrong = || fields.wrong("logit_bias", want);
    let pair = |pair: &Value| match pair.as_array()?.as_slice() {
        [token, bias] => Some((Token::try_from(token.as_i64()?).ok()?, bias_of(bias)?)),
        _ => None,
    };
    let biases: Option<Vec<_>> = match fields.any("logit_bias") {
        None => return Ok(default.to_vec()),
        Some(Value::Object(map)) if map.len() <= MAX_BIASES => {
            map.iter().map(|(token, bias)| Some((token.parse().ok()?, bias_of(bias)?))).collect()
        }
        Some(Value::Array(list)) if list.len() <= MAX_BIASES => list.iter().map(pair).collect(),
        Some(_) => None,
    };
    biases.ok_or_else(wrong)
}

fn bias_of(value: &Value) -> Option<f32> {
    if value == &Value::Bool(false) {
        return Some(f32::NEG_INFINITY);
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 100")]
    let number = value.as_f64().filter(|b| b.abs() <= 100.0).map(|b| b as f32);
    // OpenAI's -100 is a ban.
    number.map(|b| if b <= -100.0 { f32::NEG_INFINITY } else { b })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(request: Value) -> Result<SamplerSettings, ApiError> {
        settings(Fields::of(request.as_object().unwrap()), &SamplerSettings::default())
    }

    #[test]
    fn samplers_have_their_names() {
        let settings = read(json!({
            "dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": -1,
            "dry_sequence_breakers": ["\n"], "xtc_probability": 0.5, "xtc_threshold": 0.2,
            "mirostat": 2, "mirostat_tau": 4, "mirostat_eta": 0.2, "typical_p": 0.9,
            "top_n_sigma": 1.5, "dynatemp_range": 0.5, "dynatemp_exponent": 2,
            "repetition_penalty": 1.25, "logit_bias": [[5, false], [6, 1.5]], "seed": u64::MAX,
        }));
        let settings = settings.unwrap();
        assert_eq!((settings.dry.multiplier, settings.dry.allowed_length), (0.8, 3));
        assert_eq!(settings.dry.breakers, ["\n"]);
        assert_eq!(settings.mirostat, Some(Mirostat { version: 2, tau: 4.0, eta: 0.2 }));
        assert_eq!((settings.xtc_probability, settings.typical_p), (0.5, 0.9));
        assert_eq!((settings.top_n_sigma, settings.dynatemp_range), (1.5, 0.5));
        assert_eq!((settings.repeat_penalty, settings.seed), (1.25, Some(u32::MAX)));
        assert_eq!(settings.logit_bias, [(5, f32::NEG_INFINITY), (6, 1.5)]);
        assert_eq!(read(json!({"seed": -1})).unwrap().seed, None);
        assert_eq!(read(json!({"mirostat": 0})).unwrap().mirostat, None);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for wrong in [
            json!({"dry_multiplier": -1}),
            json!({"dry_base": "x"}),
            json!({"dry_sequence_breakers": "x".repeat(41)}),
            json!({"dry_sequence_breakers": vec!["x"; 9]}),
            json!({"xtc_probability": 1.5}),
            json!({"mirostat": 3}),
            json!({"mirostat_tau": -1}),
            json!({"typical_p": 2}),
            json!({"top_n_sigma": 1e9}),
            json!({"dynatemp_range": -0.5}),
            json!({"logit_bias": [[1]]}),
            json!({"logit_bias": [["x", 1]]}),
            json!({"seed": 1e30}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
