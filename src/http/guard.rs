//! Who may ask: a program on this machine that can read the token.
//!
//! Against DNS rebinding the Host header must name this very listener; against requests from web pages the Origin header,
//! where there is one, must be this listener's own, and orders must be JSON (a bundle: bytes, which no form sends either). Invariant: a request that fails any of this
//! reaches no route. Called by [`super::routes`].

use std::sync::atomic::Ordering;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::dashboard;
use super::listener::{ConnectionState, PATIENCE};
use super::parcel;
use super::problem::Problem;

/// Bytes of a body, at most.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// … and of a batch of changes.
pub(super) const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the guard compares with.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) token: String,
    pub(super) port: u16,
}

/// Lets good requests through, with their bodies read.
pub(super) async fn guard(State(expected): State<Expected>, request: Request, next: Next) -> Response {
    if let Err(problem) = check_sender(&expected, request.uri(), request.headers()) {
        return problem.into_response();
    }
    let (method, path) = (request.method(), request.uri().path());
    if !(method == Method::GET && path == "/healthz" || dashboard::is_part(method, path))
        && let Err(problem) = check_token(&expected, request.headers())
    {
        return problem.into_response();
    }
    let state =
        request.extensions().get::<ConnectInfo<ConnectionState>>().map(|info| info.0.clone()).unwrap_or_default();
    // A bundle is larger than memory: its endpoint reads it, piece by piece, with limits of its own.
    let request = match is_upload(&request) {
        true => check_kind(request.headers(), parcel::KIND, "a bundle").map(|()| request),
        false => read_body(request).await,
    };
    let request = match request {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let _answering = Answering::begin(state);
    next.run(request).await
}

fn is_upload(request: &Request) -> bool {
    request.method() == Method::POST && parcel::UPLOADS.contains(&request.uri().path())
}

/// Bodies are of the one kind that their endpoint takes.
fn check_kind(headers: &HeaderMap, wanted: &str, what: &str) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let code = if wanted == parcel::KIND { "bundle_only" } else { "json_only" };
    let detail = format!("{what} is sent with the header `Content-Type: {wanted}`");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, detail))
}

/// Keeps the connection's deadline off while an answer is made.
struct Answering(ConnectionState);

impl Answering {
    fn begin(state: ConnectionState) -> Answering {
        state.answering.store(true, Ordering::Relaxed);
        Answering(state)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.store(false, Ordering::Relaxed);
    }
}

fn check_sender(expected: &Expected, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let hosts = ["127.0.0.1", "[::1]", "localhost"].map(|host| format!("{host}:{}", expected.port));
    let mut named = headers.get_all(header::HOST).iter();
    let host = named.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = |host: &str| hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
    // A request line may name a host too, which then counts more than the header.
    let line = uri.authority().is_none_or(|authority| is_own(authority.as_str()));
    if named.next().is_some() || !is_own(host) || !line {
        let detail = format!("this API answers only as {}", hosts.join(", "));
        return Err(Problem::new(StatusCode::FORBIDDEN, "host_refused", detail));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        if !hosts.iter().any(|allowed| origin.eq_ignore_ascii_case(&format!("http://{allowed}"))) {
            let detail = "requests from other web pages are refused".to_string();
            return Err(Problem::new(StatusCode::FORBIDDEN, "origin_refused", detail));
        }
    }
    Ok(())
}

fn check_token(expected: &Expected, headers: &HeaderMap) -> Result<(), Problem> {
    let missing = || {
        let detail =
            "send the header `Authorization: Bearer TOKEN`; the token is in the file api-token of the data directory";
        Problem::new(StatusCode::UNAUTHORIZED, "token_missing", detail)
    };
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let value = given.next().filter(|_| given.next().is_none()).ok_or_else(missing)?;
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(missing)?;
    if !same(token.as_bytes(), expected.token.as_bytes()) {
        let detail = "the token is not this node's: read it again from the file api-token of the data directory";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "token_wrong", detail));
    }
    Ok(())
}

/// Compares in a time that does not tell how much was right.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len() && given.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Reads the body whole: bounded in size and time, JSON where an order is given.
async fn read_body(request: Request) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::GET && parts.method != Method::HEAD {
        check_kind(&parts.headers, "application/json", "an order")?;
    }
    let most = if parts.uri.path() == super::legacy::RECEIVE { BATCH_BYTES_MAX } else { BODY_BYTES_MAX };
    let bytes = tokio::time::timeout(PATIENCE, to_bytes(body, most))
        .await
        .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time"))?;
    let bytes = bytes.map_err(|_| {
        let detail = format!("a body may have {most} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    })?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}
