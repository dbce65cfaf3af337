//! One layer of settings as written: a file, the environment or the flags, every key optional.
//!
//! Invariant: parsing never does anything and never guesses; an unknown key is an error that names the key, its line and
//! the nearest valid key. Called by [`super::load`].

use serde::Deserialize;

use super::ConfigError;

/// All keys of one layer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) node: RawNode,
    pub(super) http: RawHttp,
    pub(super) network: RawNetwork,
    pub(super) capture: RawCapture,
    pub(super) alerts: RawAlerts,
    pub(super) log: RawLog,
    pub(super) monitor: RawMonitor,
    pub(super) verify: RawVerify,
    pub(super) retention: RawRetention,
    pub(super) database: Vec<RawDatabase>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawNode {
    pub(super) name: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) steering_runs: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    pub(super) listen: Option<String>,
    pub(super) token_file: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawNetwork {
    pub(super) listen: Option<Vec<String>>,
    pub(super) peers: Option<Vec<String>>,
    pub(super) mdns: Option<bool>,
    pub(super) wan: Option<bool>,
    pub(super) relays: Option<Vec<String>>,
    pub(super) psk: Option<String>,
    pub(super) bandwidth: Option<String>,
    pub(super) quiet_hours: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCapture {
    pub(super) include: Option<Vec<String>>,
    pub(super) exclude: Option<Vec<String>>,
    pub(super) references: Option<Vec<RawKnownReference>>,
    pub(super) rules: Option<Vec<RawKnownRule>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKnownRule {
    pub(super) database: String,
    pub(super) table: String,
    pub(super) column: Option<String>,
    pub(super) merge: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKnownReference {
    pub(super) database: String,
    pub(super) table: String,
    pub(super) column: String,
    pub(super) to: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAlerts {
    pub(super) webhook: Option<String>,
    pub(super) smtp: Option<String>,
    pub(super) smtp_password_file: Option<String>,
    /// From the environment only: a file that everyone may read is no place for it.
    #[serde(skip)]
    pub(super) smtp_password: Option<Unshown>,
    pub(super) smtp_ca: Option<String>,
    pub(super) smtp_from: Option<String>,
    pub(super) smtp_to: Option<Vec<String>>,
    pub(super) peer_unseen: Option<String>,
    pub(super) clock_skew: Option<String>,
    pub(super) disk_free: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMonitor {
    pub(super) days_to_keep: Option<i64>,
}

/// A text that no debug output shows.
#[derive(Clone, PartialEq)]
pub(super) struct Unshown(pub(super) String);

impl std::fmt::Debug for Unshown {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("(not shown)")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) format: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVerify {
    pub(super) count: Option<String>,
    pub(super) ids: Option<String>,
    pub(super) checksum: Option<String>,
    pub(super) full: Option<String>,
    pub(super) share: Option<i64>,
    pub(super) share_by_hand: Option<i64>,
    pub(super) repair: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetention {
    pub(super) days_to_keep: Option<i64>,
    pub(super) daily_at: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) include: Option<Vec<String>>,
    pub(super) exclude: Option<Vec<String>>,
    #[serde(default)]
    pub(super) table: Vec<RawTable>,
    #[serde(default)]
    pub(super) column: Vec<RawColumn>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTable {
    pub(super) name: String,
    pub(super) pk: Option<String>,
    pub(super) steering: Option<bool>,
    pub(super) merge: Option<String>,
    pub(super) unique: Option<String>,
    pub(super) verify: Option<String>,
    #[serde(default)]
    pub(super) references: Vec<RawReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReference {
    pub(super) column: String,
    pub(super) to: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawColumn {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) merge: Option<String>,
    #[serde(default)]
    pub(super) tree: bool,
}

impl RawConfig {
    /// Parses one file. `source` names it in errors.
    pub(super) fn parse(text: &str, source: &str) -> Result<RawConfig, ConfigError> {
        toml::from_str(text).map_err(|error| explain(text, source, &error))
    }

    /// Every key of `self`, else that of `below`. Databases are a whole: the upper layer's list, when it has one.
    pub(super) fn over(self, below: RawConfig) -> RawConfig {
        RawConfig {
            node: RawNode {
                name: self.node.name.or(below.node.name),
                data_dir: self.node.data_dir.or(below.node.data_dir),
                steering_runs: self.node.steering_runs.or(below.node.steering_runs),
            },
            http: RawHttp {
                listen: self.http.listen.or(below.http.listen),
                token_file: self.http.token_file.or(below.http.token_file),
            },
            network: RawNetwork {
                listen: self.network.listen.or(below.network.listen),
                peers: self.network.peers.or(below.network.peers),
                mdns: self.network.mdns.or(below.network.mdns),
                wan: self.network.wan.or(below.network.wan),
                relays: self.network.relays.or(below.network.relays),
                psk: self.network.psk.or(below.network.psk),
                bandwidth: self.network.bandwidth.or(below.network.bandwidth),
                quiet_hours: self.network.quiet_hours.or(below.network.quiet_hours),
            },
            capture: RawCapture {
                include: self.capture.include.or(below.capture.include),
                exclude: self.capture.exclude.or(below.capture.exclude),
                references: self.capture.references.or(below.capture.references),
                rules: self.capture.rules.or(below.capture.rules),
            },
            alerts: RawAlerts {
                webhook: self.alerts.webhook.or(below.alerts.webhook),
                smtp: self.alerts.smtp.or(below.alerts.smtp),
                smtp_password_file: self.alerts.smtp_password_file.or(below.alerts.smtp_password_file),
                smtp_password: self.alerts.smtp_password.or(below.alerts.smtp_password),
                smtp_ca: self.alerts.smtp_ca.or(below.alerts.smtp_ca),
                smtp_from: self.alerts.smtp_from.or(below.alerts.smtp_from),
                smtp_to: self.alerts.smtp_to.or(below.alerts.smtp_to),
                peer_unseen: self.alerts.peer_unseen.or(below.alerts.peer_unseen),
                clock_skew: self.alerts.clock_skew.or(below.alerts.clock_skew),
                disk_free: self.alerts.disk_free.or(below.alerts.disk_free),
            },
            log: RawLog { format: self.log.format.or(below.log.format) },
            monitor: RawMonitor { days_to_keep: self.monitor.days_to_keep.or(below.monitor.days_to_keep) },
            verify: RawVerify {
                count: self.verify.count.or(below.verify.count),
                ids: self.verify.ids.or(below.verify.ids),
                checksum: self.verify.checksum.or(below.verify.checksum),
                full: self.verify.full.or(below.verify.full),
                share: self.verify.share.or(below.verify.share),
                share_by_hand: self.verify.share_by_hand.or(below.verify.share_by_hand),
                repair: self.verify.repair.or(below.verify.repair),
            },
            retention: RawRetention {
                days_to_keep: self.retention.days_to_keep.or(below.retention.days_to_keep),
                daily_at: self.retention.daily_at.or(below.retention.daily_at),
            },
            database: if self.database.is_empty() { below.database } else { self.database },
        }
    }
}

/// Turns a parser's error into one that names key, line and a way out.
fn explain(text: &str, source: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message();
    if message.starts_with("unknown field") {
        let mut words = message.split('`').skip(1).step_by(2);
        let key = words.next().unwrap_or_default().to_string();
        let valid: Vec<&str> = words.collect();
        return ConfigError::UnknownKey { source_name: source.into(), line, nearest: nearest(&key, &valid), key };
    }
    let shown = text.lines().nth(line - 1).unwrap_or_default().trim().chars().take(120).collect();
    ConfigError::Syntax { source_name: source.into(), line, shown, message: message.into() }
}

/// The valid key that is written most like `key`.
pub(super) fn nearest(key: &str, valid: &[&str]) -> String {
    valid.iter().min_by_key(|candidate| distance(key, candidate)).map(|best| (*best).to_string()).unwrap_or_default()
}

/// Levenshtein's distance: inserted, dropped and replaced characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, want) in [("", "abc", 3), ("listen", "listen", 0), ("lisen", "listen", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
        assert_eq!(nearest("peer", &["listen", "peers", "mdns"]), "peers");
    }
}
