//! A guard around mDNS: finding is cheap to forge, so what it may cost is bounded.
//!
//! Invariant: pure; at most a fixed number of found strangers; a flood of records switches discovery off for a while
//! (libp2p's mDNS alone keeps every forged record and searches them all for each packet). Static and remembered
//! addresses work on. Callers: net::network.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{Multiaddr, PeerId};

use super::key::is_usable;

const STRANGERS_MAX: usize = 128;
const ADDRESSES_PER_PEER_MAX: usize = 4;
/// New records in one window beyond which it is a flood: a venue has dozens of nodes with a few addresses each.
const RECORDS_PER_WINDOW_MAX: u32 = 256;
const WINDOW_MS: u64 = 10_000;
const OFF_MS: u64 = 60_000;
const OFF_MS_MAX: u64 = 600_000;

/// What to do with a found record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Worth a dial.
    Take,
    /// Nothing to do.
    Ignore,
    /// Too many: stop listening until [`Discovery::may_listen`].
    Flood,
}

/// What mDNS found, and whether it may go on.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    found: BTreeMap<PeerId, BTreeSet<Multiaddr>>,
    window_start_ms: u64,
    records_in_window: u32,
    off_until_ms: u64,
    floods: u32,
}

impl Discovery {
    /// Judges one found record. Members are always worth a place, strangers only a bounded number.
    pub(crate) fn found(&mut self, peer: PeerId, address: &Multiaddr, is_member: bool, now_ms: u64) -> Verdict {
        if now_ms.saturating_sub(self.window_start_ms) >= WINDOW_MS {
            self.window_start_ms = now_ms;
            self.records_in_window = 0;
        }
        self.records_in_window += 1;
        if self.records_in_window > RECORDS_PER_WINDOW_MAX {
            self.switch_off(now_ms);
            return Verdict::Flood;
        }
        let room = is_member || self.found.contains_key(&peer) || self.found.len() < STRANGERS_MAX;
        if !room || !is_usable(address) {
            return Verdict::Ignore;
        }
        let addresses = self.found.entry(peer).or_default();
        if addresses.len() >= ADDRESSES_PER_PEER_MAX || !addresses.insert(address.clone()) {
            return Verdict::Ignore;
        }
        Verdict::Take
    }

    /// A record's time is over.
    pub(crate) fn expired(&mut self, peer: PeerId, address: &Multiaddr) {
        if let Some(addresses) = self.found.get_mut(&peer) {
            addresses.remove(address);
            if addresses.is_empty() {
                self.found.remove(&peer);
            }
        }
    }

    /// Whether mDNS may run now.
    pub(crate) fn may_listen(&self, now_ms: u64) -> bool {
        now_ms >= self.off_until_ms
    }

    /// When it may run again.
    pub(crate) fn off_until_ms(&self) -> u64 {
        self.off_until_ms
    }

    /// Each flood in a row keeps it off for twice as long.
    fn switch_off(&mut self, now_ms: u64) {
        let quiet = now_ms.saturating_sub(self.off_until_ms) > OFF_MS_MAX;
        self.floods = if quiet { 1 } else { self.floods + 1 };
        self.off_until_ms = now_ms + (OFF_MS << (self.floods - 1).min(8)).min(OFF_MS_MAX);
        self.found.clear();
        self.records_in_window = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> PeerId {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        super::super::key::keypair(&seed).public().to_peer_id()
    }

    fn address(number: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/udp/{}/quic-v1", 1000 + number).parse().unwrap()
    }

    #[test]
    fn an_ordinary_network_is_found_whole() {
        let mut discovery = Discovery::default();
        for number in 0..30 {
            assert_eq!(discovery.found(peer(number), &address(1), false, 0), Verdict::Take);
            assert_eq!(discovery.found(peer(number), &address(1), false, 0), Verdict::Ignore);
        }
        discovery.expired(peer(3), &address(1));
        assert_eq!(discovery.found(peer(3), &address(1), false, 20_000), Verdict::Take);
        assert!(discovery.may_listen(0));
    }

    #[test]
    fn strangers_are_bounded_and_members_still_come_in() {
        let mut discovery = Discovery::default();
        for number in 0..500u16 {
            let now_ms = u64::from(number) * 1000;
            let expected = if usize::from(number) < STRANGERS_MAX { Verdict::Take } else { Verdict::Ignore };
            assert_eq!(discovery.found(peer(number), &address(1), false, now_ms), expected, "{number}");
        }
        assert_eq!(discovery.found(peer(999), &address(1), true, 500_000), Verdict::Take);
        let more = (2..20).filter(|n| discovery.found(peer(999), &address(*n), true, 600_000) == Verdict::Take);
        assert_eq!(more.count(), ADDRESSES_PER_PEER_MAX - 1);
        assert_eq!(discovery.found(peer(1), &"/memory/5".parse().unwrap(), false, 700_000), Verdict::Ignore);
    }

    #[test]
    fn a_flood_switches_discovery_off_for_longer_each_time() {
        let mut discovery = Discovery::default();
        let mut now_ms = 1_000_000;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let flood = |number: &u16| discovery.found(peer(*number), &address(1), false, now_ms) == Verdict::Flood;
            assert_eq!((0..1000).find(flood), Some(RECORDS_PER_WINDOW_MAX as u16));
            assert!(!discovery.may_listen(now_ms) && discovery.found.is_empty());
            pauses.push(discovery.off_until_ms() - now_ms);
            now_ms = discovery.off_until_ms();
            assert!(discovery.may_listen(now_ms));
        }
        assert_eq!(pauses, [60_000, 120_000, 240_000, 480_000, 600_000, 600_000]);
    }
}
