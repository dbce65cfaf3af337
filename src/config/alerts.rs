//! `[alerts]` and `[log]`: where alerts go, from when on something is one, and how the log is written.
//!
//! Invariant: what is refused names the key, what stands there and what may. Caller: [`super::resolve`].

use super::ConfigError;
use super::raw::RawAlerts;
use super::resolve::refuse;

/// `[alerts]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertsConfig {
    /// URL that gets a POST.
    pub webhook: Option<String>,
    /// host:port, sender, receivers.
    pub mail: Option<(String, String, Vec<String>)>,
    /// A peer that was not seen for so long; 0: no such alert.
    pub peer_unseen_ms: u64,
    /// A clock that is off by so much; 0: no such alert.
    pub clock_skew_ms: u64,
    /// Less free bytes than this; 0: no such alert.
    pub disk_free_bytes: u64,
}

/// Shortest time of a rule.
const SHORTEST_MS: u64 = 1_000;

pub(super) fn resolve(raw: &RawAlerts) -> Result<AlertsConfig, ConfigError> {
    let there = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (server, from) = (there(&raw.smtp_server), there(&raw.smtp_from));
    let to = raw.smtp_to.clone().unwrap_or_default();
    let mail = match (server, from, to.is_empty()) {
        (Some(server), Some(from), false) => Some((server, from, to)),
        (None, None, true) => None,
        (server, ..) => {
            let allowed = "given together with alerts.smtp_from and alerts.smtp_to, or all of them empty";
            return Err(refuse("alerts.smtp_server", server.unwrap_or_default(), allowed));
        }
    };
    Ok(AlertsConfig {
        webhook: there(&raw.webhook),
        mail,
        peer_unseen_ms: time("alerts.peer_unseen", raw.peer_unseen.as_deref())?,
        clock_skew_ms: time("alerts.clock_skew", raw.clock_skew.as_deref())?,
        disk_free_bytes: bytes("alerts.disk_free", raw.disk_free.as_deref())?,
    })
}

fn time(key: &str, text: Option<&str>) -> Result<u64, ConfigError> {
    let text = text.unwrap_or("off");
    let length = humantime::parse_duration(text).ok().and_then(|length| u64::try_from(length.as_millis()).ok());
    match length.filter(|ms| *ms >= SHORTEST_MS) {
        Some(ms) => Ok(ms),
        None if text == "off" => Ok(0),
        None => Err(refuse(key, text, "a time of at least a second, like \"10m\", or \"off\"")),
    }
}

fn bytes(key: &str, text: Option<&str>) -> Result<u64, ConfigError> {
    let text = text.unwrap_or("off");
    match super::pace::rate(text) {
        Some(bytes) => Ok(bytes),
        None if text == "off" => Ok(0),
        None => Err(refuse(key, text, "bytes, like \"500 MB\", or \"off\"")),
    }
}

/// `[log] format`: whether lines are JSON.
pub(super) fn is_json(text: Option<&str>) -> Result<bool, ConfigError> {
    match text.unwrap_or("text") {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(refuse("log.format", other, "text or json")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn raw(server: &str, to: &[&str]) -> RawAlerts {
        RawAlerts {
            smtp_server: Some(server.into()),
            smtp_from: Some(if server.is_empty() { "" } else { "a@b" }.into()),
            smtp_to: Some(to.iter().map(|to| to.to_string()).collect()),
            peer_unseen: Some("10m".into()),
            clock_skew: Some("off".into()),
            disk_free: Some("500 MB".into()),
            ..RawAlerts::default()
        }
    }

    #[test]
    fn mail_needs_all_of_its_keys_and_rules_have_units() {
        let config = resolve(&raw("", &[])).unwrap();
        assert_eq!((config.mail, config.peer_unseen_ms, config.clock_skew_ms), (None, 600_000, 0));
        assert_eq!(config.disk_free_bytes, 500_000_000);
        assert!(resolve(&raw("mail:25", &["c@d"])).unwrap().mail.is_some());
        for bad in [raw("mail:25", &[]), raw("", &["c@d"])] {
            assert!(resolve(&bad).unwrap_err().to_string().contains("alerts.smtp_server"));
        }
        for bad in [
            RawAlerts { peer_unseen: Some("soon".into()), ..raw("", &[]) },
            RawAlerts { disk_free: Some("much".into()), ..raw("", &[]) },
        ] {
            assert!(resolve(&bad).is_err());
        }
        assert!(is_json(Some("json")).unwrap() && !is_json(None).unwrap() && is_json(Some("xml")).is_err());
    }
}
