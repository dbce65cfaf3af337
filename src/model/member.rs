//! Members of a cluster: who may read and write, with the rank and slot that identity needs.
//!
//! Invariant: a record is signed by a member admitted before it, the founder's by itself; the cluster's id is the hash of
//! the founder's record, so nobody can graft another founder. Verification is in `node::membership`.
//! Callers: node, net, wire, merge (ranks).

use serde::{Deserialize, Serialize};

use super::identity::NodeId;

/// Names a cluster: the blake3 hash of the founder's signed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 32]);

/// What a cluster knows of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member's key.
    pub node: NodeId,
    /// Name for people; need not be unique.
    pub name: String,
    /// Seniority: the founder has 0, a joiner one more than the highest rank its inviter knew.
    pub rank: u32,
    /// Where its ids go when two rows claim the same one: from 1.
    pub slot: u32,
    /// When it was admitted, ms since 1970 by the inviter's clock.
    pub admitted_ms: u64,
}

/// A signed admission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The cluster; zeros in the founder's own record, which defines it.
    pub cluster: [u8; 32],
    /// Who is admitted.
    pub member: Member,
    /// Name of the cluster, in the founder's record; empty elsewhere.
    pub cluster_name: String,
    /// Who admits: a member admitted before.
    pub signer: NodeId,
    /// ed25519 signature of the signer over the record's canonical bytes.
    pub signature: Vec<u8>,
}
