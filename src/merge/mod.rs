//! Floor L1: identity, cells, liveness, uniqueness: state = F(set of events).
//!
//! # The rules
//! Numbered as in the design. "Knew" is meant by cuts: a change knew all events in its event's cut and its own origin's
//! earlier ones. K is the clock-free order of seniority ([`rank`]).
//! - **R1** The caller feeds events in causal order (per database). Merges, splits and rules may come before the rows they
//!   name: they take effect when both are known.
//! - **R2 classes** ([`classes`]). A merge joins its two rows unless it is *void*: some update of one of its columns, on one
//!   of its two rows, is concurrent with it (neither knew the other), or a split of the same pair knew it. A split *bars*
//!   its pair unless a person's merge (one without columns) of the pair knew it. Merges join in the order of their dots,
//!   and one that would bring a barred pair into one class joins nothing. Classes are the connected components; the
//!   canonical row is the one least in K. A class is shown once, at its canonical row's id.
//! - **R3 ids** ([`claims`]) depend on births and claims only; merges and deletes never move them.
//! - **R4 keys** A keyed row's identity is its key. Keyed rows whose keys are equal once every reference in them is
//!   replaced by the canonical row of its class are one class too, for as long as that holds (no event says so).
//! - **R5 cells** ([`integrate`], [`classes`]). Over all members: any update beats what rows were born with, the greatest
//!   (stamp, event) wins; without update the first value in K order that is not NULL. Key columns of a keyed table, and the
//!   id, are the canonical row's. Where the column has a rule ([`rules`], [`registers`]), the writes of authors who knew it
//!   add up by it instead.
//! - **R6 references** ([`image`]) show what the class of the row they name shows.
//! - **R7 liveness** ([`settle`]). A delete covers the touches (inserts, updates, claims) of its row that it knew. A class lives
//!   if some member has an uncovered touch (where the table's rule is `delete-wins`: one whose author knew all deletes), or
//!   a live class needs it by a foreign key that keeps its parent.
//! - **R8 unique** ([`unique`]). Live classes with the same key are ordered by (when the key was written, K). Rows born with
//!   it at different origins, neither side updated since, merge where the table's policy says so (R11); of others the first shows the key, the
//!   rest show a text column of it with `~` and a tag of their birth; where nothing can carry the tag they go to the shelf.
//!   The cells keep the true value.
//! - **R9 validity** A mix of cells that SQLite refuses gives way to the newest whole row an author saw; if that is refused
//!   too, the row goes to the shelf.
//! - **R10 trees** ([`trees`]). In a column whose rule says so, the youngest reference of a ring is not shown.
//! - **R11 emission** Pairs that R8 finds ([`Evaluator::mergeable`]) are merged by an event of the node that sees them.
//!
//! States of a row: unknown → alive ⇄ dead; alone ⇄ canonical or other member of a class; an alive class is shown or on
//! the shelf. Invariants:
//! - F reads only total orders, unions and least fixpoints: equal sets of events give equal rows in any causal order.
//! - A row once born stays known for ever (its id is held dead or alive), also inside a class: a class falls apart into
//!   exactly the rows that made it.
//! - Every value that lost to a concurrent one has an audit record, written in the same transaction.
//! - The evaluator writes the store only; what the *file* shows changes by [`Evaluator::mark_shown`] alone.
//!
//! Decisions. (1) An event is evaluated whole even where this node's schema lacks a table or column: the unknown part is
//! kept as cells and shown after the migration, instead of holding back the event and all that depends on it; a half-way
//! upgraded cluster goes on. (2) Rows of keyed tables are identified by the hash of their key, so equal keys need no
//! merge event. (3) A row on the shelf blocks nobody. (4) A row found at enrolment counts as born before everything every
//! author knew, so a delete covers it on all copies. (5) A merge is void by *any* concurrent update of its columns, also
//! one that wrote the same value: then the last update of each origin decides (no history is kept), and a pair that still
//! has one key is merged by a new event.
//!
//! Callers: node (live), log (implements [`store::Store`]), tests.

mod cache;
pub mod claims;
pub mod classes;
pub mod image;
pub mod integrate;
mod link;
pub mod lists;
mod lookup;
pub mod memory;
pub mod rank;
pub mod registers;
pub mod rules;
pub mod settle;
pub mod store;
pub mod trees;
pub mod unique;

#[cfg(test)]
mod integrate_tests;
#[cfg(test)]
mod rules_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{DatabaseSchema, RowId, TableSchema};
use cache::RowCache;
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
    rows: RowCache,
    tables: BTreeMap<TableId, TableInfo>,
    /// Rows whose cells, births, deletes or parents changed since the last settling.
    touched: BTreeSet<RowId>,
    /// Rows whose liveness must be looked at again.
    liveness: BTreeSet<RowId>,
    /// Rows that SQLite refused in this transaction: not tried again before the next.
    refused: BTreeSet<RowId>,
    /// Rows that met others under one UNIQUE key.
    collided: BTreeSet<RowId>,
    /// Remainder classes of ids whose claims changed.
    classes: BTreeSet<(TableId, u32)>,
    /// Rules of the tables met so far.
    rules: BTreeMap<TableId, rules::TableRules>,
}

/// A table's names, and its schema where this node has it.
#[derive(Clone, Debug)]
struct TableInfo {
    database: String,
    name: Arc<str>,
    columns: Vec<String>,
    /// Positions in [`Evaluator::schemas`].
    schema: Option<(usize, usize)>,
    /// The number of each of the schema's columns, where something used it before.
    numbers: Arc<[Option<u16>]>,
    /// Some foreign key shows another column of it than its key: rows that refer to it follow its cells.
    lends_cells: bool,
}

impl TableInfo {
    /// Finds the numbers of the schema's columns.
    fn number(&mut self, schemas: &[DatabaseSchema]) {
        let Some((database, table)) = self.schema else { return };
        let find = |name: &String| self.columns.iter().position(|known| known.eq_ignore_ascii_case(name));
        let columns = schemas[database].tables[table].columns.iter();
        self.numbers = columns.map(|column| find(&column.name).map(|number| number as u16)).collect();
    }
}

impl<'a, S: Store> Evaluator<'a, S> {
    /// An evaluator over a store. `schemas`: what this node can show.
    pub fn new(store: &'a mut S, ranks: &'a Ranks, schemas: &'a [DatabaseSchema], seen_ms: u64) -> Self {
        Evaluator {
            store,
            ranks,
            schemas,
            seen_ms,
            rows: RowCache::default(),
            tables: BTreeMap::new(),
            touched: BTreeSet::new(),
            liveness: BTreeSet::new(),
            refused: BTreeSet::new(),
            collided: BTreeSet::new(),
            classes: BTreeSet::new(),
            rules: BTreeMap::new(),
        }
    }

    /// Writes all changed rows back. Call after [`Evaluator::settle`].
    pub fn finish(self) -> Result<(), S::Error> {
        for (id, row, new) in self.rows.changed() {
            self.store.put_row(id, row.clone(), new)?;
        }
        Ok(())
    }

    /// The record of a row as evaluated so far.
    pub fn row(&mut self, id: &RowId) -> Result<Option<&Row>, S::Error> {
        let place = self.meet(id)?;
        Ok(self.rows.at(place).map(Arc::as_ref))
    }

    /// The place of a row among those met.
    fn meet(&mut self, id: &RowId) -> Result<usize, S::Error> {
        match self.rows.place(id) {
            Some(place) => Ok(place),
            None => Ok(self.rows.add(*id, self.store.row(id)?)),
        }
    }

    /// The same, shared: it stays as it is now.
    fn shared(&mut self, id: &RowId) -> Result<Option<Arc<Row>>, S::Error> {
        let place = self.meet(id)?;
        Ok(self.rows.at(place).cloned())
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
        let place = self.meet(id)?;
        Ok(self.rows.at_mut(place))
    }

    fn insert_row(&mut self, id: RowId, row: Row) {
        let place = self.rows.place(&id).unwrap_or_else(|| self.rows.add(id, None));
        self.rows.replace(place, row);
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
            let lends_cells = schema.is_some_and(|(at, table)| self.lends_cells(at, table));
            let (name, numbers) = (Arc::from(name), Arc::default());
            let mut info = TableInfo { database, name, columns, schema, numbers, lends_cells };
            info.number(self.schemas);
            self.tables.insert(table, info);
        }
        Ok(())
    }

    fn lends_cells(&self, database: usize, table: usize) -> bool {
        let (home, lender) = (&self.schemas[database], &self.schemas[database].tables[table]);
        self.schemas.iter().any(|schema| {
            let mut keys = schema.tables.iter().flat_map(|table| &table.foreign_keys);
            keys.any(|key| {
                let here = key.database.as_ref().unwrap_or(&schema.database) == &home.database;
                // Ids and keys never change by a cell.
                let lasting =
                    |column: &String| lender.column(column).is_some_and(|at| lender.key_columns().contains(&at));
                here && key.parent.eq_ignore_ascii_case(&lender.name) && !key.parent_columns.iter().all(lasting)
            })
        })
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
            info.number(self.schemas);
        }
        Ok(number)
    }

    /// The same for the columns of a schema, by their positions.
    fn numbers_of(&mut self, table: TableId, schema: &TableSchema) -> Result<Arc<[Option<u16>]>, S::Error> {
        // Another schema than this node's own is that of a moment in the past.
        if self.schema(table)?.is_some_and(|own| std::ptr::eq(own, schema)) {
            return Ok(self.tables[&table].numbers.clone());
        }
        schema.columns.iter().map(|column| self.find_column(table, &column.name)).collect()
    }

    /// The number of a column that some event or row used before.
    fn find_column(&mut self, table: TableId, column: &str) -> Result<Option<u16>, S::Error> {
        let info = self.info(table)?;
        Ok(info.columns.iter().position(|name| name.eq_ignore_ascii_case(column)).map(|number| number as u16))
    }
}
