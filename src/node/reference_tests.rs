//! References of every shape follow their row when its id moves: declared ones that name several columns, a UNIQUE key, or
//! the table itself; and rows that were there before litemesh as well as those written later.

#![allow(clippy::unwrap_used)]

use super::Input;
use super::pair_tests::{Pair, Site};

fn apart(schema: &str, first: &str, second: &str) -> (Site, Site, Pair) {
    let sites = (Site::new(1).with("app", schema, &[]), Site::new(2).with("app", schema, &[]));
    let mut pair = Pair::start([&sites.0, &sites.1], &[]);
    pair.meet();
    pair.part();
    sites.0.app("app", first);
    sites.1.app("app", second);
    for at in [0, 1] {
        pair.nodes[at].handle(Input::FileTouched(0), pair.now).unwrap();
    }
    pair.meet();
    (sites.0, sites.1, pair)
}

fn both(sites: (&Site, &Site), sql: &str, wanted: &[&str]) {
    assert_eq!(sites.0.ask("app", sql), wanted);
    assert_eq!(sites.1.ask("app", sql), wanted);
}

#[test]
fn a_row_that_refers_to_its_own_table() {
    let schema = "CREATE TABLE node(id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES node(id), name TEXT);
        INSERT INTO node VALUES (1, NULL, 'root'), (2, 1, 'old');";
    let (first, second, _pair) = apart(
        schema,
        "INSERT INTO node VALUES (100, 2, 'a'), (101, 100, 'a child')",
        "INSERT INTO node VALUES (100, 1, 'b'), (101, 100, 'b child'); INSERT INTO node VALUES (102, 102, 'b self')",
    );
    let tree =
        "SELECT child.name || ' of ' || parent.name FROM node child JOIN node parent ON parent.id = child.parent_id
        ORDER BY 1";
    let wanted = ["a child of a", "a of old", "b child of b", "b of root", "b self of b self", "old of root"];
    both((&first, &second), tree, &wanted);
}

#[test]
fn a_foreign_key_of_two_columns() {
    let schema = "CREATE TABLE event(id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE round(event_id INTEGER REFERENCES event(id), number INTEGER, PRIMARY KEY (event_id, number));
        CREATE TABLE game(id INTEGER PRIMARY KEY, event_id INTEGER, number INTEGER, text TEXT,
            FOREIGN KEY (event_id, number) REFERENCES round(event_id, number));
        INSERT INTO event VALUES (1, 'old'); INSERT INTO round VALUES (1, 1); INSERT INTO game VALUES (1, 1, 1, 'g');";
    let write = |name: &str| {
        format!(
            "INSERT INTO event VALUES (100, '{name}'); INSERT INTO round VALUES (100, 1), (100, 2);
             INSERT INTO game VALUES (100, 100, 2, '{name} game')"
        )
    };
    let (first, second, _pair) = apart(schema, &write("a"), &write("b"));
    let games =
        "SELECT text || ' at ' || name || ' round ' || game.number FROM game JOIN round USING (event_id, number)
        JOIN event ON event.id = event_id ORDER BY 1";
    both((&first, &second), games, &["a game at a round 2", "b game at b round 2", "g at old round 1"]);
}

#[test]
fn a_foreign_key_to_a_unique_key_follows_the_row() {
    let schema = "CREATE TABLE team(id INTEGER PRIMARY KEY, code TEXT UNIQUE, name TEXT);
        CREATE TABLE entry(id INTEGER PRIMARY KEY, code TEXT REFERENCES team(code), text TEXT);
        INSERT INTO team VALUES (1, 'T1', 'old'); INSERT INTO entry VALUES (1, 'T1', 'old entry');";
    let (first, second, mut pair) = apart(
        schema,
        "INSERT INTO team VALUES (100, 'TA', 'a'); INSERT INTO entry VALUES (100, 'TA', 'for a'), (101, 'T1', 'for old');",
        "INSERT INTO team VALUES (100, 'TB', 'b'); INSERT INTO entry VALUES (100, 'TB', 'for b');",
    );
    // The reference travels as the row: when somebody gives the team another code, the entries of others follow.
    let log = pair.nodes[1].log();
    let read = log.read().unwrap();
    let table = read.find_table("app", "entry").unwrap().unwrap();
    for row in read.rows_of(table, None, 100).unwrap() {
        assert_eq!(read.row(&row).unwrap().unwrap().parents().count(), 1, "{row}");
    }
    drop(read);
    pair.part();
    first.app("app", "INSERT INTO entry VALUES (200, 'TB', 'written apart')");
    second.app("app", "PRAGMA foreign_keys = OFF; UPDATE team SET code = 'TX' WHERE name = 'b'; UPDATE entry SET code = 'TX' WHERE code = 'TB'");
    for at in [0, 1] {
        pair.nodes[at].handle(Input::FileTouched(0), pair.now).unwrap();
    }
    pair.meet();
    let entries = "SELECT text || ' ' || name FROM entry JOIN team ON team.code = entry.code ORDER BY 1";
    both((&first, &second), entries, &["for a a", "for b b", "for old old", "old entry old", "written apart b"]);
}
