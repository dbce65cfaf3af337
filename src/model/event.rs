//! Events: immutable log records, each one whole capture of one database.
//!
//! Invariant: an event names everything it needs (tables and columns by name, rows by identity), so it can be stored,
//! verified, forwarded and evaluated by a node whose schema is older or newer. Callers: wire, log, merge, node.

use serde::{Deserialize, Serialize};

use super::heads::Cut;
use super::identity::{Origin, RowId};
use super::rule::Rule;
use super::stamp::{Dot, Stamp};
use super::value::Value;

/// What is signed and chained besides the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster this event was written in: an event never moves to another cluster.
    pub cluster: [u8; 32],
    /// Who captured it.
    pub origin: Origin,
    /// Dense, from 1, per origin.
    pub seq: u64,
    /// The chain hash of event `seq - 1` of this origin; zeros for the first.
    pub previous: [u8; 32],
    /// When it was captured. Greater than the stamp of every event of this origin before it.
    pub stamp: Stamp,
    /// The name of the database (not a path).
    pub database: String,
    /// What the database's file had applied when the app wrote: the entries that changed since this origin's previous
    /// event of the same database. The origin's own events are implied.
    pub applied: Cut,
    /// Fingerprint of the database's replicated schema at capture.
    pub schema: [u8; 16],
    /// The next event of this origin belongs to the same capture: both are shown together or not at all.
    pub continues: bool,
    /// Who ordered it and why, for what a person ordered (undo, restore); empty for what an app wrote. Says nothing to the
    /// merge.
    pub note: String,
}

/// The names that changes refer to by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumns {
    /// Table name as in the schema.
    pub table: String,
    /// Column names; cells refer to them by position.
    pub columns: Vec<String>,
}

/// One log record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What is signed and chained besides the changes.
    pub header: Header,
    /// The tables the changes refer to by position.
    pub tables: Vec<TableColumns>,
    /// The changes, in an order in which a row's insert comes before other changes that name it.
    pub changes: Vec<Change>,
}

/// One row's insert, update, delete or change of id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A row was born. `row` is `RowId::Born` of this very change, or a genesis or keyed identity.
    Insert {
        /// Position in [`Event::tables`].
        table: u32,
        /// Identity of the new row.
        row: RowId,
        /// The id it got from SQLite, where the table has such ids (or its rowid, in a table without a key).
        claim: Option<i64>,
        /// The row that held this id before in the author's view, when the id was used again.
        after: Option<RowId>,
        /// (column position, value), columns in ascending order. The id column is not among them.
        cells: Vec<(u32, Cell)>,
    },
    /// Cells of a row changed. Each carries its own stamp: greater than the stamp it replaces.
    Update {
        /// Position in [`Event::tables`].
        table: u32,
        /// The row.
        row: RowId,
        /// (column position, value, stamp), columns in ascending order.
        cells: Vec<(u32, Cell, Stamp)>,
    },
    /// The row was deleted: covers exactly what the author's file had applied.
    Delete {
        /// Position in [`Event::tables`].
        table: u32,
        /// The row.
        row: RowId,
    },
    /// The app gave the row another id.
    Claim {
        /// Position in [`Event::tables`].
        table: u32,
        /// The row.
        row: RowId,
        /// The new id.
        id: i64,
        /// The row that held the new id before in the author's view.
        after: Option<RowId>,
        /// How many claims of this row the author knew, the first being its birth.
        depth: u32,
    },
    /// Two rows, born apart, are one from here on (R2). Sticky; undone by a split.
    Merge {
        /// Position in [`Event::tables`].
        table: u32,
        /// One row.
        row: RowId,
        /// The other one.
        other: RowId,
        /// The columns by which they were found to be the same, ascending; empty when a person says so.
        columns: Vec<u32>,
    },
    /// Two rows that were merged are two again, and are never merged by themselves any more.
    Split {
        /// Position in [`Event::tables`].
        table: u32,
        /// One row.
        row: RowId,
        /// The other one.
        other: RowId,
    },
    /// How a table or one of its columns merges from here on: configuration that all nodes share.
    Rule {
        /// Position in [`Event::tables`].
        table: u32,
        /// The column; `None` for a rule of the whole table.
        column: Option<u32>,
        /// The rule.
        rule: Rule,
    },
}

/// One column of one row: a plain value, or a reference that travels as the row it points to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cell {
    /// A value that refers to nothing (or to a row that did not exist at capture).
    Plain(Value),
    /// The value of a column of another row, by that row's identity.
    Ref(Reference),
    /// A whole number in a column that counts ([`super::Rule::Counter`]).
    Step {
        /// What the author's file shows.
        value: i64,
        /// By how much that is more than what the author's node had counted before.
        by: i64,
    },
    /// A list in a column of which everybody's elements count ([`super::Rule::Set`]).
    Edit(Box<Edit>),
}

/// What an update did to a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edit {
    /// What the author's file shows: NULL or a text.
    pub value: Value,
    /// Elements that were not there before.
    pub added: Vec<Vec<u8>>,
    /// Elements that are there no more.
    pub removed: Vec<Vec<u8>>,
}

/// A reference to a row: shown as the value that `column` of that row shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// Database that holds the row (references may cross files).
    pub database: String,
    /// Table that holds the row.
    pub table: String,
    /// The referenced row.
    pub row: RowId,
    /// The referenced column.
    pub column: String,
}

impl Event {
    /// The event's position, as the dot of change `index`.
    pub fn dot(&self, index: u32) -> Dot {
        Dot { origin: self.header.origin.id(), seq: self.header.seq, index }
    }
}

impl Change {
    /// Position of the change's table in [`Event::tables`].
    pub fn table(&self) -> u32 {
        match self {
            Change::Insert { table, .. }
            | Change::Update { table, .. }
            | Change::Delete { table, .. }
            | Change::Claim { table, .. }
            | Change::Merge { table, .. }
            | Change::Split { table, .. }
            | Change::Rule { table, .. } => *table,
        }
    }

    /// The row it changes; `None` for a rule. A merge or split also concerns its `other` row.
    pub fn row(&self) -> Option<RowId> {
        match self {
            Change::Insert { row, .. }
            | Change::Update { row, .. }
            | Change::Delete { row, .. }
            | Change::Claim { row, .. }
            | Change::Merge { row, .. }
            | Change::Split { row, .. } => Some(*row),
            Change::Rule { .. } => None,
        }
    }
}

impl Cell {
    /// Appends canonical bytes: a reference counts by the row it points to.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Cell::Plain(value) => value.write_canonical(out),
            Cell::Step { value, .. } => Value::Integer(*value).write_canonical(out),
            Cell::Edit(edit) => edit.value.write_canonical(out),
            Cell::Ref(reference) => {
                out.push(9);
                out.extend_from_slice(&reference.row.to_bytes());
                Value::text(&reference.column).write_canonical(out);
            }
        }
    }

    /// Bytes this cell takes in memory and, nearly, on the wire.
    pub fn weight(&self) -> usize {
        match self {
            Cell::Plain(value) => value.weight(),
            Cell::Ref(_) => 32,
            Cell::Step { .. } => 18,
            Cell::Edit(edit) => {
                let elements = edit.added.iter().chain(&edit.removed);
                edit.value.weight() + elements.map(|element| 5 + element.len()).sum::<usize>()
            }
        }
    }

    /// What the author's file shows, without what it did to the value before.
    pub fn without_difference(&self) -> Cell {
        match self {
            Cell::Plain(_) | Cell::Ref(_) => self.clone(),
            Cell::Step { value, .. } => Cell::Plain(Value::Integer(*value)),
            Cell::Edit(edit) => Cell::Plain(edit.value.clone()),
        }
    }
}
