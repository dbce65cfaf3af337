//! The machine's network interfaces: which there are, whether a cable or radio carries anything, which addresses they have.
//!
//! Invariant: looks only. libp2p follows addresses but not carrier: a cable that comes back keeps its address, so this is
//! read every second (one system call, about a tenth of a millisecond). Callers: lan, network (for `doctor`).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use serde::Serialize;

/// One interface of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name, like eth0.
    pub name: String,
    /// The system's number for it.
    #[serde(skip)]
    pub index: u32,
    /// Switched on.
    pub up: bool,
    /// Something is at the other end: a cable, a Wi-Fi network.
    pub carrier: bool,
    /// It can carry multicast, which finding needs.
    pub multicast: bool,
    /// The machine itself.
    pub loopback: bool,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Whether other machines may be reached by it.
    pub(crate) fn is_usable(&self) -> bool {
        self.up && self.carrier && !self.loopback && !self.addresses.is_empty()
    }
}

/// All interfaces, by name.
pub(crate) fn read() -> io::Result<Vec<Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs().map_err(io::Error::from)? {
        let flags = entry.flags;
        let interface = found.entry(entry.interface_name).or_default();
        interface.up = flags.contains(InterfaceFlags::IFF_UP);
        interface.carrier = flags.contains(InterfaceFlags::IFF_RUNNING);
        interface.multicast = flags.contains(InterfaceFlags::IFF_MULTICAST);
        interface.loopback = flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(address) = entry.address else { continue };
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(four), _) => IpAddr::V4(four.ip()),
            (_, Some(six)) => IpAddr::V6(six.ip()),
            _ => continue,
        };
        if !interface.addresses.contains(&ip) {
            interface.addresses.push(ip);
        }
    }
    let mut interfaces = Vec::new();
    for (name, mut interface) in found {
        // A port of a bridge (containers bring many) is part of that bridge.
        if Path::new("/sys/class/net").join(&name).join("brport").exists() {
            continue;
        }
        // Gone between two calls: not there.
        if let Ok(index) = if_nametoindex(name.as_str()) {
            (interface.name, interface.index) = (name, index);
            interface.addresses.sort();
            interfaces.push(interface);
        }
    }
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// The address of this machine that packets to a peer start from. Sends nothing.
pub(crate) fn local_ip_towards(address: &Multiaddr) -> Option<IpAddr> {
    let remote = match address.iter().next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let any = if remote.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((remote, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Whether a way out appeared: an interface, a carrier or an address that was not there before. Then it is worth trying
/// everybody at once.
pub(crate) fn has_gained(before: &[Interface], after: &[Interface]) -> bool {
    after.iter().filter(|interface| interface.is_usable()).any(|interface| {
        let old = before.iter().find(|old| old.index == interface.index && old.is_usable());
        old.is_none_or(|old| interface.addresses.iter().any(|address| !old.addresses.contains(address)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cable(carrier: bool, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Interface { name: "eth0".into(), index: 2, up: true, carrier, multicast: true, loopback: false, addresses }
    }

    #[test]
    fn a_way_out_appears_with_carrier_address_or_interface_and_not_when_one_goes() {
        let (plugged, unplugged) = ([cable(true, &["10.0.0.1"])], [cable(false, &["10.0.0.1"])]);
        assert!(has_gained(&unplugged, &plugged) && has_gained(&[], &plugged));
        assert!(!has_gained(&plugged, &unplugged) && !has_gained(&plugged, &plugged) && !has_gained(&plugged, &[]));
        assert!(has_gained(&plugged, &[cable(true, &["10.0.0.1", "fd00::1"])]));
        assert!(has_gained(&plugged, &[cable(true, &["10.0.0.7"])]), "the address changed");
        assert!(!has_gained(&[], &[cable(true, &[])]), "no address yet");
        assert!(!has_gained(&[], &[Interface { loopback: true, ..cable(true, &["127.0.0.1"]) }]));
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let interfaces = read().unwrap();
        assert!(interfaces.iter().any(|interface| interface.loopback), "{interfaces:?}");
        let itself = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(local_ip_towards(&itself), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(local_ip_towards(&"/dns4/pit/tcp/1".parse().unwrap()), None);
    }
}
