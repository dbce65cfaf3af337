//! The databases as they were at a time.
//!
//! Invariant: time is carried by hand, and what stood in a file then is what a query of it gave then. Callers: cargo test.

#![allow(clippy::unwrap_used)]

use crate::node::pair_tests::{Pair, Site, ask};
use crate::node::{Input, Now};

const SCHEMA: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT, parent INTEGER REFERENCES note(id))";
const ROWS: &str = "SELECT id || ' ' || text || ' ' || ifnull(parent, '-') FROM note ORDER BY id";

#[test]
fn every_moment_of_a_history_can_be_written_again() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    let statements = [
        "INSERT INTO note VALUES (1, 'one', NULL), (2, 'two', 1)",
        "UPDATE note SET text = 'first' WHERE id = 1",
        "INSERT INTO note VALUES (3, 'three', 1); DELETE FROM note WHERE id = 2",
        "UPDATE note SET parent = 3 WHERE id = 1",
        "DELETE FROM note",
    ];
    let mut moments = vec![(pair.now.wall_ms, Vec::new())];
    for (number, sql) in statements.into_iter().enumerate() {
        pair.now.mono_ms += 60_000;
        pair.now.wall_ms += 60_000;
        // The app's own clock gives the time of a write; here it stands still, so the node's bounds it.
        sites[number % 2].app("app", sql);
        pair.work();
        moments.push((pair.now.wall_ms, sites[0].ask("app", ROWS)));
    }
    for node in &pair.nodes {
        let replay = node.replay().unwrap();
        for (ms, rows) in &moments {
            let out = tempfile::tempdir().unwrap();
            let report = replay.write(out.path(), Some(*ms)).unwrap();
            assert_eq!(report.as_of_ms, Some(*ms));
            assert_eq!(ask(&out.path().join("app.db"), ROWS), *rows, "as of {ms}");
        }
        let out = tempfile::tempdir().unwrap();
        let report = node.rebuild(out.path()).unwrap();
        assert_eq!(report.databases[0].digest, report.databases[0].live_digest);
    }
}

/// A batch full of what is later than the time hides nothing that is earlier.
#[test]
fn later_events_of_one_server_hide_no_earlier_ones_of_another() {
    for late in [0, 1] {
        let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
        let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
        pair.meet();
        pair.part();
        sites[1 - late].app("app", "INSERT INTO note (text) VALUES ('early')");
        settle(&mut pair);
        let then = pair.now.wall_ms;
        pair.now.wall_ms += 60_000;
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
            INSERT INTO note (text) SELECT 'late' FROM n";
        sites[late].app("app", many);
        settle(&mut pair);
        pair.meet();
        for node in &pair.nodes {
            let out = tempfile::tempdir().unwrap();
            node.replay().unwrap().write(out.path(), Some(then)).unwrap();
            assert_eq!(ask(&out.path().join("app.db"), "SELECT text FROM note"), ["early"]);
        }
    }
}

/// Lets both capture what their apps wrote, apart.
fn settle(pair: &mut Pair) {
    for _ in 0..10 {
        pair.now = Now { mono_ms: pair.now.mono_ms + 1_000, wall_ms: pair.now.wall_ms + 1_000 };
        for node in &mut pair.nodes {
            node.handle(Input::FileTouched(0), pair.now).unwrap();
            node.handle(Input::Tick, pair.now).unwrap();
            while node.poll_effect().is_some() {}
        }
    }
}
