//! What travels: bytes of all frames between servers, in sync and behind, against the payload.
//!
//! Real nodes with real logs on disk and a clock of their own; every frame arrives after 5 ms. All servers hold the same base
//! of events of one row each; one of them has more, and all meet at once. Counted: every byte of every frame, on all links
//! together, until all are equal and know it. Does not count: the transport's own bytes (QUIC, TCP, noise), gossip's envelope.
//! The rows have 10 columns: 6 whole numbers and 4 random texts, which do not compress well; real rows do better.
//! Callers: `simulate --scenario bytes [--count EVENTS]`, `cargo bench -- compare`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use litemesh::log::Log;
use litemesh::model::{
    Birth, Cell, Change, Cut, Event, Header, MemberRecord, NodeId, Origin, RowId, Stamp, TableColumns, Value,
};
use litemesh::node::membership::{Membership, admit, found_cluster, node_id};
use litemesh::node::{Effect, Input, Node, NodeSettings, Now};
use litemesh::wire::{encode_event, event_hash, head_signature_message};

/// Events that all hold, when nobody says how many.
const BASE_DEFAULT: u64 = 20_000;

/// Virtual ms after which something is wrong.
const PATIENCE_MS: u64 = 600_000;

const WALL_MS: u64 = 1_748_736_000_000;
pub(crate) const COLUMNS: [&str; 10] =
    ["id", "team", "match", "auto", "teleop", "endgame", "scout", "robot", "notes", "photo"];

/// One line of the table.
pub(crate) struct Case {
    pub(crate) words: &'static str,
    pub(crate) servers: usize,
    /// Events that one server has beyond the base, and rows in each.
    pub(crate) behind: (u64, u64),
}

/// Measures and prints the table.
pub fn run(count: Option<u64>) -> Result<String, String> {
    let base = count.unwrap_or(BASE_DEFAULT);
    let scratch = crate::world::scratch::Scratch::new();
    let mut table = format!(
        "{base} events of one row on every server before; bytes of all frames on all links\n\n\
         | servers | behind | rows' bytes | events' bytes | on the wire | per server behind | of the rows' bytes | ms |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    for servers in [2, 5, 12] {
        for (words, behind) in [
            ("in sync", (0, 0)),
            ("1 row", (1, 1)),
            ("100 rows in one transaction", (1, 100)),
            ("100 rows, one by one", (100, 1)),
            ("100,000 rows, 500 in each", (200, 500)),
        ] {
            table += &measure(scratch.path(), base, &Case { words, servers, behind })?;
        }
    }
    Ok(table)
}

fn measure(folder: &Path, base: u64, case: &Case) -> Result<String, String> {
    let Met { rows_bytes, events_bytes, bytes, took } = meet(folder, base, case)?;
    let receivers = case.servers as u64 - 1;
    let each = bytes / receivers;
    let ratio = match rows_bytes {
        0 => "-".to_string(),
        rows => format!("{:.2}", each as f64 / rows as f64),
    };
    let Case { words, servers, .. } = case;
    Ok(format!("| {servers} | {words} | {rows_bytes} | {events_bytes} | {bytes} | {each} | {ratio} | {took} |\n"))
}

/// What a meeting took.
pub(crate) struct Met {
    pub(crate) rows_bytes: u64,
    pub(crate) events_bytes: u64,
    /// All frames on all links.
    pub(crate) bytes: u64,
    /// Virtual ms until all were equal and knew it.
    pub(crate) took: u64,
}

/// Lets servers meet, one of which has events that the others lack.
pub(crate) fn meet(folder: &Path, base: u64, case: &Case) -> Result<Met, String> {
    let mut group = Group::new(folder, base, case).map_err(|error| error.to_string())?;
    let took = group.meet()?;
    let Group { rows_bytes, events_bytes, bytes, .. } = group;
    Ok(Met { rows_bytes, events_bytes, bytes, took })
}

/// Servers that are to meet.
struct Group {
    nodes: Vec<Node>,
    now: Now,
    under_way: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    frames: u64,
    bytes: u64,
    rows_bytes: u64,
    events_bytes: u64,
}

/// A chain of events under the founder's key.
pub(crate) struct Chain {
    key: SigningKey,
    cluster: [u8; 32],
    origin: Origin,
    seq: u64,
    previous: [u8; 32],
}

impl Chain {
    /// The next event: its bytes, hash, signature; and the bytes of its rows' values.
    fn next(&mut self, rows: u64) -> (Event, Vec<u8>, [u8; 32], [u8; 64], u64) {
        self.seq += 1;
        let mut payload = 0;
        let changes = (0..rows).map(|index| {
            let row = RowId::Born(Birth { origin: self.origin.id(), seq: self.seq, index: index as u32 });
            let (values, bytes) = values(self.seq * 1_000 + index);
            payload += bytes;
            let cells = values.into_iter().enumerate().map(|(at, value)| (at as u32, Cell::Plain(value))).collect();
            Change::Insert { table: 0, row, claim: Some((self.seq * 1_000 + index) as i64), after: None, cells }
        });
        let changes = changes.collect();
        let header = Header {
            cluster: self.cluster,
            origin: self.origin,
            seq: self.seq,
            previous: self.previous,
            stamp: Stamp::from_wall_ms(WALL_MS - 100_000_000 + self.seq),
            database: "scouting".into(),
            applied: Cut::new(),
            schema: [0; 16],
            continues: false,
            note: String::new(),
        };
        let columns = COLUMNS.iter().map(|name| (*name).to_string()).collect();
        let tables = vec![TableColumns { table: "scouting_data".into(), columns }];
        let event = Event { header, tables, changes };
        let bytes = encode_event(&event);
        let hash = event_hash(&bytes);
        let signature = self.key.sign(&head_signature_message(&self.cluster, &hash)).to_bytes();
        self.previous = hash;
        (event, bytes, hash, signature, payload)
    }
}

impl Chain {
    /// The first event of a chain.
    pub(crate) fn new(seed: [u8; 32], cluster: [u8; 32]) -> Chain {
        let origin = Origin { node: node_id(&seed), incarnation: 77 };
        Chain { key: SigningKey::from_bytes(&seed), cluster, origin, seq: 0, previous: [0; 32] }
    }
}

/// Ten values, and their bytes as plain data.
pub(crate) fn values(number: u64) -> (Vec<Value>, u64) {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut values: Vec<Value> = vec![Value::Integer(number as i64)];
    values.extend((0..5).map(|_| Value::Integer((draw() % 200) as i64)));
    let mut bytes = 8 + 5 * 2;
    for _ in 0..4 {
        let text: String =
            (0..40).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[draw() as usize % 36])).collect();
        bytes += text.len() as u64;
        values.push(Value::text(&text));
    }
    (values, bytes)
}

impl Group {
    fn new(folder: &Path, base: u64, case: &Case) -> Result<Group, Box<dyn std::error::Error>> {
        let seed = |at: usize| [at as u8 + 1; 32];
        let founder = found_cluster(&seed(0), "server 0", "measured", WALL_MS);
        let mut membership = Membership::new(founder.clone())?;
        let mut records: Vec<MemberRecord> = vec![founder];
        for at in 1..case.servers {
            let record = admit(&seed(0), &membership, node_id(&seed(at)), &format!("server {at}"), WALL_MS);
            membership.add(record.clone())?;
            records.push(record);
        }
        let mut chain = Chain::new(seed(0), membership.cluster().0);
        let folder = folder.join(format!("{}-{}-{}", case.servers, case.behind.0, case.behind.1));
        std::fs::create_dir_all(&folder)?;
        let stock = folder.join("stock.redb");
        {
            let log = Log::open(&stock)?;
            Node::enter(&log, records)?;
            append(&log, &mut chain, base, 1)?;
        }
        let (mut nodes, now) = (Vec::new(), Now { mono_ms: 1_000, wall_ms: WALL_MS });
        let (mut rows_bytes, mut events_bytes) = (0, 0);
        for at in 0..case.servers {
            let data_dir = folder.join(format!("s{at}"));
            std::fs::create_dir_all(&data_dir)?;
            std::fs::copy(&stock, data_dir.join("events.redb"))?;
            let log = Arc::new(Log::open(&data_dir.join("events.redb"))?);
            if at == 0 {
                (rows_bytes, events_bytes) = append(&log, &mut chain, case.behind.0, case.behind.1)?;
            }
            let settings = NodeSettings {
                data_dir,
                key_seed: seed(at),
                name: format!("server {at}"),
                databases: Vec::new(),
                entropy: seed(at),
                machine_id: "measured".into(),
                pace: Default::default(),
                retention: Default::default(),
            };
            nodes.push(Node::open(settings, log, now)?);
        }
        Ok(Group { nodes, now, under_way: BTreeMap::new(), frames: 0, bytes: 0, rows_bytes, events_bytes })
    }

    /// All meet; how long until all are equal and know it, virtual ms.
    fn meet(&mut self) -> Result<u64, String> {
        let ids: Vec<NodeId> = self.nodes.iter().map(Node::id).collect();
        for (at, here) in ids.iter().enumerate() {
            for peer in ids.iter().filter(|peer| *peer != here) {
                self.input(at, Input::PeerConnected { peer: *peer, address: String::new() }, &ids)?;
            }
        }
        let start = self.now.mono_ms;
        let mut equal_at = None;
        // A little longer than equal: what is said of it afterwards counts as well.
        while equal_at.is_none_or(|at| self.now.mono_ms < at + 1_000) {
            if self.now.mono_ms > start + PATIENCE_MS {
                return Err(format!("not equal after {PATIENCE_MS} virtual ms"));
            }
            self.now = Now { mono_ms: self.now.mono_ms + 1, wall_ms: self.now.wall_ms + 1 };
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now.mono_ms) {
                let (from, to, frame) = entry.remove();
                self.input(to, Input::Received { peer: ids[from], frame }, &ids)?;
            }
            for at in 0..self.nodes.len() {
                if self.nodes[at].next_deadline(self.now).is_some_and(|deadline| deadline <= self.now.mono_ms) {
                    self.input(at, Input::Tick, &ids)?;
                }
            }
            let everybody =
                |node: &Node| -> BTreeSet<NodeId> { ids.iter().filter(|id| **id != node.id()).copied().collect() };
            let knows = |node: &Node| node.in_sync(&everybody(node).into_iter().collect::<Vec<_>>());
            if equal_at.is_none() && self.nodes.iter().all(knows) {
                equal_at = Some(self.now.mono_ms);
            }
        }
        Ok(equal_at.unwrap_or_default() - start)
    }

    fn input(&mut self, at: usize, input: Input, ids: &[NodeId]) -> Result<(), String> {
        self.nodes[at].handle(input, self.now).map_err(|error| error.to_string())?;
        while let Some(effect) = self.nodes[at].poll_effect() {
            match effect {
                Effect::Send { peer, frame } => {
                    let Some(to) = ids.iter().position(|id| *id == peer) else { continue };
                    self.frames += 1;
                    self.bytes += frame.len() as u64 + 4;
                    self.under_way.insert((self.now.mono_ms + 5, self.frames), (at, to, frame));
                }
                // To everybody once: what a mesh that works comes to.
                Effect::Announce { frame } => self.bytes += (frame.len() * (ids.len() - 1)) as u64,
                Effect::PeerFault { reason, .. } => return Err(reason),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Bytes of the rows and of the events that were appended.
pub(crate) fn append(
    log: &Log,
    chain: &mut Chain,
    events: u64,
    rows: u64,
) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let (mut rows_bytes, mut events_bytes) = (0, 0);
    let mut write = log.write()?;
    for number in 1..=events {
        let (event, bytes, hash, signature, payload) = chain.next(rows);
        write.append(&event, &bytes, hash, Some(signature))?;
        rows_bytes += payload;
        events_bytes += bytes.len() as u64;
        if number % 10_000 == 0 {
            write.commit_durable()?;
            write = log.write()?;
        }
    }
    write.commit_durable()?;
    Ok((rows_bytes, events_bytes))
}
