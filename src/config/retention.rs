//! `[retention]` and the retention of `[monitor]`: words of people to numbers.
//!
//! Invariant: what is refused names the key, what stands there and what may. Caller: [`super::resolve`].

use super::ConfigError;
use super::raw::{RawMonitor, RawRetention};
use super::resolve::refuse;
use crate::node::RetentionSettings;

/// A hundred years: longer means never.
const DAYS_MAX: i64 = 36_500;

pub(super) fn resolve(raw: &RawRetention) -> Result<RetentionSettings, ConfigError> {
    let days = raw.days_to_keep.unwrap_or(30);
    let allowed = format!("0 to {DAYS_MAX} days");
    let days_to_keep = u32::try_from(days).ok().filter(|_| days <= DAYS_MAX);
    let days_to_keep = days_to_keep.ok_or_else(|| refuse("retention.days_to_keep", days.to_string(), &allowed))?;
    let text = raw.daily_at.as_deref().unwrap_or("off");
    let daily_at = match text {
        "off" => None,
        _ => {
            let allowed = "a time of the day in local time, like \"03:30\", or \"off\"";
            Some(minute(text).ok_or_else(|| refuse("retention.daily_at", text, allowed))?)
        }
    };
    Ok(RetentionSettings { days_to_keep, daily_at })
}

/// `[monitor] days_to_keep`: ten years of runs are more than anybody reads, and none would be no history.
const RUN_DAYS: (i64, i64) = (1, 3_650);

pub(super) fn run_days(raw: &RawMonitor) -> Result<u32, ConfigError> {
    let days = raw.days_to_keep.unwrap_or(30);
    let allowed = format!("{} to {} days", RUN_DAYS.0, RUN_DAYS.1);
    let fits = u32::try_from(days).ok().filter(|_| (RUN_DAYS.0..=RUN_DAYS.1).contains(&days));
    fits.ok_or_else(|| refuse("monitor.days_to_keep", days.to_string(), &allowed))
}

/// Minute of the day of `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str, max: u16| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| plain && *number < max)
    };
    Some(digits(hours, 24)? * 60 + digits(minutes, 60)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_read_and_others_refused_in_words() {
        let raw = |days, at: &str| RawRetention { days_to_keep: Some(days), daily_at: Some(at.to_string()) };
        let settings = resolve(&raw(0, "03:30")).unwrap();
        assert_eq!(settings, RetentionSettings { days_to_keep: 0, daily_at: Some(210) });
        assert_eq!(resolve(&raw(365, "off")).unwrap().daily_at, None);
        for at in ["3:30", "24:00", "03:60", "03.30", "", "+3:30", "noon"] {
            let error = resolve(&raw(30, at)).unwrap_err().to_string();
            assert!(error.contains("retention.daily_at") && error.contains("03:30"), "{error}");
        }
        for days in [-1, DAYS_MAX + 1] {
            let error = resolve(&raw(days, "off")).unwrap_err().to_string();
            assert!(error.contains("retention.days_to_keep"), "{error}");
        }
    }

    #[test]
    fn the_history_of_runs_is_kept_for_days() {
        let of = |days| run_days(&RawMonitor { days_to_keep: days });
        assert_eq!((of(None).unwrap(), of(Some(1)).unwrap(), of(Some(3_650)).unwrap()), (30, 1, 3_650));
        for days in [0, -1, 3_651, i64::MAX] {
            let error = of(Some(days)).unwrap_err().to_string();
            assert!(error.contains("monitor.days_to_keep") && error.contains("1 to 3650 days"), "{error}");
        }
    }
}
