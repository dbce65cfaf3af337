//! What a node tells people and machines: plain structs behind the commands, the HTTP API and the dashboard.
//!
//! Invariant: field names are the surface that outside checks use; add freely, rename nothing. Filled by the getters of
//! [`super::Node`], printed by `cli`, served by `http`.

use serde::{Deserialize, Serialize};

use super::travel_view::CellChange;

/// `status --json` and `GET /api/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub node: NodeView,
    /// Its cluster.
    pub cluster: ClusterView,
    /// Its databases.
    pub databases: Vec<DatabaseView>,
    /// All other members it knows.
    pub peers: Vec<PeerView>,
    /// What no other member is known to hold.
    pub only_here: OnlyHere,
    /// What a person should look at, in words.
    pub alerts: Vec<String>,
    /// How much may travel, and when.
    #[serde(default)]
    pub pace: PaceView,
    /// What all of it takes on the disk.
    #[serde(default)]
    pub disk: super::archive_view::DiskView,
    /// The cleanup that is under way, or the last one.
    #[serde(default)]
    pub cleanup: super::archive_view::CleanupView,
    /// How joining by a snapshot goes, or went; absent: this node did not, since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joining: Option<JoiningView>,
}

/// Joining by a snapshot. Times are ms from its beginning (from the start of the node, where it went on after one).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoiningView {
    /// `pulling`, `filling`, `loading`, `history` or `complete`.
    pub stage: String,
    /// Rows of the snapshot.
    pub rows: u64,
    /// Rows that the stage has gone through.
    pub rows_done: u64,
    /// Bytes of parts that came.
    pub bytes: u64,
    /// When the files showed all rows.
    pub usable_ms: Option<u64>,
    /// When what the app writes here began to travel.
    pub joined_ms: Option<u64>,
    /// When the whole history was here.
    pub complete_ms: Option<u64>,
    /// How much of the history is here.
    pub history_percent: u8,
    /// Since it began.
    pub running_ms: u64,
}

/// `[network] bandwidth` and `quiet_hours`, and what they do now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceView {
    /// Bytes per second, in and out together; 0: no limit.
    pub bandwidth: u64,
    /// Spans of the day like `09:00-12:00`, local time.
    pub quiet_hours: Vec<String>,
    /// Bulk waits now, only small fresh changes travel.
    pub quiet_now: bool,
    /// Peers that asked this node for events and wait for their turn.
    pub waiting_peers: u64,
}

/// What a peer brings: events that we lack and it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullView {
    /// Events it brought since we last held all that it has.
    pub received: u64,
    /// Those, and what is still missing.
    pub wanted: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Events per second, lately.
    pub events_per_s: u64,
    /// Bytes per second, lately.
    pub bytes_per_s: u64,
    /// Seconds until all is here, at that rate.
    pub left_s: Option<u64>,
}

/// This node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Public key in hex.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Seniority in the cluster: the founder has 0.
    pub origin_rank: u32,
    /// Where this node's ids go when two rows claim the same one.
    pub slot: u32,
    /// `admin`, `member` or `read-only`; `none`: it is no member any more.
    pub role: String,
}

/// The cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Cluster id in hex.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Number of members, this node included.
    pub members: u32,
}

/// One database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseView {
    /// Name in the cluster.
    pub name: String,
    /// Path of the file.
    pub path: String,
    /// Number of replicated tables.
    pub tables: u32,
    /// Number of rows shown in them.
    pub rows: u64,
    /// Captured rows not yet in the log.
    pub outbox: u64,
    /// Events of this database in the log.
    pub events: u64,
    /// Hex root of the fingerprint of the replicated tables' content.
    pub digest: String,
    /// Audit records of this database.
    pub conflicts: u64,
    /// Rows on the shelf.
    pub shelved: u64,
    /// Events that wait for a schema or a cause.
    pub held_events: u64,
    /// `ok`, or what is wrong, in words.
    pub state: String,
}

/// One other member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Public key in hex.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// `connected` or `away`.
    pub state: String,
    /// Known multiaddrs.
    pub addresses: Vec<String>,
    /// RFC 3339, empty when never seen.
    pub last_seen: String,
    /// Events this peer has and we lack.
    pub behind: u64,
    /// Events we have and it lacks.
    pub ahead: u64,
    /// Round trip, ms.
    pub rtt_ms: Option<f64>,
    /// Its clock minus ours, ms.
    pub clock_skew_ms: Option<i64>,
    /// Reliability, 0.0 to 1.0.
    pub score: f64,
    /// `excellent`, `good`, `fair` or `poor`.
    pub band: String,
    /// What it brings now; absent: nothing is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullView>,
    /// Newest version of the protocol that it speaks; 0: it has not been heard since the start.
    #[serde(default)]
    pub protocol: u32,
    /// Frames of kinds that this node does not know, which were skipped: the peer is newer.
    #[serde(default)]
    pub unknown_frames: u64,
    /// `admin`, `member` or `read-only`.
    pub role: String,
    /// Whether its files show the same rows, last looked at when both held the same events.
    #[serde(default)]
    pub content: ContentView,
}

/// Whether a peer's files show the same rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentView {
    /// `equal`, `differs`, `unlike` (equal but for tables that one lacks or has with another schema) or `unknown` (the two
    /// were never at the same place since the start).
    pub state: String,
    /// Since when, RFC 3339; empty: never looked at.
    pub since: String,
    /// When it was looked at last, RFC 3339.
    pub compared: String,
    /// Rows that differ.
    pub rows: u64,
}

/// What would be lost with this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlyHere {
    /// Events no other member is known to hold.
    pub events: u64,
    /// Rows those events changed.
    pub rows: u64,
    /// False: there are more rows than were counted so far.
    pub counted_all: bool,
    /// The same by table, most first.
    pub tables: Vec<OnlyHereTable>,
}

/// Rows of one table that no other member is known to hold as they are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlyHereTable {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Rows.
    pub rows: u64,
}

/// One event of the log, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Origin in hex.
    pub origin: String,
    /// Name of the origin's node.
    pub node: String,
    /// Sequence number.
    pub seq: u64,
    /// Database.
    pub database: String,
    /// RFC 3339.
    pub time: String,
    /// Chain hash in hex.
    pub hash: String,
    /// Its changes.
    pub changes: Vec<ChangeView>,
    /// Who ordered it and why, of an undo or a restore; else empty.
    #[serde(default)]
    pub note: String,
}

/// One change of an event, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChangeView {
    /// Table.
    pub table: String,
    /// `insert`, `update`, `delete` or `claim`.
    pub operation: String,
    /// Identity of the row.
    pub row: String,
    /// Where the row is shown here now (key values joined by commas); empty when it is not.
    pub id: String,
    /// (column, value) pairs that the change wrote.
    pub cells: Vec<(String, String)>,
}

/// What the log command and the events endpoint select.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventFilter {
    /// Only this database.
    pub database: Option<String>,
    /// Only events that change this table.
    pub table: Option<String>,
    /// Only this origin: hex prefix of the origin, or the node's name.
    pub origin: Option<String>,
    /// Only events stamped at or after this, ms since 1970.
    pub since_ms: Option<u64>,
    /// Only events stamped before this, ms since 1970.
    pub until_ms: Option<u64>,
    /// At most this many, the newest; 0 is the default of 100.
    pub limit: usize,
    /// Only events that arrived behind this position (for following).
    pub after_arrival: Option<u64>,
}

/// A page of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<EventView>,
    /// Pass as `after_arrival` to go on.
    pub last_arrival: u64,
}

/// Every version of one row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryView {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Identity of the row.
    pub row: String,
    /// Where it is shown now.
    pub id: String,
    /// `shown`, `deleted` or `shelved: …`.
    pub state: String,
    /// Its changes, oldest first.
    pub versions: Vec<VersionView>,
    /// What lost.
    pub conflicts: Vec<ConflictView>,
    /// The ids that it had, oldest first; empty where rows have none.
    #[serde(default)]
    pub ids: Vec<HeldId>,
    /// Other rows that had, or were born with, the id that was asked for.
    #[serde(default)]
    pub others: Vec<WhereRow>,
}

/// An id that a row had for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeldId {
    /// The id.
    pub id: String,
    /// Identity of the row: the one asked for, or one of `others`.
    pub row: String,
    /// From when on, RFC 3339.
    pub from: String,
    /// Until when; empty: until now.
    pub to: String,
}

/// One change in a row's history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// RFC 3339.
    pub time: String,
    /// Name of the node that captured it.
    pub node: String,
    /// Origin and sequence number of the event.
    pub event: String,
    /// `insert`, `update`, `delete` or `claim`.
    pub operation: String,
    /// (column, value) pairs that it wrote.
    pub cells: Vec<(String, String)>,
    /// Position of the change in its event: `event:index` is what `undo` takes.
    #[serde(default)]
    pub index: u32,
    /// What the row showed before and after it, column by column.
    #[serde(default)]
    pub changes: Vec<CellChange>,
    /// What else became of the row by it, one sentence each: born, deleted, moved, merged, what lost.
    #[serde(default)]
    pub said: Vec<String>,
    /// Who ordered it and why, of an undo or a restore; else empty.
    #[serde(default)]
    pub note: String,
}

/// One audit record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConflictView {
    /// Its number on this node.
    pub number: u64,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Identity of the row.
    pub row: String,
    /// Where the row is shown now.
    pub id: String,
    /// `cell`, `delete`, `id`, `merge`, `split` or `suspect`.
    pub kind: String,
    /// Column, for `cell`.
    pub column: String,
    /// What is shown: value, node, time.
    pub winner: AuthoredView,
    /// What lost: value, node, time.
    pub loser: AuthoredView,
    /// One sentence: why.
    pub reason: String,
    /// When this node saw it, RFC 3339.
    pub seen: String,
    /// What the cell shows now, where somebody wrote it since (or put a value back); empty: what won is still shown.
    #[serde(default)]
    pub now: String,
}

/// What a person decided, as an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// One sentence: what holds from here on.
    pub said: String,
    /// The event: `origin:seq`.
    pub event: String,
    /// Identities of the rows that it names.
    pub rows: Vec<String>,
}

/// A value with its author.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuthoredView {
    /// The value, as SQL would write it.
    pub value: String,
    /// Name of the node.
    pub node: String,
    /// RFC 3339.
    pub time: String,
}

/// One row on the shelf.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShelfView {
    /// Its number in the list.
    pub number: u64,
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Identity of the row.
    pub row: String,
    /// The id it would have.
    pub id: String,
    /// Why it is not shown.
    pub reason: String,
    /// Where the row is shown that stands in its way; empty where that is no row.
    #[serde(default)]
    pub holder: String,
    /// Columns of the key that both have; empty where it is no such key.
    #[serde(default)]
    pub key: Vec<String>,
    /// Its (column, value) pairs.
    pub cells: Vec<(String, String)>,
}

/// Where an id went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhereView {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// The id asked for.
    pub id: String,
    /// All rows that were ever born with this id or shown under it.
    pub rows: Vec<WhereRow>,
}

/// One row that had an id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhereRow {
    /// Identity of the row.
    pub row: String,
    /// Name of the node it was born on (`genesis` for rows found at enrolment).
    pub node: String,
    /// The id it was born with.
    pub born_as: String,
    /// The id it has now.
    pub now: String,
    /// `shown`, `deleted` or `shelved: …`.
    pub state: String,
}

/// A rule that somebody set and that holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Column; empty for a rule of the whole table.
    pub column: String,
    /// The rule's name.
    pub rule: String,
    /// Name of the server that set it.
    pub node: String,
    /// When.
    pub time: String,
}

/// Result of checking every chain and signature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogReport {
    /// Events checked.
    pub events: u64,
    /// Origins checked.
    pub origins: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong; empty when all is well.
    pub faults: Vec<String>,
}

/// Result of a rebuild from the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RebuildReport {
    /// The time as of which the databases are written, ms since 1970; none: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of_ms: Option<u64>,
    /// (database, file written, rows, digest of the rebuilt content, digest of the live content).
    pub databases: Vec<RebuiltDatabase>,
}

/// One rebuilt database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RebuiltDatabase {
    /// Database.
    pub name: String,
    /// The new file.
    pub path: String,
    /// Rows written.
    pub rows: u64,
    /// Digest of what was rebuilt.
    pub digest: String,
    /// Digest of what the live file shows.
    pub live_digest: String,
}

/// A way to reach a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAddress {
    /// The peer's key in hex, empty when not known yet.
    pub peer: String,
    /// Multiaddr.
    pub address: String,
    /// When it last led there, wall time; 0: never yet.
    #[serde(default)]
    pub reached_ms: u64,
}
