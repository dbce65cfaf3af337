//! The beacon: one small sealed packet by multicast, by which members on one link find each other.
//!
//! Invariant: pure; only who knows the cluster's id can make or open a beacon, to everybody else it is 140 random bytes;
//! what a packet from anywhere costs is bounded before any cryptography, and a replayed one says nothing new. A beacon
//! gives a hint whom to dial and never lets anybody in. Callers: lan.
//!
//! It took the place of libp2p's mDNS, which tells every listener the node's key and addresses, keeps every forged record
//! and searches them all for each packet: under 1,000 forged packets/s it had to be switched off, and then found nobody.
//!
//! A packet is: nonce (12 bytes, random), then under ChaCha20-Poly1305 with the cluster's beacon key: the node's key (32),
//! the number of ways, the ways (flags, IP, port), zeros up to a fixed length.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::rate::{Rate, Used};
use crate::model::{ClusterId, NodeId};

/// Ways in one packet; each interface tells its own.
pub(crate) const WAYS_MAX: usize = 4;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WAY_BYTES: usize = 1 + 16 + 2;
const PLAIN_BYTES: usize = 32 + 1 + WAYS_MAX * WAY_BYTES + 3;
/// Every packet has this length.
pub(crate) const PACKET_BYTES: usize = NONCE_BYTES + PLAIN_BYTES + TAG_BYTES;

/// Several nodes may run on one machine.
const PER_SOURCE: Rate = Rate { burst: 32, interval_ms: 50 };
/// At about two microseconds each: less than half a percent of a core.
const ALL: Rate = Rate { burst: 1_000, interval_ms: 1 };
const SOURCES_MAX: usize = 256;
/// Nonces remembered, so that a recorded packet is not news again and again.
const REPEATS_MAX: usize = 512;

/// One way to dial a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) quic: bool,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beacon {
    pub(crate) node: NodeId,
    pub(crate) ways: Vec<Way>,
}

/// What a packet turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Another member of this cluster.
    Member(Beacon),
    /// This node's own packet, come back: multicast works on this interface.
    Own,
    /// A packet that was heard before.
    Repeated,
    /// Somebody else's: another cluster, another program, a forgery.
    Foreign,
    /// Not looked at: too many at once.
    TooMany,
}

/// Makes this cluster's beacons and recognises them.
pub(crate) struct BeaconKey(ChaCha20Poly1305);

/// Listens: who may be heard, how often.
pub(crate) struct Ear {
    key: BeaconKey,
    own: NodeId,
    all: Used,
    by_source: BTreeMap<IpAddr, Used>,
    repeats: VecDeque<[u8; NONCE_BYTES]>,
}

impl Way {
    /// The way in a listener's address; `None` for what nobody else can dial: names, loopback, link-local IPv6 (libp2p's
    /// transports have no scope).
    pub(crate) fn of(address: &Multiaddr) -> Option<Way> {
        let mut parts = address.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        let (port, quic) = match (parts.next()?, parts.next(), parts.next()) {
            (Protocol::Tcp(port), None, None) => (port, false),
            (Protocol::Udp(port), Some(Protocol::QuicV1), None) => (port, true),
            _ => return None,
        };
        let way = Way { ip, port, quic };
        way.is_dialable().then_some(way)
    }

    /// As libp2p writes it.
    pub(crate) fn address(&self) -> Multiaddr {
        let host = Multiaddr::empty().with(self.ip.into());
        match self.quic {
            true => host.with(Protocol::Udp(self.port)).with(Protocol::QuicV1),
            false => host.with(Protocol::Tcp(self.port)),
        }
    }

    fn is_dialable(&self) -> bool {
        let scoped = matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        self.port > 0 && !scoped && !self.ip.is_loopback() && !self.ip.is_unspecified() && !self.ip.is_multicast()
    }

    fn write(&self, plain: &mut Vec<u8>) {
        plain.push(u8::from(self.quic) | u8::from(self.ip.is_ipv6()) << 1);
        match self.ip {
            IpAddr::V4(ip) => {
                plain.extend(ip.octets());
                plain.extend([0; 12]);
            }
            IpAddr::V6(ip) => plain.extend(ip.octets()),
        }
        plain.extend(self.port.to_be_bytes());
    }

    fn read(bytes: &[u8; WAY_BYTES]) -> Option<Way> {
        let (flags, host, port) = (bytes[0], &bytes[1..17], u16::from_be_bytes([bytes[17], bytes[18]]));
        let ip = match flags & 2 {
            0 => IpAddr::V4(Ipv4Addr::from(*host.first_chunk::<4>()?)),
            _ => IpAddr::V6(Ipv6Addr::from(*host.first_chunk::<16>()?)),
        };
        let way = Way { ip, port, quic: flags & 1 == 1 };
        (flags < 4 && way.is_dialable()).then_some(way)
    }
}

impl BeaconKey {
    pub(crate) fn new(cluster: &ClusterId) -> BeaconKey {
        BeaconKey(ChaCha20Poly1305::new(&blake3::derive_key("litemesh 1 beacon", &cluster.0).into()))
    }

    /// The packet of a node; beyond the first few, ways are left out. The nonce is random and never used again.
    pub(crate) fn seal(&self, node: &NodeId, ways: &[Way], nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let ways = &ways[..ways.len().min(WAYS_MAX)];
        let mut plain = Vec::with_capacity(PLAIN_BYTES);
        plain.extend(node.0);
        plain.push(ways.len() as u8);
        ways.iter().for_each(|way| way.write(&mut plain));
        plain.resize(PLAIN_BYTES, 0);
        let sealed = self.0.encrypt(&Nonce::from(nonce), &plain[..]).expect("a short text can always be sealed");
        [&nonce[..], &sealed].concat()
    }

    fn open(&self, packet: &[u8; PACKET_BYTES]) -> Option<Beacon> {
        let (nonce, sealed) = packet.split_first_chunk::<NONCE_BYTES>()?;
        let plain = self.0.decrypt(&Nonce::from(*nonce), sealed).ok()?;
        let (node, rest) = plain.split_first_chunk::<32>()?;
        let (count, rest) = rest.split_first()?;
        let ways = rest.as_chunks::<WAY_BYTES>().0.iter().take(usize::from(*count).min(WAYS_MAX));
        Some(Beacon { node: NodeId(*node), ways: ways.filter_map(Way::read).collect() })
    }
}

impl Ear {
    pub(crate) fn new(cluster: &ClusterId, own: NodeId) -> Ear {
        Ear {
            key: BeaconKey::new(cluster),
            own,
            all: Used::default(),
            by_source: BTreeMap::new(),
            repeats: VecDeque::new(),
        }
    }

    /// Judges a packet: length, rates, seal, repetition, in this order.
    pub(crate) fn hear(&mut self, packet: &[u8], source: IpAddr, now_ms: u64) -> Heard {
        let Ok(packet) = <&[u8; PACKET_BYTES]>::try_from(packet) else { return Heard::Foreign };
        if !self.may_look(source, now_ms) {
            return Heard::TooMany;
        }
        let Some(beacon) = self.key.open(packet) else { return Heard::Foreign };
        if beacon.node == self.own {
            return Heard::Own;
        }
        let nonce = packet.first_chunk::<NONCE_BYTES>().expect("a packet is longer");
        // One packet comes in on several interfaces of a machine, too.
        if self.repeats.contains(nonce) {
            return Heard::Repeated;
        }
        if self.repeats.len() >= REPEATS_MAX {
            self.repeats.pop_front();
        }
        self.repeats.push_back(*nonce);
        Heard::Member(beacon)
    }

    fn may_look(&mut self, source: IpAddr, now_ms: u64) -> bool {
        if self.by_source.len() >= SOURCES_MAX && !self.by_source.contains_key(&source) {
            self.by_source.retain(|_, used| !used.is_idle(now_ms));
        }
        // So many sources at once are a flood: the common rate bounds it.
        let has_place = self.by_source.len() < SOURCES_MAX || self.by_source.contains_key(&source);
        if has_place && self.by_source.entry(source).or_default().take(PER_SOURCE, now_ms).is_err() {
            return false;
        }
        self.all.take(ALL, now_ms).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 32]);
    const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn nonce(number: u64) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        nonce
    }

    fn way(text: &str) -> Option<Way> {
        Way::of(&text.parse().unwrap())
    }

    fn ways() -> Vec<Way> {
        ["/ip4/10.0.0.9/udp/7481/quic-v1", "/ip4/10.0.0.9/tcp/7481", "/ip6/fd00::9/tcp/1"]
            .map(|it| way(it).unwrap())
            .into()
    }

    fn packet(number: u64) -> Vec<u8> {
        BeaconKey::new(&CLUSTER).seal(&NodeId([2; 32]), &ways(), nonce(number))
    }

    #[test]
    fn members_understand_it_and_to_others_it_is_noise() {
        let mut ear = Ear::new(&CLUSTER, NodeId([1; 32]));
        let expected = Beacon { node: NodeId([2; 32]), ways: ways() };
        assert_eq!(packet(1).len(), PACKET_BYTES);
        assert_eq!(ear.hear(&packet(1), LAN, 0), Heard::Member(expected.clone()));
        assert_eq!(ear.hear(&packet(1), LAN, 60_000), Heard::Repeated, "a recorded packet");
        assert_eq!(ear.hear(&packet(2), LAN, 60_000), Heard::Member(expected));
        assert_eq!(Ear::new(&CLUSTER, NodeId([2; 32])).hear(&packet(3), LAN, 0), Heard::Own);
        assert_eq!(Ear::new(&ClusterId([8; 32]), NodeId([1; 32])).hear(&packet(3), LAN, 0), Heard::Foreign);
        // Neither the node's key nor an address is in it, and two packets of one node have nothing in common.
        let (one, two) = (packet(4), packet(5));
        assert!(!one.windows(4).any(|bytes| bytes == [2; 4] || bytes == [10, 0, 0, 9]));
        assert!(one.iter().zip(&two).skip(NONCE_BYTES).filter(|(a, b)| a == b).count() < 10);
    }

    #[test]
    fn every_damaged_or_cut_packet_is_foreign() {
        let whole = packet(1);
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            let mut ear = Ear::new(&CLUSTER, NodeId([1; 32]));
            assert_eq!(ear.hear(&damaged, LAN, 0), Heard::Foreign, "byte {position}");
            assert_eq!(ear.hear(&whole[..position], LAN, 0), Heard::Foreign);
        }
        assert_eq!(Ear::new(&CLUSTER, NodeId([1; 32])).hear(&[whole, vec![0]].concat(), LAN, 0), Heard::Foreign);
    }

    #[test]
    fn only_what_can_be_dialed_is_told_and_believed() {
        for wrong in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/dns4/pit/tcp/1",
            "/ip4/10.0.0.1/udp/1",
            "/ip4/10.0.0.1/tcp/0",
            "/ip4/224.0.0.1/tcp/1",
        ] {
            assert_eq!(way(wrong), None, "{wrong}");
        }
        let address: Multiaddr = "/ip6/fd00::1/udp/5/quic-v1".parse().unwrap();
        assert_eq!(Way::of(&address).unwrap().address(), address);
        // A member may lie: what it says goes through the same sieve.
        let liar = Way { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 22, quic: false };
        let packet = BeaconKey::new(&CLUSTER).seal(&NodeId([2; 32]), &[liar, ways()[1]], nonce(1));
        let heard = Ear::new(&CLUSTER, NodeId([1; 32])).hear(&packet, LAN, 0);
        assert_eq!(heard, Heard::Member(Beacon { node: NodeId([2; 32]), ways: vec![ways()[1]] }));
        let many = [ways(), ways()].concat();
        let packet = BeaconKey::new(&CLUSTER).seal(&NodeId([2; 32]), &many, nonce(1));
        assert_eq!(packet.len(), PACKET_BYTES);
    }

    #[test]
    fn a_flood_from_one_machine_leaves_the_others_heard() {
        let mut ear = Ear::new(&CLUSTER, NodeId([1; 32]));
        let flooder = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 66));
        let forged = [0x55; PACKET_BYTES];
        let mut looked = 0;
        for number in 0..10_000u64 {
            looked += u32::from(ear.hear(&forged, flooder, number) != Heard::TooMany);
            if number % 1000 == 0 {
                assert!(matches!(ear.hear(&packet(number), LAN, number), Heard::Member(_)), "{number}");
            }
        }
        assert!((200..=240).contains(&looked), "{looked} of 10,000 in 10 s");
    }

    #[test]
    fn a_flood_under_forged_addresses_is_bounded_and_at_a_thousand_a_second_nobody_is_missed() {
        let mut ear = Ear::new(&CLUSTER, NodeId([1; 32]));
        let forged = [0x55; PACKET_BYTES];
        let source = |number: u64| IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + number as u32));
        for number in 0..20_000u64 {
            assert_eq!(ear.hear(&forged, source(number), number * 11 / 10), Heard::Foreign);
            if number % 100 == 0 {
                assert!(matches!(ear.hear(&packet(number), LAN, number * 11 / 10), Heard::Member(_)));
            }
        }
        let looked = (0..100_000u64).filter(|n| ear.hear(&forged, source(*n), 100_000 + n / 100) != Heard::TooMany);
        assert!(looked.count() <= 2_100, "100,000 packets in one second");
        assert!(ear.by_source.len() <= SOURCES_MAX && ear.repeats.len() <= REPEATS_MAX);
    }
}
