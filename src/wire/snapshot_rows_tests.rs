//! Rows survive their travel; no bytes panic.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::merge::registers::{Part, Tally, Write};
use crate::merge::store::{Bonds, CellState, Claim, Link, LinkKind, Shelved, Whole};
use crate::model::{Birth, Column, Cut, OriginId, Reference, Rule, Stamp};

fn schema() -> TableSchema {
    let column =
        |name: &str, default| Column { name: name.into(), declared_type: String::new(), not_null: false, default };
    TableSchema {
        name: "t".into(),
        columns: vec![column("id", Value::Null), column("a", Value::Null), column("b", Value::text("by default"))],
        identity: Identity::Surrogate(0),
        foreign_keys: Vec::new(),
        unique: Vec::new(),
        collisions: Rule::UniqueMerge,
        without_rowid: false,
    }
}

fn dot(origin: u8, seq: u64, index: u32) -> Dot {
    Dot { origin: OriginId([origin; 16]), seq, index }
}

fn cut(dots: &[(u8, u64)]) -> Cut {
    Cut { dots: dots.iter().map(|(origin, seq)| (OriginId([*origin; 16]), *seq)).collect() }
}

fn born(seq: u64, index: u32) -> RowId {
    RowId::Born(Birth { origin: OriginId([1; 16]), seq, index })
}

/// A row as most are.
fn plain(seq: u64, index: u32, value: Value) -> (RowId, Row) {
    let mut row = Row::new(TableId(3));
    let (birth, stamp) = (dot(1, seq, index), Stamp(seq << 16));
    row.births = vec![(birth, stamp)];
    row.claim = Some(Claim { id: 100 + i64::from(index), after: None, depth: 0, dot: birth });
    row.id = Some(100 + i64::from(index));
    row.cells = vec![CellState { column: 0, cell: Cell::Plain(value), stamp, dot: birth, born: true, tally: None }];
    row.touched = cut(&[(1, seq)]);
    (row.alive, row.granted) = (true, true);
    (born(seq, index), row)
}

/// A row with all that a row can have.
fn rare() -> (RowId, Row) {
    let (_, mut row) = plain(9, 0, Value::Real(0.5f64.to_bits()));
    let reference =
        Reference { database: "app".into(), table: "t".into(), row: RowId::Keyed([5; 16]), column: "id".into() };
    let write = Write { cell: Cell::Plain(Value::Integer(-4)), stamp: Stamp(77), dot: dot(2, 4, 1), born: false };
    let part = Part {
        known: vec![dot(2, 1, 0)],
        member: 0,
        last: write.clone(),
        greatest: Some(write.clone()),
        least: None,
        number: Some(write),
        list: None,
        steps: vec![(OriginId([2; 16]), (4, 1), -(1i128 << 90))],
        edits: BTreeMap::from([(b"x".to_vec(), (Stamp(5), dot(1, 1, 1), true))]),
    };
    let tally = Some(Box::new(Tally { parts: vec![part] }));
    let cell = Cell::Ref(reference);
    row.cells.push(CellState { column: 4, cell, stamp: Stamp(u64::MAX), dot: dot(2, 8, 2), born: false, tally });
    row.births.push((dot(2, 1, 0), Stamp(3)));
    row.claim = Some(Claim { id: i64::MIN, after: Some(born(1, 1)), depth: 2, dot: dot(2, 2, 2) });
    row.id = Some(i64::MAX);
    row.covered = cut(&[(1, 4), (2, 1)]);
    row.deletes = cut(&[(2, 2)]);
    row.deleted = Some((dot(2, 2, 0), Stamp(9)));
    row.granted = false;
    row.shelved = Some(Shelved::Unique { index: "u".into(), holder: born(2, 2) });
    row.unique = vec![[8; 16], [9; 16]];
    let link = Link {
        kind: LinkKind::Split,
        other: RowId::Genesis([3; 16]),
        columns: vec![0, 4],
        dot: dot(1, 6, 0),
        void: true,
    };
    row.bonds = Some(Box::new(Bonds { links: vec![link], members: vec![born(9, 0)], key: Some([4; 16]) }));
    row.overlay = vec![(0, Value::text("tag~1"))];
    row.whole = Some(Box::new(Whole { cells: row.cells[..1].to_vec(), message: "CHECK".into() }));
    row.updates = vec![(4, cut(&[(2, 8)]))];
    row.loosened = vec![4];
    (born(9, 0), row)
}

fn content() -> (Vec<u8>, Vec<SnapshotRow>, TableSchema) {
    let schema = schema();
    let image = |row: &Row, a: Value, b: Value| Some(vec![row.id.map_or(Value::Null, Value::Integer), a, b]);
    let mut rows: Vec<SnapshotRow> = Vec::new();
    for (at, value) in
        [Value::Integer(i64::MIN), Value::text("text"), Value::Blob(vec![0, 255]), Value::Null].into_iter().enumerate()
    {
        let (id, row) = plain(7, at as u32, value.clone());
        let shown = image(&row, value, Value::text("by default"));
        rows.push((id, row, shown));
    }
    let (id, row) = plain(8, 0, Value::Integer(1));
    let shown = image(&row, Value::Integer(1), Value::text("another"));
    rows.push((id, row, shown));
    let (id, row) = rare();
    rows.push((id, row, None));
    let (_, mut genesis) = plain(1, 0, Value::Integer(5));
    genesis.births = vec![(GENESIS_DOT, Stamp(0))];
    (genesis.claim, genesis.id, genesis.alive) = (None, None, false);
    rows.push((RowId::Genesis([7; 16]), genesis, None));
    rows.push((RowId::Keyed([7; 16]), Row::new(TableId(3)), None));
    let columns = vec!["a".to_string(), "b".to_string()];
    let layout = Layout::new(TableId(3), Some(&schema), &columns);
    let mut content = Content::default();
    rows.iter().for_each(|(id, row, image)| content.push(&layout, id, row, image.as_deref()));
    (content.finish(), rows, schema)
}

fn read(bytes: &[u8], schema: &TableSchema) -> Option<Vec<SnapshotRow>> {
    let columns = vec!["a".to_string(), "b".to_string()];
    let layout = Layout::new(TableId(3), Some(schema), &columns);
    let mut rows = Rows::new(bytes).ok()?;
    let mut read = Vec::new();
    while let Some(row) = rows.next(&layout).ok()? {
        read.push(row);
    }
    Some(read)
}

#[test]
fn all_that_a_row_can_have_survives() {
    let (bytes, rows, schema) = content();
    assert_eq!(read(&bytes, &schema).unwrap(), rows);
}

#[test]
fn rows_like_most_cost_little_more_than_their_values() {
    let mut content = Content::default();
    for index in 0..1_000 {
        let (id, row) = plain(7, index, Value::text("ten bytes."));
        content.push_plain(&id, &row);
    }
    assert!(content.len() <= 1_000 * (11 + 12), "{} bytes for a thousand rows of ten", content.len());
}

#[test]
fn rows_of_random_texts_pack_to_less_than_their_values() {
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut content = Content::default();
    for index in 0..1_400 {
        let (id, mut row) = plain(7, index, Value::Null);
        let (dot, stamp) = row.births[0];
        let numbers: Vec<Value> = (0..5).map(|_| Value::Integer((draw() % 200) as i64)).collect();
        let mut text = || -> String {
            (0..40).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[draw() as usize % 36])).collect()
        };
        let texts: Vec<Value> = (0..4).map(|_| Value::text(&text())).collect();
        let state = |(at, value)| CellState {
            column: at as u16,
            cell: Cell::Plain(value),
            stamp,
            dot,
            born: true,
            tally: None,
        };
        row.cells = numbers.into_iter().chain(texts).enumerate().map(state).collect();
        content.push_plain(&id, &row);
    }
    let packed = crate::wire::snapshot::SnapshotPart::pack(&content.finish()).unwrap().len();
    // Raw: 8 bytes of id, 10 of numbers, 160 of text, of which 103 are information.
    assert!(packed <= 1_400 * 130, "{} bytes a row", packed / 1_400);
}

#[test]
fn no_bytes_panic() {
    let (bytes, _, schema) = content();
    for end in 0..bytes.len() {
        let _ = read(&bytes[..end], &schema);
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let _ = read(&flipped, &schema);
        }
    }
}
