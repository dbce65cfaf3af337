//! Joining by snapshot: two real nodes with real files.
//!
//! What they do not verify: speed (`simulate --scenario joining` measures it).

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::pair_tests::{CLOCK_MS, Pair, Site, ask};
use super::*;
use crate::wire::snapshot::Snapshot;

const SCHEMA: &str = "
    CREATE TABLE team (id INTEGER PRIMARY KEY, number INTEGER UNIQUE, name TEXT, tag BLOB);
    CREATE TABLE visit (id INTEGER PRIMARY KEY, team_id INTEGER NOT NULL REFERENCES team(id), note TEXT DEFAULT 'none');
    CREATE TABLE badge (owner TEXT PRIMARY KEY, team_id INTEGER REFERENCES team(id) ON DELETE SET NULL);
    CREATE TABLE scribble (text TEXT, value REAL);";

const ROWS: &str = "
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
      INSERT INTO team(number, name, tag) SELECT i + 1000, 'team ' || i, randomblob(i % 50) FROM n;
    INSERT INTO visit(team_id, note) SELECT id, 'visit of ' || name FROM team;
    INSERT INTO badge SELECT 'owner ' || id, id FROM team WHERE id % 3 = 0;
    INSERT INTO scribble SELECT 'line ' || id, id * 0.25 FROM team WHERE id % 5 = 0;";

const EDITS: &str = "
    UPDATE team SET name = 'renamed ' || id WHERE id % 7 = 0;
    UPDATE visit SET note = NULL WHERE id % 11 = 0;
    DELETE FROM scribble WHERE value > 100;
    DELETE FROM visit WHERE id % 13 = 0;
    DELETE FROM team WHERE id NOT IN (SELECT team_id FROM visit) AND id % 2 = 0;";

fn sites() -> (Site, Site) {
    (Site::new(1).with("app", SCHEMA, &[]), Site::new(2).with("app", SCHEMA, &[]))
}

/// A pair of which the first has rows with a past.
fn pair(sites: [&Site; 2]) -> Pair {
    let mut pair = Pair::start(sites, &[]);
    pair.nodes.iter_mut().for_each(|node| node.snapshots_from(1));
    sites[0].app("app", ROWS);
    tick(&mut pair.nodes[0], &mut pair.now, 10);
    sites[0].app("app", EDITS);
    tick(&mut pair.nodes[0], &mut pair.now, 10);
    pair
}

fn tick(node: &mut Node, now: &mut Now, times: u64) {
    for _ in 0..times {
        *now = Now { mono_ms: now.mono_ms + 300, wall_ms: now.wall_ms + 300 };
        node.handle(Input::Tick, *now).unwrap();
        while node.poll_effect().is_some() {}
    }
}

fn content(path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["team", "visit", "badge", "scribble"] {
        let columns: Vec<String> = ask(path, &format!("SELECT name FROM pragma_table_info('{table}')"));
        let quoted: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        all.extend(ask(path, &format!("SELECT {} FROM {table} ORDER BY 1", quoted.join(" || ',' || "))));
    }
    all
}

/// Both show the same, and so does the joiner's log, replayed alone.
fn assert_equal(pair: &Pair, sites: [&Site; 2]) {
    let status: Vec<_> = pair.nodes.iter().map(|node| node.status(pair.now).unwrap()).collect();
    assert_eq!(status[0].databases[0].digest, status[1].databases[0].digest);
    assert_eq!(content(&sites[0].path("app")), content(&sites[1].path("app")));
    for (at, node) in pair.nodes.iter().enumerate() {
        let out = tempfile::tempdir().unwrap();
        let report = node.rebuild(out.path()).unwrap();
        assert_eq!(report.databases[0].digest, status[at].databases[0].digest, "node {at}");
    }
    assert!(status.iter().all(|status| status.alerts.is_empty()), "{:?} {:?}", status[0].alerts, status[1].alerts);
}

#[test]
fn a_new_member_gets_the_state_then_the_history_and_all_is_equal() {
    let (first, second) = sites();
    let mut pair = pair([&first, &second]);
    pair.meet();
    let joining = pair.nodes[1].status(pair.now).unwrap().joining.unwrap();
    assert_eq!(joining.stage, "complete");
    assert!(joining.rows > 1000 && joining.bytes > 10_000, "{joining:?}");
    assert_equal(&pair, [&first, &second]);
    // Both go on, and what one writes comes to the other.
    second.app("app", "UPDATE team SET name = 'from the second' WHERE id = 7; INSERT INTO team(number, name) VALUES (1, 'new')");
    first.app("app", "UPDATE team SET tag = x'00' WHERE id = 7; DELETE FROM badge WHERE owner = 'owner 9'");
    pair.work();
    assert_equal(&pair, [&first, &second]);
    assert_eq!(first.ask("app", "SELECT name FROM team WHERE id = 7"), ["from the second"]);
}

#[allow(unused)]
fn unused() -> (u64, Option<Snapshot>) {
    (CLOCK_MS, None)
}
