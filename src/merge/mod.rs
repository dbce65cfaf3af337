//! Floor L1: identity, cells, liveness, uniqueness: state = F(set of events).
//!
//! The rules are numbered as in the design: R1 causal cuts (the caller feeds events in causal order), R3 ids
//! ([`claims`]), R4 keyed rows (their identity is the key, see [`crate::model::RowId::keyed`]), R5 cells ([`integrate`]),
//! R6 references ([`image`]), R7 liveness and the shelf ([`settle`]).
//!
//! States of a row: unknown → alive ⇄ dead; an alive row is shown or on the shelf. Invariants:
//! - F reads only total orders, unions and least fixpoints: equal sets of events give equal rows in any causal order.
//! - A row once born stays known for ever (its id is held dead or alive).
//! - Every value that lost to a concurrent one has an audit record, written in the same transaction.
//! - The evaluator writes the store only; what the *file* shows changes by [`Evaluator::mark_shown`] alone.
//!
//! Decisions. (1) An event is evaluated whole even where this node's schema lacks a table or column: the unknown part is
//! kept as cells and shown after the migration, instead of holding back the event and all that depends on it; a half-way
//! upgraded cluster goes on. (2) Rows of keyed tables are identified by the hash of their key, so equal keys need no
//! merge. (3) Where rows collide on UNIQUE keys, rows are taken in the order in which their keys were written; a row on
//! the shelf blocks nobody. (4) A row found at enrolment counts as born before everything every author knew, so a
//! delete covers it on all copies.
//!
//! Callers: node (live), log (implements [`store::Store`]), tests.

pub mod claims;
pub mod image;
pub mod integrate;
pub mod memory;
pub mod rank;
pub mod settle;
pub mod store;
pub mod unique;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{DatabaseSchema, RowId, TableSchema};
use rank::Ranks;
use store::{Row, Store, TableId};

/// Evaluates events against a store. Rows are cached until [`Evaluator::finish`], which writes them back; dropping an
/// evaluator without it loses what was evaluated, so the store's transaction must be dropped too.
pub struct Evaluator<'a, S: Store> {
    store: &'a mut S,
    ranks: &'a Ranks,
    schemas: &'a [DatabaseSchema],
    /// For the audit: when this node saw what it evaluates, ms since 1970.
    seen_ms: u64,
    rows: BTreeMap<RowId, Option<Row>>,
    changed: BTreeSet<RowId>,
    tables: BTreeMap<TableId, TableInfo>,
    /// Rows whose cells, births, deletes or parents changed since the last settling.
    touched: BTreeSet<RowId>,
    /// Rows whose liveness must be looked at again.
    liveness: BTreeSet<RowId>,
    /// Rows that SQLite refused in this transaction: not tried again before the next.
    refused: BTreeSet<RowId>,
    /// Remainder classes of ids whose claims changed.
    classes: BTreeSet<(TableId, u32)>,
}

/// A table's names, and its schema where this node has it.
#[derive(Clone, Debug)]
struct TableInfo {
    database: String,
    name: String,
    columns: Vec<String>,
    /// Positions in [`Evaluator::schemas`].
    schema: Option<(usize, usize)>,
}

impl<'a, S: Store> Evaluator<'a, S> {
    /// An evaluator over a store. `schemas`: what this node can show.
    pub fn new(store: &'a mut S, ranks: &'a Ranks, schemas: &'a [DatabaseSchema], seen_ms: u64) -> Self {
        Evaluator {
            store,
            ranks,
            schemas,
            seen_ms,
            rows: BTreeMap::new(),
            changed: BTreeSet::new(),
            tables: BTreeMap::new(),
            touched: BTreeSet::new(),
            liveness: BTreeSet::new(),
            refused: BTreeSet::new(),
            classes: BTreeSet::new(),
        }
    }

    /// Writes all changed rows back. Call after [`Evaluator::settle`].
    pub fn finish(mut self) -> Result<(), S::Error> {
        for id in std::mem::take(&mut self.changed) {
            if let Some(Some(row)) = self.rows.get(&id) {
                self.store.put_row(&id, row)?;
            }
        }
        Ok(())
    }

    /// The record of a row as evaluated so far.
    pub fn row(&mut self, id: &RowId) -> Result<Option<&Row>, S::Error> {
        if !self.rows.contains_key(id) {
            let row = self.store.row(id)?;
            self.rows.insert(*id, row);
        }
        Ok(self.rows.get(id).and_then(Option::as_ref))
    }

    /// The storage beneath (for indexes; rows must be read through [`Evaluator::row`]).
    pub fn store(&self) -> &S {
        self.store
    }

    /// The storage beneath, for the caller's own bookkeeping.
    pub fn store_mut(&mut self) -> &mut S {
        self.store
    }

    fn row_mut(&mut self, id: &RowId) -> Result<Option<&mut Row>, S::Error> {
        self.row(id)?;
        self.changed.insert(*id);
        Ok(self.rows.get_mut(id).and_then(Option::as_mut))
    }

    fn insert_row(&mut self, id: RowId, row: Row) {
        self.changed.insert(id);
        self.rows.insert(id, Some(row));
    }

    fn load_table(&mut self, table: TableId) -> Result<(), S::Error> {
        if !self.tables.contains_key(&table) {
            let (database, name) = self.store.table_name(table)?;
            let columns = self.store.columns(table)?;
            let schema = self.schemas.iter().enumerate().find(|(_, schema)| schema.database == database).and_then(
                |(position, schema)| {
                    let table = schema.tables.iter().position(|table| table.name.eq_ignore_ascii_case(&name))?;
                    Some((position, table))
                },
            );
            self.tables.insert(table, TableInfo { database, name, columns, schema });
        }
        Ok(())
    }

    fn info(&mut self, table: TableId) -> Result<&TableInfo, S::Error> {
        self.load_table(table)?;
        Ok(&self.tables[&table])
    }

    /// The schema of a table, where this node has it.
    pub fn schema(&mut self, table: TableId) -> Result<Option<&'a TableSchema>, S::Error> {
        self.load_table(table)?;
        Ok(self.tables[&table].schema.map(|(database, table)| &self.schemas[database].tables[table]))
    }

    fn column_number(&mut self, table: TableId, column: &str) -> Result<u16, S::Error> {
        self.load_table(table)?;
        if let Some(number) = self.tables[&table].columns.iter().position(|name| name.eq_ignore_ascii_case(column)) {
            return Ok(number as u16);
        }
        let number = self.store.column_id(table, column)?;
        let columns = self.store.columns(table)?;
        if let Some(info) = self.tables.get_mut(&table) {
            info.columns = columns;
        }
        Ok(number)
    }

    /// The number of a column that some event or row used before.
    fn find_column(&mut self, table: TableId, column: &str) -> Result<Option<u16>, S::Error> {
        let info = self.info(table)?;
        Ok(info.columns.iter().position(|name| name.eq_ignore_ascii_case(column)).map(|number| number as u16))
    }
}
