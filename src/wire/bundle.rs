//! Bundles: the bytes of a file that carries events where no network goes.
//!
//! ```text
//! magic (8) | length (4) | header | check of the header (16)      in the clear
//! 1 | length (4) | sealed manifest                                encrypted, compressed
//! 2 | length (4) | sealed events      … once or more, or never    encrypted, compressed
//! 3 | length (4) | seal                                           in the clear; nothing behind it
//! ```
//! Invariant: sans-IO; no length is believed before it is compared with its limit, and no decoder takes memory by an
//! untrusted number. Keys and signatures are `node::bundle_lock`'s. Callers: node (bundles), the fuzzer.

use std::io::Read as _;

use prost::Message as _;

use super::limits::{BUNDLE_HEADER_BYTES_MAX, BUNDLE_PART_BYTES_MAX, EVENT_BYTES_MAX};
use super::limits::{BUNDLE_PART_EVENTS_MAX, BUNDLE_PART_PLAIN_BYTES_MAX, HEADS_MAX, MEMBERS_MAX};
use super::member::{decode_member, encode_member, fixed};
use super::message::{MessageError, SignedEvent, check_field_count, head_to_proto, heads_from_proto};
use super::proto;
use crate::model::{Head, MemberRecord, NodeId, OriginId};

/// The first bytes of every bundle. A carriage return and a line feed: what a transfer as text would change.
pub const MAGIC: [u8; 8] = *b"lmbndl\r\n";

/// Version of the format.
pub const BUNDLE_VERSION: u32 = 1;

/// Bytes in front of the header: magic and length.
pub const OPENING_BYTES: usize = 12;

/// Bytes of the header's check, behind it.
pub const HEADER_CHECK_BYTES: usize = 16;

/// Bytes in front of every part: kind and length.
pub const PART_HEAD_BYTES: usize = 5;

/// Bytes of one lock.
pub const LOCK_BYTES: usize = 56;

/// Bytes of a seal, at most: a number and a signature.
const SEAL_BYTES_MAX: usize = 96;

/// Level of compression: what zstd's own default is.
const COMPRESSION_LEVEL: i32 = 3;

/// A window as large as the largest part asks for: a frame that wants more memory is refused.
const WINDOW_LOG_MAX: u32 = 27;

/// Why bytes are no bundle. Nothing was stored; the same bytes never become a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleFault {
    /// It does not begin as a bundle does.
    #[error("it is no litemesh bundle")]
    NotABundle,
    /// A newer litemesh wrote it.
    #[error("it has format {0}, and this version knows {BUNDLE_VERSION}")]
    Newer(u32),
    /// It is not as it was written: what does not fit.
    #[error("it is damaged ({0})")]
    Damaged(&'static str),
}

impl From<MessageError> for BundleFault {
    fn from(error: MessageError) -> BundleFault {
        match error {
            MessageError::Malformed(what) | MessageError::TooLarge(what) => BundleFault::Damaged(what),
        }
    }
}

/// What stands in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleHeader {
    /// Random, of this file alone.
    pub nonce: [u8; 32],
    /// Proves to members of which cluster it is.
    pub tag: [u8; 32],
    /// The key that the locks were made with.
    pub ephemeral: [u8; 32],
    /// The file's key, once for everybody who may open it.
    pub locks: Vec<[u8; LOCK_BYTES]>,
}

/// Who carries what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Who made the bundle, and signed it.
    pub exporter: NodeId,
    /// When, by its clock.
    pub created_ms: u64,
    /// For whom alone; `None`: for all members.
    pub made_for: Option<NodeId>,
    /// The cluster's member records as the exporter knew them.
    pub members: Vec<MemberRecord>,
    /// What its log held.
    pub heads: Vec<Head>,
    /// What of it is carried.
    pub ranges: Vec<Range>,
}

/// The events `after` + 1 to `through` of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The origin.
    pub origin: OriginId,
    /// The last event that is not carried.
    pub after: u64,
    /// The last one that is.
    pub through: u64,
}

/// The end of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Sealed parts before it.
    pub parts: u64,
    /// The exporter's signature over everything before it.
    pub signature: [u8; 64],
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// The manifest: once, first.
    Manifest,
    /// Events.
    Events,
    /// The seal: once, last.
    Seal,
}

impl PartKind {
    /// Its number on the wire.
    pub fn code(self) -> u8 {
        match self {
            PartKind::Manifest => 1,
            PartKind::Events => 2,
            PartKind::Seal => 3,
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            PartKind::Manifest | PartKind::Events => BUNDLE_PART_BYTES_MAX,
            PartKind::Seal => SEAL_BYTES_MAX,
        }
    }
}

/// Magic, length, header, check.
pub fn encode_opening(header: &BundleHeader) -> Vec<u8> {
    let encoded = proto::BundleHeader {
        version: BUNDLE_VERSION,
        nonce: header.nonce.to_vec(),
        tag: header.tag.to_vec(),
        ephemeral: header.ephemeral.to_vec(),
        locks: header.locks.iter().map(|lock| lock.to_vec()).collect(),
    };
    let encoded = encoded.encode_to_vec();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    out.extend_from_slice(&encoded);
    out.extend_from_slice(&header_check(&encoded));
    out
}

/// How many bytes follow the first [`OPENING_BYTES`]: the header and its check.
pub fn opening_length(first: &[u8; OPENING_BYTES]) -> Result<usize, BundleFault> {
    let (magic, length) = first.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(BundleFault::NotABundle);
    }
    let length = be_length(length);
    if length > BUNDLE_HEADER_BYTES_MAX {
        return Err(BundleFault::Damaged("length of the header"));
    }
    Ok(length + HEADER_CHECK_BYTES)
}

/// Reads what [`opening_length`] announced.
pub fn decode_header(bytes: &[u8]) -> Result<BundleHeader, BundleFault> {
    let damaged = BundleFault::Damaged("header");
    let Some((encoded, check)) = bytes.split_last_chunk::<HEADER_CHECK_BYTES>() else { return Err(damaged) };
    if encoded.len() > BUNDLE_HEADER_BYTES_MAX || header_check(encoded) != *check {
        return Err(damaged);
    }
    check_field_count(encoded, MEMBERS_MAX + 8)?;
    let header = proto::BundleHeader::decode(encoded).map_err(|_| damaged)?;
    if header.version != BUNDLE_VERSION {
        return Err(BundleFault::Newer(header.version));
    }
    Ok(BundleHeader {
        nonce: fixed(&header.nonce, "nonce")?,
        tag: fixed(&header.tag, "tag")?,
        ephemeral: fixed(&header.ephemeral, "key of the header")?,
        locks: header.locks.iter().map(|lock| fixed(lock, "lock")).collect::<Result<_, _>>()?,
    })
}

/// Kind and length in front of a part.
pub fn encode_part_head(kind: PartKind, length: usize) -> [u8; PART_HEAD_BYTES] {
    let length = u32::try_from(length).expect("a part is shorter than its limit").to_be_bytes();
    [kind.code(), length[0], length[1], length[2], length[3]]
}

/// The inverse of [`encode_part_head`].
pub fn decode_part_head(head: &[u8; PART_HEAD_BYTES]) -> Result<(PartKind, usize), BundleFault> {
    let kind = match head[0] {
        1 => PartKind::Manifest,
        2 => PartKind::Events,
        3 => PartKind::Seal,
        _ => return Err(BundleFault::Damaged("kind of a part")),
    };
    let length = be_length(&head[1..]);
    if length > kind.bytes_max() {
        return Err(BundleFault::Damaged("length of a part"));
    }
    Ok((kind, length))
}

/// The manifest, compressed, to be encrypted.
pub fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    let range = |range: &Range| proto::BundleRange {
        origin: range.origin.0.to_vec(),
        after: range.after,
        through: range.through,
    };
    let encoded = proto::BundleManifest {
        exporter: manifest.exporter.0.to_vec(),
        created_ms: manifest.created_ms,
        made_for: manifest.made_for.map(|node| node.0.to_vec()).unwrap_or_default(),
        members: manifest.members.iter().map(encode_member).collect(),
        heads: manifest.heads.iter().map(head_to_proto).collect(),
        ranges: manifest.ranges.iter().map(range).collect(),
    };
    compress(&encoded.encode_to_vec())
}

/// The inverse of [`encode_manifest`].
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, BundleFault> {
    let bytes = decompress(bytes)?;
    check_field_count(&bytes, MEMBERS_MAX + 2 * HEADS_MAX + 8)?;
    let manifest = proto::BundleManifest::decode(bytes.as_slice())
        .map_err(|_| BundleFault::Damaged("contents of the manifest"))?;
    if manifest.members.len() > MEMBERS_MAX || manifest.ranges.len() > HEADS_MAX {
        return Err(BundleFault::Damaged("numbers in the manifest"));
    }
    let range = |range: &proto::BundleRange| {
        let one =
            Range { origin: OriginId(fixed(&range.origin, "origin")?), after: range.after, through: range.through };
        if one.after < one.through { Ok(one) } else { Err(BundleFault::Damaged("range")) }
    };
    let made_for = match manifest.made_for.is_empty() {
        true => None,
        false => Some(NodeId(fixed(&manifest.made_for, "key of the addressee")?)),
    };
    Ok(Manifest {
        exporter: NodeId(fixed(&manifest.exporter, "key of the exporter")?),
        created_ms: manifest.created_ms,
        made_for,
        members: manifest.members.iter().map(|record| decode_member(record)).collect::<Result<_, _>>()?,
        heads: heads_from_proto(&manifest.heads)?,
        ranges: manifest.ranges.iter().map(range).collect::<Result<_, _>>()?,
    })
}

/// Events, compressed, to be encrypted.
pub fn encode_events(events: &[SignedEvent]) -> Vec<u8> {
    let signed = |event: &SignedEvent| proto::SignedEvent {
        bytes: event.bytes.clone(),
        signature: event.signature.map(|signature| signature.to_vec()).unwrap_or_default(),
    };
    compress(&proto::BundleEvents { events: events.iter().map(signed).collect() }.encode_to_vec())
}

/// The inverse of [`encode_events`].
pub fn decode_events(bytes: &[u8]) -> Result<Vec<SignedEvent>, BundleFault> {
    let bytes = decompress(bytes)?;
    check_field_count(&bytes, BUNDLE_PART_EVENTS_MAX)?;
    let part = proto::BundleEvents::decode(bytes.as_slice()).map_err(|_| BundleFault::Damaged("contents of a part"))?;
    let signed = |event: proto::SignedEvent| {
        if event.bytes.len() > EVENT_BYTES_MAX {
            return Err(BundleFault::Damaged("length of an event"));
        }
        let signature = match event.signature.is_empty() {
            true => None,
            false => Some(fixed(&event.signature, "signature")?),
        };
        Ok(SignedEvent { bytes: event.bytes, signature })
    };
    part.events.into_iter().map(signed).collect()
}

/// The seal's bytes.
pub fn encode_seal(seal: &Seal) -> Vec<u8> {
    proto::BundleSeal { parts: seal.parts, signature: seal.signature.to_vec() }.encode_to_vec()
}

/// The inverse of [`encode_seal`]; it has one form only.
pub fn decode_seal(bytes: &[u8]) -> Result<Seal, BundleFault> {
    let damaged = BundleFault::Damaged("seal");
    check_field_count(bytes, 2)?;
    let decoded = proto::BundleSeal::decode(bytes).map_err(|_| damaged.clone())?;
    let seal = Seal { parts: decoded.parts, signature: fixed(&decoded.signature, "signature of the bundle")? };
    if encode_seal(&seal) == bytes { Ok(seal) } else { Err(damaged) }
}

/// What the exporter signs. `hash`: of all bytes before the seal's part.
pub fn seal_message(cluster: &[u8; 32], hash: &[u8; 32], parts: u64) -> Vec<u8> {
    [b"litemesh 1 bundle\0".as_slice(), cluster, hash, &parts.to_be_bytes()].concat()
}

fn header_check(encoded: &[u8]) -> [u8; HEADER_CHECK_BYTES] {
    crate::model::identity::hash_16("litemesh 1 bundle header", encoded)
}

fn be_length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, COMPRESSION_LEVEL).expect("memory to memory, there is nothing that can fail")
}

/// Grows with what really comes out, and stops at the limit.
fn decompress(bytes: &[u8]) -> Result<Vec<u8>, BundleFault> {
    let damaged = |_| BundleFault::Damaged("compression");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
    let mut out = Vec::new();
    let read = decoder.by_ref().take(BUNDLE_PART_PLAIN_BYTES_MAX as u64 + 1).read_to_end(&mut out).map_err(damaged)?;
    let all = read <= BUNDLE_PART_PLAIN_BYTES_MAX && decoder.finish().is_empty();
    if all { Ok(out) } else { Err(BundleFault::Damaged("length of a part's contents")) }
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
