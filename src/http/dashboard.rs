//! The dashboard: a page and its parts, compiled in, served as they are.
//!
//! Nothing of the node is in them, so they need no token: the page asks the API with the token that a person typed once,
//! or that came in the fragment of a link (which no browser sends to any server). Invariant: every part is a constant;
//! the policy sent with them lets a browser run no script and load no style but these, and ask nobody but this listener,
//! so that a value of a row, however it is written, stays text. Called by `routes` and `guard`.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// What a browser may do with the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// What a browser may do with an answer of the API: nothing.
const POLICY_OF_ANSWERS: &str = "default-src 'none'; frame-ancestors 'none'";

/// One file of the page.
struct Part {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! parts {
    ($($name:literal as $kind:ident),* $(,)?) => {
        &[
            Part { path: "/", kind: HTML, text: include_str!("dashboard/index.html") },
            $(Part { path: concat!("/dashboard/", $name), kind: $kind, text: include_str!(concat!("dashboard/", $name)) }),*
        ]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// All of it.
const PARTS: &[Part] = parts![
    "style.css" as STYLE,
    "pages.css" as STYLE,
    "icon.svg" as PICTURE,
    "app.js" as SCRIPT,
    "api.js" as SCRIPT,
    "dom.js" as SCRIPT,
    "words.js" as SCRIPT,
    "verdict.js" as SCRIPT,
    "map.js" as SCRIPT,
    "overview.js" as SCRIPT,
    "servers.js" as SCRIPT,
    "data.js" as SCRIPT,
    "activity.js" as SCRIPT,
    "charts.js" as SCRIPT,
    "reliability.js" as SCRIPT,
    "runs.js" as SCRIPT,
    "verify.js" as SCRIPT,
    "care.js" as SCRIPT,
    "join.js" as SCRIPT,
    "undo.js" as SCRIPT,
    "travel.js" as SCRIPT,
    "bundles.js" as SCRIPT,
    "invite.js" as SCRIPT,
    "conflicts.js" as SCRIPT,
    "shelf.js" as SCRIPT,
];

/// Whether a request is for a part of the page: it needs no token.
pub(super) fn is_part(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD) && part(path).is_some()
}

fn part(path: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.path == path)
}

/// Answers with a part of the page.
pub(super) async fn serve(request: Request) -> Response {
    match part(request.uri().path()) {
        Some(part) if is_part(request.method(), part.path) => {
            let headers = [
                (header::CONTENT_TYPE, part.kind),
                (header::CACHE_CONTROL, "no-cache"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
            ];
            (headers, part.text).into_response()
        }
        Some(_) => Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the page is read with GET")
            .into_response(),
        None => Problem::not_found("there is no such endpoint: see /api/v1/openapi.json").into_response(),
    }
}

/// Every answer tells browsers to take it for what it is, keep it to themselves, and show it in no frame.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    set(headers, header::X_FRAME_OPTIONS, "DENY");
    set(headers, HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(headers, HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(headers, header::CACHE_CONTROL, "no-store");
    set(headers, header::CONTENT_SECURITY_POLICY, POLICY_OF_ANSWERS);
    response
}

/// Keeps what the endpoint itself said.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy forbids them in the browser; this tells whoever writes one before a browser does.
    #[test]
    fn the_page_holds_nothing_inline_and_names_nobody_else() {
        for part in PARTS {
            let text = part.text;
            for word in
                ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                let allowed = word == "http://" && text.contains("http://www.w3.org/2000/svg");
                let found =
                    text.matches(word).count() - if allowed { text.matches("http://www.w3.org/").count() } else { 0 };
                assert_eq!(found, 0, "{word} in {}", part.path);
            }
            if part.kind == HTML {
                assert!(
                    !text.contains("<style")
                        && !text.contains(" style=")
                        && ![" onclick=", " onload=", " onerror=", " onsubmit="].iter().any(|word| text.contains(word)),
                    "{}",
                    part.path
                );
                assert_eq!(text.matches("<script").count(), text.matches("<script type=\"module\" src=").count());
            }
            assert!(text.lines().count() < 400, "{} is long", part.path);
            if part.kind == SCRIPT {
                assert!(text.starts_with("// "), "{} says first what it is for", part.path);
            }
        }
    }

    /// A script that is not served would break the page at run time only.
    #[test]
    fn every_part_that_the_page_names_is_served() {
        let mut named = 0;
        for part in PARTS {
            for piece in part.text.split(['"', '\'']) {
                let path = match piece.strip_prefix("./") {
                    Some(name) if name.ends_with(".js") => format!("/dashboard/{name}"),
                    _ if piece.starts_with("/dashboard/") => piece.to_string(),
                    _ => continue,
                };
                named += 1;
                assert!(is_part(&Method::GET, &path), "{} names {path}", part.path);
            }
        }
        assert!(named > PARTS.len());
    }
}
