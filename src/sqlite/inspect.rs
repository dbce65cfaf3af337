//! Reads parts of the app's tables for verification: rows, and which of them are marked, in one snapshot.
//!
//! Invariant: rows, marks and the file's epoch of one answer belong to one read snapshot, so that a row that differs from
//! the log and has no mark there differs for another reason than a write that is still to be captured. No read transaction
//! outlives a call; a call reads at most `limit` rows and stops behind [`BYTES_MAX`]. Caller: node::verify, node::drift.

use std::collections::BTreeSet;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::plan::TablePlan;
use super::quote::quote;
use super::{AppFile, Drain, Image, SqliteError, enroll, meta, steering, triggers, value};
use crate::model::{Identity, Key, TableSchema, Value};

/// A page ends behind so many bytes of values, however few rows these are.
const BYTES_MAX: usize = 1 << 20;

/// With more marks than this waiting, the outbox is drained first.
const MARKS_MAX: i64 = 2_000;

/// Pages of a file whose structure is checked by SQLite in one go: about 20 ms.
const CHECKED_PAGES_MAX: i64 = 4_000;

/// Part of a table as it stood at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspected {
    /// Rows in key order (of [`AppFile::inspect_rows`]: in the order asked, `None` for those that are not there). Of
    /// [`AppFile::inspect_keys`] the images are empty.
    pub rows: Vec<(Key, Option<Image>)>,
    /// Keys of the table that marks name: written by the app, not captured yet.
    pub marked: BTreeSet<Key>,
    /// The file's epoch.
    pub epoch: u64,
    /// The table ends here.
    pub at_end: bool,
}

impl AppFile {
    /// The next rows of a table in key order, behind `after`. [`SqliteError::Busy`]: many marks wait, drain first.
    pub fn inspect_page(&self, table: &str, after: Option<&Key>, limit: usize) -> Result<Inspected, SqliteError> {
        self.inspect(table, |file, schema, plan, found| {
            let sql = plan.page(after.is_none());
            file.read_page(schema, plan, (&sql, after, limit), found, |row| read_keyed(schema, plan, row))
        })
    }

    /// The next keys of a table in key order, behind `after`.
    pub fn inspect_keys(&self, table: &str, after: Option<&Key>, limit: usize) -> Result<Inspected, SqliteError> {
        self.inspect(table, |file, schema, plan, found| {
            let sql = plan.key_page(after.is_none());
            let width = plan.key.len();
            file.read_page(schema, plan, (&sql, after, limit), found, |row| {
                Ok((value::read_columns(row, 0, width)?, Image::new()))
            })
        })
    }

    /// The rows with these keys.
    pub fn inspect_rows(&self, table: &str, keys: &[Key]) -> Result<Inspected, SqliteError> {
        self.inspect(table, |file, schema, _, found| {
            let mut reader = file.row_reader(&schema.name)?;
            for key in keys {
                found.rows.push((key.clone(), reader.read(key)?));
            }
            Ok(())
        })
    }

    /// Counts at most `limit` rows behind `after`: their number, and the key of the last one while there may be more.
    /// With it whether marks wait, in the same snapshot.
    pub fn inspect_count(
        &self,
        table: &str,
        after: Option<&Key>,
        limit: u64,
    ) -> Result<(u64, Option<Key>, bool), SqliteError> {
        let (mut counted, mut last) = (0, None);
        let found = self.inspect(table, |file, _, plan, _| {
            let width = plan.key.len();
            let bound: Vec<Value> = after.into_iter().flatten().cloned().collect();
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let sql = format!("{} OFFSET ?{}", plan.key_page(after.is_none()), bound.len() + 2);
            let mut statement = file.connection.prepare_cached(&sql)?;
            let (one, skip) = (Value::Integer(1), Value::Integer(limit - 1));
            value::bind(&mut statement, 1, bound.iter().chain([&one, &skip]))?;
            let mut rows = statement.raw_query();
            if let Some(row) = rows.next()? {
                last = Some(value::read_columns(row, 0, width)?);
                counted = limit.unsigned_abs();
                return Ok(());
            }
            drop(rows);
            let sql = format!("SELECT count(*) FROM ({})", plan.key_page(after.is_none()));
            let mut statement = file.connection.prepare_cached(&sql)?;
            let limit = Value::Integer(limit);
            value::bind(&mut statement, 1, bound.iter().chain([&limit]))?;
            let mut rows = statement.raw_query();
            counted = match rows.next()? {
                Some(row) => row.get::<_, i64>(0)?.unsigned_abs(),
                None => 0,
            };
            Ok(())
        })?;
        Ok((counted, last, !found.marked.is_empty()))
    }

    /// Forgets what SQLite remembers of the file's pages, so that the next reads see the file.
    pub fn forget_pages(&self) -> Result<(), SqliteError> {
        Ok(self.connection.release_memory()?)
    }

    /// What SQLite says of the structure of the file: its schema as whoever opens it now reads it, tables, indexes,
    /// constraints; at most `limit` findings. `None`: the file is too large to have more than its schema checked in one go.
    pub fn check_structure(&self, limit: u32) -> Result<Option<Vec<String>>, SqliteError> {
        // This connection remembers the schema: damage of it meets only those who open the file afterwards.
        let fresh = enroll::connect(&self.settings.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        fresh.query_row("SELECT count(*) FROM main.sqlite_master", [], |row| row.get::<_, i64>(0))?;
        drop(fresh);
        let pages: i64 = self.connection.query_row("PRAGMA main.page_count", [], |row| row.get(0))?;
        if pages > CHECKED_PAGES_MAX {
            return Ok(None);
        }
        let mut statement = self.connection.prepare(&format!("PRAGMA main.integrity_check({limit})"))?;
        let found = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Some(found.into_iter().filter(|words| words != "ok").collect()))
    }

    /// The replicated table of an index.
    pub fn table_of_index(&self, index: &str) -> Result<Option<String>, SqliteError> {
        let sql = "SELECT tbl_name FROM main.sqlite_master WHERE type = 'index' AND name = ?1";
        let table = self.connection.prepare_cached(sql)?.query_row([index], |row| row.get(0)).optional()?;
        Ok(table.filter(|table: &String| self.layout.schema.table(table).is_some()))
    }

    /// Makes all indexes of a table again from its rows.
    pub fn reindex(&mut self, table: &str) -> Result<(), SqliteError> {
        let (schema, _) = self.layout.find(table)?;
        let sql = format!("REINDEX main.{}", quote(&schema.name));
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(&sql)?;
        Ok(transaction.commit()?)
    }

    /// Makes a table that was dropped again: the statements of its table and its indexes.
    pub fn recreate(&mut self, sql: &[String]) -> Result<(), SqliteError> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for statement in sql {
            transaction.execute_batch(statement)?;
        }
        Ok(transaction.commit()?)
    }

    /// Replicated tables that lack a trigger without which writes go unseen.
    pub fn unguarded(&self) -> Result<Vec<String>, SqliteError> {
        let mut missing = Vec::new();
        for (number, entry) in self.registry.iter().filter(|(_, entry)| !entry.gone) {
            for kind in triggers::VITAL_KINDS {
                if !trigger_stands(&self.connection, &triggers::name(*number, kind))? {
                    missing.push(entry.name.clone());
                    break;
                }
            }
        }
        Ok(missing)
    }

    fn inspect(
        &self,
        table: &str,
        read: impl FnOnce(&AppFile, &TableSchema, &TablePlan, &mut Inspected) -> Result<(), SqliteError>,
    ) -> Result<Inspected, SqliteError> {
        let transaction = self.connection.unchecked_transaction()?;
        self.check_layout()?;
        let (schema, plan) = self.layout.find(table)?;
        let mut found = Inspected { epoch: meta::read(&self.connection)?.epoch, ..Inspected::default() };
        if marks_waiting(&self.connection)? > MARKS_MAX {
            return Err(SqliteError::Busy);
        }
        let (marks, _) = self.read_marks(&mut Drain::default())?;
        for raw in marks.into_iter().filter(|raw| raw.mark.table == schema.name) {
            found.marked.extend(raw.mark.old_key);
            found.marked.insert(raw.mark.key);
        }
        read(self, schema, plan, &mut found)?;
        drop(transaction);
        Ok(found)
    }

    fn read_page(
        &self,
        schema: &TableSchema,
        _plan: &TablePlan,
        (sql, after, limit): (&str, Option<&Key>, usize),
        found: &mut Inspected,
        read: impl Fn(&rusqlite::Row<'_>) -> Result<(Key, Image), SqliteError>,
    ) -> Result<(), SqliteError> {
        let placeholder = steering::leftovers(&self.connection, &self.registry)?.remove(&schema.name);
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows_max = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        value::bind(&mut statement, 1, after.into_iter().flatten().chain([&rows_max]))?;
        let mut rows = statement.raw_query();
        let (mut read_rows, mut bytes) = (0, 0);
        found.at_end = true;
        while let Some(row) = rows.next()? {
            let (key, image) = read(row)?;
            (read_rows, bytes) = (read_rows + 1, bytes + image.iter().map(Value::weight).sum::<usize>());
            // The last row of a page stays in it whatever it is: the next page starts behind it.
            let is_placeholder = placeholder.is_some_and(|id| key[..] == [Value::Integer(id)]);
            found.at_end = read_rows < limit;
            if is_placeholder {
                found.marked.insert(key.clone());
            }
            found.rows.push((key, Some(image)));
            if bytes > BYTES_MAX {
                found.at_end = false;
                break;
            }
        }
        Ok(())
    }
}

/// Marks in the outbox, as far as it matters.
fn marks_waiting(connection: &Connection) -> Result<i64, SqliteError> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM main._litemesh_outbox LIMIT {})", MARKS_MAX + 1);
    Ok(meta::prepare(connection, &sql)?.query_row([], |row| row.get(0))?)
}

fn trigger_stands(connection: &Connection, name: &str) -> Result<bool, SqliteError> {
    let sql = "SELECT 1 FROM main.sqlite_master WHERE type = 'trigger' AND name = ?1";
    Ok(connection.prepare_cached(sql)?.exists([name])?)
}

fn read_keyed(schema: &TableSchema, plan: &TablePlan, row: &rusqlite::Row<'_>) -> Result<(Key, Image), SqliteError> {
    if schema.identity == Identity::Rowid {
        let rowid = row.get(0)?;
        return Ok((vec![Value::Integer(rowid)], value::read_columns(row, 1, plan.width)?));
    }
    let image = value::read_columns(row, 0, plan.width)?;
    Ok((schema.key_of(&image, None), image))
}
