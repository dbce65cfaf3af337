//! Two copies of an app, each used for a day by other people, far from each other; then they meet.
//!
//! Invariant: what each day made is found on both servers afterwards, and every reference leads to the row that was meant
//! when it was written. `LITEMESH_DAY_WRITES=5000` makes the days long; `tests/python/day.py` is a day. Runs on the
//! tables of `fixtures/day_*.sql`, and on a real app's files where they lie beside the repository.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use support::cluster::Cluster;
use support::dump::open;
use support::server::Server;
use support::{beside, python, shipped};

/// What stands in the file: (marker, {what it refers to: marker}), by table.
type Found = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

fn writes() -> String {
    std::env::var("LITEMESH_DAY_WRITES").unwrap_or_else(|_| "300".to_owned())
}

/// Uses one server for a day; gives what must be found afterwards.
fn day(server: &Server) -> Value {
    let script = shipped("python/day.py");
    let (scouting, users) = (server.database("scouting"), server.database("users"));
    let arguments = [
        script.to_str().unwrap(),
        "--scouting",
        scouting.to_str().unwrap(),
        "--users",
        users.to_str().unwrap(),
        "--name",
        &server.name,
        "--writes",
        &writes(),
    ];
    let said = python(&arguments).unwrap_or_else(|reason| panic!("the day of {} failed: {reason}", server.name));
    serde_json::from_str(&said).unwrap()
}

/// Reads a server's files: every row with a marker, and the markers of the rows that it refers to.
fn read(server: &Server) -> Found {
    let file = open(server.database("scouting"));
    file.execute("ATTACH ?1 AS accounts", [server.database("users").to_str().unwrap()]).unwrap();
    let scout = "(SELECT replace(email, '@example.org', '') FROM accounts.user WHERE id = s.scout_id)";
    let queries = [
        ("team", "SELECT location, 'number', team_number FROM team WHERE location LIKE 's_-%'".to_owned()),
        ("event", "SELECT location FROM event WHERE location LIKE 's_-%'".to_owned()),
        (
            "match",
            "SELECT m.red_alliance, 'event', e.location FROM \"match\" m LEFT JOIN event e ON e.id = m.event_id".to_owned(),
        ),
        (
            "scouting_data",
            format!(
                "SELECT json_extract(s.data_json, '$.marker'), 'match', m.red_alliance, 'team', t.location, 'user', {scout}
                 FROM scouting_data s LEFT JOIN \"match\" m ON m.id = s.match_id LEFT JOIN team t ON t.id = s.team_id"
            ),
        ),
        (
            "pit_scouting_data",
            format!(
                "SELECT s.local_id, 'event', e.location, 'team', t.location, 'user', {scout}
                 FROM pit_scouting_data s LEFT JOIN event e ON e.id = s.event_id LEFT JOIN team t ON t.id = s.team_id"
            ),
        ),
        (
            "user",
            "SELECT replace(email, '@example.org', ''), 'username', username FROM accounts.user WHERE email LIKE 's_-%'"
                .to_owned(),
        ),
    ];
    let mut found = Found::new();
    for (table, query) in queries {
        let mut statement = file.prepare(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
        let width = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let of_table = found.entry(table.to_owned()).or_default();
        while let Some(row) = rows.next().unwrap() {
            let text = |at: usize| -> String {
                let value: rusqlite::types::Value = row.get(at).unwrap();
                match value {
                    rusqlite::types::Value::Text(text) => text,
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    other => format!("{other:?}"),
                }
            };
            let meant = (1..width).step_by(2).map(|at| (text(at), text(at + 1))).collect();
            assert!(of_table.insert(text(0), meant).is_none(), "{} is there twice in {table}", text(0));
        }
    }
    found
}

/// Every row of both days is on the server, once, and refers to what was meant.
fn assert_all_there(server: &Server, days: &[Value]) -> usize {
    let found = read(server);
    let mut rows = 0;
    for day in days {
        for (table, expected) in day["rows"].as_object().unwrap() {
            for (marker, meant) in expected.as_object().unwrap() {
                let row = found[table].get(marker);
                let row = row.unwrap_or_else(|| panic!("{table} {marker} is lost on {}", server.name));
                for (what, meant) in meant.as_object().unwrap() {
                    let meant = meant.as_str().map_or_else(|| meant.to_string(), str::to_owned);
                    let tagged = what == "username" && row[what].starts_with(&format!("{meant}~"));
                    assert!(
                        row[what] == meant || tagged,
                        "{table} {marker} on {}: {what} is {}, not {meant}",
                        server.name,
                        row[what]
                    );
                }
                rows += 1;
            }
        }
        for marker in day["deleted"].as_array().unwrap() {
            assert!(!found["scouting_data"].contains_key(marker.as_str().unwrap()), "{marker} came back");
        }
    }
    rows
}

fn conflicts(server: &Server, kind: &str) -> usize {
    let all = server.cli(&["--json", "conflicts", "list"]).done().json_rows();
    all.iter().filter(|conflict| conflict["kind"] == kind).count()
}

/// Two servers with copies of one pair of files: written for these tests, or the real app's.
fn two(files: Option<(&Path, &Path)>) -> Cluster {
    let cluster = Cluster::unjoined(2, &[("scouting", "day_scouting.sql"), ("users", "day_users.sql")], None);
    if let Some((scouting, users)) = files {
        for server in &cluster.servers {
            // Written, not copied: the originals may be read-only.
            std::fs::write(server.database("scouting"), std::fs::read(scouting).unwrap()).unwrap();
            std::fs::write(server.database("users"), std::fs::read(users).unwrap()).unwrap();
        }
    }
    cluster
}

/// The app was used on both before anybody knew of litemesh.
#[allow(clippy::print_stderr)]
fn meet_after_a_day_apart(files: Option<(&Path, &Path)>) {
    let mut cluster = two(files);
    let days: Vec<Value> = cluster.servers.iter().map(day).collect();
    cluster.enrol();
    cluster.settled(120);
    for server in &cluster.servers {
        let rows = assert_all_there(server, &days);
        let (moved, merged) = (conflicts(server, "id"), conflicts(server, "merge"));
        eprintln!("{}: {rows} rows found, {moved} ids moved, {merged} rows became one", server.name);
        server.cli(&["log", "verify"]).done();
    }
}

#[test]
fn two_days_before_the_first_meeting_lose_nothing() {
    meet_after_a_day_apart(None);
}

#[test]
fn two_days_of_the_real_app_lose_nothing() {
    let (Some(scouting), Some(users)) = (beside("real_app/scouting.db"), beside("real_app/users.db")) else { return };
    meet_after_a_day_apart(Some((&scouting, &users)));
}

/// The servers know each other before the day: ids come from runs of their own, and none moves when they meet again.
#[allow(clippy::print_stderr)]
fn a_day_apart_as_members(files: Option<(&Path, &Path)>) {
    let mut cluster = two(files);
    cluster.enrol();
    cluster.settled(120);
    for server in &cluster.servers {
        server.steered("scouting", &["team", "event", "match", "scouting_data", "pit_scouting_data"]);
        server.steered("users", &["user"]);
    }
    cluster.part();
    let days: Vec<Value> = cluster.servers.iter().map(day).collect();
    cluster.heal();
    cluster.settled(120);
    for server in &cluster.servers {
        let rows = assert_all_there(server, &days);
        let moved = conflicts(server, "id");
        eprintln!("{}: {rows} rows found, {moved} ids moved", server.name);
        assert_eq!(moved, 0, "ids of {} moved although both servers have runs of their own", server.name);
    }
}

#[test]
fn a_day_apart_as_members_moves_no_id() {
    a_day_apart_as_members(None);
}

#[test]
fn a_day_apart_of_the_real_app_as_members_moves_no_id() {
    let (Some(scouting), Some(users)) = (beside("real_app/scouting.db"), beside("real_app/users.db")) else { return };
    a_day_apart_as_members(Some((&scouting, &users)));
}
