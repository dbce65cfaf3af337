//! Two servers with real files and logs, frames carried by hand: what is written on one must be the same bits on the other.
//!
//! Invariant: nothing draws dice here and time passes only by hand; one server's app writes while nothing is under way, so
//! no value loses against another. What it does not verify: collisions and conflicts. Callers: the targets of values and
//! names, `tests/values.rs`.

use std::path::Path;
use std::sync::Arc;

use litemesh::log::Log;
use litemesh::model::{MemberRecord, Value};
use litemesh::node::membership::{admit, node_id};
use litemesh::node::{DatabaseSettings, Effect, Input, Node, NodeSettings, Now};
use rusqlite::Connection;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::scratch::Scratch;

/// 2025-06-01: marks carry the machine's real time, which is later.
const WALL_MS: u64 = 1_748_736_000_000;

/// Ticks after which two idle servers must be equal.
const TICKS_MAX: u32 = 4_000;

/// Two servers, the second one a joiner.
pub struct Duo {
    nodes: [Node; 2],
    /// Their apps' connections.
    pub apps: [Connection; 2],
    now: Now,
    _folder: Scratch,
}

/// A value bound as its raw bits.
pub struct Bits<'v>(pub &'v Value);

impl ToSql for Bits<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// The name as an identifier in SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Duo {
    /// Starts both on files that `schema` made.
    pub fn new(schema: &[String], steering_runs: u32) -> Duo {
        let folder = Scratch::new();
        let now = Now { mono_ms: 1_000, wall_ms: WALL_MS };
        let seeds = [[11; 32], [12; 32]];
        let [one, other] = [0, 1].map(|at| {
            let home = folder.path().join(at.to_string());
            std::fs::create_dir(&home).expect("the folder of the run can be written");
            (open_app(&home, schema), settings(&home, seeds[at], steering_runs), log(&home))
        });
        Node::found(&one.2, &seeds[0], "one", "values", now).expect("a new log takes a cluster");
        let first = Node::open(one.1, one.2, now).unwrap_or_else(|error| panic!("the first node: {error}"));
        let mut records: Vec<MemberRecord> = first.membership().records().into_iter().cloned().collect();
        records.push(admit(&seeds[0], first.membership(), node_id(&seeds[1]), "other", now.wall_ms));
        Node::enter(&other.2, records.clone()).expect("the records fit together");
        let second = Node::open(other.1, other.2, now).unwrap_or_else(|error| panic!("the second node: {error}"));
        let mut duo = Duo { nodes: [first, second], apps: [one.0, other.0], now, _folder: folder };
        duo.input(0, Input::MembersLearnt(records));
        for at in [0, 1] {
            let peer = duo.nodes[1 - at].id();
            duo.input(at, Input::PeerConnected { peer, address: String::new() });
        }
        duo.work();
        duo
    }

    fn input(&mut self, at: usize, input: Input) {
        if let Err(error) = self.nodes[at].handle(input, self.now) {
            panic!("server {at} returned an error: {error}");
        }
    }

    /// Lets time pass and frames travel until both show the same; panics when they do not come to rest.
    pub fn work(&mut self) {
        let ids = [self.nodes[0].id(), self.nodes[1].id()];
        let mut calm = 0;
        for _ in 0..TICKS_MAX {
            self.now = Now { mono_ms: self.now.mono_ms + 50, wall_ms: self.now.wall_ms + 50 };
            for at in [0, 1] {
                self.input(at, Input::FileTouched(0));
                self.input(at, Input::Tick);
                while let Some(effect) = self.nodes[at].poll_effect() {
                    match effect {
                        Effect::Send { frame, .. } => self.input(1 - at, Input::Received { peer: ids[at], frame }),
                        Effect::PeerFault { reason, .. } => panic!("server {at} blames the other: {reason}"),
                        Effect::Announce { .. }
                        | Effect::LanTrusted(_)
                        | Effect::MembersChanged
                        | Effect::Reopened
                        | Effect::Applied(_) => {}
                    }
                }
            }
            let rests =
                self.nodes.iter().all(|node| node.in_sync(&[])) && self.apps.iter().all(|app| marks(app) == Some(0));
            calm = if rests { calm + 1 } else { 0 };
            if calm > 4 {
                return;
            }
        }
        let [one, other] = [0, 1].map(|at| self.nodes[at].status(self.now));
        panic!("they did not come to rest: {one:?}\n{other:?}");
    }

    /// All rows of a table as raw bits, in an order of their own.
    pub fn rows(&self, at: usize, table: &str) -> Vec<Vec<Value>> {
        let mut statement =
            self.apps[at].prepare(&format!("SELECT * FROM {}", quote(table))).expect("the table is there");
        let width = statement.column_count();
        let read = |row: &rusqlite::Row<'_>| (0..width).map(|column| Ok(value(row.get_ref(column)?))).collect();
        let rows: Result<Vec<Vec<Value>>, _> = statement.query_map([], read).and_then(Iterator::collect);
        let mut rows = rows.expect("the file is sound");
        rows.sort();
        rows
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value.to_bits()),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn marks(app: &Connection) -> Option<i64> {
    app.query_row("SELECT count(*) FROM _litemesh_outbox", [], |row| row.get(0)).ok()
}

fn open_app(home: &Path, schema: &[String]) -> Connection {
    let app = Connection::open(home.join("app.db")).expect("a file can be made");
    app.execute_batch("PRAGMA synchronous = OFF").expect("a new file takes any mode");
    for sql in schema {
        app.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    app
}

fn log(home: &Path) -> Arc<Log> {
    Arc::new(Log::open(&home.join("log.redb")).expect("a log can be made"))
}

fn settings(home: &Path, key_seed: [u8; 32], steering_runs: u32) -> NodeSettings {
    let app = DatabaseSettings {
        name: "app".to_string(),
        path: home.join("app.db"),
        include: vec!["*".to_string()],
        steering_runs,
        ..DatabaseSettings::default()
    };
    NodeSettings {
        data_dir: home.to_path_buf(),
        key_seed,
        name: format!("n{}", key_seed[0]),
        databases: vec![app],
        entropy: key_seed,
        machine_id: "fuzz".to_string(),
        pace: Default::default(),
        retention: Default::default(),
    }
}
