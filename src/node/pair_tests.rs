//! Two nodes with real files and real logs, joined by hand-carried frames under a clock of their own: what tests of first
//! meetings stand on. Invariant: nothing here waits or draws dice. Callers: tests of `node`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::membership::{admit, node_id};
use super::{DatabaseSettings, Effect, Input, Node, NodeSettings, Now};
use crate::log::Log;
use crate::node::meeting::Meeting;

pub(super) const CLOCK_MS: u64 = 1_795_000_000_000;

/// A server that is not started yet: a folder with the app's files.
pub(super) struct Site {
    pub(super) directory: tempfile::TempDir,
    pub(super) databases: Vec<DatabaseSettings>,
    seed: [u8; 32],
}

impl Site {
    pub(super) fn new(seed: u8) -> Site {
        Site { directory: tempfile::tempdir().unwrap(), databases: Vec::new(), seed: [seed; 32] }
    }

    /// Adds a file made by `sql`, with references (table, column, to).
    pub(super) fn with(mut self, name: &str, sql: &str, references: &[(&str, &str, &str)]) -> Site {
        let path = self.directory.path().join(format!("{name}.db"));
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let own =
            |(table, column, to): &(&str, &str, &str)| ((*table).to_string(), (*column).to_string(), (*to).to_string());
        let references = references.iter().map(own).collect();
        self.databases.push(DatabaseSettings { name: name.into(), path, references, ..DatabaseSettings::default() });
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.db"))
    }

    pub(super) fn app(&self, name: &str, sql: &str) {
        let app = Connection::open(self.path(name)).unwrap();
        app.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        app.execute_batch(sql).unwrap();
    }

    /// The first column of a query, as text.
    pub(super) fn ask(&self, name: &str, sql: &str) -> Vec<String> {
        ask(&self.path(name), sql)
    }

    pub(super) fn settings(&self) -> NodeSettings {
        NodeSettings {
            data_dir: self.directory.path().to_path_buf(),
            key_seed: self.seed,
            name: format!("n{}", self.seed[0]),
            databases: self.databases.clone(),
            entropy: self.seed,
            machine_id: String::new(),
            pace: Default::default(),
            retention: Default::default(),
        }
    }

    pub(super) fn log(&self) -> Arc<Log> {
        Arc::new(Log::open(&self.directory.path().join("events.redb")).unwrap())
    }
}

pub(super) fn ask(path: &Path, sql: &str) -> Vec<String> {
    let app = Connection::open(path).unwrap();
    let mut statement = app.prepare(sql).unwrap();
    let text = |row: &rusqlite::Row<'_>| -> rusqlite::Result<String> {
        Ok(match row.get::<_, rusqlite::types::Value>(0)? {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        })
    };
    statement.query_map([], text).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Two nodes; the second one joined the first one's cluster.
pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    pub(super) now: Now,
}

impl Pair {
    /// Starts both. `meetings`: what a person said of the joiner's files.
    pub(super) fn start(sites: [&Site; 2], meetings: &[(&str, Meeting)]) -> Pair {
        let now = Now { mono_ms: 1_000, wall_ms: CLOCK_MS };
        let logs = [sites[0].log(), sites[1].log()];
        Node::found(&logs[0], &sites[0].seed, "first", "test", now).unwrap();
        let first = Node::open(sites[0].settings(), logs[0].clone(), now).unwrap();
        let record = admit(&sites[0].seed, first.membership(), node_id(&sites[1].seed), "second", now.wall_ms);
        let mut records: Vec<_> = first.membership().records().into_iter().cloned().collect();
        records.push(record);
        Node::enter(&logs[1], records).unwrap();
        for (name, meeting) in meetings {
            meeting.clone().decide(&logs[1], name).unwrap();
        }
        let second = Node::open(sites[1].settings(), logs[1].clone(), now).unwrap();
        Pair { nodes: [first, second], now }
    }

    /// Connects the two and lets them work until nothing is left to do.
    pub(super) fn meet(&mut self) {
        // The first one knows the joiner by the records of its hello; until then nobody would let it in.
        let records = self.nodes[1].membership().records().into_iter().cloned().collect();
        self.nodes[0].handle(Input::MembersLearnt(records), self.now).unwrap();
        self.connect();
        self.work();
    }

    /// Connects the two, and nothing more.
    pub(super) fn connect(&mut self) {
        let ids = [self.nodes[0].id(), self.nodes[1].id()];
        for at in [0, 1] {
            let connected = Input::PeerConnected { peer: ids[1 - at], address: String::new() };
            self.nodes[at].handle(connected, self.now).unwrap();
        }
    }

    /// Cuts the two off from each other.
    pub(super) fn part(&mut self) {
        let ids = [self.nodes[0].id(), self.nodes[1].id()];
        for at in [0, 1] {
            self.nodes[at].handle(Input::PeerDisconnected { peer: ids[1 - at] }, self.now).unwrap();
        }
    }

    /// Lets both look at their files for a while, without a word between them.
    pub(super) fn work_apart(&mut self) {
        for _ in 0..40 {
            self.now = Now { mono_ms: self.now.mono_ms + 50, wall_ms: self.now.wall_ms + 50 };
            for node in &mut self.nodes {
                node.handle(Input::Tick, self.now).unwrap();
                while node.poll_effect().is_some() {}
            }
        }
    }

    /// The joiner gets the events, and leaves its files alone.
    pub(super) fn meet_without_files(&mut self) {
        let events = {
            let read = self.nodes[0].log().read().unwrap();
            let heads = read.heads().unwrap();
            let of = |(id, head): (&crate::model::OriginId, &crate::model::Head)| -> Vec<_> {
                (1..=head.seq).filter_map(|seq| read.event(id, seq).unwrap()).collect()
            };
            heads.iter().flat_map(of).collect::<Vec<_>>()
        };
        let mut write = self.nodes[1].log.write().unwrap();
        for stored in events {
            let event = crate::wire::decode_event(&stored.bytes).unwrap();
            write.append(&event, &stored.bytes, stored.hash, stored.signature).unwrap();
            let header = &event.header;
            let head = crate::model::Head { origin: header.origin, seq: header.seq, hash: stored.hash };
            self.nodes[1].heads.insert(header.origin.id(), head);
        }
        write.commit_durable().unwrap();
        self.nodes[1].rank_origins();
    }

    /// Lets time pass and frames travel until both hold and show the same.
    pub(super) fn work(&mut self) {
        let mut calm = 0;
        for _ in 0..3_000 {
            self.pass();
            let ready = |node: &Node| node.applied_all() && node.databases.iter().all(|one| one.ready);
            let done = self.nodes[0].in_sync(&[]) && self.nodes[1].in_sync(&[]) && self.nodes.iter().all(ready);
            calm = if done { calm + 1 } else { 0 };
            if calm > 60 {
                return;
            }
        }
        panic!("they did not come to rest: {:?} {:?}", self.nodes[0].status(self.now), self.nodes[1].status(self.now));
    }

    /// Lets 50 ms pass, and what was sent arrive.
    pub(super) fn pass(&mut self) {
        let ids = [self.nodes[0].id(), self.nodes[1].id()];
        self.now = Now { mono_ms: self.now.mono_ms + 50, wall_ms: self.now.wall_ms + 50 };
        for at in [0, 1] {
            self.nodes[at].handle(Input::Tick, self.now).unwrap();
            while let Some(effect) = self.nodes[at].poll_effect() {
                if let Effect::Send { frame, .. } = effect {
                    self.nodes[1 - at].handle(Input::Received { peer: ids[at], frame }, self.now).unwrap();
                }
            }
        }
    }
}
