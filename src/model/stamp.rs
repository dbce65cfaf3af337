//! Hybrid timestamps and event positions: the two total orders that decide between concurrent values.
//!
//! Invariant: identity and causality never read a [`Stamp`]; a bad clock can only decide which of two concurrent values
//! is shown. Callers: clock, merge, node.

use serde::{Deserialize, Serialize};

use super::identity::OriginId;

/// A hybrid timestamp: 48 bits of milliseconds since 1970 and a 16-bit counter (Kulkarni et al. 2014, "Logical Physical
/// Clocks"). The order is the number's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(pub u64);

/// The position of one change: origin, event, change. Unique in a cluster; ties between equal stamps go by this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The origin that captured the change.
    pub origin: OriginId,
    /// The event's sequence number in that origin, from 1.
    pub seq: u64,
    /// The position of the change in the event.
    pub index: u32,
}

impl Stamp {
    /// The stamp with this wall time and a zero counter.
    pub fn from_wall_ms(wall_ms: u64) -> Stamp {
        Stamp(wall_ms.min((1 << 48) - 1) << 16)
    }

    /// Milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        self.0 >> 16
    }

    /// The least stamp greater than this one (the counter carries into the milliseconds; the last one stays itself).
    pub fn next(&self) -> Stamp {
        Stamp(self.0.saturating_add(1))
    }
}
