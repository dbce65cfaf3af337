//! Floor L4: libp2p. Effects of the node become frames and gossip, what arrives becomes inputs.
//!
//! ```text
//!   key         names of nodes and addresses, ours and libp2p's      gate        who gets in; proof of a join
//!   frame       length-prefixed bytes                                transport   QUIC and TCP below the gate
//!   door        the way into the node                                behaviour   gossip, ping, identify, limits
//!   link        streams of one peer                                  strangers   bounds on what connecting may cost
//!   network     the loop over all of it                              rate        a rate with a burst
//!   join        `litemesh join`: the other side of the gate          join_lan    the same without a code
//!   doorbell    who lets in without a code just now
//!
//!   finding members:
//!   dial        whom to dial when                                    interfaces  cables, radios, addresses
//!   beacon      a sealed packet by multicast                         lan         beacons on every interface
//!   ways        what members tell of the others                      liveness    which connections are dead
//!   pings       often over TCP, rarely over QUIC                     wan         relays and hole punching, when asked for
//!   reason      why a dial failed                                    diagnosis   all of it in words, for `doctor`
//! ```
//!
//! Invariant: nobody but a member receives a byte beyond the gate; every queue is bounded; nothing here decides what is
//! true, so losing any message costs time only. Callers: daemon (run), cli (join, parse_address).

mod beacon;
mod behaviour;
mod diagnosis;
mod dial;
mod door;
mod doorbell;
mod frame;
mod gate;
mod interfaces;
mod join;
mod join_lan;
mod key;
mod lan;
mod link;
mod liveness;
mod network;
mod pings;
mod rate;
mod reason;
mod strangers;
mod transport;
mod wan;
mod ways;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

pub use behaviour::ProtocolError;
pub use diagnosis::{AwayDiagnosis, Diagnosis, Finding, InterfaceDiagnosis, PeerDiagnosis};
pub use interfaces::Interface;
pub use join::{JoinError, Joined, join};
pub use join_lan::join_lan;
pub use key::{AddressError, parse_address};
pub use transport::TransportError;

use crate::node::Effect;
use crate::node::port::NodePort;
use door::{Door, PortDoor};
use network::Network;

/// What the network is started with.
#[derive(Clone, Debug)]
pub struct NetSettings {
    /// ed25519 secret seed of the node's key.
    pub key_seed: [u8; 32],
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Multiaddrs of peers to stay connected to, with or without their `/p2p/` part.
    pub peers: Vec<String>,
    /// Look for peers on the local network.
    pub mdns: bool,
    /// Relay for members, be called over relays, punch holes.
    pub wan: bool,
    /// Multiaddrs of the members to be called at, with their `/p2p/` part; without effect when `wan` is off.
    pub relays: Vec<String>,
}

/// What the daemon asks of a running network.
#[derive(Debug)]
pub enum NetCommand {
    /// Dial an address now, once.
    Dial(String),
    /// Stay connected to the peer at this address, across restarts.
    AddPeer(String),
    /// Tell how the network is doing.
    Diagnose(oneshot::Sender<Diagnosis>),
}

/// Why the network cannot start. Nothing is left open.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address of the settings is wrong. Correct it.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address cannot be listened on: in use, or not of this machine.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// Encryption cannot be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The protocols cannot be started.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The node has stopped.
    #[error("the node has stopped")]
    NodeGone,
    /// The operating system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// What the machine's interfaces look like while no node runs.
pub fn look_at_interfaces() -> Vec<Finding> {
    let seen = |interface| InterfaceDiagnosis { interface, ..InterfaceDiagnosis::default() };
    let interfaces = interfaces::read().unwrap_or_default();
    interfaces.into_iter().filter_map(|interface| diagnosis::interface_words(&seen(interface), None)).collect()
}

/// Runs the network of a node until `shutdown` holds `true`, then says goodbye to all peers. `ready` gets the multiaddrs
/// that peers can dial once everything listens.
pub async fn run(
    settings: NetSettings,
    port: Arc<dyn NodePort>,
    effects: mpsc::Receiver<Effect>,
    ready: oneshot::Sender<Vec<String>>,
    control: mpsc::Receiver<NetCommand>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), NetError> {
    let channels = Channels { effects, ready: Some(ready), control, shutdown };
    run_behind(settings, Arc::new(PortDoor(port)), channels).await
}

/// What connects the network with the daemon.
pub(crate) struct Channels {
    pub(crate) effects: mpsc::Receiver<Effect>,
    pub(crate) ready: Option<oneshot::Sender<Vec<String>>>,
    pub(crate) control: mpsc::Receiver<NetCommand>,
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// [`run`] with any node behind the door.
pub(crate) async fn run_behind(settings: NetSettings, door: Arc<dyn Door>, channels: Channels) -> Result<(), NetError> {
    let membership = network::ask_membership(&door).await.ok_or(NetError::NodeGone)?;
    Network::start(&settings, door, membership)?.run(channels).await
}
