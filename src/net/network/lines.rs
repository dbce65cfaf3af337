//! The connections of one peer: which are kept.
//!
//! Invariant: pure; a direct connection takes the place of a relayed one, one connection is enough, and both sides come
//! to the same one. Callers: the loop.

use std::net::IpAddr;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;

/// Connections of one peer that stood within this of each other, one dialed here and one there: both sides dialed at once.
const BOTH_DIALED_MS: u64 = 3_000;

/// The same for two that one side dialed: by two of the other's addresses. Any later it has lost the first one; a process
/// that was killed takes longer to be back.
const ONE_DIALED_MS: u64 = 300;

/// One connection to a peer.
pub(super) struct Line {
    pub(super) id: ConnectionId,
    pub(super) address: Multiaddr,
    /// The address of this machine that it was made from; `None`: unknown.
    pub(super) local: Option<IpAddr>,
    pub(super) relayed: bool,
    /// By this side.
    pub(super) dialed: bool,
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
    let apart = |line: &Line| if line.dialed == new.dialed { ONE_DIALED_MS } else { BOTH_DIALED_MS };
    let at_once = alike.iter().any(|line| new.since_ms <= line.since_ms + apart(line));
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
        let (id, address) = (ConnectionId::new_unchecked(number), Multiaddr::empty());
        Line { id, address, local: None, relayed, dialed: false, since_ms }
    }

    fn closed(old: &[Line], new: &Line, decides: bool) -> Vec<String> {
        spare(old, new, decides).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn of_two_that_dialed_at_once_one_side_keeps_the_first() {
        let old = [line(1, false, 1_000)];
        assert_eq!(closed(&old, &line(2, false, 1_010), true), ["2"]);
        assert_eq!(closed(&old, &Line { dialed: true, ..line(2, false, 3_000) }, true), ["2"]);
        assert!(closed(&old, &line(2, false, 1_010), false).is_empty());
    }

    #[test]
    fn who_dials_again_has_lost_the_older_connection() {
        let old = [line(1, false, 1_000), line(2, false, 1_100)];
        for decides in [true, false] {
            assert_eq!(closed(&old, &line(3, false, 9_000), decides), ["1", "2"]);
            // Killed and started again at once.
            assert_eq!(closed(&old, &line(3, false, 2_000), decides), ["1", "2"]);
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
