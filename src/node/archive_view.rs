//! What the archive tells people and machines.
//!
//! Invariant: field names are a surface: add freely, rename nothing. Filled by [`super::archive`] and [`super::archive_disk`],
//! served by `http`, printed by `cli`.

use serde::{Deserialize, Serialize};

/// A cleanup: planned, under way, or over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupView {
    /// `planned`, `running`, `done` or `failed`; empty: there was none since the start.
    pub state: String,
    /// Younger events stay in the log; absent: all that every member holds is moved.
    pub days_to_keep: Option<u32>,
    /// Events that may be moved.
    pub wanted: u64,
    /// Events whose bodies were moved out of the log.
    pub removed: u64,
    /// Segments they are in.
    pub segments: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Bytes that these events took in the log, without what the storage engine adds.
    pub hot_bytes: u64,
    /// Bytes of the log's file before it was compacted; 0: it was not, because the node runs.
    #[serde(default)]
    pub log_bytes_before: u64,
    /// The same after it; 0: it was not.
    #[serde(default)]
    pub log_bytes_after: u64,
    /// Old segment files that nothing needed, removed.
    pub orphans: u64,
    /// Events that are old enough and wait, because some member is not known to hold them.
    pub blocked: u64,
    /// Those members, the one that was heard longest ago first.
    pub blocking: Vec<BlockingView>,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339; empty while it runs.
    pub ended: String,
    /// Why it failed; empty when it did not.
    pub problem: String,
}

/// A repair of the archive: under way, or over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    /// `running` or `done`; empty: there was none since the start.
    pub state: String,
    /// Blocks read so far.
    pub looked: u64,
    /// Blocks that are missing or damaged.
    pub damaged: u64,
    /// Of these, the ones that a peer brought again.
    pub repaired: u64,
    /// Of these, the ones that no connected peer could bring.
    pub not_repaired: u64,
}

/// A member that a cleanup waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockingView {
    /// Name for people.
    pub name: String,
    /// Public key in hex.
    pub id: String,
    /// Events that are old enough and that it is not known to hold.
    pub lacks: u64,
    /// When it last said what it holds, RFC 3339; empty: never.
    pub heard: String,
}

/// Disk use of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// Where log and segments lie.
    pub data_dir: String,
    /// Bytes free there for this user; absent: not looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Bytes of the log's file; 0 where it is no file.
    pub log_bytes: u64,
    /// Events whose bodies lie in it.
    pub log_events: u64,
    /// Segments of the archive.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Events in them.
    pub segment_events: u64,
    /// Bytes that those events took in the log, without what the storage engine adds.
    pub segment_hot_bytes: u64,
    /// Segments that are missing or cut short, with the number of events in each.
    pub segments_missing: Vec<MissingView>,
    /// Segment files that this log does not know.
    pub unknown_files: u64,
    /// Bytes of those.
    pub unknown_bytes: u64,
    /// The databases: the app's file, and what litemesh keeps in it.
    pub databases: Vec<DatabaseDiskView>,
}

/// A segment that is missing or cut short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingView {
    /// The first digits of its name.
    pub name: String,
    /// Events in it.
    pub events: u64,
}

/// Disk use of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseDiskView {
    /// Name in the cluster.
    pub name: String,
    /// Bytes of the app's file and its write-ahead log.
    pub file_bytes: u64,
    /// Marks of litemesh in it that wait for the log.
    pub outbox: u64,
}

/// What the archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveView {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentView>,
    /// How far each author's chain lies in them.
    pub origins: Vec<OriginView>,
}

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentView {
    /// Hash of its content, hex.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Events in it.
    pub events: u64,
    /// Its file is there, of the right size.
    pub present: bool,
}

/// One author's chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginView {
    /// Origin, hex.
    pub origin: String,
    /// Its node's name.
    pub node: String,
    /// The last event in the archive.
    pub through: u64,
    /// The last event there is.
    pub of: u64,
}

/// An archive that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeView {
    /// Where.
    pub path: String,
    /// Segments.
    pub segments: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of them.
    pub bytes: u64,
}
