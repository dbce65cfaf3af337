//! Floor L2: the only module that speaks SQL to the app's files.
//!
//! An [`AppFile`] is one of the app's databases: what of it is replicated and how (`schema`, `preflight`), the triggers
//! that mark the app's writes (`triggers`, `install`, `outbox`), reading marks and rows in one snapshot (`drain`), writing
//! what others wrote (`apply`), and reading all of it (`scan`).
//!
//! Invariant: the app never notices: no lock is held longer than a call, nothing waits inside SQLite, nothing of the
//! app's is changed but the rows that [`Apply::write`] is told. Callers: node; cli for preflight and eject.

mod apply;
mod copy;
mod drain;
mod enroll;
mod error;
mod fill;
mod guest;
mod identity;
mod inspect;
mod install;
mod keys;
mod local_time;
mod meta;
mod migration;
mod outbox;
mod plan;
mod preflight;
mod quote;
mod rebuild;
mod reference;
mod scan;
mod schema;
mod search;
mod steering;
mod suspects;
mod triggers;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::Connection;

pub use apply::{Apply, Refused, RowWrite};
pub use copy::copy_file;
pub use drain::{Drain, Drained, Image, Mark, MarkOp};
pub use enroll::EjectReport;
pub use error::SqliteError;
pub use guest::{GuestOutcome, GuestWrite, write_as_app};
pub use inspect::Inspected;
pub use install::SchemaChange;
pub use local_time::local_offset_minutes;
pub use meta::FileMeta;
pub use preflight::{Preflight, TablePreflight, preflight_all};
pub use rebuild::NewFile;
pub use reference::Dangling;
pub use suspects::ReferenceProposal;

use crate::model::DatabaseSchema;

/// What to replicate of which file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSettings {
    /// Name of the database in the cluster.
    pub name: String,
    /// The app's file.
    pub path: PathBuf,
    /// Table name patterns (`*` and `?`) to replicate; empty means all.
    pub include: Vec<String>,
    /// Table name patterns to leave out.
    pub exclude: Vec<String>,
    /// References that the schema does not declare: (table, column, "[database.]table.column").
    pub references: Vec<(String, String, String)>,
    /// Patterns of tables whose integer primary key is a natural key.
    pub natural_keys: Vec<String>,
    /// Rules of tables and columns that the cluster shall have.
    pub rules: Vec<crate::model::rule::StatedRule>,
    /// Number of runs that ids are divided into, 1 to 64; 0: SQLite chooses all ids (see `steering`).
    pub steering_runs: u32,
    /// Patterns of tables whose ids SQLite chooses all the same.
    pub unsteered: Vec<String>,
}

/// One of the app's databases.
pub struct AppFile {
    settings: FileSettings,
    connection: Connection,
    /// Device and inode at opening.
    identity: identity::Place,
    /// The schema as of the last refresh.
    layout: schema::Layout,
    /// Watched tables by number, as of the last refresh.
    registry: BTreeMap<i64, outbox::Registered>,
    /// Key columns of the outbox.
    outbox_width: usize,
    /// Triggers and registry were brought up to date since the file was opened.
    installed: bool,
    /// End of the last drain.
    drained: Option<drain::Drained>,
    /// See [`AppFile::note_logged`].
    logged: Option<(crate::model::OriginId, u64)>,
    /// The node's slot, which says which ids are its own; `None` while it has none.
    slot: Option<u32>,
    /// Which tables are steered.
    decisions: steering::Decisions,
    /// The runs that the triggers in the file steer to.
    steered: Option<steering::Runs>,
}

impl AppFile {
    /// What is replicated, as of the last refresh.
    pub fn schema(&self) -> &DatabaseSchema {
        &self.layout.schema
    }

    /// What the file was opened with.
    pub fn settings(&self) -> &FileSettings {
        &self.settings
    }

    /// Tells the node's slot, from which on the ids of new rows are steered into the runs that belong to it. The next
    /// [`AppFile::refresh_schema`] puts the triggers right. `true`: the slot is another one than before.
    pub fn set_slot(&mut self, slot: Option<u32>) -> bool {
        let changed = self.slot != slot;
        self.slot = slot;
        changed
    }

    /// A number that changes when another connection has committed (or checkpointed). Costs microseconds.
    pub fn data_version(&self) -> Result<i64, SqliteError> {
        Ok(self.connection.prepare_cached("PRAGMA main.data_version")?.query_row([], |row| row.get(0))?)
    }

    /// Moves what it can from the WAL into the file without waiting for anybody. Returns (pages in the WAL, pages moved);
    /// both 0 without a WAL.
    pub fn checkpoint(&self) -> Result<(u64, u64), SqliteError> {
        let pages: (i64, i64) = self
            .connection
            .query_row("PRAGMA main.wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
        Ok((pages.0.max(0).unsigned_abs(), pages.1.max(0).unsigned_abs()))
    }
}
