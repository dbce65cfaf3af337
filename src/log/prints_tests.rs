//! The kept sums against those computed anew, through the evaluator, on redb; logs that have none; damaged ones.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::log::Log;
use crate::merge::Evaluator;
use crate::merge::rank::Ranks;
use crate::merge::store::{Row, Store};
use crate::model::{Birth, OriginId, Value};
use redb::backends::InMemoryBackend;

fn log() -> Log {
    Log::with_backend(InMemoryBackend::new()).unwrap()
}

/// One row shows an image, or none.
type Step = (RowId, Option<u8>);

fn any_row() -> impl Strategy<Value = RowId> {
    let born = |origin: u8, seq: u64, index: u32| RowId::Born(Birth { origin: OriginId([origin; 16]), seq, index });
    prop_oneof![
        (0..2u8, 0..70u64, prop_oneof![Just(0u32), 250..260u32, 500..520u32])
            .prop_map(move |(origin, seq, index)| born(origin, seq, index)),
        (0..2u8, 4090..4100u64).prop_map(move |(origin, seq)| born(origin, seq, 0)),
        (0..4u8, any::<u8>()).prop_map(|(first, rest)| RowId::Genesis(
            [[first; 1].as_slice(), &[rest; 15]].concat().try_into().unwrap()
        )),
        any::<u8>().prop_map(|seed| RowId::Keyed([seed; 16])),
    ]
}

fn show(log: &Log, steps: &[Step], durable: bool) {
    let ranks = Ranks::default();
    let mut write = log.write().unwrap();
    let table = write.table_id("scouting", "team").unwrap();
    for (row, _) in steps {
        if Store::row(&write, row).unwrap().is_none() {
            write.put_row(row, Arc::new(Row::new(table)), true).unwrap();
        }
    }
    let mut evaluator = Evaluator::new(&mut write, &ranks, &[], 0);
    for (row, image) in steps {
        let id = Value::Integer(i64::from(row.to_bytes()[3]) << 32 | i64::from(row.to_bytes()[24]));
        let shown = image.map(|image| (vec![id], vec![Value::Integer(image.into())]));
        evaluator.mark_shown(row, shown.as_ref()).unwrap();
    }
    evaluator.finish().unwrap();
    if durable { write.commit_durable().unwrap() } else { write.commit_relaxed().unwrap() }
}

fn right(log: &Log) -> u64 {
    let read = log.read().unwrap();
    let Some(table) = read.find_table("scouting", "team").unwrap() else { return 0 };
    let (blocks, wrong) = read.check_prints(table).unwrap();
    assert_eq!(wrong, 0, "of {blocks} blocks");
    assert_eq!(read.table_root(table).unwrap().rows, read.fingerprint(table).unwrap().rows);
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// I21: after every transaction of a random history, dropped ones among them.
    #[test]
    fn kept_sums_are_those_of_the_rows(
        history in prop::collection::vec((prop::collection::vec((any_row(), prop::option::of(0..3u8)), 1..40), 0..3u8), 1..8),
        at in any_row(),
        length in 0..=58u8,
    ) {
        let log = log();
        for (steps, end) in &history {
            if *end == 0 {
                // Dropped: nothing of it may stay.
                let mut write = log.write().unwrap();
                let table = write.table_id("scouting", "team").unwrap();
                write.note_shown(table, &steps[0].0, None, Some([1; 32])).unwrap();
            } else {
                show(&log, steps, *end == 1);
            }
            right(&log);
        }
        let read = log.read().unwrap();
        if let Some(table) = read.find_table("scouting", "team").unwrap() {
            let block = Prefix::of(&at, length);
            let (mut rows, mut parts) = (Fingerprint::default(), Fingerprint::default());
            for (_, item) in read.print_rows(table, &block, None, usize::MAX).unwrap() {
                rows.add(&item);
            }
            for (part, sum) in read.print_parts(table, &block).unwrap() {
                prop_assert!(block.contains(&part));
                add(&mut parts, &sum);
            }
            prop_assert_eq!(parts, rows);
        }
    }
}

#[test]
fn a_log_without_sums_gets_them_when_it_is_opened_and_wrong_ones_are_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.redb");
    let rows: Vec<Step> = (0..300u32)
        .map(|at| (RowId::Born(Birth { origin: OriginId([7; 16]), seq: u64::from(at) / 3, index: at * 50 }), Some(1)))
        .collect();
    {
        let log = Log::open(&path).unwrap();
        show(&log, &rows, true);
    }
    {
        let database = redb::Database::open(&path).unwrap();
        let write = database.begin_write().unwrap();
        write.delete_table(PRINTS).unwrap();
        write.commit().unwrap();
    }
    let log = Log::open(&path).unwrap();
    assert!(right(&log) > 50);

    let table = log.read().unwrap().find_table("scouting", "team").unwrap().unwrap();
    let mut write = log.write().unwrap();
    write.changed.prints.note(table, &rows[50].0, None, Some([9; 32]));
    write.commit_durable().unwrap();
    assert_eq!(log.read().unwrap().check_prints(table).unwrap().1, 4, "root and three blocks");
    let mut write = log.write().unwrap();
    write.rebuild_prints(table).unwrap();
    write.commit_durable().unwrap();
    right(&log);
}
