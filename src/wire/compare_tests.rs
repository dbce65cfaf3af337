//! Laws of the codec of comparisons: what is encoded comes back, and no bytes whatever break the decoder.

use proptest::prelude::*;

use super::super::message::Message;
use super::*;
use crate::model::{Birth, OriginId};

fn any_row() -> impl Strategy<Value = RowId> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(RowId::Genesis),
        any::<[u8; 16]>().prop_map(RowId::Keyed),
        (any::<[u8; 16]>(), any::<u64>(), any::<u32>()).prop_map(|(origin, seq, index)| RowId::Born(Birth {
            origin: OriginId(origin),
            seq,
            index
        })),
    ]
}

fn any_block() -> impl Strategy<Value = Block> {
    let place = (any::<u32>(), any_row(), 0..=58u8, prop::option::of(any_row()));
    let view = (0..3u8, any::<u64>(), 0..8u8, any::<u16>(), any::<bool>(), 0..5u32);
    (place, view).prop_map(|((table, row, length, after), (kind, print, deeper, there, more, count))| {
        let prefix = Prefix::of(&row, length);
        let view = match kind {
            0 => View::Print(print),
            1 => {
                let nibbles = (0..16u8).filter(|nibble| there >> nibble & 1 == 1);
                let prints = nibbles.map(|nibble| (nibble, print ^ u64::from(nibble))).collect();
                View::Children { at: Prefix::of(&row, length.saturating_add(deeper)), prints }
            }
            _ => View::Rows { rows: (0..count).map(|at| (row, print ^ u64::from(at))).collect(), more },
        };
        Block { table, prefix, after, view }
    })
}

fn any_tables() -> impl Strategy<Value = Vec<ComparedTable>> {
    let table = (any::<u32>(), "[a-z]{1,9}", "[a-zé ]{1,9}", any::<[u8; 16]>());
    prop::collection::vec(
        table.prop_map(|(number, database, table, schema)| ComparedTable { number, database, table, schema }),
        0..4,
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let blocks = || prop::collection::vec(any_block(), 0..20);
    let side = prop_oneof![Just(Side::OnlyHere), Just(Side::OnlyThere), Just(Side::Differs)];
    let found = (any::<u32>(), any_row(), side).prop_map(|(table, row, side)| Found { table, row, side });
    let compare = (any::<u64>(), any::<u64>(), any_tables(), blocks())
        .prop_map(|(stand, number, tables, blocks)| Message::Compare(Compare { stand, number, tables, blocks }));
    let unlike = prop::collection::vec(any::<u32>(), 0..4);
    let compared = (any::<u64>(), any::<u64>(), any::<u32>(), blocks(), unlike).prop_map(
        |(stand, number, answered, blocks, unlike)| {
            Message::Compared(Compared { stand, number, answered, blocks, unlike })
        },
    );
    let differences = (any::<u64>(), any::<u64>(), any_tables(), prop::collection::vec(found, 0..9))
        .prop_map(|(stand, count, tables, rows)| Message::Differences(Differences { stand, count, tables, rows }));
    prop_oneof![compare, compared, differences]
}

proptest! {
    #[test]
    fn every_message_comes_back(message in any_message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn garbage_and_damage_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        message in any_message(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let _ = read_blocks(&bytes);
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = Message::decode(&bytes);
        let _ = Message::decode(&bytes[..at]);
    }
}

#[test]
fn floods_are_refused_before_they_take_memory() {
    // Four bytes each: table 0, nothing shared, no nibbles, rows: none.
    let flood = [0, 0, 0, ROWS, 0].repeat(COMPARED_BLOCKS_MAX + 1);
    assert_eq!(read_blocks(&flood), Err(MessageError::TooLarge("number of blocks")));
    assert_eq!(read_blocks(&vec![0; COMPARE_BYTES_MAX + 1]), Err(MessageError::TooLarge("blocks")));
    // A billion rows in ten bytes.
    assert_eq!(read_blocks(&[0, 0, 0, ROWS, 0xff, 0xff, 0xff, 0xff, 0x03]), Err(MALFORMED));
}

#[test]
fn sixteen_children_take_less_than_150_bytes() {
    let prefix = Prefix::of(&RowId::Born(Birth { origin: OriginId([7; 16]), seq: 70_000, index: 0 }), 49);
    let sibling = prefix.cut(48).child(prefix.nibble(48) ^ 1);
    let children = |at: Prefix| View::Children { at, prints: (0..16).map(|nibble| (nibble, u64::MAX)).collect() };
    let block = |prefix| Block { table: 1, prefix, after: None, view: children(prefix) };
    let one = write_blocks(&[block(prefix)]).len();
    let two = write_blocks(&[block(prefix), block(sibling)]).len();
    assert!(two - one < 140 && one < 165, "{one} and {} bytes", two - one);
}
