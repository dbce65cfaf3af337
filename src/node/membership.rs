//! Who belongs to the cluster: signed records, checked back to the founder.
//!
//! Invariant: the members are a function of the set of records, whatever order they came in: the least fixpoint of "a
//! record counts when its signer is a member of lower rank", and of several records of one node the one with the lowest
//! rank (then slot, then signature). The cluster's id is the hash of the founder's signed record, so no other founder
//! can be grafted. Callers: node, node::invite, net (the gate works on a copy).

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::model::{ClusterId, Member, MemberRecord, NodeId};
use crate::wire::limits::{GATE_RECORDS_MAX, MEMBERS_MAX, NAME_BYTES_MAX, SLOT_MAX, WAITING_RECORDS_MAX};
use crate::wire::member::signed_bytes;

/// Why a record is refused. The membership is unchanged, and the same record will be refused again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The signature is not the signer's.
    #[error("the signature of a member record is wrong")]
    BadSignature,
    /// It admits to another cluster, or claims to found this one.
    #[error("the member record belongs to another cluster")]
    OtherCluster,
    /// A founder's record that breaks the rules for founders, or a rank, slot or name out of range.
    #[error("the member record is out of range: {0}")]
    OutOfRange(&'static str),
    /// The table of members, or the one of records that wait for their signer, is full.
    #[error("too many member records")]
    Full,
}

/// The members of one cluster.
#[derive(Clone, Debug)]
pub struct Membership {
    cluster: ClusterId,
    founder: NodeId,
    /// The record that counts of every member.
    records: BTreeMap<NodeId, MemberRecord>,
    /// Records with a good signature whose signer is not (yet) a member of lower rank.
    waiting: Vec<MemberRecord>,
}

/// The public key of a secret seed.
pub fn node_id(key_seed: &[u8; 32]) -> NodeId {
    NodeId(SigningKey::from_bytes(key_seed).verifying_key().to_bytes())
}

/// The record that defines a new cluster: its founder admits itself.
pub fn found_cluster(key_seed: &[u8; 32], name: &str, cluster_name: &str, now_ms: u64) -> MemberRecord {
    let node = node_id(key_seed);
    let member = Member { node, name: shortened(name), rank: 0, slot: 1, admitted_ms: now_ms };
    let cluster_name = shortened(cluster_name);
    signed(key_seed, MemberRecord { cluster: [0; 32], member, cluster_name, signer: node, signature: Vec::new() })
}

/// The cluster that a founder's record defines.
pub fn cluster_id(founder: &MemberRecord) -> ClusterId {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 cluster");
    hasher.update(&signed_bytes(founder));
    hasher.update(&founder.signature);
    ClusterId(*hasher.finalize().as_bytes())
}

/// Admits a node: the next rank, the lowest free slot. Who is a member already keeps its record, so admitting is
/// idempotent. The record counts only when the seed is a member's.
pub fn admit(key_seed: &[u8; 32], membership: &Membership, node: NodeId, name: &str, now_ms: u64) -> MemberRecord {
    if let Some(record) = membership.records.get(&node) {
        return record.clone();
    }
    let all = || membership.records.values().map(|record| &record.member);
    let rank = all().map(|member| member.rank).max().unwrap_or_default().saturating_add(1);
    let taken: BTreeSet<u32> = all().map(|member| member.slot).collect();
    let slot = (1..=SLOT_MAX).find(|slot| !taken.contains(slot)).unwrap_or(SLOT_MAX);
    let member = Member { node, name: shortened(name), rank, slot, admitted_ms: now_ms };
    let (cluster, signer) = (membership.cluster.0, node_id(key_seed));
    signed(key_seed, MemberRecord { cluster, member, cluster_name: String::new(), signer, signature: Vec::new() })
}

impl Membership {
    /// A cluster that so far has only its founder.
    pub fn new(founder: MemberRecord) -> Result<Membership, MembershipError> {
        check_shape(&founder)?;
        let member = &founder.member;
        if founder.cluster != [0; 32] || founder.signer != member.node || member.rank != 0 || member.slot != 1 {
            return Err(MembershipError::OutOfRange("founder"));
        }
        check_signature(&founder)?;
        let (cluster, node) = (cluster_id(&founder), member.node);
        Ok(Membership { cluster, founder: node, records: BTreeMap::from([(node, founder)]), waiting: Vec::new() })
    }

    /// Takes a record from anywhere. `true`: the members changed. `false`: it was known, or it waits for its signer.
    pub fn add(&mut self, record: MemberRecord) -> Result<bool, MembershipError> {
        check_shape(&record)?;
        let node = record.member.node;
        if self.records.get(&node) == Some(&record) || self.waiting.contains(&record) {
            return Ok(false);
        }
        if record.cluster != self.cluster.0 {
            return Err(MembershipError::OtherCluster);
        }
        if record.member.rank == 0 || node == self.founder {
            return Err(MembershipError::OutOfRange("rank"));
        }
        check_signature(&record)?;
        if !self.signer_counts(&record) {
            if self.waiting.len() >= WAITING_RECORDS_MAX {
                return Err(MembershipError::Full);
            }
            self.waiting.push(record);
            return Ok(false);
        }
        if !self.records.contains_key(&node) && self.records.len() >= MEMBERS_MAX {
            return Err(MembershipError::Full);
        }
        let changed = self.place(record);
        Ok(self.place_waiting() || changed)
    }

    /// Whether a node may connect, read and write. The one place that decides it: a revocation goes here.
    pub fn may_connect(&self, node: &NodeId) -> bool {
        self.records.contains_key(node)
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The cluster's name for people.
    pub fn cluster_name(&self) -> &str {
        self.records.get(&self.founder).map_or("", |record| &record.cluster_name)
    }

    /// All members, by rank, then key: the order of seniority.
    pub fn members(&self) -> Vec<&Member> {
        self.records().into_iter().map(|record| &record.member).collect()
    }

    /// The records of all members in the order of seniority: a signer comes before those it admitted.
    pub fn records(&self) -> Vec<&MemberRecord> {
        let mut records: Vec<&MemberRecord> = self.records.values().collect();
        records.sort_by_key(|record| (record.member.rank, record.member.node));
        records
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never: a cluster has its founder.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// One member.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.records.get(node).map(|record| &record.member)
    }

    /// The members that a person may mean: by exact name, else by prefix of name or hex key (ASCII case ignored).
    pub fn by_name(&self, name: &str) -> Vec<&Member> {
        let wanted = name.to_ascii_lowercase();
        let exact: Vec<&Member> = self.members().into_iter().filter(|member| member.name == name).collect();
        if !exact.is_empty() || wanted.is_empty() {
            return exact;
        }
        let begins = |member: &&Member| {
            member.name.to_ascii_lowercase().starts_with(&wanted) || member.node.to_string().starts_with(&wanted)
        };
        self.members().into_iter().filter(begins).collect()
    }

    /// Rank of every member. Equal ranks (two members invited apart) are told apart by key.
    pub fn ranks(&self) -> BTreeMap<NodeId, u32> {
        self.records.iter().map(|(node, record)| (*node, record.member.rank)).collect()
    }

    /// What proves a member's admission: its record, its signer's, and so on, nearest first, without the founder's
    /// (every member has that). At most as many as the gate takes; a listener that lacks more learns them from others.
    pub fn chain(&self, node: &NodeId) -> Vec<MemberRecord> {
        let mut chain = Vec::new();
        let mut next = *node;
        while next != self.founder && chain.len() < GATE_RECORDS_MAX {
            let Some(record) = self.records.get(&next) else { break };
            next = record.signer;
            chain.push(record.clone());
        }
        chain
    }

    /// Digest of the set of members, to see at a glance whether two nodes know the same.
    pub fn digest(&self) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 members");
        for record in self.records.values() {
            hasher.update(&record.signature);
        }
        let first = hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes");
        u64::from_be_bytes(first)
    }

    fn signer_counts(&self, record: &MemberRecord) -> bool {
        self.records.get(&record.signer).is_some_and(|signer| signer.member.rank < record.member.rank)
    }

    /// Of several records of a node the least counts.
    fn place(&mut self, record: MemberRecord) -> bool {
        let order = |record: &MemberRecord| (record.member.rank, record.member.slot, record.signature.clone());
        match self.records.get(&record.member.node) {
            Some(known) if order(known) <= order(&record) => false,
            _ => {
                self.records.insert(record.member.node, record);
                true
            }
        }
    }

    fn place_waiting(&mut self) -> bool {
        let mut changed = false;
        while let Some(position) = self.waiting.iter().position(|record| self.signer_counts(record)) {
            let record = self.waiting.swap_remove(position);
            if self.records.contains_key(&record.member.node) || self.records.len() < MEMBERS_MAX {
                changed |= self.place(record);
            }
        }
        changed
    }
}

fn signed(key_seed: &[u8; 32], mut record: MemberRecord) -> MemberRecord {
    record.signature = SigningKey::from_bytes(key_seed).sign(&signed_bytes(&record)).to_bytes().to_vec();
    record
}

fn check_shape(record: &MemberRecord) -> Result<(), MembershipError> {
    if record.member.name.len() > NAME_BYTES_MAX || record.cluster_name.len() > NAME_BYTES_MAX {
        return Err(MembershipError::OutOfRange("name"));
    }
    if record.member.slot == 0 || record.member.slot > SLOT_MAX {
        return Err(MembershipError::OutOfRange("slot"));
    }
    Ok(())
}

/// Strict: no weak keys and one signature per message and key, so a record has one form only.
fn check_signature(record: &MemberRecord) -> Result<(), MembershipError> {
    let bad = |_| MembershipError::BadSignature;
    let key = VerifyingKey::from_bytes(&record.signer.0).map_err(bad)?;
    let signature = Signature::from_slice(&record.signature).map_err(bad)?;
    key.verify_strict(&signed_bytes(record), &signature).map_err(bad)
}

/// A name cut to its limit at a character's border.
fn shortened(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_string()
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
