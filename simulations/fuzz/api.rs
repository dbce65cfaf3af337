//! The API's target: raw bytes at a real listener on loopback, in front of a real node.
//!
//! Invariant checked: without the token nothing reaches node or network; every refusal of the API is a problem document
//! with a code; no request makes an internal error or leaves the caller without an answer. What it does not verify: slow
//! callers and floods of connections (tests of `http`). Caller: the table of targets, in builds with the daemon.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litemesh::http::{Answer, NetworkControl, ROUTES, Services, bind, serve};
use litemesh::node::port::{Job, NodePort};
use tokio::sync::watch;

use crate::arena::Arena;
use crate::draws::{Draws, random};
use crate::target::{Outcome, Target};

const TOKEN: &str = "0123456789abcdef";

/// HTTP requests of all shapes.
pub const HTTP: Target = Target {
    name: "http",
    promise: "no request without the token does anything; errors are problem documents",
    run,
    generate: make,
    words: &[
        b"Host: {HOST}\r\n",
        b"Host: evil.example\r\n",
        b"Origin: null\r\n",
        b"Authorization: Bearer 0123456789abcdef\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: -1\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\0",
        b"%00",
        b"%2e%2e/",
        b"//",
        b"?limit=18446744073709551616",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"OPTIONS ",
        b"CONNECT ",
        b"{\"db\":\"app\",\"table\":\"t\",\"id\":\"1\"}",
        b"{\"a\":1e999}",
        b"[[[[[[[[[[[[[[[[[[[[",
        b"0\r\n\r\n",
    ],
};

/// A node that runs jobs where they come, and counts them.
struct Direct {
    arena: Mutex<Arena>,
    jobs: Arc<AtomicU64>,
}

impl NodePort for Direct {
    fn submit(&self, job: Job) -> bool {
        self.jobs.fetch_add(1, Ordering::SeqCst);
        let Ok(mut arena) = self.arena.lock() else { return false };
        arena.run(job);
        true
    }
}

struct Counted(Arc<AtomicU64>);

impl NetworkControl for Counted {
    fn add_peer(&self, address: String) -> Answer<'_, Result<(), String>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { litemesh::net::parse_address(&address).map(drop).map_err(|error| error.to_string()) })
    }

    fn addresses(&self) -> Answer<'_, Vec<String>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Vec::new() })
    }

    fn diagnosis(&self) -> Answer<'_, serde_json::Value> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { serde_json::Value::Null })
    }
}

struct Server {
    address: SocketAddr,
    jobs: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
    _shut: watch::Sender<bool>,
}

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

fn start() -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let listener = runtime.block_on(bind(([127, 0, 0, 1], 0).into())).expect("loopback has a free port");
    let address = listener.local_addr().expect("the listener has an address");
    let (shut, shutdown) = watch::channel(false);
    let jobs = Arc::new(AtomicU64::new(0));
    let services = Services {
        port: Arc::new(Direct { arena: Mutex::new(Arena::new()), jobs: jobs.clone() }),
        network: Arc::new(Counted(jobs.clone())),
        checks: Arc::new(Vec::new),
        join_plan: Arc::new(|| None),
        monitor: litemesh::monitor::Monitor::off(),
        alerts: Arc::default(),
        token: TOKEN.to_string(),
    };
    runtime.spawn(serve(listener, services, shutdown));
    Server { address, jobs, _runtime: runtime, _shut: shut }
}

fn make(dice: &mut crate::dice::Dice) -> Vec<u8> {
    let bytes = random(dice, 120);
    let draws = &mut Draws::new(&bytes);
    let route = draws.pick(ROUTES);
    let method = if draws.chance(80) {
        route.method.to_uppercase()
    } else {
        draws.pick::<&str>(&["PUT", "HEAD", "get", ""]).to_string()
    };
    let mut path = route.path.replace("{n}", draws.pick::<&str>(&["1", "0", "-1", "18446744073709551616", "x"]));
    for (position, parameter) in route.parameters.iter().enumerate() {
        let sign = if position == 0 { '?' } else { '&' };
        if route.method == "get" && draws.chance(60) {
            path.push_str(&format!(
                "{sign}{parameter}={}",
                draws.pick::<&str>(&["app", "t", "1", "-1", "2h", "%00", "%ff", ""])
            ));
        }
    }
    let member = |parameter: &&&str| {
        let value = ["\"app\"", "\"t\"", "\"1\"", "1", "-1", "null", "[]", "\"\\u0000\"", "1e400"];
        format!("\"{parameter}\":{}", value[(parameter.len() * 7) % value.len()])
    };
    let body = match route.method {
        "post" => format!(
            "{{{}}}",
            route
                .parameters
                .iter()
                .filter(|_| draws.chance(80))
                .collect::<Vec<_>>()
                .iter()
                .map(member)
                .collect::<Vec<_>>()
                .join(",")
        ),
        _ => String::new(),
    };
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    for (header, percent) in [
        ("Host: {HOST}\r\n", 90),
        ("Authorization: Bearer 0123456789abcdef\r\n", 60),
        ("Content-Type: application/json\r\n", 80),
        ("Connection: close\r\n", 80),
    ] {
        if draws.chance(percent) {
            request.push_str(header);
        }
    }
    if draws.chance(3) {
        (0..200).for_each(|number| request.push_str(&format!("X-{number}: {number}\r\n")));
    }
    let length = if draws.chance(90) { body.len() as u64 } else { draws.number() };
    request.push_str(&format!("Content-Length: {length}\r\n\r\n{body}"));
    request.into_bytes()
}

fn run(bytes: &[u8]) -> Outcome {
    let server = SERVER.take().unwrap_or_else(start);
    let host = server.address.to_string();
    let request = replace(bytes, b"{HOST}", host.as_bytes());
    let has = |part: &str| request.windows(part.len()).any(|window| window == part.as_bytes());
    // Whoever has the token may write files and wait: not here.
    if has(TOKEN) && (has("rebuild") || has("wait_s")) {
        SERVER.set(Some(server));
        return "left out".into();
    }
    let before = server.jobs.load(Ordering::SeqCst);
    let answer = exchange(server.address, &request);
    let asked = server.jobs.load(Ordering::SeqCst) - before;
    assert!(has(TOKEN) || asked == 0, "a request without the token reached the node");
    let outcome = check(&answer);
    SERVER.set(Some(server));
    outcome
}

fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the listener is there");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket takes a timeout");
    // A server that answers before it has read all may close while the rest is written.
    let _closed = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(error.kind() != std::io::ErrorKind::WouldBlock, "no answer and no end after 15 s");
    }
    answer
}

fn check(answer: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return "closed".into() };
    let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    assert!((100..600).contains(&status), "no HTTP: {head}");
    assert!(status != 500, "an internal error: {body}");
    if status < 400 || !head.to_ascii_lowercase().contains("content-type") {
        return format!("{status}").into();
    }
    assert!(head.contains("application/problem+json"), "an error that is no problem document: {head}");
    // An answer to HEAD has no body; of several answers only the first is looked at.
    if body.starts_with("HTTP/1.") {
        return format!("{status} head").into();
    }
    let document = serde_json::Deserializer::from_str(body).into_iter::<serde_json::Value>().next();
    let code = match document {
        Some(Ok(document)) => document["code"].as_str().expect("a problem has a code").to_string(),
        Some(Err(error)) => panic!("a problem that is no JSON: {error}: {body}"),
        None => "head".to_string(),
    };
    format!("{status} {code}").into()
}

fn replace(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}
