//! The doorbell: how `litemesh join --lan` finds a node that lets in without a code just now.
//!
//! The joiner asks by multicast; a node answers to the asker alone, with its key and its ports, and only while a person
//! trusts the local network. Invariant: outside of that time no socket of this exists; an answer is a hint, the gate
//! decides; there are at most ten a second, hardly longer than what is asked, so nobody is flooded with them. The group is
//! one that no router forwards. Callers: network (answers), join_lan (asks).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use socket2::{Domain, InterfaceIndexOrAddress, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::interfaces;
use super::key::{peer_of, with_peer};
use crate::model::NodeId;

/// The group of mDNS, which no switch keeps back, on a port of our own.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 7_483;
const RING: &[u8] = b"litemesh 1 ring\0";
const DOOR: &[u8] = b"litemesh 1 door\0";
/// Behind the word: key, TCP port, QUIC port.
const ANSWER_BYTES: usize = DOOR.len() + 32 + 4;
/// Pause after each answer: ten a second at most.
const PAUSE: Duration = Duration::from_millis(100);
/// The joiner asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(700);

/// Answers for so long. `listening`: where the node listens.
pub(crate) async fn answer(own: NodeId, listening: Vec<Multiaddr>, for_ms: u64) {
    let until = Instant::now() + Duration::from_millis(for_ms);
    let socket = match open() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "joiners cannot look for this node on the local network; an address works: join --lan --peer");
            return;
        }
    };
    let answer = words(&own, &listening);
    let mut bytes = [0; 64];
    while let Ok(heard) = tokio::time::timeout_at(until, socket.recv_from(&mut bytes)).await {
        if let Ok((length, from)) = heard
            && bytes[..length] == *RING
        {
            // Lost: the joiner asks again.
            let _ = socket.send_to(&answer, from).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The addresses of nodes that answer, each as it comes, until nobody takes them any more.
pub(crate) async fn ask(found: tokio::sync::mpsc::Sender<Multiaddr>) -> io::Result<()> {
    let mut sockets = Vec::new();
    for ip in speaking()? {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(ip, 0)))?;
        socket.set_multicast_if_v4(&ip)?;
        sockets.push(UdpSocket::from_std(socket.into())?);
    }
    let mut bytes = [0; 64];
    loop {
        for socket in &sockets {
            // An interface that went away is no reason to stop.
            let _ = socket.send_to(RING, SocketAddr::from((GROUP, PORT))).await;
        }
        tokio::time::sleep(ASK_AGAIN).await;
        for socket in &sockets {
            while let Ok((length, from)) = socket.try_recv_from(&mut bytes) {
                for address in read(&bytes[..length], from.ip()) {
                    if found.send(address).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // Several nodes may run on one machine.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(GROUP, PORT)))?;
    for interface in interfaces::read()?.iter().filter(|interface| interface.is_usable() && interface.multicast) {
        if interface.addresses.iter().any(IpAddr::is_ipv4) {
            // One interface that refuses leaves the others.
            let _ = socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(interface.index));
        }
    }
    UdpSocket::from_std(socket.into())
}

/// One address of each interface that carries multicast.
fn speaking() -> io::Result<Vec<Ipv4Addr>> {
    let of = |interface: &interfaces::Interface| {
        interface.addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None })
    };
    let usable = |interface: &&interfaces::Interface| interface.is_usable() && interface.multicast;
    Ok(interfaces::read()?.iter().filter(usable).filter_map(of).collect())
}

fn words(own: &NodeId, listening: &[Multiaddr]) -> Vec<u8> {
    let port = |quic: bool| {
        let port = |address: &Multiaddr| match address.iter().nth(1)? {
            Protocol::Tcp(port) if !quic => Some(port),
            Protocol::Udp(port) if quic => Some(port),
            _ => None,
        };
        listening.iter().find_map(port).unwrap_or(0)
    };
    [DOOR, &own.0, &port(false).to_be_bytes(), &port(true).to_be_bytes()].concat()
}

/// The addresses of an answer; nothing for whatever else came.
fn read(bytes: &[u8], from: IpAddr) -> Vec<Multiaddr> {
    let parse = || -> Option<(PeerId, [u16; 2])> {
        let rest = bytes.strip_prefix(DOOR).filter(|_| bytes.len() == ANSWER_BYTES)?;
        let peer = peer_of(&NodeId(*rest.first_chunk()?))?;
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        Some((peer, [port(32), port(34)]))
    };
    let Some((peer, [tcp, quic])) = parse() else { return Vec::new() };
    let host = Multiaddr::from(from);
    let mut addresses = Vec::new();
    if quic > 0 {
        addresses.push(with_peer(host.clone().with(Protocol::Udp(quic)).with(Protocol::QuicV1), peer));
    }
    if tcp > 0 {
        addresses.push(with_peer(host.with(Protocol::Tcp(tcp)), peer));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::membership::node_id;

    #[test]
    fn an_answer_names_key_and_ports_and_anything_else_nothing() {
        let own = node_id(&[5; 32]);
        let listening = ["/ip4/0.0.0.0/tcp/4001".parse().unwrap(), "/ip4/10.0.0.7/udp/4002/quic-v1".parse().unwrap()];
        let answer = words(&own, &listening);
        let peer = peer_of(&own).unwrap();
        let told = read(&answer, IpAddr::from([10, 0, 0, 9]));
        let expected =
            [format!("/ip4/10.0.0.9/udp/4002/quic-v1/p2p/{peer}"), format!("/ip4/10.0.0.9/tcp/4001/p2p/{peer}")];
        assert_eq!(told.iter().map(Multiaddr::to_string).collect::<Vec<_>>(), expected);
        for cut in 0..answer.len() {
            assert!(read(&answer[..cut], IpAddr::from([10, 0, 0, 9])).is_empty());
        }
        assert!(read(RING, IpAddr::from([10, 0, 0, 9])).is_empty());
    }
}
