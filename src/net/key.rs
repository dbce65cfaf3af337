//! Names of nodes and places as libp2p writes them, and back.
//!
//! Invariant: a [`PeerId`] of this cluster holds its whole ed25519 key, so it and the [`NodeId`] determine each other.
//! Callers: all of net.

use std::io;
use std::net::{IpAddr, SocketAddr};

use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use socket2::{Domain, Socket, Type};

use crate::model::NodeId;
use crate::wire::limits::ADDRESS_BYTES_MAX;

/// Why a text is no address. Nothing was changed; correct the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a multiaddr.
    #[error("{0:?} is not an address: write it like /ip4/192.168.1.7/udp/4001/quic-v1 or /dns4/pit.local/tcp/4001")]
    NotAMultiaddr(String),
    /// The address of a relay without its key.
    #[error(
        "{0:?} names no key: a relay is written with it, /ip4/203.0.113.7/tcp/7481/p2p/12D3…, as its ready line tells"
    )]
    NoKey(String),
    /// A multiaddr that neither QUIC nor TCP can use.
    #[error("{0:?} names neither a TCP port nor a QUIC one (/tcp/PORT or /udp/PORT/quic-v1)")]
    NoTransport(String),
}

/// An address as a person writes it: the peer's key, when it ends in `/p2p/…`, and the rest.
pub fn parse_address(text: &str) -> Result<(Option<PeerId>, Multiaddr), AddressError> {
    let wrong = || AddressError::NotAMultiaddr(text.chars().take(80).collect());
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(wrong());
    }
    let (peer, address) = split_peer(text.trim().parse().map_err(|_| wrong())?);
    match is_usable(&address) {
        true => Ok((peer, address)),
        false => Err(AddressError::NoTransport(text.to_string())),
    }
}

/// Takes the peer's key off an address.
pub(crate) fn split_peer(mut address: Multiaddr) -> (Option<PeerId>, Multiaddr) {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => {
            address.pop();
            (Some(peer), address)
        }
        _ => (None, address),
    }
}

/// Puts the peer's key onto an address.
pub(crate) fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    split_peer(address).1.with(Protocol::P2p(peer))
}

/// A host and one of our transports, or such an address of a relay with its key; nothing else: what other nodes tell us
/// goes no further than this.
pub(crate) fn is_usable(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let host = matches!(
        parts.next(),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))
    );
    let transport = match parts.next() {
        Some(Protocol::Tcp(_)) => true,
        Some(Protocol::Udp(_)) => matches!(parts.next(), Some(Protocol::QuicV1)),
        _ => false,
    };
    let end = (parts.next(), parts.next(), parts.next());
    host && transport && matches!(end, (None, ..) | (Some(Protocol::P2p(_)), Some(Protocol::P2pCircuit), None))
}

/// Whether an address leads over a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

/// Whether another node's address can be dialed: libp2p's transports have no scope for link-local IPv6.
pub(crate) fn is_dialable(address: &Multiaddr) -> bool {
    let nowhere = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_unspecified() || ip.is_multicast(),
        Some(Protocol::Ip6(ip)) => ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
        _ => false,
    };
    is_usable(address) && !nowhere
}

/// The socket of a TCP address with a fixed port.
pub(crate) fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port > 0 => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// An error when somebody listens on this TCP socket. Each family is asked for by itself.
pub(crate) fn check_free(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// Whether this means every IPv6 address of the machine.
pub(crate) fn is_any_v6(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Ip6(ip)) if ip.is_unspecified())
}

/// Whether an address points at the machine itself.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// libp2p's name of a node; `None` for 32 bytes that are no ed25519 key.
pub(crate) fn peer_of(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The node behind libp2p's name; `None` for keys of another kind.
pub(crate) fn node_of(peer: &PeerId) -> Option<NodeId> {
    // An identity multihash (code 0) holds the encoded public key itself.
    let multihash: &libp2p::multihash::Multihash<64> = peer.as_ref();
    if multihash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(NodeId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The key pair of a secret seed.
pub(crate) fn keypair(key_seed: &[u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(*key_seed).expect("any 32 bytes are an ed25519 secret")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::membership::node_id;

    #[test]
    fn nodes_and_peers_name_each_other() {
        let node = node_id(&[5; 32]);
        let peer = peer_of(&node).unwrap();
        assert_eq!(peer, keypair(&[5; 32]).public().to_peer_id());
        assert_eq!(node_of(&peer), Some(node));
        assert_eq!(node_of(&PeerId::random()), None);
    }

    #[test]
    fn addresses_are_taken_apart_and_strange_ones_refused() {
        let peer = keypair(&[5; 32]).public().to_peer_id();
        let plain: Multiaddr = "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap();
        assert_eq!(parse_address(&format!("{plain}/p2p/{peer}")), Ok((Some(peer), plain.clone())));
        assert_eq!(parse_address(" /dns4/pit.local/tcp/4001 ").unwrap().0, None);
        assert_eq!(with_peer(plain.clone(), peer).to_string(), format!("{plain}/p2p/{peer}"));
        let relayed: Multiaddr = format!("{plain}/p2p/{peer}/p2p-circuit").parse().unwrap();
        assert!(is_usable(&relayed) && is_relayed(&relayed) && !is_relayed(&plain));
        assert_eq!(parse_address(&format!("{relayed}/p2p/{peer}")), Ok((Some(peer), relayed.clone())));
        assert!(!is_usable(&format!("{relayed}/p2p/{peer}/p2p-circuit").parse().unwrap()), "one relay, not two");
        for wrong in ["", "10.0.0.1:4001", "/ip4/10.0.0.1", "/ip4/1.2.3.4/udp/5", "/memory/7", "/ip4/1.2.3.4/tcp/5/ws"]
        {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
        assert!(is_loopback(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()) && !is_loopback(&plain));
    }
}
