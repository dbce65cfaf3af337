//! A whole cluster of real nodes on a virtual network and clock.
//!
//! Everything below `net` is the shipped code, with real redb and SQLite on simulated disks ([`crate::disk`]). The world owns
//! time, the network (loss, repetition, delay, reordering, cuts), the disks and their faults ([`storage`]), the kills, and the
//! apps that write. Invariant: the same seed gives the same trace, frame for frame. Callers: the `simulate` binary, tests.

pub mod app;
pub mod check;
pub mod check_known;
pub mod dice;
pub mod scratch;
pub mod storage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use litemesh::model::rule::StatedRule;
use litemesh::model::{NodeId, Rule};
use litemesh::node::{DatabaseSettings, Effect, Input, Node, NodeSettings, Now};

use app::App;
use dice::Dice;
use storage::{DiskFaults, Storage};

/// 2025-06-01.
const WALL_BASE_MS: u64 = 1_748_736_000_000;

/// How hostile a run is. Each fault is off in a part of the seeds, so that faults do not hide each other.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Frames lost, in percent.
    pub loss: u64,
    /// Frames delivered twice, in percent.
    pub repeat: u64,
    /// Longest delay of a frame, ms.
    pub delay_ms: u64,
    /// Links are cut and mended.
    pub cuts: bool,
    /// Nodes are killed and started again.
    pub kills: bool,
    /// Largest clock error of a node, ms.
    pub skew_ms: u64,
    /// What happens to disks.
    pub disk: DiskFaults,
}

impl Faults {
    /// Draws the options of a run.
    pub fn draw(dice: &mut Dice) -> Faults {
        let mut on = |most: u64| if dice.chance(70) { dice.below(most) } else { 0 };
        let (loss, repeat, delay_ms, skew_ms) = (on(40), on(20), on(300), on(31_000_000_000));
        Faults {
            loss,
            repeat,
            delay_ms: delay_ms + 1,
            cuts: dice.chance(70),
            kills: dice.chance(60),
            skew_ms,
            disk: DiskFaults::draw(dice),
        }
    }
}

/// One server: a node that may be down, and its app.
pub struct Server {
    /// The node, while it runs.
    pub node: Option<Node>,
    /// The app, which always runs.
    pub app: App,
    /// The disk, and what is wrong with it.
    pub storage: Storage,
    id: NodeId,
    settings: NodeSettings,
    skew_ms: i64,
    epoch: u64,
    /// Its file is enrolled and its log holds the rules.
    counts: bool,
}

/// The cluster.
pub struct World {
    /// All servers.
    pub servers: Vec<Server>,
    /// Dice of this run.
    pub dice: Dice,
    /// Faults of this run.
    pub faults: Faults,
    /// Virtual ms since the start.
    pub now_ms: u64,
    trace: blake3::Hasher,
    frames: u64,
    queue: BTreeMap<(u64, u64), Packet>,
    cut: BTreeMap<(usize, usize), bool>,
    _directory: scratch::Scratch,
}

struct Packet {
    from: usize,
    to: usize,
    /// Connections end with a cut or a kill: what was under way on them is lost.
    epochs: (u64, u64),
    input: Input,
}

impl World {
    /// A cluster of `count` servers on the same (empty) schema, all members, all connected.
    pub fn new(seed: u64, count: usize) -> World {
        let mut dice = Dice::new(seed);
        crate::disk::begin(seed, WALL_BASE_MS);
        let faults = Faults::draw(&mut dice);
        let directory = scratch::Scratch::new();
        let mut records = Vec::new();
        let mut servers = Vec::new();
        for position in 0..count {
            let root = directory.path().join(format!("server-{position}"));
            let storage = Storage::new(&root, seed, position);
            let app = App::new(&root, position);
            let settings = settings(&root, seed, position);
            let skew_ms = if position > 0 { dice.below(faults.skew_ms + 1) as i64 } else { 0 };
            records.push(member(&settings, position, &records));
            let id = litemesh::node::membership::node_id(&settings.key_seed);
            servers.push(Server { node: None, app, storage, id, settings, skew_ms, epoch: 0, counts: false });
        }
        for server in &servers {
            let log = server.storage.open_log().expect("a new log can be made");
            Node::enter(&log, records.clone()).expect("the records fit together");
        }
        let mut world = World {
            servers,
            dice,
            faults,
            now_ms: 0,
            trace: blake3::Hasher::new(),
            frames: 0,
            queue: BTreeMap::new(),
            cut: BTreeMap::new(),
            _directory: directory,
        };
        (0..count).for_each(|position| world.start(position));
        world
    }

    /// The hash over every frame sent and every event of the run, and the number of frames.
    pub fn trace(&self) -> (String, u64) {
        (self.trace.finalize().to_hex()[..16].to_string(), self.frames)
    }

    /// The time of a server, with its clock's error.
    pub fn now(&self, server: usize) -> Now {
        let wall_ms = (WALL_BASE_MS + self.now_ms).saturating_add_signed(self.servers[server].skew_ms);
        Now { mono_ms: self.now_ms, wall_ms }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.is_cut(a, b) || self.servers[a].node.is_none() || self.servers[b].node.is_none() {
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            let peer = self.servers[other].id;
            self.input(one, Input::PeerConnected { peer, address: String::new() });
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.get(&(a.min(b), a.max(b))).copied().unwrap_or(false)
    }

    /// Cuts or mends the link between two servers.
    pub fn set_cut(&mut self, a: usize, b: usize, cut: bool) {
        if self.is_cut(a, b) == cut || a == b {
            return;
        }
        self.cut.insert((a.min(b), a.max(b)), cut);
        self.note(&format!("cut {a} {b} {cut}"));
        if cut {
            self.queue.retain(|_, packet| (packet.from, packet.to) != (a, b) && (packet.from, packet.to) != (b, a));
            for (one, other) in [(a, b), (b, a)] {
                let peer = self.servers[other].id;
                self.input(one, Input::PeerDisconnected { peer });
            }
        } else {
            self.connect(a, b);
        }
    }

    fn effects(&mut self, from: usize) {
        while let Some(effect) = self.servers[from].node.as_mut().and_then(Node::poll_effect) {
            match effect {
                Effect::Send { peer, frame } => {
                    let Some(to) = self.servers.iter().position(|server| server.id == peer) else { continue };
                    let input = Input::Received { peer: self.servers[from].id, frame };
                    self.transmit(from, to, input);
                }
                Effect::Announce { frame } => {
                    for to in (0..self.servers.len()).filter(|to| *to != from) {
                        self.transmit(from, to, Input::Announced { frame: frame.clone() });
                    }
                }
                Effect::PeerFault { peer, reason } => panic!("server {from} blames {peer}: {reason}"),
                Effect::MembersChanged | Effect::Reopened | Effect::Applied(_) => {}
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, input: Input) {
        let bytes = match &input {
            Input::Received { frame, .. } | Input::Announced { frame } => frame.clone(),
            _ => Vec::new(),
        };
        self.frames += 1;
        self.trace.update(&(from as u64).to_be_bytes()).update(&(to as u64).to_be_bytes());
        self.trace.update(&self.now_ms.to_be_bytes()).update(&bytes);
        if self.is_cut(from, to) || self.servers[to].node.is_none() || self.dice.chance(self.faults.loss) {
            return;
        }
        let epochs = (self.servers[from].epoch, self.servers[to].epoch);
        let copies = if self.dice.chance(self.faults.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now_ms + 1 + self.dice.below(self.faults.delay_ms);
            let packet = Packet { from, to, epochs, input: input.clone() };
            let number = self.queue.last_key_value().map_or(0, |_| self.frames * 4 + self.queue.len() as u64);
            self.queue.insert((at, number), packet);
        }
    }

    /// Lets `ms` of virtual time pass: delivers frames and ticks when they are due.
    pub fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        loop {
            let frame = self.queue.first_key_value().map(|((at, _), _)| *at);
            let tick = (0..self.servers.len()).filter_map(|position| self.deadline(position)).min();
            if self.start_due(end) {
                continue;
            }
            let next = [frame, tick].into_iter().flatten().min().unwrap_or(end).max(self.now_ms);
            if next > end {
                self.now_ms = end;
                return;
            }
            // A node that wants its turn at once gets it a moment later: time always passes.
            self.now_ms = next.max(self.now_ms + u64::from(frame != Some(next)));
            if frame == Some(next) {
                let packet = self.queue.pop_first().map(|(_, packet)| packet).expect("the first frame was just seen");
                if packet.epochs == (self.servers[packet.from].epoch, self.servers[packet.to].epoch) {
                    self.input(packet.to, packet.input);
                }
            } else {
                for position in 0..self.servers.len() {
                    if self.deadline(position).is_some_and(|deadline| deadline <= self.now_ms) {
                        self.input(position, Input::Tick);
                    }
                }
            }
        }
    }

    fn deadline(&self, position: usize) -> Option<u64> {
        let node = self.servers[position].node.as_ref()?;
        node.next_deadline(self.now(position))
    }

    /// Has an app write what adds up, once its server knows that it does. The rules are in every server's config.
    fn count(&mut self, position: usize) {
        let turn = self.now_ms;
        let server = &mut self.servers[position];
        let ruled = |node: &Node| node.rules().is_ok_and(|rules| rules.len() == 2);
        server.counts |= server.app.enrolled("scouting") && server.node.as_ref().is_some_and(ruled);
        if server.counts {
            server.app.hit(turn);
        }
    }

    /// Has a server's app do one random thing.
    pub fn write(&mut self, position: usize) {
        self.set_clock(position);
        let wrote = self.servers[position].app.act(&mut self.dice);
        self.count(position);
        self.note(&format!("app {position} {wrote}"));
        if self.faults.kills && self.servers[position].storage.dice.chance(4) {
            self.kill_soon(position);
        }
        self.input(position, Input::FileTouched(0));
        self.input(position, Input::FileTouched(1));
    }

    /// Puts a line into the trace.
    pub fn note(&mut self, line: &str) {
        tracing::trace!(at_ms = self.now_ms, "{line}");
        self.trace.update(line.as_bytes());
    }

    /// Ends all faults: everything is mended, started, and the network is perfect.
    pub fn heal(&mut self) {
        self.faults = Faults {
            loss: 0,
            repeat: 0,
            delay_ms: 2,
            cuts: false,
            kills: false,
            skew_ms: 0,
            disk: DiskFaults::default(),
        };
        for a in 0..self.servers.len() {
            for b in a + 1..self.servers.len() {
                self.set_cut(a, b, false);
            }
        }
        for position in 0..self.servers.len() {
            self.mend_disk(position);
            if self.servers[position].node.is_none() {
                self.start(position);
            }
        }
    }

    /// Whether every node shows all that any node holds.
    pub fn is_settled(&self) -> bool {
        self.servers.iter().all(|server| server.node.as_ref().is_some_and(|node| node.in_sync(&[])))
            && self.servers.iter().all(|server| server.app.outbox() == 0)
    }
}

fn settings(root: &Path, seed: u64, position: usize) -> NodeSettings {
    let mut entropy = [0; 32];
    entropy[..8].copy_from_slice(&(seed ^ 0x6c69_7465_6d65_7368).to_be_bytes());
    entropy[8] = position as u8;
    let database = |name: &str, path: PathBuf| DatabaseSettings {
        name: name.to_string(),
        path,
        include: vec!["*".to_string()],
        // Off, shared by some servers, and one's own: each in a part of the seeds.
        steering_runs: [0, 2, 16][(seed % 3) as usize],
        ..DatabaseSettings::default()
    };
    let mut scouting = database("scouting", root.join("scouting.db"));
    scouting.rules = [("hits", Rule::Counter), ("best", Rule::Max)]
        .map(|(column, rule)| {
            let (table, column) = ("board".to_string(), Some(column.to_string()));
            StatedRule { table, column, rule, by_default: false }
        })
        .to_vec();
    NodeSettings {
        // Not there: a node binds its incarnation to the directory's inode, which no seed decides.
        data_dir: root.join("data"),
        key_seed: [position as u8 + 1; 32],
        name: format!("server-{position}"),
        databases: vec![scouting, database("users", root.join("users.db"))],
        entropy,
        machine_id: "simulated".to_string(),
    }
}

fn member(
    settings: &NodeSettings,
    position: usize,
    before: &[litemesh::model::MemberRecord],
) -> litemesh::model::MemberRecord {
    use litemesh::node::membership::{Membership, admit, found_cluster, node_id};
    if position == 0 {
        return found_cluster(&settings.key_seed, &settings.name, "simulated", WALL_BASE_MS);
    }
    let mut membership = Membership::new(before[0].clone()).expect("the founder's record is sound");
    for record in &before[1..] {
        membership.add(record.clone()).expect("every record was signed by the founder");
    }
    // The founder has key [1; 32].
    admit(&[1; 32], &membership, node_id(&settings.key_seed), &settings.name, WALL_BASE_MS)
}
