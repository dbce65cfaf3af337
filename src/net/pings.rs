//! Pings: often over TCP, where nothing else tells that a link is dead; rarely over QUIC, which keeps watch itself and
//! where a ping only measures the round trip.
//!
//! Invariant: a thin choice between two of libp2p's; an idle QUIC connection costs about 30 bytes/s each way.
//! Callers: behaviour.

use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, ping};

/// [`super::liveness`] gives a connection up after two pings without an answer.
const OFTEN: Duration = Duration::from_secs(5);
const RARELY: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(4);

/// See the module.
pub(crate) struct Behaviour {
    often: ping::Behaviour,
    rarely: ping::Behaviour,
}

/// Whether a connection by this address notices by itself that its link is dead.
pub(crate) fn watches_itself(address: &Multiaddr) -> bool {
    let has = |wanted: fn(&Protocol<'_>) -> bool| address.iter().any(|part| wanted(&part));
    has(|part| matches!(part, Protocol::QuicV1)) && !has(|part| matches!(part, Protocol::P2pCircuit))
}

impl Behaviour {
    pub(crate) fn new() -> Behaviour {
        let every = |interval| ping::Behaviour::new(ping::Config::new().with_interval(interval).with_timeout(TIMEOUT));
        Behaviour { often: every(OFTEN), rarely: every(RARELY) }
    }

    fn choose(&mut self, address: &Multiaddr) -> &mut ping::Behaviour {
        if watches_itself(address) { &mut self.rarely } else { &mut self.often }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <ping::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = ping::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // A relayed connection says so in its local address.
        let chosen = if watches_itself(local) { self.choose(remote) } else { self.choose(local) };
        chosen.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.choose(address).handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.often.on_swarm_event(event);
        self.rarely.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        // Both only pass it on.
        self.often.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.often.poll(context) {
            Poll::Pending => self.rarely.poll(context),
            ready => ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_direct_quic_connection_watches_itself() {
        let watches = |text: &str| watches_itself(&text.parse().unwrap());
        assert!(watches("/ip4/10.0.0.1/udp/1/quic-v1"));
        assert!(!watches("/ip4/10.0.0.1/tcp/1"));
        assert!(!watches("/ip4/10.0.0.1/udp/1/quic-v1/p2p-circuit"));
    }
}
