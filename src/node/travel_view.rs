//! What a node tells of its past and of what shall be taken back: plain structs behind `diff`, `undo` and `restore`.
//!
//! Invariant: field names are the surface that outside checks use; add freely, rename nothing. Filled by [`super::diff`]
//! and [`super::undo`], printed by `cli`, served by `http`.

use serde::{Deserialize, Serialize};

/// What changed between two times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffView {
    /// The earlier time, RFC 3339.
    pub from: String,
    /// The later time, RFC 3339.
    pub to: String,
    /// Counts of every table that changed.
    pub tables: Vec<DiffTable>,
    /// The rows, by database, table and id; the first ones only where there are more than was asked for.
    pub rows: Vec<DiffRow>,
    /// Rows that are not listed.
    pub more: u64,
}

/// Rows of one table that differ between two times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffTable {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Rows shown at the later time only.
    pub added: u64,
    /// Rows shown at both with other values (those that moved as well among them).
    pub changed: u64,
    /// Rows shown at the earlier time only.
    pub deleted: u64,
    /// Rows shown at both under another id.
    pub moved: u64,
}

/// One row that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffRow {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Where it was shown at the later time; of a deleted row, at the earlier one.
    pub id: String,
    /// Where it was shown at the earlier time, of a row that moved; else empty.
    pub was: String,
    /// Identity of the row.
    pub row: String,
    /// `added`, `changed`, `deleted` or `moved`.
    pub what: String,
    /// Columns that differ (of an added or deleted row: all that are not NULL).
    pub cells: Vec<CellChange>,
    /// Names of the nodes that wrote to it in between; empty where others' writes changed it (an id, a merge).
    pub by: Vec<String>,
}

/// One column's value before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellChange {
    /// Column.
    pub column: String,
    /// The value before, as SQL would write it; empty where there was no row.
    pub from: String,
    /// The value after; empty where there is no row.
    pub to: String,
}

/// What an undo or a restore would do, or has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBackView {
    /// What was asked for, in words.
    pub what: String,
    /// False: this is a preview, nothing was changed.
    pub done: bool,
    /// Changes that were selected (of a restore: 0).
    pub selected: u64,
    /// Counts of every table concerned.
    pub tables: Vec<TakeBackTable>,
    /// Rows that change.
    pub rows: u64,
    /// Rows and cells that are left alone, with a reason.
    pub kept: u64,
    /// Rows and cells that are as wanted already.
    pub already: u64,
    /// The rows that change and what is left alone, the first ones only where there are more than was asked for.
    pub list: Vec<TakeBackRow>,
    /// Rows that are not listed.
    pub more: u64,
    /// The events that did it: `origin:seq`; the undo of the first one takes all of them back.
    pub events: Vec<String>,
    /// What a person should know besides.
    pub remarks: Vec<String>,
}

/// Rows of one table that an undo or a restore concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBackTable {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Rows of which cells are set back.
    pub set_back: u64,
    /// Rows that are deleted.
    pub deleted: u64,
    /// Rows that come back.
    pub revived: u64,
    /// Rows that get an id back, are split or merged.
    pub other: u64,
    /// Rows and cells that are left alone.
    pub kept: u64,
}

/// One row that an undo or a restore concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeBackRow {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Where it is shown, or was last.
    pub id: String,
    /// Identity of the row.
    pub row: String,
    /// `set back`, `delete`, `revive`, `id`, `split`, `merge` or `keep`.
    pub action: String,
    /// Columns that change.
    pub cells: Vec<CellChange>,
    /// What is left alone of it, and why; of `keep`, the whole row.
    pub kept: Vec<KeptView>,
}

/// Something that is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptView {
    /// The column; empty for the whole row.
    pub column: String,
    /// One sentence.
    pub why: String,
    /// Name of the node that wrote there since; empty where that is not the reason.
    pub node: String,
    /// When it did, RFC 3339.
    pub time: String,
    /// The event: `origin:seq`.
    pub event: String,
}
