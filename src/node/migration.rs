//! A migration of the app, with the triggers out of its way.
//!
//! Begun: what the app wrote is captured, then the triggers of all files are laid down, and the node leaves the files alone:
//! it applies, scans and verifies nothing; the peers are served on. Ended, by order or because nobody said for the length
//! of the lease that it goes on: the next look puts the triggers back and scans every table, as after any loss of triggers
//! ([`super::rescan`]): rows that the migration changed are edits, rows that it made are new, rows that it took away come
//! back. Invariant: nothing here lives longer than the lease, and nothing of it is kept on disk: a node that dies in between
//! finds tables without triggers at its next start, which means the same. Callers: http, daemon.

use super::{Node, NodeError, Now};
use crate::sqlite::SqliteError;

/// A migration that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    /// It is over then, monotonic ms, unless somebody says that it goes on.
    until_ms: u64,
}

impl Node {
    /// Takes the triggers out of the way for so long. All files or none; `Busy`: an app writes, or a file is not ready.
    pub fn begin_migration(&mut self, lease_ms: u64, now: Now) -> Result<(), NodeError> {
        if self.migration.is_some() {
            return Err(NodeError::Invalid("a migration is under way already: wait for its end".to_string()));
        }
        // A file that waits to be adopted has no triggers yet.
        let mut taken_in = self.databases.iter().filter(|database| database.adopt_by_ms.is_none());
        if taken_in.any(|database| !database.ready || database.doubted) {
            return Err(SqliteError::Busy.into());
        }
        self.migration = Some(Migration { until_ms: now.mono_ms + lease_ms });
        let laid = self.lay_down(now);
        if laid.is_err() {
            self.end_migration(now);
        } else {
            tracing::info!("a migration begins: triggers are out of its way");
        }
        laid
    }

    fn lay_down(&mut self, now: Now) -> Result<(), NodeError> {
        let taken_in: Vec<usize> =
            self.parents_first().into_iter().filter(|at| self.databases[*at].adopt_by_ms.is_none()).collect();
        for position in &taken_in {
            self.refresh_schema(*position, now)?;
            self.capture(*position, now)?;
        }
        for position in taken_in {
            self.databases[position].file.lay_down_triggers()?;
        }
        Ok(())
    }

    /// Says that the migration goes on. `false`: it was over already, and the triggers are back or on their way.
    pub fn renew_migration(&mut self, lease_ms: u64, now: Now) -> bool {
        match &mut self.migration {
            Some(migration) => {
                migration.until_ms = now.mono_ms + lease_ms;
                true
            }
            None => false,
        }
    }

    /// Ends it; the next steps put the triggers back, see [`Node::is_guarded`].
    pub fn end_migration(&mut self, now: Now) {
        self.migration = None;
        for database in &mut self.databases {
            database.data_version = None;
            database.touch(now);
        }
        self.due = true;
    }

    /// Whether all triggers stand and all that was written without them is in the log.
    pub fn is_guarded(&self) -> bool {
        let mut taken_in = self.databases.iter().filter(|database| database.adopt_by_ms.is_none());
        self.migration.is_none()
            && taken_in.all(|database| database.ready && database.data_version.is_some() && database.file.is_guarded())
    }

    /// Whether the files are left alone; ends a migration of which nobody says any more that it goes on.
    pub(super) fn leaves_files_alone(&mut self, now: Now) -> bool {
        match self.migration {
            Some(migration) if now.mono_ms >= migration.until_ms => {
                tracing::warn!("a migration gave no sign of life: the triggers are put back");
                self.end_migration(now);
                false
            }
            other => other.is_some(),
        }
    }

    /// When the migration that goes on must be over.
    pub(super) fn migration_deadline_ms(&self) -> Option<u64> {
        self.migration.map(|migration| migration.until_ms)
    }
}
