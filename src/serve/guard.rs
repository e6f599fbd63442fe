//! What every request passes on its way in, and every answer on its way out: where it comes from, the key, pages of other
//! origins, panics, and errors in the words of their protocol.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::error::{ApiError, Protocol};
use super::server::Server;
use crate::os::system::host_name;

/// Lets a request in, and dresses its answer.
pub(super) async fn guard(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let protocol = Protocol::of(&path);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = match admit(&server, &request) {
        Err(error) => error.into_response(),
        Ok(()) if is_preflight(&request) => StatusCode::NO_CONTENT.into_response(),
        // Answers while the model loads would have nothing to say; the page and what tells how far it is are there.
        Ok(()) => caught(next.run(request)).await,
    };
    let is_plain = |response: &Response| {
        let kind = response.headers().get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.response(protocol);
    } else if response.status().is_client_error() && is_plain(&response) {
        // What a layer below says of a path that it cannot read.
        response = ApiError::other(response.status()).response(protocol);
    }
    server.metrics.answered(&path, response.status());
    share(&server, origin.as_ref(), asked, &mut response);
    response
}

fn admit(server: &Server, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    if !is_meant(server, headers)? {
        let what = "this server does not answer to this name; --host-name NAME lets it in";
        return Err(ApiError::forbidden(what));
    }
    if !same_origin(headers) && !shared_with(server, headers.get(header::ORIGIN)) {
        return Err(ApiError::forbidden("pages of this origin may not call; see --cors"));
    }
    if is_preflight(request) {
        return Ok(());
    }
    if server.is_draining() {
        return Err(ApiError::unavailable("the server is stopping"));
    }
    match &server.config.api_key {
        Some(key) if !is_public(request.uri().path()) && !shows(headers, key) => {
            Err(ApiError::unauthorized())
        }
        _ => Ok(()),
    }
}

/// What needs no key: whether the server lives, and the page that asks for the key.
fn is_public(path: &str) -> bool {
    path == "/health" || path == "/" || path.starts_with("/assets/")
}

/// Whether a request shows the key. Hashes are compared, so that the time tells nothing of where they differ.
fn shows(headers: &HeaderMap, key: &str) -> bool {
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    let shown = bearer.or(headers.get("x-api-key").map(HeaderValue::as_bytes)).unwrap_or_default();
    let differ =
        Sha256::digest(shown).iter().zip(Sha256::digest(key)).fold(0, |d, (a, b)| d | (a ^ b));
    differ == 0
}

/// Whether a request was meant for this machine: a page that made its own name point here says its name. Who shows the key is no such
/// page, unless the server is for this machine alone.
///
/// # Errors
///
/// 400: several names, of which others on the way may have read another one.
fn is_meant(server: &Server, headers: &HeaderMap) -> Result<bool, ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else { return Ok(true) };
    if hosts.next().is_some() {
        return Err(ApiError::bad("the request has several Host headers"));
    }
    let loopback = server.address.ip().is_loopback();
    if !loopback && server.config.api_key.is_some() {
        return Ok(true);
    }
    let Ok(host) = host.to_str() else { return Ok(false) };
    let name = without_port(host);
    let ip: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
    let is_ip = ip.is_some_and(|ip| ip.is_loopback() || !loopback);
    Ok(is_ip || is_name_of_here(name, &server.config.host_names))
}

/// Whether a name is one that no stranger can have: those that are kept for this machine and its network, its own, and those that
/// the user names.
fn is_name_of_here(name: &str, named: &[String]) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let kept = ["localhost", "local", "internal"];
    let last = name.rsplit_once('.').filter(|(before, _)| !before.is_empty());
    let is_kept = name == "localhost" || last.is_some_and(|(_, last)| kept.contains(&last));
    let own = host_name().is_some_and(|own| own.eq_ignore_ascii_case(&name));
    is_kept || (own && !name.is_empty()) || named.iter().any(|n| n.eq_ignore_ascii_case(&name))
}

/// `[::1]:80` and `localhost:80` without the port.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(at) if host[at + 1..].bytes().all(|byte| byte.is_ascii_digit()) => &host[..at],
        _ => host,
    }
}

/// Whether a request comes from no page, or from a page of this server.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let origin = origin.as_bytes();
    let rest = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

/// Whether pages of `origin` may call: those that the user names, programs that are no pages, and pages of this machine.
fn shared_with(server: &Server, origin: Option<&HeaderValue>) -> bool {
    let allowed = server.config.cors.as_deref().unwrap_or_default();
    let mut allowed = allowed.split(',').map(str::trim);
    let Some(origin) = origin.and_then(|origin| origin.to_str().ok()) else { return false };
    is_program(origin) || is_of_here(origin) || allowed.any(|a| a == "*" || a == origin)
}

/// Origins that no page of the web can have: programs that show pages of their own, and what is built into browsers.
fn is_program(origin: &str) -> bool {
    let schemes = [
        "app:",
        "file:",
        "tauri:",
        "vscode-webview:",
        "vscode-file:",
        "chrome-extension:",
        "moz-extension:",
        "safari-web-extension:",
    ];
    schemes.iter().any(|scheme| origin.starts_with(scheme))
}

/// Whether an origin is a server on this machine, such as the one that somebody writes a page with.
fn is_of_here(origin: &str) -> bool {
    let rest = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
    rest.is_some_and(|host| {
        let name = without_port(host);
        let ip: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
        name.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback())
    })
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ORIGIN)
}

/// Tells browsers that pages of `origin` may read the answer, if they may, and send the headers that they `asked` for.
fn share(
    server: &Server,
    origin: Option<&HeaderValue>,
    asked: Option<HeaderValue>,
    response: &mut Response,
) {
    let Some(origin) = origin.filter(|o| shared_with(server, Some(o))) else { return };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    let methods = HeaderValue::from_static("GET, POST, DELETE, HEAD, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let usual = HeaderValue::from_static("Authorization, Content-Type, X-Api-Key, X-Airrun-Stream");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(usual));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
}

/// A task that ends with whoever waits for it: when the client goes, its handler goes.
struct Owned(JoinHandle<Response>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a handler; if it panics, that is its answer.
async fn caught(handler: impl Future<Output = Response> + Send + 'static) -> Response {
    let mut task = Owned(tokio::spawn(handler));
    match (&mut task.0).await {
        Ok(response) => response,
        Err(_) => ApiError::internal("this request made the server stumble").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(header::HeaderName, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_of_this_machine_are_let_in() {
        let server = |ip: [u8; 4], key: Option<&str>| {
            let mut config = super::super::tests::config();
            config.api_key = key.map(str::to_owned);
            config.host_names = vec!["llm.example.org".to_owned()];
            Server::new(config, (ip, 80).into())
        };
        let (here, all) = (server([127, 0, 0, 1], None), server([0, 0, 0, 0], None));
        let meant = |server: &Server, host: &str| {
            is_meant(server, &headers(&[(header::HOST, host)])).unwrap()
        };
        let own = host_name().unwrap();
        for host in [
            "localhost",
            "LOCALHOST:80",
            "localhost.:80",
            "127.0.0.1:11435",
            "127.8.8.8",
            "[::1]",
            "[::1]:80",
            "host.docker.internal:80",
            "nas.local",
            "api.localhost",
            "LLM.example.org:80",
            own.as_str(),
        ] {
            assert!(meant(&here, host) && meant(&all, host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.internal.example",
            "",
            ":80",
            ".local",
            "llm.example.org.evil",
        ] {
            assert!(!meant(&here, host) && !meant(&all, host), "{host}");
            assert!(meant(&server([0, 0, 0, 0], Some("key")), host), "{host}");
            assert!(!meant(&server([127, 0, 0, 1], Some("key")), host), "{host}");
        }
        // Pages have names: who says a number means this machine, if its network can reach it.
        for host in ["10.0.0.1", "[2001:db8::2]:80"] {
            assert!(!meant(&here, host) && meant(&all, host), "{host}");
        }
        assert!(is_meant(&here, &HeaderMap::new()).unwrap());
        let mut two = headers(&[(header::HOST, "localhost")]);
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(is_meant(&here, &two).unwrap_err().status, 400);
    }

    #[test]
    fn pages_of_other_origins_are_told_apart() {
        for (origin, same) in [
            ("http://localhost:80", true),
            ("https://localhost:80", true),
            ("http://localhost:81", false),
            ("http://evil.example", false),
            ("null", false),
        ] {
            let of = [(header::HOST, "localhost:80"), (header::ORIGIN, origin)];
            assert_eq!(same_origin(&headers(&of)), same, "{origin}");
        }
    }

    #[test]
    fn programs_and_pages_of_this_machine_may_call() {
        let mut config = super::super::tests::config();
        config.cors = Some("https://a.example, https://b.example".to_owned());
        let server = Server::new(config, ([127, 0, 0, 1], 80).into());
        let may = |origin: &str| shared_with(&server, Some(&origin.parse().unwrap()));
        for origin in [
            "https://a.example",
            "https://b.example",
            "app://obsidian.md",
            "tauri://localhost",
            "vscode-webview://1a2b",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:5173",
        ] {
            assert!(may(origin), "{origin}");
        }
        for origin in [
            "null",
            "https://c.example",
            "http://localhost.evil.example",
            "http://10.0.0.1",
            "https://app.example",
            "http://evil.example/?http://localhost",
            "",
        ] {
            assert!(!may(origin), "{origin}");
        }
    }

    #[test]
    fn keys_are_shown_in_two_ways() {
        for (name, value, right) in [
            (header::AUTHORIZATION, "Bearer secret", true),
            (header::AUTHORIZATION, "Bearer Secret", false),
            (header::AUTHORIZATION, "Basic secret", false),
            (header::HeaderName::from_static("x-api-key"), "secret", true),
            (header::HeaderName::from_static("x-api-key"), "", false),
        ] {
            assert_eq!(shows(&headers(&[(name, value)]), "secret"), right, "{value}");
        }
        assert!(!shows(&HeaderMap::new(), "secret"));
    }
}
