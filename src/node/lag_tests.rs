//! Rows that are one in the log and stand apart in the file: what the app does to either of them in between.

#![allow(clippy::unwrap_used)]

use super::pair_tests::{Pair, Site};
use super::query_rows::Place;

const NOTES: &str = "CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT, author TEXT);
    INSERT INTO note VALUES (1, 'one', 'a'), (2, 'two', 'b'), (3, 'three', 'c');";

/// A person said that notes 1 and 2 are one; the app wrote before the file showed it.
fn merged_then(sql: &str, wanted: &[&str]) {
    let sites = [Site::new(1).with("app", NOTES, &[]), Site::new(2).with("app", NOTES, &[])];
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    let place = Place { database: "app".into(), table: "note".into() };
    pair.nodes[1].merge_rows(&place, "1", "2", pair.now).unwrap();
    assert_eq!(sites[1].ask("app", "SELECT count(*) FROM note"), ["3"], "not written yet");
    sites[1].app("app", sql);
    let now = pair.now;
    pair.nodes[1].capture(0, now).unwrap();
    pair.work();
    for site in &sites {
        let shown = site.ask("app", "SELECT text || ' ' || author FROM note");
        assert_eq!(shown.len(), 2, "{sql}: {shown:?}");
        for one in wanted {
            assert!(shown.iter().any(|shown| shown.contains(one)), "{sql}: {one} not in {shown:?}");
        }
        let marks = site.ask("app", "SELECT count(*) FROM _litemesh_outbox");
        assert_eq!(marks, ["0"]);
    }
    assert_eq!(sites[0].ask("app", "SELECT * FROM note"), sites[1].ask("app", "SELECT * FROM note"));
}

#[test]
fn a_write_to_either_row_reaches_the_one_they_are() {
    merged_then("UPDATE note SET text = 'changed' WHERE id = 2", &["changed", "three c"]);
    merged_then("UPDATE note SET text = 'changed' WHERE id = 1", &["changed", "three c"]);
    let both = "UPDATE note SET author = 'x' WHERE id = 1; UPDATE note SET text = 'changed' WHERE id = 2";
    merged_then(both, &["changed x", "three c"]);
    let both = "UPDATE note SET author = 'x' WHERE id = 2; UPDATE note SET text = 'changed' WHERE id = 1";
    merged_then(both, &["changed x", "three c"]);
}

#[test]
fn a_delete_of_one_row_leaves_the_other() {
    merged_then("DELETE FROM note WHERE id = 2", &["three c"]);
    merged_then("DELETE FROM note WHERE id = 1", &["three c"]);
}
