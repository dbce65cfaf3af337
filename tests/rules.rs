//! Rules seen from outside: one order on one server, and all servers put concurrent writes together by it.
//!
//! What it does not verify: every history (`merge::rules_tests`), nor crashes.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use support::app;
use support::cluster::Cluster;
use support::dump::{number, texts};
use support::server::Server;

/// The rules a server lists, as (place, rule, set by).
fn rules(server: &Server) -> Vec<(String, String, String)> {
    let text = |rule: &serde_json::Value, name: &str| rule[name].as_str().unwrap().to_string();
    let place = |rule: &serde_json::Value| {
        format!("{}.{}.{}", text(rule, "database"), text(rule, "table"), text(rule, "column"))
    };
    let listed = server.json(&["rules", "list"]);
    let listed = listed["rules"].as_array().unwrap().iter();
    listed.map(|rule| (place(rule), text(rule, "rule"), text(rule, "node"))).collect()
}

fn score(server: &Server) -> i64 {
    number(server.database("scouting"), "SELECT red_score FROM \"match\" WHERE id = 1")
}

#[test]
fn steps_made_apart_all_count_and_a_delete_wins_where_the_rule_says_so() {
    let mut cluster = Cluster::scouting(2);
    let (first, second) = (&cluster.servers[0], &cluster.servers[1]);
    app(
        first.database("scouting"),
        "UPDATE \"match\" SET red_score = 10, red_alliance = '111,222' WHERE id = 1;
         INSERT INTO team (team_number, marker) VALUES (900, 'gone')",
    );
    first.cli(&["rules", "set", "scouting.match.red_score", "counter"]).done();
    cluster.settled(20);
    // The second order is given elsewhere, after hearing of the first.
    second.cli(&["rules", "set", "scouting.match.red_alliance", "set"]).done();
    second.cli(&["rules", "set", "scouting.match.blue_score", "max"]).done();
    second.cli(&["rules", "set", "scouting.team", "delete-wins"]).done();
    cluster.settled(20);
    cluster.part();
    let (first, second) = (&cluster.servers[0], &cluster.servers[1]);
    for turn in 0..3 {
        app(first.database("scouting"), "UPDATE \"match\" SET red_score = red_score + 1 WHERE id = 1");
        app(second.database("scouting"), "UPDATE \"match\" SET red_score = red_score + 10 WHERE id = 1");
        app(first.database("scouting"), &format!("UPDATE \"match\" SET blue_score = {} WHERE id = 1", 50 - turn));
        app(second.database("scouting"), &format!("UPDATE \"match\" SET blue_score = {turn} WHERE id = 1"));
    }
    app(first.database("scouting"), "UPDATE \"match\" SET red_alliance = '111,222,333' WHERE id = 1");
    app(second.database("scouting"), "UPDATE \"match\" SET red_alliance = '222,444' WHERE id = 1");
    app(first.database("scouting"), "DELETE FROM team WHERE marker = 'gone'");
    app(second.database("scouting"), "UPDATE team SET team_name = 'still here' WHERE marker = 'gone'");
    cluster.heal();
    cluster.settled(30);
    for server in &cluster.servers {
        assert_eq!(score(server), 10 + 3 + 30);
        let file = server.database("scouting");
        assert_eq!(number(file, "SELECT blue_score FROM \"match\" WHERE id = 1"), 50);
        let alliance = texts(file, "SELECT red_alliance FROM \"match\" WHERE id = 1").remove(0);
        let mut teams: Vec<&str> = alliance.split(',').collect();
        teams.sort_unstable();
        assert_eq!(teams, ["222", "333", "444"], "{alliance}");
        assert_eq!(number(file, "SELECT count(*) FROM team WHERE marker = 'gone'"), 0);
        server.cli(&["log", "verify"]).done();
    }
    let out = cluster.servers[0].folder.join("rebuilt");
    let rebuilt = cluster.servers[0].json(&["rebuild", "--out", out.to_str().unwrap()]);
    for database in rebuilt["databases"].as_array().unwrap() {
        assert_eq!(database["digest"], database["live_digest"], "{rebuilt}");
    }
}

/// What the servers' config states is set once, by the first; another rule in the cluster stays, and a person is told how
/// to change it.
#[test]
fn a_rule_of_the_config_is_set_once_for_all() {
    let mut cluster = Cluster::scouting(2);
    let stated = ("users.user_roles.".to_string(), "delete-wins".to_string(), "s0".to_string());
    for server in &cluster.servers {
        assert!(rules(server).contains(&stated), "{:?}", rules(server));
    }
    cluster.servers[1].cli(&["rules", "set", "users.user_roles", "lww"]).done();
    cluster.settled(20);
    cluster.servers[0].stop();
    cluster.servers[0].start();
    support::until("the first server tells of the other rule", 10, || {
        let alerts = cluster.servers[0].status()["alerts"].to_string();
        if alerts.contains("litemesh rules set users.user_roles delete-wins") { Ok(()) } else { Err(alerts) }
    });
    assert!(
        rules(&cluster.servers[0])
            .iter()
            .any(|(place, rule, by)| { place == "users.user_roles." && rule == "lww" && by == "s1" })
    );
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_with_the_way_out() {
    let cluster = Cluster::scouting(1);
    let server = &cluster.servers[0];
    for (place, rule, says) in [
        ("scouting.team", "max", "delete-wins"),
        ("scouting.team.team_number", "delete-wins", "counter"),
        ("scouting.team.id", "counter", "key"),
        ("scouting.match.event_id", "max", "refers to another row"),
        ("scouting.match.event_id", "tree", "same table"),
        ("scouting.nothing", "lww", "preflight"),
        ("nothing.team", "lww", "scouting"),
        ("scouting.team.nothing", "max", "no such column"),
    ] {
        let answer = server.cli(&["rules", "set", place, rule]);
        assert_eq!(answer.code, Some(1), "{place} {rule}: {answer:?}");
        assert!(answer.stderr.contains(says), "{place} {rule}: {}", answer.stderr);
    }
    assert_eq!(server.cli(&["rules", "set", "team", "max"]).code, Some(2));
}
