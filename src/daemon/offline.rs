//! Work on a node that does not run, straight on its data directory and the app's files.
//!
//! Invariant: holds the data directory's lock wherever it reads the log or changes a file, so a running node is never
//! disturbed. Called by cli.

use std::path::Path;
use std::time::{Duration, Instant};

use super::databases::Choice;
use super::enrol::open_without_files;
use super::machine::clock_now;
use super::node_thread::{Start, open, while_busy};
use super::run::node_settings;
use super::{DaemonError, DataDir, file_settings};
use crate::config::Config;
use crate::model::Tier;
use crate::node::drift_view::{DriftFilter, DriftView, RunView};
use crate::node::verify_schedule::VerifySettings;
use crate::node::view::{LogReport, RebuildReport};
use crate::node::{Input, Node, NodeError};
use crate::sqlite::{AppFile, EjectReport, Preflight, SqliteError, preflight_all};

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
    let node = open(&Start { settings, log_path: data.log_path(), found: None, verify: Default::default() })?;
    let report = node.replay()?.write(out, until_ms)?;
    node.close()?;
    Ok(report)
}

/// Which database (none: all), how deep, and whether to heal what waits for a person.
pub type VerifyOrder<'o> = (Option<&'o str>, Tier, bool);

/// Compares the files with the log. `progress` is told how far the runs are.
pub fn verify_files(
    config: &Config,
    choice: Choice,
    (database, tier, repair): VerifyOrder<'_>,
    progress: &mut dyn FnMut(&[RunView]),
) -> Result<(Vec<RunView>, Vec<DriftView>), DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let settings = node_settings(config, &data, choice)?;
    // Nobody else is served: the whole core may be used, and nothing is due by itself.
    let alone = VerifySettings {
        share_by_hand: 100,
        repair: config.verify.repair,
        tables: config.verify.tables.clone(),
        ..VerifySettings::default()
    };
    let mut node = open(&Start { settings, log_path: data.log_path(), found: None, verify: alone })?;
    let numbers = node.order_verification(database, tier, repair, clock_now())?;
    let runs = loop {
        node.handle(Input::Tick, clock_now())?;
        while node.poll_effect().is_some() {}
        let mut runs = node.verify_views(numbers.len() + 20)?;
        runs.retain(|run| numbers.contains(&run.number));
        progress(&runs);
        if runs.iter().all(|run| run.state == "done" || run.state == "failed") {
            break runs;
        }
        let now = clock_now();
        let wait_ms = node.next_deadline(now).map_or(10, |due| due.saturating_sub(now.mono_ms).min(10));
        std::thread::sleep(Duration::from_millis(wait_ms));
    };
    let filter = DriftFilter { runs: numbers, limit: 1_000, ..DriftFilter::default() };
    let drift = node.drift(&filter)?.drift;
    node.close()?;
    Ok((runs, drift))
}

/// How long the triggers of files may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(600);

/// Runs a migration of the app with the triggers out of its way; then puts them back and takes in what changed. What the
/// migration gives is the answer, however it ended.
pub fn migrate<T>(config: &Config, choice: Choice, migration: impl FnOnce() -> T) -> Result<T, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let settings = node_settings(config, &data, choice)?;
    let start = Start { settings, log_path: data.log_path(), found: None, verify: VerifySettings::default() };
    let mut node = open(&start)?;
    settle(&mut node)?;
    while_busy(|| Ok(node.begin_migration(u64::MAX / 2, clock_now())?))?;
    // Closed: the migration may replace the files.
    node.close()?;
    let answer = migration();
    let mut node = open(&start)?;
    settle(&mut node)?;
    node.close()?;
    Ok(answer)
}

/// Steps until the triggers stand and all that was written without them is in the log.
fn settle(node: &mut Node) -> Result<(), DaemonError> {
    let until = Instant::now() + BACK_WITHIN;
    loop {
        node.handle(Input::Tick, clock_now())?;
        while node.poll_effect().is_some() {}
        if node.is_guarded() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(NodeError::Sqlite(SqliteError::Busy).into());
        }
        let now = clock_now();
        let wait_ms = node.next_deadline(now).map_or(10, |due| due.saturating_sub(now.mono_ms).min(10));
        std::thread::sleep(Duration::from_millis(wait_ms));
    }
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
