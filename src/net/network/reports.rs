//! What the protocols of admitted peers report: found and identified peers, round trips, gossip.
//!
//! Invariant: what is learnt here is a hint (an address, a head that moved), bounded in number, never an authority.
//! Callers: the loop.

use libp2p::{Multiaddr, PeerId, gossipsub, identify, mdns, ping};

use super::super::behaviour::Report;
use super::super::dial::Source;
use super::super::discovery::Verdict;
use super::super::key::{is_loopback, is_usable, node_of, split_peer};
use super::{ADDRESSES_TOLD_MAX, Network, PENDING_INPUTS_MAX, REMEMBERED_MAX};
use crate::model::NodeId;
use crate::node::Input;
use crate::node::view::KnownAddress;
use crate::wire::limits::ANNOUNCEMENT_BYTES_MAX;

impl Network {
    pub(super) fn handle_report(&mut self, report: Report) {
        match report {
            Report::Found(mdns::Event::Discovered(found)) => self.handle_found(found),
            Report::Found(mdns::Event::Expired(expired)) => {
                for (peer, address) in expired {
                    let (_, address) = split_peer(address);
                    self.discovery.expired(peer, &address);
                    self.dials.forget_found(peer, &address);
                }
            }
            Report::Ping(ping::Event { peer, result: Ok(round_trip), .. }) => {
                if let Some(node) = node_of(&peer).filter(|node| self.peers.contains_key(node)) {
                    let micros = round_trip.as_micros() as u64;
                    self.pending.push_back(Input::RoundTrip { peer: node, micros });
                }
            }
            Report::Ping(ping::Event { result: Err(ping::Failure::Unsupported), .. }) => {}
            // libp2p reports the second failure in a row only and keeps the connection: it is dead.
            Report::Ping(ping::Event { connection, result: Err(_), .. }) => {
                self.swarm.close_connection(connection);
            }
            Report::Identified(event) => {
                if let identify::Event::Received { peer_id, info, .. } = *event {
                    self.handle_identified(peer_id, info.listen_addrs);
                }
            }
            Report::Gossip(event) => self.handle_gossip(*event),
        }
    }

    fn handle_found(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let now_ms = self.now_ms();
        for (peer, address) in found {
            let (_, address) = split_peer(address);
            let is_member = node_of(&peer).is_some_and(|node| self.gate.is_open_to(&node));
            match self.discovery.found(peer, &address, is_member, now_ms) {
                Verdict::Take => {
                    self.dials.learn(peer, address, Source::Found, now_ms);
                }
                Verdict::Ignore => {}
                Verdict::Flood => {
                    tracing::warn!("a flood of discovery packets: discovery pauses, static peers work on");
                    self.swarm.behaviour_mut().stop_mdns();
                    return;
                }
            }
        }
    }

    /// A member tells where it listens. Loopback means something only to a neighbour on the same machine.
    fn handle_identified(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let Some(node) = node_of(&peer) else { return };
        let Some(neighbour) = self.peers.get(&node).map(|known| is_loopback(&known.address)) else { return };
        let told = addresses.into_iter().map(|address| split_peer(address).1);
        for address in told.filter(|address| neighbour || !is_loopback(address)).take(ADDRESSES_TOLD_MAX) {
            self.learn_and_remember(node, peer, address);
        }
    }

    pub(super) fn learn_and_remember(&mut self, node: NodeId, peer: PeerId, address: Multiaddr) {
        if !is_usable(&address) {
            return;
        }
        self.dials.learn(peer, address.clone(), Source::Known, self.now_ms());
        let known = KnownAddress { peer: node.to_string(), address: address.to_string() };
        if self.remembered.len() < REMEMBERED_MAX && self.remembered.insert((node, address)) {
            self.door.remember(known);
        }
    }

    fn handle_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { message, .. } = event else { return };
        let member = message.source.and_then(|source| node_of(&source)).is_some_and(|node| self.gate.is_open_to(&node));
        let room = self.pending.len() < PENDING_INPUTS_MAX / 2;
        if member && room && message.data.len() <= ANNOUNCEMENT_BYTES_MAX {
            self.pending.push_back(Input::Announced { frame: message.data });
        }
    }
}
