//! What can go wrong with an app's file.
//!
//! Invariant: every variant says whether the file changed and whether trying again helps. Callers: all of `sqlite`; node.

use std::path::{Path, PathBuf};

/// A failed operation on an app's file.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The path names no file. Nothing changed; helps only after the app made it or the path was corrected.
    #[error("{path}: there is no such file. Start the app once so that it makes its database, or correct the path")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The file is no SQLite database, or an encrypted one. Nothing changed; trying again does not help.
    #[error(
        "{}: this is not a SQLite database (or it is encrypted). Correct the path in the configuration",
        name(path)
    )]
    NotADatabase {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be written. Nothing changed; helps after its permissions were corrected.
    #[error(
        "{}: the file or its directory is read-only for this user. Run litemesh as the user that runs the app, \
         or correct owner and permissions of the file and its directory",
        name(path)
    )]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// The file lies on a network filesystem, where SQLite's locks do not hold. Nothing changed.
    #[error(
        "{path}: the file lies on a network filesystem ({kind}), where SQLite's locks cannot be trusted. Move the \
         database to a local disk; litemesh copies it to the other servers"
    )]
    NetworkFilesystem {
        /// The path.
        path: PathBuf,
        /// The filesystem's type.
        kind: String,
    },
    /// A new file was to be made where one is. Nothing changed; choose another path.
    #[error("{path}: a file is there already; nothing is overwritten. Choose another place or move it away")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A new file could not be brought to the disk. It does not count; remove it and try again.
    #[error("{path}: the new file could not be written to the disk")]
    Sync {
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Another process holds a lock. The file is as before the call; try again after a pause.
    #[error("the database is locked by another process")]
    Busy,
    /// The app changed its schema since the last refresh. The file is as before the call; refresh the schema, try again.
    #[error("the app changed its schema")]
    SchemaChanged,
    /// The file does not carry litemesh's tables (never enrolled, ejected, or replaced by an older copy). Nothing
    /// changed; enroll, then try again.
    #[error("the database is not enrolled")]
    NotEnrolled,
    /// The outbox is not the one that was drained: the file went back in time or was exchanged. Nothing was cleared;
    /// drain again.
    #[error("the outbox is not the one that was drained: the database file was restored or exchanged")]
    WentBack,
    /// The caller names a table that is not replicated. Nothing changed; trying again does not help.
    #[error("table {0:?} is not replicated")]
    UnknownTable(String),
    /// A name that SQL cannot carry. Nothing changed; trying again does not help.
    #[error("the name {0:?} holds a NUL character and cannot be written in SQL")]
    BadName(String),
    /// The disk is full. The transaction was rolled back; helps after space was made.
    #[error("the disk is full: make room on the disk that holds the database")]
    Full,
    /// The file is damaged. The transaction was rolled back; stop using the file.
    #[error("the database file is damaged ({message}). Stop the app, keep the file, and run `litemesh rebuild`")]
    Corrupt {
        /// SQLite's words.
        message: String,
    },
    /// Any other error of SQLite or the disk. The transaction was rolled back; trying again may help.
    #[error("SQLite: {0}")]
    Storage(#[source] rusqlite::Error),
}

/// Errors that SQLite raises in mid-work come without a path.
fn name(path: &Path) -> String {
    if path.as_os_str().is_empty() { "the database".to_owned() } else { path.display().to_string() }
}

impl SqliteError {
    /// The same error with the path it concerns.
    pub(super) fn at(self, at: &Path) -> SqliteError {
        match self {
            SqliteError::ReadOnly { .. } => SqliteError::ReadOnly { path: at.to_owned() },
            SqliteError::NotADatabase { .. } => SqliteError::NotADatabase { path: at.to_owned() },
            other => other,
        }
    }

    /// Whether the disk failed: what was written before may be lost though SQLite was told that it is safe.
    pub fn is_of_disk(&self) -> bool {
        use rusqlite::ErrorCode;
        let SqliteError::Storage(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen))
    }

    /// Whether the same call may succeed after a pause, with nothing else done.
    pub fn is_retryable(&self) -> bool {
        matches!(self, SqliteError::Busy)
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> SqliteError {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SqliteError::Busy,
            Some(ErrorCode::DiskFull) => SqliteError::Full,
            Some(ErrorCode::ReadOnly) => SqliteError::ReadOnly { path: PathBuf::new() },
            Some(ErrorCode::NotADatabase) => SqliteError::NotADatabase { path: PathBuf::new() },
            Some(ErrorCode::DatabaseCorrupt) => SqliteError::Corrupt { message: error.to_string() },
            Some(_) | None => SqliteError::Storage(error),
        }
    }
}
