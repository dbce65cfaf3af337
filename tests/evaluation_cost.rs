//! What one event costs: the calls to the store that its evaluation makes, and the time, in tables of any size.
//!
//! Invariant: the work per event depends on what the event touches, not on the table. Figures for people:
//! `cargo test --release --no-default-features --test evaluation_cost -- --ignored --nocapture`.

use std::cell::Cell as Counter;
use std::convert::Infallible;
use std::sync::Arc;

use litemesh::merge::Evaluator;
use litemesh::merge::memory::MemoryStore;
use litemesh::merge::rank::Ranks;
use litemesh::merge::rules::RuleRecord;
use litemesh::merge::store::{AuditRecord, Fingerprint, Row, Store, TableId};
use litemesh::model::{
    Birth, Cell, Change, Collation, Column, Cut, DatabaseSchema, Event, ForeignKey, Header, Identity, NodeId, Origin,
    OriginId, Reference, RowId, Rule, Stamp, TableColumns, TableSchema, UniqueKey, Value,
};

/// Counts the calls that read or write.
#[derive(Default)]
struct Counted {
    inner: MemoryStore,
    calls: Counter<u64>,
}

macro_rules! counted {
    (read { $(fn $read:ident($($r:ident: $rt:ty),*) -> $rr:ty;)* } write { $(fn $write:ident($($w:ident: $wt:ty),*) -> $wr:ty;)* }) => {
        impl Store for Counted {
            type Error = Infallible;
            $(fn $read(&self, $($r: $rt),*) -> Result<$rr, Infallible> {
                self.calls.set(self.calls.get() + 1);
                self.inner.$read($($r),*)
            })*
            $(fn $write(&mut self, $($w: $wt),*) -> Result<$wr, Infallible> {
                self.calls.set(self.calls.get() + 1);
                self.inner.$write($($w),*)
            })*
        }
    };
}

counted! {
    read {
        fn rules(table: TableId) -> Vec<RuleRecord>;
        fn find_table(database: &str, table: &str) -> Option<TableId>;
        fn table_name(table: TableId) -> (String, String);
        fn columns(table: TableId) -> Vec<String>;
        fn row(row: &RowId) -> Option<Arc<Row>>;
        fn rows_of(table: TableId, after: Option<RowId>, limit: usize) -> Vec<RowId>;
        fn shown(table: TableId, key: &[Value]) -> Option<RowId>;
        fn claims(table: TableId, remainder: u32) -> Vec<(i64, RowId)>;
        fn referrers(parent: &RowId) -> Vec<RowId>;
        fn unique_holders(table: TableId, key: &[u8; 16]) -> Vec<RowId>;
        fn cut_of(database: &str, origin: OriginId, seq: u64) -> Cut;
        fn fingerprint(table: TableId) -> Fingerprint;
        fn dirty(database: &str) -> Vec<RowId>;
    }
    write {
        fn put_rule(table: TableId, rule: &RuleRecord) -> ();
        fn table_id(database: &str, table: &str) -> TableId;
        fn column_id(table: TableId, column: &str) -> u16;
        fn put_row(row: &RowId, record: Arc<Row>, new: bool) -> ();
        fn set_shown(table: TableId, key: &[Value], row: Option<RowId>) -> ();
        fn add_claim(table: TableId, id: i64, row: RowId) -> ();
        fn remove_claim(table: TableId, id: i64, row: RowId) -> ();
        fn add_referrer(parent: RowId, child: RowId) -> ();
        fn remove_referrer(parent: RowId, child: RowId) -> ();
        fn add_unique(table: TableId, key: [u8; 16], row: RowId) -> ();
        fn remove_unique(table: TableId, key: [u8; 16], row: RowId) -> ();
        fn put_fingerprint(table: TableId, fingerprint: Fingerprint) -> ();
        fn add_audit(record: AuditRecord) -> ();
        fn set_shelf(row: RowId, shelved: bool) -> ();
        fn set_dirty(table: TableId, row: RowId, dirty: bool) -> ();
    }
}

fn column(name: &str) -> Column {
    Column { name: name.into(), declared_type: "INTEGER".into(), not_null: false, default: Value::Null }
}

/// Teams with a UNIQUE number, and entries that need a team.
fn schema() -> DatabaseSchema {
    let table = |name: &str, columns: &[&str]| TableSchema {
        name: name.into(),
        columns: columns.iter().map(|name| column(name)).collect(),
        identity: Identity::Surrogate(0),
        foreign_keys: Vec::new(),
        unique: Vec::new(),
        collisions: Rule::UniqueMerge,
        without_rowid: false,
    };
    let mut team = table("team", &["id", "number", "name"]);
    team.unique =
        vec![UniqueKey { name: "number".into(), columns: vec![(1, Collation::Binary)], exact: true, computed: None }];
    let mut entry = table("entry", &["id", "team_id", "score"]);
    entry.foreign_keys = vec![ForeignKey {
        columns: vec![1],
        database: None,
        parent: "team".into(),
        parent_columns: vec!["id".into()],
        keeps_parent: true,
        declared: true,
    }];
    DatabaseSchema { database: "d".into(), tables: vec![entry, team], ..DatabaseSchema::default() }
}

struct Bench {
    store: Counted,
    ranks: Ranks,
    schemas: Vec<DatabaseSchema>,
    seqs: [u64; 2],
}

impl Bench {
    /// A cluster of two with `rows` teams of node 0, each with an entry.
    fn of(rows: u64) -> Bench {
        let mut ranks = Ranks::default();
        for node in 0..2 {
            ranks.set(origin(node).id(), u32::from(node), u32::from(node) + 1);
        }
        let mut bench = Bench { store: Counted::default(), ranks, schemas: vec![schema()], seqs: [0; 2] };
        for row in 0..rows {
            bench.write(0, 0, |birth| {
                vec![
                    insert(0, birth(0), row as i64 + 1, &[(1, integer(row as i64)), (2, integer(7))]),
                    insert(1, birth(1), row as i64 + 1, &[(1, team_of(birth(0))), (2, integer(1))]),
                ]
            });
        }
        bench
    }

    /// Evaluates one event of a node that knew `known` events of the other; gives the calls it made.
    fn write(&mut self, node: u8, known: u64, changes: impl Fn(&dyn Fn(u32) -> RowId) -> Vec<Change>) -> u64 {
        self.seqs[node as usize] += 1;
        let seq = self.seqs[node as usize];
        let own = origin(node);
        let birth = |index| RowId::Born(Birth { origin: own.id(), seq, index });
        let names = |table: &str, columns: &[&str]| TableColumns {
            table: table.into(),
            columns: columns.iter().map(|name| (*name).into()).collect(),
        };
        let event = Event {
            header: Header {
                cluster: [0; 32],
                origin: own,
                seq,
                previous: [0; 32],
                stamp: Stamp::from_wall_ms(1_000 + seq),
                database: "d".into(),
                applied: Cut::default(),
                schema: [0; 16],
                continues: false,
                note: String::new(),
            },
            tables: vec![names("team", &["id", "number", "name"]), names("entry", &["id", "team_id", "score"])],
            changes: changes(&birth),
        };
        let mut cut: Cut = Cut::default();
        cut.dots.extend([(own.id(), seq - 1), (origin(1 - node).id(), known)]);
        cut.dots.retain(|_, count| *count > 0);
        self.store.inner.put_cut("d", own.id(), seq, cut);
        let before = self.store.calls.get();
        let mut evaluator = Evaluator::new(&mut self.store, &self.ranks, &self.schemas, 0);
        evaluator.integrate(&event).unwrap();
        let dirty = evaluator.settle().unwrap();
        for row in &dirty {
            let target = evaluator.target(row).unwrap();
            evaluator.mark_shown(row, target.as_ref()).unwrap();
        }
        evaluator.finish().unwrap();
        for row in &dirty {
            if let Some(record) = self.store.inner.row(row).unwrap() {
                self.store.inner.set_dirty(record.table, *row, false).unwrap();
            }
        }
        self.store.calls.get() - before
    }
}

fn origin(node: u8) -> Origin {
    Origin { node: NodeId([node + 1; 32]), incarnation: 1 }
}

fn integer(value: i64) -> Cell {
    Cell::Plain(Value::Integer(value))
}

fn team_of(row: RowId) -> Cell {
    Cell::Ref(Reference { database: "d".into(), table: "team".into(), row, column: "id".into() })
}

fn insert(table: u32, row: RowId, id: i64, cells: &[(u32, Cell)]) -> Change {
    Change::Insert { table, row, claim: Some(id), after: None, cells: cells.to_vec() }
}

/// What the other node does, by name: (calls to the store, microseconds).
fn measure(rows: u64) -> Vec<(&'static str, u64, f64)> {
    let mut bench = Bench::of(rows);
    let middle = RowId::Born(Birth { origin: origin(0).id(), seq: rows / 2, index: 0 });
    let update = |row| Change::Update { table: 0, row, cells: vec![(2, integer(9), Stamp::from_wall_ms(1 << 30))] };
    type Make<'m> = Box<dyn Fn(&dyn Fn(u32) -> RowId) -> Vec<Change> + 'm>;
    let acts: Vec<(&'static str, Make<'_>)> = vec![
        ("update of a cell", Box::new(move |_| vec![update(middle)])),
        ("insert, new id", { Box::new(move |birth| vec![insert(0, birth(0), rows as i64 + 50, &[(1, integer(-1))])]) }),
        ("insert, id taken", Box::new(move |birth| vec![insert(0, birth(0), 5, &[(1, integer(-2))])])),
        ("insert, UNIQUE taken", {
            Box::new(move |birth| vec![insert(0, birth(0), rows as i64 + 51, &[(1, integer(rows as i64 / 3))])])
        }),
        ("child of a far parent", {
            Box::new(move |birth| vec![insert(1, birth(0), rows as i64 + 52, &[(1, team_of(middle))])])
        }),
        ("delete of a parent", Box::new(move |_| vec![Change::Delete { table: 0, row: middle }])),
    ];
    acts.into_iter()
        .map(|(name, make)| {
            let start = std::time::Instant::now();
            let calls = bench.write(1, rows, &make);
            (name, calls, start.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

#[test]
fn the_work_per_event_does_not_grow_with_the_table() {
    let (small, large) = (measure(50), measure(3_000));
    for ((name, few, _), (_, many, _)) in small.iter().zip(&large) {
        assert_eq!(few, many, "{name}: calls to the store in a table of 50 and of 3,000 rows");
    }
}

#[test]
#[ignore = "figures for people"]
#[allow(clippy::print_stdout)]
fn figures_of_evaluation() {
    for rows in [10_000, 100_000, 1_000_000] {
        println!("{rows} teams and as many entries:");
        for (name, calls, micros) in measure(rows) {
            println!("  {name:<24} {calls:>4} calls {micros:>8.1} us");
        }
    }
}
