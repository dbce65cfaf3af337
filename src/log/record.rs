//! bincode for this node's own records, each behind a check of its bytes and its key.
//!
//! Invariant: bincode sees only bytes whose check holds, so only bytes that this node wrote under this very key: storage
//! engines return flipped bits silently, and no hostile byte may reach bincode (unmaintained, RUSTSEC-2025-0141; this is
//! the only file that names it, so it can be swapped). Callers: the files of this room.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::LogError;

/// Bytes of one record. A row holds its cells, and SQLite's own limit for a row is 1 GB; bincode reads element by element
/// and a claimed length cannot size memory beyond the record itself, the limit is a second net.
const RECORD_BYTES_MAX: usize = 1 << 30;
const CHECK_BYTES: usize = 4;
/// Room that most records do with.
const USUAL_BYTES: usize = 512;

fn check(key: &[u8], body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(body);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_BYTES]);
    check
}

/// The bytes of a record stored under `key`.
pub(super) fn seal<T: Serialize>(key: &[u8], value: &T) -> Vec<u8> {
    let config = bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bincode::serde::encode_into_std_write(value, &mut bytes, config)
        .expect("records hold nothing that bincode refuses");
    let check = check(key, &bytes);
    bytes.extend_from_slice(&check);
    bytes
}

/// The record stored under `key` of a table. Bytes that this node did not write there are [`LogError::CorruptRecord`].
pub(super) fn unseal<T: DeserializeOwned>(table: &'static str, key: &[u8], bytes: &[u8]) -> Result<T, LogError> {
    unseal_borrowed(table, key, bytes, Some)
}

/// The same, for records that borrow from their bytes; `own` completes them (`None`: they make no sense).
pub(super) fn unseal_borrowed<'a, B: Deserialize<'a>, T>(
    table: &'static str,
    key: &[u8],
    bytes: &'a [u8],
    own: impl FnOnce(B) -> Option<T>,
) -> Result<T, LogError> {
    let corrupt = LogError::CorruptRecord { table };
    let Some((body, stored)) = bytes.split_last_chunk::<CHECK_BYTES>() else { return Err(corrupt) };
    if check(key, body) != *stored {
        return Err(corrupt);
    }
    let config = bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();
    match bincode::serde::borrow_decode_from_slice(body, config) {
        Ok((value, read)) if read == body.len() => own(value).ok_or(corrupt),
        Ok(_) | Err(_) => Err(corrupt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_only_unchanged_and_in_its_place() {
        let value = (7u64, vec![String::from("a"), String::from("b")]);
        let bytes = seal(b"key", &value);
        assert_eq!(unseal::<(u64, Vec<String>)>("t", b"key", &bytes).unwrap(), value);
        assert!(unseal::<(u64, Vec<String>)>("t", b"yek", &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal::<(u64, Vec<String>)>("t", b"key", &flipped).is_err(), "bit {bit}");
        }
        assert!(unseal::<u64>("t", b"key", &[]).is_err());
    }
}
