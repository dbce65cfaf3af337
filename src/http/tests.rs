//! The guard, the limits and the table of routes, over real sockets, in front of a node that has stopped.
//!
//! What it does not verify: the answers themselves; those need a node and are tested through the program.

#[path = "hostile_tests.rs"]
mod hostile;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio::sync::watch;

use super::*;
use crate::monitor::recorder::MonitorThread;
use crate::node::port::Job;

const TOKEN: &str = "0123456789abcdef";

/// Takes no job.
struct Stopped;

impl NodePort for Stopped {
    fn submit(&self, _: Job) -> bool {
        false
    }
}

struct NoNetwork;

impl NetworkControl for NoNetwork {
    fn add_peer(&self, address: String) -> Answer<'_, Result<(), String>> {
        Box::pin(async move { if address.starts_with('/') { Ok(()) } else { Err("no multiaddr".to_string()) } })
    }

    fn addresses(&self) -> Answer<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    fn diagnosis(&self) -> Answer<'_, serde_json::Value> {
        Box::pin(async { serde_json::Value::Null })
    }
}

/// A server on a free port, stopped when dropped.
struct Server {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
    _shut: watch::Sender<bool>,
    _tracking: (MonitorThread, tempfile::TempDir),
}

fn server() -> Server {
    server_with(listener::PATIENCE)
}

fn server_with(patience: std::time::Duration) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(bind("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = listener.local_addr().unwrap();
    let (shut, shutdown) = watch::channel(false);
    let directory = tempfile::tempdir().unwrap();
    let settings = crate::monitor::MonitorSettings {
        path: directory.path().join("monitor.db"),
        instance: "test:1".into(),
        databases: Vec::new(),
        days_to_keep: 30,
    };
    let tracking = Monitor::start(settings).unwrap();
    let services = Services {
        port: Arc::new(Stopped),
        network: Arc::new(NoNetwork),
        checks: Arc::new(Vec::new),
        join_plan: Arc::new(|| None),
        monitor: tracking.monitor.clone(),
        alerts: Arc::default(),
        token: TOKEN.to_string(),
    };
    runtime.spawn(serve_within(listener, services, shutdown, patience));
    Server { address, _runtime: runtime, _shut: shut, _tracking: (tracking, directory) }
}

impl Server {
    /// Sends a request as it is and gives (status, body).
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // A server that answers before it has read all may close while we still write.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
    }

    fn request(&self, line: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        self.raw(
            format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
                .as_bytes(),
        )
    }

    /// With good Host, token and type.
    fn good(&self, line: &str, body: &str) -> (u16, String) {
        let headers =
            format!("Host: {}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n", self.address);
        self.request(line, &headers, body)
    }
}

fn code(body: &str) -> String {
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_string()
}

#[test]
fn only_this_listeners_own_host_and_origin_get_in() {
    let server = server();
    let port = server.address.port();
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"] {
        let (status, _) = server.request("GET /api/v1/openapi.json", &format!("Host: {host}:{port}\r\n{token}"), "");
        assert_eq!(status, 200, "{host}");
    }
    for host in ["evil.example", &format!("evil.example:{port}"), "127.0.0.1", "127.0.0.1:1", "", "localhost.:1"] {
        for path in ["/healthz", "/api/v1/status", "/api/v1/openapi.json"] {
            let (status, body) = server.request(&format!("GET {path}"), &format!("Host: {host}\r\n{token}"), "");
            assert_eq!((status, code(&body).as_str()), (403, "host_refused"), "{host} {path}");
        }
    }
    let doubled = format!("Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n{token}");
    assert!(server.request("GET /healthz", &doubled, "").0 >= 400);
    let own = format!("Host: 127.0.0.1:{port}\r\n{token}");
    for (origin, want) in [
        (format!("http://127.0.0.1:{port}"), 200),
        (format!("http://localhost:{port}"), 200),
        ("null".to_string(), 403),
        ("http://evil.example".to_string(), 403),
        (format!("https://127.0.0.1:{port}"), 403),
    ] {
        let (status, _) = server.request("GET /api/v1/openapi.json", &format!("{own}Origin: {origin}\r\n"), "");
        assert_eq!(status, want, "{origin}");
    }
}

#[test]
fn every_route_but_healthz_wants_the_token() {
    let server = server();
    let host = format!("Host: {}\r\nContent-Type: application/json\r\n", server.address);
    assert_eq!(server.request("GET /healthz", &host, ""), (200, "ok\n".to_string()));
    for route in ROUTES.iter().filter(|route| route.path != "/healthz") {
        let line = format!(
            "{} {}",
            route.method.to_uppercase(),
            route.path.replace("{n}", "1").replace("{peer}", "1").replace("{server_id}", "1")
        );
        let (status, body) = server.request(&line, &host, "{}");
        assert_eq!((status, code(&body).as_str()), (401, "token_missing"), "{line}");
        for wrong in ["Bearer 0123456789abcdeg", "Bearer", "Basic 0123456789abcdef", "Bearer 0123456789abcdef0"] {
            let (status, _) = server.request(&line, &format!("{host}Authorization: {wrong}\r\n"), "{}");
            assert_eq!(status, 401, "{line} {wrong}");
        }
    }
    assert_eq!(server.request("GET /", &host, "").0, 200);
    assert_eq!(server.request("POST /", &host, "{}").0, 401);
    assert_eq!(server.request("POST /healthz", &host, "{}").0, 401);
}

#[test]
fn the_description_lists_exactly_the_routes_and_each_is_there() {
    let server = server();
    let (status, body) = server.good("GET /api/v1/openapi.json", "");
    let description: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    let operations: usize =
        description["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(operations, ROUTES.len());
    for route in ROUTES {
        assert!(description["paths"][route.path][route.method].is_object(), "{} {}", route.method, route.path);
        let line = format!(
            "{} {}",
            route.method.to_uppercase(),
            route.path.replace("{n}", "1").replace("{peer}", "1").replace("{server_id}", "1")
        );
        assert!(!["not_found", "method_not_allowed"].contains(&code(&server.good(&line, "{}").1).as_str()), "{line}");
        let other = if route.method == "get" { "DELETE" } else { "PUT" };
        let (status, body) = server.good(&format!("{other} {}", route.path), "{}");
        assert_eq!((status, code(&body).as_str()), (405, "method_not_allowed"), "{other} {}", route.path);
    }
}

#[test]
fn what_cannot_be_done_is_a_problem_with_a_code() {
    let server = server();
    for (line, body, want) in [
        ("POST /", "{}", (405, "method_not_allowed")),
        ("GET /dashboard", "", (404, "not_found")),
        ("GET /api/v1/nothing", "", (404, "not_found")),
        ("GET /api/v1/status", "", (503, "node_busy")),
        ("GET /api/v1/events?limmit=1", "", (400, "invalid_request")),
        ("GET /api/v1/where?db=a", "", (400, "invalid_request")),
        ("GET /api/v1/conflicts/first", "", (400, "invalid_request")),
        ("POST /api/v1/invites", "{\"expires_s\":1}", (400, "invalid_request")),
        ("POST /api/v1/invites", "{\"expires\":100}", (400, "invalid_request")),
        ("POST /api/v1/invites", "[", (400, "invalid_request")),
        ("POST /api/v1/rebuild", "{\"out\":\"here\"}", (400, "invalid_request")),
        ("POST /api/v1/peers", "{\"address\":\"here\"}", (400, "invalid_request")),
        ("POST /api/v1/sync", "{}", (503, "node_busy")),
        ("POST /api/v1/runs", "{}", (400, "invalid_request")),
        ("POST /api/v1/runs", "{\"sync_type\":\"\"}", (400, "invalid_request")),
        ("POST /api/v1/runs", "{\"sync_type\":\"a\",\"lease_s\":0}", (400, "invalid_request")),
        ("POST /api/v1/runs", "{\"sync_type\":\"a\",\"metadata\":[1]}", (400, "invalid_request")),
        ("GET /api/v1/runs/x", "", (400, "invalid_request")),
        ("GET /api/v1/runs/99", "", (404, "no_such_run")),
        ("GET /api/v1/runs?limmit=1", "", (400, "invalid_request")),
        ("POST /api/v1/runs/99/complete", "{}", (404, "no_such_run")),
        ("POST /api/v1/runs/99/fail", "{}", (400, "invalid_request")),
        ("POST /api/v1/runs/99/heartbeat", "{\"x\":1}", (400, "invalid_request")),
        ("GET /api/v1/reliability/nobody", "", (503, "node_busy")),
        ("GET /api/v1/events/stream?limmit=1", "", (400, "invalid_request")),
        ("GET /metrics", "", (503, "node_busy")),
        ("GET /api/sync/sqlite3/optimized-changes?since=then", "", (400, "invalid_request")),
        ("GET /api/sync/sqlite3/optimized-changes?limit=x", "", (400, "invalid_request")),
        ("POST /api/sync/sqlite3/receive-changes", "{}", (400, "invalid_request")),
        ("POST /api/sync/sqlite3/receive-changes", "{\"changes\":7}", (400, "invalid_request")),
        ("POST /api/sync/sqlite3/receive-changes", "{\"changes\":[],\"checksum\":\"0\"}", (400, "checksum_wrong")),
        ("POST /api/sync/sqlite3/receive-changes", "{\"changes\":[]}", (503, "node_busy")),
        ("POST /api/sync/sqlite3/cleanup", "{\"days_to_keep\":-1}", (400, "invalid_request")),
        ("POST /api/sync/sqlite3/sync/nobody", "{}", (503, "node_busy")),
    ] {
        let (status, answer) = server.good(line, body);
        assert_eq!((status, code(&answer).as_str()), want, "{line} {body}");
    }
    assert_eq!(server.good("POST /api/v1/peers", "{\"address\":\"/ip4/10.0.0.1/tcp/1\"}").0, 200);
}

#[test]
fn orders_are_json_and_bodies_are_bounded() {
    let server = server();
    let base = format!("Host: {}\r\nAuthorization: Bearer {TOKEN}\r\n", server.address);
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let (status, body) = server.request("POST /api/v1/sync", &format!("{base}{kind}"), "{}");
        assert_eq!((status, code(&body).as_str()), (415, "json_only"), "{kind}");
    }
    let big = format!("{{\"peer\":\"{}\"}}", "x".repeat(guard::BODY_BYTES_MAX));
    let (status, body) = server.good("POST /api/v1/sync", &big);
    assert_eq!((status, code(&body).as_str()), (413, "body_too_large"));
    let headers = format!("{base}X-Filler: {}\r\n", "x".repeat(1 << 20));
    assert!(matches!(server.request("GET /healthz", &headers, "").0, 0 | 431));
}

#[test]
fn a_flood_of_silent_connections_is_bounded_and_ends() {
    let patience = std::time::Duration::from_millis(500);
    let server = server_with(patience);
    let silent: Vec<_> = (0..listener::CONNECTIONS_MAX).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let start = std::time::Instant::now();
    // Waits in the backlog until the silent ones have used up their time.
    let (status, _) = server.good("GET /healthz", "");
    assert_eq!(status, 200);
    assert!(start.elapsed() >= patience / 2, "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn other_addresses_than_loopback_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for address in ["0.0.0.0:0", "192.168.1.1:0", "[::]:0"] {
        let refusal = runtime.block_on(bind(address.parse().unwrap())).unwrap_err();
        assert!(matches!(refusal, HttpError::NotLoopback(_)), "{address}");
    }
}
