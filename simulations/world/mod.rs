//! A whole cluster of real nodes on a virtual network and clock.
//!
//! Everything below `net` is the shipped code, with real redb and SQLite on simulated disks ([`crate::disk`]). The world owns
//! time, the network ([`network`]), the disks and their faults ([`storage`]), the machines ([`machines`]: joined, cloned,
//! restored, replaced), and the apps that write. Invariant: the same calls give the same trace, event for event; nothing here draws from a common stream of
//! dice, so a call that is left out changes only what it had a part in. Callers: `run::play`, tests.

pub mod app;
pub mod check;
pub mod check_chains;
pub mod check_events;
pub mod check_known;
pub mod dice;
pub mod errors;
pub mod machines;
pub mod network;
pub mod scratch;
pub mod storage;
pub mod trace;
pub mod watch;

use std::collections::BTreeMap;

use litemesh::model::NodeId;
use litemesh::node::{Input, Node, NodeSettings, Now};

use app::App;
use dice::Dice;
use network::{Network, Weather};
use storage::Storage;
use trace::Trace;
use watch::Watch;

/// 2025-06-01, when every run begins.
pub const WALL_BASE_MS: u64 = 1_748_736_000_000;

/// A node that was given nothing but ticks for so long is idle, ms.
const IDLE_AFTER_MS: u64 = 5_000;

/// What is wrong: which check, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Violation {
    /// Name of the check. A failure is made small as long as this one fails.
    pub check: String,
    /// What it found.
    pub what: String,
}

/// What a world is made of.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Seed of everything drawn.
    pub seed: u64,
    /// Servers at the beginning.
    pub servers: usize,
    /// The network in the hostile phase.
    pub weather: Weather,
    /// Identities a server steers its new ids by: 0 is off.
    pub steering_runs: u32,
    /// Errors of the servers' clocks at the start, ms.
    pub clocks_ms: Vec<i64>,
    /// An idle node looks at its files this often, ms (0: as often as it asks for). Late ticks are harmless, and days pass
    /// faster.
    pub idle_tick_ms: u64,
}

/// One server: a node that may be down, and its app.
pub struct Server {
    /// The node, while it runs.
    pub node: Option<Node>,
    /// The app, which always runs.
    pub app: App,
    /// The disk, and what is wrong with it.
    pub storage: Storage,
    /// The node's public key. A cloned machine has the one of the first.
    pub id: NodeId,
    /// What its node is opened with.
    pub settings: NodeSettings,
    /// Its machine is gone for good: its node never starts again, its app never writes again.
    pub gone: bool,
    /// Error of its machine's clock, ms.
    pub clock_ms: i64,
    /// Its clock was right during the whole run.
    pub clock_was_right: bool,
    epoch: u64,
    /// Its file is enrolled and its log holds the rules.
    counts: bool,
    busy_at_ms: u64,
    ticked_at_ms: u64,
}

/// The cluster.
pub struct World {
    /// All servers that ever were.
    pub servers: Vec<Server>,
    /// Seed of everything drawn.
    pub seed: u64,
    /// Virtual ms since the start.
    pub now_ms: u64,
    /// What happened.
    pub trace: Trace,
    /// The network.
    pub network: Network,
    /// What was seen of the nodes so far.
    pub watch: Watch,
    /// The first thing that was found wrong while time passed.
    pub violation: Option<Violation>,
    /// Faults and turns that the run really reached, counted.
    pub reached: BTreeMap<&'static str, u64>,
    setting: Setting,
    snapshots: machines::Snapshots,
    dial_again: bool,
    directory: scratch::Scratch,
}

impl World {
    /// The hash over the whole run so far, and the number of frames.
    pub fn trace(&self) -> (String, u64) {
        (self.trace.hash(), self.network.frames)
    }

    /// The time of a server, with its clock's error. A clock set to before 1970 stands at 1970 and runs from there.
    pub fn now(&self, server: usize) -> Now {
        let wall_ms = (WALL_BASE_MS + self.now_ms).checked_add_signed(self.servers[server].clock_ms);
        Now { mono_ms: self.now_ms, wall_ms: wall_ms.unwrap_or(self.now_ms) }
    }

    /// Sets a server's clock off by so much.
    pub fn set_clock(&mut self, server: usize, error_ms: i64) {
        self.reach("a clock jumped");
        self.servers[server].clock_ms = error_ms;
        self.servers[server].clock_was_right = false;
    }

    /// Counts something that a run exists to reach.
    pub fn reach(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    /// Notes that something is wrong; the first finding stays.
    pub fn violate(&mut self, check: &str, what: String) {
        let what = format!("at {} ms: {what}", self.now_ms);
        self.violation.get_or_insert(Violation { check: check.to_string(), what });
    }

    /// Gives a server an input, if its node runs.
    pub fn input(&mut self, position: usize, input: Input) {
        if self.servers[position].node.is_none() {
            return;
        }
        let words = if self.trace.is_told() { input_words(&input) } else { String::new() };
        self.trace.update(&[position as u8, kind(&input)]);
        if matches!(input, Input::Tick) {
            self.servers[position].ticked_at_ms = self.now_ms;
            self.watch.ticked(position, self.now_ms);
        } else {
            self.servers[position].busy_at_ms = self.now_ms;
        }
        let told =
            if self.handle(position, input) { self.effects(position) } else { " (it does not run any more)".into() };
        self.trace.event(self.now_ms, || format!("s{position} {words} |{told}"));
    }

    /// Lets time pass until `end_ms`: delivers frames and ticks when they are due.
    pub fn run_until(&mut self, end_ms: u64) {
        while self.violation.is_none() {
            if std::mem::take(&mut self.dial_again) {
                self.redial();
            }
            let frame = self.next_frame_ms();
            let tick = (0..self.servers.len()).filter_map(|position| self.deadline(position)).min();
            if self.start_due(end_ms) {
                continue;
            }
            let next = [frame, tick].into_iter().flatten().min().unwrap_or(end_ms).max(self.now_ms);
            if next > end_ms {
                break;
            }
            // A node that wants its turn at once gets it a moment later: time always passes.
            self.now_ms = next.max(self.now_ms + u64::from(frame != Some(next)));
            if frame == Some(next) {
                self.deliver();
                continue;
            }
            for position in 0..self.servers.len() {
                if self.deadline(position).is_some_and(|deadline| deadline <= self.now_ms) {
                    self.input(position, Input::Tick);
                }
            }
        }
        self.now_ms = self.now_ms.max(end_ms);
    }

    fn deadline(&self, position: usize) -> Option<u64> {
        let server = &self.servers[position];
        let deadline = server.node.as_ref()?.next_deadline(self.now(position))?;
        let idle = self.setting.idle_tick_ms > 0 && self.now_ms >= server.busy_at_ms + IDLE_AFTER_MS;
        Some(if idle { deadline.max(server.ticked_at_ms + self.setting.idle_tick_ms) } else { deadline })
    }

    /// Has an app write what adds up, once its server knows that it does. The rules are in every server's config.
    fn count(&mut self, position: usize, turn: u64) {
        let server = &mut self.servers[position];
        let ruled = |node: &Node| node.rules().is_ok_and(|rules| rules.len() == 2);
        server.counts |= server.app.enrolled("scouting") && server.node.as_ref().is_some_and(ruled);
        if server.counts {
            server.app.hit(turn);
        }
    }

    /// Has a server's app do one random thing, and its node see that the file changed. Says what it did.
    pub fn write(&mut self, position: usize, dice: &mut Dice) -> &'static str {
        if self.servers[position].gone {
            return "nothing: the machine is gone";
        }
        self.set_sqlite_clock(position);
        let wrote = self.servers[position].app.act(dice);
        self.count(position, dice.below(1 << 20));
        self.trace.update(wrote.as_bytes());
        self.input(position, Input::FileTouched(0));
        self.input(position, Input::FileTouched(1));
        wrote
    }

    /// A line of the trace that belongs to no input.
    fn note(&mut self, line: &str) {
        self.trace.update(line.as_bytes());
        self.trace.event(self.now_ms, || format!("{line} |"));
    }

    /// Ends all faults: everything is mended, started, and the network is perfect.
    pub fn heal(&mut self) {
        self.network.weather = Weather { loss: 0, repeat: 0, delay_ms: 2 };
        for position in 0..self.servers.len() {
            self.mend_disk(position);
            self.start(position);
        }
        self.mend();
    }

    /// The servers that are still part of the cluster.
    pub fn present(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.servers.len()).filter(|position| !self.servers[*position].gone)
    }

    /// Whether every node shows all that any node holds.
    pub fn is_settled(&self) -> bool {
        self.present().all(|server| {
            let server = &self.servers[server];
            server.node.as_ref().is_some_and(|node| node.in_sync(&[])) && server.app.outbox() == 0
        })
    }
}

fn kind(input: &Input) -> u8 {
    match input {
        Input::FileTouched(position) => *position as u8,
        Input::Tick => 10,
        Input::PeerConnected { .. } => 11,
        Input::PeerDisconnected { .. } => 12,
        Input::Received { .. } => 13,
        Input::Announced { .. } => 14,
        Input::MembersLearnt(_) => 15,
        Input::RoundTrip { .. } => 16,
        Input::SyncRequested(_) => 17,
        Input::Dialed { .. } => 21,
        Input::CompareRequested(_) => 20,
        Input::LocalTime { .. } => 19,
        Input::ShutOut { .. } => 18,
    }
}

fn input_words(input: &Input) -> String {
    match input {
        Input::FileTouched(position) => format!("file {position} touched"),
        Input::Tick => "tick".to_string(),
        Input::PeerConnected { peer, .. } => format!("connected {}", &peer.to_string()[..8]),
        Input::PeerDisconnected { peer } => format!("disconnected {}", &peer.to_string()[..8]),
        Input::Received { peer, frame } => format!("from {}: {}", &peer.to_string()[..8], network::frame_words(frame)),
        Input::Announced { frame } => format!("announced {}B", frame.len()),
        Input::MembersLearnt(records) => format!("{} member records", records.len()),
        Input::RoundTrip { .. } => "round trip".to_string(),
        Input::SyncRequested(_) => "sync requested".to_string(),
        Input::Dialed { peer, .. } => format!("called {}", &peer.to_string()[..8]),
        Input::CompareRequested(_) => "comparison requested".to_string(),
        Input::LocalTime { .. } => "local time".to_string(),
        Input::ShutOut { by, .. } => format!("shut out, says {}", &by.to_string()[..8]),
    }
}
