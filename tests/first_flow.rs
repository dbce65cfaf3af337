//! What a newcomer does first: start a server, invite a second one, write on either, read on the other.
//!
//! What it does not verify: load, faults, conflicts; those have files of their own.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use rusqlite::Connection;
use support::cluster::{Cluster, settled};
use support::dump::{number, texts};
use support::server::Server;
use support::{app, until};
use tempfile::TempDir;

#[test]
fn a_row_written_on_one_server_is_seen_on_the_other() {
    let cluster = Cluster::scouting(2);
    let [first, second] = &cluster.servers[..] else { unreachable!() };
    app(first.database("scouting"), "INSERT INTO team (team_number, team_name) VALUES (555, 'From the first')");
    app(second.database("users"), "INSERT INTO user (username) VALUES ('from-the-second')");
    cluster.settled(20);
    let teams = texts(second.database("scouting"), "SELECT team_name FROM team WHERE team_number = 555");
    assert_eq!(teams, ["From the first"]);
    assert_eq!(number(first.database("users"), "SELECT count(*) FROM user WHERE username = 'from-the-second'"), 1);
}

/// A machine without the application: `--sample` is enough, on both sides.
#[test]
fn two_servers_start_on_the_sample() {
    let root = TempDir::new().unwrap();
    let mut first = Server::new(root.path(), "first");
    first.start_with(&["--sample"]);
    let code = first.invite();
    let mut second = Server::new(root.path(), "second");
    // What the second one starts with is its own sample: made by the same program, so equal in content.
    second.start_with(&["--sample"]);
    second.stop();
    let joined = second.cli(&["join", &code, "--name", "second", "--yes"]);
    if joined.code == Some(0) {
        second.start_with(&["--sample", "--peer", &first.address()]);
        let databases = first.status()["databases"].as_array().unwrap().clone();
        assert_eq!(databases.len(), 2, "the sample is a pair of databases: {databases:?}");
        let digests = |server: &Server| -> Vec<String> {
            let status = server.status();
            status["databases"].as_array().unwrap().iter().map(|database| database["digest"].to_string()).collect()
        };
        until("both hold the same sample", 20, || {
            let (here, there) = (digests(&first), digests(&second));
            if here == there { Ok(()) } else { Err(format!("{here:?} and {there:?}")) }
        });
    } else {
        // A data directory that already belongs to a cluster may refuse; then it has to say what to do.
        assert_eq!(joined.code, Some(1), "{joined:?}");
        assert!(!joined.stderr.trim().is_empty(), "a refusal names its cause");
    }
}

#[test]
fn the_ready_line_and_status_have_their_fixed_fields() {
    let cluster = Cluster::scouting(2);
    let server = &cluster.servers[0];
    assert!(server.address().contains("/p2p/"), "{}", server.address());
    assert!(server.http().starts_with("http://127.0.0.1:"), "{}", server.http());
    let status = server.status();
    let has = |at: &str, fields: &[&str]| {
        let part = status.pointer(at).unwrap_or_else(|| panic!("status lacks {at}: {status}"));
        for field in fields {
            assert!(part.get(field).is_some(), "status lacks {at}/{field}: {part}");
        }
    };
    has("", &["node", "cluster", "databases", "peers", "only_here", "alerts"]);
    has("/node", &["id", "name", "version", "uptime_s", "origin_rank", "slot"]);
    has("/cluster", &["id", "name", "members"]);
    let database = ["name", "path", "tables", "rows", "outbox", "events", "digest", "conflicts", "shelved"];
    has("/databases/0", &[&database[..], &["held_events", "state"]].concat());
    has("/databases/1", &database);
    let peer = ["id", "name", "state", "addresses", "last_seen", "behind", "ahead", "rtt_ms", "clock_skew_ms"];
    has("/peers/0", &[&peer[..], &["score", "band"]].concat());
    has("/only_here", &["events", "rows"]);
    assert_eq!(status["node"]["name"], "s0");
    assert_eq!(status["peers"][0]["name"], "s1");
    assert_eq!(status["node"]["id"].as_str().unwrap(), server.node_id());
}

/// A running node stops within five seconds when asked, and says that it ended well; both signals.
#[test]
fn a_node_stops_when_asked() {
    let mut cluster = Cluster::scouting(1);
    let server = &mut cluster.servers[0];
    server.stop();
    server.start();
    server.signal("-INT");
    server.stop();
}

#[test]
fn preflight_changes_nothing() {
    let cluster = Cluster::unjoined(1, &[("scouting", "scouting.sql"), ("users", "users.sql")], Some("scouting.toml"));
    let server = &cluster.servers[0];
    let schema = |name: &str| texts(server.database(name), "SELECT type || ' ' || name FROM sqlite_master ORDER BY 1");
    let before = (schema("scouting"), schema("users"));
    let mut arguments = vec!["preflight".to_owned()];
    arguments.extend(server.database_flags());
    let answer = server.cli(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).done();
    assert_eq!(before, (schema("scouting"), schema("users")));
    for table in ["team", "observation", "user_roles", "sync_servers"] {
        assert!(answer.stdout.contains(table), "preflight says nothing about {table}:\n{}", answer.stdout);
    }
}

/// The app's own libraries see nothing odd: the id it is told is the id of its row, and no helper row stays.
#[test]
fn the_app_is_told_the_right_ids() {
    let cluster = Cluster::scouting(2);
    let server = &cluster.servers[1];
    let app = Connection::open(server.database("scouting")).unwrap();
    app.busy_timeout(Duration::from_secs(5)).unwrap();
    for turn in 0..50 {
        app.execute("INSERT INTO team (team_number, team_name) VALUES (?1, 'mine')", [10_000 + turn]).unwrap();
        let id = app.last_insert_rowid();
        let number: i64 = app.query_row("SELECT team_number FROM team WHERE id = ?1", [id], |row| row.get(0)).unwrap();
        assert_eq!(number, 10_000 + turn);
        assert_eq!(app.changes(), 1);
    }
    let mine: i64 = app.query_row("SELECT count(*) FROM team WHERE team_name = 'mine'", [], |row| row.get(0)).unwrap();
    let all: i64 = app.query_row("SELECT count(*) FROM team", [], |row| row.get(0)).unwrap();
    assert_eq!((mine, all), (50, 54), "fifty rows of mine beside the four that were there");
    drop(app);
    cluster.settled(20);
}

/// A row travels in far less than a blink when nothing else happens; a loaded machine gets the benefit of the doubt.
#[test]
fn a_single_row_is_not_held_up_by_a_timer() {
    let cluster = Cluster::scouting(2);
    let (first, second) = (&cluster.servers[0], &cluster.servers[1]);
    settled(&[first, second], 20);
    let from = Connection::open(first.database("scouting")).unwrap();
    let to = Connection::open(second.database("scouting")).unwrap();
    from.busy_timeout(Duration::from_secs(5)).unwrap();
    to.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut times: Vec<Duration> = Vec::new();
    for turn in 0..20 {
        from.execute("INSERT INTO event (name, year) VALUES ('quick', ?1)", [3000 + turn]).unwrap();
        let committed = Instant::now();
        until("the row arrives", 10, || {
            let query = "SELECT count(*) FROM event WHERE year = ?1";
            let seen: i64 = to.query_row(query, [3000 + turn], |row| row.get(0)).unwrap();
            if seen == 1 { Ok(()) } else { Err(format!("{seen} rows")) }
        });
        times.push(committed.elapsed());
    }
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_millis(500), "median of {times:?}");
}
