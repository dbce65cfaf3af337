//! What a join will do to the rows of both sides, as people and machines read it.
//!
//! Invariant: field names are stable: `--json` prints them; lists of examples are bounded, their counts are whole. Filled
//! by `rehearsal`, printed by `cli`.

use serde::{Deserialize, Serialize};

/// What will happen to the rows that are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeetingPlan {
    /// Database by database.
    pub databases: Vec<DatabaseMeeting>,
    /// Rows here in all of them.
    pub rows: u64,
    /// What a person should know before saying yes.
    pub warnings: Vec<String>,
}

/// One database of a [`MeetingPlan`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseMeeting {
    /// Name in the cluster.
    pub name: String,
    /// The file.
    pub path: String,
    /// How its rows are read: `copy`, `independent` or `base`; `first` when the cluster has none of this database.
    pub meeting: String,
    /// Rows here.
    pub rows: u64,
    /// Table by table.
    pub tables: Vec<TableMeeting>,
}

/// One table of a [`DatabaseMeeting`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMeeting {
    /// Name.
    pub table: String,
    /// Whether it holds accounts: ids of such rows stand in the app's sessions.
    pub accounts: bool,
    /// Rows here.
    pub here: u64,
    /// Rows there.
    pub there: u64,
    /// The same on both sides.
    pub equal: u64,
    /// The same rows, changed there since.
    pub newer_there: u64,
    /// The same rows, changed here since the base.
    pub edited_here: u64,
    /// Cells of the same row whose value here gives way: they are kept among the conflicts.
    pub cells_lost: u64,
    /// Rows only here: they go to every member.
    pub only_here: u64,
    /// Rows only there: they come here.
    pub only_there: u64,
    /// Of those: different rows that have the same id.
    pub same_id_different: u64,
    /// The same rows, deleted here since the base: deleted everywhere.
    pub deleted_here: u64,
    /// The same rows, deleted there: they go.
    pub deleted_there: u64,
    /// Deleted here since the base, changed or needed there: they come back.
    pub come_back: u64,
    /// Rows of the base that the cluster does not have: kept, for a person to judge.
    pub kept: u64,
    /// What gets other ids, by distance.
    pub moves: Vec<MoveView>,
    /// Some of the different rows that have the same id.
    pub different: Vec<PairView>,
    /// Rows whose UNIQUE key another row has (the first of them).
    pub unique: Vec<UniqueView>,
    /// Number of all those.
    pub unique_count: u64,
    /// Pairs that look like one row, for a person to join (the first of them).
    pub near_equal: Vec<NearView>,
    /// Number of all those.
    pub near_equal_count: u64,
    /// Accounts that get another id (the first of them).
    pub account_moves: Vec<RowView>,
}

/// Rows that move by the same distance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveView {
    /// How many.
    pub rows: u64,
    /// By how much their ids grow.
    pub by: i64,
    /// The least id that moves.
    pub from: i64,
    /// Where it goes.
    pub to: i64,
}

/// One row as people know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowView {
    /// Name or number.
    pub label: String,
    /// The id it has now.
    pub id: String,
    /// The id it will have; empty when it will not be shown.
    pub id_after: String,
}

/// Two different rows with one id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairView {
    /// The row here.
    pub here: RowView,
    /// The row there.
    pub there: RowView,
}

/// A row here whose UNIQUE key a row there has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueView {
    /// The row here.
    pub here: RowView,
    /// `merges`, `suffix` or `shelf`.
    pub outcome: String,
    /// The id of the row there, or the value that will be shown.
    pub with: String,
}

/// Two rows that may be one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearView {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// One row.
    pub one: RowView,
    /// The other.
    pub other: RowView,
    /// Cells that are equal.
    pub equal_cells: u64,
    /// Cells compared.
    pub cells: u64,
    /// Why they were compared.
    pub reason: String,
    /// What joins them.
    pub command: String,
}
