//! The evaluator's storage over a write transaction.
//!
//! Invariant: the same answers as `merge::memory` for the same calls: committed state with this transaction's changes
//! laid over it. Caller: the evaluator, by way of `merge::store::Store`.

use std::sync::Arc;

use redb::{ReadableTableMetadata, TableHandle};

use super::names::NamedTable;
use super::state::{
    claim_key, claim_range, referrer_key, rows_at_end, shown_key, split_claim, table_row_key, table_row_range,
    unique_key, unique_range,
};
use super::tables::{self, prefix};
use super::{LogError, LogWrite};
use crate::merge::rules::RuleRecord;
use crate::merge::store::{AuditRecord, Fingerprint, Row, Store, TableId};
use crate::model::{Cut, OriginId, RowId, Value};

impl Store for LogWrite<'_> {
    type Error = LogError;

    fn table_id(&mut self, database: &str, table: &str) -> Result<TableId, LogError> {
        if let Some(id) = self.names.find(database, table) {
            return Ok(id);
        }
        let names = Arc::make_mut(&mut self.names);
        let number = names.tables.len() as u32;
        let (database, table) = (database.to_owned(), table.to_owned());
        names.tables.push(NamedTable { database, table, columns: Vec::new() });
        self.names_changed.insert(number);
        Ok(TableId(number))
    }

    fn find_table(&self, database: &str, table: &str) -> Result<Option<TableId>, LogError> {
        Ok(self.names.find(database, table))
    }

    fn table_name(&self, table: TableId) -> Result<(String, String), LogError> {
        let entry = self.names.table(table)?;
        Ok((entry.database.clone(), entry.table.clone()))
    }

    fn column_id(&mut self, table: TableId, column: &str) -> Result<u16, LogError> {
        let columns = &self.names.table(table)?.columns;
        if let Some(position) = columns.iter().position(|name| name.eq_ignore_ascii_case(column)) {
            return Ok(position as u16);
        }
        let number = columns.len();
        Arc::make_mut(&mut self.names).tables[table.0 as usize].columns.push(column.to_owned());
        self.names_changed.insert(table.0);
        Ok(number as u16)
    }

    fn columns(&self, table: TableId) -> Result<Vec<String>, LogError> {
        Ok(self.names.table(table)?.columns.clone())
    }

    fn rules(&self, table: TableId) -> Result<Vec<RuleRecord>, LogError> {
        match self.changed.rules.get(&table) {
            Some(records) => Ok(records.clone()),
            None => self.base.rules(table),
        }
    }

    fn put_rule(&mut self, table: TableId, record: &RuleRecord) -> Result<(), LogError> {
        let mut records = Store::rules(self, table)?;
        records.push(record.clone());
        self.changed.rules.insert(table, records);
        Ok(())
    }

    fn row(&self, row: &RowId) -> Result<Option<Arc<Row>>, LogError> {
        match self.changed.rows.get(row) {
            Some(record) => Ok(Some(record.clone())),
            None => Ok(self.base.row(row)?.map(Arc::new)),
        }
    }

    fn put_row(&mut self, row: &RowId, record: Arc<Row>, new: bool) -> Result<(), LogError> {
        if new {
            self.changed.table_rows.set(table_row_key(record.table, row), true);
        }
        self.changed.rows.insert(*row, record);
        Ok(())
    }

    fn rows_of(&self, table: TableId, after: Option<RowId>, limit: usize) -> Result<Vec<RowId>, LogError> {
        let (from, through) = table_row_range(table, after);
        let keys = self.changed.table_rows.range(&self.base.table_rows, &from, &through, limit)?;
        rows_at_end(tables::TABLE_ROWS.name(), &keys)
    }

    fn shown(&self, table: TableId, key: &[Value]) -> Result<Option<RowId>, LogError> {
        match self.changed.shown.get(&shown_key(table, key)) {
            Some(row) => Ok(*row),
            None => self.base.shown(table, key),
        }
    }

    fn set_shown(&mut self, table: TableId, key: &[Value], row: Option<RowId>) -> Result<(), LogError> {
        self.changed.shown.insert(shown_key(table, key), row);
        Ok(())
    }

    fn claims(&self, table: TableId, remainder: u32) -> Result<Vec<(i64, RowId)>, LogError> {
        let (from, through) = claim_range(table, remainder);
        let keys = self.changed.claims.range(&self.base.claims, &from, &through, usize::MAX)?;
        keys.iter().map(split_claim).collect()
    }

    fn add_claim(&mut self, table: TableId, id: i64, row: RowId) -> Result<(), LogError> {
        self.changed.claims.set(claim_key(table, id, &row), true);
        Ok(())
    }

    fn remove_claim(&mut self, table: TableId, id: i64, row: RowId) -> Result<(), LogError> {
        self.changed.claims.set(claim_key(table, id, &row), false);
        Ok(())
    }

    fn referrers(&self, parent: &RowId) -> Result<Vec<RowId>, LogError> {
        let (from, through) = prefix(&parent.to_bytes());
        let keys = self.changed.referrers.range(&self.base.referrers, &from, &through, usize::MAX)?;
        rows_at_end(tables::REFERRERS.name(), &keys)
    }

    fn add_referrer(&mut self, parent: RowId, child: RowId) -> Result<(), LogError> {
        self.changed.referrers.set(referrer_key(&parent, &child), true);
        Ok(())
    }

    fn remove_referrer(&mut self, parent: RowId, child: RowId) -> Result<(), LogError> {
        self.changed.referrers.set(referrer_key(&parent, &child), false);
        Ok(())
    }

    fn unique_holders(&self, table: TableId, key: &[u8; 16]) -> Result<Vec<RowId>, LogError> {
        let (from, through) = unique_range(table, key);
        let keys = self.changed.unique.range(&self.base.unique, &from, &through, usize::MAX)?;
        rows_at_end(tables::UNIQUE.name(), &keys)
    }

    fn add_unique(&mut self, table: TableId, key: [u8; 16], row: RowId) -> Result<(), LogError> {
        self.changed.unique.set(unique_key(table, &key, &row), true);
        Ok(())
    }

    fn remove_unique(&mut self, table: TableId, key: [u8; 16], row: RowId) -> Result<(), LogError> {
        self.changed.unique.set(unique_key(table, &key, &row), false);
        Ok(())
    }

    fn cut_of(&self, database: &str, origin: OriginId, seq: u64) -> Result<Cut, LogError> {
        LogWrite::cut_of(self, database, origin, seq)
    }

    fn fingerprint(&self, table: TableId) -> Result<Fingerprint, LogError> {
        match self.changed.fingerprints.get(&table) {
            Some(fingerprint) => Ok(*fingerprint),
            None => self.base.fingerprint(table),
        }
    }

    fn put_fingerprint(&mut self, table: TableId, fingerprint: Fingerprint) -> Result<(), LogError> {
        self.changed.fingerprints.insert(table, fingerprint);
        Ok(())
    }

    fn note_shown(
        &mut self,
        table: TableId,
        row: &RowId,
        was: Option<[u8; 32]>,
        is: Option<[u8; 32]>,
    ) -> Result<(), LogError> {
        #[cfg(feature = "simulation")]
        if self.log.printless.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        self.changed.prints.note(table, row, was, is);
        Ok(())
    }

    fn add_audit(&mut self, record: AuditRecord) -> Result<(), LogError> {
        let last = match self.changed.last_audit {
            Some(last) => last,
            None => self.base.last_audit()?,
        };
        self.changed.last_audit = Some(last + 1);
        self.database_mut(&record.database).audits += 1;
        self.changed.audit.push(AuditRecord { number: last + 1, ..record });
        Ok(())
    }

    fn set_shelf(&mut self, row: RowId, shelved: bool) -> Result<(), LogError> {
        // Most logs have an empty shelf, and most rows were never on it.
        if shelved || !self.base.shelf.is_empty()? || !self.changed.shelf.is_empty() {
            self.changed.shelf.set(row.to_bytes(), shelved);
        }
        Ok(())
    }

    fn set_dirty(&mut self, table: TableId, row: RowId, dirty: bool) -> Result<(), LogError> {
        self.changed.dirty.set(table_row_key(table, &row), dirty);
        Ok(())
    }

    fn dirty(&self, database: &str) -> Result<Vec<RowId>, LogError> {
        let mut rows = Vec::new();
        for table in self.names.of_database(database) {
            let (from, through) = prefix(&table.0.to_be_bytes());
            let keys = self.changed.dirty.range(&self.base.dirty, &from, &through, usize::MAX)?;
            rows.extend(rows_at_end(tables::DIRTY.name(), &keys)?);
        }
        Ok(rows)
    }
}
