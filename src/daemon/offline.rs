//! Work on a node that does not run, straight on its data directory and the app's files.
//!
//! Invariant: holds the data directory's lock wherever it reads the log or changes a file, so a running node is never
//! disturbed. Called by cli.

use std::path::Path;

use super::databases::Choice;
use super::enrol::open_without_files;
use super::node_thread::{Start, open, while_busy};
use super::run::node_settings;
use super::{DaemonError, DataDir, file_settings};
use crate::config::Config;
use crate::node::view::{LogReport, RebuildReport};
use crate::sqlite::{AppFile, EjectReport, Preflight, preflight_all};

/// Checks every chain and signature of the log. No app's file is touched.
pub fn verify_log(config: &Config) -> Result<LogReport, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    Ok(open_without_files(config, &data)?.verify_log()?)
}

/// Replays the log into new files, as they are or as they were at a time (ms since 1970).
pub fn rebuild(
    config: &Config,
    choice: Choice,
    out: &Path,
    until_ms: Option<u64>,
) -> Result<RebuildReport, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let settings = node_settings(config, &data, choice)?;
    let node = open(&Start { settings, log_path: data.log_path(), found: None })?;
    let report = node.replay()?.write(out, until_ms)?;
    node.close()?;
    Ok(report)
}

/// What would be replicated and how. Changes nothing, needs no data directory.
pub fn preflight(choice: &Choice) -> Result<Vec<Preflight>, DaemonError> {
    while_busy(|| {
        let open = |settings| AppFile::open(file_settings(settings));
        let files = choice.databases.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(preflight_all(&files)?)
    })
}

/// Removes every trigger and table of litemesh from the app's files; gives (database, report).
pub fn eject(config: &Config, choice: &Choice) -> Result<Vec<(String, EjectReport)>, DaemonError> {
    let data = DataDir::at(&config.data_dir);
    // Without a data directory (lost, or elsewhere) a file can still be freed.
    let _lock = if data.path().is_dir() { Some(data.lock()?) } else { None };
    let mut reports = Vec::new();
    for settings in &choice.databases {
        let report = while_busy(|| Ok(AppFile::open(file_settings(settings))?.eject()?))?;
        reports.push((settings.name.clone(), report));
    }
    Ok(reports)
}
