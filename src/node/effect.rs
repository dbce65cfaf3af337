//! What enters and leaves a node: inputs, effects and the time.
//!
//! Invariant: plain data only; the daemon and the simulator drive the same [`super::Node`] with the same words.
//! Callers: daemon, net, simulations.

use crate::model::{MemberRecord, NodeId};

/// The time, read by the caller once per call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds of a clock that never jumps, from any start.
    pub mono_ms: u64,
    /// Milliseconds since 1970 by the machine's clock, right or wrong.
    pub wall_ms: u64,
}

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Something changed in the directory of a database's file (position in the settings).
    FileTouched(usize),
    /// The deadline of [`super::Node::next_deadline`] has come (early or late calls are harmless).
    Tick,
    /// An admitted peer is connected; frames can be sent to it.
    PeerConnected {
        /// The peer.
        peer: NodeId,
        /// Its address, a multiaddr.
        address: String,
    },
    /// The last connection to a peer is gone.
    PeerDisconnected {
        /// The peer.
        peer: NodeId,
    },
    /// A frame from a connected peer.
    Received {
        /// The peer.
        peer: NodeId,
        /// One encoded `wire::Message`.
        frame: Vec<u8>,
    },
    /// A gossiped announcement (the sender is a member; the announcement may be stale or repeated).
    Announced {
        /// One encoded `wire::Announcement`.
        frame: Vec<u8>,
    },
    /// Member records learnt while admitting a peer.
    MembersLearnt(Vec<MemberRecord>),
    /// A peer showed the record that shut this node out, and closed the connection.
    ShutOut {
        /// The peer.
        by: NodeId,
        /// The record.
        record: Box<MemberRecord>,
    },
    /// Round trip to a peer, measured by the network.
    RoundTrip {
        /// The peer.
        peer: NodeId,
        /// Microseconds.
        micros: u64,
    },
    /// A member was called: it answered, or not.
    Dialed {
        /// The peer.
        peer: NodeId,
        /// Why not, with its class before a colon; `None`: it answered.
        problem: Option<String>,
    },
    /// What the machine's clock shows where it stands: for quiet hours.
    LocalTime {
        /// Local time minus UTC, in minutes.
        offset_minutes: i32,
    },
    /// Somebody asked for a sync now, with one peer or all.
    SyncRequested(Option<NodeId>),
    /// Somebody wants to know now whether the content is equal to one peer's, or all peers'.
    CompareRequested(Option<NodeId>),
}

/// What a node wants done. An effect that reveals an event comes out only after the commit that holds the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame to a connected peer. May be lost.
    Send {
        /// The peer.
        peer: NodeId,
        /// One encoded `wire::Message`.
        frame: Vec<u8>,
    },
    /// Gossip an announcement to all. May be lost.
    Announce {
        /// One encoded `wire::Announcement`.
        frame: Vec<u8>,
    },
    /// The members changed: the network admits, and drops, by the new set.
    MembersChanged,
    /// For so many ms (0: no longer), whoever knocks from the local network is let in: the network may tell where.
    LanTrusted(u64),
    /// The node was opened again and knows no peer: the network tells it again who is connected.
    Reopened,
    /// A peer broke the protocol; the words say how. The network drops the connection.
    PeerFault {
        /// The peer.
        peer: NodeId,
        /// What it did.
        reason: String,
    },
    /// A database's file changed by this node's hand (position in the settings).
    Applied(usize),
}
