//! Rules against random histories: three servers write, hear of each other late or never, and change the rules meanwhile.
//!
//! Every server evaluates what it hears in its own order, and writes as capture does. The witnesses: all orders of one set
//! of events give one state; what a server writes under a rule is what it shows; a slow count by the definition.
//! proptest prints the history that failed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::Evaluator;
use super::memory::MemoryStore;
use super::rank::Ranks;
use super::registers::{compare, counted, present};
use super::rules::{RuleRecord, TableRules};
use super::store::{AuditKind, Row, Store};
use crate::merge::lists::{self, elements, written_like};
use crate::model::{
    Birth, Cell, Change, Cut, Dot, Edit, Event, Header, NodeId, Origin, OriginId, Reference, RowId, Rule, Stamp,
    TableColumns, Value,
};

const DATABASE: &str = "scouting";
const SERVERS: usize = 3;
/// Columns: a value of any rule, a list, and a reference to another row of the table.
const COLUMNS: [&str; 3] = ["score", "tags", "boss"];

#[derive(Clone, Debug)]
enum Op {
    /// Hear all that another server knows.
    Hear(usize),
    Insert(Value),
    /// Write a value to some row.
    Write(usize, Value),
    /// Add to what is shown.
    Add(usize, i64),
    /// Put an element in or out.
    Toggle(usize, u8),
    /// Put a row under another one.
    Point(usize, usize),
    Delete(usize),
    Rule(Option<u32>, Rule),
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        4 => (-5i64..20).prop_map(Value::Integer),
        1 => Just(Value::Null),
        1 => (-4i32..9).prop_map(|half| Value::real(f64::from(half) / 2.0)),
        1 => "[a-c]".prop_map(|text| Value::text(&text)),
    ];
    let rules =
        proptest::sample::select(vec![Rule::Max, Rule::Min, Rule::Counter, Rule::Counter, Rule::Set, Rule::Lww]);
    prop_oneof![
        4 => (0..SERVERS).prop_map(Op::Hear),
        2 => value.clone().prop_map(Op::Insert),
        3 => (0usize..4, value).prop_map(|(row, value)| Op::Write(row, value)),
        4 => (0usize..4, -3i64..5).prop_map(|(row, by)| Op::Add(row, by)),
        3 => (0usize..4, 0u8..5).prop_map(|(row, element)| Op::Toggle(row, element)),
        3 => (0usize..5, 0usize..5).prop_map(|(row, boss)| Op::Point(row, boss)),
        1 => (0usize..4).prop_map(Op::Delete),
        1 => Just(Op::Rule(Some(2), Rule::Tree)),
        1 => rules.prop_map(|rule| Op::Rule(Some(0), rule)),
        1 => Just(Op::Rule(Some(1), Rule::Set)),
        1 => Just(Op::Rule(None, Rule::DeleteWins)),
        1 => Just(Op::Rule(None, Rule::Lww)),
    ]
}

fn origin(server: usize) -> Origin {
    Origin { node: NodeId([server as u8 + 1; 32]), incarnation: 1 }
}

/// One server: what it heard, and what came of it.
#[derive(Default)]
struct Server {
    store: MemoryStore,
    seen: Cut,
}

#[derive(Default)]
struct World {
    servers: Vec<Server>,
    events: Vec<(Event, Cut)>,
    rows: Vec<RowId>,
    clock: u64,
}

fn add(store: &mut MemoryStore, event: &Event, cut: &Cut) {
    store.put_cut(DATABASE, event.header.origin.id(), event.header.seq, cut.clone());
    let ranks = Ranks::default();
    let mut evaluator = Evaluator::new(store, &ranks, &[], 0);
    let Ok(()) = evaluator.integrate(event);
    let Ok(_) = evaluator.settle();
    let Ok(()) = evaluator.finish();
}

fn heard(seen: &Cut, event: &Event) -> bool {
    seen.get(&event.header.origin.id()) >= event.header.seq
}

/// Whether all that an event's author knew is there.
fn is_next(seen: &Cut, event: &Event, cut: &Cut) -> bool {
    !heard(seen, event) && cut.iter().all(|dot| seen.get(dot.actor) >= dot.counter)
}

fn note(seen: &mut Cut, event: &Event) {
    crdts::CmRDT::apply(seen, crdts::Dot::new(event.header.origin.id(), event.header.seq));
}

impl World {
    fn new() -> World {
        World { servers: (0..SERVERS).map(|_| Server::default()).collect(), ..World::default() }
    }

    fn run(&mut self, ops: &[(usize, Op)]) {
        for (server, op) in ops {
            // Clocks that run apart: the third one is behind.
            self.clock += 10;
            let stamp = Stamp::from_wall_ms(1_000 + self.clock - if *server == 2 { 300 } else { 0 });
            self.step(*server, op, stamp);
        }
    }

    fn step(&mut self, server: usize, op: &Op, stamp: Stamp) {
        let row_of = |row: &usize| self.rows.get(*row % self.rows.len().max(1)).copied();
        let change = match op {
            Op::Hear(other) => return self.hear(server, *other),
            Op::Insert(value) => {
                let seq = self.servers[server].seen.get(&origin(server).id()) + 1;
                let row = RowId::Born(Birth { origin: origin(server).id(), seq, index: 0 });
                self.rows.push(row);
                let cells = vec![
                    (0, Cell::Plain(value.clone())),
                    (1, Cell::Plain(Value::text("1,2"))),
                    (2, Cell::Plain(Value::Null)),
                ];
                Some(Change::Insert { table: 0, row, claim: None, after: None, cells })
            }
            Op::Write(row, value) => row_of(row).and_then(|row| self.update(server, row, 0, stamp, |_| value.clone())),
            Op::Add(row, by) => row_of(row).and_then(|row| {
                self.update(server, row, 0, stamp, |shown| Value::Integer(shown.as_integer().unwrap_or(0) + by))
            }),
            Op::Toggle(row, element) => row_of(row).and_then(|row| {
                self.update(server, row, 1, stamp, |shown| {
                    let element = vec![b'0' + element];
                    let mut list = lists::elements(shown).unwrap_or_default();
                    match list.iter().position(|other| *other == element) {
                        Some(position) => drop(list.remove(position)),
                        None => list.push(element),
                    }
                    Value::Text(list.join(&b','))
                })
            }),
            Op::Point(row, boss) => {
                row_of(row).zip(row_of(boss)).and_then(|(row, boss)| self.point(server, row, boss, stamp))
            }
            Op::Delete(row) => row_of(row)
                .filter(|row| self.servers[server].store.rows().get(row).is_some_and(|row| row.alive))
                .map(|row| Change::Delete { table: 0, row }),
            Op::Rule(column, rule) => Some(Change::Rule { table: 0, column: *column, rule: *rule }),
        };
        if let Some(change) = change {
            self.say(server, change, stamp);
        }
    }

    /// An update as capture makes it, of what the server shows.
    fn update(
        &mut self,
        server: usize,
        row: RowId,
        column: u16,
        stamp: Stamp,
        new: impl Fn(&Value) -> Value,
    ) -> Option<Change> {
        let mut store = self.servers[server].store.clone();
        let state = store.rows().get(&row).filter(|row| row.alive)?.cell(column)?.clone();
        let Cell::Plain(shown) = &state.cell else { return None };
        let value = new(shown);
        let ranks = Ranks::default();
        let mut evaluator = Evaluator::new(&mut store, &ranks, &[], 0);
        let table = evaluator.store().find_table(DATABASE, "team").unwrap().unwrap();
        let Ok(cell) = evaluator.difference(table, &state, None, value.clone());
        Some(Change::Update { table: 0, row, cells: vec![(u32::from(column), cell, stamp.max(state.latest().next()))] })
    }

    fn point(&self, server: usize, row: RowId, boss: RowId, stamp: Stamp) -> Option<Change> {
        let rows = self.servers[server].store.rows();
        let state = rows.get(&row).filter(|row| row.alive)?.cell(2)?;
        rows.get(&boss).filter(|row| row.alive)?;
        let (database, table, column) = (DATABASE.to_string(), "team".to_string(), "id".to_string());
        let cell = Cell::Ref(Reference { database, table, row: boss, column });
        Some(Change::Update { table: 0, row, cells: vec![(2, cell, stamp.max(state.latest().next()))] })
    }

    fn say(&mut self, server: usize, change: Change, stamp: Stamp) {
        let here = &mut self.servers[server];
        let id = origin(server).id();
        let header = Header {
            cluster: [0; 32],
            origin: origin(server),
            seq: here.seen.get(&id) + 1,
            previous: [0; 32],
            stamp,
            database: DATABASE.to_string(),
            applied: Cut::default(),
            schema: [0; 16],
            continues: false,
            note: String::new(),
        };
        let columns = COLUMNS.iter().map(ToString::to_string).collect();
        let tables = vec![TableColumns { table: "team".to_string(), columns }];
        let event = Event { header, tables, changes: vec![change] };
        let cut = here.seen.clone();
        add(&mut here.store, &event, &cut);
        note(&mut here.seen, &event);
        shows_what_it_wrote(&here.store, &event);
        self.events.push((event, cut));
    }

    fn hear(&mut self, server: usize, other: usize) {
        let theirs = self.servers[other].seen.clone();
        let here = &mut self.servers[server];
        for (event, cut) in &self.events {
            if heard(&theirs, event) && !heard(&here.seen, event) {
                add(&mut here.store, event, cut);
                note(&mut here.seen, event);
            }
        }
    }

    /// All events in another order that causes allow: of those that are next always the one with the `pick`-th place.
    fn replay(&self, pick: u64, twice: bool) -> MemoryStore {
        let (mut store, mut seen, mut dice) = (MemoryStore::default(), Cut::default(), pick);
        loop {
            let next: Vec<&(Event, Cut)> =
                self.events.iter().filter(|(event, cut)| is_next(&seen, event, cut)).collect();
            let Some(count) = std::num::NonZeroU64::new(next.len() as u64) else { return store };
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (event, cut) = next[((dice >> 33) % count) as usize];
            add(&mut store, event, cut);
            if twice {
                add(&mut store, event, cut);
            }
            note(&mut seen, event);
        }
    }
}

/// Whoever knew everything sees what he wrote, whatever the rule adds up (but for max and min, which may refuse it).
#[track_caller]
fn shows_what_it_wrote(store: &MemoryStore, event: &Event) {
    let Change::Update { row, cells, .. } = &event.changes[0] else { return };
    let (column, cell, _) = &cells[0];
    let mut copy = store.clone();
    let ranks = Ranks::default();
    let mut evaluator = Evaluator::new(&mut copy, &ranks, &[], 0);
    let state = store.rows()[row].cell(*column as u16).unwrap();
    let Ok(ruling) = evaluator.ruling(store.rows()[row].table, *column as u16);
    if !matches!(ruling.rule, Rule::Max | Rule::Min) {
        assert_eq!(state.cell, cell.without_difference(), "{event:?}");
    }
}

/// The rows, with what a delete covers in one form: how far beyond the last touch it reaches says nothing.
fn of_rows(store: &MemoryStore) -> BTreeMap<RowId, Row> {
    let mut rows: BTreeMap<RowId, Row> = store.rows().iter().map(|(id, row)| (*id, Row::clone(row))).collect();
    for row in rows.values_mut() {
        let uncovered = row.touched.iter().filter(|dot| dot.counter > row.covered.get(dot.actor));
        row.covered = uncovered.map(|dot| crdts::Dot::new(*dot.actor, dot.counter)).collect();
    }
    rows
}

/// The rule that holds for a column, and who set it, straight from the definition.
fn ruling(events: &[(Event, Cut)], column: u32) -> Option<(Rule, Vec<Dot>)> {
    let rules: Vec<(&Event, &Cut, Rule)> = events
        .iter()
        .filter_map(|(event, cut)| match &event.changes[0] {
            Change::Rule { column: Some(of), rule, .. } if *of == column => Some((event, cut, *rule)),
            _ => None,
        })
        .collect();
    let known = |event: &Event| rules.iter().any(|(_, cut, _)| heard(cut, event));
    let open = rules.iter().filter(|(event, _, _)| !known(event));
    let (held, held_cut, rule) = open.max_by_key(|(event, _, _)| (event.header.stamp, event.dot(0)))?;
    let apart = |event: &Event, cut: &Cut| !heard(held_cut, event) && !heard(cut, held);
    let same =
        rules.iter().filter(|(event, cut, other)| other == rule && (event.dot(0) == held.dot(0) || apart(event, cut)));
    Some((*rule, same.map(|(event, _, _)| event.dot(0)).collect()))
}

/// A cell's value straight from the definition of counters, sets and greatest values.
fn slow(events: &[(Event, Cut)], row: RowId) -> Option<Value> {
    let (rule, reign) = ruling(events, 0)?;
    type Strength = (bool, bool, Stamp, Dot);
    let mut governed: Vec<(Strength, Cell)> = Vec::new();
    let mut others: Vec<(Strength, Cell)> = Vec::new();
    for (event, cut) in events {
        let dot = event.dot(0);
        let knew = |other: &Dot| cut.get(&other.origin) >= other.seq;
        let side = if reign.iter().any(knew) { &mut governed } else { &mut others };
        match &event.changes[0] {
            Change::Insert { row: of, cells, .. } if *of == row => {
                let says = cells[0].1 != Cell::Plain(Value::Null);
                side.push(((false, says, event.header.stamp, dot), cells[0].1.clone()));
            }
            Change::Update { row: of, cells, .. } if *of == row && cells[0].0 == 0 => {
                side.push(((true, true, cells[0].2, dot), cells[0].1.clone()));
            }
            _ => {}
        }
    }
    let value = |cell: &Cell| match cell.without_difference() {
        Cell::Plain(value) => value,
        other => panic!("{other:?}"),
    };
    let last = |writes: &[(Strength, Cell)]| writes.iter().max_by_key(|(strength, _)| *strength).cloned();
    let all: Vec<_> = governed.iter().chain(&others).cloned().collect();
    let shown = value(&last(&all)?.1);
    let left = last(&others);
    Some(match rule {
        Rule::Counter if !governed.is_empty() && shown.as_integer().is_some() => {
            let starts = governed.iter().filter(|(_, cell)| matches!(cell, Cell::Plain(Value::Integer(_)))).cloned();
            let start = last(&starts.chain(left).collect::<Vec<_>>());
            let steps: i64 =
                governed.iter().map(|(_, cell)| if let Cell::Step { by, .. } = cell { *by } else { 0 }).sum();
            Value::Integer(start.and_then(|(_, cell)| value(&cell).as_integer()).unwrap_or(0) + steps)
        }
        // Whatever is shown last is a list: then everybody's elements count, NULL being the empty list.
        Rule::Set if !governed.is_empty() && elements(&shown).is_some() => {
            let is_list = |cell: &Cell| matches!(cell, Cell::Plain(value) if elements(value).is_some());
            let starts = governed.iter().filter(|(_, cell)| is_list(cell)).cloned();
            let start = last(&starts.chain(left).collect::<Vec<_>>()).map(|(_, cell)| value(&cell));
            let mut present: BTreeSet<_> = start.as_ref().and_then(elements).unwrap_or_default().into_iter().collect();
            governed.sort_by_key(|(strength, _)| (strength.2, strength.3));
            for (_, cell) in &governed {
                if let Cell::Edit(edit) = cell {
                    present.retain(|element| !edit.removed.contains(element));
                    present.extend(edit.added.iter().cloned());
                }
            }
            written_like(&shown, &present, start.as_ref())
        }
        Rule::Max | Rule::Min => {
            let mut candidates: Vec<_> = governed.into_iter().chain(left).collect();
            candidates.retain(|(_, cell)| !value(cell).is_null());
            let (greatest, least) = (rule == Rule::Max, rule == Rule::Min);
            candidates.sort_by(|(s, a), (t, b)| {
                let order = compare(&value(a), &value(b));
                let order = if least { order.reverse() } else { order };
                order.then((s.2, s.3).cmp(&(t.2, t.3)))
            });
            assert!(greatest || least);
            candidates.last().map_or(Value::Null, |(_, cell)| value(cell))
        }
        _ => shown,
    })
}

/// Once a rule says tree, following what is shown ends; and at most one reference of a ring is missing.
fn no_ring_is_shown(events: &[(Event, Cut)], rows: &BTreeMap<RowId, Row>) {
    let tree = events.iter().any(|(event, _)| matches!(event.changes[0], Change::Rule { rule: Rule::Tree, .. }));
    let boss = |row: &Row| row.parents().find(|(column, _)| *column == 2).map(|(_, reference)| reference.row);
    for (id, row) in rows {
        assert!(tree || row.loosened.is_empty(), "nobody asked for a tree");
        let (mut at, mut steps) = (*id, 0);
        while let Some(up) = boss(&rows[&at]).filter(|up| tree && *up != at && rows[&at].loosened.is_empty()) {
            (at, steps) = (up, steps + 1);
            assert!(steps <= rows.len(), "a ring is shown");
        }
        if !row.loosened.is_empty() {
            // Its own reference leads back to it.
            let (mut at, mut steps) = (boss(row), 0);
            while at.is_some_and(|at| at != *id) {
                (at, steps) = (at.and_then(|at| boss(&rows[&at])), steps + 1);
                assert!(steps <= rows.len(), "a reference in no ring is not shown");
            }
            assert!(at.is_some(), "a reference in no ring is not shown");
        }
    }
}

fn histories() -> impl Strategy<Value = Vec<(usize, Op)>> {
    proptest::collection::vec((0..SERVERS, op()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 120 } else { 5_000 }))]

    /// Rules before, after and beside the values they govern: one set of events, one state, and the defined one.
    #[test]
    fn every_order_of_the_same_events_gives_the_same_rows(ops in histories(), picks in any::<[u64; 3]>()) {
        let mut world = World::new();
        world.run(&ops);
        let one = world.replay(picks[0], false);
        for pick in &picks[1..] {
            let other = world.replay(*pick, false);
            prop_assert_eq!(of_rows(&one), of_rows(&other));
        }
        let twice = world.replay(picks[0], true);
        prop_assert_eq!(of_rows(&one), of_rows(&twice), "each event twice");
        for server in 0..SERVERS {
            for other in 0..SERVERS {
                world.hear(server, other);
            }
        }
        for server in &world.servers {
            prop_assert_eq!(of_rows(&one), of_rows(&server.store));
        }
        no_ring_is_shown(&world.events, &of_rows(&one));
        for (row, record) in &of_rows(&one) {
            if let Some(defined) = slow(&world.events, *row) {
                prop_assert_eq!(&record.cell(0).unwrap().cell, &Cell::Plain(defined), "{}", row);
            }
        }
    }
}

/// A world in which everybody knows a row and a rule.
fn ruled(column: Option<u32>, rule: Rule) -> World {
    let mut world = World::new();
    world.run(&[(0, Op::Insert(Value::Integer(10))), (0, Op::Rule(column, rule)), (1, Op::Hear(0)), (2, Op::Hear(0))]);
    world
}

fn value_of(store: &MemoryStore, column: u16) -> Value {
    match &of_rows(store).values().next().unwrap().cell(column).unwrap().cell {
        Cell::Plain(value) => value.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn steps_made_apart_all_count() {
    let mut world = ruled(Some(0), Rule::Counter);
    world.run(&[(0, Op::Add(0, 3)), (1, Op::Add(0, 4)), (2, Op::Add(0, -1)), (2, Op::Add(0, -1))]);
    assert_eq!(value_of(&world.replay(1, true), 0), Value::Integer(15));
}

/// One puts an element in, another empties the list without knowing: the later stamp of the empty one takes nothing away.
#[test]
fn who_empties_a_list_takes_away_what_it_knew_only() {
    let mut world = ruled(Some(0), Rule::Set);
    world.run(&[(0, Op::Write(0, Value::text("a"))), (1, Op::Write(0, Value::Null))]);
    let store = world.replay(1, true);
    assert_eq!(value_of(&store, 0), Value::text("a"));
    assert_eq!(slow(&world.events, *store.rows().keys().next().unwrap()), Some(Value::text("a")));
}

/// Two servers start from one config: both set the rule, none knows of the other, and all steps count.
#[test]
fn the_same_rule_set_twice_apart_is_one_rule() {
    let mut world = World::new();
    let counter = || Op::Rule(Some(0), Rule::Counter);
    world.run(&[(0, Op::Insert(Value::Integer(10))), (1, Op::Hear(0)), (0, counter()), (1, counter())]);
    world.run(&[(0, Op::Add(0, 3)), (1, Op::Add(0, 4))]);
    assert_eq!(value_of(&world.replay(7, false), 0), Value::Integer(17));
}

/// Away from a rule and back to it: what was counted before is a value like any other, not counted again.
#[test]
fn a_counter_switched_off_and_on_goes_on_from_what_is_shown() {
    let mut world = ruled(Some(0), Rule::Counter);
    world.run(&[(0, Op::Add(0, 5)), (0, Op::Rule(Some(0), Rule::Lww)), (0, Op::Write(0, Value::Integer(20)))]);
    world.run(&[(0, Op::Rule(Some(0), Rule::Counter)), (1, Op::Hear(0)), (0, Op::Add(0, 1)), (1, Op::Add(0, 2))]);
    assert_eq!(value_of(&world.replay(3, false), 0), Value::Integer(23));
}

#[test]
fn the_greatest_value_stays_and_a_lower_one_written_apart_is_in_the_audit() {
    let mut world = ruled(Some(0), Rule::Max);
    world.run(&[(0, Op::Write(0, Value::Integer(50))), (1, Op::Write(0, Value::real(49.5)))]);
    let store = world.replay(5, false);
    assert_eq!(value_of(&store, 0), Value::Integer(50));
    assert_eq!(store.audit().len(), 1, "{:?}", store.audit());
    // Known and lowered on purpose: it loses, and nothing was in conflict.
    let mut world = ruled(Some(0), Rule::Max);
    world.run(&[(0, Op::Write(0, Value::Integer(3)))]);
    let store = world.replay(5, false);
    assert_eq!((value_of(&store, 0), store.audit().len()), (Value::Integer(10), 0));
}

#[test]
fn everybodys_elements_count() {
    let mut world = ruled(Some(1), Rule::Set);
    world.run(&[(0, Op::Toggle(0, 3)), (1, Op::Toggle(0, 1)), (2, Op::Toggle(0, 4))]);
    let store = world.replay(2, true);
    let list = lists::elements(&value_of(&store, 1)).unwrap();
    let sorted: std::collections::BTreeSet<Vec<u8>> = list.into_iter().collect();
    assert_eq!(sorted, [b"2".to_vec(), b"3".to_vec(), b"4".to_vec()].into());
}

#[test]
fn where_deletes_win_a_concurrent_update_revives_nothing() {
    for (rule, alive) in [(Rule::Lww, true), (Rule::DeleteWins, false)] {
        let mut world = ruled(None, rule);
        world.run(&[(0, Op::Delete(0)), (1, Op::Write(0, Value::Integer(11)))]);
        for pick in 0..4 {
            let store = world.replay(pick, false);
            assert_eq!(of_rows(&store).values().next().unwrap().alive, alive, "{rule:?}");
            assert_eq!(store.audit().len(), 1, "{:?}", store.audit());
        }
        // The rule may come after both.
        world.run(&[(2, Op::Rule(None, Rule::DeleteWins))]);
        assert!(!of_rows(&world.replay(9, false)).values().next().unwrap().alive);
    }
}

#[test]
fn of_the_rules_of_one_question_the_last_holds() {
    let record = |at: u64, column, rule| RuleRecord {
        stamp: Stamp(at),
        dot: Dot { origin: OriginId([1; 16]), seq: at, index: 0 },
        column,
        rule,
        replaced: if at == 5 { vec![Dot { origin: OriginId([1; 16]), seq: 6, index: 0 }] } else { vec![] },
    };
    let all = [
        record(1, Some(0), Rule::Max),
        record(4, Some(0), Rule::Tree),
        record(3, Some(0), Rule::Counter),
        record(2, None, Rule::UniqueShelve),
        // Dated ahead, and replaced by one that knew it.
        record(6, Some(1), Rule::Max),
        record(5, Some(1), Rule::Lww),
    ];
    assert_eq!(TableRules::in_force(&all), [&all[3], &all[2], &all[1], &all[5]]);
}

/// What capture adds to is the whole sum, also where SQLite's numbers end.
#[test]
fn a_sum_beyond_sqlites_numbers_is_shown_at_their_end() {
    let mut world = ruled(Some(0), Rule::Counter);
    world.run(&[(0, Op::Write(0, Value::Integer(i64::MAX))), (1, Op::Write(0, Value::Integer(i64::MAX)))]);
    let store = world.replay(0, false);
    assert_eq!(value_of(&store, 0), Value::Integer(i64::MAX));
    let mut copy = store.clone();
    let ranks = Ranks::default();
    let mut evaluator = Evaluator::new(&mut copy, &ranks, &[], 0);
    let row = store.rows().values().next().unwrap();
    let Ok(ruling) = evaluator.ruling(row.table, 0);
    assert_eq!(counted(&ruling, row.cell(0).unwrap()), i128::from(i64::MAX) * 2 - 10);
    assert!(present(&ruling, row.cell(1).unwrap()).contains(&b"1"[..]));
    let edit = Edit { value: Value::Null, added: vec![], removed: vec![] };
    assert_eq!(Cell::Edit(Box::new(edit)).without_difference(), Cell::Plain(Value::Null));
}

/// Two servers each put one row under the other: the younger reference is not shown, and shows again when the ring ends.
#[test]
fn the_younger_reference_of_a_ring_is_not_shown_while_there_is_one() {
    let mut world = ruled(Some(2), Rule::Tree);
    world.run(&[(0, Op::Insert(Value::Null)), (1, Op::Hear(0)), (0, Op::Point(0, 1)), (1, Op::Point(1, 0))]);
    let (older, younger) = (world.rows[0], world.rows[1]);
    for pick in 0..4 {
        let store = world.replay(pick, false);
        assert_eq!((store.rows()[&older].loosened.len(), store.rows()[&younger].loosened.as_slice()), (0, &[2][..]));
        assert!(matches!(store.audit()[0].kind, AuditKind::RingCut { .. }), "{:?}", store.audit());
    }
    world.run(&[(0, Op::Hear(1)), (0, Op::Point(0, 0))]);
    assert!(world.replay(1, false).rows()[&younger].loosened.is_empty());
}
