//! What another server is known to hold, since when and how this is known.
//!
//! Invariant: a statement of that server itself, never hearsay. Callers: log (keeps it), node::receipts.

use serde::{Deserialize, Serialize};

use super::heads::Heads;

/// What one server said it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What its log held.
    pub heads: Heads,
    /// When, ms since 1970: by this server's clock over a connection, by its own in a bundle.
    pub as_of_ms: u64,
    /// When by its own clock: tells an older statement of it from a newer one.
    pub stated_ms: u64,
    /// How it came here.
    pub way: Way,
}

/// How a statement came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// Over the network.
    Connection,
    /// In a bundle.
    Bundle,
}
