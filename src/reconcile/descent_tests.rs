//! Laws of the descent: any two sets of rows give exactly their symmetric difference, through lost messages and small
//! budgets; hostile answers end.

use std::convert::Infallible;

use proptest::prelude::*;

use super::super::print::{Source, item, sources};
use super::*;
use crate::model::{Birth, OriginId};

/// Rows in memory, with the kept blocks that the log would have.
#[derive(Clone, Debug, Default)]
struct Rows(Vec<BTreeMap<RowId, [u8; 32]>>);

impl Rows {
    fn within(&self, table: usize, block: &Prefix) -> impl Iterator<Item = (&RowId, &[u8; 32])> {
        let block = *block;
        self.0[table].iter().filter(move |(row, _)| block.contains(&Prefix::row(row)))
    }
}

impl Tree for Rows {
    type Error = Infallible;

    fn root(&self, table: usize) -> Result<Fingerprint, Infallible> {
        let mut sum = Fingerprint::default();
        self.0[table].values().for_each(|item| sum.add(item));
        Ok(sum)
    }

    fn parts(&self, table: usize, block: &Prefix) -> Result<Vec<(Prefix, Fingerprint)>, Infallible> {
        let mut parts: BTreeMap<Prefix, Fingerprint> = BTreeMap::new();
        for source in sources(block) {
            match source {
                Source::Rows(of) => {
                    parts.extend(self.within(table, &of).map(|(row, item)| (Prefix::row(row), single(item))));
                }
                Source::Kept(length, of) => {
                    let kept = |row: &RowId| super::super::print::kept(row).find(|kept| kept.len() == length);
                    for (row, item) in self.within(table, &of) {
                        if let Some(kept) = kept(row) {
                            add(parts.entry(kept).or_default(), &single(item));
                        }
                    }
                }
            }
        }
        Ok(parts.into_iter().collect())
    }

    fn rows(
        &self,
        table: usize,
        block: &Prefix,
        after: Option<RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, [u8; 32])>, Infallible> {
        let behind = self.within(table, block).filter(|(row, _)| Some(**row) > after);
        Ok(behind.take(limit).map(|(row, item)| (*row, *item)).collect())
    }
}

fn expected(here: &Rows, there: &Rows) -> BTreeSet<Found> {
    let mut found = BTreeSet::new();
    for (table, (mine, theirs)) in here.0.iter().zip(&there.0).enumerate() {
        let table = table as u32;
        for (row, item) in mine {
            match theirs.get(row) {
                None => found.insert(Found { table, row: *row, side: Side::OnlyHere }),
                Some(other) if other != item => found.insert(Found { table, row: *row, side: Side::Differs }),
                Some(_) => true,
            };
        }
        let others = theirs.keys().filter(|row| !mine.contains_key(row));
        found.extend(others.map(|row| Found { table, row: *row, side: Side::OnlyThere }));
    }
    found
}

/// Runs a session; `loses`: every so many messages one is lost. Returns what was found and the round trips.
fn run(here: &Rows, there: &Rows, budget: usize, loses: u32) -> (BTreeSet<Found>, u32) {
    let mut session = Descent::new(here.0.len());
    let mut messages = 0;
    let mut lost = || {
        messages += 1;
        loses > 0 && messages % loses == 0
    };
    while !session.is_done() {
        assert!(session.rounds() < 20_000, "no end");
        if session.is_working() {
            let Ok(()) = session.work(here, budget);
        } else if let Ok(Some(question)) = session.ask(here, budget) {
            if lost() {
                session.again();
                continue;
            }
            let Ok(answer) = answer(there, &question, budget);
            if lost() {
                session.again();
                continue;
            }
            session.hear(answer).expect("an answer to what was asked");
        }
    }
    assert!(!session.is_cut_off());
    (session.found().collect(), session.rounds())
}

fn any_row() -> impl Strategy<Value = RowId> {
    let born = |origin: u8, seq, index| RowId::Born(Birth { origin: OriginId([origin; 16]), seq, index });
    prop_oneof![
        3 => (0..3u8, 1..40u64, Just(0u32)).prop_map(move |(origin, seq, index)| born(origin, seq, index)),
        1 => (0..2u8, prop_oneof![1..3u64, any::<u64>()], 0..1200u32)
            .prop_map(move |(origin, seq, index)| born(origin, seq, index)),
        1 => any::<[u8; 16]>().prop_map(RowId::Genesis),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| RowId::Keyed([[a & 1; 8], [b; 8]].concat().try_into().unwrap_or([0; 16]))),
    ]
}

fn any_rows() -> impl Strategy<Value = BTreeMap<RowId, [u8; 32]>> {
    prop::collection::btree_map(any_row(), (0..3u8).prop_map(|image| [image; 32]), 0..150)
}

fn with_items(rows: BTreeMap<RowId, [u8; 32]>) -> BTreeMap<RowId, [u8; 32]> {
    rows.into_iter().map(|(row, image)| (row, item(&row, &image))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn two_sets_give_exactly_their_difference(
        common in any_rows(),
        mine in any_rows(),
        theirs in any_rows(),
        other in (any_rows(), any_rows()),
        budget in prop_oneof![Just(1usize), Just(40), Just(100_000)],
        loses in 0..5u32,
    ) {
        let join = |own: &BTreeMap<RowId, [u8; 32]>| with_items(common.clone().into_iter().chain(own.clone()).collect());
        let here = Rows(vec![join(&mine), with_items(other.0)]);
        let there = Rows(vec![join(&theirs), with_items(other.1)]);
        // Of two in a row one would always be lost.
        let loses = if loses == 1 || loses == 2 { 3 } else { loses };
        prop_assert_eq!(run(&here, &there, budget, loses).0, expected(&here, &there));
        prop_assert_eq!(run(&there, &here, budget, 0).0, expected(&there, &here));
    }

    #[test]
    fn sources_hold_every_row_once(rows in any_rows(), at in any_row(), length in 0..=NIBBLES) {
        let rows = Rows(vec![with_items(rows)]);
        let block = Prefix::of(&at, length);
        let mut sum = Fingerprint::default();
        rows.within(0, &block).for_each(|(_, item)| sum.add(item));
        let Ok(parts) = rows.parts(0, &block);
        let mut added = Fingerprint::default();
        parts.iter().for_each(|(_, part)| add(&mut added, part));
        prop_assert_eq!(added, sum);
        prop_assert!(parts.iter().all(|(part, _)| block.contains(part) && (length == NIBBLES || part.len() > length)));
    }
}

fn sequential(count: u64) -> BTreeMap<RowId, [u8; 32]> {
    let row = |seq| RowId::Born(Birth { origin: OriginId([5; 16]), seq, index: 0 });
    (1..=count).map(|seq| (row(seq), item(&row(seq), &[0; 32]))).collect()
}

#[test]
fn equal_sets_take_one_question_and_one_different_row_a_few() {
    let here = Rows(vec![sequential(5_000); 3]);
    assert_eq!(run(&here, &here, 100_000, 0), (BTreeSet::new(), 1));
    let mut there = here.clone();
    let row = *there.0[1].keys().nth(1_234).expect("a row");
    there.0[1].insert(row, [9; 32]);
    let (found, rounds) = run(&here, &there, 100_000, 0);
    assert_eq!(found, BTreeSet::from([Found { table: 1, row, side: Side::Differs }]));
    assert!(rounds <= 4, "{rounds} rounds");
}

#[test]
fn a_side_that_has_nothing_learns_of_all_rows() {
    let (full, empty) = (Rows(vec![sequential(3_000)]), Rows(vec![BTreeMap::new()]));
    for (here, there) in [(&full, &empty), (&empty, &full)] {
        assert_eq!(run(here, there, 100_000, 0).0, expected(here, there));
    }
}

#[test]
fn an_answer_to_something_else_is_a_fault_and_changes_nothing() {
    let here = Rows(vec![sequential(100)]);
    let mut session = Descent::new(1);
    assert_eq!(session.hear(Answer { answered: 1, blocks: vec![] }), Err(NotAsked), "nothing was asked");
    let Ok(question) = session.ask(&here, 1_000);
    assert_eq!(question.map(|question| question.len()), Some(1));
    let rows = |table, rows| Block { table, prefix: Prefix::ALL, after: None, view: View::Rows { rows, more: false } };
    let row = RowId::Genesis([1; 16]);
    let wrong = [
        Answer { answered: 0, blocks: vec![] },
        Answer { answered: 2, blocks: vec![] },
        Answer { answered: 1, blocks: vec![rows(7, vec![])] },
        Answer { answered: 1, blocks: vec![rows(0, vec![(row, 1), (row, 2)])] },
        Answer { answered: 1, blocks: vec![Block { view: View::Print(1), ..rows(0, vec![]) }] },
    ];
    for wrong in wrong {
        assert_eq!(session.hear(wrong), Err(NotAsked));
    }
    assert!(session.is_waiting());
    session.hear(Answer { answered: 1, blocks: vec![] }).expect("all equal");
    assert!(session.is_done());
}

#[test]
fn who_always_says_that_something_differs_is_cut_off() {
    let here = Rows(vec![BTreeMap::new()]);
    let mut session = Descent::new(1);
    let mut next = 0u128;
    while !session.is_done() && !session.is_cut_off() {
        if session.is_working() {
            let Ok(()) = session.work(&here, 10_000);
        } else if let Ok(Some(question)) = session.ask(&here, 10_000) {
            let after = question[0].after;
            let rows = (0..ROWS_PER_BLOCK).map(|_| {
                next += 1;
                (RowId::Genesis(next.to_be_bytes()), 7)
            });
            let view = View::Rows { rows: rows.collect(), more: true };
            let block = Block { table: 0, prefix: question[0].prefix, after, view };
            session.hear(Answer { answered: 1, blocks: vec![block] }).expect("it looks like an answer");
        }
    }
    assert!(session.is_cut_off() && session.found().len() == FOUND_MAX, "{} rows", session.found().len());
}
