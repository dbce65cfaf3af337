//! Nodes in one thread on a network in memory: what one of them does can be timed alone.
//!
//! Real [`Node`]s with real logs and SQLite files on the disk; every commit is as durable as in the daemon, every frame is
//! encoded, decoded and verified. Time is virtual (nobody waits for a timer), what is measured is how long a node's calls
//! take. Invariant: when [`Mesh::settle`] returns, all hold the same events, have applied them and their digests say so.
//! Does not count: the transport, a network's delay, the daemon's threads (`end_to_end` has them). Callers: capture, receive,
//! footprint, scale, and `benches/instructions.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use litemesh::log::Log;
use litemesh::model::NodeId;
use litemesh::node::membership::{Membership, admit, found_cluster, node_id};
use litemesh::node::{DatabaseSettings, Effect, Input, Node, NodeError, NodeSettings, Now};

use crate::Failure;
use crate::shape::{self, DATABASE};

const WALL_MS: u64 = 1_748_736_000_000;

/// As `config/default.toml` has it.
pub(crate) const STEERING_RUNS: u32 = 16;

/// Virtual ms in which a new file's few tables are tried out and steered.
const STEERED_MS: u64 = 5_000;

/// Virtual ms after which something is wrong.
const PATIENCE_MS: u64 = 3_600_000;

/// Servers, their frames under way, and the time.
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Node>,
    ids: Vec<NodeId>,
    pub(crate) now: Now,
    /// Under way: when, in what order, from, to, frame.
    under_way: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    pub(crate) delay_ms: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// How long the calls of each node took.
    pub(crate) spent: Vec<Duration>,
    /// The node whose calls go through [`counted_section`].
    pub(crate) counted: Option<usize>,
}

/// Callgrind counts between entering and leaving this function and nothing else (`.ci/instructions` names it).
#[inline(never)]
pub(crate) fn counted_section<T>(work: &mut dyn FnMut() -> T) -> T {
    let done = work();
    // Something to do after the call, or the call would be a jump and nobody would be seen leaving.
    std::hint::black_box(());
    done
}

/// The app's file of a server.
pub(crate) fn file_of(folder: &Path, at: usize) -> PathBuf {
    folder.join(format!("s{at}")).join("scouting.db")
}

fn seed(at: usize) -> [u8; 32] {
    [at as u8 + 1; 32]
}

impl Mesh {
    /// A cluster of `count` servers with empty tables, not connected yet.
    pub(crate) fn found(folder: &Path, count: usize, schema: &str) -> Result<Mesh, Failure> {
        let founder = found_cluster(&seed(0), "server 0", "measured", WALL_MS);
        let mut membership = Membership::new(founder.clone())?;
        let mut records = vec![founder];
        for at in 1..count {
            let record = admit(&seed(0), &membership, node_id(&seed(at)), &format!("server {at}"), WALL_MS);
            membership.add(record.clone())?;
            records.push(record);
        }
        for at in 0..count {
            let path = file_of(folder, at);
            let home = path.parent().ok_or("no folder")?;
            std::fs::create_dir_all(home)?;
            shape::make(&path, schema)?;
            let log = Log::open(&home.join("events.redb"))?;
            Node::enter(&log, records.clone())?;
        }
        Mesh::open(folder, count, Now { mono_ms: 1_000, wall_ms: WALL_MS })
    }

    /// Opens what [`Mesh::close`] left in a folder, or a copy of it.
    pub(crate) fn open(folder: &Path, count: usize, now: Now) -> Result<Mesh, Failure> {
        let mut mesh = Mesh {
            nodes: Vec::new(),
            ids: (0..count).map(|at| node_id(&seed(at))).collect(),
            now,
            under_way: BTreeMap::new(),
            delay_ms: 0,
            frames: 0,
            bytes: 0,
            spent: vec![Duration::ZERO; count],
            counted: None,
        };
        for at in 0..count {
            mesh.nodes.push(open_node(&folder.join(format!("s{at}")), at, now)?);
        }
        Ok(mesh)
    }

    /// Makes all durable. When the servers are opened again time has gone on from there.
    pub(crate) fn close(self) -> Result<Now, Failure> {
        for node in self.nodes {
            node.close()?;
        }
        Ok(Now { mono_ms: self.now.mono_ms + 1_000, wall_ms: self.now.wall_ms + 1_000 })
    }

    pub(crate) fn connect(&mut self) -> Result<(), Failure> {
        for at in 0..self.nodes.len() {
            for peer in self.ids.clone() {
                if peer != self.ids[at] {
                    self.input(at, Input::PeerConnected { peer, address: String::new() })?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn part(&mut self) -> Result<(), Failure> {
        self.under_way.clear();
        for at in 0..self.nodes.len() {
            for peer in self.ids.clone() {
                if peer != self.ids[at] {
                    self.input(at, Input::PeerDisconnected { peer })?;
                }
            }
        }
        self.under_way.clear();
        Ok(())
    }

    /// Hands an input to a node, and its effects to the network.
    pub(crate) fn input(&mut self, at: usize, input: Input) -> Result<(), Failure> {
        let (began, now) = (Instant::now(), self.now);
        let node = &mut self.nodes[at];
        let mut given = Some(input);
        let mut handle = || -> Result<Vec<Effect>, NodeError> {
            if let Some(input) = given.take() {
                node.handle(input, now)?;
            }
            Ok(std::iter::from_fn(|| node.poll_effect()).collect())
        };
        let effects = if self.counted == Some(at) { counted_section(&mut handle) } else { handle() }?;
        self.spent[at] += began.elapsed();
        for effect in effects {
            match effect {
                Effect::Send { peer, frame } => {
                    let to = self.ids.iter().position(|id| *id == peer).ok_or("a frame to nobody")?;
                    self.send(at, to, frame, false);
                }
                Effect::Announce { frame } => {
                    for to in (0..self.ids.len()).filter(|to| *to != at) {
                        self.send(at, to, frame.clone(), true);
                    }
                }
                Effect::PeerFault { reason, .. } => return Err(reason.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, frame: Vec<u8>, announced: bool) {
        self.frames += 1;
        self.bytes += frame.len() as u64 + 4;
        // An announcement has no sender: gossip brings it.
        let from = if announced { usize::MAX } else { from };
        self.under_way.insert((self.now.mono_ms + self.delay_ms, self.frames), (from, to, frame));
    }

    /// One moment: what arrives now, then every deadline that has come. Without either, time jumps to the next.
    pub(crate) fn turn(&mut self) -> Result<(), Failure> {
        let mut idle = true;
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now.mono_ms) {
            let (from, to, frame) = entry.remove();
            let input = match self.ids.get(from) {
                Some(peer) => Input::Received { peer: *peer, frame },
                None => Input::Announced { frame },
            };
            self.input(to, input)?;
            idle = false;
        }
        let mut next = self.under_way.first_key_value().map(|(key, _)| key.0);
        for at in 0..self.nodes.len() {
            match self.nodes[at].next_deadline(self.now) {
                Some(due) if due <= self.now.mono_ms => {
                    self.input(at, Input::Tick)?;
                    idle = false;
                }
                Some(due) => next = Some(next.map_or(due, |next| next.min(due))),
                None => {}
            }
        }
        let jump = if idle { next.map_or(1, |next| next.saturating_sub(self.now.mono_ms).max(1)) } else { 1 };
        self.now = Now { mono_ms: self.now.mono_ms + jump, wall_ms: self.now.wall_ms + jump };
        Ok(())
    }

    /// Runs until something is so.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut so: impl FnMut(&Mesh) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let end = self.now.mono_ms + PATIENCE_MS;
        while !so(self)? {
            if self.now.mono_ms > end {
                let told: Vec<_> = self.nodes.iter().map(|node| node.status(self.now)).collect::<Result<_, _>>()?;
                return Err(format!("{what}: not within {PATIENCE_MS} virtual ms: {told:?}").into());
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Whether every node has adopted its file.
    fn is_adopted(&self) -> Result<bool, Failure> {
        for node in &self.nodes {
            if node.status(self.now)?.databases[0].state != "ok" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Connects for the first time, until the files are adopted, ids steered, and all are equal.
    pub(crate) fn meet(&mut self) -> Result<(), Failure> {
        self.connect()?;
        self.until("the files are adopted", |mesh| Ok(mesh.is_settled() && mesh.is_adopted()?))?;
        self.pass(STEERED_MS)?;
        self.settle()
    }

    /// The same for a server that is alone.
    pub(crate) fn begin(&mut self) -> Result<(), Failure> {
        self.until("the file is adopted", Mesh::is_adopted)?;
        self.pass(STEERED_MS)
    }

    /// Whether every node knows that all hold the same and show it.
    pub(crate) fn is_settled(&self) -> bool {
        let others =
            |at: usize| -> Vec<NodeId> { self.ids.iter().filter(|id| **id != self.ids[at]).copied().collect() };
        (0..self.nodes.len()).all(|at| self.nodes[at].in_sync(&others(at)))
    }

    /// Runs until all are equal, and says what the digest is.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        self.until("all are equal", |mesh| Ok(mesh.is_settled()))?;
        let digest = |mesh: &Mesh, at: usize| -> Result<String, Failure> {
            Ok(mesh.nodes[at].status(mesh.now)?.databases[0].digest.clone())
        };
        let first = digest(self, 0)?;
        for at in 1..self.nodes.len() {
            if digest(self, at)? != first {
                return Err(
                    format!("server {at} has other content than server 0: the figures are worth nothing").into()
                );
            }
        }
        Ok(())
    }

    /// Lets one node capture what its app wrote, alone; how long its calls took.
    pub(crate) fn capture(&mut self, at: usize) -> Result<Duration, Failure> {
        let before = self.spent[at];
        self.input(at, Input::FileTouched(0))?;
        for _ in 0..100_000 {
            self.input(at, Input::Tick)?;
            self.now = Now { mono_ms: self.now.mono_ms + 1, wall_ms: self.now.wall_ms + 1 };
            if self.nodes[at].status(self.now)?.databases[0].outbox == 0 {
                return Ok(self.spent[at] - before);
            }
        }
        Err("the outbox does not get empty".into())
    }

    /// Lets time pass, on every node.
    pub(crate) fn pass(&mut self, ms: u64) -> Result<(), Failure> {
        let end = self.now.mono_ms + ms;
        while self.now.mono_ms < end {
            self.turn()?;
        }
        Ok(())
    }
}

/// Opens a server of a mesh alone.
pub(crate) fn open_node(home: &Path, at: usize, now: Now) -> Result<Node, Failure> {
    let path = home.join("scouting.db");
    let database = DatabaseSettings { name: DATABASE.into(), path, steering_runs: STEERING_RUNS, ..Default::default() };
    open_with(home, at, now, database)
}

/// The same with settings of one's own for the file.
pub(crate) fn open_with(home: &Path, at: usize, now: Now, database: DatabaseSettings) -> Result<Node, Failure> {
    let settings = NodeSettings {
        data_dir: home.to_path_buf(),
        key_seed: seed(at),
        name: format!("server {at}"),
        databases: vec![database],
        entropy: seed(at),
        machine_id: "measured".into(),
        pace: Default::default(),
        retention: Default::default(),
    };
    let mut node = Node::open(settings, Arc::new(Log::open(&home.join("events.redb"))?), now)?;
    // What is measured is the way by events; `joining` has the other.
    node.snapshots_from(u64::MAX, 0);
    Ok(node)
}

/// A cluster of one that takes a file that an app has written, as `litemesh run` on an empty data directory.
pub(crate) fn enrol(home: &Path, database: DatabaseSettings) -> Result<Node, Failure> {
    let log = Log::open(&home.join("events.redb"))?;
    Node::enter(&log, vec![found_cluster(&seed(0), "server 0", "measured", WALL_MS)])?;
    drop(log);
    open_with(home, 0, Now { mono_ms: 1_000, wall_ms: WALL_MS }, database)
}

/// Runs a node alone for some virtual ms.
pub(crate) fn run_alone(node: &mut Node, now: &mut Now, ms: u64) -> Result<(), Failure> {
    let end = now.mono_ms + ms;
    while now.mono_ms < end {
        node.handle(Input::Tick, *now)?;
        while node.poll_effect().is_some() {}
        *now = Now { mono_ms: now.mono_ms + 10, wall_ms: now.wall_ms + 10 };
    }
    Ok(())
}

/// Copies a folder of servers that were closed.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let _old = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
