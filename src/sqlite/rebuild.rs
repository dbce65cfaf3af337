//! Makes new files from a schema and row images: `rebuild`, `as-of`, snapshots.
//!
//! Invariant: a new file is complete after [`NewFile::finish`] or does not count; it never overwrites an existing one.
//! Callers: node (rebuild, as-of).

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::schema::{self, Layout};
use super::{AppFile, FileSettings, Image, SqliteError, enroll, value};
use crate::model::{DatabaseSchema, Key};

impl AppFile {
    /// CREATE statements of the replicated tables and their indexes.
    pub fn schema_sql(&self) -> Result<Vec<String>, SqliteError> {
        let mut statement = self.connection.prepare(
            "SELECT tbl_name, sql FROM main.sqlite_master WHERE sql IS NOT NULL AND type IN ('table', 'index') \
             ORDER BY type = 'index', rowid",
        )?;
        let rows = statement.query_map([], |row| Ok((schema::text(row, 0)?, schema::text(row, 1)?)))?;
        let mut sql = Vec::new();
        for row in rows {
            let (table, text) = row?;
            if self.layout.schema.table(&table).is_some() {
                sql.push(text);
            }
        }
        Ok(sql)
    }
}

/// A file under construction.
pub struct NewFile {
    connection: Connection,
    layout: Layout,
    path: PathBuf,
}

impl NewFile {
    /// Makes a new file from the statements of [`AppFile::schema_sql`]. `settings` are those of the database: the new
    /// file gets its include and exclude patterns and declared references.
    pub fn create(path: &Path, sql: &[String], settings: &FileSettings) -> Result<NewFile, SqliteError> {
        if path.exists() {
            return Err(SqliteError::Exists { path: path.to_owned() });
        }
        let connection = enroll::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.execute_batch("PRAGMA synchronous = OFF; BEGIN IMMEDIATE")?;
        for statement in sql {
            connection.execute_batch(statement)?;
        }
        let layout = schema::read_layout(&connection, settings)?;
        Ok(NewFile { connection, layout, path: path.to_owned() })
    }

    /// The new file's schema.
    pub fn schema(&self) -> &DatabaseSchema {
        &self.layout.schema
    }

    /// Inserts rows into a table.
    pub fn insert<'a>(
        &mut self,
        table: &str,
        rows: impl IntoIterator<Item = (&'a Key, &'a Image)>,
    ) -> Result<u64, SqliteError> {
        let (_, plan) = self.layout.find(table)?;
        let mut statement = self.connection.prepare_cached(&plan.insert)?;
        let mut count = 0;
        for (key, image) in rows {
            let rowid: &[_] = if plan.by_rowid { key } else { &[] };
            value::bind(&mut statement, 1, rowid.iter().chain(image))?;
            statement.raw_execute()?;
            count += 1;
        }
        Ok(count)
    }

    /// Commits, and returns when the file is on the disk.
    pub fn finish(self) -> Result<PathBuf, SqliteError> {
        self.connection.execute_batch("COMMIT")?;
        drop(self.connection);
        let file = std::fs::File::open(&self.path).and_then(|file| file.sync_all());
        file.map_err(|error| SqliteError::Sync { path: self.path.clone(), source: error })?;
        Ok(self.path)
    }
}
