//! The local network: watches the interfaces and speaks and hears beacons on each of them.
//!
//! Invariant: one task polls the interfaces and speaks, one small task per interface and family hears; each hears at most
//! a few dozen packets per turn and rests between turns, so a flood fills the kernel's buffer and not this process. What
//! it tells the network is a hint. Callers: network.
//!
//! Measured in network namespaces (2 cores, unoptimised build): a flood of packets of the right size from one machine, 1,000
//! a second, costs 1.6 % of a core; under forged source addresses 5 % at 1,000 a second, 6.5 % at 10,000 and as much at
//! 30,000, where the kernel drops the rest; memory does not move. Two nodes that know nothing of each other but beacons find
//! each other in a flood from one address without limit (`net/tests/discovered.rs`); under forged addresses it was not
//! measured.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::beacon::{BeaconKey, Ear, Heard, PACKET_BYTES, WAYS_MAX, Way};
use super::gate::random;
use super::interfaces::{self, Interface};
use super::network::News;
use crate::model::{ClusterId, NodeId};

/// The groups of mDNS: no switch keeps link-local groups back, whatever it believes about who listens. On a port of our
/// own, so that no mDNS program is disturbed.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const PORT: u16 = 7482;
const POLL: Duration = Duration::from_secs(1);
/// After a start or a change: an interface that just came up loses the first packets.
const FIRST_BEACONS_MS: [u64; 5] = [0, 500, 1_000, 2_000, 4_000];
/// Afterwards, give or take a fifth.
const BEACON_MS: u64 = 10_000;
/// While somebody was lost not long ago: it may be back on the link any moment, and whoever hears the other dials.
const LOST_BEACON_MS: u64 = 2_000;
const LOST: Duration = Duration::from_secs(120);
/// Sockets of all interfaces together.
const CHANNELS_MAX: usize = 32;
/// A turn of hearing, and the rest after it: about 3,000 packets a second and interface.
const PACKETS_PER_TURN: usize = 32;
const REST: Duration = Duration::from_millis(10);
/// Nodes remembered per interface for `doctor`.
const HEARD_MAX: usize = 64;

/// What was heard on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hearing {
    /// Packets of all kinds, this node's own ones too.
    pub(crate) packets: u64,
    /// This node's own packets, come back: the interface carries multicast at least to itself.
    pub(crate) own: u64,
    /// Packets of somebody else: another cluster, a forgery.
    pub(crate) foreign: u64,
    /// Packets that were not looked at: too many at once.
    pub(crate) dropped: u64,
    /// Members heard, and when last.
    pub(crate) members: BTreeMap<NodeId, Instant>,
    /// Why nothing can be sent or heard here.
    pub(crate) failed: Option<String>,
}

/// What the tasks share with the network.
struct Shared {
    ear: Ear,
    interfaces: Vec<Interface>,
    hearing: BTreeMap<String, Hearing>,
}

/// The running tasks; dropping it ends them.
pub(crate) struct Lan {
    shared: Arc<Mutex<Shared>>,
    listening: watch::Sender<Vec<Way>>,
    lost: Arc<Notify>,
    task: AbortHandle,
}

impl Lan {
    /// Starts watching the interfaces, and with `beacons` speaking and hearing.
    pub(crate) fn start(cluster: &ClusterId, own: NodeId, beacons: bool, news: mpsc::Sender<News>) -> Lan {
        let interfaces = interfaces::read().unwrap_or_default();
        let shared = Shared { ear: Ear::new(cluster, own), interfaces, hearing: BTreeMap::new() };
        let shared = Arc::new(Mutex::new(shared));
        let (listening, ways) = watch::channel(Vec::new());
        let lost = Arc::new(Notify::new());
        let voice = Voice {
            key: BeaconKey::new(cluster),
            own,
            shared: shared.clone(),
            ways,
            news,
            channels: BTreeMap::new(),
            lost: lost.clone(),
            lost_until: Instant::now(),
            spoken: 0,
            started: Instant::now(),
        };
        let task = tokio::spawn(voice.run(beacons)).abort_handle();
        Lan { shared, listening, lost, task }
    }

    /// Tells where this node listens now; it is spoken of at once.
    pub(crate) fn listens_on(&self, ways: Vec<Way>) {
        self.listening.send_if_modified(|before| {
            let changed = *before != ways;
            *before = ways;
            changed
        });
    }

    /// A peer was lost: for a while this node speaks more often.
    pub(crate) fn lost_somebody(&self) {
        self.lost.notify_one();
    }

    /// The interfaces, and what was heard on each.
    pub(crate) fn look(&self) -> Vec<(Interface, Hearing)> {
        let shared = lock(&self.shared);
        let hearing = |name: &String| shared.hearing.get(name).cloned().unwrap_or_default();
        shared.interfaces.iter().map(|interface| (interface.clone(), hearing(&interface.name))).collect()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open socket of one interface; dropping it ends its reader.
struct Channel {
    interface: Interface,
    socket: Arc<UdpSocket>,
    group: SocketAddr,
    reader: AbortHandle,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The task that polls and speaks.
struct Voice {
    key: BeaconKey,
    own: NodeId,
    shared: Arc<Mutex<Shared>>,
    ways: watch::Receiver<Vec<Way>>,
    news: mpsc::Sender<News>,
    /// By number of the interface and whether it is IPv6.
    channels: BTreeMap<(u32, bool), Channel>,
    lost: Arc<Notify>,
    lost_until: Instant,
    /// Beacons since the last change.
    spoken: usize,
    started: Instant,
}

impl Voice {
    async fn run(mut self, beacons: bool) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        if beacons {
            self.open_channels();
        }
        loop {
            tokio::select! {
                _ = poll.tick() => {
                    if self.look_at_interfaces() && beacons {
                        self.open_channels();
                        (self.spoken, next) = (0, Instant::now());
                    }
                }
                changed = self.ways.changed() => match changed {
                    Ok(()) => (self.spoken, next) = (0, Instant::now()),
                    Err(_) => return,
                },
                () = self.lost.notified() => {
                    self.lost_until = Instant::now() + LOST;
                    next = next.min(Instant::now() + Duration::from_millis(LOST_BEACON_MS));
                }
                () = tokio::time::sleep_until(next), if beacons => {
                    self.speak();
                    next = Instant::now() + self.pause();
                }
            }
        }
    }

    /// Reads the interfaces; `true`: something changed.
    fn look_at_interfaces(&mut self) -> bool {
        let now = match interfaces::read() {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(%error, "the interfaces cannot be read");
                return false;
            }
        };
        let mut shared = lock(&self.shared);
        shared.hearing.retain(|name, _| now.iter().any(|interface| interface.name == *name));
        let before = std::mem::replace(&mut shared.interfaces, now.clone());
        drop(shared);
        if before == now {
            return false;
        }
        let way_out = interfaces::has_gained(&before, &now);
        if way_out {
            tracing::info!("a way out appeared: everybody is tried now");
        }
        let addresses = now.into_iter().flat_map(|interface| interface.addresses).collect();
        // A full queue means that the network has much to do; it has timers of its own, too.
        let _ = self.news.try_send(News::Interfaces { way_out, addresses });
        true
    }

    /// Opens a socket for every usable interface and family, and closes those of interfaces that changed or went.
    fn open_channels(&mut self) {
        let interfaces = lock(&self.shared).interfaces.clone();
        let usable = |interface: &&Interface| interface.is_usable() && interface.multicast;
        self.channels.retain(|_, channel| interfaces.contains(&channel.interface) && usable(&&channel.interface));
        for interface in interfaces.iter().filter(usable) {
            for v6 in [false, true] {
                let speaks = interface.addresses.iter().any(|ip| ip.is_ipv6() == v6 && !is_link_local_v6(ip));
                let key = (interface.index, v6);
                if !speaks || self.channels.contains_key(&key) || self.channels.len() >= CHANNELS_MAX {
                    continue;
                }
                match self.open(interface, v6) {
                    Ok(channel) => {
                        self.channels.insert(key, channel);
                    }
                    Err(error) => self.note_failure(&interface.name, &error),
                }
            }
        }
    }

    fn open(&self, interface: &Interface, v6: bool) -> io::Result<Channel> {
        let socket = open_socket(interface, v6)?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let group = match v6 {
            false => SocketAddr::from((GROUP_V4, PORT)),
            true => SocketAddrV6::new(GROUP_V6, PORT, 0, interface.index).into(),
        };
        let hearing =
            hear(socket.clone(), interface.name.clone(), self.shared.clone(), self.news.clone(), self.started);
        let reader = tokio::spawn(hearing).abort_handle();
        Ok(Channel { interface: interface.clone(), socket, group, reader })
    }

    fn speak(&mut self) {
        let ways = self.ways.borrow().clone();
        for channel in self.channels.values() {
            let here = |way: &&Way| channel.interface.addresses.contains(&way.ip);
            let of_family = |way: &&Way| way.ip.is_ipv6() == channel.group.is_ipv6();
            let told: Vec<Way> = ways.iter().filter(here).filter(of_family).take(WAYS_MAX).copied().collect();
            let Some(nonce) = random().ok().filter(|_| !told.is_empty()) else { continue };
            let nonce = *nonce.first_chunk().expect("12 of 32 bytes");
            let packet = self.key.seal(&self.own, &told, nonce);
            match channel.socket.try_send_to(&packet, channel.group) {
                // A full buffer loses a packet, as the network may.
                Ok(_) => self.note_success(&channel.interface.name),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => self.note_failure(&channel.interface.name, &error),
            }
        }
        self.spoken += 1;
    }

    fn pause(&self) -> Duration {
        if let Some(next) = FIRST_BEACONS_MS.get(self.spoken) {
            return Duration::from_millis(next - FIRST_BEACONS_MS[self.spoken - 1]);
        }
        let beacon_ms = if Instant::now() < self.lost_until { LOST_BEACON_MS } else { BEACON_MS };
        let dice = random().map_or(0, |bytes| u64::from(bytes[0]));
        Duration::from_millis(beacon_ms * 4 / 5 + beacon_ms * 2 / 5 * dice / 255)
    }

    fn note_success(&self, interface: &str) {
        lock(&self.shared).hearing.entry(interface.into()).or_default().failed = None;
    }

    fn note_failure(&self, interface: &str, error: &io::Error) {
        tracing::debug!(interface, %error, "no beacon there");
        lock(&self.shared).hearing.entry(interface.into()).or_default().failed = Some(error.to_string());
    }
}

fn is_link_local_v6(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// A socket that hears and speaks on this interface only. Bound to the group: packets to this machine's own addresses do
/// not reach it, so nobody beyond the link can flood it.
fn open_socket(interface: &Interface, v6: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes may run on one machine.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if v6 {
        socket.set_only_v6(true)?;
        socket.bind(&SockAddr::from(SocketAddrV6::new(GROUP_V6, PORT, 0, interface.index)))?;
        socket.join_multicast_v6(&GROUP_V6, interface.index)?;
        socket.set_multicast_if_v6(interface.index)?;
        #[cfg(target_os = "linux")]
        socket.set_multicast_all_v6(false)?;
    } else {
        let ip = interface.addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
        let ip = ip.ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(GROUP_V4, PORT)))?;
        socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(interface.index))?;
        socket.set_multicast_if_v4(ip)?;
        #[cfg(target_os = "linux")]
        socket.set_multicast_all_v4(false)?;
    }
    Ok(socket)
}

/// Hears what comes in on one interface.
async fn hear(
    socket: Arc<UdpSocket>,
    interface: String,
    shared: Arc<Mutex<Shared>>,
    news: mpsc::Sender<News>,
    started: Instant,
) {
    // One byte more than a packet: a longer one is seen to be longer.
    let mut buffer = [0; PACKET_BYTES + 1];
    while socket.readable().await.is_ok() {
        for _ in 0..PACKETS_PER_TURN {
            let Ok((bytes, source)) = socket.try_recv_from(&mut buffer) else { break };
            let heard = note(&shared, &interface, &buffer[..bytes], source.ip(), started);
            if let Heard::Member(beacon) = heard {
                // A full queue loses a hint; there will be another.
                let _ = news.try_send(News::Heard(beacon));
            }
        }
        tokio::time::sleep(REST).await;
    }
}

fn note(shared: &Mutex<Shared>, interface: &str, packet: &[u8], source: IpAddr, started: Instant) -> Heard {
    let mut shared = lock(shared);
    let heard = shared.ear.hear(packet, source, started.elapsed().as_millis() as u64);
    let hearing = shared.hearing.entry(interface.into()).or_default();
    hearing.packets += 1;
    match &heard {
        Heard::Member(beacon) => {
            if hearing.members.len() < HEARD_MAX || hearing.members.contains_key(&beacon.node) {
                hearing.members.insert(beacon.node, Instant::now());
            }
        }
        Heard::Own => hearing.own += 1,
        Heard::Foreign => hearing.foreign += 1,
        Heard::TooMany => hearing.dropped += 1,
        Heard::Repeated => {}
    }
    heard
}
