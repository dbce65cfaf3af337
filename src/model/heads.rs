//! How far: the heads of a log and the cut that a file shows.
//!
//! Invariant: a head stands for a contiguous prefix 1..=seq of its origin's chain; a cut is causally closed.
//! Callers: log, merge, node, wire.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::identity::{Origin, OriginId};

/// The highest contiguous event of one origin that a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Key and incarnation of the origin.
    pub origin: Origin,
    /// The event's sequence number, from 1.
    pub seq: u64,
    /// The event's chain hash.
    pub hash: [u8; 32],
}

/// All heads of a log, by origin.
pub type Heads = BTreeMap<OriginId, Head>;

/// A version vector: per origin, the events 1..=n it covers. What one database file shows, and what a change's author
/// had seen (`crdts::VClock`).
pub type Cut = crdts::VClock<OriginId>;
