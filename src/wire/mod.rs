//! Floor L2: protobuf to model and back.
//!
//! Invariant: no decoder panics or allocates by an untrusted number; every size limit is in [`limits`].
//! Callers: log (events), node (messages, members, invites), net (frames, gate).

pub mod invite;
pub mod limits;
pub mod member;
pub mod message;

/// Generated from `proto/*.proto`.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all)]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/litemesh.rs"));
}
