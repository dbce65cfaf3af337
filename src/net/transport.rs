//! QUIC and TCP (noise, yamux) below, names resolved, the gate on top.
//!
//! Invariant: the swarm gets connections of members only. Callers: net (run), join (without the gate).

use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, OrTransport, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::identity::Keypair;
use libp2p::{PeerId, dns, noise, quic, relay, tcp, yamux};

use super::gate::{self, Gate};

/// A dial that found nobody after this has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(6);
/// Encryption alone; QUIC has the same limit of its own.
const ENCRYPTION_TIMEOUT: Duration = Duration::from_secs(5);
/// An incoming connection has to pass encryption and gate within this (a join waits for the node's disk).
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Dead links are noticed after this; the keep-alive leaves two tries and costs about 30 bytes/s each way.
const QUIC_IDLE_MS: u32 = 6_000;
const QUIC_KEEP_ALIVE: Duration = Duration::from_millis(2_500);
/// Half of the 256 MiB a node may take under attack, over 64 peers.
const QUIC_CONNECTION_BYTES: u32 = 4 << 20;

/// A connection whose other side has proven its key.
pub(crate) type Connection = (PeerId, StreamMuxerBox);

/// Why the transports cannot be made. Nothing was opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up encryption: {0}")]
pub struct TransportError(#[from] noise::Error);

/// QUIC and TCP without any gate.
pub(crate) fn open_transport(keypair: &Keypair) -> Result<Boxed<Connection>, TransportError> {
    let sockets = || -> Result<_, TransportError> {
        let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(keypair)?)
            .multiplex(yamux::Config::default())
            .timeout(ENCRYPTION_TIMEOUT);
        let mut settings = quic::Config::new(keypair);
        settings.max_idle_timeout = QUIC_IDLE_MS;
        settings.keep_alive_interval = QUIC_KEEP_ALIVE;
        settings.max_connection_data = QUIC_CONNECTION_BYTES;
        settings.max_stream_data = QUIC_CONNECTION_BYTES;
        settings.max_concurrent_stream_limit = 64;
        let quic =
            quic::tokio::Transport::new(settings).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
        Ok(OrTransport::new(quic, tcp).map(|either, _| match either {
            Either::Left(connection) => connection,
            Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        }))
    };
    // A venue's machine may have no resolver at all: addresses by number must work there.
    Ok(match dns::tokio::Transport::system(sockets()?) {
        Ok(transport) => transport.boxed(),
        Err(_) => sockets()?.boxed(),
    })
}

/// QUIC and TCP behind the gate, and relayed connections when there is a transport for them.
pub(crate) fn gated_transport(
    keypair: &Keypair,
    gate: Arc<Gate>,
    relayed: Option<relay::client::Transport>,
) -> Result<Boxed<Connection>, TransportError> {
    let direct = open_transport(keypair)?;
    let all = match relayed {
        None => direct,
        Some(relayed) => {
            // The relay sees ciphertext only: the two ends encrypt between themselves.
            let relayed = relayed
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(keypair)?)
                .multiplex(yamux::Config::default())
                .timeout(ENCRYPTION_TIMEOUT)
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
            OrTransport::new(relayed, direct).map(|either, _| either.into_inner()).boxed()
        }
    };
    let gated = all.and_then(move |(peer, muxer), endpoint| {
        // Of two that punch a hole towards each other both dial, and one plays the listener.
        let dialer = matches!(endpoint, ConnectedPoint::Dialer { role_override: Endpoint::Dialer, .. });
        let gate = gate.clone();
        async move { gate::admit(gate, peer, muxer, (dialer, endpoint.get_remote_address())).await }
    });
    let incoming = TransportTimeout::with_ingoing_timeout(gated, ADMISSION_TIMEOUT);
    Ok(TransportTimeout::with_outgoing_timeout(incoming, DIAL_TIMEOUT).boxed())
}
