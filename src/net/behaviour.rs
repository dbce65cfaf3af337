//! The protocols above the gate: frames, gossip, ping, identify, and the limits.
//!
//! Invariant: every connection these see is a member's; all sizes and numbers are bounded. Callers: net::network.

use std::convert::Infallible;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, MessageAuthenticity};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{identify, memory_connection_limits, ping};

use super::{pings, strangers, wan};
use crate::model::ClusterId;
use crate::wire::limits::GOSSIP_BYTES_MAX;

/// Connections that have not passed the gate yet: what a stranger can hold.
const PENDING_INCOMING_MAX: u32 = 8;
/// A whole cluster may be away, and every dial takes its six seconds.
const PENDING_OUTGOING_MAX: u32 = 48;
const ESTABLISHED_MAX: u32 = 64;
/// Both sides may dial at once, over TCP and QUIC.
const ESTABLISHED_PER_PEER_MAX: u32 = 4;
/// Above this much memory of the process no connection is added.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// All protocols of one node.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Report")]
pub(crate) struct Protocols {
    strangers: strangers::Behaviour,
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pings: pings::Behaviour,
    identify: identify::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) frames: libp2p_stream::Behaviour,
    wan: Toggle<wan::Behaviour>,
}

/// What the protocols tell the network.
#[derive(Debug)]
pub(crate) enum Report {
    Ping(ping::Event),
    Identified(Box<identify::Event>),
    Gossip(Box<gossipsub::Event>),
    Wan(wan::Report),
}

/// Why the protocols cannot be started; the words are those of libp2p.
#[derive(Debug, thiserror::Error)]
#[error("cannot start gossip: {0}")]
pub struct ProtocolError(String);

impl Protocols {
    /// Without `wan` a node has none of its protocols.
    pub(crate) fn new(keypair: &Keypair, wan: Option<wan::Behaviour>) -> Result<Protocols, ProtocolError> {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
            .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
            .with_max_established(Some(ESTABLISHED_MAX))
            .with_max_established_per_peer(Some(ESTABLISHED_PER_PEER_MAX));
        let identify = identify::Config::new("litemesh/1".into(), keypair.public())
            .with_agent_version(concat!("litemesh/", env!("CARGO_PKG_VERSION")).into())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        Ok(Protocols {
            strangers: strangers::Behaviour::new(),
            limits: connection_limits::Behaviour::new(limits),
            memory: memory_connection_limits::Behaviour::with_max_bytes(MEMORY_BYTES_MAX),
            pings: pings::Behaviour::new(),
            identify: identify::Behaviour::new(identify),
            gossip: gossip(keypair)?,
            frames: libp2p_stream::Behaviour::new(),
            wan: Toggle::from(wan),
        })
    }
}

/// The topic of a cluster: only members ever see it, and it does not give the cluster's id away.
pub(crate) fn topic(cluster: &ClusterId) -> gossipsub::IdentTopic {
    let hash = blake3::derive_key("litemesh 1 topic", &cluster.0);
    gossipsub::IdentTopic::new(format!("litemesh/1/{}", data_encoding::HEXLOWER.encode(&hash[..16])))
}

/// A sparse mesh without flooding: with libp2p's defaults 12 nodes put 80 copies of a message on the wire, so 13.
fn gossip(keypair: &Keypair) -> Result<gossipsub::Behaviour, ProtocolError> {
    let config = gossipsub::ConfigBuilder::default()
        .flood_publish(false)
        .mesh_n(2)
        .mesh_n_low(1)
        .mesh_n_high(4)
        .mesh_outbound_min(0)
        .gossip_lazy(3)
        .idontwant_on_publish(true)
        .heartbeat_initial_delay(Duration::from_millis(500))
        .max_transmit_size(GOSSIP_BYTES_MAX)
        .build()
        .map_err(|error| ProtocolError(error.to_string()))?;
    gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config)
        .map_err(|error| ProtocolError(error.to_string()))
}

impl From<ping::Event> for Report {
    fn from(event: ping::Event) -> Report {
        Report::Ping(event)
    }
}

impl From<identify::Event> for Report {
    fn from(event: identify::Event) -> Report {
        Report::Identified(Box::new(event))
    }
}

impl From<gossipsub::Event> for Report {
    fn from(event: gossipsub::Event) -> Report {
        Report::Gossip(Box::new(event))
    }
}

impl From<wan::Report> for Report {
    fn from(report: wan::Report) -> Report {
        Report::Wan(report)
    }
}

impl From<()> for Report {
    fn from((): ()) -> Report {
        unreachable!("the behaviour of streams reports nothing")
    }
}

impl From<Infallible> for Report {
    fn from(never: Infallible) -> Report {
        match never {}
    }
}
