//! Getters about single rows: where an id went, what is shown under a key.
//!
//! Invariant: nothing here changes anything. Callers: http, cli.

use std::collections::BTreeSet;

use super::query::key_text;
use super::view::{WhereRow, WhereView};
use super::{Node, NodeError};
use crate::log::LogRead;
use crate::merge::claims::remainder;
use crate::merge::store::{Row, TableId};
use crate::model::{Identity, Key, RowId, TableSchema, Value};

/// A table as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
}

impl Node {
    /// The row that is shown under a key (values joined by commas).
    pub(super) fn shown_row(&self, place: &Place, key: &str) -> Result<RowId, NodeError> {
        let read = self.log.read()?;
        let (table, schema) = self.table_of(&read, &place.database, &place.table)?;
        for key in keys_meant(schema, key) {
            if let Some(row) = read.shown(table, &key)? {
                return Ok(row);
            }
        }
        Err(NodeError::Invalid(format!(
            "no row of {}.{} is shown under {key}: `litemesh where {}.{} {key}` tells where it went",
            place.database, place.table, place.database, place.table
        )))
    }

    /// The row that is shown under a key; or one of the shelf, which is shown under none, by its identity as the shelf lists it.
    pub(super) fn named_row(&self, place: &Place, name: &str) -> Result<RowId, NodeError> {
        let shown = self.shown_row(place, name);
        if shown.is_ok() {
            return shown;
        }
        let read = self.log.read()?;
        let (table, _) = self.table_of(&read, &place.database, &place.table)?;
        let mut named = Vec::new();
        for (row, _, _) in self.shelved_rows(&read)? {
            if row.to_string() == name && read.row(&row)?.is_some_and(|record| record.table == table) {
                named.push(row);
            }
        }
        match named[..] {
            [row] => Ok(row),
            _ => shown,
        }
    }

    /// All rows that were ever born with an id or are shown under it; with `node`, only those born there.
    pub fn where_is(&self, database: &str, table: &str, id: &str, node: Option<&str>) -> Result<WhereView, NodeError> {
        let read = self.log.read()?;
        let (number, schema) = self.table_of(&read, database, table)?;
        let mut view = WhereView {
            database: database.to_string(),
            table: table.to_string(),
            id: id.to_string(),
            rows: Vec::new(),
        };
        for row in self.rows_under(&read, database, number, schema, id)? {
            view.rows
                .extend(self.where_row(&read, &row, id)?.filter(|found| node.is_none_or(|node| node == found.node)));
        }
        Ok(view)
    }

    /// Where one row that somebody looks for under an id is now.
    pub(super) fn where_row(&self, read: &LogRead, row: &RowId, id: &str) -> Result<Option<WhereRow>, NodeError> {
        let Some(record) = read.row(row)? else { return Ok(None) };
        let author = record.births.first().map(|(dot, _)| self.author(&dot.origin)).unwrap_or_default();
        let stands = match record.members().first() {
            Some(canonical) if canonical != row => read.row(canonical)?,
            _ => None,
        };
        let state = match &stands {
            Some(class) => format!("one row with {}", class.shown.as_deref().map(key_text).unwrap_or_default()),
            None => self.state_text(read, &record)?,
        };
        let now = stands.as_ref().unwrap_or(&record).shown.as_deref().map(key_text);
        Ok(Some(WhereRow {
            row: row.to_string(),
            node: author,
            born_as: record.claim.map_or_else(|| id.to_string(), |claim| claim.id.to_string()),
            now: now.or(record.id.map(|id| id.to_string())).unwrap_or_default(),
            state,
        }))
    }

    /// Rows known under a key: first the one shown there, then those that claim it or got it, then the one so named.
    pub(super) fn rows_under(
        &self,
        read: &LogRead,
        database: &str,
        table: TableId,
        schema: &TableSchema,
        key: &str,
    ) -> Result<Vec<RowId>, NodeError> {
        let mut rows = Vec::new();
        let mut seen = BTreeSet::new();
        let mut add = |row: RowId, rows: &mut Vec<RowId>| {
            if seen.insert(row) {
                rows.push(row);
            }
        };
        for key in keys_meant(schema, key) {
            if let Some(row) = read.shown(table, &key)? {
                add(row, &mut rows);
            }
            let cells: Vec<crate::model::Cell> = key.iter().cloned().map(crate::model::Cell::Plain).collect();
            let identity = RowId::keyed(database, &schema.name, &cells);
            if read.row(&identity)?.is_some() {
                add(identity, &mut rows);
            }
        }
        if let (Ok(id), Identity::Surrogate(_) | Identity::Rowid) = (key.parse::<i64>(), &schema.identity) {
            for (claimed, row) in read.claims(table, remainder(id))? {
                let holds = read.row(&row)?.is_some_and(|record| record.id == Some(id));
                if claimed == id || holds {
                    add(row, &mut rows);
                }
            }
        }
        let mut after = None;
        while rows.is_empty() && key.contains(':') {
            let page = read.rows_of(table, after, 2_000)?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            rows.extend(page.into_iter().filter(|row| row.to_string() == key));
        }
        Ok(rows)
    }

    /// The position of a database that a person names.
    pub(super) fn position_of(&self, database: &str) -> Result<usize, NodeError> {
        super::travel::position_of(&self.schemas, database)
    }

    /// A table that a person names.
    pub(super) fn replicated_table(&self, position: usize, table: &str) -> Result<&TableSchema, NodeError> {
        let schema = &self.schemas[position];
        schema.table(table).ok_or_else(|| {
            let database = &schema.database;
            NodeError::Invalid(format!(
                "no replicated table of {database} is named {table}: `litemesh preflight` lists them"
            ))
        })
    }

    pub(super) fn table_of(
        &self,
        read: &LogRead,
        database: &str,
        table: &str,
    ) -> Result<(TableId, &TableSchema), NodeError> {
        let found = self.replicated_table(self.position_of(database)?, table)?;
        let id = read
            .find_table(database, &found.name)?
            .ok_or_else(|| NodeError::Invalid(format!("{database}.{table} has never held a row")))?;
        Ok((id, found))
    }

    pub(super) fn state_text(&self, read: &LogRead, record: &Row) -> Result<String, NodeError> {
        Ok(match (&record.shelved, record.alive, &record.shown) {
            (_, false, _) => "deleted".to_string(),
            (Some(reason), true, _) => format!("shelved: {}", self.shelf_reason(read, reason)?),
            (None, true, Some(_)) => match (&record.whole, record.overlay.is_empty()) {
                (Some(whole), _) => format!(
                    "shown as its newest author saw it: with what others wrote at the same time SQLite says \"{}\"",
                    whole.message
                ),
                (None, false) => "shown with a tag: another row shows its UNIQUE value".to_string(),
                (None, true) => "shown".to_string(),
            },
            (None, true, None) => "not applied yet".to_string(),
        })
    }
}

/// The keys that a typed key can mean: numbers as numbers and as text.
fn keys_meant(schema: &TableSchema, typed: &str) -> Vec<Key> {
    let count = schema.key_columns().len().max(1);
    let parts: Vec<&str> = if count == 1 { vec![typed] } else { typed.split(',').collect() };
    if parts.len() != count {
        return Vec::new();
    }
    let as_number = |part: &&str| part.trim().parse::<i64>().map_or_else(|_| Value::text(part), Value::Integer);
    let numbers: Key = parts.iter().map(as_number).collect();
    let texts: Key = parts.iter().map(|part| Value::text(part)).collect();
    if numbers == texts { vec![texts] } else { vec![numbers, texts] }
}
