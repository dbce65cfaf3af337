//! Where a file and the log said different things: what was found, why, and what became of it.
//!
//! Invariant: a record keeps both images whole, so that whatever a repair wrote over can be read, and put back, as long as
//! the record is kept. Plain data. Callers: log (keeps it), node::verify and node::drift (find and heal), http, cli.

use serde::{Deserialize, Serialize};

use super::{Key, NodeId, RowId, Value};

/// How deep a verification looks. Each finds all that the ones before it find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// Numbers of rows.
    Count,
    /// Every key of the file against every key of the log, both ways.
    Ids,
    /// Sums over the hashes of all rows against the sums that the log keeps; where they differ, range by range.
    Checksum,
    /// Every row of the file against the log, every record of the log against its own cells, and every event against its
    /// hash.
    Full,
}

impl Tier {
    /// All of them, the lightest first.
    pub const ALL: [Tier; 4] = [Tier::Count, Tier::Ids, Tier::Checksum, Tier::Full];

    /// Its name in settings, commands and answers.
    pub fn word(self) -> &'static str {
        match self {
            Tier::Count => "count",
            Tier::Ids => "ids",
            Tier::Checksum => "checksum",
            Tier::Full => "full",
        }
    }

    /// The tier of this name.
    pub fn parse(word: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.word() == word)
    }

    /// The next deeper one: what critical tables get.
    pub fn deeper(self) -> Tier {
        match self {
            Tier::Count => Tier::Ids,
            Tier::Ids => Tier::Checksum,
            Tier::Checksum | Tier::Full => Tier::Full,
        }
    }
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DriftKind {
    /// A row that both know, with other values.
    Changed,
    /// A row that the log shows and the file lacks.
    Missing,
    /// A row that the file has and the log does not show.
    Unknown,
    /// The log's record of a row does not follow from its own cells, or cannot be read.
    Record,
    /// A whole table that the log knows and the file lacks.
    TableGone,
    /// SQLite cannot read a table, or says that an index of it is wrong.
    Unreadable,
    /// An event of the log is not what was stored.
    Event,
    /// The file went back or was replaced: its rows were compared with the log.
    WentBack,
}

/// Why, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DriftCause {
    /// The table's triggers were missing for a while: the app wrote unseen.
    TriggersMissing,
    /// The file was restored or replaced.
    Restored,
    /// The difference is a few bits, or is nothing that SQL could have written.
    BitRot,
    /// The file holds values that the row had before: an old page, an old copy of it, an apply that did not last.
    Earlier,
    /// The file shows what the log wants shown, and the log's state did not know.
    ApplyNotNoted,
    /// The row went without any delete being marked.
    LostUnmarked,
    /// The row was written without a mark though the triggers stand.
    WrittenUnmarked,
    /// The table was dropped.
    Dropped,
    /// The log's own storage.
    LogDamaged,
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DriftAction {
    /// Nothing yet: a person decides (`verify --repair`).
    Waits,
    /// The file's values became an ordinary event; what they replaced is in the row's history.
    Captured,
    /// The log's values were written into the file again; what they replaced is kept in this record.
    Rewritten,
    /// A row that the log knows as gone was taken out of the file again; it is kept in this record.
    Removed,
    /// The log's state took over what the file shows.
    TakenOver,
    /// The table was made again and filled from the log.
    Recreated,
    /// The event came from another server.
    Fetched,
    /// The indexes were made again.
    Reindexed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftRecord {
    /// Its number on this node, from 1.
    pub number: u64,
    /// When it was found, ms since 1970.
    pub found_ms: u64,
    /// The verification that found it; 0: none did (a start, a change of the schema).
    pub run: u64,
    /// How deep that one looked.
    pub tier: Option<Tier>,
    /// Database.
    pub database: String,
    /// Table; empty where it is about the file or the log.
    pub table: String,
    /// What differs.
    pub kind: DriftKind,
    /// The row, where the log knows one.
    pub row: Option<RowId>,
    /// The key in the file, or the one that the row should have there.
    pub key: Key,
    /// Names of the columns that differ.
    pub columns: Vec<String>,
    /// What the file held, in the order of the table's columns.
    pub file: Option<Vec<Value>>,
    /// What the log says it should hold.
    pub log: Option<Vec<Value>>,
    /// Why.
    pub cause: DriftCause,
    /// What was done.
    pub action: DriftAction,
    /// When file and log were seen equal again, ms since 1970.
    pub healed_ms: Option<u64>,
    /// The server that helped, where one did.
    pub from: Option<NodeId>,
    /// How many rows this record stands for.
    pub rows: u64,
    /// What else is to be said, in words.
    pub words: String,
    /// Statements that make a dropped table again.
    pub sql: Vec<String>,
}

/// How a verification stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// It waits for its turn.
    Waiting,
    /// It reads.
    Running,
    /// It is through.
    Done,
    /// It could not go on, for this reason.
    Failed(String),
}

/// A range of keys whose rows differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeFound {
    /// Table.
    pub table: String,
    /// Its first key.
    pub first: Key,
    /// Its last key.
    pub last: Key,
    /// Rows in it.
    pub rows: u64,
}

/// One verification of one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its number on this node, from 1.
    pub number: u64,
    /// Database.
    pub database: String,
    /// How deep it looks (at critical tables one tier deeper).
    pub tier: Tier,
    /// A person ordered it.
    pub by_hand: bool,
    /// Differences are healed, whatever the settings say.
    pub repair: bool,
    /// How it stands.
    pub state: RunState,
    /// When it began, ms since 1970.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Tables it looked at so far.
    pub tables: u64,
    /// Rows it looked at so far.
    pub rows: u64,
    /// Rows that it will have looked at, as far as that is known.
    pub rows_wanted: u64,
    /// Differences found.
    pub drift: u64,
    /// Of these, healed.
    pub healed: u64,
    /// Rows that the app, or an apply, kept changing, so that nothing can be said of them.
    pub unsettled: u64,
    /// Ranges whose sums differed (the first of them).
    pub ranges: Vec<RangeFound>,
    /// Greatest number of rows read in one page, and the longest time between two of its steps, ms.
    pub longest_ms: u64,
    /// What was left out, in words.
    pub notes: Vec<String>,
}

/// Where a verification stands: enough to go on after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlace {
    /// The run.
    pub run: u64,
    /// Tables that are still to come, the present one first.
    pub tables: Vec<String>,
    /// Which pass over the present one, by number.
    pub pass: u8,
    /// Behind this key of the file.
    pub after_key: Option<Key>,
    /// Behind this row of the log.
    pub after_row: Option<RowId>,
}
