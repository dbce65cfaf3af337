//! The evaluator's storage in memory: for rebuilding from the log alone, for simulations and tests.
//!
//! Invariant: the same answers as `log::state` for the same calls. Callers: node (rebuild), tests.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use super::rules::RuleRecord;
use super::store::{AuditRecord, Fingerprint, Row, Store, TableId};
use crate::model::{Cut, Key, OriginId, RowId, Value};

/// All state in maps.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tables: Vec<(String, String, Vec<String>)>,
    rows: BTreeMap<RowId, Arc<Row>>,
    members: BTreeSet<(TableId, RowId)>,
    shown: BTreeMap<(TableId, Key), RowId>,
    claims: BTreeSet<(TableId, u32, i64, RowId)>,
    referrers: BTreeSet<(RowId, RowId)>,
    unique: BTreeSet<(TableId, [u8; 16], RowId)>,
    cuts: BTreeMap<(String, OriginId, u64), Cut>,
    fingerprints: BTreeMap<TableId, Fingerprint>,
    audit: Vec<AuditRecord>,
    shelf: BTreeSet<RowId>,
    dirty: BTreeSet<(TableId, RowId)>,
    rules: BTreeMap<TableId, Vec<RuleRecord>>,
}

impl MemoryStore {
    /// Notes the full cut of an event, as its log would.
    pub fn put_cut(&mut self, database: &str, origin: OriginId, seq: u64, cut: Cut) {
        self.cuts.insert((database.to_string(), origin, seq), cut);
    }

    /// Calls no row dirty any more: what becomes dirty from here on may show something else than now.
    pub fn forget_dirty(&mut self) {
        self.dirty.clear();
    }

    /// The audit so far.
    pub fn audit(&self) -> &[AuditRecord] {
        &self.audit
    }

    /// Rows on the shelf.
    pub fn shelf(&self) -> &BTreeSet<RowId> {
        &self.shelf
    }

    /// All rows known.
    pub fn rows(&self) -> &BTreeMap<RowId, Arc<Row>> {
        &self.rows
    }
}

impl Store for MemoryStore {
    type Error = Infallible;

    fn table_id(&mut self, database: &str, table: &str) -> Result<TableId, Infallible> {
        if let Some(id) = self.find_table(database, table)? {
            return Ok(id);
        }
        self.tables.push((database.to_string(), table.to_string(), Vec::new()));
        Ok(TableId(self.tables.len() as u32 - 1))
    }

    fn find_table(&self, database: &str, table: &str) -> Result<Option<TableId>, Infallible> {
        let position = self.tables.iter().position(|entry| entry.0 == database && entry.1.eq_ignore_ascii_case(table));
        Ok(position.map(|position| TableId(position as u32)))
    }

    fn table_name(&self, table: TableId) -> Result<(String, String), Infallible> {
        let entry = &self.tables[table.0 as usize];
        Ok((entry.0.clone(), entry.1.clone()))
    }

    fn column_id(&mut self, table: TableId, column: &str) -> Result<u16, Infallible> {
        let columns = &mut self.tables[table.0 as usize].2;
        if let Some(position) = columns.iter().position(|name| name.eq_ignore_ascii_case(column)) {
            return Ok(position as u16);
        }
        columns.push(column.to_string());
        Ok(columns.len() as u16 - 1)
    }

    fn columns(&self, table: TableId) -> Result<Vec<String>, Infallible> {
        Ok(self.tables[table.0 as usize].2.clone())
    }

    fn rules(&self, table: TableId) -> Result<Vec<RuleRecord>, Infallible> {
        Ok(self.rules.get(&table).cloned().unwrap_or_default())
    }

    fn put_rule(&mut self, table: TableId, record: &RuleRecord) -> Result<(), Infallible> {
        self.rules.entry(table).or_default().push(record.clone());
        Ok(())
    }

    fn row(&self, row: &RowId) -> Result<Option<Arc<Row>>, Infallible> {
        Ok(self.rows.get(row).cloned())
    }

    fn put_row(&mut self, row: &RowId, record: Arc<Row>, _new: bool) -> Result<(), Infallible> {
        self.members.insert((record.table, *row));
        self.rows.insert(*row, record);
        Ok(())
    }

    fn rows_of(&self, table: TableId, after: Option<RowId>, limit: usize) -> Result<Vec<RowId>, Infallible> {
        let all = self.members.range((table, RowId::Genesis([0; 16]))..);
        let rows = all.take_while(|(owner, _)| *owner == table).map(|(_, row)| *row);
        Ok(rows.filter(|row| after.is_none_or(|after| *row > after)).take(limit).collect())
    }

    fn shown(&self, table: TableId, key: &[Value]) -> Result<Option<RowId>, Infallible> {
        Ok(self.shown.get(&(table, key.to_vec())).copied())
    }

    fn set_shown(&mut self, table: TableId, key: &[Value], row: Option<RowId>) -> Result<(), Infallible> {
        match row {
            Some(row) => self.shown.insert((table, key.to_vec()), row),
            None => self.shown.remove(&(table, key.to_vec())),
        };
        Ok(())
    }

    fn claims(&self, table: TableId, remainder: u32) -> Result<Vec<(i64, RowId)>, Infallible> {
        let all = self.claims.range((table, remainder, i64::MIN, RowId::Genesis([0; 16]))..);
        Ok(all.take_while(|claim| claim.0 == table && claim.1 == remainder).map(|claim| (claim.2, claim.3)).collect())
    }

    fn add_claim(&mut self, table: TableId, id: i64, row: RowId) -> Result<(), Infallible> {
        self.claims.insert((table, super::claims::remainder(id), id, row));
        Ok(())
    }

    fn remove_claim(&mut self, table: TableId, id: i64, row: RowId) -> Result<(), Infallible> {
        self.claims.remove(&(table, super::claims::remainder(id), id, row));
        Ok(())
    }

    fn referrers(&self, parent: &RowId) -> Result<Vec<RowId>, Infallible> {
        let all = self.referrers.range((*parent, RowId::Genesis([0; 16]))..);
        Ok(all.take_while(|(owner, _)| owner == parent).map(|(_, child)| *child).collect())
    }

    fn add_referrer(&mut self, parent: RowId, child: RowId) -> Result<(), Infallible> {
        self.referrers.insert((parent, child));
        Ok(())
    }

    fn remove_referrer(&mut self, parent: RowId, child: RowId) -> Result<(), Infallible> {
        self.referrers.remove(&(parent, child));
        Ok(())
    }

    fn unique_holders(&self, table: TableId, key: &[u8; 16]) -> Result<Vec<RowId>, Infallible> {
        let all = self.unique.range((table, *key, RowId::Genesis([0; 16]))..);
        Ok(all.take_while(|entry| entry.0 == table && entry.1 == *key).map(|entry| entry.2).collect())
    }

    fn add_unique(&mut self, table: TableId, key: [u8; 16], row: RowId) -> Result<(), Infallible> {
        self.unique.insert((table, key, row));
        Ok(())
    }

    fn remove_unique(&mut self, table: TableId, key: [u8; 16], row: RowId) -> Result<(), Infallible> {
        self.unique.remove(&(table, key, row));
        Ok(())
    }

    fn cut_of(&self, database: &str, origin: OriginId, seq: u64) -> Result<Cut, Infallible> {
        Ok(self.cuts.get(&(database.to_string(), origin, seq)).cloned().unwrap_or_default())
    }

    fn fingerprint(&self, table: TableId) -> Result<Fingerprint, Infallible> {
        Ok(self.fingerprints.get(&table).copied().unwrap_or_default())
    }

    fn put_fingerprint(&mut self, table: TableId, fingerprint: Fingerprint) -> Result<(), Infallible> {
        self.fingerprints.insert(table, fingerprint);
        Ok(())
    }

    fn add_audit(&mut self, record: AuditRecord) -> Result<(), Infallible> {
        let number = self.audit.len() as u64 + 1;
        self.audit.push(AuditRecord { number, ..record });
        Ok(())
    }

    fn set_shelf(&mut self, row: RowId, shelved: bool) -> Result<(), Infallible> {
        if shelved {
            self.shelf.insert(row);
        } else {
            self.shelf.remove(&row);
        }
        Ok(())
    }

    fn set_dirty(&mut self, table: TableId, row: RowId, dirty: bool) -> Result<(), Infallible> {
        if dirty {
            self.dirty.insert((table, row));
        } else {
            self.dirty.remove(&(table, row));
        }
        Ok(())
    }

    fn dirty(&self, database: &str) -> Result<Vec<RowId>, Infallible> {
        let of_database = self.dirty.iter().filter(|(table, _)| self.tables[table.0 as usize].0 == database);
        Ok(of_database.map(|(_, row)| *row).collect())
    }
}
