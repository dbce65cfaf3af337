//! Disk use: the log, the archive, the app's files.
//!
//! Invariant: looks only, at sizes; nothing is opened that SQLite has open. Callers: query (`status`), http.

use super::archive_view::{DatabaseDiskView, DiskView, MissingView};
use super::settings::LOG_FILE;
use super::{Node, NodeError};
use crate::log::LogRead;

impl Node {
    /// What this node takes on the disk.
    pub fn disk(&self) -> Result<DiskView, NodeError> {
        self.disk_of(&self.log.read()?)
    }

    pub(super) fn disk_of(&self, read: &LogRead) -> Result<DiskView, NodeError> {
        let size = read.archive_size()?;
        let bytes = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let databases = self.databases.iter().map(|database| {
            let path = &database.settings.path;
            let mut wal = path.clone();
            wal.as_mut_os_string().push("-wal");
            DatabaseDiskView {
                name: database.settings.name.clone(),
                file_bytes: bytes(path) + bytes(&wal),
                outbox: database.file.outbox_len().unwrap_or_default(),
            }
        });
        Ok(DiskView {
            data_dir: self.settings.data_dir.display().to_string(),
            free_bytes: None,
            log_bytes: bytes(&self.settings.data_dir.join(LOG_FILE)),
            log_events: self.events_held().saturating_sub(size.events),
            segments: size.segments,
            segment_bytes: size.bytes,
            segment_events: size.events,
            segment_hot_bytes: size.hot_bytes,
            segments_missing: size.missing.into_iter().map(|(name, events)| MissingView { name, events }).collect(),
            unknown_files: size.unknown.0,
            unknown_bytes: size.unknown.1,
            databases: databases.collect(),
        })
    }
}
