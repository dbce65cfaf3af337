//! The loop of the network: swarm, effects, commands and timers, one at a time.
//!
//! Invariant: a peer is told to the node once, with its first connection, and taken back with its last; inputs keep
//! their order. While the node cannot take inputs the swarm is not polled further. Callers: net::run.

mod doctor;
mod finding;
mod lines;
mod relays;
mod reports;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, Swarm, gossipsub};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::beacon::Beacon;
use super::behaviour::{Protocols, Report, topic};
use super::dial::{DialTable, Source, Target};
use super::door::{Door, open_queue};
use super::gate::{Gate, random};
use super::interfaces::local_ip_towards;
use super::key::{check_free, is_any_v6, is_relayed, keypair, node_of, parse_address, peer_of, split_peer, tcp_socket};
use super::lan::Lan;
use super::link::{FRAMES, Link};
use super::liveness::{DEAD_MS, Liveness};
use super::pings::watches_itself;
use super::reason::{reasons, words};
use super::transport::gated_transport;
use super::wan;
use super::ways::{HEARD_AT_ONCE_MAX, WAYS};
use super::{Channels, NetCommand, NetError, NetSettings};
use crate::model::NodeId;
use crate::node::membership::{Membership, node_id};
use crate::node::view::KnownAddress;
use crate::node::{Effect, Input};
use crate::wire::limits::ANNOUNCEMENT_BYTES_MAX;
use crate::wire::ways::WaysTo;
use lines::{Line, spare};
use relays::Relay;

/// Inputs of the loop itself that wait for the node; announcements are dropped at half of it.
const PENDING_INPUTS_MAX: usize = 256;
const BAN_MS: u64 = 600_000;
const BANS_MAX: usize = 256;
const FAILURES_MAX: usize = 64;
const EARLY_STREAMS_MAX: usize = 16;
const ADDRESSES_TOLD_MAX: usize = 12;
const GOODBYE: Duration = Duration::from_millis(500);
/// Only gossip and open streams keep a connection otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// An address like 0.0.0.0 is reported once per interface.
const INTERFACES_SETTLE: Duration = Duration::from_millis(50);

/// What the tasks around the loop tell it.
pub(crate) enum News {
    /// A peer broke the rules of framing.
    Fault { peer: NodeId, reason: String },
    /// The gate has the node's newest membership.
    MembershipRenewed,
    /// What the node remembered of former runs.
    Known(Vec<KnownAddress>),
    /// A beacon of another member.
    Heard(Beacon),
    /// The interfaces changed: whether a carrier or an address appeared, and all addresses there are now.
    Interfaces { way_out: bool, addresses: BTreeSet<IpAddr> },
    /// What a peer told of the ways to others.
    Ways { peer: NodeId, ways: Vec<WaysTo> },
}

struct Peer {
    peer: PeerId,
    /// Of the connection that carries the link, the first of the list.
    address: Multiaddr,
    link: Link,
    connections: Vec<Line>,
    /// When a direct way beside a relayed one was last tried.
    upgraded_ms: u64,
}

/// The network of one node.
pub(crate) struct Network {
    swarm: Swarm<Protocols>,
    control: libp2p_stream::Control,
    incoming: libp2p_stream::IncomingStreams,
    topic: gossipsub::IdentTopic,
    own: PeerId,
    started: Instant,
    door: Arc<dyn Door>,
    gate: Arc<Gate>,
    inputs: mpsc::Sender<Input>,
    /// Inputs of the loop, in order, until the queue has room.
    pending: VecDeque<Input>,
    news: mpsc::Sender<News>,
    news_received: mpsc::Receiver<News>,
    peers: BTreeMap<NodeId, Peer>,
    /// Streams that overtook the report of their connection.
    early: Vec<(PeerId, Stream)>,
    dials: DialTable,
    dialing: BTreeMap<ConnectionId, (Target, Vec<Multiaddr>)>,
    failures: BTreeMap<String, String>,
    lan: Lan,
    beacons: bool,
    /// Answers joiners without a code, while the local network is trusted.
    doorbell: Option<tokio::task::AbortHandle>,
    liveness: Liveness,
    /// Streams on which peers tell ways.
    telling: libp2p_stream::IncomingStreams,
    /// What each connected peer was told, or told us.
    told: BTreeMap<NodeId, BTreeSet<(NodeId, Multiaddr)>>,
    tell_at_ms: Option<u64>,
    wan: bool,
    relays: Vec<Relay>,
    /// Places for peers that tell.
    hearing: Arc<Semaphore>,
    /// Ways that the node was told of in this run, and the time that it knows.
    remembered: BTreeMap<(NodeId, Multiaddr), u64>,
    /// When and from where each peer was last connected, wall clock.
    seen: BTreeMap<NodeId, (u64, Multiaddr)>,
    bans: BTreeMap<NodeId, u64>,
    /// Listeners that have not told an address yet.
    listeners: Vec<ListenerId>,
    ready_at: Option<Instant>,
}

/// A copy of the node's membership. `None`: the node has stopped.
pub(crate) async fn ask_membership(door: &Arc<dyn Door>) -> Option<Membership> {
    // A busy node drops the question: ask again for a while.
    for _ in 0..100 {
        if let Ok(membership) = door.membership().await {
            return Some(membership);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

impl Network {
    /// Listens on all addresses of the settings.
    pub(crate) fn start(
        settings: &NetSettings,
        door: Arc<dyn Door>,
        membership: Membership,
    ) -> Result<Network, NetError> {
        let keypair = keypair(&settings.key_seed);
        let own = keypair.public().to_peer_id();
        let topic = topic(&membership.cluster());
        let gate = Arc::new(Gate::new(node_id(&settings.key_seed), membership, door.clone()));
        let config = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(16)
            .with_smart_dial();
        let (relayed, wan) = settings.wan.then(|| wan::open(own)).unzip();
        let transport = gated_transport(&keypair, gate.clone(), relayed)?;
        let mut swarm = Swarm::new(transport, Protocols::new(&keypair, wan)?, own, config);
        let mut control = swarm.behaviour().frames.new_control();
        let incoming = control.accept(FRAMES).expect("nobody accepted this protocol before");
        swarm.behaviour_mut().gossip.subscribe(&topic).expect("one topic is within the limits");
        let seed = random().map_err(|_| NetError::NoRandomness)?;
        let (news, news_received) = mpsc::channel(64);
        let telling = control.accept(WAYS).expect("nobody accepted this protocol before");
        let lan = Lan::start(&gate.cluster(), node_id(&settings.key_seed), settings.mdns, news.clone());
        let mut network = Network {
            dials: DialTable::new(own, u64::from_be_bytes(*seed.first_chunk().expect("8 of 32 bytes"))),
            inputs: open_queue(door.clone()),
            started: Instant::now(),
            pending: VecDeque::new(),
            peers: BTreeMap::new(),
            early: Vec::new(),
            dialing: BTreeMap::new(),
            failures: BTreeMap::new(),
            lan,
            beacons: settings.mdns,
            liveness: Liveness::default(),
            telling,
            told: BTreeMap::new(),
            tell_at_ms: None,
            wan: settings.wan,
            relays: Vec::new(),
            hearing: Arc::new(Semaphore::new(HEARD_AT_ONCE_MAX)),
            remembered: BTreeMap::new(),
            seen: BTreeMap::new(),
            bans: BTreeMap::new(),
            doorbell: None,
            listeners: Vec::new(),
            ready_at: None,
            swarm,
            control,
            incoming,
            topic,
            own,
            door,
            gate,
            news,
            news_received,
        };
        settings.listen.iter().try_for_each(|address| network.listen(address))?;
        settings.peers.iter().try_for_each(|address| network.add_static(address))?;
        settings.relays.iter().filter(|_| settings.wan).try_for_each(|address| network.add_relay(address))?;
        network.ask_known_addresses();
        Ok(network)
    }

    /// The loop.
    pub(crate) async fn run(mut self, mut channels: Channels) -> Result<(), NetError> {
        if self.listeners.is_empty() {
            self.ready_at = Some(Instant::now());
        }
        let inputs = self.inputs.clone();
        loop {
            self.run_timers(&mut channels);
            let wake = self.next_wake();
            tokio::select! {
                _ = channels.shutdown.wait_for(|stop| *stop) => break,
                event = self.swarm.select_next_some(), if self.pending.len() < PENDING_INPUTS_MAX => {
                    self.handle_swarm(event)?;
                }
                permit = inputs.reserve(), if !self.pending.is_empty() => {
                    if let (Ok(permit), Some(input)) = (permit, self.pending.pop_front()) {
                        permit.send(input);
                    }
                }
                Some(effect) = channels.effects.recv() => self.handle_effect(effect),
                Some(command) = channels.control.recv() => self.handle_command(command),
                Some((peer, stream)) = self.incoming.next() => self.handle_stream(peer, stream),
                Some((peer, stream)) = self.telling.next() => self.hear_ways(peer, stream),
                Some(news) = self.news_received.recv() => self.handle_news(news),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.say_goodbye().await;
        Ok(())
    }

    /// Without it, QUIC peers would notice after their idle timeout only.
    async fn say_goodbye(mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = tokio::time::timeout(GOODBYE, async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        })
        .await;
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn listen(&mut self, address: &str) -> Result<(), NetError> {
        let (_, parsed) = parse_address(address)?;
        let failed =
            |error: &dyn std::error::Error| NetError::Listen { address: address.to_string(), reason: words(error) };
        // libp2p shares a TCP port with whoever listens there already, and each would get half of the connections.
        let free = tcp_socket(&parsed).map_or(Ok(()), check_free);
        let listening = free.map_err(TransportError::Other).and_then(|()| self.swarm.listen_on(parsed.clone()));
        match listening {
            Ok(listener) => self.listeners.push(listener),
            // The defaults name both families; a machine may have one.
            Err(TransportError::Other(error)) if is_any_v6(&parsed) && error.kind() != io::ErrorKind::AddrInUse => {
                tracing::warn!(address, %error, "not listened on: this machine has no IPv6");
            }
            Err(error) => return Err(failed(&error)),
        }
        Ok(())
    }

    fn add_static(&mut self, address: &str) -> Result<(), NetError> {
        let now_ms = self.now_ms();
        match parse_address(address)? {
            (Some(peer), address) => {
                self.dials.learn(peer, address, Source::Static, now_ms);
            }
            (None, address) => self.dials.learn_address(address, now_ms),
        }
        Ok(())
    }

    fn ask_known_addresses(&self) {
        let (door, news) = (self.door.clone(), self.news.clone());
        tokio::spawn(async move {
            if let Ok(addresses) = door.known_addresses().await {
                let _ = news.send(News::Known(addresses)).await;
            }
        });
    }

    fn next_wake(&self) -> Instant {
        let next_ban = self.bans.values().min().copied();
        let dials = self.dials.next_ms(self.now_ms());
        let next_ms = [dials, next_ban, self.liveness.next_ms(), self.tell_at_ms, self.next_reservation_ms()];
        let next_ms = next_ms.into_iter().flatten().min();
        let timer = next_ms.map(|ms| self.started + Duration::from_millis(ms));
        let latest = Instant::now() + Duration::from_secs(60);
        [timer, self.ready_at].into_iter().flatten().min().unwrap_or(latest)
    }

    fn run_timers(&mut self, channels: &mut Channels) {
        let now_ms = self.now_ms();
        if self.ready_at.is_some_and(|at| at <= Instant::now()) {
            self.ready_at = None;
            if let Some(ready) = channels.ready.take() {
                let _ = ready.send(self.listening());
            }
        }
        self.bans.retain(|node, until_ms| {
            let holds = *until_ms > now_ms;
            if !holds {
                self.gate.unban(node);
            }
            holds
        });
        self.close_silent(DEAD_MS);
        self.tell_ways_when_due();
        self.reserve_where_due();
        self.dials.forget_hearsay(now_ms);
        for (target, addresses) in self.dials.due(now_ms) {
            self.dial(target, addresses);
        }
    }

    fn dial(&mut self, target: Target, addresses: Vec<Multiaddr>) {
        let options = match (&target, addresses.first()) {
            // A dial that is on its way may have begun before the cable was back: it does not stand in the way.
            (Target::Peer(peer), _) => {
                DialOpts::peer_id(*peer).condition(PeerCondition::Disconnected).addresses(addresses.clone()).build()
            }
            (Target::Address(_), Some(address)) => DialOpts::unknown_peer_id().address(address.clone()).build(),
            (Target::Address(_), None) => return,
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dialing.insert(connection, (target, addresses));
            }
            Err(error) => self.dial_failed(&target, &reasons(&error, &addresses), words(&error)),
        }
    }

    fn handle_swarm(&mut self, event: SwarmEvent<Report>) -> Result<(), NetError> {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let dialed = endpoint.is_dialer();
                if !watches_itself(endpoint.get_remote_address()) {
                    self.liveness.answered(connection_id, self.now_ms());
                }
                // Who is called over a relay knows the relay's address only.
                let address = match &endpoint {
                    ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => local_addr,
                    _ => endpoint.get_remote_address(),
                };
                self.connected(peer_id, connection_id, address.clone(), dialed);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.closed(peer_id, connection_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some((target, addresses)) = self.dialing.remove(&connection_id) {
                    self.dial_failed(&target, &reasons(&error, &addresses), words(&error));
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening");
                self.speak_of_listeners();
                if self.wan && !is_relayed(&address) {
                    // What a relay tells those who wait for calls at it.
                    self.swarm.add_external_address(address.clone());
                }
                self.listeners.retain(|listener| *listener != listener_id);
                if self.listeners.is_empty() {
                    self.ready_at.get_or_insert(Instant::now() + INTERFACES_SETTLE);
                }
            }
            SwarmEvent::ExpiredListenAddr { .. } => self.speak_of_listeners(),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.speak_of_listeners();
                let reason = reason.err().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
                if self.lost_reservation(listener_id, &words(&reason)) {
                    return Ok(());
                }
                tracing::warn!(?addresses, %reason, "no longer listening");
                if self.listeners.contains(&listener_id) {
                    let address = addresses.first().map(Multiaddr::to_string).unwrap_or_default();
                    return Err(NetError::Listen { address, reason: reason.to_string() });
                }
            }
            SwarmEvent::Behaviour(report) => self.handle_report(report),
            // Refusals at the gate are logged there; everything else needs no action.
            _ => {}
        }
        Ok(())
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId, address: Multiaddr, dialed: bool) {
        let target = self.dialing.remove(&connection).map(|(target, _)| target);
        let (_, address) = split_peer(address);
        // The gate let it in; it may have been shut out since.
        let Some(node) = node_of(&peer).filter(|node| self.gate.is_open_to(node)) else {
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        if dialed && !self.peers.contains_key(&node) {
            self.tell_dialed(&peer, None);
        }
        self.note_reached(node, peer, &address, dialed);
        self.dials.connected(peer, target.as_ref(), self.now_ms());
        self.failures.remove(&node.to_string());
        let (relayed, since_ms) = (is_relayed(&address), self.now_ms());
        let local = local_ip_towards(&address);
        let line = Line { id: connection, local, address, relayed, dialed, since_ms };
        match self.peers.get_mut(&node) {
            Some(known) => {
                let spare = spare(&known.connections, &line, self.gate.own() < node);
                known.connections.push(line);
                for id in spare {
                    self.swarm.close_connection(id);
                }
            }
            None => self.link(node, peer, vec![line]),
        }
    }

    /// Opens the link to a peer over its first connection, and tells the node.
    fn link(&mut self, node: NodeId, peer: PeerId, connections: Vec<Line>) {
        let Some(address) = connections.first().map(|line| line.address.clone()) else { return };
        let link = Link::open(node, peer, self.control.clone());
        self.pending.push_back(Input::PeerConnected { peer: node, address: address.to_string() });
        self.peers.insert(node, Peer { peer, address, link, connections, upgraded_ms: 0 });
        self.tell_soon();
        for (early, stream) in std::mem::take(&mut self.early) {
            self.handle_stream(early, stream);
        }
    }

    /// A connection is gone. When others are left the peer begins anew over those: a stream may have been on any of them,
    /// and what was on its way is lost.
    fn closed(&mut self, peer: PeerId, connection: ConnectionId, left: u32) {
        self.liveness.closed(connection);
        if left == 0 {
            return self.disconnected(peer);
        }
        let Some((node, mut known)) = node_of(&peer).and_then(|node| Some((node, self.peers.remove(&node)?))) else {
            return;
        };
        known.connections.retain(|line| line.id != connection);
        self.pending.push_back(Input::PeerDisconnected { peer: node });
        self.told.remove(&node);
        self.link(node, peer, known.connections);
    }

    fn disconnected(&mut self, peer: PeerId) {
        self.dials.disconnected(peer, self.now_ms());
        self.early.retain(|(early, _)| *early != peer);
        // Dropping the link ends its readers first: nothing of the peer comes behind this input.
        if let Some((node, known)) = node_of(&peer).and_then(|node| Some((node, self.peers.remove(&node)?))) {
            self.told.remove(&node);
            self.lan.lost_somebody();
            self.seen.insert(node, (wall_ms(), known.address));
            self.pending.push_back(Input::PeerDisconnected { peer: node });
        }
    }

    fn handle_stream(&mut self, peer: PeerId, stream: Stream) {
        match node_of(&peer).and_then(|node| self.peers.get_mut(&node)) {
            Some(known) => known.link.read(stream, self.inputs.clone(), self.news.clone()),
            None if self.early.len() < EARLY_STREAMS_MAX => self.early.push((peer, stream)),
            None => {}
        }
    }

    fn handle_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { peer, frame } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.link.send(frame);
                }
            }
            Effect::Announce { frame } if frame.len() <= ANNOUNCEMENT_BYTES_MAX => {
                // Nobody to tell is no fault: whoever connects gets the heads anyway.
                if let Err(error) = self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), frame) {
                    tracing::trace!(%error, "announcement not sent");
                }
            }
            Effect::Announce { frame } => tracing::warn!(bytes = frame.len(), "announcement too large, not sent"),
            Effect::MembersChanged => self.renew_membership(),
            Effect::LanTrusted(for_ms) => self.open_door(for_ms),
            Effect::PeerFault { peer, reason } => self.ban(&peer, &reason),
            Effect::Reopened => {
                let told = |(node, peer): (&NodeId, &Peer)| Input::PeerConnected {
                    peer: *node,
                    address: peer.address.to_string(),
                };
                self.pending.extend(self.peers.iter().map(told));
            }
            Effect::Applied(_) => {}
        }
    }

    /// Answers the doorbell for a while.
    fn open_door(&mut self, for_ms: u64) {
        self.doorbell.take().inspect(tokio::task::AbortHandle::abort);
        let Some(own) = node_of(&self.own).filter(|_| for_ms > 0) else { return };
        let answering = super::doorbell::answer(own, self.swarm.listeners().cloned().collect(), for_ms);
        self.doorbell = Some(tokio::spawn(answering).abort_handle());
    }

    fn renew_membership(&self) {
        let (door, gate, news) = (self.door.clone(), self.gate.clone(), self.news.clone());
        tokio::spawn(async move {
            if let Some(membership) = ask_membership(&door).await {
                gate.renew(membership);
                let _ = news.send(News::MembershipRenewed).await;
            }
        });
    }

    fn handle_news(&mut self, news: News) {
        match news {
            News::Fault { peer, reason } => self.ban(&peer, &reason),
            News::MembershipRenewed => {
                let out = self.peers.iter().filter(|(node, _)| !self.gate.is_open_to(node));
                for peer in out.map(|(_, known)| known.peer).collect::<Vec<_>>() {
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            News::Known(addresses) => self.recall(addresses),
            News::Heard(beacon) => self.handle_beacon(&beacon),
            News::Interfaces { way_out, addresses } => self.handle_interfaces(way_out, &addresses),
            News::Ways { peer, ways } => self.handle_ways(peer, ways),
        }
    }

    fn ban(&mut self, node: &NodeId, reason: &str) {
        let Some(peer) = peer_of(node) else { return };
        tracing::warn!(peer = %node, reason, "a peer broke the protocol: shut out for ten minutes");
        let until_ms = self.now_ms() + BAN_MS;
        if self.bans.len() >= BANS_MAX {
            let oldest = self.bans.iter().min_by_key(|(_, until)| **until).map(|(node, _)| *node);
            if let Some(oldest) = oldest.filter(|oldest| self.bans.remove(oldest).is_some()) {
                self.gate.unban(&oldest);
            }
        }
        self.bans.insert(*node, until_ms);
        self.gate.ban(*node);
        self.dials.hold(peer, until_ms);
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn handle_command(&mut self, command: NetCommand) {
        match command {
            NetCommand::Dial(text) => match parse_address(&text) {
                Ok((Some(peer), address)) => self.dial(Target::Peer(peer), vec![address]),
                Ok((None, address)) => self.dial(Target::Address(address.clone()), vec![address]),
                Err(error) => tracing::warn!(%error, "not dialed"),
            },
            NetCommand::AddPeer(text) => match self.add_static(&text) {
                Ok(()) => {
                    let named = parse_address(&text).ok().and_then(|(peer, _)| node_of(&peer?));
                    let peer = named.map(|node| node.to_string()).unwrap_or_default();
                    self.door.remember(KnownAddress { peer, address: text, reached_ms: 0 });
                }
                Err(error) => tracing::warn!(%error, "peer not added"),
            },
            NetCommand::Diagnose(answer) => {
                let _ = answer.send(self.diagnose());
            }
        }
    }
}

/// The time of day, for what people read and what is remembered across restarts.
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
