//! Times as people write them: one reading for every command and endpoint.
//!
//! Invariant: what names a date without a zone is UTC, as everything that is printed; what names only a time of day is
//! meant by the clock on the wall of the machine that reads it. Called by `query`, `act`, `travel` and `cli`.

use std::time::Duration;

use crate::sqlite::local_offset_minutes;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

pub(super) fn bad_moment(name: &str, text: &str) -> String {
    format!(
        "`{name}` is `{text}`, but must be a time like 2025-03-06T09:00:00Z, 2025-03-06, an age like 2h, or a time of day \
         like 10:00 or yesterday 10:00"
    )
}

/// A time as people write it, in ms since 1970 (UTC): RFC 3339, a date, a number of milliseconds, an age like `2h` or `2h
/// ago`, `now`, or a time of day by this machine's clock: `10:00` (the last time it was so), `yesterday 10:00`.
pub fn parse_moment(text: &str, now_ms: u64) -> Option<u64> {
    parse_at(text, now_ms, &|| local_offset_minutes().unwrap_or(0))
}

fn parse_at(text: &str, now_ms: u64, offset_minutes: &dyn Fn() -> i32) -> Option<u64> {
    let text = text.trim();
    if text == "now" {
        return Some(now_ms);
    }
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    if let Ok(age) = humantime::parse_duration(text.strip_suffix("ago").unwrap_or(text).trim()) {
        return Some(now_ms.saturating_sub(u64::try_from(age.as_millis()).ok()?));
    }
    let (day, clock) = text.split_once(' ').unwrap_or(("", text));
    if let Some(of_day_ms) = time_of_day(clock).filter(|_| ["", "today", "yesterday"].contains(&day)) {
        let offset_ms = i64::from(offset_minutes()) * MINUTE_MS as i64;
        let local_ms = now_ms.saturating_add_signed(offset_ms);
        let mut meant = local_ms - local_ms % DAY_MS + of_day_ms;
        if day == "yesterday" || day.is_empty() && meant > local_ms {
            meant = meant.saturating_sub(DAY_MS);
        }
        return Some(meant.saturating_add_signed(-offset_ms));
    }
    let dated = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_string() };
    let time = humantime::parse_rfc3339_weak(&dated).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).ok()
}

/// `HH:MM` or `HH:MM:SS`, in ms since midnight.
fn time_of_day(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let mut next = |end: u64| {
        let part = parts.next().filter(|part| part.len() == 2)?;
        part.parse::<u64>().ok().filter(|number| *number < end)
    };
    let (hours, minutes) = (next(24)?, next(60)?);
    let seconds = if text.len() > 5 { next(60)? } else { 0 };
    (parts.next().is_none()).then_some(((hours * 60 + minutes) * 60 + seconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_dates_numbers_ages_and_times_of_day() {
        let now = 1_741_251_600_000;
        let hour = 3_600_000;
        for (text, want) in [
            ("2025-03-06T09:00:00Z", Some(now)),
            ("2025-03-06 09:00:00", Some(now)),
            ("2025-03-06", Some(now - 9 * hour)),
            ("1741251600000", Some(now)),
            ("2h", Some(now - 2 * hour)),
            ("2h ago", Some(now - 2 * hour)),
            ("now", Some(now)),
            // The wall shows 10:00 now.
            ("10:00", Some(now)),
            ("09:30", Some(now - hour / 2)),
            ("today 10:30:15", Some(now + hour / 2 + 15_000)),
            ("10:30", Some(now + hour / 2 - 24 * hour)),
            ("yesterday 10:00", Some(now - 24 * hour)),
            ("yesterday", None),
            ("25:00", None),
            ("10:0", None),
            ("10:00:00:00", None),
            ("tomorrow 10:00", None),
        ] {
            assert_eq!(parse_at(text, now, &|| 60), want, "{text}");
        }
    }
}
