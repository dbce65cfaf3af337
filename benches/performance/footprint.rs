//! Footprint: memory, disk, start-up, idle computing, size of the program.
//!
//! Memory and computing are a real process's, as the system counts them; start-up with a long log is a node's own opening.
//! Invariant: an idle process is left alone for some seconds before it is looked at. Caller: main.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use litemesh::log::Log;
use litemesh::node::Node;
use litemesh::node::membership::Membership;

use crate::asked::Asked;
use crate::bytes::{COLUMNS, Chain, append};
use crate::machine::{computed_s, loopback_bytes, memory_kib};
use crate::mesh::{Mesh, file_of, open_node};
use crate::report::{Budget, Line, Report, figure};
use crate::sample::{Sample, timed};
use crate::shape::{self, DATABASE, Ids, RAW, TABLE, USUAL};
use crate::support::server::Server;
use crate::{Failure, cluster};

const DAEMON: &str = "the daemon with two servers connected; verification as by default";
const DISK: &str = "log durable, audit on; 500 rows in a transaction";

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    let scratch = tempfile::tempdir_in(&asked.folder)?;
    let mut servers = cluster::of(scratch.path(), 2, USUAL)?;
    idle(asked, report, &servers)?;
    loaded(asked, report, &servers)?;
    servers.iter_mut().for_each(Server::stop);
    started(asked, report, scratch.path())?;
    for events in asked.of(vec![2_000], vec![10_000, 100_000], vec![100_000, 1_000_000]) {
        opened(report, scratch.path(), events)?;
    }
    program(report)
}

fn idle(asked: &Asked, report: &mut Report, servers: &[Server]) -> Result<(), Failure> {
    std::thread::sleep(Duration::from_secs(asked.of(1, 5, 30)));
    let seconds = asked.of(3, 20, 120);
    let (pid, bytes) = (servers[1].pid(), loopback_bytes());
    let before = computed_s(pid);
    std::thread::sleep(Duration::from_secs(seconds));
    let percent = (computed_s(pid) - before) / seconds as f64 * 100.0;
    let bytes = (loopback_bytes() - bytes) as f64 / seconds as f64;
    let line = Line::new("idle: computing, of one core", Sample::of(percent), "%", DAEMON);
    report.push(line.value_within(Budget::Most(0.5, "≤ 0.5 %")))?;
    let memory = memory_kib(pid, "VmRSS") / 1024.0;
    let line = Line::new("idle: memory", Sample::of(memory), "MiB", DAEMON);
    report.push(line.value_within(Budget::Most(64.0, "≤ 64 MiB")))?;
    let line = Line::new("idle: bytes on loopback, both servers, headers and all", Sample::of(bytes), "B/s", DAEMON);
    report.push(line.value_within(Budget::Most(100.0, "≤ 100 B/s")).also("other programs' bytes on loopback count"))
}

/// Memory and disk against the length of the log.
fn loaded(asked: &Asked, report: &mut Report, servers: &[Server]) -> Result<(), Failure> {
    let plain = servers[0].folder.join("plain.db");
    shape::make(&plain, &USUAL.schema())?;
    let mut without = shape::open(&plain, "NORMAL")?;
    let mut with = shape::open(servers[0].database(DATABASE), "NORMAL")?;
    let mut rows = 0;
    for target in asked.of(vec![2_000, 5_000], vec![20_000, 100_000], vec![100_000, 1_000_000]) {
        while rows < target {
            shape::insert_rows(&mut with, USUAL, rows..rows + 500, Ids::Free)?;
            shape::insert_rows(&mut without, USUAL, rows..rows + 500, Ids::Free)?;
            rows += 500;
        }
        cluster::captured(&servers[0])?;
        let count = |server: &Server| server.database_status(DATABASE)["rows"].as_u64();
        cluster::until("the rows are on both", Duration::from_millis(50), || Ok(count(&servers[1]) == Some(rows)))?;
        std::thread::sleep(Duration::from_secs(asked.of(1, 3, 10)));
        for (at, words) in [(0, "writing"), (1, "receiving")] {
            let pid = servers[at].pid();
            let line = Line::new(
                format!("{rows} rows, {words} server: memory afterwards"),
                Sample::of(memory_kib(pid, "VmRSS") / 1024.0),
                "MiB",
                DAEMON,
            );
            report.push(line.also(format!("at most so far {} MiB", figure(memory_kib(pid, "VmHWM") / 1024.0))))?;
            disk(report, &servers[at], rows, words)?;
        }
    }
    for connection in [&with, &without] {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    let size = |path: &Path| std::fs::metadata(path).map(|meta| meta.len() as f64 / rows as f64);
    let line = Line::new("the app's file, per row", Sample::of(size(servers[0].database(DATABASE))?), "B/row", DISK);
    report.push(line.against("plain SQLite", Sample::of(size(&plain)?)))
}

fn disk(report: &mut Report, server: &Server, rows: u64, words: &str) -> Result<(), Failure> {
    let log = std::fs::metadata(server.data().join("events.redb"))?.len() as f64;
    let events = server.database_status(DATABASE)["events"].as_u64().unwrap_or_default().max(1);
    let line =
        Line::new(format!("{rows} rows, {words} server: log on disk"), Sample::of(log / rows as f64), "B/row", DISK);
    let line = line.against("the rows as plain data", Sample::of(RAW as f64));
    report.push(line.also(format!(
        "{events} events, {} B per event; events, state, indexes, room set aside",
        figure(log / events as f64)
    )))
}

/// From the command to its ready line, with a small log.
fn started(asked: &Asked, report: &mut Report, folder: &Path) -> Result<(), Failure> {
    let mut server = cluster::server(folder, "starting", USUAL)?;
    server.start();
    server.stop();
    let mut sample = Sample::default();
    for _ in 0..asked.rounds(5) {
        let began = Instant::now();
        server.start();
        sample.push(began.elapsed().as_secs_f64() * 1e3);
        server.stop();
    }
    report.push(Line::new("start-up: command to ready line, small log", sample, "ms", "everything that a start checks"))
}

/// A node is opened with a long log; then its app writes.
fn opened(report: &mut Report, folder: &Path, events: u64) -> Result<(), Failure> {
    let home = folder.join(format!("long-{events}"));
    // Columns as the events of the chain name them.
    let columns = COLUMNS[1..].join(", ");
    let schema = format!("CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, {columns})");
    let mut mesh = Mesh::found(&home, 1, &schema)?;
    mesh.begin()?;
    let (log, membership): (Arc<Log>, &Membership) = (mesh.nodes[0].log(), mesh.nodes[0].membership());
    let mut chain = Chain::new([9; 32], membership.cluster().0);
    let now = mesh.close()?;
    append(&log, &mut chain, events, 1).map_err(|error| error.to_string())?;
    drop(log);
    let mut mesh = Mesh::open(&home, 1, now)?;
    mesh.until("the events are evaluated", |mesh| {
        let view = &mesh.nodes[0].status(mesh.now)?.databases[0];
        Ok(view.rows == events && view.events >= events && view.held_events == 0)
    })?;
    mesh.pass(5_000)?;
    let now = mesh.close()?;
    let place = file_of(&home, 0);
    let (node, took): (Node, Duration) = timed(|| open_node(&home.join("s0"), 0, now))?;
    node.close()?;
    let (mut mesh, _) = timed(|| Mesh::open(&home, 1, now))?;
    shape::insert_rows(&mut shape::open(&place, "FULL")?, USUAL, 0..1, Ids::Free)?;
    let capturing = took + mesh.capture(0)?;
    let words = format!("start-up with {events} events: a node opens, then captures a row");
    let on = "log opened and checked, file recovered, row durable";
    let line = Line::new(words, Sample::of(capturing.as_secs_f64() * 1e3), "ms", on);
    report.push(
        line.value_within(Budget::Most(2_000.0, "≤ 2 s (1,000,000 events)"))
            .also(format!("opening alone {} ms", figure(took.as_secs_f64() * 1e3))),
    )?;
    mesh.close()?;
    Ok(())
}

fn program(report: &mut Report) -> Result<(), Failure> {
    let built = Path::new(env!("CARGO_BIN_EXE_litemesh"));
    let size = |path: &Path| std::fs::metadata(path).map(|meta| meta.len() as f64 / f64::from(1 << 20));
    let line =
        Line::new("size of the program", Sample::of(size(built)?), "MiB", "profile bench: with symbols for a profiler");
    report.push(line.also("a release is stripped and linked as one, and smaller"))
}
