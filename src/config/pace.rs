//! `[network] bandwidth` and `quiet_hours`: words of people to numbers.
//!
//! Invariant: what is refused names the key, what stands there and what may. Caller: [`super::resolve`].

use super::ConfigError;
use super::resolve::refuse;
use crate::node::{PaceSettings, QuietHours};

/// Slower than this nothing would ever arrive.
const BANDWIDTH_MIN: u64 = 1_000;

pub(super) fn resolve(bandwidth: Option<&str>, quiet_hours: Option<&[String]>) -> Result<PaceSettings, ConfigError> {
    let text = bandwidth.unwrap_or("0");
    let allowed = "bytes per second of at least 1 kB/s, like \"500 kB/s\" or \"2 MB/s\", or \"0\" for no limit";
    let bandwidth = rate(text).filter(|rate| *rate == 0 || *rate >= BANDWIDTH_MIN);
    let bandwidth = bandwidth.ok_or_else(|| refuse("network.bandwidth", text, allowed))?;
    let span = |words: &String| {
        let allowed = "spans of the day in local time, like \"09:00-12:00\" (\"22:00-06:00\" spans midnight)";
        QuietHours::parse(words).ok_or_else(|| refuse("network.quiet_hours", words, allowed))
    };
    let quiet_hours = quiet_hours.unwrap_or_default().iter().map(span).collect::<Result<_, _>>()?;
    Ok(PaceSettings { bandwidth, quiet_hours })
}

/// Bytes per second in words.
pub(super) fn rate(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = match unit.strip_suffix("/s").unwrap_or(&unit) {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (bytes <= 1e12).then_some(bytes as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_spans_are_read_and_others_refused_in_words() {
        let rates = [
            ("0", 0),
            ("2 MB/s", 2_000_000),
            ("1.5mb/s", 1_500_000),
            ("500 kB/s", 500_000),
            ("64KiB/s", 65_536),
            ("4000", 4_000),
        ];
        for (text, bytes) in rates {
            assert_eq!(resolve(Some(text), None).unwrap().bandwidth, bytes, "{text}");
        }
        for text in ["fast", "-1", "2 Mbit/s", "999", "", "1e3"] {
            let error = resolve(Some(text), None).unwrap_err().to_string();
            assert!(error.contains("network.bandwidth") && error.contains("2 MB/s"), "{error}");
        }
        let spans = ["09:00-12:00".to_string(), "22:00-06:00".to_string()];
        assert_eq!(resolve(None, Some(&spans)).unwrap().quiet_hours.len(), 2);
        let error = resolve(None, Some(&["9 to 12".to_string()])).unwrap_err().to_string();
        assert!(error.contains("network.quiet_hours") && error.contains("09:00-12:00"), "{error}");
    }
}
