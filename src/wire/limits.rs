//! Every size limit of what comes from outside.
//!
//! Invariant: the same on all nodes; a limit may only grow with a new protocol version. Honest nodes
//! never reach one (capture cuts far below), so whoever does is at fault. Callers: wire, net, node, log.

/// Newest version of the protocol between members that this node speaks: said in every hello.
pub const PROTOCOL_VERSION: u32 = 2;
/// Oldest version that it still speaks: said at the gate. Two nodes speak the older one of their newest versions.
pub const PROTOCOL_VERSION_MIN: u32 = 1;
/// Bytes of one frame between two members, its length not counted.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of a gossiped announcement. A message near the receiver's limit for gossip ([`GOSSIP_BYTES_MAX`]) wedges all gossip
/// to that peer for the life of the connection: this stays far below it.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 16 << 10;
/// Bytes that gossipsub takes in one transmission, signature and what is buffered behind it included.
pub const GOSSIP_BYTES_MAX: usize = 4 * ANNOUNCEMENT_BYTES_MAX;
/// Heads in one hello, and heads or ranges in one pull. More heads come in further hellos.
pub const HEADS_MAX: usize = 4096;
/// Heads that are remembered of one peer: one per incarnation of every node that ever wrote.
pub const PEER_HEADS_MAX: usize = 1 << 16;
/// Heads in an announcement.
pub const ANNOUNCED_HEADS_MAX: usize = 128;
/// Events in one answer to a pull.
pub const EVENTS_PER_FRAME_MAX: usize = 8192;
/// Bytes of one event; larger than a frame, it travels in pieces.
pub const EVENT_TOTAL_BYTES_MAX: u64 = EVENT_BYTES_MAX as u64;
/// Bytes of a node's or a cluster's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Members of one cluster, those that were revoked included.
pub const MEMBERS_MAX: usize = 1024;
/// Member records whose signer is not known yet, kept aside.
pub const WAITING_RECORDS_MAX: usize = 256;
/// Highest slot of a member.
pub const SLOT_MAX: u32 = 65_535;
/// Addresses in a join code.
pub const INVITE_ADDRESSES_MAX: usize = 8;
/// Bytes of one multiaddr as text.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Bytes of a join code's line.
pub const INVITE_TEXT_BYTES_MAX: usize = 4096;
/// Invites a node keeps, open and used.
pub const INVITES_MAX: usize = 64;
/// Wrong proofs after which an invite is void.
pub const INVITE_TRIES_MAX: u32 = 5;
/// Member records in a chain shown at the gate.
pub const GATE_RECORDS_MAX: usize = 1_024;
/// Bytes of one message at the gate, chains and the welcome excepted.
pub const GATE_MESSAGE_BYTES_MAX: usize = 24 << 10;
/// Bytes of a welcome: all members of a cluster.
pub const GATE_WELCOME_BYTES_MAX: usize = 1 << 20;

// ---- events

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

/// Bytes of the name of a table, a column or a database. SQLite knows no limit; real names are below 100 bytes. Enrolment refuses longer ones.
pub const IDENTIFIER_BYTES_MAX: usize = 1_024;

/// Bytes of the names that the references of one event spell out in memory (on the wire each name is written once).
pub const EVENT_REFERENCE_NAMES_MAX: usize = 128 << 20;

/// Distinct origins that one event names: one per incarnation of every node that ever wrote.
pub const EVENT_ORIGINS_MAX: usize = 1 << 16;

/// Bytes of one piece of an event too large for a frame: small enough that a cut link loses little.
pub const PIECE_BYTES: usize = 256 << 10;

/// Bytes of events in one answer to a pull: a frame still has room for [`HEADS_MAX`] heads of about 90 bytes.
pub const PULL_BYTES: usize = 512 << 10;

const _: () = assert!(PIECE_BYTES < FRAME_BYTES_MAX && EVENT_BYTES_TARGET < EVENT_BYTES_MAX);
const _: () = assert!(PULL_BYTES + 96 * HEADS_MAX < FRAME_BYTES_MAX);

// ---- pulling

/// A frame of events above this size is packed.
pub const PACK_BYTES_MIN: usize = 512;

/// Fresh events up to this size together are pushed at once, and an answer up to this size goes before any bulk.
pub const PUSH_BYTES_MAX: usize = 64 << 10;

/// Bytes of events that came before those in front of them, kept until the gap closes.
pub const HELD_BYTES_MAX: usize = 4 << 20;

/// Bytes of the pieces of large events kept in all.
pub const PARTIAL_BYTES_MAX: usize = EVENT_BYTES_MAX + (1 << 20);

const _: () =
    assert!(ANNOUNCED_HEADS_MAX * 96 < ANNOUNCEMENT_BYTES_MAX && ANNOUNCEMENT_BYTES_MAX * 2 < GOSSIP_BYTES_MAX);
const _: () = assert!(PUSH_BYTES_MAX < PULL_BYTES && PULL_BYTES < HELD_BYTES_MAX);

// ---- membership

/// Member records that a node keeps, and takes in one message. Takings away (revocations) have
/// [`REVOKING_RECORDS_MAX`] places more.
pub const MEMBER_RECORDS_MAX: usize = 2_048;

/// Places for revocations alone, so that a flood by a stolen admin key can still be ended.
pub const REVOKING_RECORDS_MAX: usize = 256;

/// Records that one member may sign about itself (names, key rotations), its former keys' included.
pub const OWN_RECORDS_MAX: usize = 32;

/// Records that one record names as known, and heads of the records that a hello names.
pub const RECORD_AFTER_MAX: usize = 16;

/// Bytes of member records in one hello or one chain at the gate; more go with the next hello.
pub const MEMBER_RECORDS_BYTES: usize = 256 << 10;

/// Bytes of one chain at the gate.
pub const GATE_CHAIN_BYTES_MAX: usize = 288 << 10;
// ---- bundles

/// Bytes of a bundle's header: a lock for every member, and a margin.
pub const BUNDLE_HEADER_BYTES_MAX: usize = 96 << 10;

/// Bytes at which an export begins a new part: enough to compress well, little to hold in memory.
pub const BUNDLE_PART_BYTES_TARGET: usize = 1 << 20;

/// Events in one part.
pub const BUNDLE_PART_EVENTS_MAX: usize = EVENTS_PER_FRAME_MAX;

/// Bytes of one part, unpacked: one event of the greatest size behind a part that was almost full.
pub const BUNDLE_PART_PLAIN_BYTES_MAX: usize = EVENT_BYTES_MAX + (4 << 20);

/// Bytes of one part as it lies in the file: what does not compress grows a little.
pub const BUNDLE_PART_BYTES_MAX: usize = BUNDLE_PART_PLAIN_BYTES_MAX + (1 << 20);

/// Characters of a newcomer's request.
pub const REQUEST_TEXT_BYTES_MAX: usize = 1_024;

const _: () = assert!(BUNDLE_HEADER_BYTES_MAX > MEMBERS_MAX * 64);

// ---- finding

/// Members in one message of ways.
pub const WAYS_MEMBERS_MAX: usize = 128;
/// Addresses of one member in a message of ways.
pub const WAYS_ADDRESSES_MAX: usize = 4;
/// Bytes of a message of ways.
pub const WAYS_BYTES_MAX: usize = 64 << 10;
/// Addresses of one peer that a node remembers across restarts.
pub const REMEMBERED_PER_PEER_MAX: usize = 16;
/// Addresses of all peers that a node remembers across restarts.
pub const REMEMBERED_MAX: usize = 4096;

// ---- snapshots

/// Bytes of the content of a part at which it ends behind the next row: a few milliseconds of the app's write lock.
pub const SNAPSHOT_PART_BYTES_TARGET: usize = 256 << 10;
/// Bytes of the content of a part. A larger row has no place in a snapshot: that cluster's new members get events.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 1_000_000;
/// Records of rows in one part.
pub const SNAPSHOT_PART_ROWS_MAX: usize = 4096;
/// Parts asked for at once, and contents named as held in one ask.
pub const SNAPSHOT_PARTS_MAX: usize = 16;
/// Tables in a plan.
pub const SNAPSHOT_TABLES_MAX: usize = EVENT_TABLES_MAX;

const _: () =
    assert!(SNAPSHOT_PART_BYTES_TARGET < SNAPSHOT_PART_BYTES_MAX && SNAPSHOT_PART_BYTES_MAX < FRAME_BYTES_MAX);
