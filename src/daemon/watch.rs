//! File notification: a change in a database's directory becomes one touch of that database.
//!
//! Invariant: a hint, never the truth; the node also looks by itself, so a watch that cannot be set costs latency only.
//! The directories are watched, not the files: the WAL is removed and made again. Called by run.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::NodeHandle;

/// Watches until dropped.
pub(super) fn watch(paths: &[PathBuf], handle: NodeHandle) -> Option<RecommendedWatcher> {
    // Links are followed: the WAL lies beside the file itself.
    let real: Vec<PathBuf> = paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect();
    let files: Vec<(PathBuf, OsString)> = real.iter().filter_map(|path| split(path)).collect();
    let watched = files.clone();
    let on_event = move |event: notify::Result<notify::Event>| match event {
        Ok(event) if event.need_rescan() => (0..watched.len()).for_each(|position| handle.touch(position)),
        Ok(event) if matters(&event.kind) => {
            for position in event.paths.iter().flat_map(|path| touched(&watched, path)) {
                handle.touch(position);
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "file notification"),
    };
    let mut watcher = match notify::recommended_watcher(on_event) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "no file notification: changes are noticed within a second instead of at once");
            return None;
        }
    };
    let directories: BTreeSet<&PathBuf> = files.iter().map(|(directory, _)| directory).collect();
    for directory in directories {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, directory = %directory.display(), "no file notification for this directory");
        }
    }
    Some(watcher)
}

fn split(path: &Path) -> Option<(PathBuf, OsString)> {
    Some((path.parent()?.to_path_buf(), path.file_name()?.to_os_string()))
}

/// Reading and closing change nothing; the node's own reads must not wake it.
fn matters(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_))
}

/// Positions of the databases that a changed file belongs to: the file, its WAL, its journal.
fn touched(files: &[(PathBuf, OsString)], path: &Path) -> Vec<usize> {
    let Some((directory, name)) = split(path) else { return Vec::new() };
    let belongs = |file: &OsString| {
        let (name, file) = (name.as_encoded_bytes(), file.as_encoded_bytes());
        let suffix = name.strip_prefix(file);
        suffix.is_some_and(|suffix| suffix.is_empty() || suffix == b"-wal" || suffix == b"-journal")
    };
    let fits = |entry: &(usize, &(PathBuf, OsString))| entry.1.0 == directory && belongs(&entry.1.1);
    files.iter().enumerate().filter(fits).map(|(position, _)| position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_its_wal_and_its_journal_belong_to_one_database() {
        let files = [(PathBuf::from("/app"), "a.db".into()), (PathBuf::from("/app"), "a.db2".into())];
        for (path, want) in [
            ("/app/a.db", vec![0]),
            ("/app/a.db-wal", vec![0]),
            ("/app/a.db-journal", vec![0]),
            ("/app/a.db2", vec![1]),
            ("/app/a.db-shm", vec![]),
            ("/other/a.db", vec![]),
            ("/app/b.db", vec![]),
        ] {
            assert_eq!(touched(&files, Path::new(path)), want, "{path}");
        }
    }
}
