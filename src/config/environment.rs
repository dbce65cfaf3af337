//! The environment's layer: `LITEMESH_SECTION_KEY`, lists with commas between.
//!
//! Invariant: reads nothing itself; the variables come through a function, so that tests need no process-wide state.
//! `LITEMESH_DB`, `LITEMESH_CONFIG` and `LITEMESH_LOG` are read elsewhere. Called by [`super::load`].

use super::ConfigError;
use super::raw::{RawConfig, Unshown};

/// What the variables say.
pub(super) fn layer(read: &dyn Fn(&str) -> Option<String>) -> Result<RawConfig, ConfigError> {
    let mut layer = RawConfig::default();
    layer.node.name = read("LITEMESH_NODE_NAME");
    layer.node.data_dir = read("LITEMESH_DATA").or_else(|| read("LITEMESH_NODE_DATA_DIR"));
    layer.node.steering_runs =
        read("LITEMESH_NODE_STEERING_RUNS").map(|text| number("LITEMESH_NODE_STEERING_RUNS", &text)).transpose()?;
    layer.http.listen = read("LITEMESH_HTTP_LISTEN");
    layer.http.token_file = read("LITEMESH_HTTP_TOKEN_FILE");
    let list = |name: &str| read(name).map(|text| split(&text).collect());
    layer.network.listen = list("LITEMESH_NETWORK_LISTEN");
    layer.network.peers = list("LITEMESH_NETWORK_PEERS");
    layer.network.mdns =
        read("LITEMESH_NETWORK_MDNS").map(|text| boolean("LITEMESH_NETWORK_MDNS", &text)).transpose()?;
    layer.network.bandwidth = read("LITEMESH_NETWORK_BANDWIDTH");
    layer.network.quiet_hours = list("LITEMESH_NETWORK_QUIET_HOURS");
    layer.network.wan = read("LITEMESH_NETWORK_WAN").map(|text| boolean("LITEMESH_NETWORK_WAN", &text)).transpose()?;
    layer.network.relays = list("LITEMESH_NETWORK_RELAYS");
    layer.retention.days_to_keep = read("LITEMESH_RETENTION_DAYS_TO_KEEP")
        .map(|text| number("LITEMESH_RETENTION_DAYS_TO_KEEP", &text))
        .transpose()?;
    layer.retention.daily_at = read("LITEMESH_RETENTION_DAILY_AT");
    layer.monitor.days_to_keep =
        read("LITEMESH_MONITOR_DAYS_TO_KEEP").map(|text| number("LITEMESH_MONITOR_DAYS_TO_KEEP", &text)).transpose()?;
    layer.alerts.webhook = read("LITEMESH_ALERTS_WEBHOOK");
    layer.alerts.smtp = read("LITEMESH_ALERTS_SMTP");
    layer.alerts.smtp_password = read("LITEMESH_ALERTS_SMTP_PASSWORD").map(Unshown);
    layer.alerts.smtp_password_file = read("LITEMESH_ALERTS_SMTP_PASSWORD_FILE");
    layer.log.format = read("LITEMESH_LOG_FORMAT");
    layer.capture.include = list("LITEMESH_CAPTURE_INCLUDE");
    layer.capture.exclude = list("LITEMESH_CAPTURE_EXCLUDE");
    Ok(layer)
}

/// The items of a list.
pub(super) fn split(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(|item| item.trim().to_string()).filter(|item| !item.is_empty())
}

fn number(name: &str, text: &str) -> Result<i64, ConfigError> {
    text.parse().map_err(|_| ConfigError::Value { key: name.into(), value: text.into(), allowed: "a number".into() })
}

fn boolean(name: &str, text: &str) -> Result<bool, ConfigError> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(ConfigError::Value { key: name.into(), value: text.into(), allowed: "true or false".into() }),
    }
}

/// All variables that mean something.
const KNOWN: &[&str] = &[
    "LITEMESH_CONFIG",
    "LITEMESH_DB",
    "LITEMESH_LOG",
    "LITEMESH_DATA",
    "LITEMESH_NODE_NAME",
    "LITEMESH_NODE_DATA_DIR",
    "LITEMESH_NODE_STEERING_RUNS",
    "LITEMESH_HTTP_LISTEN",
    "LITEMESH_HTTP_TOKEN_FILE",
    "LITEMESH_NETWORK_LISTEN",
    "LITEMESH_NETWORK_PEERS",
    "LITEMESH_NETWORK_MDNS",
    "LITEMESH_NETWORK_BANDWIDTH",
    "LITEMESH_NETWORK_QUIET_HOURS",
    "LITEMESH_NETWORK_WAN",
    "LITEMESH_NETWORK_RELAYS",
    "LITEMESH_RETENTION_DAYS_TO_KEEP",
    "LITEMESH_RETENTION_DAILY_AT",
    "LITEMESH_MONITOR_DAYS_TO_KEEP",
    "LITEMESH_ALERTS_WEBHOOK",
    "LITEMESH_ALERTS_SMTP",
    "LITEMESH_ALERTS_SMTP_PASSWORD",
    "LITEMESH_ALERTS_SMTP_PASSWORD_FILE",
    "LITEMESH_LOG_FORMAT",
    "LITEMESH_CAPTURE_INCLUDE",
    "LITEMESH_CAPTURE_EXCLUDE",
];

/// Variables that look like litemesh's and mean nothing.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    names.filter(|name| name.starts_with("LITEMESH_") && !KNOWN.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_that_is_read_is_known() {
        let read = std::cell::RefCell::new(Vec::new());
        let look = |name: &str| {
            read.borrow_mut().push(name.to_string());
            None
        };
        layer(&look).unwrap();
        assert!(!read.borrow().is_empty());
        assert!(unknown_variables(read.into_inner().into_iter()).is_empty());
        assert_eq!(unknown_variables(["LITEMESH_NAM".to_string(), "HOME".to_string()].into_iter()), ["LITEMESH_NAM"]);
    }
}
