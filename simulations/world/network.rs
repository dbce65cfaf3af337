//! The network between the servers: frames are lost, repeated, delayed and overtake each other; links are cut, in both
//! directions or one.
//!
//! A **cut** ends the connection and both nodes are told, as after a cable was pulled. A **deaf** direction swallows frames
//! while both nodes believe in the connection. What befalls a frame depends on the seed, the link, the time and the frame
//! alone, so that leaving a step out of a run changes nothing that had nothing to do with it. Servers with one identity
//! (a copied data directory) never connect to each other, and a frame for that identity reaches one of them, as with two
//! machines behind one key. Not modelled: bandwidth, connections that end late, half-open connections.
//! Invariant: nothing is delivered on a connection that has ended since it was sent. Caller: the world.

use std::collections::{BTreeMap, BTreeSet};

use litemesh::node::{Effect, Input, Node};
use litemesh::wire::message::Message;

use super::World;
use super::dice::Dice;

/// How bad the network is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Weather {
    /// Frames lost, in percent.
    pub loss: u64,
    /// Frames delivered twice, in percent.
    pub repeat: u64,
    /// Longest delay of a frame, ms: frames overtake each other within it.
    pub delay_ms: u64,
}

/// Frames under way, and links that are down.
#[derive(Default)]
pub struct Network {
    /// How bad it is.
    pub weather: Weather,
    /// Frames sent.
    pub frames: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Frames sent with events in them.
    pub event_frames: u64,
    queue: BTreeMap<(u64, u64), Packet>,
    cut: BTreeSet<(usize, usize)>,
    deaf: BTreeSet<(usize, usize)>,
    connected: BTreeSet<(usize, usize)>,
}

impl Network {
    /// A network on which nothing is under way.
    pub fn new(weather: Weather) -> Network {
        Network { weather, ..Network::default() }
    }
}

struct Packet {
    from: usize,
    to: usize,
    /// Connections end with a cut or a kill: what was under way on them is lost.
    epochs: (u64, u64),
    input: Input,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    /// Connects two servers whose nodes run, know each other as members, and can reach each other.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let runs = |world: &World, server: usize| world.servers[server].node.is_some();
        let (one, other) = (self.servers[a].id, self.servers[b].id);
        if one == other || self.is_cut(a, b) || !runs(self, a) || !runs(self, b) {
            return;
        }
        self.introduce(a, b);
        self.introduce(b, a);
        let knows = |world: &World, server: usize, id| {
            world.servers[server].node.as_ref().is_some_and(|node: &Node| node.membership().may_connect(&id))
        };
        if !knows(self, a, other) || !knows(self, b, one) {
            return;
        }
        self.network.connected.insert(pair(a, b));
        for (here, peer) in [(a, other), (b, one)] {
            self.input(here, Input::PeerConnected { peer, address: String::new() });
        }
    }

    /// A node that is met for the first time shows the records that prove its admission, as the gate has it.
    fn introduce(&mut self, newcomer: usize, to: usize) {
        let id = self.servers[newcomer].id;
        let Some(listener) = self.servers[to].node.as_ref() else { return };
        if listener.membership().may_connect(&id) {
            return;
        }
        let records = self.servers[newcomer].node.as_ref().map(|node| node.membership().chain(&id));
        self.input(to, Input::MembersLearnt(records.unwrap_or_default()));
    }

    /// Connects again what is not connected and could be: nodes dial until they succeed.
    pub(super) fn redial(&mut self) {
        for a in 0..self.servers.len() {
            for b in a + 1..self.servers.len() {
                if !self.network.connected.contains(&(a, b)) {
                    self.connect(a, b);
                }
            }
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.network.cut.contains(&pair(a, b))
    }

    /// Cuts or mends the link between two servers.
    pub fn set_cut(&mut self, a: usize, b: usize, cut: bool) {
        if self.is_cut(a, b) == cut || a == b {
            return;
        }
        if cut {
            self.reach("a link was cut");
            self.network.cut.insert(pair(a, b));
            let between = |packet: &Packet| (packet.from, packet.to) == (a, b) || (packet.from, packet.to) == (b, a);
            self.network.queue.retain(|_, packet| !between(packet));
            self.disconnect(a, b);
        } else {
            self.network.cut.remove(&pair(a, b));
            self.connect(a, b);
        }
    }

    /// Swallows (or carries again) what goes from one server to another; the other direction works.
    pub fn set_deaf(&mut self, from: usize, to: usize, deaf: bool) {
        if from != to && deaf && self.network.deaf.insert((from, to)) {
            self.reach("a link was cut in one direction");
        } else if !deaf {
            self.network.deaf.remove(&(from, to));
        }
    }

    /// Servers of one group reach each other, and nobody else.
    pub fn set_groups(&mut self, group_of: impl Fn(usize) -> usize) {
        self.reach("the cluster was parted into groups");
        for a in 0..self.servers.len() {
            for b in a + 1..self.servers.len() {
                self.set_cut(a, b, group_of(a) != group_of(b));
            }
        }
    }

    /// Two servers reach each other and nobody else; who they met before is left.
    pub fn meet(&mut self, a: usize, b: usize) {
        self.reach("two servers met apart from the others");
        for one in [a, b] {
            for other in (0..self.servers.len()).filter(|other| ![a, b].contains(other)) {
                self.set_cut(one, other, true);
            }
        }
        self.set_cut(a, b, false);
    }

    /// Every link works, in both directions.
    pub fn mend(&mut self) {
        self.network.deaf.clear();
        for a in 0..self.servers.len() {
            for b in a + 1..self.servers.len() {
                self.set_cut(a, b, false);
            }
        }
        self.redial();
    }

    /// Ends a connection; each node is told when it was the last one to that identity.
    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        if !self.network.connected.remove(&pair(a, b)) {
            return;
        }
        for (here, there) in [(a, b), (b, a)] {
            let peer = self.servers[there].id;
            let still = (0..self.servers.len())
                .any(|other| self.servers[other].id == peer && self.network.connected.contains(&pair(here, other)));
            if !still {
                self.input(here, Input::PeerDisconnected { peer });
            }
        }
    }

    /// Carries out what a node wants done; says it in words when somebody reads.
    pub(super) fn effects(&mut self, from: usize) -> String {
        let mut told = String::new();
        while let Some(effect) = self.servers[from].node.as_mut().and_then(Node::poll_effect) {
            match effect {
                Effect::Send { peer, frame } => {
                    let connected =
                        |to: &usize| self.servers[*to].id == peer && self.network.connected.contains(&pair(from, *to));
                    let behind: Vec<usize> = (0..self.servers.len()).filter(connected).collect();
                    let Some(to) = self.fate(from, from, &frame).pick(&behind).copied() else { continue };
                    self.told(&mut told, || format!(" {}→{to}", frame_words(&frame)));
                    let input = Input::Received { peer: self.servers[from].id, frame };
                    self.transmit(from, to, input);
                }
                Effect::Announce { frame } => {
                    self.told(&mut told, || format!(" announce {}B", frame.len()));
                    for to in (0..self.servers.len()).filter(|to| *to != from) {
                        if self.network.connected.contains(&pair(from, to)) {
                            self.transmit(from, to, Input::Announced { frame: frame.clone() });
                        }
                    }
                }
                Effect::PeerFault { peer, reason } => {
                    let who = self.servers.iter().position(|server| server.id == peer);
                    self.violate("peer fault", format!("server {from} blames {who:?}: {reason}"));
                }
                // A driver opens nothing anew here: the storage of this world does not fail.
                Effect::Reopened => self.violate("node error", format!("server {from} opened its log again")),
                Effect::Applied(position) => self.told(&mut told, || format!(" applied {position}")),
                Effect::LanTrusted(_) => {}
                Effect::MembersChanged => {
                    self.told(&mut told, || " members".to_string());
                    self.dial_again = true;
                }
            }
        }
        told
    }

    fn told(&self, told: &mut String, words: impl FnOnce() -> String) {
        if self.trace.is_told() {
            told.push_str(&words());
        }
    }

    /// The dice of one frame.
    fn fate(&self, from: usize, to: usize, bytes: &[u8]) -> Dice {
        let hash = blake3::hash(bytes);
        let first = u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default());
        let link = ((from as u64) << 32 | to as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Dice::new(self.seed ^ link ^ first ^ self.now_ms.rotate_left(17))
    }

    fn transmit(&mut self, from: usize, to: usize, input: Input) {
        let (Input::Received { frame: bytes, .. } | Input::Announced { frame: bytes }) = &input else { return };
        self.network.frames += 1;
        self.network.bytes += bytes.len() as u64;
        self.network.event_frames += u64::from(carries_events(&input));
        self.trace.update(&[from as u8, to as u8]);
        self.trace.update(bytes);
        let mut fate = self.fate(from, to, bytes);
        let weather = self.network.weather.clone();
        if self.network.deaf.contains(&(from, to)) {
            return;
        }
        if fate.chance(weather.loss) {
            self.reach("a frame was lost");
            return;
        }
        let epochs = (self.servers[from].epoch, self.servers[to].epoch);
        let copies = if fate.chance(weather.repeat) { 2 } else { 1 };
        if copies > 1 {
            self.reach("a frame came twice");
        }
        for copy in 0..copies {
            let at = self.now_ms + 1 + fate.below(weather.delay_ms.max(1));
            let packet = Packet { from, to, epochs, input: input.clone() };
            self.network.queue.insert((at, self.network.frames * 2 + copy), packet);
        }
    }

    /// When the next frame arrives.
    pub(super) fn next_frame_ms(&self) -> Option<u64> {
        self.network.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Delivers the next frame, unless its connection has ended.
    pub(super) fn deliver(&mut self) {
        let Some((_, packet)) = self.network.queue.pop_first() else { return };
        let lives = packet.epochs == (self.servers[packet.from].epoch, self.servers[packet.to].epoch);
        if lives && self.network.connected.contains(&pair(packet.from, packet.to)) {
            self.input(packet.to, packet.input);
        }
    }
}

/// Whether a frame brings events: pushes and answers with something in them.
fn carries_events(input: &Input) -> bool {
    let Input::Received { frame, .. } = input else { return false };
    // Small frames are hellos, pulls and empty answers: an event alone weighs more.
    frame.len() > 160 && matches!(Message::decode(frame), Ok(Message::Events(events)) if !events.events.is_empty())
}

/// A frame in words.
pub(super) fn frame_words(frame: &[u8]) -> String {
    match Message::decode(frame) {
        Ok(Message::Hello(hello)) => {
            let all = if hello.all { "all " } else { "" };
            let tell = if hello.tell { ", tell" } else { "" };
            format!("hello({all}{} heads{}{tell})", hello.heads.len(), if hello.reply { ", asks" } else { "" })
        }
        Ok(Message::Pull(pull)) => format!("pull#{}({} ranges)", pull.request, pull.ranges.len()),
        Ok(Message::Snapshot(_)) => "snapshot".to_string(),
        Ok(Message::Unknown(kind)) => format!("unknown({kind})"),
        Ok(Message::Events(events)) => {
            let piece = if events.piece.is_some() { ", a piece" } else { "" };
            format!(
                "events#{}({}{piece}{})",
                events.request,
                events.events.len(),
                if events.more { ", more" } else { "" }
            )
        }
        Err(error) => format!("?({error})"),
    }
}
