//! Messages between members: hello, pull, events; and the gossiped announcement.
//!
//! Invariant: decoding never panics and never takes more memory than a small multiple of the frame: repeated fields are
//! counted before anything is allocated for them, and a packed frame unfolds to at most one frame. A kind of frame that is
//! not known is no error: a newer node may send it. Callers: node (sync), net (frames pass through unread).

use prost::Message as _;
use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, skip_field};

use super::limits::*;
use super::member::{self, fixed};
use super::proto;
use super::snapshot::Snapshot;
use crate::model::{Head, Heads, MemberRecord, NodeId, Origin, OriginId, RecordHash};

/// Fast, and on events within a few percent of what the slow levels reach.
const ZSTD_LEVEL: i32 = 1;

/// Kinds of frames are numbered from 1 to this; see `Frame` in `proto/sync.proto`.
const KINDS: u32 = 4;

/// The kinds of snapshots, which are numbered apart.
const SNAPSHOT_KINDS: std::ops::RangeInclusive<u32> = 26..=28;

/// The number of a frame of events.
const EVENTS_KIND: u32 = 3;

/// Fields in one frame, at most: no kind has more.
const FIELDS_MAX: usize = 2 * HEADS_MAX + EVENTS_PER_FRAME_MAX + MEMBERS_MAX + 32;

/// Why bytes from outside are no message. State is untouched; the same bytes never become valid, so the sender is at
/// fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not the encoding of anything known, or a field of the wrong size.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A limit of [`super::limits`] is exceeded.
    #[error("too large: {0}")]
    TooLarge(&'static str),
}

/// One frame between two members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Where the sender stands.
    Hello(Hello),
    /// Asks for events.
    Pull(Pull),
    /// Answers a pull.
    Events(Events),
    /// The state of the databases, for a new member.
    Snapshot(Snapshot),
    /// A kind that this version does not know, by its number: skipped.
    Unknown(u32),
}

/// Where the sender stands: sent on connect, when its heads moved, and on request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version of the sender.
    pub version: u32,
    /// The sender's name for people.
    pub name: String,
    /// The sender's wall clock, to measure skew.
    pub wall_ms: u64,
    /// What its log holds.
    pub heads: Vec<Head>,
    /// Its files show all that its log holds.
    pub applied_all: bool,
    /// Member records, when asked for or changed; else empty.
    pub members: Vec<MemberRecord>,
    /// The sender wants a hello back.
    pub reply: bool,
    /// Digest of the sender's membership: unequal to one's own, records are missing on either side.
    pub membership: u64,
    /// Names of the newest member records the sender holds, so that only what it lacks is sent.
    pub member_heads: Vec<RecordHash>,
    /// Oldest version that the sender speaks.
    pub oldest: u32,
    /// [`digest_of`] all its heads.
    pub heads_digest: u64,
    /// Counts the sender's hellos.
    pub number: u32,
    /// It does not know the receiver's heads.
    pub tell: bool,
    /// `heads` are all heads, with those of the hellos of `more` before.
    pub all: bool,
    /// Another hello with more heads follows.
    pub more: bool,
    /// Rows of the snapshot that the sender would give; 0: it gives none.
    pub snapshot_rows: u64,
}

/// Asks for the events above `heads`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// Number that the answers repeat.
    pub request: u64,
    /// What the asker holds.
    pub heads: Vec<Head>,
    /// At most this many bytes of events in one answer.
    pub max_bytes: u32,
    /// The large event of which the asker already holds a part.
    pub partial: Option<Partial>,
    /// Exactly these events, instead of all above `heads`.
    pub ranges: Vec<Range>,
    /// Only ranges of which all is small.
    pub small_only: bool,
}

/// Events of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The origin.
    pub origin: OriginId,
    /// The event before the first one wanted.
    pub after: u64,
    /// The last one wanted.
    pub through: u64,
    /// Bytes of the first one that the asker holds.
    pub offset: u64,
}

/// A large event that is held up to an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Its origin.
    pub origin: OriginId,
    /// Its sequence number.
    pub seq: u64,
    /// Bytes held.
    pub offset: u64,
}

/// Answers a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Number of the pull.
    pub request: u64,
    /// Events in causal order.
    pub events: Vec<SignedEvent>,
    /// A piece of an event too large for a frame.
    pub piece: Option<Piece>,
    /// There is more above these.
    pub more: bool,
    /// What the sender's log holds; may be empty in all but the last answer.
    pub heads: Vec<Head>,
    /// The sender's files show all that its log holds.
    pub applied_all: bool,
    /// The rest is not sent now: ask again after so many ms. 0: at once.
    pub later_ms: u32,
}

/// One event as stored, hashed and signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEvent {
    /// Canonical encoding.
    pub bytes: Vec<u8>,
    /// The origin's signature, on the head of each batch it wrote.
    pub signature: Option<[u8; 64]>,
}

/// A piece of a large event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Origin of the event.
    pub origin: OriginId,
    /// Sequence number of the event.
    pub seq: u64,
    /// Where the piece begins.
    pub offset: u64,
    /// Bytes of the whole encoded `SignedEvent` stream as the sender cuts it.
    pub total: u64,
    /// The piece.
    pub bytes: Vec<u8>,
}

/// Gossiped to all members: heads that moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The sender's heads that moved.
    pub heads: Vec<Head>,
    /// More moved than are named.
    pub more: bool,
}

/// First 8 bytes of a hash over heads, in order of their ids: equal logs, equal digests.
pub fn digest_of(heads: &Heads) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 2 heads");
    for (id, head) in heads {
        hasher.update(&id.0);
        hasher.update(&head.seq.to_be_bytes());
        hasher.update(&head.hash);
    }
    hasher.finalize().as_bytes()[..8].iter().fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

impl Message {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        use proto::frame::Message as Body;
        let body = match self {
            Message::Hello(hello) => Body::Hello(hello.to_proto()),
            Message::Pull(pull) => Body::Pull(pull.to_proto()),
            Message::Events(events) => Body::Events(events.to_proto()),
            Message::Snapshot(snapshot) => snapshot.to_frame(),
            Message::Unknown(kind) => {
                let mut bytes = Vec::new();
                encode_key(*kind, WireType::LengthDelimited, &mut bytes);
                bytes.push(0);
                return bytes;
            }
        };
        proto::Frame { message: Some(body) }.encode_to_vec()
    }

    /// The frame, packed when that makes it smaller: for peers that speak version 2.
    pub fn encode_packed(&self) -> Vec<u8> {
        let plain = self.encode();
        if plain.len() <= PACK_BYTES_MIN || !matches!(self, Message::Events(_)) {
            return plain;
        }
        // Without memory for it, it travels as it is.
        let Ok(zstd) = zstd::bulk::compress(&plain, ZSTD_LEVEL) else { return plain };
        let packed = proto::Packed { unpacked: plain.len() as u32, zstd };
        let packed = proto::Frame { message: Some(proto::frame::Message::Packed(packed)) }.encode_to_vec();
        if packed.len() < plain.len() { packed } else { plain }
    }

    /// The inverse of [`Message::encode`], for bytes from anybody.
    pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        use proto::frame::Message as Body;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(MessageError::TooLarge("frame"));
        }
        let (kind, content) = only_field(bytes)?;
        if kind > KINDS && !SNAPSHOT_KINDS.contains(&kind) {
            return Ok(Message::Unknown(kind));
        }
        check_field_count(content, FIELDS_MAX)?;
        let frame = proto::Frame::decode(bytes).map_err(|_| MessageError::Malformed("frame"))?;
        match frame.message {
            Some(Body::Hello(hello)) => Hello::from_proto(hello).map(Message::Hello),
            Some(Body::Pull(pull)) => Pull::from_proto(pull).map(Message::Pull),
            Some(Body::Events(events)) => Events::from_proto(events).map(Message::Events),
            Some(Body::Packed(packed)) => unpack(&packed),
            Some(body @ (Body::SnapshotAsk(_) | Body::SnapshotPlan(_) | Body::SnapshotPart(_))) => {
                Snapshot::from_frame(body).map(Message::Snapshot)
            }
            None => Err(MessageError::Malformed("frame of an unknown kind")),
        }
    }
}

impl Announcement {
    /// The gossiped bytes. Heads beyond the limit are left out, and that is said: whoever hears it asks.
    pub fn encode(&self) -> Vec<u8> {
        let heads = self.heads.iter().take(ANNOUNCED_HEADS_MAX).map(head_to_proto).collect();
        proto::Announcement { heads, more: self.more || self.heads.len() > ANNOUNCED_HEADS_MAX }.encode_to_vec()
    }

    /// The inverse of [`Announcement::encode`], for bytes from anybody.
    pub fn decode(bytes: &[u8]) -> Result<Announcement, MessageError> {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(MessageError::TooLarge("announcement"));
        }
        check_field_count(bytes, ANNOUNCED_HEADS_MAX + 16)?;
        let announcement = proto::Announcement::decode(bytes).map_err(|_| MessageError::Malformed("announcement"))?;
        if announcement.heads.len() > ANNOUNCED_HEADS_MAX {
            return Err(MessageError::TooLarge("heads"));
        }
        Ok(Announcement { heads: heads_from_proto(&announcement.heads, HEADS_MAX)?, more: announcement.more })
    }
}

impl Hello {
    fn to_proto(&self) -> proto::Hello {
        proto::Hello {
            version: self.version,
            name: self.name.clone(),
            wall_ms: self.wall_ms,
            heads: self.heads.iter().map(head_to_proto).collect(),
            applied_all: self.applied_all,
            members: self.members.iter().map(member::to_proto).collect(),
            reply: self.reply,
            membership: self.membership,
            member_heads: self.member_heads.iter().map(|hash| hash.to_vec()).collect(),
            oldest: self.oldest,
            heads_digest: self.heads_digest,
            number: self.number,
            tell: self.tell,
            all: self.all,
            more: self.more,
            snapshot_rows: self.snapshot_rows,
        }
    }

    fn from_proto(hello: proto::Hello) -> Result<Hello, MessageError> {
        if hello.name.len() > NAME_BYTES_MAX {
            return Err(MessageError::TooLarge("name"));
        }
        Ok(Hello {
            version: hello.version,
            name: hello.name,
            wall_ms: hello.wall_ms,
            heads: heads_from_proto(&hello.heads, HEADS_MAX)?,
            applied_all: hello.applied_all,
            members: member::all_from_proto(hello.members)?,
            reply: hello.reply,
            membership: hello.membership,
            member_heads: member::hashes(&hello.member_heads, RECORD_AFTER_MAX)?,
            oldest: hello.oldest,
            heads_digest: hello.heads_digest,
            number: hello.number,
            tell: hello.tell,
            all: hello.all,
            more: hello.more,
            snapshot_rows: hello.snapshot_rows,
        })
    }
}

impl Pull {
    fn to_proto(&self) -> proto::Pull {
        let partial = self.partial.map(|partial| proto::Partial {
            origin: partial.origin.0.to_vec(),
            seq: partial.seq,
            offset: partial.offset,
        });
        let heads = self.heads.iter().map(head_to_proto).collect();
        let range = |range: &Range| proto::Range {
            origin: range.origin.0.to_vec(),
            after: range.after,
            through: range.through,
            offset: range.offset,
        };
        proto::Pull {
            request: self.request,
            heads,
            max_bytes: self.max_bytes,
            partial,
            ranges: self.ranges.iter().map(range).collect(),
            small_only: self.small_only,
        }
    }

    fn from_proto(pull: proto::Pull) -> Result<Pull, MessageError> {
        let partial = match pull.partial {
            None => None,
            Some(partial) => Some(Partial {
                origin: OriginId(fixed(&partial.origin, "origin")?),
                seq: partial.seq,
                offset: partial.offset,
            }),
        };
        if pull.ranges.len() > HEADS_MAX {
            return Err(MessageError::TooLarge("ranges"));
        }
        Ok(Pull {
            request: pull.request,
            heads: heads_from_proto(&pull.heads, HEADS_MAX)?,
            max_bytes: pull.max_bytes,
            partial,
            ranges: pull.ranges.iter().map(Range::from_proto).collect::<Result<_, _>>()?,
            small_only: pull.small_only,
        })
    }
}

impl Range {
    fn from_proto(range: &proto::Range) -> Result<Range, MessageError> {
        if range.through <= range.after {
            return Err(MessageError::Malformed("an empty range"));
        }
        let origin = OriginId(fixed(&range.origin, "origin")?);
        Ok(Range { origin, after: range.after, through: range.through, offset: range.offset })
    }
}

impl Events {
    fn to_proto(&self) -> proto::Events {
        let signed = |event: &SignedEvent| proto::SignedEvent {
            bytes: event.bytes.clone(),
            signature: event.signature.map(|signature| signature.to_vec()).unwrap_or_default(),
        };
        let piece = self.piece.as_ref().map(|piece| proto::Piece {
            origin: piece.origin.0.to_vec(),
            seq: piece.seq,
            offset: piece.offset,
            total: piece.total,
            bytes: piece.bytes.clone(),
        });
        proto::Events {
            request: self.request,
            events: self.events.iter().map(signed).collect(),
            piece,
            more: self.more,
            heads: self.heads.iter().map(head_to_proto).collect(),
            applied_all: self.applied_all,
            later_ms: self.later_ms,
        }
    }

    fn from_proto(events: proto::Events) -> Result<Events, MessageError> {
        if events.events.len() > EVENTS_PER_FRAME_MAX {
            return Err(MessageError::TooLarge("events"));
        }
        let signed = |event: proto::SignedEvent| {
            let signature = match event.signature.is_empty() {
                true => None,
                false => Some(fixed(&event.signature, "signature")?),
            };
            Ok(SignedEvent { bytes: event.bytes, signature })
        };
        Ok(Events {
            request: events.request,
            piece: events.piece.map(Piece::from_proto).transpose()?,
            more: events.more,
            heads: heads_from_proto(&events.heads, HEADS_MAX)?,
            applied_all: events.applied_all,
            later_ms: events.later_ms,
            events: events.events.into_iter().map(signed).collect::<Result<_, MessageError>>()?,
        })
    }
}

impl Piece {
    fn from_proto(piece: proto::Piece) -> Result<Piece, MessageError> {
        let end = piece.offset.checked_add(piece.bytes.len() as u64);
        if piece.total > EVENT_TOTAL_BYTES_MAX || end.is_none_or(|end| end > piece.total) {
            return Err(MessageError::TooLarge("piece"));
        }
        let origin = OriginId(fixed(&piece.origin, "origin")?);
        Ok(Piece { origin, seq: piece.seq, offset: piece.offset, total: piece.total, bytes: piece.bytes })
    }
}

pub(crate) fn head_to_proto(head: &Head) -> proto::Head {
    proto::Head {
        node: head.origin.node.0.to_vec(),
        incarnation: head.origin.incarnation,
        seq: head.seq,
        hash: head.hash.to_vec(),
    }
}

pub(crate) fn heads_from_proto(heads: &[proto::Head], most: usize) -> Result<Vec<Head>, MessageError> {
    if heads.len() > most {
        return Err(MessageError::TooLarge("heads"));
    }
    let head = |head: &proto::Head| {
        let node = NodeId(fixed(&head.node, "key of an origin")?);
        let origin = Origin { node, incarnation: head.incarnation };
        Ok(Head { origin, seq: head.seq, hash: fixed(&head.hash, "hash of a head")? })
    };
    heads.iter().map(head).collect()
}

/// The events of a packed frame. What it unfolds to is bounded before memory is taken for it.
fn unpack(packed: &proto::Packed) -> Result<Message, MessageError> {
    let length = packed.unpacked as usize;
    if length > FRAME_BYTES_MAX {
        return Err(MessageError::TooLarge("packed frame"));
    }
    // More than it says, or less, is a lie.
    let plain = zstd::bulk::decompress(&packed.zstd, length).map_err(|_| MessageError::Malformed("packed frame"))?;
    if plain.len() != length {
        return Err(MessageError::Malformed("packed frame"));
    }
    let (kind, content) = only_field(&plain)?;
    if kind != EVENTS_KIND {
        return Err(MessageError::Malformed("packed frame of no events"));
    }
    check_field_count(content, FIELDS_MAX)?;
    let events = proto::Events::decode(content).map_err(|_| MessageError::Malformed("packed frame"))?;
    Events::from_proto(events).map(Message::Events)
}

/// Kind and content of a message that has exactly one length-delimited field: a frame. (protobuf would merge repetitions.)
fn only_field(mut bytes: &[u8]) -> Result<(u32, &[u8]), MessageError> {
    let malformed = |_| MessageError::Malformed("frame");
    let (kind, wire_type) = decode_key(&mut bytes).map_err(malformed)?;
    let length = decode_varint(&mut bytes).map_err(malformed)?;
    if wire_type != WireType::LengthDelimited || length != bytes.len() as u64 {
        return Err(MessageError::Malformed("frame"));
    }
    Ok((kind, bytes))
}

/// Refuses a message with more fields than `limit`, allocating nothing: two bytes on the wire can stand for a hundred
/// in memory.
pub(crate) fn check_field_count(mut bytes: &[u8], limit: usize) -> Result<(), MessageError> {
    let malformed = |_| MessageError::Malformed("fields");
    for _ in 0..limit {
        if !bytes.has_remaining() {
            return Ok(());
        }
        let (tag, wire_type) = decode_key(&mut bytes).map_err(malformed)?;
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).map_err(malformed)?;
    }
    if bytes.has_remaining() { Err(MessageError::TooLarge("number of fields")) } else { Ok(()) }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "message_golden_tests.rs"]
mod golden_tests;
