//! Floor L2: protobuf bytes to model and back.
//!
//! Invariant: every decoder is total (no byte string panics it), checks every limit of [`limits`] before it allocates,
//! and accepts one encoding per value only. Callers: log (stored events), node (frames).

pub mod event;
mod event_decode;
mod event_encode;
pub mod limits;
mod varint;

/// Structures generated from `proto/event.proto`.
#[allow(missing_docs, unreachable_pub)]
mod event_proto {
    include!(concat!(env!("OUT_DIR"), "/litemesh.event.rs"));
}

pub use event::{decode_event, encode_event, event_hash, head_signature_message};

/// Why bytes were refused. Nothing was changed; the same bytes are refused again, so a retry never helps: the sender is
/// at fault (or the storage, when the bytes come from it).
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
    /// Not the bytes of such a message.
    #[error("malformed message: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A valid message, but not in its one canonical encoding.
    #[error("the message is not in canonical form")]
    NotCanonical,
}
