//! Bandwidth and quiet hours: when bulk may travel.
//!
//! A token bucket on the node's clock: what is sent and received fills it down, time fills it up; bulk goes while it is above
//! zero. Small fresh changes always go and are only counted. In quiet hours (local time, told by the daemon) bulk waits.
//! Invariant: never asks a clock; without settings it allows everything. Callers: [`super`], node's orders and getters.

use crate::node::{Effect, Now};
use crate::wire::limits::PUSH_BYTES_MAX;

/// Bulk that may go at once after a pause: this part of a second's worth.
const BURST_PARTS: u64 = 4;

/// Who asks in quiet hours asks again after this at the latest, ms.
const QUIET_WAIT_MS: u64 = 60_000;

/// How much may travel, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaceSettings {
    /// Bytes per second, in and out together. 0: no limit.
    pub bandwidth: u64,
    /// Spans of the day, in local time, in which only small fresh changes travel.
    pub quiet_hours: Vec<QuietHours>,
}

/// A span of the day, in minutes since local midnight. One that ends before it begins spans midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// First minute.
    pub from: u16,
    /// The minute it ends.
    pub until: u16,
}

impl QuietHours {
    /// The span in words like `09:00-12:00`; `None`: not such words, or an empty span.
    pub fn parse(words: &str) -> Option<QuietHours> {
        let minute = |time: &str| {
            let (hour, minute) = time.trim().split_once(':')?;
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
        };
        let (from, until) = words.split_once('-')?;
        let span = QuietHours { from: minute(from)?, until: minute(until)? };
        (span.from != span.until).then_some(span)
    }

    fn holds(&self, minute: u16) -> bool {
        let (after, before) = (minute >= self.from, minute < self.until);
        if self.from < self.until { after && before } else { after || before }
    }
}

impl std::fmt::Display for QuietHours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let QuietHours { from, until } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

/// The bucket, and the time of day.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Pace {
    pub(in crate::node) settings: PaceSettings,
    /// Local time minus UTC, minutes.
    pub(in crate::node) offset_minutes: i32,
    tokens: i64,
    at_ms: u64,
}

impl Pace {
    pub(super) fn new(settings: PaceSettings) -> Pace {
        Pace { settings, ..Pace::default() }
    }

    /// Whether it is a time in which bulk waits.
    pub(in crate::node) fn is_quiet(&self, now: Now) -> bool {
        let minutes = (now.wall_ms / 60_000) as i64 + i64::from(self.offset_minutes);
        let minute = minutes.rem_euclid(24 * 60) as u16;
        self.settings.quiet_hours.iter().any(|span| span.holds(minute))
    }

    /// Whether the bucket lets bulk go.
    pub(in crate::node) fn has_room(&self, now: Now) -> bool {
        self.settings.bandwidth == 0 || self.tokens_at(now) > 0
    }

    /// When it will; `None`: it does.
    pub(in crate::node) fn ready_ms(&self, now: Now) -> Option<u64> {
        let lacking = 1 - self.tokens_at(now);
        let rate = self.settings.bandwidth;
        (rate > 0 && lacking > 0).then(|| now.mono_ms + (lacking as u64 * 1000).div_ceil(rate))
    }

    /// The largest answer that keeps the others waiting for a short time only.
    pub(super) fn answer_bytes(&self, asked: usize) -> usize {
        match self.settings.bandwidth {
            0 => asked,
            rate => asked.min((rate / BURST_PARTS).max(16 << 10) as usize),
        }
    }

    /// How long who asks in quiet hours is told to wait.
    pub(super) fn quiet_wait_ms(&self) -> u64 {
        QUIET_WAIT_MS
    }

    pub(in crate::node) fn spend(&mut self, bytes: usize, now: Now) {
        if self.settings.bandwidth > 0 {
            self.tokens = self.tokens_at(now) - bytes as i64;
            self.at_ms = now.mono_ms;
        }
    }

    pub(super) fn spend_on(&mut self, effects: &[Effect], now: Now) {
        let bytes = |effect: &Effect| if let Effect::Send { frame, .. } = effect { frame.len() } else { 0 };
        self.spend(effects.iter().map(bytes).sum(), now);
    }

    fn tokens_at(&self, now: Now) -> i64 {
        let rate = self.settings.bandwidth;
        let full = (rate / BURST_PARTS).max(PUSH_BYTES_MAX as u64) as i64;
        let passed = now.mono_ms.saturating_sub(self.at_ms);
        if self.at_ms == 0 {
            return full;
        }
        (self.tokens + (u128::from(rate) * u128::from(passed) / 1000).min(1 << 62) as i64).min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono_ms: u64, minute_of_day: u64) -> Now {
        Now { mono_ms, wall_ms: minute_of_day * 60_000 }
    }

    #[test]
    fn quiet_hours_are_local_and_may_span_midnight() {
        let day = QuietHours::parse("09:00-12:30").expect("a span");
        let night = QuietHours::parse("22:00-06:00").expect("a span");
        assert_eq!((day.to_string(), night.to_string()), ("09:00-12:30".into(), "22:00-06:00".into()));
        let settings = PaceSettings { bandwidth: 0, quiet_hours: vec![day, night] };
        let mut pace = Pace { settings, ..Pace::default() };
        let quiet = |pace: &Pace| -> Vec<u64> { (0..24).filter(|hour| pace.is_quiet(now(0, hour * 60))).collect() };
        assert_eq!(quiet(&pace), [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 22, 23]);
        pace.offset_minutes = 120;
        assert_eq!(quiet(&pace), [0, 1, 2, 3, 7, 8, 9, 10, 20, 21, 22, 23]);
        for wrong in ["9", "09:00", "09:00-25:00", "09:60-10:00", "10:00-10:00", "a-b", ""] {
            assert_eq!(QuietHours::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_bucket_lets_its_rate_through_and_no_more() {
        let mut pace = Pace { settings: PaceSettings { bandwidth: 1_000_000, quiet_hours: vec![] }, ..Pace::default() };
        let (mut sent, mut at) = (0, now(1, 0));
        while at.mono_ms < 10_000 {
            if pace.has_room(at) {
                sent += 100_000;
                pace.spend(100_000, at);
            }
            at.mono_ms = pace.ready_ms(at).unwrap_or(at.mono_ms + 1);
        }
        assert!((9_900_000..=10_400_000).contains(&sent), "{sent}");
        assert!(Pace::default().has_room(at) && Pace::default().ready_ms(at).is_none());
    }
}
