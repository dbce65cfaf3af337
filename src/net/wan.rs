//! Beyond the local network, when a person asks for it: members relay for members, and punch holes through NATs.
//!
//! Invariant: without `network.wan` none of these protocols exists on a node. With it they still begin above the gate: a
//! relay serves members only, and a relayed connection passes the gate of its other end like any other, encrypted from
//! end to end. Reservations, circuits and rates are bounded. Callers: behaviour, transport, network.
//!
//! No autonat: its probes are further connections from a peer that is connected, which here mean that the peer has lost
//! the older ones. A node that relays names the addresses it listens on; who is reached by another one (port forwarding)
//! is named by it in everybody's `relays`.

use std::num::NonZeroU32;
use std::time::Duration;

use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, dcutr, relay};

/// Members that may wait for calls at this relay, and calls at once: each takes one file descriptor's worth of memory.
const RESERVATIONS_MAX: usize = 64;
const CIRCUITS_MAX: usize = 64;
const PER_PEER_MAX: usize = 8;
const RESERVED_FOR: Duration = Duration::from_secs(3600);
/// A call may last as long as a venue; its bytes are the cluster's own.
const CALL_MAX: Duration = Duration::from_secs(24 * 3600);
const CALL_BYTES_MAX: u64 = 1 << 40;
/// Per peer and minute: a member that redials every few seconds stays below.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("60 is not 0");
const MINUTE: Duration = Duration::from_secs(60);

/// The protocols.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Report")]
pub(crate) struct Behaviour {
    server: relay::Behaviour,
    client: relay::client::Behaviour,
    punch: dcutr::Behaviour,
}

/// What they tell.
#[derive(Debug)]
pub(crate) enum Report {
    /// A relay takes calls for this node.
    Reserved(PeerId),
    /// A direct connection took the place of a relayed one, or did not.
    Punched { peer: PeerId, outcome: Result<(), String> },
    /// Nothing that anybody has to act on.
    Other,
}

/// The protocols of a node, and the transport of its relayed connections.
pub(crate) fn open(own: PeerId) -> (relay::client::Transport, Behaviour) {
    let (transport, client) = relay::client::new(own);
    let limits = relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_reservations_per_peer: PER_PEER_MAX,
        reservation_duration: RESERVED_FOR,
        reservation_rate_limiters: Vec::new(),
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: PER_PEER_MAX,
        max_circuit_duration: CALL_MAX,
        max_circuit_bytes: CALL_BYTES_MAX,
        circuit_src_rate_limiters: Vec::new(),
    };
    let limits = limits.reservation_rate_per_peer(PER_MINUTE, MINUTE).circuit_src_per_peer(PER_MINUTE, MINUTE);
    let server = relay::Behaviour::new(own, limits);
    (transport, Behaviour { server, client, punch: dcutr::Behaviour::new(own) })
}

impl From<relay::Event> for Report {
    fn from(_: relay::Event) -> Report {
        Report::Other
    }
}

impl From<relay::client::Event> for Report {
    fn from(event: relay::client::Event) -> Report {
        match event {
            relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } => Report::Reserved(relay_peer_id),
            relay::client::Event::OutboundCircuitEstablished { .. }
            | relay::client::Event::InboundCircuitEstablished { .. } => Report::Other,
        }
    }
}

impl From<dcutr::Event> for Report {
    fn from(event: dcutr::Event) -> Report {
        let outcome = event.result.map(|_| ()).map_err(|error| error.to_string());
        Report::Punched { peer: event.remote_peer_id, outcome }
    }
}
