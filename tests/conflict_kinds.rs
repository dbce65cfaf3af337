//! Two servers disagree in every way that one cut of the network allows: what is shown afterwards, on both.
//!
//! Invariant: one cluster, one cut, one meeting; each part writes to rows of its own. Kinds that have a file of their own
//! (accounts, merges, rules, checks, moved ids) are not repeated here; README.md lists all.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use support::app;
use support::cluster::Cluster;
use support::dump::texts;

/// Written while the servers know each other.
const BEFORE: &str = "
    INSERT INTO team (id, team_number, marker) VALUES (501, 501, 'updated and deleted'), (502, 502, 'deleted twice'),
        (503, 503, 'given another id'), (504, 504, 'alone'), (505, 505, 'deleted with its children');
    INSERT INTO event (id, name, year, marker) VALUES (601, 'Spring', 2025, 'parent'), (602, 'Autumn', 2025, 'joined');
    INSERT INTO \"match\" (id, match_number, match_type, event_id, marker) VALUES (701, 1, 'Final', 602, 'of both');
    INSERT INTO observation (match_id, team_id, data_json, marker) VALUES (701, 505, 'old', 'old observation')";

/// Written on the first server while the network is cut.
const HERE: &str = "
    UPDATE team SET location = 'changed here' WHERE id = 501;
    DELETE FROM team WHERE id = 502;
    UPDATE team SET id = 4503 WHERE id = 503;
    DELETE FROM event WHERE id = 601;
    INSERT INTO team_event (team_id, event_id) VALUES (504, 602);
    DELETE FROM observation WHERE team_id = 505;
    DELETE FROM team WHERE id = 505";

/// Written on the second one.
const THERE: &str = "
    DELETE FROM team WHERE id = 501;
    DELETE FROM team WHERE id = 502;
    UPDATE team SET location = 'changed there' WHERE id = 503;
    INSERT INTO \"match\" (match_number, match_type, event_id, marker) VALUES (2, 'Final', 601, 'child');
    INSERT INTO team_event (team_id, event_id) VALUES (504, 602);
    INSERT INTO observation (match_id, team_id, data_json, marker) VALUES (701, 505, 'new', 'new observation')";

#[test]
fn every_kind_of_disagreement_ends_the_same_on_both() {
    let mut cluster = Cluster::scouting(2);
    app(cluster.servers[0].database("scouting"), BEFORE);
    cluster.settled(30);
    cluster.part();
    app(cluster.servers[0].database("scouting"), HERE);
    app(cluster.servers[1].database("scouting"), THERE);
    cluster.heal();
    cluster.settled(60);
    for server in &cluster.servers {
        let one = |query: &str| texts(server.database("scouting"), query);
        let on = &server.name;
        assert_eq!(one("SELECT location FROM team WHERE id = 501"), ["changed here"], "updated and deleted, on {on}");
        assert_eq!(one("SELECT id FROM team WHERE id = 502"), Vec::<String>::new(), "deleted twice, on {on}");
        let moved = one("SELECT id || ' ' || location FROM team WHERE marker = 'given another id'");
        assert_eq!(moved, ["4503 changed there"], "another id and a change, on {on}");
        let child = "SELECT e.name FROM \"match\" m JOIN event e ON e.id = m.event_id WHERE m.marker = 'child'";
        assert_eq!(one(child), ["Spring"], "a parent deleted while a child was born, on {on}");
        let pairs = one("SELECT count(*) FROM team_event WHERE team_id = 504 AND event_id = 602");
        assert_eq!(pairs, ["1"], "one key made twice, on {on}");
        let kept =
            "SELECT o.marker FROM observation o JOIN team t ON t.id = o.team_id WHERE t.marker LIKE 'deleted with%'";
        assert_eq!(
            one(kept),
            ["new observation"],
            "what went with its parent stays gone, what is new keeps it, on {on}"
        );
        let conflicts = server.cli(&["--json", "conflicts", "list"]).done().json_rows();
        let told = conflicts.iter().filter(|conflict| conflict["kind"] == "delete").count();
        assert!(told >= 1, "the delete that lost is told on {on}: {conflicts:?}");
    }
}
