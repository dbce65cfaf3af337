//! The one encoding of an event, its hash, and the message that the head signature covers.
//!
//! Invariant: `decode_event(bytes) == Ok(event)` if and only if `bytes == encode_event(&event)` and the limits hold: the
//! same bytes are stored, hashed, signed and sent, and nobody can make a second form of the same event.
//! Callers: node (capture, receive), log, sync.

pub use super::event_peek::peek_header;
use super::{event_decode, event_encode, limits};
use crate::model::Event;

/// Why the bytes of an event were refused. Nothing was changed; the same bytes are refused again, so a retry never helps:
/// the sender is at fault (or the storage, when the bytes come from it).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Larger than a limit of [`limits`]. Nothing was allocated for it.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Not the bytes of an event.
    #[error("malformed event: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An event, but not in its one canonical encoding.
    #[error("the event is not in canonical form")]
    NotCanonical,
}

/// The canonical bytes of an event. Total; an event that breaks a rule of the model (columns out of order, a table that
/// is not there) or a limit gives bytes that [`decode_event`] refuses.
pub fn encode_event(event: &Event) -> Vec<u8> {
    event_encode::encode(event)
}

/// The event in these bytes. Refuses everything but canonical bytes within the limits.
pub fn decode_event(bytes: &[u8]) -> Result<Event, WireError> {
    if bytes.len() > limits::EVENT_BYTES_MAX {
        return Err(WireError::TooLarge { what: "an event", limit: limits::EVENT_BYTES_MAX });
    }
    let event = event_decode::decode(bytes)?;
    if event_encode::encode(&event) == bytes { Ok(event) } else { Err(WireError::NotCanonical) }
}

/// The event in bytes that this node took into its log, which [`decode_event`] accepted then, and whose hash was checked
/// when they were read: not encoded a second time to see whether they are canonical.
pub fn decode_stored(bytes: &[u8]) -> Result<Event, WireError> {
    event_decode::decode(bytes)
}

/// The chain hash of an event: of its canonical bytes, which hold the hash of the event before it.
pub fn event_hash(bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key("litemesh 1 event", bytes)
}

/// What a node signs to vouch for its chain up to the event with this hash.
pub fn head_signature_message(cluster: &[u8; 32], hash: &[u8; 32]) -> Vec<u8> {
    [b"litemesh 1 head".as_slice(), cluster, hash].concat()
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
