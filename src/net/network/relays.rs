//! The relays that a person named: this node waits for calls there as long as they are connected.
//!
//! Invariant: a relay is an ordinary static peer as well; without `network.wan` the list is empty. Callers: the loop.

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::super::key::{node_of, parse_address, with_peer};
use super::super::wan::Report;
use super::super::{AddressError, NetError};
use super::Network;

/// After a refusal, or when the relay has let the reservation go.
const AGAIN_MS: u64 = 5_000;

/// One relay, and the wait there.
pub(super) struct Relay {
    peer: PeerId,
    address: Multiaddr,
    listener: Option<ListenerId>,
    next_ms: u64,
    reserved: bool,
    failed: String,
}

impl Network {
    pub(super) fn add_relay(&mut self, text: &str) -> Result<(), NetError> {
        let (Some(peer), address) = parse_address(text)? else {
            return Err(AddressError::NoKey(text.to_string()).into());
        };
        self.add_static(text)?;
        let (listener, next_ms, reserved, failed) = Default::default();
        self.relays.push(Relay { peer, address, listener, next_ms, reserved, failed });
        Ok(())
    }

    /// Asks every connected relay for a place, where this node has none.
    pub(super) fn reserve_where_due(&mut self) {
        let now_ms = self.now_ms();
        for relay in &mut self.relays {
            let connected = node_of(&relay.peer).is_some_and(|node| self.peers.contains_key(&node));
            if relay.listener.is_none() && connected && relay.next_ms <= now_ms {
                let circuit = with_peer(relay.address.clone(), relay.peer).with(Protocol::P2pCircuit);
                match self.swarm.listen_on(circuit) {
                    Ok(listener) => relay.listener = Some(listener),
                    Err(error) => (relay.failed, relay.next_ms) = (error.to_string(), now_ms + AGAIN_MS),
                }
            }
        }
    }

    pub(super) fn next_reservation_ms(&self) -> Option<u64> {
        let waiting = self.relays.iter().filter(|relay| relay.listener.is_none() && relay.next_ms > 0);
        waiting.map(|relay| relay.next_ms.max(self.now_ms() + 100)).min()
    }

    /// A listener is gone; `true`: it was one at a relay.
    pub(super) fn lost_reservation(&mut self, listener: ListenerId, reason: &str) -> bool {
        let next_ms = self.now_ms() + AGAIN_MS;
        let Some(relay) = self.relays.iter_mut().find(|relay| relay.listener == Some(listener)) else { return false };
        tracing::info!(relay = %relay.address, reason, "no place at this relay now");
        (relay.listener, relay.reserved, relay.next_ms, relay.failed) = (None, false, next_ms, reason.to_string());
        true
    }

    /// Each relay's address, and whether this node can be called there.
    pub(super) fn relay_states(&self) -> Vec<(String, String)> {
        let state = |relay: &Relay| match (relay.reserved, relay.failed.as_str(), relay.listener) {
            (true, ..) => "reserved".to_string(),
            (false, "", Some(_)) => "asked".to_string(),
            (false, "", None) => "not connected".to_string(),
            (false, reason, _) => reason.to_string(),
        };
        self.relays.iter().map(|relay| (relay.address.to_string(), state(relay))).collect()
    }

    pub(super) fn handle_wan(&mut self, report: Report) {
        match report {
            Report::Reserved(peer) => {
                for relay in self.relays.iter_mut().filter(|relay| relay.peer == peer) {
                    (relay.reserved, relay.failed) = (true, String::new());
                    tracing::info!(relay = %relay.address, "this node can be called at this relay");
                }
            }
            Report::Punched { peer, outcome } => tracing::debug!(%peer, ?outcome, "a direct way beside the relay"),
            Report::Other => {}
        }
    }
}
