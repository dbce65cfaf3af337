//! Rows of a snapshot as they travel: what the evaluator knows of each, and what its file shows.
//!
//! A content holds rows of one table, ascending. Names of origins and of referenced columns stand once at its head; numbers
//! (places, stamps, ids) are differences to the row before. Most rows were inserted once and never changed: their cells have
//! one author, their image is their cells, and neither is said. What is rare says so in flags.
//! The bytes of texts and blobs stand behind all rows. Not in it, because it is one node's own: where a file shows a row, what an app wrote to it meanwhile, ids that changed
//! their meaning. Invariants: decoding is total and allocates by no untrusted number; `decode` then `encode` gives the same
//! bytes for bytes that `encode` made; equal states of a table give equal contents on every node that numbers its columns
//! in the same order. Callers: node (giving and taking snapshots).

use crate::merge::integrate::GENESIS_DOT;
use crate::merge::store::{Row, TableId};
use crate::model::{Cell, Dot, Identity, RowId, TableSchema, Value};

pub use super::snapshot_decode::Rows;
pub use super::snapshot_encode::Content;

pub(super) const VERSION: u8 = 1;

// What every row says of itself.
pub(super) const ALIVE: u64 = 1;
pub(super) const IMAGE: u64 = 1 << 1;
pub(super) const OWN_BIRTH: u64 = 1 << 2;
pub(super) const CLAIM: u64 = 1 << 3;
pub(super) const CLAIM_FULL: u64 = 1 << 4;
pub(super) const ID_IS_CLAIM: u64 = 1 << 5;
pub(super) const ID: u64 = 1 << 6;
pub(super) const BORN_CELLS: u64 = 1 << 7;
pub(super) const TOUCHED_BY_BIRTH: u64 = 1 << 8;
pub(super) const UNGRANTED: u64 = 1 << 9;
pub(super) const UNIQUE: u64 = 1 << 10;
pub(super) const RARE: u64 = 1 << 11;

// What few rows have.
pub(super) const COVERED: u64 = 1;
pub(super) const DELETES: u64 = 1 << 1;
pub(super) const DELETED: u64 = 1 << 2;
pub(super) const SHELVED: u64 = 1 << 3;
pub(super) const BONDS: u64 = 1 << 4;
pub(super) const OVERLAY: u64 = 1 << 5;
pub(super) const WHOLE: u64 = 1 << 6;
pub(super) const UPDATES: u64 = 1 << 7;
pub(super) const LOOSENED: u64 = 1 << 8;
pub(super) const TALLIES: u64 = 1 << 9;

/// Elements of one list in a row, at most: columns, members of a class, writers.
pub(super) const LIST_MAX: usize = 1 << 24;

/// A row with the image its file is to show; `None` while it is dead or on the shelf.
pub type SnapshotRow = (RowId, Row, Option<Vec<Value>>);

/// How the columns of a table's schema are numbered in its rows' cells.
#[derive(Clone, Debug)]
pub struct Layout<'s> {
    /// Number of the table in the evaluator's records.
    pub table: TableId,
    /// Its schema; `None`: no file shows it.
    pub schema: Option<&'s TableSchema>,
    numbers: Vec<Option<u16>>,
}

impl<'s> Layout<'s> {
    /// `columns`: names by number.
    pub fn new(table: TableId, schema: Option<&'s TableSchema>, columns: &[String]) -> Layout<'s> {
        let number = |name: &str| columns.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|at| at as u16);
        let numbers = schema.map(|schema| schema.columns.iter().map(|column| number(&column.name)).collect());
        Layout { table, schema, numbers: numbers.unwrap_or_default() }
    }

    /// What a column shows if the row's own record decides it.
    pub(super) fn expected<'r>(&'r self, schema: &'r TableSchema, row: &'r Row, position: usize) -> Expected<'r> {
        if schema.identity == Identity::Surrogate(position) {
            return row.id.map_or(Expected::Null, Expected::Id);
        }
        let Some(number) = self.numbers[position] else {
            return Expected::Value(&schema.columns[position].default);
        };
        if let Some(value) = row.tagged(number) {
            return Expected::Value(value);
        }
        match row.shown_cell(number).map(|state| &state.cell) {
            None => Expected::Value(&schema.columns[position].default),
            Some(Cell::Plain(value)) => Expected::Value(value),
            Some(Cell::Ref(_) | Cell::Step { .. } | Cell::Edit(_)) => Expected::Null,
        }
    }
}

/// What the record alone says that a column shows.
pub(super) enum Expected<'r> {
    Null,
    Id(i64),
    Value(&'r Value),
}

impl Expected<'_> {
    pub(super) fn is(&self, value: &Value) -> bool {
        match self {
            Expected::Null => value.is_null(),
            Expected::Id(id) => *value == Value::Integer(*id),
            Expected::Value(expected) => *expected == value,
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Expected::Null => Value::Null,
            Expected::Id(id) => Value::Integer(id),
            Expected::Value(value) => value.clone(),
        }
    }
}

/// The row before, that numbers are differences to.
#[derive(Default)]
pub(super) struct Before {
    pub(super) seq: u64,
    pub(super) index: u64,
    pub(super) stamp: u64,
    pub(super) claim: i64,
}

/// The change that a row is named after, where it is one.
pub(super) fn own_dot(id: &RowId) -> Option<Dot> {
    match id {
        RowId::Genesis(_) => Some(GENESIS_DOT),
        RowId::Born(birth) => Some(birth.dot()),
        RowId::Keyed(_) => None,
    }
}

#[cfg(test)]
#[path = "snapshot_rows_tests.rs"]
mod tests;
