//! Whom to dial when: nothing in libp2p reconnects a lost peer.
//!
//! Invariant: pure, bounded in targets, in ways of each and in dials per second; a member that is away is tried every few
//! seconds for ever, a stranger that the gate refuses ever more rarely; when a way out appears, everybody is tried at
//! once, whatever failed before. Callers: net::network.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, PeerId};

use super::rate::{Rate, Used};
use super::reason::Reason;

/// Peers in the table; strangers make room first.
const TARGETS_MAX: usize = 1024;
/// Peers that only a beacon speaks for, and that the gate does not know yet.
const STRANGERS_MAX: usize = 128;
/// Two interfaces with both families make eight.
const WAYS_PER_PEER_MAX: usize = 12;
/// Dials of strangers: what somebody who forges beacons can cause.
const STRANGER_DIALS: Rate = Rate { burst: 5, interval_ms: 200 };
/// Dials of all kinds: a whole cluster within a second when the cable is back.
const ALL_DIALS: Rate = Rate { burst: 20, interval_ms: 50 };
/// A connection shorter than this was no success.
const SHORT_LIVED_MS: u64 = 3_000;
const FIRST_RETRY_MS: u64 = 300;
const RETRY_MS: u64 = 2_000;
const RETRY_MS_MAX: u64 = 10_000;
/// A peer that was connected in this run and is lost since less than this many dials is dialed without a pause: a link
/// that swallows packets gives no sign when it is back.
const LOST_DIALS: u32 = 30;
const LOST_RETRY_MS: u64 = 2_000;
/// While one such dial waits for an answer, the next one begins.
const LOST_OVERLAP_MS: u64 = 4_000;
const STRANGER_RETRY_MS_MAX: u64 = 120_000;
/// A dial of which no result comes is forgotten.
const DIAL_LOST_MS: u64 = 20_000;
/// When everybody is tried at once, the dials are spread over this.
const WAKE_SPREAD_MS: u64 = 500;
/// A beacon hastens the next dial, but not more often than this.
const HINT_MS: u64 = 2_000;
/// A way that never worked is forgotten when nobody has spoken of it for this long.
const HEARSAY_MS: u64 = 600_000;

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
    /// Another member told it, or a member that the gate knows said it in a beacon.
    Told,
    /// Heard in a beacon of somebody that the gate does not know: who knows the cluster's id can write that.
    Found,
}

/// One way to a target, and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) address: Multiaddr,
    pub(crate) source: Source,
    /// When it last led there, wall clock; 0: never.
    pub(crate) reached_ms: u64,
    /// Why the last dial failed.
    pub(crate) failed: Option<Reason>,
    confirmed_ms: u64,
}

#[derive(Debug)]
struct Entry {
    /// Most trusted first, then the newest.
    ways: Vec<Way>,
    next_ms: u64,
    failures: u32,
    /// When it was last dialed.
    dialed_ms: Option<u64>,
    /// The peer is connected (for an address: the peer it led to is).
    connected: Option<PeerId>,
    /// When the connection stood first, and whether it held.
    connected_ms: u64,
    held: bool,
}

/// All targets.
#[derive(Debug)]
pub(crate) struct DialTable {
    own: PeerId,
    targets: BTreeMap<Target, Entry>,
    all: Used,
    strangers: Used,
    jitter: u64,
}

impl DialTable {
    /// `jitter` is any random number.
    pub(crate) fn new(own: PeerId, jitter: u64) -> DialTable {
        let (all, strangers) = Default::default();
        DialTable { own, targets: BTreeMap::new(), all, strangers, jitter: jitter | 1 }
    }

    /// Learns a way to a peer. `true`: it is new.
    pub(crate) fn learn(&mut self, peer: PeerId, address: Multiaddr, source: Source, now_ms: u64) -> bool {
        if peer == self.own {
            return false;
        }
        let Some(entry) = self.entry(Target::Peer(peer), source, now_ms) else { return false };
        let known =
            entry.ways.iter().position(|way| way.address == address).map(|position| entry.ways.remove(position));
        let is_new = known.is_none();
        let mut way = known.unwrap_or(Way { address, source, reached_ms: 0, failed: None, confirmed_ms: now_ms });
        (way.source, way.confirmed_ms) = (way.source.min(source), now_ms);
        let position = entry.ways.iter().position(|other| other.source >= way.source);
        entry.ways.insert(position.unwrap_or(entry.ways.len()), way);
        entry.ways.truncate(WAYS_PER_PEER_MAX);
        if is_new && entry.connected.is_none() {
            // A new way is worth a try at once, whatever failed before.
            entry.next_ms = entry.next_ms.min(now_ms);
        }
        is_new
    }

    /// Learns an address whose peer is not known.
    pub(crate) fn learn_address(&mut self, address: Multiaddr, now_ms: u64) {
        if let Some(entry) = self.entry(Target::Address(address.clone()), Source::Static, now_ms) {
            let way = Way { address, source: Source::Static, reached_ms: 0, failed: None, confirmed_ms: now_ms };
            entry.ways = vec![way];
        }
    }

    /// A way led to its peer at this wall time, now or in a former run.
    pub(crate) fn reached(&mut self, peer: PeerId, address: &Multiaddr, wall_ms: u64) {
        let entry = self.targets.get_mut(&Target::Peer(peer));
        if let Some(way) = entry.and_then(|entry| entry.ways.iter_mut().find(|way| way.address == *address)) {
            (way.reached_ms, way.failed) = (way.reached_ms.max(wall_ms), None);
        }
    }

    /// A peer was heard on the link just now: whatever failed before, it is there.
    pub(crate) fn hint(&mut self, peer: PeerId, now_ms: u64) {
        if let Some(entry) = self.targets.get_mut(&Target::Peer(peer)) {
            let recent = entry.dialed_ms.is_some_and(|dialed_ms| now_ms < dialed_ms + HINT_MS);
            if entry.connected.is_none() && !recent && entry.trust() != Source::Found {
                entry.next_ms = entry.next_ms.min(now_ms);
            }
        }
    }

    /// A way out appeared: everybody who is away is tried now, not in step.
    pub(crate) fn wake(&mut self, now_ms: u64) {
        let mut jitter = self.jitter;
        for entry in self.targets.values_mut().filter(|entry| entry.connected.is_none()) {
            jitter = next_random(jitter);
            (entry.failures, entry.next_ms) = (0, entry.next_ms.min(now_ms + jitter % WAKE_SPREAD_MS));
        }
        self.jitter = jitter;
    }

    /// The dials to make now. Each counts as running until its result is told.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<(Target, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        let mut strangers_may = true;
        loop {
            let may = |entry: &Entry| entry.is_due(now_ms) && (strangers_may || !entry.is_stranger());
            let next = self.targets.iter_mut().filter(|(_, entry)| may(entry));
            let Some((target, entry)) = next.min_by_key(|(_, entry)| (entry.trust(), entry.next_ms)) else { break };
            if entry.is_stranger() && self.strangers.take(STRANGER_DIALS, now_ms).is_err() {
                strangers_may = false;
                continue;
            }
            if self.all.take(ALL_DIALS, now_ms).is_err() {
                break;
            }
            let patience_ms = if entry.is_lost() { LOST_OVERLAP_MS } else { DIAL_LOST_MS };
            (entry.dialed_ms, entry.next_ms) = (Some(now_ms), now_ms + patience_ms);
            due.push((target.clone(), entry.ways.iter().map(|way| way.address.clone()).collect()));
        }
        due
    }

    /// When [`DialTable::due`] may have something again.
    pub(crate) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let waiting = self.targets.values().filter(|entry| entry.connected.is_none() && !entry.ways.is_empty());
        let next = waiting.map(|entry| entry.next_ms).min()?;
        // What is due and was not given out waits for the rate.
        Some(if next <= now_ms { now_ms + ALL_DIALS.interval_ms } else { next })
    }

    /// A connection stands: its peer, and the target that was dialed for it, if it was.
    pub(crate) fn connected(&mut self, peer: PeerId, dialed: Option<&Target>, now_ms: u64) {
        for target in [Some(&Target::Peer(peer)), dialed].into_iter().flatten() {
            if let Some(entry) = self.targets.get_mut(target) {
                if entry.connected.is_none() {
                    entry.connected_ms = now_ms;
                }
                entry.connected = Some(peer);
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
            entry.next_ms = now_ms + FIRST_RETRY_MS + jitter;
            if now_ms.saturating_sub(entry.connected_ms) >= SHORT_LIVED_MS {
                (entry.failures, entry.held) = (0, true);
            } else {
                short_lived.push(target.clone());
            }
        }
        short_lived.iter().for_each(|target| self.failed(target, &[], now_ms));
    }

    /// A dial failed: why, for each address that was tried.
    pub(crate) fn failed(&mut self, target: &Target, reasons: &[(Multiaddr, Reason)], now_ms: u64) {
        let jitter = self.next_jitter(1000);
        let Some(entry) = self.targets.get_mut(target) else { return };
        entry.failures = entry.failures.saturating_add(1);
        for way in &mut entry.ways {
            if let Some((_, reason)) = reasons.iter().find(|(address, _)| *address == way.address) {
                way.failed = Some(reason.clone());
            }
        }
        let doubled = RETRY_MS << (entry.failures - 1).min(8);
        let longest = match (entry.is_stranger(), entry.is_lost()) {
            (true, _) => STRANGER_RETRY_MS_MAX,
            (false, true) => LOST_RETRY_MS,
            (false, false) => RETRY_MS_MAX,
        };
        // Between 0.75 and 1.25 of it: two nodes that lost each other must not stay in step.
        entry.next_ms = now_ms + doubled.min(longest) * (750 + jitter / 2) / 1000;
    }

    /// No dial to a peer before a time.
    pub(crate) fn hold(&mut self, peer: PeerId, until_ms: u64) {
        if let Some(entry) = self.targets.get_mut(&Target::Peer(peer)) {
            entry.next_ms = entry.next_ms.max(until_ms);
        }
    }

    /// Forgets ways that are old hearsay.
    pub(crate) fn forget_hearsay(&mut self, now_ms: u64) {
        self.targets.retain(|_, entry| {
            entry.ways.retain(|way| way.source < Source::Told || now_ms < way.confirmed_ms + HEARSAY_MS);
            !entry.ways.is_empty() || entry.connected.is_some()
        });
    }

    /// The ways to a target, the best first.
    pub(crate) fn ways(&self, target: &Target) -> &[Way] {
        self.targets.get(target).map_or(&[], |entry| &entry.ways)
    }

    /// The peers of the table and the addresses without a peer, whether connected or not.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.keys()
    }

    fn entry(&mut self, target: Target, source: Source, now_ms: u64) -> Option<&mut Entry> {
        if !self.targets.contains_key(&target) {
            let strangers = self.targets.values().filter(|entry| entry.is_stranger()).count();
            if source == Source::Found && strangers >= STRANGERS_MAX {
                return None;
            }
            if self.targets.len() >= TARGETS_MAX {
                let stranger = |(_, entry): &(&Target, &Entry)| entry.is_stranger() && entry.connected.is_none();
                let victim = self.targets.iter().find(stranger).map(|(target, _)| target.clone());
                self.targets.remove(&victim?);
            }
        }
        let (ways, dialed_ms, connected, connected_ms, held, failures) = Default::default();
        let fresh = || Entry { ways, next_ms: now_ms, failures, dialed_ms, connected, connected_ms, held };
        Some(self.targets.entry(target).or_insert_with(fresh))
    }

    /// A number below `limit` (spread matters here, secrecy does not).
    fn next_jitter(&mut self, limit: u64) -> u64 {
        self.jitter = next_random(self.jitter);
        self.jitter % limit
    }
}

/// xorshift.
fn next_random(mut number: u64) -> u64 {
    number ^= number << 13;
    number ^= number >> 7;
    number ^ (number << 17)
}

impl Entry {
    fn is_due(&self, now_ms: u64) -> bool {
        self.connected.is_none() && self.next_ms <= now_ms && !self.ways.is_empty()
    }

    fn trust(&self) -> Source {
        self.ways.first().map_or(Source::Found, |way| way.source)
    }

    /// Was connected, and is away since not long.
    fn is_lost(&self) -> bool {
        self.held && self.failures < LOST_DIALS
    }

    /// Nobody but a beacon speaks for it.
    fn is_stranger(&self) -> bool {
        self.trust() == Source::Found
    }
}

#[cfg(test)]
mod tests;
