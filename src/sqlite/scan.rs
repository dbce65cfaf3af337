//! Reads rows of the app's tables: by key, or all of them in key order.
//!
//! Invariant: a row is returned only under exactly the key it has (SQLite finds `A` under `a` and 1 under 1.0); no read
//! transaction is longer than a page. Callers: drain, apply, node (genesis, drift scans), rebuild checks.

use std::ops::ControlFlow;

use rusqlite::CachedStatement;

use super::plan::TablePlan;
use super::{AppFile, Image, SqliteError, steering, value};
use crate::model::{Key, TableSchema, Value};

/// Rows per read transaction in [`AppFile::scan`]: well under 200 ms even for rows of some kilobytes.
const PAGE_ROWS: usize = 5_000;

/// Reads rows of one table by key.
pub(super) struct RowReader<'f> {
    plan: &'f TablePlan,
    key_positions: Vec<usize>,
    statement: CachedStatement<'f>,
}

impl RowReader<'_> {
    /// The row with exactly this key.
    pub(super) fn read(&mut self, key: &Key) -> Result<Option<Image>, SqliteError> {
        if key.len() != self.plan.key.len() {
            return Ok(None);
        }
        value::bind(&mut self.statement, 1, key)?;
        let mut rows = self.statement.raw_query();
        let Some(row) = rows.next()? else { return Ok(None) };
        let image = value::read_columns(row, 0, self.plan.width)?;
        let exact = self.plan.by_rowid
            || self.plan.finds_exactly(key)
            || self.key_positions.iter().zip(key).all(|(position, part)| image[*position] == *part);
        Ok(exact.then_some(image))
    }
}

impl AppFile {
    /// The rows with these keys, in the order of the keys.
    pub fn read_rows(&self, table: &str, keys: &[Key]) -> Result<Vec<Option<Image>>, SqliteError> {
        let mut reader = self.row_reader(table)?;
        keys.iter().map(|key| reader.read(key)).collect()
    }

    pub(super) fn row_reader(&self, table: &str) -> Result<RowReader<'_>, SqliteError> {
        let (schema, plan) = self.layout.find(table)?;
        let statement = self.connection.prepare_cached(&plan.select)?;
        Ok(RowReader { plan, key_positions: schema.key_columns(), statement })
    }

    /// At most `limit` rows in key order, starting behind `after`. Rows with a NULL in their declared key are not among
    /// them.
    pub fn scan_page(&self, table: &str, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Image)>, SqliteError> {
        let (schema, plan) = self.layout.find(table)?;
        let mut statement = self.connection.prepare_cached(&plan.page(after.is_none()))?;
        let rows_max = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        value::bind(&mut statement, 1, after.into_iter().flatten().chain([&rows_max]))?;
        let mut rows = statement.raw_query();
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            page.push(read_keyed(schema, plan, row)?);
        }
        drop(rows);
        drop(statement);
        self.leave_out_placeholder(&schema.name, page, limit)
    }

    /// A page without a row that steering left, should one stand; as long as it was, so that nobody takes it for the last.
    fn leave_out_placeholder(
        &self,
        table: &str,
        mut page: Vec<(Key, Image)>,
        limit: usize,
    ) -> Result<Vec<(Key, Image)>, SqliteError> {
        if !self.installed {
            return Ok(page);
        }
        let Some(id) = steering::leftovers(&self.connection, &self.registry)?.remove(table) else { return Ok(page) };
        let (read, last) = (page.len(), page.last().map(|(key, _)| key.clone()));
        page.retain(|(key, _)| key[..] != [Value::Integer(id)]);
        if page.len() < read && read == limit {
            page.extend(self.scan_page(table, last.as_ref(), 1)?);
        }
        Ok(page)
    }

    /// Gives every row of a table to `each`, in key order, until it breaks. Each page is a snapshot of its own: rows that
    /// the app writes meanwhile are marked and come with the next drain.
    pub fn scan(
        &self,
        table: &str,
        each: &mut dyn FnMut(Key, Image) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, SqliteError> {
        let mut after: Option<Key> = None;
        loop {
            let page = self.scan_page(table, after.as_ref(), PAGE_ROWS)?;
            let last_page = page.len() < PAGE_ROWS;
            after = page.last().map(|(key, _)| key.clone());
            for (key, image) in page {
                if each(key, image).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if last_page {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Number of rows of a replicated table.
    pub fn count_rows(&self, table: &str) -> Result<u64, SqliteError> {
        let (_, plan) = self.layout.find(table)?;
        let count: i64 = self
            .connection
            .prepare_cached(&format!("SELECT count(*) FROM main.{}", plan.table))?
            .query_row([], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }
}

fn read_keyed(schema: &TableSchema, plan: &TablePlan, row: &rusqlite::Row<'_>) -> Result<(Key, Image), SqliteError> {
    if plan.by_rowid {
        let rowid = row.get(0)?;
        return Ok((vec![Value::Integer(rowid)], value::read_columns(row, 1, plan.width)?));
    }
    let image = value::read_columns(row, 0, plan.width)?;
    Ok((schema.key_of(&image, None), image))
}
