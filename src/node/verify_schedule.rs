//! When verifications are due, what they may cost, and what they may do: `[verify]`.
//!
//! Invariant: pure: the next time is a function of the last one and of local time, which an input tells. A time that was
//! missed (the machine was off) is due at once, so that a laptop that sleeps every Sunday night is verified all the same;
//! the share of a core holds then too. Callers: node::verify, config.

use crate::model::Tier;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 1_440;

/// Days looked ahead for the next time of a cron line: a leap day is at most eight years away.
const DAYS_AHEAD: u64 = 3_000;

/// Intervals allowed, ms: 10 s to 366 days.
const EVERY_MS: (u64, u64) = (10_000, 366 * DAY_MINUTES * MINUTE_MS);

/// When a tier is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Never by itself.
    #[default]
    Off,
    /// When an apply has settled.
    AfterSession,
    /// So long after the last time, ms.
    Every(u64),
    /// At times of local clocks.
    At(Cron),
}

/// Times of local clocks: bit sets of minutes, hours, days, months and weekdays (0 is Sunday).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both days and weekdays are restricted: as cron has it, one of them is enough.
    either: bool,
}

/// How much a table matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criticality {
    /// Each tier looks at it one tier deeper.
    Critical,
    /// It is not verified.
    Off,
}

/// `[verify]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySettings {
    /// When numbers of rows are compared.
    pub count: Schedule,
    /// When keys are.
    pub ids: Schedule,
    /// When sums of hashes are.
    pub checksum: Schedule,
    /// When everything is.
    pub full: Schedule,
    /// Share of a core, percent, 1 to 100.
    pub share: u32,
    /// The same while a person waits.
    pub share_by_hand: u32,
    /// Differences are healed without asking.
    pub repair: bool,
    /// Tables that are not `normal`: (database, table, what).
    pub tables: Vec<(String, String, Criticality)>,
}

impl Default for VerifySettings {
    /// Nothing is due by itself.
    fn default() -> VerifySettings {
        VerifySettings {
            count: Schedule::Off,
            ids: Schedule::Off,
            checksum: Schedule::Off,
            full: Schedule::Off,
            share: 5,
            share_by_hand: 50,
            repair: true,
            tables: Vec::new(),
        }
    }
}

impl VerifySettings {
    /// When a tier is due.
    pub fn schedule(&self, tier: Tier) -> &Schedule {
        match tier {
            Tier::Count => &self.count,
            Tier::Ids => &self.ids,
            Tier::Checksum => &self.checksum,
            Tier::Full => &self.full,
        }
    }

    /// How deep a table is looked at when a tier is due; `None`: not at all.
    pub fn tier_of(&self, tier: Tier, database: &str, table: &str) -> Option<Tier> {
        let same = |(of, name, _): &&(String, String, Criticality)| of == database && name.eq_ignore_ascii_case(table);
        match self.tables.iter().find(same).map(|(_, _, what)| *what) {
            Some(Criticality::Off) => None,
            Some(Criticality::Critical) => Some(tier.deeper()),
            None => Some(tier),
        }
    }
}

impl Schedule {
    /// `off`, `session`, an interval (`15m`, `1h 30m`), a time (`03:00`, `sun 03:00`) or a cron line (`0 4 * * 0`).
    pub fn parse(text: &str) -> Option<Schedule> {
        let text = text.trim().to_ascii_lowercase();
        match text.as_str() {
            "off" => return Some(Schedule::Off),
            "session" => return Some(Schedule::AfterSession),
            _ => {}
        }
        if let Some(every) = interval(&text) {
            return (EVERY_MS.0..=EVERY_MS.1).contains(&every).then_some(Schedule::Every(every));
        }
        Cron::parse(&text).map(Schedule::At)
    }

    /// When it is due after `last_ms`, ms since 1970; `None`: never by the clock.
    pub(super) fn next_after(&self, last_ms: u64, offset_minutes: i32) -> Option<u64> {
        match self {
            Schedule::Off | Schedule::AfterSession => None,
            Schedule::Every(every) => Some(last_ms.saturating_add(*every)),
            Schedule::At(cron) => cron.next_after(last_ms, offset_minutes),
        }
    }
}

fn interval(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let unit = match &tail[..letters] {
            "s" | "sec" | "second" | "seconds" => 1_000,
            "m" | "min" | "minute" | "minutes" => MINUTE_MS,
            "h" | "hour" | "hours" => 60 * MINUTE_MS,
            "d" | "day" | "days" => DAY_MINUTES * MINUTE_MS,
            "w" | "week" | "weeks" => 7 * DAY_MINUTES * MINUTE_MS,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = tail[letters..].trim_start();
    }
    (total > 0).then_some(total)
}

impl Cron {
    fn parse(text: &str) -> Option<Cron> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let all = |to: u64| (0..=to).fold(0, |bits, bit| bits | 1 << bit);
        match fields[..] {
            [minutes, hours, days, months, weekdays] => {
                let weekdays_bits = field(weekdays, 0, 7)?;
                Some(Cron {
                    minutes: field(minutes, 0, 59)?,
                    hours: field(hours, 0, 23)?,
                    days: field(days, 1, 31)?,
                    months: field(months, 1, 12)?,
                    // Sunday is 0 and 7.
                    weekdays: (weekdays_bits | weekdays_bits >> 7) & 0x7f,
                    either: days != "*" && weekdays != "*",
                })
            }
            [time] | [_, time] if time.contains(':') => {
                let (hour, minute) = time.split_once(':')?;
                let (hour, minute) = (field(hour, 0, 23)?, field(minute, 0, 59)?);
                let single = hour.is_power_of_two() && minute.is_power_of_two();
                let weekdays = if fields.len() == 2 { 1 << weekday(fields[0])? } else { all(6) };
                let (days, months) = (all(31), all(12));
                single.then_some(Cron { minutes: minute, hours: hour, days, months, weekdays, either: false })
            }
            _ => None,
        }
    }

    fn next_after(&self, last_ms: u64, offset_minutes: i32) -> Option<u64> {
        let offset = i64::from(offset_minutes);
        let first = (last_ms / MINUTE_MS) as i64 + 1 + offset;
        let mut minute = first.max(0) as u64;
        let end = minute + DAYS_AHEAD * DAY_MINUTES;
        while minute < end {
            let (day, of_day) = (minute / DAY_MINUTES, minute % DAY_MINUTES);
            let (hour, in_hour) = (of_day / 60, of_day % 60);
            if !self.on(day) {
                minute = (day + 1) * DAY_MINUTES;
            } else if self.hours >> hour & 1 == 0 {
                minute = day * DAY_MINUTES + (hour + 1) * 60;
            } else if self.minutes >> in_hour & 1 == 0 {
                minute += 1;
            } else {
                return Some((minute as i64 - offset).max(0) as u64 * MINUTE_MS);
            }
        }
        None
    }

    /// Whether a day (since 1970) is one of them.
    fn on(&self, day: u64) -> bool {
        let (month, of_month) = month_and_day(day);
        // 1970 began on a Thursday.
        let weekday = self.weekdays >> ((day + 4) % 7) & 1 == 1;
        let date = self.days >> of_month & 1 == 1;
        self.months >> month & 1 == 1 && if self.either { weekday || date } else { weekday && date }
    }
}

fn weekday(word: &str) -> Option<u64> {
    let names = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    names.iter().position(|name| word.len() >= 3 && word.starts_with(name)).map(|position| position as u64)
}

/// A cron field: `*`, `5`, `1-5`, `*/10`, `1,3`.
fn field(text: &str, from: u64, to: u64) -> Option<u64> {
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let step: u64 = step.parse().ok().filter(|step| *step > 0)?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (from, to),
            Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
            None => {
                let one: u64 = range.parse().ok()?;
                (one, if part.contains('/') { to } else { one })
            }
        };
        if first < from || last > to || first > last {
            return None;
        }
        for value in (first..=last).step_by(step as usize) {
            bits |= 1 << value;
        }
    }
    Some(bits)
}

/// Month (1 to 12) and day of the month of a day since 1970; after Howard Hinnant's `civil_from_days`.
fn month_and_day(days: u64) -> (u64, u64) {
    let shifted = days + 719_468;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    (if from_march < 10 { from_march + 3 } else { from_march - 9 }, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Saturday, 2026-11-21 07:30:05 UTC.
    const NOW_MS: u64 = 1_795_246_205_123;

    fn next(text: &str, offset_minutes: i32) -> String {
        let due = Schedule::parse(text).unwrap().next_after(NOW_MS, offset_minutes).unwrap();
        crate::node::query::rfc3339(due)[..16].to_string()
    }

    #[test]
    fn the_next_time_is_the_one_that_people_expect() {
        assert_eq!(next("10m", 0), "2026-11-21T07:40");
        assert_eq!(next("1h 30m", 60), "2026-11-21T09:00");
        assert_eq!(next("0 4 * * 0", 0), "2026-11-22T04:00");
        assert_eq!(next("sun 03:00", 0), "2026-11-22T03:00");
        // 03:00 in a place two hours east is 01:00 here; in one that is eight hours west, 11:00.
        assert_eq!(next("sun 03:00", 120), "2026-11-22T01:00");
        assert_eq!(next("Sunday 03:00", -480), "2026-11-22T11:00");
        assert_eq!(next("07:30", 0), "2026-11-22T07:30");
        assert_eq!(next("*/15 * * * *", 0), "2026-11-21T07:45");
        assert_eq!(next("0 0 29 2 *", 0), "2028-02-29T00:00");
        assert_eq!(next("30 2 1,15 * 1-5", 0), "2026-11-23T02:30");
        assert_eq!(next("0 12 * * 7", 0), "2026-11-22T12:00");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in
            ["", "soon", "5s", "0s", "400d", "61 * * * *", "* * * *", "sun", "sun 25:00", "*/0 * * * *", "5-1 * * * *"]
        {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
        assert_eq!(Schedule::parse("off"), Some(Schedule::Off));
        assert_eq!(Schedule::parse("session"), Some(Schedule::AfterSession));
    }

    #[test]
    fn critical_tables_are_looked_at_one_tier_deeper() {
        let table = |name: &str, what| ("app".to_string(), name.to_string(), what);
        let tables = vec![table("vote", Criticality::Critical), table("cache", Criticality::Off)];
        let settings = VerifySettings { tables, ..VerifySettings::default() };
        assert_eq!(settings.tier_of(Tier::Count, "app", "Vote"), Some(Tier::Ids));
        assert_eq!(settings.tier_of(Tier::Full, "app", "vote"), Some(Tier::Full));
        assert_eq!(settings.tier_of(Tier::Full, "app", "cache"), None);
        assert_eq!(settings.tier_of(Tier::Ids, "other", "vote"), Some(Tier::Ids));
    }
}
