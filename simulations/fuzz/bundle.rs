//! The target over bundles: every part of the file, as it lies there and as it is once unsealed; and newcomers' requests.
//!
//! Invariant checked: what decodes survives its own encoding and keeps the limits; nothing panics, nothing takes memory by a
//! claimed number. What it does not verify: keys, signatures and order of parts; the damage test of `node::bundle` does.
//! Caller: the table of targets.

use litemesh::model::{NodeId, OriginId};
use litemesh::wire::bundle::{
    BundleFault, BundleHeader, HEADER_CHECK_BYTES, LOCK_BYTES, Manifest, OPENING_BYTES, PART_HEAD_BYTES, Range, Seal,
    decode_events, decode_header, decode_manifest, decode_part_head, decode_seal, encode_events, encode_manifest,
    encode_opening, encode_part_head, encode_seal, opening_length,
};
use litemesh::wire::limits;
use litemesh::wire::message::SignedEvent;
use litemesh::wire::request::AdmissionRequest;

use crate::draws::{Draws, random};
use crate::made;
use crate::target::{Outcome, Target};

/// Bundles, part by part.
pub const BUNDLE: Target = Target {
    name: "bundle",
    promise: "parts that decode survive their encoding; lengths and counts are bounded before memory is taken",
    run,
    generate: |dice| {
        let bytes = random(dice, 1_500);
        let draws = &mut Draws::new(&bytes);
        match draws.below(6) {
            0 => encode_opening(&header(draws)),
            1 => unpacked(&encode_manifest(&manifest(draws))),
            2 => encode_manifest(&manifest(draws)),
            3 => unpacked(&encode_events(&events(draws))),
            4 => encode_events(&events(draws)),
            _ => encode_seal(&Seal { parts: draws.number(), signature: draws.fixed() }),
        }
    },
    words: &[b"lmbndl\r\n", &[0x28, 0xb5, 0x2f, 0xfd], &[0xff, 0xff, 0xff, 0xff], b"litemesh-request1:"],
};

fn header(draws: &mut Draws<'_>) -> BundleHeader {
    let locks = (0..draws.below(5)).map(|_| draws.fixed::<LOCK_BYTES>()).collect();
    BundleHeader { nonce: draws.fixed(), tag: draws.fixed(), ephemeral: draws.fixed(), locks }
}

fn manifest(draws: &mut Draws<'_>) -> Manifest {
    let range = |draws: &mut Draws<'_>| {
        let after = draws.number() >> 1;
        Range { origin: OriginId(draws.fixed()), after, through: after + 1 + draws.below(9) }
    };
    Manifest {
        exporter: NodeId(draws.fixed()),
        created_ms: draws.number(),
        made_for: draws.chance(40).then(|| NodeId(draws.fixed())),
        members: (0..draws.below(4)).map(|_| made::record(draws)).collect(),
        heads: made::heads(draws),
        ranges: (0..draws.below(4)).map(|_| range(draws)).collect(),
    }
}

fn events(draws: &mut Draws<'_>) -> Vec<SignedEvent> {
    let event = |draws: &mut Draws<'_>| {
        let length = draws.below(60) as usize;
        SignedEvent { bytes: draws.take(length), signature: draws.chance(60).then(|| draws.fixed()) }
    };
    (0..draws.below(5)).map(|_| event(draws)).collect()
}

/// What a part says once it is unsealed and unpacked: there, mutations meet the decoder and not the compression.
fn unpacked(part: &[u8]) -> Vec<u8> {
    zstd::stream::decode_all(part).expect("it was packed a moment ago")
}

fn run(bytes: &[u8]) -> Outcome {
    let opening = opening(bytes);
    let part = match bytes.first_chunk::<PART_HEAD_BYTES>().map(decode_part_head) {
        Some(Ok((kind, length))) => {
            assert!(length <= limits::BUNDLE_PART_BYTES_MAX);
            assert_eq!(decode_part_head(&encode_part_head(kind, length)), Ok((kind, length)));
            "part"
        }
        Some(Err(fault)) => words(&fault),
        None => "short",
    };
    if let Ok(seal) = decode_seal(bytes) {
        assert_eq!(encode_seal(&seal), bytes, "a seal has a second form");
    }
    let packed = zstd::bulk::compress(bytes, 1).expect("memory to memory");
    let raw = contents(bytes);
    let inside = contents(&packed);
    if let Ok(request) = AdmissionRequest::from_text(&String::from_utf8_lossy(bytes)) {
        assert!(request.name.len() <= limits::NAME_BYTES_MAX);
    }
    format!("{opening}/{part}/{raw}/{inside}").into()
}

fn opening(bytes: &[u8]) -> &'static str {
    let Some((first, rest)) = bytes.split_first_chunk::<OPENING_BYTES>() else { return "short" };
    match opening_length(first) {
        Ok(length) => assert!(length <= limits::BUNDLE_HEADER_BYTES_MAX + HEADER_CHECK_BYTES),
        Err(fault) => return words(&fault),
    }
    match decode_header(rest) {
        Ok(header) => {
            let again = encode_opening(&header);
            assert_eq!(decode_header(&again[OPENING_BYTES..]), Ok(header), "a header changes by its encoding");
            "header"
        }
        Err(fault) => words(&fault),
    }
}

fn contents(part: &[u8]) -> String {
    let manifest = match decode_manifest(part) {
        Ok(manifest) => {
            assert!(manifest.members.len() + manifest.ranges.len() <= part.len().max(1) * 1_000);
            assert!(manifest.heads.len() <= limits::HEADS_MAX);
            assert_eq!(decode_manifest(&encode_manifest(&manifest)).as_ref(), Ok(&manifest));
            "manifest"
        }
        Err(fault) => words(&fault),
    };
    let events = match decode_events(part) {
        Ok(events) => {
            assert!(events.len() <= limits::BUNDLE_PART_EVENTS_MAX);
            assert_eq!(decode_events(&encode_events(&events)).as_ref(), Ok(&events));
            "events"
        }
        Err(fault) => words(&fault),
    };
    format!("{manifest}/{events}")
}

fn words(fault: &BundleFault) -> &'static str {
    match fault {
        BundleFault::NotABundle => "none",
        BundleFault::Newer(_) => "newer",
        BundleFault::Damaged(what) => what,
    }
}
