//! Which TCP connections still carry anything: the time of the last answered ping of each. QUIC watches itself.
//!
//! Invariant: pure, one entry per connection. libp2p's ping never closes a connection, its first failure is silent and the
//! second comes 16 s after the link died; a TCP connection over a dead link would otherwise live for minutes and, when the
//! link is back, wait for its own doubled timers. Callers: net::network.

use std::collections::BTreeMap;

use libp2p::swarm::ConnectionId;

/// A connection without an answer for this long is dead: two pings and the timeout of the second.
pub(crate) const DEAD_MS: u64 = 13_000;
/// When a way out has appeared, a connection that was silent for this long is not waited for.
pub(crate) const SUSPECT_MS: u64 = 6_500;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    answered_ms: BTreeMap<ConnectionId, u64>,
}

impl Liveness {
    /// A connection stands, and does not notice by itself when it is dead.
    pub(crate) fn answered(&mut self, connection: ConnectionId, now_ms: u64) {
        self.answered_ms.insert(connection, now_ms);
    }

    /// A ping was answered; of connections that are not watched here nothing is noted.
    pub(crate) fn answered_again(&mut self, connection: ConnectionId, now_ms: u64) {
        if let Some(answered_ms) = self.answered_ms.get_mut(&connection) {
            *answered_ms = now_ms;
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.answered_ms.remove(&connection);
    }

    /// The connections that were silent for this long. Each is given once: closing it is the caller's part.
    pub(crate) fn take_silent(&mut self, silent_ms: u64, now_ms: u64) -> Vec<ConnectionId> {
        let mut silent = Vec::new();
        self.answered_ms.retain(|connection, answered_ms| {
            let alive = now_ms.saturating_sub(*answered_ms) < silent_ms;
            if !alive {
                silent.push(*connection);
            }
            alive
        });
        silent
    }

    /// When the next one is dead if it stays silent.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.answered_ms.values().min().map(|answered_ms| answered_ms + DEAD_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_is_dead_once_and_an_answering_one_never() {
        let connection = ConnectionId::new_unchecked;
        let mut liveness = Liveness::default();
        assert_eq!(liveness.next_ms(), None);
        liveness.answered(connection(1), 0);
        liveness.answered(connection(2), 0);
        liveness.answered(connection(3), 0);
        liveness.closed(connection(3));
        for second in 1..60 {
            liveness.answered_again(connection(2), second * 1000);
            liveness.answered_again(connection(9), second * 1000);
            let dead = liveness.take_silent(DEAD_MS, second * 1000);
            assert_eq!(dead.is_empty(), second * 1000 != DEAD_MS, "{second}");
        }
        assert_eq!(liveness.next_ms(), Some(59_000 + DEAD_MS));
        assert_eq!(liveness.take_silent(SUSPECT_MS, 59_000 + SUSPECT_MS), [connection(2)]);
    }
}
