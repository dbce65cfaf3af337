//! The event codec: round trip, one form only, total on any bytes, bounded, and a golden event.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::{
    Birth, Cell, Change, Cut, Edit, Header, NodeId, Origin, OriginId, Reference, RowId, Rule, Stamp, TableColumns,
    Value,
};

fn origin() -> Origin {
    Origin { node: NodeId([3; 32]), incarnation: 0x0102_0304_0506_0708 }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        (-3i64..3).prop_map(Value::Integer),
        any::<u64>().prop_map(Value::Real),
        vec(any::<u8>(), 0..20).prop_map(Value::Text),
        vec(any::<u8>(), 0..20).prop_map(Value::Blob),
    ]
}

/// Rows of this event, of this origin, of others, genesis and keyed ones.
fn row() -> impl Strategy<Value = RowId> {
    let own = origin().id();
    let born = |origin, seq, index| RowId::Born(Birth { origin, seq, index });
    prop_oneof![
        any::<[u8; 16]>().prop_map(RowId::Genesis),
        any::<[u8; 16]>().prop_map(RowId::Keyed),
        (0u32..9).prop_map(move |index| born(own, 7, index)),
        (any::<u64>(), any::<u32>()).prop_map(move |(seq, index)| born(own, seq, index)),
        (0u8..4, any::<u64>(), any::<u32>()).prop_map(move |(o, seq, index)| born(OriginId([o; 16]), seq, index)),
    ]
}

fn cell() -> impl Strategy<Value = Cell> {
    let reference = ("[a-c]", "[a-c]é?", row(), "[a-c]")
        .prop_map(|(database, table, row, column)| Cell::Ref(Reference { database, table, row, column }));
    let elements = || vec(vec(any::<u8>(), 0..4), 0..3);
    let text = proptest::option::of(vec(any::<u8>(), 0..9)).prop_map(|text| text.map_or(Value::Null, Value::Text));
    let edit = (text, elements(), elements())
        .prop_map(|(value, added, removed)| Cell::Edit(Box::new(Edit { value, added, removed })));
    prop_oneof![
        4 => value().prop_map(Cell::Plain),
        1 => reference,
        1 => (any::<i64>(), any::<i64>()).prop_map(|(value, by)| Cell::Step { value, by }),
        1 => edit,
    ]
}

const COLUMNS: u32 = 5;

fn cells() -> impl Strategy<Value = Vec<(u32, Cell)>> {
    vec(proptest::option::weighted(0.7, cell()), COLUMNS as usize).prop_map(|cells| {
        let numbered = cells.into_iter().enumerate();
        numbered.filter_map(|(column, cell)| cell.map(|cell| (column as u32, cell))).collect()
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0u32..2, row(), proptest::option::of(any::<i64>()), proptest::option::of(row()), cells()).prop_map(
            |(table, row, claim, after, cells)| Change::Insert { table, row, claim, after, cells }),
        3 => (0u32..2, row(), cells(), any::<u64>()).prop_map(|(table, row, cells, stamp)| {
            let cells = cells.into_iter().map(|(column, cell)| (column, cell, Stamp(stamp))).collect();
            Change::Update { table, row, cells }
        }),
        1 => (0u32..2, row()).prop_map(|(table, row)| Change::Delete { table, row }),
        1 => (0u32..2, row(), any::<i64>(), proptest::option::of(row()), any::<u32>()).prop_map(
            |(table, row, id, after, depth)| Change::Claim { table, row, id, after, depth }),
        1 => (0u32..2, row(), row(), proptest::collection::btree_set(0..COLUMNS, 0..4)).prop_map(
            |(table, row, other, columns)| {
                Change::Merge { table, row, other, columns: columns.into_iter().collect() }
            }),
        1 => (0u32..2, row(), row()).prop_map(|(table, row, other)| Change::Split { table, row, other }),
        1 => (0u32..2, proptest::option::of(0..COLUMNS), proptest::sample::select(Rule::ALL.to_vec())).prop_map(
            |(table, column, rule)| Change::Rule { table, column, rule }),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    let applied = proptest::collection::btree_map((0u8..6).prop_map(|o| OriginId([o; 16])), 1u64.., 0..4);
    (any::<[u8; 32]>(), any::<u64>(), applied, "[a-c]{0,3}", any::<bool>(), "[a-c]{0,3}").prop_map(
        |(cluster, stamp, dots, database, continues, note)| Header {
            cluster,
            origin: origin(),
            seq: 7,
            previous: [9; 32],
            stamp: Stamp(stamp),
            database,
            applied: Cut { dots },
            schema: [5; 16],
            continues,
            note,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    (header(), vec(change(), 0..12)).prop_map(|(header, changes)| {
        let columns = |prefix: &str| (0..COLUMNS).map(|number| format!("{prefix}{number}")).collect();
        let tables = vec![
            TableColumns { table: "teams".into(), columns: columns("c") },
            TableColumns { table: "näme \"quoted\"".into(), columns: columns("d") },
        ];
        Event { header, tables, changes }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 5_000 }))]

    #[test]
    fn an_event_survives_its_bytes(event in event()) {
        let bytes = encode_event(&event);
        prop_assert_eq!(decode_event(&bytes), Ok(event));
    }

    /// Whatever decodes has exactly these bytes; nothing panics.
    #[test]
    fn changed_bytes_are_refused_or_are_another_event(
        event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_event(&event);
        let position = at.index(bytes.len());
        bytes[position] ^= byte;
        if let Ok(decoded) = decode_event(&bytes) {
            prop_assert_eq!(encode_event(&decoded), bytes.clone());
            prop_assert!(byte == 0 || decoded != event);
        }
        bytes.truncate(cut.index(bytes.len()));
        if let Ok(decoded) = decode_event(&bytes) {
            prop_assert_eq!(encode_event(&decoded), bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(decoded) = decode_event(&bytes) {
            prop_assert_eq!(encode_event(&decoded), bytes);
        }
    }
}

fn example() -> Event {
    let own = origin().id();
    let (other, born) = (OriginId([1; 16]), |origin, seq, index| RowId::Born(Birth { origin, seq, index }));
    let reference = |row| {
        let (database, table, column) = ("users".to_string(), "user".to_string(), "id".to_string());
        Cell::Ref(Reference { database, table, row, column })
    };
    Event {
        header: Header {
            cluster: [2; 32],
            origin: origin(),
            seq: 7,
            previous: [9; 32],
            stamp: Stamp::from_wall_ms(1_700_000_000_000),
            database: "scouting".into(),
            applied: Cut { dots: [(other, 41)].into() },
            schema: [5; 16],
            continues: false,
            note: String::new(),
        },
        tables: vec![TableColumns {
            table: "note".into(),
            columns: vec!["id".into(), "text".into(), "user_id".into()],
        }],
        changes: vec![
            Change::Insert {
                table: 0,
                row: born(own, 7, 0),
                claim: Some(57),
                after: Some(born(other, 40, 3)),
                cells: vec![(1, Cell::Plain(Value::text("first"))), (2, reference(RowId::Genesis([8; 16])))],
            },
            Change::Insert {
                table: 0,
                row: born(own, 7, 1),
                claim: Some(58),
                after: None,
                cells: vec![(1, Cell::Plain(Value::Blob(vec![0, 255]))), (2, Cell::Plain(Value::Null))],
            },
            Change::Update {
                table: 0,
                row: born(own, 7, 0),
                cells: vec![(1, Cell::Plain(Value::real(-0.0)), Stamp::from_wall_ms(1_700_000_000_001))],
            },
            Change::Claim { table: 0, row: born(other, 39, 0), id: -4, after: None, depth: 2 },
            Change::Delete { table: 0, row: RowId::Keyed([6; 16]) },
        ],
    }
}

/// These bytes are stored and signed on disks out there: if this test fails, the format changed. Then raise the protocol
/// version; do not change the golden file.
#[test]
fn the_golden_event_keeps_its_bytes_and_hash() {
    let golden = include_str!("event_golden.txt");
    let bytes = encode_event(&example());
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    assert_eq!(format!("{}\n{}\n", hex(&bytes), hex(&event_hash(&bytes))), golden);
    assert_eq!(decode_event(&bytes), Ok(example()));
}

#[test]
fn other_forms_of_the_same_event_are_refused() {
    let bytes = encode_event(&example());
    let refused = |bytes: &[u8]| decode_event(bytes).expect_err("another form of the same event");
    // An unknown field; a field twice (the last one counts); a default written out.
    assert_eq!(refused(&[&bytes[..], &[0xfa, 0x01, 0x01, 0x00]].concat()), WireError::NotCanonical);
    assert_eq!(refused(&[&bytes[..34], &bytes[..]].concat()), WireError::NotCanonical);
    assert_eq!(refused(&[&bytes[..], &[0x48, 0x00]].concat()), WireError::NotCanonical);
}

#[test]
fn events_against_the_model_are_refused() {
    let refused = |change: fn(&mut Event)| {
        let mut event = example();
        change(&mut event);
        assert!(decode_event(&encode_event(&event)).is_err(), "{event:?}");
    };
    refused(|event| event.header.seq = 0);
    refused(|event| event.tables.clear());
    refused(|event| event.tables[0].columns.truncate(1));
    refused(|event| event.tables[0].table = "x".repeat(limits::IDENTIFIER_BYTES_MAX + 1));
    refused(|event| {
        let Change::Insert { cells, .. } = &mut event.changes[0] else { panic!("an insert") };
        cells.reverse();
    });
    refused(|event| event.changes = vec![event.changes[4].clone(); limits::EVENT_CHANGES_MAX + 1]);
}

#[test]
fn a_small_message_cannot_unfold_without_bound() {
    let mut event = example();
    event.tables[0].columns = (0..2_000).map(|number| format!("c{number}")).collect();
    let cells = (0..2_000).map(|column| (column, Cell::Plain(Value::Null))).collect();
    let wide = Change::Insert { table: 0, row: RowId::Genesis([0; 16]), claim: None, after: None, cells };
    event.changes = vec![wide; limits::EVENT_CELLS_MAX / 2_000 + 1];
    let bytes = encode_event(&event);
    assert!(bytes.len() < 100_000, "{} bytes", bytes.len());
    assert_eq!(
        decode_event(&bytes),
        Err(WireError::TooLarge { what: "cells of an event", limit: limits::EVENT_CELLS_MAX })
    );
    let huge = vec![0; limits::EVENT_BYTES_MAX + 1];
    assert!(matches!(decode_event(&huge), Err(WireError::TooLarge { .. })));
}

/// The streams are what the schema file says: packed protobuf fields.
#[test]
fn bulk_rows_cost_little_beside_their_values() {
    let mut event = example();
    event.changes = (0..1_000)
        .map(|index| Change::Insert {
            table: 0,
            row: RowId::Born(Birth { origin: origin().id(), seq: 7, index }),
            claim: Some(i64::from(index) + 1),
            after: None,
            cells: vec![(1, Cell::Plain(Value::text("sixteen bytes ok"))), (2, Cell::Plain(Value::Integer(5)))],
        })
        .collect();
    let bytes = encode_event(&event);
    // 16 bytes of text, 1 of integer; length, shape, row and id one each.
    assert!(bytes.len() < 1_000 * 21 + 300, "{} bytes", bytes.len());
}

/// Run with `--release -- --ignored --nocapture`: a figure, not a test.
#[test]
#[ignore = "a figure for people"]
fn decoding_speed() {
    let mut event = example();
    event.tables[0].columns = (0..10).map(|number| format!("c{number}")).collect();
    event.changes = (0..5_000)
        .map(|index| Change::Insert {
            table: 0,
            row: RowId::Born(Birth { origin: origin().id(), seq: 7, index }),
            claim: Some(i64::from(index) + 1),
            after: None,
            cells: (1..10).map(|column| (column, Cell::Plain(Value::text("nineteen bytes text")))).collect(),
        })
        .collect();
    let bytes = encode_event(&event);
    let started = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(decode_event(&bytes).unwrap().changes.len(), 5_000);
    }
    println!("{:?} for 1,000,000 rows of {} bytes", started.elapsed(), bytes.len() / 5_000);
    let started = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(event_hash(&bytes).len(), 32);
    }
    println!("{:?} for hashing them", started.elapsed());
}
