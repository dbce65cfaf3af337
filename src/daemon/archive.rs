//! Cleanup and the season's archive on a node that does not run.
//!
//! Invariant: holds the data directory's lock. Nobody else uses the log, so its file is compacted too. Called by cli.

use std::path::Path;
use std::time::{Duration, Instant};

use super::enrol::open_without_files;
use super::machine::clock_now;
use super::{DaemonError, DataDir};
use crate::config::Config;
use crate::log::Log;
use crate::node::archive::compact;
use crate::node::archive_view::{ArchiveView, CleanupView, MadeView};

/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Cleans up, whatever is old enough; `days`: `None` for whatever the age. Then the log's file gives back what it freed.
pub fn cleanup(
    config: &Config,
    days: Option<u32>,
    dry_run: bool,
    progress: &mut dyn FnMut(&CleanupView),
) -> Result<CleanupView, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    let mut node = open_without_files(config, &data)?;
    if dry_run {
        return Ok(node.plan_cleanup(days, clock_now())?);
    }
    // What a crash left of an earlier one comes first.
    while node.hurry_cleanup(clock_now())? {}
    node.start_cleanup(days, clock_now())?;
    let mut told = Instant::now();
    while node.hurry_cleanup(clock_now())? {
        if told.elapsed() >= TELL_EVERY {
            progress(&node.cleanup());
            told = Instant::now();
        }
    }
    let mut view = node.cleanup();
    node.close()?;
    let size = || std::fs::metadata(data.log_path()).map_or(0, |metadata| metadata.len());
    view.log_bytes_before = size();
    compact(&mut Log::open(&data.log_path())?)?;
    view.log_bytes_after = size();
    Ok(view)
}

/// The segments, and how far each author's events lie in them.
pub fn list_archive(config: &Config) -> Result<ArchiveView, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    Ok(open_without_files(config, &data)?.archive_list()?)
}

/// Copies the archive into a directory.
pub fn copy_archive(config: &Config, out: &Path) -> Result<MadeView, DaemonError> {
    let (data, _lock) = DataDir::lock_node(config)?;
    Ok(open_without_files(config, &data)?.archive_copy(clock_now())?.write(out)?)
}
