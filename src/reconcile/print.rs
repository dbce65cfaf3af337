//! Prints: what is compared of a row and of a block of rows, and which blocks are kept.
//!
//! A row's item is a hash over its identity and the hash of its image; a block's sum adds the items of its shown rows up, so
//! that a write changes it by a subtraction and an addition, in any order. What travels is a hash over the sum and the
//! count: sums themselves never leave a node.
//!
//! Kept with every write are few levels only, chosen so that a write touches few blocks and every block can be counted
//! anew from few rows; what lies between is added up when it is asked for:
//! - rows named by a hash: blocks by the hash's first 3 nibbles (4,096 blocks);
//! - rows named by their birth: 4,096 events of one origin; 16 events; and 256 rows of one event, without its first 256.
//!
//! Rejected: all levels (six writes a commit instead of two; the others cost a read of a few hundred entries, once in a
//! comparison that finds something); blocks of the whole key space that split and join (both sides must split alike).
//! Invariant: [`kept`] is a function of the row's identity alone. Safe against accidents and honest members: a member that
//! can choose rows could make sums collide; what members write is signed. Callers: `log`, this room.

use super::prefix::Prefix;
use crate::merge::store::Fingerprint;
use crate::model::RowId;

/// Nibbles of the kept blocks of rows that are named by a hash.
pub const BY_HASH: u8 = 5;
/// 4,096 events of one origin.
pub const BY_4096_EVENTS: u8 = 47;
/// 16 events of one origin.
pub const BY_16_EVENTS: u8 = 49;
/// 256 rows of one event; not kept of its first 256 rows.
pub const BY_256_ROWS: u8 = 56;

/// First byte of the key of a row that is named by its birth.
pub const BORN: u8 = 1;

/// Bytes under which nothing else is hashed with a key.
const ITEM_KEY: &[u8; 32] = b"litemesh 2 item of a row's print";
const PRINT_KEY: &[u8; 32] = b"litemesh 2 print of a rows block";

/// Eight bytes that stand for a block or a row on the wire.
pub type Print = u64;

/// What is added up for a shown row.
pub fn item(row: &RowId, image_hash: &[u8; 32]) -> [u8; 32] {
    let mut bytes = [0; 61];
    bytes[..29].copy_from_slice(&row.to_bytes());
    bytes[29..].copy_from_slice(image_hash);
    *blake3::keyed_hash(ITEM_KEY, &bytes).as_bytes()
}

/// The sum of one row alone.
pub fn single(item: &[u8; 32]) -> Fingerprint {
    let mut sum = Fingerprint::default();
    sum.add(item);
    sum
}

/// Adds a block's sum to another's.
pub fn add(sum: &mut Fingerprint, other: &Fingerprint) {
    sum.rows = sum.rows.wrapping_add(other.rows);
    for (lane, more) in sum.lanes.iter_mut().zip(other.lanes) {
        *lane = lane.wrapping_add(more);
    }
}

/// Sixteen bytes that stand for a sum and its count.
pub fn print_16(sum: &Fingerprint) -> [u8; 16] {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&sum.rows.to_be_bytes());
    for (at, lane) in sum.lanes.iter().enumerate() {
        bytes[8 + 8 * at..16 + 8 * at].copy_from_slice(&lane.to_be_bytes());
    }
    let hash = blake3::keyed_hash(PRINT_KEY, &bytes);
    let mut print = [0; 16];
    print.copy_from_slice(&hash.as_bytes()[..16]);
    print
}

/// The first eight of them.
pub fn print(sum: &Fingerprint) -> Print {
    print_16(sum)[..8].iter().fold(0, |print, byte| print << 8 | u64::from(*byte))
}

/// The kept blocks that hold a row, from the largest on.
pub fn kept(row: &RowId) -> impl Iterator<Item = Prefix> {
    let key = row.to_bytes();
    let lengths: &[u8] = match row {
        RowId::Genesis(_) | RowId::Keyed(_) => &[BY_HASH],
        RowId::Born(birth) if birth.index < 256 => &[BY_4096_EVENTS, BY_16_EVENTS],
        RowId::Born(_) => &[BY_4096_EVENTS, BY_16_EVENTS, BY_256_ROWS],
    };
    lengths.iter().map(move |length| Prefix::new(key, *length))
}

/// Where the parts of a block are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kept blocks of this length within a prefix.
    Kept(u8, Prefix),
    /// The rows of a prefix themselves.
    Rows(Prefix),
}

/// Where the sums are that make up a block: all its rows, each once, in parts smaller than the block.
pub fn sources(block: &Prefix) -> Vec<Source> {
    let length = block.len();
    if length < 2 {
        let kinds = (0..=2).map(|kind| Prefix::ALL.child(0).child(kind)).filter(|kind| block.contains(kind));
        return kinds.flat_map(|kind| sources(&kind)).collect();
    }
    let kind = block.bytes()[0];
    let whole_hash = kind != BORN && length < BY_HASH;
    match length {
        _ if whole_hash => vec![Source::Kept(BY_HASH, *block)],
        _ if kind != BORN => vec![Source::Rows(*block)],
        _ if length < BY_4096_EVENTS => vec![Source::Kept(BY_4096_EVENTS, *block)],
        _ if length < BY_16_EVENTS => vec![Source::Kept(BY_16_EVENTS, *block)],
        BY_16_EVENTS => {
            let first_rows = (0..16).map(|event| Source::Rows(Prefix::new(*block.child(event).bytes(), BY_256_ROWS)));
            first_rows.chain([Source::Kept(BY_256_ROWS, *block)]).collect()
        }
        _ if length < BY_256_ROWS => {
            let first = (BY_16_EVENTS + 1..length).all(|at| block.nibble(at) == 0);
            let first_rows = first.then(|| Source::Rows(Prefix::new(*block.bytes(), BY_256_ROWS)));
            first_rows.into_iter().chain([Source::Kept(BY_256_ROWS, *block)]).collect()
        }
        _ => vec![Source::Rows(*block)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Birth, OriginId};

    #[test]
    fn sums_do_not_know_order_and_forget_what_is_taken_away() {
        let rows: Vec<RowId> =
            (0..9).map(|seq| RowId::Born(Birth { origin: OriginId([3; 16]), seq, index: 0 })).collect();
        let items: Vec<[u8; 32]> = rows.iter().map(|row| item(row, &[7; 32])).collect();
        let (mut up, mut down) = (Fingerprint::default(), Fingerprint::default());
        items.iter().for_each(|item| up.add(item));
        items.iter().rev().for_each(|item| add(&mut down, &single(item)));
        assert_eq!(up, down);
        assert_ne!(item(&rows[0], &[7; 32]), item(&rows[1], &[7; 32]), "an image counts with its row");
        let before = print(&up);
        up.remove(&items[4]);
        assert_ne!(print(&up), before);
        up.add(&items[4]);
        assert_eq!(print(&up), before);
        items.iter().for_each(|item| up.remove(item));
        assert_eq!(up, Fingerprint::default());
    }

    #[test]
    fn kept_blocks_lie_in_each_other() {
        let born = |seq, index| RowId::Born(Birth { origin: OriginId([9; 16]), seq, index });
        for row in [RowId::Genesis([1; 16]), RowId::Keyed([0xab; 16]), born(5, 0), born(1 << 40, 70_000)] {
            let blocks: Vec<Prefix> = kept(&row).collect();
            assert!(blocks.iter().all(|block| block.contains(&Prefix::row(&row))));
            assert!(blocks.windows(2).all(|pair| pair[0].contains(&pair[1]) && pair[0] != pair[1]));
        }
        assert_eq!(kept(&born(17, 0)).last(), kept(&born(31, 255)).last());
        assert_ne!(kept(&born(15, 0)).last(), kept(&born(16, 0)).last());
    }
}
