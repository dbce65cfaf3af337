//! Finding: what beacons, peers and former runs tell of the ways to members, what came of calls, and what is done when a
//! way out appears.
//!
//! Invariant: all of it are hints for [`DialTable`](super::super::dial::DialTable), bounded there; a member's word about
//! another one never displaces a way that worked. Callers: the loop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Stream};

use super::super::beacon::{Beacon, Way};
use super::super::dial::{Source, Target};
use super::super::key::{is_dialable, is_loopback, is_relayed, node_of, parse_address, peer_of};
use super::super::liveness::SUSPECT_MS;
use super::super::reason::{Reason, problem_of};
use super::super::ways;
use super::{FAILURES_MAX, Network, PENDING_INPUTS_MAX, wall_ms};
use crate::model::NodeId;
use crate::node::Input;
use crate::node::view::KnownAddress;
use crate::wire::limits::{REMEMBERED_MAX, WAYS_ADDRESSES_MAX};
use crate::wire::ways::WaysTo;

/// Between two tries to replace a relayed connection by a direct one.
const UPGRADE_MS: u64 = 30_000;
/// What is told is gathered for this long.
const GATHER: Duration = Duration::from_millis(1_000);
/// Members in one message; the rest follows.
const MEMBERS_PER_MESSAGE: usize = 32;
/// A way is noted as working again after this long, not at every connection.
const REACHED_AGAIN_MS: u64 = 600_000;

impl Network {
    pub(super) fn dial_failed(&mut self, target: &Target, reasons: &[(Multiaddr, Reason)], words: String) {
        self.dials.failed(target, reasons, self.now_ms());
        let name = match target {
            Target::Peer(peer) => node_of(peer).map_or(peer.to_string(), |node| node.to_string()),
            Target::Address(address) => address.to_string(),
        };
        tracing::debug!(target = name, reason = words, "dial failed");
        if let (Target::Peer(peer), Some(problem)) = (target, problem_of(reasons)) {
            self.tell_dialed(peer, Some(problem));
        }
        if self.failures.len() < FAILURES_MAX || self.failures.contains_key(&name) {
            self.failures.insert(name, words);
        }
    }

    /// Has a call to a member counted; when the node is behind, nobody counts it.
    pub(super) fn tell_dialed(&mut self, peer: &PeerId, problem: Option<String>) {
        let member = node_of(peer).filter(|node| self.gate.is_open_to(node));
        if let Some(peer) = member.filter(|_| self.pending.len() < PENDING_INPUTS_MAX / 2) {
            self.pending.push_back(Input::Dialed { peer, problem });
        }
    }

    /// Tells the beacons where this node listens.
    pub(super) fn speak_of_listeners(&self) {
        self.lan.listens_on(self.swarm.listeners().filter_map(Way::of).collect());
    }

    /// Whether this node has the means: relayed ways need `network.wan`.
    pub(super) fn can_dial(&self, address: &Multiaddr) -> bool {
        is_dialable(address) && (self.wan || !is_relayed(address))
    }

    pub(super) fn handle_beacon(&mut self, beacon: &Beacon) {
        let Some(peer) = peer_of(&beacon.node) else { return };
        let source = if self.gate.is_open_to(&beacon.node) { Source::Told } else { Source::Found };
        for way in &beacon.ways {
            self.dials.learn(peer, way.address(), source, self.now_ms());
        }
        self.dials.hint(peer, self.now_ms());
        self.dial_beside_relay(beacon.node, peer);
    }

    /// A peer that is connected over a relay was heard on the link: there is a shorter way.
    fn dial_beside_relay(&mut self, node: NodeId, peer: PeerId) {
        let now_ms = self.now_ms();
        let Some(known) = self.peers.get_mut(&node) else { return };
        let waits = now_ms < known.upgraded_ms + UPGRADE_MS;
        if waits || known.connections.iter().any(|line| !line.relayed) {
            return;
        }
        known.upgraded_ms = now_ms;
        let ways = self.dials.ways(&Target::Peer(peer)).iter().map(|way| way.address.clone());
        let direct: Vec<Multiaddr> = ways.filter(|address| !is_relayed(address)).collect();
        let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(direct).build();
        let _ = self.swarm.dial(options);
    }

    /// A cable, a radio or an address came or went. What was made from an address that is gone is dead. Connections that
    /// were silent while there was no way out wait for doubled timers, a new one does not.
    pub(super) fn handle_interfaces(&mut self, way_out: bool, addresses: &BTreeSet<IpAddr>) {
        let lines = self.peers.values().flat_map(|known| &known.connections);
        let cut = lines.filter(|line| line.local.is_some_and(|local| !addresses.contains(&local)));
        for connection in cut.map(|line| line.id).collect::<Vec<_>>() {
            self.swarm.close_connection(connection);
        }
        if way_out {
            self.close_silent(SUSPECT_MS);
            self.dials.wake(self.now_ms());
        }
    }

    pub(super) fn close_silent(&mut self, silent_ms: u64) {
        for connection in self.liveness.take_silent(silent_ms, self.now_ms()) {
            tracing::debug!(?connection, "closed: nothing was heard over it for {silent_ms} ms");
            self.swarm.close_connection(connection);
        }
    }

    /// What the node remembered of former runs.
    pub(super) fn recall(&mut self, addresses: Vec<KnownAddress>) {
        let now_ms = self.now_ms();
        for known in addresses {
            let Ok((named, address)) = parse_address(&known.address) else { continue };
            let key = data_encoding::HEXLOWER_PERMISSIVE.decode(known.peer.as_bytes()).ok();
            let node = key.and_then(|key| Some(NodeId(key.try_into().ok()?)));
            match node.and_then(|node| peer_of(&node)).or(named) {
                Some(peer) => {
                    self.dials.learn(peer, address.clone(), Source::Known, now_ms);
                    self.dials.reached(peer, &address, known.reached_ms);
                    if let Some(node) = node {
                        self.remembered.insert((node, address), known.reached_ms);
                    }
                }
                None => self.dials.learn_address(address, now_ms),
            }
        }
    }

    /// A connection stands. Only the address of a dial leads there again.
    pub(super) fn note_reached(&mut self, node: NodeId, peer: PeerId, address: &Multiaddr, dialed: bool) {
        let now_ms = wall_ms();
        self.seen.insert(node, (now_ms, address.clone()));
        if dialed {
            self.learn_and_remember(node, peer, address.clone(), now_ms);
        }
    }

    pub(super) fn learn_and_remember(&mut self, node: NodeId, peer: PeerId, address: Multiaddr, reached_ms: u64) {
        if !self.can_dial(&address) {
            return;
        }
        if self.dials.learn(peer, address.clone(), Source::Known, self.now_ms()) {
            self.tell_soon();
        }
        self.dials.reached(peer, &address, reached_ms);
        let key = (node, address);
        let before = self.remembered.get(&key).copied();
        let is_news = before.map_or(self.remembered.len() < REMEMBERED_MAX, |at| reached_ms >= at + REACHED_AGAIN_MS);
        if is_news {
            let address = key.1.to_string();
            self.remembered.insert(key, reached_ms);
            self.door.remember(KnownAddress { peer: node.to_string(), address, reached_ms });
        }
    }

    pub(super) fn tell_soon(&mut self) {
        self.tell_at_ms.get_or_insert(self.started.elapsed().as_millis() as u64 + GATHER.as_millis() as u64);
    }

    /// Tells every connected peer of the ways to the others that it was not told of yet.
    pub(super) fn tell_ways_when_due(&mut self) {
        if self.tell_at_ms.is_none_or(|at_ms| at_ms > self.now_ms()) {
            return;
        }
        self.tell_at_ms = None;
        let listeners: Vec<(NodeId, PeerId, bool)> =
            self.peers.iter().map(|(node, known)| (*node, known.peer, is_loopback(&known.address))).collect();
        for (listener, peer, neighbour) in listeners {
            let mut news = self.news_for(listener, neighbour);
            if news.len() > MEMBERS_PER_MESSAGE {
                news.truncate(MEMBERS_PER_MESSAGE);
                self.tell_soon();
            }
            if news.is_empty() {
                continue;
            }
            let told = self.told.entry(listener).or_default();
            for to in &news {
                told.extend(to.addresses.iter().filter_map(|text| Some((to.node, text.parse().ok()?))));
            }
            tokio::spawn(ways::tell(peer, self.control.clone(), news));
        }
    }

    /// The ways that worked or that their own peer told, and that this listener does not know from here.
    fn news_for(&self, listener: NodeId, neighbour: bool) -> Vec<WaysTo> {
        let told = self.told.get(&listener);
        let mut news = Vec::new();
        for target in self.dials.targets() {
            let Target::Peer(peer) = target else { continue };
            let node = node_of(peer).filter(|node| *node != listener && self.gate.is_open_to(node));
            let Some(node) = node else { continue };
            let good = self.dials.ways(target).iter().filter(|way| way.source <= Source::Known);
            let fit = good.filter(|way| is_dialable(&way.address) && (neighbour || !is_loopback(&way.address)));
            let best: Vec<&Multiaddr> = fit.map(|way| &way.address).take(WAYS_ADDRESSES_MAX).collect();
            let is_new = |address: &&&Multiaddr| !told.is_some_and(|told| told.contains(&(node, (**address).clone())));
            let addresses: Vec<String> = best.iter().filter(is_new).map(|address| address.to_string()).collect();
            if !addresses.is_empty() {
                news.push(WaysTo { node, addresses });
            }
        }
        news
    }

    /// A peer opened a stream to tell of the others.
    pub(super) fn hear_ways(&mut self, peer: PeerId, stream: Stream) {
        let node = node_of(&peer).filter(|node| self.gate.is_open_to(node));
        if let (Some(node), Ok(place)) = (node, Arc::clone(&self.hearing).try_acquire_owned()) {
            tokio::spawn(ways::hear(node, stream, self.news.clone(), place));
        }
    }

    pub(super) fn handle_ways(&mut self, from: NodeId, told: Vec<WaysTo>) {
        let Some(neighbour) = self.peers.get(&from).map(|known| is_loopback(&known.address)) else { return };
        for to in told {
            let Some(peer) = peer_of(&to.node) else { continue };
            let source = if self.gate.is_open_to(&to.node) { Source::Told } else { Source::Found };
            for text in &to.addresses {
                let Ok((_, address)) = parse_address(text) else { continue };
                if self.can_dial(&address) && (neighbour || !is_loopback(&address)) {
                    self.dials.learn(peer, address.clone(), source, self.now_ms());
                    // It knows: no need to tell it back.
                    let told = self.told.entry(from).or_default();
                    if told.len() < REMEMBERED_MAX {
                        told.insert((to.node, address));
                    }
                }
            }
        }
    }
}
