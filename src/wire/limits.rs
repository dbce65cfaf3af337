//! Every size limit of what crosses the network or comes back from storage, in one place, each with its reason.
//!
//! Invariant: honest nodes never reach these limits (capture cuts far below them), so whoever exceeds one is at fault.
//! Callers: wire (decoding), node (cutting events and frames), log.

/// Bytes of one blob or text that capture takes: larger values stay in the app's file and are reported.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of one encoded event: one value of the greatest size, and a margin for the row around it. Normal events are
/// cut at [`EVENT_BYTES_TARGET`].
pub const EVENT_BYTES_MAX: usize = VALUE_BYTES_MAX + (2 << 20);

/// Weight at which capture cuts a drain into several events: large enough that hashing, headers and commits cost nothing
/// per row, small enough to send, store and evaluate without a pause.
pub const EVENT_BYTES_TARGET: usize = 1 << 20;

/// Changes in one event. Deletes cost one byte on the wire and about a hundred in memory: this bounds the difference.
/// Capture cuts here too.
pub const EVENT_CHANGES_MAX: usize = 1 << 17;

/// Cells in one event: an event cut at its target weight cannot hold more (a cell weighs at least 1), plus one row of
/// SQLite's greatest width. NULLs cost nothing on the wire: this bounds what they cost in memory.
pub const EVENT_CELLS_MAX: usize = EVENT_BYTES_TARGET + COLUMNS_MAX;

/// Columns of a table: SQLite's own hard limit.
pub const COLUMNS_MAX: usize = 32_767;

/// Tables that one event names: more than any schema seen; capture cuts at the number of tables it has.
pub const EVENT_TABLES_MAX: usize = 4_096;

/// Columns that all tables of one event name together.
pub const EVENT_COLUMNS_MAX: usize = 1 << 16;

/// Distinct names (tables, columns, databases) in one event.
pub const EVENT_NAMES_MAX: usize = EVENT_COLUMNS_MAX + 2 * EVENT_TABLES_MAX;

/// Bytes of one name. SQLite knows no limit; real names are below 100 bytes. Enrolment refuses longer ones.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Bytes of the names that the references of one event spell out in memory (on the wire each name is written once).
pub const EVENT_REFERENCE_NAMES_MAX: usize = 128 << 20;

/// Distinct origins that one event names: one per incarnation of every node that ever wrote.
pub const EVENT_ORIGINS_MAX: usize = 1 << 16;

/// Bytes of one frame between two nodes: a larger event travels in pieces.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes of one piece of an event too large for a frame: small enough that a cut link loses little.
pub const PIECE_BYTES: usize = 256 << 10;

const _: () = assert!(PIECE_BYTES < FRAME_BYTES_MAX && EVENT_BYTES_TARGET < EVENT_BYTES_MAX);
