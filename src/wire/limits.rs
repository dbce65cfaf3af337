//! Every size limit of what comes from outside.
//!
//! Invariant: the same on all nodes; a limit may only grow with a new protocol version. Callers: wire, net, node.

/// Version of the protocol between members.
pub const PROTOCOL_VERSION: u32 = 1;
/// Bytes of one frame between two members, its length not counted.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of a gossiped announcement: gossipsub wedges near its own limit, so stay far below it.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 16 << 10;
/// Heads in a hello, a pull or an answer.
pub const HEADS_MAX: usize = 4096;
/// Heads in an announcement.
pub const ANNOUNCED_HEADS_MAX: usize = 128;
/// Events in one answer to a pull.
pub const EVENTS_PER_FRAME_MAX: usize = 8192;
/// Bytes of one event; larger than a frame, it travels in pieces.
pub const EVENT_TOTAL_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a node's or a cluster's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Members of one cluster, and so member records in one message.
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
pub const GATE_RECORDS_MAX: usize = 64;
/// Bytes of one message at the gate, the welcome excepted.
pub const GATE_MESSAGE_BYTES_MAX: usize = 24 << 10;
/// Bytes of a welcome: all members of a cluster.
pub const GATE_WELCOME_BYTES_MAX: usize = 512 << 10;
