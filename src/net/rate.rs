//! A rate with a burst, as one number.
//!
//! Invariant: pure, no memory beyond the number, never blocks. Callers: strangers, beacon.

/// At most `burst` at once, and one more each interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u64,
    pub(crate) interval_ms: u64,
}

/// When a rate's whole burst is available again: the further ahead, the more of it is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used(u64);

/// The rate is used up. Nothing changed; a moment later there is room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many at once")]
pub(crate) struct TooMany;

impl Used {
    /// Uses one up.
    pub(crate) fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), TooMany> {
        let next = self.0.max(now_ms) + rate.interval_ms;
        if next - now_ms > rate.burst * rate.interval_ms {
            return Err(TooMany);
        }
        self.0 = next;
        Ok(())
    }

    /// Whether nothing of it is used.
    pub(crate) fn is_idle(self, now_ms: u64) -> bool {
        self.0 <= now_ms
    }
}
