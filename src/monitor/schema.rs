//! The file `monitor.db`: opening it, its version, its tables.
//!
//! Invariant: the file is readable by its owner only (it holds rows' values, in `database_changes`); a file of a later
//! version or a damaged one is set aside, never repaired; one of an earlier version is brought up to date in one transaction.
//! Caller: [`super::store`].

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// The tables, the one that came with version 2, and what they mean.
const TABLES: &str = include_str!("schema.sql");
const DRIFT: &str = include_str!("schema_drift.sql");
const README: &str = include_str!("schema_readme.sql");

/// Version 1 had another table for drift, which nothing was ever written to.
const FROM_1: &str = "DROP TABLE drift_history; DELETE FROM readme;";

/// Grows with every change of the tables.
const VERSION: i64 = 2;

/// How long a write waits for somebody who holds the file with another tool.
const BUSY: Duration = Duration::from_secs(5);

/// Opens the file, making it when it is missing; what was set aside, if anything.
pub(super) fn open(path: &Path, now_ms: u64) -> rusqlite::Result<(Connection, Option<PathBuf>)> {
    match try_open(path) {
        Ok(connection) => Ok((connection, None)),
        Err(error) if is_unusable(&error) => {
            let aside = path.with_extension(format!("db.aside-{}", now_ms / 1000));
            for end in ["", "-wal", "-shm"] {
                let with = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
                // What cannot be moved is met again right below.
                let _ = std::fs::rename(with(path), with(&aside));
            }
            Ok((try_open(path)?, Some(aside)))
        }
        Err(error) => Err(error),
    }
}

/// Whether the file must be set aside.
pub(super) fn is_unusable(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    let damaged = matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt));
    damaged || matches!(error, rusqlite::Error::InvalidQuery)
}

fn try_open(path: &Path) -> rusqlite::Result<Connection> {
    // SQLite gives its journal files the mode of the file itself.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    drop(made);
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        VERSION => {}
        0 | 1 => {
            let transaction = connection.transaction()?;
            transaction.execute_batch(if version == 0 { TABLES } else { FROM_1 })?;
            transaction.execute_batch(DRIFT)?;
            transaction.execute_batch(README)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        _ => return Err(rusqlite::Error::InvalidQuery),
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_closed_to_others_kept_and_set_aside_when_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monitor.db");
        let (connection, aside) = open(&path, 0).unwrap();
        assert!(aside.is_none());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        connection.execute("INSERT INTO servers (node_id, name, updated_at) VALUES ('a', 'pit', '')", []).unwrap();
        drop(connection);
        let (connection, aside) = open(&path, 0).unwrap();
        assert!(aside.is_none());
        let servers: i64 = connection.query_row("SELECT count(*) FROM servers", [], |row| row.get(0)).unwrap();
        assert_eq!(servers, 1);
        drop(connection);
        std::fs::write(&path, b"this is no database, but it is long enough to be looked at as one by everybody")
            .unwrap();
        let (connection, aside) = open(&path, 7_000).unwrap();
        assert_eq!(aside, Some(directory.path().join("monitor.db.aside-7")));
        let servers: i64 = connection.query_row("SELECT count(*) FROM servers", [], |row| row.get(0)).unwrap();
        assert_eq!(servers, 0);
    }

    #[test]
    fn a_file_of_version_1_keeps_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monitor.db");
        let (connection, _) = open(&path, 0).unwrap();
        let old = "DROP TABLE drift_history; CREATE TABLE drift_history (id INTEGER PRIMARY KEY, repaired_at TEXT); \
                   INSERT INTO servers (node_id, name, updated_at) VALUES ('a', 'pit', ''); PRAGMA user_version = 1;";
        connection.execute_batch(old).unwrap();
        drop(connection);
        let (connection, aside) = open(&path, 0).unwrap();
        assert!(aside.is_none());
        let sql = "SELECT (SELECT name FROM servers) || count(*) FROM pragma_table_info('drift_history') WHERE name = 'action'";
        let seen: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(seen, "pit1");
    }

    #[test]
    fn every_table_and_view_is_in_its_readme() {
        let directory = tempfile::tempdir().unwrap();
        let (connection, _) = open(&directory.path().join("monitor.db"), 0).unwrap();
        let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' AND name <> 'readme' \
                   AND name NOT IN (SELECT table_name FROM readme WHERE column_name = '')";
        let mut statement = connection.prepare(sql).unwrap();
        let missing: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(missing, Vec::<String>::new());
        let sql = "SELECT r.table_name || '.' || r.column_name FROM readme r WHERE r.column_name <> '' AND NOT EXISTS \
                   (SELECT 1 FROM pragma_table_info(r.table_name) c WHERE c.name = r.column_name)";
        let mut statement = connection.prepare(sql).unwrap();
        let gone: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(gone, Vec::<String>::new());
    }
}
