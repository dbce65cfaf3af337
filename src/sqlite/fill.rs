//! Filling an app's file from a snapshot: rows that no file showed yet, in short write transactions.
//!
//! How far the file is stands in the file itself, in the transaction of the rows: whatever a crash leaves, the note tells
//! what is there. Writes of the app in between are marked by its triggers and not touched: a row whose key or UNIQUE value the
//! app has taken meanwhile is refused and left to the evaluator. Invariant: nothing of the app is overwritten (every insert
//! is `OR ABORT`). Caller: node (taking snapshots).

use rusqlite::ErrorCode;

use super::apply::Apply;
use super::{AppFile, Image, SqliteError, meta, value};
use crate::model::Key;

const NAME: &str = "snapshot";

impl AppFile {
    /// How far the file is filled, in the words of [`Apply::note_filled`]; `None`: it was never filled.
    pub fn filled(&self) -> Result<Option<String>, SqliteError> {
        if self.is_enrolled()? { meta::read_text(&self.connection, NAME) } else { Ok(None) }
    }

    /// Whether some replicated table has a row.
    pub fn has_rows(&self) -> Result<bool, SqliteError> {
        for table in &self.layout.schema.tables {
            if !self.scan_page(&table.name, None, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Apply<'_> {
    /// Inserts rows into a table. The positions of those that SQLite refuses.
    pub fn fill<'r>(
        &mut self,
        table: &str,
        rows: impl Iterator<Item = (&'r Key, &'r Image)>,
    ) -> Result<Vec<usize>, SqliteError> {
        let file = self.file();
        let (_, plan) = file.layout.find(table)?;
        let mut statement = file.connection.prepare_cached(&plan.insert)?;
        let mut refused = Vec::new();
        for (at, (key, image)) in rows.enumerate() {
            let rowid: &[_] = if plan.by_rowid { key } else { &[] };
            value::bind(&mut statement, 1, rowid.iter().chain(image))?;
            match statement.raw_execute() {
                Ok(_) => {}
                Err(error) => match error.sqlite_error_code() {
                    Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                        refused.push(at);
                    }
                    Some(_) | None => return Err(error.into()),
                },
            }
        }
        Ok(refused)
    }

    /// Notes how far the file is filled.
    pub fn note_filled(&mut self, words: &str) -> Result<(), SqliteError> {
        let connection = &self.file().connection;
        let update = "UPDATE main._litemesh_meta SET value = ?2 WHERE name = ?1";
        if meta::prepare(connection, update)?.execute([NAME, words])? == 0 {
            let insert = "INSERT INTO main._litemesh_meta(name, value) VALUES (?1, ?2)";
            meta::prepare(connection, insert)?.execute([NAME, words])?;
        }
        Ok(())
    }

    /// After the last row: full-text indexes over what was filled follow.
    pub fn filled_all(&mut self) -> Result<(), SqliteError> {
        if self.file().layout.search.is_empty() { Ok(()) } else { self.file().follow_search() }
    }
}
