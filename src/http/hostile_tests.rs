//! Hostile shapes of requests, over real sockets: whatever arrives, it is refused or dropped, tells nothing, and the next
//! honest request is answered.
//!
//! What it does not verify: floods (the tests beside it), and what an authorised caller may do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::super::guard::BODY_BYTES_MAX;
use super::{Server, TOKEN, code, server_with};

/// What stands in the table for the address, the token and the usual good headers.
const GOOD: &str = "Host: HOST\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const BYTES: &str = "Content-Type: application/octet-stream\r\n";

/// A request and what may come of it; 0: the connection is closed without an answer.
type Shape = (&'static str, Vec<u8>, &'static [u16]);

fn bytes(server: &Server, text: &str) -> Vec<u8> {
    text.replace("GOOD", GOOD)
        .replace("JSON", JSON)
        .replace("BYTES", BYTES)
        .replace("HOST", &server.address.to_string())
        .replace("PORT", &server.address.port().to_string())
        .replace("TOKEN", TOKEN)
        .into_bytes()
}

/// Requests that name another machine, or come from another page.
const SENDERS: &[(&str, &str, &[u16])] = &[
    ("no host", "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", &[403, 400]),
    ("empty host", "GET /healthz HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", &[403, 400]),
    ("another host", "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", &[403]),
    ("another host, this port", "GET / HTTP/1.1\r\nHost: evil.example:PORT\r\nConnection: close\r\n\r\n", &[403]),
    ("host without port", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", &[403]),
    ("another port", "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n", &[403]),
    ("a user before the host", "GET / HTTP/1.1\r\nHost: a@127.0.0.1:PORT\r\nConnection: close\r\n\r\n", &[403]),
    ("a dot behind the host", "GET / HTTP/1.1\r\nHost: localhost.:PORT\r\nConnection: close\r\n\r\n", &[403]),
    ("a longer name", "GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example:PORT\r\nConnection: close\r\n\r\n", &[403]),
    ("the address as a number", "GET / HTTP/1.1\r\nHost: 2130706433:PORT\r\nConnection: close\r\n\r\n", &[403]),
    ("another loopback address", "GET / HTTP/1.1\r\nHost: 127.0.0.2:PORT\r\nConnection: close\r\n\r\n", &[403]),
    ("the address of all", "GET / HTTP/1.1\r\nHost: 0.0.0.0:PORT\r\nConnection: close\r\n\r\n", &[403]),
    ("two hosts", "GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\nConnection: close\r\n\r\n", &[403, 400]),
    ("a host that is no text", "GET / HTTP/1.1\r\nHost: \u{e9}\u{e9}\r\nConnection: close\r\n\r\n", &[403, 400]),
    ("another host in the line", "GET http://evil.example/api/v1/openapi.json HTTP/1.1\r\nGOOD\r\n", &[403]),
    ("another origin", "GET /api/v1/openapi.json HTTP/1.1\r\nGOODOrigin: http://evil.example\r\n\r\n", &[403]),
    ("no origin by name", "GET /api/v1/openapi.json HTTP/1.1\r\nGOODOrigin: null\r\n\r\n", &[403]),
    ("an empty origin", "GET /api/v1/openapi.json HTTP/1.1\r\nGOODOrigin:\r\n\r\n", &[403]),
    ("another scheme", "GET /api/v1/openapi.json HTTP/1.1\r\nGOODOrigin: https://HOST\r\n\r\n", &[403]),
    ("another program's page", "GET /api/v1/openapi.json HTTP/1.1\r\nGOODOrigin: http://127.0.0.1:1\r\n\r\n", &[403]),
    ("an origin with a path", "GET /api/v1/openapi.json HTTP/1.1\r\nGOODOrigin: http://HOST/\r\n\r\n", &[403]),
    ("two origins", "GET / HTTP/1.1\r\nGOODOrigin: http://HOST\r\nOrigin: http://evil.example\r\n\r\n", &[403]),
    (
        "an origin of a file",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONOrigin: file://\r\nContent-Length: 2\r\n\r\n{}",
        &[403],
    ),
];

/// Requests without the token, or with what looks like it.
const TOKENS: &[(&str, &str, &[u16])] = &[
    ("no token", "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", &[401]),
    (
        "an empty token",
        "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer \r\n\r\n",
        &[401],
    ),
    (
        "half a token",
        "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer 01234567\r\n\r\n",
        &[401],
    ),
    (
        "more than the token",
        "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer TOKENx\r\n\r\n",
        &[401],
    ),
    (
        "another scheme of token",
        "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Basic TOKEN\r\n\r\n",
        &[401],
    ),
    (
        "two spaces",
        "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer  TOKEN\r\n\r\n",
        &[401],
    ),
    (
        "a token that is no text",
        "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer \u{e9}\r\n\r\n",
        &[401],
    ),
    (
        "the token in the path",
        "GET /api/v1/status?token=TOKEN HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
        &[401],
    ),
    (
        "the token in a cookie",
        "GET /api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nCookie: token=TOKEN\r\n\r\n",
        &[401],
    ),
    ("two tokens", "GET /api/v1/openapi.json HTTP/1.1\r\nGOODAuthorization: Bearer 0000000000000000\r\n\r\n", &[401]),
];

/// Paths and methods.
const PATHS: &[(&str, &str, &[u16])] = &[
    ("out of the page", "GET /dashboard/../api/v1/status HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", &[401]),
    (
        "out of the page, hidden",
        "GET /dashboard/%2e%2e/api-token HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
        &[401],
    ),
    ("out of everything", "GET /../../../../etc/passwd HTTP/1.1\r\nGOOD\r\n", &[404, 400]),
    ("a doubled slash", "GET //dashboard/app.js HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", &[401]),
    ("a NUL behind the name", "GET /dashboard/app.js%00 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", &[401]),
    ("a file of the node", "GET /dashboard/api-token HTTP/1.1\r\nGOOD\r\n", &[404]),
    ("the page's folder", "GET /dashboard/ HTTP/1.1\r\nGOOD\r\n", &[404]),
    ("big letters", "GET /API/V1/STATUS HTTP/1.1\r\nGOOD\r\n", &[404]),
    ("a slash behind the path", "GET /api/v1/status/ HTTP/1.1\r\nGOOD\r\n", &[404]),
    ("a negative number", "GET /api/v1/conflicts/-1 HTTP/1.1\r\nGOOD\r\n", &[400]),
    ("a number without end", "GET /api/v1/conflicts/99999999999999999999999 HTTP/1.1\r\nGOOD\r\n", &[400]),
    ("a hidden slash", "GET /api/v1/conflicts/1%2frestore HTTP/1.1\r\nGOOD\r\n", &[400, 404]),
    ("an unknown parameter", "GET /api/v1/events?limmit=1 HTTP/1.1\r\nGOOD\r\n", &[400]),
    ("a parameter twice", "GET /api/v1/events?limit=1&limit=2 HTTP/1.1\r\nGOOD\r\n", &[400]),
    ("a parameter that is no text", "GET /api/v1/where?db=%ff HTTP/1.1\r\nGOOD\r\n", &[400]),
    ("a method that deletes", "DELETE /api/v1/members HTTP/1.1\r\nGOODJSON\r\n", &[405]),
    ("a method that puts", "PUT /api/v1/rules HTTP/1.1\r\nGOODJSONContent-Length: 2\r\n\r\n{}", &[405]),
    ("a method that echoes", "TRACE / HTTP/1.1\r\nGOODJSON\r\n", &[405]),
    ("a tunnel", "CONNECT 10.0.0.1:22 HTTP/1.1\r\nGOODJSON\r\n", &[403, 404, 405]),
    ("a method of no standard", "BREW /api/v1/status HTTP/1.1\r\nGOODJSON\r\n", &[405]),
    ("an order to the page", "POST / HTTP/1.1\r\nGOODJSONContent-Length: 2\r\n\r\n{}", &[405]),
    ("an order by reading", "GET /api/v1/sync HTTP/1.1\r\nGOOD\r\n", &[405]),
    ("asking what is allowed", "OPTIONS * HTTP/1.1\r\nGOODJSON\r\n", &[403, 404, 405]),
    (
        "asking before a foreign order",
        "OPTIONS /api/v1/sync HTTP/1.1\r\nHost: HOST\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n",
        &[403],
    ),
];

/// Bodies.
const BODIES: &[(&str, &str, &[u16])] = &[
    ("no type", "POST /api/v1/sync HTTP/1.1\r\nGOODContent-Length: 2\r\n\r\n{}", &[415]),
    (
        "a form",
        "POST /api/v1/sync HTTP/1.1\r\nGOODContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}",
        &[415],
    ),
    (
        "plain text",
        "POST /api/v1/sync HTTP/1.1\r\nGOODContent-Type: text/plain;application/json\r\nContent-Length: 2\r\n\r\n{}",
        &[415],
    ),
    (
        "a file",
        "POST /api/v1/sync HTTP/1.1\r\nGOODContent-Type: multipart/form-data\r\nContent-Length: 2\r\n\r\n{}",
        &[415],
    ),
    ("half an object", "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 1\r\n\r\n{", &[400]),
    ("more behind the object", "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 4\r\n\r\n{}{}", &[400]),
    (
        "a member twice",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 23\r\n\r\n{\"peer\":\"a\",\"peer\":\"b\"}",
        &[400],
    ),
    (
        "an unknown member",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 18\r\n\r\n{\"__proto__\":null}",
        &[400],
    ),
    ("a number for a word", "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 10\r\n\r\n{\"peer\":1}", &[400]),
    (
        "a number without end",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 16\r\n\r\n{\"wait_s\":1e999}",
        &[400],
    ),
    (
        "half a character",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 17\r\n\r\n{\"peer\":\"\\ud800\"}",
        &[400],
    ),
    ("an array", "POST /api/v1/invites HTTP/1.1\r\nGOODJSONContent-Length: 9\r\n\r\n[[[[]]]]]", &[400]),
    (
        "a path that is not whole",
        "POST /api/v1/rebuild HTTP/1.1\r\nGOODJSONContent-Length: 19\r\n\r\n{\"out\":\"../../etc\"}",
        &[400],
    ),
    ("a negative length", "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: -1\r\n\r\n{}", &[400, 0]),
    (
        "two lengths",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        &[400, 0],
    ),
    ("a length that is too long", "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 50\r\n\r\n{}", &[400, 413, 0]),
    (
        "an endless length",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: 99999999999999999999999\r\n\r\n{}",
        &[400, 413, 0],
    ),
    (
        "pieces of no size",
        "POST /api/v1/sync HTTP/1.1\r\nGOODJSONTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        &[400, 413, 0],
    ),
    ("another coding", "POST /api/v1/sync HTTP/1.1\r\nGOODJSONTransfer-Encoding: gzip\r\n\r\n{}", &[400, 501, 0]),
];

/// Bundles as bodies: they go past the limit of other bodies, so they have limits of their own.
const BUNDLES: &[(&str, &str, &[u16])] = &[
    (
        "a bundle without the token",
        "POST /api/v1/bundle/upload/import HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        &[401],
    ),
    (
        "a bundle from another page",
        "POST /api/v1/bundle/upload/import HTTP/1.1\r\nGOODBYTESOrigin: http://evil.example\r\nContent-Length: 1\r\n\r\nx",
        &[403],
    ),
    (
        "a bundle as a form",
        "POST /api/v1/bundle/upload/import HTTP/1.1\r\nGOODContent-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\nx",
        &[415],
    ),
    (
        "a bundle as text",
        "POST /api/v1/bundle/upload/inspect HTTP/1.1\r\nGOODContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx",
        &[415],
    ),
    ("a bundle by another method", "PUT /api/v1/bundle/upload/import HTTP/1.1\r\nGOODJSON\r\n", &[405]),
    ("a bundle for nobody known", "GET /api/v1/bundle/download?whom=x HTTP/1.1\r\nGOOD\r\n", &[400]),
    (
        "a download without the token",
        "GET /api/v1/bundle/download HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
        &[401],
    ),
    ("a bundle to another endpoint", "POST /api/v1/sync HTTP/1.1\r\nGOODBYTESContent-Length: 2\r\n\r\n{}", &[415]),
];

/// What is hardly HTTP.
const LINES: &[(&str, &str, &[u16])] = &[
    ("nothing", "", &[0]),
    ("an old version", "GET /\r\n", &[400, 0]),
    ("a future version", "GET / HTTP/9.9\r\nGOOD\r\n", &[400, 505, 0]),
    ("another protocol's greeting", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505, 0]),
    ("a secret greeting", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}", &[400, 0]),
    ("a header over two lines", "GET /healthz HTTP/1.1\r\nGOODX-Folded: a\r\n b\r\n\r\n", &[400, 0]),
    ("a blank in a header's name", "GET /healthz HTTP/1.1\r\nGOODX Y: a\r\n\r\n", &[400, 0]),
    ("a NUL in a header", "GET /healthz HTTP/1.1\r\nGOODX: a\u{0}b\r\n\r\n", &[400, 0]),
    ("blanks in the path", "GET /api/v1/status and more HTTP/1.1\r\nGOOD\r\n", &[400, 0]),
];

fn shapes(server: &Server) -> Vec<Shape> {
    let mut all: Vec<Shape> = [SENDERS, TOKENS, PATHS, BODIES, BUNDLES, LINES]
        .into_iter()
        .flatten()
        .map(|(name, text, outcomes)| (*name, bytes(server, text), *outcomes))
        .collect();
    let with_body = |name, body: Vec<u8>, outcomes: &'static [u16]| {
        let head = format!("POST /api/v1/sync HTTP/1.1\r\nGOODJSONContent-Length: {}\r\n\r\n", body.len());
        (name, [bytes(server, &head), body].concat(), outcomes)
    };
    all.push(with_body("a body that is too large", vec![b' '; BODY_BYTES_MAX + 1], &[413]));
    all.push(with_body("a body nested without end", vec![b'['; 60_000], &[400]));
    all.push(with_body("a body that is no text", b"{\"peer\":\"\xff\xfe\"}".to_vec(), &[400]));
    all.push(with_body("a mark before the body", b"\xef\xbb\xbf{}".to_vec(), &[400]));
    let many = format!("GET /healthz HTTP/1.1\r\nGOOD{}\r\n", "X: y\r\n".repeat(5_000));
    all.push(("five thousand headers", bytes(server, &many), &[400, 431, 0]));
    let wide = format!("GET /healthz HTTP/1.1\r\nGOODX: {}\r\n\r\n", "y".repeat(2 << 20));
    all.push(("a header of two million bytes", bytes(server, &wide), &[400, 431, 0]));
    let long = format!("GET /{} HTTP/1.1\r\nGOOD\r\n", "a".repeat(200_000));
    all.push(("a path of two hundred thousand bytes", bytes(server, &long), &[400, 404, 414, 431, 0]));
    let piece = format!("11000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x11000));
    let pieces = format!("POST /api/v1/sync HTTP/1.1\r\nGOODJSONTransfer-Encoding: chunked\r\n\r\n{piece}");
    all.push(("pieces that are too much", bytes(server, &pieces), &[413]));
    all
}

/// Sends all and reads what comes. Says that this was all only where the connection may end without an answer: a server
/// may take that for the caller's leaving, and drop an answer under way.
fn send(server: &Server, request: &[u8], outcomes: &[u16]) -> (u16, String) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let _ = stream.write_all(request);
    if outcomes.contains(&0) {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
}

#[test]
fn hostile_shapes_are_refused_and_the_next_request_is_answered() {
    let server = server_with(Duration::from_secs(2));
    let shapes = shapes(&server);
    assert!(shapes.len() >= 60, "{} shapes", shapes.len());
    for (name, request, outcomes) in &shapes {
        let (status, answer) = send(&server, request, outcomes);
        assert!(outcomes.contains(&status), "{name}: {status}, wanted one of {outcomes:?}\n{answer}");
        assert!(!answer.contains(TOKEN), "{name}: the answer tells the token");
        if let Some((head, body)) = answer.split_once("\r\n\r\n").filter(|(_, body)| !body.is_empty()) {
            assert!(!code(body).is_empty(), "{name}: no problem document: {body}");
            for header in ["x-content-type-options: nosniff", "content-security-policy: ", "cache-control: no-store"] {
                assert!(head.to_lowercase().contains(header), "{name}: no {header}");
            }
        }
        assert_eq!(server.good("GET /healthz", ""), (200, "ok\n".to_string()), "after {name}");
    }
}
