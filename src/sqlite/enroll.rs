//! Takes an app's file in, and lets it go without a trace.
//!
//! Invariant: opening changes nothing; enrolling is idempotent; after ejecting nothing of litemesh stands in the schema
//! and the journal mode is what it was. Never opens the file outside SQLite: closing such a handle would drop SQLite's
//! locks. Callers: node, cli (eject, preflight).

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::quote::quote;
use super::{AppFile, FileSettings, SchemaChange, SqliteError, identity, install, meta, outbox, schema};
use crate::model::{Bug, planted};

/// What ejecting removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EjectReport {
    /// Number of triggers dropped.
    pub triggers: u64,
    /// Tables dropped.
    pub tables: Vec<String>,
    /// Marks that were not yet in the log and are lost to replication (the rows themselves stay).
    pub marks_dropped: u64,
    /// The file's journal mode now.
    pub journal_mode: String,
    /// Whether that is the mode from before the enrollment. If not, another process has the file open: stop it and run
    /// `PRAGMA journal_mode` by hand, or eject again.
    pub journal_restored: bool,
}

impl AppFile {
    /// Opens an app's database. Changes nothing in it.
    pub fn open(settings: FileSettings) -> Result<AppFile, SqliteError> {
        let identity = identity::check_path(&settings.path)?;
        let connection = connect(&settings.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let layout = read_first_layout(&connection, &settings).map_err(|error| error.at(&settings.path))?;
        if connection.is_readonly("main")? {
            return Err(SqliteError::ReadOnly { path: settings.path });
        }
        Ok(AppFile {
            settings,
            connection,
            identity,
            layout,
            registry: Default::default(),
            outbox_width: 0,
            installed: false,
            drained: None,
            logged: None,
            slot: None,
            decisions: Default::default(),
            steered: None,
        })
    }

    /// Whether the file carries litemesh's tables.
    pub fn is_enrolled(&self) -> Result<bool, SqliteError> {
        install::is_enrolled(&self.connection)
    }

    /// Switches the file to WAL and installs outbox and triggers; tells what the app did to its schema since it was last
    /// acknowledged (see [`AppFile::schema_seen`]). Idempotent.
    pub fn enroll(&mut self) -> Result<SchemaChange, SqliteError> {
        let mode = journal_mode(&self.connection)?;
        if !self.is_enrolled()? {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            outbox::create(&transaction, &mode)?;
            transaction.commit()?;
        }
        // The old mode is in the meta before the switch, so a crash in between loses nothing. A file that cannot have a
        // WAL (a filesystem without shared memory) works in its own mode, with more waiting.
        if mode != "wal" {
            self.connection.query_row("PRAGMA main.journal_mode = WAL", [], |_| Ok(()))?;
        }
        self.installed = false;
        // Steering follows with the next look at the schema: trying all tables out takes its time, and nothing waits for it.
        self.refresh(None)
    }

    /// Removes every trigger and table of litemesh and restores the journal mode.
    pub fn eject(&mut self) -> Result<EjectReport, SqliteError> {
        let mut report = EjectReport::default();
        let mut wanted = String::new();
        if self.is_enrolled()? {
            wanted = meta::read_text(&self.connection, meta::JOURNAL_MODE)?.unwrap_or_default();
            report.marks_dropped = self.outbox_len()?;
        }
        self.connection.flush_prepared_statement_cache();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for name in names(&transaction, "trigger")? {
            transaction.execute_batch(&format!("DROP TRIGGER main.{}", quote(&name)))?;
            report.triggers += 1;
        }
        for name in names(&transaction, "table")? {
            transaction.execute_batch(&format!("DROP TABLE main.{}", quote(&name)))?;
            report.tables.push(name);
        }
        transaction.commit()?;
        (self.installed, self.outbox_width, self.steered) = (false, 0, None);
        self.registry.clear();
        report.journal_mode = journal_mode(&self.connection)?;
        if !wanted.is_empty() && wanted != report.journal_mode {
            // Needs to be alone with the file; when it is not, the app's file stays in WAL, which works as well.
            let sql = format!("PRAGMA main.journal_mode = {}", quote(&wanted));
            match self.connection.query_row(&sql, [], |row| row.get(0)).map_err(SqliteError::from) {
                Ok(mode) => report.journal_mode = mode,
                Err(SqliteError::Busy) => {}
                Err(error) => return Err(error),
            }
        }
        report.journal_restored = wanted.is_empty() || wanted == report.journal_mode;
        self.layout = schema::read_layout(&self.connection, &self.settings)?;
        Ok(report)
    }
}

fn names(connection: &Connection, kind: &str) -> Result<Vec<String>, SqliteError> {
    let mut statement =
        connection.prepare("SELECT name FROM main.sqlite_master WHERE type = ?1 AND name GLOB '_litemesh_*'")?;
    let names = statement.query_map([kind], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(names)
}

/// A connection as every part of this module wants it.
pub(super) fn connect(path: &Path, access: OpenFlags) -> Result<Connection, SqliteError> {
    configure(path, access).map_err(|error| SqliteError::from(error).at(path))
}

fn configure(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Waiting is the caller's business: it backs off with jitter instead of sleeping under SQLite.
    connection.busy_timeout(Duration::ZERO)?;
    // Nothing that we write fires the app's triggers or ours: both ran where the row was written. Foreign-key actions too.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, planted(Bug::EchoOnApply))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, planted(Bug::CascadeAgain))?;
    connection.set_prepared_statement_cache_capacity(512);
    // Checkpoints are made by [`AppFile::checkpoint`], off the apply path.
    // EXTRA is FULL in a WAL. With a rollback journal FULL leaves the end of a transaction to the next sync of the directory:
    // the fence would return before it is safe.
    connection.execute_batch("PRAGMA cache_size = -65536; PRAGMA synchronous = EXTRA; PRAGMA temp_store = MEMORY;")?;
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    Ok(connection)
}

/// The layout in one snapshot.
fn read_first_layout(connection: &Connection, settings: &FileSettings) -> Result<schema::Layout, SqliteError> {
    let transaction = connection.unchecked_transaction()?;
    let layout = schema::read_layout(&transaction, settings)?;
    Ok(layout)
}

/// The file's journal mode, in lower case.
pub(super) fn journal_mode(connection: &Connection) -> Result<String, SqliteError> {
    Ok(connection.query_row("PRAGMA main.journal_mode", [], |row| row.get::<_, String>(0))?.to_ascii_lowercase())
}
