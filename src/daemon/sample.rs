//! The sample pair of databases, for a machine without the app: made from embedded SQL, written to as an app would.
//!
//! Invariant: a file that is there already is used as it is. Callers: databases (`run --sample`), cli (`demo`).

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::DaemonError;
use crate::config::Config;
use crate::sqlite::SqliteError;

const PAIR: [(&str, &str); 2] = [
    ("scouting", include_str!("../../config/sample/scouting.sql")),
    ("users", include_str!("../../config/sample/users.sql")),
];

/// Where the pair goes: beside the default data directory, or into one that the user named.
pub(super) fn directory(config: &Config, working: &Path) -> PathBuf {
    if config.data_dir == working.join("litemesh-data") {
        return working.join("litemesh-sample");
    }
    config.data_dir.join("sample")
}

/// Makes the pair in a directory; gives (name, path).
pub fn create(directory: &Path) -> Result<Vec<(String, PathBuf)>, DaemonError> {
    let failed = |source| DaemonError::Files { action: "make", path: directory.to_path_buf(), source };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut made = Vec::new();
    for (name, sql) in PAIR {
        let path = directory.join(format!("{name}.db"));
        if !path.exists() {
            fill(&path, sql).map_err(SqliteError::from)?;
        }
        made.push((name.to_string(), path));
    }
    Ok(made)
}

fn fill(path: &Path, sql: &str) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("BEGIN")?;
    connection.execute_batch(sql)?;
    connection.execute_batch("COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_is_made_once_and_sound() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..2 {
            for (name, path) in create(directory.path()).unwrap() {
                let connection = Connection::open(path).unwrap();
                let ok: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                let dangling = connection.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap();
                assert_eq!((ok.as_str(), dangling), ("ok", false), "{name}, round {round}");
            }
        }
    }
}
