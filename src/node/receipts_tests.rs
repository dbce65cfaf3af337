//! Receipts: what is said about a machine that goes.
//!
//! What it does not verify: that a peer tells the truth. Callers: cargo test.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::node::pair_tests::{Pair, Site};

const SCHEMA: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT); CREATE TABLE tag (id INTEGER PRIMARY KEY)";

fn only(rows: &[(&str, &str, u64)], events: u64, counted_all: bool) -> OnlyHere {
    let table = |(database, table, rows): &(&str, &str, u64)| OnlyHereTable {
        database: (*database).into(),
        table: (*table).into(),
        rows: *rows,
    };
    let tables: Vec<_> = rows.iter().map(table).collect();
    OnlyHere { events, rows: tables.iter().map(|table| table.rows).sum(), counted_all, tables }
}

#[test]
fn one_sentence_says_it_all() {
    let some = only(&[("scouting", "match", 7), ("scouting", "scouting_data", 5)], 3, true);
    let nothing = only(&[], 0, true);
    for (only_here, not_logged, servers, hold, empty, want) in [
        (&some, 0, 4, 3, false, "NOT safe to unplug: 12 rows (match 7, scouting_data 5) exist only here"),
        (&nothing, 0, 4, 3, false, "safe to unplug: 3 of 4 servers hold everything"),
        (&nothing, 1, 4, 3, false, "NOT safe to unplug: 1 write waits for the log"),
        (
            &nothing,
            0,
            4,
            1,
            false,
            "safe to unplug: all that is here is held elsewhere, though by no other server alone",
        ),
        (&nothing, 0, 1, 1, true, "safe to unplug: this server holds nothing yet"),
    ] {
        assert_eq!(sentence(only_here, not_logged, servers, hold, empty), want);
    }
    let twice = only(&[("a", "t", 2), ("b", "t", 1)], 1, false);
    assert_eq!(
        sentence(&twice, 2, 1, 1, false),
        "NOT safe to unplug: more than 3 rows (a.t 2, b.t 1) exist only here, and 2 writes wait for the log (this is the \
         cluster's only server)"
    );
}

/// Rows count once however often they were written, only those others lack, and the word lasts across a restart.
#[test]
fn what_is_only_here_is_counted_by_table_and_remembered() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    sites[0].app("app", "INSERT INTO note (text) VALUES ('both')");
    pair.work();
    let receipts = pair.nodes[0].receipts().unwrap();
    assert_eq!(receipts.sentence, "safe to unplug: 2 of 2 servers hold everything");
    assert_eq!((receipts.peers[0].way.as_str(), receipts.peers[0].lacks), ("connection", 0));
    pair.part();
    sites[0].app("app", "INSERT INTO note (text) VALUES ('here'); INSERT INTO tag VALUES (NULL), (NULL)");
    alone(&mut pair);
    sites[0].app("app", "UPDATE note SET text = 'again' WHERE text = 'here'");
    alone(&mut pair);
    let want = "NOT safe to unplug: 3 rows (tag 2, note 1) exist only here";
    assert_eq!(pair.nodes[0].receipts().unwrap().sentence, want);
    assert_eq!(pair.nodes[0].status(pair.now).unwrap().only_here.rows, 3);
    let now = pair.now;
    let [first, second] = pair.nodes;
    first.close().unwrap();
    drop(second);
    let again = Node::open(sites[0].settings(), sites[0].log(), now).unwrap();
    let receipts = again.receipts().unwrap();
    assert_eq!(receipts.sentence, want);
    assert!(!receipts.peers[0].as_of.is_empty());
    assert_eq!(again.status(now).unwrap().peers[0].ahead, receipts.only_here.events);
}

/// A server that was put back from a backup says less than before: what it lost is only here again.
#[test]
fn a_server_that_lost_what_it_held_is_believed() {
    let sites = [1, 2].map(|seed| Site::new(seed).with("app", SCHEMA, &[]));
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    sites[0].app("app", "INSERT INTO note (text) VALUES ('both')");
    pair.work();
    let peer = pair.nodes[1].id();
    assert!(pair.nodes[0].receipts().unwrap().safe_to_unplug);
    pair.nodes[0].receipts.heard(peer, &crate::model::Heads::new(), pair.now);
    assert!(!pair.nodes[0].receipts().unwrap().safe_to_unplug);
    // An old bundle of it, found on a stick, does not bring it back; a new one does.
    let heads: Vec<Head> = pair.nodes[1].heads.values().copied().collect();
    pair.nodes[0].receipts.carried(peer, &heads, pair.now.wall_ms - 1);
    assert!(!pair.nodes[0].receipts().unwrap().safe_to_unplug);
    pair.nodes[0].receipts.carried(peer, &heads, pair.now.wall_ms + 1);
    assert!(pair.nodes[0].receipts().unwrap().safe_to_unplug);
    // Another history under the same number is not what is here.
    let mut forged = pair.nodes[1].heads.clone();
    forged.values_mut().for_each(|head| head.hash = [7; 32]);
    pair.nodes[0].receipts.heard(peer, &forged, pair.now);
    assert!(!pair.nodes[0].receipts().unwrap().safe_to_unplug);
}

/// The first node works for itself.
fn alone(pair: &mut Pair) {
    for _ in 0..20 {
        pair.now = Now { mono_ms: pair.now.mono_ms + 50, wall_ms: pair.now.wall_ms + 50 };
        pair.nodes[0].handle(crate::node::Input::Tick, pair.now).unwrap();
        while pair.nodes[0].poll_effect().is_some() {}
    }
}
