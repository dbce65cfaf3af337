//! What the evaluator remembers: one record per row and the indexes that make evaluation local.
//!
//! Everything here is derived from events alone; it can be dropped and replayed. Invariant: a store holds exactly the
//! state of one causally closed set of events per database. Implemented over redb by `log::state`, in memory by
//! [`super::memory`]; written by the evaluator only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::registers::Tally;
use super::rules::RuleRecord;
use crate::model::{Cell, Cut, Dot, Key, OriginId, RowId, Stamp};

/// A table of a database, numbered by the store (numbers are local to one node and never leave it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId(pub u32);

/// All that is known of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its table.
    pub table: TableId,
    /// The inserts that made it: one, or several for a keyed row or one found at enrolment by several nodes.
    pub births: Vec<(Dot, Stamp)>,
    /// The id it wants (R3), where its table has ids or rowids.
    pub claim: Option<Claim>,
    /// The id R3 gives it, dead or alive.
    pub id: Option<i64>,
    /// Its cells, by column number in ascending order.
    pub cells: Vec<CellState>,
    /// Per origin, the last event that inserted or updated it.
    pub touched: Cut,
    /// Per origin, the last such event that a delete covers.
    pub covered: Cut,
    /// Per origin, the last event that deleted it.
    pub deletes: Cut,
    /// Whether some author touched it who knew all its deletes.
    pub granted: bool,
    /// The last delete that was evaluated, so that an update that did not know it can say so.
    pub deleted: Option<(Dot, Stamp)>,
    /// Whether it lives (R7): some touch is uncovered, or a live row needs it.
    pub alive: bool,
    /// Why it cannot be shown although it lives.
    pub shelved: Option<Shelved>,
    /// The key under which the file shows it; `None` while it is not in the file.
    pub shown: Option<Key>,
    /// Hash of the image the file shows; zeros while it is not in the file.
    pub image_hash: [u8; 32],
    /// The image the file shows, while it is known to be another than the row evaluates to: the app still writes to it.
    pub lag: Option<Box<[crate::model::Value]>>,
    /// Index keys this row holds among the UNIQUE keys of its table.
    pub unique: Vec<[u8; 16]>,
    /// Merges and splits that name it, and its place among the rows that are one with it; `None` for most rows.
    pub bonds: Option<Box<Bonds>>,
    /// Columns that show another value than they hold, because a senior row shows theirs (R8): (column, shown value).
    pub overlay: Vec<(u16, crate::model::Value)>,
    /// What is shown instead of the cells, because SQLite refused their mix (R9).
    pub whole: Option<Box<Whole>>,
    /// The id it shows was another row's not long ago, on this node: what people write to it may be meant for that one.
    pub took: Option<Took>,
    /// Per column that several origins updated: the last such update of each. (The winner's own entry stands in its cell.)
    pub updates: Vec<(u16, Cut)>,
    /// Columns of a tree whose reference is not shown, because it would close a ring ([`super::trees`]).
    pub loosened: Vec<u16>,
}

/// The newest whole row that some author saw (R9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// Its cells, by column number in ascending order.
    pub cells: Vec<CellState>,
    /// What SQLite said of the mix.
    pub message: String,
}

/// An id that changed its meaning on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// The id.
    pub id: i64,
    /// The row that was shown under it before.
    pub from: RowId,
    /// When, ms since 1970 by this node's wall clock.
    pub at_ms: u64,
}

/// What merges and splits say of a row (R2), and the class it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bonds {
    /// Merges and splits that name the row, in the order of their dots.
    pub links: Vec<Link>,
    /// The rows that are one with it, itself among them, the most senior (canonical) one first; empty while it is alone.
    pub members: Vec<RowId>,
    /// Hash of its key with every reference replaced by the canonical row of its class (R4).
    pub key: Option<[u8; 16]>,
}

/// A merge or split as one of its two rows knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Which of the two.
    pub kind: LinkKind,
    /// The other row.
    pub other: RowId,
    /// The columns by which they were found to be the same; empty for a person's merge and for a split.
    pub columns: Vec<u16>,
    /// The change that says so.
    pub dot: Dot,
    /// A merge: a concurrent update of its columns, or a split that knew it, made it void. A split: a person's merge that
    /// knew it did.
    pub void: bool,
}

/// What a link says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    /// The two rows are one.
    Merge,
    /// The two rows are two, and no merge found by a node joins them again.
    Split,
}

impl Row {
    /// A row nothing is known of yet.
    pub fn new(table: TableId) -> Row {
        Row {
            table,
            births: Vec::new(),
            claim: None,
            id: None,
            cells: Vec::new(),
            touched: Cut::default(),
            covered: Cut::default(),
            deletes: Cut::default(),
            granted: false,
            deleted: None,
            alive: false,
            shelved: None,
            shown: None,
            image_hash: [0; 32],
            lag: None,
            unique: Vec::new(),
            bonds: None,
            overlay: Vec::new(),
            whole: None,
            took: None,
            updates: Vec::new(),
            loosened: Vec::new(),
        }
    }

    /// The rows that are one with this one, itself among them, the canonical one first; empty while it is alone.
    pub fn members(&self) -> &[RowId] {
        self.bonds.as_ref().map_or(&[], |bonds| &bonds.members)
    }

    /// Merges and splits that name the row.
    pub fn links(&self) -> &[Link] {
        self.bonds.as_ref().map_or(&[], |bonds| &bonds.links)
    }

    /// Whether some insert or update of it is covered by no delete.
    pub fn uncovered(&self) -> bool {
        self.touched.iter().any(|dot| dot.counter > self.covered.get(dot.actor))
    }

    /// Whether a touch of its own holds it up (R7): one that no delete covers or, where deletes win, one whose author knew
    /// all deletes.
    pub fn held_up(&self, deletes_win: bool) -> bool {
        if deletes_win { self.granted } else { self.uncovered() }
    }

    /// The winning value of a column.
    pub fn cell(&self, column: u16) -> Option<&CellState> {
        self.cells.binary_search_by_key(&column, |state| state.column).ok().map(|position| &self.cells[position])
    }

    /// What is shown of a column before tags: its winning value, or that of the whole row shown instead (R9).
    pub fn shown_cell(&self, column: u16) -> Option<&CellState> {
        match &self.whole {
            Some(whole) => whole.cells.iter().find(|state| state.column == column),
            None => self.cell(column),
        }
    }

    /// The tagged value that a column shows instead of its own (R8).
    pub fn tagged(&self, column: u16) -> Option<&crate::model::Value> {
        self.overlay.iter().find(|(overlaid, _)| *overlaid == column).map(|(_, shown)| shown)
    }

    /// The rows its cells refer to, with the columns that do, in column order.
    pub fn parents(&self) -> impl Iterator<Item = (u16, &crate::model::Reference)> {
        self.cells.iter().filter_map(|state| match &state.cell {
            Cell::Ref(reference) => Some((state.column, reference)),
            _ => None,
        })
    }

    /// Whether it lives and nothing keeps it on the shelf.
    pub fn visible(&self) -> bool {
        self.alive && self.shelved.is_none()
    }
}

/// A wish for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The id.
    pub id: i64,
    /// The row that held it before, in the author's view.
    pub after: Option<RowId>,
    /// How many claims of the row the author knew.
    pub depth: u32,
    /// The change that made the claim.
    pub dot: Dot,
}

/// What one cell shows, and who decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellState {
    /// Number of the column in its table.
    pub column: u16,
    /// The value.
    pub cell: Cell,
    /// Its stamp.
    pub stamp: Stamp,
    /// The change that wrote it.
    pub dot: Dot,
    /// Whether the row was born with it: then any update beats it.
    pub born: bool,
    /// What its column's rule adds the value up from; `None` where nobody knew a rule ([`super::registers`]).
    pub tally: Option<Box<Tally>>,
}

/// Why a live row is not in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shelved {
    /// An older row holds the same UNIQUE key.
    Unique {
        /// Name of the index.
        index: String,
        /// The row that is shown.
        holder: RowId,
    },
    /// A row it refers to and needs is not shown.
    Parent {
        /// The row that is not shown.
        parent: RowId,
    },
    /// SQLite refused the row here (CHECK, NOT NULL, a type): its words.
    Refused {
        /// SQLite's message.
        message: String,
    },
}

/// One value or delete that lost, or an id that moved: nothing that was ever written goes unrecorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Number in this node's audit, from 1; given by the store.
    pub number: u64,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Row.
    pub row: RowId,
    /// What happened.
    pub kind: AuditKind,
    /// Wall clock of the node that evaluated it, ms since 1970.
    pub seen_ms: u64,
}

/// What an audit record tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditKind {
    /// Two changes wrote a cell without knowing each other.
    Cell {
        /// Column.
        column: String,
        /// What is shown.
        winner: Box<CellVersion>,
        /// What lost.
        loser: Box<CellVersion>,
    },
    /// A row was deleted while somebody changed it: it lives on.
    DeleteLost {
        /// The delete.
        delete: Dot,
        /// Stamp of the delete.
        stamp: Stamp,
    },
    /// The row became one with another: these of its values are not shown.
    Merged {
        /// The row that stands for both.
        into: RowId,
        /// (column, value).
        lost: Vec<(String, CellVersion)>,
    },
    /// This node's app wrote to an id that had changed its meaning within the last day: perhaps it meant the other row.
    Suspect {
        /// The id.
        id: i64,
        /// The row that was shown under it before.
        meant: RowId,
        /// The columns that were written, with what the hit row held before; empty for a delete.
        before: Vec<(String, Cell)>,
        /// What was written.
        after: Vec<(String, Cell)>,
    },
    /// The row is no more one with another: the merge was void, or a person split them.
    Parted {
        /// The row that stood for both.
        from: RowId,
    },
    /// A row was changed by somebody who did not know of its delete, and stays deleted: its table's rule says so.
    WriteLost {
        /// The change.
        write: Dot,
        /// The delete.
        delete: Dot,
        /// Stamp of the delete.
        stamp: Stamp,
    },
    /// A reference would have closed a ring: it is not shown.
    RingCut {
        /// Column.
        column: String,
        /// The reference.
        loser: Box<CellVersion>,
    },
    /// The row could not keep the id it was born with: another row had claimed it first.
    IdMoved {
        /// The id it wanted.
        from: i64,
        /// The id it has.
        to: i64,
        /// The row that holds the wanted id.
        holder: RowId,
    },
}

/// A cell's value with its author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellVersion {
    /// The value.
    pub cell: Cell,
    /// Its stamp.
    pub stamp: Stamp,
    /// The change that wrote it: the author's origin, event and position.
    pub dot: Dot,
}

impl From<CellState> for CellVersion {
    fn from(state: CellState) -> CellVersion {
        CellVersion { cell: state.cell, stamp: state.stamp, dot: state.dot }
    }
}

/// A sum over a table's shown rows: four 64-bit lanes of wrapping sums over the images' hashes, and their number.
/// Invertible and order-free, so it is kept with every write (see `merge.md` on incremental fingerprints).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Number of rows.
    pub rows: u64,
    /// Lanes.
    pub lanes: [u64; 4],
}

/// Storage of the evaluator's state. All methods see the writes made before them.
///
/// Errors come from the storage engine; after one the whole transaction must be dropped.
pub trait Store {
    /// What storage reports.
    type Error: std::error::Error;

    /// The number of a table, given at its first use.
    fn table_id(&mut self, database: &str, table: &str) -> Result<TableId, Self::Error>;
    /// The number of a table that was used before.
    fn find_table(&self, database: &str, table: &str) -> Result<Option<TableId>, Self::Error>;
    /// Database and name of a table.
    fn table_name(&self, table: TableId) -> Result<(String, String), Self::Error>;
    /// The number of a column, given at its first use.
    fn column_id(&mut self, table: TableId, column: &str) -> Result<u16, Self::Error>;
    /// Names of a table's columns, by number.
    fn columns(&self, table: TableId) -> Result<Vec<String>, Self::Error>;

    /// All rules that events said of a table, in no order.
    fn rules(&self, table: TableId) -> Result<Vec<RuleRecord>, Self::Error>;
    /// Adds a rule.
    fn put_rule(&mut self, table: TableId, record: &RuleRecord) -> Result<(), Self::Error>;

    /// The record of a row.
    fn row(&self, row: &RowId) -> Result<Option<Arc<Row>>, Self::Error>;
    /// Stores the record of a row. `new`: it may be unknown until now, so its membership in [`Row::table`] is stored too.
    fn put_row(&mut self, row: &RowId, record: Arc<Row>, new: bool) -> Result<(), Self::Error>;
    /// At most `limit` rows of a table in ascending order, starting behind `after`.
    fn rows_of(&self, table: TableId, after: Option<RowId>, limit: usize) -> Result<Vec<RowId>, Self::Error>;

    /// The row that the file shows under a key.
    fn shown(&self, table: TableId, key: &[crate::model::Value]) -> Result<Option<RowId>, Self::Error>;
    /// Sets (or, with `None`, clears) the row shown under a key.
    fn set_shown(&mut self, table: TableId, key: &[crate::model::Value], row: Option<RowId>)
    -> Result<(), Self::Error>;

    /// All claims of a table whose id has this remainder modulo [`super::claims::STRIDE`]: (id, row), ids ascending.
    fn claims(&self, table: TableId, remainder: u32) -> Result<Vec<(i64, RowId)>, Self::Error>;
    /// Adds a claim.
    fn add_claim(&mut self, table: TableId, id: i64, row: RowId) -> Result<(), Self::Error>;
    /// Removes a claim (the row claims another id now).
    fn remove_claim(&mut self, table: TableId, id: i64, row: RowId) -> Result<(), Self::Error>;

    /// Rows whose winning cells refer to `parent`, ascending.
    fn referrers(&self, parent: &RowId) -> Result<Vec<RowId>, Self::Error>;
    /// Adds a referrer.
    fn add_referrer(&mut self, parent: RowId, child: RowId) -> Result<(), Self::Error>;
    /// Removes a referrer.
    fn remove_referrer(&mut self, parent: RowId, child: RowId) -> Result<(), Self::Error>;

    /// Live rows of a table that hold a UNIQUE key (already hashed with its index name), ascending.
    fn unique_holders(&self, table: TableId, key: &[u8; 16]) -> Result<Vec<RowId>, Self::Error>;
    /// Adds a holder.
    fn add_unique(&mut self, table: TableId, key: [u8; 16], row: RowId) -> Result<(), Self::Error>;
    /// Removes a holder.
    fn remove_unique(&mut self, table: TableId, key: [u8; 16], row: RowId) -> Result<(), Self::Error>;

    /// The full cut an event's author had applied (its own earlier events included).
    fn cut_of(&self, database: &str, origin: OriginId, seq: u64) -> Result<Cut, Self::Error>;

    /// The fingerprint of a table's shown rows.
    fn fingerprint(&self, table: TableId) -> Result<Fingerprint, Self::Error>;
    /// Stores the fingerprint.
    fn put_fingerprint(&mut self, table: TableId, fingerprint: Fingerprint) -> Result<(), Self::Error>;

    /// Notes of a row the hash of the image that its file showed and of the one that it shows: for range fingerprints. A
    /// store that is compared with nobody keeps none.
    fn note_shown(
        &mut self,
        _table: TableId,
        _row: &RowId,
        _was: Option<[u8; 32]>,
        _is: Option<[u8; 32]>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Appends to the audit; `record.number` is ignored and given by the store.
    fn add_audit(&mut self, record: AuditRecord) -> Result<(), Self::Error>;
    /// Notes a row on the shelf, or takes it off.
    fn set_shelf(&mut self, row: RowId, shelved: bool) -> Result<(), Self::Error>;
    /// Notes that a row's file image must be written (or, with false, that it has been).
    fn set_dirty(&mut self, table: TableId, row: RowId, dirty: bool) -> Result<(), Self::Error>;
    /// Rows of a database whose file image must be written, ascending.
    fn dirty(&self, database: &str) -> Result<Vec<RowId>, Self::Error>;
}
