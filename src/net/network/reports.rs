//! What the protocols of admitted peers report: identified peers, round trips, gossip.
//!
//! Invariant: what is learnt here is a hint (an address, a head that moved), bounded in number, never an authority.
//! Callers: the loop.

use libp2p::{Multiaddr, PeerId, gossipsub, identify, ping};

use super::super::behaviour::Report;
use super::super::key::{is_loopback, node_of, split_peer};
use super::{ADDRESSES_TOLD_MAX, Network, PENDING_INPUTS_MAX};
use crate::node::Input;
use crate::wire::limits::ANNOUNCEMENT_BYTES_MAX;

impl Network {
    pub(super) fn handle_report(&mut self, report: Report) {
        match report {
            Report::Ping(ping::Event { peer, connection, result: Ok(round_trip) }) => {
                self.liveness.answered_again(connection, self.now_ms());
                if let Some(node) = node_of(&peer).filter(|node| self.peers.contains_key(node)) {
                    let micros = round_trip.as_micros() as u64;
                    self.pending.push_back(Input::RoundTrip { peer: node, micros });
                }
            }
            Report::Ping(ping::Event { result: Err(ping::Failure::Unsupported), .. }) => {}
            // Late and not every failure: `liveness` decides.
            Report::Ping(ping::Event { result: Err(_), .. }) => {}
            Report::Identified(event) => {
                if let identify::Event::Received { peer_id, info, .. } = *event {
                    self.handle_identified(peer_id, info.listen_addrs);
                }
            }
            Report::Gossip(event) => self.handle_gossip(*event),
            Report::Wan(report) => self.handle_wan(report),
        }
    }

    /// A member tells where it listens. Loopback means something only to a neighbour on the same machine.
    fn handle_identified(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let Some(node) = node_of(&peer) else { return };
        let Some(neighbour) = self.peers.get(&node).map(|known| is_loopback(&known.address)) else { return };
        let told = addresses.into_iter().map(|address| split_peer(address).1);
        let fit = told.filter(|address| self.can_dial(address) && (neighbour || !is_loopback(address)));
        for address in fit.take(ADDRESSES_TOLD_MAX).collect::<Vec<_>>() {
            self.learn_and_remember(node, peer, address, 0);
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
