//! Checks that references lead somewhere: the apply connection runs with SQLite's own enforcement off.
//!
//! Invariant: reads only. Callers: node (before it commits an apply; verification).

use super::quote::quote;
use super::{AppFile, Apply, RowWrite, SqliteError, schema, value};
use crate::model::{ForeignKey, TableSchema};

/// A row whose declared foreign key leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    /// The child's table.
    pub table: String,
    /// The child's rowid; `None` in a table without rowids.
    pub rowid: Option<i64>,
    /// The parent's table.
    pub parent: String,
}

impl AppFile {
    /// All dangling declared references of a table. Reads the whole table: for verification, not for the apply path.
    pub fn dangling(&self, table: &str) -> Result<Vec<Dangling>, SqliteError> {
        let mut statement =
            self.connection.prepare_cached("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check(?1)")?;
        let rows = statement.query_map([table], |row| {
            Ok(Dangling { table: schema::text(row, 0)?, rowid: row.get(1)?, parent: schema::text(row, 2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Apply<'_> {
    /// (position in the writes, parent table) of rows to be shown whose declared foreign keys lead nowhere, as this
    /// transaction sees the file. One lookup for each reference: cheap enough for every apply.
    pub fn missing_parents(&self, writes: &[RowWrite]) -> Result<Vec<(usize, String)>, SqliteError> {
        let mut missing = Vec::new();
        let mut table: Option<&TableSchema> = None;
        for (index, write) in writes.iter().enumerate() {
            let Some((_, image)) = &write.new else { continue };
            if table.is_none_or(|table| *table.name != *write.table) {
                table = Some(self.file().layout.find(&write.table)?.0);
            }
            let keys = table.iter().flat_map(|table| &table.foreign_keys);
            for key in keys.filter(|key| key.declared && key.database.is_none()) {
                let values: Vec<_> = key.columns.iter().map(|column| &image[*column]).collect();
                if !values.iter().any(|value| value.is_null()) && !self.parent_is_there(key, &values)? {
                    missing.push((index, key.parent.clone()));
                }
            }
        }
        Ok(missing)
    }

    fn parent_is_there(&self, key: &ForeignKey, values: &[&crate::model::Value]) -> Result<bool, SqliteError> {
        let terms: Vec<String> = key
            .parent_columns
            .iter()
            .enumerate()
            .map(|(i, column)| format!("{} = ?{}", quote(column), i + 1))
            .collect();
        let sql = format!("SELECT 1 FROM main.{} WHERE {} LIMIT 1", quote(&key.parent), terms.join(" AND "));
        let mut statement = self.file().connection.prepare_cached(&sql)?;
        value::bind(&mut statement, 1, values.iter().copied())?;
        let there = statement.raw_query().next()?.is_some();
        Ok(there)
    }
}
