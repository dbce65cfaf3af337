//! Two servers that both have rows meet for the first time: the plan, the yes, and what then happens.
//!
//! What it does not verify: every rule of sameness; the tests beside `src/node/meeting.rs` do that without processes.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::app;
use support::cluster::{Cluster, LOCAL};
use support::dump::{dump, number, texts};

const FIXTURES: [(&str, &str); 2] = [("scouting", "scouting.sql"), ("users", "users.sql")];

fn table<'p>(plan: &'p Value, database: &str, table: &str) -> &'p Value {
    let of = |list: &'p Value, key: &str, name: &str| list.as_array().unwrap().iter().find(|one| one[key] == *name);
    of(&of(&plan["databases"], "name", database).unwrap()["tables"], "table", table).unwrap()
}

/// The joiner has worked on its own: an account of its own, another admin, teams.
fn apart() -> Cluster {
    let mut cluster = Cluster::unjoined(2, &FIXTURES, Some("scouting.toml"));
    let (first, second) = (&cluster.servers[0], &cluster.servers[1]);
    app(first.database("scouting"), "INSERT INTO team (team_number, team_name, marker) VALUES (700, 'theirs', 't')");
    app(second.database("scouting"), "INSERT INTO team (team_number, team_name, marker) VALUES (800, 'mine', 'm')");
    app(
        second.database("users"),
        "UPDATE user SET password_hash = 'mine', created_at = '2025-10-01 08:00:00', is_active = 0 WHERE id = 1;
         INSERT INTO user (username, marker) VALUES ('only-here', 'u')",
    );
    cluster.servers[0].start();
    cluster
}

#[test]
fn the_plan_touches_nothing_and_the_yes_does_what_it_said() {
    let mut cluster = apart();
    let code = cluster.servers[0].invite();
    let server = &cluster.servers[1];
    let flags = server.database_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let before: Vec<_> = server.databases.iter().map(|(_, path)| dump(path, LOCAL)).collect();
    let plan = server.json(&[&["join", &code, "--name", "s1", "--plan"], &flags[..]].concat());
    let after: Vec<_> = server.databases.iter().map(|(_, path)| dump(path, LOCAL)).collect();
    assert_eq!(before, after);
    for (_, path) in &server.databases {
        let traces = "SELECT count(*) FROM sqlite_master WHERE name LIKE '%litemesh%'";
        assert_eq!(number(path, traces), 0, "a plan leaves no trace");
    }
    assert!(!server.data().join("rehearsal").exists(), "the copies are gone");

    let team = table(&plan, "scouting", "team");
    assert_eq!((&team["only_here"], &team["only_there"]), (&Value::from(1), &Value::from(1)), "{team}");
    assert_eq!(team["same_id_different"], 1, "{team}");
    let moved = &team["moves"][0];
    assert_eq!((&moved["rows"], &moved["by"]), (&Value::from(1), &Value::from(2_000_000)), "{team}");
    let user = table(&plan, "users", "user");
    assert_eq!(user["unique"][0]["outcome"], "suffix", "{user}");
    let warnings = plan["warnings"].to_string();
    assert!(warnings.contains("username admin") && warnings.contains("SECRET_KEY"), "{warnings}");

    let refused = cluster.servers[1].try_start(&[]).expect_err("it must not start before somebody said yes");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let text = cluster.servers[1].cli(&[&["join", &code], &flags[..]].concat());
    assert_eq!(text.code, Some(1), "{text:?}");
    assert!(text.stdout.contains("scouting.team: 1 row made here gets +2000000"), "{}", text.stdout);

    cluster.servers[1].cli(&[&["join", &code, "--yes"], &flags[..]].concat()).done();
    let address = cluster.servers[0].address();
    cluster.servers[1].start_with(&["--peer", &address]);
    cluster.connected();
    cluster.settled(30);
    let id = moved["to"].as_i64().unwrap();
    for server in &cluster.servers {
        let name = texts(server.database("scouting"), &format!("SELECT team_name FROM team WHERE id = {id}"));
        assert_eq!(name, ["mine"], "{}", server.name);
        let shown = user["unique"][0]["with"].as_str().unwrap();
        assert_eq!(
            number(server.database("users"), &format!("SELECT count(*) FROM user WHERE username = '{shown}'")),
            1
        );
        // The role that the joiner gave its own admin is still its own admin's.
        let roles = "SELECT count(*) FROM user_roles JOIN user ON user.id = user_id WHERE username LIKE 'admin%'";
        assert_eq!(number(server.database("users"), roles), 2, "{}", server.name);
    }
}

#[test]
fn with_the_file_that_both_began_with_nothing_is_doubled() {
    let mut cluster = Cluster::unjoined(2, &FIXTURES, Some("scouting.toml"));
    let old = cluster.root.path().join("users-old.db");
    support::make(&old, "users.sql");
    app(
        cluster.servers[1].database("users"),
        "UPDATE user SET email = 'pit@example.org' WHERE id = 1; DELETE FROM role WHERE id = 4",
    );
    app(cluster.servers[0].database("users"), "UPDATE user SET password_hash = 'changed there' WHERE id = 1");
    cluster.servers[0].start();
    let base = format!("users={}", old.display());
    cluster.join_with(1, &["--base", &base]);
    let address = cluster.servers[0].address();
    std::fs::remove_file(&old).unwrap();
    cluster.servers[1].start_with(&["--peer", &address]);
    cluster.connected();
    cluster.settled(30);
    for server in &cluster.servers {
        let users = texts(server.database("users"), "SELECT email || ' ' || password_hash FROM user");
        assert_eq!(users, ["pit@example.org changed there"], "{}", server.name);
        assert_eq!(number(server.database("users"), "SELECT count(*) FROM role"), 3, "{}", server.name);
    }
}
