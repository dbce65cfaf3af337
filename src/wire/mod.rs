//! Floor L2: protobuf to model and back.
//!
//! Invariant: every decoder is total (no byte string panics it) and allocates by no untrusted number; every size limit is
//! in [`limits`]. Events, which are hashed and signed, have one encoding only.
//! Callers: log (events), node (events, messages, members, invites), net (frames, gate).

pub mod bundle;
pub mod compare;
pub mod event;
mod event_decode;
mod event_encode;
mod event_peek;
pub mod invite;
pub mod limits;
pub mod member;
pub mod message;
pub mod phrase;
pub mod request;
pub mod snapshot;
pub mod snapshot_cuts;
mod snapshot_decode;
mod snapshot_encode;
pub mod snapshot_rows;
mod varint;
pub mod ways;

pub use event::{WireError, decode_event, encode_event, event_hash, head_signature_message};

/// Generated from `proto/*.proto`.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all)]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/litemesh.rs"));
}

/// Generated from `proto/event.proto`.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all)]
mod event_proto {
    include!(concat!(env!("OUT_DIR"), "/litemesh.event.rs"));
}
