//! Members of a cluster: who may read and write, with the rank and slot that identity needs.
//!
//! Invariant: a record is signed, and names the records that its signer knew, so the records form a graph that nobody can
//! change afterwards; the cluster's id is the hash of the founder's record, so nobody can graft another founder. What the
//! records mean together is decided in `node::membership`. Callers: node, net, wire, merge (ranks).

use serde::{Deserialize, Serialize};

use super::identity::NodeId;

/// Names a cluster: the blake3 hash of the founder's signed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 32]);

/// Names a member record: the blake3 hash of what is signed, and the signature.
pub type RecordHash = [u8; 32];

/// What a member may do; a later one may do all that an earlier one may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Gets everything; nobody takes what it writes.
    ReadOnly,
    /// Reads and writes.
    #[default]
    Member,
    /// Admits, revokes and changes roles besides.
    Admin,
}

impl Role {
    /// The word of the command line.
    pub fn word(self) -> &'static str {
        match self {
            Role::ReadOnly => "read-only",
            Role::Member => "member",
            Role::Admin => "admin",
        }
    }

    /// The inverse of [`Role::word`].
    pub fn from_word(word: &str) -> Option<Role> {
        [Role::ReadOnly, Role::Member, Role::Admin].into_iter().find(|role| role.word() == word)
    }
}

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
    /// What it may do.
    pub role: Role,
    /// When it was admitted, ms since 1970 by the inviter's clock.
    pub admitted_ms: u64,
}

/// What a member record does to its subject ([`MemberRecord::member`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// Founds the cluster; names the recovery key.
    Found,
    /// Admits the subject with name, rank, slot and role.
    #[default]
    Admit,
    /// Shuts the subject out.
    Revoke,
    /// Gives the subject another role.
    Role,
    /// Gives the subject another name.
    Name,
    /// The signer's place is the subject's key from now on.
    Rotate,
    /// Makes the subject an admin; signed by the recovery key.
    Recover,
}

/// A signed record of the membership log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The cluster; zeros in the founder's own record, which defines it.
    pub cluster: [u8; 32],
    /// What it does.
    pub kind: RecordKind,
    /// To whom. What the kind does not say is empty; `admitted_ms` is when the record was made, by the signer's clock.
    pub member: Member,
    /// Name of the cluster, in the founder's record; empty elsewhere.
    pub cluster_name: String,
    /// Public key of the recovery phrase, in the founder's record; zeros: there is none.
    pub recovery: [u8; 32],
    /// The newest records that the signer knew: it knew all before them as well. Sorted; empty in the founder's.
    pub after: Vec<RecordHash>,
    /// Who says so: an admin, for itself a member, or the recovery key.
    pub signer: NodeId,
    /// ed25519 signature of the signer over the record's canonical bytes.
    pub signature: Vec<u8>,
}
