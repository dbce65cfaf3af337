//! What can be checked from outside the node: directory, key, token, files.
//!
//! Invariant: looks only, changes nothing, opens no database. Callers: http (`doctor` of a running node), cli.

use std::os::unix::fs::MetadataExt;

use super::{DaemonError, DataDir};
use crate::config::Config;
use crate::http::Check;

/// All checks.
pub fn checks(config: &Config, data: &DataDir) -> Vec<Check> {
    let mut found = vec![directory(data), key(data)];
    found.extend(config.warnings.iter().map(|warning| check("configuration", "warning", warning, "")));
    match data.remembered() {
        Ok(remembered) => {
            let named = config.databases.iter().map(|database| (&database.name, &database.path));
            let kept = remembered.iter().map(|database| (&database.name, &database.path));
            let mut seen = Vec::new();
            for (name, path) in named.chain(kept) {
                if !seen.contains(&name) {
                    found.push(database(name, path));
                    seen.push(name);
                }
            }
        }
        Err(error) => found.push(failed("databases", &error)),
    }
    found
}

fn check(check: &str, state: &str, found: &str, next: &str) -> Check {
    Check { check: check.into(), state: state.into(), found: found.into(), next: next.into() }
}

fn failed(name: &str, error: &DaemonError) -> Check {
    check(name, "failed", &error.to_string(), "")
}

fn directory(data: &DataDir) -> Check {
    let path = data.path().display().to_string();
    match std::fs::metadata(data.path()) {
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            check("data directory", "warning", &format!("{path} is open to other users"), &format!("chmod 700 {path}"))
        }
        Ok(_) => check("data directory", "ok", &path, ""),
        Err(error) => {
            let next = "start a node: litemesh run; or name another directory with --data";
            check("data directory", "failed", &format!("{path}: {error}"), next)
        }
    }
}

fn key(data: &DataDir) -> Check {
    match data.key_seed() {
        Ok(_) => check("node's key", "ok", "present, readable by its owner only", ""),
        Err(error) => failed("node's key", &error),
    }
}

fn database(name: &str, path: &std::path::Path) -> Check {
    let title = format!("file of {name}");
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            check(&title, "ok", &format!("{}, {} bytes", path.display(), metadata.len()), "")
        }
        Ok(_) => check(&title, "failed", &format!("{} is no file", path.display()), "correct the path of --db"),
        Err(error) => {
            let next = "start the app once so that it makes its database, or correct the path of --db";
            check(&title, "failed", &format!("{}: {error}", path.display()), next)
        }
    }
}
