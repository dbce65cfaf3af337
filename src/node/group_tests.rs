//! Several nodes with real logs under a clock of their own: frames are carried by hand, each one's fate is chosen by the test.
//!
//! Events are made in bulk by a former incarnation of a member, in a database that nobody serves: they are only stored and
//! passed on. Invariant: nothing here waits or draws dice. Callers: tests of `node`.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use super::capture::Part;
use super::chain::{Chain, Sealed, Sealing};
use super::membership::{admit, node_id};
use super::pair_tests::{CLOCK_MS, Site};
use super::*;
use crate::model::{Birth, Cell, Change, Cut, OriginId, RowId, Stamp, TableColumns, Value};
use crate::wire::message::Events;

const SCHEMA: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)";

/// What the network does with a frame: `None` loses it, else it arrives after so many ms.
pub(super) type Fate = Box<dyn FnMut(usize, usize, &[u8]) -> Option<u64>>;

/// Some nodes of one cluster.
pub(super) struct Group {
    pub(super) sites: Vec<Site>,
    pub(super) nodes: Vec<Node>,
    pub(super) now: Now,
    pub(super) fate: Fate,
    under_way: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    number: u64,
    connected: BTreeSet<(usize, usize)>,
    /// What was sent: from, to, frame.
    pub(super) sent: Vec<(usize, usize, Vec<u8>)>,
}

/// Events of one chain, `bytes` each or so; each knows of those of `seen` before it.
pub(super) fn chain_of(seed: u8, cluster: [u8; 32], incarnation: u64, count: u64, bytes: usize) -> Vec<Sealed> {
    let chain = Chain::new(&[seed; 32], cluster, incarnation);
    let mut sealed: Vec<Sealed> = Vec::new();
    for seq in 1..=count {
        let head = sealed.last().map(|one| crate::model::Head { origin: chain.origin(), seq: seq - 1, hash: one.hash });
        sealed.extend(chain.seal(head, vec![part(chain.origin(), seq, bytes)], sealing(seq, Cut::new())));
    }
    sealed
}

pub(super) fn sealing(stamp: u64, applied: Cut) -> Sealing<'static> {
    Sealing {
        database: "elsewhere",
        applied,
        schema: [0; 16],
        stamp: Stamp::from_wall_ms(CLOCK_MS - 1_000_000 + stamp),
        note: "",
    }
}

pub(super) fn part(origin: crate::model::Origin, seq: u64, bytes: usize) -> Part {
    let mut text = String::new();
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ origin.incarnation;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push(char::from(b'a' + (state >> 59) as u8 % 26));
    }
    let row = RowId::Born(Birth { origin: origin.id(), seq, index: 0 });
    let cells = vec![(0, Cell::Plain(Value::text(&text)))];
    let tables = vec![TableColumns { table: "t".into(), columns: vec!["a".into()] }];
    Part { tables, changes: vec![Change::Insert { table: 0, row, claim: None, after: None, cells }] }
}

impl Group {
    /// `count` nodes, not connected. `stock` puts events into the logs before they start.
    pub(super) fn new(count: u8, stock: impl Fn(usize, [u8; 32]) -> Vec<Sealed>) -> Group {
        let now = Now { mono_ms: 1_000, wall_ms: CLOCK_MS };
        let sites: Vec<Site> = (1..=count).map(|seed| Site::new(seed).with("app", SCHEMA, &[])).collect();
        let logs: Vec<_> = sites.iter().map(Site::log).collect();
        let seed = |at: usize| [at as u8 + 1; 32];
        Node::found(&logs[0], &seed(0), "first", "test", now).unwrap();
        let mut membership = orders::load_membership(&logs[0]).unwrap().unwrap();
        for at in 1..sites.len() {
            let record = admit(&seed(0), &membership, node_id(&seed(at)), &format!("n{at}"), now.wall_ms);
            membership.add(record).unwrap();
        }
        let records: Vec<_> = membership.records().into_iter().cloned().collect();
        let mut nodes = Vec::new();
        for (at, site) in sites.iter().enumerate() {
            if at > 0 {
                Node::enter(&logs[at], records.clone()).unwrap();
            }
            let mut write = logs[at].write().unwrap();
            for one in stock(at, membership.cluster().0) {
                write.append(&one.event, &one.bytes, one.hash, Some(one.signature)).unwrap();
            }
            write.commit_durable().unwrap();
            let mut node = Node::open(site.settings(), logs[at].clone(), now).unwrap();
            node.handle(Input::MembersLearnt(records.clone()), now).unwrap();
            nodes.push(node);
        }
        let fate: Fate = Box::new(|_, _, _| Some(5));
        let (under_way, connected) = (BTreeMap::new(), BTreeSet::new());
        let mut group = Group { sites, nodes, now, fate, under_way, number: 0, connected, sent: Vec::new() };
        group.run(2_000);
        group
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let ids = [self.nodes[a].id(), self.nodes[b].id()];
        self.connected.extend([(a, b), (b, a)]);
        for (at, peer) in [(a, ids[1]), (b, ids[0])] {
            self.nodes[at].handle(Input::PeerConnected { peer, address: String::new() }, self.now).unwrap();
            self.collect(at);
        }
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let ids = [self.nodes[a].id(), self.nodes[b].id()];
        for pair in [(a, b), (b, a)] {
            self.connected.remove(&pair);
            self.under_way.retain(|_, (from, to, _)| (*from, *to) != pair);
        }
        for (at, peer) in [(a, ids[1]), (b, ids[0])] {
            self.nodes[at].handle(Input::PeerDisconnected { peer }, self.now).unwrap();
        }
    }

    /// Everybody meets everybody.
    pub(super) fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.connect(a, b);
            }
        }
    }

    fn collect(&mut self, from: usize) {
        while let Some(effect) = self.nodes[from].poll_effect() {
            match effect {
                Effect::Send { peer, frame } => {
                    let Some(to) = self.nodes.iter().position(|node| node.id() == peer) else { continue };
                    if self.connected.contains(&(from, to)) {
                        self.sent.push((from, to, frame.clone()));
                        if let Some(delay) = (self.fate)(from, to, &frame) {
                            self.number += 1;
                            self.under_way.insert((self.now.mono_ms + delay, self.number), (from, to, frame));
                        }
                    }
                }
                Effect::PeerFault { reason, .. } => panic!("node {from} blames somebody: {reason}"),
                _ => {}
            }
        }
    }

    fn step(&mut self) {
        self.now = Now { mono_ms: self.now.mono_ms + 1, wall_ms: self.now.wall_ms + 1 };
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now.mono_ms) {
            let (from, to, frame) = entry.remove();
            let peer = self.nodes[from].id();
            self.nodes[to].handle(Input::Received { peer, frame }, self.now).unwrap();
            self.collect(to);
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].next_deadline(self.now).is_some_and(|deadline| deadline <= self.now.mono_ms) {
                self.nodes[at].handle(Input::Tick, self.now).unwrap();
                self.collect(at);
            }
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while self.now.mono_ms < end {
            self.step();
        }
    }

    /// Lets time pass until something holds; how long it took.
    pub(super) fn run_until(&mut self, what: &str, within_ms: u64, holds: impl Fn(&Group) -> bool) -> u64 {
        let start = self.now.mono_ms;
        while !holds(self) {
            if self.now.mono_ms >= start + within_ms {
                let frames: Vec<String> = self
                    .sent
                    .iter()
                    .rev()
                    .take(12)
                    .map(|(a, b, f)| format!("{a}→{b} {} {:?}", f.len(), f[0] >> 3))
                    .collect();
                panic!("{what}: not within {within_ms} ms; last frames {frames:?}");
            }
            self.step();
        }
        self.now.mono_ms - start
    }

    pub(super) fn seq(&self, at: usize, origin: &OriginId) -> u64 {
        self.nodes[at].heads.get(origin).map_or(0, |head| head.seq)
    }

    /// Whether a node's log holds all that the first one's present incarnation wrote, and that is something.
    pub(super) fn has_fresh(&self, at: usize) -> bool {
        let origin = self.nodes[0].chain.origin().id();
        self.seq(0, &origin) > 0 && self.seq(at, &origin) == self.seq(0, &origin)
    }

    /// Bytes of all frames that pass between two nodes, both ways.
    pub(super) fn bytes(&self) -> usize {
        self.sent.iter().map(|(_, _, frame)| frame.len()).sum()
    }

    /// How often each event of an origin was sent to a node, and by whom.
    pub(super) fn carried(&self, to: usize, origin: &OriginId) -> BTreeMap<u64, Vec<usize>> {
        let mut carried: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (from, _, frame) in self.sent.iter().filter(|(_, target, _)| *target == to) {
            for event in events_in(frame).events {
                let header = crate::wire::decode_event(&event.bytes).unwrap().header;
                if header.origin.id() == *origin {
                    carried.entry(header.seq).or_default().push(*from);
                }
            }
        }
        carried
    }
}

pub(super) fn events_in(frame: &[u8]) -> Events {
    match Message::decode(frame) {
        Ok(Message::Events(events)) => events,
        _ => Events::default(),
    }
}

pub(super) fn is_answer(frame: &[u8]) -> bool {
    matches!(Message::decode(frame), Ok(Message::Events(events)) if events.request > 0)
}

pub(super) fn origin_of(seed: u8, incarnation: u64) -> OriginId {
    crate::model::Origin { node: node_id(&[seed; 32]), incarnation }.id()
}
