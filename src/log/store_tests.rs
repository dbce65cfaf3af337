//! The evaluator's storage on redb against the one in memory: the same calls, the same answers.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::merge::claims;
use crate::merge::memory::MemoryStore;
use crate::merge::registers::{Part, Tally, Write};
use crate::merge::rules::RuleRecord;
use crate::merge::store::{
    AuditKind, AuditRecord, CellState, CellVersion, Claim, Fingerprint, Row, Shelved, Store, TableId,
};
use crate::model::{Birth, Cell, Cut, Dot, Reference, RowId, Rule, Stamp, Value};

/// One call. Rows, tables, ids and keys come from few values, so that calls meet.
#[derive(Clone, Debug)]
enum Call {
    Table(u8),
    Column(u8, u8),
    PutRow(u8, Box<Row>),
    Shown(u8, u8, Option<u8>),
    Claim(u8, i64, u8, bool),
    Refer(u8, u8, bool),
    Unique(u8, u8, u8, bool),
    Fingerprint(u8, u64),
    Rule(u8, u8),
    Audit(u8),
    Shelf(u8, bool),
    Dirty(u8, u8, bool),
    /// Commit: durably or not.
    Commit(bool),
    Abort,
}

fn row_id(number: u8) -> RowId {
    match number % 3 {
        0 => RowId::Genesis([number; 16]),
        1 => RowId::Born(Birth { origin: OriginId([number / 3; 16]), seq: u64::from(number), index: 1 }),
        _ => RowId::Keyed([number; 16]),
    }
}

fn dot(seed: u8) -> Dot {
    Dot { origin: OriginId([seed % 3; 16]), seq: u64::from(seed), index: u32::from(seed) }
}

/// What a cell of a column with a rule keeps.
fn tally(seed: u8) -> Tally {
    let (cell, stamp) = (Cell::Plain(Value::Integer(i64::from(seed))), Stamp(u64::from(seed)));
    let write = Write { cell, stamp, dot: dot(seed), born: seed.is_multiple_of(2) };
    let part = Part {
        known: vec![dot(seed)],
        member: 0,
        last: write.clone(),
        greatest: Some(write.clone()),
        least: None,
        number: None,
        list: Some(write),
        steps: vec![(OriginId([seed; 16]), (u64::MAX, 0), i128::MIN)],
        edits: [(vec![seed], (stamp, dot(seed), true))].into(),
    };
    Tally { parts: vec![part.clone(), part] }
}

/// A row with everything in it that a seed can choose.
fn row(table: u8, seed: u8, text: Vec<u8>) -> Row {
    let (dot_of, stamp) = (dot(seed), Stamp(u64::from(seed) << 40));
    let reference =
        Reference { database: "users".into(), table: "user".into(), row: row_id(seed), column: "id".into() };
    let cells = [
        Cell::Plain(Value::Null),
        Cell::Plain(Value::Integer(-i64::from(seed))),
        Cell::Plain(Value::real(f64::from(seed))),
        Cell::Plain(Value::Text(text.clone())),
        Cell::Plain(Value::Blob(text)),
        Cell::Ref(reference),
    ];
    let cells = cells.into_iter().enumerate().map(|(column, cell)| CellState {
        column: column as u16,
        cell,
        stamp,
        dot: dot(seed.wrapping_add(column as u8 / 2)),
        born: column % 2 == 0,
        tally: (seed % 3 == column as u8 % 3).then(|| Box::new(tally(seed))),
    });
    let mut row = Row::new(TableId(u32::from(table)));
    row.births = vec![(dot_of, stamp); usize::from(seed % 3)];
    row.claim =
        (seed.is_multiple_of(2)).then(|| Claim { id: i64::MIN, after: Some(row_id(seed)), depth: 3, dot: dot_of });
    row.id = row.claim.map(|claim| claim.id);
    row.cells = cells.collect();
    row.touched = Cut { dots: [(OriginId([seed; 16]), 4)].into() };
    row.deletes = Cut { dots: [(OriginId([seed; 16]), 2)].into() };
    row.granted = seed.is_multiple_of(3);
    row.loosened = vec![u16::from(seed); usize::from(seed % 2)];
    row.deleted = (seed.is_multiple_of(5)).then_some((dot_of, stamp));
    row.alive = seed % 2 == 1;
    row.shelved = (seed.is_multiple_of(4)).then(|| Shelved::Refused { message: "CHECK".into() });
    row.shown = (seed % 4 == 1).then(|| vec![Value::Integer(1), Value::text("k")]);
    row.image_hash = [seed; 32];
    row.lag = (seed % 3 == 1).then(|| vec![Value::Null, Value::text("old")].into());
    row.unique = vec![[seed; 16]; usize::from(seed % 2)];
    row
}

fn call() -> impl Strategy<Value = Call> {
    let (table, number, flag) = (0u8..4, 0u8..12, any::<bool>());
    let ids = prop_oneof![-2i64..4, Just(claims::STRIDE + 1), Just(i64::MAX), Just(i64::MIN)];
    prop_oneof![
        1 => table.clone().prop_map(Call::Table),
        2 => (table.clone(), 0u8..6).prop_map(|(table, column)| Call::Column(table, column)),
        4 => (table.clone(), number.clone(), any::<u8>(), vec(any::<u8>(), 0..6)).prop_map(
            |(table, number, seed, text)| Call::PutRow(number, Box::new(row(table, seed, text)))),
        3 => (table.clone(), number.clone(), proptest::option::of(0u8..12)).prop_map(
            |(table, key, row)| Call::Shown(table, key, row)),
        4 => (table.clone(), ids, number.clone(), flag).prop_map(|(table, id, row, add)| Call::Claim(table, id, row, add)),
        4 => (number.clone(), number.clone(), flag).prop_map(|(parent, child, add)| Call::Refer(parent, child, add)),
        4 => (table.clone(), 0u8..3, number.clone(), flag).prop_map(
            |(table, key, row, add)| Call::Unique(table, key, row, add)),
        1 => (table.clone(), any::<u64>()).prop_map(|(table, rows)| Call::Fingerprint(table, rows)),
        1 => (table.clone(), number.clone()).prop_map(|(table, number)| Call::Rule(table, number)),
        1 => number.clone().prop_map(Call::Audit),
        2 => (number.clone(), flag).prop_map(|(row, on)| Call::Shelf(row, on)),
        4 => (table, number, flag).prop_map(|(table, row, on)| Call::Dirty(table, row, on)),
        2 => any::<bool>().prop_map(Call::Commit),
        1 => Just(Call::Abort),
    ]
}

/// Two databases, two tables each; the case of a table's name does not matter.
fn names(table: u8) -> (&'static str, &'static str) {
    [("scouting", "Team"), ("scouting", "match"), ("users", "team"), ("scouting", "TEAM")][usize::from(table)]
}

fn key_of(key: u8) -> Vec<Value> {
    match key % 4 {
        0 => vec![Value::Integer(i64::from(key))],
        1 => vec![Value::text("a"), Value::text("b")],
        2 => vec![Value::Text(vec![key; 500])],
        _ => vec![],
    }
}

fn audit(number: u8) -> AuditRecord {
    let version = |value| CellVersion { cell: Cell::Plain(Value::Integer(value)), stamp: Stamp(1), dot: dot(number) };
    AuditRecord {
        number: 99,
        database: names(number % 4).0.into(),
        table: "team".into(),
        row: row_id(number),
        kind: AuditKind::Cell { column: "name".into(), winner: Box::new(version(1)), loser: Box::new(version(2)) },
        seen_ms: 5,
    }
}

/// Performs a call. Tables that were not numbered yet are numbered first, as the evaluator does.
fn perform<S: Store>(store: &mut S, call: &Call) -> Result<(), S::Error> {
    let table_of = |store: &mut S, table: u8| store.table_id(names(table).0, names(table).1);
    match call {
        Call::Table(table) => table_of(store, *table).map(|_| ()),
        Call::Column(table, column) => {
            let table = table_of(store, *table)?;
            let name = ["id", "ID", "name", "Näme", "x", "X"][usize::from(*column)];
            store.column_id(table, name).map(|_| ())
        }
        Call::PutRow(number, row) => {
            // A row keeps its table for ever.
            let known = store.row(&row_id(*number))?.map(|known| known.table);
            let new = known.is_none();
            let table = known.map_or_else(|| table_of(store, row.table.0 as u8), Ok)?;
            store.put_row(&row_id(*number), Arc::new(Row { table, ..(**row).clone() }), new)
        }
        Call::Shown(table, key, row) => {
            let table = table_of(store, *table)?;
            store.set_shown(table, &key_of(*key), row.map(row_id))
        }
        Call::Claim(table, id, row, true) => {
            table_of(store, *table).and_then(|t| store.add_claim(t, *id, row_id(*row)))
        }
        Call::Claim(table, id, row, false) => {
            table_of(store, *table).and_then(|table| store.remove_claim(table, *id, row_id(*row)))
        }
        Call::Refer(parent, child, true) => store.add_referrer(row_id(*parent), row_id(*child)),
        Call::Refer(parent, child, false) => store.remove_referrer(row_id(*parent), row_id(*child)),
        Call::Unique(table, key, row, add) => {
            let (table, key, row) = (table_of(store, *table)?, [*key; 16], row_id(*row));
            if *add { store.add_unique(table, key, row) } else { store.remove_unique(table, key, row) }
        }
        Call::Fingerprint(table, rows) => {
            let table = table_of(store, *table)?;
            store.put_fingerprint(table, Fingerprint { rows: *rows, lanes: [1, 2, 3, *rows] })
        }
        Call::Rule(table, number) => {
            let table = table_of(store, *table)?;
            let (column, rule) = ((number % 3 > 0).then_some(u16::from(*number)), Rule::ALL[usize::from(*number) % 10]);
            store.put_rule(
                table,
                &RuleRecord { stamp: Stamp(4), dot: dot(*number), column, rule, replaced: vec![dot(1)] },
            )
        }
        Call::Audit(number) => store.add_audit(audit(*number)),
        Call::Shelf(row, on) => store.set_shelf(row_id(*row), *on),
        Call::Dirty(table, row, on) => {
            let table = table_of(store, *table)?;
            store.set_dirty(table, row_id(*row), *on)
        }
        Call::Commit(_) | Call::Abort => Ok(()),
    }
}

/// Everything a store can be asked, as text.
fn answers<S: Store>(store: &S) -> Result<String, S::Error> {
    let mut all = String::new();
    let mut add = |text: String| all.push_str(&(text + "\n"));
    for number in 0..12 {
        add(format!("{:?}", store.row(&row_id(number))?));
        add(format!("{:?}", store.referrers(&row_id(number))?));
    }
    for database in ["scouting", "users", "none"] {
        add(format!("{:?}", store.dirty(database)?));
    }
    for name in (0..4).map(names) {
        let Some(table) = store.find_table(name.0, name.1)? else { continue };
        add(format!("{table:?} {:?} {:?}", store.table_name(table)?, store.columns(table)?));
        let mut after = None;
        loop {
            let page = store.rows_of(table, after, 2)?;
            add(format!("{page:?}"));
            match page.last() {
                Some(last) => after = Some(*last),
                None => break,
            }
        }
        for key in 0..12 {
            add(format!("{:?}", store.shown(table, &key_of(key))?));
        }
        for id in [-2i64, -1, 0, 1, 2, 3, i64::MAX, i64::MIN] {
            add(format!("{:?}", store.claims(table, claims::remainder(id))?));
        }
        for key in 0..3 {
            add(format!("{:?}", store.unique_holders(table, &[key; 16])?));
        }
        add(format!("{:?}", store.fingerprint(table)?));
        add(format!("{:?}", store.rules(table)?));
    }
    Ok(all)
}

/// The same questions to a snapshot, where it has them, against the store in memory.
fn compare_snapshot(read: &LogRead, memory: &MemoryStore) {
    for number in 0..12 {
        let id = row_id(number);
        assert_eq!(read.row(&id).unwrap(), memory.row(&id).unwrap().as_deref().cloned());
        assert_eq!(read.referrers(&id).unwrap(), memory.referrers(&id).unwrap());
        let of_row: Vec<AuditRecord> = memory.audit().iter().filter(|entry| entry.row == id).cloned().collect();
        assert_eq!(read.audit_by_row(&id).unwrap(), of_row);
    }
    assert_eq!(read.audit_page(0, 1_000).unwrap(), memory.audit());
    assert_eq!(read.audit_page(1, 1).unwrap(), memory.audit().iter().skip(1).take(1).cloned().collect::<Vec<_>>());
    assert_eq!(read.last_audit().unwrap(), memory.audit().len() as u64);
    assert_eq!(read.shelf().unwrap(), memory.shelf().iter().copied().collect::<Vec<_>>());
    assert_eq!(read.shelf_count().unwrap(), memory.shelf().len() as u64);
    for database in ["scouting", "users"] {
        let of_database = memory.audit().iter().filter(|entry| entry.database == database).count();
        assert_eq!(read.audit_count(database).unwrap(), of_database as u64);
        assert_eq!(read.dirty(database).unwrap(), memory.dirty(database).unwrap());
    }
    for name in (0..4).map(names) {
        assert_eq!(read.find_table(name.0, name.1).unwrap(), memory.find_table(name.0, name.1).unwrap());
        let Some(table) = read.find_table(name.0, name.1).unwrap() else { continue };
        assert!(read.tables_of(name.0).contains(&table));
        assert_eq!(read.table_name(table).unwrap(), memory.table_name(table).unwrap());
        assert_eq!(read.columns(table).unwrap(), memory.columns(table).unwrap());
        assert_eq!(read.rows_of(table, None, 99).unwrap(), memory.rows_of(table, None, 99).unwrap());
        assert_eq!(read.rules(table).unwrap(), memory.rules(table).unwrap());
        assert_eq!(read.claims(table, 1).unwrap(), memory.claims(table, 1).unwrap());
        assert_eq!(read.unique_holders(table, &[1; 16]).unwrap(), memory.unique_holders(table, &[1; 16]).unwrap());
        assert_eq!(read.shown(table, &key_of(2)).unwrap(), memory.shown(table, &key_of(2)).unwrap());
        assert_eq!(read.fingerprint(table).unwrap(), memory.fingerprint(table).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 120 } else { 2_000 }))]

    #[test]
    fn redb_and_memory_give_the_same_answers(calls in vec(call(), 1..60)) {
        let log = Log::with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let (mut memory, mut committed) = (MemoryStore::default(), MemoryStore::default());
        let mut write = log.write().unwrap();
        for call in &calls {
            perform(&mut write, call).unwrap();
            let Ok(()) = perform(&mut memory, call);
            prop_assert_eq!(answers(&write).unwrap(), answers(&memory).unwrap_or_default(), "after {:?}", call);
            match call {
                Call::Commit(true) => write.commit_durable().unwrap(),
                Call::Commit(false) => write.commit_relaxed().unwrap(),
                Call::Abort => drop(write),
                _ => continue,
            }
            if matches!(call, Call::Abort) {
                memory = committed.clone();
            }
            committed = memory.clone();
            compare_snapshot(&log.read().unwrap(), &memory);
            write = log.write().unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_in_a_row_is_noticed() {
    let log = Log::with_backend(redb::backends::InMemoryBackend::new()).unwrap();
    let mut write = log.write().unwrap();
    let table = write.table_id("scouting", "team").unwrap();
    let stored = Row { table, ..row(0, 7, b"text".to_vec()) };
    write.put_row(&row_id(1), Arc::new(stored.clone()), true).unwrap();
    write.commit_durable().unwrap();
    let transaction = log.database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(tables::ROWS).unwrap();
        let mut value = redb::ReadableTable::get(&rows, &row_id(1).to_bytes()).unwrap().unwrap().value().to_vec();
        value[10] ^= 4;
        rows.insert(&row_id(1).to_bytes(), value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    log.committed().read = None;
    assert!(matches!(log.read().unwrap().row(&row_id(1)), Err(LogError::CorruptRecord { table: "rows" })));
}

/// Run with `--release -- --ignored --nocapture`: a figure, not a test.
#[test]
#[ignore = "a figure for people"]
fn storing_speed() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(&folder.path().join("log.redb")).unwrap();
    let stamp = Stamp(1 << 57);
    let started = std::time::Instant::now();
    for batch in 0..100u64 {
        let mut write = log.write().unwrap();
        let table = write.table_id("scouting", "team").unwrap();
        for index in 0..1_000u32 {
            let dot = Dot { origin: OriginId([4; 16]), seq: batch + 1, index };
            let id = RowId::Born(Birth { origin: dot.origin, seq: dot.seq, index });
            let number = batch as i64 * 1_000 + i64::from(index);
            assert!(write.row(&id).unwrap().is_none());
            let mut row = Row::new(table);
            row.births = vec![(dot, stamp)];
            row.claim = Some(Claim { id: number, after: None, depth: 1, dot });
            row.id = Some(number);
            let cell = Cell::Plain(Value::text("nineteen bytes text"));
            row.cells = (1..10)
                .map(|column| CellState { column, cell: cell.clone(), stamp, dot, born: true, tally: None })
                .collect();
            row.shown = Some(vec![Value::Integer(number)]);
            row.image_hash = [7; 32];
            row.alive = true;
            row.touched = Cut { dots: [(dot.origin, dot.seq)].into() };
            write.add_claim(table, number, id).unwrap();
            write.set_dirty(table, id, true).unwrap();
            write.set_shown(table, &[Value::Integer(number)], Some(id)).unwrap();
            write.put_row(&id, Arc::new(row), true).unwrap();
            write.set_dirty(table, id, false).unwrap();
        }
        write.commit_relaxed().unwrap();
    }
    log.write().unwrap().commit_durable().unwrap();
    println!("100,000 rows of state in {:?}", started.elapsed());
    println!("file: {} bytes per row", std::fs::metadata(folder.path().join("log.redb")).unwrap().len() / 100_000);
}
