//! Floor L1: the hybrid logical clock, pure.
//!
//! Stamps are 48 bits of milliseconds and a 16-bit counter (Kulkarni et al. 2014). States: the last stamp given and the
//! correction in force. Invariants: stamps given out strictly increase, across restarts too (the caller passes the last
//! durable stamp); a remote stamp more than [`AHEAD_MS_MAX`] ahead of the corrected wall clock is never absorbed, so one
//! bad clock cannot poison others; a machine whose clock is unset (before [`UNSET_BEFORE_MS`]) goes on from the last
//! durable stamp. Written by hand because `uhlc` refuses events from bad clocks (that would be loss), takes its time from
//! a global, and cannot be persisted. Caller: node.

use crate::model::{Bug, Stamp, planted};

/// A remote stamp further ahead than this is stored and applied but not absorbed, in ms.
pub const AHEAD_MS_MAX: u64 = 60_000;

/// A skew against the median of two or more peers beyond this is corrected, in ms.
pub const SKEW_MS_MAX: i64 = 60_000;

/// A wall clock before this (2025-01-01) was never set: a board without a battery.
pub const UNSET_BEFORE_MS: u64 = 1_735_689_600_000;

/// The clock of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HybridClock {
    last: Stamp,
    offset_ms: i64,
}

impl HybridClock {
    /// A clock that goes on behind `last`, the greatest stamp this node made durable or absorbed.
    pub fn resume(last: Stamp) -> HybridClock {
        HybridClock { last, offset_ms: 0 }
    }

    /// The greatest stamp given out or absorbed.
    pub fn last(&self) -> Stamp {
        self.last
    }

    /// The correction in force, ms added to the machine's clock.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The machine's time with the correction, ms since 1970. A clock that was never set reads as the last stamp.
    pub fn corrected_ms(&self, wall_ms: u64) -> u64 {
        if wall_ms < UNSET_BEFORE_MS && self.offset_ms == 0 {
            crate::sometimes!("clock: one that was never set goes on from the last stamp");
            return self.last.wall_ms().max(wall_ms);
        }
        wall_ms.saturating_add_signed(self.offset_ms)
    }

    /// A new stamp for something written at `written_ms` by this machine's clock (never later than `wall_ms`, now).
    pub fn stamp(&mut self, written_ms: u64, wall_ms: u64) -> Stamp {
        let physical = Stamp::from_wall_ms(self.corrected_ms(written_ms.min(wall_ms)));
        self.last = if planted(Bug::ClockGoesBack) { physical } else { self.last.next().max(physical) };
        self.last
    }

    /// Takes over a remote stamp unless it is too far ahead. Returns whether it was taken.
    pub fn absorb(&mut self, remote: Stamp, wall_ms: u64) -> bool {
        let ahead = remote.wall_ms() > self.corrected_ms(wall_ms).saturating_add(AHEAD_MS_MAX);
        crate::sometimes!(ahead, "clock: a stamp too far ahead is not absorbed");
        if ahead && !planted(Bug::FutureAbsorbed) {
            return false;
        }
        self.last = self.last.max(remote);
        true
    }

    /// Sets the correction from the peers' clocks: their time minus ours, ms, one per reachable peer. Two peers at least
    /// must agree (the median decides) that this machine is wrong by more than [`SKEW_MS_MAX`]. Returns the correction.
    pub fn correct(&mut self, skews_ms: &[i64]) -> i64 {
        if skews_ms.len() >= 2 {
            let mut sorted = skews_ms.to_vec();
            sorted.sort_unstable();
            // The smaller of the middle two: with two peers both must be far off, on the same side.
            let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
            let median =
                if low.signum() == high.signum() && low.unsigned_abs() > high.unsigned_abs() { high } else { low };
            let agreed = low.signum() == high.signum();
            self.offset_ms = if agreed && median.abs() > SKEW_MS_MAX { median } else { 0 };
        }
        self.offset_ms
    }
}

/// A peer's clock minus ours, ms. Total: a peer may say any time.
pub fn skew_ms(theirs_ms: u64, ours_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(theirs_ms) - signed(ours_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello that said "1970" or "the end of time" overflowed the difference.
    #[test]
    fn any_time_of_a_peer_has_a_skew() {
        assert_eq!(skew_ms(NOON + 7, NOON), 7);
        assert_eq!(skew_ms(0, NOON), -(NOON as i64));
        let ends = [(u64::MAX, NOON), (1 << 63, 0), (0, u64::MAX), (u64::MAX, u64::MAX)];
        let skews = ends.map(|(theirs, ours)| skew_ms(theirs, ours));
        assert_eq!(skews, [i64::MAX - NOON as i64, i64::MAX, -i64::MAX, 0]);
        let mut clock = HybridClock::resume(Stamp(0));
        for (a, b) in [(skews[0], skews[1]), (skews[2], skews[2])] {
            clock.correct(&[a, b]);
            clock.stamp(NOON, NOON);
        }
    }

    const NOON: u64 = 1_800_000_000_000;

    #[test]
    fn stamps_increase_when_the_clock_jumps_back() {
        let mut clock = HybridClock::resume(Stamp(0));
        let first = clock.stamp(NOON, NOON);
        let second = clock.stamp(NOON - 86_400_000, NOON - 86_400_000);
        assert!(second > first);
        assert_eq!(first.wall_ms(), NOON);
    }

    #[test]
    fn a_peer_a_year_ahead_is_not_absorbed() {
        let mut clock = HybridClock::resume(Stamp(0));
        clock.stamp(NOON, NOON);
        assert!(!clock.absorb(Stamp::from_wall_ms(NOON + 31_536_000_000), NOON));
        assert!(clock.stamp(NOON, NOON).wall_ms() <= NOON + 1);
        assert!(clock.absorb(Stamp::from_wall_ms(NOON + 1_000), NOON));
        assert!(clock.stamp(NOON, NOON) > Stamp::from_wall_ms(NOON + 1_000));
    }

    #[test]
    fn an_unset_clock_goes_on_from_the_last_stamp() {
        let mut clock = HybridClock::resume(Stamp::from_wall_ms(NOON));
        assert_eq!(clock.stamp(5, 5).wall_ms(), NOON);
    }

    #[test]
    fn two_peers_correct_a_wrong_clock_one_does_not() {
        let mut clock = HybridClock::resume(Stamp(0));
        assert_eq!(clock.correct(&[400_000]), 0);
        assert_eq!(clock.correct(&[400_000, 3]), 0);
        assert_eq!(clock.correct(&[400_000, 399_000]), 399_000);
        assert_eq!(clock.stamp(NOON, NOON).wall_ms(), NOON + 399_000);
        assert_eq!(clock.correct(&[10, -10, 400_000]), 0);
    }

    #[test]
    fn writes_made_while_the_node_was_down_carry_their_time() {
        let mut clock = HybridClock::resume(Stamp(0));
        assert_eq!(clock.stamp(NOON - 3_600_000, NOON).wall_ms(), NOON - 3_600_000);
    }
}
