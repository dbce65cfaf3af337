//! Laws of the message codec: what is encoded comes back, and no bytes whatever break the decoder.

use proptest::prelude::*;

use super::*;
use crate::model::{Member, RecordKind, Role};

fn head(seed: u8) -> Head {
    let origin = Origin { node: NodeId([seed; 32]), incarnation: u64::MAX - u64::from(seed) };
    Head { origin, seq: 1_000_000 + u64::from(seed), hash: [seed ^ 0xff; 32] }
}

fn any_head() -> impl Strategy<Value = Head> {
    (any::<[u8; 32]>(), any::<u64>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(node, incarnation, seq, hash)| Head {
        origin: Origin { node: NodeId(node), incarnation },
        seq,
        hash,
    })
}

fn any_heads() -> impl Strategy<Value = Vec<Head>> {
    prop::collection::vec(any_head(), 0..20)
}

fn any_record() -> impl Strategy<Value = MemberRecord> {
    let member = ("[a-zé]{0,20}", any::<[u8; 32]>(), any::<u32>(), any::<u32>(), any::<u64>());
    (prop::option::of(any::<[u8; 32]>()), member, any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(
        |(cluster, (name, node, rank, slot, admitted_ms), signer, signature)| MemberRecord {
            cluster: cluster.unwrap_or_default(),
            kind: RecordKind::Role,
            member: Member { node: NodeId(node), name: name.clone(), rank, slot, role: Role::ReadOnly, admitted_ms },
            cluster_name: name,
            recovery: cluster.unwrap_or_default(),
            after: vec![signer, signature],
            signer: NodeId(if cluster.is_some() { signer } else { node }),
            signature: [signature, signature].concat(),
        },
    )
}

fn any_signature() -> impl Strategy<Value = Option<[u8; 64]>> {
    prop::option::of(any::<[u8; 32]>())
        .prop_map(|half| half.map(|half| [half, half].concat().try_into().expect("two halves of 32 bytes")))
}

fn any_message() -> impl Strategy<Value = Message> {
    let blob = || prop::collection::vec(any::<u8>(), 0..200);
    let flags = any::<(u32, u64, u32, bool, bool, bool)>();
    let hello = (any::<u32>(), "[a-zé]{0,20}", any::<u64>(), any_heads(), any::<(bool, bool, u64)>(), flags)
        .prop_flat_map(|fixed| (Just(fixed), prop::collection::vec(any_record(), 0..5)))
        .prop_map(|((version, name, wall_ms, heads, (applied_all, reply, membership), flags), members)| {
            let member_heads = members.iter().map(|record| record.signer.0).collect();
            let (oldest, heads_digest, number, tell, all, more) = flags;
            let hello =
                Hello { version, name, wall_ms, heads, applied_all, members, reply, membership, ..Hello::default() };
            Message::Hello(Hello { oldest, heads_digest, number, tell, all, more, member_heads, ..hello })
        });
    let partial = (any::<[u8; 16]>(), any::<u64>(), any::<u64>()).prop_map(|(origin, seq, offset)| Partial {
        origin: OriginId(origin),
        seq,
        offset,
    });
    let range = (any::<[u8; 16]>(), 0..u64::MAX, 1..100u64, any::<u64>()).prop_map(|(origin, after, count, offset)| {
        Range { origin: OriginId(origin), after, through: after.saturating_add(count), offset }
    });
    let ranges = prop::collection::vec(range, 0..5);
    let pull = (any::<u64>(), any_heads(), any::<u32>(), prop::option::of(partial), ranges, any::<bool>()).prop_map(
        |(request, heads, max_bytes, partial, ranges, small_only)| {
            Message::Pull(Pull { request, heads, max_bytes, partial, ranges, small_only })
        },
    );
    let event = (blob(), any_signature()).prop_map(|(bytes, signature)| SignedEvent { bytes, signature });
    let piece = (any::<[u8; 16]>(), any::<u64>(), 0..1_000_000u64, blob()).prop_map(|(origin, seq, offset, bytes)| {
        Piece { origin: OriginId(origin), seq, offset, total: offset + bytes.len() as u64, bytes }
    });
    let events = (
        any::<u64>(),
        prop::collection::vec(event, 0..10),
        prop::option::of(piece),
        any::<(bool, bool, u32)>(),
        any_heads(),
    )
        .prop_map(|(request, events, piece, (more, applied_all, later_ms), heads)| {
            Message::Events(Events { request, events, piece, more, heads, applied_all, later_ms })
        });
    prop_oneof![hello, pull, events, (40..1000u32).prop_map(Message::Unknown)]
}

proptest! {
    #[test]
    fn every_message_comes_back(message in any_message()) {
        prop_assert_eq!(Message::decode(&message.encode_packed()), Ok(message.clone()));
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn every_announcement_comes_back(heads in any_heads()) {
        let announcement = Announcement { heads, more: false };
        prop_assert_eq!(Announcement::decode(&announcement.encode()), Ok(announcement));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(&bytes);
        let _ = Announcement::decode(&bytes);
        let _ = member::decode_member(&bytes);
        let _ = super::super::invite::decode_invites(&bytes);
    }

    #[test]
    fn a_damaged_message_never_panics(message in any_message(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = Message::decode(&bytes);
        let _ = Message::decode(&bytes[..at]);
    }
}

#[test]
fn a_hello_in_sync_is_below_1_kb() {
    let hello = Hello {
        version: PROTOCOL_VERSION,
        name: "pit laptop of the scouting crew".into(),
        wall_ms: 1_767_225_600_000,
        heads: (0..8).map(head).collect(),
        applied_all: true,
        ..Hello::default()
    };
    let bytes = Message::Hello(hello).encode();
    assert!(bytes.len() < 1000, "{} bytes", bytes.len());
}

#[test]
fn the_largest_announcement_fits() {
    let announcement = Announcement { heads: (0..200).map(head).collect(), more: false };
    let bytes = announcement.encode();
    assert!(bytes.len() <= ANNOUNCEMENT_BYTES_MAX, "{} bytes", bytes.len());
    let heard = Announcement::decode(&bytes).unwrap();
    assert_eq!((heard.heads.len(), heard.more), (ANNOUNCED_HEADS_MAX, true), "the rest is asked for");
}

#[test]
fn floods_of_empty_fields_are_refused_before_they_are_decoded() {
    // 500,000 empty events: two bytes each on the wire, 48 and more in memory.
    let inner: Vec<u8> = [0x12u8, 0].repeat(500_000);
    let mut bytes = vec![0x1a];
    prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
    bytes.extend(inner);
    assert_eq!(Message::decode(&bytes), Err(MessageError::TooLarge("number of fields")));
    assert_eq!(Message::decode(&vec![0; FRAME_BYTES_MAX + 1]), Err(MessageError::TooLarge("frame")));
    // A length of 2^60 in 10 bytes.
    assert!(Message::decode(&[0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]).is_err());
    assert_eq!(Message::decode(&[]), Err(MessageError::Malformed("frame")));
}

#[test]
fn a_piece_beyond_its_total_is_refused() {
    let piece = Piece { origin: OriginId([1; 16]), seq: 1, offset: 5, total: 6, bytes: vec![0; 2] };
    let events = Events { piece: Some(piece), ..Events::default() };
    assert_eq!(Message::decode(&Message::Events(events).encode()), Err(MessageError::TooLarge("piece")));
}

/// A frame of events that packs well, and the bytes of its parts.
fn packed(unpacked: u32, zstd: Vec<u8>) -> Vec<u8> {
    use prost::Message as _;
    let message = proto::frame::Message::Packed(proto::Packed { unpacked, zstd });
    proto::Frame { message: Some(message) }.encode_to_vec()
}

#[test]
fn events_travel_packed_and_a_bomb_is_refused_before_it_unfolds() {
    let event = SignedEvent { bytes: vec![7; 100_000], signature: None };
    let message = Message::Events(Events { events: vec![event], ..Events::default() });
    let (plain, small) = (message.encode(), message.encode_packed());
    assert!(small.len() < 1_000 && plain.len() > 100_000, "{} of {} bytes", small.len(), plain.len());
    assert_eq!(Message::decode(&small), Ok(message));

    let zstd = zstd::bulk::compress(&plain, 1).unwrap();
    let refused = |unpacked: usize, zstd: &[u8]| Message::decode(&packed(unpacked as u32, zstd.to_vec())).unwrap_err();
    assert_eq!(refused(FRAME_BYTES_MAX + 1, &zstd), MessageError::TooLarge("packed frame"));
    // It says less, or more, than it unfolds to.
    assert_eq!(refused(plain.len() - 1, &zstd), MessageError::Malformed("packed frame"));
    assert_eq!(refused(plain.len() + 1, &zstd), MessageError::Malformed("packed frame"));
    // A gigabyte of zeros in a few kB: it is cut off where the claim ends.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert!(bomb.len() < FRAME_BYTES_MAX);
    assert_eq!(refused(FRAME_BYTES_MAX, &bomb), MessageError::Malformed("packed frame"));
    // Only events are packed, and only once.
    let hello = Message::Hello(Hello::default()).encode();
    let inside = |bytes: &[u8]| refused(bytes.len(), &zstd::bulk::compress(bytes, 1).unwrap());
    assert_eq!(inside(&hello), MessageError::Malformed("packed frame of no events"));
    assert_eq!(inside(&small), MessageError::Malformed("packed frame of no events"));
    assert_eq!(refused(100, b"no zstd at all"), MessageError::Malformed("packed frame"));
}

#[test]
fn a_kind_of_frame_that_is_not_known_is_named_and_no_fault() {
    let mut bytes = vec![(9 << 3) | 2, 3];
    bytes.extend(b"new");
    assert_eq!(Message::decode(&bytes), Ok(Message::Unknown(9)));
    // Two messages in one frame are malformed all the same.
    bytes.extend([(9 << 3) | 2, 0]);
    assert_eq!(Message::decode(&bytes), Err(MessageError::Malformed("frame")));
}

#[test]
fn a_range_without_events_is_refused() {
    let range = Range { origin: OriginId([1; 16]), after: 5, through: 5, offset: 0 };
    let pull = Message::Pull(Pull { ranges: vec![range], ..Pull::default() });
    assert_eq!(Message::decode(&pull.encode()), Err(MessageError::Malformed("an empty range")));
}
