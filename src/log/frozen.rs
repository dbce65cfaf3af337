//! A snapshot of the log as the evaluator's storage: to ask what rows show at one moment, beside the node's own work.
//!
//! Invariant: nothing is ever written; whoever tries gets an error and the snapshot stays what it is.
//! Caller: node (giving snapshots).

use std::sync::Arc;

use super::{LogError, LogRead};
use crate::merge::rules::RuleRecord;
use crate::merge::store::{AuditRecord, Fingerprint, Row, Store, TableId};
use crate::model::{Cut, OriginId, RowId, Value};

/// A snapshot that answers the evaluator.
pub struct Frozen<'r>(pub &'r LogRead);

/// What a write to a snapshot gives.
fn refused<T>() -> Result<T, LogError> {
    Err(LogError::Storage(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem)))
}

impl Store for Frozen<'_> {
    type Error = LogError;

    fn table_id(&mut self, database: &str, table: &str) -> Result<TableId, LogError> {
        self.0.find_table(database, table)?.map_or_else(refused, Ok)
    }

    fn find_table(&self, database: &str, table: &str) -> Result<Option<TableId>, LogError> {
        self.0.find_table(database, table)
    }

    fn table_name(&self, table: TableId) -> Result<(String, String), LogError> {
        self.0.table_name(table)
    }

    fn column_id(&mut self, table: TableId, column: &str) -> Result<u16, LogError> {
        let columns = self.0.columns(table)?;
        let found = columns.iter().position(|name| name.eq_ignore_ascii_case(column));
        found.map_or_else(refused, |at| Ok(at as u16))
    }

    fn columns(&self, table: TableId) -> Result<Vec<String>, LogError> {
        self.0.columns(table)
    }

    fn rules(&self, table: TableId) -> Result<Vec<RuleRecord>, LogError> {
        self.0.rules(table)
    }

    fn put_rule(&mut self, _: TableId, _: &RuleRecord) -> Result<(), LogError> {
        refused()
    }

    fn row(&self, row: &RowId) -> Result<Option<Arc<Row>>, LogError> {
        Ok(self.0.row(row)?.map(Arc::new))
    }

    fn put_row(&mut self, _: &RowId, _: Arc<Row>, _: bool) -> Result<(), LogError> {
        refused()
    }

    fn rows_of(&self, table: TableId, after: Option<RowId>, limit: usize) -> Result<Vec<RowId>, LogError> {
        self.0.rows_of(table, after, limit)
    }

    fn shown(&self, table: TableId, key: &[Value]) -> Result<Option<RowId>, LogError> {
        self.0.shown(table, key)
    }

    fn set_shown(&mut self, _: TableId, _: &[Value], _: Option<RowId>) -> Result<(), LogError> {
        refused()
    }

    fn claims(&self, table: TableId, remainder: u32) -> Result<Vec<(i64, RowId)>, LogError> {
        self.0.claims(table, remainder)
    }

    fn add_claim(&mut self, _: TableId, _: i64, _: RowId) -> Result<(), LogError> {
        refused()
    }

    fn remove_claim(&mut self, _: TableId, _: i64, _: RowId) -> Result<(), LogError> {
        refused()
    }

    fn referrers(&self, parent: &RowId) -> Result<Vec<RowId>, LogError> {
        self.0.referrers(parent)
    }

    fn add_referrer(&mut self, _: RowId, _: RowId) -> Result<(), LogError> {
        refused()
    }

    fn remove_referrer(&mut self, _: RowId, _: RowId) -> Result<(), LogError> {
        refused()
    }

    fn unique_holders(&self, table: TableId, key: &[u8; 16]) -> Result<Vec<RowId>, LogError> {
        self.0.unique_holders(table, key)
    }

    fn add_unique(&mut self, _: TableId, _: [u8; 16], _: RowId) -> Result<(), LogError> {
        refused()
    }

    fn remove_unique(&mut self, _: TableId, _: [u8; 16], _: RowId) -> Result<(), LogError> {
        refused()
    }

    fn cut_of(&self, database: &str, origin: OriginId, seq: u64) -> Result<Cut, LogError> {
        self.0.cut_of(database, origin, seq)
    }

    fn fingerprint(&self, table: TableId) -> Result<Fingerprint, LogError> {
        self.0.fingerprint(table)
    }

    fn put_fingerprint(&mut self, _: TableId, _: Fingerprint) -> Result<(), LogError> {
        refused()
    }

    fn add_audit(&mut self, _: AuditRecord) -> Result<(), LogError> {
        refused()
    }

    fn set_shelf(&mut self, _: RowId, _: bool) -> Result<(), LogError> {
        refused()
    }

    fn set_dirty(&mut self, _: TableId, _: RowId, _: bool) -> Result<(), LogError> {
        refused()
    }

    fn dirty(&self, database: &str) -> Result<Vec<RowId>, LogError> {
        self.0.dirty(database)
    }
}
