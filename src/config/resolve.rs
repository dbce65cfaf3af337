//! From written settings to checked ones: ranges, patterns, references, and what has no effect yet.
//!
//! Invariant: pure; every refusal names key, value and what is allowed. Called by [`super::load`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::raw::{RawCapture, RawConfig, RawDatabase, RawTable};
use super::{CaptureConfig, Config, ConfigError, HttpConfig, NetworkConfig};
use crate::model::Rule;
use crate::model::rule::StatedRule;
use crate::node::DatabaseSettings;

/// The allowed names of databases, in words.
pub(super) const DATABASE_NAME: &str = "1 to 64 characters a-z, 0-9, _ and -";

/// Checks `user` over `defaults`; `databases` are flags and override the path of a database of the same name.
pub(super) fn resolve(
    user: RawConfig,
    defaults: RawConfig,
    databases: &[(String, PathBuf)],
    directory: &Path,
) -> Result<Config, ConfigError> {
    let warnings = without_effect(&user);
    let raw = user.over(defaults);
    check_later_sections(&raw)?;
    let capture = resolve_capture(&raw.capture, resolve_steering_runs(raw.node.steering_runs)?)?;
    let mut resolved = Vec::new();
    for database in &raw.database {
        resolved.push(resolve_database(database, &capture, directory)?);
    }
    add_flag_databases(&mut resolved, databases, &capture, directory);
    check_databases(&resolved)?;
    let text = |value: Option<String>| value.unwrap_or_default();
    let verify = super::verify::resolve(&raw)?;
    Ok(Config {
        verify,
        name: resolve_name(&text(raw.node.name))?,
        data_dir: directory.join(text(raw.node.data_dir)),
        http: HttpConfig {
            listen: resolve_http_listen(&text(raw.http.listen))?,
            token_file: raw.http.token_file.filter(|path| !path.is_empty()).map(|path| directory.join(path)),
        },
        network: NetworkConfig {
            listen: multiaddrs("network.listen", raw.network.listen)?,
            peers: multiaddrs("network.peers", raw.network.peers)?,
            mdns: raw.network.mdns.unwrap_or(true),
            pace: super::pace::resolve(raw.network.bandwidth.as_deref(), raw.network.quiet_hours.as_deref())?,
            wan: raw.network.wan.unwrap_or(false),
            relays: relays(raw.network.relays)?,
        },
        capture,
        retention: super::retention::resolve(&raw.retention)?,
        run_days_to_keep: super::retention::run_days(&raw.monitor)?,
        databases: resolved,
        alerts: super::alerts::resolve(&raw.alerts)?,
        log_json: super::alerts::is_json(raw.log.format.as_deref())?,
        warnings,
    })
}

pub(super) fn refuse(key: &str, value: impl Into<String>, allowed: &str) -> ConfigError {
    ConfigError::Value { key: key.into(), value: value.into(), allowed: allowed.into() }
}

fn resolve_name(name: &str) -> Result<String, ConfigError> {
    if name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(refuse("node.name", name, "1 to 64 characters without control characters"));
    }
    Ok(name.into())
}

/// Only loopback: whoever reaches the API with the token reads every row.
fn resolve_http_listen(listen: &str) -> Result<Option<SocketAddr>, ConfigError> {
    const ALLOWED: &str = "\"off\" or a loopback address with a port, like 127.0.0.1:7480, [::1]:7480 or localhost:0 (to reach the API from \
         another machine, use an SSH tunnel: ssh -L 7480:127.0.0.1:7480 SERVER)";
    if listen == "off" {
        return Ok(None);
    }
    let numeric = listen.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address: SocketAddr =
        numeric.as_deref().unwrap_or(listen).parse().map_err(|_| refuse("http.listen", listen, ALLOWED))?;
    if !address.ip().is_loopback() {
        return Err(refuse("http.listen", listen, ALLOWED));
    }
    Ok(Some(address))
}

fn multiaddrs(key: &str, list: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let list = list.unwrap_or_default();
    for address in &list {
        let first = address.split('/').nth(1).unwrap_or_default();
        if !address.starts_with('/') || !["ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr"].contains(&first) {
            return Err(refuse(
                key,
                address,
                "a multiaddr, like /ip4/192.168.1.20/udp/7481/quic-v1 or /dns4/pit.local/tcp/7481",
            ));
        }
    }
    Ok(list)
}

/// A relay is asked for a place by its key: an address alone is not enough.
fn relays(list: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let list = multiaddrs("network.relays", list)?;
    match list.iter().find(|address| !address.contains("/p2p/")) {
        Some(address) => {
            let allowed = "a multiaddr with the relay's key, like /dns4/relay.example.org/tcp/7481/p2p/12D3… (the ready line of \
                 that node, or `litemesh doctor --json` there, tells it)";
            Err(refuse("network.relays", address, allowed))
        }
        None => Ok(list),
    }
}

/// More runs than 64 would make ids sparse for nothing: members that share a run still never lose a row.
fn resolve_steering_runs(runs: Option<i64>) -> Result<u32, ConfigError> {
    match runs.map(u32::try_from) {
        None => Ok(0),
        Some(Ok(runs)) if runs <= 64 => Ok(runs),
        Some(_) => {
            let value = runs.unwrap_or_default().to_string();
            Err(refuse("node.steering_runs", value, "1 to 64, or 0 for off"))
        }
    }
}

fn resolve_capture(raw: &RawCapture, steering_runs: u32) -> Result<CaptureConfig, ConfigError> {
    let known = raw.references.clone().unwrap_or_default();
    for reference in &known {
        if reference.to.split('.').count() != 3 {
            return Err(refuse("capture.references.to", &reference.to, "database.table.column"));
        }
    }
    let mut rules = Vec::new();
    for known in raw.rules.iter().flatten() {
        let of_column = known.column.is_some();
        let allowed: Vec<&str> = Rule::ALL.into_iter().filter(|rule| rule.fits(of_column)).map(Rule::name).collect();
        let rule = Rule::from_name(&known.merge, of_column)
            .ok_or_else(|| refuse("capture.rules.merge", &known.merge, &format!("one of {}", allowed.join(", "))))?;
        let (table, column) = (known.table.clone(), known.column.clone());
        rules.push((known.database.clone(), StatedRule { table, column, rule, by_default: true }));
    }
    Ok(CaptureConfig {
        rules,
        include: patterns("capture.include", raw.include.as_ref())?,
        exclude: patterns("capture.exclude", raw.exclude.as_ref())?,
        references: known.into_iter().map(|r| (r.database, r.table, r.column, r.to)).collect(),
        steering_runs,
    })
}

fn patterns(key: &str, list: Option<&Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let list = list.cloned().unwrap_or_default();
    match list.iter().find(|pattern| pattern.is_empty()) {
        Some(empty) => Err(refuse(key, empty, "table names, with * for any characters and ? for one")),
        None => Ok(list),
    }
}

/// Whether a database may be called so.
pub(super) fn is_database_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

fn resolve_database(
    raw: &RawDatabase,
    capture: &CaptureConfig,
    directory: &Path,
) -> Result<DatabaseSettings, ConfigError> {
    let mut settings = capture.database(&raw.name, &directory.join(&raw.path));
    if raw.include.is_some() {
        settings.include = patterns("database.include", raw.include.as_ref())?;
    }
    settings.exclude.extend(patterns("database.exclude", raw.exclude.as_ref())?);
    for table in &raw.table {
        resolve_table(table, &mut settings)?;
    }
    for column in &raw.column {
        one_of("database.column.merge", column.merge.as_ref(), &["lww", "max", "min", "counter", "set"])?;
        let rule = column.merge.as_ref().and_then(|name| Rule::from_name(name, true));
        for rule in rule.into_iter().chain(column.tree.then_some(Rule::Tree)) {
            state(&mut settings, &column.table, Some(&column.name), rule);
        }
    }
    Ok(settings)
}

fn resolve_table(table: &RawTable, settings: &mut DatabaseSettings) -> Result<(), ConfigError> {
    one_of("database.table.pk", table.pk.as_ref(), &["surrogate", "natural"])?;
    one_of("database.table.merge", table.merge.as_ref(), &["lww", "delete-wins"])?;
    one_of("database.table.unique", table.unique.as_ref(), &["merge", "suffix", "shelve"])?;
    for name in table.merge.iter().chain(&table.unique) {
        if let Some(rule) = Rule::from_name(name, false) {
            state(settings, &table.name, None, rule);
        }
    }
    if table.pk.as_deref() == Some("natural") {
        settings.natural_keys.push(table.name.clone());
    }
    if table.steering == Some(false) {
        settings.unsteered.push(table.name.clone());
    }
    for reference in &table.references {
        if !(2..=3).contains(&reference.to.split('.').filter(|part| !part.is_empty()).count()) {
            return Err(refuse("database.table.references.to", &reference.to, "table.column or database.table.column"));
        }
        settings.references.push((table.name.clone(), reference.column.clone(), reference.to.clone()));
    }
    Ok(())
}

/// Notes a rule in place of what the defaults say.
fn state(settings: &mut DatabaseSettings, table: &str, column: Option<&str>, rule: Rule) {
    settings.rules.retain(|known| {
        known.table != table || known.column.as_deref() != column || known.rule.aspect() != rule.aspect()
    });
    let (table, column) = (table.to_string(), column.map(str::to_string));
    settings.rules.push(StatedRule { table, column, rule, by_default: false });
}

fn one_of(key: &str, value: Option<&String>, allowed: &[&str]) -> Result<(), ConfigError> {
    match value {
        Some(value) if !allowed.contains(&value.as_str()) => {
            Err(refuse(key, value, &format!("one of {}", allowed.join(", "))))
        }
        _ => Ok(()),
    }
}

fn add_flag_databases(
    resolved: &mut Vec<DatabaseSettings>,
    flags: &[(String, PathBuf)],
    capture: &CaptureConfig,
    directory: &Path,
) {
    for (name, path) in flags {
        let path = directory.join(path);
        match resolved.iter_mut().find(|settings| settings.name == *name) {
            Some(settings) => settings.path = path,
            None => resolved.push(capture.database(name, &path)),
        }
    }
}

/// Names are good and unique, and declared references lead to a database that is there.
fn check_databases(databases: &[DatabaseSettings]) -> Result<(), ConfigError> {
    let mut names = BTreeSet::new();
    let mut paths = BTreeSet::new();
    for database in databases {
        if !is_database_name(&database.name) {
            return Err(refuse("database.name", &database.name, DATABASE_NAME));
        }
        if !names.insert(database.name.as_str()) {
            return Err(refuse("database.name", &database.name, "unique: another [[database]] has it already"));
        }
        if !paths.insert(&database.path) {
            let path = database.path.display().to_string();
            return Err(refuse("database.path", path, "unique: another [[database]] has this file already"));
        }
    }
    for (_, _, to) in databases.iter().flat_map(|database| &database.references) {
        if let [target, _, _] = to.split('.').collect::<Vec<_>>()[..]
            && !names.contains(target)
        {
            let allowed = format!("in one of the databases {}", names.iter().copied().collect::<Vec<_>>().join(", "));
            return Err(refuse("database.table.references.to", to, &allowed));
        }
    }
    Ok(())
}

/// Sections of later features must be right already, so that nothing surprises when they come.
fn check_later_sections(raw: &RawConfig) -> Result<(), ConfigError> {
    if let Some(psk) = raw.network.psk.as_ref().filter(|psk| !psk.is_empty())
        && (psk.len() != 64 || !psk.chars().all(|c| c.is_ascii_hexdigit()))
    {
        return Err(refuse("network.psk", "(not shown)", "64 hex digits, or empty"));
    }
    if let Some(url) = raw.alerts.webhook.as_ref().filter(|url| !url.is_empty())
        && !url.starts_with("http://")
        && !url.starts_with("https://")
    {
        return Err(refuse("alerts.webhook", url, "a URL that begins with http:// or https://, or empty"));
    }
    Ok(())
}

/// What the user set and nothing reads yet.
fn without_effect(user: &RawConfig) -> Vec<String> {
    let relays = user.network.relays.as_ref().filter(|relays| !relays.is_empty());
    let idle_relays = relays.filter(|_| user.network.wan != Some(true));
    [("network.psk", user.network.psk.is_some())]
        .into_iter()
        .filter(|(_, set)| *set)
        .map(|(key, _)| format!("the setting `{key}` has no effect in this version"))
        .chain(
            idle_relays.map(|_| "the setting `network.relays` has no effect without `network.wan = true`".to_string()),
        )
        .collect()
}
