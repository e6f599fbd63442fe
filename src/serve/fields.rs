//! The fields of a JSON request, read with their types. Unknown fields are ignored, `null` is as good as nothing, and a wrong
//! type is an error that names the field. It knows no protocol.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::server::Server;

/// A JSON object and where it is in the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What precedes a field's name in messages: nothing, or `options.`.
    path: &'static str,
}

/// Reads a request's body: a JSON object, whatever it calls itself.
pub(super) async fn read(
    server: &Server,
    request: Request<Body>,
) -> Result<Map<String, Value>, ApiError> {
    let limit = server.config.max_body;
    let too_large = || ApiError::large(limit);
    let length = request.headers().get(axum::http::header::CONTENT_LENGTH);
    let length = length.and_then(|l| l.to_str().ok()).and_then(|l| l.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit.0) {
        return Err(too_large());
    }
    let body = axum::body::to_bytes(request.into_body(), limit.usize());
    match tokio::time::timeout(server.config.patience, body).await {
        Err(_) => Err(ApiError::slow()),
        // The limit is the one thing that can go wrong while the client is there.
        Ok(Err(_)) => Err(too_large()),
        Ok(Ok(bytes)) => parse(&bytes),
    }
}

/// A JSON object from its text.
pub(super) fn parse(text: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::bad("the request must be a JSON object")),
        Err(error) => Err(ApiError::bad(format!("the request is not JSON: {error}"))),
    }
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
    fn what_is_no_object_is_refused() {
        let deep = "[".repeat(100_000);
        for text in ["", "1", "[]", "{", "{\"a\":}", "\u{0}", deep.as_str()] {
            assert!(parse(text.as_bytes()).is_err(), "{text:.20}");
        }
    }
}
