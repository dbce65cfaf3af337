//! Making member records: each names what its signer knows, and is signed.
//!
//! Invariant: nothing here checks a right: a record made by somebody who has none is refused by everybody
//! ([`super::Membership::add`]). Callers: node (orders, invite, recover), daemon (key rotation), simulations.

use std::collections::BTreeSet;

use ed25519_dalek::{Signer as _, SigningKey};

use super::Membership;
use crate::model::{ClusterId, Member, MemberRecord, NodeId, RecordKind, Role};
use crate::wire::limits::{NAME_BYTES_MAX, RECORD_AFTER_MAX, SLOT_MAX};
use crate::wire::member::signed_bytes;

/// The public key of a secret seed.
pub fn node_id(key_seed: &[u8; 32]) -> NodeId {
    NodeId(SigningKey::from_bytes(key_seed).verifying_key().to_bytes())
}

/// The record that defines a new cluster without a recovery phrase: its founder admits itself.
pub fn found_cluster(key_seed: &[u8; 32], name: &str, cluster_name: &str, now_ms: u64) -> MemberRecord {
    found_cluster_with(key_seed, name, cluster_name, [0; 32], now_ms)
}

/// The same; `recovery` is the public key of the recovery phrase.
pub fn found_cluster_with(
    key_seed: &[u8; 32],
    name: &str,
    cluster_name: &str,
    recovery: [u8; 32],
    now_ms: u64,
) -> MemberRecord {
    let node = node_id(key_seed);
    let name = shortened(name);
    let member = Member { node, name, rank: 0, slot: 1, role: Role::Admin, admitted_ms: now_ms };
    let record = MemberRecord {
        cluster: [0; 32],
        kind: RecordKind::Found,
        member,
        cluster_name: shortened(cluster_name),
        recovery,
        after: Vec::new(),
        signer: node,
        signature: Vec::new(),
    };
    signed(key_seed, record)
}

/// The cluster that a founder's record defines.
pub fn cluster_id(founder: &MemberRecord) -> ClusterId {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 cluster");
    hasher.update(&signed_bytes(founder));
    hasher.update(&founder.signature);
    ClusterId(*hasher.finalize().as_bytes())
}

/// Admits a node as an ordinary member: see [`admit_as`].
pub fn admit(key_seed: &[u8; 32], membership: &Membership, node: NodeId, name: &str, now_ms: u64) -> MemberRecord {
    admit_as(key_seed, membership, (node, name), Role::Member, now_ms)
}

/// Admits a node: the next rank, the lowest slot that nobody ever had. Who is a member already keeps its record, so
/// admitting is idempotent. See [`Membership::may_admit_as`] for whose records count.
pub fn admit_as(
    key_seed: &[u8; 32],
    membership: &Membership,
    (node, name): (NodeId, &str),
    role: Role,
    now_ms: u64,
) -> MemberRecord {
    if membership.may_connect(&node)
        && let Some(record) = admission(membership, &node)
    {
        return record;
    }
    let all = || membership.people.values().map(|person| &person.member);
    let known = membership.member(&node);
    let next = || all().map(|member| member.rank).max().unwrap_or_default().saturating_add(1);
    // Who comes back comes back to its place; the least rank it was ever given stays.
    let signer = membership.member(&node_id(key_seed)).map_or(0, |member| member.rank.saturating_add(1));
    let rank = known.map_or_else(next, |member| member.rank.max(signer));
    let taken: BTreeSet<u32> = all().map(|member| member.slot).collect();
    let free = || (1..=SLOT_MAX).find(|slot| !taken.contains(slot)).unwrap_or(SLOT_MAX);
    let slot = known.map_or_else(free, |member| member.slot);
    let member = Member { node, name: shortened(name), rank, slot, role, admitted_ms: now_ms };
    record(key_seed, membership, RecordKind::Admit, member)
}

/// The record that admitted a member.
fn admission(membership: &Membership, node: &NodeId) -> Option<MemberRecord> {
    let lets_in = |record: &&&MemberRecord| {
        record.member.node == *node && matches!(record.kind, RecordKind::Admit | RecordKind::Found)
    };
    let rank = membership.member(node)?.rank;
    membership
        .records()
        .iter()
        .filter(lets_in)
        .find(|record| record.member.rank == rank)
        .map(|record| (*record).clone())
}

/// Shuts a member out. `key_seed`: an admin's, or the recovery key's, which also seals away what the member signed that
/// is not known here.
pub fn revoke(key_seed: &[u8; 32], membership: &Membership, node: NodeId, now_ms: u64) -> MemberRecord {
    record(key_seed, membership, RecordKind::Revoke, subject(node, now_ms))
}

/// Gives a member another role.
pub fn set_role(key_seed: &[u8; 32], membership: &Membership, node: NodeId, role: Role, now_ms: u64) -> MemberRecord {
    record(key_seed, membership, RecordKind::Role, Member { role, ..subject(node, now_ms) })
}

/// Gives a member another name.
pub fn rename(key_seed: &[u8; 32], membership: &Membership, node: NodeId, name: &str, now_ms: u64) -> MemberRecord {
    record(key_seed, membership, RecordKind::Name, Member { name: shortened(name), ..subject(node, now_ms) })
}

/// Gives the place of this key to another one.
pub fn rotate(key_seed: &[u8; 32], membership: &Membership, node: NodeId, now_ms: u64) -> MemberRecord {
    record(key_seed, membership, RecordKind::Rotate, subject(node, now_ms))
}

/// Makes a member an admin, and lets it in again if it was shut out. `key_seed`: the recovery key's.
pub fn recover(key_seed: &[u8; 32], membership: &Membership, node: NodeId, now_ms: u64) -> MemberRecord {
    record(key_seed, membership, RecordKind::Recover, Member { role: Role::Admin, ..subject(node, now_ms) })
}

fn subject(node: NodeId, now_ms: u64) -> Member {
    Member { node, name: String::new(), rank: 0, slot: 0, role: Role::Member, admitted_ms: now_ms }
}

fn record(key_seed: &[u8; 32], membership: &Membership, kind: RecordKind, member: Member) -> MemberRecord {
    let signer = node_id(key_seed);
    let record = MemberRecord {
        cluster: membership.cluster.0,
        kind,
        member,
        cluster_name: String::new(),
        recovery: [0; 32],
        after: after(membership, &signer),
        signer,
        signature: Vec::new(),
    };
    signed(key_seed, record)
}

/// What the signer knows: all heads, or where there are too many, its own newest record and as many heads as fit.
fn after(membership: &Membership, signer: &NodeId) -> Vec<[u8; 32]> {
    let mut after = membership.heads();
    if membership.heads.len() > RECORD_AFTER_MAX
        && let Some(own) = membership.listed().iter().rev().find(|listed| listed.record.signer == *signer)
        && !after.contains(&own.hash)
    {
        after.pop();
        after.push(own.hash);
        after.sort_unstable();
    }
    after
}

pub(super) fn signed(key_seed: &[u8; 32], mut record: MemberRecord) -> MemberRecord {
    record.signature = SigningKey::from_bytes(key_seed).sign(&signed_bytes(&record)).to_bytes().to_vec();
    record
}

/// A name cut to its limit at a character's border.
pub fn shortened(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_string()
}
