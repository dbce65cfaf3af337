//! Copies a database file as SQLite sees it, WAL included.
//!
//! Invariant: the source is only read, in one snapshot; the copy is whole or an error. Callers: daemon (rehearsals, bases).

use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;
use rusqlite::backup::Backup;

use super::{SqliteError, enroll};

/// All pages in one step: a copy in several starts again whenever the app writes in between.
const ALL: i32 = i32::MAX;

/// Copies `from` to a new file `to`.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), SqliteError> {
    if to.exists() {
        return Err(SqliteError::Exists { path: to.to_owned() });
    }
    let source = enroll::connect(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut target = enroll::connect(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    let backup = Backup::new(&source, &mut target)?;
    backup.run_to_completion(ALL, Duration::ZERO, None).map_err(|error| SqliteError::from(error).at(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_holds_what_is_in_the_wal_and_never_overwrites() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a.db"), directory.path().join("b.db"));
        let app = rusqlite::Connection::open(&from).unwrap();
        app.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        app.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        copy_file(&from, &to).unwrap();
        let copy = rusqlite::Connection::open(&to).unwrap();
        assert_eq!(copy.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
        assert!(matches!(copy_file(&from, &to), Err(SqliteError::Exists { .. })));
    }
}
