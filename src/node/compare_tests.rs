//! Two nodes with equal heads: they know whether their files show the same, name the rows that differ, and heal what the log
//! can heal.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::super::pair_tests::{Pair, Site};
use super::super::{Input, Node};
use crate::merge::Evaluator;
use crate::merge::store::Store;
use crate::model::{Cell, RowId, Value};
use crate::node::compare_view::PeerComparison;

const TEAMS: &str = "CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT NOT NULL, points INTEGER);
    CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT);";

fn pair(rows: u32) -> ([Site; 2], Pair) {
    let sites = [Site::new(1).with("scouting", TEAMS, &[]), Site::new(2).with("scouting", TEAMS, &[])];
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    for (site, from) in sites.iter().zip([0, rows]) {
        for at in from..from + rows {
            site.app("scouting", &format!("INSERT INTO team (name, points) VALUES ('team {at}', {at})"));
        }
    }
    pair.work();
    (sites, pair)
}

fn compared(node: &Node) -> PeerComparison {
    node.peer_comparisons().unwrap().remove(0)
}

fn row(node: &Node, table: &str, key: i64) -> RowId {
    let read = node.log.read().unwrap();
    let table = read.find_table("scouting", table).unwrap().unwrap();
    read.shown(table, &[Value::Integer(key)]).unwrap().unwrap()
}

/// The log's state says that the file shows other values than it evaluates: a write that was never made.
fn shows_otherwise(node: &mut Node, rows: &[RowId]) {
    let mut write = node.log.write().unwrap();
    let mut evaluator = Evaluator::new(&mut write, &node.ranks, &node.schemas, 0);
    for row in rows {
        let (key, mut image) = evaluator.target(row).unwrap().unwrap();
        image[1] = Value::text("stale");
        evaluator.mark_shown(row, Some(&(key, image))).unwrap();
    }
    evaluator.finish().unwrap();
    write.commit_durable().unwrap();
}

#[test]
fn equal_heads_show_equal_content_and_both_know_it() {
    let (_sites, mut pair) = pair(6);
    for node in &pair.nodes {
        let compared = compared(node);
        assert_eq!((compared.content.as_str(), compared.rows, compared.complete), ("equal", 0, true));
        assert_eq!(compared.bytes_sent, 0, "nothing but hellos");
    }
    let before = compared(&pair.nodes[0]).compared;
    pair.nodes[0].handle(Input::CompareRequested(None), pair.now).unwrap();
    pair.work();
    assert!(compared(&pair.nodes[0]).compared > before);
}

#[test]
fn a_row_that_shows_something_else_is_named_and_heals_by_itself() {
    for wrong in [0, 1] {
        let (sites, mut pair) = pair(40);
        let rows = [row(&pair.nodes[wrong], "team", 3), row(&pair.nodes[wrong], "team", 17)];
        shows_otherwise(&mut pair.nodes[wrong], &rows);
        sites[wrong].app("scouting", "UPDATE team SET name = name WHERE id = 1");
        pair.nodes[0].handle(Input::CompareRequested(None), pair.now).unwrap();
        let mut named = false;
        for _ in 0..40 {
            pair.pass();
            named |= pair.nodes.iter().any(|node| compared(node).rows == 2);
        }
        assert!(named, "the rows were named");
        pair.work();
        for node in &pair.nodes {
            let compared = compared(node);
            assert_eq!((compared.content.as_str(), compared.rows), ("equal", 0));
            assert!(node.status(pair.now).unwrap().alerts.is_empty(), "{:?}", node.status(pair.now).unwrap().alerts);
            let read = node.log.read().unwrap();
            let table = read.find_table("scouting", "team").unwrap().unwrap();
            assert_eq!(read.check_prints(table).unwrap().1, 0);
        }
    }
}

#[test]
fn a_row_that_one_evaluates_otherwise_is_an_alarm_that_names_it() {
    let (_sites, mut pair) = pair(10);
    let wrong = row(&pair.nodes[1], "team", 3);
    {
        let node = &mut pair.nodes[1];
        let mut write = node.log.write().unwrap();
        let mut record = Store::row(&write, &wrong).unwrap().unwrap();
        for state in &mut Arc::make_mut(&mut record).cells {
            if let Cell::Plain(Value::Text(text)) = &mut state.cell {
                *text = b"a bug".to_vec();
            }
        }
        write.put_row(&wrong, record, false).unwrap();
        write.commit_durable().unwrap();
        shows_evaluated(node, &wrong);
    }
    pair.nodes[0].handle(Input::CompareRequested(None), pair.now).unwrap();
    for _ in 0..60 {
        pair.pass();
    }
    for node in &pair.nodes {
        let compared = compared(node);
        assert_eq!((compared.content.as_str(), compared.rows, compared.complete), ("differs", 1, true), "{compared:?}");
        let difference = &compared.differences[0];
        assert_eq!(
            (difference.table.as_str(), difference.id.as_str(), difference.side.as_str()),
            ("team", "3", "differs")
        );
        let alerts = node.status(pair.now).unwrap().alerts;
        assert!(alerts.iter().any(|alert| alert.contains("1 row of scouting.team")), "{alerts:?}");
    }
}

/// The log's state says that the file shows what is evaluated.
fn shows_evaluated(node: &mut Node, row: &RowId) {
    let mut write = node.log.write().unwrap();
    let mut evaluator = Evaluator::new(&mut write, &node.ranks, &node.schemas, 0);
    let target = evaluator.target(row).unwrap();
    evaluator.mark_shown(row, target.as_ref()).unwrap();
    evaluator.finish().unwrap();
    write.commit_durable().unwrap();
}

#[test]
fn sums_that_are_kept_wrong_are_built_anew() {
    let (_sites, mut pair) = pair(10);
    let wrong = row(&pair.nodes[1], "team", 3);
    {
        let mut write = pair.nodes[1].log.write().unwrap();
        let table = write.table_id("scouting", "team").unwrap();
        write.note_shown(table, &wrong, None, Some([7; 32])).unwrap();
        write.commit_durable().unwrap();
    }
    pair.nodes[0].handle(Input::CompareRequested(None), pair.now).unwrap();
    for _ in 0..20 {
        pair.pass();
    }
    pair.work();
    for node in &pair.nodes {
        assert_eq!(compared(node).content, "equal", "{:?}", compared(node));
    }
    let read = pair.nodes[1].log.read().unwrap();
    let table = read.find_table("scouting", "team").unwrap().unwrap();
    assert_eq!(read.check_prints(table).unwrap().1, 0);
    let alerts = pair.nodes[1].status(pair.now).unwrap().alerts;
    assert!(alerts.iter().any(|alert| alert.contains("kept wrong")), "{alerts:?}");
}
