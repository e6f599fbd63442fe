//! The fields of a JSON request, read with their types. Unknown fields are ignored, `null` is as good as nothing, and a wrong
//! type is an error that names the field. It knows no protocol.

use std::ops::Deref;

use axum::http::Request;
use serde_json::{Map, Value};
use tokio::task::block_in_place;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::error::ApiError;
use super::memory::{Loan, cost};
use super::server::Server;
use crate::units::Bytes;

/// A JSON object and where it is in the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What precedes a field's name in messages: nothing, or `options.`.
    path: &'static str,
}

/// A request's JSON object, and the memory that it takes.
#[derive(Debug)]
pub(super) struct Body {
    map: Map<String, Value>,
    _loan: Loan,
}

impl Deref for Body {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Map<String, Value> {
        &self.map
    }
}

/// Reads a request's body: a JSON object, whatever it calls itself.
pub(super) async fn read(
    server: &Server,
    request: Request<axum::body::Body>,
) -> Result<Body, ApiError> {
    let coding = request.headers().get(axum::http::header::CONTENT_ENCODING);
    let coding = coding.map(|coding| String::from_utf8_lossy(coding.as_bytes()).into_owned());
    if let Some(coding) = coding.filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(ApiError::coded(&coding));
    }
    let limit = server.config.max_body;
    let length = request.headers().get(axum::http::header::CONTENT_LENGTH);
    let length = length.and_then(|l| l.to_str().ok()).and_then(|l| l.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit.0) {
        return Err(ApiError::large(limit));
    }
    let mut loan = server.memory.borrow();
    let bytes = timeout(server.config.patience, collect(request, limit, &mut loan)).await;
    let bytes = bytes.map_err(|_| ApiError::slow())??;
    // Some take their time, and other clients' requests should not.
    let by_itself = bytes.len() >= LONG;
    let cost = if by_itself { block_in_place(|| cost(&bytes)) } else { cost(&bytes) };
    loan.grow(cost).await?;
    let map = if by_itself { block_in_place(|| parse(&bytes)) } else { parse(&bytes) };
    Ok(Body { map: map?, _loan: loan })
}

/// From here on, a text is parsed where nobody waits for it. (bytes)
const LONG: usize = 64 << 10;

/// All bytes of a body, in memory that `loan` borrows as they come: who says much and sends nothing takes nothing.
async fn collect(
    request: Request<axum::body::Body>,
    limit: Bytes,
    loan: &mut Loan,
) -> Result<Vec<u8>, ApiError> {
    let mut pieces = request.into_body().into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| ApiError::bad("the body is not what the head announces"))?;
        if (bytes.len() + piece.len()) as u64 > limit.0 {
            return Err(ApiError::large(limit));
        }
        // It grows by doubling.
        loan.grow(2 * (bytes.len() + piece.len())).await?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A JSON object from its text. A mark of byte order is passed over; halves of characters, as some clients send them, are replaced.
pub(super) fn parse(text: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let parsed = serde_json::from_slice(text).or_else(|error| match whole_characters(text) {
        Some(text) => serde_json::from_slice(&text),
        None => Err(error),
    });
    match parsed {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::bad("the request must be a JSON object")),
        Err(error) => Err(ApiError::bad(format!("the request is not JSON: {error}"))),
    }
}

/// A JSON text with a sign of replacement for each half of a pair of surrogates; none if it has none.
fn whole_characters(text: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut at, mut replaced) = (Vec::with_capacity(text.len()), 0, false);
    while at < text.len() {
        let high = |unit: Option<u16>| unit.is_some_and(|u| (0xd800..0xdc00).contains(&u));
        let low = |unit: Option<u16>| unit.is_some_and(|u| (0xdc00..0xe000).contains(&u));
        let n = match text[at] {
            b'\\' if high(unit(at)) && low(unit(at + 6)) => 12,
            b'\\' if high(unit(at)) || low(unit(at)) => {
                out.extend_from_slice(b"\\ufffd");
                (at, replaced) = (at + 6, true);
                continue;
            }
            b'\\' => 2,
            _ => 1,
        };
        let end = text.len().min(at + n);
        out.extend_from_slice(&text[at..end]);
        at = end;
    }
    replaced.then_some(out)
}

impl<'a> Fields<'a> {
    /// The fields of a request.
    pub(super) fn of(map: &'a Map<String, Value>) -> Fields<'a> {
        Fields { map, path: "" }
    }

    /// Any value but `null`.
    pub(super) fn any(self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// That a field is wrong.
    pub(super) fn wrong(self, name: &str, want: &str) -> ApiError {
        let param = format!("{}{name}", self.path);
        let message = format!("'{param}' must be {want}");
        ApiError::field(param, message)
    }

    fn read<T>(
        self,
        name: &str,
        want: &str,
        as_type: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let value = self.any(name);
        value.map(|v| as_type(v).ok_or_else(|| self.wrong(name, want))).transpose()
    }

    pub(super) fn text(self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.read(name, "a text", Value::as_str)
    }

    pub(super) fn flag(self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn list(self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.read(name, "a list", |v| v.as_array().map(Vec::as_slice))
    }

    /// The fields of an object inside; `path` is its name with a dot.
    pub(super) fn object(
        self,
        name: &str,
        path: &'static str,
    ) -> Result<Option<Fields<'a>>, ApiError> {
        self.read(name, "an object", |v| Some(Fields { map: v.as_object()?, path }))
    }

    /// A number from `least` to `most`.
    pub(super) fn number(self, name: &str, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
        let want = format!("a number from {least} to {most}");
        #[expect(clippy::cast_possible_truncation, reason = "samplers compute with 32 bits")]
        let fits = |v: &Value| v.as_f64().filter(|x| (least..=most).contains(x)).map(|x| x as f32);
        self.read(name, &want, fits)
    }

    /// A whole number from `least` to `most`; some clients write `5.0`.
    pub(super) fn whole(self, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
        let want = format!("a whole number from {least} to {most}");
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        let from_float = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64);
        let whole = |v: &Value| v.as_i64().or_else(|| v.as_f64().and_then(from_float));
        self.read(name, &want, |v| whole(v).filter(|x| (least..=most).contains(x)))
    }

    /// A text, or a list of at most `most` texts.
    pub(super) fn texts(self, name: &str, most: usize) -> Result<Vec<&'a str>, ApiError> {
        let want = format!("a text or a list of at most {most} texts");
        let texts = self.read(name, &want, |v| match v {
            Value::String(text) => Some(vec![text.as_str()]),
            Value::Array(items) if items.len() <= most => items.iter().map(Value::as_str).collect(),
            _ => None,
        });
        Ok(texts?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_types() {
        let map =
            parse(br#"{"a":"x","b":1.5,"c":null,"d":5.0,"e":["x","y"],"f":-3,"g":true}"#).unwrap();
        let fields = Fields::of(&map);
        assert_eq!(fields.text("a"), Ok(Some("x")));
        assert_eq!(fields.text("c"), Ok(None));
        assert_eq!(fields.text("zzz"), Ok(None));
        assert_eq!(fields.number("b", 0.0, 2.0), Ok(Some(1.5)));
        assert_eq!(fields.whole("d", 0, 9), Ok(Some(5)));
        assert_eq!(fields.texts("e", 4), Ok(vec!["x", "y"]));
        assert_eq!(fields.texts("a", 4), Ok(vec!["x"]));
        assert_eq!(fields.flag("g"), Ok(Some(true)));
        for wrong in [
            fields.text("b").err(),
            fields.number("b", 0.0, 1.0).err(),
            fields.whole("b", 0, 9).err(),
            fields.whole("f", 0, 9).err(),
            fields.texts("e", 1).err(),
            fields.flag("a").err(),
            fields.list("a").err(),
        ] {
            assert!(wrong.is_some_and(|e| e.param.is_some() && e.status == 400));
        }
    }

    #[test]
    fn halves_of_characters_are_replaced() {
        for (text, want) in [
            ("\u{feff}{\"a\": \"x\"}", "x"),
            (r#"{"a": "\ud83d\ude00"}"#, "\u{1f600}"),
            (r#"{"a": "x\ud83d"}"#, "x\u{fffd}"),
            (r#"{"a": "\ude00\ud83d\n\u0041"}"#, "\u{fffd}\u{fffd}\nA"),
            (r#"{"a": "\\ud83d\ud83d"}"#, "\\ud83d\u{fffd}"),
        ] {
            let map = parse(text.as_bytes()).unwrap();
            assert_eq!(map["a"], want, "{text}");
        }
        for text in [r#"{"a": "\ud8"#, r#"{"a": "\ud83d"#, r#"{"a": "\u"}"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = "[".repeat(100_000);
        for text in ["", "1", "[]", "{", "{\"a\":}", "\u{0}", deep.as_str()] {
            assert!(parse(text.as_bytes()).is_err(), "{text:.20}");
        }
    }
}
