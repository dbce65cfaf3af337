//! The bytes of bundles survive their codec, and stay within their limits.
//!
//! What it does not verify: keys and signatures; those are `node`'s. Callers: cargo test.

use super::*;

fn manifest() -> Manifest {
    let origin = crate::model::Origin { node: NodeId([4; 32]), incarnation: 9 };
    Manifest {
        exporter: NodeId([1; 32]),
        created_ms: 7,
        made_for: Some(NodeId([2; 32])),
        members: Vec::new(),
        heads: vec![Head { origin, seq: 12, hash: [5; 32] }],
        ranges: vec![Range { origin: origin.id(), after: 3, through: 12 }],
    }
}

#[test]
fn every_part_survives_its_codec() {
    let header = BundleHeader {
        nonce: [1; 32],
        tag: [2; 32],
        ephemeral: [3; 32],
        locks: vec![[4; LOCK_BYTES], [5; LOCK_BYTES]],
    };
    let opening = encode_opening(&header);
    let (first, rest) = opening.split_first_chunk::<OPENING_BYTES>().unwrap();
    assert_eq!(opening_length(first), Ok(rest.len()));
    assert_eq!(decode_header(rest), Ok(header));
    assert_eq!(decode_manifest(&encode_manifest(&manifest())), Ok(manifest()));
    let events = vec![
        SignedEvent { bytes: vec![1; 1000], signature: Some([6; 64]) },
        SignedEvent { bytes: vec![2], signature: None },
    ];
    assert_eq!(decode_events(&encode_events(&events)), Ok(events));
    let seal = Seal { parts: 3, signature: [9; 64] };
    assert_eq!(decode_seal(&encode_seal(&seal)), Ok(seal));
    for kind in [PartKind::Manifest, PartKind::Events, PartKind::Seal] {
        assert_eq!(decode_part_head(&encode_part_head(kind, 70)), Ok((kind, 70)));
    }
}

#[test]
fn every_flipped_bit_of_the_header_is_noticed() {
    let header = BundleHeader { nonce: [1; 32], tag: [2; 32], ephemeral: [3; 32], locks: vec![[4; LOCK_BYTES]] };
    let opening = encode_opening(&header);
    for bit in 0..opening.len() * 8 {
        let mut flipped = opening.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (first, rest) = flipped.split_first_chunk::<OPENING_BYTES>().unwrap();
        let whole = opening_length(first).is_ok_and(|length| length == rest.len());
        assert!(!whole || decode_header(rest).is_err(), "bit {bit}");
    }
}

#[test]
fn lengths_are_compared_before_they_are_believed() {
    assert_eq!(decode_part_head(&[2, 0xff, 0xff, 0xff, 0xff]), Err(BundleFault::Damaged("length of a part")));
    assert_eq!(decode_part_head(&[3, 0, 0, 1, 0]), Err(BundleFault::Damaged("length of a part")));
    assert_eq!(decode_part_head(&[9, 0, 0, 0, 0]), Err(BundleFault::Damaged("kind of a part")));
    let mut first = [0; OPENING_BYTES];
    assert_eq!(opening_length(&first), Err(BundleFault::NotABundle));
    first[..8].copy_from_slice(&MAGIC);
    first[8] = 0xff;
    assert_eq!(opening_length(&first), Err(BundleFault::Damaged("length of the header")));
}

/// A part that says little and grows to much when it is unpacked.
#[test]
fn a_part_that_grows_without_end_is_cut_at_the_limit() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let page = vec![0; 1 << 20];
    for _ in 0..=BUNDLE_PART_PLAIN_BYTES_MAX >> 20 {
        std::io::Write::write_all(&mut encoder, &page).unwrap();
    }
    let small = encoder.finish().unwrap();
    assert!(small.len() < 1 << 20, "{} bytes", small.len());
    assert_eq!(decode_events(&small), Err(BundleFault::Damaged("length of a part's contents")));
}

#[test]
fn what_stands_behind_a_part_is_noticed() {
    let mut longer = encode_manifest(&manifest());
    longer.push(0);
    assert!(decode_manifest(&longer).is_err());
    let mut seal = encode_seal(&Seal { parts: 3, signature: [9; 64] });
    seal.extend_from_slice(&[0x18, 0x01]);
    assert!(decode_seal(&seal).is_err());
}
