//! Whom to dial when: nothing in libp2p reconnects a lost peer.
//!
//! Invariant: pure, bounded in targets and in dials per second; a member that is away is tried every few seconds for
//! ever, a stranger that the gate refuses ever more rarely. Callers: net::network.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, PeerId};

/// Peers in the table; strangers make room first.
const TARGETS_MAX: usize = 1024;
const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Dials per second, of all kinds.
const DIALS_PER_SECOND: u64 = 5;
/// A connection shorter than this was no success.
const SHORT_LIVED_MS: u64 = 3_000;
const FIRST_RETRY_MS: u64 = 300;
const RETRY_MS: u64 = 2_000;
const RETRY_MS_MAX: u64 = 10_000;
const STRANGER_RETRY_MS_MAX: u64 = 120_000;
/// A dial of which no result comes is forgotten.
const DIAL_LOST_MS: u64 = 20_000;

/// What is dialed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A peer, by any of its addresses.
    Peer(PeerId),
    /// An address from the settings that names no key.
    Address(Multiaddr),
}

/// Where an address comes from, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A person gave it.
    Static,
    /// It worked before, or the peer itself told it over an admitted connection.
    Known,
    /// Seen in mDNS: anybody can write that.
    Found,
}

#[derive(Debug)]
struct Entry {
    /// Most trusted first, then the newest.
    addresses: Vec<(Source, Multiaddr)>,
    next_ms: u64,
    failures: u32,
    dialing: bool,
    /// The peer is connected (for an address: the peer it led to is).
    connected: Option<PeerId>,
    connected_ms: u64,
}

/// All targets.
#[derive(Debug)]
pub(crate) struct DialTable {
    own: PeerId,
    targets: BTreeMap<Target, Entry>,
    /// No dial before this: the rate limit.
    free_ms: u64,
    jitter: u64,
}

impl DialTable {
    /// `jitter` is any random number.
    pub(crate) fn new(own: PeerId, jitter: u64) -> DialTable {
        DialTable { own, targets: BTreeMap::new(), free_ms: 0, jitter: jitter | 1 }
    }

    /// Learns a way to a peer. `true`: it is new.
    pub(crate) fn learn(&mut self, peer: PeerId, address: Multiaddr, source: Source, now_ms: u64) -> bool {
        if peer == self.own {
            return false;
        }
        let Some(entry) = self.entry(Target::Peer(peer), source, now_ms) else { return false };
        let known = entry.addresses.iter().position(|(_, known)| *known == address);
        let trusted = known.map_or(source, |position| entry.addresses.remove(position).0.min(source));
        let position = entry.addresses.iter().position(|(other, _)| *other >= trusted);
        entry.addresses.insert(position.unwrap_or(entry.addresses.len()), (trusted, address));
        entry.addresses.truncate(ADDRESSES_PER_PEER_MAX);
        if known.is_none() && entry.connected.is_none() && !entry.dialing {
            // A new way is worth a try at once, whatever failed before.
            entry.next_ms = entry.next_ms.min(now_ms);
        }
        known.is_none()
    }

    /// Learns an address whose peer is not known.
    pub(crate) fn learn_address(&mut self, address: Multiaddr, now_ms: u64) {
        if let Some(entry) = self.entry(Target::Address(address.clone()), Source::Static, now_ms) {
            entry.addresses = vec![(Source::Static, address)];
        }
    }

    /// Forgets what mDNS no longer confirms.
    pub(crate) fn forget_found(&mut self, peer: PeerId, address: &Multiaddr) {
        let target = Target::Peer(peer);
        if let Some(entry) = self.targets.get_mut(&target) {
            entry.addresses.retain(|(source, known)| *source != Source::Found || known != address);
            if entry.addresses.is_empty() && entry.connected.is_none() {
                self.targets.remove(&target);
            }
        }
    }

    /// The dials to make now. Each counts as running until its result is told.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<(Target, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        while self.free_ms <= now_ms {
            let next = self.targets.iter_mut().filter(|(_, entry)| entry.is_due(now_ms));
            let Some((target, entry)) = next.min_by_key(|(_, entry)| (entry.trust(), entry.next_ms)) else { break };
            entry.dialing = true;
            entry.next_ms = now_ms + DIAL_LOST_MS;
            due.push((target.clone(), entry.addresses.iter().map(|(_, address)| address.clone()).collect()));
            // Up to a second's worth may go at once after a quiet time.
            self.free_ms = self.free_ms.max(now_ms.saturating_sub(1000)) + 1000 / DIALS_PER_SECOND;
        }
        due
    }

    /// When [`DialTable::due`] may have something again.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let waiting = self.targets.values().filter(|entry| entry.connected.is_none() && !entry.addresses.is_empty());
        waiting.map(|entry| entry.next_ms.max(self.free_ms)).min()
    }

    /// A connection stands: its peer, and the target that was dialed for it, if it was.
    pub(crate) fn connected(&mut self, peer: PeerId, dialed: Option<&Target>, now_ms: u64) {
        for target in [Some(&Target::Peer(peer)), dialed].into_iter().flatten() {
            if let Some(entry) = self.targets.get_mut(target) {
                if entry.connected.is_none() {
                    entry.connected_ms = now_ms;
                }
                entry.connected = Some(peer);
                entry.dialing = false;
            }
        }
    }

    /// The last connection to a peer is gone: try again soon, not all at the same moment. A connection that fell at
    /// once counts as a failed dial, or two sides that disagree would connect without end.
    pub(crate) fn disconnected(&mut self, peer: PeerId, now_ms: u64) {
        let jitter = self.next_jitter(FIRST_RETRY_MS);
        let mut short_lived = Vec::new();
        for (target, entry) in self.targets.iter_mut().filter(|(_, entry)| entry.connected == Some(peer)) {
            entry.connected = None;
            entry.dialing = false;
            entry.next_ms = now_ms + FIRST_RETRY_MS + jitter;
            if now_ms.saturating_sub(entry.connected_ms) >= SHORT_LIVED_MS {
                entry.failures = 0;
            } else {
                short_lived.push(target.clone());
            }
        }
        short_lived.iter().for_each(|target| self.failed(target, now_ms));
    }

    /// A dial failed.
    pub(crate) fn failed(&mut self, target: &Target, now_ms: u64) {
        let jitter = self.next_jitter(1000);
        let Some(entry) = self.targets.get_mut(target) else { return };
        entry.dialing = false;
        entry.failures = entry.failures.saturating_add(1);
        let doubled = RETRY_MS << (entry.failures - 1).min(8);
        let longest = if entry.trust() == Source::Found { STRANGER_RETRY_MS_MAX } else { RETRY_MS_MAX };
        // Between 0.75 and 1.25 of it: two nodes that lost each other must not stay in step.
        entry.next_ms = now_ms + doubled.min(longest) * (750 + jitter / 2) / 1000;
    }

    /// No dial to a peer before a time.
    pub(crate) fn hold(&mut self, peer: PeerId, until_ms: u64) {
        if let Some(entry) = self.targets.get_mut(&Target::Peer(peer)) {
            entry.next_ms = entry.next_ms.max(until_ms);
        }
    }

    /// The addresses of a peer.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let entry = self.targets.get(&Target::Peer(*peer));
        entry.map(|entry| entry.addresses.iter().map(|(_, address)| address.clone()).collect()).unwrap_or_default()
    }

    fn entry(&mut self, target: Target, source: Source, now_ms: u64) -> Option<&mut Entry> {
        if !self.targets.contains_key(&target) && self.targets.len() >= TARGETS_MAX {
            let stranger = |(_, entry): &(&Target, &Entry)| entry.trust() == Source::Found && entry.connected.is_none();
            let victim = self.targets.iter().find(stranger).map(|(target, _)| target.clone());
            if source == Source::Found || victim.is_none() {
                return None;
            }
            self.targets.remove(&victim?);
        }
        let fresh = || Entry {
            addresses: Vec::new(),
            next_ms: now_ms,
            failures: 0,
            dialing: false,
            connected: None,
            connected_ms: 0,
        };
        Some(self.targets.entry(target).or_insert_with(fresh))
    }

    /// A number below `limit` (xorshift: spread matters here, secrecy does not).
    fn next_jitter(&mut self, limit: u64) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.jitter % limit
    }
}

impl Entry {
    fn is_due(&self, now_ms: u64) -> bool {
        self.connected.is_none() && self.next_ms <= now_ms && !self.addresses.is_empty()
    }

    fn trust(&self) -> Source {
        self.addresses.first().map_or(Source::Found, |(source, _)| *source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        super::super::key::keypair(&[number; 32]).public().to_peer_id()
    }

    fn address(number: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{}", 1000 + number).parse().unwrap()
    }

    fn table() -> DialTable {
        DialTable::new(peer(0), 42)
    }

    #[test]
    fn a_lost_peer_is_dialed_again_and_again_but_not_in_step() {
        let mut table = table();
        table.learn(peer(1), address(1), Source::Known, 0);
        let target = Target::Peer(peer(1));
        assert_eq!(table.due(0), [(target.clone(), vec![address(1)])]);
        assert!(table.due(5000).is_empty(), "one dial at a time");
        table.connected(peer(1), Some(&target), 0);
        assert!(table.due(100_000).is_empty() && table.next_ms().is_none());
        table.disconnected(peer(1), 100_000);
        let mut now = 100_000;
        let mut waits = Vec::new();
        for _ in 0..20 {
            let next = table.next_ms().unwrap();
            waits.push(next - now);
            now = next;
            assert_eq!(table.due(now).len(), 1);
            table.failed(&target, now);
        }
        assert!(waits[0] < 1000 && waits[1] < 3000, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= RETRY_MS_MAX * 5 / 4), "{waits:?}");
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
    }

    #[test]
    fn a_connection_that_falls_at_once_is_a_failure() {
        let mut table = table();
        table.learn(peer(1), address(1), Source::Static, 0);
        let mut now_ms = 0;
        for _ in 0..6 {
            assert_eq!(table.due(now_ms).len(), 1);
            table.connected(peer(1), None, now_ms);
            table.disconnected(peer(1), now_ms + 10);
            now_ms = table.next_ms().unwrap();
        }
        assert!(now_ms > 25_000, "{now_ms}");
    }

    #[test]
    fn a_dial_without_a_result_is_forgotten() {
        let mut table = table();
        table.learn(peer(1), address(1), Source::Known, 0);
        assert_eq!(table.due(0).len(), 1);
        assert_eq!(table.due(DIAL_LOST_MS).len(), 1);
    }

    #[test]
    fn strangers_wait_longer_and_give_way() {
        let mut table = table();
        for number in 10..200 {
            table.learn(peer(number), address(u16::from(number)), Source::Found, 0);
        }
        table.learn(peer(1), address(1), Source::Known, 0);
        assert_eq!(table.due(0)[0].0, Target::Peer(peer(1)), "a known peer goes first");
        let dials: usize = (0..100).map(|step| table.due(step * 100).len()).sum();
        assert!(dials <= 10 * DIALS_PER_SECOND as usize + 5, "{dials} dials in 10 s");
        let stranger = Target::Peer(peer(10));
        (0..12).for_each(|_| table.failed(&stranger, 0));
        assert!(table.targets[&stranger].next_ms > 80_000);
    }

    #[test]
    fn the_table_is_bounded_and_the_trusted_come_in_last() {
        let mut table = table();
        for number in 0..TARGETS_MAX as u16 {
            let mut seed = [9; 32];
            seed[..2].copy_from_slice(&number.to_be_bytes());
            let peer = super::super::key::keypair(&seed).public().to_peer_id();
            table.learn(peer, address(number), Source::Found, 0);
        }
        assert!(!table.learn(peer(1), address(1), Source::Found, 0));
        assert!(table.learn(peer(1), address(1), Source::Known, 0));
        assert_eq!(table.targets.len(), TARGETS_MAX);
        for number in 0..20 {
            table.learn(peer(1), address(number), Source::Known, 0);
        }
        assert_eq!(table.addresses(&peer(1)).len(), ADDRESSES_PER_PEER_MAX);
        assert_eq!(table.addresses(&peer(1))[0], address(19), "the newest first");
        assert!(!table.learn(peer(0), address(1), Source::Static, 0), "never itself");
    }

    #[test]
    fn an_address_without_a_key_rests_while_its_peer_is_here() {
        let mut table = table();
        table.learn_address(address(5), 0);
        let target = Target::Address(address(5));
        assert_eq!(table.due(0), [(target.clone(), vec![address(5)])]);
        table.connected(peer(3), Some(&target), 0);
        assert!(table.due(60_000).is_empty());
        table.disconnected(peer(3), 60_000);
        assert_eq!(table.due(61_000).len(), 1);
    }

    #[test]
    fn what_mdns_loses_is_forgotten_and_what_a_person_gave_is_kept() {
        let mut table = table();
        table.learn(peer(1), address(1), Source::Found, 0);
        table.learn(peer(2), address(2), Source::Static, 0);
        table.learn(peer(2), address(2), Source::Found, 0);
        table.forget_found(peer(1), &address(1));
        table.forget_found(peer(2), &address(2));
        assert_eq!(table.targets.len(), 1);
        assert_eq!(table.addresses(&peer(2)), [address(2)]);
        table.hold(peer(2), 500);
        assert!(table.due(499).is_empty());
        assert_eq!(table.due(500).len(), 1);
    }
}
