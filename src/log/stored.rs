//! An event as it lies in the log, and its reading from any view of the table.
//!
//! Invariant: nothing leaves here unchecked: the bytes against the hash, hash and signature against a check that covers
//! the event's place. Callers: [`super::read`], [`super::write`], [`super::verify`].

use redb::ReadableTable;

use super::LogError;
use super::tables::join;
use crate::model::{Bug, OriginId, planted};
use crate::wire::event_hash;

/// An event with its proofs. Its bytes are the canonical ones: stored, hashed, signed and sent alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its sequence number.
    pub seq: u64,
    /// The canonical bytes.
    pub bytes: Vec<u8>,
    /// The chain hash.
    pub hash: [u8; 32],
    /// The origin's signature over the hash, on the last event of a batch.
    pub signature: Option<[u8; 64]>,
}

/// The table of events, in a snapshot or under a writer.
pub(super) trait EventTable: ReadableTable<&'static [u8; 24], &'static [u8]> {}
impl<T: ReadableTable<&'static [u8; 24], &'static [u8]>> EventTable for T {}

/// hash (32), 0 or 1, signature (64, if 1), check (4), then the event's bytes.
const SIGNED_AT: usize = 32;
const CHECK_BYTES: usize = 4;

pub(super) fn event_key(origin: OriginId, seq: u64) -> [u8; 24] {
    join(&[&origin.0, &seq.to_be_bytes()])
}

/// The parts of a key that [`event_key`] made.
pub(super) fn split_key(key: &[u8; 24]) -> (OriginId, u64) {
    let (mut origin, mut seq) = ([0; 16], [0; 8]);
    origin.copy_from_slice(&key[..16]);
    seq.copy_from_slice(&key[16..]);
    (OriginId(origin), u64::from_be_bytes(seq))
}

fn check(key: &[u8; 24], proofs: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key);
    hasher.update(proofs);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_BYTES]);
    check
}

/// The stored form of an event.
pub(super) fn pack(key: &[u8; 24], bytes: &[u8], hash: &[u8; 32], signature: Option<&[u8; 64]>) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes.len() + 101);
    value.extend_from_slice(hash);
    value.push(u8::from(signature.is_some()));
    if let Some(signature) = signature {
        value.extend_from_slice(signature);
    }
    let check = check(key, &value);
    value.extend_from_slice(&check);
    value.extend_from_slice(bytes);
    value
}

/// The event in its stored form, checked.
pub(super) fn unpack(key: &[u8; 24], value: &[u8]) -> Result<StoredEvent, LogError> {
    let (origin, seq) = split_key(key);
    let corrupt = || LogError::CorruptEvent { origin, seq };
    let proof_bytes = match value.get(SIGNED_AT) {
        Some(0) => SIGNED_AT + 1,
        Some(1) => SIGNED_AT + 65,
        Some(_) | None => return Err(corrupt()),
    };
    let (proofs, rest) = value.split_at_checked(proof_bytes).ok_or_else(corrupt)?;
    let (stored_check, bytes) = rest.split_first_chunk::<CHECK_BYTES>().ok_or_else(corrupt)?;
    let hash: [u8; 32] = *proofs.first_chunk().ok_or_else(corrupt)?;
    let sound = *stored_check == check(key, proofs) && event_hash(bytes) == hash;
    if !sound && !planted(Bug::LogUnchecked) {
        return Err(corrupt());
    }
    let signature = proofs[SIGNED_AT + 1..].first_chunk::<64>().copied();
    Ok(StoredEvent { seq, bytes: bytes.to_vec(), hash, signature })
}

/// One event; `None` when it is not stored.
pub(super) fn find(events: &impl EventTable, origin: OriginId, seq: u64) -> Result<Option<StoredEvent>, LogError> {
    let key = event_key(origin, seq);
    match events.get(&key)? {
        Some(value) => unpack(&key, value.value()).map(Some),
        None => Ok(None),
    }
}

/// The events of an origin from `from_seq` through `through`, gapless, until their bytes exceed `bytes_max` (the first one always).
pub(super) fn find_from(
    events: &impl EventTable,
    origin: OriginId,
    from_seq: u64,
    through: u64,
    bytes_max: usize,
) -> Result<Vec<StoredEvent>, LogError> {
    let (from, through) = (event_key(origin, from_seq), event_key(origin, through));
    let mut found = Vec::new();
    let mut bytes = 0usize;
    for entry in events.range::<&[u8; 24]>(&from..=&through)? {
        let (key, value) = entry?;
        bytes = bytes.saturating_add(value.value().len());
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        let event = unpack(key.value(), value.value())?;
        let expected = from_seq + found.len() as u64;
        if event.seq != expected {
            return Err(LogError::CorruptEvent { origin, seq: expected });
        }
        found.push(event);
    }
    Ok(found)
}
