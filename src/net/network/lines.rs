//! The connections of one peer: which are kept.
//!
//! Invariant: pure; a direct connection takes the place of a relayed one, one connection is enough, and both sides come
//! to the same one. Callers: the loop.

use std::net::IpAddr;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;

/// Connections of one peer that stood within this of each other: both sides dialed.
const BOTH_DIALED_MS: u64 = 3_000;

/// One connection to a peer.
pub(super) struct Line {
    pub(super) id: ConnectionId,
    pub(super) address: Multiaddr,
    /// The address of this machine that it was made from; `None`: unknown.
    pub(super) local: Option<IpAddr>,
    pub(super) relayed: bool,
    pub(super) since_ms: u64,
}

/// What to close when `new` stands beside the others. `decides`: this side's key is the smaller one.
pub(super) fn spare(old: &[Line], new: &Line, decides: bool) -> Vec<ConnectionId> {
    if new.relayed && old.iter().any(|line| !line.relayed) {
        return vec![new.id];
    }
    let relayed = old.iter().filter(|line| line.relayed && !new.relayed);
    let mut spare: Vec<ConnectionId> = relayed.map(|line| line.id).collect();
    let alike: Vec<&Line> = old.iter().filter(|line| line.relayed == new.relayed).collect();
    // A peer dials when it has lost us: then the older connections lead nowhere. When both dialed at once all are good,
    // and one side decides which stays.
    let at_once = alike.iter().any(|line| new.since_ms <= line.since_ms + BOTH_DIALED_MS);
    match (at_once, decides) {
        (true, true) => spare.push(new.id),
        (true, false) => {}
        (false, _) => spare.extend(alike.iter().map(|line| line.id)),
    }
    spare
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize, relayed: bool, since_ms: u64) -> Line {
        Line { id: ConnectionId::new_unchecked(number), address: Multiaddr::empty(), local: None, relayed, since_ms }
    }

    fn closed(old: &[Line], new: &Line, decides: bool) -> Vec<String> {
        spare(old, new, decides).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn of_two_that_dialed_at_once_one_side_keeps_the_first() {
        let old = [line(1, false, 1_000)];
        assert_eq!(closed(&old, &line(2, false, 1_010), true), ["2"]);
        assert!(closed(&old, &line(2, false, 1_010), false).is_empty());
    }

    #[test]
    fn who_dials_again_has_lost_the_older_connection() {
        let old = [line(1, false, 1_000), line(2, false, 1_100)];
        for decides in [true, false] {
            assert_eq!(closed(&old, &line(3, false, 9_000), decides), ["1", "2"]);
        }
    }

    #[test]
    fn a_direct_connection_takes_the_place_of_a_relayed_one_at_any_time() {
        for (now_ms, decides) in [(1_010, true), (1_010, false), (90_000, true)] {
            assert_eq!(closed(&[line(1, true, 1_000)], &line(2, false, now_ms), decides), ["1"]);
            assert_eq!(closed(&[line(1, false, 1_000)], &line(2, true, now_ms), decides), ["2"]);
        }
    }
}
