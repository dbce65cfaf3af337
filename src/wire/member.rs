//! Member records as bytes: the ones that travel and are stored, and the ones that are signed.
//!
//! Invariant: the signed bytes are fixed-size fields and length-prefixed names under a domain prefix, so two different
//! records never share them. Callers: node::membership, node, log, net.

use prost::Message as _;

use super::limits::{MEMBERS_MAX, NAME_BYTES_MAX};
use super::message::MessageError;
use super::proto;
use crate::model::{Member, MemberRecord, NodeId};

/// What a signer signs: everything in the record but the signature.
pub fn signed_bytes(record: &MemberRecord) -> Vec<u8> {
    let member = &record.member;
    let mut out = b"litemesh 1 member\0".to_vec();
    out.extend_from_slice(&record.cluster);
    out.extend_from_slice(&member.node.0);
    out.extend_from_slice(&member.rank.to_be_bytes());
    out.extend_from_slice(&member.slot.to_be_bytes());
    out.extend_from_slice(&member.admitted_ms.to_be_bytes());
    out.extend_from_slice(&record.signer.0);
    for name in [&member.name, &record.cluster_name] {
        out.extend_from_slice(&(name.len() as u64).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
    }
    out
}

/// One record as bytes, for the disk and the wire.
pub fn encode_member(record: &MemberRecord) -> Vec<u8> {
    to_proto(record).encode_to_vec()
}

/// The inverse of [`encode_member`]. Checks shape and limits, not the signature.
pub fn decode_member(bytes: &[u8]) -> Result<MemberRecord, MessageError> {
    from_proto(proto::MemberRecord::decode(bytes).map_err(|_| MessageError::Malformed("member record"))?)
}

pub(crate) fn to_proto(record: &MemberRecord) -> proto::MemberRecord {
    let founder = record.cluster == [0; 32];
    let own_signer = founder && record.signer == record.member.node;
    proto::MemberRecord {
        cluster: if founder { Vec::new() } else { record.cluster.to_vec() },
        node: record.member.node.0.to_vec(),
        name: record.member.name.clone(),
        rank: record.member.rank,
        slot: record.member.slot,
        admitted_ms: record.member.admitted_ms,
        cluster_name: record.cluster_name.clone(),
        signer: if own_signer { Vec::new() } else { record.signer.0.to_vec() },
        signature: record.signature.clone(),
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
    Ok(MemberRecord {
        cluster: if founder { [0; 32] } else { fixed(&record.cluster, "cluster of a member record")? },
        member: Member {
            node,
            name: record.name,
            rank: record.rank,
            slot: record.slot,
            admitted_ms: record.admitted_ms,
        },
        cluster_name: record.cluster_name,
        signer,
        signature: record.signature,
    })
}

pub(crate) fn all_from_proto(records: Vec<proto::MemberRecord>) -> Result<Vec<MemberRecord>, MessageError> {
    if records.len() > MEMBERS_MAX {
        return Err(MessageError::TooLarge("member records"));
    }
    records.into_iter().map(from_proto).collect()
}

/// A byte string of exactly `N` bytes.
pub(crate) fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], MessageError> {
    bytes.try_into().map_err(|_| MessageError::Malformed(what))
}
