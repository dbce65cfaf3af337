//! Changes that no honest node captures: a hostile member's. They say nothing, in whatever order they come.
//!
//! Story: a fuzzer's member with a good key wrote a row of one table as if it were of another; the column numbers of the
//! one were looked up among the columns of the other, and the node died. Caller: tests of `merge`.

use super::Evaluator;
use super::integrate::GENESIS_ORIGIN;
use super::memory::MemoryStore;
use super::rank::Ranks;
use crate::model::{
    Birth, Cell, Change, Cut, Event, Header, NodeId, Origin, OriginId, Reference, RowId, Stamp, TableColumns, Value,
};

const DATABASE: &str = "app";

fn origin(member: u8) -> Origin {
    Origin { node: NodeId([member; 32]), incarnation: 1 }
}

fn born(member: u8, seq: u64, index: u32) -> RowId {
    RowId::Born(Birth { origin: origin(member).id(), seq, index })
}

/// A table of two columns and one of four.
fn event(member: u8, seq: u64, changes: Vec<Change>) -> Event {
    let columns = |count: u32| (0..count).map(|number| format!("c{number}")).collect();
    let tables = vec![
        TableColumns { table: "narrow".into(), columns: columns(2) },
        TableColumns { table: "wide".into(), columns: columns(4) },
    ];
    let header = Header {
        cluster: [0; 32],
        origin: origin(member),
        seq,
        previous: [0; 32],
        stamp: Stamp(seq),
        database: DATABASE.into(),
        applied: Cut::new(),
        schema: [0; 16],
        continues: false,
        note: String::new(),
    };
    Event { header, tables, changes }
}

fn insert(table: u32, row: RowId) -> Change {
    Change::Insert { table, row, claim: Some(1), after: None, cells: vec![(0, Cell::Plain(Value::Integer(1)))] }
}

/// What is known after these events, by authors who knew all of each other's.
fn known(events: &[Event]) -> MemoryStore {
    let mut store = MemoryStore::default();
    let all: Cut = [1, 2].map(|member| crdts::Dot::new(origin(member).id(), 9)).into_iter().collect();
    for event in events {
        let header = &event.header;
        let mut cut = all.clone();
        cut.dots.remove(&header.origin.id());
        store.put_cut(DATABASE, header.origin.id(), header.seq, cut);
        let ranks = Ranks::default();
        let mut evaluator = Evaluator::new(&mut store, &ranks, &[], 0);
        let Ok(()) = evaluator.integrate(event);
        let Ok(_) = evaluator.settle();
        let Ok(()) = evaluator.finish();
    }
    store
}

#[test]
fn a_row_is_written_only_as_a_row_of_its_own_table() {
    let row = born(1, 1, 0);
    let honest = event(1, 1, vec![insert(0, row)]);
    let to = Reference { database: DATABASE.into(), table: "wide".into(), row, column: "c0".into() };
    let cells = (0..4).map(|column| (column, Cell::Ref(to.clone()), Stamp(99))).collect();
    let hostile = event(
        2,
        1,
        vec![
            Change::Update { table: 1, row, cells },
            Change::Claim { table: 1, row, id: 7, after: None, depth: 9 },
            Change::Merge { table: 1, row: born(2, 1, 9), other: row, columns: vec![3] },
            Change::Delete { table: 1, row },
        ],
    );
    assert_eq!(known(&[honest.clone(), hostile]).rows()[&row], known(&[honest]).rows()[&row]);
}

#[test]
fn nobody_is_born_by_anothers_change_nor_written_before_his_birth() {
    let (row, stranger) = (born(1, 2, 0), RowId::Born(Birth { origin: GENESIS_ORIGIN, seq: 5, index: 0 }));
    let unknown = RowId::Born(Birth { origin: OriginId([9; 16]), seq: 1, index: 0 });
    let hostile = event(
        2,
        1,
        vec![insert(1, row), insert(1, unknown), insert(1, stranger), Change::Delete { table: 1, row: unknown }],
    );
    assert!(known(std::slice::from_ref(&hostile)).rows().is_empty());
    let honest = event(1, 2, vec![insert(0, row)]);
    assert_eq!(known(&[hostile, honest.clone()]).rows(), known(&[honest]).rows());
}

/// A merge may be heard of before its rows are: what it said of their table ends when they are born into another one.
#[test]
fn a_merge_across_tables_ends_with_the_birth_whichever_came_first() {
    let (own, row) = (born(2, 1, 0), born(1, 1, 0));
    let honest = event(1, 1, vec![insert(0, row)]);
    let hostile = event(2, 1, vec![insert(1, own), Change::Merge { table: 1, row: own, other: row, columns: vec![] }]);
    let one = known(&[honest.clone(), hostile.clone()]);
    let other = known(&[hostile, honest]);
    for id in [own, row] {
        assert_eq!(one.rows()[&id].table, other.rows()[&id].table);
        assert!(one.rows()[&id].links().is_empty() && other.rows()[&id].links().is_empty(), "{id:?}");
        assert!(one.rows()[&id].alive && other.rows()[&id].alive, "{id:?}");
    }
}
