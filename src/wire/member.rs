//! Member records as bytes: the ones that travel and are stored, and the ones that are signed.
//!
//! Invariant: the signed bytes are fixed-size fields and length-prefixed names under a domain prefix, so two different
//! records never share them. Callers: node::membership, node, log, net.

use prost::Message as _;

use super::limits::{MEMBER_RECORDS_MAX, NAME_BYTES_MAX, RECORD_AFTER_MAX};
use super::message::MessageError;
use super::proto;
use crate::model::{Member, MemberRecord, NodeId, RecordHash, RecordKind, Role};

/// What a signer signs: everything in the record but the signature.
pub fn signed_bytes(record: &MemberRecord) -> Vec<u8> {
    let member = &record.member;
    let mut out = b"litemesh 1 member\0".to_vec();
    out.extend_from_slice(&record.cluster);
    out.push(kind_number(record.kind) as u8);
    out.extend_from_slice(&member.node.0);
    out.extend_from_slice(&member.rank.to_be_bytes());
    out.extend_from_slice(&member.slot.to_be_bytes());
    out.push(role_number(member.role) as u8);
    out.extend_from_slice(&member.admitted_ms.to_be_bytes());
    out.extend_from_slice(&record.recovery);
    out.extend_from_slice(&record.signer.0);
    out.extend_from_slice(&(record.after.len() as u64).to_be_bytes());
    record.after.iter().for_each(|hash| out.extend_from_slice(hash));
    for name in [&member.name, &record.cluster_name] {
        out.extend_from_slice(&(name.len() as u64).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    out
}

/// Names a record: other records refer to it by this.
pub fn record_hash(record: &MemberRecord) -> RecordHash {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 member record");
    hasher.update(&signed_bytes(record));
    hasher.update(&record.signature);
    *hasher.finalize().as_bytes()
}

/// One record as bytes, for the disk and the wire.
pub fn encode_member(record: &MemberRecord) -> Vec<u8> {
    to_proto(record).encode_to_vec()
}

/// The inverse of [`encode_member`]. Checks shape and limits, not the signature.
pub fn decode_member(bytes: &[u8]) -> Result<MemberRecord, MessageError> {
    from_proto(proto::MemberRecord::decode(bytes).map_err(|_| MessageError::Malformed("member record"))?)
}

/// A role on the wire; the usual one is 0.
pub(crate) fn role_number(role: Role) -> u32 {
    match role {
        Role::Member => 0,
        Role::Admin => 1,
        Role::ReadOnly => 2,
    }
}

/// The inverse of [`role_number`].
pub(crate) fn role_of(number: u32) -> Result<Role, MessageError> {
    match number {
        0 => Ok(Role::Member),
        1 => Ok(Role::Admin),
        2 => Ok(Role::ReadOnly),
        _ => Err(MessageError::Malformed("role of a member record")),
    }
}

fn kind_number(kind: RecordKind) -> u32 {
    match kind {
        RecordKind::Admit => 0,
        RecordKind::Found => 1,
        RecordKind::Revoke => 2,
        RecordKind::Role => 3,
        RecordKind::Name => 4,
        RecordKind::Rotate => 5,
        RecordKind::Recover => 6,
    }
}

fn kind_of(number: u32) -> Result<RecordKind, MessageError> {
    use RecordKind::*;
    [Admit, Found, Revoke, Role, Name, Rotate, Recover]
        .into_iter()
        .find(|kind| kind_number(*kind) == number)
        .ok_or(MessageError::Malformed("kind of a member record"))
}

pub(crate) fn to_proto(record: &MemberRecord) -> proto::MemberRecord {
    let founder = record.cluster == [0; 32];
    let own_signer = founder && record.signer == record.member.node;
    let key = |key: &[u8; 32]| if *key == [0; 32] { Vec::new() } else { key.to_vec() };
    proto::MemberRecord {
        cluster: key(&record.cluster),
        node: record.member.node.0.to_vec(),
        name: record.member.name.clone(),
        rank: record.member.rank,
        slot: record.member.slot,
        admitted_ms: record.member.admitted_ms,
        cluster_name: record.cluster_name.clone(),
        signer: if own_signer { Vec::new() } else { record.signer.0.to_vec() },
        signature: record.signature.clone(),
        kind: kind_number(record.kind),
        role: role_number(record.member.role),
        recovery: key(&record.recovery),
        after: record.after.iter().map(|hash| hash.to_vec()).collect(),
    }
}

pub(crate) fn from_proto(record: proto::MemberRecord) -> Result<MemberRecord, MessageError> {
    if record.name.len() > NAME_BYTES_MAX || record.cluster_name.len() > NAME_BYTES_MAX {
        return Err(MessageError::TooLarge("name"));
    }
    if record.signature.len() != 64 {
        return Err(MessageError::Malformed("signature of a member record"));
    }
    let node = NodeId(fixed(&record.node, "key of a member")?);
    let founder = record.cluster.is_empty();
    let signer = match record.signer.is_empty() && founder {
        true => node,
        false => NodeId(fixed(&record.signer, "signer of a member record")?),
    };
    let or_zeros = |bytes: &[u8], what| if bytes.is_empty() { Ok([0; 32]) } else { fixed(bytes, what) };
    Ok(MemberRecord {
        cluster: or_zeros(&record.cluster, "cluster of a member record")?,
        kind: kind_of(record.kind)?,
        member: Member {
            node,
            name: record.name,
            rank: record.rank,
            slot: record.slot,
            role: role_of(record.role)?,
            admitted_ms: record.admitted_ms,
        },
        cluster_name: record.cluster_name,
        recovery: or_zeros(&record.recovery, "recovery key")?,
        after: hashes(&record.after, RECORD_AFTER_MAX)?,
        signer,
        signature: record.signature,
    })
}

/// Names of records, at most so many.
pub(crate) fn hashes(list: &[Vec<u8>], limit: usize) -> Result<Vec<RecordHash>, MessageError> {
    if list.len() > limit {
        return Err(MessageError::TooLarge("names of member records"));
    }
    list.iter().map(|hash| fixed(hash, "name of a member record")).collect()
}

pub(crate) fn all_from_proto(records: Vec<proto::MemberRecord>) -> Result<Vec<MemberRecord>, MessageError> {
    if records.len() > MEMBER_RECORDS_MAX {
        return Err(MessageError::TooLarge("member records"));
    }
    records.into_iter().map(from_proto).collect()
}

/// A byte string of exactly `N` bytes.
pub(crate) fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], MessageError> {
    bytes.try_into().map_err(|_| MessageError::Malformed(what))
}
