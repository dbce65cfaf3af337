//! One row driven through everything that can happen to a row, and the text that tells it.
//!
//! Invariant: real nodes, real files; the golden text names servers, not keys, and no times (the app's clock is the
//! machine's). Callers: cargo test.

#![allow(clippy::unwrap_used)]

use crate::node::pair_tests::{Pair, Site};
use crate::node::query_rows::Place;
use crate::node::undo::{Order, Plan, Selection};
use crate::node::undo_do::PageDone;
use crate::node::{Input, Now};

const SCHEMA: &str = "CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT, place TEXT)";

fn later(pair: &mut Pair) {
    pair.now = Now { mono_ms: pair.now.mono_ms + 60_000, wall_ms: pair.now.wall_ms + 60_000 };
}

/// Lets apps write without the nodes hearing of each other.
fn apart(pair: &mut Pair, sites: &[Site; 2], sql: [&str; 2]) {
    pair.part();
    for at in [0, 1] {
        later(pair);
        sites[at].app("app", sql[at]);
        for _ in 0..3 {
            pair.nodes[at].handle(Input::FileTouched(0), pair.now).unwrap();
            pair.nodes[at].handle(Input::Tick, pair.now).unwrap();
            while pair.nodes[at].poll_effect().is_some() {}
        }
    }
    pair.meet();
}

fn write(pair: &mut Pair, site: &Site, sql: &str) {
    later(pair);
    site.app("app", sql);
    pair.work();
}

fn take_back(pair: &mut Pair, plan: &Plan) {
    let mut page = Some(plan.start());
    while let Some(at) = page {
        let PageDone { next, wait, .. } = pair.nodes[0].take_back(plan, at, true, pair.now).unwrap();
        assert!(!wait, "the file shows everything");
        page = next;
    }
    pair.work();
}

fn order() -> Order {
    Order { by: "chris".into(), reason: "a mistake".into(), force: false }
}

/// Names instead of keys, one letter instead of times.
fn readable(pair: &Pair, text: &str) -> String {
    let mut text = text.to_string();
    let heads = pair.nodes[0].log().read().unwrap().heads().unwrap();
    for (origin, head) in heads {
        let name = if head.origin.node == pair.nodes[0].id() { "FIRST" } else { "SECOND" };
        text = text.replace(&origin.to_string(), name).replace(&origin.to_string()[..8], name);
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("2026-").or_else(|| rest.find("2025-")) {
        out += &rest[..at];
        out.push('T');
        rest = &rest[at + "2026-11-18T10:00:00.000Z".len()..];
    }
    out + rest
}

const GOLDEN: &str = "app.team 60 (SECOND:1:0): shown
ids:
    57  from T to T
    2000057  from T to T
    60  since T

T  second  insert  (SECOND:1:0)
    born with id 57
    name   'wires'
    place  'pit'
T  first  effect  (FIRST:1:0)
    id 57 -> 2000057: row 57 (FIRST:1:0) was born with 57 as well and is senior
T  first  update  (FIRST:2:1)
    place  'pit' -> 'hall'
T  first  update  (FIRST:3:0)
    place  'hall' -> 'first says'
T  second  update  (SECOND:2:0)
    conflict in place: 'second says' (second at T) wins over 'first says' (first at T)
    place  'first says' -> 'second says'
T  second  merge  (SECOND:3:0)
    one row with row 58 (FIRST:2:0)
    id 2000057 -> 58
    not shown since: name 'wires' (second at T)
    not shown since: place 'second says' (second at T)
    name  'wires' -> 'wires 2'
T  first  split  (FIRST:4:0)
    two rows again: row 58 (FIRST:2:0) is on its own
    id 58 -> 2000057
    name  'wires 2' -> 'wires'
T  second  delete  (SECOND:4:0)
    deleted
T  first  update  (FIRST:5:0)
    undo of change SECOND:4:0 by second at T, ordered by chris on first at T: a mistake
    comes back
T  first  update  (FIRST:6:0)
    place  'second says' -> 'changed'
T  second  delete  (SECOND:5:0)
    conflict: second deleted it at T without knowing of a change: it lives on
T  first  update  (FIRST:7:0)
    restore of all databases as of T, ordered by chris on first at T: a mistake
    place  'changed' -> 'hall'
T  first  claim  (FIRST:8:0)
    id 2000057 -> 60";

#[test]
fn a_rows_life_over_everything_that_can_happen_to_it() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    let insert = |name: &str| format!("INSERT INTO team VALUES (57, '{name}', 'pit')");
    apart(&mut pair, &sites, [&insert("robots"), &insert("wires")]);
    let id = sites[0].ask("app", "SELECT id FROM team WHERE name = 'wires'").remove(0);
    write(
        &mut pair,
        &sites[0],
        &format!("UPDATE team SET place = 'hall' WHERE id = {id}; INSERT INTO team VALUES (58, 'wires 2', 'roof')"),
    );
    let calm_ms = pair.now.wall_ms;
    let place = |word: &str| format!("UPDATE team SET place = '{word}' WHERE id = {id}");
    apart(&mut pair, &sites, [&place("first says"), &place("second says")]);
    later(&mut pair);
    let team = Place { database: "app".into(), table: "team".into() };
    pair.nodes[1].merge_rows(&team, &id, "58", pair.now).unwrap();
    pair.work();
    later(&mut pair);
    let joined = sites[0].ask("app", "SELECT id FROM team WHERE name LIKE 'wires%'").remove(0);
    pair.nodes[0].split_row(&team, &joined, pair.now).unwrap();
    pair.work();
    write(&mut pair, &sites[1], &format!("DELETE FROM team WHERE id = {id}"));
    let deleted = pair.nodes[0].history("app", "team", &id).unwrap();
    assert_eq!(deleted.state, "deleted");
    later(&mut pair);
    let delete = deleted.versions.last().unwrap();
    let name = Selection::Change(format!("{}:{}", delete.event, delete.index));
    let now = pair.now;
    let plan = pair.nodes[0].replay_heard(now).unwrap().plan_undo(&name, &order(), now).unwrap();
    take_back(&mut pair, &plan);
    apart(&mut pair, &sites, [&place("changed"), &format!("DELETE FROM team WHERE id = {id}")]);
    later(&mut pair);
    let now = pair.now;
    let plan = pair.nodes[0].replay_heard(now).unwrap().plan_restore(calm_ms, (None, None), &order(), now).unwrap();
    take_back(&mut pair, &plan);
    write(&mut pair, &sites[0], &format!("UPDATE team SET id = 60 WHERE id = {id}"));

    let history = pair.nodes[0].history("app", "team", "60").unwrap();
    let text = readable(&pair, &history.text());
    assert_eq!(text, GOLDEN, "it reads now:\n{text}");
    // Under every id it ever had, and on the other server, the same life.
    assert_eq!(pair.nodes[1].history("app", "team", "60").unwrap().versions, history.versions);
    assert_eq!(pair.nodes[0].history("app", "team", &id).unwrap().versions, history.versions);
    let first = pair.nodes[0].history("app", "team", "57").unwrap();
    assert_eq!(
        first.others.iter().map(|other| (other.born_as.as_str(), other.now.as_str())).collect::<Vec<_>>(),
        [("60", "60")]
    );
    assert!(first.text().contains("also known under that id"), "{}", first.text());
    let nobody = pair.nodes[0].history("app", "team", "4711").unwrap_err().to_string();
    assert!(nobody.contains("was ever known under 4711"), "{nobody}");
}

/// A row whose key names other rows is found by it after it is gone.
#[test]
fn a_deleted_row_is_found_by_its_key() {
    let schema = "CREATE TABLE team (id INTEGER PRIMARY KEY); CREATE TABLE member (team_id INTEGER NOT NULL REFERENCES \
                  team(id), name TEXT NOT NULL, PRIMARY KEY (team_id, name))";
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", schema, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    write(&mut pair, &sites[0], "INSERT INTO team VALUES (7); INSERT INTO member VALUES (7, 'ann')");
    write(&mut pair, &sites[1], "DELETE FROM member");
    let history = pair.nodes[0].history("app", "member", "7,ann").unwrap();
    assert_eq!(history.state, "deleted");
    assert_eq!(history.versions.iter().map(|one| one.operation.as_str()).collect::<Vec<_>>(), ["insert", "delete"]);
}
