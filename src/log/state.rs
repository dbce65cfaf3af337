//! The evaluator's state in a snapshot, and the keys of its tables.
//!
//! Invariant: one key function per table, used by readers ([`LogRead`]) and the writer ([`super::store`]) alike.
//! Callers: node (status, history, where, shelf), [`super::store`].

use redb::{ReadableTable, ReadableTableMetadata, TableHandle};

use super::overlay::Keys;
use super::tables::{self, join, prefix};
use super::{LogError, LogRead, record, row_record};
use crate::merge::claims;
use crate::merge::rules::RuleRecord;
use crate::merge::store::{AuditRecord, Fingerprint, Row, TableId};
use crate::model::{RowId, Value};

/// Canonical key bytes longer than this are stored as their hash: keys stay small whatever an app uses as a key.
const SHOWN_KEY_BYTES_MAX: usize = 128;

pub(super) fn table_row_key(table: TableId, row: &RowId) -> [u8; 33] {
    join(&[&table.0.to_be_bytes(), &row.to_bytes()])
}

/// The range of a table's rows behind `after`.
pub(super) fn table_row_range(table: TableId, after: Option<RowId>) -> ([u8; 33], [u8; 33]) {
    let (mut from, through) = prefix::<33>(&table.0.to_be_bytes());
    if let Some(after) = after {
        // The least key behind `after`: no row's bytes are all ones, so the carry stays within the row.
        from = table_row_key(table, &after);
        for byte in from.iter_mut().rev() {
            let (next, carry) = byte.overflowing_add(1);
            *byte = next;
            if !carry {
                break;
            }
        }
    }
    (from, through)
}

pub(super) fn claim_key(table: TableId, id: i64, row: &RowId) -> [u8; 45] {
    let remainder = claims::remainder(id).to_be_bytes();
    join(&[&table.0.to_be_bytes(), &remainder, &ordered(id).to_be_bytes(), &row.to_bytes()])
}

pub(super) fn claim_range(table: TableId, remainder: u32) -> ([u8; 45], [u8; 45]) {
    prefix(&join::<8>(&[&table.0.to_be_bytes(), &remainder.to_be_bytes()]))
}

/// The id and the row in a key of [`claim_key`].
pub(super) fn split_claim(key: &[u8; 45]) -> Result<(i64, RowId), LogError> {
    let id = key[8..].first_chunk::<8>().map_or(0, |id| u64::from_be_bytes(*id));
    Ok(((id ^ (1 << 63)) as i64, row_at_end(tables::CLAIMS.name(), key)?))
}

/// A number whose unsigned order is the signed order of `id`.
fn ordered(id: i64) -> u64 {
    (id as u64) ^ (1 << 63)
}

pub(super) fn referrer_key(parent: &RowId, child: &RowId) -> [u8; 58] {
    join(&[&parent.to_bytes(), &child.to_bytes()])
}

pub(super) fn unique_key(table: TableId, key: &[u8; 16], row: &RowId) -> [u8; 49] {
    join(&[&table.0.to_be_bytes(), key, &row.to_bytes()])
}

pub(super) fn unique_range(table: TableId, key: &[u8; 16]) -> ([u8; 49], [u8; 49]) {
    prefix(&join::<20>(&[&table.0.to_be_bytes(), key]))
}

pub(super) fn audit_row_key(row: &RowId, number: u64) -> [u8; 37] {
    join(&[&row.to_bytes(), &number.to_be_bytes()])
}

pub(super) fn shown_key(table: TableId, key: &[Value]) -> Vec<u8> {
    let mut bytes = table.0.to_be_bytes().to_vec();
    for value in key {
        value.write_canonical(&mut bytes);
    }
    if bytes.len() > SHOWN_KEY_BYTES_MAX {
        let hash = blake3::hash(&bytes);
        bytes.truncate(4);
        // No canonical value begins with this byte.
        bytes.push(0xff);
        bytes.extend_from_slice(hash.as_bytes());
    }
    bytes
}

/// The row that ends a key.
pub(super) fn row_at_end(table: &'static str, key: &[u8]) -> Result<RowId, LogError> {
    let row = key.last_chunk::<29>().and_then(|row| RowId::from_bytes(row));
    row.ok_or(LogError::CorruptRecord { table })
}

pub(super) fn rows_at_end<const N: usize>(table: &'static str, keys: &[[u8; N]]) -> Result<Vec<RowId>, LogError> {
    keys.iter().map(|key| row_at_end(table, key)).collect()
}

fn range<const N: usize>(base: &Keys<N>, from: &[u8; N], through: &[u8; N]) -> Result<Vec<[u8; N]>, LogError> {
    let mut keys = Vec::new();
    for entry in base.range::<&[u8; N]>(from..=through)? {
        keys.push(*entry?.0.value());
    }
    Ok(keys)
}

impl LogRead {
    /// The number of a table that was used before.
    pub fn find_table(&self, database: &str, table: &str) -> Result<Option<TableId>, LogError> {
        Ok(self.names.find(database, table))
    }

    /// Database and name of a table.
    pub fn table_name(&self, table: TableId) -> Result<(String, String), LogError> {
        let entry = self.names.table(table)?;
        Ok((entry.database.clone(), entry.table.clone()))
    }

    /// Names of a table's columns, by number.
    pub fn columns(&self, table: TableId) -> Result<Vec<String>, LogError> {
        Ok(self.names.table(table)?.columns.clone())
    }

    /// The numbers of a database's tables, ascending.
    pub fn tables_of(&self, database: &str) -> Vec<TableId> {
        self.names.of_database(database)
    }

    /// All rules that events said of a table.
    pub fn rules(&self, table: TableId) -> Result<Vec<RuleRecord>, LogError> {
        match self.rules.get(table.0)? {
            Some(value) => record::unseal(tables::RULES.name(), &table.0.to_be_bytes(), value.value()),
            None => Ok(Vec::new()),
        }
    }

    /// The record of a row.
    pub fn row(&self, row: &RowId) -> Result<Option<Row>, LogError> {
        match self.rows.get(&row.to_bytes())? {
            Some(value) => row_record::unpack(row, value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// At most `limit` rows of a table in ascending order, starting behind `after`.
    pub fn rows_of(&self, table: TableId, after: Option<RowId>, limit: usize) -> Result<Vec<RowId>, LogError> {
        let (from, through) = table_row_range(table, after);
        let mut rows = Vec::new();
        for entry in self.table_rows.range::<&[u8; 33]>(&from..=&through)?.take(limit) {
            rows.push(row_at_end(tables::TABLE_ROWS.name(), entry?.0.value())?);
        }
        Ok(rows)
    }

    /// The row that the file shows under a key.
    pub fn shown(&self, table: TableId, key: &[Value]) -> Result<Option<RowId>, LogError> {
        match self.shown.get(shown_key(table, key).as_slice())? {
            Some(row) => row_at_end(tables::SHOWN.name(), row.value()).map(Some),
            None => Ok(None),
        }
    }

    /// All claims of a table whose id has this remainder: (id, row), ids ascending.
    pub fn claims(&self, table: TableId, remainder: u32) -> Result<Vec<(i64, RowId)>, LogError> {
        let (from, through) = claim_range(table, remainder);
        range(&self.claims, &from, &through)?.iter().map(split_claim).collect()
    }

    /// Rows whose winning cells refer to `parent`, ascending.
    pub fn referrers(&self, parent: &RowId) -> Result<Vec<RowId>, LogError> {
        let (from, through) = prefix(&parent.to_bytes());
        rows_at_end(tables::REFERRERS.name(), &range(&self.referrers, &from, &through)?)
    }

    /// Live rows of a table that hold a UNIQUE key, ascending.
    pub fn unique_holders(&self, table: TableId, key: &[u8; 16]) -> Result<Vec<RowId>, LogError> {
        let (from, through) = unique_range(table, key);
        rows_at_end(tables::UNIQUE.name(), &range(&self.unique, &from, &through)?)
    }

    /// The fingerprint of a table's shown rows.
    pub fn fingerprint(&self, table: TableId) -> Result<Fingerprint, LogError> {
        match self.fingerprints.get(table.0)? {
            Some(value) => record::unseal(tables::FINGERPRINTS.name(), &table.0.to_be_bytes(), value.value()),
            None => Ok(Fingerprint::default()),
        }
    }

    /// Rows of a database whose file image must be written, by table.
    pub fn dirty(&self, database: &str) -> Result<Vec<RowId>, LogError> {
        let mut rows = Vec::new();
        for table in self.names.of_database(database) {
            let (from, through) = prefix(&table.0.to_be_bytes());
            rows.extend(rows_at_end(tables::DIRTY.name(), &range(&self.dirty, &from, &through)?)?);
        }
        Ok(rows)
    }

    /// All rows on the shelf, ascending.
    pub fn shelf(&self) -> Result<Vec<RowId>, LogError> {
        rows_at_end(tables::SHELF.name(), &range(&self.shelf, &[0; 29], &[0xff; 29])?)
    }

    /// How many rows are on the shelf.
    pub fn shelf_count(&self) -> Result<u64, LogError> {
        Ok(self.shelf.len()?)
    }

    /// One audit record.
    pub fn audit(&self, number: u64) -> Result<Option<AuditRecord>, LogError> {
        match self.audit.get(number)? {
            Some(value) => record::unseal(tables::AUDIT.name(), &number.to_be_bytes(), value.value()).map(Some),
            None => Ok(None),
        }
    }

    /// At most `limit` audit records, ascending, behind number `after`.
    pub fn audit_page(&self, after: u64, limit: usize) -> Result<Vec<AuditRecord>, LogError> {
        let mut records = Vec::new();
        for entry in self.audit.range(after.saturating_add(1)..)?.take(limit) {
            let (number, value) = entry?;
            records.push(record::unseal(tables::AUDIT.name(), &number.value().to_be_bytes(), value.value())?);
        }
        Ok(records)
    }

    /// All audit records of a row, ascending.
    pub fn audit_by_row(&self, row: &RowId) -> Result<Vec<AuditRecord>, LogError> {
        let (from, through) = prefix::<37>(&row.to_bytes());
        let corrupt = || LogError::CorruptRecord { table: tables::AUDIT.name() };
        let mut records = Vec::new();
        for key in range(&self.audit_rows, &from, &through)? {
            let number = u64::from_be_bytes(*key.last_chunk::<8>().ok_or_else(corrupt)?);
            records.push(self.audit(number)?.ok_or_else(corrupt)?);
        }
        Ok(records)
    }

    /// How many audit records a database has.
    pub fn audit_count(&self, database: &str) -> Result<u64, LogError> {
        Ok(self.database(database)?.map_or(0, |record| record.audits))
    }

    /// The number of the last audit record; 0 when there is none.
    pub fn last_audit(&self) -> Result<u64, LogError> {
        Ok(self.audit.last()?.map_or(0, |(number, _)| number.value()))
    }
}
