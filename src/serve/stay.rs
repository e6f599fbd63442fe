//! `keep_alive`, as Ollama's clients say it: how long a model stays after a request.

use std::time::Duration;

use serde_json::{Map, Value};

/// How long a model stays when nobody asks for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// Whatever was said before.
    AsBefore,
    /// As long as models do, unless it stays for ever.
    AsUsual,
    /// So long.
    For(Duration),
    /// As long as the server.
    Always,
}

/// The longest time that is told from always.
const LONGEST: f64 = 1e9;

/// What a request says of it: seconds, or a text such as `5m` or `1h30m`; negative ones mean always. What makes no sense is as
/// good as nothing.
pub(super) fn of(body: &Map<String, Value>) -> Stay {
    let seconds = match body.get("keep_alive") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => seconds(text),
        _ => None,
    };
    match seconds.filter(|seconds| !seconds.is_nan()) {
        None => Stay::AsUsual,
        Some(seconds) if !(0.0..=LONGEST).contains(&seconds) => Stay::Always,
        Some(seconds) => Stay::For(Duration::from_secs_f64(seconds)),
    }
}

/// Go's way to write a time: numbers with units, one after the other.
fn seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    if let Ok(number) = rest.parse::<f64>() {
        return Some(sign * number);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        let units =
            [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest[end..].starts_with(unit))?;
        sum += number * factor;
        rest = &rest[end + unit.len()..];
    }
    Some(sign * sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read_as_ollama_does() {
        let of = |value: Value| super::of(json!({ "keep_alive": value }).as_object().unwrap());
        for (value, seconds) in [
            (json!(0), 0.0),
            (json!(1.5), 1.5),
            (json!("5m"), 300.0),
            (json!("1h30m"), 5400.0),
            (json!("250ms"), 0.25),
            (json!("10"), 10.0),
            (json!("0"), 0.0),
        ] {
            assert_eq!(of(value.clone()), Stay::For(Duration::from_secs_f64(seconds)), "{value}");
        }
        for value in [json!(-1), json!("-1m"), json!(1e300), json!("-1")] {
            assert_eq!(of(value.clone()), Stay::Always, "{value}");
        }
        for value in [json!(null), json!("soon"), json!("5 m"), json!("m"), json!([]), json!("")] {
            let stay = of(value.clone());
            assert!(matches!(stay, Stay::AsUsual | Stay::For(Duration::ZERO)), "{value}: {stay:?}");
        }
    }
}
