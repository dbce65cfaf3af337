//! What authors of events had applied, as it travels with a snapshot.
//!
//! A content: version, origins, then per event its origin, its number and its full cut; numbers of a cut are differences to
//! the cut before. Invariant: decoding is total. Caller: node (giving and taking snapshots).

use std::collections::BTreeMap;

use super::WireError;
use super::varint::{self, Stream};
use crate::model::{Cut, OriginId};

const VERSION: u8 = 1;
const LIST_MAX: usize = 1 << 20;

/// An event and what its author had applied.
pub type CutRecord = (OriginId, u64, Cut);

/// The bytes of some records.
pub fn encode(records: &[CutRecord]) -> Vec<u8> {
    let mut numbers: BTreeMap<OriginId, u64> = BTreeMap::new();
    let mut origins = Vec::new();
    let named = records.iter().flat_map(|(origin, _, cut)| [*origin].into_iter().chain(cut.dots.keys().copied()));
    for origin in named {
        numbers.entry(origin).or_insert_with(|| {
            origins.push(origin);
            origins.len() as u64 - 1
        });
    }
    let mut out = vec![VERSION];
    varint::write(origins.len() as u64, &mut out);
    origins.iter().for_each(|origin| out.extend_from_slice(&origin.0));
    let mut before: BTreeMap<OriginId, u64> = BTreeMap::new();
    for (origin, seq, cut) in records {
        varint::write(numbers[origin], &mut out);
        varint::write(*seq, &mut out);
        varint::write(cut.dots.len() as u64, &mut out);
        for (known, count) in &cut.dots {
            varint::write(numbers[known], &mut out);
            let last = before.insert(*known, *count).unwrap_or(0);
            varint::write_zigzag(count.wrapping_sub(last) as i64, &mut out);
        }
    }
    out
}

/// The inverse of [`encode`], for bytes from anybody.
pub fn decode(bytes: &[u8]) -> Result<Vec<CutRecord>, WireError> {
    let mut stream = Stream::new(bytes);
    if stream.take(1)? != [VERSION] {
        return Err(WireError::Malformed { what: "cuts of a snapshot" });
    }
    let mut origins = Vec::new();
    for _ in 0..stream.below(LIST_MAX, "origins")? {
        origins.push(OriginId(stream.take_16()?));
    }
    let mut before: BTreeMap<OriginId, u64> = BTreeMap::new();
    let mut records = Vec::new();
    while !stream.is_empty() {
        let origin = origins[stream.below(origins.len(), "an origin")?];
        let seq = stream.varint()?;
        let mut cut = Cut::default();
        for _ in 0..stream.below(LIST_MAX, "a cut")? {
            let known = origins[stream.below(origins.len(), "an origin")?];
            let count = before.get(&known).copied().unwrap_or(0).wrapping_add(stream.zigzag()? as u64);
            before.insert(known, count);
            cut.dots.insert(known, count);
        }
        records.push((origin, seq, cut));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn cuts_survive_and_no_bytes_panic() {
        let origin = |seed| OriginId([seed; 16]);
        let cut = |dots: &[(u8, u64)]| Cut { dots: dots.iter().map(|(seed, seq)| (origin(*seed), *seq)).collect() };
        let records = vec![
            (origin(1), 2, cut(&[(1, 1), (2, 7)])),
            (origin(1), 9, cut(&[(1, 8), (2, 5), (3, u64::MAX)])),
            (origin(2), 1, cut(&[])),
        ];
        let bytes = encode(&records);
        assert_eq!(decode(&bytes).unwrap(), records);
        for end in 0..bytes.len() {
            let _ = decode(&bytes[..end]);
        }
    }
}
