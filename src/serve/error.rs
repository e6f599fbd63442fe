//! What a request is told when it cannot be served, in the words of its protocol.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::engine;

/// Whose words to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    OpenAi,
    Ollama,
    Anthropic,
}

impl Protocol {
    /// The protocol that a path belongs to.
    pub(super) fn of(path: &str) -> Protocol {
        if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            return Protocol::Anthropic;
        }
        let ollama = path.starts_with("/api/") && !path.starts_with("/api/airrun/");
        if ollama { Protocol::Ollama } else { Protocol::OpenAi }
    }
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// OpenAI's `code`, for programs.
    pub(super) code: Option<&'static str>,
    pub(super) message: String,
    /// The field that is wrong.
    pub(super) param: Option<String>,
}

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), param: None }
    }

    /// 400: the request makes no sense.
    pub(super) fn bad(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, None, message)
    }

    /// 400: this field is wrong.
    pub(super) fn field(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::bad(message) }
    }

    /// 401: without the key.
    pub(super) fn unauthorized() -> ApiError {
        let message = "this server wants its API key: 'Authorization: Bearer KEY'";
        ApiError::new(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message)
    }

    /// 403: from somewhere that may not ask.
    pub(super) fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, Some("forbidden"), message)
    }

    /// 404: another model.
    pub(super) fn no_model(name: &str, served: &str) -> ApiError {
        let message = format!("model '{name}' not found; this server has '{served}'");
        let error = ApiError::new(StatusCode::NOT_FOUND, Some("model_not_found"), message);
        ApiError { param: Some("model".to_owned()), ..error }
    }

    /// 404: no such path.
    pub(super) fn no_path(path: &str) -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            Some("not_found"),
            format!("there is no '{path}' here"),
        )
    }

    /// 404: a response that is not remembered.
    pub(super) fn no_response(id: &str) -> ApiError {
        let message = format!("Previous response with id '{id}' not found.");
        let code = Some("previous_response_not_found");
        let error = ApiError::new(StatusCode::NOT_FOUND, code, message);
        ApiError { param: Some("previous_response_id".to_owned()), ..error }
    }

    /// 404: no such stream, or not from there on.
    pub(super) fn no_stream() -> ApiError {
        let message = "this stream is not kept here, or not from there on";
        ApiError::new(StatusCode::NOT_FOUND, Some("stream_not_found"), message)
    }

    /// 409: another stream has this name.
    pub(super) fn taken(name: &str) -> ApiError {
        let message = format!("there is a stream '{name}' already");
        ApiError::new(StatusCode::CONFLICT, Some("stream_exists"), message)
    }

    /// 405: the path exists, for another method.
    pub(super) fn no_method(method: &str, path: &str) -> ApiError {
        let message = format!("'{path}' does not take {method}");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"), message)
    }

    /// 408: the body does not come.
    pub(super) fn slow() -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, None, "the request took too long to arrive")
    }

    /// 413: the body is too large.
    pub(super) fn large(limit: impl std::fmt::Display) -> ApiError {
        let message = format!("the request is larger than {limit}");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message)
    }

    /// 415: the body is packed.
    pub(super) fn coded(coding: &str) -> ApiError {
        let coding: String = coding.chars().filter(|c| !c.is_control()).take(40).collect();
        let message = format!("bodies are taken as they are, not as '{coding}'");
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Some("unsupported_media_type"), message)
    }

    /// 413: reading it takes more memory than there is for requests.
    pub(super) fn greedy(all: impl std::fmt::Display) -> ApiError {
        let message = format!(
            "reading this request takes more than the {all} that are set aside for requests; --ram sets more aside"
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message)
    }

    /// 429: others have the memory for requests.
    pub(super) fn crowded() -> ApiError {
        let message = "too much is being sent at once; try again later";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, Some("too_much_at_once"), message)
    }

    /// Something that another layer answered, in our words.
    pub(super) fn other(status: StatusCode) -> ApiError {
        let reason = status.canonical_reason().unwrap_or("it cannot be answered");
        ApiError::new(status, None, format!("the request makes no sense: {reason}"))
    }

    /// 429: no room in the queue.
    pub(super) fn busy() -> ApiError {
        let message = "too many requests are waiting; try again later";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, Some("queue_full"), message)
    }

    /// 503: loading, or about to end.
    pub(super) fn unavailable(message: &str) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Some("unavailable"), message)
    }

    /// 500: our fault.
    pub(super) fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, Some("internal_error"), message)
    }

    /// 400: more `tokens` than there is room for. The sentence is OpenAI's: clients look for it, and shorten what they send.
    pub(super) fn too_long(tokens: usize, room: usize) -> ApiError {
        let message = format!(
            "This model's maximum context length is {room} tokens. However, your messages resulted in {tokens} tokens. Please \
             reduce the length of the messages: the context has room for {room} (airrun's -c makes it larger).",
        );
        let code = Some("context_length_exceeded");
        ApiError { code, param: Some("messages".to_owned()), ..ApiError::bad(message) }
    }

    /// What the engine says, with the status that fits.
    pub(super) fn engine(error: &engine::Error) -> ApiError {
        use engine::Error as E;
        let message = match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        match error {
            E::ContextTooSmall { tokens, room } => ApiError::too_long(*tokens, *room),
            E::EmptyPrompt | E::NoSuchToken { .. } | E::NoTokenizer { .. } | E::Request(_) => {
                ApiError::bad(message)
            }
            E::NotForText { .. } => ApiError::bad(message),
            E::Interrupted => ApiError::unavailable("the server is stopping"),
            _ => ApiError::internal(message),
        }
    }

    /// The body.
    pub(super) fn json(&self, protocol: Protocol) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        let Self { message, param, code, .. } = self;
        match protocol {
            Protocol::OpenAi => {
                json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
            }
            Protocol::Ollama => json!({ "error": message }),
            Protocol::Anthropic => {
                let kind = match self.status.as_u16() {
                    404 => "not_found_error",
                    413 => "request_too_large",
                    503 => "overloaded_error",
                    500.. => "api_error",
                    _ => kind,
                };
                // The words that its clients look for.
                let is_long = *code == Some("context_length_exceeded");
                let begin = if is_long { "prompt is too long: " } else { "" };
                json!({"type": "error", "error": {"type": kind, "message": format!("{begin}{message}")}})
            }
        }
    }

    /// The answer.
    pub(super) fn response(&self, protocol: Protocol) -> Response {
        let mut response = (self.status, Json(self.json(protocol))).into_response();
        let headers = response.headers_mut();
        if matches!(self.status.as_u16(), 429 | 503) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Leaves the body to `guard`, which knows the protocol.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
