//! A real node with its files and its log, an app that writes, a hostile member with a good key, and an honest one.
//!
//! Invariant: whatever the hostile one sends, the node returns no error, goes on capturing what its app writes, and shows
//! what the honest one writes. What it does not verify: that two nodes show the same (`simulate`, `histories`). Callers:
//! the node's target, the target of names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey};
use litemesh::log::Log;
use litemesh::model::{
    Birth, Cell, Change, Cut, Event, Header, MemberRecord, NodeId, Origin, RowId, Stamp, TableColumns, Value,
};
use litemesh::node::membership::{admit, node_id};
use litemesh::node::{DatabaseSettings, Effect, Input, Node, NodeSettings, Now};
use litemesh::wire::message::{Events, Message, SignedEvent};
use litemesh::wire::{encode_event, event_hash, head_signature_message};
use rusqlite::Connection;

use crate::scratch::Scratch;

/// 2025-06-01: marks carry the machine's real time, which is later.
const WALL_MS: u64 = 1_748_736_000_000;

const SEEDS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

/// What the app's file holds.
pub const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INTEGER REFERENCES u(id), c REAL, d BLOB NOT NULL DEFAULT x'');
    CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT UNIQUE, parent INTEGER REFERENCES u(id) ON DELETE CASCADE);
    CREATE TABLE k(k1 TEXT, k2, v, PRIMARY KEY(k1, k2)) WITHOUT ROWID;
    CREATE TABLE n(x, y);
    CREATE TABLE s(id INTEGER PRIMARY KEY, n INT CHECK(n > 0), t TEXT NOT NULL) STRICT;
    CREATE TABLE w(id INTEGER PRIMARY KEY, v TEXT);
    INSERT INTO u(name) VALUES ('a'), ('b');
    INSERT INTO t(a, b) VALUES ('x', 1), ('y', 2), ('z', NULL);
    INSERT INTO k VALUES ('p', 1, 2), ('q', x'00', 'v');
    INSERT INTO n VALUES (1, 2), (NULL, NULL);
    INSERT INTO s VALUES (1, 1, 't');";

/// The chain of one member.
pub struct Author {
    key: SigningKey,
    origin: Origin,
    seq: u64,
    previous: [u8; 32],
}

/// See the module.
pub struct Arena {
    node: Option<Node>,
    settings: NodeSettings,
    cluster: [u8; 32],
    now: Now,
    /// The hostile member.
    pub rogue: Author,
    honest: Author,
    app: Connection,
    folder: Scratch,
}

impl Author {
    fn new(seed: [u8; 32]) -> Author {
        let origin = Origin { node: node_id(&seed), incarnation: 7 };
        Author { key: SigningKey::from_bytes(&seed), origin, seq: 0, previous: [0; 32] }
    }

    /// Its key.
    pub fn id(&self) -> NodeId {
        self.origin.node
    }

    /// Its chain.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The number of its next event.
    pub fn next_seq(&self) -> u64 {
        self.seq + 1
    }

    /// The hash of its last event.
    pub fn previous(&self) -> [u8; 32] {
        self.previous
    }

    /// Signs any bytes.
    pub fn sign_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        self.key.sign(bytes).to_bytes().to_vec()
    }

    /// Signs a hash as the head of its chain.
    pub fn sign(&self, cluster: &[u8; 32], hash: &[u8; 32]) -> [u8; 64] {
        self.key.sign(&head_signature_message(cluster, hash)).to_bytes()
    }
}

impl Arena {
    /// A fresh one.
    pub fn new() -> Arena {
        let folder = Scratch::new();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).expect("a file can be made");
        app.execute_batch("PRAGMA journal_mode = WAL").expect("a new file takes any mode");
        app.execute_batch(SCHEMA).expect("the schema is SQL");
        let now = Now { mono_ms: 1_000, wall_ms: WALL_MS };
        let log = Arc::new(Log::open(&folder.path().join("log.redb")).expect("a log can be made"));
        Node::found(&log, &SEEDS[0], "node", "fuzz", now).expect("a new log takes a cluster");
        let settings = settings(folder.path().to_path_buf(), path);
        let node = Node::open(settings.clone(), log, now).expect("the node opens");
        let cluster = node.membership().cluster().0;
        let (rogue, honest) = (Author::new(SEEDS[1]), Author::new(SEEDS[2]));
        let mut arena = Arena { node: Some(node), settings, cluster, now, rogue, honest, app, folder };
        let membership = arena.node().membership().clone();
        let mut records: Vec<MemberRecord> = Vec::new();
        for (author, name) in [(&arena.rogue, "rogue"), (&arena.honest, "honest")] {
            let mut membership = membership.clone();
            records.iter().for_each(|record| drop(membership.add(record.clone())));
            records.push(admit(&SEEDS[0], &membership, author.id(), name, WALL_MS));
        }
        arena.input(Input::MembersLearnt(records));
        arena.connect();
        arena.work(4);
        arena
    }

    /// The cluster's id.
    pub fn cluster(&self) -> [u8; 32] {
        self.cluster
    }

    /// The node.
    pub fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("the node is away only while it starts again")
    }

    /// An input, and what the node wants sent.
    pub fn input(&mut self, input: Input) -> Vec<Effect> {
        let now = self.now;
        let node = self.node();
        if let Err(error) = node.handle(input, now) {
            panic!("the node returned an error: {error}");
        }
        std::iter::from_fn(|| node.poll_effect()).collect()
    }

    /// A frame of the hostile member.
    pub fn receive(&mut self, frame: Vec<u8>) -> Vec<Effect> {
        let peer = self.rogue.id();
        self.input(Input::Received { peer, frame })
    }

    /// Lets time pass.
    pub fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
    }

    /// Ticks.
    pub fn work(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.pass(60);
            self.input(Input::Tick);
        }
    }

    /// What the app does; an error is the app's own.
    pub fn app(&mut self, sql: &str) -> bool {
        self.app.execute_batch(sql).is_ok()
    }

    /// Settings of a node with log and file in this folder.
    pub fn settings_at(folder: &Path) -> NodeSettings {
        settings(folder.to_path_buf(), folder.join("app.db"))
    }

    /// Runs a job of another thread.
    #[cfg(feature = "daemon")]
    pub fn run(&mut self, job: litemesh::node::port::Job) {
        let now = self.now;
        job(self.node(), now);
        while self.node().poll_effect().is_some() {}
    }

    /// Stops the node for good: its log's bytes.
    pub fn into_log(mut self) -> Vec<u8> {
        if let Some(node) = self.node.take() {
            node.close().expect("the node closes");
        }
        std::fs::read(self.folder.path().join("log.redb")).expect("the log is there")
    }

    /// Stops the node and starts it again.
    pub fn restart(&mut self) {
        self.node = None;
        let log = Log::open(&self.folder.path().join("log.redb")).unwrap_or_else(|error| panic!("log: {error}"));
        let node = Node::open(self.settings.clone(), Arc::new(log), self.now);
        self.node = Some(node.unwrap_or_else(|error| panic!("the node does not open again: {error}")));
        self.connect();
    }

    fn connect(&mut self) {
        for peer in [self.rogue.id(), self.honest.id()] {
            self.input(Input::PeerConnected { peer, address: String::new() });
        }
    }

    /// The next event of the hostile member, signed.
    pub fn rogue_event(&mut self, tables: Vec<TableColumns>, changes: Vec<Change>, stamp: Stamp, applied: Cut) {
        let header = header(&self.rogue, self.cluster, (stamp, applied));
        let event = Event { header, tables, changes };
        let bytes = encode_event(&event);
        self.rogue_bytes(bytes);
    }

    /// Bytes of the hostile member under a good signature; its chain goes on when they were taken.
    pub fn rogue_bytes(&mut self, bytes: Vec<u8>) {
        let hash = event_hash(&bytes);
        let signature = Some(self.rogue.sign(&self.cluster, &hash));
        let events = Events { request: 0, events: vec![SignedEvent { bytes, signature }], ..Events::default() };
        self.receive(Message::Events(events).encode());
        let origin = self.rogue.origin();
        if self
            .node()
            .log()
            .read()
            .ok()
            .and_then(|read| read.head(&origin.id()).ok().flatten())
            .is_some_and(|head| head.hash == hash)
        {
            self.rogue.seq += 1;
            self.rogue.previous = hash;
        }
    }

    /// Panics unless the app's next write is captured and the honest member's next event is shown.
    pub fn check(&mut self) {
        let text = format!("honest {}", self.honest.next_seq());
        let row = RowId::Born(Birth { origin: self.honest.origin.id(), seq: self.honest.next_seq(), index: 0 });
        let cells = vec![(1, Cell::Plain(Value::text(&text)))];
        let id = 500_000_000 + self.honest.next_seq() as i64;
        let change = Change::Insert { table: 0, row, claim: Some(id), after: None, cells };
        let tables = vec![TableColumns { table: "w".into(), columns: vec!["id".into(), "v".into()] }];
        let stamp = Stamp::from_wall_ms(self.now.wall_ms);
        let header = header(&self.honest, self.cluster, (stamp, Cut::new()));
        let bytes = encode_event(&Event { header, tables, changes: vec![change] });
        let hash = event_hash(&bytes);
        let signature = Some(self.honest.sign(&self.cluster, &hash));
        let events = Events { request: 0, events: vec![SignedEvent { bytes, signature }], ..Events::default() };
        let peer = self.honest.id();
        self.input(Input::Received { peer, frame: Message::Events(events).encode() });
        (self.honest.seq, self.honest.previous) = (self.honest.seq + 1, hash);
        assert!(self.app(&format!("INSERT INTO w(v) VALUES ('app {}')", self.honest.seq)), "the app cannot write");
        for round in 0.. {
            self.pass(if round < 20 { 60 } else { 2_000 });
            self.input(Input::Tick);
            let count = |sql: &str| self.app.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("the file is there");
            let shown = count(&format!("SELECT count(*) FROM w WHERE v = '{text}'"));
            let waiting = count("SELECT count(*) FROM _litemesh_outbox");
            if shown == 1 && waiting == 0 {
                return;
            }
            if round == 60 {
                let now = self.now;
                let status = self.node().status(now);
                panic!("the node is stuck: shown {shown}, marks {waiting}, {status:?}");
            }
        }
    }
}

fn header(author: &Author, cluster: [u8; 32], (stamp, applied): (Stamp, Cut)) -> Header {
    Header {
        cluster,
        origin: author.origin,
        seq: author.next_seq(),
        previous: author.previous,
        stamp,
        database: "app".to_string(),
        applied,
        schema: [0; 16],
        continues: false,
        note: String::new(),
    }
}

fn settings(data_dir: PathBuf, path: PathBuf) -> NodeSettings {
    let app = DatabaseSettings {
        name: "app".to_string(),
        path,
        include: vec!["*".to_string()],
        steering_runs: 16,
        ..DatabaseSettings::default()
    };
    NodeSettings {
        data_dir,
        key_seed: SEEDS[0],
        name: "node".to_string(),
        databases: vec![app],
        entropy: [9; 32],
        machine_id: "fuzz".to_string(),
        pace: Default::default(),
        retention: Default::default(),
    }
}
